//! `ServiceAccount`: every Pod runs as one, and finds its token, its plane's CA and its namespace in a volume.

use api::{Status, resource};
use serde_json::{Value, json};

use super::Attempt;
use crate::registry::{Kind, Place, meta, refuse_forbidden};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// An hour and a little, which marks it as the admission's own (upstream's `WarnOnlyBoundTokenExpirationPeriod`).
const TOKEN_SECONDS: i64 = 3607;

pub(super) async fn admit(attempt: &Attempt<'_>, tree: &mut Value) -> Result<(), Status> {
    let place = &attempt.place;
    let spec = &tree["spec"];
    if !spec.is_object() {
        return Ok(());
    }
    if tree["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        // A node's own Pod, shown here: it has no account.
        return if spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
            Ok(())
        } else {
            Err(refuse_forbidden(
                place.kind,
                place.name,
                "a mirror pod may not reference service accounts",
            ))
        };
    }
    let name = match spec["serviceAccountName"].as_str().unwrap_or_default() {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    let info = api::table::find("", "v1", &resource::SERVICE_ACCOUNTS.plural).expect("accounts are a built-in kind");
    let kind = Kind::BuiltIn(info);
    let account = Place {
        plane: place.plane,
        kind: &kind,
        namespace: place.namespace,
        name: &name,
    };
    let Some(account) = account.read().await?.stored else {
        let namespace = place.namespace.unwrap_or_default();
        return Err(refuse_forbidden(
            place.kind,
            place.name,
            &format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"),
        ));
    };
    let account = account.object.tree();
    let spec = &mut tree["spec"];
    spec["serviceAccountName"] = name.clone().into();
    spec["serviceAccount"] = name.into();
    if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
        && account["imagePullSecrets"]
            .as_array()
            .is_some_and(|secrets| !secrets.is_empty())
    {
        spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let wanted = spec["automountServiceAccountToken"]
        .as_bool()
        .or(account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if wanted {
        let random = &attempt.registry.planes().world().random;
        mount_token(spec, &meta::random_suffix(&**random));
    }
    Ok(())
}

/// Adds the volume and mounts it where nothing else is mounted in its place.
fn mount_token(spec: &mut Value, suffix: &str) {
    let volume = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let exists = volume.is_some();
    let volume = volume.unwrap_or_else(|| format!("kube-api-access-{suffix}"));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let mounts = &mut container["volumeMounts"];
            if !mounts.is_array() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| mount["mountPath"] != MOUNT_PATH) {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
                mounted = true;
            }
        }
    }
    for list in ["initContainers", "containers"] {
        if spec[list].is_null()
            && let Some(spec) = spec.as_object_mut()
        {
            spec.remove(list);
        }
    }
    if !mounted || exists {
        return;
    }
    if !spec["volumes"].is_array() {
        spec["volumes"] = json!([]);
    }
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.push(json!({"name": volume, "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
        }}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_mounts_something_there_is_left_alone() {
        let mut spec = json!({"containers": [
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]},
        ]});

        mount_token(&mut spec, "abcde");

        assert_eq!(
            spec["containers"][0]["volumeMounts"][0]["name"],
            "kube-api-access-abcde"
        );
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        assert_eq!(
            spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
            3607
        );
        assert!(spec.get("initContainers").is_none());
    }
}
