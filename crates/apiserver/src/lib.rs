//! Planes: the API servers of many tenants and of the super plane in one process, as one `tower::Service`.
//!
//! Two halves. The *edge* ([`http`], [`authn`], [`authz`], [`discovery`], [`tokens`]) takes a request from a door,
//! says who asks, for what, and whether they may. The *core* ([`registry`], [`planes`], [`admission`], [`template`])
//! carries it out on a keyspace, the same code for every resource. May use the rooms below (`api`, `keyspace`,
//! `identity`, `streaming`, `world`); never knows the syncer, the fleet, a disk or a node.
//!
//! Start reading at [`context`] (what the halves hand each other), [`server`] (how a request goes), [`registry`].

pub mod admission;
pub mod authn;
pub mod authz;
pub mod context;
pub mod discovery;
pub mod http;
pub mod planes;
pub mod projection;
pub mod query;
pub mod registry;
pub mod server;
pub mod template;
pub mod tokens;

pub use self::http::{Door, serve_people, serve_pods};
pub use context::{Context, Form, Identity, PlaneRef, RequestInfo, Verb};
pub use planes::{Plane, PlaneRecord, PlaneSpec, Planes};
pub use projection::{Lens, Projection};
pub use query::Query;
pub use registry::Registry;
pub use server::{ApiServer, ApiServerOptions, ServiceRanges};

/// Bodies of requests and answers, whatever the transport.
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A body of bytes at hand.
pub fn full_body(bytes: impl Into<bytes::Bytes>) -> Body {
    use http_body_util::BodyExt;
    http_body_util::Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An empty body.
pub fn empty_body() -> Body {
    full_body(bytes::Bytes::new())
}
