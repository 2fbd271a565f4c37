//! A server in memory with both doors on loopback, and clients to knock at them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use api::PlaneId;
use apiserver::{
    ApiServer, ApiServerOptions, Body, PlaneRecord, PlaneSpec, ServiceRanges, full_body, serve_people, serve_pods,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::{Ca, Certified, SubjectName, tls};
use keyspace::MemoryKeyspace;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};
use world::World;

pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub struct Fixture {
    pub server: ApiServer,
    pub world: World,
    /// Of the people's door.
    pub address: SocketAddr,
    /// Signs the people's door's certificate.
    pub house: Ca,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Fixture {
    pub async fn start() -> Fixture {
        let world = World::real();
        let server = ApiServer::new(ApiServerOptions {
            shared: Arc::new(MemoryKeyspace::new(world.clone())),
            root: Arc::new(MemoryKeyspace::new(world.clone())),
            world: world.clone(),
            pod_backend: None,
            ranges: ServiceRanges {
                pods_door: Ipv4Addr::new(127, 77, 0, 0)..=Ipv4Addr::new(127, 77, 255, 255),
                ..ServiceRanges::default()
            },
            advertise: None,
        });
        let house = Ca::generate("house", now(&world), &*world.random).unwrap();
        let names = [SubjectName::of("localhost"), SubjectName::of("127.0.0.1")];
        let certificate = house
            .issue_server("house", &names, DAY, now(&world), &*world.random)
            .unwrap();
        let config = tls::server_config(
            Arc::new(tls::Rotating::new(&certificate).unwrap()),
            tls::ClientCertificates::Requested,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve_people(listener, config.unwrap(), server.clone(), stop.clone()));
        Fixture {
            server,
            world,
            address,
            house,
            _guard: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Makes a plane and opens its Pods' door; gives the door's address too.
    pub async fn plane(&self, name: &str) -> (PlaneRecord, SocketAddr) {
        let spec = PlaneSpec {
            name: name.to_owned(),
            ..PlaneSpec::default()
        };
        let record = self.server.planes().create(spec).await.unwrap();
        let listener = TcpListener::bind((record.kubernetes_service_ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_pods(listener, self.server.clone(), self.stop.clone()));
        (record, address)
    }

    pub fn user(&self, record: &PlaneRecord, name: &str, groups: &[&str]) -> Certified {
        let ca = Ca::from_pem(&record.ca_cert_pem, &record.ca_key_pem).unwrap();
        ca.issue_client(name, groups, DAY, now(&self.world), &*self.world.random)
            .unwrap()
    }

    /// Closes the doors and lets requests finish.
    pub fn close(&self) {
        self.stop.cancel();
    }

    /// A connection to the people's door.
    pub async fn connect(&self, who: Option<&Certified>) -> Connection {
        Connection::open(self.address, "localhost", self.house.certificate_pem(), who).await
    }
}

pub fn now(world: &World) -> SystemTime {
    world.clock.wall()
}

/// One HTTP/2 connection.
pub struct Connection {
    sender: hyper::client::conn::http2::SendRequest<Body>,
}

impl Connection {
    pub async fn open(address: SocketAddr, name: &str, authority: &str, who: Option<&Certified>) -> Connection {
        Connection::try_open(address, name, authority, who).await.unwrap()
    }

    pub async fn try_open(
        address: SocketAddr,
        name: &str,
        authority: &str,
        who: Option<&Certified>,
    ) -> std::io::Result<Connection> {
        let config = tls::client_config(authority, who).unwrap();
        let stream = TcpStream::connect(address).await?;
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Connection { sender })
    }

    pub async fn send(&mut self, request: Request<Body>) -> Response<Bytes> {
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    pub async fn get(&mut self, path: &str) -> (StatusCode, Value) {
        self.ask(request(Method::GET, path, &[], Bytes::new())).await
    }

    pub async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, Value) {
        self.ask(request(Method::GET, path, headers, Bytes::new())).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> (StatusCode, Value) {
        let headers = [("content-type", "application/json")];
        self.ask(request(Method::POST, path, &headers, body.to_string().into()))
            .await
    }

    async fn ask(&mut self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.send(request).await;
        let tree = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
        (response.status(), tree)
    }
}

pub fn request(method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Request<Body> {
    let mut builder = Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"));
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(full_body(body)).unwrap()
}

/// The path of a tenant's plane at the people's door.
pub fn at(id: PlaneId, path: &str) -> String {
    format!("/planes/{id}{path}")
}

/// An HTTP/1.1 connection to the people's door, as upgrades need one.
pub async fn http1(fixture: &Fixture, who: Option<&Certified>) -> hyper::client::conn::http1::SendRequest<Body> {
    let mut config = tls::client_config(fixture.house.certificate_pem(), who).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(fixture.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}
