//! A tenant's Pod as a super Pod (VirtualCluster's translation, field by field in `docs/tenancy.md`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::pod_values::{self, PodValues};
use crate::identity::{self, Tenant};
use crate::walls;
use api::Object;

/// A super Pod to create, and the Secret that has to stand before it.
#[derive(Clone, PartialEq, Debug)]
pub struct Down {
    pub pod: Value,
    /// Containers that came while it ran: they go down by a way of their own.
    pub ephemeral: Vec<Value>,
    pub secret_name: String,
    pub values: PodValues,
}

/// What a translation has to know of the super cluster.
pub struct Surroundings<'a> {
    /// The Pod's super namespace.
    pub namespace: &'a str,
    /// The super namespace of another namespace of the same tenant, as far as there is one (for affinity terms).
    pub namespaces: &'a dyn Fn(&str) -> Option<String>,
    /// Whether tenants see a PriorityClass of this name.
    pub has_priority: &'a dyn Fn(&str) -> bool,
}

/// Translates a tenant Pod.
pub fn down(tenant: &Tenant, pod: &Object, surroundings: &Surroundings<'_>) -> Down {
    let source = pod.tree();
    let secret_name = tenant.pod_secret(pod.uid());
    let mut values = PodValues::default();
    let mut spec = source["spec"].clone();

    // The super cluster decides where, with what priority and for which scheduler; and it knows what a sandbox costs.
    for field in [
        "priority",
        "preemptionPolicy",
        "schedulerName",
        "serviceAccount",
        "overhead",
    ] {
        remove(&mut spec, field);
    }
    let has_priority = |spec: &Value| {
        spec["priorityClassName"]
            .as_str()
            .is_some_and(surroundings.has_priority)
    };
    if !has_priority(&spec) {
        remove(&mut spec, "priorityClassName");
    }
    keep_off_marked_nodes(tenant, &mut spec);
    tolerate(tenant, &mut spec);
    node_name_to_affinity(&mut spec);
    keep_to_own_nodes(tenant, &mut spec);
    restrict_affinity(tenant, &mut spec, surroundings.namespaces);
    spread_within_tenant(tenant, &mut spec);
    own_dns(
        tenant,
        source["metadata"]["namespace"].as_str().unwrap_or(""),
        &mut spec,
    );

    // Tokens come from the tenant's plane; the super cluster's must never be mounted.
    spec["automountServiceAccountToken"] = false.into();
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        name_own_claim(pod.name(), volume);
        values.take_from_volume(tenant, source, volume, &secret_name);
    }
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec[field].as_array_mut().into_iter().flatten() {
            own_environment(tenant, source, container);
            rename_root_ca(tenant, container, &secret_name, &mut values);
        }
    }
    let ephemeral = match spec["ephemeralContainers"].take() {
        Value::Array(containers) => containers,
        _ => Vec::new(),
    };
    remove(&mut spec, "ephemeralContainers");

    let mut metadata = identity::super_metadata(tenant, pod, surroundings.namespace);
    walls::mark(tenant, &mut metadata["annotations"]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    Down {
        pod,
        ephemeral,
        secret_name,
        values,
    }
}

/// A claim that comes and goes with its Pod is made in the tenant's plane and carried down as any other.
fn name_own_claim(pod: &str, volume: &mut Value) {
    if volume["ephemeral"].is_object() {
        let claim = format!("{pod}-{}", volume["name"].as_str().unwrap_or(""));
        remove(volume, "ephemeral");
        volume["persistentVolumeClaim"] = json!({"claimName": claim});
    }
}

/// Taints by which nodes tell their own condition.
const CONDITIONS: &str = "node.kubernetes.io/";
const CONDITION_TAINTS: [&str; 7] = [
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/network-unavailable",
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/unschedulable",
];

/// Taints keep tenants off nodes that are not theirs: a tenant's Pods tolerate what their VirtualCluster lists, and what nodes
/// say of their own condition. One that tolerates everything tolerates all of that.
fn tolerate(tenant: &Tenant, spec: &mut Value) {
    let mut down: Vec<Value> = Vec::new();
    let mut add = |toleration: Value| {
        if !down.contains(&toleration) {
            down.push(toleration);
        }
    };
    for toleration in spec["tolerations"].as_array().into_iter().flatten() {
        match toleration["key"].as_str().unwrap_or("") {
            "" => CONDITION_TAINTS.into_iter().for_each(|key| {
                let mut one = toleration.clone();
                one["key"] = key.into();
                one["operator"] = "Exists".into();
                add(one);
            }),
            key if key.starts_with(CONDITIONS) => add(toleration.clone()),
            _ => {}
        }
    }
    tenant.settings.tolerations.iter().cloned().for_each(&mut add);
    if down.is_empty() {
        remove(spec, "tolerations");
    } else {
        spec["tolerations"] = down.into();
    }
}

/// A Pod that names its node (a DaemonSet's in older clusters, a tenant's own scheduler) still goes through the super
/// scheduler, which alone knows whether it fits (D12).
fn node_name_to_affinity(spec: &mut Value) {
    let Some(node) = spec["nodeName"]
        .as_str()
        .filter(|node| !node.is_empty())
        .map(str::to_owned)
    else {
        remove(spec, "nodeName");
        return;
    };
    remove(spec, "nodeName");
    let here = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    require_of_node(spec, "matchFields", &here);
}

/// Nodes that the tenant has cordoned or tainted for itself are not for Pods that do not tolerate it. One that names its node has
/// not asked any scheduler.
fn keep_off_marked_nodes(tenant: &Tenant, spec: &mut Value) {
    if spec["nodeName"].as_str().is_some_and(|node| !node.is_empty()) {
        return;
    }
    let tolerations = spec["tolerations"].clone();
    for (node, mark) in &tenant.settings.marks {
        if mark.repels(&tolerations) {
            let elsewhere = json!({"key": "metadata.name", "operator": "NotIn", "values": [node]});
            require_of_node(spec, "matchFields", &elsewhere);
        }
    }
}

/// The nodes that a super Pod is kept off by name.
pub fn kept_off(spec: &Value) -> BTreeSet<&str> {
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = required["nodeSelectorTerms"].as_array().into_iter().flatten();
    let fields = terms.flat_map(|term| term["matchFields"].as_array().into_iter().flatten());
    fields
        .filter(|field| field["key"] == "metadata.name" && field["operator"] == "NotIn")
        .flat_map(|field| field["values"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect()
}

/// Pods run on the nodes that their tenant sees. As affinity, so that what the Pod itself selects holds as well.
fn keep_to_own_nodes(tenant: &Tenant, spec: &mut Value) {
    for (key, value) in &tenant.settings.node_selector {
        let labelled = json!({"key": key, "operator": "In", "values": [value]});
        require_of_node(spec, "matchExpressions", &labelled);
    }
}

/// Adds a requirement to the node affinity.
fn require_of_node(spec: &mut Value, field: &str, requirement: &Value) {
    let required = &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"]
        .as_array_mut()
        .filter(|terms| !terms.is_empty())
    {
        // Terms are alternatives: each has to have it. (An empty one matches nothing, and has to go on to.)
        Some(terms) => {
            for term in terms.iter_mut().filter(|term| !matches_nothing(term)) {
                match term[field].as_array_mut() {
                    Some(requirements) => requirements.push(requirement.clone()),
                    None => term[field] = json!([requirement]),
                }
            }
        }
        None => *required = json!({"nodeSelectorTerms": [{field: [requirement]}]}),
    }
}

fn matches_nothing(term: &Value) -> bool {
    ["matchExpressions", "matchFields"]
        .iter()
        .all(|field| term[*field].as_array().is_none_or(Vec::is_empty))
}

/// Terms about other Pods mean the tenant's own Pods only.
fn restrict_affinity(tenant: &Tenant, spec: &mut Value, super_namespaces: &dyn Fn(&str) -> Option<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.pointer_mut(&format!("/affinity/{kind}")) else {
            continue;
        };
        for term in affinity["requiredDuringSchedulingIgnoredDuringExecution"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            restrict_term(tenant, term, super_namespaces);
        }
        for term in affinity["preferredDuringSchedulingIgnoredDuringExecution"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            restrict_term(tenant, &mut term["podAffinityTerm"], super_namespaces);
        }
    }
}

fn restrict_term(tenant: &Tenant, term: &mut Value, super_namespaces: &dyn Fn(&str) -> Option<String>) {
    if term["labelSelector"].is_object() {
        term["labelSelector"]["matchLabels"][identity::PLANE] = tenant.plane.as_str().into();
    }
    if term["namespaceSelector"].is_object() {
        term["namespaceSelector"]["matchLabels"][identity::PLANE] = tenant.plane.as_str().into();
    }
    if let Some(namespaces) = term["namespaces"].as_array() {
        // One that has no super namespace holds no synced Pods: a name that no namespace has stands for it, since an empty
        // list would mean the Pod's own namespace.
        let translated: Vec<String> = namespaces
            .iter()
            .filter_map(Value::as_str)
            .map(|namespace| super_namespaces(namespace).unwrap_or_else(|| no_namespace(tenant, namespace)))
            .collect();
        term["namespaces"] = json!(translated);
    }
}

fn no_namespace(tenant: &Tenant, namespace: &str) -> String {
    format!("none-{}", identity::hash(&["none", tenant.plane.as_str(), namespace]))
}

/// Spread constraints count Pods of the Pod's own namespace, which is the tenant's already; the label makes it plain.
fn spread_within_tenant(tenant: &Tenant, spec: &mut Value) {
    for constraint in spec["topologySpreadConstraints"].as_array_mut().into_iter().flatten() {
        if constraint["labelSelector"].is_object() {
            constraint["labelSelector"]["matchLabels"][identity::PLANE] = tenant.plane.as_str().into();
        }
    }
}

/// The tenant's own DNS, at the address of its `kubernetes` Service.
fn own_dns(tenant: &Tenant, namespace: &str, spec: &mut Value) {
    let policy = spec["dnsPolicy"].as_str().unwrap_or("ClusterFirst");
    if !matches!(policy, "ClusterFirst" | "ClusterFirstWithHostNet") {
        return;
    }
    let domain = &tenant.cluster_domain;
    let given = spec["dnsConfig"].take();
    let mut nameservers = vec![Value::from(tenant.kubernetes_address.clone())];
    nameservers.extend(given["nameservers"].as_array().cloned().unwrap_or_default());
    let mut searches: Vec<Value> = [
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.clone(),
    ]
    .map(Value::from)
    .into();
    searches.extend(given["searches"].as_array().cloned().unwrap_or_default());
    let mut options = given["options"].as_array().cloned().unwrap_or_default();
    if !options.iter().any(|option| option["name"] == "ndots") {
        options.insert(0, json!({"name": "ndots", "value": "5"}));
    }
    spec["dnsPolicy"] = "None".into();
    spec["dnsConfig"] = json!({"nameservers": nameservers, "searches": searches, "options": options});
}

/// The `KUBERNETES_*` variables of the tenant's plane (a variable that the Pod sets itself stays), and literals for
/// fields that differ on the two sides.
fn own_environment(tenant: &Tenant, pod: &Value, container: &mut Value) {
    let mut environment = container["env"].as_array().cloned().unwrap_or_default();
    for variable in &mut environment {
        if let Some((_, value)) = pod_values::identity_value(pod, &variable["valueFrom"]["fieldRef"]["fieldPath"]) {
            *variable = json!({"name": variable["name"], "value": value});
        }
    }
    let address = &tenant.kubernetes_address;
    let ours: Vec<Value> = [
        ("KUBERNETES_SERVICE_HOST", address.clone()),
        ("KUBERNETES_SERVICE_PORT", "443".to_owned()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443".to_owned()),
        ("KUBERNETES_PORT", format!("tcp://{address}:443")),
        ("KUBERNETES_PORT_443_TCP", format!("tcp://{address}:443")),
        ("KUBERNETES_PORT_443_TCP_PROTO", "tcp".to_owned()),
        ("KUBERNETES_PORT_443_TCP_PORT", "443".to_owned()),
        ("KUBERNETES_PORT_443_TCP_ADDR", address.clone()),
    ]
    .into_iter()
    .filter(|(name, _)| !environment.iter().any(|variable| variable["name"] == *name))
    .map(|(name, value)| json!({"name": name, "value": value}))
    .collect();
    // First, so that the Pod's own variables may refer to them.
    environment.splice(0..0, ours);
    container["env"] = environment.into();
}

/// Variables that read the CA from `kube-root-ca.crt` read the tenant's.
fn rename_root_ca(tenant: &Tenant, container: &mut Value, secret: &str, values: &mut PodValues) {
    for variable in container["env"].as_array_mut().into_iter().flatten() {
        if variable["valueFrom"]["configMapKeyRef"]["name"] == pod_values::ROOT_CA {
            let key = variable["valueFrom"]["configMapKeyRef"]["key"].clone();
            if !values.literals.iter().any(|(known, _)| known == "ca.crt") {
                values.literals.push(("ca.crt".to_owned(), tenant.ca_pem.clone()));
            }
            variable["valueFrom"] = json!({"secretKeyRef": {"name": secret, "key": key}});
        }
    }
}

fn remove(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::acme;

    fn web_pod(spec: Value) -> Object {
        Object::from_tree(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "pod-uid", "labels": {"app": "web"}},
            "spec": spec, "status": {"phase": "Running"}}))
    }

    fn down_of(spec: Value) -> Down {
        down(
            &acme(),
            &web_pod(spec),
            &Surroundings {
                namespace: "acme-shop-hash",
                namespaces: &|namespace| (namespace == "other").then(|| "acme-other-hash".to_owned()),
                has_priority: &|name| name == "public",
            },
        )
    }

    #[test]
    fn a_pod_keeps_its_name_and_loses_its_status() {
        let down = down_of(json!({"containers": [{"name": "c", "image": "i"}]}));

        assert_eq!(down.pod["metadata"]["name"], "web-1");
        assert_eq!(down.pod["metadata"]["namespace"], "acme-shop-hash");
        assert!(down.pod.get("status").is_none());
        assert_eq!(down.pod["spec"]["automountServiceAccountToken"], false);
    }

    #[test]
    fn the_usual_token_volume_reads_the_pods_own_secret() {
        let down = down_of(
            json!({"containers": [], "volumes": [{"name": "kube-api-access-x", "projected": {
            "defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            ]}}]}),
        );

        let name = &down.secret_name;
        assert_eq!(
            down.pod["spec"]["volumes"][0]["projected"]["sources"],
            json!([
                {"secret": {"name": name, "items": [{"key": "token-0", "path": "token"}]}},
                {"secret": {"name": name, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"secret": {"name": name, "items": [{"key": "namespace", "path": "namespace"}]}},
            ])
        );
        assert_eq!(down.values.tokens.len(), 1);
        assert_eq!(down.values.tokens[0].expiration_seconds, 3607);
        assert!(
            down.values
                .literals
                .contains(&("namespace".to_owned(), "shop".to_owned()))
        );
        assert!(
            down.values
                .literals
                .contains(&("ca.crt".to_owned(), "CA of acme".to_owned()))
        );
    }

    #[test]
    fn a_downward_volume_tells_the_tenants_uid_and_labels_and_keeps_the_rest() {
        let down = down_of(
            json!({"containers": [], "volumes": [{"name": "info", "downwardAPI": {"items": [
                {"path": "uid", "fieldRef": {"fieldPath": "metadata.uid"}},
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
            ]}}]}),
        );

        let sources = &down.pod["spec"]["volumes"][0]["projected"]["sources"];
        assert_eq!(
            sources[0]["secret"]["items"],
            json!([{"key": "uid", "path": "uid"}, {"key": "labels", "path": "labels"}])
        );
        assert_eq!(sources[1]["downwardAPI"]["items"][0]["path"], "name");
        let labels = ("labels".to_owned(), "app=\"web\"".to_owned());
        assert!(down.values.literals.contains(&labels));
        assert!(down.pod["spec"]["volumes"][0].get("downwardAPI").is_none());
    }

    #[test]
    fn a_claim_of_the_pods_own_is_named_as_its_plane_names_it() {
        let down = down_of(json!({"containers": [], "volumes": [
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}));

        assert_eq!(
            down.pod["spec"]["volumes"],
            json!([{"name": "scratch", "persistentVolumeClaim": {"claimName": "web-1-scratch"}}])
        );
    }

    #[test]
    fn containers_find_their_own_plane_and_identity() {
        let down = down_of(json!({"containers": [{"name": "c", "env": [
            {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "KUBERNETES_SERVICE_PORT", "value": "8443"},
        ]}]}));

        let env = down.pod["spec"]["containers"][0]["env"].as_array().unwrap();
        let value = |name: &str| env.iter().find(|v| v["name"] == name).unwrap();
        assert_eq!(value("KUBERNETES_SERVICE_HOST")["value"], "10.104.0.7");
        assert_eq!(value("KUBERNETES_SERVICE_PORT")["value"], "8443");
        assert_eq!(value("NS")["value"], "shop");
        assert_eq!(value("NODE")["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
        assert_eq!(env.iter().filter(|v| v["name"] == "KUBERNETES_SERVICE_PORT").count(), 1);
    }

    #[test]
    fn a_named_node_becomes_affinity_in_every_term() {
        let alone = down_of(json!({"containers": [], "nodeName": "n1"}));
        let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        assert_eq!(
            alone.pod.pointer(terms).unwrap(),
            &json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])
        );
        assert!(alone.pod["spec"].get("nodeName").is_none());

        let two = down_of(
            json!({"containers": [], "nodeName": "n1", "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                {"matchExpressions": [{"key": "b", "operator": "Exists"}]},
            ]}}}}),
        );
        for term in two.pod.pointer(terms).unwrap().as_array().unwrap() {
            assert_eq!(term["matchFields"][0]["values"], json!(["n1"]));
            assert!(term["matchExpressions"].is_array());
        }
    }

    #[test]
    fn pods_keep_to_the_nodes_of_their_tenant_whatever_they_select() {
        let mut tenant = acme();
        tenant.settings.node_selector.insert("pool".to_owned(), "x".to_owned());
        let pod = web_pod(
            json!({"containers": [], "nodeSelector": {"pool": "y"}, "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}]}}}}),
        );

        let nothing = Surroundings {
            namespace: "s",
            namespaces: &|_| None,
            has_priority: &|_| false,
        };
        let down = down(&tenant, &pod, &nothing);

        assert_eq!(down.pod["spec"]["nodeSelector"], json!({"pool": "y"}));
        assert_eq!(
            down.pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"],
            json!({"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "Exists"},
                    {"key": "pool", "operator": "In", "values": ["x"]}]},
                {},
            ]})
        );
    }

    #[test]
    fn affinity_sees_the_tenants_own_pods_only() {
        let down = down_of(json!({"containers": [], "affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname",
                 "namespaces": ["other", "nowhere"]}],
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"labelSelector": {}, "namespaceSelector": {}, "topologyKey": "z"}}],
        }}}));

        let affinity = &down.pod["spec"]["affinity"]["podAntiAffinity"];
        let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(
            required["labelSelector"]["matchLabels"]["tenancy.mangrove.io/plane"],
            "acmeacmeacmeacme"
        );
        assert_eq!(required["namespaces"][0], "acme-other-hash");
        assert!(required["namespaces"][1].as_str().unwrap().starts_with("none-"));
        let preferred = &affinity["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"];
        assert_eq!(
            preferred["namespaceSelector"]["matchLabels"]["tenancy.mangrove.io/plane"],
            "acmeacmeacmeacme"
        );
    }

    #[test]
    fn names_are_looked_up_at_the_tenants_own_server() {
        let down = down_of(json!({"containers": [], "dnsPolicy": "ClusterFirst",
            "dnsConfig": {"searches": ["example.org"], "options": [{"name": "ndots", "value": "2"}]}}));

        assert_eq!(down.pod["spec"]["dnsPolicy"], "None");
        assert_eq!(
            down.pod["spec"]["dnsConfig"],
            json!({"nameservers": ["10.104.0.7"],
                "searches": ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"],
                "options": [{"name": "ndots", "value": "2"}]})
        );
        assert_eq!(
            down_of(json!({"dnsPolicy": "Default"})).pod["spec"]["dnsPolicy"],
            "Default"
        );
    }

    #[test]
    fn taints_that_are_not_the_tenants_to_tolerate_keep_its_pods_away() {
        let mut tenant = acme();
        tenant.settings.tolerations = vec![json!({"key": "pool", "operator": "Equal", "value": "acme"})];
        let not_ready = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"});
        let pod = web_pod(json!({"containers": [], "tolerations": [
            {"key": "pool", "operator": "Equal", "value": "globex"}, not_ready, {"operator": "Exists"}]}));

        let down = down(
            &tenant,
            &pod,
            &Surroundings {
                namespace: "s",
                namespaces: &|_| None,
                has_priority: &|_| false,
            },
        );

        let tolerations = down.pod["spec"]["tolerations"].as_array().unwrap();
        assert_eq!(tolerations.len(), 1 + CONDITION_TAINTS.len() + 1);
        assert_eq!(tolerations[0], not_ready);
        assert!(
            tolerations
                .iter()
                .all(|one| one["key"].is_string() && one["value"] != "globex")
        );
        assert_eq!(tolerations.last(), tenant.settings.tolerations.last());
    }

    #[test]
    fn a_node_that_the_tenant_has_cordoned_is_no_place_for_its_pods() {
        let mut tenant = acme();
        let status = json!({"status": {"nodes": {"n1": {"unschedulable": true}, "n2": {"unschedulable": true}}}});
        tenant.settings = crate::virtual_cluster::Settings::of(&Object::from_tree(status));
        let kept_off_of = |spec: Value| {
            let surroundings = Surroundings {
                namespace: "s",
                namespaces: &|_| None,
                has_priority: &|_| false,
            };
            let down = down(&tenant, &web_pod(spec), &surroundings);
            kept_off(&down.pod["spec"]).len()
        };

        assert_eq!(kept_off_of(json!({"containers": []})), 2);
        let terms = json!([{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]);
        let affinity =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        assert_eq!(kept_off_of(json!({"containers": [], "affinity": affinity})), 2);
        assert_eq!(kept_off_of(json!({"containers": [], "nodeName": "n1"})), 0);
        assert_eq!(
            kept_off_of(json!({"containers": [], "tolerations": [{"operator": "Exists"}]})),
            0
        );
    }

    #[test]
    fn a_priority_goes_down_by_name_if_the_super_cluster_offers_it() {
        let of = |name: &str| {
            let down = down_of(json!({"containers": [], "priorityClassName": name, "priority": 7}));
            assert!(down.pod["spec"].get("priority").is_none());
            down.pod["spec"]["priorityClassName"].clone()
        };

        assert_eq!(of("public"), "public");
        assert_eq!(of("system-node-critical"), Value::Null);
    }
}
