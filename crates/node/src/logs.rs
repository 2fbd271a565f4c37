//! Containers' logs, read from the files that the runtime writes: `line` is their format, `tail` finds the place to
//! begin, `reader` follows them over rotations until the container has ended.

pub mod line;
pub mod reader;
pub mod tail;

use jiff::Timestamp;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Streams {
    #[default]
    All,
    Only(line::Stream),
}

/// What a caller wants of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    pub streams: Streams,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{parameter} must be {wanted}, not {value:?}")]
pub struct BadOption {
    parameter: &'static str,
    wanted: &'static str,
    value: String,
}

impl LogOptions {
    /// From query parameters, as kubelet and the API server take them. `now` turns `sinceSeconds` into a moment.
    pub fn parse<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, now: Timestamp) -> Result<LogOptions, BadOption> {
        let mut options = LogOptions::default();
        for (key, value) in pairs {
            let bad = |parameter: &'static str, wanted: &'static str| BadOption {
                parameter,
                wanted,
                value: value.to_owned(),
            };
            let flag = |parameter| parse_bool(value).ok_or_else(|| bad(parameter, "true or false"));
            let count = |parameter| {
                value
                    .parse::<u64>()
                    .map_err(|_| bad(parameter, "a number of at least 0"))
            };
            match key {
                _ if value.is_empty() => {}
                "follow" => options.follow = flag("follow")?,
                "previous" => options.previous = flag("previous")?,
                "timestamps" => options.timestamps = flag("timestamps")?,
                "tailLines" => options.tail_lines = Some(count("tailLines")?),
                "limitBytes" => match count("limitBytes")? {
                    0 => return Err(bad("limitBytes", "a number greater than 0")),
                    bytes => options.limit_bytes = Some(bytes),
                },
                "sinceSeconds" => {
                    let seconds = i64::try_from(count("sinceSeconds")?)
                        .ok()
                        .filter(|seconds| *seconds > 0)
                        .ok_or_else(|| bad("sinceSeconds", "a number greater than 0"))?;
                    let since = now.as_second().saturating_sub(seconds);
                    options.since = Some(Timestamp::from_second(since).unwrap_or(Timestamp::MIN));
                }
                "sinceTime" => {
                    options.since = Some(value.parse().map_err(|_| bad("sinceTime", "a time in RFC 3339"))?);
                }
                "stream" => {
                    options.streams = match value {
                        "All" => Streams::All,
                        "Stdout" => Streams::Only(line::Stream::Stdout),
                        "Stderr" => Streams::Only(line::Stream::Stderr),
                        _ => return Err(bad("stream", "All, Stdout or Stderr")),
                    };
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

/// As Go's `strconv.ParseBool` takes it, which upstream's servers use.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_nonsense_is_named() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let parse = |pairs: &[(&'static str, &'static str)]| LogOptions::parse(pairs.iter().copied(), now);

        let options = parse(&[
            ("follow", "1"),
            ("tailLines", "0"),
            ("sinceSeconds", "60"),
            ("other", "x"),
        ])
        .unwrap();

        assert!(options.follow);
        assert_eq!(options.tail_lines, Some(0));
        assert_eq!(options.since, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        for pair in [
            ("tailLines", "-1"),
            ("follow", "yes"),
            ("limitBytes", "0"),
            ("sinceSeconds", "0"),
            ("sinceTime", "yesterday"),
            ("stream", "both"),
        ] {
            assert!(parse(&[pair]).unwrap_err().to_string().starts_with(pair.0), "{pair:?}");
        }
    }
}
