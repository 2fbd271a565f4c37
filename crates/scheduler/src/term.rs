//! One term of a Pod's affinity to other Pods.

use std::collections::{BTreeMap, BTreeSet};

use api::{Object, selector::LabelSelector};
use serde_json::{Value, json};

use crate::request::list;

/// Labels of namespaces, by name.
pub type Namespaces = BTreeMap<String, Value>;

#[derive(Clone, Debug)]
pub struct Term {
    selector: LabelSelector,
    namespaces: BTreeSet<String>,
    namespace_selector: Option<LabelSelector>,
    pub topology_key: String,
}

impl Term {
    pub fn required(affinity: &Value, pod: &Object) -> Vec<Term> {
        let terms = list(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]);
        terms.iter().map(|term| Term::of(term, pod)).collect()
    }

    pub fn preferred<'a>(affinity: &'a Value, pod: &'a Object) -> impl Iterator<Item = (i64, Term)> + 'a {
        let terms = list(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]);
        terms.iter().filter_map(|weighted| {
            let weight = weighted["weight"].as_i64()?;
            Some((weight, Term::of(&weighted["podAffinityTerm"], pod)))
        })
    }

    fn of(term: &Value, pod: &Object) -> Term {
        let mut namespaces: BTreeSet<String> = list(&term["namespaces"])
            .iter()
            .filter_map(|namespace| namespace.as_str().map(str::to_owned))
            .collect();
        let namespace_selector = &term["namespaceSelector"];
        if namespaces.is_empty() && namespace_selector.is_null() {
            namespaces.insert(pod.namespace().to_owned());
        }
        Term {
            selector: selector(term, pod),
            namespaces,
            namespace_selector: (!namespace_selector.is_null())
                .then(|| LabelSelector::from_json(namespace_selector).unwrap_or_else(|_| LabelSelector::nothing())),
            topology_key: term["topologyKey"].as_str().unwrap_or("").to_owned(),
        }
    }

    pub fn matches(&self, pod: &Object, namespaces: &Namespaces) -> bool {
        let here = self.namespaces.contains(pod.namespace())
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                let labels = namespaces.get(pod.namespace());
                selector.is_everything() || labels.is_some_and(|labels| selector.matches(labels))
            });
        here && self.selector.matches_object(pod)
    }
}

/// `labelSelector`, narrowed by `matchLabelKeys` and `mismatchLabelKeys` to the Pod's own values; without, nothing.
pub fn selector(of: &Value, pod: &Object) -> LabelSelector {
    let mut selector = of["labelSelector"].clone();
    if selector.is_null() {
        return LabelSelector::nothing();
    }
    let labels = &pod.tree()["metadata"]["labels"];
    for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in list(&of[keys]).iter().filter_map(Value::as_str) {
            let Some(value) = labels.get(key) else { continue };
            let requirement = json!({"key": key, "operator": operator, "values": [value]});
            let expressions = &mut selector["matchExpressions"];
            match expressions.as_array_mut() {
                // The server may have put it there already.
                Some(expressions) if expressions.contains(&requirement) => {}
                Some(expressions) => expressions.push(requirement),
                None => *expressions = json!([requirement]),
            }
        }
    }
    LabelSelector::from_json(&selector).unwrap_or_else(|_| LabelSelector::nothing())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, labels: Value) -> Object {
        Object::from_tree(json!({"metadata": {"name": "p", "namespace": namespace, "labels": labels}}))
    }

    #[test]
    fn a_term_is_about_its_own_namespace_named_ones_or_selected_ones() {
        let own = pod("mine", json!({"app": "web", "version": "2"}));
        let web = json!({"matchLabels": {"app": "web"}});
        let namespaces = Namespaces::from([("theirs".to_owned(), json!({"team": "b"}))]);
        let matches = |term: Value, other: &Object| Term::of(&term, &own).matches(other, &namespaces);
        let (here, there) = (pod("mine", json!({"app": "web"})), pod("theirs", json!({"app": "web"})));

        assert!(matches(json!({"labelSelector": web}), &here));
        assert!(!matches(json!({"labelSelector": web}), &there));
        assert!(matches(json!({"labelSelector": web, "namespaces": ["theirs"]}), &there));
        assert!(matches(json!({"labelSelector": web, "namespaceSelector": {}}), &there));
        let team = |name: &str| json!({"labelSelector": web, "namespaceSelector": {"matchLabels": {"team": name}}});
        assert!(matches(team("b"), &there));
        assert!(!matches(team("a"), &there));
        assert!(
            !matches(json!({"namespaceSelector": {}}), &here),
            "no selector selects nothing"
        );
        let same_version = json!({"labelSelector": web, "matchLabelKeys": ["version"]});
        assert!(!matches(same_version, &here));
    }
}
