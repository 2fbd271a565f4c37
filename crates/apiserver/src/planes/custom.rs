//! A plane's custom resources, resolved from its definitions.

use std::sync::{Arc, LazyLock};

use api::{
    Object, Resource, Status,
    keys::EVERY_DEFINITION,
    resource::{self, Scope},
    structural::Schema,
    table::{ResourceInfo, Subresource},
};
use keyspace::{KeyRange, Options, Range, Revision};
use serde_json::{Value, json};

use super::{Plane, refuse};

/// Everything that a plane serves by custom resource definitions, at a revision.
pub struct CustomResources {
    /// At which the definitions were read.
    pub revision: Revision,
    pub served: Vec<Arc<CustomResource>>,
}

const WEIGHT_OF_TEXT: usize = 10;

/// One served version of a custom resource.
pub struct CustomResource {
    pub info: ResourceInfo,
    /// The uid of the definition; part of the objects' keys.
    pub definition: String,
    pub list_kind: String,
    /// `openAPIV3Schema`, or null.
    pub schema: Value,
    /// The same, made ready to prune, default and validate.
    pub compiled: Schema,
    pub has_status: bool,
    pub scale: Option<ScalePaths>,
    /// `additionalPrinterColumns`, or null.
    pub printer_columns: Value,
    /// JSON paths, as `.spec.color`.
    pub selectable_fields: Vec<String>,
    /// It is being deleted, and waits for its objects to go.
    pub terminating: bool,
    /// Whether objects read from storage have to be filled in: they may be older than their schema.
    pub has_defaults: bool,
    /// The definition itself, for documents about it.
    pub object: Object,
}

/// Where `scale` finds its fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

impl CustomResources {
    pub fn none(revision: Revision) -> CustomResources {
        CustomResources {
            revision,
            served: Vec::new(),
        }
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<CustomResource>> {
        self.served.iter().find(|custom| {
            let resource = &custom.info.resource;
            resource.group == group && resource.version == version && resource.plural == plural
        })
    }

    /// Any version of the definition with that uid.
    pub fn of_definition(&self, uid: &str) -> Option<&Arc<CustomResource>> {
        self.served.iter().find(|custom| custom.definition == uid)
    }

    /// About the bytes it takes: a tree takes some times its text, and is there twice with its compiled schema.
    pub(super) fn weight(&self) -> usize {
        let texts = self.served.iter().map(|custom| custom.object.bytes().len());
        256 + texts.map(|text| text * WEIGHT_OF_TEXT).sum::<usize>()
    }

    /// For discovery.
    pub fn infos(&self) -> Vec<&ResourceInfo> {
        self.served.iter().map(|custom| &custom.info).collect()
    }

    pub(super) async fn read(plane: &Plane) -> Result<CustomResources, Status> {
        let definitions = &resource::CUSTOM_RESOURCE_DEFINITIONS;
        let prefix = plane.layout.prefix(plane.id, definitions, None, None);
        let ranged = plane
            .keyspace
            .range(Range::of(KeyRange::prefix(prefix)), Options::default())
            .await
            .map_err(refuse)?;
        let mut custom = CustomResources::none(ranged.revision);
        for item in ranged.items {
            custom
                .served
                .extend(served(Object::from_stored(item.value)).into_iter().map(Arc::new));
        }
        Ok(custom)
    }
}

/// All custom objects of all planes, as the all-planes door shows them: as they are stored, whatever defines them.
pub fn every() -> Arc<CustomResource> {
    static EVERY: LazyLock<Arc<CustomResource>> = LazyLock::new(|| {
        let Resource {
            group,
            version,
            plural,
            kind,
            ..
        } = &resource::CUSTOM_OBJECTS;
        let definition = Object::from_tree(json!({
            "metadata": {"uid": EVERY_DEFINITION},
            "spec": {"group": group, "scope": "Namespaced", "preserveUnknownFields": true,
                "versions": [{"name": version, "served": true, "storage": true}]},
            "status": {"acceptedNames": {"plural": plural, "kind": kind},
                "conditions": [{"type": "Established", "status": "True"}]},
        }));
        Arc::new(served(definition).remove(0))
    });
    EVERY.clone()
}

/// The served versions of a definition; none until it is established.
fn served(definition: Object) -> Vec<CustomResource> {
    let tree = definition.tree();
    let established = tree["status"]["conditions"].as_array().is_some_and(|conditions| {
        conditions
            .iter()
            .any(|it| it["type"] == "Established" && it["status"] == "True")
    });
    if !established {
        return Vec::new();
    }
    let spec = &tree["spec"];
    let names = &tree["status"]["acceptedNames"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(text).collect() };
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let resource = |version: &Value| Resource {
        group: text(&spec["group"]).into(),
        version: text(&version["name"]).into(),
        plural: text(&names["plural"]).into(),
        kind: text(&names["kind"]).into(),
        scope: if spec["scope"] == "Namespaced" {
            Scope::Namespaced
        } else {
            Scope::Cluster
        },
    };
    let Some(storage) = versions.iter().find(|version| version["storage"] == true).map(resource) else {
        return Vec::new();
    };
    versions
        .iter()
        .filter(|version| version["served"] == true)
        .map(|version| {
            let subresources = &version["subresources"];
            let has_status = subresources["status"].is_object();
            let scale = subresources["scale"].as_object().map(|scale| ScalePaths {
                spec_replicas: text(&scale["specReplicasPath"]),
                status_replicas: text(&scale["statusReplicasPath"]),
                label_selector: scale.get("labelSelectorPath").map(text).filter(|path| !path.is_empty()),
            });
            let this = resource(version);
            let mut described = Vec::new();
            let verbs = |verbs: &[&str]| verbs.iter().map(|verb| (*verb).to_owned()).collect::<Vec<_>>();
            if has_status {
                described.push(Subresource {
                    name: "status".to_owned(),
                    group: this.group.to_string(),
                    version: this.version.to_string(),
                    kind: this.kind.to_string(),
                    verbs: verbs(&["get", "patch", "update"]),
                });
            }
            if scale.is_some() {
                described.push(Subresource {
                    name: "scale".to_owned(),
                    group: "autoscaling".to_owned(),
                    version: "v1".to_owned(),
                    kind: "Scale".to_owned(),
                    verbs: verbs(&["get", "patch", "update"]),
                });
            }
            let compiled = if spec["preserveUnknownFields"] == true {
                Schema::open()
            } else {
                Schema::compile(&version["schema"]["openAPIV3Schema"])
            };
            CustomResource {
                terminating: definition.is_deleting(),
                has_defaults: compiled.has_defaults(),
                info: ResourceInfo {
                    resource: this,
                    storage: storage.clone(),
                    singular: text(&names["singular"]),
                    short_names: texts(&names["shortNames"]),
                    categories: texts(&names["categories"]),
                    verbs: verbs(&[
                        "delete",
                        "deletecollection",
                        "get",
                        "list",
                        "patch",
                        "create",
                        "update",
                        "watch",
                    ]),
                    subresources: described,
                    storage_hash: storage_hash(&storage),
                },
                definition: definition.uid().to_owned(),
                list_kind: match text(&names["listKind"]) {
                    kind if kind.is_empty() => format!("{}List", storage.kind),
                    kind => kind,
                },
                schema: version["schema"]["openAPIV3Schema"].clone(),
                compiled,
                has_status,
                scale,
                printer_columns: version["additionalPrinterColumns"].clone(),
                selectable_fields: version["selectableFields"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|field| text(&field["jsonPath"]))
                    .collect(),
                object: definition.clone(),
            }
        })
        .collect()
}

/// As upstream's `discovery.StorageVersionHash`.
fn storage_hash(storage: &Resource) -> String {
    use base64::Engine;
    use sha2::Digest;
    let text = format!("{}/{}/{}", storage.group, storage.version, storage.kind);
    let digest = sha2::Sha256::digest(text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}
