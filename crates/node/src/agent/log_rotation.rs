//! Keeps containers' logs from filling the disk: a log that has grown too large is put aside and the runtime told to
//! begin another; of those put aside the oldest go.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::context::Context;
use super::pods::Pods;

/// Upstream's defaults: `containerLogMaxSize`, `containerLogMaxFiles`, `containerLogMonitorInterval`.
const BYTES_MAX: u64 = 10 << 20;
const FILES_MAX: usize = 5;
/// The kernel has no event for "has grown by 10 MiB"; a look at the size costs less than an event a write would.
const EVERY: Duration = Duration::from_secs(10);

/// Never ends.
pub async fn run(context: Arc<Context>, pods: Pods) {
    loop {
        context.world.clock.sleep(EVERY).await;
        for (id, path) in pods.running_logs() {
            let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if size < BYTES_MAX {
                continue;
            }
            let now = Timestamp::try_from(context.world.clock.wall()).unwrap_or_default();
            let reopen = async || context.runtime.reopen_log(&id).await.map_err(|error| error.to_string());
            if let Err(problem) = rotate(&path, now, reopen).await {
                tracing::warn!(log = %path.display(), problem, "a log was not rotated");
            }
        }
    }
}

async fn rotate(path: &Path, now: Timestamp, reopen: impl AsyncFnOnce() -> Result<(), String>) -> Result<(), String> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let live = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| "its name is not text".to_owned())?;
    let names: BTreeSet<String> = fs::read_dir(directory)
        .map_err(|error| error.to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    for name in too_old(live, &names) {
        fs::remove_file(directory.join(name)).map_err(|error| error.to_string())?;
    }
    let aside: PathBuf = directory.join(format!("{live}.{}", now.strftime("%Y%m%d-%H%M%S")));
    fs::rename(path, &aside).map_err(|error| error.to_string())?;
    if let Err(problem) = reopen().await {
        // The runtime writes on into the old file; under its old name it is still found.
        fs::rename(&aside, path).map_err(|error| error.to_string())?;
        return Err(problem);
    }
    Ok(())
}

/// Logs put aside earlier that must go so that, with the one about to be put aside and the new one, there are no more
/// than `FILES_MAX`. Their names sort by time.
fn too_old<'a>(live: &str, names: &'a BTreeSet<String>) -> Vec<&'a str> {
    let aside: Vec<&str> = names
        .iter()
        .filter(|name| name.strip_prefix(live).is_some_and(|rest| rest.starts_with('.')))
        .map(String::as_str)
        .collect();
    let surplus = (aside.len() + 2).saturating_sub(FILES_MAX);
    aside.into_iter().take(surplus).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_logs_go_and_others_of_the_folder_stay() {
        let names: BTreeSet<String> = [
            "0.log",
            "0.log.20260101-000003",
            "0.log.20260101-000001",
            "0.log.20260101-000004",
            "0.log.20260101-000002",
            "10.log.20250101-000000",
        ]
        .map(str::to_owned)
        .into();

        assert_eq!(too_old("0.log", &names), ["0.log.20260101-000001"]);
        assert_eq!(too_old("10.log", &names), [""; 0]);
    }
    #[tokio::test]
    async fn a_log_is_put_aside_and_comes_back_if_the_runtime_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        fs::write(&path, "old").unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();

        let refused = rotate(&path, at(0), async || Err("no".to_owned())).await;
        assert_eq!(refused, Err("no".to_owned()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");

        for second in 1..9 {
            let begin = async || fs::write(&path, second.to_string()).map_err(|error| error.to_string());
            rotate(&path, at(second), begin).await.unwrap();
        }

        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), FILES_MAX);
        assert_eq!(names[1], "0.log.19700101-000005");
        assert_eq!(fs::read_to_string(&path).unwrap(), "8");
    }
}
