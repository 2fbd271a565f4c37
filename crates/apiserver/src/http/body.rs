//! Bodies of requests, read whole within a limit.

use api::{Reason, Status, protobuf};
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::Value;

use super::negotiate::BodyEncoding;
use crate::Body;

/// Kubernetes refuses request bodies above 3 MiB (apiserver `MaxRequestBodyBytes`); so do we, with the same answer.
pub const MAX_BODY_BYTES: usize = 3 << 20;

/// How deep a body may be nested: `serde_json`'s own limit, below which nothing that walks a tree can overflow a stack.
/// YAML is held to the same.
const MAX_DEPTH: usize = 128;

/// Reads a body; what is above the limit is refused before it is kept.
pub async fn read(mut body: Body) -> Result<Bytes, Status> {
    let too_large = || {
        Status::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {MAX_BODY_BYTES}"),
        )
    };
    // By what the client announced, if it did; nothing needs to be read to refuse it.
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| bad(format!("the body of the request can't be read: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > MAX_BODY_BYTES {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// A body as JSON text, whatever it came as.
pub fn to_json(bytes: Bytes, encoding: BodyEncoding) -> Result<Bytes, Status> {
    match encoding {
        _ if bytes.is_empty() => Ok(bytes),
        BodyEncoding::Json => Ok(bytes),
        BodyEncoding::Protobuf => match protobuf::decode(&bytes) {
            Ok(tree) => Ok(tree.to_string().into()),
            // Without a kind at all it is no message, rather than one of an unknown kind.
            Err(error @ (protobuf::Error::UnknownKind { .. } | protobuf::Error::Encoding(_))) if !matches!(&error, protobuf::Error::UnknownKind { kind, .. } if kind.is_empty()) => {
                Err(Status::new(Reason::UnsupportedMediaType, error.to_string()))
            }
            Err(error) => Err(bad(error.to_string())),
        },
        BodyEncoding::Yaml => {
            let options = serde_saphyr::options! { budget: serde_saphyr::budget! { max_depth: MAX_DEPTH } };
            let tree: Value = serde_saphyr::from_slice_with_options(&bytes, options).map_err(|error| {
                bad(format!(
                    "error converting YAML to JSON: {}",
                    first_line(&error.to_string())
                ))
            })?;
            Ok(tree.to_string().into())
        }
    }
}

/// The body of a request that is answered at once: an object of that kind.
pub fn object(bytes: &Bytes, api_version: &str, kind: &str) -> Result<Value, Status> {
    let mut tree: Value = serde_json::from_slice(bytes)
        .map_err(|error| bad(format!("couldn't get version/kind; json parse error: {error}")))?;
    if !tree.is_object() {
        return Err(bad("the body of the request is not an object".to_owned()));
    }
    for (field, wanted) in [("apiVersion", api_version), ("kind", kind)] {
        match tree[field].as_str() {
            None | Some("") => tree[field] = wanted.into(),
            Some(given) if given != wanted => {
                return Err(bad(format!(
                    "the {field} in the data ({given}) does not match the expected {field} ({wanted})"
                )));
            }
            Some(_) => {}
        }
    }
    for field in ["metadata", "spec"] {
        if !tree[field].is_object() {
            tree[field] = Value::Object(serde_json::Map::new());
        }
    }
    Ok(tree)
}

fn bad(message: String) -> Status {
    Status::new(Reason::BadRequest, message)
}

/// The parser draws the place of the error below its message.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::full_body;

    #[tokio::test]
    async fn a_body_may_be_as_large_as_upstreams_and_not_a_byte_more() {
        let at = read(full_body(vec![b' '; MAX_BODY_BYTES])).await;
        let above = read(full_body(vec![b' '; MAX_BODY_BYTES + 1])).await;

        assert_eq!(at.unwrap().len(), MAX_BODY_BYTES);
        assert_eq!(above.unwrap_err().code(), 413);
    }

    #[test]
    fn yaml_is_read_and_rubbish_refused() {
        let json = |text: &str| to_json(Bytes::from(text.to_owned()), BodyEncoding::Yaml);

        assert_eq!(
            json("kind: Pod\nmetadata: {name: a}").unwrap(),
            r#"{"kind":"Pod","metadata":{"name":"a"}}"#
        );
        for bad in ["a: b: c", "[".repeat(200).as_str(), "\0", "&a [*a, *a]x"] {
            assert_eq!(json(bad).unwrap_err().code(), 400, "{bad}");
        }
    }

    #[test]
    fn protobuf_is_read_and_what_is_not_known_of_it_refused() {
        let json = |bytes: &'static [u8]| to_json(Bytes::from_static(bytes), BodyEncoding::Protobuf);

        let options = json(b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dDeleteOptions\x12\x02\x08\x05").unwrap();
        assert_eq!(
            options,
            r#"{"apiVersion":"v1","gracePeriodSeconds":5,"kind":"DeleteOptions"}"#
        );
        assert_eq!(json(b"k8s\0\x0a\x0a\x0a\x02v1\x12\x04None").unwrap_err().code(), 415);
        assert_eq!(json(b"{}").unwrap_err().code(), 400);
    }

    #[test]
    fn deep_nesting_is_refused_and_overflows_nothing() {
        let deep = |levels: usize| format!("{{\"spec\":{}{}}}", "[".repeat(levels), "]".repeat(levels));

        let ok = object(&deep(100).into(), "v1", "Thing");
        let refused = object(&deep(100_000).into(), "v1", "Thing");

        assert!(ok.is_ok());
        assert_eq!(refused.unwrap_err().code(), 400);
        assert!(to_json(Bytes::from(deep(100_000)), BodyEncoding::Yaml).is_err());
    }

    #[test]
    fn a_body_of_another_kind_is_refused() {
        let body = Bytes::from_static(br#"{"kind":"Pod","apiVersion":"v1"}"#);

        assert!(object(&body, "v1", "Pod").is_ok());
        assert_eq!(object(&body, "v1", "Binding").unwrap_err().code(), 400);
        assert_eq!(object(&Bytes::from_static(b"[]"), "v1", "Pod").unwrap_err().code(), 400);
    }
}
