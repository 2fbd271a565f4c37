//! A sandbox's own network: one interface, an address, and one way out, by way of the host.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use super::plan::NetworkPlan;
use crate::system::netlink::{Netlink, Pair, hardware_address};

/// What stays in the host's network namespace when the supervisor has left it.
pub struct HostSide {
    netlink: Netlink,
    namespace: fs::File,
}

impl HostSide {
    pub fn open() -> io::Result<HostSide> {
        Ok(HostSide {
            netlink: Netlink::open()?,
            namespace: fs::File::open("/proc/self/ns/net")?,
        })
    }

    /// To be called inside the new network namespace.
    pub fn connect(&mut self, plan: &NetworkPlan) -> io::Result<()> {
        let mut inside = Netlink::open()?;
        // The loopback interface has index 1 in every namespace.
        inside.set_up(1)?;
        // What a container of a Pod may do without privileges: low ports and ping (the kubelet's usual defaults).
        // The namespace is the Pod's own, so nobody else is touched.
        let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
        let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
        let NetworkPlan::Routed {
            device,
            address,
            gateway,
            host_interface,
            mtu,
        } = plan
        else {
            return Ok(());
        };
        let (own, hosts) = (hardware_address(*address), hardware_address(*gateway));
        let pair = Pair {
            name: "eth0",
            address: own,
            mtu: *mtu,
            peer: host_interface,
            peer_address: hosts,
        };
        inside.add_veth(&pair, self.namespace.as_raw_fd())?;
        let outer = self
            .netlink
            .index_of(host_interface)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        self.netlink.set_up_as(outer, device)?;
        self.netlink.add_neighbour(outer, *address, own)?;
        // A route a sandbox, and no bridge: whatever goes from one to another passes the host's rules.
        self.netlink.add_host_route(outer, *address, Some(*gateway))?;
        let inner = inside
            .index_of("eth0")?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        inside.add_address(inner, *address, 32)?;
        inside.set_up(inner)?;
        inside.add_neighbour(inner, *gateway, hosts)?;
        inside.add_host_route(inner, *gateway, None)?;
        inside.add_default_route(inner, *gateway)
    }

    pub fn disconnect(&mut self, plan: &NetworkPlan) {
        if let NetworkPlan::Routed { host_interface, .. } = plan
            && let Ok(Some(index)) = self.netlink.index_of(host_interface)
        {
            let _ = self.netlink.delete(index);
        }
    }
}
