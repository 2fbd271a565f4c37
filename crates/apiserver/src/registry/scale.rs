//! `scale`: how many replicas an object wants and has, whatever its kind.

use api::{
    Resource, Status,
    apply::{Filter, Managed, Write, scale},
    patch::PatchType,
    resource::Scope,
};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Kind, Registry,
    apply::{Configuration, force},
    body, forms, meta,
    owners::{self, Family, Noted, Scales},
    patch::Patch,
    read::place,
    refusals::{self, bad_request},
    update::Aspect,
};
use crate::{
    Body, Form,
    context::{Context, Verb},
    planes::ScalePaths,
};

/// The kind by which patches of a scale are merged.
static SCALES: Resource = Resource::built_in("autoscaling", "v1", "scales", "Scale", Scope::Namespaced);

/// What the current scale becomes.
enum Wanted {
    Scale(Value),
    Patched(Patch),
    Applied(Configuration),
}

impl Wanted {
    /// The wanted scale and, in it, who owns the number of replicas then.
    fn of(&self, current: &Value, write: &Write<'_>, context: &Context) -> Result<Value, Status> {
        let mut scale = match self {
            Wanted::Applied(config) => return write.applied(Some(current), &config.tree, force(context)),
            Wanted::Scale(scale) => scale.clone(),
            Wanted::Patched(patch) => patch.apply(&SCALES, current)?,
        };
        if !scale["metadata"].is_object() {
            scale["metadata"] = json!({});
        }
        write.updated(current, &mut scale);
        Ok(scale)
    }
}

impl Registry {
    pub(super) async fn scale(
        &self,
        context: &Context,
        kind: &Kind,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let paths = paths_of(kind).ok_or_else(refusals::unknown_resource)?;
        if context.info.verb == Verb::Get {
            let place = place(context, kind);
            let stored = place
                .read()
                .await?
                .stored
                .ok_or_else(|| refusals::not_found(kind, place.name))?;
            let shown = forms::Shown::new(kind, &Form::Object, &self.planes().world().clock);
            return Ok(forms::tree(StatusCode::OK, &scale_of(&paths, &shown.tree(&stored))));
        }
        let wanted = if context.info.verb == Verb::Patch {
            let patch_type = body::patch_type(&request, kind)?;
            owners::check_options(context, Some(patch_type))?;
            let bytes = body::bytes(request).await?;
            match patch_type {
                PatchType::Apply => Wanted::Applied(Configuration::read(bytes, context.query.field_validation)?),
                patch_type => Wanted::Patched(Patch::read(patch_type, bytes)?),
            }
        } else {
            owners::check_options(context, None)?;
            let scale = body::json(&body::bytes(request).await?)?;
            if !scale["kind"].is_null() && scale["kind"] != "Scale" {
                return Err(bad_request(format!("{} is not a Scale", scale["kind"])));
            }
            Wanted::Scale(scale)
        };
        let family = self.family(&context.plane, kind).await?;
        let now = meta::now(&*self.planes().world().clock);
        let write = Write {
            versions: &Scales,
            filter: &Filter::All,
            resource: &SCALES,
            subresource: "scale",
            manager: &context.manager,
            now: &now,
        };
        let change = |current: &Value| {
            let mut shown = scale_of(&paths, current);
            let parent = Managed::read(&current["metadata"]["managedFields"]).unwrap_or_default();
            meta::set(&mut shown, "managedFields", scale::to_scale(&parent, &family).write());
            let scale = wanted.of(&shown, &write, context)?;
            let replicas = match &scale["spec"]["replicas"] {
                Value::Null => 0,
                replicas => replicas
                    .as_i64()
                    .filter(|replicas| i32::try_from(*replicas).is_ok())
                    .ok_or_else(|| bad_request(format!("spec.replicas: {replicas} is not a number of replicas")))?,
            };
            if replicas < 0 {
                let cause = api::status::Cause {
                    reason: "FieldValueInvalid",
                    message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
                    field: "spec.replicas".to_owned(),
                };
                return Err(refusals::invalid(
                    kind,
                    current["metadata"]["name"].as_str().unwrap_or(""),
                    vec![cause],
                ));
            }
            let mut tree = current.clone();
            for field in ["resourceVersion", "uid"] {
                let given = meta::text(&scale, field);
                // What a Scale leaves out it does not mind.
                if !given.is_empty() {
                    meta::set(&mut tree, field, Some(given.into()));
                }
            }
            set_path(&mut tree, &paths.spec_replicas, replicas.into());
            meta::set(&mut tree, "managedFields", owners_of(kind, &family, &parent, &scale));
            Ok(body::Read {
                tree,
                warnings: Vec::new(),
            })
        };
        let updated = self
            .update_object(context, kind, Aspect::Main, Noted::Already, &change)
            .await?;
        let shown = forms::Shown::new(kind, &Form::Object, &self.planes().world().clock);
        Ok(forms::tree(
            StatusCode::OK,
            &scale_of(&paths, &shown.tree(&updated.stored)),
        ))
    }
}

/// The owners of the object whose scale has changed.
fn owners_of(kind: &Kind, family: &Family, parent: &Managed, scale: &Value) -> Option<Value> {
    let of_scale = Managed::read(&scale["metadata"]["managedFields"]).unwrap_or_default();
    scale::to_parent(parent, of_scale, &kind.resource().api_version(), family).write()
}

/// Where a kind that can be scaled keeps its numbers.
pub(super) fn paths_of(kind: &Kind) -> Option<ScalePaths> {
    match kind {
        Kind::Custom(custom) => custom.scale.clone(),
        Kind::BuiltIn(_) => Some(ScalePaths {
            spec_replicas: ".spec.replicas".to_owned(),
            status_replicas: ".status.replicas".to_owned(),
            label_selector: Some(".spec.selector".to_owned()),
        }),
    }
}

fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": {"replicas": get_path(object, &paths.spec_replicas).and_then(Value::as_i64).unwrap_or(0)},
        "status": {"replicas": get_path(object, &paths.status_replicas).and_then(Value::as_i64).unwrap_or(0)},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !metadata[field].is_null() {
            scale["metadata"][field] = metadata[field].clone();
        }
    }
    let selector = paths.label_selector.as_deref().and_then(|path| get_path(object, path));
    if let Some(text) = selector.map(selector_text).filter(|text| !text.is_empty()) {
        scale["status"]["selector"] = text.into();
    }
    scale
}

/// A selector in its text form: a map of labels, a `LabelSelector`, or text already.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let structured = selector["matchLabels"].is_object() || selector["matchExpressions"].is_array();
    let labels = if structured { &selector["matchLabels"] } else { selector };
    let mut terms: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = expression["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        terms.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

fn get_path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .filter(|part| !part.is_empty())
        .try_fold(object, |value, part| value.get(part))
}

fn set_path(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_reads_as_text() {
        let selector = json!({
            "matchLabels": {"a": "b", "c": "d"},
            "matchExpressions": [{"key": "e", "operator": "NotIn", "values": ["f", "g"]}, {"key": "h", "operator": "Exists"}],
        });

        assert_eq!(selector_text(&selector), "a=b,c=d,e notin (f,g),h");
        assert_eq!(selector_text(&json!({"a": "b"})), "a=b");
    }
}
