//! T21 on a machine: whatever the platform listens on is closed to whom it does not know.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
    sync::Arc,
    time::Duration,
};

use identity::tls;
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use super::{CANARY, arena, listening};

const PATHS: [&str; 10] = [
    "/pods",
    "/runningpods/",
    "/logs/",
    "/metrics",
    "/configz",
    "/debug/pprof/",
    "/api/v1/secrets",
    "/apis/tenancy.mangrove.io/v1alpha1/virtualclusters",
    "/exec/default/victim/main?command=id",
    "/control/tenants/globex/kubeconfig",
];

fn ask(stream: &mut (impl Read + Write), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: mangrove\r\nConnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).is_err() {
        return String::new();
    }
    let mut received = Vec::new();
    // However it ends.
    let _ = stream.read_to_end(&mut received);
    String::from_utf8_lossy(&received).into_owned()
}

fn is_closed(answer: &str) -> bool {
    let code = answer.strip_prefix("HTTP/1.1 ").map(|rest| &rest[..3]);
    code.is_none_or(|code| code.starts_with('4')) && !answer.contains(CANARY)
}

#[test]
fn t21_every_socket_is_closed_to_strangers() {
    let Some((platform, _, _)) = arena() else {
        return;
    };
    let authority = platform.root().json(&["config", "view", "--raw", "--minify"]);
    let authority = authority["clusters"][0]["cluster"]["certificate-authority-data"]
        .as_str()
        .unwrap()
        .to_owned();
    let authority =
        String::from_utf8(base64::Engine::decode(&base64::engine::general_purpose::STANDARD, authority).unwrap())
            .unwrap();
    let mut config = tls::client_config(&authority, None).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let mut by_tls = 0;
    for socket in listening() {
        for path in PATHS {
            let open = || {
                let stream = TcpStream::connect(socket).ok()?;
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                Some(stream)
            };
            let Some(mut stream) = open() else { continue };
            let plain = ask(&mut stream, path);
            assert!(is_closed(&plain), "http {socket} {path}: {plain}");
            let Some(stream) = open() else { continue };
            let name = ServerName::from(std::net::IpAddr::from(*socket.ip()));
            let connection = ClientConnection::new(config.clone(), name).unwrap();
            let answer = ask(&mut StreamOwned::new(connection, stream), path);
            by_tls += usize::from(answer.starts_with("HTTP"));
            assert!(is_closed(&answer), "https {socket} {path}: {answer}");
        }
    }
    assert!(by_tls >= PATHS.len(), "the API answered: {by_tls}");

    // Sockets that are files: root's alone, the CRI's its group's too, as containerd has it.
    let control = platform.data_dir().join("control.sock");
    for (socket, others) in [(control.clone(), 0o077), ("/run/mangrove/cri.sock".into(), 0o007)] {
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & others, 0, "{}: {mode:o}", socket.display());
    }
    const NOBODY: u32 = 65534;
    let said = Command::new("/bin/busybox")
        .args(["nc", &format!("local:{}", control.display())])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    assert!(!said.status.success());
    for secret in ["admin.kubeconfig", "store"] {
        let mode = std::fs::metadata(platform.data_dir().join(secret))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{secret}: {mode:o}");
    }
    platform.finish();
}
