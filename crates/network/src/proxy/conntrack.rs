//! Flows that the kernel remembers. A flow keeps the target that its first packet was led to. TCP finds out by itself that
//! a target has gone; over UDP a client that goes on asking from one port would never be heard again.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

use super::services::{Place, Protocol, Service, ServicePort, Target};

// linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const NLA_TYPE: u16 = 0x3fff;

const HEADER_BYTES: usize = 16;
/// `struct nfgenmsg`
const GENERIC_BYTES: usize = 4;
/// The kernel's own packets of a dump are 32 KiB at most.
const RECEIVE_BYTES: usize = 64 << 10;

/// Forgets UDP flows to Services that changed which lead where nobody answers for that Service any more.
pub async fn forget_stale(old: &BTreeMap<ServicePort, Service>, new: &BTreeMap<ServicePort, Service>) {
    let none = Service::default();
    let changed: BTreeMap<ServicePort, Service> = old
        .keys()
        .chain(new.keys())
        .filter(|port| port.protocol == Protocol::Udp && old.get(port) != new.get(port))
        .map(|port| (*port, new.get(port).unwrap_or(&none).clone()))
        .collect();
    if changed.is_empty() {
        return;
    }
    let forgotten = tokio::task::spawn_blocking(move || forget(&|flow| is_stale(flow, &changed))).await;
    match forgotten {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::debug!(count, "UDP flows to targets that are gone were forgotten"),
        Ok(Err(error)) => tracing::warn!(%error, "UDP flows to targets that are gone can't be forgotten"),
        Err(error) => tracing::warn!(%error, "UDP flows to targets that are gone can't be forgotten"),
    }
}

fn is_stale(flow: &Flow, changed: &BTreeMap<ServicePort, Service>) -> bool {
    if flow.protocol != libc::IPPROTO_UDP as u8 {
        return false;
    }
    let at = |place| ServicePort {
        place,
        protocol: Protocol::Udp,
        port: flow.dialled.port,
    };
    [Place::Address(flow.dialled.address), Place::Nodes, Place::Machine]
        .iter()
        .filter_map(|place| changed.get(&at(*place)))
        .any(|service| !service.leads_to(&flow.answers))
}

/// Of a flow, what was dialled and who answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Flow {
    protocol: u8,
    dialled: Target,
    answers: Target,
}

/// Returns how many.
fn forget(stale: &dyn Fn(&Flow) -> bool) -> io::Result<usize> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    let mut found = Vec::new();
    exchange(&socket, message(GET, libc::NLM_F_DUMP as u16, &[]), &mut |attributes| {
        if flow(attributes).is_some_and(|flow| stale(&flow)) {
            found.push(identity(attributes));
        }
    })?;
    let mut count = 0;
    for flow in found {
        match exchange(&socket, message(DELETE, libc::NLM_F_ACK as u16, &flow), &mut |_| {}) {
            Ok(()) => count += 1,
            // It has ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + GENERIC_BYTES + attributes.len());
    let length = (HEADER_BYTES + GENERIC_BYTES + attributes.len()) as u32;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[libc::AF_INET as u8, 0, 0, 0]);
    bytes.extend_from_slice(attributes);
    bytes
}

/// Sends, and hands the attributes of each flow that comes back to `each`, until the kernel says that it was all.
fn exchange(socket: &OwnedFd, message: Vec<u8>, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        let mut rest = &buffer[..length];
        while rest.len() >= HEADER_BYTES {
            let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if size < HEADER_BYTES || size > rest.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            let payload = &rest[HEADER_BYTES..size];
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or(&[]);
            match kind {
                NEW => each(payload.get(GENERIC_BYTES..).unwrap_or(&[])),
                _ if i32::from(kind) == libc::NLMSG_DONE => return Ok(()),
                _ if i32::from(kind) == libc::NLMSG_ERROR => {
                    let code = payload.get(..4).and_then(|bytes| bytes.try_into().ok());
                    return match code.map_or(0, i32::from_ne_bytes) {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => {}
            }
        }
    }
}

/// An attribute's kind, value, and the whole of it with its padding.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*rest.first()?, *rest.get(1)?]));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]) & NLA_TYPE;
        if length < 4 || length > rest.len() {
            return None;
        }
        let (whole, after) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
        rest = after;
        Some((kind, &whole[4..length], whole))
    })
}

fn find(within: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(within)
        .find(|(known, _, _)| *known == kind)
        .map(|(_, value, _)| value)
}

fn flow(bytes: &[u8]) -> Option<Flow> {
    let end = |tuple: u16, address: u16, port: u16| {
        let tuple = find(bytes, tuple)?;
        let protocol = find(tuple, CTA_TUPLE_PROTO)?;
        let address: [u8; 4] = find(find(tuple, CTA_TUPLE_IP)?, address)?.try_into().ok()?;
        let port: [u8; 2] = find(protocol, port)?.try_into().ok()?;
        let target = Target {
            address: Ipv4Addr::from(address),
            port: u16::from_be_bytes(port),
        };
        Some((*find(protocol, CTA_PROTO_NUM)?.first()?, target))
    };
    let (protocol, dialled) = end(CTA_TUPLE_ORIG, CTA_IP_V4_DST, CTA_PROTO_DST_PORT)?;
    let (_, answers) = end(CTA_TUPLE_REPLY, CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT)?;
    Some(Flow {
        protocol,
        dialled,
        answers,
    })
}

/// What names a flow to the kernel.
fn identity(bytes: &[u8]) -> Vec<u8> {
    attributes(bytes)
        .filter(|(kind, _, _)| matches!(*kind, CTA_TUPLE_ORIG | CTA_ID))
        .flat_map(|(_, _, whole)| whole.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(last: u8, port: u16) -> Target {
        Target {
            address: Ipv4Addr::new(10, 244, 0, last),
            port,
        }
    }

    #[test]
    fn a_flow_is_stale_when_its_service_leads_elsewhere_now() {
        let service = Ipv4Addr::new(10, 97, 0, 1);
        let flow = |dialled: Ipv4Addr, answers: u8| Flow {
            protocol: libc::IPPROTO_UDP as u8,
            dialled: Target {
                address: dialled,
                port: 53,
            },
            answers: target(answers, 5353),
        };
        let port = ServicePort {
            place: Place::Address(service),
            protocol: Protocol::Udp,
            port: 53,
        };
        let leads = Service {
            targets: vec![target(2, 5353)],
            ..Service::default()
        };
        let changed = BTreeMap::from([(port, leads)]);

        assert!(is_stale(&flow(service, 3), &changed));
        assert!(!is_stale(&flow(service, 2), &changed));
        assert!(!is_stale(&flow(Ipv4Addr::new(10, 97, 0, 2), 3), &changed));
        let tcp = Flow {
            protocol: libc::IPPROTO_TCP as u8,
            ..flow(service, 3)
        };
        assert!(!is_stale(&tcp, &changed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = flow(&bytes);
            let _ = identity(&bytes);
        }
    }
}
