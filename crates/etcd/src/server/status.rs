//! Errors as etcd's clients match them: by gRPC code and text (`api/v3rpc/rpctypes/error.go`).

use std::borrow::Cow;

use keyspace::Error;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// As the JSON gateway answers it.
    pub fn http(self) -> u16 {
        match self {
            Code::Canceled => 499,
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => 400,
            Code::NotFound => 404,
            Code::PermissionDenied => 403,
            Code::ResourceExhausted => 429,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::Unauthenticated => 401,
            Code::Unknown | Code::Internal | Code::DataLoss => 500,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{code:?}: {text}")]
pub struct Status {
    pub code: Code,
    pub text: Cow<'static, str>,
}

impl Status {
    pub const fn of(code: Code, text: &'static str) -> Status {
        Status {
            code,
            text: Cow::Borrowed(text),
        }
    }

    pub fn new(code: Code, text: impl Into<String>) -> Status {
        Status {
            code,
            text: Cow::Owned(text.into()),
        }
    }
}

macro_rules! statuses {
    ($($name:ident = $code:ident, $text:literal;)*) => {
        $(pub const $name: Status = Status::of(Code::$code, concat!("etcdserver: ", $text));)*
    };
}

statuses! {
    EMPTY_KEY = InvalidArgument, "key is not provided";
    KEY_NOT_FOUND = InvalidArgument, "key not found";
    VALUE_PROVIDED = InvalidArgument, "value is provided";
    LEASE_PROVIDED = InvalidArgument, "lease is provided";
    TOO_MANY_OPS = InvalidArgument, "too many operations in txn request";
    INVALID_SORT = InvalidArgument, "invalid sort option";
    TOO_LARGE = InvalidArgument, "request is too large";
    COMPACTED = OutOfRange, "mvcc: required revision has been compacted";
    FUTURE = OutOfRange, "mvcc: required revision is a future revision";
    LEASE_TTL_TOO_LARGE = OutOfRange, "too large lease TTL";
    NO_SPACE = ResourceExhausted, "mvcc: database space exceeded";
    TOO_MANY_REQUESTS = ResourceExhausted, "too many requests";
    NO_LEASE = NotFound, "requested lease not found";
    LEASE_EXISTS = FailedPrecondition, "lease already exists";
    MEMBER_NOT_FOUND = NotFound, "member not found";
    MEMBER_NOT_LEARNER = FailedPrecondition, "can only promote a learner member";
    NOT_ENOUGH_STARTED = FailedPrecondition, "re-configuration failed due to not enough started members";
    BAD_TRANSFEREE = FailedPrecondition, "bad leader transferee";
    STOPPED = Unavailable, "server stopped";
    TIMEOUT = Unavailable, "request timed out";
    CORRUPT = DataLoss, "corrupt cluster";
    ROOT_USER_NOT_EXIST = FailedPrecondition, "root user does not exist";
    ROOT_ROLE_NOT_EXIST = FailedPrecondition, "root user does not have root role";
    USER_EXISTS = FailedPrecondition, "user name already exists";
    USER_EMPTY = InvalidArgument, "user name is empty";
    USER_NOT_FOUND = FailedPrecondition, "user name not found";
    ROLE_EXISTS = FailedPrecondition, "role name already exists";
    ROLE_NOT_FOUND = FailedPrecondition, "role name not found";
    ROLE_EMPTY = InvalidArgument, "role name is empty";
    AUTH_FAILED = InvalidArgument, "authentication failed, invalid user ID or password";
    PERMISSION_NOT_GIVEN = InvalidArgument, "permission not given";
    PERMISSION_DENIED = PermissionDenied, "permission denied";
    ROLE_NOT_GRANTED = FailedPrecondition, "role is not granted to the user";
    PERMISSION_NOT_GRANTED = FailedPrecondition, "permission is not granted to the role";
    AUTH_NOT_ENABLED = FailedPrecondition, "authentication is not enabled";
    INVALID_AUTH_TOKEN = Unauthenticated, "invalid auth token";
    AUTH_OLD_REVISION = InvalidArgument, "revision of auth store is old";
    INVALID_AUTH_MGMT = InvalidArgument, "invalid auth management";
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        match error {
            Error::Compacted { .. } | Error::TooSlow => COMPACTED,
            Error::Future { .. } => FUTURE,
            Error::NoLease(_) => NO_LEASE,
            Error::LeaseExists(_) => LEASE_EXISTS,
            Error::NoSpace(_) => NO_SPACE,
            Error::Invalid(what) if what == "too large lease TTL" => LEASE_TTL_TOO_LARGE,
            Error::Invalid(what) if what.starts_with("request is too large") => TOO_LARGE,
            Error::Invalid(what) => Status::new(Code::InvalidArgument, format!("etcdserver: {what}")),
            Error::Unavailable(what) if what.contains("too many") => TOO_MANY_REQUESTS,
            Error::Unavailable(_) | Error::Failed(_) => STOPPED,
            // Not one of those after which kube-apiserver repeats a write.
            Error::Unknown(_) => TIMEOUT,
            Error::Damaged(_) => CORRUPT,
        }
    }
}
