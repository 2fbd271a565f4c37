//! One Pod: what it asks for, what the runtime has of it, what to do next, and what the plane is told. All of it pure.

pub mod backoff;
mod conditions;
pub mod health;
pub mod observed;
pub mod plan;
pub mod references;
pub mod status;
pub mod status_patch;
