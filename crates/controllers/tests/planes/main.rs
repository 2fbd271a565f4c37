//! The loops on two sources at once: a keyspace that many planes share, and a plane that has one of its own.

mod budgets;
mod daemons;
mod definitions;
mod deployments;
mod garbage;
mod house;
mod jobs;
mod namespaces;
mod nodes;
mod services;
mod stateful;
mod tokens;
mod volumes;
