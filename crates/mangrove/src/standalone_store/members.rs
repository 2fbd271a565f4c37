//! Keyspaces of one store, each an etcd of its own, opened when they are first asked for.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use etcd::server::{
    Member, MemberOptions, Members,
    status::{Code, Status},
};
use tokio::sync::Mutex;
use world::World;

use super::flags::Serve;

/// What a keyspace remembers besides its keys lies in one of this name.
const META: &str = ".meta";

pub struct Opened {
    store: store::Store,
    flags: Serve,
    world: World,
    members: Mutex<HashMap<String, Arc<Member>>>,
}

impl Opened {
    pub fn new(store: store::Store, flags: Serve, world: World) -> Opened {
        Opened {
            store,
            flags,
            world,
            members: Mutex::default(),
        }
    }

    pub async fn member(&self, name: &str) -> anyhow::Result<Arc<Member>> {
        let mut members = self.members.lock().await;
        if let Some(member) = members.get(name) {
            return Ok(member.clone());
        }
        let flags = &self.flags;
        let mut client_urls = flags.advertise_client_urls.clone();
        if client_urls.is_empty() {
            client_urls = flags.listen_client_urls.iter().map(ToString::to_string).collect();
        }
        let options = MemberOptions {
            name: flags.name.clone(),
            client_urls,
            request_bytes_max: flags.max_request_bytes,
            txn_ops_max: flags.max_txn_ops,
            quota_bytes: flags.quota_bytes(),
            progress_interval: flags.watch_progress_notify_interval,
            auth_token: flags.auth_token.clone(),
            ..MemberOptions::default()
        };
        let keyspace = self.store.local(name).await?;
        let meta = self.store.keyspace(&format!("{name}{META}")).await?;
        let member = Arc::new(Member::open(keyspace, meta, options, self.world.clone()).await?);
        members.insert(name.to_owned(), member.clone());
        Ok(member)
    }
}

/// Whoever comes with a certificate has the keyspace of its common name.
pub struct ByCertificate(pub Arc<Opened>);

#[async_trait]
impl Members for ByCertificate {
    async fn member(&self, common_name: Option<&str>) -> Result<Arc<Member>, Status> {
        let nobody = || {
            Status::of(
                Code::Unauthenticated,
                "etcdserver: a client certificate with a common name is needed",
            )
        };
        let name = common_name.filter(|name| !name.is_empty()).ok_or_else(nobody)?;
        // What the store itself names can't be asked for.
        let opened = self.0.member(&format!("client/{name}")).await;
        opened.map_err(|error| Status::new(Code::Unavailable, format!("etcdserver: {error:#}")))
    }
}
