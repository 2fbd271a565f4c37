//! Loops that one of several replicas runs: begun when it leads, ended when it does not any more.

use client::{Client, LeaderElection, LeaderOptions, Tasks};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use world::World;

/// The lease by which replicas agree; of the super cluster, which all of them reach.
const LEASE: &str = "mangrove-tenancy";

/// What has to be ended when the lead is lost.
pub struct Loops {
    pub tasks: Vec<Tasks>,
    pub controllers: controllers::Running,
}

impl Loops {
    async fn stop(self) {
        for tasks in self.tasks {
            tasks.stop().await;
        }
        self.controllers.stop().await;
    }
}

pub struct Leading {
    election: LeaderElection,
    stop: CancellationToken,
    loops: JoinHandle<()>,
}

impl Leading {
    /// Takes part in the election, and runs what `begin` starts while it leads.
    pub fn start<F>(client: Client, world: &World, namespace: &str, identity: &str, begin: F) -> Leading
    where
        F: Fn() -> Result<Loops, client::Error> + Send + 'static,
    {
        let options = LeaderOptions::new(namespace, LEASE, identity);
        let election = LeaderElection::start(client, world.clone(), options);
        let mut leadership = election.leadership();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let loops = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = leadership.wait(true) => {}
                    () = stopped.cancelled() => return,
                }
                tracing::info!("this replica leads");
                let loops = match begin() {
                    Ok(loops) => loops,
                    Err(error) => {
                        tracing::error!(%error, "the loops can't be started");
                        return;
                    }
                };
                let ended = tokio::select! {
                    () = leadership.wait(false) => false,
                    () = stopped.cancelled() => true,
                };
                loops.stop().await;
                if ended {
                    return;
                }
                tracing::warn!("this replica does not lead any more");
            }
        });
        Leading { election, stop, loops }
    }

    /// Ends the loops first, then the lead: nobody else acts while they do.
    pub async fn stop(self) {
        self.stop.cancel();
        // It ends by itself now; that it panicked was told already.
        let _ = self.loops.await;
        self.election.stop().await;
    }
}
