//! What Kubernetes kinds are: the resource table, `Object`, errors as `Status`, keys, selectors, patches,
//! defaults, validation and printing. No I/O, no clock, no async.
//!
//! Knowledge of kinds is data (`data/`, made from the upstream documents); code is written for behaviour only
//! and stands in one place a kind.
//!
//! A write passes through it in this order: [`decode`] (or [`structural`] for custom objects), [`patch`] where it is
//! one, [`default`], [`strategy`], [`validate`]; a read through [`selector`], [`printing`]. Trees that have not been
//! decoded may have any shape, and only `decode`, `patch`, `default`, `selector` and `structural` take such.
//!
//! Start reading at [`object`] (what is stored), [`resource`] (which kinds there are), [`keys`] (where they are
//! stored), [`table`] (what is known of each).

pub mod amounts;
pub mod apply;
pub mod decode;
pub mod default;
pub mod discovery;
pub mod field;
pub mod keys;
pub mod limits;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod placement;
pub mod plane;
pub mod pod_security;
pub mod printing;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod structural;
pub mod table;
pub mod validate;
pub mod volumes;

pub use object::Object;
pub use plane::PlaneId;
pub use resource::Resource;
pub use status::{Reason, Status};
