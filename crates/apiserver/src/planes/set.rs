//! The planes of this process: made, opened, listed.

use std::{
    net::SocketAddrV4,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use api::{PlaneId, Reason, Status, keys::Layout};
use bytes::Bytes;
use futures::StreamExt;
use identity::{Ca, TokenKey};
use keyspace::{
    Compare, Event, KeyRange, Keyspace, Op, OpResult, Options, Previous, Range, Revision, Txn, Watch, Watched,
};
use tokio::sync::OnceCell;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use world::World;

use super::{
    Addresses, Bootstrap, Bounded, Changes, CustomResources, Isolation, PlaneRecord, PlaneSpec, ServiceRanges,
    addresses::{Owner, Taken},
    changes::{Class, RETRY_AFTER},
    read_key, refuse,
    repair::CLAIM_TO_WRITE_MAX,
};
use crate::{projection::Seen, template};

/// Open planes kept at hand; a record is about 3 KiB.
const OPENED_MAX: usize = 4096;

/// What the resolved definitions that are kept at hand may take in all, by [`CustomResources::weight`].
const CUSTOM_BYTES_MAX: usize = 256 << 20;

/// Making a plane tries so many times over when another took the same id, address or name in between.
const CREATE_TRIES: usize = 8;

const RECORDS: &str = "/p/planes/";
const ROOT_RECORD: &str = "/p/root";

/// One control plane, opened.
pub struct Plane {
    pub id: PlaneId,
    pub record: PlaneRecord,
    /// The revision of the record; objects rendered from it carry it as their own.
    pub revision: Revision,
    pub keyspace: Arc<dyn Keyspace>,
    pub layout: Layout,
    /// The super plane as another sees it: what is written goes through that plane's lens.
    pub(crate) seen: Option<Arc<Seen>>,
}

impl Plane {
    pub fn is_root(&self) -> bool {
        self.layout == Layout::Registry
    }

    /// Whether what it has by birth is rendered and not stored.
    pub fn is_templated(&self) -> bool {
        self.record.bootstrap == Bootstrap::Templated
    }
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.record.fmt(f)
    }
}

/// All planes. Cheap to clone.
#[derive(Clone)]
pub struct Planes(Arc<Inner>);

struct Inner {
    shared: Arc<dyn Keyspace>,
    root_keyspace: Arc<dyn Keyspace>,
    world: World,
    ranges: ServiceRanges,
    /// Where the super plane's API is reached on the node's network.
    advertise: Option<SocketAddrV4>,
    addresses: Addresses,
    opened: Bounded<PlaneId, Arc<Plane>>,
    /// Counts evictions, so that a record read or written before one is not kept after it.
    evictions: AtomicU64,
    custom: Bounded<PlaneId, Arc<CustomResources>>,
    root: OnceCell<Arc<Plane>>,
    shared_changes: Changes,
    root_changes: Changes,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Inner {
    fn evict(&self, id: PlaneId) {
        self.evictions.fetch_add(1, Ordering::SeqCst);
        self.opened.remove(&id);
    }
}

impl Planes {
    pub(crate) fn new(
        shared: Arc<dyn Keyspace>,
        root_keyspace: Arc<dyn Keyspace>,
        world: World,
        ranges: ServiceRanges,
        advertise: Option<SocketAddrV4>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Planes {
        let planes = Planes(Arc::new(Inner {
            addresses: Addresses::new(Arc::clone(&shared), Arc::clone(&world.random)),
            shared_changes: Changes::follow(&shared, Layout::Shared, &world.clock, tasks, stop),
            root_changes: Changes::follow(&root_keyspace, Layout::Registry, &world.clock, tasks, stop),
            shared,
            root_keyspace,
            world,
            ranges,
            advertise,
            opened: Bounded::new(OPENED_MAX),
            evictions: AtomicU64::new(0),
            custom: Bounded::new(CUSTOM_BYTES_MAX),
            root: OnceCell::new(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        }));
        let follow = follow_records(Arc::downgrade(&planes.0));
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow => {}
            }
        });
        planes
    }

    pub fn world(&self) -> &World {
        &self.0.world
    }

    pub fn shared(&self) -> &Arc<dyn Keyspace> {
        &self.0.shared
    }

    pub fn ranges(&self) -> &ServiceRanges {
        &self.0.ranges
    }

    pub fn addresses(&self) -> &Addresses {
        &self.0.addresses
    }

    /// Who changed roles or definitions last, in the plane's keyspace.
    pub fn changes(&self, plane: &Plane) -> &Changes {
        if plane.is_root() {
            &self.0.root_changes
        } else {
            &self.0.shared_changes
        }
    }

    /// The super plane, made when first asked for.
    pub async fn root(&self) -> Result<Arc<Plane>, Status> {
        let opened = async {
            let plane = self.open_root().await?;
            self.begin_repair(&plane);
            Ok(plane)
        };
        self.0.root.get_or_try_init(|| opened).await.cloned()
    }

    /// Once, beside everything else: an address more or less is nothing to wait for.
    fn begin_repair(&self, plane: &Arc<Plane>) {
        let (planes, plane, stop) = (self.clone(), Arc::clone(plane), self.0.stop.clone());
        self.0.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                repaired = planes.repair_claims(&plane, CLAIM_TO_WRITE_MAX) => match repaired {
                    Ok(0) => {}
                    Ok(count) => tracing::info!(count, "gave back claims that a crash had left without their Service"),
                    Err(status) => tracing::warn!(%status, "claims without their Service were not looked for"),
                },
            }
        });
    }

    /// A tenant's plane. `NotFound` if there is none, or if it is being deleted.
    pub async fn open(&self, id: PlaneId) -> Result<Arc<Plane>, Status> {
        if let Some(plane) = self.0.opened.get(&id) {
            return Ok(plane);
        }
        let not_found = || Status::new(Reason::NotFound, format!("plane {id} not found"));
        let evictions = self.0.evictions.load(Ordering::SeqCst);
        let (_, found) = read_key(&*self.0.shared, record_key(id)).await?;
        let found = found.ok_or_else(not_found)?;
        let record = parse_record(&found.value)?;
        if record.deleting {
            return Err(not_found());
        }
        let plane = Arc::new(Plane {
            id,
            record,
            revision: found.mod_revision,
            keyspace: Arc::clone(&self.0.shared),
            layout: Layout::Shared,
            seen: None,
        });
        // A materialised plane whose making was cut short, or whose template is older than this binary's.
        let plane = if !plane.is_templated() && plane.record.template_version < template::VERSION {
            self.materialise(plane, record_key(id)).await?
        } else {
            plane
        };
        self.keep_open(&plane, evictions);
        Ok(plane)
    }

    /// Keeps a plane at hand whose record was read or written when there had been so many evictions.
    fn keep_open(&self, plane: &Arc<Plane>, evictions: u64) {
        self.0.opened.insert(plane.id, Arc::clone(plane));
        if self.0.evictions.load(Ordering::SeqCst) != evictions {
            self.0.opened.remove(&plane.id);
        }
    }

    /// The living plane of that name.
    pub async fn find(&self, name: &str) -> Result<Option<PlaneId>, Status> {
        let (_, found) = read_key(&*self.0.shared, name_key(name)).await?;
        Ok(found.and_then(|found| std::str::from_utf8(&found.value).ok()?.parse().ok()))
    }

    /// All records, also of planes that are being deleted.
    pub async fn list(&self) -> Result<Vec<PlaneRecord>, Status> {
        let ranged = self
            .0
            .shared
            .range(Range::of(KeyRange::prefix(RECORDS)), Options::default())
            .await
            .map_err(refuse)?;
        ranged.items.iter().map(|found| parse_record(&found.value)).collect()
    }

    /// The plane whose Pods' door has this address.
    pub async fn by_address(&self, address: std::net::Ipv4Addr) -> Result<Option<PlaneId>, Status> {
        let owner = self.0.addresses.owner_of_address(address).await?;
        Ok(owner
            .filter(|owner| owner.namespace == "default" && owner.name == "kubernetes")
            .map(|owner| owner.plane))
    }

    /// Makes a plane: its record, name and address in one transaction. `AlreadyExists` if the name is taken.
    pub async fn create(&self, spec: PlaneSpec) -> Result<PlaneRecord, Status> {
        for _ in 0..CREATE_TRIES {
            if self.find(&spec.name).await?.is_some() {
                break;
            }
            let mut random = [0; PlaneId::LEN];
            self.0.world.random.fill(&mut random);
            let id = PlaneId::from_random(random);
            let owner = kubernetes_owner(id);
            let Ok(address) = self.0.addresses.free_address(&self.0.ranges.pods_door).await? else {
                return Err(Status::new(
                    Reason::InternalError,
                    "the range of the Pods' door is full: no plane can be made",
                ));
            };
            let record = self.new_record(id, &spec, address, Isolation::Shared)?;
            let (address_is_free, claim) = Addresses::claim_of_address(address, &owner);
            let txn = Txn {
                compares: vec![
                    Compare::unchanged(record_key(id), Revision(0)),
                    Compare::unchanged(name_key(&spec.name), Revision(0)),
                    address_is_free,
                ],
                success: vec![
                    Op::put(record_key(id), encode_record(&record)),
                    Op::put(name_key(&spec.name), id.to_string()),
                    claim,
                ],
                failure: Vec::new(),
            };
            let evictions = self.0.evictions.load(Ordering::SeqCst);
            // If it fails it may have happened all the same; then the name leads to it.
            let txned = self.0.shared.txn(txn, Options::default()).await.map_err(refuse)?;
            if !txned.succeeded {
                continue;
            }
            if spec.bootstrap == Bootstrap::Materialised {
                self.open(id).await?;
                return Ok(record);
            }
            let plane = Arc::new(Plane {
                id,
                record: record.clone(),
                revision: txned.revision,
                keyspace: Arc::clone(&self.0.shared),
                layout: Layout::Shared,
                seen: None,
            });
            // Whoever asked for it opens it next.
            self.keep_open(&plane, evictions);
            return Ok(record);
        }
        Err(Status::new(
            Reason::AlreadyExists,
            format!("a plane named {:?} already exists", spec.name),
        ))
    }

    /// The plane's custom resources as they are now.
    pub async fn custom_resources(&self, plane: &Plane) -> Result<Arc<CustomResources>, Status> {
        let changed = self.changes(plane).last(plane.id, Class::Definitions);
        if let Some(custom) = self.0.custom.get(&plane.id)
            && custom.revision >= changed
        {
            return Ok(custom);
        }
        let custom = Arc::new(CustomResources::read(plane).await?);
        self.0
            .custom
            .insert_weighing(plane.id, Arc::clone(&custom), custom.weight());
        Ok(custom)
    }

    /// The key of a plane's record, if that is in the keyspace of the plane's objects and may go: every write compares it.
    pub(crate) fn record_key_of(&self, plane: &Plane) -> Option<Bytes> {
        (plane.layout == Layout::Shared).then(|| record_key(plane.id))
    }

    /// Refuses what is to be written to a plane whose record, as it is now, is not the one that it was opened by.
    pub(crate) fn check_record(&self, plane: &Plane, now: Option<&OpResult>) -> Result<(), Status> {
        let now = match now {
            Some(OpResult::Range(ranged)) => ranged.items.first(),
            _ => None,
        };
        if now.is_some_and(|now| now.mod_revision == plane.revision) {
            return Ok(());
        }
        self.forget(plane.id);
        match now.map(|now| parse_record(&now.value)).transpose()? {
            Some(record) if !record.deleting => {
                let mut status = Status::new(Reason::ServiceUnavailable, "the plane has just changed: try again");
                status.retry_after_seconds = Some(1);
                Err(status)
            }
            _ => Err(Status::new(
                Reason::NotFound,
                "the server could not find the requested resource",
            )),
        }
    }

    pub(super) fn forget(&self, id: PlaneId) {
        self.0.evict(id);
        self.0.custom.remove(&id);
    }

    async fn open_root(&self) -> Result<Arc<Plane>, Status> {
        let keyspace = &self.0.root_keyspace;
        for _ in 0..CREATE_TRIES {
            let (_, found) = read_key(&**keyspace, ROOT_RECORD).await?;
            if let Some(found) = found {
                let record = parse_record(&found.value)?;
                let mut plane = Arc::new(Plane {
                    id: record.id,
                    record,
                    revision: found.mod_revision,
                    keyspace: Arc::clone(keyspace),
                    layout: Layout::Registry,
                    seen: None,
                });
                if plane.record.template_version < template::VERSION {
                    plane = self.materialise(plane, ROOT_RECORD.into()).await?;
                }
                template::own_definition(&plane).await?;
                if let Some(advertise) = self.0.advertise {
                    template::advertise(&plane, advertise).await?;
                }
                return Ok(plane);
            }
            let mut random = [0; PlaneId::LEN];
            self.0.world.random.fill(&mut random);
            let spec = PlaneSpec {
                name: "super".to_owned(),
                bootstrap: Bootstrap::Materialised,
            };
            let record = self.new_record(
                PlaneId::from_random(random),
                &spec,
                self.0.ranges.root_kubernetes(),
                Isolation::Dedicated,
            )?;
            let txn = Txn {
                compares: vec![Compare::unchanged(ROOT_RECORD, Revision(0))],
                success: vec![Op::put(ROOT_RECORD, encode_record(&record))],
                failure: Vec::new(),
            };
            keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
        }
        Err(Status::new(
            Reason::InternalError,
            "the super plane's record can't be made",
        ))
    }

    /// Writes what the plane has by birth and is not there yet, then says so in the record.
    async fn materialise(&self, plane: Arc<Plane>, key: Bytes) -> Result<Arc<Plane>, Status> {
        let owner = kubernetes_owner(plane.id);
        let claimed = self
            .0
            .addresses
            .claim_address(plane.record.kubernetes_service_ip, &owner)
            .await?;
        if let Err(Taken::By(other)) = claimed {
            return Err(Status::new(
                Reason::InternalError,
                format!(
                    "the address {} of the plane's kubernetes Service belongs to plane {}",
                    plane.record.kubernetes_service_ip, other.plane
                ),
            ));
        }
        template::materialise(&plane).await?;
        let mut record = plane.record.clone();
        record.template_version = template::VERSION;
        let txn = Txn {
            compares: vec![Compare::unchanged(key.clone(), plane.revision)],
            success: vec![Op::put(key.clone(), encode_record(&record))],
            failure: vec![Op::get(key)],
        };
        let txned = plane.keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
        if !txned.succeeded {
            return Err(Status::new(
                Reason::Conflict,
                format!("the record of plane {} changed while it was opened", plane.id),
            ));
        }
        Ok(Arc::new(Plane {
            id: plane.id,
            record,
            revision: txned.revision,
            keyspace: Arc::clone(&plane.keyspace),
            layout: plane.layout,
            seen: None,
        }))
    }

    fn new_record(
        &self,
        id: PlaneId,
        spec: &PlaneSpec,
        address: std::net::Ipv4Addr,
        isolation: Isolation,
    ) -> Result<PlaneRecord, Status> {
        let failed = |error: identity::Error| Status::new(Reason::InternalError, error.to_string());
        let world = &self.0.world;
        let ca = Ca::generate(&format!("mangrove-{id}"), world.clock.wall(), &*world.random).map_err(failed)?;
        Ok(PlaneRecord {
            id,
            name: spec.name.clone(),
            uid: crate::registry::meta::random_uid(&*world.random),
            created: crate::registry::meta::now(&*world.clock),
            ca_cert_pem: ca.certificate_pem().to_owned(),
            ca_key_pem: ca.key_pem().to_owned(),
            token_key_pem: TokenKey::generate_pem().map_err(failed)?,
            kubernetes_service_ip: address,
            template_version: match spec.bootstrap {
                Bootstrap::Templated => template::VERSION,
                // Raised once everything has been written.
                Bootstrap::Materialised => 0,
            },
            deleting: false,
            isolation,
            bootstrap: spec.bootstrap,
        })
    }
}

/// Forgets open planes whose record changed, whoever changed it: servers may share a keyspace.
async fn follow_records(planes: Weak<Inner>) {
    while let Some(inner) = planes.upgrade() {
        let (shared, clock) = (Arc::clone(&inner.shared), Arc::clone(&inner.world.clock));
        drop(inner);
        let watch = Watch {
            keys: KeyRange::prefix(RECORDS),
            from: None,
            previous: Previous::Omit,
        };
        if let Ok(mut stream) = shared.watch(watch, Options::default()).await {
            // What happened while nobody watched is not known.
            match planes.upgrade() {
                Some(inner) => {
                    inner.evictions.fetch_add(1, Ordering::SeqCst);
                    inner.opened.clear();
                }
                None => return,
            }
            while let Some(Ok(watched)) = stream.next().await {
                let Watched::Events { events, .. } = watched else {
                    continue;
                };
                let Some(inner) = planes.upgrade() else { return };
                // A record that was just made takes the place of none.
                for event in events.iter().filter(|event| !is_first(event)) {
                    let id = event.key().strip_prefix(RECORDS.as_bytes());
                    let id = id.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
                    if let Some(id) = id {
                        inner.evict(id);
                    }
                }
            }
        }
        clock.sleep(RETRY_AFTER).await;
    }
}

fn is_first(event: &Event) -> bool {
    matches!(event, Event::Put { kv, .. } if kv.version == 1)
}

/// `default/kubernetes` of a plane, as owner of its address.
pub(super) fn kubernetes_owner(id: PlaneId) -> Owner {
    Owner {
        plane: id,
        namespace: "default".to_owned(),
        name: "kubernetes".to_owned(),
    }
}

pub(super) fn record_key(id: PlaneId) -> Bytes {
    format!("{RECORDS}{id}").into()
}

pub(super) fn name_key(name: &str) -> Bytes {
    format!("/p/names/{name}").into()
}

pub(super) fn encode_record(record: &PlaneRecord) -> Vec<u8> {
    let mut encoded = serde_json::to_vec(record).expect("a record always encodes");
    encoded.shrink_to_fit();
    encoded
}

pub(super) fn parse_record(bytes: &[u8]) -> Result<PlaneRecord, Status> {
    serde_json::from_slice(bytes).map_err(|error| {
        Status::new(
            Reason::InternalError,
            format!("a plane's record can't be read: {error}"),
        )
    })
}
