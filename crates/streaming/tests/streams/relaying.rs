//! What a relay passes on and what it keeps.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::BodyExt;
use streaming::{Connect, Relay, RelayError, Upstream, body};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::far_end::{far_end, front, serve, serve_connection, tcp_upstream};

fn request(path: &str) -> Request<streaming::Body> {
    Request::builder().uri(path).body(body::empty()).unwrap()
}

async fn text(response: http::Response<streaming::Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn the_callers_credentials_stay_and_ours_go() {
    let (_far, connect) = tcp_upstream().await;
    let mut headers = HeaderMap::new();
    headers.insert("x-remote-user", "the-server".parse().unwrap());
    let upstream = Upstream { connect, headers };
    let mut asked = request("http://outside/headers?a=b%20c");
    for (name, value) in [
        ("authorization", "Bearer secret"),
        ("cookie", "secret"),
        ("impersonate-user", "secret"),
        ("x-remote-user", "secret"),
        ("connection", "x-hop"),
        ("x-hop", "secret"),
        ("accept", "text/plain"),
    ] {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    *asked.method_mut() = http::Method::POST;
    *asked.body_mut() = body::full("sent");

    let got = text(Relay::new().relay(asked, upstream).await.unwrap()).await;

    assert!(got.starts_with("POST /headers?a=b%20c\n"), "{got}");
    assert!(got.ends_with("sent"), "{got}");
    assert!(
        got.contains("accept: text/plain") && got.contains("x-remote-user: the-server"),
        "{got}"
    );
    assert!(!got.contains("secret"), "{got}");
}

#[tokio::test]
async fn a_plain_answer_streams_as_it_comes() {
    let (_far, connect) = tcp_upstream().await;

    let response = Relay::new()
        .relay(request("/log?follow=true"), connect.into())
        .await
        .unwrap();
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();

    // The last line comes 100 ms later, so that the first did not wait for it.
    assert!(!first.ends_with(b"line 2\n"));
    let rest = body.collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"line 2\n"));
}

#[tokio::test]
async fn an_upgrade_over_http_2_is_refused_with_a_reason() {
    let (_far, connect) = tcp_upstream().await;
    let mut asked = request("/exec");
    *asked.version_mut() = Version::HTTP_2;
    asked.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    asked.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());

    let error = Relay::new().relay(asked, connect.into()).await.unwrap_err();

    assert!(matches!(error, RelayError::NotUpgradable(..)));
    let response = error.into_response();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(text(response).await.contains("HTTP/1.1"));
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_bad_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);

    let error = Relay::new()
        .relay(request("/log"), Connect::Tcp { address }.into())
        .await
        .unwrap_err();

    assert_eq!(error.into_response().status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_unix_socket_and_tls_are_upstreams_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        serve_connection(io, far_end).await;
    });
    let response = Relay::new()
        .relay(request("/log"), Connect::Unix { path }.into())
        .await
        .unwrap();
    assert!(text(response).await.ends_with("line 2\n"));

    let certified = rcgen::generate_simple_self_signed(["node".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    serve_connection(tls, far_end).await;
                }
            });
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // As a client of the API would have it; upgrades need the older version.
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connect = |name: &str| Connect::Tls {
        address: address.clone(),
        server_name: name.to_owned().try_into().unwrap(),
        config: Arc::new(config.clone()),
    };

    let response = Relay::new()
        .relay(request("/log"), connect("node").into())
        .await
        .unwrap();
    assert!(text(response).await.ends_with("line 2\n"));
    let stranger = Relay::new().relay(request("/log"), connect("other").into()).await;
    assert!(matches!(stranger, Err(RelayError::Connect { .. })));
}

/// Asks a front for an upgrade by hand and returns the connection after the answer's head.
async fn upgrade(address: std::net::SocketAddr, path: &str) -> (TcpStream, String) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n\r\n"
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(tcp.read_u8().await.unwrap());
    }
    (tcp, String::from_utf8(answer).unwrap().to_ascii_lowercase())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_ends_when_its_client_leaves_and_when_the_relay_does() {
    let (_far, connect) = tcp_upstream().await;
    let (front, relay) = front(connect).await;
    let path = "/api/v1/namespaces/default/pods/web/exec?command=forever&stdout=true";

    let (tcp, answer) = upgrade(front.address, path).await;
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(
        answer.contains("x-stream-protocol-version: v4.channel.k8s.io"),
        "{answer}"
    );
    assert_eq!(relay.open_upgrades(), 1);
    drop(tcp);
    tokio::time::timeout(Duration::from_secs(5), async {
        while relay.open_upgrades() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the pipe ends with its client");

    let (mut tcp, _) = upgrade(front.address, path).await;
    drop((front, relay));
    let ended = tokio::time::timeout(Duration::from_secs(5), tcp.read(&mut [0; 1])).await;
    assert!(matches!(ended.expect("the pipe ends with its relay"), Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_full_relay_refuses_upgrades_and_passes_the_rest() {
    let (_far, connect) = tcp_upstream().await;
    let relay = Relay::with_limit(0);
    let to = relay.clone();
    let upstream = connect.clone();
    let front = serve(move |request| {
        let (relay, connect) = (to.clone(), upstream.clone());
        async move {
            let result = relay.relay(request.map(body::boxed), connect.into()).await;
            result.unwrap_or_else(RelayError::into_response)
        }
    })
    .await;

    let (_tcp, answer) = upgrade(front.address, "/exec?command=forever").await;
    let plain = relay.relay(request("/log"), connect.into()).await.unwrap();

    assert!(answer.starts_with("http/1.1 429"), "{answer}");
    assert!(text(plain).await.ends_with("line 2\n"));
}

#[tokio::test]
async fn a_refusal_of_the_upstream_is_passed_on() {
    let (_far, connect) = tcp_upstream().await;
    let (front, _relay) = front(connect).await;

    let (_tcp, answer) = upgrade(front.address, "/nothing").await;

    assert!(answer.starts_with("http/1.1 404"), "{answer}");
}
