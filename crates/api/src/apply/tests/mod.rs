mod laws;
mod owners;
mod pruning;
mod walks;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::{Resource, default, resource, schema, structural};

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

/// Built-in kinds that have one version.
struct BuiltIn;

impl Versions for BuiltIn {
    fn shape(&self, api_version: &str) -> Option<Shape<'_>> {
        [&resource::DEPLOYMENTS, &resource::CONFIG_MAPS]
            .into_iter()
            .find(|resource| resource.api_version() == api_version)
            .and_then(|resource| schema::of_kind(&resource.group, &resource.version, &resource.kind))
            .map(Shape::of_type)
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        (object["apiVersion"] == api_version).then(|| object.clone())
    }
}

/// A custom kind, with a schema a version; versions differ by name alone.
struct Defined(BTreeMap<&'static str, structural::Schema>);

impl Defined {
    fn of<const N: usize>(versions: [(&'static str, Value); N]) -> Defined {
        let compiled = versions
            .into_iter()
            .map(|(version, schema)| (version, structural::Schema::compile(&schema)));
        Defined(compiled.collect())
    }
}

impl Versions for Defined {
    fn shape(&self, api_version: &str) -> Option<Shape<'_>> {
        self.0.get(api_version).map(Shape::of_schema)
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        self.0.contains_key(api_version).then(|| {
            let mut object = object.clone();
            object["apiVersion"] = api_version.into();
            object
        })
    }
}

fn write<'a>(versions: &'a dyn Versions, filter: &'a Filter, resource: &'a Resource, manager: &'a str) -> Write<'a> {
    Write {
        versions,
        filter,
        resource,
        subresource: "",
        manager,
        now: NOW,
    }
}

static DEPLOYMENTS: Resource = resource::DEPLOYMENTS;
static CONFIG_MAPS: Resource = resource::CONFIG_MAPS;

fn deployments(manager: &str) -> Write<'_> {
    write(&BuiltIn, &Filter::All, &DEPLOYMENTS, manager)
}

fn config_maps(manager: &str) -> Write<'_> {
    write(&BuiltIn, &Filter::All, &CONFIG_MAPS, manager)
}

/// As a server has it after a create: with what it gives.
fn stored(mut object: Value) -> Value {
    object["metadata"]["uid"] = "1".into();
    object
}

/// Manager, operation and fields, one line an owner.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap_or("");
            let subresource = text("subresource");
            format!(
                "{} {}{}{} {}",
                text("manager"),
                text("operation"),
                if subresource.is_empty() { "" } else { "/" },
                subresource,
                fields::to_json(&fields::read(&entry["fieldsV1"]).unwrap())
            )
        })
        .collect()
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"}, "data": data})
}
