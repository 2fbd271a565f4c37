//! How a keyspace's answers become the API's.

use api::{Reason, Status, status::Cause};
use bytes::Bytes;
use keyspace::{Error, KeyRange, KeyValue, Keyspace, Options, Range, Revision};

/// One key as it is now, and the revision at which it was read.
pub(crate) async fn read_key(
    keyspace: &dyn Keyspace,
    key: impl Into<Bytes>,
) -> Result<(Revision, Option<KeyValue>), Status> {
    let mut ranged = keyspace
        .range(Range::of(KeyRange::one(key)), Options::default())
        .await
        .map_err(refuse)?;
    Ok((ranged.revision, ranged.items.pop()))
}

/// What a client is told of a keyspace's refusal, in upstream's words where it has some.
pub(crate) fn refuse(error: Error) -> Status {
    match error {
        Error::Compacted { wanted, oldest } => Status::new(
            Reason::Expired,
            format!("too old resource version: {wanted} ({oldest})"),
        ),
        Error::Future { wanted, current } => {
            let mut status = Status::new(
                Reason::Timeout,
                format!("Too large resource version: {wanted}, current: {current}"),
            );
            status.causes.push(Cause {
                reason: "ResourceVersionTooLarge",
                message: "Too large resource version".to_owned(),
                field: String::new(),
            });
            status.retry_after_seconds = Some(1);
            status
        }
        Error::TooSlow => Status::new(Reason::Expired, "the watcher fell behind; list anew"),
        Error::Unavailable(_) => {
            let mut status = Status::new(Reason::ServiceUnavailable, error.to_string());
            status.retry_after_seconds = Some(1);
            status
        }
        Error::Unknown(_) => Status::new(Reason::Timeout, error.to_string()),
        Error::Invalid(_)
        | Error::NoLease(_)
        | Error::LeaseExists(_)
        | Error::NoSpace(_)
        | Error::Damaged(_)
        | Error::Failed(_) => Status::new(Reason::InternalError, error.to_string()),
    }
}
