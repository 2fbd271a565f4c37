//! Names that are not of the cluster, asked of the machine's resolvers.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::op::{Message, ResponseCode};
use tokio::{net::UdpSocket, sync::Semaphore};

use super::answer::response;

/// Queries under way at once, over all planes; further ones are answered "server failure" at once, which resolvers retry.
const IN_FLIGHT_MAX: usize = 256;

/// glibc gives each server 5 s; a resolver that is there answers far sooner.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// glibc's `MAXNS`.
const SERVERS_MAX: usize = 3;

/// The largest answer taken over UDP.
const ANSWER_BYTES_MAX: usize = 4096;

pub struct Forwarder {
    servers: Vec<SocketAddr>,
    in_flight: Semaphore,
}

impl Forwarder {
    /// Reads `/etc/resolv.conf`; a machine without resolvers answers "server failure".
    pub fn of_this_machine() -> Forwarder {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Forwarder {
            servers: servers(&text),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        }
    }

    pub async fn ask(&self, query: &Message) -> Message {
        let failure = || response(query, ResponseCode::ServFail);
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return failure();
        };
        let Ok(bytes) = query.to_vec() else { return failure() };
        for server in &self.servers {
            let asked = tokio::time::timeout(SERVER_TIMEOUT, ask_one(*server, &bytes, query.metadata.id)).await;
            if let Ok(Ok(answer)) = asked {
                return answer;
            }
        }
        failure()
    }
}

async fn ask_one(server: SocketAddr, query: &[u8], id: u16) -> std::io::Result<Message> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let len = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..len]) {
            Ok(answer) if answer.metadata.id == id => return Ok(answer),
            // Somebody else's, or noise.
            _ => {}
        }
    }
}

fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok())
        .take(SERVERS_MAX)
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_from_the_usual_file() {
        let text = "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver ::1\nnameserver nonsense\n";

        assert_eq!(
            servers(text),
            vec!["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]
        );
    }
}
