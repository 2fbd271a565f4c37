//! RBAC rules: what they allow, and whether some cover another.

use serde_json::Value;

use super::attributes::{Attributes, ResourceTarget, Target};

/// A role whose rules, taken apart, are more than this is not judged but refused: verbs, groups, resources and names
/// multiply. `cluster-admin`-like roles need two, upstream's largest a few hundred.
const PARTS_MAX: usize = 50_000;

/// One `rbac.authorization.k8s.io/v1 PolicyRule`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub paths: Vec<String>,
}

/// The rules taken apart are too many to be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyParts;

impl Rule {
    /// Reads the `rules` of a role. What is not well-formed allows nothing.
    pub fn list(rules: &Value) -> Vec<Rule> {
        let rules = rules.as_array().map(Vec::as_slice).unwrap_or_default();
        rules.iter().map(Rule::of).collect()
    }

    fn of(rule: &Value) -> Rule {
        let strings = |field: &str| -> Vec<String> {
            let items = rule[field].as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Rule {
            verbs: strings("verbs"),
            groups: strings("apiGroups"),
            resources: strings("resources"),
            names: strings("resourceNames"),
            paths: strings("nonResourceURLs"),
        }
    }

    pub fn allows(&self, attributes: &Attributes) -> bool {
        has(&self.verbs, &attributes.verb)
            && match &attributes.target {
                Target::Path(path) => self.allows_path(path),
                Target::Resource(target) => self.allows_resource(target),
            }
    }

    fn allows_path(&self, path: &str) -> bool {
        self.paths.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == allowed,
        })
    }

    fn allows_resource(&self, target: &ResourceTarget) -> bool {
        has(&self.groups, &target.group)
            && (self.names.is_empty() || self.names.contains(&target.name))
            && self.resources.iter().any(|allowed| match allowed.split_once('/') {
                _ if allowed == "*" => true,
                None => target.subresource.is_empty() && *allowed == target.resource,
                Some((resource, sub)) => {
                    (resource == "*" || resource == target.resource) && !sub.is_empty() && sub == target.subresource
                }
            })
    }

    /// Into rules of one verb and one group, resource and name, or one path.
    fn parts(&self, parts: &mut Vec<Rule>) -> Result<(), TooManyParts> {
        let no_name = [String::new()];
        let names = if self.names.is_empty() {
            &no_name[..]
        } else {
            &self.names
        };
        let mut push = |part: Rule| {
            parts.push(part);
            if parts.len() > PARTS_MAX {
                Err(TooManyParts)
            } else {
                Ok(())
            }
        };
        for verb in &self.verbs {
            for path in &self.paths {
                push(Rule {
                    verbs: vec![verb.clone()],
                    paths: vec![path.clone()],
                    ..Rule::default()
                })?;
            }
            for group in &self.groups {
                for resource in &self.resources {
                    for name in names {
                        push(Rule {
                            verbs: vec![verb.clone()],
                            groups: vec![group.clone()],
                            resources: vec![resource.clone()],
                            names: Some(name)
                                .filter(|name| !name.is_empty())
                                .cloned()
                                .into_iter()
                                .collect(),
                            paths: Vec::new(),
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether whoever has `self` has `part` (of one verb and one target) too.
    fn covers(&self, part: &Rule) -> bool {
        let all = |owned: &[String], asked: &[String]| asked.iter().all(|asked| has(owned, asked));
        let resource = |asked: &String| {
            has(&self.resources, asked)
                || asked
                    .split_once('/')
                    .is_some_and(|(_, sub)| self.resources.iter().any(|owned| owned.strip_prefix("*/") == Some(sub)))
        };
        let path = |asked: &String| {
            self.paths.iter().any(|owned| match owned.strip_suffix('*') {
                Some(prefix) => asked.starts_with(prefix),
                None => owned == asked,
            })
        };
        let names = self.names.is_empty()
            || (!part.names.is_empty() && part.names.iter().all(|asked| self.names.contains(asked)));
        all(&self.verbs, &part.verbs)
            && all(&self.groups, &part.groups)
            && part.resources.iter().all(resource)
            && names
            && part.paths.iter().all(path)
    }

    /// As upstream prints it in refusals.
    pub fn compact(&self) -> String {
        let mut fields = Vec::new();
        for (name, values) in [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.names),
            ("NonResourceURLs", &self.paths),
            ("Verbs", &self.verbs),
        ] {
            if !values.is_empty() {
                fields.push(format!("{name}:{values:?}"));
            }
        }
        format!("{{{}}}", fields.join(", "))
    }
}

/// What of `asked` is not covered by `owned`.
pub fn uncovered(owned: &[&Rule], asked: &[Rule]) -> Result<Vec<Rule>, TooManyParts> {
    let mut parts = Vec::new();
    for rule in asked {
        rule.parts(&mut parts)?;
    }
    parts.retain(|part| !owned.iter().any(|owned| owned.covers(part)));
    Ok(parts)
}

fn has(allowed: &[String], asked: &str) -> bool {
    allowed.iter().any(|allowed| allowed == "*" || allowed == asked)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(value: Value) -> Rule {
        Rule::of(&value)
    }

    fn ask(verb: &str, group: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes::resource(
            verb,
            ResourceTarget {
                group: group.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                namespace: "web".into(),
                name: name.into(),
            },
        )
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let pods = rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]}));
        let one = rule(
            json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["one"]}),
        );

        assert!(pods.allows(&ask("list", "", "pods", "")));
        assert!(!pods.allows(&ask("list", "", "pods/log", "")));
        assert!(!pods.allows(&ask("watch", "", "pods", "")));
        assert!(!pods.allows(&ask("list", "apps", "pods", "")));
        assert!(pods.allows(&ask("get", "", "replicationcontrollers/scale", "x")));
        assert!(one.allows(&ask("delete", "apps", "deployments", "one")));
        assert!(!one.allows(&ask("delete", "apps", "deployments", "two")));
        assert!(!one.allows(&ask("list", "apps", "deployments", "")));
    }

    #[test]
    fn paths_match_whole_or_by_their_beginning() {
        let discovery = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/api", "/apis/*"]}));
        let get = |path: &str| Attributes {
            verb: "get".into(),
            target: Target::Path(path.into()),
        };

        assert!(discovery.allows(&get("/api")));
        assert!(!discovery.allows(&get("/api/v1")));
        assert!(discovery.allows(&get("/apis/apps/v1")));
    }

    #[test]
    fn nobody_covers_more_than_they_have() {
        let owned = rule(json!({"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["pods", "*/log"]}));
        let named =
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}));
        let missing = |asked: Value| uncovered(&[&owned, &named], &[rule(asked)]).unwrap().len();

        assert_eq!(
            missing(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]})),
            0
        );
        assert_eq!(
            missing(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]})),
            1
        );
        assert_eq!(
            missing(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods"]})),
            1
        );
        assert_eq!(
            missing(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]})),
            1
        );
        assert_eq!(
            missing(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]})),
            0
        );
        assert_eq!(missing(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"]})), 1);
    }

    #[test]
    fn a_role_that_multiplies_without_end_is_not_taken_apart() {
        let many: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
        let huge = rule(json!({"verbs": many, "apiGroups": many, "resources": many}));

        assert_eq!(uncovered(&[], &[huge]), Err(TooManyParts));
    }
}
