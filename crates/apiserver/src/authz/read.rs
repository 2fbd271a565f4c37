//! A plane's roles and bindings as they are: what is stored, and what the plane has by birth where nothing is.

use std::collections::HashSet;

use api::{Object, Resource, Status};
use keyspace::{KeyRange, Options, Range, Revision};

use crate::{
    planes::{Plane, refuse},
    template,
};

pub(super) struct Objects {
    pub objects: Vec<Object>,
    pub revision: Revision,
    /// Nothing of this resource has ever been written.
    pub as_born: bool,
}

pub(super) async fn read_all(plane: &Plane, resource: &Resource) -> Result<Objects, Status> {
    let prefix = plane.layout.prefix(plane.id, resource, None, None);
    let ranged = plane
        .keyspace
        .range(Range::of(KeyRange::prefix(prefix.clone())), Options::default())
        .await
        .map_err(refuse)?;
    let mut objects = Vec::new();
    let mut written = HashSet::new();
    for item in &ranged.items {
        written.insert(&item.key[prefix.len()..]);
        if *item.value != *template::WHITEOUT {
            objects.push(Object::from_stored(item.value.clone()));
        }
    }
    if plane.is_templated() {
        for entry in template::entries(resource) {
            if !written.contains(entry.suffix().as_bytes()) {
                objects.push(Object::from_stored(entry.render(&plane.record)));
            }
        }
    }
    Ok(Objects {
        as_born: plane.is_templated() && written.is_empty(),
        objects,
        revision: ranged.revision,
    })
}
