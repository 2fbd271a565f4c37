//! How the rooms are put together.

pub mod agent;
pub mod beside;
pub mod checks;
pub mod credentials;
pub mod doors;
pub mod house;
pub mod images;
pub mod kubeconfigs;
pub mod leading;
pub mod pod_range;
mod service_range;
pub mod storage;
pub mod taken;
