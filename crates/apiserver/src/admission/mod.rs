//! Admission: what is filled in or refused because of the state of the plane, in upstream's order of plug-ins.

mod namespace;
mod priority;
mod service_account;
mod storage_class;
mod tolerations;

use api::Status;
use serde_json::Value;

use crate::registry::{Place, Registry};

/// A write under way.
pub(crate) struct Attempt<'a> {
    pub registry: &'a Registry,
    pub place: Place<'a>,
    pub operation: Operation,
}

#[derive(Clone, Copy)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Attempt<'_> {
    fn creates(&self) -> bool {
        matches!(self.operation, Operation::Create)
    }
}

/// Runs the chain over an object in its stored version. Whatever it fills in is validated afterwards.
pub(crate) async fn mutate(attempt: &Attempt<'_>, tree: &mut Value) -> Result<(), Status> {
    namespace::check_open(attempt).await?;
    if attempt.place.kind.is_core("namespaces") {
        namespace::label(tree);
    }
    if attempt.place.kind.is_core("pods") && attempt.creates() {
        service_account::admit(attempt, tree).await?;
        priority::admit(attempt, tree).await?;
        tolerations::admit(tree);
    }
    if attempt.place.kind.is_core("persistentvolumeclaims") && attempt.creates() {
        storage_class::admit(attempt, tree).await?;
    }
    Ok(())
}

/// What may not be deleted.
pub(crate) fn check_delete(attempt: &Attempt<'_>) -> Result<(), Status> {
    namespace::check_mortal(attempt)
}
