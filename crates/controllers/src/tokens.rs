//! Secrets of type `kubernetes.io/service-account-token`: whoever asks for one by making it gets its token, its plane's CA
//! and its namespace filled in; they go with their account.

use std::sync::Arc;

use api::{
    Object,
    resource::{SECRETS, SERVICE_ACCOUNTS},
};
use client::{Client, DeleteOptions, Error, Informer, InformerOptions, ObjectKey, Outcome, Patch, Sources, Tasks};
use serde_json::{Value, json};
use world::World;

use crate::{RootCa, fairness, informers::Informers};

const WORKERS: usize = 2;
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Such tokens hold as long as their Secret: the time is a bound of the token's format (a hundred years).
const EXPIRATION_SECONDS: u64 = 100 * 365 * 24 * 3600;

struct Tokens {
    sources: Sources,
    secrets: Informer,
    accounts: Informer,
    root_ca: RootCa,
}

pub fn start(sources: &Sources, informers: &Informers, root_ca: RootCa, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane(world);
    let options = InformerOptions {
        field_selector: Some(format!("type={TYPE}")),
        ..InformerOptions::default()
    };
    let shared = Arc::new(Tokens {
        sources: sources.clone(),
        secrets: Informer::start(sources, SECRETS, options),
        accounts: informers.service_accounts.clone(),
        root_ca,
    });
    client::enqueue(tasks, &shared.secrets, &queue, |key, _| vec![key.clone()], Vec::new);
    let (secrets, all) = (shared.secrets.clone(), shared.secrets.clone());
    let of_account = move |key: &ObjectKey, account: &Object| {
        let secrets = secrets.list(&key.plane, key.namespace()).into_iter();
        let own = secrets.filter(|secret| secret.annotation(ACCOUNT) == Some(account.name()));
        own.map(|secret| key.sibling(secret.name())).collect()
    };
    client::enqueue(tasks, &shared.accounts, &queue, of_account, move || all.keys());
    client::run(tasks, "account tokens", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

impl Tokens {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(secret) = self.secrets.get(key).filter(|secret| !secret.is_deleting()) else {
            return Ok(Outcome::Done);
        };
        let Some(name) = secret.annotation(ACCOUNT) else {
            return Ok(Outcome::Done);
        };
        let client = self.sources.client(&key.plane)?;
        // Asked for, not looked up: accounts that a plane has by birth are in no cache.
        let account = match client.get(&SERVICE_ACCOUNTS, key.namespace(), name).await {
            Ok(account) => Some(account),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let asked = secret.annotation(ACCOUNT_UID).filter(|uid| !uid.is_empty());
        match account {
            Some(account) if asked.is_none_or(|uid| uid == account.uid()) => {
                self.fill(&client, key, &secret, &account).await?;
            }
            // One that was made for an account that is gone, or for none.
            _ => {
                let options = DeleteOptions::of_uid(secret.uid());
                match client.delete(&SECRETS, key.namespace(), &key.name, &options).await {
                    Err(error) if error.is_not_found() || error.is_conflict() => {}
                    done => done?,
                }
            }
        }
        Ok(Outcome::Done)
    }

    async fn fill(&self, client: &Client, key: &ObjectKey, secret: &Object, account: &Object) -> Result<(), Error> {
        let data = &secret.tree()["data"];
        let has = |field: &str| data[field].as_str().is_some_and(|value| !value.is_empty());
        let mut patch = json!({"metadata": {"uid": secret.uid(), "resourceVersion": secret.resource_version()}});
        let mut changed = false;
        if secret.annotation(ACCOUNT_UID) != Some(account.uid()) {
            patch["metadata"]["annotations"] = json!({ACCOUNT_UID: account.uid()});
            changed = true;
        }
        if !has("namespace") {
            patch["stringData"]["namespace"] = json!(account.namespace());
            changed = true;
        }
        if !has("ca.crt")
            && let Some(ca) = (self.root_ca)(&key.plane).await
        {
            patch["stringData"]["ca.crt"] = json!(ca);
            changed = true;
        }
        if !has("token") {
            patch["stringData"]["token"] = self.token(client, key, secret, account).await?;
            changed = true;
        }
        if !changed {
            return Ok(());
        }
        match client
            .patch(&SECRETS, key.namespace(), &key.name, &Patch::Merge(patch))
            .await
        {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            done => done.map(drop),
        }
    }

    /// Bound to the Secret: it ends with it.
    async fn token(&self, client: &Client, key: &ObjectKey, secret: &Object, account: &Object) -> Result<Value, Error> {
        let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": secret.name(), "uid": secret.uid()});
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": EXPIRATION_SECONDS, "boundObjectRef": bound}});
        let answer = client
            .create_sub(&SERVICE_ACCOUNTS, key.namespace(), account.name(), "token", &request)
            .await?;
        Ok(answer.tree()["status"]["token"].clone())
    }
}
