//! Bytes from one side to the other.

use super::*;

/// Copies until either end is done, then closes the receiving one.
pub(super) fn copy_task<R, W>(from: Option<R>, to: Option<W>) -> Option<AbortOnDropHandle<()>>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (mut from, mut to) = (from?, to?);
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })))
}

pub(super) fn resize_task(session: &mut Session, terminal: Arc<Terminal>) -> Option<AbortOnDropHandle<()>> {
    let mut sizes = session.resize.take()?;
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(size) = sizes.next().await {
            terminal.resize(size.width, size.height);
        }
    })))
}
