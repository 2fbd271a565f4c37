//! Exec, attach and port-forward over the streaming server, with a WebSocket client that is not ours.

mod machine;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use k8s_cri::v1;
use machine::{Machine, container_config, missing};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tokio_tungstenite::{WebSocketStream, client_async};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn open(url: &str, protocol: &str) -> Result<Client, Box<dyn std::error::Error>> {
        let mut request = url.replace("http://", "ws://").into_client_request()?;
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol.parse()?);
        let authority = request.uri().authority().ok_or("no authority")?.as_str().to_owned();
        let (socket, _) = client_async(request, TcpStream::connect(authority).await?).await?;
        Ok(Client(socket))
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let mut message = vec![channel];
        message.extend_from_slice(bytes);
        self.0.send(Message::Binary(message.into())).await.unwrap();
    }

    /// The next message that has bytes, as (channel, bytes); none at the end.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.0.next())
                .await
                .expect("a message in time");
            match next?.ok()? {
                Message::Binary(bytes) if bytes.len() > 1 => return Some((bytes[0], bytes[1..].to_vec())),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Everything to the end: standard output, standard error, and the status.
    async fn rest(mut self) -> (String, String, String) {
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        while let Some((channel, bytes)) = self.next().await {
            if let STDOUT..=ERROR = channel {
                all[usize::from(channel) - 1].extend(bytes);
            }
        }
        let [out, err, status] = all.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (out, err, status)
    }

    async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            let (_, bytes) = self
                .next()
                .await
                .unwrap_or_else(|| panic!("{text:?} never came: {seen:?}"));
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        seen
    }
}

fn exec(container: &str, command: &[&str]) -> v1::ExecRequest {
    v1::ExecRequest {
        container_id: container.into(),
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        stdout: true,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_its_streams_its_code_and_one_use_of_its_address() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let container = cri.run(&sandbox, container_config("main", &["sleep", "1000"])).await;

    let mut request = exec(&container, &["sh", "-c", "cat; echo err >&2; exit 6"]);
    (request.stdin, request.stderr) = (true, true);
    let url = cri.runtime.exec(request).await.unwrap().into_inner().url;
    let mut client = Client::open(&url, "v5.channel.k8s.io").await.unwrap();
    client.send(STDIN, b"through the pipe").await;
    client.send(CLOSE, &[STDIN]).await;
    let (out, err, status) = client.rest().await;

    assert_eq!((out.as_str(), err.as_str()), ("through the pipe", "err\n"));
    assert!(status.contains("NonZeroExitCode") && status.contains('6'), "{status}");
    assert!(
        Client::open(&url, "v5.channel.k8s.io").await.is_err(),
        "an address is good once"
    );
    let _ = STDERR;

    let url = cri
        .runtime
        .exec(exec(&container, &["sh", "-c", "yes | head -c 5000000"]))
        .await
        .unwrap();
    let (out, _, status) = Client::open(&url.into_inner().url, "v4.channel.k8s.io")
        .await
        .unwrap()
        .rest()
        .await;
    assert_eq!(out.len(), 5_000_000);
    assert!(status.contains("Success"), "{status}");
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_one_and_takes_its_size() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let container = cri.run(&sandbox, container_config("main", &["sleep", "1000"])).await;

    let mut request = exec(&container, &["sh"]);
    (request.stdin, request.tty) = (true, true);
    let url = cri.runtime.exec(request).await.unwrap().into_inner().url;
    let mut client = Client::open(&url, "v4.channel.k8s.io").await.unwrap();
    client.send(RESIZE, br#"{"Width":91,"Height":17}"#).await;
    // The size and the input travel on different streams, so the first answers may still have another size.
    let mut seen = String::new();
    while !seen.contains("17 91") {
        client.send(STDIN, b"stty size\n").await;
        let (_, bytes) = client.next().await.expect("an answer");
        seen.push_str(&String::from_utf8_lossy(&bytes));
    }
    client.send(STDIN, b"exit 3\n").await;
    let (_, _, status) = client.rest().await;
    assert!(status.contains("NonZeroExitCode"), "{status}");
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_sees_output_and_gives_input() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let mut config = container_config(
        "main",
        &["sh", "-c", "while read x; do echo got $x; done; echo end; exit 2"],
    );
    (config.stdin, config.stdin_once) = (true, true);
    let container = cri.run(&sandbox, config).await;
    let attach = v1::AttachRequest {
        container_id: container.clone(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };

    let url = cri.runtime.attach(attach).await.unwrap().into_inner().url;
    let mut client = Client::open(&url, "v5.channel.k8s.io").await.unwrap();
    client.send(STDIN, b"one\n").await;
    client.until("got one\n").await;
    client.send(CLOSE, &[STDIN]).await;
    let (out, _, status) = client.rest().await;

    assert_eq!(out, "end\n");
    assert!(status.contains("Success"), "{status}");
    assert_eq!(cri.ended(&container).await.exit_code, 2);
    assert_eq!(cri.log("web", "main"), ["stdout F got one", "stdout F end"]);
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_terminal_logs_it_and_can_be_attached_to() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let mut config = container_config("main", &["sh", "-c", "read x; echo got $x; test -t 1 && echo terminal"]);
    (config.stdin, config.tty) = (true, true);
    let container = cri.run(&sandbox, config).await;
    let attach = v1::AttachRequest {
        container_id: container.clone(),
        stdin: true,
        stdout: true,
        stderr: false,
        tty: true,
    };

    let url = cri.runtime.attach(attach).await.unwrap().into_inner().url;
    let mut client = Client::open(&url, "v4.channel.k8s.io").await.unwrap();
    client.send(STDIN, b"hello\n").await;
    client.until("terminal").await;

    assert_eq!(cri.ended(&container).await.exit_code, 0);
    let log = cri.log("web", "main").join("\n");
    assert!(log.contains("got hello") && log.contains("terminal"), "{log}");
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_over_the_sandboxes_own_loopback() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let script = "mkdir /tmp/www; echo page > /tmp/www/index.html; echo up; httpd -f -p 127.0.0.1:8080 -h /tmp/www";
    let script = script.replace("mkdir", "busybox mkdir");
    cri.run(&sandbox, container_config("main", &["sh", "-c", &script]))
        .await;
    let forward = |port| v1::PortForwardRequest {
        pod_sandbox_id: sandbox.clone(),
        port: vec![port],
    };

    let mut answer = String::new();
    // The server binds a moment after it has said that it is up.
    while !answer.contains("page") {
        let url = cri.runtime.port_forward(forward(8080)).await.unwrap().into_inner().url;
        let mut client = Client::open(&url, "v4.channel.k8s.io").await.unwrap();
        client.send(0, b"GET /index.html HTTP/1.0\r\n\r\n").await;
        answer.clear();
        while let Some((channel, bytes)) = client.next().await {
            if channel == 0 {
                answer.push_str(&String::from_utf8_lossy(&bytes));
            } else if bytes.len() > 2 {
                break;
            }
            if answer.contains("page") {
                break;
            }
        }
    }

    let url = cri.runtime.port_forward(forward(9)).await.unwrap().into_inner().url;
    let mut client = Client::open(&url, "v4.channel.k8s.io").await.unwrap();
    let mut error = String::new();
    while !error.contains("refused") {
        let (channel, bytes) = client.next().await.expect("an error");
        if channel == 1 {
            error.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    machine.take_down().await;
}
