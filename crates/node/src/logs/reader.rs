//! Reads a container's log into a channel, from the right place on, and follows it: over rotations, until the
//! container has ended or the caller has gone. The kernel wakes the reader; it never polls.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::line::{self, Line};
use super::{LogOptions, Streams, tail};

/// Read at once; also about what is sent at once.
const PIECE_BYTES: usize = 32 << 10;
/// Runtimes cut lines at 16 KiB. What is longer than this is no log line, and is not kept in memory.
const LINE_BYTES_MAX: usize = 256 << 10;
/// Pieces that may wait for a slow caller.
pub const CHANNEL_PIECES: usize = 16;

/// Reads `path` as `options` say and sends what comes out. Ends when all is sent; with `follow`, when `ended` is
/// cancelled and the file is read out, or when the receiver is gone.
pub async fn read(
    path: PathBuf,
    options: LogOptions,
    ended: CancellationToken,
    sender: mpsc::Sender<io::Result<Bytes>>,
) {
    if let Err(error) = run(&path, &options, &ended, &sender).await {
        // If the caller has gone there is nobody to tell.
        let _ = sender.send(Err(error)).await;
    }
}

async fn run(
    path: &Path,
    options: &LogOptions,
    ended: &CancellationToken,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    // Watched before the first read, so that no change falls between.
    let watch = if options.follow { Some(Watch::new(path)?) } else { None };
    let mut file = File::open(path)?;
    let start = match options.tail_lines {
        Some(lines) => tail::start_of_last(&mut file, lines)?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start))?;

    let mut lines = Lines::default();
    let mut writer = Writer::new(options);
    loop {
        // Asked before reading: what the container wrote before it ended is then in the file.
        let was_ended = ended.is_cancelled();
        if drain(&mut file, &mut lines, &mut writer, sender).await? == Flow::Stop {
            return Ok(());
        }
        let Some(watch) = &watch else { break };
        if let Some(next) = rotated(path, &file) {
            // The old file has ended for good: it gets no more lines once the new one exists, except what was
            // written between our last read and the rename.
            if drain(&mut file, &mut lines, &mut writer, sender).await? == Flow::Stop {
                return Ok(());
            }
            file = next;
            continue;
        }
        if was_ended {
            break;
        }
        tokio::select! {
            result = watch.changed() => result?,
            () = ended.cancelled() => {}
            () = sender.closed() => return Ok(()),
        }
    }
    if let Some(last) = lines.rest() {
        writer.line(&last);
    }
    writer.send(sender).await;
    Ok(())
}

#[derive(PartialEq)]
enum Flow {
    GoOn,
    Stop,
}

/// Everything up to the present end of the file.
async fn drain(
    file: &mut File,
    lines: &mut Lines,
    writer: &mut Writer<'_>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<Flow> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        // Page-cached local files: the read does not block for long enough to need another thread.
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(Flow::GoOn);
        }
        lines.feed(&piece[..count], |line| writer.line(line));
        if writer.send(sender).await == Flow::Stop || writer.is_full() {
            return Ok(Flow::Stop);
        }
    }
}

/// The file that has taken this one's place, if one has.
fn rotated(path: &Path, file: &File) -> Option<File> {
    let old = file.metadata().ok()?;
    let next = File::open(path).ok()?;
    let new = next.metadata().ok()?;
    ((old.dev(), old.ino()) != (new.dev(), new.ino())).then_some(next)
}

/// Cuts pieces into lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    /// The line under way is too long and thrown away up to its end.
    skipping: bool,
}

impl Lines {
    fn feed(&mut self, mut piece: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, after) = piece.split_at(end + 1);
            if self.skipping {
                self.skipping = false;
            } else if self.begun.is_empty() {
                each(line);
            } else {
                self.begun.extend_from_slice(line);
                each(&self.begun);
            }
            self.begun.clear();
            piece = after;
        }
        if !self.skipping {
            self.begun.extend_from_slice(piece);
        }
        if self.begun.len() > LINE_BYTES_MAX {
            self.begun.clear();
            self.skipping = true;
        }
    }

    fn rest(&mut self) -> Option<Vec<u8>> {
        (!self.begun.is_empty()).then(|| std::mem::take(&mut self.begun))
    }
}

/// Turns lines of the file into what the caller sees.
struct Writer<'a> {
    options: &'a LogOptions,
    left: Option<u64>,
    at_line_start: bool,
    out: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(options: &'a LogOptions) -> Writer<'a> {
        Writer {
            options,
            left: options.limit_bytes,
            at_line_start: true,
            out: Vec::new(),
        }
    }

    fn line(&mut self, text: &[u8]) {
        let Some(line) = line::parse(text) else { return };
        if self.is_wanted(&line) {
            if self.options.timestamps && self.at_line_start {
                self.out.extend_from_slice(line::write_time(line.time).as_bytes());
                self.out.push(b' ');
            }
            self.out.extend_from_slice(line.content);
            if !line.partial {
                self.out.push(b'\n');
            }
            self.at_line_start = !line.partial;
        }
    }

    fn is_wanted(&self, line: &Line) -> bool {
        let stream = match self.options.streams {
            Streams::All => true,
            Streams::Only(stream) => stream == line.stream,
        };
        stream && self.options.since.is_none_or(|since| line.time >= since)
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    async fn send(&mut self, sender: &mpsc::Sender<io::Result<Bytes>>) -> Flow {
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX);
            self.out.truncate(allowed);
            *left -= self.out.len() as u64;
        }
        if self.out.is_empty() {
            return Flow::GoOn;
        }
        match sender.send(Ok(Bytes::from(std::mem::take(&mut self.out)))).await {
            Ok(()) => Flow::GoOn,
            Err(_) => Flow::Stop,
        }
    }
}

/// Wakes when something happens in the log's directory.
struct Watch {
    inotify: AsyncFd<Raw>,
}

struct Raw(Inotify);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    fn new(path: &Path) -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        inotify.add_watch(
            directory,
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE,
        )?;
        // SAFETY: `Raw` owns the descriptor, gives out that one alone, and is owned by the `AsyncFd` until its end.
        let inotify = unsafe { AsyncFd::register_with_interest(Raw(inotify), Interest::READABLE) }?;
        Ok(Watch { inotify })
    }

    async fn changed(&self) -> io::Result<()> {
        loop {
            let mut guard = self.inotify.readable().await?;
            match guard.try_io(|fd| fd.get_ref().0.read_events().map_err(io::Error::from)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n\
                       2026-01-01T00:00:02Z stderr F two\n\
                       2026-01-01T00:00:03Z stdout P thr\n\
                       2026-01-01T00:00:03Z stdout F ee\n\
                       not a line\n\
                       2026-01-01T00:00:04.5Z stdout F four\n";

    async fn collect(mut receiver: mpsc::Receiver<io::Result<Bytes>>) -> String {
        let mut text = Vec::new();
        while let Some(piece) = receiver.recv().await {
            text.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    async fn read_all(log: &str, options: LogOptions) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        fs::write(&path, log).unwrap();
        let (sender, receiver) = mpsc::channel(CHANNEL_PIECES);
        let (text, ()) = tokio::join!(collect(receiver), read(path, options, CancellationToken::new(), sender));
        text
    }

    #[tokio::test]
    async fn options_choose_what_is_shown() {
        let options = LogOptions::default;
        for (options, expected) in [
            (options(), "one\ntwo\nthree\nfour\n"),
            (
                LogOptions {
                    tail_lines: Some(1),
                    timestamps: true,
                    ..options()
                },
                "2026-01-01T00:00:04.500000000Z four\n",
            ),
            (
                LogOptions {
                    since: Some("2026-01-01T00:00:03Z".parse().unwrap()),
                    ..options()
                },
                "three\nfour\n",
            ),
            (
                LogOptions {
                    streams: Streams::Only(line::Stream::Stderr),
                    ..options()
                },
                "two\n",
            ),
            (
                LogOptions {
                    limit_bytes: Some(6),
                    ..options()
                },
                "one\ntw",
            ),
        ] {
            assert_eq!(read_all(LOG, options.clone()).await, expected, "{options:?}");
        }
    }

    #[tokio::test]
    async fn endless_lines_are_thrown_away_and_a_last_line_without_end_is_shown() {
        let log = format!(
            "{}\n2026-01-01T00:00:01Z stdout F after",
            "x".repeat(LINE_BYTES_MAX * 3)
        );

        assert_eq!(read_all(&log, LogOptions::default()).await, "after\n");
    }

    #[tokio::test]
    async fn a_follower_sees_each_line_once_over_a_rotation_and_stops_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let append = |text: &str| {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
            writeln!(file, "2026-01-01T00:00:01Z stdout F {text}").unwrap();
        };
        append("old");
        let (sender, mut receiver) = mpsc::channel(CHANNEL_PIECES);
        let ended = CancellationToken::new();
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let reader = tokio::spawn(read(path.clone(), options, ended.clone(), sender));
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "old\n");

        append("before");
        fs::rename(&path, directory.path().join("0.log.20260101")).unwrap();
        append("after");
        let mut seen = String::new();
        while seen != "before\nafter\n" {
            seen.push_str(std::str::from_utf8(&receiver.recv().await.unwrap().unwrap()).unwrap());
        }
        append("last");
        ended.cancel();

        assert_eq!(collect(receiver).await, "last\n");
        reader.await.unwrap();
    }

    #[tokio::test]
    async fn a_follower_ends_when_its_caller_has_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        fs::write(&path, "").unwrap();
        let (sender, receiver) = mpsc::channel(CHANNEL_PIECES);
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let reader = tokio::spawn(read(path, options, CancellationToken::new(), sender));

        drop(receiver);

        reader.await.unwrap();
    }
}
