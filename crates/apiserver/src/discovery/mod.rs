//! What a plane serves, told to clients: discovery in both forms, OpenAPI, version, health, keys for tokens.
//!
//! Start reading at [`answer`], which has every path that is no resource.

mod documents;
mod openapi;
mod version;

use api::{
    Reason, Status,
    discovery::{self, Aggregated, Served},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use serde_json::{Value, json};

pub use documents::{Document, Documents};
pub use version::version;

use crate::{
    Body,
    context::Context,
    empty_body,
    http::{health, negotiate, respond},
    planes::CustomResources,
    server::ApiServer,
    tokens,
};

/// Answers a path that is no resource.
pub async fn answer(
    server: &ApiServer,
    context: &Context,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response<Body>, Status> {
    let plane = &context.plane;
    let path = context.info.path.trim_end_matches('/');
    if let Some(answer) = health::answer(server, plane, path, &context.query).await {
        return Ok(answer);
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(match path.split('/').nth(1) {
            Some("api" | "apis" | "openapi" | "version" | "metrics") => Status::new(
                Reason::MethodNotAllowed,
                "the server does not allow this method on the requested resource",
            ),
            _ => not_found(),
        });
    }
    let custom = server.planes().custom_resources(plane).await?;
    let prefix = openapi::prefix(uri.path(), &context.info.path);
    find(server, context, &custom, path, prefix, headers)?.ok_or_else(not_found)
}

/// The document at a path; `None` if there is none.
fn find(
    server: &ApiServer,
    context: &Context,
    custom: &CustomResources,
    path: &str,
    prefix: &str,
    headers: &HeaderMap,
) -> Result<Option<Response<Body>>, Status> {
    let plane = &context.plane;
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let infos = custom.infos();
    let served = Served {
        group: &|_| true,
        custom: &infos,
    };
    let documents = &server.edge().documents;
    let document = |key: &str, make: &dyn Fn() -> Option<Value>| {
        documents.get(plane, custom, key, || make().map(|tree| Bytes::from(tree.to_string())))
    };
    Ok(match parts.as_slice() {
        [] => Some(respond::object(StatusCode::OK, &root(&served))),
        ["version"] => Some(respond::object(StatusCode::OK, &version())),
        ["metrics"] => Some(respond::with_type(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            server.edge().metrics.render(),
        )),
        [".well-known", "openid-configuration"] => {
            Some(respond::object(StatusCode::OK, &tokens::openid_configuration()))
        }
        ["openid", "v1", "jwks"] => {
            let key = server.edge().authenticator.tokens(plane)?;
            let tree = tokens::openid_keys(&key);
            Some(respond::with_type(
                StatusCode::OK,
                "application/jwk-set+json",
                tree.to_string(),
            ))
        }
        ["openapi", ..] => {
            let path = path.trim_start_matches("/openapi").trim_start_matches('/');
            openapi::answer(path, &served, custom, headers, &context.query, prefix)?
        }
        ["api"] | ["apis"] => Some(top(parts[0], headers, &served, &document)?),
        ["api", version] => document(path, &|| discovery::group_version(&served, "", version)).map(plain),
        ["apis", group] => document(path, &|| discovery::group(&served, group)).map(plain),
        ["apis", group, version] => document(path, &|| discovery::group_version(&served, group, version)).map(plain),
        _ => None,
    })
}

type Make<'a> = dyn Fn(&str, &dyn Fn() -> Option<Value>) -> Option<Document> + Sync + 'a;

/// `/api` and `/apis`, in the form that the client wants most.
fn top(which: &str, headers: &HeaderMap, served: &Served<'_>, document: &Make<'_>) -> Result<Response<Body>, Status> {
    for clause in negotiate::accepted(headers) {
        let form = match (clause.media.as_str(), clause.parameter("as")) {
            ("application/json" | "application/*" | "*/*", None) => None,
            ("application/json", Some("APIGroupDiscoveryList"))
                if clause.parameter("g") == Some("apidiscovery.k8s.io") =>
            {
                match clause.parameter("v") {
                    Some("v2") => Some(Aggregated::V2),
                    Some("v2beta1") => Some(Aggregated::V2Beta1),
                    _ => continue,
                }
            }
            _ => continue,
        };
        let key = format!("/{which} {form:?}");
        let made = document(&key, &|| {
            Some(match (form, which) {
                (None, "api") => discovery::legacy_api(""),
                (None, _) => discovery::legacy_apis(served),
                (Some(form), "api") => discovery::aggregated_api(served, form),
                (Some(form), _) => discovery::aggregated_apis(served, form),
            })
        });
        let made = made.ok_or_else(not_found)?;
        let media = form.map_or("application/json", Aggregated::content_type);
        return Ok(tagged(headers, media, &made));
    }
    Err(negotiate::not_acceptable(&[negotiate::Encoding::Json]))
}

/// A document that a client may have already.
fn tagged(request: &HeaderMap, media: &'static str, document: &Document) -> Response<Body> {
    let tag = format!("\"{}\"", document.etag);
    let has = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let mut response = if has {
        let mut response = Response::new(empty_body());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond::with_type(StatusCode::OK, media, document.bytes.clone())
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn plain(document: Document) -> Response<Body> {
    respond::json(StatusCode::OK, document.bytes)
}

/// `/`: the paths there are.
fn root(served: &Served<'_>) -> Value {
    let mut paths = vec![
        "/.well-known/openid-configuration".to_owned(),
        "/api".to_owned(),
        "/api/v1".to_owned(),
    ];
    paths.push("/apis".to_owned());
    for group in served.groups() {
        paths.push(format!("/apis/{}", group.name));
        for version in &group.versions {
            paths.push(format!("/apis/{}/{version}", group.name));
        }
    }
    for path in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    json!({"paths": paths})
}

fn not_found() -> Status {
    Status::new(Reason::NotFound, "the server could not find the requested resource")
}
