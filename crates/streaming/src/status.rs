//! Refusals as every Kubernetes client understands them: a `metav1.Status` with code and reason.

use http::{Response, StatusCode, header};
use serde_json::json;

use crate::body::{self, Body};

/// A failure as a `metav1.Status` answer.
pub fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code.as_u16(),
    });
    let mut response = Response::new(body::full(status.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

/// 400: what was asked cannot be done in this way.
pub fn bad_request(message: &str) -> Response<Body> {
    failure(StatusCode::BAD_REQUEST, "BadRequest", message)
}
