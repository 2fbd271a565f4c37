//! Planes: what is known of each ([`record`]), how they are made, opened and deleted ([`set`]), and the addresses
//! they share ([`addresses`]).
//!
//! An idle plane is its record and its objects in a keyspace, nothing else: it has no task, timer or cache of its own.
//! Opened planes are kept in one bounded cache for all.

pub mod addresses;
mod bounded;
mod changes;
mod custom;
mod deletion;
mod record;
mod repair;
mod set;
mod storage;

pub use addresses::{Addresses, ServiceRanges};
pub use changes::{Changes, Class as ChangeClass};
pub use custom::{CustomResource, CustomResources, ScalePaths, every};
pub use record::{Bootstrap, Isolation, PlaneRecord, PlaneSpec};
pub use set::{Plane, Planes};
pub(crate) use storage::{read_key, refuse};

pub(crate) use bounded::Bounded;
