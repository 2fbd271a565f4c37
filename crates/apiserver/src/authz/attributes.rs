//! What somebody wants to do, as rules judge it, and how a refusal reads.

use api::{Reason, Status};

use crate::context::{Identity, RequestInfo, Verb};

/// One thing to be allowed or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attributes {
    pub verb: String,
    pub target: Target,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    Resource(ResourceTarget),
    /// A path that is no resource.
    Path(String),
}

/// Empty strings stand for what is not given: the core group, all namespaces, any name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResourceTarget {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

impl ResourceTarget {
    /// `pods` or `pods/log`, as rules name it.
    pub fn combined(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

impl Attributes {
    pub fn of(info: &RequestInfo) -> Attributes {
        let target = if info.is_resource() {
            // As upstream: a Namespace counts as lying in itself, so that a role in it allows to read it.
            let one = !matches!(info.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
            let own = info.name.as_ref();
            let own = own.filter(|_| one && info.group.is_empty() && info.resource == "namespaces");
            Target::Resource(ResourceTarget {
                group: info.group.clone(),
                resource: info.resource.clone(),
                subresource: info.subresource.clone(),
                namespace: info.namespace.as_ref().or(own).cloned().unwrap_or_default(),
                name: info.name.clone().unwrap_or_default(),
            })
        } else {
            Target::Path(info.path.clone())
        };
        Attributes {
            verb: info.verb.as_str().to_owned(),
            target,
        }
    }

    pub fn resource(verb: &str, target: ResourceTarget) -> Attributes {
        Attributes {
            verb: verb.to_owned(),
            target: Target::Resource(target),
        }
    }

    /// The namespace whose role bindings count; empty for none.
    pub fn namespace(&self) -> &str {
        match &self.target {
            Target::Resource(target) => &target.namespace,
            Target::Path(_) => "",
        }
    }

    /// The refusal, in upstream's words. `because` is what the rules could not be resolved for, if anything.
    pub fn forbidden(&self, user: &Identity, because: &str) -> Status {
        let what = self.what(user);
        let what = if because.is_empty() {
            what
        } else {
            format!("{what}: {because}")
        };
        match &self.target {
            Target::Path(_) => Status::new(Reason::Forbidden, format!("forbidden: {what}")),
            Target::Resource(target) => forbidden(&target.group, &target.resource, &target.name, &what),
        }
    }

    fn what(&self, user: &Identity) -> String {
        let (user, verb) = (&user.name, &self.verb);
        match &self.target {
            Target::Path(path) => format!("User {user:?} cannot {verb} path {path:?}"),
            Target::Resource(target) => {
                let resource = target.combined();
                let group = &target.group;
                let place = if target.namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace {:?}", target.namespace)
                };
                format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
            }
        }
    }
}

/// Upstream's `NewForbidden`.
pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Status {
    let qualified = if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    };
    let message = if name.is_empty() {
        format!("{qualified} is forbidden: {why}")
    } else {
        format!("{qualified} {name:?} is forbidden: {why}")
    };
    Status::new(Reason::Forbidden, message).about(group, resource, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(target: ResourceTarget) -> String {
        Attributes::resource("list", target)
            .forbidden(&Identity::new("jane", &[]), "")
            .message
    }

    #[test]
    fn refusals_read_as_upstreams() {
        let pods = ResourceTarget {
            resource: "pods".into(),
            namespace: "web".into(),
            ..ResourceTarget::default()
        };
        let scale = ResourceTarget {
            group: "apps".into(),
            resource: "deployments".into(),
            subresource: "scale".into(),
            name: "one".into(),
            ..ResourceTarget::default()
        };
        let root = Attributes {
            verb: "get".into(),
            target: Target::Path("/".into()),
        };

        assert_eq!(
            refusal(pods),
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "web""#
        );
        assert_eq!(
            refusal(scale),
            r#"deployments.apps "one" is forbidden: User "jane" cannot list resource "deployments/scale" in API group "apps" at the cluster scope"#
        );
        assert_eq!(
            root.forbidden(&Identity::new("system:anonymous", &[]), "").message,
            r#"forbidden: User "system:anonymous" cannot get path "/""#
        );
    }
}
