//! A real process on a real file system that ends without warning: killed at each of its syncs and changes of names (row E1
//! of the fault matrix), or because the power of its disk goes (E2). What it said was acknowledged is there afterwards.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests are processes and directories"
)]

mod load;
mod power;

use std::{fs, path::Path, process::Command};

use load::{Acknowledged, check, killed_at};

/// Operations after which a process has gone through everything several times: files of the log, checkpoints, rewritten
/// files of values.
const OPERATIONS_MAX: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// What runs in the process that is killed; alone it does nothing.
#[test]
fn the_process_that_is_killed() {
    load::run_if_told();
}

/// This program once more, as the process that writes.
pub(crate) fn process(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "the_process_that_is_killed", "--nocapture"])
        .env(load::DIR, dir);
    command
}

#[test]
fn e01_killed_at_each_sync_and_change_of_names_it_keeps_what_it_acknowledged() {
    let step = number("KILL_STEP").unwrap_or(29);
    let mut ended = 0;
    for operation in (0..OPERATIONS_MAX).step_by(step as usize) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut acknowledged = Acknowledged::default();
        // Once more after the first end: what a start cleans up can be cut short too.
        for at in [operation, operation % 11, u64::MAX] {
            let told = killed_at(process(dir.path()), at);
            ended += usize::from(told.was_killed);
            acknowledged.add(&told);
            check(
                dir.path(),
                &acknowledged,
                &format!("killed at operation {operation}, then {at}"),
            );
        }
        fs::remove_dir_all(dir.path()).expect("it goes");
    }
    assert!(ended as u64 > OPERATIONS_MAX / step, "they were killed: {ended}");
}
