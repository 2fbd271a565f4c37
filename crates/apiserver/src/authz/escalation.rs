//! Nobody gives what they do not have: checks on writes of roles and bindings, as upstream's `rbac` registries make
//! them. Admission calls [`check`] with the object as it would be stored.

use api::{Object, Reason, Resource, Status, resource};
use serde_json::Value;

use super::{
    Authorizer,
    attributes::{Attributes, ResourceTarget, forbidden},
    book::{Book, SUPERUSERS},
    rule::{Rule, TooManyParts, uncovered},
};
use crate::{
    context::{Context, Identity},
    planes::Planes,
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// May the request's user write this role or binding? `old` is what is there. Other resources pass.
pub async fn check(
    authorizer: &Authorizer,
    planes: &Planes,
    context: &Context,
    old: Option<&Object>,
    new: &Object,
) -> Result<(), Status> {
    if context.info.group != GROUP || context.user.in_group(SUPERUSERS) {
        return Ok(());
    }
    let resource = match context.info.resource.as_str() {
        "roles" => &resource::ROLES,
        "clusterroles" => &resource::CLUSTER_ROLES,
        "rolebindings" => &resource::ROLE_BINDINGS,
        "clusterrolebindings" => &resource::CLUSTER_ROLE_BINDINGS,
        _ => return Ok(()),
    };
    let book = authorizer.book(planes, &context.plane).await?;
    decide(&book, &context.user, resource, old.map(Object::tree), new.tree())
}

/// The rule itself.
fn decide(book: &Book, user: &Identity, resource: &Resource, old: Option<&Value>, new: &Value) -> Result<(), Status> {
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = new["metadata"]["namespace"].as_str().unwrap_or_default();
    let unchanged = |field: &str| old.is_some_and(|old| old[field] == new[field]);
    let may = |verb: &str, resource: &str, namespace: &str, name: &str| {
        let target = ResourceTarget {
            group: GROUP.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..ResourceTarget::default()
        };
        book.judge(user, &Attributes::resource(verb, target)).is_allowed()
    };
    let asked: Vec<Rule> = match &*resource.plural {
        "roles" | "clusterroles" => {
            if (unchanged("rules") && unchanged("aggregationRule"))
                || may("escalate", &resource.plural, namespace, name)
            {
                return Ok(());
            }
            let mut rules = Rule::list(&new["rules"]);
            // Whoever says what is aggregated may gain anything that any role will ever have.
            if new["aggregationRule"].is_object() && !unchanged("aggregationRule") {
                rules.extend(everything());
            }
            rules
        }
        _ => {
            if unchanged("subjects") && unchanged("roleRef") {
                return Ok(());
            }
            let kind = new["roleRef"]["kind"].as_str().unwrap_or_default();
            let role = new["roleRef"]["name"].as_str().unwrap_or_default();
            let roles = if kind == "Role" { "roles" } else { "clusterroles" };
            if may("bind", roles, namespace, role) {
                return Ok(());
            }
            match book.role(kind, namespace, role) {
                Some(rules) => rules.to_vec(),
                None => {
                    let kind = format!("{}.{GROUP}", kind.to_lowercase());
                    return Err(
                        Status::new(Reason::NotFound, format!("{kind} {role:?} not found")).about(GROUP, &kind, role)
                    );
                }
            }
        }
    };
    let missing = match uncovered(&book.rules(user, namespace), &asked) {
        Ok(missing) if missing.is_empty() => return Ok(()),
        Ok(missing) => missing,
        Err(TooManyParts) => {
            let why = "its rules are too many to be compared with the user's";
            return Err(forbidden(GROUP, &resource.plural, name, why));
        }
    };
    let lines: Vec<String> = missing.iter().map(Rule::compact).collect();
    let why = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        user.groups,
        lines.join("\n")
    );
    Err(forbidden(GROUP, &resource.plural, name, &why))
}

fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule {
            verbs: all(),
            groups: all(),
            resources: all(),
            ..Rule::default()
        },
        Rule {
            verbs: all(),
            paths: all(),
            ..Rule::default()
        },
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::Sources;

    /// jane may edit Pods and roles in `web`; root may also bind and escalate; admin has everything.
    fn book() -> Book {
        let role = |name: &str, rules: Value| Object::from_tree(json!({"metadata": {"name": name}, "rules": rules}));
        let bind = |user: &str, role: &str| {
            Object::from_tree(json!({
                "metadata": {"name": format!("{user}-{role}")},
                "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": user}],
            }))
        };
        Book::compile(&Sources {
            cluster_roles: vec![
                role(
                    "pods",
                    json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]),
                ),
                role(
                    "secrets",
                    json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]),
                ),
                role(
                    "binder",
                    json!([{"verbs": ["bind", "escalate"], "apiGroups": [GROUP], "resources": ["clusterroles", "roles"],
                            "resourceNames": ["secrets"]}]),
                ),
                role(
                    "all",
                    json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                           {"verbs": ["*"], "nonResourceURLs": ["*"]}]),
                ),
            ],
            cluster_role_bindings: vec![bind("jane", "pods"), bind("root", "binder"), bind("admin", "all")],
            ..Sources::default()
        })
    }

    fn role(name: &str, resource: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "web"},
               "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]})
    }

    fn code(user: &str, resource: &Resource, old: Option<&Value>, new: &Value) -> u16 {
        match decide(&book(), &Identity::new(user, &[]), resource, old, new) {
            Ok(()) => 200,
            Err(status) => status.code(),
        }
    }

    #[test]
    fn a_role_holds_no_more_than_its_writer_has() {
        assert_eq!(code("jane", &resource::ROLES, None, &role("r", "pods")), 200);
        assert_eq!(code("jane", &resource::ROLES, None, &role("r", "secrets")), 403);
        assert_eq!(code("root", &resource::ROLES, None, &role("secrets", "secrets")), 200);
        assert_eq!(code("root", &resource::ROLES, None, &role("other", "secrets")), 403);
        assert_eq!(code("admin", &resource::ROLES, None, &role("r", "secrets")), 200);
    }

    #[test]
    fn a_role_that_stays_as_it_is_may_be_written() {
        let old = role("r", "secrets");
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"a": "b"});

        assert_eq!(code("jane", &resource::ROLES, Some(&old), &new), 200);
    }

    #[test]
    fn a_binding_gives_no_more_than_its_writer_has() {
        let to = |role: &str| {
            json!({"metadata": {"name": "b", "namespace": "web"},
                   "roleRef": {"kind": "ClusterRole", "name": role},
                   "subjects": [{"kind": "User", "name": "joe"}]})
        };

        assert_eq!(code("jane", &resource::ROLE_BINDINGS, None, &to("pods")), 200);
        assert_eq!(code("jane", &resource::ROLE_BINDINGS, None, &to("secrets")), 403);
        assert_eq!(code("root", &resource::ROLE_BINDINGS, None, &to("secrets")), 200);
        assert_eq!(code("jane", &resource::ROLE_BINDINGS, None, &to("gone")), 404);
    }

    #[test]
    fn whoever_aggregates_needs_everything() {
        let new = json!({"metadata": {"name": "r"},
                         "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});

        assert_eq!(code("jane", &resource::CLUSTER_ROLES, None, &new), 403);
        assert_eq!(code("admin", &resource::CLUSTER_ROLES, None, &new), 200);
    }
}
