//! Where a runtime keeps its things and which names it uses on the machine.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::image::RegistryOptions;

#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// State and images; survives reboots.
    pub root: PathBuf,
    /// Sockets and shared memory; need not survive.
    pub run: PathBuf,
    /// Where CRI is served.
    pub socket: PathBuf,
    /// Addresses of sandboxes; the first one is the gateway's, on [`Self::device`].
    pub pod_cidr: String,
    /// The interface with the gateway's address; sandboxes are routed to, each over a pair of its own.
    pub device: String,
    /// The program that runs [`crate::supervisor::main`] when called with [`crate::supervisor::ARGUMENT`].
    pub supervisor_exe: PathBuf,
    /// The control group below which everything of ours lives, in all hierarchies.
    pub cgroup_root: String,
    pub registries: RegistryOptions,
    pub mtu: u32,
}

impl RuntimeOptions {
    pub fn new(
        root: impl Into<PathBuf>,
        run: impl Into<PathBuf>,
        socket: impl Into<PathBuf>,
        supervisor_exe: impl Into<PathBuf>,
    ) -> RuntimeOptions {
        RuntimeOptions {
            root: root.into(),
            run: run.into(),
            socket: socket.into(),
            pod_cidr: "10.244.0.0/24".into(),
            device: "mangrove0".into(),
            supervisor_exe: supervisor_exe.into(),
            cgroup_root: "mangrove".into(),
            registries: RegistryOptions::default(),
            mtu: 1500,
        }
    }
}

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub network: Ipv4Addr,
    pub prefix: u8,
}

impl Cidr {
    pub fn parse(text: &str) -> Result<Cidr> {
        let bad = || {
            Error::Invalid(format!(
                "{text:?} is not a range of IPv4 addresses with room for sandboxes, like 10.244.0.0/24"
            ))
        };
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if !(8..=29).contains(&prefix) {
            return Err(bad());
        }
        let mask = u32::MAX << (32 - prefix);
        Ok(Cidr {
            network: Ipv4Addr::from(u32::from(address) & mask),
            prefix,
        })
    }

    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 1)
    }

    /// Those for sandboxes: neither network, gateway nor broadcast.
    pub fn hosts(&self) -> std::ops::Range<u32> {
        let network = u32::from(self.network);
        let size = 1u32 << (32 - self.prefix);
        network + 2..network + size - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_knows_its_gateway_and_its_hosts() {
        let cidr = Cidr::parse("10.244.3.7/24").unwrap();
        assert_eq!(cidr.network, Ipv4Addr::new(10, 244, 3, 0));
        assert_eq!(cidr.gateway(), Ipv4Addr::new(10, 244, 3, 1));
        assert_eq!(cidr.hosts().len(), 253);
        assert_eq!(Ipv4Addr::from(cidr.hosts().end - 1), Ipv4Addr::new(10, 244, 3, 254));
        for bad in ["10.0.0.0", "10.0.0.0/31", "10.0.0/24", "::1/64", "10.0.0.0/4"] {
            assert!(Cidr::parse(bad).is_err());
        }
    }
}
