//! The status of a VirtualCluster: a phase for people, a condition for `kubectl wait`.

use std::time::SystemTime;

use api::{Object, PlaneId};
use jiff::Timestamp;
use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Pending,
    Running,
    Error,
    Deleting,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Error => "Error",
            Phase::Deleting => "Deleting",
        }
    }
}

/// What the status should say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Status<'a> {
    phase: Phase,
    plane: Option<PlaneId>,
    message: &'a str,
}

impl<'a> Status<'a> {
    pub fn of(phase: Phase, plane: Option<PlaneId>, message: &'a str) -> Status<'a> {
        Status { phase, plane, message }
    }

    /// A merge patch of the status; `None` if it says so already.
    pub fn patch(&self, cluster: &Object, now: SystemTime) -> Option<Value> {
        let observed = &cluster.tree()["status"];
        let is_ready = if self.phase == Phase::Running { "True" } else { "False" };
        let known = observed["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Ready");
        let since = match known {
            Some(known) if known["status"] == is_ready => known["lastTransitionTime"].clone(),
            _ => rfc3339(now).into(),
        };
        let wanted = json!({
            "phase": self.phase.as_str(),
            "plane": self.plane,
            "message": self.message,
            "conditions": [{
                "type": "Ready", "status": is_ready, "reason": self.phase.as_str(), "message": self.message,
                "observedGeneration": cluster.tree()["metadata"]["generation"].as_i64().unwrap_or(0),
                "lastTransitionTime": since,
            }],
        });
        let is_said = wanted
            .as_object()
            .into_iter()
            .flatten()
            .all(|(field, value)| observed[field] == *value);
        (!is_said).then(|| json!({"metadata": {"uid": cluster.uid()}, "status": wanted}))
    }
}

/// The plane that a VirtualCluster had when its status was last written.
pub(super) fn plane(cluster: &Object) -> Option<PlaneId> {
    cluster.tree()["status"]["plane"].as_str()?.parse().ok()
}

fn rfc3339(at: SystemTime) -> String {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_status_that_is_said_already_is_not_written_and_a_transition_keeps_its_time() {
        let mut tree = json!({"metadata": {"name": "acme", "uid": "u", "generation": 1}});
        let plane = "acmeacmeacmeacme".parse().unwrap();
        let running = Status::of(Phase::Running, Some(plane), "");

        let first = running.patch(&Object::from_tree(tree.clone()), at(0)).unwrap();
        tree["status"] = first["status"].clone();
        assert_eq!(running.patch(&Object::from_tree(tree.clone()), at(9)), None);

        tree["metadata"]["generation"] = 2.into();
        let again = running.patch(&Object::from_tree(tree.clone()), at(9)).unwrap();
        assert_eq!(
            again["status"]["conditions"][0]["lastTransitionTime"],
            "1970-01-01T00:00:00Z"
        );
        let ended = Status::of(Phase::Deleting, Some(plane), "bye");
        let ended = ended.patch(&Object::from_tree(tree), at(9)).unwrap();
        assert_eq!(ended["status"]["conditions"][0]["status"], "False");
        assert_eq!(
            ended["status"]["conditions"][0]["lastTransitionTime"],
            "1970-01-01T00:00:09Z"
        );
    }
}
