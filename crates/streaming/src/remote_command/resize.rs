//! Window sizes: JSON objects one after another on a stream of their own.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// One size object is some 30 bytes; a stream that holds more without an object in it is not read on.
const PENDING_BYTES_MAX: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// In columns.
    pub width: u16,
    /// In rows.
    pub height: u16,
}

/// The sizes a client's window takes. Only the newest matters, so that a slow owner skips some.
pub struct TerminalSizes {
    newest: watch::Receiver<Option<TerminalSize>>,
    _reader: AbortOnDropHandle<()>,
}

impl TerminalSizes {
    pub(super) fn read<R>(stream: R) -> TerminalSizes
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let (sizes, newest) = watch::channel(None);
        let reader = tokio::spawn(read_sizes(stream, sizes));
        TerminalSizes {
            newest,
            _reader: AbortOnDropHandle::new(reader),
        }
    }

    /// The next size that was not seen yet; none once there will be no more.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        self.newest.changed().await.ok()?;
        *self.newest.borrow_and_update()
    }
}

async fn read_sizes<R: AsyncRead + Unpin>(mut stream: R, sizes: watch::Sender<Option<TerminalSize>>) {
    let mut pending = Vec::new();
    let mut buffer = [0; 1024];
    while pending.len() < PENDING_BYTES_MAX {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => pending.extend_from_slice(&buffer[..read]),
        }
        match take_sizes(&mut pending) {
            Ok(Some(size)) => {
                sizes.send_replace(Some(size));
            }
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// Takes all whole objects off the front and returns the last.
fn take_sizes(pending: &mut Vec<u8>) -> Result<Option<TerminalSize>, serde_json::Error> {
    let mut last = None;
    let mut objects = serde_json::Deserializer::from_slice(pending).into_iter::<serde_json::Value>();
    let mut taken = 0;
    while let Some(object) = objects.next() {
        match object {
            Ok(object) => {
                taken = objects.byte_offset();
                let side = |name| object.get(name)?.as_u64()?.try_into().ok();
                if let (Some(width), Some(height)) = (side("Width"), side("Height")) {
                    last = Some(TerminalSize { width, height });
                }
            }
            Err(error) if error.is_eof() => break,
            Err(error) => return Err(error),
        }
    }
    pending.drain(..taken);
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test]
    async fn sizes_come_however_they_are_cut() {
        let (mut client, ours) = tokio::io::duplex(8);
        let mut sizes = TerminalSizes::read(ours);
        let size = |width, height| Some(TerminalSize { width, height });

        for (text, expected) in [
            ("{\"Width\":80,\"Height\":24}\n", size(80, 24)),
            ("{\"Width\":1,\"Height\":2}{\"Width\":100,\"Height\":50}", size(100, 50)),
        ] {
            tokio::io::AsyncWriteExt::write_all(&mut client, text.as_bytes())
                .await
                .unwrap();
            let mut got = sizes.next().await;
            while got != expected {
                got = sizes.next().await;
            }
        }

        drop(client);
        assert_eq!(sizes.next().await, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = take_sizes(&mut bytes);
        }
    }
}
