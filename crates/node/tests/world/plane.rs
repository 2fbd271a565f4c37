//! A plane in memory: enough of the API for one agent, by the same paths and bodies.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use api::{Resource, resource};
use bytes::Bytes;
use client::{Body, Client, body_of};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Key = (String, String, String);

#[derive(Clone)]
pub struct Plane {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<(String, Value)>,
}

struct Inner {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    /// Every write in order, for watches that begin in the past.
    history: Vec<(u64, String, Value)>,
    tokens: u64,
}

struct Asked {
    plural: String,
    namespace: String,
    name: Option<String>,
    sub: Option<String>,
}

impl Plane {
    pub fn new() -> Plane {
        Plane {
            inner: Arc::new(Mutex::new(Inner {
                revision: 1,
                objects: BTreeMap::new(),
                history: Vec::new(),
                tokens: 0,
            })),
            events: broadcast::channel(4096).0,
        }
    }

    pub fn client(&self) -> Client {
        let plane = self.clone();
        Client::new(tower::service_fn(move |request| plane.clone().answer(request)))
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.inner.lock().unwrap().objects.get(&key).cloned()
    }

    pub fn all(&self, plural: &str) -> Vec<Value> {
        let inner = self.inner.lock().unwrap();
        let of = inner.objects.iter().filter(|((kind, ..), _)| kind == plural);
        of.map(|(_, object)| object.clone()).collect()
    }

    /// Waits until `check` holds for the object.
    pub async fn until(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        check: impl Fn(Option<&Value>) -> bool,
    ) -> Option<Value> {
        let mut events = self.events.subscribe();
        let waiting = async {
            loop {
                let now = self.get(plural, namespace, name);
                if check(now.as_ref()) {
                    return now;
                }
                let _ = events.recv().await;
            }
        };
        match tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await {
            Ok(object) => object,
            Err(_) => panic!(
                "{plural} {namespace}/{name} never came to be as expected: {:#}",
                self.get(plural, namespace, name).unwrap_or_default()
            ),
        }
    }

    pub fn put(&self, plural: &str, object: Value) {
        let metadata = &object["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let key = (plural.to_owned(), text("namespace"), text("name"));
        self.store(key, object);
    }

    fn store(&self, key: Key, mut object: Value) -> Value {
        let mut inner = self.inner.lock().unwrap();
        inner.revision += 1;
        let revision = inner.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{revision}"));
        }
        let kind = if inner.objects.insert(key.clone(), object.clone()).is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        let frame = json!({"type": kind, "object": object});
        inner.history.push((revision, key.0.clone(), frame.clone()));
        drop(inner);
        let _ = self.events.send((key.0, frame));
        object
    }

    pub fn remove(&self, plural: &str, namespace: &str, name: &str) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut inner = self.inner.lock().unwrap();
        let Some(mut object) = inner.objects.remove(&key) else {
            return;
        };
        inner.revision += 1;
        let revision = inner.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let frame = json!({"type": "DELETED", "object": object});
        inner.history.push((revision, key.0.clone(), frame.clone()));
        drop(inner);
        let _ = self.events.send((key.0, frame));
    }

    /// What `kubectl delete pod` does.
    pub fn delete_pod(&self, namespace: &str, name: &str, grace_seconds: u64) {
        let mut pod = self.get("pods", namespace, name).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace_seconds);
        self.put("pods", pod);
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let query: BTreeMap<String, String> = request
            .uri()
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.replace("%3D", "=").replace("%2C", ",")))
            .collect();
        let asked = parse(&path);
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let content_type = parts
            .headers
            .get("content-type")
            .map(|value| value.to_str().unwrap().to_owned());
        Ok(self.serve(parts.method, asked, query, body, content_type))
    }

    fn serve(
        &self,
        method: Method,
        asked: Asked,
        query: BTreeMap<String, String>,
        body: Value,
        content_type: Option<String>,
    ) -> Response<Body> {
        let fields = query.get("fieldSelector").cloned().unwrap_or_default();
        let Some(name) = asked.name.clone() else {
            if method == Method::POST {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                let key = (asked.plural, asked.namespace, name);
                if self.inner.lock().unwrap().objects.contains_key(&key) {
                    return failure(409, "AlreadyExists");
                }
                return ok(self.store(key, body));
            }
            if query.contains_key("watch") {
                let from: u64 = query
                    .get("resourceVersion")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0);
                return self.watch(asked, fields, from);
            }
            let inner = self.inner.lock().unwrap();
            let items: Vec<Value> = inner
                .objects
                .iter()
                .filter(|((plural, ..), _)| *plural == asked.plural)
                .map(|(_, object)| object.clone())
                .filter(|object| selected(object, &asked.namespace, &fields))
                .collect();
            return ok(json!({"metadata": {"resourceVersion": inner.revision.to_string()}, "items": items}));
        };
        let key = (asked.plural.clone(), asked.namespace.clone(), name.clone());
        if asked.sub.as_deref() == Some("token") {
            let mut inner = self.inner.lock().unwrap();
            inner.tokens += 1;
            let token = format!(
                "token-{}-{}",
                inner.tokens,
                body["spec"]["boundObjectRef"]["uid"].as_str().unwrap()
            );
            return ok(json!({"status": {"token": token, "expirationTimestamp": "2126-01-01T00:00:00Z"}}));
        }
        let Some(current) = self.get(&key.0, &key.1, &key.2) else {
            return failure(404, "NotFound");
        };
        match method {
            Method::GET => ok(current),
            Method::PATCH => {
                let wanted = &body["metadata"]["uid"];
                if !wanted.is_null() && *wanted != current["metadata"]["uid"] {
                    return failure(409, "Conflict");
                }
                let patched = match content_type.as_deref() {
                    Some("application/strategic-merge-patch+json") => {
                        api::patch::strategic(&resource_of(&asked.plural), &current, &body)
                    }
                    _ => api::patch::merge(&current, &body),
                };
                ok(self.store(key, patched.unwrap()))
            }
            Method::DELETE => {
                let wanted = &body["preconditions"]["uid"];
                if !wanted.is_null() && *wanted != current["metadata"]["uid"] {
                    return failure(409, "Conflict");
                }
                self.remove(&key.0, &key.1, &key.2);
                ok(json!({"kind": "Status", "status": "Success"}))
            }
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    fn watch(&self, asked: Asked, fields: String, from: u64) -> Response<Body> {
        // Subscribed before the past is read; what comes twice is told by its revision.
        let receiver = self.events.subscribe();
        let past: Vec<Value> = {
            let inner = self.inner.lock().unwrap();
            let later = inner
                .history
                .iter()
                .filter(|(at, plural, _)| *at > from && *plural == asked.plural);
            later.map(|(_, _, frame)| frame.clone()).collect()
        };
        let state = (past.into_iter(), receiver, from);
        let frames = futures::stream::unfold(state, move |(mut past, mut receiver, mut seen)| {
            let (plural, namespace, fields) = (asked.plural.clone(), asked.namespace.clone(), fields.clone());
            async move {
                loop {
                    let frame = match past.next() {
                        Some(frame) => frame,
                        None => loop {
                            let (of, frame) = receiver.recv().await.ok()?;
                            if of == plural {
                                break frame;
                            }
                        },
                    };
                    let object = &frame["object"];
                    let at: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                    if at <= seen || !selected(object, &namespace, &fields) {
                        continue;
                    }
                    seen = at;
                    let line = Bytes::from(format!("{frame}\n"));
                    return Some((Ok::<_, client::BoxError>(Frame::data(line)), (past, receiver, seen)));
                }
            }
        });
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

fn resource_of(plural: &str) -> Resource {
    match plural {
        "pods" => resource::PODS,
        "nodes" => resource::NODES,
        other => panic!("no strategic patch of {other} is expected"),
    }
}

fn parse(path: &str) -> Asked {
    let mut parts: Vec<&str> = path.split('/').skip(1).collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let mut namespace = String::new();
    if parts[0] == "namespaces" && parts.len() > 2 {
        namespace = parts[1].to_owned();
        parts.drain(..2);
    }
    Asked {
        plural: parts[0].to_owned(),
        namespace,
        name: parts.get(1).map(|name| (*name).to_owned()),
        sub: parts.get(2).map(|sub| (*sub).to_owned()),
    }
}

fn selected(object: &Value, namespace: &str, fields: &str) -> bool {
    let in_namespace = namespace.is_empty() || object["metadata"]["namespace"] == namespace;
    in_namespace
        && fields.split(',').filter(|field| !field.is_empty()).all(|field| {
            let (path, value) = field.split_once('=').unwrap();
            object
                .pointer(&format!("/{}", path.replace('.', "/")))
                .and_then(Value::as_str)
                == Some(value)
        })
}

fn ok(tree: Value) -> Response<Body> {
    Response::new(body_of(tree.to_string()))
}

fn failure(code: u16, reason: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason});
    let mut response = Response::new(body_of(status.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
