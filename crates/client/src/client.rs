//! Thin verbs over any tower service.

use std::{sync::Arc, time::Duration};

use api::{Object, PlaneId, Resource};
use bytes::Bytes;
use futures::{TryFutureExt, future::BoxFuture, stream::BoxStream};
use http::{Method, Request, Response, header};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tower::ServiceExt;

use crate::{
    Body, BoxError, DeleteOptions, Error, Event, Item, ListOptions, Patch, Refusal, WatchOptions,
    body::{MAX_ANSWER_BYTES, body_of, empty_body, read_body},
    frames::Frames,
    item::Keep,
    query::Query,
};

/// Upstream's informers ask for pages of 500; so do we.
pub(crate) const PAGE_ITEMS: u32 = 500;

/// The server itself gives up after 60 s; a little more leaves its own answer the time to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

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

/// One page of a list.
#[derive(Clone, Debug)]
pub struct List {
    pub resource_version: String,
    pub items: Vec<Object>,
    /// Set if there are more pages.
    pub continue_token: Option<String>,
}

/// One page of a list of all planes.
#[derive(Clone, Debug)]
pub struct Everywhere {
    pub resource_version: String,
    pub items: Vec<(PlaneId, Object)>,
    pub continue_token: Option<String>,
}

/// One page as caches take it.
pub(crate) struct Page {
    pub(crate) resource_version: String,
    pub(crate) items: Vec<Item>,
    pub(crate) continue_token: Option<String>,
}

#[derive(Deserialize)]
struct WireList<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    r#continue: String,
}

#[derive(Deserialize)]
struct WirePlaced<'a> {
    plane: PlaneId,
    #[serde(borrow)]
    object: &'a RawValue,
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

    /// One page; `options.limit` decides how long it may be, the server's whole list otherwise.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<List, Error> {
        let page = self.page(resource, namespace, options).await?;
        Ok(List {
            resource_version: page.resource_version,
            items: page.items.into_iter().map(|item| item.object).collect(),
            continue_token: page.continue_token,
        })
    }

    /// All pages, one after the other.
    pub async fn list_all(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<List, Error> {
        let mut options = options.clone();
        options.limit.get_or_insert(PAGE_ITEMS);
        let mut whole = self.list(resource, namespace, &options).await?;
        while let Some(token) = whole.continue_token.take() {
            options.continue_token = Some(token);
            // Only the first page may name a revision; the token carries it on.
            options.resource_version = None;
            let mut page = self.list(resource, namespace, &options).await?;
            whole.items.append(&mut page.items);
            whole.continue_token = page.continue_token;
            whole.resource_version = page.resource_version;
        }
        Ok(whole)
    }

    /// One page of all planes' objects; call it on [`Client::everywhere`].
    pub async fn list_everywhere(&self, resource: &Resource, options: &ListOptions) -> Result<Everywhere, Error> {
        let page = self.everywhere().page(resource, None, options).await?;
        let placed = page
            .items
            .into_iter()
            .filter_map(|item| Some((item.plane?, item.object)));
        Ok(Everywhere {
            resource_version: page.resource_version,
            items: placed.collect(),
            continue_token: page.continue_token,
        })
    }

    pub(crate) async fn page(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, Error> {
        let path = self.path(&resource.path(namespace, None), &options.query());
        let mut request = self.build(Method::GET, &path, None, empty_body())?;
        if options.metadata_only {
            request
                .headers_mut()
                .insert(header::ACCEPT, header::HeaderValue::from_static(METADATA_LIST));
        }
        let bytes = self.answer(request).await?;
        let decode = |source| Error::Decode { what: "a list", source };
        let list: WireList = serde_json::from_slice(&bytes).map_err(decode)?;
        let keep = keep(options.metadata_only);
        let all_planes = self.is_everywhere();
        let items = list.items.unwrap_or_default().into_iter().map(|raw| {
            if all_planes {
                let placed: WirePlaced = serde_json::from_str(raw.get())?;
                Item::read(Some(placed.plane), owned(placed.object), resource, keep)
            } else {
                Item::read(None, owned(raw), resource, keep)
            }
        });
        Ok(Page {
            items: items.collect::<Result<_, _>>().map_err(decode)?,
            resource_version: list.metadata.resource_version,
            continue_token: Some(list.metadata.r#continue).filter(|token| !token.is_empty()),
        })
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

    pub async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        which: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        let path = self.path(&resource.path(namespace, None), &which.query());
        let request = self.build(Method::DELETE, &path, Some("application/json"), json(&options.body()))?;
        self.answer(request).await.map(drop)
    }

    /// Events of a collection, until the server ends the watch. Dropping the stream ends it on both sides.
    pub async fn watch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<BoxStream<'static, Result<Event, Error>>, Error> {
        let path = self.path(&resource.path(namespace, None), &options.query());
        let mut request = self.build(Method::GET, &path, None, empty_body())?;
        if options.metadata_only {
            request
                .headers_mut()
                .insert(header::ACCEPT, header::HeaderValue::from_static(METADATA));
        }
        // Headers come at once; only the events may take their time.
        let response = in_time(Box::pin(self.request(request))).await?;
        let response = accepted(response).await?;
        let frames = Frames::new(response.into_body());
        let state = (frames, resource.clone(), keep(options.metadata_only));
        Ok(Box::pin(futures::stream::unfold(
            state,
            |(mut frames, resource, keep)| async move {
                let event = match frames.next().await? {
                    Ok(frame) => Event::read(&frame, &resource, keep),
                    Err(error) => Err(error),
                };
                Some((event, (frames, resource, keep)))
            },
        )))
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

    fn path(&self, path: &str, query: &Query) -> String {
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

async fn in_time<T>(work: BoxFuture<'_, Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout { after: REQUEST_TIMEOUT }),
    }
}

/// Turns a refusal into an error.
async fn accepted(response: Response<Body>) -> Result<Response<Body>, Error> {
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

fn json(value: &Value) -> Body {
    body_of(serde_json::to_vec(value).expect("a JSON value always encodes"))
}

fn keep(metadata_only: bool) -> Keep {
    if metadata_only { Keep::Metadata } else { Keep::Whole }
}

/// A list's items outlive its page: a slice of the page would keep all of it alive as long as one item lives.
fn owned(raw: &RawValue) -> Bytes {
    Bytes::copy_from_slice(raw.get().as_bytes())
}
