//! How the rooms are put together.

pub mod checks;
pub mod house;
pub mod images;
pub mod in_process;
pub mod kubeconfigs;
pub mod projections;
pub mod provisioner;
pub mod storage;
