//! The tasks behind one multiplexed connection, and its end.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A closed connection is read on for this long, so that the peer gets our last bytes: closing a socket that has
/// unread bytes makes the kernel throw away what was sent.
const LINGER: Duration = Duration::from_secs(5);

/// One connection's reader and writer. Dropping it breaks the connection at once.
pub(crate) struct Wire {
    reader: AbortOnDropHandle<()>,
    writer: AbortOnDropHandle<()>,
    gone: CancellationToken,
}

impl Wire {
    /// Both tasks cancel `gone` when they end for whatever reason.
    pub(crate) fn new(reader: JoinHandle<()>, writer: JoinHandle<()>, gone: CancellationToken) -> Wire {
        Wire {
            reader: AbortOnDropHandle::new(reader),
            writer: AbortOnDropHandle::new(writer),
            gone,
        }
    }

    /// Cancelled once the connection can no longer be read or written.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Waits for the writer, which has been told to stop, and then for the peer to hang up.
    pub(crate) async fn drain(mut self) {
        let ended = async {
            let _ = (&mut self.writer).await;
            let _ = (&mut self.reader).await;
        };
        let _ = tokio::time::timeout(LINGER, ended).await;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}
