//! The verbs, asked of an etcd.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use etcd_client as etcd;
use keyspace::{
    Consistency, Content, Error, Granted, KeyRange, Keyspace, LeaseId, LeaseState, Op, Options, Previous, Range,
    Ranged, Result, Revision, Txn, Txned, Watch, WatchStream, check,
};
use tokio::sync::Notify;

use crate::{
    connect::{ConnectError, Connected, EtcdOptions, connect},
    errors::{About, Asked, translate},
    progress::ProgressBy,
    translate::Prefix,
    watch::Watching,
};

/// How long an answer is waited for if the caller doesn't say. The API server gives up on a request after a minute.
const TIMEOUT: Duration = Duration::from_secs(30);

/// etcd sends a list in one message, however long; so does it a revision with many events.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// A real etcd as a keyspace.
pub struct EtcdKeyspace {
    client: etcd::Client,
    prefix: Prefix,
    progress: ProgressBy,
    version: String,
    /// One for each open watch, to ask it for progress.
    watches: Mutex<Vec<Weak<Notify>>>,
}

impl EtcdKeyspace {
    pub async fn connect(options: EtcdOptions) -> Result<EtcdKeyspace, ConnectError> {
        EtcdKeyspace::connect_with(options, None).await
    }

    /// With `progress` by other means than those that the server's version speaks for.
    pub async fn connect_with(
        options: EtcdOptions,
        progress: Option<ProgressBy>,
    ) -> Result<EtcdKeyspace, ConnectError> {
        let Connected { client, version } = connect(&options).await?;
        let progress = progress.unwrap_or(ProgressBy::for_version(&version));
        tracing::debug!(version, ?progress, "connected to etcd");
        Ok(EtcdKeyspace {
            client,
            prefix: Prefix::new(options.prefix.into_bytes()),
            progress,
            version,
            watches: Mutex::default(),
        })
    }

    /// What the etcd that was connected to says it is.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn kv(&self) -> etcd::KvClient {
        self.client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The current revision, linearizably.
    async fn revision(&self, options: &Options) -> Result<Revision> {
        let range = Range {
            content: Content::CountOnly,
            ..Range::of(KeyRange::one("revision"))
        };
        let options = Options {
            consistency: Consistency::Linearizable,
            ..options.clone()
        };
        Ok(self.range(range, options).await?.revision)
    }

    async fn put_bookmark(&self) -> Result<()> {
        let mut kv = self.kv();
        let put = kv.put(self.prefix.bookmark(), "", None);
        within(None, Asked::Write, About::default(), put).await?;
        Ok(())
    }
}

async fn within<T>(
    timeout: Option<Duration>,
    asked: Asked,
    about: About,
    answer: impl Future<Output = Result<T, etcd::Error>>,
) -> Result<T> {
    match tokio::time::timeout(timeout.unwrap_or(TIMEOUT), answer).await {
        Ok(answer) => answer.map_err(|error| translate(error, asked, about)),
        Err(_) if asked == Asked::Write => Err(Error::Unknown("etcd did not answer in time".into())),
        Err(_) => Err(Error::Unavailable("etcd did not answer in time".into())),
    }
}

fn not_understood() -> Error {
    Error::Unknown("etcd's answer is none to what was asked".into())
}

fn header(header: Option<&etcd::ResponseHeader>) -> Result<Revision> {
    let revision = header.map(|header| Revision(header.revision() as u64));
    revision.ok_or_else(not_understood)
}

/// What an error of this transaction may be about.
fn about(txn: &Txn, mut known: About) -> About {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put(put) => known.lease = known.lease.or(put.lease),
            Op::Range(range) => known = range.revision.map_or(known, |revision| known.and_revision(revision)),
            Op::Txn(nested) => known = about(nested, known),
            Op::Delete { .. } => {}
        }
    }
    known
}

#[async_trait]
impl Keyspace for EtcdKeyspace {
    async fn range(&self, range: Range, options: Options) -> Result<Ranged> {
        check::range(&range)?;
        let (key, mut get) = self.prefix.get(&range);
        if options.consistency == Consistency::Serializable {
            get = get.with_serializable();
        }
        let about = range.revision.map_or(About::default(), About::revision);
        let mut kv = self.kv();
        let answer = within(options.timeout, Asked::Read, about, kv.get(key, Some(get))).await?;
        Ok(self.prefix.ranged(&range, answer))
    }

    async fn txn(&self, txn: Txn, options: Options) -> Result<Txned> {
        check::txn(&txn)?;
        let mut kv = self.kv();
        let asked = kv.txn(self.prefix.txn(&txn));
        let answer = within(options.timeout, Asked::Write, about(&txn, About::default()), asked).await?;
        let revision = header(answer.header())?;
        self.prefix.txned(&txn, revision, &answer).ok_or_else(not_understood)
    }

    async fn watch(&self, watch: Watch, options: Options) -> Result<WatchStream> {
        check::watch(&watch)?;
        // From a revision that is named, nothing is missed whenever the watch is made.
        let current = self.revision(&options).await?;
        let from = watch.from.unwrap_or(Revision(current.0 + 1)).max(Revision(1));
        let (key, end) = match self.progress {
            ProgressBy::Request => self.prefix.range(&watch.keys),
            ProgressBy::Bookmark => self.prefix.with_bookmark(),
        };
        let mut asked = etcd::WatchOptions::new().with_start_revision(from.0 as i64);
        if !end.is_empty() {
            asked = asked.with_range(end);
        }
        if watch.previous == Previous::Return {
            asked = asked.with_prev_key();
        }
        let about = About::revision(from);
        let mut client = self.client.watch_client().max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut stream = within(options.timeout, Asked::Read, about, client.watch(key, Some(asked))).await?;
        let created = within(options.timeout, Asked::Read, about, stream.message()).await?;
        let notify = Arc::new(Notify::new());
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| watch.strong_count() > 0);
        watches.push(Arc::downgrade(&notify));
        drop(watches);
        let mut watching = Watching {
            stream,
            prefix: self.prefix.clone(),
            keys: watch.keys,
            previous: watch.previous,
            from,
            progress: self.progress,
            bookmark: self.prefix.bookmark(),
            asked: notify,
            begun: false,
            ready: VecDeque::new(),
            done: false,
        };
        let ended = || Error::Unavailable("etcd ended the watch".into());
        watching.created(created.ok_or_else(ended)?)?;
        if from.0 <= current.0 + 1 {
            watching.begin();
        }
        Ok(watching.into_stream())
    }

    async fn request_progress(&self) -> Result<()> {
        if self.progress == ProgressBy::Bookmark {
            return self.put_bookmark().await;
        }
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        for watch in watches.iter().filter_map(Weak::upgrade) {
            watch.notify_one();
        }
        Ok(())
    }

    async fn compact(&self, revision: Revision, options: Options) -> Result<()> {
        let about = About::revision(revision);
        let mut kv = self.kv();
        let compacted = kv.compact(revision.0 as i64, None);
        within(options.timeout, Asked::Write, about, compacted).await?;
        Ok(())
    }

    async fn grant_lease(&self, id: Option<LeaseId>, ttl: Duration) -> Result<Granted> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).map_err(|_| Error::Invalid("too large lease TTL".into()))?;
        let options = id.map(|id| etcd::LeaseGrantOptions::new().with_id(id.0));
        let about = About::lease(id);
        let mut leases = self.client.lease_client();
        // etcd refuses 0 by an error that says nothing; what is shorter than its shortest it raises.
        let answer = within(None, Asked::Write, about, leases.grant(seconds.max(1), options)).await?;
        Ok(Granted {
            id: LeaseId(answer.id()),
            ttl: Duration::from_secs(answer.ttl() as u64),
        })
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<()> {
        let about = About::lease(Some(id));
        let mut leases = self.client.lease_client();
        within(None, Asked::Write, about, leases.revoke(id.0)).await?;
        Ok(())
    }

    async fn keep_lease(&self, id: LeaseId) -> Result<Duration> {
        let about = About::lease(Some(id));
        let mut leases = self.client.lease_client();
        let kept = async {
            // The client keeps the first answer for itself, and the time is in it; so it is asked twice.
            let (mut keeper, mut answers) = leases.keep_alive(id.0).await?;
            keeper.keep_alive().await?;
            answers.message().await
        };
        let answer = within(None, Asked::Write, about, kept).await?;
        match answer.map_or(0, |answer| answer.ttl()) {
            ttl if ttl > 0 => Ok(Duration::from_secs(ttl as u64)),
            _ => Err(Error::NoLease(id)),
        }
    }

    async fn lease_state(&self, id: LeaseId) -> Result<LeaseState> {
        let about = About::lease(Some(id));
        let mut leases = self.client.lease_client();
        let options = etcd::LeaseTimeToLiveOptions::new().with_keys();
        let answer = within(None, Asked::Read, about, leases.time_to_live(id.0, Some(options))).await?;
        if answer.ttl() < 0 {
            return Err(Error::NoLease(id));
        }
        let keys = answer.keys().iter().filter_map(|key| self.prefix.strip(key));
        Ok(LeaseState {
            granted_ttl: Duration::from_secs(answer.granted_ttl() as u64),
            remaining: Duration::from_secs(answer.ttl() as u64),
            keys: keys.map(|key| key.to_vec().into()).collect(),
        })
    }
}
