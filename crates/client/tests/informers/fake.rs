//! A server of Pods of one plane, behind the all-planes door, that can be made to misbehave.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use client::{Body, BoxError, Client, body_of};
use futures::channel::mpsc;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};

const PLANE: &str = "aaaaaaaaaaaaaaaa";

#[derive(Clone)]
pub struct Fake(Arc<Mutex<State>>);

type Watcher = mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>;

struct State {
    objects: BTreeMap<String, Value>,
    revision: u64,
    compacted: u64,
    history: Vec<(u64, Value)>,
    watchers: Vec<Watcher>,
    watch_list: bool,
    hold_lists: bool,
    away: bool,
    lists: usize,
    requests: usize,
}

impl Fake {
    pub fn new() -> Fake {
        Fake(Arc::new(Mutex::new(State {
            objects: BTreeMap::new(),
            revision: 1,
            compacted: 0,
            history: Vec::new(),
            watchers: Vec::new(),
            watch_list: true,
            hold_lists: false,
            away: false,
            lists: 0,
            requests: 0,
        })))
    }

    pub fn client(&self) -> Client {
        let fake = self.clone();
        Client::new(tower::service_fn(move |request| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        }))
    }

    pub fn put(&self, name: &str, value: &str) {
        let mut state = self.lock();
        state.revision += 1;
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": name, "namespace": "n", "resourceVersion": state.revision.to_string()}, "value": value});
        let kind = if state.objects.insert(name.to_owned(), object.clone()).is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        state.tell(kind, object);
    }

    pub fn delete(&self, name: &str) {
        let mut state = self.lock();
        state.revision += 1;
        let mut object = state.objects.remove(name).unwrap();
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        state.tell("DELETED", object);
    }

    /// Ends all watches with an error, as a lost connection does.
    pub fn break_watches(&self) {
        for watcher in self.lock().watchers.drain(..) {
            let _ = watcher.unbounded_send(Err("the connection was lost".into()));
        }
    }

    pub fn compact(&self) {
        let mut state = self.lock();
        state.compacted = state.revision;
        state.history.clear();
    }

    pub fn knows_watch_list(&self, knows: bool) {
        self.lock().watch_list = knows;
    }

    pub fn hold_lists(&self, hold: bool) {
        self.lock().hold_lists = hold;
    }

    pub fn go_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// How often everything was asked for.
    pub fn lists(&self) -> usize {
        self.lock().lists
    }

    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        assert_eq!(request.uri().path(), "/planes/*/api/v1/pods");
        let query = request.uri().query().unwrap_or("").to_owned();
        self.lock().requests += 1;
        while self.lock().hold_lists {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut state = self.lock();
        if state.away {
            return refused(503, "ServiceUnavailable");
        }
        if !query.contains("watch=true") {
            state.lists += 1;
            let items: Vec<Value> = state
                .objects
                .values()
                .map(|object| json!({"plane": PLANE, "object": object}))
                .collect();
            let list =
                json!({"kind": "PodList", "metadata": {"resourceVersion": state.revision.to_string()}, "items": items});
            return Response::new(body_of(list.to_string()));
        }
        let (watcher, frames) = mpsc::unbounded();
        if query.contains("sendInitialEvents=true") {
            if !state.watch_list {
                return refused(422, "Invalid");
            }
            state.lists += 1;
            state
                .objects
                .values()
                .for_each(|object| send(&watcher, &frame("ADDED", object)));
            let end = json!({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {
                "resourceVersion": state.revision.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}});
            send(&watcher, &end);
        } else {
            let after = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("resourceVersion="))
                .unwrap();
            let after: u64 = after.parse().unwrap();
            if after < state.compacted {
                return refused(410, "Expired");
            }
            state
                .history
                .iter()
                .filter(|(revision, _)| *revision > after)
                .for_each(|(_, event)| send(&watcher, event));
        }
        state.watchers.push(watcher);
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

impl State {
    fn tell(&mut self, kind: &str, object: Value) {
        let event = frame(kind, &object);
        self.watchers.iter().for_each(|watcher| send(watcher, &event));
        self.history.push((self.revision, event));
    }
}

fn frame(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "plane": PLANE, "object": object})
}

fn send(watcher: &Watcher, event: &Value) {
    let _ = watcher.unbounded_send(Ok(Frame::data(Bytes::from(format!("{event}\n")))));
}

fn refused(code: u16, reason: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "code": code, "reason": reason, "message": reason});
    Response::builder()
        .status(code)
        .body(body_of(status.to_string()))
        .unwrap()
}
