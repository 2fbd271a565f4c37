//! Roles and their bindings.

use serde_json::Value;

use super::check::{Check, list, text};
use crate::{Resource, field::Path, names, resource::Scope};

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn check_role(check: &mut Check, resource: &Resource, role: &Value) {
    let rules = Path::ROOT.field("rules");
    for (at, rule) in list(&role["rules"]).iter().enumerate() {
        let path = rules.index(at);
        let has = |field: &str| !list(&rule[field]).is_empty();
        if !has("verbs") {
            check.required(&path.field("verbs"), "verbs must contain at least one value");
        }
        if has("nonResourceURLs") {
            let urls = path.field("nonResourceURLs");
            if resource.scope == Scope::Namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                check.invalid(&urls, rule["nonResourceURLs"].clone(), detail);
            }
            if has("apiGroups") || has("resources") || has("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                check.invalid(&urls, rule["nonResourceURLs"].clone(), detail);
            }
            continue;
        }
        if !has("apiGroups") {
            check.required(
                &path.field("apiGroups"),
                "resource rules must supply at least one api group",
            );
        }
        if !has("resources") {
            check.required(
                &path.field("resources"),
                "resource rules must supply at least one resource",
            );
        }
    }
    if let Some(aggregation) = role.get("aggregationRule").filter(|rule| rule.is_object()) {
        let path = Path::ROOT.field("aggregationRule");
        let path = path.field("clusterRoleSelectors");
        let selectors = list(&aggregation["clusterRoleSelectors"]);
        if selectors.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            check.required(&path, detail);
        }
        for (at, selector) in selectors.iter().enumerate() {
            check.label_selector(&path.index(at), selector);
        }
    }
}

pub fn check_binding(check: &mut Check, resource: &Resource, binding: &Value, old: Option<&Value>) {
    let role = &binding["roleRef"];
    let path = Path::ROOT.field("roleRef");
    if text(&role["apiGroup"]) != GROUP {
        check.not_supported(&path.field("apiGroup"), text(&role["apiGroup"]), &[GROUP]);
    }
    let kinds: &[&str] = match resource.scope {
        Scope::Namespaced => &["ClusterRole", "Role"],
        Scope::Cluster => &["ClusterRole"],
    };
    if !kinds.contains(&text(&role["kind"])) {
        check.not_supported(&path.field("kind"), text(&role["kind"]), kinds);
    }
    check.required_name(&path.field("name"), &role["name"], names::path_segment);
    let subjects = Path::ROOT.field("subjects");
    for (at, subject) in list(&binding["subjects"]).iter().enumerate() {
        check_subject(check, &subjects.index(at), subject, resource.scope);
    }
    if let Some(old) = old
        && old["roleRef"] != *role
    {
        check.invalid(&path, role.clone(), "cannot change roleRef");
    }
}

fn check_subject(check: &mut Check, path: &Path, subject: &Value, scope: Scope) {
    let name = text(&subject["name"]);
    if name.is_empty() {
        check.required(&path.field("name"), "");
    }
    let group = text(&subject["apiGroup"]);
    match text(&subject["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                check.named(&path.field("name"), name, names::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                check.not_supported(&path.field("apiGroup"), group, &[""]);
            }
            if scope == Scope::Cluster && text(&subject["namespace"]).is_empty() {
                check.required(&path.field("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                check.not_supported(&path.field("apiGroup"), group, &[GROUP]);
            }
        }
        other => check.not_supported(&path.field("kind"), other, &["Group", "ServiceAccount", "User"]),
    }
}
