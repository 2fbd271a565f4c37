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
            let document = self.raw(Method::GET, &path, None).await?;
            let served: Resources = serde_json::from_slice(&document).map_err(decode)?;
            for resource in served
                .resources
                .into_iter()
                .filter(|resource| !resource.name.contains('/'))
            {
                found.push(Discovered {
                    resource: Resource {
                        group: group.clone().into(),
                        version: version.clone().into(),
                        plural: resource.name.into(),
                        kind: resource.kind.into(),
                        scope: if resource.namespaced {
                            Scope::Namespaced
                        } else {
                            Scope::Cluster
                        },
                    },
                    verbs: resource.verbs,
                });
            }
        }
        Ok(found)
    }
}
