//! Autoscalers are refused: nothing here measures Pods, so what one asks for would never happen, and nobody be told.

use api::Status;

use super::Attempt;
use crate::registry::refuse_forbidden;

pub(super) fn refuse(attempt: &Attempt<'_>) -> Result<(), Status> {
    let place = &attempt.place;
    if attempt.creates() && place.kind.is("autoscaling", "horizontalpodautoscalers") {
        return Err(refuse_forbidden(
            place.kind,
            place.name,
            "there are no metrics of Pods here, so nothing would scale by it; set the number of replicas yourself",
        ));
    }
    Ok(())
}
