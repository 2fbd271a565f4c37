//! What tests share: container images built on the spot, a registry to pull them from, planes in memory with fake nodes,
//! a machine of a test's own and the whole platform on it, two tenants ready made, and a judge of what a store has told.
//!
//! Used by tests and by `xtask` only; no room knows it. Start reading at [`image`]; tests of the whole platform start at
//! [`platform::Platform`], tests of loops at [`planes::PlanesInMemory`].
#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

#[cfg(feature = "history")]
pub mod history;
pub mod image;

#[cfg(feature = "machine")]
pub mod cgroups;
#[cfg(feature = "machine")]
pub mod clients;
#[cfg(feature = "machine")]
pub mod etcd;
#[cfg(feature = "machine")]
pub mod footprint;
#[cfg(feature = "machine")]
pub mod kubectl;
#[cfg(feature = "machine")]
pub mod machine;
#[cfg(feature = "machine")]
pub mod platform;
#[cfg(feature = "machine")]
pub mod registry;
#[cfg(feature = "machine")]
pub mod said;
#[cfg(feature = "machine")]
pub mod terminal;
#[cfg(feature = "machine")]
pub mod vitals;

#[cfg(feature = "planes")]
pub mod nodes;
#[cfg(feature = "planes")]
pub mod planes;
