//! The one task that writes a connection.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio_util::sync::CancellationToken;

use super::frame::Frame;
use super::headers::Packer;
use super::table::{Out, Shared};
use crate::pipe::{CHUNK_BYTES, Outgoing};

pub(super) async fn write_frames<T>(
    mut io: WriteHalf<T>,
    mut outgoing: Outgoing<Out>,
    shared: Arc<Shared>,
    gone: CancellationToken,
) where
    T: AsyncWrite + Send + 'static,
{
    let result = write_until_closed(&mut io, &mut outgoing, &shared).await;
    if let Err(error) = result {
        tracing::debug!(%error, "a SPDY connection could not be written");
        gone.cancel();
    }
    let _ = io.shutdown().await;
}

async fn write_until_closed<T>(io: &mut WriteHalf<T>, outgoing: &mut Outgoing<Out>, shared: &Shared) -> io::Result<()>
where
    T: AsyncWrite,
{
    let mut packer = Packer::new();
    let mut bytes = BytesMut::with_capacity(CHUNK_BYTES + 64);
    while let Some(out) = outgoing.next().await {
        let mut next = Some(out);
        while let Some(out) = next {
            let (frame, last) = framed(out, shared);
            frame.encode(&mut packer, &mut bytes);
            io.write_all(&bytes).await?;
            bytes.clear();
            if last {
                return io.flush().await;
            }
            next = outgoing.ready();
        }
        io.flush().await?;
    }
    Ok(())
}

/// The frame for it, and whether it is the connection's last. The table changes when the frame is on its way, so that a
/// peer that doesn't read cannot open and abandon streams faster than it is told of their end.
fn framed(out: Out, shared: &Shared) -> (Frame, bool) {
    match out {
        Out::Frame(frame) => (frame, false),
        Out::End(stream) => {
            let mut table = shared.table();
            let Some(entry) = table.streams.get_mut(&stream) else {
                // Reset by either side before.
                return (Frame::Ignored, false);
            };
            entry.own_half_open = false;
            table.settle(stream);
            let fin = Frame::Data {
                stream,
                bytes: Bytes::new(),
                fin: true,
            };
            (fin, false)
        }
        Out::Reset { stream, status } => {
            shared.table().streams.remove(&stream);
            (Frame::Reset { stream, status }, false)
        }
        Out::Close => {
            let last_stream = shared.table().last_peer;
            (Frame::GoAway { last_stream }, true)
        }
    }
}
