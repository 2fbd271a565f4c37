//! Elections over a Lease that may be out of reach, in simulated time: whatever happens, no two replicas lead at once.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use client::{Body, Client, LeaderElection, LeaderOptions, body_of, read_body};
use http::{Method, Request, Response};
use serde_json::{Value, json};
use world::{World, sim::SimClock};

/// One Lease, compared on writing as a server does.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    revision: u64,
    /// Who is cut off: its requests hang.
    away: Vec<String>,
}

impl Server {
    fn client(&self, who: &'static str) -> Client {
        let server = self.clone();
        Client::new(tower::service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(who, request).await) }
        }))
    }

    async fn answer(&self, who: &str, request: Request<Body>) -> Response<Body> {
        if self.0.lock().unwrap().away.iter().any(|away| away == who) {
            std::future::pending::<()>().await;
        }
        let method = request.method().clone();
        let body = read_body(request.into_body(), 1 << 20).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut state = self.0.lock().unwrap();
        let (code, answer) = match (method, &state.lease) {
            (Method::GET, None) => (404, json!({"code": 404, "reason": "NotFound"})),
            (Method::GET, Some(lease)) => (200, lease.clone()),
            (Method::POST, Some(_)) => (409, json!({"code": 409, "reason": "AlreadyExists"})),
            (_, Some(lease)) if lease["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                (409, json!({"code": 409, "reason": "Conflict"}))
            }
            _ => {
                state.revision += 1;
                let mut lease = body;
                lease["metadata"]["resourceVersion"] = json!(state.revision.to_string());
                state.lease = Some(lease.clone());
                (200, lease)
            }
        };
        Response::builder()
            .status(code)
            .body(body_of(answer.to_string()))
            .unwrap()
    }

    fn cut_off(&self, who: &[&str]) {
        self.0.lock().unwrap().away = who.iter().map(|who| (*who).to_owned()).collect();
    }
}

const NAMES: [&str; 3] = ["one", "two", "three"];

struct House {
    server: Server,
    clock: Arc<SimClock>,
    elections: Vec<(&'static str, LeaderElection)>,
}

impl House {
    fn open() -> House {
        let (server, clock) = (Server::default(), Arc::new(SimClock::new()));
        let world = World {
            clock: clock.clone(),
            ..World::real()
        };
        let elections = NAMES.map(|name| {
            let options = LeaderOptions::new("kube-system", "loops", name);
            (name, LeaderElection::start(server.client(name), world.clone(), options))
        });
        House {
            server,
            clock,
            elections: elections.into(),
        }
    }

    /// Lets time go by in small steps; at each at most one leads.
    async fn pass(&self, time: Duration) {
        const STEP: Duration = Duration::from_millis(250);
        let mut left = time;
        while !left.is_zero() {
            self.clock.advance(STEP);
            left = left.saturating_sub(STEP);
            self.settle().await;
            assert!(self.leaders().len() <= 1, "{:?} lead at once", self.leaders());
        }
    }

    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    fn leaders(&self) -> Vec<&'static str> {
        let leads = |(_, election): &&(&'static str, LeaderElection)| election.leadership().leads();
        self.elections.iter().filter(leads).map(|(name, _)| *name).collect()
    }
}

#[tokio::test]
async fn one_leads_and_stays() {
    let house = House::open();
    house.settle().await;
    let first = house.leaders();
    assert_eq!(first.len(), 1);

    house.pass(Duration::from_secs(120)).await;

    assert_eq!(house.leaders(), first);
}

#[tokio::test]
async fn a_leader_that_is_cut_off_steps_down_before_another_takes_over() {
    let house = House::open();
    house.settle().await;

    for _ in 0..4 {
        let before = house.leaders();
        house.server.cut_off(&before);
        house.pass(Duration::from_secs(10)).await;
        assert!(house.leaders().is_empty(), "it has given up, and its lease still runs");
        house.pass(Duration::from_secs(10)).await;
        let after = house.leaders();
        assert_eq!(after.len(), 1);
        assert_ne!(after, before);
        house.server.cut_off(&[]);
        house.pass(Duration::from_secs(5)).await;
        assert_eq!(house.leaders(), after, "one that comes back does not take it away");
    }
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_at_once() {
    let mut house = House::open();
    house.settle().await;
    let leader = house.leaders()[0];
    let at = house.elections.iter().position(|(name, _)| *name == leader).unwrap();
    let (_, election) = house.elections.remove(at);

    election.stop().await;
    assert!(house.leaders().is_empty());
    // A retry with its jitter; far less than the lease.
    house.pass(Duration::from_secs(5)).await;

    assert_eq!(house.leaders().len(), 1);
}

#[tokio::test]
async fn while_nobody_reaches_the_server_nobody_leads_and_one_does_after() {
    let house = House::open();
    house.settle().await;
    house.server.cut_off(&NAMES);
    house.pass(Duration::from_secs(60)).await;
    assert!(house.leaders().is_empty());

    house.server.cut_off(&[]);
    house.pass(Duration::from_secs(20)).await;

    assert_eq!(house.leaders().len(), 1);
}
