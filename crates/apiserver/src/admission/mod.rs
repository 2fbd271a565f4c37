//! Admission: what is filled in or refused because of the state of the plane, in upstream's order of plug-ins.

mod autoscaling;
mod finalizers;
mod ingress_class;
mod limit_range;
mod namespace;
mod pod_security;
mod priority;
mod quota;
mod runtime_class;
mod service_account;
mod storage_class;
mod tolerations;

use api::Status;
pub(crate) use api::quota::Overdraft;
use serde_json::Value;

pub(crate) use finalizers::BirthFinalizers;
pub(crate) use quota::Turns;

use crate::registry::{Place, Registry};

/// A write under way.
pub(crate) struct Attempt<'a> {
    pub registry: &'a Registry,
    pub place: Place<'a>,
    pub operation: Operation<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Operation<'a> {
    Create,
    /// Of what is there.
    Update(&'a Value),
    Delete,
}

impl Attempt<'_> {
    fn creates(&self) -> bool {
        matches!(self.operation, Operation::Create)
    }
}

/// Runs the chain over an object in its stored version; what the writer is to be warned of. Whatever it fills in is
/// validated afterwards.
pub(crate) async fn mutate(attempt: &Attempt<'_>, tree: &mut Value) -> Result<Vec<String>, Status> {
    let kind = attempt.place.kind;
    let old = match attempt.operation {
        Operation::Update(old) => Some(old),
        Operation::Create | Operation::Delete => None,
    };
    autoscaling::refuse(attempt)?;
    finalizers::admit(attempt, tree);
    let namespace = namespace::of(attempt).await?;
    let mut warnings = Vec::new();
    if kind.is_core("namespaces") {
        namespace::label(tree);
        warnings.extend(pod_security::check_namespace(attempt, tree, old).await?);
    }
    if kind.is_core("pods") && attempt.creates() {
        limit_range::admit(attempt, tree).await?;
        service_account::admit(attempt, tree).await?;
        runtime_class::admit(attempt, tree).await?;
        priority::admit(attempt, tree).await?;
        tolerations::admit(tree);
    }
    if kind.is_core("persistentvolumeclaims") {
        match old {
            None => storage_class::admit(attempt, tree).await?,
            Some(old) => storage_class::check_growth(attempt, tree, old).await?,
        }
        if !tree["metadata"]["deletionTimestamp"].is_string() {
            limit_range::admit(attempt, tree).await?;
        }
    }
    if kind.is("scheduling.k8s.io", "priorityclasses") {
        priority::check_class(attempt, tree).await?;
    }
    if kind.is("networking.k8s.io", "ingresses") && attempt.creates() {
        ingress_class::admit(attempt, tree).await?;
    }
    if let Some(namespace) = namespace {
        warnings.extend(pod_security::admit(attempt, namespace.tree(), tree, old).await?);
    }
    Ok(warnings)
}

/// What may not be deleted.
pub(crate) fn check_delete(attempt: &Attempt<'_>) -> Result<(), Status> {
    namespace::check_mortal(attempt)
}
