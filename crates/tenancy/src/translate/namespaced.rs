//! ConfigMaps, Secrets, ServiceAccounts and EndpointSlices: their content goes down as it is, or nearly.

use api::Object;
use serde_json::{Value, json};

use super::pod_drift::metadata_drift;
use crate::identity::{self, Tenant};

/// The kinds that are copied field by field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Copied {
    ConfigMap,
    Secret,
    ServiceAccount,
    EndpointSlice,
}

impl Copied {
    fn fields(self) -> &'static [&'static str] {
        match self {
            Copied::ConfigMap => &["data", "binaryData", "immutable"],
            Copied::Secret => &["data", "immutable", "type"],
            // Which Secrets an account may use and its tokens are the super cluster's to say: nothing of it crosses.
            Copied::ServiceAccount => &[],
            Copied::EndpointSlice => &["addressType", "endpoints", "ports"],
        }
    }

    pub fn resource(self) -> api::Resource {
        match self {
            Copied::ConfigMap => api::resource::CONFIG_MAPS,
            Copied::Secret => api::resource::SECRETS,
            Copied::ServiceAccount => api::resource::SERVICE_ACCOUNTS,
            Copied::EndpointSlice => api::resource::ENDPOINT_SLICES,
        }
    }

    pub fn down(self, tenant: &Tenant, object: &Object, super_namespace: &str) -> Value {
        let resource = self.resource();
        let mut down = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": identity::super_metadata(tenant, object, super_namespace),
        });
        for field in self.fields() {
            let value = &object.tree()[*field];
            if !value.is_null() {
                down[*field] = value.clone();
            }
        }
        match self {
            // A tenant's token Secret means the tenant's plane; below it is bytes, or the super cluster would fill it.
            Copied::Secret if down["type"] == "kubernetes.io/service-account-token" => down["type"] = "Opaque".into(),
            Copied::ServiceAccount => down["automountServiceAccountToken"] = false.into(),
            // References name tenant objects, which don't exist below.
            Copied::EndpointSlice => {
                for endpoint in down["endpoints"].as_array_mut().into_iter().flatten() {
                    if let Some(endpoint) = endpoint.as_object_mut() {
                        endpoint.remove("targetRef");
                    }
                }
            }
            Copied::ConfigMap | Copied::Secret => {}
        }
        down
    }

    /// A merge patch that makes `observed` what it should be; `None` if it is.
    pub fn drift(self, wanted: &Value, observed: &Object) -> Option<Value> {
        let mut patch = serde_json::Map::new();
        let metadata = metadata_drift(&wanted["metadata"], &observed.tree()["metadata"]);
        if !metadata.is_empty() {
            patch.insert("metadata".to_owned(), metadata.into());
        }
        for field in self.fields() {
            let (ours, theirs) = (&wanted[*field], &observed.tree()[*field]);
            if ours == theirs {
                continue;
            }
            // A merge patch merges maps: keys that are gone have to be said.
            let mut change = ours.clone();
            if let (Some(change), Some(theirs)) = (change.as_object_mut(), theirs.as_object()) {
                for key in theirs.keys() {
                    change.entry(key).or_insert(Value::Null);
                }
            }
            patch.insert((*field).to_owned(), change);
        }
        (!patch.is_empty()).then_some(Value::Object(patch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::acme;

    fn tenant_object(extra: Value) -> Object {
        let mut tree = json!({"metadata": {"name": "x", "namespace": "web", "uid": "u1"}});
        for (key, value) in extra.as_object().unwrap() {
            tree[key] = value.clone();
        }
        Object::from_tree(tree)
    }

    #[test]
    fn a_removed_key_of_a_config_map_is_drift() {
        let wanted = Copied::ConfigMap.down(&acme(), &tenant_object(json!({"data": {"a": "1"}})), "s");
        let mut observed = wanted.clone();
        assert_eq!(
            Copied::ConfigMap.drift(&wanted, &Object::from_tree(observed.clone())),
            None
        );
        observed["data"]["b"] = "2".into();

        let patch = Copied::ConfigMap.drift(&wanted, &Object::from_tree(observed)).unwrap();

        assert_eq!(patch, json!({"data": {"a": "1", "b": null}}));
    }

    #[test]
    fn a_token_secret_is_only_bytes_below() {
        let object = tenant_object(json!({"type": "kubernetes.io/service-account-token", "data": {"token": "eA=="}}));

        assert_eq!(Copied::Secret.down(&acme(), &object, "s")["type"], "Opaque");
    }

    #[test]
    fn a_service_accounts_secrets_do_not_cross() {
        let object = tenant_object(json!({"secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "p"}]}));

        let down = Copied::ServiceAccount.down(&acme(), &object, "s");

        assert!(down.get("secrets").is_none() && down.get("imagePullSecrets").is_none());
    }
}
