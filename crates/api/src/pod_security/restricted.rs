//! What a Pod has to give up to be as harmless as it can.

use serde_json::Value;

use super::{
    Violation, baseline, containers, distinct, has_own_users, is_windows, name, named, plural, quoted, sayers, these,
};

/// In upstream's order.
pub(super) fn check(spec: &Value) -> Vec<Violation> {
    let linux = !is_windows(spec);
    [
        linux.then(|| escalation(spec)).flatten(),
        linux.then(|| capabilities(spec)).flatten(),
        baseline::proc_mount(spec),
        volumes(spec),
        (!has_own_users(spec)).then(|| non_root(spec)).flatten(),
        (!has_own_users(spec)).then(|| root_by_number(spec)).flatten(),
        linux.then(|| seccomp(spec)).flatten(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn escalation(spec: &Value) -> Option<Violation> {
    let names = named(spec, |container| {
        container["securityContext"]["allowPrivilegeEscalation"] != false
    });
    (!names.is_empty()).then(|| {
        let detail = format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            these(&names)
        );
        Violation::new("allowPrivilegeEscalation != false", detail)
    })
}

fn capabilities(spec: &Value) -> Option<Violation> {
    fn list<'a>(container: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
        let list = container["securityContext"]["capabilities"][field].as_array();
        list.into_iter().flatten().filter_map(Value::as_str)
    }
    fn forbidden(container: &Value) -> impl Iterator<Item = &str> {
        list(container, "add").filter(|capability| *capability != "NET_BIND_SERVICE")
    }
    let keeping = named(spec, |container| {
        list(container, "drop").all(|dropped| dropped != "ALL")
    });
    let adding = named(spec, |container| forbidden(container).next().is_some());
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            these(&keeping)
        ));
    }
    if !adding.is_empty() {
        let all = distinct(containers(spec).flat_map(forbidden));
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            these(&adding),
            quoted(&all)
        ));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes(spec: &Value) -> Option<Violation> {
    let bad: Vec<&Value> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|volume| VOLUMES.into_iter().all(|kind| volume[kind].is_null()))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let kinds = distinct(bad.iter().map(|volume| {
        let fields = volume.as_object().into_iter().flatten();
        fields
            .filter(|(field, source)| *field != "name" && !source.is_null())
            .map(|(field, _)| field.as_str())
            .next()
            .unwrap_or("unknown")
    }));
    let names: Vec<&str> = bad.iter().map(|volume| name(volume)).collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", names.len()),
        quoted(&names),
        if names.len() == 1 { "uses" } else { "use" },
        plural("restricted volume type", kinds.len()),
        quoted(&kinds)
    );
    Some(Violation::new("restricted volume types", detail))
}

fn non_root(spec: &Value) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    fn says(owner: &Value) -> &Value {
        &owner["securityContext"]["runAsNonRoot"]
    }
    if let Some(who) = sayers(
        *says(spec) == false,
        &named(spec, |container| *says(container) == false),
    ) {
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Some(Violation::new(REASON, detail));
    }
    let silent = named(spec, |container| says(container).is_null());
    (*says(spec) != true && !silent.is_empty()).then(|| {
        let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", these(&silent));
        Violation::new(REASON, detail)
    })
}

fn root_by_number(spec: &Value) -> Option<Violation> {
    let bad = |owner: &Value| owner["securityContext"]["runAsUser"] == 0;
    let who = sayers(bad(spec), &named(spec, bad))?;
    Some(Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

fn seccomp(spec: &Value) -> Option<Violation> {
    if let Some(violation) = baseline::seccomp(spec) {
        return Some(violation);
    }
    let silent = named(spec, |container| {
        container["securityContext"]["seccompProfile"].is_null()
    });
    (spec["securityContext"]["seccompProfile"].is_null() && !silent.is_empty()).then(|| {
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            these(&silent)
        );
        Violation::new("seccompProfile", detail)
    })
}
