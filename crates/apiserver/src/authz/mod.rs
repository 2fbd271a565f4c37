//! Who may do what: RBAC over a plane's own roles and bindings, what it has by birth included.
//!
//! Start reading at [`Authorizer`]; [`book`] is the pure part.

mod attributes;
mod book;
pub mod escalation;
mod read;
pub mod reviews;
mod rule;

use std::sync::{Arc, OnceLock};

use api::{Object, PlaneId, Resource, Status, resource};
use keyspace::Revision;

pub use attributes::{Attributes, ResourceTarget, Target, forbidden};
pub use book::{Book, SUPERUSERS, Sources, Verdict};
use read::read_all;
pub use rule::Rule;

use crate::{
    context::Identity,
    planes::{Bounded, ChangeClass, Plane, PlaneRecord, Planes},
    template,
};

/// Planes whose compiled roles are kept at hand. One is about 100 KiB, where a plane has roles of its own; all others
/// share one.
const BOOKS_MAX: usize = 512;

/// Allowed to everybody, whatever the roles say: a plane has to answer its probes before it has any.
const ALWAYS_ALLOWED: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Answers who may do what on which plane.
pub struct Authorizer {
    books: Bounded<PlaneId, (Revision, Arc<Book>)>,
}

impl Default for Authorizer {
    fn default() -> Authorizer {
        Authorizer {
            books: Bounded::new(BOOKS_MAX),
        }
    }
}

impl Authorizer {
    /// May `user` do this on `plane`?
    pub async fn judge(
        &self,
        planes: &Planes,
        plane: &Plane,
        user: &Identity,
        attributes: &Attributes,
    ) -> Result<Verdict, Status> {
        // Before anything is read: superusers can repair a plane whose roles can't be.
        if user.in_group(SUPERUSERS) {
            return Ok(Verdict::Allowed { reason: String::new() });
        }
        if let Target::Path(path) = &attributes.target
            && ALWAYS_ALLOWED.contains(&path.as_str())
        {
            return Ok(Verdict::Allowed { reason: String::new() });
        }
        let book = self.book(planes, plane).await?;
        Ok(book.judge(user, attributes))
    }

    /// As [`Authorizer::judge`]; the refusal is the answer to give.
    pub async fn require(
        &self,
        planes: &Planes,
        plane: &Plane,
        user: &Identity,
        attributes: &Attributes,
    ) -> Result<(), Status> {
        match self.judge(planes, plane, user, attributes).await? {
            Verdict::Allowed { .. } => Ok(()),
            Verdict::NoOpinion { reason } => Err(attributes.forbidden(user, &reason)),
        }
    }

    /// The plane's roles as they are now.
    pub async fn book(&self, planes: &Planes, plane: &Plane) -> Result<Arc<Book>, Status> {
        let changed = planes.changes(plane).last(plane.id, ChangeClass::Rbac);
        if let Some((read_at, book)) = self.books.get(&plane.id)
            && read_at >= changed
        {
            return Ok(book);
        }
        let roles = read_all(plane, &resource::ROLES).await?;
        let role_bindings = read_all(plane, &resource::ROLE_BINDINGS).await?;
        let cluster_roles = read_all(plane, &resource::CLUSTER_ROLES).await?;
        let cluster_role_bindings = read_all(plane, &resource::CLUSTER_ROLE_BINDINGS).await?;
        let lists = [&roles, &role_bindings, &cluster_roles, &cluster_role_bindings];
        let read_at = lists.iter().map(|list| list.revision).min().unwrap_or_default();
        let as_born = lists.iter().all(|list| list.as_born);
        let book = if as_born {
            Arc::clone(born(&plane.record))
        } else {
            Arc::new(Book::compile(&Sources {
                cluster_roles: cluster_roles.objects,
                cluster_role_bindings: cluster_role_bindings.objects,
                roles: roles.objects,
                role_bindings: role_bindings.objects,
            }))
        };
        self.books.insert(plane.id, (read_at, Arc::clone(&book)));
        Ok(book)
    }
}

/// The roles that every plane has by birth, compiled once. Neither names nor rules depend on the plane, so any record
/// will do.
fn born(record: &PlaneRecord) -> &'static Arc<Book> {
    static BORN: OnceLock<Arc<Book>> = OnceLock::new();
    BORN.get_or_init(|| {
        let render = |resource: &Resource| {
            let entries = template::entries(resource).iter();
            entries.map(|entry| Object::from_stored(entry.render(record))).collect()
        };
        Arc::new(Book::compile(&Sources {
            cluster_roles: render(&resource::CLUSTER_ROLES),
            cluster_role_bindings: render(&resource::CLUSTER_ROLE_BINDINGS),
            roles: render(&resource::ROLES),
            role_bindings: render(&resource::ROLE_BINDINGS),
        }))
    })
}
