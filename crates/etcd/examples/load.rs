//! One measurement of a server of the etcd v3 API: `cargo run --release -p etcd --example load -- URL put 256 256`. All of
//! them, side by side with another server, are `mangrove bench store`.

use std::time::Duration;

use etcd::load::{Case, Workload, run};
use world::World;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, workload, clients, value_bytes] = &arguments[..] else {
        return Err("usage: load URL put|get|range|txn|kubernetes|watch|lease CLIENTS BYTES".into());
    };
    let clients = clients.parse()?;
    let case = Case {
        workload: match workload.as_str() {
            "put" => Workload::Put,
            "get" => Workload::Get,
            "range" => Workload::Range,
            "txn" => Workload::TxnPut,
            "kubernetes" => Workload::Kubernetes,
            "watch" => Workload::WatchFanOut { watchers: clients },
            "lease" => Workload::KeepAlive,
            other => return Err(format!("there is no workload {other}").into()),
        },
        clients: if workload == "watch" { 1 } else { clients },
        value_bytes: value_bytes.parse()?,
        lasts: Duration::from_secs(3),
    };
    let measured = run(endpoint, case, &World::real()).await?;
    println!(
        "{workload:10} {clients:4} clients {value_bytes:5} bytes: {:8.0}/s p50 {:?} p99 {:?}, {:.3} ms CPU each, {} MiB, {} failed",
        measured.per_second(),
        measured.p50,
        measured.p99,
        measured.cpu_seconds * 1e3 / measured.done.max(1) as f64,
        measured.resident_bytes >> 20,
        measured.failed,
    );
    Ok(())
}
