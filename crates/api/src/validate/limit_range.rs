//! LimitRanges.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    check::{Check, Seen, list, text},
    resources::{check_container_resource, check_resource_name, overcommits},
};
use crate::{
    amounts::{Amounts, amounts},
    field::Path,
    names,
    quantity::Quantity,
};

pub fn check_limit_range(check: &mut Check, range: &Value) {
    let spec = Path::ROOT.field("spec");
    let limits_path = spec.field("limits");
    let limits = list(&range["spec"]["limits"]);
    let mut seen = Seen::default();
    for (at, limit) in limits.iter().enumerate() {
        let path = limits_path.index(at);
        let kind = text(&limit["type"]);
        check_type(check, &path.field("type"), kind);
        if seen.again(kind) {
            check.duplicate(&path.field("type"), kind);
        }
        check_limit(check, &path, limit, kind);
    }
}

fn check_type(check: &mut Check, path: &Path, kind: &str) {
    let problems = names::qualified_name(kind);
    if !problems.is_empty() {
        check.named(path, kind, problems);
    } else if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
        check.invalid(path, kind, "must be a standard limit type or fully qualified");
    }
}

/// What is bounded: the amounts of each of a limit's fields.
struct Bounds {
    min: Amounts,
    max: Amounts,
    default: Amounts,
    request: Amounts,
    ratio: Amounts,
}

fn check_limit(check: &mut Check, path: &Path, limit: &Value, kind: &str) {
    let read = |field: &str| amounts(&limit[field]);
    let mut bounds = Bounds {
        min: read("min"),
        max: read("max"),
        default: read("default"),
        request: read("defaultRequest"),
        ratio: read("maxLimitRequestRatio"),
    };
    if kind == "Pod" {
        for (field, amounts) in [
            ("default", &mut bounds.default),
            ("defaultRequest", &mut bounds.request),
        ] {
            if !amounts.is_empty() {
                check.forbidden(&path.field(field), "may not be specified when `type` is 'Pod'");
            }
            amounts.clear();
        }
    }
    let fields = [
        ("max", &bounds.max),
        ("min", &bounds.min),
        ("default", &bounds.default),
        ("defaultRequest", &bounds.request),
        ("maxLimitRequestRatio", &bounds.ratio),
    ];
    let mut names: BTreeSet<&String> = BTreeSet::new();
    for (field, amounts) in fields {
        let path = path.field(field);
        for name in amounts.keys() {
            let entry = path.key(name);
            if matches!(kind, "Pod" | "Container") {
                check_container_resource(check, &entry, name);
            } else {
                check_resource_name(check, &entry, name);
            }
            names.insert(name);
        }
    }
    if kind == "PersistentVolumeClaim" && !bounds.min.contains_key("storage") && !bounds.max.contains_key("storage") {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        check.required(&path.field("limits"), detail);
    }
    for name in names {
        check_order(check, path, name, &bounds);
        check_ratio(check, path, name, &bounds);
    }
}

/// From small to large: minimum, default request, default limit, maximum.
fn check_order(check: &mut Check, path: &Path, name: &str, bounds: &Bounds) {
    let get = |amounts: &Amounts| amounts.get(name).copied();
    let (min, max) = (get(&bounds.min), get(&bounds.max));
    let (default, request) = (get(&bounds.default), get(&bounds.request));
    let mut above =
        |field: &str, shown: Option<Quantity>, low: (&str, Option<Quantity>), high: (&str, Option<Quantity>)| {
            if let (Some(shown), Some(less), Some(more)) = (shown, low.1, high.1)
                && less > more
            {
                let detail = format!("{} value {less} is greater than {} value {more}", low.0, high.0);
                let field = path.field(field);
                check.invalid(&field.key(name), shown.to_string(), detail);
            }
        };
    above("min", min, ("min", min), ("max", max));
    above("defaultRequest", request, ("min", min), ("default request", request));
    above("defaultRequest", request, ("default request", request), ("max", max));
    above(
        "defaultRequest",
        request,
        ("default request", request),
        ("default limit", default),
    );
    above("default", min, ("min", min), ("default", default));
    above("default", max, ("default", default), ("max", max));
    if let (Some(default), Some(request)) = (default, request)
        && default != request
        && !overcommits(name)
    {
        let detail = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        let field = path.field("defaultRequest");
        check.invalid(&field.key(name), request.to_string(), detail);
    }
}

fn check_ratio(check: &mut Check, path: &Path, name: &str, bounds: &Bounds) {
    let Some(ratio) = bounds.ratio.get(name).copied() else {
        return;
    };
    let field = path.field("maxLimitRequestRatio");
    let path = field.key(name);
    if ratio < Quantity::from_integer(1) {
        check.invalid(&path, ratio.to_string(), format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (bounds.min.get(name), bounds.max.get(name)) {
        let most = max.milli() as f64 / min.milli() as f64;
        if ratio.milli() as f64 / 1000.0 > most {
            let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
            check.invalid(&path, ratio.to_string(), detail);
        }
    }
}
