//! Which node runs a Pod: filters say where it can, scores say where it should, the loop binds it there.
//!
//! May use `client` (one plane's Pods and Nodes) and `api` (matching as pure functions). Never knows what runs on a node, nor
//! anything of tenants. Start reading at [`filter`], then [`node_info`] (what a node has left); [`scheduler`] is the loop.

pub mod filter;
pub mod node_info;
pub mod request;

mod scheduler;
pub mod score;

pub use scheduler::{Options, Running, start};
