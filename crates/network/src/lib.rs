//! What a machine does with packets and names: Services and the walls between Pods in nftables ([`proxy`]), the Pods' door ([`door`]), ways to other machines' Pods ([`routes`]), and one DNS
//! server for all planes ([`dns`]).
//!
//! Uses nothing of ours and never knows a client, a plane's API or a runtime: desired state is handed in as values. Pure
//! parts ([`proxy::ruleset`], [`dns::answer`]) make text and answers, thin shells carry them to the kernel and the wire.
//!
//! Start reading at [`proxy::Proxy`]; `tests/machine` shows all of it at work in network namespaces.
#![allow(clippy::disallowed_methods, reason = "serves the real machine's network")]

pub mod dns;
pub mod door;
pub mod proxy;
pub mod routes;

use std::net::Ipv4Addr;

/// A range of addresses: the network's address and the length of its prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Range {
    pub network: Ipv4Addr,
    pub prefix: u8,
}

impl Range {
    pub const fn new(network: Ipv4Addr, prefix: u8) -> Range {
        Range { network, prefix }
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from(address) & mask == u32::from(self.network) & mask
    }
}

impl std::str::FromStr for Range {
    type Err = ();

    fn from_str(text: &str) -> Result<Range, ()> {
        let (network, prefix) = text.split_once('/').ok_or(())?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or(())?;
        Ok(Range::new(network.parse().map_err(drop)?, prefix))
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// The platform's addresses on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Of the Pods of all nodes.
    pub pods: Range,
    /// By which this machine is known to its own Pods.
    pub gateway: Ipv4Addr,
    pub services: Range,
    /// The part of the service range that leads to planes' API servers and DNS (D8).
    pub door: Range,
    /// Who serves there; none if it is another machine, to which a route leads ([`routes`]).
    pub door_ports: Option<DoorPorts>,
    /// The interface that has the gateway's address.
    pub device: String,
    /// How the names of Pods' interfaces on this machine begin.
    pub interfaces: String,
}

/// Where this machine listens for who comes to the door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DoorPorts {
    /// Of the API; Pods dial 443.
    pub api: u16,
    /// Of DNS; Pods ask at 53.
    pub dns: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can't start nft (Debian package nftables): {0}")]
    NoNft(std::io::Error),
    /// The kernel refused; nothing was changed.
    #[error("nft refused the rules: {0}")]
    Refused(String),
    #[error("can't let the kernel forward packets (net.ipv4.ip_forward): {0}")]
    Forwarding(std::io::Error),
    #[error("the route for {range} can't be set: {reason}")]
    Route { range: Range, reason: String },
    #[error("can't listen for DNS on port {port}: {source}")]
    Dns { port: u16, source: std::io::Error },
}

/// Takes back everything this room has made on the machine. Nothing there is fine.
pub async fn teardown(options: &Options) -> Result<(), Error> {
    proxy::remove().await?;
    routes::remove().await?;
    door::close(options).await
}
