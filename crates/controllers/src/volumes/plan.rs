//! What claims and volumes need so that each has the other, or says why not.

use api::{
    Object,
    volumes::{capacity, is_bound, is_free_for, satisfies},
};
use client::EventType;
use serde_json::{Value, json};

use super::local_path::{self, PROVISIONER};

const SELECTED: &str = "volume.kubernetes.io/selected-node";
const BY_US: &str = "pv.kubernetes.io/bound-by-controller";
const COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const PROVISIONER_WANTED: &str = "volume.kubernetes.io/storage-provisioner";

/// What there is in one plane.
pub struct View<'a> {
    pub volumes: &'a [Object],
    pub classes: &'a [Object],
    pub nodes: &'a [Object],
    /// Where nodes keep directories, unless they say otherwise.
    pub usual_root: &'a str,
}

#[derive(Debug, PartialEq)]
pub enum Step {
    Nothing,
    /// The volume becomes the claim's and the claim the volume's.
    Bind {
        volume: Object,
    },
    Provision {
        volume: Value,
    },
    /// A provisioner of somebody else is asked.
    Ask {
        provisioner: String,
    },
    /// The claim stays without, and says why.
    Tell {
        kind: EventType,
        reason: &'static str,
        message: String,
    },
    /// Its volume is gone.
    Lost,
    /// The status follows what holds.
    Settle {
        volume: Object,
    },
}

pub fn reference(claim: &Object) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(), "name": claim.name(),
        "uid": claim.uid(), "resourceVersion": claim.resource_version()})
}

pub fn plan_claim(claim: &Object, view: &View<'_>) -> Step {
    if claim.is_deleting() {
        return Step::Nothing;
    }
    let spec = &claim.tree()["spec"];
    let named = spec["volumeName"].as_str().filter(|name| !name.is_empty());
    let volume = named.map(|name| view.volumes.iter().find(|volume| volume.name() == name));
    match volume {
        Some(None) if is_bound(claim) => Step::Lost,
        // It names a volume that may still come.
        Some(None) => Step::Nothing,
        Some(Some(volume)) => settle_named(claim, volume),
        None => find(claim, view),
    }
}

fn settle_named(claim: &Object, volume: &Object) -> Step {
    let owner = &volume.tree()["spec"]["claimRef"]["uid"];
    if *owner == claim.uid() {
        let settled = is_bound(claim) && claim.tree()["status"]["phase"] == "Bound";
        return match (settled, is_bound(claim)) {
            (true, _) => Step::Nothing,
            (false, true) => Step::Settle { volume: volume.clone() },
            (false, false) => Step::Bind { volume: volume.clone() },
        };
    }
    if is_bound(claim) {
        return Step::Lost;
    }
    if is_free_for(volume, claim) && satisfies(volume, claim) {
        return Step::Bind { volume: volume.clone() };
    }
    let message = format!(
        "Cannot bind to requested volume \"{}\": it is not what is asked for, or another's",
        volume.name()
    );
    Step::Tell {
        kind: EventType::Warning,
        reason: "VolumeMismatch",
        message,
    }
}

fn find(claim: &Object, view: &View<'_>) -> Step {
    let kept = view
        .volumes
        .iter()
        .find(|volume| volume.tree()["spec"]["claimRef"]["uid"] == claim.uid() && !volume.is_deleting());
    if let Some(volume) = kept {
        return Step::Bind { volume: volume.clone() };
    }
    let class_name = claim.tree()["spec"]["storageClassName"].as_str().unwrap_or("");
    let class = view.classes.iter().find(|class| class.name() == class_name);
    let waits = class.is_some_and(|class| class.tree()["volumeBindingMode"] == "WaitForFirstConsumer");
    let selected = claim.annotation(SELECTED).filter(|node| !node.is_empty());
    if waits && selected.is_none() {
        // Who places the Pod chooses, among volumes that are there too.
        return normal(
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        );
    }
    if !waits {
        let free = view
            .volumes
            .iter()
            .filter(|volume| is_free_for(volume, claim) && satisfies(volume, claim));
        if let Some(volume) = free.min_by_key(|volume| (unreserved(volume), capacity(volume), volume.name().to_owned()))
        {
            return Step::Bind { volume: volume.clone() };
        }
    }
    let Some(class) = class else {
        return if class_name.is_empty() {
            normal(
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
            )
        } else {
            warning(
                "ProvisioningFailed",
                format!("storageclass.storage.k8s.io \"{class_name}\" not found"),
            )
        };
    };
    match class.tree()["provisioner"].as_str().unwrap_or("") {
        PROVISIONER => provision(claim, class, selected, view),
        "kubernetes.io/no-provisioner" => normal(
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
        ),
        other if claim.annotation(PROVISIONER_WANTED) != Some(other) => Step::Ask {
            provisioner: other.to_owned(),
        },
        other => normal(
            "ExternalProvisioning",
            &format!(
                "Waiting for a volume to be created either by the external provisioner '{other}' or manually by the \
                 system administrator. If volume creation is delayed, please verify that the provisioner is running and \
                 correctly registered."
            ),
        ),
    }
}

/// Those kept for this claim by name come first.
fn unreserved(volume: &Object) -> bool {
    volume.tree()["spec"]["claimRef"].is_null()
}

fn provision(claim: &Object, class: &Object, selected: Option<&str>, view: &View<'_>) -> Step {
    let node = match (selected, view.nodes) {
        (Some(name), nodes) => nodes.iter().find(|node| node.name() == name),
        // Without a Pod there is a choice only if there is none.
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let Some(node) = node else {
        let message = match selected {
            Some(name) => format!(
                "failed to provision volume with StorageClass \"{}\": node \"{name}\" not found",
                class.name()
            ),
            None => format!(
                "failed to provision volume with StorageClass \"{}\": no node was specified (use WaitForFirstConsumer)",
                class.name()
            ),
        };
        return warning("ProvisioningFailed", message);
    };
    match local_path::volume(claim, class, node, view.usual_root) {
        Ok(volume) => Step::Provision { volume },
        Err(why) => warning(
            "ProvisioningFailed",
            format!(
                "failed to provision volume with StorageClass \"{}\": {why}",
                class.name()
            ),
        ),
    }
}

fn normal(reason: &'static str, message: &str) -> Step {
    Step::Tell {
        kind: EventType::Normal,
        reason,
        message: message.to_owned(),
    }
}

fn warning(reason: &'static str, message: String) -> Step {
    Step::Tell {
        kind: EventType::Warning,
        reason,
        message,
    }
}

/// What a claim's own part of a binding is, as a merge patch.
pub fn claim_patch(claim: &Object, volume: &Object) -> Value {
    let mut annotations = json!({COMPLETED: "yes"});
    if claim.tree()["spec"]["volumeName"].as_str().unwrap_or("").is_empty() {
        annotations[BY_US] = json!("yes");
    }
    json!({"metadata": {"uid": claim.uid(), "annotations": annotations}, "spec": {"volumeName": volume.name()}})
}

pub fn claim_status(claim: &Object, volume: &Object) -> Value {
    let spec = &volume.tree()["spec"];
    json!({"metadata": {"uid": claim.uid()}, "status": {"phase": "Bound", "accessModes": spec["accessModes"],
        "capacity": {"storage": spec["capacity"]["storage"]}}})
}

/// What a volume's part is; `None` if it is the claim's already.
pub fn volume_patch(claim: &Object, volume: &Object) -> Option<Value> {
    let owner = &volume.tree()["spec"]["claimRef"];
    if owner["uid"] == claim.uid() {
        return None;
    }
    let mut patch = json!({"metadata": {"uid": volume.uid(), "resourceVersion": volume.resource_version()},
        "spec": {"claimRef": reference(claim)}});
    if owner.is_null() {
        patch["metadata"]["annotations"] = json!({BY_US: "yes"});
    }
    Some(patch)
}

#[derive(Debug, PartialEq)]
pub enum VolumeStep {
    Nothing,
    Phase(&'static str),
    /// Nobody needs it any more, and its policy is to go.
    Delete,
    /// Its node is gone, and the directory with it.
    GiveUpDirectory,
}

/// `claim` is what `claimRef` names, as far as it is there; `None` only if it is certain that it is not.
pub fn plan_volume(volume: &Object, claim: Option<&Object>, nodes: &[Object]) -> VolumeStep {
    let tree = volume.tree();
    if volume.is_deleting() {
        let host = local_path::host(volume).unwrap_or("");
        let gone = !nodes.iter().any(|node| local_path::is_on(node, host));
        let held = tree["metadata"]["finalizers"].as_array();
        let held = held
            .into_iter()
            .flatten()
            .any(|finalizer| finalizer == local_path::DIRECTORY);
        return if held && gone {
            VolumeStep::GiveUpDirectory
        } else {
            VolumeStep::Nothing
        };
    }
    let (owner, phase) = (
        &tree["spec"]["claimRef"],
        tree["status"]["phase"].as_str().unwrap_or(""),
    );
    let uid = owner["uid"].as_str().unwrap_or("");
    let wanted = match claim {
        _ if owner.is_null() || uid.is_empty() => "Available",
        Some(claim) if claim.uid() == uid => {
            if claim.tree()["spec"]["volumeName"] == volume.name() {
                "Bound"
            } else {
                // Kept for a claim that is about to be bound.
                return VolumeStep::Nothing;
            }
        }
        _ => "Released",
    };
    if phase == "Released" && wanted == "Released" {
        let goes = tree["spec"]["persistentVolumeReclaimPolicy"] == "Delete" && local_path::is_ours(volume);
        return if goes { VolumeStep::Delete } else { VolumeStep::Nothing };
    }
    if phase == wanted {
        VolumeStep::Nothing
    } else {
        VolumeStep::Phase(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(change: impl FnOnce(&mut Value)) -> Object {
        let mut tree = json!({"metadata": {"name": "data", "namespace": "n", "uid": "c"}, "spec": {
            "storageClassName": "local-path", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        change(&mut tree);
        Object::from_tree(tree)
    }

    fn class() -> Object {
        Object::from_tree(local_path::class())
    }

    fn node() -> Object {
        Object::from_tree(json!({"metadata": {"name": "a", "labels": {"kubernetes.io/hostname": "a"}}}))
    }

    fn planned(claim: &Object, volumes: &[Object], classes: &[Object]) -> Step {
        let nodes = [node()];
        let view = View {
            volumes,
            classes,
            nodes: &nodes,
            usual_root: "/data/volumes",
        };
        plan_claim(claim, &view)
    }

    fn told(step: Step) -> &'static str {
        match step {
            Step::Tell { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    fn selected(tree: &mut Value) {
        tree["metadata"]["annotations"] = json!({SELECTED: "a"});
    }

    #[test]
    fn a_claim_waits_for_its_pods_node_and_gets_a_directory_there() {
        assert_eq!(told(planned(&claim(|_| {}), &[], &[class()])), "WaitForFirstConsumer");

        let Step::Provision { volume } = planned(&claim(selected), &[], &[class()]) else {
            panic!()
        };
        assert_eq!(volume["metadata"]["name"], "pvc-c");
        assert_eq!(volume["spec"]["local"]["path"], "/data/volumes/pvc-c_n_data");
        let made = Object::from_tree(volume);
        assert_eq!(local_path::host(&made), Some("a"));
        assert_eq!(
            planned(&claim(selected), std::slice::from_ref(&made), &[class()]),
            Step::Bind { volume: made }
        );
    }

    #[test]
    fn what_a_directory_cannot_be_is_refused() {
        let shared = claim(|tree| {
            selected(tree);
            tree["spec"]["accessModes"] = json!(["ReadWriteMany"]);
        });

        assert_eq!(told(planned(&shared, &[], &[class()])), "ProvisioningFailed");
        assert_eq!(told(planned(&claim(|_| {}), &[], &[])), "ProvisioningFailed");
        let classless = claim(|tree| tree["spec"]["storageClassName"] = json!(""));
        assert_eq!(told(planned(&classless, &[], &[])), "FailedBinding");
    }

    #[test]
    fn the_smallest_that_will_do_is_bound_and_a_lost_one_is_told() {
        let volume = |name: &str, size: &str| {
            Object::from_tree(
                json!({"metadata": {"name": name, "uid": name}, "spec": {"accessModes": ["ReadWriteOnce"],
                "storageClassName": "slow", "capacity": {"storage": size}}, "status": {"phase": "Available"}}),
            )
        };
        let slow = claim(|tree| tree["spec"]["storageClassName"] = json!("slow"));
        let volumes = [volume("large", "9Gi"), volume("fits", "2Gi"), volume("small", "1Mi")];

        assert_eq!(
            planned(&slow, &volumes, &[]),
            Step::Bind {
                volume: volumes[1].clone()
            }
        );
        let lost = claim(|tree| {
            tree["spec"]["volumeName"] = json!("gone");
            tree["metadata"]["annotations"] = json!({COMPLETED: "yes"});
        });
        assert_eq!(planned(&lost, &[], &[]), Step::Lost);
    }

    #[test]
    fn another_provisioner_is_asked_once() {
        let other = Object::from_tree(json!({"metadata": {"name": "local-path"}, "provisioner": "csi.example.com"}));

        let step = planned(&claim(|_| {}), &[], std::slice::from_ref(&other));
        assert_eq!(
            step,
            Step::Ask {
                provisioner: "csi.example.com".to_owned()
            }
        );
        let asked = claim(|tree| tree["metadata"]["annotations"] = json!({PROVISIONER_WANTED: "csi.example.com"}));
        assert_eq!(told(planned(&asked, &[], &[other])), "ExternalProvisioning");
    }

    #[test]
    fn a_volume_follows_its_claim_and_goes_after_it() {
        let volume = |phase: &str, policy: &str| {
            let mut tree = local_path::volume(&claim(|_| {}), &class(), &node(), "/data").unwrap();
            tree["status"] = json!({"phase": phase});
            tree["spec"]["persistentVolumeReclaimPolicy"] = json!(policy);
            Object::from_tree(tree)
        };
        let bound = claim(|tree| tree["spec"]["volumeName"] = json!("pvc-c"));
        let nodes = [node()];

        assert_eq!(
            plan_volume(&volume("Pending", "Delete"), Some(&bound), &nodes),
            VolumeStep::Phase("Bound")
        );
        assert_eq!(
            plan_volume(&volume("Bound", "Delete"), Some(&bound), &nodes),
            VolumeStep::Nothing
        );
        assert_eq!(
            plan_volume(&volume("Bound", "Delete"), None, &nodes),
            VolumeStep::Phase("Released")
        );
        assert_eq!(
            plan_volume(&volume("Released", "Delete"), None, &nodes),
            VolumeStep::Delete
        );
        assert_eq!(
            plan_volume(&volume("Released", "Retain"), None, &nodes),
            VolumeStep::Nothing
        );
        let mut leaving = volume("Released", "Delete").tree().clone();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let leaving = Object::from_tree(leaving);
        assert_eq!(plan_volume(&leaving, None, &nodes), VolumeStep::Nothing);
        assert_eq!(plan_volume(&leaving, None, &[]), VolumeStep::GiveUpDirectory);
    }
}
