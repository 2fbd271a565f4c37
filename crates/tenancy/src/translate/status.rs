//! What goes up of a super Pod: its node and its status, without a word of the super cluster's own names (trap 14).

use api::Object;
use serde_json::{Value, json};

use crate::identity::{self, Tenant};

/// The status that the tenant's Pod should have. Conditions of its readiness gates, and others that only the tenant's own
/// controllers know, are the tenant's and stay; the rest is the super cluster's (trap 15).
pub fn up(tenant: &Tenant, tenant_pod: &Object, super_pod: &Object) -> Value {
    let mut status = super_pod.tree()["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let tenants = &tenant_pod.tree()["status"];
    let gates: Vec<&str> = tenant_pod.tree()["spec"]["readinessGates"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|gate| gate["conditionType"].as_str())
        .collect();
    let is_gate = |condition: &Value| condition["type"].as_str().is_some_and(|kind| gates.contains(&kind));
    let mut conditions: Vec<Value> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|c| !is_gate(c))
        .cloned()
        .collect();
    for own in tenants["conditions"].as_array().into_iter().flatten() {
        let is_foreign = !is_kubelets(own) && !conditions.iter().any(|theirs| theirs["type"] == own["type"]);
        if is_gate(own) || is_foreign {
            conditions.push(own.clone());
        }
    }
    if !conditions.is_empty() {
        status["conditions"] = conditions.into();
    }
    // Quality of service is set by the tenant's own plane, generations count its own spec.
    for field in ["qosClass", "observedGeneration"] {
        match tenants.get(field) {
            Some(value) => status[field] = value.clone(),
            None => drop(status.as_object_mut().and_then(|map| map.remove(field))),
        }
    }
    own_words(tenant, tenant_pod, super_pod, &mut status);
    status
}

/// Conditions that kubelets, schedulers and evictions write: of these the super cluster alone knows, and their absence below
/// means something too.
fn is_kubelets(condition: &Value) -> bool {
    const THEIRS: [&str; 9] = [
        "AllContainersRestarting",
        "ContainersReady",
        "DisruptionTarget",
        "Initialized",
        "PodReadyToStartContainers",
        "PodResizeInProgress",
        "PodResizePending",
        "PodScheduled",
        "Ready",
    ];
    condition["type"].as_str().is_some_and(|kind| THEIRS.contains(&kind))
}

/// What a Pod's own Secret is called where a message names it: what is in it comes from there as far as the tenant knows.
const OWN_SECRET: &str = "kube-api-access";

/// Puts the tenant's words for the super cluster's in all texts about a Pod.
pub fn own_words(tenant: &Tenant, tenant_pod: &Object, super_pod: &Object, value: &mut Value) {
    rename(value, super_pod.namespace(), tenant_pod.namespace());
    rename(value, super_pod.uid(), tenant_pod.uid());
    rename(value, &tenant.pod_secret(tenant_pod.uid()), OWN_SECRET);
    hide_others(value);
}

/// What stands for a super namespace that is not the tenant's own.
const ANOTHERS: &str = "another-namespace";

/// Takes out of all messages every super namespace that is still named: it is another tenant's, or another of this one's
/// (trap 14).
pub fn hide_others(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide_others),
        Value::Object(map) => map.iter_mut().for_each(|(key, item)| match item {
            Value::String(_) if key == "message" => hide_in_text(item),
            Value::String(_) => {}
            _ => hide_others(item),
        }),
        _ => {}
    }
}

fn hide_in_text(text: &mut Value) {
    match text {
        Value::String(text) if text.split(|c: char| !is_of_name(c)).any(identity::is_super_namespace) => {
            let mut clean = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let end = rest.find(|c: char| !is_of_name(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                clean.push_str(if identity::is_super_namespace(word) {
                    ANOTHERS
                } else {
                    word
                });
                let between = after.find(is_of_name).unwrap_or(after.len());
                clean.push_str(&after[..between]);
                rest = &after[between..];
            }
            *text = clean;
        }
        _ => {}
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

/// The conditions of readiness gates that have to go down, where the node agent looks for them.
pub fn gates_down(tenant_pod: &Object, super_pod: &Object) -> Option<Vec<Value>> {
    let mut missing = Vec::new();
    for gate in tenant_pod.tree()["spec"]["readinessGates"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let of = |pod: &Object| {
            let conditions = pod.tree()["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            conditions
                .into_iter()
                .find(|condition| condition["type"] == gate["conditionType"])
        };
        if let Some(condition) = of(tenant_pod).filter(|ours| of(super_pod).as_ref() != Some(ours)) {
            missing.push(condition);
        }
    }
    (!missing.is_empty()).then_some(missing)
}

/// The conditions and addresses that a Service's status takes up.
pub fn service_up(super_service: &Object) -> Value {
    json!({"loadBalancer": super_service.tree()["status"]["loadBalancer"].as_object().cloned().unwrap_or_default()})
}

/// Replaces a word of the super cluster in all texts.
pub fn rename(value: &mut Value, from: &str, to: &str) {
    if from.is_empty() {
        return;
    }
    match value {
        Value::String(text) if text.contains(from) => *text = text.replace(from, to),
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, from, to)),
        Value::Object(map) => map.values_mut().for_each(|item| rename(item, from, to)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::acme;

    fn pod(namespace: &str, uid: &str, spec: Value, status: Value) -> Object {
        Object::from_tree(
            json!({"metadata": {"name": "p", "namespace": namespace, "uid": uid}, "spec": spec, "status": status}),
        )
    }

    #[test]
    fn readiness_gates_stay_the_tenants_and_the_rest_is_the_super_clusters() {
        let spec = json!({"readinessGates": [{"conditionType": "shop/ready"}]});
        let tenants = pod(
            "shop",
            "u",
            spec.clone(),
            json!({"qosClass": "Burstable", "conditions": [
            {"type": "shop/ready", "status": "True"}, {"type": "Ready", "status": "True"}]}),
        );
        let supers = pod(
            "acme-shop-hash",
            "super-uid",
            spec,
            json!({"phase": "Running", "qosClass": "BestEffort", "conditions": [
            {"type": "shop/ready", "status": "False"}, {"type": "Ready", "status": "False"}]}),
        );

        let status = up(&acme(), &tenants, &supers);

        assert_eq!(status["phase"], "Running");
        assert_eq!(status["qosClass"], "Burstable");
        assert_eq!(
            status["conditions"],
            json!([{"type": "Ready", "status": "False"}, {"type": "shop/ready", "status": "True"}])
        );
        assert_eq!(
            gates_down(&tenants, &supers).unwrap(),
            vec![json!({"type": "shop/ready", "status": "True"})]
        );
    }

    #[test]
    fn no_super_name_goes_up() {
        let tenants = pod("shop", "tenant-uid", json!({}), json!({}));
        let supers = pod(
            "acme-shop-hash",
            "super-uid",
            json!({}),
            json!({"containerStatuses": [{"state": {"waiting": {
            "message": format!("back-off restarting failed container c in pod p_acme-shop-hash(super-uid): no {}",
                acme().pod_secret("tenant-uid"))}}}]}),
        );

        let text = up(&acme(), &tenants, &supers).to_string();

        assert!(text.contains("p_shop(tenant-uid)"), "{text}");
        assert!(
            !text.contains("acme-shop-hash") && !text.contains("super-uid") && !text.contains("mangrove-pod"),
            "{text}"
        );
    }

    #[test]
    fn trap_14_another_tenants_namespace_is_not_named() {
        let theirs = acme().super_namespace("web", "u9");
        let mut message = json!({"message": format!("Preempted by pod {theirs}/db on node n1: {theirs}")});

        hide_others(&mut message);

        assert_eq!(
            message["message"],
            "Preempted by pod another-namespace/db on node n1: another-namespace"
        );
    }

    #[test]
    fn trap_15_conditions_that_a_tenants_controllers_write_stay() {
        let condition = |kind: &str| json!({"type": kind, "status": "True"});
        let tenants = pod(
            "shop",
            "tenant-uid",
            json!({}),
            json!({"conditions": [condition("acme.example/scanned"), condition("DisruptionTarget")]}),
        );
        let supers = pod(
            "acme-shop-x",
            "super-uid",
            json!({}),
            json!({"conditions": [condition("Ready")]}),
        );

        let status = up(&acme(), &tenants, &supers);

        assert_eq!(
            status["conditions"],
            json!([condition("Ready"), condition("acme.example/scanned")])
        );
    }
}
