//! A tenant's object as it stands in the super cluster, and what goes back up. Pure functions, one file a kind.

pub mod claim;
pub mod event;
pub mod ingress;
pub mod namespace;
pub mod namespaced;
pub mod pod;
pub mod pod_drift;
pub mod pod_values;
pub mod service;
pub mod shown;
pub mod status;
pub mod volume;
