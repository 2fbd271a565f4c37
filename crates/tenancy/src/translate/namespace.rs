//! A tenant's namespace as a super namespace.

use api::Object;
use serde_json::{Value, json};

use crate::identity::{self, Tenant};

/// The super namespace that a tenant namespace needs. The tenant's labels go along so that namespace selectors work.
pub fn down(tenant: &Tenant, namespace: &Object) -> Value {
    let name = tenant.super_namespace(namespace.name(), namespace.uid());
    let mut metadata = identity::super_metadata(tenant, namespace, "");
    metadata["name"] = name.into();
    metadata["annotations"][identity::NAMESPACE] = namespace.name().into();
    if let Some(map) = metadata.as_object_mut() {
        map.remove("namespace");
    }
    // The super cluster names its own namespaces by this label; Pod Security levels there are its operator's.
    if let Some(labels) = metadata["labels"].as_object_mut() {
        labels.retain(|key, _| key != "kubernetes.io/metadata.name" && !key.starts_with("pod-security.kubernetes.io/"));
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

/// True if the super namespace is this tenant namespace's, and not one that happens to have the name.
pub fn is_ours(tenant: &Tenant, namespace: &Object, super_namespace: &Object) -> bool {
    identity::Origin::of(super_namespace, &tenant.super_id).is_some_and(|origin| {
        origin.plane == tenant.plane && origin.uid == namespace.uid() && origin.namespace == namespace.name()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::acme;

    #[test]
    fn a_super_namespace_knows_whose_it_is() {
        let namespace = Object::from_tree(json!({"metadata": {"name": "web", "uid": "u1", "labels": {
            "team": "a", "kubernetes.io/metadata.name": "web", "pod-security.kubernetes.io/enforce": "privileged"}}}));

        let down = Object::from_tree(down(&acme(), &namespace));

        assert!(is_ours(&acme(), &namespace, &down));
        assert_eq!(down.tree()["metadata"]["labels"].as_object().unwrap().len(), 2);
        let anew = Object::from_tree(json!({"metadata": {"name": "web", "uid": "u2"}}));
        assert!(!is_ours(&acme(), &anew, &down));
    }
}
