//! Patches from requests: read once, applied anew to each version of the object that is tried.

use api::{
    Resource, Status,
    decode::{self, Strictness},
    field::{self, Path},
    patch::{self, PatchType},
};
use bytes::Bytes;
use serde_json::Value;

use super::{
    Kind,
    body::{self, Read},
    refusals::bad_request,
};
use crate::query::FieldValidation;

/// A patch and what is odd about its own text.
pub(super) struct Patch {
    form: Form,
    problems: Vec<String>,
}

enum Form {
    Json(Bytes),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    pub fn read(patch_type: PatchType, bytes: Bytes) -> Result<Patch, Status> {
        let tree: Value =
            serde_json::from_slice(&bytes).map_err(|error| bad_request(format!("error decoding patch: {error}")))?;
        let twice = decode::duplicates(&bytes, &tree);
        let (form, problems) = match patch_type {
            PatchType::Json => {
                let mut problems = unknown_fields(&tree);
                problems.extend(twice);
                let told = problems.iter().map(|problem| format!("json patch {problem}"));
                let told = told.collect();
                (Form::Json(bytes), told)
            }
            PatchType::Merge => (Form::Merge(tree), twice),
            PatchType::Strategic => (Form::Strategic(tree), twice),
            PatchType::Apply => return Err(bad_request("a configuration is applied, not patched with")),
        };
        Ok(Patch { form, problems })
    }

    /// The patched tree; `resource` says how lists are merged.
    pub fn apply(&self, resource: &Resource, current: &Value) -> Result<Value, Status> {
        match &self.form {
            Form::Json(patch) => patch::json(current, patch),
            Form::Merge(patch) => patch::merge(current, patch),
            Form::Strategic(patch) => patch::strategic(resource, current, patch),
        }
    }

    /// The patched object, decoded. What is wrong with it is, as upstream has it, wrong with the patch.
    pub fn object(&self, kind: &Kind, current: &Value, validation: FieldValidation) -> Result<Read, Status> {
        let patched = self.apply(kind.resource(), current)?;
        let (tree, mut strictness) = body::decoded(kind, patched).map_err(|status| {
            let head = decode::cannot_be_handled(kind.resource(), "").message;
            match status.message.strip_prefix(&head) {
                Some(problem) => self.refusal(kind, current, problem),
                None => status,
            }
        })?;
        body::add_duplicates(&mut strictness, self.problems.clone());
        let warnings = match validation {
            FieldValidation::Ignore => Vec::new(),
            FieldValidation::Warn => strictness.problems,
            FieldValidation::Strict if strictness.problems.is_empty() => Vec::new(),
            FieldValidation::Strict => {
                let Strictness { problems } = strictness;
                let problem = format!("strict decoding error: {}", problems.join(", "));
                return Err(self.refusal(kind, current, &problem));
            }
        };
        Ok(Read { tree, warnings })
    }

    /// Upstream shows what came of the patch, and of a strategic one the patch itself, as Go prints maps.
    fn refusal(&self, kind: &Kind, current: &Value, problem: &str) -> Status {
        let shown = match &self.form {
            Form::Strategic(patch) => go_map(patch),
            _ => self
                .apply(kind.resource(), current)
                .map(|patched| patched.to_string())
                .unwrap_or_default(),
        };
        let cause = field::invalid(&Path::ROOT.field("patch"), shown, problem);
        field::invalid_status("", "", "", vec![cause])
    }
}

/// Fields that no operation of a JSON patch has.
fn unknown_fields(patch: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, operation) in patch.as_array().into_iter().flatten().enumerate() {
        for name in operation.as_object().into_iter().flatten().map(|(name, _)| name) {
            if !matches!(name.as_str(), "op" | "path" | "from" | "value") {
                problems.push(format!("unknown field \"[{at}].{name}\""));
            }
        }
    }
    problems
}

/// As `%+v` prints it.
fn go_map(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_map).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, field)| format!("{name}:{}", go_map(field)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config_map() -> Kind {
        Kind::BuiltIn(api::table::find("", "v1", "configmaps").unwrap())
    }

    #[test]
    fn what_a_strict_client_would_not_have_is_told_of_the_patch() {
        let current = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
        let read = |patch_type, text: &'static str, validation| {
            Patch::read(patch_type, Bytes::from_static(text.as_bytes()))
                .and_then(|patch| patch.object(&config_map(), &current, validation))
        };
        let merge = r#"{"data": {"a": "c", "a": "d"}, "dato": {}}"#;

        let warned = read(PatchType::Merge, merge, FieldValidation::Warn).unwrap();
        let refused = read(PatchType::Strategic, merge, FieldValidation::Strict);
        let wrong = read(PatchType::Strategic, r#"{"data": {"a": 7}}"#, FieldValidation::Ignore);
        let json = r#"[{"op": "add", "path": "/data/x", "value": "y", "foo": 1}]"#;
        let operation = read(PatchType::Json, json, FieldValidation::Warn).unwrap();

        assert_eq!(warned.tree["data"]["a"], "d");
        assert_eq!(
            warned.warnings,
            [r#"unknown field "dato""#, r#"duplicate field "data.a""#]
        );
        assert_eq!(
            refused.map(|_| ()).unwrap_err().message,
            " \"\" is invalid: patch: Invalid value: \"map[data:map[a:d] dato:map[]]\": strict decoding error: unknown \
             field \"dato\", duplicate field \"data.a\""
        );
        let wrong = wrong.map(|_| ()).unwrap_err();
        assert_eq!(wrong.code(), 422);
        assert!(wrong.message.contains("cannot unmarshal number"), "{}", wrong.message);
        assert_eq!(operation.warnings, [r#"json patch unknown field "[0].foo""#]);
    }
}
