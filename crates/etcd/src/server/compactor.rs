//! Compaction by the server itself (`--auto-compaction-mode`), for those whose clients don't.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use keyspace::Revision;

use super::member::Member;

/// What of the history is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AutoCompaction {
    /// The last so much of time.
    Periodic(Duration),
    /// The last so many revisions.
    Revision(u64),
}

/// Looks in one retention; each gives up a tenth of it, so that no compaction is a large one.
const LOOKS: u32 = 10;

/// As etcd's, by revision.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);

/// Compacts until it is dropped.
pub async fn run(member: Arc<Member>, kept: AutoCompaction) {
    let clock = member.world.clock.clone();
    let mut seen = VecDeque::new();
    loop {
        let until = match kept {
            AutoCompaction::Periodic(retention) => {
                seen.push_back(member.revision());
                clock.sleep(retention / LOOKS).await;
                if seen.len() <= LOOKS as usize {
                    None
                } else {
                    seen.pop_front()
                }
            }
            AutoCompaction::Revision(count) => {
                clock.sleep(REVISION_INTERVAL).await;
                member.revision().0.checked_sub(count).map(Revision)
            }
        };
        let compacted = member.view().read().compacted();
        let Some(until) = until.filter(|until| *until > compacted) else {
            continue;
        };
        match member.keyspace.begin_compaction(until).await {
            Ok(()) => tracing::debug!(%until, "compacted"),
            Err(error) => tracing::warn!(%error, %until, "no compaction; it is tried again"),
        }
    }
}
