//! Over plain WebSocket channels the n-th port of the query has the channels 2n (data) and 2n+1 (error), and each
//! begins with the port, two bytes little endian.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::Forward;
use crate::websocket::channels::{Channels, Division, Encoding};

pub(super) struct Ports {
    ready: VecDeque<Forward>,
    channels: Channels,
}

impl Ports {
    pub(super) async fn open<T>(io: T, ports: &[u16]) -> Ports
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        // `accept` has refused more than fit in a byte.
        let numbered: Vec<(u8, u16)> = (0..=254).step_by(2).zip(ports.iter().copied()).collect();
        let inputs: Vec<u8> = numbered.iter().map(|(channel, _)| *channel).collect();
        let division = Division {
            encoding: Encoding::Binary,
            inputs: &inputs,
            // The protocol has no end of a single channel: the connection ends with its last.
            outputs: Some(numbered.len() * 2),
        };
        let mut channels = Channels::start(io, &division);
        let mut ready = VecDeque::new();
        for (channel, port) in numbered {
            let name = Bytes::copy_from_slice(&port.to_le_bytes());
            channels.send(channel, name.clone()).await;
            channels.send(channel + 1, name).await;
            if let Some(input) = channels.input(channel) {
                ready.push_back(Forward {
                    port,
                    reader: Box::new(input),
                    writer: Box::new(channels.output(channel)),
                    error: Box::new(channels.output(channel + 1)),
                });
            }
        }
        Ports { ready, channels }
    }

    pub(super) async fn next(&mut self) -> Option<Forward> {
        if let Some(forward) = self.ready.pop_front() {
            return Some(forward);
        }
        self.channels.gone().cancelled().await;
        None
    }

    pub(super) fn gone(&self) -> CancellationToken {
        self.channels.gone()
    }

    pub(super) async fn close(self) {
        drop(self.ready);
        self.channels.close().await;
    }
}
