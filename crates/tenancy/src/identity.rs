//! How a synced object is recognised on the other side (D11).
//!
//! The annotations on the super object are the truth: plane, tenant namespace, uid, and the super cluster's own id, so
//! that the index (plane, uid) <-> super object is rebuilt from super objects alone. The namespace's name is only a
//! proposal: it is checked against the annotations before anything is touched (traps 1 and 7).

use api::{Object, PlaneId};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::virtual_cluster::Settings;

/// Everything of ours on an object starts with this; tenants' own keys with it never cross (trap 9).
pub const PREFIX: &str = "tenancy.mangrove.io/";

pub const PLANE: &str = "tenancy.mangrove.io/plane";
pub const TENANT: &str = "tenancy.mangrove.io/tenant";
pub const NAMESPACE: &str = "tenancy.mangrove.io/namespace";
pub const UID: &str = "tenancy.mangrove.io/uid";
/// On super Pods: the address of their plane's door.
pub const DOOR: &str = "tenancy.mangrove.io/door";
/// On super Pods of tenants whose network is open: [`crate::walls::OPEN`].
pub const NETWORK: &str = "tenancy.mangrove.io/network";
pub const SUPER: &str = "tenancy.mangrove.io/super";

/// The tenant's annotations that were carried down, by key. What else is there is the super cluster's own (a network plug-in
/// notes a Pod's address, say) and stays; what is named here and has gone above goes below too.
pub const APPLIED: &str = "tenancy.mangrove.io/applied";

/// A label on the super cluster's StorageClasses, PriorityClasses, RuntimeClasses and definitions: tenants see them.
pub const PUBLIC: &str = "tenancy.mangrove.io/public";

/// A label on objects of a tenant's plane that show one of the super cluster's: which it is, without saying its uid.
pub const SHOWN: &str = "tenancy.mangrove.io/shown";

/// On tenants' own namespaces: held until the super namespace is gone (trap 6).
pub const FINALIZER: &str = "tenancy.mangrove.io/sync";

/// The tenant's plane as translation needs to know it.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub plane: PlaneId,
    /// The tenant's name; for people only.
    pub name: String,
    /// The address of the tenant's `kubernetes` Service: its API server at 443, its DNS at 53.
    pub kubernetes_address: String,
    pub cluster_domain: String,
    /// The id of the super cluster: the uid of its `kube-system` namespace.
    pub super_id: String,
    /// The plane's CA, PEM.
    pub ca_pem: String,
    /// What its VirtualCluster asks for.
    pub settings: Settings,
}

/// What Kubernetes allows an object's annotations to have together, in bytes of keys and values.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// Namespace names are DNS labels.
const NAMESPACE_NAME_MAX: usize = 63;

/// 20 characters of 5 bits: 100 bits, so that even a million namespaces collide with a chance below 10^-18.
const HASH_CHARS: usize = 20;

impl Tenant {
    /// The super namespace of a tenant namespace: readable, and distinct for each uid, so that a namespace made anew
    /// does not wait for the old one's end.
    pub fn super_namespace(&self, namespace: &str, namespace_uid: &str) -> String {
        let hash = hash(&[self.plane.as_str(), namespace_uid]);
        let mut name: String = format!("{}-{namespace}", self.name)
            .chars()
            .map(|c| {
                if c.is_ascii_lowercase() || c.is_ascii_digit() {
                    c
                } else {
                    '-'
                }
            })
            .take(NAMESPACE_NAME_MAX - HASH_CHARS - 1)
            .collect();
        name.push('-');
        name.push_str(&hash);
        // A label starts with a letter or digit; a tenant's name does, being a DNS label itself.
        name
    }

    /// The name of the Secret that carries a Pod's own values: tokens, CA, downward values.
    pub fn pod_secret(&self, pod_uid: &str) -> String {
        format!("mangrove-pod-{}", hash(&[self.plane.as_str(), pod_uid]))
    }
}

/// Whether a word looks like a super namespace's name. Nothing else that Kubernetes makes up ends in so long a hash.
pub fn is_super_namespace(word: &str) -> bool {
    let Some((name, hash)) = word.rsplit_once('-') else {
        return false;
    };
    !name.is_empty()
        && hash.len() == HASH_CHARS
        && hash
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte))
}

/// 100 bits of SHA-256 over the parts (each with its length, so that no two lists of parts look alike), in base 32.
pub(crate) fn hash(parts: &[&str]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let digest = digest.finalize();
    let mut bits = u128::from_be_bytes(digest[..16].try_into().expect("a SHA-256 has 32 bytes"));
    let mut text = String::with_capacity(HASH_CHARS);
    for _ in 0..HASH_CHARS {
        text.push(char::from(ALPHABET[(bits >> 123) as usize]));
        bits <<= 5;
    }
    text
}

/// Which tenant object a super object stands for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    pub plane: PlaneId,
    pub namespace: String,
    pub uid: String,
}

impl Origin {
    /// `None` if the object is not one of this super cluster's synced ones.
    pub fn of(object: &Object, super_id: &str) -> Option<Origin> {
        if object.annotation(SUPER)? != super_id {
            return None;
        }
        Some(Origin {
            plane: object.annotation(PLANE)?.parse().ok()?,
            namespace: object.annotation(NAMESPACE)?.to_owned(),
            uid: object.annotation(UID)?.to_owned(),
        })
    }

    /// True if `super_object` stands for exactly this tenant object and no other, older or foreign one.
    pub fn owns(tenant: &Tenant, tenant_object: &Object, super_object: &Object) -> bool {
        Origin::of(super_object, &tenant.super_id).is_some_and(|origin| {
            origin.plane == tenant.plane
                && origin.uid == tenant_object.uid()
                && origin.namespace == tenant_object.namespace()
        })
    }
}

/// The metadata of a super object: the tenant's name, labels and annotations without what is ours, and our marks.
/// Owner references and finalizers don't cross (trap 5), nor does anything the server sets.
pub fn super_metadata(tenant: &Tenant, object: &Object, super_namespace: &str) -> Value {
    let source = &object.tree()["metadata"];
    let mut labels = without_ours(&source["labels"]);
    labels.insert(PLANE.to_owned(), tenant.plane.as_str().into());
    let mut annotations = without_ours(&source["annotations"]);
    annotations.retain(|key, _| may_cross(key));
    let mut marks = Map::new();
    mark(tenant, object.namespace(), object.uid(), &mut marks);
    fit(&mut annotations, bytes_of(&marks));
    let applied: Vec<&str> = annotations.keys().map(String::as_str).collect();
    if !applied.is_empty() {
        marks.insert(APPLIED.to_owned(), applied.join(",").into());
    }
    annotations.append(&mut marks);
    serde_json::json!({
        "name": object.name(), "namespace": super_namespace, "labels": labels, "annotations": annotations,
    })
}

/// Keys that runtimes and network plug-ins take orders from: with them a Pod could choose a weaker sandbox or another's network.
const ORDERS: [&str; 2] = ["io.katacontainers.", "io.kubernetes."];
const ORDERED_DOMAINS: [&str; 6] = [
    "cncf.io",
    "cilium.io",
    "istio.io",
    "linkerd.io",
    "ovn.org",
    "projectcalico.org",
];

/// Whether a tenant's annotation goes down. Those of Kubernetes' own domains are orders to the cluster's machinery (profiles,
/// mirror Pods, load balancers) and are for the tenant's plane; people's notes cross.
fn may_cross(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_of = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    !is_of("kubernetes.io")
        && !is_of("k8s.io")
        && !ORDERED_DOMAINS.into_iter().any(is_of)
        && !ORDERS.iter().any(|prefix| key.starts_with(prefix))
}

/// Leaves the largest annotations out until the rest has room beside our marks and the list of keys. They are the tenant's own
/// notes: what a Pod reads of them it reads from its own Secret.
fn fit(annotations: &mut Map<String, Value>, marks_bytes: usize) {
    let with_list = |annotations: &Map<String, Value>| {
        let keys: usize = annotations.keys().map(|key| key.len() + 1).sum();
        bytes_of(annotations) + keys + APPLIED.len() + marks_bytes
    };
    while with_list(annotations) > ANNOTATIONS_BYTES_MAX {
        let size = |(key, value): &(&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
        let Some(largest) = annotations.iter().max_by_key(size).map(|(key, _)| key.clone()) else {
            return;
        };
        annotations.remove(&largest);
    }
}

fn bytes_of(annotations: &Map<String, Value>) -> usize {
    let sizes = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
    sizes.sum()
}

/// Stands for a super object in a tenant's plane: the same for as long as it is the same, and another in each plane, so that
/// planes can't be compared by it.
pub fn shown(plane: PlaneId, uid: &str) -> String {
    hash(&["shown", plane.as_str(), uid])
}

/// True if the super cluster's object is for tenants to see.
pub fn is_public(object: &Object) -> bool {
    object.label(PUBLIC) == Some("true")
}

/// The finalizers of an object's metadata.
pub fn finalizers(object: &Object) -> Vec<String> {
    let finalizers = object.tree()["metadata"]["finalizers"].as_array();
    finalizers
        .into_iter()
        .flatten()
        .filter_map(|finalizer| finalizer.as_str().map(str::to_owned))
        .collect()
}

/// Writes our marks over whatever stands there.
pub fn mark(tenant: &Tenant, namespace: &str, uid: &str, annotations: &mut Map<String, Value>) {
    for (key, value) in [
        (PLANE, tenant.plane.as_str()),
        (TENANT, &tenant.name),
        (NAMESPACE, namespace),
        (UID, uid),
        (SUPER, &tenant.super_id),
    ] {
        annotations.insert(key.to_owned(), value.into());
    }
}

fn without_ours(map: &Value) -> Map<String, Value> {
    map.as_object()
        .map(|map| {
            map.iter()
                .filter(|(key, _)| !key.starts_with(PREFIX))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn acme() -> Tenant {
        Tenant {
            plane: "acmeacmeacmeacme".parse().unwrap(),
            name: "acme".to_owned(),
            kubernetes_address: "10.104.0.7".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            super_id: "super-1".to_owned(),
            ca_pem: "CA of acme".to_owned(),
            settings: Settings::default(),
        }
    }

    #[test]
    fn trap_07_names_that_are_prefixes_of_one_another_stay_apart() {
        let one = Tenant {
            name: "a-b".to_owned(),
            plane: "aaaaaaaaaaaaaaaa".parse().unwrap(),
            ..acme()
        };
        let two = Tenant {
            name: "a".to_owned(),
            plane: "bbbbbbbbbbbbbbbb".parse().unwrap(),
            ..acme()
        };

        assert_ne!(one.super_namespace("c", "u"), two.super_namespace("b-c", "u"));
    }

    #[test]
    fn trap_07_the_longest_names_fit_a_label() {
        let tenant = Tenant {
            name: "t".repeat(63),
            ..acme()
        };

        let name = tenant.super_namespace(&"n".repeat(63), "u");

        assert_eq!(name.len(), 63);
    }

    #[test]
    fn a_namespace_made_anew_gets_another_super_namespace() {
        assert_ne!(
            acme().super_namespace("web", "uid-1"),
            acme().super_namespace("web", "uid-2")
        );
    }

    #[test]
    fn trap_07_a_name_alone_owns_nothing() {
        let tenant_object = Object::from_tree(json!({"metadata": {"name": "x", "namespace": "web", "uid": "u1"}}));
        let mut annotations = Map::new();
        mark(&acme(), "web", "u0", &mut annotations);
        let older = Object::from_tree(json!({"metadata": {"name": "x", "annotations": annotations}}));
        let foreign = Object::from_tree(json!({"metadata": {"name": "x"}}));

        assert!(!Origin::owns(&acme(), &tenant_object, &older));
        assert!(!Origin::owns(&acme(), &tenant_object, &foreign));
    }

    #[test]
    fn trap_09_orders_to_the_clusters_machinery_do_not_cross() {
        for order in [
            "container.apparmor.security.beta.kubernetes.io/c",
            "kubernetes.io/config.mirror",
            "k8s.v1.cni.cncf.io/networks",
            "cni.projectcalico.org/ipAddrs",
            "io.katacontainers.config.hypervisor.kernel_params",
            "service.beta.kubernetes.io/aws-load-balancer-internal",
        ] {
            assert!(!may_cross(order), "{order}");
        }
        for note in ["note", "example.org/note", "notkubernetes.io/x", "prometheus.io/scrape"] {
            assert!(may_cross(note), "{note}");
        }
    }

    #[test]
    fn trap_11_annotations_at_the_limit_leave_room_for_ours() {
        let object = Object::from_tree(json!({"metadata": {"name": "x", "namespace": "web", "uid": "u1",
            "annotations": {"small": "kept", "large": "x".repeat(ANNOTATIONS_BYTES_MAX - 20)}}}));

        let metadata = super_metadata(&acme(), &object, "s");

        let annotations = metadata["annotations"].as_object().unwrap();
        assert!(bytes_of(annotations) <= ANNOTATIONS_BYTES_MAX);
        assert_eq!(annotations["small"], "kept");
        assert_eq!(annotations[APPLIED], "small");
        assert_eq!(annotations[UID], "u1");
    }

    #[test]
    fn marks_that_a_tenant_writes_do_not_cross() {
        let object = Object::from_tree(json!({"metadata": {
            "name": "x", "namespace": "web", "uid": "u1",
            "labels": {"app": "web", "tenancy.mangrove.io/plane": "another"},
            "annotations": {"tenancy.mangrove.io/uid": "forged", "note": "kept"},
            "ownerReferences": [{"uid": "o"}], "finalizers": ["f/f"],
        }}));

        let metadata = super_metadata(&acme(), &object, "s");

        assert_eq!(
            metadata["labels"],
            json!({"app": "web", "tenancy.mangrove.io/plane": "acmeacmeacmeacme"})
        );
        assert_eq!(metadata["annotations"]["tenancy.mangrove.io/uid"], "u1");
        assert_eq!(metadata["annotations"]["note"], "kept");
        assert!(metadata.get("ownerReferences").is_none() && metadata.get("finalizers").is_none());
    }
}
