//! One call: a request's frames out, an answer's frames in.

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::framed;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The server said no.
    #[error("refused with code {code}: {text}")]
    Refused { code: u16, text: String },
}

impl CallError {
    pub fn is_final(&self) -> bool {
        matches!(self, CallError::Broken(_))
    }

    pub(super) fn ended(error: impl std::fmt::Display) -> CallError {
        CallError::Broken(error.to_string())
    }
}

const WINDOW_BYTES: u32 = 16 << 20;

#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    address: String,
}

impl Connection {
    pub async fn open(address: &str) -> Result<Connection, CallError> {
        let stream = TcpStream::connect(address).await.map_err(CallError::ended)?;
        stream.set_nodelay(true).map_err(CallError::ended)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(stream)
            .await
            .map_err(CallError::ended)?;
        // It ends when the last handle to it is dropped.
        tokio::spawn(connection);
        Ok(Connection {
            send,
            address: address.to_owned(),
        })
    }

    async fn begin(
        &mut self,
        method: &str,
        message: Bytes,
        end: bool,
    ) -> Result<(Incoming, SendStream<Bytes>), CallError> {
        let request = Request::post(format!("http://{}{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(CallError::ended)?;
        let mut send = self.send.clone().ready().await.map_err(CallError::ended)?;
        let (response, mut stream) = send.send_request(request, false).map_err(CallError::ended)?;
        stream.send_data(message, end).map_err(CallError::ended)?;
        let response = response.await.map_err(CallError::ended)?;
        refused(response.headers())?;
        let incoming = Incoming {
            stream: response.into_body(),
            buffer: Vec::new(),
        };
        Ok((incoming, stream))
    }

    pub async fn unary<A: Message + Default>(&mut self, method: &str, request: &impl Message) -> Result<A, CallError> {
        let (mut incoming, _) = self.begin(method, framed(request), true).await?;
        let answer = incoming
            .next()
            .await?
            .ok_or_else(|| CallError::ended("there is no answer"))?;
        let trailers = incoming.stream.trailers().await.map_err(CallError::ended)?;
        refused(&trailers.unwrap_or_default())?;
        A::decode(&answer[..]).map_err(CallError::ended)
    }

    pub async fn stream(&mut self, method: &str, request: &impl Message) -> Result<(Incoming, Outgoing), CallError> {
        let (incoming, stream) = self.begin(method, framed(request), false).await?;
        Ok((incoming, Outgoing { stream }))
    }
}

pub struct Outgoing {
    stream: SendStream<Bytes>,
}

impl Outgoing {
    pub fn send(&mut self, request: &impl Message) -> Result<(), CallError> {
        self.stream.send_data(framed(request), false).map_err(CallError::ended)
    }
}

pub struct Incoming {
    stream: RecvStream,
    buffer: Vec<u8>,
}

impl Incoming {
    /// The next message.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, CallError> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<5>() {
                let end = 5 + u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                if self.buffer.len() >= end {
                    let rest = self.buffer.split_off(end);
                    let mut message = std::mem::replace(&mut self.buffer, rest);
                    message.drain(..5);
                    return Ok(Some(message));
                }
            }
            let Some(data) = self.data().await? else {
                return Ok(None);
            };
            self.buffer.extend_from_slice(&data);
        }
    }

    /// What has come, as it came.
    pub async fn data(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some(data) = self.stream.data().await else {
            return Ok(None);
        };
        let mut data = data.map_err(CallError::ended)?;
        let length = data.remaining();
        self.stream
            .flow_control()
            .release_capacity(length)
            .map_err(CallError::ended)?;
        Ok(Some(data.copy_to_bytes(length)))
    }
}

fn refused(headers: &HeaderMap) -> Result<(), CallError> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    match header("grpc-status").parse() {
        Ok(0) | Err(_) => Ok(()),
        Ok(code) => Err(CallError::Refused {
            code,
            text: header("grpc-message").to_owned(),
        }),
    }
}

/// What the server's process has used.
#[derive(Clone, Copy, Default, Debug)]
pub struct Process {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
}

/// Of the server's `/metrics`, which ours and etcd have alike.
pub async fn process(address: &str) -> Result<Process, CallError> {
    let mut stream = TcpStream::connect(address).await.map_err(CallError::ended)?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(CallError::ended)?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.map_err(CallError::ended)?;
    let text = String::from_utf8_lossy(&text);
    let number = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0)
    };
    Ok(Process {
        cpu_seconds: number("process_cpu_seconds_total"),
        resident_bytes: number("process_resident_memory_bytes") as u64,
    })
}
