//! The syncer and the operator between planes in memory: what tenants and the super cluster's people see of them.
#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

mod attacks;
mod drift;
mod failures;
mod gate;
mod harness;
mod kinds;
mod life;
mod nodes;
mod traps;
mod traps_of_failure;
mod traps_of_running_pods;
mod traps_of_trust;
mod weights;
