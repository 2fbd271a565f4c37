//! Load on an etcd, ours or another, over its gRPC API: what is measured is the server, so that the client is as thin as it
//! can be (HTTP/2 frames and protobuf, nothing between).
//!
//! Start reading at [`run`]; `work.rs` has what is asked, `call.rs` how.

mod call;
mod work;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use world::World;

pub use call::CallError;
use call::Connection;
pub use work::Workload;
use work::{Prepared, prepare};

/// One thing to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    pub workload: Workload,
    /// Each asks one thing after another.
    pub clients: usize,
    pub value_bytes: usize,
    pub lasts: Duration,
}

/// What was measured.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Measured {
    /// Answers, or events told to watchers.
    pub done: u64,
    pub seconds: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub failed: u64,
    /// Of the server, as its `/metrics` tell them.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.done as f64 / self.seconds.max(1e-9)
    }
}

/// Clients share connections, as those of one process do.
const CLIENTS_A_CONNECTION: usize = 32;

/// `endpoint` is `http://HOST:PORT` of a server that nobody else uses.
pub async fn run(endpoint: &str, case: Case, world: &World) -> Result<Measured, CallError> {
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut connections = Vec::new();
    for _ in 0..case.clients.div_ceil(CLIENTS_A_CONNECTION) {
        connections.push(Connection::open(&address).await?);
    }
    let prepared = Arc::new(prepare(&connections[0], case, world).await?);
    let before = call::process(&address).await?;
    let measured = match case.workload {
        Workload::WatchFanOut { watchers } => {
            work::fan_out(&address, &connections[0], watchers, case, &prepared, world).await?
        }
        _ => ask(&connections, case, &prepared, world).await?,
    };
    let after = call::process(&address).await?;
    Ok(Measured {
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        resident_bytes: after.resident_bytes,
        ..measured
    })
}

async fn ask(
    connections: &[Connection],
    case: Case,
    prepared: &Arc<Prepared>,
    world: &World,
) -> Result<Measured, CallError> {
    let over = Arc::new(AtomicBool::new(false));
    let clock = world.clock.clone();
    let begun = clock.monotonic();
    let mut clients = JoinSet::new();
    for client in 0..case.clients {
        let mut connection = connections[client / CLIENTS_A_CONNECTION].clone();
        let (over, clock, prepared) = (over.clone(), clock.clone(), prepared.clone());
        clients.spawn(async move {
            let mut asking = work::Asking::new(client, case, prepared);
            let mut took = Vec::new();
            let mut failed = 0;
            while !over.load(Ordering::Relaxed) {
                let begun = clock.monotonic();
                match asking.once(&mut connection).await {
                    Ok(()) => took.push((clock.monotonic() - begun).as_nanos() as u64),
                    Err(error) if error.is_final() => return Err(error),
                    Err(_) => failed += 1,
                }
            }
            Ok((took, failed))
        });
    }
    clock.sleep(case.lasts).await;
    over.store(true, Ordering::Relaxed);
    let (mut took, mut failed) = (Vec::new(), 0);
    while let Some(client) = clients.join_next().await {
        let (client, failures) = client.map_err(CallError::ended)??;
        took.extend(client);
        failed += failures;
    }
    let seconds = (clock.monotonic() - begun).as_secs_f64();
    let done = took.len() as u64;
    Ok(Measured {
        done,
        seconds,
        failed,
        ..percentiles(took)
    })
}

fn percentiles(mut took: Vec<u64>) -> Measured {
    took.sort_unstable();
    let at = |percent: usize| {
        let place = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        Duration::from_nanos(took.get(place).copied().unwrap_or(0))
    };
    Measured {
        p50: at(50),
        p99: at(99),
        ..Measured::default()
    }
}
