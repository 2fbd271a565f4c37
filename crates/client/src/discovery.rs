//! What a plane serves, as it says itself.

use api::{Resource, resource::Scope};
use http::Method;
use serde::Deserialize;

use crate::{Client, Error};

/// A resource in the version that its group prefers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discovered {
    pub resource: Resource,
    pub verbs: Vec<String>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    preferred_version: Version,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Served>,
}

#[derive(Deserialize)]
struct Served {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

impl Discovered {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

impl Client {
    /// Everything the plane serves, without subresources.
    pub async fn discover(&self) -> Result<Vec<Discovered>, Error> {
        let decode = |source| Error::Decode {
            what: "a discovery document",
            source,
        };
        let groups: Groups = serde_json::from_slice(&self.raw(Method::GET, "/apis", None).await?).map_err(decode)?;
        let mut versions = vec![(String::new(), "v1".to_owned(), "/api/v1".to_owned())];
        versions.extend(groups.groups.into_iter().map(|group| {
            let path = format!("/apis/{}/{}", group.name, group.preferred_version.version);
            (group.name, group.preferred_version.version, path)
        }));
        let mut found = Vec::new();
        for (group, version, path) in versions {
            self.discover_at(&group, &version, &path, &mut found).await?;
        }
        Ok(found)
    }

    /// What the plane serves in one version of one group (empty for the core), without subresources.
    pub async fn discover_version(&self, group: &str, version: &str) -> Result<Vec<Discovered>, Error> {
        let path = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let mut found = Vec::new();
        self.discover_at(group, version, &path, &mut found).await?;
        Ok(found)
    }

    async fn discover_at(
        &self,
        group: &str,
        version: &str,
        path: &str,
        found: &mut Vec<Discovered>,
    ) -> Result<(), Error> {
        let document = self.raw(Method::GET, path, None).await?;
        let served: Resources = serde_json::from_slice(&document).map_err(|source| Error::Decode {
            what: "a discovery document",
            source,
        })?;
        let whole = served
            .resources
            .into_iter()
            .filter(|resource| !resource.name.contains('/'));
        found.extend(whole.map(|resource| Discovered {
            resource: Resource {
                group: group.to_owned().into(),
                version: version.to_owned().into(),
                plural: resource.name.into(),
                kind: resource.kind.into(),
                scope: if resource.namespaced {
                    Scope::Namespaced
                } else {
                    Scope::Cluster
                },
            },
            verbs: resource.verbs,
        }));
        Ok(())
    }
}
