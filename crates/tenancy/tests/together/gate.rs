//! What the syncer asks for, on its way: counted, and for chosen planes refused or never answered.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use api::PlaneId;
use apiserver::{ApiServer, Body, Identity};
use client::Client;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use testkit::planes::PlanesInMemory;
use tokio::sync::watch;
use tower::Service;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Requests are never answered.
    Hangs,
    /// Requests are refused with 503.
    Fails,
}

#[derive(Clone)]
pub struct Gate {
    server: ApiServer,
    state: Arc<State>,
}

struct State {
    trouble: Mutex<Option<(PlaneId, Manner)>>,
    /// Requests that were to change something, but for token requests and the like.
    writes: Mutex<Vec<String>>,
    refused: watch::Sender<Vec<(String, Instant)>>,
    /// Writes to paths that end so wait.
    held_back: watch::Sender<Option<&'static str>>,
}

impl Gate {
    pub fn new(planes: &PlanesInMemory) -> Gate {
        Gate {
            server: planes.server.clone(),
            state: Arc::new(State {
                trouble: Mutex::new(None),
                writes: Mutex::new(Vec::new()),
                refused: watch::Sender::new(Vec::new()),
                held_back: watch::Sender::new(None),
            }),
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.clone())
    }

    /// From now on requests to the plane (not the streams of all planes) go wrong.
    pub fn trouble(&self, plane: PlaneId, manner: Manner) {
        *self.state.trouble.lock().unwrap() = Some((plane, manner));
    }

    pub fn no_trouble(&self) {
        *self.state.trouble.lock().unwrap() = None;
    }

    /// From now on writes to paths that end so are noted, and wait until they are let go.
    pub fn hold_back(&self, end: &'static str) {
        self.state.held_back.send_replace(Some(end));
    }

    pub fn let_go(&self) {
        self.state.held_back.send_replace(None);
    }

    pub fn forget_writes(&self) {
        self.state.writes.lock().unwrap().clear();
    }

    pub fn writes(&self) -> Vec<String> {
        self.state.writes.lock().unwrap().clone()
    }

    /// Waits until requests whose path ends so have been refused so many times; returns the pauses between.
    pub async fn pauses(&self, end: &str, count: usize) -> Vec<Duration> {
        let moments = |refused: &Vec<(String, Instant)>| -> Vec<Instant> {
            let ours = refused.iter().filter(|(path, _)| path.ends_with(end));
            ours.map(|(_, at)| *at).take(count).collect()
        };
        let mut refused = self.state.refused.subscribe();
        let refused = refused.wait_for(|refused| moments(refused).len() == count).await;
        let moments = moments(&refused.unwrap());
        moments.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let writes = request.method() != Method::GET;
        if writes {
            self.state
                .writes
                .lock()
                .unwrap()
                .push(format!("{} {path}", request.method()));
        }
        let trouble = *self.state.trouble.lock().unwrap();
        match trouble.filter(|(plane, _)| path.starts_with(&format!("/planes/{plane}/"))) {
            Some((_, Manner::Hangs)) => return Box::pin(std::future::pending()),
            Some((_, Manner::Fails)) => {
                self.state
                    .refused
                    .send_modify(|refused| refused.push((path, Instant::now())));
                let mut response = Response::new(apiserver::full_body("down"));
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                return Box::pin(async { Ok(response) });
            }
            None => {}
        }
        request
            .extensions_mut()
            .insert(Identity::new("syncer", &["system:masters", "system:authenticated"]));
        let answer = self.server.call(request);
        let mut held_back = self.state.held_back.subscribe();
        Box::pin(async move {
            let free = |end: &Option<&str>| !writes || end.is_none_or(|end| !path.ends_with(end));
            // The gate, and what it holds back, outlives whoever waits at it.
            drop(held_back.wait_for(free).await);
            answer.await
        })
    }
}
