//! Names that are not of the cluster, asked of the machine's resolvers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::Name,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::{answer::response, shares::Shares};

/// Queries under way at once, over all planes; further ones are answered "server failure" at once, which resolvers retry.
const IN_FLIGHT_MAX: usize = 256;

/// And of one plane.
const PLANE_IN_FLIGHT_MAX: usize = 64;

/// glibc gives each server 5 s; a resolver that is there answers far sooner.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// glibc's `MAXNS`.
const SERVERS_MAX: usize = 3;

/// What we say that we take over UDP (DNS flag day 2020), whatever the asking Pod would take.
const UDP_BYTES_MAX: u16 = 1232;

/// How the Pod asked: over UDP it is told of a truncated answer and comes back over TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Udp,
    Tcp,
}

pub struct Forwarder {
    resolv_conf: PathBuf,
    port: u16,
    /// As read when the file was last changed.
    known: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
    in_flight: Shares,
}

impl Forwarder {
    /// Asks whom `/etc/resolv.conf` names; a machine without resolvers answers "server failure".
    pub fn of_this_machine() -> Forwarder {
        Forwarder::new("/etc/resolv.conf".into(), 53)
    }

    fn new(resolv_conf: PathBuf, port: u16) -> Forwarder {
        Forwarder {
            resolv_conf,
            port,
            known: Mutex::default(),
            in_flight: Shares::new(IN_FLIGHT_MAX, PLANE_IN_FLIGHT_MAX),
        }
    }

    /// The answer of the first resolver that gives one.
    pub async fn ask(&self, plane: Ipv4Addr, query: &Message, transport: Transport) -> Message {
        let failure = || response(query, ResponseCode::ServFail);
        let Some(_share) = self.in_flight.take(plane) else {
            return failure();
        };
        let mut asked = query.clone();
        if let Some(edns) = &mut asked.edns {
            edns.set_max_payload(edns.max_payload().min(UDP_BYTES_MAX));
        }
        for server in self.servers() {
            if let Ok(Ok(answer)) = tokio::time::timeout(SERVER_TIMEOUT, ask_one(server, &asked, transport)).await {
                return answer;
            }
        }
        failure()
    }

    /// Completes an answer that is an alias with what is known about its target.
    pub async fn follow(
        &self,
        plane: Ipv4Addr,
        query: &Message,
        mut so_far: Message,
        target: Name,
        transport: Transport,
    ) -> Message {
        let Some(question) = query.queries.first() else {
            return so_far;
        };
        let mut onward = Message::query();
        onward.metadata.recursion_desired = true;
        onward.add_query(Query::query(target, question.query_type()));
        let answer = self.ask(plane, &onward, transport).await;
        so_far.metadata.truncation |= answer.metadata.truncation;
        so_far.metadata.response_code = answer.metadata.response_code;
        so_far.add_answers(answer.answers);
        so_far
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let changed = std::fs::metadata(&self.resolv_conf)
            .and_then(|file| file.modified())
            .ok();
        let mut known = self.known.lock().expect("no one panics while holding it");
        if known.0 != changed || changed.is_none() {
            let text = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
            *known = (changed, servers(&text, self.port));
        }
        known.1.clone()
    }
}

async fn ask_one(server: SocketAddr, query: &Message, transport: Transport) -> io::Result<Message> {
    let bytes = query.to_vec().map_err(io::Error::other)?;
    match transport {
        Transport::Udp => ask_udp(server, query, &bytes).await,
        Transport::Tcp => ask_tcp(server, query, &bytes).await,
    }
}

async fn ask_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if answers(&answer, query) => return Ok(answer),
            // Somebody else's, or noise.
            _ => {}
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    stream
        .write_u16(u16::try_from(bytes.len()).map_err(io::Error::other)?)
        .await?;
    stream.write_all(bytes).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    match Message::from_vec(&buffer) {
        Ok(answer) if answers(&answer, query) => Ok(answer),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn answers(answer: &Message, query: &Message) -> bool {
    answer.metadata.id == query.metadata.id && answer.queries == query.queries
}

fn servers(resolv_conf: &str, port: u16) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok())
        .take(SERVERS_MAX)
        .map(|address| SocketAddr::new(address, port))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_from_the_usual_file() {
        let text = "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver ::1\nnameserver nonsense\n";

        assert_eq!(
            servers(text, 53),
            vec!["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]
        );
    }

    const PLANE: Ipv4Addr = Ipv4Addr::new(10, 104, 0, 1);

    /// A resolver that truncates over UDP, and a `resolv.conf` that names it.
    async fn resolver() -> (Forwarder, tempfile::NamedTempFile) {
        use hickory_proto::rr::{RData, Record, rdata::A};
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let mut other = response(&query, ResponseCode::NoError);
                other.metadata.id = other.metadata.id.wrapping_add(1);
                udp.send_to(&other.to_vec().unwrap(), from).await.unwrap();
                let answer = response(&query, ResponseCode::NoError).truncate();
                udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut bytes).await.unwrap();
                let query = Message::from_vec(&bytes).unwrap();
                let mut answer = response(&query, ResponseCode::NoError);
                let name = query.queries[0].name().clone();
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(192, 0, 2, 7)))));
                let bytes = answer.to_vec().unwrap();
                stream.write_u16(bytes.len() as u16).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        });
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"nameserver 127.0.0.1\n").unwrap();
        (Forwarder::new(file.path().to_owned(), port), file)
    }

    fn query(name: &str) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(
            Name::from_ascii(name).unwrap(),
            hickory_proto::rr::RecordType::A,
        ));
        query
    }

    #[tokio::test]
    async fn an_answer_too_long_for_udp_is_had_over_tcp() {
        let (forwarder, _file) = resolver().await;
        let query = query("example.org.");

        let over_udp = forwarder.ask(PLANE, &query, Transport::Udp).await;
        let over_tcp = forwarder.ask(PLANE, &query, Transport::Tcp).await;

        assert!(over_udp.metadata.truncation);
        assert_eq!(over_udp.metadata.id, query.metadata.id);
        assert_eq!(over_tcp.answers.len(), 1);
    }

    #[tokio::test]
    async fn an_alias_is_followed() {
        let (forwarder, _file) = resolver().await;
        let query = query("out.shop.svc.cluster.local.");
        let so_far = response(&query, ResponseCode::NoError);

        let target = Name::from_ascii("example.org.").unwrap();
        let whole = forwarder
            .follow(PLANE, &query, so_far, target.clone(), Transport::Tcp)
            .await;

        assert_eq!(whole.metadata.id, query.metadata.id);
        assert_eq!(whole.queries, query.queries);
        assert_eq!(whole.answers[0].name, target);
    }

    #[tokio::test]
    async fn a_machine_without_resolvers_says_so_and_one_that_gets_some_uses_them() {
        let (forwarder, file) = resolver().await;
        let whole = std::fs::read(file.path()).unwrap();
        std::fs::write(file.path(), "").unwrap();
        let query = query("example.org.");
        let none = forwarder.ask(PLANE, &query, Transport::Tcp).await;

        std::fs::write(file.path(), whole).unwrap();
        // Whatever the clock's grain.
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        std::fs::File::options()
            .write(true)
            .open(file.path())
            .unwrap()
            .set_modified(later)
            .unwrap();
        let some = forwarder.ask(PLANE, &query, Transport::Tcp).await;

        assert_eq!(none.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(some.metadata.response_code, ResponseCode::NoError);
    }
}
