//! Keyspaces of one store, each an etcd of its own, opened when they are first asked for.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use etcd::server::{
    Member, MemberOptions, Members,
    compactor::{self, AutoCompaction},
    status::{Code, Status},
};
use tokio::{sync::Mutex, task::JoinSet};
use world::World;

use super::flags::Serve;

/// What a keyspace remembers besides its keys lies in one of this name.
pub const META: &str = ".meta";

pub struct Opened {
    store: store::Store,
    flags: Serve,
    world: World,
    members: Mutex<HashMap<String, Arc<Member>>>,
    auto_compaction: Option<AutoCompaction>,
    /// One for each keyspace; they end with this.
    compactors: Mutex<JoinSet<()>>,
}

impl Opened {
    pub fn new(store: store::Store, flags: Serve, world: World) -> anyhow::Result<Opened> {
        Ok(Opened {
            auto_compaction: flags.auto_compaction()?,
            compactors: Mutex::default(),
            store,
            flags,
            world,
            members: Mutex::default(),
        })
    }

    pub async fn member(&self, name: &str) -> anyhow::Result<Arc<Member>> {
        let mut members = self.members.lock().await;
        if let Some(member) = members.get(name) {
            return Ok(member.clone());
        }
        anyhow::ensure!(
            !name.ends_with(META),
            "no keyspace may be named {name:?}: what ends in {META} is kept of another"
        );
        let flags = &self.flags;
        let options = MemberOptions {
            name: flags.name.clone(),
            client_urls: client_urls(flags, name),
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
        if let Some(kept) = self.auto_compaction {
            self.compactors.lock().await.spawn(compactor::run(member.clone(), kept));
        }
        Ok(member)
    }
}

/// What clients of a keyspace are told to connect to: at another's URL they would find that one's keys.
fn client_urls(flags: &Serve, name: &str) -> Vec<String> {
    let own = flags.keyspace.iter().filter(|(other, _)| other == name);
    let own: Vec<String> = own.map(|(_, url)| url.to_string()).collect();
    if !own.is_empty() {
        return own;
    }
    if !flags.advertise_client_urls.is_empty() {
        return flags.advertise_client_urls.clone();
    }
    flags.listen_client_urls.iter().map(ToString::to_string).collect()
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
        if name.ends_with(META) {
            let what = "etcdserver: this common name is that of what is kept of another client";
            return Err(Status::of(Code::PermissionDenied, what));
        }
        let opened = self.0.member(&format!("client/{name}")).await;
        opened.map_err(|error| Status::new(Code::Unavailable, format!("etcdserver: {error:#}")))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Given {
        #[command(flatten)]
        serve: Serve,
    }

    fn opened(dir: &std::path::Path, flags: &[&str]) -> Arc<Opened> {
        let given = Given::parse_from([&["store"], flags].concat());
        let store = store::Store::open(store::StoreOptions::new(dir, World::real())).unwrap();
        Arc::new(Opened::new(store, given.serve, World::real()).unwrap())
    }

    #[tokio::test]
    async fn no_certificate_has_what_is_kept_of_another_client() {
        let dir = tempfile::tempdir().unwrap();
        let clients = ByCertificate(opened(dir.path(), &[]));
        clients.member(Some("alpha")).await.unwrap();

        for name in ["alpha.meta", ".meta", "alpha.meta.meta"] {
            let refused = clients.member(Some(name)).await.err().expect(name);
            assert_eq!(refused.code, Code::PermissionDenied, "{name}");
        }
        assert!(clients.0.member("etcd.meta").await.is_err());
        clients.member(Some("alpha.metal")).await.unwrap();
    }

    #[tokio::test]
    async fn clients_of_a_keyspace_are_sent_to_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let alpha = "alpha=http://127.0.0.1:2401";
        let opened = opened(
            dir.path(),
            &["--keyspace", alpha, "--advertise-client-urls", "http://store:2379"],
        );

        assert_eq!(client_urls(&opened.flags, "alpha"), ["http://127.0.0.1:2401"]);
        assert_eq!(client_urls(&opened.flags, "etcd"), ["http://store:2379"]);
    }

    /// Not only the one that is there first.
    #[tokio::test]
    async fn each_keyspace_is_compacted_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let flags = ["--auto-compaction-retention", "20ms"];
        let clients = ByCertificate(opened(dir.path(), &flags));
        for name in ["alpha", "beta"] {
            clients.member(Some(name)).await.unwrap();
            let keyspace = clients.0.store.local(&format!("client/{name}")).await.unwrap();
            for value in ["1", "2", "3"] {
                let txn = keyspace::Txn {
                    success: vec![keyspace::Op::put("a", value)],
                    ..keyspace::Txn::default()
                };
                keyspace::Keyspace::txn(keyspace.as_ref(), txn, keyspace::Options::default())
                    .await
                    .unwrap();
            }
            // Four times: the fresh revision, and one of each put.
            while keyspace.view().read().compacted() < keyspace::Revision(4) {
                tokio::task::yield_now().await;
            }
        }
    }
}
