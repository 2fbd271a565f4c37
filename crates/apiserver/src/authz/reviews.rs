//! The reviews: questions about who may do what, asked as objects that are never stored.

use api::{Reason, Status};
use serde_json::{Value, json};

use super::{
    Authorizer,
    attributes::{Attributes, ResourceTarget, Target},
    book::Verdict,
    rule::Rule,
};
use crate::{
    context::Identity,
    planes::{Plane, Planes},
};

/// Answers a review of `authorization.k8s.io`. `namespace` is the path's, of a LocalSubjectAccessReview.
pub async fn answer(
    authorizer: &Authorizer,
    planes: &Planes,
    plane: &Plane,
    user: &Identity,
    resource: &str,
    namespace: Option<&str>,
    mut review: Value,
) -> Result<Value, Status> {
    let spec = review["spec"].clone();
    review["status"] = match resource {
        "selfsubjectaccessreviews" => {
            let attributes = attributes(&spec)?;
            access(authorizer.judge(planes, plane, user, &attributes).await?)
        }
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let attributes = attributes(&spec)?;
            if resource == "localsubjectaccessreviews" && namespace != Some(attributes.namespace()) {
                return Err(Status::new(
                    Reason::BadRequest,
                    format!(
                        "spec.resourceAttributes.namespace must match namespace: {}",
                        namespace.unwrap_or_default()
                    ),
                ));
            }
            let about = subject(&spec)?;
            access(authorizer.judge(planes, plane, &about, &attributes).await?)
        }
        "selfsubjectrulesreviews" => {
            let namespace = spec["namespace"].as_str().unwrap_or_default();
            if namespace.is_empty() {
                return Err(Status::new(Reason::BadRequest, "no namespace on request"));
            }
            let book = authorizer.book(planes, plane).await?;
            rules(&book.rules(user, namespace), user)
        }
        _ => {
            return Err(Status::new(
                Reason::NotFound,
                "the server could not find the requested resource",
            ));
        }
    };
    Ok(review)
}

fn access(verdict: Verdict) -> Value {
    let mut status = json!({"allowed": verdict.is_allowed()});
    if !verdict.reason().is_empty() {
        status["reason"] = verdict.reason().into();
    }
    status
}

fn subject(spec: &Value) -> Result<Identity, Status> {
    let user = spec["user"].as_str().unwrap_or_default();
    let groups = strings(&spec["groups"]);
    if user.is_empty() && groups.is_empty() {
        return Err(Status::new(
            Reason::Invalid,
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ));
    }
    Ok(Identity {
        name: user.to_owned(),
        groups,
        ..Identity::default()
    })
}

fn attributes(spec: &Value) -> Result<Attributes, Status> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    match (resource.is_object(), path.is_object()) {
        (true, false) => Ok(Attributes::resource(
            &text(resource, "verb"),
            ResourceTarget {
                group: text(resource, "group"),
                resource: text(resource, "resource"),
                subresource: text(resource, "subresource"),
                namespace: text(resource, "namespace"),
                name: text(resource, "name"),
            },
        )),
        (false, true) => Ok(Attributes {
            verb: text(path, "verb"),
            target: Target::Path(text(path, "path")),
        }),
        _ => Err(Status::new(
            Reason::Invalid,
            "spec.resourceAttributes: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must \
             be specified",
        )),
    }
}

fn rules(rules: &[&Rule], user: &Identity) -> Value {
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if user.in_group(super::SUPERUSERS) {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for rule in rules {
        if !rule.resources.is_empty() {
            let mut entry = json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
            if !rule.names.is_empty() {
                entry["resourceNames"] = json!(rule.names);
            }
            resources.push(entry);
        }
        if !rule.paths.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
        }
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_asks_about_one_thing() {
        let resource = json!({"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "web"}});
        let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}});
        let mut both = resource.clone();
        both["nonResourceAttributes"] = path["nonResourceAttributes"].clone();

        assert_eq!(attributes(&resource).unwrap().namespace(), "web");
        assert_eq!(attributes(&path).unwrap().target, Target::Path("/metrics".into()));
        assert_eq!(attributes(&both).unwrap_err().code(), 422);
        assert_eq!(attributes(&json!({})).unwrap_err().code(), 422);
    }

    #[test]
    fn somebody_has_to_be_asked_about() {
        assert!(subject(&json!({"groups": ["dev"]})).is_ok());
        assert_eq!(subject(&json!({})).unwrap_err().code(), 422);
    }
}
