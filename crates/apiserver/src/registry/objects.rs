//! One object in its keyspace: read (also from the template), put and taken away by compare-and-put.

use api::{Object, Status};
use bytes::Bytes;
use keyspace::{Compare, KeyValue, LeaseId, Op, Options, Previous, Put, Revision, Txn};

use super::kind::Kind;
use crate::{
    planes::{ChangeClass, Plane, Planes, read_key, refuse},
    template,
};

/// An object's address: plane, kind, namespace, name.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub plane: &'a Plane,
    pub kind: &'a Kind,
    /// `None` for cluster-scoped kinds.
    pub namespace: Option<&'a str>,
    pub name: &'a str,
}

/// What is at a place.
pub struct Found {
    /// The keyspace's revision when it was read.
    pub now: Revision,
    /// What a write has to compare with: the key's own revision, 0 if it is absent.
    pub guard: Revision,
    pub stored: Option<Stored>,
}

/// What a write does besides, in one transaction with it: both happen or neither.
#[derive(Default)]
pub struct Beside {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

impl Beside {
    pub fn and(mut self, other: Beside) -> Beside {
        self.compares.extend(other.compares);
        self.ops.extend(other.ops);
        self
    }
}

/// An object in stored form and its `resourceVersion`.
#[derive(Clone)]
pub struct Stored {
    pub object: Object,
    pub revision: Revision,
}

impl<'a> Place<'a> {
    pub fn key(&self) -> String {
        self.plane.layout.key(
            self.plane.id,
            self.kind.storage(),
            self.kind.definition(),
            self.namespace,
            self.name,
        )
    }

    pub fn named(self, name: &'a str) -> Place<'a> {
        Place { name, ..self }
    }

    /// The template's object at this place, if the plane's are read through.
    pub fn templated(&self) -> Option<&'static template::Entry> {
        if !self.plane.is_templated() || self.kind.custom().is_some() {
            return None;
        }
        template::find(self.kind.storage(), self.namespace, self.name)
    }

    pub async fn read(&self) -> Result<Found, Status> {
        let (now, found) = read_key(&*self.plane.keyspace, self.key()).await?;
        Ok(Found {
            now,
            guard: found.as_ref().map_or(Revision(0), |found| found.mod_revision),
            stored: match found {
                Some(found) => stored(found),
                None => self.templated().map(|entry| rendered(entry, self.plane)),
            },
        })
    }

    /// Writes the object if the place is as it was and what goes besides holds; `None` if not.
    pub async fn put(
        &self,
        planes: &Planes,
        guard: Revision,
        object: &Object,
        lease: Option<LeaseId>,
        beside: Beside,
    ) -> Result<Option<Revision>, Status> {
        if let Some(seen) = &self.plane.seen {
            return seen.change(self.key(), guard, object).await;
        }
        let op = Op::Put(Put {
            key: self.key().into(),
            value: object.bytes().clone(),
            lease,
            previous: Previous::Omit,
            keep: Default::default(),
        });
        self.write(planes, guard, op, beside).await
    }

    /// Takes the object away if the place is as it was and what goes besides holds; `None` if not.
    pub async fn remove(&self, planes: &Planes, guard: Revision, beside: Beside) -> Result<Option<Revision>, Status> {
        let op = if self.templated().is_some() {
            Op::put(self.key(), Bytes::from_static(template::WHITEOUT))
        } else {
            Op::delete(self.key())
        };
        self.write(planes, guard, op, beside).await
    }

    async fn write(
        &self,
        planes: &Planes,
        guard: Revision,
        op: Op,
        beside: Beside,
    ) -> Result<Option<Revision>, Status> {
        let mut txn = Txn {
            compares: vec![Compare::unchanged(self.key(), guard)],
            success: vec![op],
            failure: Vec::new(),
        };
        txn.compares.extend(beside.compares);
        txn.success.extend(beside.ops);
        // However long a request has been under way: what it writes does not outlive its plane.
        let record = planes.record_key_of(self.plane);
        if let Some(record) = &record {
            txn.compares
                .push(Compare::unchanged(record.clone(), self.plane.revision));
            txn.failure.push(Op::get(record.clone()));
        }
        let txned = self.plane.keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
        if !txned.succeeded {
            if record.is_some() {
                planes.check_record(self.plane, txned.results.first())?;
            }
            return Ok(None);
        }
        if let Some(class) = ChangeClass::of(self.kind.storage()) {
            planes.changes(self.plane).touch(self.plane.id, class, txned.revision);
        }
        Ok(Some(txned.revision))
    }
}

/// A key's value as an object; `None` for a whiteout.
pub fn stored(found: KeyValue) -> Option<Stored> {
    (*found.value != *template::WHITEOUT).then(|| Stored {
        object: Object::from_stored(found.value),
        revision: found.mod_revision,
    })
}

pub fn rendered(entry: &template::Entry, plane: &Plane) -> Stored {
    Stored {
        object: Object::from_stored(entry.render(&plane.record)),
        revision: plane.revision,
    }
}
