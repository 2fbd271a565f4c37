//! Webhook configurations.

use serde_json::Value;

use super::check::{Check, Seen, list, text};
use crate::{field::Path, names};

/// Upstream's limit of a call's time.
const TIMEOUT_SECONDS_MAX: i64 = 30;

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub fn check_webhooks(check: &mut Check, configuration: &Value) {
    let webhooks_path = Path::ROOT.field("webhooks");
    let webhooks = list(&configuration["webhooks"]);
    let mut seen = Seen::default();
    for (at, webhook) in webhooks.iter().enumerate() {
        let path = webhooks_path.index(at);
        check_webhook(check, &path, webhook);
        check_versions(
            check,
            &path.field("admissionReviewVersions"),
            &webhook["admissionReviewVersions"],
        );
        let name = text(&webhook["name"]);
        if !name.is_empty() && seen.again(name) {
            check.duplicate(&path.field("name"), name);
        }
    }
}

fn check_webhook(check: &mut Check, path: &Path, webhook: &Value) {
    let name = text(&webhook["name"]);
    let name_path = path.field("name");
    if name.is_empty() {
        check.required(&name_path, "");
    } else {
        let problems = names::dns1123_subdomain(name);
        let well_formed = problems.is_empty();
        check.named(&name_path, name, problems);
        if well_formed && name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            check.invalid(&name_path, name, detail);
        }
    }
    let rules = path.field("rules");
    for (at, rule) in list(&webhook["rules"]).iter().enumerate() {
        check_rule(check, &rules.index(at), rule);
    }
    for (field, supported) in [
        ("failurePolicy", ["Fail", "Ignore"]),
        ("matchPolicy", ["Equivalent", "Exact"]),
        ("reinvocationPolicy", ["IfNeeded", "Never"]),
    ] {
        check.one_of_or_none(&path.field(field), &webhook[field], &supported);
    }
    let effects = path.field("sideEffects");
    if webhook["sideEffects"].is_null() {
        check.required(&effects, "must specify one of None, NoneOnDryRun");
    } else {
        check.one_of_or_none(&effects, &webhook["sideEffects"], &["None", "NoneOnDryRun"]);
    }
    if let Some(seconds) = webhook["timeoutSeconds"]
        .as_i64()
        .filter(|seconds| !(1..=TIMEOUT_SECONDS_MAX).contains(seconds))
    {
        let detail = "the timeout value must be between 1 and 30 seconds";
        check.invalid(&path.field("timeoutSeconds"), seconds, detail);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        check.label_selector(&path.field(field), &webhook[field]);
    }
    check_client(check, &path.field("clientConfig"), &webhook["clientConfig"]);
    let conditions_path = path.field("matchConditions");
    let conditions = list(&webhook["matchConditions"]);
    let mut seen = Seen::default();
    for (at, condition) in conditions.iter().enumerate() {
        let path = conditions_path.index(at);
        let name = text(&condition["name"]);
        if text(&condition["expression"]).trim().is_empty() {
            check.required(&path.field("expression"), "");
        }
        check.required_name(&path.field("name"), &condition["name"], names::qualified_name);
        if !name.is_empty() && seen.again(name) {
            check.duplicate(&path.field("name"), name);
        }
    }
}

fn check_client(check: &mut Check, path: &Path, client: &Value) {
    let (url, service) = (&client["url"], &client["service"]);
    match (url.as_str(), service.is_null()) {
        (Some(url), true) => check_url(check, &path.field("url"), url),
        (None, false) => {
            let path = path.field("service");
            for field in ["name", "namespace"] {
                let value = text(&service[field]);
                if value.is_empty() {
                    check.required(&path.field(field), format!("service {field} is required"));
                }
            }
            if let Some(port) = service["port"].as_i64().filter(|port| !(1..=65535).contains(port)) {
                let detail = "port is not valid: must be between 1 and 65535, inclusive";
                check.invalid(&path.field("port"), port, detail);
            }
            let target = text(&service["path"]);
            if !target.is_empty() && !target.starts_with('/') {
                check.invalid(&path.field("path"), target, "must start with a '/'");
            }
        }
        _ => check.required(path, "exactly one of url or service is required"),
    }
}

fn check_url(check: &mut Check, path: &Path, url: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some(rest) = url.strip_prefix("https://") else {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        check.invalid(path, scheme, detail);
        return;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.is_empty() {
        check.invalid(path, "", format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = authority.split_once('@') {
        let detail = "user information is not permitted in the URL";
        check.invalid(path, user, detail);
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        check.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = rest.split('#').next().unwrap_or("").split_once('?') {
        check.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

fn check_versions(check: &mut Check, path: &Path, versions: &Value) {
    let all = list(versions);
    if all.is_empty() {
        check.required(path, "must specify one of v1, v1beta1");
        return;
    }
    let mut seen = Seen::default();
    for (at, version) in all.iter().enumerate() {
        let path = path.index(at);
        if seen.again(text(version)) {
            check.invalid(&path, text(version), "duplicate version");
        } else {
            check.named(&path, text(version), names::dns1035_label(text(version)));
        }
    }
    if !all.iter().any(|version| REVIEW_VERSIONS.contains(&text(version))) {
        check.invalid(path, versions.clone(), "must include at least one of v1, v1beta1");
    }
}

fn check_rule(check: &mut Check, path: &Path, rule: &Value) {
    const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    let lone_star = |field: &str| {
        let all = list(&rule[field]);
        all.len() > 1 && all.iter().any(|one| one == "*")
    };
    for (field, others) in [
        ("operations", "operations"),
        ("apiGroups", "API groups"),
        ("apiVersions", "API versions"),
    ] {
        let path = path.field(field);
        if list(&rule[field]).is_empty() {
            check.required(&path, "");
        }
        if lone_star(field) {
            let detail = format!("if '*' is present, must not specify other {others}");
            check.invalid(&path, rule[field].clone(), detail);
        }
        for (at, value) in list(&rule[field]).iter().enumerate() {
            if field == "operations" && !OPERATIONS.contains(&text(value)) {
                check.not_supported(&path.index(at), value.clone(), &OPERATIONS);
            }
            if field == "apiVersions" && text(value).is_empty() {
                check.required(&path.index(at), "");
            }
        }
    }
    check_rule_resources(check, &path.field("resources"), &rule["resources"]);
    check.one_of_or_none(&path.field("scope"), &rule["scope"], &["*", "Cluster", "Namespaced"]);
}

fn check_rule_resources(check: &mut Check, path: &Path, resources: &Value) {
    let all: Vec<&str> = list(resources).iter().map(text).collect();
    if all.is_empty() {
        check.required(path, "");
    }
    let mut seen = Seen::default();
    for (at, one) in all.iter().enumerate() {
        let path = path.index(at);
        let Some((resource, sub)) = one.split_once('/') else {
            if one.is_empty() {
                check.required(&path, "");
            }
            continue;
        };
        for wider in [format!("{resource}/*"), format!("*/{sub}")] {
            if seen.has(&wider) {
                let detail = format!("if '{wider}' is present, must not specify {one}");
                check.invalid(&path, *one, detail);
            }
        }
        seen.again(*one);
    }
    if all.len() > 1 && all.contains(&"*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        check.invalid(path, resources.clone(), detail);
    }
    if all.contains(&"*")
        && all
            .iter()
            .any(|one| *one != "*" && !one.is_empty() && !one.contains('/'))
    {
        let detail = "if '*' is present, must not specify other resources without subresources";
        check.invalid(path, resources.clone(), detail);
    }
}
