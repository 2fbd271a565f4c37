//! Deleting a plane: a marker first, ranged deletes after, the record last. Each step can be done again after a crash.

use api::{PlaneId, Reason, Status, keys::Layout, resource};
use keyspace::{Compare, Content, KeyRange, Keyspace, Op, OpResult, Options, Previous, Range, TXN_OPS_MAX, Txn};

use super::{
    Planes,
    addresses::Owner,
    read_key, refuse,
    set::{encode_record, kubernetes_owner, name_key, parse_record, record_key},
};
use crate::registry::services::{cluster_addresses, node_ports};

/// Services read at once while their addresses are given back.
const PAGE: usize = 500;

impl Planes {
    /// Deletes a plane and everything in it. `NotFound` if there is none.
    pub async fn delete(&self, id: PlaneId) -> Result<(), Status> {
        self.mark_deleting(id).await?;
        self.forget(id);
        // Whatever is still under way compares the record with what it was, and writes nothing any more.
        self.release_addresses(id).await?;
        self.sweep(id).await?;
        self.remove_record(id).await
    }

    /// Goes on with deletions that a crash cut short.
    pub async fn resume_deletions(&self) -> Result<(), Status> {
        for record in self.list().await?.into_iter().filter(|record| record.deleting) {
            match self.delete(record.id).await {
                Err(status) if status.reason != Reason::NotFound => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    async fn mark_deleting(&self, id: PlaneId) -> Result<(), Status> {
        loop {
            let (_, found) = read_key(&**self.shared(), record_key(id)).await?;
            let found = found.ok_or_else(|| Status::new(Reason::NotFound, format!("plane {id} not found")))?;
            let mut record = parse_record(&found.value)?;
            if record.deleting {
                return Ok(());
            }
            record.deleting = true;
            let txn = Txn {
                compares: vec![Compare::unchanged(record_key(id), found.mod_revision)],
                success: vec![Op::put(record_key(id), encode_record(&record))],
                failure: Vec::new(),
            };
            let txned = self.shared().txn(txn, Options::default()).await.map_err(refuse)?;
            if txned.succeeded {
                return Ok(());
            }
        }
    }

    async fn release_addresses(&self, id: PlaneId) -> Result<(), Status> {
        let prefix = Layout::Shared.prefix(id, &resource::SERVICES, None, None);
        let mut keys = KeyRange::prefix(prefix);
        loop {
            let range = Range {
                limit: Some(PAGE),
                ..Range::of(keys.clone())
            };
            let ranged = self.shared().range(range, Options::default()).await.map_err(refuse)?;
            for item in &ranged.items {
                let service = api::Object::from_stored(item.value.clone());
                let owner = Owner {
                    plane: id,
                    namespace: service.namespace().to_owned(),
                    name: service.name().to_owned(),
                };
                for address in cluster_addresses(service.tree()) {
                    self.addresses().release_address(address, &owner).await?;
                }
                for port in node_ports(service.tree()) {
                    self.addresses().release_port(port, &owner).await?;
                }
            }
            let Some(last) = ranged.items.last().filter(|_| ranged.more) else {
                return Ok(());
            };
            let mut next = last.key.to_vec();
            next.push(0);
            keys.start = next.into();
        }
    }

    /// One ranged delete a resource; definitions last, since they lead to their objects.
    async fn sweep(&self, id: PlaneId) -> Result<(), Status> {
        let shared = &**self.shared();
        let definitions = Layout::Shared.prefix(id, &resource::CUSTOM_RESOURCE_DEFINITIONS, None, None);
        let ranged = shared
            .range(Range::of(KeyRange::prefix(definitions.clone())), Options::default())
            .await
            .map_err(refuse)?;
        for item in &ranged.items {
            let definition = api::Object::from_stored(item.value.clone());
            if !definition.uid().is_empty() {
                delete_range(shared, format!("/c/{}/{id}/", definition.uid())).await?;
            }
        }
        let stored = api::table::resources().iter().filter(|info| info.is_stored());
        let mut prefixes: Vec<String> = stored
            .map(|info| Layout::Shared.prefix(id, &info.storage, None, None))
            .filter(|prefix| *prefix != definitions)
            .collect();
        prefixes.sort();
        prefixes.dedup();
        for prefix in in_use(shared, prefixes).await? {
            delete_range(shared, prefix).await?;
        }
        delete_range(shared, definitions).await
    }

    async fn remove_record(&self, id: PlaneId) -> Result<(), Status> {
        let (_, found) = read_key(&**self.shared(), record_key(id)).await?;
        let Some(found) = found else { return Ok(()) };
        let record = parse_record(&found.value)?;
        self.addresses()
            .release_address(record.kubernetes_service_ip, &kubernetes_owner(id))
            .await?;
        let name = name_key(&record.name);
        let (_, named) = read_key(&**self.shared(), name.clone()).await?;
        let mut txn = Txn {
            compares: vec![Compare::unchanged(record_key(id), found.mod_revision)],
            success: vec![Op::delete(record_key(id))],
            failure: Vec::new(),
        };
        if let Some(named) = named.filter(|named| *named.value == *id.as_str().as_bytes()) {
            txn.compares.push(Compare::unchanged(name.clone(), named.mod_revision));
            txn.success.push(Op::delete(name));
        }
        self.shared().txn(txn, Options::default()).await.map_err(refuse)?;
        Ok(())
    }
}

/// Those of the prefixes under which there is anything.
async fn in_use(keyspace: &dyn Keyspace, prefixes: Vec<String>) -> Result<Vec<String>, Status> {
    let mut used = Vec::new();
    for prefixes in prefixes.chunks(TXN_OPS_MAX) {
        let counts = prefixes.iter().map(|prefix| {
            Op::Range(Range {
                content: Content::CountOnly,
                ..Range::of(KeyRange::prefix(prefix.clone()))
            })
        });
        let txn = Txn {
            success: counts.collect(),
            ..Txn::default()
        };
        let txned = keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
        for (prefix, result) in prefixes.iter().zip(txned.results) {
            if matches!(result, OpResult::Range(ranged) if ranged.count > 0) {
                used.push(prefix.clone());
            }
        }
    }
    Ok(used)
}

async fn delete_range(keyspace: &dyn Keyspace, prefix: String) -> Result<(), Status> {
    let txn = Txn {
        success: vec![Op::Delete {
            keys: KeyRange::prefix(prefix),
            previous: Previous::Omit,
        }],
        ..Txn::default()
    };
    keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
    Ok(())
}
