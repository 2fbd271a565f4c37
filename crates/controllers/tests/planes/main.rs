//! The loops on two sources at once: a keyspace that many planes share, and a plane that has one of its own.

mod deployments;
mod garbage;
mod house;
mod namespaces;
mod services;
