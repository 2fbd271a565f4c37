//! Container output as CRI log files: `<RFC 3339 time with nanoseconds> <stream> <F|P> <text>`. A line that is longer
//! than [`MAX_LINE_BYTES`] is written in parts, tagged `P` but for the last.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The size at which containerd splits, which log readers are used to.
pub const MAX_LINE_BYTES: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Splits one stream into log lines. Pure: bytes and the time in, bytes of the file out.
#[derive(Debug)]
pub struct Splitter {
    stream: Stream,
    /// A line's beginning of which the end has not been seen.
    partial: Vec<u8>,
}

impl Splitter {
    pub fn new(stream: Stream) -> Splitter {
        Splitter {
            stream,
            partial: Vec::new(),
        }
    }

    pub fn push(&mut self, mut bytes: &[u8], time: &str, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = MAX_LINE_BYTES - self.partial.len();
            match bytes.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(end) => {
                    let partial = std::mem::take(&mut self.partial);
                    self.line(&partial, &bytes[..end], b" F ", time, out);
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() > room => {
                    let partial = std::mem::take(&mut self.partial);
                    self.line(&partial, &bytes[..room], b" P ", time, out);
                    bytes = &bytes[room..];
                }
                None => {
                    self.partial.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// The stream has ended; what has no line end counts as a line.
    pub fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            let partial = std::mem::take(&mut self.partial);
            self.line(&partial, &[], b" F ", time, out);
        }
    }

    fn line(&self, first: &[u8], second: &[u8], tag: &[u8], time: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(time.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.stream.name().as_bytes());
        out.extend_from_slice(tag);
        out.extend_from_slice(first);
        out.extend_from_slice(second);
        out.push(b'\n');
    }
}

/// The file behind a log; without a path, output goes nowhere.
#[derive(Debug)]
pub struct LogFile {
    path: Option<PathBuf>,
    file: Option<File>,
}

impl LogFile {
    pub fn open(path: Option<&Path>) -> io::Result<LogFile> {
        let mut log = LogFile {
            path: path.map(Path::to_owned),
            file: None,
        };
        log.reopen()?;
        Ok(log)
    }

    /// After a rotation: what comes next goes to a new file of the old name.
    pub fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        }
        Ok(())
    }

    /// A full disk loses log lines; it must not stop the container.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file
            && let Err(e) = file.write_all(bytes)
        {
            eprintln!("log {:?}: {e}", self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> String {
        let mut splitter = Splitter::new(Stream::Stdout);
        let mut out = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, "T", &mut out);
        }
        splitter.finish("E", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_found_however_the_bytes_come() {
        assert_eq!(split(&[b"one\ntwo\n"]), "T stdout F one\nT stdout F two\n");
        assert_eq!(split(&[b"o", b"ne", b"\nt", b"wo"]), "T stdout F one\nE stdout F two\n");
        assert_eq!(split(&[b"\n\n"]), "T stdout F \nT stdout F \n");
        assert_eq!(split(&[]), "");
    }

    #[test]
    fn a_long_line_comes_in_parts_and_loses_nothing() {
        let long = vec![b'x'; MAX_LINE_BYTES * 2 + 5];
        let text = split(&[&long, b"\nshort\n"]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("T stdout P x") && lines[1].starts_with("T stdout P x"));
        assert_eq!(lines[2], "T stdout F xxxxx");
        let bytes: usize = lines[..3].iter().map(|l| l.len() - "T stdout P ".len()).sum();
        assert_eq!(bytes, long.len());
    }

    #[test]
    fn a_line_of_just_the_limit_is_one_line() {
        let mut line = vec![b'y'; MAX_LINE_BYTES];
        line.push(b'\n');
        assert_eq!(split(&[&line]).lines().count(), 1);
        assert_eq!(split(&[&line[..MAX_LINE_BYTES], b"\n"]).lines().count(), 1);
    }
}
