//! What a Pod's containers are made from: volumes as directories, references as values, Services as variables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::events::EventType;
use super::worker::{Materials, Volumes, Worker};
use crate::container::field::NodeFacts;
use crate::pod::observed::{Nanos, Observed, SECOND};
use crate::pod::references::storage::{self, StorageError};
use crate::pod::references::{self, Missing, Reference};
use crate::volume::VolumeError;
use crate::volume::payload::{PayloadError, Sources, TokenRequest};

/// The same complaint about volumes is not repeated to the plane more often than this.
const COMPLAINT_EVERY: Nanos = 120 * SECOND;

impl Worker {
    /// Volumes and variables, if all that they refer to is there. If not, the Pod waits: the objects it names wake it.
    pub(super) async fn materials(
        &mut self,
        observed: &Observed,
        tokens: BTreeMap<TokenRequest, Result<String, String>>,
    ) -> Option<Materials> {
        let pod = Arc::clone(&self.pod);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let named = references::wanted(&pod);
        let want = |behind: &BTreeSet<Reference>| {
            let wanted = named.union(behind).cloned().collect();
            let objects = &self.context.objects;
            objects.want(namespace, &self.uid, &wanted, &self.signals.wake)
        };
        let mut references = want(&self.behind_claims);
        let behind = storage::behind(&references);
        if behind != self.behind_claims {
            references = want(&behind);
        }
        self.behind_claims = behind;
        let facts = NodeFacts {
            host_ip: self.context.host_ip,
            pod_ips: self.ips(observed),
            capacity: self.context.capacity,
        };
        let fresh = self.volumes.as_ref().is_some_and(|volumes| {
            volumes.references.0 == references.0
                && volumes.tokens == tokens
                && volumes.labels == pod.metadata.labels
                && volumes.annotations == pod.metadata.annotations
        });
        if !fresh {
            let directory = self.directory.clone();
            let stamp = self.context.now().to_string();
            let task = {
                let (pod, references, facts, tokens) =
                    (Arc::clone(&pod), references.clone(), facts.clone(), tokens.clone());
                tokio::task::spawn_blocking(move || {
                    let sources = Sources {
                        pod: &pod,
                        references: &references,
                        facts: &facts,
                        tokens: &tokens,
                    };
                    directory.set_up(&sources, &stamp)
                })
            };
            let result = task.await.unwrap_or_else(|error| {
                Err(VolumeError::Io {
                    what: "setting up",
                    path: self.directory.path().to_owned(),
                    source: std::io::Error::other(error),
                })
            });
            match result {
                Ok(places) => {
                    self.complaint = None;
                    self.volumes = Some(Volumes {
                        places,
                        references: references.clone(),
                        tokens,
                        labels: pod.metadata.labels.clone(),
                        annotations: pod.metadata.annotations.clone(),
                    });
                }
                Err(error) => {
                    self.complain(&error);
                    // Containers that run keep what they have.
                    self.volumes.as_ref()?;
                }
            }
        }
        Some(Materials {
            places: self.volumes.as_ref()?.places.clone(),
            services: self.context.services.variables(&pod, self.context.kubernetes),
            references,
            facts,
        })
    }

    fn complain(&mut self, error: &VolumeError) {
        if let VolumeError::Payload(PayloadError::Missing(Missing::Unread { .. }))
        | VolumeError::Storage(StorageError::Missing(Missing::Unread { .. })) = error
        {
            // The plane has not answered yet; that is not worth a word.
            return;
        }
        let message = format!("MountVolume.SetUp failed: {error}");
        let now = self.context.now();
        let repeated = self
            .complaint
            .as_ref()
            .is_some_and(|(said, at)| *said == message && now < at + COMPLAINT_EVERY);
        if !repeated {
            self.context
                .events
                .pod(&self.pod, None, EventType::Warning, "FailedMount", message.clone());
            self.complaint = Some((message, now));
        }
    }
}
