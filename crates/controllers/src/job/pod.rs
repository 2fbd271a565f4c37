//! The Pods that a Job makes.

use api::{Object, resource::JOBS};
use serde_json::{Value, json};

use super::spec::{FINALIZER, INDEX, INDEX_FAILURES};
use crate::{
    ownership,
    pod_template::{self, Name, list, set_metadata},
};

/// The longest name that leaves room for the five letters that the server adds.
const PREFIX_CHARS_MAX: usize = 58;

pub fn plain(job: &Object) -> Value {
    made(job, format!("{}-", job.name()))
}

/// `failures`: how often the index has failed before, where that is counted by index.
pub fn indexed(job: &Object, index: u32, failures: Option<i64>) -> Value {
    let number = index.to_string();
    let name = format!("{}-{index}", job.name());
    let kept: String = job.name().chars().take(PREFIX_CHARS_MAX - 2 - number.len()).collect();
    let mut pod = made(job, format!("{kept}-{index}-"));
    set_metadata(&mut pod, "annotations", INDEX, &number);
    set_metadata(&mut pod, "labels", INDEX, &number);
    if let Some(failures) = failures {
        set_metadata(&mut pod, "annotations", INDEX_FAILURES, &failures.to_string());
    }
    pod["spec"]["hostname"] = json!(name);
    for containers in ["containers", "initContainers"] {
        for container in pod["spec"][containers].as_array_mut().into_iter().flatten() {
            let env = list(container, "env");
            const NAME: &str = "JOB_COMPLETION_INDEX";
            if !env.iter().any(|variable| variable["name"] == NAME) {
                let path = format!("metadata.labels['{INDEX}']");
                env.push(json!({"name": NAME, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
            }
        }
    }
    pod
}

fn made(job: &Object, prefix: String) -> Value {
    let owner = ownership::reference(job, &JOBS);
    let mut pod = pod_template::pod(&job.tree()["spec"]["template"], Name::BeginsWith(prefix), owner);
    let finalizers = list(&mut pod["metadata"], "finalizers");
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(json!(FINALIZER));
    }
    pod
}
