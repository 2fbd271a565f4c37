//! The real kubectl, over SPDY and over WebSocket, relayed.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::far_end::{ASKED, Served, front, tcp_upstream};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Transport {
    Spdy,
    WebSocket,
}

const BOTH: [Transport; 2] = [Transport::Spdy, Transport::WebSocket];

fn installed() -> bool {
    let found = std::process::Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .is_ok();
    if !found {
        println!("skipped: no kubectl on this machine");
    }
    found
}

fn kubectl(front: &Served, transport: Transport, home: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    let on = (transport == Transport::WebSocket).to_string();
    command
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", &on)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", &on)
        .env("HOME", home.path())
        .env_remove("KUBECONFIG")
        .arg("--server")
        .arg(format!("http://{}", front.address))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(front: &Served, transport: Transport, args: &[&str], stdin: &[u8]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut child = kubectl(front, transport, &home, args).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let send = async {
        let _ = input.write_all(stdin).await;
        drop(input);
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
    let ((), output) = tokio::join!(send, ended);
    output.expect("kubectl ends").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_shows_both_outputs_and_returns_the_exit_code() {
    if !installed() {
        return;
    }
    let (_far, upstream) = tcp_upstream().await;
    let (front, _relay) = front(upstream).await;
    for transport in BOTH {
        let both = run(&front, transport, &["exec", "web", "--", "both"], b"").await;
        let exit = run(&front, transport, &["exec", "web", "--", "exit", "42"], b"").await;
        let unknown = run(&front, transport, &["exec", "web", "--", "nonsense"], b"").await;

        assert_eq!(
            text(&both.stdout),
            "to stdout\n",
            "{transport:?} {}",
            text(&both.stderr)
        );
        assert!(text(&both.stderr).contains("to stderr\n"), "{transport:?}");
        assert!(both.status.success(), "{transport:?}");
        assert_eq!(exit.status.code(), Some(42), "{transport:?} {}", text(&exit.stderr));
        assert!(
            text(&unknown.stderr).contains("no such command: nonsense"),
            "{transport:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_carries_stdin_to_its_end() {
    if !installed() {
        return;
    }
    let (_far, upstream) = tcp_upstream().await;
    let (front, _relay) = front(upstream).await;
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    for transport in BOTH {
        let cat = run(&front, transport, &["exec", "-i", "web", "--", "cat"], &sent).await;
        let count = run(&front, transport, &["exec", "-i", "web", "--", "count"], &sent).await;

        assert!(
            cat.stdout == sent,
            "{transport:?}: {} bytes, {}",
            cat.stdout.len(),
            text(&cat.stderr)
        );
        assert_eq!(text(&count.stdout), "3000000", "{transport:?}");
        assert!(cat.status.success() && count.status.success(), "{transport:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_delivers_much_output_before_its_end() {
    if !installed() {
        return;
    }
    let (_far, upstream) = tcp_upstream().await;
    let (front, relay) = front(upstream).await;
    for transport in BOTH {
        let output = run(&front, transport, &["exec", "web", "--", "megabytes"], b"").await;

        assert_eq!(output.stdout.len(), 6_400_000, "{transport:?} {}", text(&output.stderr));
    }
    while relay.open_upgrades() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_and_logs_pass() {
    if !installed() {
        return;
    }
    let (_far, upstream) = tcp_upstream().await;
    let (front, _relay) = front(upstream).await;
    for transport in BOTH {
        let attach = run(&front, transport, &["attach", "-i", "web", "-q"], b"hello").await;
        assert_eq!(text(&attach.stdout), "hello", "{transport:?} {}", text(&attach.stderr));
    }
    let logs = run(&front, Transport::Spdy, &["logs", "-f", "web"], b"").await;
    assert_eq!(text(&logs.stdout), "line 0\nline 1\nline 2\n", "{}", text(&logs.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn port_forward_serves_several_connections_and_tells_errors() {
    if !installed() {
        return;
    }
    let (_far, upstream) = tcp_upstream().await;
    let (front, _relay) = front(upstream).await;
    for transport in BOTH {
        let home = tempfile::tempdir().unwrap();
        let mut child = kubectl(&front, transport, &home, &["port-forward", "web", ":80", ":9"])
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut works, mut fails) = (None, None);
        while works.is_none() || fails.is_none() {
            let line = lines.next_line().await.unwrap().expect("kubectl prints its ports");
            let Some(rest) = line.strip_prefix("Forwarding from 127.0.0.1:") else {
                continue;
            };
            let (local, remote) = rest.split_once(" -> ").unwrap();
            let local: u16 = local.parse().unwrap();
            match remote {
                "80" => works = Some(local),
                _ => fails = Some(local),
            }
        }

        let mut idle = TcpStream::connect(("127.0.0.1", works.unwrap())).await.unwrap();
        idle.write_all(b"held\n").await.unwrap();
        let big: Vec<u8> = (0..1_000_000u32)
            .map(|n| b'a' + (n % 26) as u8)
            .chain(*b"\n\n")
            .collect();
        let (mut read, mut write) = TcpStream::connect(("127.0.0.1", works.unwrap()))
            .await
            .unwrap()
            .into_split();
        let mut got = Vec::new();
        let send = async { write.write_all(&big).await.unwrap() };
        let (_, received) = tokio::join!(send, read.read_to_end(&mut got));
        received.unwrap();
        assert!(got == big.to_ascii_uppercase(), "{transport:?}: {} bytes", got.len());

        let mut held = [0; 5];
        idle.read_exact(&mut held).await.unwrap();
        assert_eq!(&held, b"HELD\n", "{transport:?}");

        let mut refused = TcpStream::connect(("127.0.0.1", fails.unwrap())).await.unwrap();
        refused.write_all(b"x").await.unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = false;
        while let Ok(Ok(Some(line))) = tokio::time::timeout(Duration::from_secs(20), stderr.next_line()).await {
            if line.contains("nobody listens on port 9") {
                told = true;
                break;
            }
        }
        assert!(told, "{transport:?}");
        child.kill().await.unwrap();
    }
    // Clients fall back in silence; both ways must have been taken.
    let asked = ASKED.lock().unwrap();
    assert!(asked.contains("SPDY/3.1") && asked.contains("websocket"), "{asked:?}");
}
