//! The edge: from a connection to the registry and back.
//!
//! [`serve`] takes connections, [`handle`] takes a request its whole way; the other modules are the steps of that way.

pub mod body;
pub mod handle;
pub mod health;
mod held;
pub mod info;
pub mod limits;
pub mod metrics;
pub mod negotiate;
pub mod respond;
pub mod serve;

pub use handle::{Door, Edge};
pub use serve::{serve_people, serve_pods, serve_pods_of};
