//! `kill -9` of the server at random moments under load: nothing acknowledged is lost, no Pod is there twice.
//!
//! `MANGROVE_CRASH_ROUNDS` says how often (5 unless said), `MANGROVE_CRASH_SEED` when; both are printed.

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::{kubectl::Kubectl, platform::Platform};

use crate::{
    apply_web,
    door::{Access, block_on, request},
    platform_with_image, rolled_out,
};

const ROUNDS: u64 = 5;
/// The server lives at least so long, and less than this and [`SPREAD_MS`] together.
const ALIVE_MS: u64 = 100;
const SPREAD_MS: u64 = 1900;
/// Longer than a start takes on an idle machine.
const STARTING_MS: u64 = 300;
const REPLICAS: [u64; 4] = [3, 5, 2, 4];
const WRITERS: usize = 4;

#[test]
fn a_server_killed_at_random_moments_under_load_loses_nothing_and_doubles_nothing() {
    let Some(platform) = platform_with_image() else { return };
    let rounds = number("MANGROVE_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("MANGROVE_CRASH_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    println!("{rounds} rounds, seed {seed}");
    let mut random = Random(seed | 1);
    let acme = platform.tenant("acme");
    apply_web(&acme);
    let access = Access::of(&acme);
    let acknowledged = Acknowledged::default();

    for round in 0..rounds {
        let alive = Duration::from_millis(ALIVE_MS + random.below(SPREAD_MS));
        let wrote = under_load(&access, &acknowledged, round, || {
            std::thread::sleep(alive);
            platform.end_server(Signal::SIGKILL);
        });

        if round % 3 == 2 {
            // A start may be cut short too.
            let starting = Duration::from_millis(random.below(STARTING_MS));
            start_and_kill(&platform, starting);
        }
        platform.up();

        println!("round {round}: killed after {alive:?}, {wrote} writes were acknowledged");
        nothing_is_lost(&acme, &acknowledged);
    }

    assert!(
        !acknowledged.0.lock().unwrap().is_empty(),
        "no write was ever acknowledged"
    );
    every_pod_is_there_once(&platform, &acme, &acknowledged);
    platform.finish();
}

fn start_and_kill(platform: &Platform, after: Duration) {
    let mut up = platform.command(&["up", "--listen", "127.0.0.1:6443"]);
    up.arg("--data-dir").arg(platform.data_dir());
    let mut child = up
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    std::thread::sleep(after);
    child.kill().expect("it was started here");
    child.wait().expect("it was started here");
}

/// What was answered with success: ConfigMaps with their content, and the last scale.
#[derive(Default, Clone)]
struct Acknowledged(Arc<Mutex<BTreeMap<String, String>>>, Arc<Mutex<Scale>>);

#[derive(Default)]
struct Scale {
    acknowledged: Option<u64>,
    /// Sent after it; their answers were cut off.
    perhaps: Vec<u64>,
}

/// Writes from several connections until `end` has killed the server; how many were acknowledged.
fn under_load(access: &Access, acknowledged: &Acknowledged, round: u64, end: impl FnOnce()) -> usize {
    let stop = Arc::new(AtomicBool::new(false));
    let before = acknowledged.0.lock().unwrap().len();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let stop = stop.clone();
            scope.spawn(move || block_on(write_config_maps(access, acknowledged, round, writer, &stop)));
        }
        let scaling = stop.clone();
        scope.spawn(move || block_on(scale(access, acknowledged, &scaling)));
        end();
        stop.store(true, Ordering::Relaxed);
    });
    acknowledged.0.lock().unwrap().len() - before
}

async fn write_config_maps(access: &Access, acknowledged: &Acknowledged, round: u64, writer: usize, stop: &AtomicBool) {
    let Ok(mut door) = access.open().await else { return };
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("note-{round}-{writer}-{number}");
        let content = format!("written in round {round} by {writer} as {number}");
        let body =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": content}});
        let path = format!("{}/api/v1/namespaces/default/configmaps", access.prefix);
        let create = request(Method::POST, &path, "application/json", Bytes::from(body.to_string()));
        match door.try_send(create).await {
            Ok((StatusCode::CREATED, _)) => {
                acknowledged.0.lock().unwrap().insert(name, content);
            }
            Ok((status, body)) => panic!("{status}: {}", String::from_utf8_lossy(&body)),
            Err(_) => return,
        }
    }
}

async fn scale(access: &Access, acknowledged: &Acknowledged, stop: &AtomicBool) {
    let Ok(mut door) = access.open().await else { return };
    for replicas in REPLICAS.into_iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let path = format!(
            "{}/apis/apps/v1/namespaces/default/deployments/web/scale",
            access.prefix
        );
        let body = json!({"spec": {"replicas": replicas}}).to_string();
        acknowledged.1.lock().unwrap().perhaps.push(replicas);
        let patch = request(Method::PATCH, &path, "application/merge-patch+json", Bytes::from(body));
        match door.try_send(patch).await {
            Ok((StatusCode::OK, _)) => {
                let mut scale = acknowledged.1.lock().unwrap();
                scale.acknowledged = Some(replicas);
                scale.perhaps.clear();
            }
            Ok((status, body)) => panic!("{status}: {}", String::from_utf8_lossy(&body)),
            Err(_) => return,
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[track_caller]
fn nothing_is_lost(acme: &Kubectl, acknowledged: &Acknowledged) {
    let list = acme.json(&["get", "configmaps"]);
    let there: BTreeMap<&str, &str> = list["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|item| Some((item["metadata"]["name"].as_str()?, item["data"]["text"].as_str()?)))
        .collect();
    for (name, content) in acknowledged.0.lock().unwrap().iter() {
        assert_eq!(
            there.get(name.as_str()),
            Some(&content.as_str()),
            "{name} was acknowledged"
        );
    }
    let replicas: u64 = acme.field(&["deployment", "web"], ".spec.replicas").parse().unwrap();
    let mut scale = acknowledged.1.lock().unwrap();
    let fits =
        scale.acknowledged.is_none_or(|acknowledged| acknowledged == replicas) || scale.perhaps.contains(&replicas);
    assert!(
        fits,
        "{replicas} replicas, acknowledged {:?}, perhaps {:?}",
        scale.acknowledged, scale.perhaps
    );
    scale.acknowledged = Some(replicas);
    scale.perhaps.clear();
}

fn every_pod_is_there_once(platform: &Platform, acme: &Kubectl, acknowledged: &Acknowledged) {
    let replicas = acknowledged
        .1
        .lock()
        .unwrap()
        .acknowledged
        .expect("scaled at least once");
    let replicas = usize::try_from(replicas).unwrap();
    acme.until("surplus Pods go", |acme| {
        (acme.names(&["pods"]).len() == replicas).then_some(())
    });
    let root = platform.root();
    root.until("super Pods are as many", |root| {
        (root.names(&["pods", "-A"]).len() == replicas).then_some(())
    });
    rolled_out(acme, "web");
    assert_eq!(root.names(&["pods", "-A"]), acme.names(&["pods"]));
    assert_eq!(acme.names(&["replicasets"]).len(), 1, "nothing was rolled out");

    let pods = acme.json(&["get", "pods"]);
    let each = |path: &str| -> Vec<Value> {
        let pods = pods["items"].as_array().expect("a list");
        let mut values: Vec<Value> = pods
            .iter()
            .map(|pod| pod.pointer(path).cloned().unwrap_or_default())
            .collect();
        values.sort_by_key(Value::to_string);
        values.dedup();
        values
    };
    assert_eq!(each("/status/podIP").len(), replicas, "addresses are not given twice");
    assert_eq!(
        each("/status/containerStatuses/0/restartCount"),
        [json!(0)],
        "no container was started twice"
    );
    // One supervisor and one web server a Pod, and the server itself.
    let processes = || {
        let lines = platform.machine().groups.processes().into_iter().map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ")
        });
        lines.collect::<Vec<_>>()
    };
    acme.until("no sandbox and no container is there twice", |_| {
        let lines = processes();
        let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
        (count(" supervise ") == replicas && count("httpd") == replicas).then_some(())
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// xorshift64: enough to pick moments, and the same again from the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
