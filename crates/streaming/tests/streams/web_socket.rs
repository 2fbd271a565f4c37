//! An independent WebSocket implementation as the client.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::far_end::{Served, far_end, serve};

async fn connect(server: &Served, path: &str, protocol: &str) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol.parse().unwrap());
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let (socket, response) = client_async(request, tcp).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    socket
}

/// What came on each channel until the server closed.
async fn drain(socket: &mut WebSocketStream<TcpStream>, base64: bool) -> [Vec<u8>; 4] {
    use base64::Engine;
    let mut got = [const { Vec::new() }; 4];
    while let Some(message) = socket.next().await {
        match message {
            Ok(Message::Binary(bytes)) if !base64 => got[bytes[0] as usize].extend_from_slice(&bytes[1..]),
            Ok(Message::Text(text)) if base64 => {
                let (channel, rest) = text.split_at(1);
                let bytes = base64::engine::general_purpose::STANDARD.decode(rest).unwrap();
                got[channel.parse::<usize>().unwrap()].extend(bytes);
            }
            Ok(Message::Close(_)) | Err(_) => break,
            other => panic!("{other:?}"),
        }
    }
    got
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    Message::binary([&[channel], bytes].concat())
}

#[tokio::test]
async fn version_5_ends_stdin_by_a_signal_and_takes_large_messages() {
    let server = serve(far_end).await;
    let mut socket = connect(
        &server,
        "/exec?command=count&stdin=true&stdout=true&stderr=true",
        "v5.channel.k8s.io",
    )
    .await;

    socket.send(message(0, &vec![b'x'; 5_000_000])).await.unwrap();
    socket.send(message(0, b"more")).await.unwrap();
    socket.send(message(255, &[0])).await.unwrap();

    let [_, stdout, stderr, error] = drain(&mut socket, false).await;
    assert_eq!(stdout, b"5000004");
    assert!(stderr.is_empty());
    let status: serde_json::Value = serde_json::from_slice(&error).unwrap();
    assert_eq!(status["status"], "Success");
}

#[tokio::test]
async fn version_4_has_sizes_and_exit_codes() {
    let server = serve(far_end).await;

    let mut socket = connect(&server, "/exec?command=size&stdout=true&tty=true", "v4.channel.k8s.io").await;
    socket.send(message(4, br#"{"Width":120,"Height":40}"#)).await.unwrap();
    let [_, stdout, _, _] = drain(&mut socket, false).await;
    assert_eq!(stdout, b"120x40\n");

    let mut socket = connect(&server, "/exec?command=exit&command=3&stdout=true", "v4.channel.k8s.io").await;
    let [_, _, _, error] = drain(&mut socket, false).await;
    let status: serde_json::Value = serde_json::from_slice(&error).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
}

#[tokio::test]
async fn base64_protocols_speak_text() {
    let server = serve(far_end).await;
    let mut socket = connect(
        &server,
        "/exec?command=both&stdout=true&stderr=true",
        "v4.base64.channel.k8s.io",
    )
    .await;

    let [_, stdout, stderr, error] = drain(&mut socket, true).await;

    assert_eq!(stdout, b"to stdout\n");
    assert_eq!(stderr, b"to stderr\n");
    assert!(error.starts_with(b"{"));
}

#[tokio::test]
async fn a_port_is_two_channels_that_begin_with_its_number() {
    let server = serve(far_end).await;
    let mut socket = connect(&server, "/portforward?ports=80&ports=9", "v4.channel.k8s.io").await;

    socket.send(message(0, b"hello\n\n")).await.unwrap();
    let got = drain(&mut socket, false).await;

    assert_eq!(got[0], [&80u16.to_le_bytes()[..], b"HELLO\n\n"].concat());
    assert_eq!(got[1], 80u16.to_le_bytes());
    assert_eq!(got[2], 9u16.to_le_bytes());
    assert_eq!(got[3], [&9u16.to_le_bytes()[..], b"nobody listens on port 9"].concat());
}

#[tokio::test]
async fn pings_are_answered_while_a_command_runs() {
    let server = serve(far_end).await;
    let mut socket = connect(&server, "/exec?command=forever&stdout=true", "v5.channel.k8s.io").await;

    socket.send(Message::Ping("beat".into())).await.unwrap();

    let pong = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Pong(bytes) = message {
                return bytes;
            }
        }
        panic!("closed")
    };
    let pong = tokio::time::timeout(Duration::from_secs(5), pong).await.unwrap();
    assert_eq!(&pong[..], b"beat");
}
