//! A machine with Pods, and a neighbour outside, each in a network namespace of a thread. They are gone
//! when their threads are: nothing of it has to be cleaned up, whatever happens to a test.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use network::{DoorPorts, Options, Range};
use nix::sched::{CloneFlags, setns, unshare};

pub const DEVICE: &str = "mangrove-t0";

pub fn options(door_port: u16, dns_port: u16) -> Options {
    Options {
        pods: Range::new(Ipv4Addr::new(10, 244, 0, 0), 16),
        services: Range::new(Ipv4Addr::new(10, 96, 0, 0), 12),
        door: Range::new(Ipv4Addr::new(10, 104, 0, 0), 13),
        door_ports: Some(DoorPorts {
            api: door_port,
            dns: dns_port,
        }),
        gateway: Ipv4Addr::new(10, 244, 0, 1),
        device: DEVICE.to_owned(),
        interfaces: "mgv".to_owned(),
    }
}

/// Whether this process may do what these tests do; says what is skipped if not.
pub fn possible() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let tools = ["nft", "ip"].iter().all(|tool| {
        let found = Command::new(tool).arg("-V").output();
        found.is_ok_and(|output| output.status.success())
    });
    if !(root && tools) {
        println!("skipped: needs root, nft and ip");
    }
    root && tools
}

pub struct Namespace(File);

impl Namespace {
    fn new() -> Namespace {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            // The open file keeps the namespace when the thread is gone.
            sender.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
        });
        let namespace = Namespace(receiver.recv().unwrap());
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs something inside. Sockets made there stay there, wherever they are used later.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Runs an async test inside, on one thread, so that all its sockets and programs are inside too.
    pub fn block_on(&self, work: impl Future<Output = ()> + Send) {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(work);
        });
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.command("ip", arguments)
    }

    pub fn command(&self, program: &str, arguments: &str) -> String {
        self.run(|| {
            let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success(),
                "{program} {arguments}: {text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            text
        })
    }

    /// Joins this namespace's end of a new pair of interfaces, `eth0`, to the other's.
    fn join(&self, other: &Namespace, other_end: &str, address: &str) {
        static PAIRS: AtomicU32 = AtomicU32::new(0);
        let ours = format!("v{}", PAIRS.fetch_add(1, Ordering::Relaxed));
        other.ip(&format!("link add {other_end} type veth peer name {ours}"));
        let target = format!("/proc/{}/fd/{}", std::process::id(), {
            use std::os::fd::AsRawFd;
            self.0.as_raw_fd()
        });
        other.ip(&format!("link set {ours} netns {target}"));
        self.ip(&format!("link set {ours} name eth0"));
        self.ip(&format!("address add {address} dev eth0"));
        self.ip("link set eth0 up");
        other.ip(&format!("link set {other_end} up"));
    }
}

pub struct Machine {
    pub host: Namespace,
    pub pods: [Namespace; 3],
    /// Not of the platform: 192.0.2.2, the machine is 192.0.2.1 to it.
    pub outside: Namespace,
}

pub const POD: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 244, 0, 2),
    Ipv4Addr::new(10, 244, 0, 3),
    Ipv4Addr::new(10, 244, 0, 4),
];
/// The machine, to who is outside and to its Pods.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

impl Machine {
    pub fn new() -> Machine {
        let machine = Machine {
            host: Namespace::new(),
            pods: [Namespace::new(), Namespace::new(), Namespace::new()],
            outside: Namespace::new(),
        };
        machine.host.ip(&format!("link add {DEVICE} type bridge"));
        machine.host.ip(&format!("address add 10.244.0.1/24 dev {DEVICE}"));
        machine.host.ip(&format!("link set {DEVICE} up"));
        for (index, pod) in machine.pods.iter().enumerate() {
            // As the runtime does: a pair and a route each.
            let end = format!("mgv{index}");
            pod.join(&machine.host, &end, &format!("{}/32", POD[index]));
            machine
                .host
                .ip(&format!("route add {}/32 dev {end} src 10.244.0.1", POD[index]));
            pod.ip("route add 10.244.0.1/32 dev eth0 scope link");
            pod.ip("route add default via 10.244.0.1 dev eth0");
        }
        machine.outside.join(&machine.host, "uplink", &format!("{OUTSIDE}/24"));
        machine.host.ip("address add 192.0.2.1/24 dev uplink");
        machine
    }

    /// Whoever asks at this TCP port of a Pod is told the Pod's number and who it saw asking.
    pub fn serve_tcp(&self, pod: usize, port: u16) {
        serve_tcp(&self.pods[pod], pod, port);
    }
}

pub fn serve_tcp(place: &Namespace, number: usize, port: u16) {
    use std::io::Write;
    let listener = place.run(|| std::net::TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = write!(stream, "{number} {}", from.ip());
        }
    });
}

/// Asks over TCP from a place: the answer, or what went wrong.
pub fn ask_tcp(place: &Namespace, address: impl Into<IpAddr>, port: u16) -> Result<String, std::io::ErrorKind> {
    use std::io::Read;
    let address = (address.into(), port).into();
    place.run(|| {
        let timeout = std::time::Duration::from_secs(2);
        let mut stream = std::net::TcpStream::connect_timeout(&address, timeout).map_err(|error| error.kind())?;
        stream.set_read_timeout(Some(timeout)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|error| error.kind())?;
        Ok(text)
    })
}
