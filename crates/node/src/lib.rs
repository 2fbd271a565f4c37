//! What kubelet and kube-proxy do on one machine: the Pods that a plane binds to this node are run over CRI, their
//! status goes back by event, their logs and streams are served, and the plane's Services are made reachable.
//!
//! May use `client` (the plane), `network` (packet rules), `streaming` (upgrades) and the runtime's CRI socket. Never
//! knows which runtime that is, nor anything of tenants: what reaches this node is a Pod like any other.
//!
//! Decisions are pure: [`pod`] (what to do next, what to report), [`container`] (a Pod in the runtime's words),
//! [`volume::payload`], [`services`]. Start reading at [`Node::start`], then `agent/worker.rs`, the loop of one Pod.

#![allow(
    clippy::disallowed_methods,
    reason = "the agent serves the real machine: its clock, its files, its kernel"
)]

pub mod container;
pub mod logs;
pub mod pod;
pub mod volume;
