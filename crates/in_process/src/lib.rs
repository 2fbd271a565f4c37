//! The API server of this process, as the loops ask for it: clients that are somebody, tenants' planes made and ended,
//! tenants' views of the super plane.
//!
//! The loops know a plane as something behind a client, and tenancy knows its planes by a trait; here both are met by an
//! [`apiserver::ApiServer`] without a socket between. Used where a process has all of them: by the binary and by tests.
//! Start reading at [`client`].

mod client;
mod reshown;
mod tenants;
mod views;

pub use client::client;
pub use reshown::reshown;
pub use tenants::{InProcess, root_ca};
pub use views::{Nodes, StorageClasses};
