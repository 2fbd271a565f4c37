//! Collections: lists by pages, watches, and deleting many at once.

use api::{Object, PlaneId, Resource};
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Method, header};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Client, DeleteOptions, Error, Event, Item, ListOptions, WatchOptions,
    body::empty_body,
    client::{accepted, in_time, json},
    frames::Frames,
    item::Keep,
};

/// Upstream's informers ask for pages of 500; so do we.
pub(crate) const PAGE_ITEMS: u32 = 500;

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

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
}

fn keep(metadata_only: bool) -> Keep {
    if metadata_only { Keep::Metadata } else { Keep::Whole }
}

/// A list's items outlive its page: a slice of the page would keep all of it alive as long as one item lives.
fn owned(raw: &RawValue) -> Bytes {
    Bytes::copy_from_slice(raw.get().as_bytes())
}
