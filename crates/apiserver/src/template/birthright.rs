//! What a plane has by birth and by its own record: namespaces, their accounts and root certificates, `kubernetes`.

use api::{Resource, resource};
use serde_json::{Value, json};

use super::{Body, Entry};
use crate::planes::PlaneRecord;

/// Upstream's system namespaces (`pkg/controlplane/controller/systemnamespaces` and `default`).
const SYSTEM_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// The port of `kubernetes` Services, which kube clients in Pods use.
const API_PORT: u16 = 443;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for namespace in SYSTEM_NAMESPACES {
        entries.push(entry(&resource::NAMESPACES, None, namespace, namespace_object));
        entries.push(entry(
            &resource::SERVICE_ACCOUNTS,
            Some(namespace),
            "default",
            service_account,
        ));
        entries.push(entry(
            &resource::CONFIG_MAPS,
            Some(namespace),
            "kube-root-ca.crt",
            root_ca,
        ));
    }
    entries.push(entry(
        &resource::CONFIG_MAPS,
        Some("kube-system"),
        "extension-apiserver-authentication",
        authentication,
    ));
    entries.push(entry(&resource::SERVICES, Some("default"), "kubernetes", service));
    entries.push(entry(&resource::ENDPOINTS, Some("default"), "kubernetes", endpoints));
    entries.push(entry(
        &resource::ENDPOINT_SLICES,
        Some("default"),
        "kubernetes",
        endpoint_slice,
    ));
    entries
}

fn entry(
    resource: &Resource,
    namespace: Option<&'static str>,
    name: &'static str,
    render: fn(&PlaneRecord, &Entry) -> Value,
) -> Entry {
    let info = api::table::find(&resource.group, &resource.version, &resource.plural);
    Entry {
        resource: &info.expect("what planes have by birth is of built-in kinds").resource,
        namespace,
        name,
        body: Body::Rendered(render),
    }
}

fn namespace_object(_: &PlaneRecord, entry: &Entry) -> Value {
    json!({
        "metadata": {"labels": {"kubernetes.io/metadata.name": entry.name}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    })
}

fn service_account(_: &PlaneRecord, _: &Entry) -> Value {
    json!({"metadata": {}})
}

fn root_ca(record: &PlaneRecord, _: &Entry) -> Value {
    json!({
        "metadata": {"annotations": {
            "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
        }},
        "data": {"ca.crt": record.ca_cert_pem},
    })
}

fn authentication(record: &PlaneRecord, _: &Entry) -> Value {
    json!({"metadata": {}, "data": {"client-ca-file": record.ca_cert_pem}})
}

fn service(record: &PlaneRecord, _: &Entry) -> Value {
    let address = record.kubernetes_service_ip.to_string();
    json!({
        "metadata": {"labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": address,
            "clusterIPs": [address],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP", "targetPort": API_PORT}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    })
}

/// The node answers at the Service's own address (the Pods' door), so that is the endpoint. The super plane's own is
/// written over by [`super::advertise`].
fn endpoints(record: &PlaneRecord, _: &Entry) -> Value {
    json!({
        "metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": subsets(&record.kubernetes_service_ip.to_string(), API_PORT),
    })
}

fn endpoint_slice(record: &PlaneRecord, _: &Entry) -> Value {
    let mut slice = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
    });
    let (endpoints, ports) = slice_parts(&record.kubernetes_service_ip.to_string(), API_PORT);
    slice["endpoints"] = endpoints;
    slice["ports"] = ports;
    slice
}

pub(super) fn subsets(address: &str, port: u16) -> Value {
    json!([{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}])
}

pub(super) fn slice_parts(address: &str, port: u16) -> (Value, Value) {
    (
        json!([{"addresses": [address], "conditions": {"ready": true}}]),
        json!([{"name": "https", "port": port, "protocol": "TCP"}]),
    )
}
