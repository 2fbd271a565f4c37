//! A configuration would change what somebody else owns.

use super::{
    element::{Element, path_text},
    managed::Manager,
};
use crate::status::{Cause, Reason, Status};

/// One field that another manager owns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    pub manager: Manager,
    pub path: Vec<Element>,
}

/// The refusal, in upstream's words. Conflicts come sorted by manager.
pub fn refusal(conflicts: &[Conflict]) -> Status {
    let mut status = Status::new(Reason::Conflict, message(conflicts));
    status.causes = conflicts
        .iter()
        .map(|conflict| Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict with {}", conflict.manager),
            field: path_text(&conflict.path),
        })
        .collect();
    status
}

fn message(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            conflict.manager,
            path_text(&conflict.path)
        );
    }
    let mut lines = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", path_text(&conflict.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::managed::Operation;

    fn conflict(manager: &Manager, path: &[&str]) -> Conflict {
        Conflict {
            manager: manager.clone(),
            path: path.iter().map(|name| Element::field(name)).collect(),
        }
    }

    #[test]
    fn one_conflict_is_one_line_and_more_are_told_by_manager() {
        let kubectl = Manager::new("kubectl", Operation::Apply, "apps/v1", "");
        let scaler = Manager::new("scaler", Operation::Update, "apps/v1", "scale");
        let replicas = conflict(&scaler, &["spec", "replicas"]);

        let one = refusal(std::slice::from_ref(&replicas));
        let many = refusal(&[
            conflict(&kubectl, &["spec", "paused"]),
            conflict(&kubectl, &["spec", "strategy"]),
            replicas,
        ]);

        assert_eq!(one.code(), 409);
        assert_eq!(
            one.message,
            "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
        );
        assert_eq!(one.causes[0].reason, "FieldManagerConflict");
        assert_eq!(
            one.causes[0].message,
            "conflict with \"scaler\" with subresource \"scale\" using apps/v1"
        );
        assert_eq!(one.causes[0].field, ".spec.replicas");
        assert_eq!(
            many.message,
            "Apply failed with 3 conflicts: conflicts with \"kubectl\":\n- .spec.paused\n- .spec.strategy\nconflicts with \
             \"scaler\" with subresource \"scale\" using apps/v1:\n- .spec.replicas"
        );
    }
}
