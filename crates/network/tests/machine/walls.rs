//! Who may reach whom.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use network::Options;
use network::proxy::{Circle, Place, Protocol, Proxy, Service, ServicePort, Target};

use crate::namespaces::{GATEWAY, HOST, Machine, Namespace, OUTSIDE, POD, ask_tcp, options, possible, serve_tcp};
use crate::services::{self, apply, started};

const DOOR: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 104, 0, 1), Ipv4Addr::new(10, 104, 0, 2)];
const WEB: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);

fn circles(machine: &Machine, proxy: &Proxy, circles: [Circle; 3]) {
    let circles = POD.into_iter().zip(circles);
    machine.host.block_on(async {
        let changed = proxy.set_addresses(|known| known.pods = circles.collect());
        changed.await.unwrap();
    });
}

fn plane(number: usize) -> Circle {
    Circle::Plane { door: DOOR[number] }
}

fn to(pod: usize) -> (ServicePort, Service) {
    let port = ServicePort {
        place: Place::Address(WEB),
        protocol: Protocol::Tcp,
        port: 80 + u16::try_from(pod).unwrap(),
    };
    let service = Service {
        targets: vec![Target {
            address: POD[pod],
            port: 8080,
        }],
        ..Service::default()
    };
    (port, service)
}

/// A machine where every Pod serves, and has a Service.
fn served() -> (Machine, Proxy) {
    let machine = Machine::new();
    let proxy = started(&machine);
    for pod in 0..3 {
        machine.serve_tcp(pod, 8080);
    }
    apply(&machine, &proxy, &[to(0), to(1), to(2)]);
    (machine, proxy)
}

#[test]
fn pods_of_one_plane_reach_each_other_and_no_other_planes() {
    if !possible() {
        return;
    }
    let (machine, proxy) = served();
    let [one, two, other] = &machine.pods;

    circles(&machine, &proxy, [plane(0), plane(0), plane(1)]);

    assert!(ask_tcp(one, POD[1], 8080).is_ok());
    assert!(ask_tcp(two, POD[0], 8080).is_ok());
    assert!(ask_tcp(one, WEB, 81).is_ok(), "behind a Service too");
    assert!(ask_tcp(one, WEB, 80).is_ok(), "oneself");
    for (from, to) in [(one, 2), (other, 0), (other, 1)] {
        assert!(ask_tcp(from, POD[to], 8080).is_err(), "by address");
        assert!(
            ask_tcp(from, WEB, 80 + u16::try_from(to).unwrap()).is_err(),
            "by Service"
        );
    }
    assert!(
        ask_tcp(&machine.host, POD[2], 8080).is_ok(),
        "probes come from the machine"
    );
}

#[test]
fn a_planes_pods_reach_the_outside_and_nothing_of_the_machine() {
    if !possible() {
        return;
    }
    let (machine, proxy) = served();
    serve_tcp(&machine.outside, 7, 80);
    serve_tcp(&machine.host, 9, 10250);
    circles(&machine, &proxy, [plane(0), Circle::Alone, Circle::Trusted]);
    let [tenants, unknown, trusted] = &machine.pods;

    for pod in [tenants, unknown, trusted] {
        assert!(ask_tcp(pod, OUTSIDE, 80).is_ok());
    }
    for pod in [tenants, unknown] {
        for address in [HOST, GATEWAY] {
            assert!(ask_tcp(pod, address, 10250).is_err(), "{address}");
        }
    }
    assert!(ask_tcp(trusted, HOST, 10250).is_ok());
    assert!(ask_tcp(trusted, POD[0], 8080).is_ok(), "who runs the machines may ask");
    assert!(
        ask_tcp(tenants, POD[2], 8080).is_err(),
        "and be asked by their like only"
    );
}

#[test]
fn a_planes_pods_come_to_their_own_door_only() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let proxy = started(&machine);
    serve_tcp(&machine.host, 5, 6444);
    circles(&machine, &proxy, [plane(0), plane(1), Circle::Alone]);

    assert!(ask_tcp(&machine.pods[0], DOOR[0], 443).is_ok());
    assert!(ask_tcp(&machine.pods[1], DOOR[1], 443).is_ok());
    for (pod, door) in [(0, 1), (1, 0), (2, 0)] {
        assert!(ask_tcp(&machine.pods[pod], DOOR[door], 443).is_err(), "{pod} {door}");
    }
    assert!(
        ask_tcp(&machine.pods[0], DOOR[0], 6444).is_ok(),
        "the same door by its other number"
    );
    assert!(ask_tcp(&machine.pods[0], HOST, 6444).is_err());
}

/// Beside another cluster a door is a Service of it, wherever the planes are.
#[test]
fn a_door_that_leads_elsewhere_is_its_own_planes_only() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let without_doors = Options {
        door_ports: None,
        ..options(0, 0)
    };
    let mut started = None;
    machine
        .host
        .block_on(async { started = Some(services::start(&without_doors).await) });
    let proxy = started.unwrap();
    serve_tcp(&machine.host, 9, 46283);
    serve_tcp(&machine.outside, 7, 46283);
    machine.serve_tcp(2, 46283);
    circles(&machine, &proxy, [plane(0), plane(1), Circle::Trusted]);
    let [own, other, trusted] = &machine.pods;

    for place in [HOST, OUTSIDE, POD[2]] {
        let door = |door| {
            let port = ServicePort {
                place: Place::Address(door),
                protocol: Protocol::Tcp,
                port: 443,
            };
            let targets = vec![Target {
                address: place,
                port: 46283,
            }];
            let service = Service {
                targets,
                ..Service::default()
            };
            (port, service)
        };
        apply(&machine, &proxy, &DOOR.map(door));

        assert!(ask_tcp(own, DOOR[0], 443).is_ok(), "{place}");
        assert!(ask_tcp(other, DOOR[1], 443).is_ok(), "{place}");
        assert!(ask_tcp(trusted, DOOR[1], 443).is_ok(), "{place}");
        assert!(ask_tcp(own, DOOR[1], 443).is_err(), "{place}");
        assert!(ask_tcp(other, DOOR[0], 443).is_err(), "{place}");
    }
    for place in [HOST, POD[2]] {
        assert!(ask_tcp(own, place, 46283).is_err(), "and by no other name: {place}");
    }
}

#[test]
fn who_opts_out_meets_others_that_do() {
    if !possible() {
        return;
    }
    let (machine, proxy) = served();
    let open = |number: usize| Circle::Open { door: DOOR[number] };

    circles(&machine, &proxy, [open(0), open(1), plane(1)]);
    assert!(ask_tcp(&machine.pods[0], POD[1], 8080).is_ok());
    assert!(
        ask_tcp(&machine.pods[1], POD[2], 8080).is_err(),
        "who didn't stays alone"
    );

    circles(&machine, &proxy, [open(0), plane(0), Circle::Trusted]);
    assert!(ask_tcp(&machine.pods[0], POD[2], 8080).is_ok());
}

#[test]
fn a_pod_that_left_its_plane_is_cut_off_at_once() {
    if !possible() {
        return;
    }
    let (machine, proxy) = served();
    circles(&machine, &proxy, [plane(0), plane(0), plane(1)]);
    assert!(ask_tcp(&machine.pods[0], POD[1], 8080).is_ok());

    // The address was given on to a Pod of another plane.
    circles(&machine, &proxy, [plane(0), plane(1), plane(1)]);

    assert!(ask_tcp(&machine.pods[0], POD[1], 8080).is_err());
    assert!(ask_tcp(&machine.pods[2], POD[1], 8080).is_ok());
}

#[test]
fn a_pod_speaks_as_nobody_else() {
    if !possible() {
        return;
    }
    let (machine, proxy) = served();
    circles(&machine, &proxy, [plane(0), plane(1), plane(1)]);
    let heard = machine.pods[1].run(|| {
        let socket = UdpSocket::bind("0.0.0.0:9000").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket
    });
    let speak = |from: &Namespace, by: Ipv4Addr| {
        from.run(|| {
            let socket = UdpSocket::bind((by, 0)).unwrap();
            let _ = socket.send_to(b"forged", (POD[1], 9000));
        });
    };
    let mut buffer = [0; 16];

    speak(&machine.pods[2], POD[2]);
    assert!(heard.recv_from(&mut buffer).is_ok(), "the true one is heard");

    machine.pods[0].ip(&format!("address add {}/32 dev eth0", POD[2]));
    speak(&machine.pods[0], POD[2]);
    assert!(heard.recv_from(&mut buffer).is_err());
}

#[test]
fn a_pods_ipv6_meets_nobody() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let _proxy = started(&machine);
    machine.host.ip("address add fd00::1/64 dev mgv0 nodad");
    machine.pods[0].ip("address add fd00::2/64 dev eth0 nodad");
    let listener = machine
        .host
        .run(|| std::net::TcpListener::bind("[fd00::1]:10250").unwrap());

    assert!(
        ask_tcp(
            &machine.pods[0],
            "fd00::1".parse::<std::net::Ipv6Addr>().unwrap(),
            10250
        )
        .is_err()
    );
    drop(listener);
}
