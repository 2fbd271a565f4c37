//! Which node runs a Pod: filters say where it can, scores say where it should, the loop binds it there.
//!
//! The decision is a function of a Pod and a [`Snapshot`]: [`place`](place::place()), and
//! [`preempt`](preempt::preempt()) where it is nowhere. Both know nodes only as labels, taints and amounts, so that whatever
//! shows itself as a Node can be placed on.
//!
//! May use `client` (one plane's Pods and Nodes) and `api` (matching as pure functions). Never knows what runs on a node, nor
//! anything of tenants. Start reading at [`place`], then [`filter`] and [`score`]; `cluster` is what the loop knows, `scheduler`
//! the loop.

mod bind;
mod cluster;
#[cfg(test)]
mod cluster_tests;
pub mod cycle;
pub mod filter;
pub mod node_info;
pub mod place;
pub mod pod_info;
pub mod preempt;
#[cfg(test)]
mod preempt_tests;
pub mod request;
mod scheduler;
pub mod score;
pub mod snapshot;
pub mod spread;
pub mod term;
pub mod volumes;
mod waiting;

pub use node_info::NodeInfo;
pub use pod_info::PodInfo;
pub use scheduler::{Options, Running, start};
pub use snapshot::Snapshot;
