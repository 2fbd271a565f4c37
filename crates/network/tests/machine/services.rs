//! Services, as Pods and the machine itself meet them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, ErrorKind, Lines},
    net::{Ipv4Addr, UdpSocket},
    process::{Child, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use network::Options;
use network::proxy::{Addresses, Affinity, Circle, Place, Protocol, Proxy, Service, ServicePort, Target};

use crate::namespaces::{GATEWAY, HOST, Machine, OUTSIDE, POD, ask_tcp, options, possible, serve_tcp};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);

fn port(address: Ipv4Addr, protocol: Protocol, port: u16) -> ServicePort {
    ServicePort {
        place: Place::Address(address),
        protocol,
        port,
    }
}

fn service(targets: &[(usize, u16)]) -> Service {
    let targets = targets.iter().map(|(pod, port)| Target {
        address: POD[*pod],
        port: *port,
    });
    Service {
        targets: targets.collect(),
        ..Service::default()
    }
}

/// All Pods are the machine's own people's, as on a cluster without tenants.
pub fn started(machine: &Machine) -> Proxy {
    started_with(machine, 6444, 6053)
}

pub fn started_with(machine: &Machine, door_port: u16, dns_port: u16) -> Proxy {
    let mut proxy = None;
    machine
        .host
        .block_on(async { proxy = Some(start(&options(door_port, dns_port)).await) });
    proxy.unwrap()
}

pub async fn start(options: &Options) -> Proxy {
    network::door::open(options).await.unwrap();
    let started = Proxy::start(options).await.unwrap();
    let addresses = Addresses {
        pods: POD.map(|pod| (pod, Circle::Trusted)).into(),
        nodes: BTreeMap::from([(HOST, GATEWAY)]),
        ..Addresses::default()
    };
    started.set_addresses(|known| *known = addresses).await.unwrap();
    started
}

pub fn apply(machine: &Machine, proxy: &Proxy, wanted: &[(ServicePort, Service)]) {
    let wanted: BTreeMap<_, _> = wanted.iter().cloned().collect();
    machine.host.block_on(async { proxy.apply(wanted).await.unwrap() });
}

#[test]
fn a_service_leads_pods_and_the_machine_to_its_targets_and_refuses_without() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let proxy = started(&machine);
    machine.serve_tcp(0, 8080);
    machine.serve_tcp(1, 8080);
    let web = port(WEB, Protocol::Tcp, 80);

    apply(&machine, &proxy, &[(web, service(&[(1, 8080)]))]);
    for place in [&machine.pods[0], &machine.pods[1], &machine.host] {
        let answer = ask_tcp(place, WEB, 80).unwrap();
        assert!(answer.starts_with("1 "), "{answer}");
    }

    apply(&machine, &proxy, &[(web, service(&[(0, 8080), (1, 8080)]))]);
    let met: BTreeSet<String> = (0..40)
        .map(|_| ask_tcp(&machine.pods[0], WEB, 80).unwrap()[..1].to_owned())
        .collect();
    assert_eq!(met.len(), 2, "both targets are met, oneself included");

    apply(&machine, &proxy, &[(web, service(&[]))]);
    for place in [&machine.pods[0], &machine.host] {
        assert_eq!(ask_tcp(place, WEB, 80), Err(ErrorKind::ConnectionRefused));
        assert_eq!(
            ask_tcp(place, Ipv4Addr::new(10, 97, 9, 9), 80),
            Err(ErrorKind::ConnectionRefused)
        );
    }
}

#[test]
fn a_client_with_affinity_meets_one_target_only() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let proxy = started(&machine);
    machine.serve_tcp(0, 8080);
    machine.serve_tcp(1, 8080);
    let mut sticky = service(&[(0, 8080), (1, 8080)]);
    sticky.affinity = Affinity::ClientAddress { seconds: 600 };

    apply(&machine, &proxy, &[(port(WEB, Protocol::Tcp, 80), sticky)]);

    let met: BTreeSet<String> = (0..20)
        .map(|_| ask_tcp(&machine.pods[0], WEB, 80).unwrap()[..1].to_owned())
        .collect();
    assert_eq!(met.len(), 1);

    // A third target, and the one that was met stays; when it goes, another takes over.
    let first: usize = met.first().unwrap().parse().unwrap();
    machine.serve_tcp(2, 8080);
    let stick = |targets: &[(usize, u16)]| Service {
        affinity: Affinity::ClientAddress { seconds: 600 },
        ..service(targets)
    };
    apply(
        &machine,
        &proxy,
        &[(port(WEB, Protocol::Tcp, 80), stick(&[(0, 8080), (1, 8080), (2, 8080)]))],
    );
    for _ in 0..20 {
        assert!(
            ask_tcp(&machine.pods[0], WEB, 80)
                .unwrap()
                .starts_with(&first.to_string())
        );
    }
    let others: Vec<_> = [0, 1, 2]
        .into_iter()
        .filter(|pod| *pod != first)
        .map(|pod| (pod, 8080))
        .collect();
    apply(&machine, &proxy, &[(port(WEB, Protocol::Tcp, 80), stick(&others))]);
    let met: BTreeSet<String> = (0..20)
        .map(|_| ask_tcp(&machine.pods[0], WEB, 80).unwrap()[..1].to_owned())
        .collect();
    assert_eq!(met.len(), 1);
    assert_ne!(met.first().unwrap(), &first.to_string());
}

#[test]
fn udp_and_tcp_of_one_port_are_two() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let proxy = started(&machine);
    machine.serve_tcp(1, 9000);
    let socket = machine.pods[1].run(|| UdpSocket::bind("0.0.0.0:9001").unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length].to_ascii_uppercase(), from);
        }
    });

    apply(
        &machine,
        &proxy,
        &[
            (port(WEB, Protocol::Tcp, 53), service(&[(1, 9000)])),
            (port(WEB, Protocol::Udp, 53), service(&[(1, 9001)])),
        ],
    );

    assert!(ask_tcp(&machine.pods[0], WEB, 53).unwrap().starts_with('1'));
    let answer = machine.pods[0].run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        // Connected: an answer from another address would not be taken.
        socket.connect((WEB, 53)).unwrap();
        socket.send(b"hello").unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    });
    assert_eq!(answer, b"HELLO");
}

#[test]
fn pods_go_out_as_the_machine_and_meet_each_other_as_themselves_also_behind_services() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let proxy = started(&machine);
    serve_tcp(&machine.outside, 7, 80);
    machine.serve_tcp(0, 8080);
    machine.serve_tcp(1, 8080);
    apply(
        &machine,
        &proxy,
        &[
            (port(WEB, Protocol::Tcp, 80), service(&[(1, 8080)])),
            (port(WEB, Protocol::Tcp, 81), service(&[(0, 8080)])),
        ],
    );

    assert_eq!(ask_tcp(&machine.pods[0], OUTSIDE, 80).unwrap(), "7 192.0.2.1");
    assert_eq!(
        ask_tcp(&machine.pods[0], POD[1], 8080).unwrap(),
        format!("1 {}", POD[0])
    );
    assert_eq!(
        ask_tcp(&machine.pods[0], WEB, 80).unwrap(),
        format!("1 {}", POD[0]),
        "a Service doesn't hide who asks"
    );
    assert_eq!(
        ask_tcp(&machine.pods[0], WEB, 81).unwrap(),
        format!("0 {GATEWAY}"),
        "but for who meets itself"
    );
    assert_eq!(ask_tcp(&machine.host, WEB, 80).unwrap(), format!("1 {GATEWAY}"));
}

#[test]
fn services_of_an_earlier_process_go_on_until_the_first_apply() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let first = started(&machine);
    machine.serve_tcp(1, 8080);
    let old = (port(WEB, Protocol::Tcp, 80), service(&[(1, 8080)]));
    let new = (port(WEB, Protocol::Tcp, 81), service(&[(1, 8080)]));
    apply(&machine, &first, &[old]);
    drop(first);

    let second = started(&machine);
    assert!(ask_tcp(&machine.pods[0], WEB, 80).is_ok());

    apply(&machine, &second, &[new]);
    assert_eq!(ask_tcp(&machine.pods[0], WEB, 80), Err(ErrorKind::ConnectionRefused));
    assert!(ask_tcp(&machine.pods[0], WEB, 81).is_ok());
    assert_eq!(
        machine
            .host
            .command("nft", "list ruleset")
            .matches("chain service_")
            .count(),
        1
    );
}

#[test]
fn a_table_that_somebody_flushed_comes_back_with_the_next_change() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let proxy = started(&machine);
    machine.serve_tcp(1, 8080);
    let one = (port(WEB, Protocol::Tcp, 80), service(&[(1, 8080)]));
    let two = (port(WEB, Protocol::Tcp, 81), service(&[(1, 8080)]));
    apply(&machine, &proxy, std::slice::from_ref(&one));

    machine.host.command("nft", "flush ruleset");
    apply(&machine, &proxy, &[one, two]);

    assert!(ask_tcp(&machine.pods[0], WEB, 80).is_ok());
    assert!(ask_tcp(&machine.pods[0], WEB, 81).is_ok());
}

/// What the kernel tells of changes to its tables.
struct Monitor<'a> {
    machine: &'a Machine,
    nft: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Monitor<'_> {
    fn start(machine: &Machine) -> Monitor<'_> {
        let mut command = Command::new("nft");
        let mut nft = machine
            .host
            .run(|| command.arg("monitor").stdout(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(nft.stdout.take().unwrap()).lines();
        // It says nothing when it has begun to listen, so it is told of something until it tells.
        let told = AtomicBool::new(false);
        let lines = std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0.. {
                    machine.host.command("nft", &format!("add table ip begin{number}"));
                    if told.load(Ordering::Relaxed) {
                        machine.host.command("nft", "add table ip begun");
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let mut lines = lines;
            while !lines.next().unwrap().unwrap().contains("ip begun") {
                told.store(true, Ordering::Relaxed);
            }
            lines
        });
        Monitor { machine, nft, lines }
    }

    /// Changes since the last time.
    fn count(&mut self) -> usize {
        self.machine.host.command("nft", "add table ip told");
        self.machine.host.command("nft", "delete table ip told");
        let mut count = 0;
        loop {
            let line = self.lines.next().unwrap().unwrap();
            if line.contains("delete table ip told") {
                return count;
            }
            let counts = !line.contains("table ip told") && !line.starts_with('#');
            count += usize::from(counts);
        }
    }
}

impl Drop for Monitor<'_> {
    fn drop(&mut self) {
        let _ = self.nft.kill();
        let _ = self.nft.wait();
    }
}

#[test]
fn one_change_among_a_thousand_services_changes_nothing_else() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let proxy = started(&machine);
    let mut wanted: Vec<_> = (0..1000u32)
        .map(|n| {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 98, 0, 0)) + n);
            (port(address, Protocol::Tcp, 80), service(&[(0, 8080), (1, 8080)]))
        })
        .collect();
    let mut monitor = Monitor::start(&machine);
    apply(&machine, &proxy, &wanted);
    let all = monitor.count();

    wanted[500].1 = service(&[(1, 8080)]);
    apply(&machine, &proxy, &wanted);
    let one = monitor.count();
    apply(&machine, &proxy, &wanted);
    let none = monitor.count();

    println!("changes of tables for 1000 Services at once {all}, one of them {one}, nothing {none}");
    assert!(all >= 1000, "{all}");
    assert!((1..20).contains(&one), "{one}");
    assert_eq!(none, 0);
    machine.serve_tcp(1, 8080);
    let web_500 = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 98, 0, 0)) + 500);
    assert!(ask_tcp(&machine.pods[0], web_500, 80).is_ok());
}

#[test]
fn teardown_leaves_no_rule_and_no_route() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let before = machine.host.ip("route show table all");
    let proxy = started(&machine);
    apply(
        &machine,
        &proxy,
        &[(port(WEB, Protocol::Tcp, 80), service(&[(1, 8080)]))],
    );
    assert_ne!(machine.host.ip("route show table all"), before);

    machine.host.block_on(async {
        network::teardown(&options(6444, 6053)).await.unwrap();
        network::teardown(&options(6444, 6053)).await.expect("twice is fine");
    });

    assert_eq!(machine.host.ip("route show table all"), before);
    assert_eq!(machine.host.command("nft", "list ruleset"), "");
}

#[test]
fn node_ports_and_host_ports_lead_who_is_outside_to_pods() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let proxy = started(&machine);
    machine.serve_tcp(0, 8080);
    machine.serve_tcp(1, 8080);
    machine.outside.ip("route add 203.0.113.7 via 192.0.2.1");
    let at = |place, port| ServicePort {
        place,
        protocol: Protocol::Tcp,
        port,
    };
    let external = Place::Address(Ipv4Addr::new(203, 0, 113, 7));
    let local_only = Service {
        from_outside: Some(Vec::new()),
        ..service(&[(1, 8080)])
    };

    apply(
        &machine,
        &proxy,
        &[
            (at(Place::Nodes, 30080), service(&[(1, 8080)])),
            (at(Place::Machine, 8088), service(&[(0, 8080)])),
            (at(external, 80), service(&[(1, 8080)])),
            (at(Place::Nodes, 30081), local_only),
        ],
    );

    assert_eq!(
        ask_tcp(&machine.outside, HOST, 30080).unwrap(),
        format!("1 {OUTSIDE}"),
        "who asks is seen"
    );
    assert_eq!(ask_tcp(&machine.outside, HOST, 8088).unwrap(), format!("0 {OUTSIDE}"));
    assert_eq!(
        ask_tcp(&machine.outside, Ipv4Addr::new(203, 0, 113, 7), 80).unwrap(),
        format!("1 {OUTSIDE}")
    );
    assert!(ask_tcp(&machine.host, HOST, 30080).is_ok(), "from the machine itself");
    assert!(ask_tcp(&machine.pods[0], HOST, 30080).is_ok(), "from a Pod");
    assert!(
        ask_tcp(&machine.pods[0], HOST, 30081).is_ok(),
        "the cluster meets all targets"
    );
    assert!(
        ask_tcp(&machine.outside, HOST, 30081).is_err(),
        "and the outside those of this node"
    );
}

#[test]
fn a_udp_client_that_goes_on_asking_follows_a_service_to_its_new_target() {
    if !possible() {
        return;
    }
    let machine = Machine::new();
    let proxy = started(&machine);
    for pod in [0, 1] {
        let socket = machine.pods[pod].run(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&[u8::try_from(pod).unwrap()], from);
            }
        });
    }
    let client = machine.pods[2].run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.connect((WEB, 53)).unwrap();
        socket
    });
    let ask = || {
        client.send(b"who").unwrap();
        let mut buffer = [9; 1];
        client.recv(&mut buffer).unwrap();
        buffer[0]
    };

    apply(
        &machine,
        &proxy,
        &[(port(WEB, Protocol::Udp, 53), service(&[(0, 9000)]))],
    );
    assert_eq!(ask(), 0);
    apply(
        &machine,
        &proxy,
        &[(port(WEB, Protocol::Udp, 53), service(&[(1, 9000)]))],
    );

    assert_eq!(ask(), 1);
}
