//! VirtualCluster: tenants' planes on one super cluster.
//!
//! This room makes and ends planes ([`operator`]), carries what tenants ask for down to the super cluster and what came
//! of it back up ([`syncer`]), lets a tenant's `logs` and `exec` reach its Pods and no other ([`node_proxy`]), and says what
//! it sees of the nodes ([`nodes`]). It talks
//! to planes through `client` only, so the super cluster may be any Kubernetes; it must never know the API server, a
//! store, or a runtime.
//!
//! Translation is pure and stands in [`translate`], one file a kind: values in, values out, no client. Start reading at
//! [`identity`] (how an object is recognised on the other side), then [`translate::pod`].

pub mod identity;
pub mod mirror;
pub mod names;
pub mod node_proxy;
pub mod nodes;
pub mod operator;
pub mod pod_plan;
pub mod policy;
pub mod provision;
pub mod references;
pub mod reserved;
pub mod storage_classes;
pub mod super_streams;
pub mod syncer;
pub mod translate;
pub mod virtual_cluster;
pub mod walls;

pub use node_proxy::NodeProxy;
pub use provision::{ProvisionError, Provisioned, Provisioner, SuperCluster};
