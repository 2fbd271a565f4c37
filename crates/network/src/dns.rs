//! DNS for all planes on one UDP and one TCP socket. A plane is known by the address that was asked, which is that of its
//! `kubernetes` Service; names of the cluster domain are answered from [`zones`], all others by the machine's resolvers.
//!
//! The names follow the Kubernetes DNS-based service discovery specification 1.1.0.

pub mod answer;
mod forward;
mod packet_info;
mod server;
mod shares;
pub mod zones;

pub use server::{Server, listen, listen_for};
pub use zones::{Endpoint, ServiceNames, SliceNames, Zones};
