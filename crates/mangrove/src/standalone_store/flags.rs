//! Flags of `mangrove store`.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgAction, Args, ValueEnum};
use etcd::server::{AuthToken, compactor::AutoCompaction};

/// Where to listen, as etcd writes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Url {
    Http(String),
    Https(String),
    Unix(PathBuf),
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let wrong = || format!("{text:?} is none of http://HOST:PORT, https://HOST:PORT, unix:///PATH");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let rest = rest.trim_end_matches('/');
        match scheme {
            "unix" | "unixs" if !rest.is_empty() => Ok(Url::Unix(rest.into())),
            "http" | "https"
                if rest
                    .rsplit_once(':')
                    .is_some_and(|(_, port)| port.parse::<u16>().is_ok()) =>
            {
                let address = rest.to_owned();
                Ok(if scheme == "http" {
                    Url::Http(address)
                } else {
                    Url::Https(address)
                })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Url::Http(address) => write!(f, "http://{address}"),
            Url::Https(address) => write!(f, "https://{address}"),
            Url::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

fn named(text: &str) -> Result<(String, Url), String> {
    let (name, url) = text.split_once('=').ok_or("it has to be NAME=URL")?;
    Ok((name.to_owned(), url.parse()?))
}

/// As Go writes durations; a number alone is hours.
fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(hours) => Ok(Duration::from_secs(hours.saturating_mul(3600))),
        Err(_) => etcd::server::duration::parse(text),
    }
}

/// Files are read when the flag is: what is wrong with them is told at once.
fn auth_token(text: &str) -> Result<AuthToken, String> {
    AuthToken::of_flag(text, |file| std::fs::read(file)).map_err(|error| error.to_string())
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompactionMode {
    Periodic,
    Revision,
}

#[derive(Args, Clone)]
pub struct Tls {
    /// Certificate of the server, PEM
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    /// CA that clients' certificates are checked with, PEM; nobody is let in without one
    #[arg(long, value_name = "FILE")]
    pub trusted_ca_file: Option<PathBuf>,
    /// Needs that CA: without it the store does not start
    #[arg(long, requires_all = ["cert_file", "trusted_ca_file"])]
    pub client_cert_auth: bool,
}

#[derive(Args, Clone)]
pub struct Serve {
    /// Where the store is kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where clients are served
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://localhost:2379"
    )]
    pub listen_client_urls: Vec<Url>,
    /// What clients are told to connect to [default: where they are served]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub advertise_client_urls: Vec<String>,
    /// Where /metrics, /health and /version are served too, and nothing else
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub listen_metrics_urls: Vec<Url>,
    /// The member's name
    #[arg(long, default_value = "default")]
    pub name: String,
    #[command(flatten)]
    pub tls: Tls,
    /// A keyspace of its own, with its own revisions, compaction and quota, at a URL of its own; may be given again
    #[arg(long, value_name = "NAME=URL", value_parser = named, action = ArgAction::Append)]
    pub keyspace: Vec<(String, Url)>,
    /// A keyspace for each client: named by its certificate's common name, made when it first comes
    #[arg(long)]
    pub keyspace_by_client_cert: bool,
    /// Largest request
    #[arg(long, value_name = "BYTES", default_value_t = 3 << 19)]
    pub max_request_bytes: usize,
    /// Most operations of a transaction
    #[arg(long, value_name = "COUNT", default_value_t = 128)]
    pub max_txn_ops: usize,
    /// Most requests at once on one connection
    #[arg(long, value_name = "COUNT", default_value_t = u32::MAX)]
    pub max_concurrent_streams: u32,
    /// Bytes of a keyspace at which the alarm NOSPACE is raised; 0 is 2 GiB, less than 0 is no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0, allow_negative_numbers = true)]
    pub quota_backend_bytes: i64,
    /// What values may take of the memory, of all keyspaces together; those that nobody asks for are on the disk alone
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub value_memory_bytes: usize,
    /// How --auto-compaction-retention is meant
    #[arg(long, value_enum, default_value = "periodic")]
    pub auto_compaction_mode: CompactionMode,
    /// History that is kept: a time like 5m (a number is hours), or a number of revisions; 0 keeps all
    #[arg(long, value_name = "HOW_MUCH", default_value = "0")]
    pub auto_compaction_retention: String,
    /// Tokens of users: simple, or jwt,sign-method=METHOD,priv-key=FILE,pub-key=FILE,ttl=DURATION
    #[arg(long, value_name = "KIND", value_parser = auth_token, default_value = "simple")]
    pub auth_token: AuthToken,
    /// Between two notifications of progress to watches that asked for them
    #[arg(
        long,
        alias = "experimental-watch-progress-notify-interval",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "10m"
    )]
    pub watch_progress_notify_interval: Duration,
}

impl Serve {
    pub fn quota_bytes(&self) -> usize {
        match self.quota_backend_bytes {
            0 => 2 << 30,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }

    pub fn auto_compaction(&self) -> anyhow::Result<Option<AutoCompaction>> {
        let retention = &self.auto_compaction_retention;
        Ok(match self.auto_compaction_mode {
            CompactionMode::Periodic => {
                let kept = duration(retention).map_err(anyhow::Error::msg)?;
                (!kept.is_zero()).then_some(AutoCompaction::Periodic(kept))
            }
            CompactionMode::Revision => {
                let kept: u64 =
                    (retention.parse()).map_err(|_| anyhow::anyhow!("{retention:?} is no number of revisions"))?;
                (kept > 0).then_some(AutoCompaction::Revision(kept))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_hours() {
        assert_eq!(duration("2"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
    }

    #[test]
    fn urls_are_etcds() {
        assert_eq!("http://127.0.0.1:2379/".parse(), Ok(Url::Http("127.0.0.1:2379".into())));
        assert_eq!(
            "unix:///run/store.sock".parse(),
            Ok(Url::Unix("/run/store.sock".into()))
        );
        for wrong in ["127.0.0.1:2379", "http://host", "ftp://host:1", "unix://"] {
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
    }
}
