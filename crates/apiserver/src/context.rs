//! What the edge hands to the core: who asks, for what, on which plane.

use std::{collections::BTreeMap, sync::Arc};

use api::PlaneId;

use crate::{planes::Plane, query::Query};

/// Who asks. In-process callers put it into a request's extensions; network requests get it by authentication.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    pub fn new(name: &str, groups: &[&str]) -> Identity {
        Identity {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..Identity::default()
        }
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|has| has == group)
    }
}

/// The plane a path names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PlaneRef {
    /// The super plane: paths without a prefix.
    Root,
    One(PlaneId),
    /// The all-planes door, `/planes/*`: every plane of the shared keyspace. In-process callers only.
    All,
}

/// What a request does, as authorization names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// A path that is no resource, such as `/healthz`; authorization sees the method in lower case.
    NonResource(http::Method),
}

impl Verb {
    pub fn as_str(&self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::NonResource(method) => match *method {
                http::Method::GET => "get",
                http::Method::POST => "post",
                http::Method::PUT => "put",
                http::Method::PATCH => "patch",
                http::Method::DELETE => "delete",
                http::Method::HEAD => "head",
                http::Method::OPTIONS => "options",
                _ => "other",
            },
        }
    }

    pub fn is_read(&self) -> bool {
        matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// A request's target, read from method, path and query (`http::info` does it).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestInfo {
    pub plane: PlaneRef,
    pub verb: Verb,
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// The plural, as in the path; empty for paths that are no resource.
    pub resource: String,
    /// Empty, or `status`, `log`, ... For `proxy` the rest of the path is in [`RequestInfo::path`].
    pub subresource: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// The path without the plane's prefix.
    pub path: String,
}

impl RequestInfo {
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }
}

/// How objects are to be shown in an answer; the edge decides it from `Accept`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Form {
    #[default]
    Object,
    /// `as=PartialObjectMetadata` or `...List`.
    Metadata,
    /// `as=Table`.
    Table { include: TableObject },
}

/// `?includeObject=` of a Table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TableObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// One authenticated and authorized request. The registry checks nothing of who may do what again, save where
/// admission needs it.
#[derive(Clone)]
pub struct Context {
    /// For [`PlaneRef::All`] this is the super plane's, and only `info.plane` counts.
    pub plane: Arc<Plane>,
    pub user: Identity,
    pub info: RequestInfo,
    pub query: Query,
    pub form: Form,
    /// The name under which a write is noted: the one that the client gives, or that of its program.
    pub manager: String,
    /// Whether one of this process asks.
    pub in_process: bool,
}

impl Context {
    pub fn dry_run(&self) -> bool {
        !self.query.dry_run.is_empty()
    }
}
