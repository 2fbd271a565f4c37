//! Addresses to which a tenant may not send its Services' traffic by endpoints that it writes by hand (trap 13): those of the
//! machines, of the cluster's own networks, and of other tenants' Pods. Its own Pods it may name.

use std::net::{IpAddr, Ipv4Addr};

/// A range of addresses: `10.244.0.0/16`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    network: IpAddr,
    bits: u8,
}

impl Cidr {
    pub fn parse(text: &str) -> Option<Cidr> {
        let (network, bits) = text.split_once('/')?;
        let network: IpAddr = network.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        let width = if network.is_ipv4() { 32 } else { 128 };
        (bits <= width).then_some(Cidr { network, bits })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let drop = 32 - u32::from(self.bits);
                u32::from(network).checked_shr(drop).unwrap_or(0) == u32::from(address).checked_shr(drop).unwrap_or(0)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let drop = 128 - u32::from(self.bits);
                u128::from(network).checked_shr(drop).unwrap_or(0) == u128::from(address).checked_shr(drop).unwrap_or(0)
            }
            _ => false,
        }
    }
}

/// The cluster metadata service of clouds is link-local, and so refused with the rest; so is what leads back to the machine.
pub fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_link_local()
                || address.is_multicast()
                || address == Ipv4Addr::BROADCAST
        }
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_local(address.into()),
            None => {
                address.is_loopback()
                    || address.is_unspecified()
                    || address.is_unicast_link_local()
                    || address.is_multicast()
            }
        },
    }
}

/// An address as a tenant writes it; `None` if it is none (then it leads nowhere, and is not carried down).
pub fn parse(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    Some(match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_its_own_and_no_other_family() {
        let range = Cidr::parse("10.244.0.0/16").unwrap();

        assert!(range.contains(parse("10.244.3.4").unwrap()));
        assert!(
            range.contains(parse("::ffff:10.244.3.4").unwrap()),
            "mapped is the same address"
        );
        assert!(!range.contains(parse("10.245.0.1").unwrap()));
        assert!(!range.contains(parse("::1").unwrap()));
        assert!(Cidr::parse("0.0.0.0/0").unwrap().contains(parse("192.0.2.1").unwrap()));
        assert!(Cidr::parse("fd00::/8").unwrap().contains(parse("fd12::1").unwrap()));
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_leads_back_to_the_machine_or_to_its_cloud_is_local() {
        for local in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["192.0.2.1", "10.0.0.1", "2001:db8::1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }
}
