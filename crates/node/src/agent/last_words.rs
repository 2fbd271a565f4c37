//! What a container said as it died: its message file, or the end of its log where the Pod wants that.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::logs::{line, tail};
use crate::pod::observed::Container;

/// Upstream's limits (`MaxPodTerminationMessageLogLength`, `...LogLines`, `MaxContainerTerminationMessageLength`).
const FILE_BYTES_MAX: u64 = 4096;
const LOG_BYTES_MAX: usize = 2048;
const LOG_LINES: u64 = 80;

/// Empty if there is nothing.
pub fn read(container: &Container) -> String {
    let from_file = container
        .message_file
        .as_deref()
        .map(|path| beginning(Path::new(path)))
        .unwrap_or_default();
    if !from_file.is_empty() {
        return from_file;
    }
    if container.message_from_log && container.exit_code != 0 && !container.log_path.is_empty() {
        return log_end(Path::new(&container.log_path));
    }
    container.message.clone()
}

fn beginning(path: &Path) -> String {
    // The container can write this file and replace it by anything.
    let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    let mut bytes = Vec::new();
    if is_file && let Ok(file) = File::open(path) {
        let _ = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn log_end(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let start = tail::start_of_last(&mut file, LOG_LINES)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        // 80 lines of at most 16 KiB each.
        file.take(2 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let mut text = Vec::new();
    for line in read().unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
        if let Some(line) = line::parse(line) {
            text.extend_from_slice(line.content);
            if !line.partial {
                text.push(b'\n');
            }
        }
    }
    let from = text.len().saturating_sub(LOG_BYTES_MAX);
    String::from_utf8_lossy(&text[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::observed::State;

    fn dead(message_file: &Path, log: &Path, from_log: bool, exit_code: i32) -> Container {
        Container {
            id: "c".into(),
            sandbox_id: "s".into(),
            name: "m".into(),
            attempt: 0,
            state: State::Exited,
            created_at: 1,
            started_at: 1,
            finished_at: 2,
            exit_code,
            reason: String::new(),
            message: "from the runtime".into(),
            image: String::new(),
            image_id: String::new(),
            hash: String::new(),
            backoff_seconds: 0,
            log_path: log.to_string_lossy().into_owned(),
            message_file: Some(message_file.to_string_lossy().into_owned()),
            message_from_log: from_log,
        }
    }

    #[test]
    fn the_file_goes_before_the_log_and_the_log_only_on_failure() {
        let directory = tempfile::tempdir().unwrap();
        let (file, log) = (directory.path().join("message"), directory.path().join("log"));
        std::fs::write(
            &log,
            "2026-01-01T00:00:01Z stdout P pa\n2026-01-01T00:00:01Z stderr F nic\n",
        )
        .unwrap();

        assert_eq!(read(&dead(&file, &log, true, 1)), "panic\n");
        assert_eq!(read(&dead(&file, &log, true, 0)), "from the runtime");
        assert_eq!(read(&dead(&file, &log, false, 1)), "from the runtime");
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert_eq!(read(&dead(&file, &log, true, 1)).len(), 4096);
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
        assert_eq!(read(&dead(&file, &log, false, 1)), "from the runtime");
    }
}
