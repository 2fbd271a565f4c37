//! The few rtnetlink requests that a sandbox's network needs, written straight to the socket: a dozen messages a
//! sandbox, synchronous, with no task and no thread, because the supervisor must not have any.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

const HEADER_BYTES: usize = 16;
/// A dump's answers come in packets of at most this (the kernel's own buffer is 32 KiB at most).
const RECEIVE_BYTES: usize = 64 << 10;
/// More interfaces than any machine of ours has; a dump beyond it is refused instead of growing memory.
const MAX_LINKS: usize = 100_000;

// Link attributes and values which libc does not name (linux/if_link.h, linux/veth.h).
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const NLA_NESTED: u16 = 1 << 15;

/// One rtnetlink socket. It stays in the network namespace in which it was opened, wherever the process goes.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// What its maker wrote on it.
    pub alias: Option<String>,
}

/// What the two ends of a pair are.
pub struct Pair<'a> {
    pub name: &'a str,
    pub address: [u8; 6],
    pub mtu: u32,
    pub peer: &'a str,
    pub peer_address: [u8; 6],
}

struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Message {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((libc::NLM_F_REQUEST as u16) | flags).to_ne_bytes());
        Message(bytes)
    }

    /// `struct ifinfomsg`.
    fn link(mut self, index: u32, flags: u32, change: u32) -> Message {
        self.link_header(index, flags, change);
        self
    }

    fn link_header(&mut self, index: u32, flags: u32, change: u32) {
        self.0.extend_from_slice(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
        self.0.extend_from_slice(&index.to_ne_bytes());
        self.0.extend_from_slice(&flags.to_ne_bytes());
        self.0.extend_from_slice(&change.to_ne_bytes());
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
        self
    }

    fn text(self, kind: u16, value: &str) -> Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    fn nested(mut self, kind: u16, fill: impl FnOnce(Message) -> Message) -> Message {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&(kind | NLA_NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let length = (filled.0.len() - start) as u16;
        filled.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    fn pad(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }
}

impl Netlink {
    pub fn open() -> io::Result<Netlink> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    fn send(&mut self, mut message: Message) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = message.0.len() as u32;
        message.0[0..4].copy_from_slice(&length.to_ne_bytes());
        message.0[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        sendto(
            self.socket.as_raw_fd(),
            &message.0,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        Ok(self.sequence)
    }

    /// Sends and hands each answer's (kind, payload) to `each` until the kernel says that it was all.
    fn exchange(&mut self, message: Message, mut each: impl FnMut(u16, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let sequence = self.send(message)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::Error::EINTR) => continue,
                other => other?,
            };
            let mut rest = &buffer[..length];
            while rest.len() >= HEADER_BYTES {
                let size = u32_at(rest, 0) as usize;
                if size < HEADER_BYTES || size > rest.len() {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                let (one, after) = rest.split_at(size);
                rest = after.get(size.next_multiple_of(4) - size..).unwrap_or(&[]);
                if u32_at(one, 8) != sequence {
                    continue;
                }
                let kind = u16::from_ne_bytes([one[4], one[5]]);
                let payload = &one[HEADER_BYTES..];
                if kind == libc::NLMSG_DONE as u16 {
                    return Ok(());
                }
                if kind == libc::NLMSG_ERROR as u16 {
                    let code = i32::from_ne_bytes(payload.get(..4).and_then(|b| b.try_into().ok()).unwrap_or([0; 4]));
                    return match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                each(kind, payload)?;
            }
        }
    }

    fn acknowledged(&mut self, message: Message) -> io::Result<()> {
        self.exchange(message, |_, _| Ok(()))
    }

    pub fn index_of(&mut self, name: &str) -> io::Result<Option<u32>> {
        let message = Message::new(libc::RTM_GETLINK, libc::NLM_F_ACK as u16)
            .link(0, 0, 0)
            .text(libc::IFLA_IFNAME, name);
        let mut found = None;
        let result = self.exchange(message, |_, payload| {
            found = read_link(payload).map(|link| link.index);
            Ok(())
        });
        match result {
            Ok(()) => Ok(found),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        let message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP as u16).link(0, 0, 0);
        self.exchange(message, |_, payload| {
            if links.len() == MAX_LINKS {
                return Err(io::Error::other("too many network interfaces"));
            }
            links.extend(read_link(payload));
            Ok(())
        })?;
        Ok(links)
    }

    pub fn add_bridge(&mut self, name: &str, address: [u8; 6]) -> io::Result<()> {
        self.acknowledged(
            Message::new(libc::RTM_NEWLINK, create())
                .link(0, libc::IFF_UP as u32, libc::IFF_UP as u32)
                .text(libc::IFLA_IFNAME, name)
                // A bridge without an address of its own takes that of some port and changes it with the ports, which
                // makes every neighbour's cache wrong.
                .attribute(libc::IFLA_ADDRESS, &address)
                .nested(libc::IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge")),
        )
    }

    /// A pair of interfaces: one end here, the other in the namespace that `peer_namespace` refers to.
    pub fn add_veth(&mut self, pair: &Pair, peer_namespace: RawFd) -> io::Result<()> {
        self.acknowledged(
            Message::new(libc::RTM_NEWLINK, create())
                .link(0, 0, 0)
                .text(libc::IFLA_IFNAME, pair.name)
                .attribute(libc::IFLA_ADDRESS, &pair.address)
                .attribute(libc::IFLA_MTU, &pair.mtu.to_ne_bytes())
                .nested(libc::IFLA_LINKINFO, |m| {
                    m.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |m| {
                        m.nested(VETH_INFO_PEER, |m| {
                            m.link(0, 0, 0)
                                .text(libc::IFLA_IFNAME, pair.peer)
                                .attribute(libc::IFLA_ADDRESS, &pair.peer_address)
                                .attribute(libc::IFLA_MTU, &pair.mtu.to_ne_bytes())
                                .attribute(libc::IFLA_NET_NS_FD, &peer_namespace.to_ne_bytes())
                        })
                    })
                }),
        )
    }

    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let up = libc::IFF_UP as u32;
        self.acknowledged(Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK as u16).link(index, up, up))
    }

    /// Sets an interface up and writes on it who made it.
    pub fn set_up_as(&mut self, index: u32, alias: &str) -> io::Result<()> {
        let up = libc::IFF_UP as u32;
        let message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK as u16)
            .link(index, up, up)
            .attribute(libc::IFLA_IFALIAS, alias.as_bytes());
        self.acknowledged(message)
    }

    /// Says for good which hardware address a neighbour has, so that nobody has to be asked, and nobody can lie.
    pub fn add_neighbour(&mut self, index: u32, address: Ipv4Addr, hardware: [u8; 6]) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWNEIGH, replace());
        // `struct ndmsg`: family, padding, interface, state, flags, type
        message.0.extend_from_slice(&[libc::AF_INET as u8, 0, 0, 0]);
        message.0.extend_from_slice(&index.to_ne_bytes());
        message.0.extend_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
        message.0.extend_from_slice(&[0, 0]);
        self.acknowledged(
            message
                .attribute(libc::NDA_DST, &address.octets())
                .attribute(libc::NDA_LLADDR, &hardware),
        )
    }

    pub fn delete(&mut self, index: u32) -> io::Result<()> {
        self.acknowledged(Message::new(libc::RTM_DELLINK, libc::NLM_F_ACK as u16).link(index, 0, 0))
    }

    /// Gives the interface an address; fine if it has it already.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWADDR, create());
        // `struct ifaddrmsg`
        message.0.extend_from_slice(&[libc::AF_INET as u8, prefix, 0, 0]);
        message.0.extend_from_slice(&index.to_ne_bytes());
        let broadcast = u32::from(address) | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let message = message
            .attribute(libc::IFA_LOCAL, &address.octets())
            .attribute(libc::IFA_ADDRESS, &address.octets())
            .attribute(libc::IFA_BROADCAST, &broadcast.to_be_bytes());
        match self.acknowledged(message) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// To one address, at the other end of an interface; from `source` if we are who sends.
    pub fn add_host_route(&mut self, index: u32, to: Ipv4Addr, source: Option<Ipv4Addr>) -> io::Result<()> {
        let mut message = route(32, libc::RT_SCOPE_LINK)
            .attribute(libc::RTA_DST, &to.octets())
            .attribute(libc::RTA_OIF, &index.to_ne_bytes());
        if let Some(source) = source {
            message = message.attribute(libc::RTA_PREFSRC, &source.octets());
        }
        self.acknowledged(message)
    }

    pub fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        self.acknowledged(
            route(0, libc::RT_SCOPE_UNIVERSE)
                .attribute(libc::RTA_GATEWAY, &gateway.octets())
                .attribute(libc::RTA_OIF, &index.to_ne_bytes()),
        )
    }
}

fn route(prefix: u8, scope: u8) -> Message {
    let mut message = Message::new(libc::RTM_NEWROUTE, replace());
    // `struct rtmsg`: family, destination and source length, tos, table, protocol, scope, type, flags
    message.0.extend_from_slice(&[
        libc::AF_INET as u8,
        prefix,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        scope,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ]);
    message
}

fn create() -> u16 {
    (libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16
}

fn replace() -> u16 {
    (libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|four| four.try_into().ok())
        .map(u32::from_ne_bytes)
        .unwrap_or(0)
}

fn read_link(payload: &[u8]) -> Option<Link> {
    let index = u32_at(payload, 4);
    let mut name = None;
    let mut alias = None;
    let mut rest = payload.get(16..)?;
    while rest.len() >= 4 {
        let length = u16::from_ne_bytes([rest[0], rest[1]]) as usize;
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & !NLA_NESTED;
        if length < 4 || length > rest.len() {
            break;
        }
        let value = &rest[4..length];
        let text = || {
            let text: Vec<u8> = value.iter().copied().take_while(|b| *b != 0).collect();
            String::from_utf8(text).ok()
        };
        if kind == libc::IFLA_IFNAME {
            name = text();
        } else if kind == libc::IFLA_IFALIAS {
            alias = text();
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(Link {
        index,
        name: name?,
        alias,
    })
}

/// A hardware address that follows from the address, so that an address given to another sandbox keeps its neighbour
/// entry right. The prefix is locally administered (the habit of the CNI bridge plugin).
pub fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.index_of("lo").unwrap().unwrap();
        assert!(
            netlink
                .links()
                .unwrap()
                .iter()
                .any(|l| l.name == "lo" && l.index == index)
        );
        assert_eq!(netlink.index_of("no-such-if0").unwrap(), None);
    }
}
