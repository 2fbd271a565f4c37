//! Where objects are stored: the one codec of keys (D1).
//!
//! - [`Layout::Shared`]: many planes in one keyspace, resource first, so that "Pods of all planes" is one range:
//!   `/r/<group or "core">/<resource>/<plane>/[<namespace>/]<name>`. Custom resources have a root of their own with
//!   the definition's uid, since two planes may define one name with two schemas:
//!   `/c/<uid of the definition>/<plane>/[<namespace>/]<name>`.
//! - [`Layout::Registry`]: one plane alone in a keyspace, as an upstream kube-apiserver keeps it:
//!   `/registry/[<group>/]<resource>/[<namespace>/]<name>`.
//! - Platform records (planes themselves, address allocations) live under `/p/`, which no API path reaches.

use crate::{PlaneId, Resource, resource::Scope};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    Shared,
    Registry,
}

/// The uid of the definition that makes a resource; built-in resources have none.
pub type Definition<'a> = Option<&'a str>;

/// Stands for every definition: the objects of all of them are one range.
pub const EVERY_DEFINITION: &str = "*";

/// A key read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parsed<'a> {
    /// `None` in the registry layout, where the keyspace is the plane.
    pub plane: Option<PlaneId>,
    pub namespace: Option<&'a str>,
    pub name: &'a str,
}

impl Layout {
    /// The prefix of all objects of a resource in all planes of the keyspace. Ends with `/`.
    pub fn resource_prefix(self, resource: &Resource, definition: Definition) -> String {
        match (self, definition) {
            (Layout::Shared, None) if resource.group.is_empty() => format!("/r/core/{}/", resource.plural),
            (Layout::Shared, None) => format!("/r/{}/{}/", resource.group, resource.plural),
            (Layout::Shared, Some(EVERY_DEFINITION)) => "/c/".to_owned(),
            (Layout::Shared, Some(uid)) => format!("/c/{uid}/"),
            (Layout::Registry, _) => match (&*resource.group, &*resource.plural) {
                ("", "nodes") => "/registry/minions/".to_owned(),
                ("", "services") => "/registry/services/specs/".to_owned(),
                ("", "endpoints") => "/registry/services/endpoints/".to_owned(),
                ("networking.k8s.io", "ingresses") => "/registry/ingress/".to_owned(),
                ("" | "apps" | "batch" | "policy" | "autoscaling", plural) => format!("/registry/{plural}/"),
                (
                    "rbac.authorization.k8s.io"
                    | "storage.k8s.io"
                    | "coordination.k8s.io"
                    | "discovery.k8s.io"
                    | "scheduling.k8s.io"
                    | "networking.k8s.io"
                    | "node.k8s.io"
                    | "certificates.k8s.io",
                    plural,
                ) => format!("/registry/{plural}/"),
                (group, plural) => format!("/registry/{group}/{plural}/"),
            },
        }
    }

    /// The prefix of a plane's objects of a resource, in one namespace or all. Ends with `/`.
    pub fn prefix(
        self,
        plane: PlaneId,
        resource: &Resource,
        definition: Definition,
        namespace: Option<&str>,
    ) -> String {
        let mut prefix = self.resource_prefix(resource, definition);
        if self == Layout::Shared {
            prefix.push_str(plane.as_str());
            prefix.push('/');
        }
        if let Some(namespace) = namespace.filter(|_| resource.scope == Scope::Namespaced) {
            prefix.push_str(namespace);
            prefix.push('/');
        }
        prefix
    }

    pub fn key(
        self,
        plane: PlaneId,
        resource: &Resource,
        definition: Definition,
        namespace: Option<&str>,
        name: &str,
    ) -> String {
        let mut key = self.prefix(plane, resource, definition, namespace);
        key.push_str(name);
        key
    }

    /// Reads a key of `resource` back; `None` if it is not one.
    pub fn parse<'a>(self, resource: &Resource, definition: Definition, key: &'a [u8]) -> Option<Parsed<'a>> {
        let key = std::str::from_utf8(key).ok()?;
        let mut rest = key.strip_prefix(self.resource_prefix(resource, definition).as_str())?;
        let mut plane = None;
        if definition == Some(EVERY_DEFINITION) {
            rest = rest.split_once('/')?.1;
        }
        if self == Layout::Shared {
            let (id, after) = rest.split_once('/')?;
            plane = Some(id.parse().ok()?);
            rest = after;
        }
        let (namespace, name) = match resource.scope {
            // Its scope is not known.
            _ if definition == Some(EVERY_DEFINITION) => match rest.split_once('/') {
                Some((namespace, name)) => (Some(namespace), name),
                None => (None, rest),
            },
            Scope::Cluster => (None, rest),
            Scope::Namespaced => {
                let (namespace, name) = rest.split_once('/')?;
                (Some(namespace), name)
            }
        };
        (!name.is_empty() && !name.contains('/')).then_some(Parsed { plane, namespace, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource;

    #[test]
    fn a_key_reads_back_in_both_layouts() {
        let plane: PlaneId = "abcdefghijklmnop".parse().unwrap();
        for layout in [Layout::Shared, Layout::Registry] {
            for (resource, namespace) in [(resource::PODS, Some("web")), (resource::NODES, None)] {
                let key = layout.key(plane, &resource, None, namespace, "one");

                let parsed = layout.parse(&resource, None, key.as_bytes()).unwrap();

                assert_eq!(parsed.namespace, namespace);
                assert_eq!(parsed.name, "one");
                assert_eq!(parsed.plane, (layout == Layout::Shared).then_some(plane));
            }
        }
    }

    #[test]
    fn objects_of_all_definitions_are_one_range() {
        let plane: PlaneId = "abcdefghijklmnop".parse().unwrap();
        let all = Layout::Shared.resource_prefix(&resource::CUSTOM_OBJECTS, Some(EVERY_DEFINITION));
        for (namespaced, namespace) in [(resource::PODS, Some("web")), (resource::NODES, None)] {
            let key = Layout::Shared.key(plane, &namespaced, Some("some-uid"), namespace, "one");

            let parsed = Layout::Shared.parse(&resource::CUSTOM_OBJECTS, Some(EVERY_DEFINITION), key.as_bytes());

            let (plane, name) = (Some(plane), "one");
            assert!(key.starts_with(&all));
            assert_eq!(parsed, Some(Parsed { plane, namespace, name }));
        }
    }

    #[test]
    fn pods_of_all_planes_are_one_range() {
        let plane: PlaneId = "abcdefghijklmnop".parse().unwrap();

        let key = Layout::Shared.key(plane, &resource::PODS, None, Some("web"), "one");

        assert_eq!(key, "/r/core/pods/abcdefghijklmnop/web/one");
    }
}
