//! What goes on in one tenant while others are killed: objects are written and deleted, a Deployment is scaled, commands run
//! and logs are read.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;
use testkit::kubectl::Kubectl;

use super::BYSTANDER;
use crate::door::{Access, block_on, request};

const WRITERS: usize = 2;
const REPLICAS: [u64; 4] = [3, 5, 2, 4];
/// Time for a scale to get somewhere before the next one.
const SCALE_PAUSE: Duration = Duration::from_millis(150);
/// Of a writer's ConfigMaps each third is deleted again.
const DELETED_EACH: usize = 3;
/// ConfigMaps of so many rounds stay, and have to.
const KEPT_ROUNDS: u64 = 3;

pub struct Tenant {
    pub kubectl: Kubectl,
    access: Access,
    notes: Mutex<BTreeMap<String, Note>>,
    scale: Mutex<Scale>,
}

/// What was answered of a ConfigMap.
enum Note {
    Written(String),
    Deleted,
    /// The last request's answer was cut off.
    Unknown,
}

#[derive(Default)]
struct Scale {
    acknowledged: Option<u64>,
    /// Sent after it; their answers were cut off.
    perhaps: Vec<u64>,
}

/// What a round's load came to.
#[derive(Default, Debug)]
pub struct Done {
    pub acknowledged: usize,
    /// Commands in the Pod that nobody kills, which went wrong.
    pub failed_commands: Vec<String>,
}

impl Tenant {
    pub fn new(kubectl: Kubectl) -> Tenant {
        Tenant {
            access: Access::of(&kubectl),
            kubectl,
            notes: Mutex::default(),
            scale: Mutex::default(),
        }
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scale(&self) -> std::sync::MutexGuard<'_, Scale> {
        self.scale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until `stop`, or until the server has gone.
    pub fn load(&self, round: u64, prey: &str, stop: &AtomicBool) -> Done {
        std::thread::scope(|scope| {
            let mut writers = Vec::new();
            for writer in 0..WRITERS {
                writers.push(scope.spawn(move || block_on(self.write(round, writer, stop))));
            }
            scope.spawn(|| block_on(self.keep_scaling(stop)));
            scope.spawn(|| self.run_until_killed(prey, stop));
            let failed_commands = self.run_commands(stop);
            Done {
                acknowledged: writers
                    .into_iter()
                    .map(|writer| writer.join().expect("it asserts"))
                    .sum(),
                failed_commands,
            }
        })
    }

    async fn write(&self, round: u64, writer: usize, stop: &AtomicBool) -> usize {
        let mut acknowledged = 0;
        let Ok(mut door) = self.access.open().await else {
            return 0;
        };
        let folder = format!("{}/api/v1/namespaces/default/configmaps", self.access.prefix);
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("note-{round}-{writer}-{number}");
            let content = format!("written in round {round} by {writer} as {number}");
            let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "labels": {"round": round.to_string()}}, "data": {"text": content}});
            let create = request(Method::POST, &folder, "application/json", Bytes::from(body.to_string()));
            self.notes().insert(name.clone(), Note::Unknown);
            match door.try_send(create).await {
                Ok((StatusCode::CREATED, _)) => {
                    acknowledged += 1;
                    self.notes().insert(name.clone(), Note::Written(content));
                }
                Ok((status, body)) => panic!("{status}: {}", String::from_utf8_lossy(&body)),
                Err(_) => break,
            }
            if number % DELETED_EACH == 0 {
                let path = format!("{folder}/{name}");
                self.notes().insert(name.clone(), Note::Unknown);
                match door
                    .try_send(request(Method::DELETE, &path, "application/json", Bytes::new()))
                    .await
                {
                    Ok((StatusCode::OK, _)) => {
                        acknowledged += 1;
                        self.notes().insert(name, Note::Deleted);
                    }
                    Ok((status, body)) => panic!("{status}: {}", String::from_utf8_lossy(&body)),
                    Err(_) => break,
                }
            }
        }
        acknowledged
    }

    async fn keep_scaling(&self, stop: &AtomicBool) {
        let Ok(mut door) = self.access.open().await else { return };
        let path = format!(
            "{}/apis/apps/v1/namespaces/default/deployments/web/scale",
            self.access.prefix
        );
        for replicas in REPLICAS.into_iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let body = json!({"spec": {"replicas": replicas}}).to_string();
            self.scale().perhaps.push(replicas);
            let patch = request(Method::PATCH, &path, "application/merge-patch+json", Bytes::from(body));
            match door.try_send(patch).await {
                Ok((StatusCode::OK, _)) => {
                    let mut scale = self.scale();
                    scale.acknowledged = Some(replicas);
                    scale.perhaps.clear();
                }
                Ok((status, body)) => panic!("{status}: {}", String::from_utf8_lossy(&body)),
                Err(_) => return,
            }
            tokio::time::sleep(SCALE_PAUSE).await;
        }
    }

    /// Commands in the Pod that is about to be killed have to come to an end, whatever it is.
    fn run_until_killed(&self, prey: &str, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let script = "i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo $i; sleep 0.1; done";
            self.kubectl.said(&["exec", prey, "--", "sh", "-c", script]);
        }
    }

    /// What failed.
    fn run_commands(&self, stop: &AtomicBool) -> Vec<String> {
        let mut failed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let said = self.kubectl.said(&["exec", BYSTANDER, "--", "echo", "here"]);
            // kubectl itself may throw away what comes before it has made its streams (mended in kubernetes#131203).
            let lost_by_kubectl =
                said.succeeded() && said.out.is_empty() && said.err.contains("Unknown stream id 1, discarding message");
            if !lost_by_kubectl && (!said.succeeded() || said.out != "here\n") {
                failed.push(said.to_string());
            }
        }
        failed
    }

    /// What was acknowledged is there, what was deleted is not, and the Deployment has a size that was asked for; which one.
    #[track_caller]
    pub fn nothing_is_lost(&self, round: u64) -> usize {
        let list = self.kubectl.json(&["get", "configmaps", "-l", "round"]);
        let there: BTreeMap<&str, &str> = list["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|item| Some((item["metadata"]["name"].as_str()?, item["data"]["text"].as_str()?)))
            .collect();
        for (name, note) in self.notes().iter() {
            let found = there.get(name.as_str());
            match note {
                Note::Written(content) => assert_eq!(found, Some(&content.as_str()), "{name} was acknowledged"),
                Note::Deleted => assert_eq!(found, None, "the deletion of {name} was acknowledged"),
                Note::Unknown => {}
            }
        }
        if let Some(old) = round.checked_sub(KEPT_ROUNDS) {
            self.forget(old);
        }
        self.size()
    }

    fn size(&self) -> usize {
        let replicas = self.kubectl.field(&["deployment", "web"], ".spec.replicas");
        let replicas = replicas.parse().expect("it is a number");
        let mut scale = self.scale();
        let fits =
            scale.acknowledged.is_none_or(|acknowledged| acknowledged == replicas) || scale.perhaps.contains(&replicas);
        assert!(
            fits,
            "{replicas} replicas, acknowledged {:?}, perhaps {:?}",
            scale.acknowledged, scale.perhaps
        );
        scale.acknowledged = Some(replicas);
        scale.perhaps.clear();
        usize::try_from(replicas).expect("it is small")
    }

    /// Deletes what a round has written, all at once.
    fn forget(&self, round: u64) {
        let path = format!(
            "{}/api/v1/namespaces/default/configmaps?labelSelector=round%3D{round}",
            self.access.prefix
        );
        let delete = request(Method::DELETE, &path, "application/json", Bytes::new());
        let (status, body) = block_on(async { self.access.open().await.expect("the server runs").send(delete).await });
        assert_eq!(status, StatusCode::OK, "{body}");
        let prefix = format!("note-{round}-");
        for (_, note) in self.notes().iter_mut().filter(|(name, _)| name.starts_with(&prefix)) {
            *note = Note::Deleted;
        }
    }
}
