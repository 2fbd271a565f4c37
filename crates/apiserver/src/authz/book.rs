//! A plane's roles and bindings, made ready to be asked: from whom to what they may do.

use std::{collections::HashMap, sync::Arc};

use api::{Object, selector::LabelSelector};
use serde_json::Value;

use super::{attributes::Attributes, rule::Rule};
use crate::context::Identity;

/// Whoever is in it may do everything, whatever the roles say.
pub const SUPERUSERS: &str = "system:masters";

/// The objects a book is made from.
#[derive(Default)]
pub struct Sources {
    pub cluster_roles: Vec<Object>,
    pub cluster_role_bindings: Vec<Object>,
    pub roles: Vec<Object>,
    pub role_bindings: Vec<Object>,
}

/// Roles and bindings of one plane at one moment.
#[derive(Default)]
pub struct Book {
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
    by_user: HashMap<String, Vec<Grant>>,
    by_group: HashMap<String, Vec<Grant>>,
}

/// What one binding gives to one subject.
struct Grant {
    /// Empty for a cluster role binding, which counts everywhere.
    namespace: String,
    /// `None` if the role is not there.
    rules: Option<Arc<[Rule]>>,
    binding: Arc<Named>,
}

struct Named {
    binding: String,
    role_kind: String,
    role: String,
}

/// Why something is allowed, or is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Allowed {
        reason: String,
    },
    /// `reason` is empty unless bindings name roles that are not there.
    NoOpinion {
        reason: String,
    },
}

impl Verdict {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Verdict::Allowed { .. })
    }

    pub fn reason(&self) -> &str {
        match self {
            Verdict::Allowed { reason } | Verdict::NoOpinion { reason } => reason,
        }
    }
}

impl Book {
    pub fn compile(sources: &Sources) -> Book {
        let mut book = Book {
            cluster_roles: cluster_roles(&sources.cluster_roles),
            roles: sources
                .roles
                .iter()
                .map(|role| {
                    let key = (role.namespace().to_owned(), role.name().to_owned());
                    (key, Rule::list(&role.tree()["rules"]).into())
                })
                .collect(),
            ..Book::default()
        };
        for binding in &sources.cluster_role_bindings {
            book.add(binding, "");
        }
        for binding in &sources.role_bindings {
            book.add(binding, binding.namespace());
        }
        book
    }

    fn add(&mut self, binding: &Object, namespace: &str) {
        let tree = binding.tree();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = Arc::new(Named {
            binding: binding.name().to_owned(),
            role_kind: text(&tree["roleRef"]["kind"]),
            role: text(&tree["roleRef"]["name"]),
        });
        let rules = self.role(&named.role_kind, namespace, &named.role).cloned();
        for subject in tree["subjects"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let name = text(&subject["name"]);
            let grant = Grant {
                namespace: namespace.to_owned(),
                rules: rules.clone(),
                binding: Arc::clone(&named),
            };
            match subject["kind"].as_str() {
                Some("User") => self.by_user.entry(name).or_default().push(grant),
                Some("Group") => self.by_group.entry(name).or_default().push(grant),
                Some("ServiceAccount") => {
                    let own = subject["namespace"].as_str().filter(|namespace| !namespace.is_empty());
                    let name = format!("system:serviceaccount:{}:{name}", own.unwrap_or(namespace));
                    self.by_user.entry(name).or_default().push(grant);
                }
                _ => {}
            }
        }
    }

    /// The rules of a role that a binding in `namespace` may name.
    pub fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        match kind {
            "ClusterRole" => self.cluster_roles.get(name),
            "Role" => self.roles.get(&(namespace.to_owned(), name.to_owned())),
            _ => None,
        }
    }

    /// May `user` do this?
    pub fn judge(&self, user: &Identity, attributes: &Attributes) -> Verdict {
        if user.in_group(SUPERUSERS) {
            return Verdict::Allowed { reason: String::new() };
        }
        let mut missing = Vec::new();
        for (subject, grant) in self.grants(user, attributes.namespace()) {
            match &grant.rules {
                Some(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    return Verdict::Allowed {
                        reason: grant.explain(&subject),
                    };
                }
                Some(_) => {}
                None => missing.push(grant.not_found()),
            }
        }
        missing.sort();
        missing.dedup();
        let reason = match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        Verdict::NoOpinion { reason }
    }

    /// All rules that `user` has in `namespace` (empty: across the cluster alone).
    pub fn rules(&self, user: &Identity, namespace: &str) -> Vec<&Rule> {
        let mut rules = Vec::new();
        for (_, grant) in self.grants(user, namespace) {
            rules.extend(grant.rules.iter().flat_map(|rules| rules.iter()));
        }
        rules
    }

    fn grants<'book, 'user>(
        &'book self,
        user: &'user Identity,
        namespace: &'user str,
    ) -> impl Iterator<Item = (Subject<'user>, &'book Grant)> {
        let own = self.by_user.get(&user.name).into_iter().flatten();
        let own = own.map(|grant| (Subject::User(&user.name), grant));
        let groups = user.groups.iter().flat_map(|group| {
            let grants = self.by_group.get(group).into_iter().flatten();
            grants.map(move |grant| (Subject::Group(group), grant))
        });
        own.chain(groups)
            .filter(move |(_, grant)| grant.namespace.is_empty() || grant.namespace == namespace)
    }
}

enum Subject<'a> {
    User(&'a str),
    Group(&'a str),
}

impl Grant {
    /// As upstream explains it in a SubjectAccessReview.
    fn explain(&self, subject: &Subject<'_>) -> String {
        let Named {
            binding,
            role_kind,
            role,
        } = &*self.binding;
        let binding = if self.namespace.is_empty() {
            format!("ClusterRoleBinding {binding:?}")
        } else {
            format!("RoleBinding {:?}", format!("{binding}/{}", self.namespace))
        };
        let subject = match subject {
            Subject::Group(name) => format!("Group {name:?}"),
            Subject::User(name) => match name
                .strip_prefix("system:serviceaccount:")
                .and_then(|rest| rest.split_once(':'))
            {
                Some((namespace, name)) => format!("ServiceAccount {:?}", format!("{name}/{namespace}")),
                None => format!("User {name:?}"),
            },
        };
        format!("RBAC: allowed by {binding} of {role_kind} {role:?} to {subject}")
    }

    fn not_found(&self) -> String {
        let Named { role_kind, role, .. } = &*self.binding;
        format!(
            "{}.rbac.authorization.k8s.io {role:?} not found",
            role_kind.to_lowercase()
        )
    }
}

/// The rules of all cluster roles; those that aggregate others have theirs (upstream's controller writes them, here
/// they are resolved when read).
fn cluster_roles(objects: &[Object]) -> HashMap<String, Arc<[Rule]>> {
    let by_name: HashMap<&str, &Object> = objects.iter().map(|object| (object.name(), object)).collect();
    by_name
        .keys()
        .map(|name| {
            let mut rules = Vec::new();
            collect(name, &by_name, &mut rules, &mut Vec::new());
            ((*name).to_owned(), rules.into())
        })
        .collect()
}

/// Adds the rules of the role `name`. `above` are the roles that led to it: aggregation may go in circles.
fn collect<'a>(name: &'a str, by_name: &HashMap<&'a str, &'a Object>, rules: &mut Vec<Rule>, above: &mut Vec<&'a str>) {
    let Some(object) = by_name.get(name).filter(|_| !above.contains(&name)) else {
        return;
    };
    let tree = object.tree();
    let Some(selectors) = tree["aggregationRule"]["clusterRoleSelectors"].as_array() else {
        for rule in Rule::list(&tree["rules"]) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        return;
    };
    let selectors: Vec<LabelSelector> = selectors
        .iter()
        .filter_map(|selector| LabelSelector::from_json(selector).ok())
        .collect();
    above.push(name);
    let mut selected: Vec<&str> = by_name
        .iter()
        .filter(|(_, other)| {
            let labels = &other.tree()["metadata"]["labels"];
            selectors.iter().any(|selector| selector.matches(labels))
        })
        .map(|(name, _)| *name)
        .collect();
    selected.sort_unstable();
    for other in selected {
        collect(other, by_name, rules, above);
    }
    above.pop();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::attributes::ResourceTarget;

    fn object(tree: Value) -> Object {
        Object::from_tree(tree)
    }

    fn role(namespace: &str, name: &str, verbs: &[&str], resource: &str) -> Object {
        object(json!({
            "metadata": {"name": name, "namespace": namespace},
            "rules": [{"verbs": verbs, "apiGroups": [""], "resources": [resource]}],
        }))
    }

    fn binding(namespace: &str, name: &str, kind: &str, role: &str, subject: Value) -> Object {
        object(json!({
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"kind": kind, "name": role},
            "subjects": [subject],
        }))
    }

    fn ask(namespace: &str, resource: &str) -> Attributes {
        Attributes::resource(
            "get",
            ResourceTarget {
                resource: resource.into(),
                namespace: namespace.into(),
                ..ResourceTarget::default()
            },
        )
    }

    #[test]
    fn a_role_binding_counts_in_its_namespace_and_a_cluster_role_binding_everywhere() {
        let book = Book::compile(&Sources {
            cluster_roles: vec![role("", "nodes", &["get"], "nodes"), role("", "pods", &["get"], "pods")],
            cluster_role_bindings: vec![binding(
                "",
                "b",
                "ClusterRole",
                "nodes",
                json!({"kind": "Group", "name": "dev"}),
            )],
            roles: vec![],
            role_bindings: vec![binding(
                "web",
                "b",
                "ClusterRole",
                "pods",
                json!({"kind": "User", "name": "jane"}),
            )],
        });
        let jane = Identity::new("jane", &["dev"]);

        assert!(book.judge(&jane, &ask("", "nodes")).is_allowed());
        assert_eq!(
            book.judge(&jane, &ask("web", "pods")).reason(),
            r#"RBAC: allowed by RoleBinding "b/web" of ClusterRole "pods" to User "jane""#
        );
        assert!(!book.judge(&jane, &ask("", "pods")).is_allowed());
        assert!(!book.judge(&jane, &ask("other", "pods")).is_allowed());
        assert!(!book.judge(&Identity::new("joe", &[]), &ask("web", "pods")).is_allowed());
    }

    #[test]
    fn a_service_account_is_bound_by_namespace_and_name() {
        let subject = json!({"kind": "ServiceAccount", "name": "builder", "namespace": "ci"});
        let book = Book::compile(&Sources {
            roles: vec![role("web", "r", &["get"], "pods")],
            role_bindings: vec![binding("web", "b", "Role", "r", subject)],
            ..Sources::default()
        });

        let allowed = |user: &str| book.judge(&Identity::new(user, &[]), &ask("web", "pods")).is_allowed();

        assert!(allowed("system:serviceaccount:ci:builder"));
        assert!(!allowed("system:serviceaccount:web:builder"));
    }

    #[test]
    fn a_binding_to_a_missing_role_gives_nothing_and_says_so() {
        let book = Book::compile(&Sources {
            role_bindings: vec![binding(
                "web",
                "b",
                "Role",
                "gone",
                json!({"kind": "User", "name": "jane"}),
            )],
            ..Sources::default()
        });

        let verdict = book.judge(&Identity::new("jane", &[]), &ask("web", "pods"));

        assert!(!verdict.is_allowed());
        assert_eq!(
            verdict.reason(),
            r#"RBAC: role.rbac.authorization.k8s.io "gone" not found"#
        );
    }

    #[test]
    fn aggregated_roles_have_the_rules_of_those_they_select_even_in_circles() {
        let aggregate = |name: &str, selects: &str, label: &str| {
            object(json!({
                "metadata": {"name": name, "labels": {label: "true"}},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {selects: "true"}}]},
                "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["stale"]}],
            }))
        };
        let mut leaf = role("", "leaf", &["get"], "pods").tree().clone();
        leaf["metadata"]["labels"] = json!({"to-view": "true"});
        let book = Book::compile(&Sources {
            cluster_roles: vec![
                aggregate("view", "to-view", "to-edit"),
                aggregate("edit", "to-edit", "to-view"),
                object(leaf),
            ],
            cluster_role_bindings: vec![binding(
                "",
                "b",
                "ClusterRole",
                "edit",
                json!({"kind": "User", "name": "jane"}),
            )],
            ..Sources::default()
        });
        let jane = Identity::new("jane", &[]);

        assert!(book.judge(&jane, &ask("web", "pods")).is_allowed());
        assert!(!book.judge(&jane, &ask("web", "stale")).is_allowed());
    }

    #[test]
    fn masters_may_do_everything() {
        let root = Identity::new("root", &[SUPERUSERS]);

        assert!(Book::default().judge(&root, &ask("web", "pods")).is_allowed());
    }
}
