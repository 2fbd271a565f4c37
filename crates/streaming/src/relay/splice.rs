//! Copies bytes both ways between two upgraded connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What may be in flight in one direction.
const COPY_BUFFER_BYTES: usize = 32 << 10;

/// After one side has ended its half, the other has this long between two bytes. SPDY and WebSocket both end streams
/// inside the connection, so a half-closed connection has at most its last words to say.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Ends when both directions have ended, when either side is gone, or [`LAST_WORDS`] after the first half ended.
pub async fn splice<A, B>(a: A, b: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut a_read, mut a_write) = tokio::io::split(a);
    let (mut b_read, mut b_write) = tokio::io::split(b);
    let progress = AtomicU64::new(0);
    let mut there = std::pin::pin!(copy(&mut a_read, &mut b_write, &progress));
    let mut back = std::pin::pin!(copy(&mut b_read, &mut a_write, &progress));

    let (first, there_ended_first) = tokio::select! {
        result = &mut there => (result, true),
        result = &mut back => (result, false),
    };
    if first.is_err() {
        return;
    }
    loop {
        let seen = progress.load(Ordering::Relaxed);
        let rest = async {
            if there_ended_first {
                (&mut back).await
            } else {
                (&mut there).await
            }
        };
        match tokio::time::timeout(LAST_WORDS, rest).await {
            Ok(_) => return,
            Err(_) if progress.load(Ordering::Relaxed) == seen => return,
            Err(_) => {}
        }
    }
}

/// Copies to the end and then ends the other's half.
async fn copy<R, W>(from: &mut R, to: &mut W, progress: &AtomicU64) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        progress.fetch_add(1, Ordering::Relaxed);
    }
}
