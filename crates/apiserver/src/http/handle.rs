//! A request's whole way: who asks, for what, may they, and then the answer.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use api::{Reason, Status};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use streaming::Subresource;

use super::{
    body,
    held::hold,
    info,
    limits::{self, Inflight},
    metrics::{self, Metrics},
    negotiate::{self, Agreed, Encoding, Streamed},
    respond,
};
use crate::{
    Body,
    authn::{self, Authenticator, ClientChain},
    authz::{self, Attributes, Authorizer, SUPERUSERS},
    context::{Context, Form, Identity, PlaneRef, RequestInfo, Verb},
    discovery::{self, Documents},
    full_body,
    query::Query,
    registry::meta,
    server::ApiServer,
    tokens,
};

/// Upstream's `--request-timeout`.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client's own `Audit-ID` is taken up to this length.
const AUDIT_ID_MAX: usize = 64;

/// By which door a request came; put on it by the listener. In-process callers have none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// The path names the plane.
    People,
    /// The address that was dialled named the plane; the path can't.
    Pods(PlaneRef),
}

/// What the edge keeps between requests, for all planes.
#[derive(Default)]
pub struct Edge {
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub metrics: Arc<Metrics>,
    pub(crate) documents: Documents,
    inflight: Inflight,
}

impl tower::Service<Request<Body>> for ApiServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(handle(&server, request).await) })
    }
}

/// Answers a request, whatever happens.
pub async fn handle(server: &ApiServer, request: Request<Body>) -> Response<Body> {
    let world = server.planes().world();
    let began = world.clock.monotonic();
    let audit_id = audit_id(request.headers(), &*world.random);
    let accept_encoding = request.headers().get(header::ACCEPT_ENCODING).cloned();
    let mut about = None;
    // A panic is a bug of ours, and one request's: the others of its connection go on.
    let outcome = AssertUnwindSafe(answer(server, request, &mut about))
        .catch_unwind()
        .await;
    let mut response = match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => respond::refusal(&status),
        Err(_) => {
            tracing::error!(about = ?about, "a request panicked");
            respond::refusal(&Status::new(
                Reason::InternalError,
                "Internal error occurred: the server panicked",
            ))
        }
    };
    if let Some(accept_encoding) = accept_encoding {
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accept_encoding)]);
        response = respond::compress(&headers, response).await;
    }
    respond::finish(&mut response, &audit_id);
    let took = world.clock.monotonic().saturating_sub(began);
    server
        .edge()
        .metrics
        .observe(about.as_ref(), response.status().as_u16(), took);
    response
}

async fn answer(
    server: &ApiServer,
    request: Request<Body>,
    about: &mut Option<RequestInfo>,
) -> Result<Response<Body>, Status> {
    let edge = server.edge();
    let planes = server.planes();
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let inside = request.extensions().get::<Identity>().cloned();
    let (plane_ref, path) = match request.extensions().get::<Door>() {
        Some(Door::Pods(_)) if request.uri().path().starts_with("/planes/") => return Err(info::no_plane()),
        Some(Door::Pods(plane)) => (*plane, request.uri().path()),
        Some(Door::People) | None => info::plane_of(request.uri().path())?,
    };
    let info = info::request_info(plane_ref, request.method(), path, &query)?;
    *about = Some(info.clone());
    let plane = match (plane_ref, &inside) {
        (PlaneRef::One(id), _) => planes.open(id).await.map_err(|status| match status.reason {
            Reason::NotFound => info::no_plane(),
            _ => status,
        })?,
        (PlaneRef::Root, _) | (PlaneRef::All, Some(_)) => planes.root().await?,
        // The all-planes door is not on the network.
        (PlaneRef::All, None) => return Err(info::no_plane()),
    };
    let user = match inside {
        Some(identity) => identity,
        None => {
            let chain = request.extensions().get::<ClientChain>();
            edge.authenticator
                .authenticate(planes, &plane, chain, request.headers())
                .await?
        }
    };
    let user = authn::impersonate(&edge.authorizer, planes, &plane, user, request.headers()).await?;
    let attributes = Attributes::of(&info);
    if plane_ref == PlaneRef::All && !user.in_group(SUPERUSERS) {
        return Err(attributes.forbidden(&user, "the door to all planes is for superusers"));
    }
    edge.authorizer.require(planes, &plane, &user, &attributes).await?;

    let duration = duration(&info, &query);
    // In-process loops wait for nobody, or a busy tenant would stop what makes it less busy.
    let in_process = request.extensions().get::<Identity>().is_some();
    let place = match in_process {
        true => None,
        false => Some(edge.inflight.enter(plane.id, duration)?),
    };
    let context = Context {
        manager: manager(&info, &query, request.headers()),
        plane,
        user,
        info,
        query,
        form: Form::Object,
        in_process,
    };
    match duration {
        limits::Duration::Long => {
            let running = metrics::LongRunning::begin(&edge.metrics, context.info.verb.as_str());
            let response = Box::pin(dispatch(server, context, request)).await?;
            // A watch is under way for as long as its body is.
            Ok(response.map(|body| hold(body, (place, running))))
        }
        limits::Duration::Short => {
            let _place = place;
            let limit = timeout(&context.query);
            tokio::select! {
                // Boxed: what is selected from is moved, and this is large.
                response = Box::pin(dispatch(server, context, request)) => response,
                () = planes.world().clock.sleep(limit) => Err(Status::new(
                    Reason::Timeout,
                    "Timeout: request did not complete within the allotted timeout",
                )),
            }
        }
    }
}

async fn dispatch(server: &ApiServer, mut context: Context, request: Request<Body>) -> Result<Response<Body>, Status> {
    if !context.info.is_resource() {
        return discovery::answer(server, &context, request.method(), request.uri(), request.headers()).await;
    }
    if streams(&context.info) {
        return server.registry().handle(context, request).await;
    }
    let watch = if context.info.verb == Verb::Watch {
        Streamed::Yes
    } else {
        Streamed::No
    };
    let RequestInfo {
        group,
        version,
        resource,
        ..
    } = &context.info;
    // Definitions make kinds that no message is known for.
    let messages = api::table::find(group, version, resource).is_some();
    let Agreed { encoding, form } = negotiate::agree(request.headers(), &context.query, watch, messages)?;
    context.form = form;
    let request = take_body(&context.info, request).await?;
    let response = match review_of(&context.info) {
        Some(review) => answer_review(server, &context, review, request).await?,
        None => server.registry().handle(context, request).await?,
    };
    match watch {
        Streamed::Yes => Ok(respond::encode_watch(response, encoding)),
        Streamed::No => respond::encode(response, encoding).await,
    }
}

/// Under which name a write is noted.
fn manager(info: &RequestInfo, query: &Query, headers: &HeaderMap) -> String {
    if info.verb.is_read() || !query.field_manager.is_empty() {
        return query.field_manager.clone();
    }
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    api::apply::manager_of_user_agent(user_agent.unwrap_or_default())
}

/// Reads the body within its limits and makes JSON of YAML. A patch's type says how it is meant; the registry reads it.
async fn take_body(info: &RequestInfo, request: Request<Body>) -> Result<Request<Body>, Status> {
    if info.verb.is_read() {
        return Ok(request);
    }
    let (mut parts, incoming) = request.into_parts();
    let bytes = body::read(incoming).await?;
    if info.verb != Verb::Patch && !bytes.is_empty() {
        let encoding = negotiate::body_encoding(&parts.headers)?;
        let json = body::to_json(bytes, encoding)?;
        parts.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(Encoding::Json.content_type()),
        );
        return Ok(Request::from_parts(parts, full_body(json)));
    }
    Ok(Request::from_parts(parts, full_body(bytes)))
}

/// Objects that are only asked, never stored, and that the edge can answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Review {
    Authorization(&'static str),
    Authentication(&'static str),
    Token,
}

fn review_of(info: &RequestInfo) -> Option<Review> {
    if info.verb != Verb::Create {
        return None;
    }
    match (&*info.group, &*info.version, &*info.resource, &*info.subresource) {
        ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "") => {
            Some(Review::Authorization("SelfSubjectAccessReview"))
        }
        ("authorization.k8s.io", "v1", "subjectaccessreviews", "") => {
            Some(Review::Authorization("SubjectAccessReview"))
        }
        ("authorization.k8s.io", "v1", "localsubjectaccessreviews", "") => {
            Some(Review::Authorization("LocalSubjectAccessReview"))
        }
        ("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "") => {
            Some(Review::Authorization("SelfSubjectRulesReview"))
        }
        ("authentication.k8s.io", "v1", "selfsubjectreviews", "") => Some(Review::Authentication("SelfSubjectReview")),
        ("authentication.k8s.io", "v1", "tokenreviews", "") => Some(Review::Authentication("TokenReview")),
        ("", "v1", "serviceaccounts", "token") => Some(Review::Token),
        _ => None,
    }
}

async fn answer_review(
    server: &ApiServer,
    context: &Context,
    review: Review,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let edge = server.edge();
    let planes = server.planes();
    let Context { plane, user, info, .. } = context;
    let bytes = collected(request.into_body()).await?;
    let answer = match review {
        Review::Authorization(kind) => {
            let asked = body::object(&bytes, "authorization.k8s.io/v1", kind)?;
            let namespace = info.namespace.as_deref();
            authz::reviews::answer(&edge.authorizer, planes, plane, user, &info.resource, namespace, asked).await?
        }
        Review::Authentication(kind) => {
            let asked = body::object(&bytes, "authentication.k8s.io/v1", kind)?;
            authn::reviews::answer(&edge.authenticator, planes, plane, user, &info.resource, asked).await?
        }
        Review::Token => {
            let asked = body::object(&bytes, "authentication.k8s.io/v1", "TokenRequest")?;
            let (namespace, name) = (info.namespace.as_deref(), info.name.as_deref());
            let (Some(namespace), Some(name)) = (namespace, name) else {
                return Err(Status::new(
                    Reason::BadRequest,
                    "a token needs a namespace and a service account",
                ));
            };
            let key = edge.authenticator.tokens(plane)?;
            tokens::request(planes, plane, &key, namespace, name, asked).await?
        }
    };
    Ok(respond::object(StatusCode::CREATED, &answer))
}

async fn collected(body: Body) -> Result<Bytes, Status> {
    let collected = body.collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| Status::new(Reason::BadRequest, error.to_string()))
}

/// Streams into Pods, and what is passed on as it is.
fn streams(info: &RequestInfo) -> bool {
    info.subresource == "proxy"
        || (info.group.is_empty() && info.resource == "pods" && Subresource::parse(&info.subresource).is_some())
}

fn duration(info: &RequestInfo, query: &Query) -> limits::Duration {
    let follows = info.subresource == "log" && !matches!(query.option("follow"), None | Some("false" | "0"));
    let long = info.verb == Verb::Watch || (streams(info) && (info.subresource != "log" || follows));
    if long {
        limits::Duration::Long
    } else {
        limits::Duration::Short
    }
}

/// `?timeout=10s` shortens the server's own.
fn timeout(query: &Query) -> Duration {
    query
        .option("timeout")
        .and_then(go_duration)
        .filter(|wanted| !wanted.is_zero())
        .map_or(TIMEOUT, |wanted| wanted.min(TIMEOUT))
}

/// As much of Go's durations as clients send: `32s`, `500ms`, `1m0s`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = &rest[unit_end..];
    }
    Some(total)
}

fn audit_id(headers: &HeaderMap, random: &dyn world::Random) -> HeaderValue {
    if let Some(given) = headers.get("audit-id")
        && (1..=AUDIT_ID_MAX).contains(&given.len())
    {
        return given.clone();
    }
    HeaderValue::from_str(&meta::random_uid(random)).expect("a uid is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_shorten_the_timeout_and_not_lengthen_it() {
        let of = |text: &str| timeout(&Query::parse(&format!("timeout={text}")).unwrap());

        assert_eq!(of("10s"), Duration::from_secs(10));
        assert_eq!(of("1m0s"), TIMEOUT);
        assert_eq!(of("500ms"), Duration::from_millis(500));
        for other in ["0s", "1h", "x", "9999999999999999999999h", ""] {
            assert_eq!(of(other), TIMEOUT, "{other}");
        }
    }
}
