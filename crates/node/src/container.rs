//! From a Pod's words to the runtime's: variables, fields, resources, DNS, sandbox and container configurations.
//! Pure.

pub mod config;
pub mod dns;
pub mod env;
pub mod field;
pub mod quantity;
pub mod resources;
pub mod sandbox;
pub mod service_env;
