//! What binds Pods to volumes: claims, the volumes there are, and classes that make more.

use std::collections::BTreeMap;

use api::{
    Object,
    volumes::{capacity, is_bound, is_free_for, is_reached, satisfies},
};
use serde_json::Value;

use crate::request::list;

/// By "namespace/name", and by name.
#[derive(Clone, Default, Debug)]
pub struct Volumes {
    pub claims: BTreeMap<String, Object>,
    pub volumes: BTreeMap<String, Object>,
    pub classes: BTreeMap<String, Object>,
}

/// Where a claim's volume is, or will be.
#[derive(Clone, PartialEq, Debug)]
pub enum Claim<'a> {
    /// Has a volume; with it goes where the volume can be reached.
    Bound(&'a Object),
    /// Gets one when a Pod that uses it has a node.
    Waits(&'a Object),
    /// Should have one by now.
    Unbound,
    Missing,
    Leaving,
}

/// A class without a provisioner: somebody has to make its volumes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

impl Volumes {
    pub fn claim(&self, namespace: &str, name: &str) -> Claim<'_> {
        let Some(claim) = self.claims.get(&format!("{namespace}/{name}")) else {
            return Claim::Missing;
        };
        if claim.is_deleting() {
            return Claim::Leaving;
        }
        let volume = claim.tree()["spec"]["volumeName"]
            .as_str()
            .filter(|name| !name.is_empty());
        match volume {
            Some(volume) => match self.volumes.get(volume) {
                Some(volume) if is_bound(claim) => Claim::Bound(volume),
                _ => Claim::Unbound,
            },
            None if self.waits(claim) => Claim::Waits(claim),
            None => Claim::Unbound,
        }
    }

    fn waits(&self, claim: &Object) -> bool {
        let class = claim.tree()["spec"]["storageClassName"].as_str().unwrap_or("");
        self.classes
            .get(class)
            .is_some_and(|class| class.tree()["volumeBindingMode"] == "WaitForFirstConsumer")
    }

    /// The smallest free volume that satisfies a claim and can be reached from a node.
    pub fn free_for(&self, claim: &Object, node: &Object) -> Option<&Object> {
        let fits = self
            .volumes
            .values()
            .filter(|volume| is_free_for(volume, claim) && satisfies(volume, claim) && is_reached(volume, node));
        fits.min_by_key(|volume| (capacity(volume), volume.name().to_owned()))
    }

    /// Whether a volume is kept for a claim, and not bound to it yet.
    pub fn keep_one_for(&self, claim: &Object) -> bool {
        let mut volumes = self.volumes.values();
        volumes.any(|volume| volume.tree()["spec"]["claimRef"]["uid"] == claim.uid())
    }

    /// Whether the claim's class can make a volume for a node.
    pub fn can_be_made(&self, claim: &Object, node: &Object) -> bool {
        let class = claim.tree()["spec"]["storageClassName"].as_str().unwrap_or("");
        let Some(class) = self.classes.get(class) else {
            return false;
        };
        let provisioner = class.tree()["provisioner"].as_str().unwrap_or("");
        // A claim that asks for a volume of a kind is never given a new one.
        let selects = !claim.tree()["spec"]["selector"].is_null();
        let topologies = list(&class.tree()["allowedTopologies"]);
        let allowed = topologies.is_empty() || topologies.iter().any(|term| is_in(term, node));
        !provisioner.is_empty() && provisioner != NO_PROVISIONER && !selects && allowed
    }
}

fn is_in(term: &Value, node: &Object) -> bool {
    let labels = &node.tree()["metadata"]["labels"];
    list(&term["matchLabelExpressions"]).iter().all(|expression| {
        let value = labels.get(expression["key"].as_str().unwrap_or(""));
        value.is_some_and(|value| list(&expression["values"]).contains(value))
    })
}
