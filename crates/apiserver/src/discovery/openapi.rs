//! `/openapi/v2` and `/openapi/v3`. Documents are large and asked for seldom: clients keep them by their hash, so here
//! they are unpacked for each answer and not kept.

use api::{
    Status,
    discovery::Served,
    openapi::{self, Custom, V2_PROTOBUF, V2_PROTOBUF_ANSWER},
};
use http::{HeaderMap, HeaderValue, Response, header};

use super::{Document, tagged};
use crate::{Body, http::negotiate, planes::CustomResources, query::Query};

/// A document that was asked for by its hash never changes (upstream says so for a year).
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// What stands after `/openapi/`; `None` if nothing is there.
pub fn answer(
    path: &str,
    served: &Served<'_>,
    custom: &CustomResources,
    headers: &HeaderMap,
    query: &Query,
    prefix: &str,
) -> Result<Option<Response<Body>>, Status> {
    let custom: Vec<Custom<'_>> = custom
        .served
        .iter()
        .map(|custom| Custom {
            info: &custom.info,
            list_kind: &custom.list_kind,
            schema: &custom.schema,
        })
        .collect();
    match path {
        "v2" => v2(&custom, headers).map(Some),
        "v3" => {
            wants_json(headers)?;
            let index = openapi::v3_index(served, &custom, prefix);
            Ok(Some(tagged(
                headers,
                "application/json",
                &Document::new(index.to_string()),
            )))
        }
        _ => {
            let Some(bytes) = path
                .strip_prefix("v3/")
                .and_then(|path| openapi::v3_document(served, &custom, path))
            else {
                return Ok(None);
            };
            wants_json(headers)?;
            let hash = openapi::hash(&bytes);
            let document = Document {
                etag: hash.as_str().into(),
                bytes,
            };
            let mut response = tagged(headers, "application/json", &document);
            if query.option("hash") == Some(&hash) {
                let headers = response.headers_mut();
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(FOR_EVER));
            }
            Ok(Some(response))
        }
    }
}

fn v2(custom: &[Custom<'_>], headers: &HeaderMap) -> Result<Response<Body>, Status> {
    for clause in negotiate::accepted(headers) {
        match clause.media.as_str() {
            V2_PROTOBUF | V2_PROTOBUF_ANSWER => {
                return Ok(tagged(
                    headers,
                    V2_PROTOBUF_ANSWER,
                    &Document::new(openapi::v2_protobuf(custom)),
                ));
            }
            "application/json" | "application/*" | "*/*" => {
                return Ok(tagged(
                    headers,
                    "application/json",
                    &Document::new(openapi::v2_json(custom)),
                ));
            }
            _ => {}
        }
    }
    Err(negotiate::not_acceptable(&[negotiate::Encoding::Json]))
}

/// v3 is served as JSON alone.
fn wants_json(headers: &HeaderMap) -> Result<(), Status> {
    let clauses = negotiate::accepted(headers);
    let json = |media: &str| matches!(media, "application/json" | "application/*" | "*/*");
    if clauses.iter().any(|clause| json(&clause.media)) {
        return Ok(());
    }
    Err(negotiate::not_acceptable(&[negotiate::Encoding::Json]))
}

/// What stands in a request's path before the plane's own paths: in the index's URLs too, for clients that take them
/// as they are.
pub fn prefix<'a>(whole: &'a str, own: &str) -> &'a str {
    whole.strip_suffix(own).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::http::respond;

    fn ask(path: &str, accept: &str, query: &str) -> Option<Response<Body>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let custom = CustomResources::none(Default::default());
        let query = Query::parse(query).unwrap();
        answer(path, &Served::BUILT_IN, &custom, &headers, &query, "")
            .unwrap_or_else(|status| Some(respond::refusal(&status)))
    }

    #[test]
    fn v2_comes_as_protobuf_to_those_who_take_nothing_else() {
        let response = ask("v2", V2_PROTOBUF, "").unwrap();

        assert_eq!(response.headers()[header::CONTENT_TYPE], V2_PROTOBUF_ANSWER);
        assert_eq!(ask("v2", "text/html", "").unwrap().status(), StatusCode::NOT_ACCEPTABLE);
    }

    #[test]
    fn a_v3_document_asked_for_by_its_hash_may_be_kept_for_ever() {
        let plain = ask("v3/apis/apps/v1", "application/json", "").unwrap();
        let tag = plain.headers()[header::ETAG]
            .to_str()
            .unwrap()
            .trim_matches('"')
            .to_owned();
        let hashed = ask("v3/apis/apps/v1", "*/*", &format!("hash={tag}")).unwrap();

        assert!(!plain.headers().contains_key(header::CACHE_CONTROL));
        assert_eq!(hashed.headers()[header::CACHE_CONTROL], FOR_EVER);
        assert!(ask("v3/apis/nothing/v1", "application/json", "").is_none());
    }

    #[test]
    fn the_prefix_is_what_the_plane_does_not_see() {
        assert_eq!(prefix("/planes/x/openapi/v3", "/openapi/v3"), "/planes/x");
        assert_eq!(prefix("/openapi/v3", "/openapi/v3"), "");
    }
}
