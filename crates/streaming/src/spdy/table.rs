//! What a connection's reader, its writer and its streams share.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::frame::Frame;
use crate::pipe::{Inlet, Outbox};

/// Streams open at a time on one connection: five are an exec, two a forwarded connection, so that one port-forward
/// serves 128 connections at once. With [`crate::pipe`]'s bound they hold 32 MiB at worst.
pub(super) const STREAMS_MAX: usize = 256;

pub(super) struct Shared {
    pub(super) outbox: Outbox<Out>,
    pub(super) table: Mutex<Table>,
}

pub(super) struct Table {
    pub(super) streams: HashMap<u32, Entry>,
    pub(super) next_own: u32,
    pub(super) last_peer: u32,
    /// No stream can be opened any more.
    pub(super) closed: bool,
}

pub(super) struct Entry {
    /// None once the peer has ended its half.
    pub(super) inlet: Option<Inlet>,
    pub(super) own_half_open: bool,
    pub(super) reset: Arc<AtomicBool>,
    pub(super) reply: Option<oneshot::Sender<()>>,
}

pub(super) enum Out {
    Frame(Frame),
    /// Our half of the stream has ended; its entry may go.
    End(u32),
    Reset {
        stream: u32,
        status: u32,
    },
    Close,
}

impl Shared {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code panics while it holds the table")
    }
}

impl Table {
    /// Forgets a stream that both sides have ended.
    pub(super) fn settle(&mut self, stream: u32) {
        if let Some(entry) = self.streams.get(&stream)
            && entry.inlet.is_none()
            && !entry.own_half_open
        {
            self.streams.remove(&stream);
        }
    }
}
