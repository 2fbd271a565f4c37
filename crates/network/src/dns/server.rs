//! The sockets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use hickory_proto::op::{Message, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Zones,
    answer::{Outcome, answer, response},
    forward::{Forwarder, Transport},
    packet_info,
    shares::Shares,
};
use crate::Error;

/// What a resolver without EDNS takes over UDP (RFC 1035).
const PLAIN_BYTES_MAX: usize = 512;

/// What is sent over UDP at most, whatever the resolver says it takes: avoids fragments (DNS flag day 2020).
const UDP_BYTES_MAX: usize = 1232;

/// Queries are far smaller.
const QUERY_BYTES_MAX: usize = 4096;

/// TCP connections at once, over all planes; further ones are closed at once.
const CONNECTIONS_MAX: usize = 256;

/// And of one plane.
const PLANE_CONNECTIONS_MAX: usize = 64;

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a TCP connection may be silent.
const IDLE_MAX: Duration = Duration::from_secs(10);

pub struct Server {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    zones: Zones,
    domain: String,
    forwarder: Forwarder,
    /// The plane whose door this is, by its address; `None` where the address that was dialled tells.
    only: Option<Ipv4Addr>,
}

/// Binds both sockets at `port` of all addresses; the machine's rules let only Pods' planes' addresses through.
pub async fn listen(port: u16, domain: &str, zones: Zones) -> Result<Server, Error> {
    bind(port, domain, zones, None).await
}

/// As [`listen`], for one plane alone, whatever address is dialled: where what is between here and the Pods has changed it.
pub async fn listen_for(plane: Ipv4Addr, domain: &str, zones: Zones) -> Result<Server, Error> {
    bind(0, domain, zones, Some(plane)).await
}

async fn bind(port: u16, domain: &str, zones: Zones, only: Option<Ipv4Addr>) -> Result<Server, Error> {
    let failed = |source| Error::Dns { port, source };
    let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.map_err(failed)?;
    let port = tcp.local_addr().map_err(failed)?.port();
    let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await.map_err(failed)?;
    packet_info::enable(&udp).map_err(failed)?;
    let shared = Shared {
        zones,
        domain: domain.to_owned(),
        forwarder: Forwarder::of_this_machine(),
        only,
    };
    Ok(Server {
        udp: Arc::new(udp),
        tcp,
        shared: Arc::new(shared),
    })
}

impl Server {
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.tcp.local_addr()?.port())
    }

    /// Serves until cancelled.
    pub async fn serve(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let work = async { tokio::join!(serve_udp(&self, &tasks, &stop), serve_tcp(&self, &tasks, &stop)) };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = work => {}
        }
        tasks.close();
        tasks.wait().await;
    }
}

async fn serve_udp(server: &Server, tasks: &TaskTracker, stop: &CancellationToken) {
    let mut buffer = vec![0; QUERY_BYTES_MAX];
    loop {
        let received = match packet_info::receive(&server.udp, &mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "a DNS datagram could not be received");
                continue;
            }
        };
        let Ok(query) = Message::from_vec(&buffer[..received.len]) else {
            continue;
        };
        let plane = server.shared.only.unwrap_or(received.to);
        match server.shared.outcome(*received.from.ip(), plane, &query) {
            Outcome::Answer(message) => reply(&server.udp, &query, message, received.to, received.from).await,
            elsewhere => {
                let (shared, udp, stop) = (server.shared.clone(), server.udp.clone(), stop.clone());
                // Bounded by the forwarder: what is above its limit is answered at once.
                tasks.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        message = shared.complete(elsewhere, plane, &query, Transport::Udp) => {
                            reply(&udp, &query, message, received.to, received.from).await;
                        }
                    }
                });
            }
        }
    }
}

impl Shared {
    fn outcome(&self, from: Ipv4Addr, plane: Ipv4Addr, query: &Message) -> Outcome {
        if self.zones.may_ask(from, plane) {
            answer(&self.zones, &self.domain, plane, query)
        } else {
            Outcome::Answer(response(query, ResponseCode::Refused))
        }
    }

    async fn complete(&self, outcome: Outcome, plane: Ipv4Addr, query: &Message, transport: Transport) -> Message {
        match outcome {
            Outcome::Answer(message) => message,
            Outcome::Follow(so_far, target) => self.forwarder.follow(plane, query, so_far, target, transport).await,
            Outcome::Forward => self.forwarder.ask(plane, query, transport).await,
        }
    }
}

async fn reply(udp: &UdpSocket, query: &Message, message: Message, from: Ipv4Addr, to: SocketAddrV4) {
    let takes = query.edns.as_ref().map_or(PLAIN_BYTES_MAX, |edns| {
        usize::from(edns.max_payload()).max(PLAIN_BYTES_MAX)
    });
    let bytes = match message.to_vec() {
        Ok(bytes) if bytes.len() <= takes.min(UDP_BYTES_MAX) => Ok(bytes),
        // The resolver asks again over TCP.
        Ok(_) => message.truncate().to_vec(),
        Err(error) => Err(error),
    };
    match bytes {
        Ok(bytes) => {
            if let Err(error) = packet_info::send(udp, &bytes, from, to).await {
                tracing::debug!(%error, %to, "a DNS answer could not be sent");
            }
        }
        Err(error) => tracing::warn!(%error, "a DNS answer could not be encoded"),
    }
}

async fn serve_tcp(server: &Server, tasks: &TaskTracker, stop: &CancellationToken) {
    let connections = Shares::new(CONNECTIONS_MAX, PLANE_CONNECTIONS_MAX);
    loop {
        let (stream, from) = match server.tcp.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a DNS connection could not be accepted");
                // Out of descriptors, most likely: the connection stays in the queue, and asking again at once spins.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (IpAddr::V4(from), Ok(SocketAddr::V4(to))) = (from.ip(), stream.local_addr()) else {
            continue;
        };
        let plane = server.shared.only.unwrap_or(*to.ip());
        let Some(share) = connections.take(plane) else {
            continue;
        };
        let (shared, stop) = (server.shared.clone(), stop.clone());
        tasks.spawn(async move {
            let _share = share;
            tokio::select! {
                () = stop.cancelled() => {}
                done = connection(stream, from, plane, &shared) => if let Err(error) = done {
                    tracing::debug!(%error, "a DNS connection ended");
                },
            }
        });
    }
}

/// Messages over TCP have their length in front (RFC 1035, 4.2.2).
async fn connection(mut stream: TcpStream, from: Ipv4Addr, plane: Ipv4Addr, shared: &Shared) -> io::Result<()> {
    loop {
        let Ok(length) = tokio::time::timeout(IDLE_MAX, stream.read_u16()).await else {
            return Ok(());
        };
        let length = match length {
            Ok(length) => usize::from(length),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        if length > QUERY_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the query is too long"));
        }
        let mut bytes = vec![0; length];
        tokio::time::timeout(IDLE_MAX, stream.read_exact(&mut bytes)).await??;
        let Ok(query) = Message::from_vec(&bytes) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the query can't be read"));
        };
        let outcome = shared.outcome(from, plane, &query);
        let message = shared.complete(outcome, plane, &query, Transport::Tcp).await;
        let bytes = message.to_vec().map_err(io::Error::other)?;
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let send = async {
            stream.write_u16(length).await?;
            stream.write_all(&bytes).await
        };
        tokio::time::timeout(IDLE_MAX, send).await??;
    }
}
