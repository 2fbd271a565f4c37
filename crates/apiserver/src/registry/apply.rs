//! Server-side apply: a configuration is merged into what is there, or makes it.

use api::{Reason, Status, apply::Force};
use bytes::Bytes;
use serde_json::Value;

use super::{
    Kind, Registry,
    body::{self, Read},
    meta,
    owners::Noted,
    read::place,
    refusals::{self, MODIFIED, bad_request},
    update::{Aspect, Updated},
};
use crate::{
    authz::{Attributes, ResourceTarget},
    context::Context,
    http::{body::to_json, negotiate::BodyEncoding},
    query::FieldValidation,
};

/// As for updates: each round somebody else has made or ended the object meanwhile.
const TRIES: usize = 100;

/// What is applied, and what is odd about its text.
pub(super) struct Configuration {
    pub tree: Value,
    warnings: Vec<String>,
}

impl Configuration {
    /// Reads YAML, of which JSON is a part.
    pub fn read(bytes: Bytes, validation: FieldValidation) -> Result<Configuration, Status> {
        let bytes = match bytes.first() {
            Some(b'{') if serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok() => bytes,
            _ => to_json(bytes, BodyEncoding::Yaml)
                .map_err(|status| bad_request(format!("error decoding YAML: {}", status.message)))?,
        };
        let tree: Value =
            serde_json::from_slice(&bytes).map_err(|error| bad_request(format!("error decoding YAML: {error}")))?;
        if !tree.is_object() {
            return Err(bad_request("error decoding YAML: it is not an object"));
        }
        let twice = match validation {
            FieldValidation::Ignore => Vec::new(),
            FieldValidation::Warn | FieldValidation::Strict => api::decode::duplicates(&bytes, &tree),
        };
        if validation == FieldValidation::Strict && !twice.is_empty() {
            return Err(bad_request(format!("error strict decoding YAML: {}", twice.join(", "))));
        }
        Ok(Configuration { tree, warnings: twice })
    }
}

pub(super) fn force(context: &Context) -> Force {
    if context.query.force { Force::Yes } else { Force::No }
}

impl Registry {
    pub(super) async fn apply(
        &self,
        context: &Context,
        kind: &Kind,
        aspect: Aspect,
        config: &Configuration,
    ) -> Result<Updated, Status> {
        let family = self.family(&context.plane, kind).await?;
        let merged = |live: Option<&Value>| -> Result<Read, Status> {
            let tree = self.write_of(context, &family, |write| {
                write.applied(live, &config.tree, force(context))
            })?;
            let (tree, _) = body::decoded(kind, tree)?;
            Ok(Read {
                tree,
                warnings: config.warnings.clone(),
            })
        };
        for _ in 0..TRIES {
            let there = place(context, kind).read().await?.stored.is_some();
            if there || aspect != Aspect::Main {
                let change = |current: &Value| merged(Some(current));
                match self.update_object(context, kind, aspect, Noted::Already, &change).await {
                    Err(status) if status.reason == Reason::NotFound && aspect == Aspect::Main && there => {}
                    outcome => return outcome,
                }
                continue;
            }
            let Read { mut tree, warnings } = merged(None)?;
            let name = context.info.name.as_deref().unwrap_or_default();
            let uid = meta::text(&tree, "uid");
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(refusals::conflict(kind, name, &why));
            }
            super::update::check_name(context, &mut tree)?;
            self.require_create(context).await?;
            match self.create_object(context, kind, tree, Noted::Already).await {
                Err(status) if status.reason == Reason::AlreadyExists => {}
                Err(status) => return Err(status),
                Ok(created) => {
                    return Ok(Updated {
                        stored: created.stored,
                        created: true,
                        warnings: [warnings, created.warnings].concat(),
                    });
                }
            }
        }
        let name = context.info.name.as_deref().unwrap_or_default();
        Err(refusals::conflict(kind, name, MODIFIED))
    }

    /// Who makes an object by other verbs may create it, too.
    pub(super) async fn require_create(&self, context: &Context) -> Result<(), Status> {
        let info = &context.info;
        let attributes = Attributes::resource(
            "create",
            ResourceTarget {
                group: info.group.clone(),
                resource: info.resource.clone(),
                subresource: String::new(),
                namespace: info.namespace.clone().unwrap_or_default(),
                name: info.name.clone().unwrap_or_default(),
            },
        );
        let authorizer = &self.edge().authorizer;
        authorizer
            .require(self.planes(), &context.plane, &context.user, &attributes)
            .await
    }
}
