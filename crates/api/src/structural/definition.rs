//! Whether a custom resource definition may be stored: names, versions, and schemas that are structural.

use serde_json::{Value, json};

use crate::{
    field::{self, Path},
    names,
    status::Cause,
};

/// What is wrong with a definition; `old` is what it replaces. Its `metadata` is checked as that of any object.
pub fn check_definition(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut check = Check { causes: Vec::new() };
    let spec = &new["spec"];
    let name = text(&new["metadata"]["name"]);
    let required_name = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if name != required_name {
        let metadata = Path::ROOT.field("metadata");
        let detail = r#"must be spec.names.plural+"."+spec.group"#;
        check.invalid(&metadata.field("name"), name, detail);
    }
    let path = Path::ROOT.field("spec");
    check.spec(&path, spec);
    check.stored_versions(new);
    check.approval(new, old);
    if spec["preserveUnknownFields"] == true && old.is_none_or(|old| old["spec"]["preserveUnknownFields"] != true) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema \
                      instead";
        check.invalid(&path.field("preserveUnknownFields"), true, detail);
    }
    if let Some(old) = old {
        check.update(&path, spec, old);
    }
    check.causes
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) struct Check {
    pub(super) causes: Vec<Cause>,
}

impl Check {
    pub(super) fn required(&mut self, path: &Path, detail: &str) {
        self.causes.push(field::required(path, detail));
    }

    pub(super) fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: impl std::fmt::Display) {
        self.causes.push(field::invalid(path, value, detail));
    }

    pub(super) fn forbidden(&mut self, path: &Path, detail: &str) {
        self.causes.push(field::forbidden(path, detail));
    }

    pub(super) fn not_supported(&mut self, path: &Path, value: &Value, supported: &[&str]) {
        self.causes.push(field::not_supported(path, value.clone(), supported));
    }

    fn spec(&mut self, path: &Path, spec: &Value) {
        let group = text(&spec["group"]);
        let group_path = path.field("group");
        let problems = names::dns1123_subdomain(group);
        if group.is_empty() {
            self.required(&group_path, "");
        } else if !problems.is_empty() {
            self.invalid(&group_path, group, problems.join(","));
        } else if !group.contains('.') {
            self.invalid(&group_path, group, "should be a domain with at least one dot");
        }
        match text(&spec["scope"]) {
            "" => self.required(&path.field("scope"), ""),
            "Cluster" | "Namespaced" => {}
            _ => self.not_supported(&path.field("scope"), &spec["scope"], &["Cluster", "Namespaced"]),
        }
        self.versions(path, spec);
        self.names(&path.field("names"), &spec["names"]);
        self.conversion(&path.field("conversion"), &spec["conversion"]);
    }

    fn versions(&mut self, path: &Path, spec: &Value) {
        let versions_path = path.field("versions");
        let versions = list(&spec["versions"]);
        for (at, version) in versions.iter().enumerate() {
            let path = versions_path.index(at);
            let name = text(&version["name"]);
            let problems = names::dns1035_label(name);
            if !problems.is_empty() {
                self.invalid(&path.field("name"), name, problems.join(","));
            }
            let schema_path = path.field("schema");
            let schema = &version["schema"]["openAPIV3Schema"];
            let root = schema_path.field("openAPIV3Schema");
            if schema.is_null() {
                self.required(&root, "");
            } else {
                self.schema(&root, schema);
            }
            self.subresources(&path.field("subresources"), &version["subresources"]);
            let columns = path.field("additionalPrinterColumns");
            for (at, column) in list(&version["additionalPrinterColumns"]).iter().enumerate() {
                self.column(&columns.index(at), column);
            }
            let fields = path.field("selectableFields");
            for (at, selectable) in list(&version["selectableFields"]).iter().enumerate() {
                let path = fields.index(at);
                self.simple_path(&path.field("jsonPath"), text(&selectable["jsonPath"]));
            }
            if versions[..at].iter().any(|other| other["name"] == version["name"]) {
                self.invalid(
                    &versions_path,
                    spec["versions"].clone(),
                    "must contain unique version names",
                );
            }
        }
        if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
            let detail = "must have exactly one version marked as storage version";
            self.invalid(&versions_path, spec["versions"].clone(), detail);
        }
    }

    fn names(&mut self, path: &Path, names: &Value) {
        for (field, mixed_case) in [
            ("plural", false),
            ("singular", false),
            ("kind", true),
            ("listKind", true),
        ] {
            let name = text(&names[field]);
            if name.is_empty() {
                self.required(&path.field(field), "");
                continue;
            }
            let checked = if mixed_case {
                name.to_lowercase()
            } else {
                name.to_owned()
            };
            let problems = names::dns1035_label(&checked);
            if !problems.is_empty() {
                let prefix = if mixed_case {
                    "may have mixed case, but should otherwise match: "
                } else {
                    ""
                };
                self.invalid(&path.field(field), name, format!("{prefix}{}", problems.join(",")));
            }
        }
        for field in ["shortNames", "categories"] {
            let path = path.field(field);
            for (at, name) in list(&names[field]).iter().enumerate() {
                let problems = names::dns1035_label(text(name));
                if !problems.is_empty() {
                    self.invalid(&path.index(at), text(name), problems.join(","));
                }
            }
        }
        if !text(&names["kind"]).is_empty() && names["kind"] == names["listKind"] {
            let detail = "kind and listKind may not be the same";
            self.invalid(&path.field("listKind"), text(&names["listKind"]), detail);
        }
    }

    fn conversion(&mut self, path: &Path, conversion: &Value) {
        let webhook = &conversion["webhook"];
        let client_path = path.field("webhookClientConfig");
        match text(&conversion["strategy"]) {
            "" if conversion.is_null() => {}
            "" => self.required(&path.field("strategy"), ""),
            "None" => {
                if !webhook.is_null() {
                    self.forbidden(&client_path, "should not be set when strategy is not set to Webhook");
                }
            }
            "Webhook" => {
                let client = &webhook["clientConfig"];
                if client.is_null() {
                    self.required(&client_path, "required when strategy is set to Webhook");
                } else if client["url"].is_null() == client["service"].is_null() {
                    self.required(&client_path, "exactly one of url or service is required");
                }
                let known = list(&webhook["conversionReviewVersions"])
                    .iter()
                    .any(|version| matches!(text(version), "v1" | "v1beta1"));
                if !known {
                    let detail = "must include at least one of v1, v1beta1";
                    let versions = webhook["conversionReviewVersions"].clone();
                    self.invalid(&path.field("conversionReviewVersions"), versions, detail);
                }
            }
            _ => self.not_supported(&path.field("strategy"), &conversion["strategy"], &["None", "Webhook"]),
        }
    }

    fn subresources(&mut self, path: &Path, subresources: &Value) {
        let scale = &subresources["scale"];
        if scale.is_null() {
            return;
        }
        for (field, root, optional) in [
            ("specReplicasPath", ".spec.", false),
            ("statusReplicasPath", ".status.", false),
            ("labelSelectorPath", "", true),
        ] {
            let json_path = text(&scale[field]);
            let shown = format!("scale.{field}");
            let path = path.field(&shown);
            if json_path.is_empty() {
                if !optional {
                    self.required(&path, "");
                }
                continue;
            }
            let before = self.causes.len();
            self.simple_path(&path, json_path);
            if self.causes.len() > before {
                continue;
            }
            if optional {
                if !json_path.starts_with(".spec.") && !json_path.starts_with(".status.") {
                    let detail = "should be a json path under either .spec or .status";
                    self.invalid(&path, json_path, detail);
                }
            } else if !json_path.starts_with(root) {
                let detail = format!("should be a json path under {}", root.trim_end_matches('.'));
                self.invalid(&path, json_path, detail);
            }
        }
    }

    fn column(&mut self, path: &Path, column: &Value) {
        const KINDS: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
        if text(&column["name"]).is_empty() {
            self.required(&path.field("name"), "");
        }
        let must = format!("must be one of {}", KINDS.join(","));
        match text(&column["type"]) {
            "" => self.required(&path.field("type"), &must),
            kind if !KINDS.contains(&kind) => self.invalid(&path.field("type"), kind, must),
            _ => {}
        }
        match text(&column["jsonPath"]) {
            "" => self.required(&path.field("JSONPath"), ""),
            json_path => self.simple_path(&path.field("JSONPath"), json_path),
        }
    }

    fn simple_path(&mut self, path: &Path, json_path: &str) {
        if json_path.is_empty() {
            self.invalid(path, json_path, "must not be empty");
        } else if !json_path.starts_with('.') {
            self.invalid(path, json_path, "must be a simple json path starting with .");
        }
    }

    fn stored_versions(&mut self, definition: &Value) {
        let status = Path::ROOT.field("status");
        let path = status.field("storedVersions");
        let stored = &definition["status"]["storedVersions"];
        let versions = list(&definition["spec"]["versions"]);
        if list(stored).is_empty() {
            let shown = if stored.is_null() { json!([]) } else { stored.clone() };
            self.invalid(&path, shown, "must have at least one stored version");
            return;
        }
        for version in versions.iter().filter(|version| version["storage"] == true) {
            if !list(stored).contains(&version["name"]) {
                let detail = format!("must have the storage version {}", text(&version["name"]));
                self.invalid(&path, stored.clone(), detail);
            }
        }
        for (at, name) in list(stored).iter().enumerate() {
            if !versions.iter().any(|version| version["name"] == *name) {
                let name = text(name);
                let detail = format!(
                    "missing from spec.versions; {name} was previously a storage version, and must remain in \
                     spec.versions until a storage migration ensures no data remains persisted in {name} and removes \
                     {name} from status.storedVersions"
                );
                self.invalid(&path.index(at), name, detail);
            }
        }
    }

    /// Groups of the Kubernetes project are not for anybody to use.
    fn approval(&mut self, new: &Value, old: Option<&Value>) {
        const ANNOTATION: &str = "api-approved.kubernetes.io";
        let group = text(&new["spec"]["group"]);
        let protected = ["k8s.io", "kubernetes.io"]
            .iter()
            .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
        let approval = &new["metadata"]["annotations"][ANNOTATION];
        if !protected || old.is_some_and(|old| old["metadata"]["annotations"][ANNOTATION] == *approval) {
            return;
        }
        let metadata = Path::ROOT.field("metadata");
        let annotations = metadata.field("annotations");
        let path = annotations.key(ANNOTATION);
        match text(approval) {
            "" => self.required(
                &path,
                "protected groups must have approval annotation \"api-approved.kubernetes.io\", see \
                 https://github.com/kubernetes/enhancements/pull/1111",
            ),
            value if value.starts_with("unapproved") || value.contains("://") => {}
            value => {
                let detail = format!(
                    "protected groups must have approval annotation \"{ANNOTATION}\" with either a URL or a reason \
                     starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
                );
                self.invalid(&path, value, detail);
            }
        }
    }

    fn update(&mut self, path: &Path, spec: &Value, old: &Value) {
        let established = list(&old["status"]["conditions"])
            .iter()
            .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
        let before = &old["spec"];
        let names = path.field("names");
        let mut immutable = |path: &Path, new: &Value, old: &Value| {
            if new != old {
                self.causes
                    .push(field::invalid(path, new.clone(), "field is immutable"));
            }
        };
        if established {
            immutable(&path.field("scope"), &spec["scope"], &before["scope"]);
            immutable(&names.field("kind"), &spec["names"]["kind"], &before["names"]["kind"]);
        }
        immutable(&path.field("group"), &spec["group"], &before["group"]);
        immutable(
            &names.field("plural"),
            &spec["names"]["plural"],
            &before["names"]["plural"],
        );
    }
}
