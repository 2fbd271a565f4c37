//! Answers: refusals as `Status`, and what all answers have in common.

use std::io::Write;

use api::{Reason, Status, protobuf};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::Value;

use super::negotiate::Encoding;
use crate::{Body, full_body};

/// Upstream compresses answers above this size (`defaultGzipThresholdBytes`), at its fastest level.
const GZIP_FROM_BYTES: u64 = 128 << 10;

/// An object as an answer.
pub fn object(code: StatusCode, tree: &Value) -> Response<Body> {
    json(code, tree.to_string())
}

pub fn json(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "application/json", text)
}

pub fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", text)
}

pub fn with_type(code: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full_body(body));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

pub fn refusal(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = object(code, &status.to_tree());
    if let Some(seconds) = status.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// What every answer carries.
pub fn finish(response: &mut Response<Body>, audit_id: &HeaderValue) {
    let headers = response.headers_mut();
    headers.insert("audit-id", audit_id.clone());
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
}

/// Writes a JSON answer in the encoding that the client wants. What has no such form stays JSON, and says so.
pub async fn encode(response: Response<Body>, encoding: Encoding) -> Result<Response<Body>, Status> {
    if encoding == Encoding::Json || media_type(response.headers()) != "application/json" {
        return Ok(response);
    }
    let failed = |error: String| Status::new(Reason::InternalError, error);
    let (mut parts, body) = response.into_parts();
    let bytes = body
        .collect()
        .await
        .map_err(|error| failed(error.to_string()))?
        .to_bytes();
    let tree: Value = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
    let (encoded, encoding) = match encoding {
        Encoding::Json => (bytes, encoding),
        Encoding::Yaml => {
            let text = serde_saphyr::to_string(&tree).map_err(|error| failed(error.to_string()))?;
            (text.into(), encoding)
        }
        Encoding::Protobuf => match protobuf::encode(&tree) {
            Ok(encoded) => (encoded.into(), encoding),
            Err(error) => {
                tracing::warn!(%error, kind = %tree["kind"], "an answer stays JSON");
                (bytes, Encoding::Json)
            }
        },
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(encoding.content_type()));
    Ok(Response::from_parts(parts, full_body(encoded)))
}

/// The same of a watch's stream, whose frames are whole lines of JSON, an event each.
pub fn encode_watch(response: Response<Body>, encoding: Encoding) -> Response<Body> {
    if encoding != Encoding::Protobuf {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch"),
    );
    let body = body.map_frame(|frame| frame.map_data(|lines| events(&lines).into()));
    Response::from_parts(parts, body.boxed_unsync())
}

fn events(lines: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(lines.len());
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event: Value = serde_json::from_slice(line).unwrap_or_default();
        let encoded = protobuf::encode_event(event["type"].as_str().unwrap_or_default(), &event["object"]);
        let encoded = encoded.or_else(|error| {
            tracing::warn!(%error, kind = %event["object"]["kind"], "an event can't be protobuf");
            let status = Status::new(Reason::InternalError, format!("the event has no protobuf: {error}"));
            protobuf::encode_event("ERROR", &status.to_tree())
        });
        out.extend(encoded.unwrap_or_default());
    }
    out
}

/// Compresses a large answer for a client that takes gzip.
pub async fn compress(request: &HeaderMap, response: Response<Body>) -> Response<Body> {
    let accepts = request
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|coding| coding.trim() == "gzip"));
    let large = response
        .body()
        .size_hint()
        .exact()
        .is_some_and(|size| size >= GZIP_FROM_BYTES);
    if !accepts || !large || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(whole) = body.collect().await else {
        return refusal(&Status::new(Reason::InternalError, "the answer broke off"));
    };
    let whole = whole.to_bytes();
    let mut encoder = GzEncoder::new(Vec::with_capacity(whole.len() / 8), Compression::fast());
    let written = encoder.write_all(&whole).and_then(|()| encoder.finish());
    match written {
        Ok(packed) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            parts
                .headers
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts
                .headers
                .append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            Response::from_parts(parts, full_body(packed))
        }
        Err(_) => Response::from_parts(parts, full_body(whole)),
    }
}

fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
}

/// `Warning: 299 - "text"`, as kubectl prints it. Text that no header can carry is cut.
pub fn warn(headers: &mut HeaderMap, message: &str) {
    let clean: String = message
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            _ => vec![c],
        })
        .collect();
    if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{clean}\"")) {
        headers.append(header::WARNING, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn bytes(response: Response<Body>) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn an_answer_can_be_yaml() {
        let response = object(StatusCode::OK, &json!({"kind": "Pod", "metadata": {"name": "1"}}));

        let response = encode(response, Encoding::Yaml).await.unwrap();

        assert_eq!(media_type(response.headers()), "application/yaml");
        let read: Value = serde_saphyr::from_slice(&bytes(response).await).unwrap();
        assert_eq!(read["metadata"]["name"], "1");
    }

    #[tokio::test]
    async fn only_large_answers_are_compressed_and_only_for_those_who_take_it() {
        let mut gzip = HeaderMap::new();
        gzip.insert(header::ACCEPT_ENCODING, "deflate, gzip".parse().unwrap());
        let large = || json(StatusCode::OK, vec![b' '; 200 << 10]);
        let coding = |response: &Response<Body>| response.headers().contains_key(header::CONTENT_ENCODING);

        assert!(coding(&compress(&gzip, large()).await));
        assert!(!coding(&compress(&HeaderMap::new(), large()).await));
        assert!(!coding(&compress(&gzip, json(StatusCode::OK, "{}")).await));
    }

    #[test]
    fn a_warning_is_one_line_of_plain_text() {
        let mut headers = HeaderMap::new();

        warn(&mut headers, "unknown field \"spec.x\"\nnext");

        assert_eq!(headers[header::WARNING], r#"299 - "unknown field \"spec.x\"next""#);
    }
}
