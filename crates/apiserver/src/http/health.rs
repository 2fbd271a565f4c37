//! `/healthz`, `/livez`, `/readyz`, in upstream's words.

use http::{Response, StatusCode};
use keyspace::{Content, KeyRange, Options, Range};

use super::respond;
use crate::{Body, planes::Plane, query::Query, server::ApiServer};

/// The checks of an endpoint, by name.
fn checks(endpoint: &str) -> &'static [&'static str] {
    match endpoint {
        "readyz" => &["ping", "etcd", "shutdown"],
        _ => &["ping", "etcd"],
    }
}

/// Answers `/<endpoint>` and `/<endpoint>/<check>`; `None` if the path is neither.
pub async fn answer(server: &ApiServer, plane: &Plane, path: &str, query: &Query) -> Option<Response<Body>> {
    let path = path.trim_matches('/');
    let (endpoint, one) = path
        .split_once('/')
        .map_or((path, None), |(endpoint, check)| (endpoint, Some(check)));
    if !matches!(endpoint, "healthz" | "livez" | "readyz") {
        return None;
    }
    if one.is_some_and(|one| !checks(endpoint).contains(&one)) {
        return None;
    }
    let excluded: Vec<&str> = query
        .raw
        .iter()
        .filter(|(key, _)| key == "exclude")
        .map(|(_, value)| value.as_str())
        .collect();
    let mut lines = String::new();
    let mut passed = true;
    for check in checks(endpoint) {
        if one.is_some_and(|one| one != *check) {
            continue;
        }
        if excluded.contains(check) {
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if run(server, plane, check).await {
            lines.push_str(&format!("[+]{check} ok\n"));
        } else {
            passed = false;
            lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
        }
    }
    Some(if !passed {
        lines.push_str(&format!("{endpoint} check failed\n"));
        respond::text(StatusCode::INTERNAL_SERVER_ERROR, lines)
    } else if query.option("verbose").is_some() && one.is_none() {
        lines.push_str(&format!("{endpoint} check passed\n"));
        respond::text(StatusCode::OK, lines)
    } else {
        respond::text(StatusCode::OK, "ok")
    })
}

async fn run(server: &ApiServer, plane: &Plane, check: &str) -> bool {
    match check {
        // The keyspace answers, whatever it is; the name is what probes of upstream ask for.
        "etcd" => {
            let range = Range {
                content: Content::CountOnly,
                ..Range::of(KeyRange::one("/p/root"))
            };
            plane.keyspace.range(range, Options::default()).await.is_ok()
        }
        "shutdown" => !server.stopped().is_cancelled(),
        _ => true,
    }
}
