//! A server in memory and a caller who may do everything.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use api::PlaneId;
use apiserver::{ApiServer, ApiServerOptions, Body, Identity, PlaneSpec, ServiceRanges, full_body};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use keyspace::MemoryKeyspace;
use serde_json::Value;
use tower::ServiceExt;
use world::World;

/// Nothing in a test takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub const POD: &str = "/api/v1/namespaces/default/pods";
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub struct House {
    pub server: ApiServer,
    pub shared: Arc<MemoryKeyspace>,
}

impl House {
    pub fn new() -> House {
        let world = World::real();
        let shared = Arc::new(MemoryKeyspace::new(world.clone()));
        let server = ApiServer::new(ApiServerOptions {
            shared: shared.clone(),
            root: Arc::new(MemoryKeyspace::new(world.clone())),
            world,
            pod_backend: None,
            ranges: ServiceRanges::default(),
            advertise: None,
        });
        House { server, shared }
    }

    pub fn root(&self) -> Api {
        Api {
            server: self.server.clone(),
            prefix: String::new(),
        }
    }

    pub fn all(&self) -> Api {
        Api {
            server: self.server.clone(),
            prefix: "/planes/*".to_owned(),
        }
    }

    pub fn of(&self, id: PlaneId) -> Api {
        Api {
            server: self.server.clone(),
            prefix: format!("/planes/{id}"),
        }
    }

    pub async fn tenant(&self, name: &str) -> Api {
        let spec = PlaneSpec {
            name: name.to_owned(),
            ..PlaneSpec::default()
        };
        let record = self.server.planes().create(spec).await.unwrap();
        self.of(record.id)
    }
}

/// One plane, as a superuser.
#[derive(Clone)]
pub struct Api {
    pub server: ApiServer,
    pub prefix: String,
}

impl Api {
    pub async fn send(&self, method: Method, path: &str, content_type: &str, body: String) -> (StatusCode, Value) {
        let response = self.request(method, path, content_type, body).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let tree = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        (status, tree)
    }

    pub async fn request(&self, method: Method, path: &str, content_type: &str, body: String) -> http::Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header("content-type", content_type);
        self.answer(request.body(full_body(body)).unwrap()).await
    }

    /// What is at a path, in a form that is asked for.
    pub async fn get_as(&self, path: &str, accept: &str) -> http::Response<Body> {
        let request = Request::get(format!("{}{path}", self.prefix)).header("accept", accept);
        self.answer(request.body(apiserver::empty_body()).unwrap()).await
    }

    async fn answer(&self, mut request: Request<Body>) -> http::Response<Body> {
        request
            .extensions_mut()
            .insert(Identity::new("tester", &["system:masters"]));
        tokio::time::timeout(PATIENCE, self.server.clone().oneshot(request))
            .await
            .expect("an answer comes")
            .unwrap()
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, "", String::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, "application/json", body.to_string())
            .await
    }

    pub async fn put(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::PUT, path, "application/json", body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::PATCH, path, "application/merge-patch+json", body.to_string())
            .await
    }

    pub async fn strategic(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let media = "application/strategic-merge-patch+json";
        self.send(Method::PATCH, path, media, body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, path, "application/json", String::new()).await
    }

    pub async fn delete_with(&self, path: &str, options: &Value) -> (StatusCode, Value) {
        self.send(Method::DELETE, path, "application/json", options.to_string())
            .await
    }

    /// Creates what has to be creatable.
    pub async fn made(&self, path: &str, body: &Value) -> Value {
        let (status, tree) = self.post(path, body).await;
        assert_eq!(status, 201, "{tree}");
        tree
    }

    pub async fn names(&self, path: &str) -> Vec<String> {
        let (status, list) = self.get(path).await;
        assert_eq!(status, 200, "{list}");
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    pub async fn watch(&self, path: &str) -> Frames {
        let response = self.request(Method::GET, path, "", String::new()).await;
        assert_eq!(response.status(), 200);
        Frames {
            body: response.into_body(),
            read: Vec::new(),
            ready: VecDeque::new(),
        }
    }
}

/// The events of a watch.
pub struct Frames {
    body: Body,
    read: Vec<u8>,
    ready: VecDeque<Value>,
}

impl Frames {
    /// The next event; `None` when the stream ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("an event comes")?;
            self.read.extend_from_slice(&frame.unwrap().into_data().unwrap());
            while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                self.ready.push_back(serde_json::from_slice(&line).unwrap());
            }
        }
    }

    /// `ADDED one`, as tests like to compare it.
    pub async fn short(&mut self) -> String {
        match self.next().await {
            None => "end".to_owned(),
            Some(frame) => format!(
                "{} {}",
                frame["type"].as_str().unwrap(),
                frame["object"]["metadata"]["name"].as_str().unwrap_or("")
            ),
        }
    }
}
