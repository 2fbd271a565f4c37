//! Thin verbs over any tower service.

use std::{sync::Arc, time::Duration};

use api::{Object, PlaneId, Resource};
use bytes::Bytes;
use futures::{TryFutureExt, future::BoxFuture};
use http::{Method, Request, Response, header};
use serde_json::{Value, value::RawValue};
use tower::ServiceExt;

use crate::{
    Body, BoxError, DeleteOptions, Error, Patch, Refusal,
    body::{MAX_ANSWER_BYTES, body_of, empty_body, read_body},
    query::Query,
};

/// The server itself gives up after 60 s; a little more leaves its own answer the time to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);

/// What a [`Client`] speaks to, its type forgotten. (Not tower's own boxes: through them the compiler no longer sees that
/// a future is `Send`, rust#100013.)
trait Transport: Send + Sync {
    fn call(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, BoxError>>;
}

struct OfService<S>(S);

impl<S> Transport for OfService<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    fn call(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
        Box::pin(self.0.clone().oneshot(request).map_err(Into::into))
    }
}

/// Requests to one plane (or, behind [`Client::everywhere`], to all planes of a keyspace). Cheap to clone, no task of
/// its own.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    /// What comes before `/api` and `/apis`.
    prefix: Arc<str>,
    /// Who writes, for `managedFields`; `User-Agent` too.
    manager: Arc<str>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.prefix)
    }
}

impl Client {
    /// Over any service: in process the router, in tests a closure, across the network [`Client::from_kubeconfig`].
    pub fn new<S>(service: S) -> Client
    where
        S: tower::Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
    {
        Client {
            transport: Arc::new(OfService(service)),
            prefix: "".into(),
            manager: "mangrove".into(),
        }
    }

    /// The same service, seen from inside one tenant plane.
    pub fn plane(&self, id: PlaneId) -> Client {
        self.under(&format!("/planes/{id}"))
    }

    /// The all-planes door of the same service: lists and watches only.
    pub fn everywhere(&self) -> Client {
        self.under("/planes/*")
    }

    fn under(&self, prefix: &str) -> Client {
        Client {
            prefix: prefix.into(),
            ..self.clone()
        }
    }

    /// The same client, writing under another name (`fieldManager` and `User-Agent`).
    pub fn with_manager(&self, manager: &str) -> Client {
        Client {
            manager: manager.into(),
            ..self.clone()
        }
    }

    pub async fn get(&self, resource: &Resource, namespace: Option<&str>, name: &str) -> Result<Object, Error> {
        self.object(Method::GET, resource.path(namespace, Some(name)), None, empty_body())
            .await
    }

    pub(crate) fn is_everywhere(&self) -> bool {
        &*self.prefix == "/planes/*"
    }

    pub async fn create(&self, resource: &Resource, namespace: Option<&str>, body: &Value) -> Result<Object, Error> {
        self.object(Method::POST, resource.path(namespace, None), None, json(body))
            .await
    }

    /// `binding`, `token`, `eviction`, ...
    pub async fn create_sub(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> Result<Object, Error> {
        let path = format!("{}/{subresource}", resource.path(namespace, Some(name)));
        self.object(Method::POST, path, None, json(body)).await
    }

    pub async fn get_sub(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
    ) -> Result<Object, Error> {
        let path = format!("{}/{subresource}", resource.path(namespace, Some(name)));
        self.object(Method::GET, path, None, empty_body()).await
    }

    pub async fn update(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        body: &Value,
    ) -> Result<Object, Error> {
        self.object(Method::PUT, resource.path(namespace, Some(name)), None, json(body))
            .await
    }

    pub async fn update_sub(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> Result<Object, Error> {
        let path = format!("{}/{subresource}", resource.path(namespace, Some(name)));
        self.object(Method::PUT, path, None, json(body)).await
    }

    pub async fn patch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        patch: &Patch,
    ) -> Result<Object, Error> {
        let path = resource.path(namespace, Some(name));
        self.object(Method::PATCH, path, Some(patch.content_type()), json(patch.body()))
            .await
    }

    pub async fn patch_sub(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        patch: &Patch,
    ) -> Result<Object, Error> {
        let path = format!("{}/{subresource}", resource.path(namespace, Some(name)));
        self.object(Method::PATCH, path, Some(patch.content_type()), json(patch.body()))
            .await
    }

    /// Asks for the deletion; with finalizers or a grace period the object is still there afterwards.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        let path = self.path(&resource.path(namespace, Some(name)), &Query::default());
        let request = self.build(Method::DELETE, &path, Some("application/json"), json(&options.body()))?;
        self.answer(request).await.map(drop)
    }

    /// A path below this client's plane, with its query: `client.raw(Method::GET, "/version")`. The whole answer.
    pub async fn raw(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, Error> {
        let path = format!("{}{path}", self.prefix);
        let body_bytes = body.map_or_else(empty_body, json);
        let request = self.build(method, &path, body.map(|_| "application/json"), body_bytes)?;
        self.answer(request).await
    }

    /// Sends a request as it is, with the path taken whole, and gives the answer as it comes (upgrades and refusals
    /// too).
    pub async fn request(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        self.transport
            .call(request)
            .await
            .map_err(|source| Error::Transport { source })
    }

    /// What comes before `/api` in this client's paths, for [`Client::request`].
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn path(&self, path: &str, query: &Query) -> String {
        format!("{}{path}{}", self.prefix, query.as_str())
    }

    pub(crate) fn build(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        body: Body,
    ) -> Result<Request<Body>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, &*self.manager);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        Ok(request.body(body)?)
    }

    async fn object(
        &self,
        method: Method,
        path: String,
        content_type: Option<&'static str>,
        body: Body,
    ) -> Result<Object, Error> {
        let mut query = Query::default();
        if method != Method::GET {
            query.text("fieldManager", Some(&self.manager));
        }
        let content_type = content_type.or((method != Method::GET).then_some("application/json"));
        let request = self.build(method, &self.path(&path, &query), content_type, body)?;
        let bytes = self.answer(request).await?;
        // Checked to be JSON here so that the lazy tree of an object is never silently empty.
        let _: &RawValue = serde_json::from_slice(&bytes).map_err(|source| Error::Decode {
            what: "an object",
            source,
        })?;
        Ok(Object::from_stored(bytes))
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Result<Bytes, Error> {
        in_time(Box::pin(async {
            let response = accepted(self.request(request).await?).await?;
            read_body(response.into_body(), MAX_ANSWER_BYTES).await
        }))
        .await
    }
}

pub(crate) async fn in_time<T>(work: BoxFuture<'_, Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout { after: REQUEST_TIMEOUT }),
    }
}

/// Turns a refusal into an error.
pub(crate) async fn accepted(response: Response<Body>) -> Result<Response<Body>, Error> {
    /// A `Status` is small; what a proxy in between may say is cut.
    const MAX_REFUSAL_BYTES: usize = 1 << 20;
    let status = response.status();
    if status.is_success() || status.is_informational() {
        return Ok(response);
    }
    let body = read_body(response.into_body(), MAX_REFUSAL_BYTES)
        .await
        .unwrap_or_default();
    Err(Error::Api(Box::new(Refusal::read(status, &body))))
}

pub(crate) fn json(value: &Value) -> Body {
    body_of(serde_json::to_vec(value).expect("a JSON value always encodes"))
}
