//! An Event about a super Pod as the tenant sees it.

use api::Object;
use serde_json::{Value, json};

use super::status::own_words;
use crate::identity::Tenant;

/// Rewrites an Event about the super object `below` into one about the tenant's `above`. Its name stays, so that a later count
/// of the same Event finds it.
pub fn up(tenant: &Tenant, event: &Object, above: &Object, below: &Object) -> Value {
    let mut up = event.tree().clone();
    up["metadata"] = json!({"name": event.name(), "namespace": above.namespace()});
    // Another object: who preempted whom, say. It need not be the tenant's.
    if let Some(up) = up.as_object_mut() {
        up.remove("related");
    }
    let involved = &mut up["involvedObject"];
    if let Some(involved) = involved.as_object_mut() {
        involved.remove("resourceVersion");
    }
    involved["namespace"] = above.namespace().into();
    involved["uid"] = above.uid().into();
    // The victim is the tenant's, the one who took its place need not be.
    if event.tree()["reason"] == "Preempted" {
        up["message"] = "Preempted in favour of a Pod of higher priority".into();
    }
    own_words(tenant, above, below, &mut up);
    up
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::acme;

    #[test]
    fn an_event_speaks_of_the_tenants_pod_alone() {
        let pod = |namespace: &str, uid: &str| {
            Object::from_tree(json!({"metadata": {"name": "p", "namespace": namespace, "uid": uid}}))
        };
        let event = Object::from_tree(json!({"apiVersion": "v1", "kind": "Event",
            "metadata": {"name": "p.1", "namespace": "acme-x-h", "uid": "e", "resourceVersion": "7"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "acme-x-h", "uid": "super-uid", "resourceVersion": "5"},
            "message": "Successfully assigned acme-x-h/p to node", "count": 2}));

        let up = up(&acme(), &event, &pod("x", "t"), &pod("acme-x-h", "super-uid"));

        assert_eq!(up["metadata"], json!({"name": "p.1", "namespace": "x"}));
        assert_eq!(
            up["involvedObject"],
            json!({"kind": "Pod", "name": "p", "namespace": "x", "uid": "t"})
        );
        assert_eq!(up["message"], "Successfully assigned x/p to node");
        assert_eq!(up["count"], 2);
    }
}
