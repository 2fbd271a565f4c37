//! Datagrams with the address they were sent to, so that the answer comes from there (`IP_PKTINFO`, ip(7)).

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt::Ipv4PacketInfo,
};
use tokio::{io::Interest, net::UdpSocket};

/// A received datagram's length, sender and the address it was sent to.
pub struct Received {
    pub len: usize,
    pub from: SocketAddrV4,
    pub to: Ipv4Addr,
}

pub fn enable(socket: &UdpSocket) -> io::Result<()> {
    Ok(setsockopt(socket, Ipv4PacketInfo, &true)?)
}

pub async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    socket
        .async_io(Interest::READABLE, || {
            let mut slices = [IoSliceMut::new(buffer)];
            let mut space = nix::cmsg_space!(libc::in_pktinfo);
            let message = recvmsg::<SockaddrIn>(
                socket.as_raw_fd(),
                &mut slices,
                Some(&mut space),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let to = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))),
                _ => None,
            });
            let from = message.address.map(SocketAddrV4::from);
            match (from, to) {
                (Some(from), Some(to)) => Ok(Received {
                    len: message.bytes,
                    from,
                    to,
                }),
                _ => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a datagram without its addresses",
                )),
            }
        })
        .await
}

pub async fn send(socket: &UdpSocket, bytes: &[u8], from: Ipv4Addr, to: SocketAddrV4) -> io::Result<()> {
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from(from).to_be(),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    socket
        .async_io(Interest::WRITABLE, || {
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(
                socket.as_raw_fd(),
                &[IoSlice::new(bytes)],
                &control,
                MsgFlags::MSG_DONTWAIT,
                Some(&SockaddrIn::from(to)),
            )?;
            Ok(())
        })
        .await
}
