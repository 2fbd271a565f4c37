//! What has happened, told to whoever listens, as it happens.

use k8s_cri::v1;

use super::records::Sandbox;
use super::runtime::{Inner, now_ns};
use super::status;

impl Inner {
    /// Tells of a container, or of the sandbox itself (then `id` is the sandbox's).
    pub(super) fn tell(&self, kind: v1::ContainerEventType, id: &str, sandbox: &Sandbox) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let event = v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: now_ns(),
            pod_sandbox_status: Some(status::sandbox_status(sandbox)),
            containers_statuses: self.containers_statuses(sandbox),
        };
        // An error means that nobody listens any more.
        let _ = self.events.send(event);
    }
}
