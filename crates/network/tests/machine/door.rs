//! The Pods' door: one socket that knows the plane by the address that was dialled, and DNS behind it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use network::dns::{self, Zones, zones::ServiceKind, zones::ServiceNames};
use tokio_util::sync::CancellationToken;

use crate::namespaces::{Machine, Namespace, POD, ask_tcp, options, possible};
use crate::services::{start, started_with};

const ACME: Ipv4Addr = Ipv4Addr::new(10, 104, 0, 5);
const GLOBEX: Ipv4Addr = Ipv4Addr::new(10, 111, 255, 254);

#[test]
fn one_listener_knows_the_plane_by_the_address_that_was_dialled() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let listener = machine.host.run(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let door_port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = write!(stream, "{}", stream.local_addr().unwrap().ip());
        }
    });
    let _proxy = started_with(&machine, door_port, 6053);

    for place in [&machine.pods[0], &machine.pods[1], &machine.host] {
        for plane in [ACME, GLOBEX] {
            assert_eq!(ask_tcp(place, plane, 443), Ok(plane.to_string()));
        }
    }

    // Not from outside, neither at the address nor at the machine's own.
    machine.outside.ip("route add 10.104.0.0/13 via 192.0.2.1");
    assert!(ask_tcp(&machine.outside, ACME, 443).is_err());
    assert!(ask_tcp(&machine.outside, Ipv4Addr::new(192, 0, 2, 1), door_port).is_err());
    // And Pods not at the gateway's own address.
    assert!(ask_tcp(&machine.pods[0], Ipv4Addr::new(10, 244, 0, 1), door_port).is_err());
}

/// Asks over UDP, with a socket that takes answers only from where it asked.
fn ask_udp(place: &Namespace, plane: Ipv4Addr, name: &str) -> Option<Message> {
    let query = query(name);
    place.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.connect((plane, 53)).unwrap();
        socket.send(&query.to_vec().unwrap()).unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).ok()?;
        Some(Message::from_vec(&buffer[..length]).unwrap())
    })
}

fn ask_dns_tcp(place: &Namespace, plane: Ipv4Addr, name: &str) -> Message {
    use std::io::Read;
    let query = query(name).to_vec().unwrap();
    place.run(|| {
        let mut stream = std::net::TcpStream::connect((plane, 53)).unwrap();
        stream.write_all(&(query.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&query).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes).unwrap();
        Message::from_vec(&bytes).unwrap()
    })
}

fn query(name: &str) -> Message {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    query
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn one_dns_server_answers_each_plane_from_its_own_address() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let zones = Zones::default();
    for (plane, address) in [(ACME, [10, 97, 0, 1]), (GLOBEX, [10, 97, 0, 2])] {
        let names = ServiceNames {
            kind: ServiceKind::Address(address.into()),
            ports: Vec::new(),
        };
        zones.set_service(plane, "shop", "web", Some(names));
    }
    let (told, port) = std::sync::mpsc::channel();
    let stop = CancellationToken::new();
    std::thread::scope(|scope| {
        let (host, served, stopped) = (&machine.host, zones.clone(), stop.clone());
        scope.spawn(move || {
            host.block_on(async {
                let server = dns::listen(0, "cluster.local", served).await.unwrap();
                let dns_port = server.port().unwrap();
                let options = options(6444, dns_port);
                start(&options).await;
                told.send(dns_port).unwrap();
                server.serve(stopped).await;
            });
        });
        let dns_port = port.recv().unwrap();
        let _stop = stop.drop_guard();

        let name = "web.shop.svc.cluster.local.";
        for place in [&machine.pods[0], &machine.host] {
            assert_eq!(addresses(&ask_udp(place, ACME, name).unwrap()), ["10.97.0.1"]);
            assert_eq!(addresses(&ask_udp(place, GLOBEX, name).unwrap()), ["10.97.0.2"]);
            assert_eq!(addresses(&ask_dns_tcp(place, GLOBEX, name)), ["10.97.0.2"]);
        }
        let unknown = ask_udp(&machine.pods[0], ACME, "none.shop.svc.cluster.local.").unwrap();
        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);

        // A Pod that is known to be of one plane hears nothing of another.
        zones.set_pod(POD[0], Some(ACME));
        let refused = ask_udp(&machine.pods[0], GLOBEX, name).unwrap();
        assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
        assert_eq!(
            addresses(&ask_udp(&machine.pods[0], ACME, name).unwrap()),
            ["10.97.0.1"]
        );
        assert_eq!(
            addresses(&ask_udp(&machine.pods[1], GLOBEX, name).unwrap()),
            ["10.97.0.2"]
        );

        machine.outside.ip("route add 10.104.0.0/13 via 192.0.2.1");
        assert!(ask_udp(&machine.outside, ACME, name).is_none());
        let own: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        assert!(ask_tcp(&machine.outside, own, dns_port).is_err());
    });
}
