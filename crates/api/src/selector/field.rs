//! Field selectors: `spec.nodeName=one,status.phase!=Failed`. Which fields of a kind can be selected is a short
//! list of its own; `metadata.name` and `metadata.namespace` always can.

use serde_json::Value;

use crate::{
    Object, Resource,
    status::{Reason, Status},
};

/// All terms must hold. Without any, everything matches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Term {
    /// In stored objects, which may be of another version than the request.
    field: String,
    equal: bool,
    value: String,
}

/// The selectable fields of built-in kinds: as asked for, and where stored (empty where it is the same).
fn fields(group: &str, plural: &str) -> &'static [(&'static str, &'static str)] {
    match (group, plural) {
        ("", "pods") => &[
            ("spec.nodeName", ""),
            ("spec.host", "spec.nodeName"),
            ("spec.restartPolicy", ""),
            ("spec.schedulerName", ""),
            ("spec.serviceAccountName", ""),
            ("spec.hostNetwork", ""),
            ("status.phase", ""),
            ("status.podIP", ""),
            ("status.podIPs", "status.podIP"),
            ("status.nominatedNodeName", ""),
        ],
        ("", "nodes") => &[("spec.unschedulable", "")],
        ("", "namespaces") => &[("status.phase", "")],
        ("", "secrets") => &[("type", "")],
        ("", "services") => &[("spec.clusterIP", ""), ("spec.type", "")],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &[("status.replicas", "")],
        ("", "events") => &[
            ("involvedObject.kind", ""),
            ("involvedObject.namespace", ""),
            ("involvedObject.name", ""),
            ("involvedObject.uid", ""),
            ("involvedObject.apiVersion", ""),
            ("involvedObject.resourceVersion", ""),
            ("involvedObject.fieldPath", ""),
            ("reason", ""),
            ("reportingComponent", ""),
            ("source", ""),
            ("type", ""),
        ],
        ("events.k8s.io", "events") => &[
            ("regarding.kind", "involvedObject.kind"),
            ("regarding.namespace", "involvedObject.namespace"),
            ("regarding.name", "involvedObject.name"),
            ("regarding.uid", "involvedObject.uid"),
            ("regarding.apiVersion", "involvedObject.apiVersion"),
            ("regarding.resourceVersion", "involvedObject.resourceVersion"),
            ("regarding.fieldPath", "involvedObject.fieldPath"),
            ("reason", ""),
            ("reportingController", "reportingComponent"),
            ("type", ""),
        ],
        ("batch", "jobs") => &[("status.successful", "status.succeeded")],
        ("certificates.k8s.io", "certificatesigningrequests" | "clustertrustbundles") => &[("spec.signerName", "")],
        ("certificates.k8s.io", "podcertificaterequests") => {
            &[("spec.signerName", ""), ("spec.podName", ""), ("spec.nodeName", "")]
        }
        ("resource.k8s.io", "resourceslices") => &[("spec.nodeName", ""), ("spec.driver", "")],
        ("coordination.k8s.io", "leasecandidates") => &[("spec.leaseName", "")],
        _ => &[],
    }
}

impl FieldSelector {
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    /// Reads the `fieldSelector` parameter. `custom` are a custom resource's selectable fields (`spec.color`).
    pub fn parse(resource: &Resource, custom: &[&str], text: &str) -> Result<FieldSelector, Status> {
        let refuse = |problem: String| Status::new(Reason::BadRequest, problem);
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let Some((field, equal, value)) = split_term(part) else {
                return Err(refuse(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            terms.push(Term {
                field: stored_field(resource, custom, field).map_err(refuse)?,
                equal,
                value: unescape(value).map_err(refuse)?,
            });
        }
        Ok(FieldSelector { terms })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The one value that a field must have: lists of one name or of one node can be answered by look-up.
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.field == field)
            .map(|term| term.value.as_str())
    }

    /// `object` is in its stored version.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms
            .iter()
            .all(|term| (field_value(object, &term.field) == term.value) == term.equal)
    }

    pub fn matches_object(&self, object: &Object) -> bool {
        self.is_everything() || self.matches(object.tree())
    }
}

fn stored_field(resource: &Resource, custom: &[&str], field: &str) -> Result<String, String> {
    if matches!(field, "metadata.name" | "metadata.namespace") || custom.contains(&field) {
        return Ok(field.to_owned());
    }
    let known = fields(&resource.group, &resource.plural);
    match known.iter().find(|(name, _)| *name == field) {
        Some((name, "")) => Ok((*name).to_owned()),
        Some((_, stored)) => Ok((*stored).to_owned()),
        None if &*resource.plural == "jobs" && &*resource.group == "batch" => {
            Err(format!("field label {field:?} not supported for Job"))
        }
        None if known.is_empty() && crate::table::group(&resource.group).is_some() => Err(format!(
            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        )),
        None => Err(format!("field label not supported: {field}")),
    }
}

/// A field's value as text; absent ones read as what they default to.
fn field_value(object: &Value, field: &str) -> String {
    if field == "source" {
        let component = text_of(&object["source"]["component"]);
        return if component.is_empty() {
            text_of(&object["reportingComponent"])
        } else {
            component
        };
    }
    let value = field.split('.').fold(object, |value, step| &value[step]);
    match (value, field) {
        (Value::Null, "spec.unschedulable" | "spec.hostNetwork") => "false".to_owned(),
        (Value::Null, "status.replicas" | "status.succeeded") => "0".to_owned(),
        (value, _) => text_of(value),
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == ',' {
            terms.push(&text[start..at]);
            start = at + 1;
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    term.char_indices().find_map(|(at, _)| {
        [("!=", false), ("==", true), ("=", true)]
            .into_iter()
            .find_map(|(operator, equal)| Some((&term[..at], equal, term[at..].strip_prefix(operator)?)))
    })
}

fn unescape(value: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                Some(other) => return Err(format!("invalid field selector: invalid escape sequence: \\{other}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".to_owned()),
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                ));
            }
            other => plain.push(other),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::resource::{CONFIG_MAPS, EVENTS, JOBS, NODES, PODS};

    #[test]
    fn fields_are_compared_as_text() {
        let pod = json!({"metadata": {"name": "one", "namespace": "web"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        for (selector, expected) in [
            ("", true),
            ("spec.nodeName=n1", true),
            ("spec.nodeName==n2", false),
            ("status.phase!=Succeeded,status.phase!=Failed", true),
            ("metadata.name=one,metadata.namespace=web", true),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
        ] {
            assert_eq!(
                FieldSelector::parse(&PODS, &[], selector).unwrap().matches(&pod),
                expected,
                "{selector}"
            );
        }
        let nodes = FieldSelector::parse(&NODES, &[], "spec.unschedulable=false").unwrap();
        assert!(nodes.matches(&json!({"spec": {}})));
        assert!(!nodes.matches(&json!({"spec": {"unschedulable": true}})));
        let jobs = FieldSelector::parse(&JOBS, &[], "status.successful=2").unwrap();
        assert!(jobs.matches(&json!({"status": {"succeeded": 2}})));
    }

    #[test]
    fn events_of_either_group_are_matched_as_stored() {
        let event = json!({"involvedObject": {"name": "one"}, "source": {"component": "kubelet"}});
        let resource = crate::table::find("events.k8s.io", "v1", "events").unwrap();

        let new = FieldSelector::parse(&resource.resource, &[], "regarding.name=one").unwrap();
        let old = FieldSelector::parse(&EVENTS, &[], "involvedObject.name=one,source=kubelet").unwrap();

        assert!(new.matches(&event));
        assert!(old.matches(&event));
    }

    #[test]
    fn unknown_fields_are_refused_in_upstreams_words() {
        for (resource, selector, words) in [
            (&PODS, "spec.foo=1", "field label not supported: spec.foo"),
            (
                &CONFIG_MAPS,
                "data=1",
                "\"data\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            ),
            (&JOBS, "a=1", "field label \"a\" not supported for Job"),
            (&PODS, "spec", "invalid selector: 'spec'; can't understand 'spec'"),
            (
                &PODS,
                "metadata.name=a\\b",
                "invalid field selector: invalid escape sequence: \\b",
            ),
        ] {
            assert_eq!(
                FieldSelector::parse(resource, &[], selector).unwrap_err().message,
                words
            );
        }
        assert!(FieldSelector::parse(&CONFIG_MAPS, &["spec.color"], "spec.color=red").is_ok());
    }

    #[test]
    fn an_exact_name_can_be_looked_up() {
        let selector = FieldSelector::parse(&CONFIG_MAPS, &[], "metadata.name=one,metadata.namespace!=a").unwrap();

        assert_eq!(selector.requires("metadata.name"), Some("one"));
        assert_eq!(selector.requires("metadata.namespace"), None);
    }

    proptest! {
        #[test]
        fn an_escaped_value_reads_back(value in "[a-z,=\\\\]{0,12}") {
            let escaped: String = value.chars().flat_map(|c| {
                let slash = matches!(c, ',' | '=' | '\\').then_some('\\');
                slash.into_iter().chain(std::iter::once(c))
            }).collect();
            let selector = FieldSelector::parse(&CONFIG_MAPS, &[], &format!("metadata.name={escaped}")).unwrap();

            prop_assert_eq!(selector.requires("metadata.name"), Some(value.as_str()));
        }
    }
}
