//! The etcd v3 service over a keyspace that is in this process.
//!
//! A request comes in at `listen.rs`, is named in `methods.rs`, and its service's file says what is done: `kv.rs`, `watch.rs`,
//! `lease.rs`, `maintenance.rs`, `cluster.rs`, `auth_service.rs`, `lock.rs`. `read.rs` and `answers.rs` have the words of both
//! sides. Errors are those of `status.rs` and no others: clients match their texts.

mod answers;
mod auth;
mod auth_service;
mod authority;
pub mod backup;
mod cluster;
pub mod compactor;
mod counted;
pub mod duration;
mod grpc;
mod hash;
mod json;
mod jwt;
mod kv;
mod lease;
mod listen;
mod lock;
mod maintenance;
mod member;
mod meta;
mod methods;
mod metrics;
mod order;
mod plain;
mod ranges;
mod read;
mod ready;
pub mod status;
mod streams;
mod tokens;
mod watch;

pub(crate) use grpc::framed;
pub use jwt::JwtError;
pub use listen::{CONNECTIONS_MAX, Doors, Listener, Members, Serves, serve};
pub use member::{Member, MemberOptions, VERSION};
pub use tokens::AuthToken;
