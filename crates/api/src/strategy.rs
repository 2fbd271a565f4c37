//! What a write may change, kind by kind: which parts are reset, when the generation grows, what may be created by
//! an update.

use serde_json::{Map, Value, json};

use crate::{Resource, table::ResourceInfo};

/// Which part of an object a write is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The `status` subresource, which changes the status and nothing else.
    Status,
}

/// Resets what a creator does not decide, after defaulting. The name and `metadata.uid` are already given.
pub fn prepare_create(info: &ResourceInfo, object: &mut Value) {
    let resource = &info.resource;
    if info.has_status() {
        reset_status(resource, object);
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("deletionTimestamp");
        metadata.remove("deletionGracePeriodSeconds");
        metadata.remove("generation");
        if has_generation(info) {
            metadata.insert("generation".to_owned(), json!(1));
        }
    }
    match (&*resource.group, &*resource.plural) {
        ("", "namespaces") => {
            // Who deletes the content; removed by the namespace controller through `finalize`.
            let finalizers = &mut object["spec"]["finalizers"];
            let own = json!("kubernetes");
            match finalizers.as_array_mut() {
                Some(list) if list.contains(&own) => {}
                Some(list) => list.push(own),
                None => *finalizers = json!([own]),
            }
        }
        ("apps", "daemonsets") => drop_field(object, "spec", "templateGeneration"),
        ("batch", "jobs") => generate_job_selector(object),
        _ => {}
    }
}

/// A Job finds its Pods by its own uid, unless its maker insists on another selector.
fn generate_job_selector(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let uid = job["metadata"]["uid"].clone();
    let name = job["metadata"]["name"].clone();
    let Some(spec) = job["spec"].as_object_mut() else {
        return;
    };
    let template = spec.entry("template").or_insert_with(|| json!({}));
    if !template.is_object() {
        return;
    }
    let labels = &mut template["metadata"]["labels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    for (label, value) in [
        ("controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        labels[label] = value.clone();
    }
    let selector = spec.entry("selector").or_insert_with(|| json!({}));
    if selector.is_object() {
        selector["matchLabels"]["batch.kubernetes.io/controller-uid"] = uid;
    }
}

/// Carries over what an update of `part` may not change. `new` becomes what would be stored.
pub fn prepare_update(info: &ResourceInfo, part: Part, new: &mut Value, old: &Value) {
    carry_system_metadata(new, old);
    match part {
        Part::Status => prepare_status_update(info, new, old),
        Part::Main => {
            if info.has_status() {
                copy_field(new, old, "status");
            }
            if (&*info.resource.group, &*info.resource.plural) == ("", "namespaces") && new["spec"].is_object() {
                copy_field(&mut new["spec"], &old["spec"], "finalizers");
            }
            bump_generation(info, new, old);
        }
    }
}

/// What the server alone sets. Clients may leave out what can't change; a wrong value is for validation to refuse.
fn carry_system_metadata(new: &mut Value, old: &Value) {
    if !new["metadata"].is_object() {
        return;
    }
    let metadata = &mut new["metadata"];
    for field in ["generation", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        copy_field(metadata, &old["metadata"], field);
    }
    for field in ["uid", "creationTimestamp", "generateName"] {
        if metadata[field].as_str().unwrap_or("").is_empty() {
            copy_field(metadata, &old["metadata"], field);
        }
    }
}

fn prepare_status_update(info: &ResourceInfo, new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let resource = &info.resource;
    let mut kept = old.clone();
    if is_custom(resource) || &*resource.group == "apiextensions.k8s.io" {
        for field in ["resourceVersion", "managedFields"] {
            copy_field(&mut kept["metadata"], &new["metadata"], field);
        }
    } else {
        // Kubelets and controllers annotate with the status, so metadata comes along, but for what decides about
        // ownership and, for workloads, selection.
        kept["metadata"] = new["metadata"].clone();
        if &*resource.group == "apps" {
            copy_field(&mut kept["metadata"], &old["metadata"], "labels");
        }
        if &*resource.plural == "pods" {
            copy_field(&mut kept["metadata"], &old["metadata"], "ownerReferences");
        }
    }
    if let Some(fields) = kept.as_object_mut() {
        match status {
            Some(status) => fields.insert("status".to_owned(), status),
            None => fields.remove("status"),
        };
    }
    *new = kept;
}

/// For `pods/ephemeralcontainers`: `new` keeps only these of what it would change.
pub fn keep_all_but_ephemeral_containers(new: &mut Value, old: &Value) {
    let wanted = std::mem::replace(new, old.clone());
    if new["spec"].is_object() {
        copy_field(&mut new["spec"], &wanted["spec"], "ephemeralContainers");
    }
}

/// For `pods/resize`: `new` keeps only its containers' resources of what it would change.
pub fn keep_all_but_resources(new: &mut Value, old: &Value) {
    let wanted = std::mem::replace(new, old.clone());
    for kind in ["containers", "initContainers"] {
        let containers = new["spec"].get_mut(kind).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let same = |other: &&Value| other["name"] == container["name"];
            let Some(wanted) = wanted["spec"][kind].as_array().and_then(|all| all.iter().find(same)) else {
                continue;
            };
            for field in ["resources", "resizePolicy"] {
                copy_field(container, wanted, field);
            }
        }
    }
}

/// Counts the change, if it is one of what is desired.
pub fn bump_generation(info: &ResourceInfo, new: &mut Value, old: &Value) {
    if !has_generation(info) {
        return;
    }
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
    let bumped = generation + i64::from(desired_state_differs(info, new, old));
    if let Some(metadata) = new["metadata"].as_object_mut() {
        metadata.insert("generation".to_owned(), json!(bumped));
    }
}

/// Whether anything differs that a controller would have to act on.
pub fn desired_state_differs(info: &ResourceInfo, new: &Value, old: &Value) -> bool {
    let ignored = |name: &str| matches!(name, "metadata" | "status" | "apiVersion" | "kind");
    let empty = Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let custom = is_custom(&info.resource);
    let fields = |object: &Map<String, Value>| -> Vec<(String, Value)> {
        object
            .iter()
            // Without a status subresource a custom resource's status is like any other field.
            .filter(|(name, _)| !ignored(name) || (custom && *name == "status" && !info.has_status()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    fields(new) != fields(old)
}

fn copy_field(to: &mut Value, from: &Value, field: &str) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

fn drop_field(object: &mut Value, parent: &str, field: &str) {
    if let Some(fields) = object.get_mut(parent).and_then(Value::as_object_mut) {
        fields.remove(field);
    }
}

/// Whether the kind is not upstream's own, so that a schema of a definition decides.
pub fn is_custom(resource: &Resource) -> bool {
    crate::table::find(&resource.group, &resource.version, &resource.plural).is_none()
}

/// A status is for controllers alone where it has a subresource. Nodes keep theirs at creation, since kubelets
/// register with it.
fn reset_status(resource: &Resource, object: &mut Value) {
    let status = match (&*resource.group, &*resource.plural) {
        ("", "nodes") => return,
        ("", "pods") => json!({"phase": "Pending", "qosClass": qos_class(&object["spec"])}),
        ("", "namespaces") => json!({"phase": "Active"}),
        ("", "persistentvolumes" | "persistentvolumeclaims") => json!({"phase": "Pending"}),
        ("", "services") | ("networking.k8s.io", "ingresses") => json!({"loadBalancer": {}}),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            json!({"storedVersions": object["status"]["storedVersions"]})
        }
        (_, _) if is_custom(resource) => Value::Null,
        _ => json!({}),
    };
    let Some(fields) = object.as_object_mut() else { return };
    match status {
        Value::Null => fields.remove("status"),
        status => fields.insert("status".to_owned(), status),
    };
}

/// `Guaranteed` if all containers have equal requests and limits of CPU and memory, `BestEffort` if none has any,
/// `Burstable` otherwise.
pub fn qos_class(pod_spec: &Value) -> &'static str {
    let containers = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| pod_spec[list].as_array().into_iter().flatten());
    let amounts = |container: &Value, list: &str| -> Vec<(&'static str, crate::quantity::Quantity)> {
        ["cpu", "memory"]
            .into_iter()
            .filter_map(|name| {
                let amount = crate::quantity::Quantity::from_json(&container["resources"][list][name])?;
                (!amount.is_zero()).then_some((name, amount))
            })
            .collect()
    };
    let whole = std::iter::once(pod_spec).filter(|spec| spec["resources"].is_object());
    let parts: Vec<&Value> = if pod_spec["resources"].is_object() {
        whole.collect()
    } else {
        containers.collect()
    };
    let (mut any, mut guaranteed) = (false, true);
    for part in parts {
        let (requests, limits) = (amounts(part, "requests"), amounts(part, "limits"));
        any |= !requests.is_empty() || !limits.is_empty();
        guaranteed &= limits.len() == 2 && (requests.is_empty() || requests == limits);
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Kinds that count the changes of what is desired. All custom resources do.
pub fn has_generation(info: &ResourceInfo) -> bool {
    match (&*info.resource.group, &*info.resource.plural) {
        ("", plural) => matches!(plural, "pods" | "podtemplates" | "replicationcontrollers"),
        ("apps", plural) => plural != "controllerrevisions",
        ("batch", _) | ("flowcontrol.apiserver.k8s.io", _) | ("admissionregistration.k8s.io", _) => true,
        ("networking.k8s.io", plural) => matches!(plural, "ingresses" | "ingressclasses" | "networkpolicies"),
        ("discovery.k8s.io", plural) => plural == "endpointslices",
        ("policy", plural) => plural == "poddisruptionbudgets",
        ("scheduling.k8s.io", plural) => plural == "priorityclasses",
        ("resource.k8s.io", plural) => matches!(plural, "resourceslices" | "deviceclasses" | "devicetaintrules"),
        ("storage.k8s.io", plural) => matches!(plural, "csidrivers" | "volumeattachments"),
        ("apiextensions.k8s.io", _) => true,
        _ => is_custom(&info.resource),
    }
}

/// Kinds that an update of an absent object creates.
pub fn allows_create_on_update(resource: &Resource) -> bool {
    match (&*resource.group, &*resource.plural) {
        ("", plural) => matches!(plural, "limitranges" | "events" | "services" | "endpoints"),
        ("rbac.authorization.k8s.io", _) | ("coordination.k8s.io", _) => true,
        ("node.k8s.io", plural) => plural == "runtimeclasses",
        _ => false,
    }
}

/// Kinds whose updates need not say which version they are based on.
pub fn allows_unconditional_update(resource: &Resource) -> bool {
    match (&*resource.group, &*resource.plural) {
        ("coordination.k8s.io" | "admissionregistration.k8s.io" | "node.k8s.io", _) => false,
        ("certificates.k8s.io", plural) => plural == "certificatesigningrequests",
        ("policy", plural) => plural != "poddisruptionbudgets",
        ("storage.k8s.io", plural) => !matches!(
            plural,
            "csidrivers" | "csistoragecapacities" | "volumeattachments" | "csinodes"
        ),
        ("internal.apiserver.k8s.io" | "storagemigration.k8s.io", _) => false,
        ("resource.k8s.io", plural) => plural != "resourcepoolstatusrequests",
        ("apiextensions.k8s.io", _) => false,
        _ => !is_custom(resource),
    }
}

/// The grace period of a deletion that names none: Pods have their own, others go at once.
pub fn default_grace_seconds(resource: &Resource, object: &Value) -> i64 {
    if (&*resource.group, &*resource.plural) != ("", "pods") {
        return 0;
    }
    let spec = &object["spec"];
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    // A Pod that no node has seen, or whose containers have ended, has nothing to wind down.
    if spec["nodeName"].as_str().unwrap_or("").is_empty() || ended {
        return 0;
    }
    spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(30).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    fn info(group: &str, plural: &str) -> &'static ResourceInfo {
        table::find(group, "v1", plural).unwrap()
    }

    #[test]
    fn a_creator_sets_no_status() {
        let mut deployment = json!({"metadata": {"name": "web"}, "spec": {}, "status": {"replicas": 3}});
        let mut pod = json!({"metadata": {"name": "one"}, "spec": {"containers": []}, "status": {"phase": "Running"}});
        let mut node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "1"}}});

        prepare_create(info("apps", "deployments"), &mut deployment);
        prepare_create(info("", "pods"), &mut pod);
        prepare_create(info("", "nodes"), &mut node);

        assert_eq!(deployment["status"], json!({}));
        assert_eq!(deployment["metadata"]["generation"], 1);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        assert_eq!(node["status"]["capacity"]["cpu"], "1");
    }

    #[test]
    fn the_generation_grows_with_the_spec_alone() {
        let old = json!({"metadata": {"generation": 4}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        let update = |mut new: Value| {
            prepare_update(info("apps", "deployments"), Part::Main, &mut new, &old);
            new
        };

        let scaled = update(json!({"metadata": {}, "spec": {"replicas": 2}, "status": {"replicas": 9}}));
        let labelled = update(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}}));

        assert_eq!(scaled["metadata"]["generation"], 5);
        assert_eq!(scaled["status"], old["status"]);
        assert_eq!(labelled["metadata"]["generation"], 4);
        assert_eq!(labelled["metadata"]["labels"]["a"], "b");
    }

    #[test]
    fn a_status_write_changes_the_status_alone() {
        let old = json!({"metadata": {"name": "web", "generation": 4, "labels": {"a": "b"}}, "spec": {"replicas": 1}});
        let mut new = json!({
            "metadata": {"name": "web", "resourceVersion": "7", "labels": {}, "annotations": {"n": "1"}},
            "spec": {"replicas": 9},
            "status": {"replicas": 1},
        });

        prepare_update(info("apps", "deployments"), Part::Status, &mut new, &old);

        assert_eq!(
            new,
            json!({
                "metadata": {"name": "web", "generation": 4, "labels": {"a": "b"}, "resourceVersion": "7", "annotations": {"n": "1"}},
                "spec": {"replicas": 1},
                "status": {"replicas": 1},
            })
        );
    }

    #[test]
    fn a_job_finds_its_pods_by_its_uid() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}});

        prepare_create(info("batch", "jobs"), &mut job);

        assert_eq!(
            job["spec"]["selector"]["matchLabels"],
            json!({"batch.kubernetes.io/controller-uid": "u"})
        );
        assert_eq!(
            job["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"],
            "j"
        );
    }

    #[test]
    fn a_namespace_has_its_own_finalizer() {
        let mut namespace = json!({"metadata": {"name": "web"}});
        prepare_create(info("", "namespaces"), &mut namespace);
        let mut emptied = json!({"metadata": {"name": "web"}, "spec": {}});

        prepare_update(info("", "namespaces"), Part::Main, &mut emptied, &namespace);

        assert_eq!(emptied["spec"]["finalizers"], json!(["kubernetes"]));
    }

    #[test]
    fn the_class_of_service_follows_requests_and_limits() {
        let spec = |resources: Value| json!({"containers": [{"resources": resources}]});
        let both = json!({"cpu": "1", "memory": "1Gi"});

        assert_eq!(qos_class(&spec(json!({}))), "BestEffort");
        assert_eq!(
            qos_class(&spec(json!({"limits": both, "requests": both}))),
            "Guaranteed"
        );
        assert_eq!(qos_class(&spec(json!({"limits": {"cpu": "1"}}))), "Burstable");
        assert_eq!(qos_class(&spec(json!({"requests": both}))), "Burstable");
    }

    #[test]
    fn pods_are_given_time_to_end() {
        let pods = &crate::resource::PODS;
        let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}});

        assert_eq!(default_grace_seconds(pods, &running), 5);
        assert_eq!(default_grace_seconds(pods, &json!({"spec": {}})), 0);
        assert_eq!(default_grace_seconds(&crate::resource::SECRETS, &running), 0);
    }
}
