//! What a Pod names of its own namespace: these objects go down with it, and only while a synced Pod names them (D7).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::translate::pod_values::ROOT_CA;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub service_account: Option<String>,
}

impl References {
    /// All names in a PodSpec. Optional ones too: they may appear later.
    pub fn of(spec: &Value) -> References {
        let account = spec["serviceAccountName"]
            .as_str()
            .filter(|name| !name.is_empty())
            .unwrap_or("default");
        let mut found = References {
            service_account: Some(account.to_owned()),
            ..References::default()
        };
        for secret in list(&spec["imagePullSecrets"]) {
            add(&mut found.secrets, &secret["name"]);
        }
        for volume in list(&spec["volumes"]) {
            found.add_volume(volume);
        }
        for field in ["initContainers", "containers", "ephemeralContainers"] {
            for container in list(&spec[field]) {
                for source in list(&container["envFrom"]) {
                    add(&mut found.config_maps, &source["configMapRef"]["name"]);
                    add(&mut found.secrets, &source["secretRef"]["name"]);
                }
                for variable in list(&container["env"]) {
                    add(
                        &mut found.config_maps,
                        &variable["valueFrom"]["configMapKeyRef"]["name"],
                    );
                    add(&mut found.secrets, &variable["valueFrom"]["secretKeyRef"]["name"]);
                }
            }
        }
        // A Pod has its own plane's from its own Secret.
        found.config_maps.remove(ROOT_CA);
        found
    }

    fn add_volume(&mut self, volume: &Value) {
        add(&mut self.config_maps, &volume["configMap"]["name"]);
        add(&mut self.secrets, &volume["secret"]["secretName"]);
        for source in list(&volume["projected"]["sources"]) {
            add(&mut self.config_maps, &source["configMap"]["name"]);
            add(&mut self.secrets, &source["secret"]["name"]);
        }
        for plugin in ["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            add(&mut self.secrets, &volume[plugin]["secretRef"]["name"]);
        }
        add(&mut self.secrets, &volume["csi"]["nodePublishSecretRef"]["name"]);
        add(&mut self.secrets, &volume["azureFile"]["secretName"]);
    }
}

fn add(names: &mut BTreeSet<String>, name: &Value) {
    if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
        names.insert(name.to_owned());
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_place_that_names_a_config_map_or_secret_is_found() {
        let spec = json!({
            "serviceAccountName": "robot",
            "imagePullSecrets": [{"name": "s-pull"}],
            "volumes": [
                {"configMap": {"name": "c-vol"}},
                {"secret": {"secretName": "s-vol", "optional": true}},
                {"configMap": {"name": "kube-root-ca.crt"}},
                {"projected": {"sources": [{"configMap": {"name": "c-proj"}}, {"secret": {"name": "s-proj"}}]}},
                {"csi": {"driver": "d", "nodePublishSecretRef": {"name": "s-csi"}}},
            ],
            "initContainers": [{"envFrom": [{"configMapRef": {"name": "c-from"}}, {"secretRef": {"name": "s-from"}}]}],
            "containers": [{"env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c-env", "key": "k"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s-env", "key": "k"}}},
            ]}],
        });

        let found = References::of(&spec);

        assert_eq!(
            found.config_maps,
            ["c-env", "c-from", "c-proj", "c-vol"].map(String::from).into()
        );
        assert_eq!(
            found.secrets,
            ["s-csi", "s-env", "s-from", "s-proj", "s-pull", "s-vol"]
                .map(String::from)
                .into()
        );
        assert_eq!(found.service_account.as_deref(), Some("robot"));
    }
}
