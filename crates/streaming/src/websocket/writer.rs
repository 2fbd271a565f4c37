//! The one task that writes a WebSocket connection.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::frame::{Message, NORMAL_CLOSURE};
use crate::pipe::{CHUNK_BYTES, Outgoing};

pub(crate) enum Out {
    Message(Message),
    /// One of the outputs has ended. The last one's end closes the connection, where it was said how many there are.
    OutputEnded,
}

/// Writes until a closing message was written or all outputs have ended.
pub(crate) async fn write_messages<W>(
    mut io: W,
    mut outgoing: Outgoing<Out>,
    outputs: Option<usize>,
    gone: CancellationToken,
) where
    W: AsyncWrite + Unpin,
{
    if let Err(error) = write_until_closed(&mut io, &mut outgoing, outputs).await {
        tracing::debug!(%error, "a WebSocket connection could not be written");
        gone.cancel();
    }
    let _ = io.shutdown().await;
}

async fn write_until_closed<W>(io: &mut W, outgoing: &mut Outgoing<Out>, mut outputs: Option<usize>) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut bytes = BytesMut::with_capacity(CHUNK_BYTES + 64);
    while let Some(out) = outgoing.next().await {
        let mut next = Some(out);
        while let Some(out) = next {
            let message = match out {
                Out::Message(message) => Some(message),
                Out::OutputEnded => {
                    outputs = outputs.map(|left| left.saturating_sub(1));
                    (outputs == Some(0)).then_some(Message::Close(NORMAL_CLOSURE))
                }
            };
            if let Some(message) = message {
                message.encode(&mut bytes);
                io.write_all(&bytes).await?;
                bytes.clear();
                if matches!(message, Message::Close(_)) {
                    return io.flush().await;
                }
            }
            next = outgoing.ready();
        }
        io.flush().await?;
    }
    Ok(())
}
