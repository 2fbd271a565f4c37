//! One line of a CRI log file: `2016-10-06T00:17:09.669794202Z stdout P log content`.

use jiff::Timestamp;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    pub time: Timestamp,
    pub stream: Stream,
    /// The container's line goes on in the next one of the file.
    pub partial: bool,
    /// Without the end of line.
    pub content: &'a [u8],
}

/// Takes a line with or without its end; `None` if it is none.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Tags are separated by colons; the first says whether the line is whole.
    let partial = match fields.next()?.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line {
        time,
        stream,
        partial,
        content: fields.next().unwrap_or_default(),
    })
}

/// Go's `RFC3339NanoFixed`, as `kubectl logs --timestamps` shows it.
pub fn write_time(time: Timestamp) -> String {
    format!("{time:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_the_runtime_writes_them() {
        let line = parse(b"2016-10-06T00:17:09.669794202Z stdout P:tag hello  there\n").unwrap();

        assert_eq!(line.stream, Stream::Stdout);
        assert!(line.partial);
        assert_eq!(line.content, b"hello  there");
        assert_eq!(write_time(line.time), "2016-10-06T00:17:09.669794202Z");
        let short: Timestamp = "2016-10-06T00:17:09.5Z".parse().unwrap();
        assert_eq!(write_time(short), "2016-10-06T00:17:09.500000000Z");
    }

    #[test]
    fn other_zones_empty_lines_and_nonsense() {
        assert_eq!(
            parse(b"2016-10-06T02:17:09+02:00 stderr F ").unwrap().time,
            "2016-10-06T00:17:09Z".parse().unwrap()
        );
        assert_eq!(parse(b"2016-10-06T00:17:09Z stderr F").unwrap().content, b"");
        for nonsense in [
            &b""[..],
            b"hello",
            b"2016-10-06T00:17:09Z stdin F x",
            b"2016-10-06T00:17:09Z stdout X x",
            b"yesterday stdout F x",
            b"\xff\xfe stdout F x",
        ] {
            assert_eq!(parse(nonsense), None);
        }
    }
}
