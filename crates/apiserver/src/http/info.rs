//! What a request is about, read from its method, path and query as upstream's `RequestInfoFactory` reads them.

use api::{Reason, Status};
use http::Method;
use percent_encoding::percent_decode_str;

use crate::{
    context::{PlaneRef, RequestInfo, Verb},
    query::Query,
};

/// A path of more segments is none of ours; the longest that exists has nine and what a proxy appends.
const SEGMENTS_MAX: usize = 128;

/// Splits `/planes/<id>` off a path. The rest always begins with `/`.
pub fn plane_of(path: &str) -> Result<(PlaneRef, &str), Status> {
    let Some(rest) = path.strip_prefix("/planes/") else {
        return Ok((PlaneRef::Root, path));
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (id, rest) = rest.split_at(end);
    let rest = if rest.is_empty() { "/" } else { rest };
    if id == "*" || id.eq_ignore_ascii_case("%2a") {
        return Ok((PlaneRef::All, rest));
    }
    let id = id.parse().map_err(|_| no_plane())?;
    Ok((PlaneRef::One(id), rest))
}

/// Told alike to whoever names a plane that is not there and one that is not well-formed.
pub fn no_plane() -> Status {
    Status::new(Reason::NotFound, "the server could not find the requested resource")
}

/// Reads a request's target. `path` is without the plane's prefix.
pub fn request_info(plane: PlaneRef, method: &Method, path: &str, query: &Query) -> Result<RequestInfo, Status> {
    let path = decode(path)?;
    let mut info = RequestInfo {
        plane,
        verb: Verb::NonResource(method.clone()),
        group: String::new(),
        version: String::new(),
        resource: String::new(),
        subresource: String::new(),
        namespace: None,
        name: None,
        path: path.clone(),
    };
    let trimmed = path.trim_matches('/');
    let parts: Vec<&str> = trimmed.split('/').take(SEGMENTS_MAX + 1).collect();
    if parts.len() > SEGMENTS_MAX {
        return Err(Status::new(Reason::BadRequest, "the path has too many segments"));
    }
    let mut rest: &[&str] = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => {
            info.version = (*version).to_owned();
            rest
        }
        ["apis", group, version, rest @ ..] if !rest.is_empty() => {
            info.group = (*group).to_owned();
            info.version = (*version).to_owned();
            rest
        }
        _ => return Ok(info),
    };
    let mut verb = verb_of(method)?;
    match rest {
        ["watch", more @ ..] if !more.is_empty() => {
            verb = Verb::Watch;
            rest = more;
        }
        ["watch"] => {
            return Err(Status::new(
                Reason::BadRequest,
                "unable to determine kind and namespace from url",
            ));
        }
        _ => {}
    }
    if let ["namespaces", namespace, more @ ..] = rest {
        info.namespace = Some((*namespace).to_owned());
        // `namespaces/x/pods` is about Pods, `namespaces/x/status` about the Namespace.
        if more
            .first()
            .is_some_and(|first| *first != "status" && *first != "finalize")
        {
            rest = more;
        }
    }
    info.resource = rest.first().copied().unwrap_or_default().to_owned();
    info.name = rest
        .get(1)
        .filter(|name| !name.is_empty())
        .map(|name| (*name).to_owned());
    info.subresource = rest.get(2).copied().unwrap_or_default().to_owned();
    if info.name.is_none() {
        verb = match verb {
            Verb::Get if query.watch => Verb::Watch,
            Verb::Get => Verb::List,
            Verb::Delete => Verb::DeleteCollection,
            other => other,
        };
        if matches!(verb, Verb::List | Verb::Watch | Verb::DeleteCollection) {
            info.name = named_by_selector(&query.field_selector);
        }
    }
    // A Namespace lies in no namespace; that roles in it allow to read it is authorization's affair.
    if info.group.is_empty() && info.resource == "namespaces" {
        info.namespace = None;
    }
    info.verb = verb;
    Ok(info)
}

fn verb_of(method: &Method) -> Result<Verb, Status> {
    match *method {
        Method::GET | Method::HEAD => Ok(Verb::Get),
        Method::POST => Ok(Verb::Create),
        Method::PUT => Ok(Verb::Update),
        Method::PATCH => Ok(Verb::Patch),
        Method::DELETE => Ok(Verb::Delete),
        _ => Err(Status::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )),
    }
}

/// A list or watch of `metadata.name=x` is about `x`, so that a role for that name allows it.
fn named_by_selector(selector: &str) -> Option<String> {
    let mut names = selector
        .split(',')
        .filter_map(|term| term.strip_prefix("metadata.name="))
        .map(|name| name.strip_prefix('=').unwrap_or(name));
    let name = names.next()?;
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%', '\\']);
    (plain && names.next().is_none()).then(|| name.to_owned())
}

fn decode(path: &str) -> Result<String, Status> {
    percent_decode_str(path)
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| Status::new(Reason::BadRequest, "the path is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verb group version resource subresource namespace name` of a request.
    fn read(method: &str, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query).unwrap();
        let method: Method = method.parse().unwrap();
        match request_info(PlaneRef::Root, &method, path, &query) {
            Ok(info) => [
                info.verb.as_str(),
                &info.group,
                &info.version,
                &info.resource,
                &info.subresource,
                info.namespace.as_deref().unwrap_or("-"),
                info.name.as_deref().unwrap_or("-"),
            ]
            .join(" "),
            Err(status) => status.code().to_string(),
        }
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        for (method, target, expected) in [
            ("GET", "/api/v1/namespaces", "list  v1 namespaces  - -"),
            ("GET", "/api/v1/namespaces/web", "get  v1 namespaces  - web"),
            (
                "PUT",
                "/api/v1/namespaces/web/finalize",
                "update  v1 namespaces finalize - web",
            ),
            ("GET", "/api/v1/namespaces/web/pods", "list  v1 pods  web -"),
            ("GET", "/api/v1/namespaces/web/pods?watch=true", "watch  v1 pods  web -"),
            (
                "GET",
                "/api/v1/pods?watch=1&fieldSelector=metadata.name%3Done",
                "watch  v1 pods  - one",
            ),
            (
                "GET",
                "/api/v1/pods?fieldSelector=metadata.name%3D..%2Fone",
                "list  v1 pods  - -",
            ),
            ("GET", "/api/v1/watch/namespaces/web/pods", "watch  v1 pods  web -"),
            (
                "GET",
                "/api/v1/watch/namespaces/web/pods/one",
                "watch  v1 pods  web one",
            ),
            ("GET", "/api/v1/watch", "400"),
            (
                "DELETE",
                "/api/v1/namespaces/web/pods",
                "deletecollection  v1 pods  web -",
            ),
            ("DELETE", "/api/v1/namespaces/web/pods/one", "delete  v1 pods  web one"),
            (
                "POST",
                "/api/v1/namespaces/web/pods/one/eviction",
                "create  v1 pods eviction web one",
            ),
            (
                "GET",
                "/api/v1/namespaces/web/pods/one/proxy/a/b",
                "get  v1 pods proxy web one",
            ),
            ("HEAD", "/api/v1/nodes/n1", "get  v1 nodes  - n1"),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/web/deployments/d/scale",
                "patch apps v1 deployments scale web d",
            ),
            ("GET", "/apis/apps/v1", "get     - -"),
            ("GET", "/apis", "get     - -"),
            ("GET", "/api/v1", "get     - -"),
            ("GET", "/", "get     - -"),
            ("POST", "/healthz", "post     - -"),
            ("OPTIONS", "/api/v1/pods", "405"),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get rbac.authorization.k8s.io v1 clusterroles  - system:node",
            ),
            ("GET", "/api/v1/%ff", "400"),
        ] {
            assert_eq!(read(method, target), expected, "{method} {target}");
        }
    }

    #[test]
    fn a_plane_is_named_by_the_path_or_not_at_all() {
        let id = "abcdefghijklmnop";

        assert_eq!(plane_of("/api/v1/pods"), Ok((PlaneRef::Root, "/api/v1/pods")));
        assert_eq!(
            plane_of(&format!("/planes/{id}/api")),
            Ok((PlaneRef::One(id.parse().unwrap()), "/api"))
        );
        assert_eq!(
            plane_of(&format!("/planes/{id}")),
            Ok((PlaneRef::One(id.parse().unwrap()), "/"))
        );
        assert_eq!(plane_of("/planes/*/api/v1/pods"), Ok((PlaneRef::All, "/api/v1/pods")));
        for bad in ["/planes/", "/planes/UPPER/api", "/planes/../api", "/planes//api"] {
            assert_eq!(plane_of(bad).unwrap_err().code(), 404, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_target_breaks_anything(method in "[A-Z]{1,8}", path in "(/[a-z%/.*~0-9]{0,12}){0,12}", query in "\\PC{0,40}") {
            let method: Method = method.parse().unwrap();
            if let Ok(query) = Query::parse(&query)
                && let Ok((plane, path)) = plane_of(&path)
            {
                let _ = request_info(plane, &method, path, &query);
            }
        }
    }
}
