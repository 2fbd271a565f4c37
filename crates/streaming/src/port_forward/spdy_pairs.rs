//! Over SPDY each forwarded connection is a pair of streams, `data` and `error`, that name one `port` and one
//! `requestID`.

use std::collections::HashMap;

use tokio_util::sync::CancellationToken;

use super::Forward;
use crate::spdy;

/// Halves whose other half has not come. A client opens them together.
const UNPAIRED_MAX: usize = 32;

pub(super) struct Pairs {
    session: spdy::Session,
    unpaired: HashMap<String, Half>,
}

struct Half {
    port: u16,
    is_data: bool,
    stream: spdy::Stream,
}

impl Pairs {
    pub(super) fn new(session: spdy::Session) -> Pairs {
        Pairs {
            session,
            unpaired: HashMap::new(),
        }
    }

    pub(super) async fn next(&mut self) -> Option<Forward> {
        loop {
            let stream = self.session.accept().await?;
            let Some((request, half)) = half(stream) else {
                continue;
            };
            match self.unpaired.remove(&request) {
                Some(other) if other.is_data != half.is_data && other.port == half.port => {
                    half.stream.reply().await;
                    let (data, error) = if half.is_data { (half, other) } else { (other, half) };
                    return Some(forward(data, error));
                }
                Some(other) => {
                    half.stream.refuse();
                    other.stream.refuse();
                }
                None if self.unpaired.len() >= UNPAIRED_MAX => half.stream.refuse(),
                None => {
                    half.stream.reply().await;
                    self.unpaired.insert(request, half);
                }
            }
        }
    }

    pub(super) fn gone(&self) -> CancellationToken {
        self.session.gone()
    }

    pub(super) async fn close(self) {
        drop(self.unpaired);
        self.session.close().await;
    }
}

/// What the stream's headers say; a stream that says nonsense is refused.
fn half(stream: spdy::Stream) -> Option<(String, Half)> {
    let headers = stream.headers();
    let port = headers
        .get("port")
        .and_then(|port| port.parse().ok())
        .filter(|port| *port != 0);
    let is_data = match headers.get("streamtype") {
        Some("data") => Some(true),
        Some("error") => Some(false),
        _ => None,
    };
    let (Some(port), Some(is_data)) = (port, is_data) else {
        stream.refuse();
        return None;
    };
    // Clients before 1.2 name no request: their error stream comes first and the data stream has the next id.
    let request = headers.get("requestid").map_or_else(
        || {
            (if is_data {
                stream.id().wrapping_sub(2)
            } else {
                stream.id()
            })
            .to_string()
        },
        str::to_owned,
    );
    Some((request, Half { port, is_data, stream }))
}

fn forward(data: Half, error: Half) -> Forward {
    let (reader, writer) = data.stream.split();
    Forward {
        port: data.port,
        reader: Box::new(reader),
        writer: Box::new(writer),
        error: Box::new(error.stream.split().1),
    }
}
