//! One frame of a watch.

use api::{PlaneId, Resource};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Item, Refusal, item::Keep};

/// What a watch told. An `ERROR` frame is not an event but the stream's [`Error::Api`].
#[derive(Clone, Debug)]
pub enum Event {
    Added(Item),
    Modified(Item),
    Deleted(Item),
    Bookmark {
        resource_version: String,
        /// Everything that existed has now been told (`sendInitialEvents`).
        initial_events_end: bool,
    },
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default)]
    plane: Option<PlaneId>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    annotations: std::collections::HashMap<String, String>,
}

impl Event {
    pub(crate) fn read(frame: &Bytes, resource: &Resource, keep: Keep) -> Result<Event, Error> {
        let decode = |source| Error::Decode {
            what: "a watch event",
            source,
        };
        let wire: Wire = serde_json::from_slice(frame).map_err(decode)?;
        // The object's bytes stay where they arrived; nothing is copied.
        let bytes = || frame.slice_ref(wire.object.get().as_bytes());
        let item = || Item::read(wire.plane, bytes(), resource, keep).map_err(decode);
        match &*wire.kind {
            "ADDED" => Ok(Event::Added(item()?)),
            "MODIFIED" => Ok(Event::Modified(item()?)),
            "DELETED" => Ok(Event::Deleted(item()?)),
            "BOOKMARK" => {
                let bookmark: Bookmark = serde_json::from_str(wire.object.get()).map_err(decode)?;
                let ends = bookmark.metadata.annotations.get("k8s.io/initial-events-end");
                Ok(Event::Bookmark {
                    resource_version: bookmark.metadata.resource_version,
                    initial_events_end: ends.is_some_and(|ends| ends == "true"),
                })
            }
            _ => {
                let refusal = Refusal::read(StatusCode::INTERNAL_SERVER_ERROR, wire.object.get().as_bytes());
                Err(Error::Api(Box::new(refusal)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::resource::PODS;

    fn read(frame: &'static str) -> Result<Event, Error> {
        Event::read(&Bytes::from_static(frame.as_bytes()), &PODS, Keep::Whole)
    }

    #[test]
    fn an_event_of_the_all_planes_door_names_its_plane() {
        let event = read(
            r#"{"type":"ADDED","plane":"abcdefghijklmnop","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}}"#,
        );

        let Ok(Event::Added(item)) = event else {
            panic!("{event:?}")
        };
        assert_eq!(item.plane.unwrap().as_str(), "abcdefghijklmnop");
        assert_eq!(&*item.name, "a");
    }

    #[test]
    fn the_bookmark_after_the_initial_events_is_recognised() {
        let event = read(
            r#"{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
        );

        assert!(
            matches!(event, Ok(Event::Bookmark { resource_version, initial_events_end: true }) if resource_version == "9")
        );
    }

    #[test]
    fn an_error_frame_is_the_streams_error() {
        let event =
            read(r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#);

        assert!(event.unwrap_err().is_gone());
    }
}
