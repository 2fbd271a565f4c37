//! `/containerLogs/<namespace>/<pod>/<container>`.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use streaming::Body;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Shared, text};
use crate::agent::worker::View;
use crate::container::config::log_path;
use crate::container::sandbox::log_directory_name;
use crate::logs::{LogOptions, reader};
use crate::pod::observed::{Container, State};
use crate::pod::references::containers;
use crate::query;

impl Shared {
    pub(super) fn logs(&self, request: &Request<Body>, namespace: &str, pod: &str, container: &str) -> Response<Body> {
        let pairs = query::parse(request.uri().query().unwrap_or_default());
        let now = Timestamp::try_from(self.context.world.clock.wall()).unwrap_or_default();
        let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let options = match LogOptions::parse(pairs, now) {
            Ok(options) => options,
            Err(error) => return text(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
        };
        let Some(view) = self.pods.find(namespace, pod) else {
            return text(StatusCode::NOT_FOUND, &format!("pod {pod:?} does not exist"));
        };
        let chosen = choose(&view.borrow(), container, options.previous);
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err((status, message)) => return text(status, &message),
        };
        let path = if chosen.log_path.is_empty() {
            // A runtime that does not say where it writes was told so by us.
            let directory = log_directory_name(&view.borrow().pod);
            self.context
                .logs()
                .join(directory)
                .join(log_path(&chosen.name, chosen.attempt))
        } else {
            PathBuf::from(&chosen.log_path)
        };
        let mut response = Response::new(stream(path, options, chosen.id, view));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
        response
    }
}

/// The container whose log is meant, or why there is none, in upstream's words.
fn choose(view: &View, name: &str, previous: bool) -> Result<Container, (StatusCode, String)> {
    let pod_name = view.pod.metadata.name.as_deref().unwrap_or_default();
    if !containers(&view.pod).any(|spec| spec.name == name) {
        return Err((
            StatusCode::NOT_FOUND,
            format!("container {name:?} not found in pod {pod_name:?}"),
        ));
    }
    let bad = |message: String| Err((StatusCode::BAD_REQUEST, message));
    let latest = view.observed.latest(name);
    if previous {
        // While a container waits for its restart, the one that died last is the latest.
        let dead = view.observed.previous(name);
        return match dead {
            Some(dead) => Ok(dead.clone()),
            None => bad(format!(
                "previous terminated container {name:?} in pod {pod_name:?} not found"
            )),
        };
    }
    match latest {
        Some(latest) if matches!(latest.state, State::Running | State::Exited) => Ok(latest.clone()),
        _ => {
            let reason = waiting_reason(&view.pod, name);
            bad(format!(
                "container {name:?} in pod {pod_name:?} is waiting to start: {}",
                match reason.as_str() {
                    "ErrImagePull" => "image can't be pulled",
                    "ImagePullBackOff" => "trying and failing to pull image",
                    "" => "ContainerCreating",
                    reason => reason,
                }
            ))
        }
    }
}

fn waiting_reason(pod: &Pod, name: &str) -> String {
    pod.status
        .iter()
        .flat_map(|status| {
            status
                .container_statuses
                .iter()
                .flatten()
                .chain(status.init_container_statuses.iter().flatten())
        })
        .find(|status| status.name == name)
        .and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .unwrap_or_default()
}

/// The log as a body. Reading ends with the body.
fn stream(path: PathBuf, options: LogOptions, id: String, mut view: watch::Receiver<View>) -> Body {
    let (sender, receiver) = mpsc::channel(reader::CHANNEL_PIECES);
    let ended = CancellationToken::new();
    let follow = options.follow;
    let task = tokio::spawn(async move {
        let reading = reader::read(path, options, ended.clone(), sender);
        tokio::pin!(reading);
        if follow {
            let runs = |view: &View| {
                let mut containers = view.observed.containers.iter();
                containers.any(|container| container.id == id && container.state == State::Running)
            };
            tokio::select! {
                () = &mut reading => return,
                // An error means that the Pod's worker has ended, and with it the Pod.
                _ = view.wait_for(|view| !runs(view)) => ended.cancel(),
            }
        }
        reading.await;
    });
    let state = (receiver, AbortOnDropHandle::new(task));
    let pieces = futures::stream::unfold(state, |(mut receiver, task)| async move {
        let piece: std::io::Result<Bytes> = receiver.recv().await?;
        Some((piece.map(Frame::data), (receiver, task)))
    });
    StreamBody::new(pieces).map_err(Into::into).boxed_unsync()
}
