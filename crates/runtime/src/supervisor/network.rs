//! A sandbox's own network: one interface on the bridge, an address, a way out.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::plan::NetworkPlan;
use crate::system::netlink::{Netlink, hardware_address};

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
        inside.set_up(1, None)?;
        // What a container of a Pod may do without privileges: low ports and ping (the kubelet's usual defaults).
        // The namespace is the Pod's own, so nobody else is touched.
        let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
        let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
        let NetworkPlan::Bridge {
            bridge,
            address,
            prefix,
            gateway,
            host_interface,
            mtu,
        } = plan
        else {
            return Ok(());
        };
        let bridge = self
            .netlink
            .index_of(bridge)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no bridge {bridge}")))?;
        inside.add_veth(
            "eth0",
            hardware_address(*address),
            *mtu,
            host_interface,
            self.namespace.as_raw_fd(),
        )?;
        let outer = self
            .netlink
            .index_of(host_interface)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        self.netlink.set_up(outer, Some(bridge))?;
        // A Pod that reaches itself through its Service sends a frame out of the port on which it must come back.
        let hairpin = Path::new("/sys/class/net")
            .join(host_interface)
            .join("brport/hairpin_mode");
        let _ = fs::write(hairpin, "1");
        let inner = inside
            .index_of("eth0")?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        inside.add_address(inner, *address, *prefix)?;
        inside.set_up(inner, None)?;
        inside.add_default_route(*gateway)
    }

    pub fn disconnect(&mut self, plan: &NetworkPlan) {
        if let NetworkPlan::Bridge { host_interface, .. } = plan
            && let Ok(Some(index)) = self.netlink.index_of(host_interface)
        {
            let _ = self.netlink.delete(index);
        }
    }
}
