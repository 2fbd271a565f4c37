//! The CRI server: what it knows of sandboxes and containers, and the calls that change them. Everything here can be
//! rebuilt from disk and from the supervisors, and is, at each start. Start reading at [`runtime`], then [`sandboxes`]
//! and [`containers`]; [`cri_runtime`] and [`cri_image`] only translate.

mod addresses;
mod containers;
mod cri_image;
mod cri_runtime;
mod events;
mod exec;
mod files;
mod link;
mod options;
mod records;
mod recover;
mod runtime;
mod sandboxes;
mod seccomp;
mod spec;
mod stats;
mod status;
mod streams;

pub use options::RuntimeOptions;
pub use runtime::Runtime;
pub use sandboxes::INTERFACE_PREFIX;
