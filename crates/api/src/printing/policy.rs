//! Admission policies and what binds them.

use serde_json::{Value, json};

use super::{Printer, age, column, list, name, number, or, selector, text};

pub(super) const VALIDATING_POLICIES: Printer = Printer {
    columns: &[
        column("Name"),
        number("Validations"),
        column("ParamKind"),
        column("Age"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        vec![
            name(object),
            json!(list(&spec["validations"]).len()),
            json!(param_kind(spec)),
            age(object, now),
        ]
    },
};

pub(super) const MUTATING_POLICIES: Printer = Printer {
    columns: &[column("Name"), number("Mutations"), column("ParamKind"), column("Age")],
    cells: |object, now| {
        let spec = &object["spec"];
        vec![
            name(object),
            json!(list(&spec["mutations"]).len()),
            json!(param_kind(spec)),
            age(object, now),
        ]
    },
};

fn param_kind(spec: &Value) -> String {
    let kind = &spec["paramKind"];
    if kind.is_null() {
        return "<unset>".to_owned();
    }
    format!("{}/{}", text(&kind["apiVersion"]), text(&kind["kind"]))
}

pub(super) const BINDINGS: Printer = Printer {
    columns: &[column("Name"), column("PolicyName"), column("ParamRef"), column("Age")],
    cells: |object, now| {
        let reference = &object["spec"]["paramRef"];
        let param = match text(&reference["name"]) {
            "" if reference["selector"].is_null() => "<unset>".to_owned(),
            "" => selector(&reference["selector"]),
            // Whether it lies in a namespace can't be told from here.
            named => format!("{}/{named}", or(text(&reference["namespace"]), "*")),
        };
        vec![
            name(object),
            json!(text(&object["spec"]["policyName"])),
            json!(param),
            age(object, now),
        ]
    },
};
