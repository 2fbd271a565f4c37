//! `mangrove tenant ...`: VirtualCluster objects of the super plane, and their kubeconfigs.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use api::{Object, resource::VIRTUAL_CLUSTERS};
use client::{Client, DeleteOptions, Event, ListOptions, WatchOptions};
use futures::StreamExt;
use identity::kubeconfig::{self, Current};
use serde_json::json;

use crate::{
    cli::{Output, Tenant, Which},
    control::{ControlSocket, print_json, summary},
    platform::{Layout, Platform},
};

/// How long a tenant may take to be made or to end: its Pods get their grace period.
const WAIT_MAX: Duration = Duration::from_secs(120);

pub fn run(command: Tenant) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?
        .block_on(carry_out(command))
}

async fn carry_out(command: Tenant) -> anyhow::Result<()> {
    match command {
        Tenant::Create {
            name,
            kubeconfig,
            output,
            which,
        } => {
            let tenants = Tenants::of(&which)?;
            tenants.create(&name).await?;
            let tenant = tenants.wait_until_running(&name).await?;
            if let Some(file) = &kubeconfig {
                tenants.write_kubeconfig(&name, file).await?;
            }
            match (output, kubeconfig) {
                (Some(Output::Json), _) => print_json(&summary(&tenant)),
                (None, Some(file)) => {
                    println!(
                        "tenant {name} is ready: kubectl --kubeconfig {} get namespaces",
                        file.display()
                    );
                    Ok(())
                }
                (None, None) => {
                    println!("tenant {name} is ready: mangrove tenant kubeconfig {name} > {name}.kubeconfig");
                    Ok(())
                }
            }
        }
        Tenant::List { output, which } => {
            let tenants = Tenants::of(&which)?.list().await?;
            if output == Some(Output::Json) {
                return print_json(&tenants.iter().map(summary).collect());
            }
            println!("{:<24} {:<12} PLANE", "NAME", "PHASE");
            tenants.iter().for_each(print_row);
            Ok(())
        }
        Tenant::Get { name, output, which } => {
            let tenant = Tenants::of(&which)?.get(&name).await?;
            if output == Some(Output::Json) {
                return print_json(&summary(&tenant));
            }
            println!("{:<24} {:<12} PLANE", "NAME", "PHASE");
            print_row(&tenant);
            Ok(())
        }
        Tenant::Kubeconfig {
            name,
            kubeconfig,
            output,
            which,
        } => {
            let tenants = Tenants::of(&which)?;
            if let Some(file) = &kubeconfig {
                return tenants.write_kubeconfig(&name, file).await;
            }
            let text = kubeconfig::document(&tenants.socket.tenant_access(&name).await?.into_entry())?;
            match output {
                Some(Output::Json) => print_json(&json!({"name": name, "kubeconfig": text})),
                None => {
                    print!("{text}");
                    Ok(())
                }
            }
        }
        Tenant::Delete { name, output, which } => {
            Tenants::of(&which)?.delete(&name).await?;
            match output {
                Some(Output::Json) => print_json(&json!({"name": name, "phase": "Deleted"})),
                None => {
                    println!("tenant {name} is deleted");
                    Ok(())
                }
            }
        }
    }
}

fn print_row(tenant: &Object) {
    let summary = summary(tenant);
    let field = |name: &str| summary[name].as_str().unwrap_or("").to_owned();
    println!("{:<24} {:<12} {}", field("name"), field("phase"), field("plane"));
}

struct Tenants {
    socket: ControlSocket,
    client: Client,
}

impl Tenants {
    fn of(which: &Which) -> anyhow::Result<Tenants> {
        let platform = Platform::find(which.data_dir.as_deref())?;
        let socket = ControlSocket::new(Layout::of(&platform.data_dir).control_socket());
        Ok(Tenants {
            client: Client::new(socket.clone()),
            socket,
        })
    }

    async fn create(&self, name: &str) -> anyhow::Result<()> {
        let body = json!({"apiVersion": VIRTUAL_CLUSTERS.api_version(), "kind": VIRTUAL_CLUSTERS.kind,
            "metadata": {"name": name}, "spec": {}});
        match self.client.create(&VIRTUAL_CLUSTERS, None, &body).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => {
                bail!("there is a tenant {name:?} already: get its kubeconfig by `mangrove tenant kubeconfig {name}`")
            }
            Err(error) => Err(error).with_context(|| format!("can't make tenant {name:?}")),
        }
    }

    async fn get(&self, name: &str) -> anyhow::Result<Object> {
        match self.client.get(&VIRTUAL_CLUSTERS, None, name).await {
            Ok(tenant) => Ok(tenant),
            Err(error) if error.is_not_found() => {
                bail!("there is no tenant {name:?}: see them all by `mangrove tenant list`")
            }
            Err(error) => Err(error).with_context(|| format!("can't read tenant {name:?}")),
        }
    }

    async fn list(&self) -> anyhow::Result<Vec<Object>> {
        let list = self.client.list(&VIRTUAL_CLUSTERS, None, &ListOptions::default()).await;
        Ok(list.context("can't list tenants")?.items)
    }

    async fn wait_until_running(&self, name: &str) -> anyhow::Result<Object> {
        let found = self
            .wait(name, |tenant| match tenant {
                Some(tenant) => match tenant.tree()["status"]["phase"].as_str() {
                    Some("Running") => Some(Ok(Some(tenant.clone()))),
                    Some("Error") => Some(Err(anyhow::anyhow!(
                        "tenant {name:?} can't be made: {}",
                        tenant.tree()["status"]["message"].as_str().unwrap_or("no reason given")
                    ))),
                    _ => None,
                },
                None => Some(Err(anyhow::anyhow!(
                    "tenant {name:?} was deleted while it was being made"
                ))),
            })
            .await?;
        found.context("a running tenant was found")
    }

    async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let tenant = self.get(name).await?;
        let uid = tenant.uid().to_owned();
        match self
            .client
            .delete(&VIRTUAL_CLUSTERS, None, name, &DeleteOptions::of_uid(&uid))
            .await
        {
            Ok(()) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("can't delete tenant {name:?}")),
        }
        self.wait(name, |tenant| match tenant {
            Some(tenant) if tenant.uid() == uid => None,
            _ => Some(Ok(None)),
        })
        .await?;
        Ok(())
    }

    /// Watches one tenant until `done` says so.
    async fn wait(
        &self,
        name: &str,
        done: impl Fn(Option<&Object>) -> Option<anyhow::Result<Option<Object>>>,
    ) -> anyhow::Result<Option<Object>> {
        let watched = async {
            let selector = Some(format!("metadata.name={name}"));
            let options = ListOptions {
                field_selector: selector.clone(),
                ..ListOptions::default()
            };
            let list = self
                .client
                .list(&VIRTUAL_CLUSTERS, None, &options)
                .await
                .context("can't list tenants")?;
            if let Some(result) = done(list.items.first()) {
                return result;
            }
            let options = WatchOptions {
                field_selector: selector,
                resource_version: Some(list.resource_version),
                ..WatchOptions::default()
            };
            let events = self
                .client
                .watch(&VIRTUAL_CLUSTERS, None, &options)
                .await
                .context("can't watch tenants")?;
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let result = match event.context("watching tenants")? {
                    Event::Added(item) | Event::Modified(item) => done(Some(&item.object)),
                    Event::Deleted(_) => done(None),
                    _ => None,
                };
                if let Some(result) = result {
                    return result;
                }
            }
            bail!("the platform stopped while tenant {name:?} was waited for")
        };
        match tokio::time::timeout(WAIT_MAX, watched).await {
            Ok(result) => result,
            Err(_) => bail!(
                "tenant {name:?} is not done after {} s: see its status by `mangrove tenant get {name}`",
                WAIT_MAX.as_secs()
            ),
        }
    }

    async fn write_kubeconfig(&self, name: &str, file: &Path) -> anyhow::Result<()> {
        let entry = self.socket.tenant_access(name).await?.into_entry();
        kubeconfig::merge(file, &entry, Current::Switch).with_context(|| format!("can't write {}", file.display()))
    }
}
