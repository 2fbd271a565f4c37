//! What kubelet and kube-proxy do on one machine: the Pods that a plane binds to this node are run over CRI, their
//! status goes back by event, their logs and streams are served, and the plane's Services are made reachable.
//!
//! May use `client` (the plane), `network` (packet rules), `streaming` (upgrades) and the runtime's CRI socket. Never
//! knows which runtime that is, nor anything of tenants: what reaches this node is a Pod like any other.
//!
//! Decisions are pure: [`pod`] (what to do next, what to report), [`container`] (a Pod in the runtime's words),
//! [`volume`]'s payloads, [`services`]. Start reading at [`Node::start`], then `agent/worker.rs`, the loop of one Pod.
//! [`KubeletBackend`] is the other end: how an API server reaches a Pod's node.

#![allow(
    clippy::disallowed_methods,
    reason = "the agent serves the real machine: its clock, its files, its kernel"
)]

mod agent;
mod backend;
pub mod container;
pub mod cri;
mod kubelet_api;
pub mod logs;
pub mod machine;
mod node;
pub mod node_status;
pub mod pod;
mod query;
pub mod services;
mod tls;
pub mod volume;
mod watch;

pub use agent::tokens::{PlaneTokens, Token, TokenSource};
pub use agent::walls::CircleOf;
pub use backend::{KUBELET_AUTHORITY, KubeletBackend, KubeletClientTls};
pub use container::service_env::KubernetesService;
pub use kubelet_api::KubeletTls;
pub use node::{Door, Node, NodeOptions, Running, StartError};
pub use tls::TlsError;
