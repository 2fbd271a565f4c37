//! A watch's body as lines: one JSON frame a line, of bounded size.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::{Body, Error};

/// An object is at most 3 MiB in a request and gains metadata in the server; twice that and some is never reached by
/// an honest server.
pub(crate) const MAX_FRAME_BYTES: usize = 8 << 20;

pub(crate) struct Frames {
    body: Body,
    /// A line that has not ended yet.
    partial: BytesMut,
    /// Bytes after the last line that was handed out.
    ready: Bytes,
    limit_bytes: usize,
}

impl Frames {
    pub(crate) fn new(body: Body) -> Frames {
        Frames::with_limit(body, MAX_FRAME_BYTES)
    }

    fn with_limit(body: Body, limit_bytes: usize) -> Frames {
        Frames {
            body,
            partial: BytesMut::new(),
            ready: Bytes::new(),
            limit_bytes,
        }
    }

    /// The next line that is not empty; `None` at the end. A line that the end cut off is dropped: the watch resumes
    /// from the last whole one.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            while let Some(line) = self.take_line() {
                if !line.is_empty() {
                    return Some(Ok(line));
                }
            }
            self.partial.extend_from_slice(&std::mem::take(&mut self.ready));
            if self.partial.len() > self.limit_bytes {
                return Some(Err(Error::TooLarge {
                    limit_bytes: self.limit_bytes,
                }));
            }
            match self.body.frame().await? {
                Err(source) => return Some(Err(Error::Transport { source })),
                Ok(frame) => self.ready = frame.into_data().unwrap_or_default(),
            }
        }
    }

    /// A whole line out of what has arrived. A chunk that is exactly one line (as in process) is not copied.
    fn take_line(&mut self) -> Option<Bytes> {
        let end = self.ready.iter().position(|&byte| byte == b'\n')?;
        let line = self.ready.split_to(end + 1);
        let mut line = if self.partial.is_empty() {
            line
        } else {
            self.partial.extend_from_slice(&line);
            std::mem::take(&mut self.partial).freeze()
        };
        line.truncate(line.len() - 1);
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Frame;
    use http_body_util::StreamBody;

    fn chunks(chunks: &'static [&'static str]) -> Body {
        let frames = chunks
            .iter()
            .map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))));
        StreamBody::new(futures::stream::iter(frames)).boxed_unsync()
    }

    async fn lines(mut frames: Frames) -> Vec<Result<Bytes, Error>> {
        let mut lines = Vec::new();
        while let Some(line) = frames.next().await {
            let failed = line.is_err();
            lines.push(line);
            if failed {
                break;
            }
        }
        lines
    }

    #[tokio::test]
    async fn lines_come_out_whole_however_the_bytes_were_cut() {
        let cut = chunks(&["{\"a\"", ":1}\n{\"b\":2}\r\n\n{\"c", "\":", "3}\n", "{\"cut of"]);

        let lines = lines(Frames::new(cut)).await;

        let lines: Vec<_> = lines.into_iter().map(Result::unwrap).collect();
        assert_eq!(lines, ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
    }

    #[tokio::test]
    async fn a_frame_above_the_limit_ends_the_watch() {
        let lines = lines(Frames::with_limit(chunks(&["123\n", "1234", "5678", "\n"]), 7)).await;

        assert_eq!(lines[0].as_ref().unwrap(), "123");
        assert!(matches!(lines[1], Err(Error::TooLarge { limit_bytes: 7 })));
    }
}
