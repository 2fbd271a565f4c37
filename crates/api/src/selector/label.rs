//! Label selectors, in the form of query parameters (`app in (a, b),!x`) and of objects (`matchLabels`).

use serde_json::Value;

use super::parse;
use crate::{
    Object,
    field::{self, Path},
    names,
    status::{Cause, Reason, Status},
};

/// All requirements must hold. Without any, everything matches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// A selector that was absent where absence selects nothing.
    nothing: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without duplicates.
    pub values: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    pub fn nothing() -> LabelSelector {
        LabelSelector {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// Reads the `labelSelector` parameter.
    pub fn parse(text: &str) -> Result<LabelSelector, Status> {
        let requirements = parse::parse(text).map_err(|problem| Status::new(Reason::BadRequest, problem))?;
        Ok(LabelSelector {
            requirements,
            nothing: false,
        })
    }

    /// Reads a `metav1.LabelSelector`. As upstream has it, an absent one (null) selects nothing and an empty one
    /// everything.
    pub fn from_json(selector: &Value) -> Result<LabelSelector, Vec<Cause>> {
        if selector.is_null() {
            return Ok(LabelSelector::nothing());
        }
        let problems = validate(selector, &Path::ROOT);
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut read = LabelSelector::from_map(&selector["matchLabels"]);
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str() {
                Some("In") => Operator::In,
                Some("NotIn") => Operator::NotIn,
                Some("Exists") => Operator::Exists,
                _ => Operator::DoesNotExist,
            };
            read.requirements.push(Requirement {
                key: expression["key"].as_str().unwrap_or("").to_owned(),
                operator,
                values: strings(&expression["values"]),
            });
        }
        Ok(read)
    }

    /// A plain map of labels, as Services and replication controllers have it. An empty one matches everything.
    pub fn from_map(labels: &Value) -> LabelSelector {
        let requirements = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str().unwrap_or("").to_owned()],
            })
            .collect();
        LabelSelector {
            requirements,
            nothing: false,
        }
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// `labels` is `metadata.labels`; null stands for none.
    pub fn matches(&self, labels: &Value) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    pub fn matches_object(&self, object: &Object) -> bool {
        self.is_everything() || self.matches(&object.tree()["metadata"]["labels"])
    }
}

/// What is wrong with a `metav1.LabelSelector`.
pub fn validate(selector: &Value, path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    let labels_path = path.field("matchLabels");
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        for problem in names::qualified_name(key) {
            causes.push(field::invalid(&labels_path, key.as_str(), problem));
        }
        let value = value.as_str().unwrap_or("");
        for problem in names::label_value(value) {
            causes.push(field::invalid(&labels_path, value, problem));
        }
    }
    let expressions_path = path.field("matchExpressions");
    for (at, expression) in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let path = expressions_path.index(at);
        let key = expression["key"].as_str().unwrap_or("");
        let values = expression["values"].as_array().map_or(&[][..], Vec::as_slice);
        let values_path = path.field("values");
        match expression["operator"].as_str().unwrap_or("") {
            "In" | "NotIn" => {
                if values.is_empty() {
                    let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                    causes.push(field::required(&values_path, detail));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    causes.push(field::forbidden(&values_path, detail));
                }
            }
            other => causes.push(field::invalid(
                &path.field("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        for problem in names::qualified_name(key) {
            causes.push(field::invalid(&path.field("key"), key, problem));
        }
        for (at, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or("");
            for problem in names::label_value(value) {
                causes.push(field::invalid(&values_path.index(at), value, problem));
            }
        }
    }
    causes
}

fn strings(values: &Value) -> Vec<String> {
    let mut values: Vec<String> = values
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect();
    values.sort();
    values.dedup();
    values
}

impl Requirement {
    pub fn matches(&self, labels: &Value) -> bool {
        let value = labels.get(&self.key).and_then(Value::as_str);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.has(value)),
            Operator::NotIn => value.is_none_or(|value| !self.has(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|(label, bound)| label > bound),
            Operator::LessThan => self.compare(value).is_some_and(|(label, bound)| label < bound),
        }
    }

    fn has(&self, value: &str) -> bool {
        self.values.iter().any(|has| has == value)
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_operator_of_the_text_form() {
        let labels = json!({"app": "web", "tier": "front", "n": "5", "empty": ""});
        for (selector, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier=front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, db)", true),
            ("app notin (web,db)", false),
            ("other notin (web)", true),
            ("empty in (,a)", true),
            ("empty=", true),
            ("n>4", true),
            ("n<5", false),
            ("app>1", false),
            ("in in (a)", false),
            ("example.com/x notin (a),app", true),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap_or_else(|status| panic!("{selector}: {status}"));
            assert_eq!(parsed.matches(&labels), expected, "{selector}");
        }
        assert!(LabelSelector::parse("a").unwrap().requirements().len() == 1);
        assert!(!LabelSelector::parse("a").unwrap().matches(&Value::Null));
    }

    #[test]
    fn refusals_are_upstreams() {
        for (selector, words) in [
            ("a in", "unable to parse requirement: found '' expected: '('"),
            ("a,", "found '', expected: identifier after ','"),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            (
                "a in (b c)",
                "unable to parse requirement: found 'c', expected: ',' or ')'",
            ),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            let status = LabelSelector::parse(selector).unwrap_err();
            assert_eq!(status.message, words, "{selector}");
            assert_eq!(status.code(), 400);
        }
        assert!(LabelSelector::parse("-a=b").unwrap_err().message.starts_with(
            "unable to parse requirement: key: Invalid value: \"-a\": name part must consist of alphanumeric"
        ));
    }

    #[test]
    fn the_object_form_reads_labels_and_expressions() {
        let selector = LabelSelector::from_json(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}, {"key": "x", "operator": "DoesNotExist"}],
        }))
        .unwrap();

        assert!(selector.matches(&json!({"app": "web", "tier": "front"})));
        assert!(!selector.matches(&json!({"app": "web", "tier": "back"})));
        assert!(!selector.matches(&json!({"app": "web", "x": ""})));
        assert!(LabelSelector::from_json(&json!({})).unwrap().matches(&Value::Null));
        assert!(!LabelSelector::from_json(&Value::Null).unwrap().matches(&Value::Null));
        let causes =
            LabelSelector::from_json(&json!({"matchExpressions": [{"key": "a", "operator": "In"}]})).unwrap_err();
        assert_eq!(causes[0].field, "matchExpressions[0].values");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[a-z!=<>(), /.-]{0,40}|\\PC{0,20}") {
            let _ = LabelSelector::parse(&text);
        }

        #[test]
        fn notin_is_the_opposite_of_in(key in "[a-z]{1,3}", values in proptest::collection::vec("[a-z]{1,2}", 1..4), label in "[a-z]{1,2}") {
            let list = values.join(",");
            let labels = json!({ "k": label, "x": "y" });
            let key = if key.len() == 1 { "k".to_owned() } else { key };
            let within = LabelSelector::parse(&format!("{key} in ({list})")).unwrap();
            let without = LabelSelector::parse(&format!("{key} notin ({list})")).unwrap();

            prop_assert_ne!(within.matches(&labels), without.matches(&labels));
        }
    }
}
