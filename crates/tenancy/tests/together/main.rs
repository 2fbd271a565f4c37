//! The syncer and the operator between planes in memory: what tenants and the super cluster's people see of them.
#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

mod drift;
mod failures;
mod gate;
mod harness;
mod life;
mod nodes;
mod traps;
