//! One of several replicas acts: by a Lease, as client-go's elections do, and compatible with them.

use std::{sync::Arc, time::Duration};

use api::{Object, resource::LEASES};
use serde_json::{Value, json};
use tokio::sync::watch;
use world::World;

use crate::{Client, Error, Tasks};

#[derive(Clone, Debug)]
pub struct LeaderOptions {
    pub namespace: String,
    pub name: String,
    /// Unique among the replicas.
    pub identity: String,
    /// How long the others wait for a silent leader. The three are client-go's defaults.
    pub lease: Duration,
    /// How long a leader tries to renew before it gives up: shorter than `lease`, so that two never act at once.
    pub renew: Duration,
    pub retry: Duration,
}

impl LeaderOptions {
    pub fn new(namespace: &str, name: &str, identity: &str) -> LeaderOptions {
        LeaderOptions {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Takes part in an election until dropped.
pub struct LeaderElection {
    leads: watch::Receiver<bool>,
    tasks: Tasks,
}

/// Whether this replica leads; waits for it to begin or end.
#[derive(Clone)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    pub fn leads(&self) -> bool {
        *self.0.borrow()
    }

    pub async fn wait(&mut self, leads: bool) {
        if self.0.wait_for(|now| *now == leads).await.is_err() && leads {
            // The election has ended: this replica will not lead any more.
            std::future::pending::<()>().await;
        }
    }
}

impl LeaderElection {
    pub fn start(client: Client, world: World, options: LeaderOptions) -> LeaderElection {
        let (sender, leads) = watch::channel(false);
        let tasks = Tasks::new();
        let election = Election {
            client,
            world,
            options: Arc::new(options),
            seen: None,
        };
        tasks.spawn_graceful(|token| async move {
            let mut election = election;
            token.run_until_cancelled(election.run(&sender)).await;
            if sender.send_replace(false) {
                election.release().await;
            }
        });
        LeaderElection { leads, tasks }
    }

    pub fn leadership(&self) -> Leadership {
        Leadership(self.leads.clone())
    }

    /// Steps down, and says so, so that another replica need not wait.
    pub async fn stop(self) {
        self.tasks.stop().await;
    }
}

struct Election {
    client: Client,
    world: World,
    options: Arc<LeaderOptions>,
    /// The lease as last seen, and when (by our own clock: others' clocks are not trusted).
    seen: Option<(Object, Duration)>,
}

/// What to do about a lease.
#[derive(PartialEq, Debug)]
enum Move {
    Create(Value),
    Put(Value),
    Wait,
}

/// What a replica does about the lease it sees; `unchanged_for` is how long it has stood like this.
fn plan(lease: Option<&Value>, unchanged_for: Duration, now: &str, options: &LeaderOptions) -> Move {
    let spec = json!({
        "holderIdentity": options.identity, "leaseDurationSeconds": options.lease.as_secs().max(1),
        "acquireTime": now, "renewTime": now, "leaseTransitions": 0,
    });
    let Some(lease) = lease else {
        let metadata = json!({"name": options.name, "namespace": options.namespace});
        return Move::Create(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}));
    };
    let old = &lease["spec"];
    let holder = old["holderIdentity"].as_str().unwrap_or("");
    let lasts = Duration::from_secs(old["leaseDurationSeconds"].as_u64().unwrap_or(options.lease.as_secs()));
    if !holder.is_empty() && holder != options.identity && unchanged_for < lasts {
        return Move::Wait;
    }
    let mut new = lease.clone();
    let transitions = old["leaseTransitions"].as_u64().unwrap_or(0);
    new["spec"] = spec;
    if holder == options.identity {
        new["spec"]["acquireTime"] = old["acquireTime"].clone();
        new["spec"]["leaseTransitions"] = json!(transitions);
    } else {
        new["spec"]["leaseTransitions"] = json!(transitions + 1);
    }
    Move::Put(new)
}

impl Election {
    async fn run(&mut self, leads: &watch::Sender<bool>) {
        let mut renewed = self.world.clock.monotonic();
        let clock = self.world.clock.clone();
        loop {
            let begun = clock.monotonic();
            // A leader gives up when its renewals have failed for so long, not when the last attempt says so.
            let left = if *leads.borrow() {
                self.options.renew.saturating_sub(begun.saturating_sub(renewed))
            } else {
                self.options.renew
            };
            let attempt = tokio::select! {
                attempt = self.attempt() => Some(attempt),
                () = clock.sleep(left) => None,
            };
            match attempt {
                Some(Ok(true)) => {
                    // Counted from before the request: the others count from when they see it.
                    renewed = begun;
                    leads.send_if_modified(|leads| !std::mem::replace(leads, true));
                }
                Some(Ok(false)) => drop(leads.send_if_modified(|leads| std::mem::replace(leads, false))),
                Some(Err(error)) => tracing::debug!(%error, lease = self.options.name, "election"),
                None => {}
            }
            let silent = clock.monotonic().saturating_sub(renewed);
            if silent >= self.options.renew {
                leads.send_if_modified(|leads| std::mem::replace(leads, false));
            }
            let pause = self.pause();
            let until_renewed = self.options.renew.saturating_sub(silent);
            clock
                .sleep(if *leads.borrow() {
                    pause.min(until_renewed)
                } else {
                    pause
                })
                .await;
        }
    }

    /// Between one and just over two retry periods for those that wait, as client-go's jitter has it, so that they do not
    /// all come at once; a leader renews on time.
    fn pause(&self) -> Duration {
        const JITTER: f64 = 1.2;
        let mut bytes = [0; 2];
        self.world.random.fill(&mut bytes);
        let fraction = f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX);
        let holds = self
            .seen
            .as_ref()
            .is_some_and(|(lease, _)| lease.tree()["spec"]["holderIdentity"] == self.options.identity);
        if holds {
            self.options.retry
        } else {
            self.options.retry.mul_f64(1.0 + JITTER * fraction)
        }
    }

    /// Whether this replica holds the lease now.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let (namespace, name) = (self.options.namespace.clone(), self.options.name.clone());
        let found = match self.client.get(&LEASES, Some(&namespace), &name).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let now = self.world.clock.monotonic();
        if let Some(lease) = &found
            && self
                .seen
                .as_ref()
                .is_none_or(|(seen, _)| seen.resource_version() != lease.resource_version())
        {
            self.seen = Some((lease.clone(), now));
        }
        let unchanged_for = self
            .seen
            .as_ref()
            .map_or(Duration::ZERO, |(_, since)| now.saturating_sub(*since));
        let wall = micro_time(self.world.clock.wall());
        let written = match plan(found.as_ref().map(Object::tree), unchanged_for, &wall, &self.options) {
            Move::Wait => return Ok(false),
            Move::Create(lease) => self.client.create(&LEASES, Some(&namespace), &lease).await,
            Move::Put(lease) => self.client.update(&LEASES, Some(&namespace), &name, &lease).await,
        };
        match written {
            Ok(lease) => {
                self.seen = Some((lease, self.world.clock.monotonic()));
                Ok(true)
            }
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&mut self) {
        let Some((lease, _)) = &self.seen else { return };
        let mut tree = lease.tree().clone();
        tree["spec"]["holderIdentity"] = json!("");
        tree["spec"]["leaseDurationSeconds"] = json!(1);
        let released = self
            .client
            .update(&LEASES, Some(&self.options.namespace), &self.options.name, &tree)
            .await;
        if let Err(error) = released {
            tracing::debug!(%error, "the lease was not released; it will run out");
        }
    }
}

/// `metav1.MicroTime`: six digits always.
fn micro_time(at: std::time::SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str) -> Value {
        json!({"metadata": {"name": "l", "resourceVersion": "5"}, "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 2, "acquireTime": "then"}})
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_run_out_or_ones_own() {
        let options = LeaderOptions::new("n", "l", "me");
        let seconds = Duration::from_secs;

        assert!(
            matches!(plan(None, seconds(0), "now", &options), Move::Create(lease) if lease["spec"]["holderIdentity"] == "me")
        );
        assert_eq!(plan(Some(&lease("other")), seconds(14), "now", &options), Move::Wait);
        let Move::Put(taken) = plan(Some(&lease("other")), seconds(15), "now", &options) else {
            panic!()
        };
        assert_eq!(
            (&taken["spec"]["leaseTransitions"], &taken["spec"]["acquireTime"]),
            (&json!(3), &json!("now"))
        );
        assert_eq!(taken["metadata"]["resourceVersion"], "5");
        let Move::Put(kept) = plan(Some(&lease("me")), seconds(1), "now", &options) else {
            panic!()
        };
        assert_eq!(
            (&kept["spec"]["leaseTransitions"], &kept["spec"]["acquireTime"]),
            (&json!(2), &json!("then"))
        );
        assert!(matches!(
            plan(Some(&lease("")), seconds(0), "now", &options),
            Move::Put(_)
        ));
    }

    #[test]
    fn micro_times_have_six_digits() {
        let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);

        assert_eq!(micro_time(at), "2023-11-14T22:13:20.000000Z");
    }
}
