//! etcd's errors, by what the caller can do about them. etcd tells them apart by text
//! (`api/v3rpc/rpctypes/error.go`).

use etcd_client::Error as Etcd;
use keyspace::{Error, LeaseId, Revision};

/// What was asked, as far as the answer depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Read,
    /// May have happened although the answer is an error.
    Write,
}

/// What an error may be about. etcd doesn't say which of several it was.
#[derive(Clone, Copy, Default)]
pub(crate) struct About {
    /// The oldest and the newest revision that was asked for.
    pub oldest: Option<Revision>,
    pub newest: Option<Revision>,
    /// The first lease.
    pub lease: Option<LeaseId>,
}

impl About {
    pub fn revision(revision: Revision) -> About {
        About::default().and_revision(revision)
    }

    pub fn lease(lease: Option<LeaseId>) -> About {
        About {
            lease,
            ..About::default()
        }
    }

    pub fn and_revision(self, revision: Revision) -> About {
        About {
            oldest: Some(self.oldest.map_or(revision, |oldest| oldest.min(revision))),
            newest: self.newest.max(Some(revision)),
            lease: self.lease,
        }
    }
}

/// gRPC's numbers.
const CANCELLED: i32 = 1;
const UNKNOWN: i32 = 2;
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const NOT_FOUND: i32 = 5;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;

pub(crate) fn translate(error: Etcd, asked: Asked, about: About) -> Error {
    let status = match error {
        Etcd::GRpcStatus(status) => status,
        Etcd::InvalidArgs(what) => return Error::Invalid(what),
        Etcd::InvalidUri(what) => return Error::Invalid(what.to_string()),
        Etcd::LeaseKeepAliveError(what) if what == "lease not found" => return no_lease(about),
        other => return lost(other.to_string(), asked),
    };
    let text = status.message();
    match status.code() as i32 {
        OUT_OF_RANGE if text.contains("has been compacted") => Error::Compacted {
            wanted: about.oldest.unwrap_or_default(),
            // Not told; it is later than the one asked for.
            oldest: Revision(about.oldest.unwrap_or_default().0 + 1),
        },
        OUT_OF_RANGE if text.contains("future revision") => Error::Future {
            wanted: about.newest.unwrap_or_default(),
            current: Revision(about.newest.unwrap_or_default().0.saturating_sub(1)),
        },
        NOT_FOUND if text.contains("lease not found") => no_lease(about),
        FAILED_PRECONDITION if text.contains("lease already exists") => {
            Error::LeaseExists(about.lease.unwrap_or(LeaseId(0)))
        }
        RESOURCE_EXHAUSTED if text.contains("space exceeded") => Error::NoSpace(text.to_owned()),
        INVALID_ARGUMENT | OUT_OF_RANGE => Error::Invalid(text.to_owned()),
        RESOURCE_EXHAUSTED if text.contains("larger than max") => Error::Invalid(text.to_owned()),
        // Said before anything was proposed.
        RESOURCE_EXHAUSTED => Error::Unavailable(text.to_owned()),
        UNKNOWN | CANCELLED | DEADLINE_EXCEEDED => lost(text.to_owned(), asked),
        _ if happened_not(text) => Error::Unavailable(text.to_owned()),
        _ => lost(format!("{:?}: {text}", status.code()), asked),
    }
}

fn no_lease(about: About) -> Error {
    Error::NoLease(about.lease.unwrap_or(LeaseId(0)))
}

/// The request never got to where it could have an effect.
fn happened_not(text: &str) -> bool {
    [
        "no leader",
        "tcp connect error",
        "raft proposal dropped",
        "too many requests",
        "dns error",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

fn lost(what: String, asked: Asked) -> Error {
    match asked {
        Asked::Write if !happened_not(&what) => Error::Unknown(what),
        Asked::Write | Asked::Read => Error::Unavailable(what),
    }
}
