//! Getting a container's image: by its policy, with the Pod's pull secrets, and with upstream's words when it fails.

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::Value;

use super::context::Context;
use super::events::EventType;
use crate::container::config::ImageUser;
use crate::cri::CriError;
use crate::pod::references::{Kind, Snapshot};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// Without a word: `Always` for `latest` and for no tag, as admission would have written.
    pub fn of(container: &Container) -> PullPolicy {
        match container.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            Some("Never") => PullPolicy::Never,
            _ => {
                let image = container.image.as_deref().unwrap_or_default();
                let last = image.rsplit('/').next().unwrap_or_default();
                match last.split_once(':') {
                    _ if image.contains('@') => PullPolicy::IfNotPresent,
                    Some((_, tag)) if tag != "latest" => PullPolicy::IfNotPresent,
                    _ => PullPolicy::Always,
                }
            }
        }
    }
}

pub struct Pulled {
    pub image_ref: String,
    pub user: ImageUser,
}

/// Why there is no image: a status reason and a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PullFailure {
    pub reason: &'static str,
    pub message: String,
    /// Trying again later may help.
    pub backs_off: bool,
}

pub async fn ensure(
    context: &Context,
    pod: &Pod,
    container: &Container,
    references: &Snapshot,
    sandbox: &cri::PodSandboxConfig,
) -> Result<Pulled, PullFailure> {
    let name = container.image.clone().unwrap_or_default();
    let spec = cri::ImageSpec {
        image: name.clone(),
        annotations: pod
            .metadata
            .annotations
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        user_specified_image: name.clone(),
        ..Default::default()
    };
    let event = |kind, reason: &str, message: String| {
        context.events.pod(pod, Some(&container.name), kind, reason, message);
    };
    if name.is_empty() || name.chars().any(char::is_whitespace) {
        let message = format!("Failed to apply default image tag {name:?}: couldn't parse image name");
        event(EventType::Warning, "InspectFailed", message.clone());
        return Err(PullFailure {
            reason: "InvalidImageName",
            message,
            backs_off: false,
        });
    }
    let policy = PullPolicy::of(container);
    let present = context.runtime.image(spec.clone()).await.map_err(|error| PullFailure {
        reason: "ImageInspectError",
        message: format!("Failed to inspect image {name:?}: {error}"),
        backs_off: true,
    })?;
    match (policy, present) {
        (PullPolicy::Never | PullPolicy::IfNotPresent, Some(image)) => {
            let message = format!("Container image {name:?} already present on machine");
            event(EventType::Normal, "Pulled", message);
            return Ok(pulled(image));
        }
        (PullPolicy::Never, None) => {
            let message = format!("Container image {name:?} is not present with pull policy of Never");
            event(EventType::Warning, "ErrImageNeverPull", message.clone());
            return Err(PullFailure {
                reason: "ErrImageNeverPull",
                message,
                backs_off: false,
            });
        }
        (PullPolicy::Always, _) | (PullPolicy::IfNotPresent, None) => {}
    }

    event(EventType::Normal, "Pulling", format!("Pulling image {name:?}"));
    let began = context.world.clock.monotonic();
    let result = {
        let _permit = context.pulls.acquire().await;
        pull(context, pod, &spec, references, sandbox).await
    };
    match result {
        Ok(image_ref) => {
            let took = context.world.clock.monotonic().saturating_sub(began);
            let found = cri::ImageSpec {
                image: image_ref.clone(),
                ..Default::default()
            };
            let image = context.runtime.image(found).await.ok().flatten();
            let size = image.as_ref().map_or(0, |image| image.size);
            event(
                EventType::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image {name:?} in {:.3}s. Image size: {size} bytes.",
                    took.as_secs_f64()
                ),
            );
            let user = image.map(user_of).unwrap_or_default();
            Ok(Pulled { image_ref, user })
        }
        Err(error) => {
            event(
                EventType::Warning,
                "Failed",
                format!("Failed to pull image {name:?}: {error}"),
            );
            event(EventType::Warning, "Failed", "Error: ErrImagePull".to_owned());
            Err(PullFailure {
                reason: "ErrImagePull",
                message: error.to_string(),
                backs_off: true,
            })
        }
    }
}

/// Tries the Pod's credentials for that registry one after the other; without any, none.
async fn pull(
    context: &Context,
    pod: &Pod,
    image: &cri::ImageSpec,
    references: &Snapshot,
    sandbox: &cri::PodSandboxConfig,
) -> Result<String, CriError> {
    let mut last = None;
    for auth in credentials(pod, &image.image, references) {
        match context.runtime.pull(image.clone(), Some(auth), sandbox.clone()).await {
            Ok(image_ref) => return Ok(image_ref),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error),
        None => context.runtime.pull(image.clone(), None, sandbox.clone()).await,
    }
}

fn pulled(image: cri::Image) -> Pulled {
    Pulled {
        image_ref: image.id.clone(),
        user: user_of(image),
    }
}

fn user_of(image: cri::Image) -> ImageUser {
    ImageUser {
        uid: image.uid.map(|uid| uid.value),
        name: image.username,
    }
}

/// From the Pod's `imagePullSecrets`, those for the image's registry; longer paths first.
pub fn credentials(pod: &Pod, image: &str, references: &Snapshot) -> Vec<cri::AuthConfig> {
    let mut found: Vec<(usize, cri::AuthConfig)> = Vec::new();
    for secret in pod
        .spec
        .iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten())
    {
        let Ok(keys) = references.get(Kind::Secret, &secret.name) else {
            continue;
        };
        let auths = match (keys.get(".dockerconfigjson"), keys.get(".dockercfg")) {
            (Some(data), _) => serde_json::from_slice::<Value>(data).map(|mut tree| tree["auths"].take()),
            (None, Some(data)) => serde_json::from_slice::<Value>(data),
            (None, None) => continue,
        };
        let Ok(Value::Object(auths)) = auths else { continue };
        for (server, entry) in auths {
            let place = server
                .trim_start_matches("https://")
                .trim_start_matches("http://")
                .trim_end_matches('/');
            let place = place
                .strip_suffix("/v1")
                .or_else(|| place.strip_suffix("/v2"))
                .unwrap_or(place);
            if !is_below(&repository(image), place) {
                continue;
            }
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            let auth = cri::AuthConfig {
                username: text("username"),
                password: text("password"),
                auth: text("auth"),
                server_address: server.clone(),
                identity_token: text("identitytoken"),
                registry_token: text("registrytoken"),
            };
            found.push((place.len(), auth));
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

/// `registry/path` of an image name, with Docker's defaults written out.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let (path, last) = name.rsplit_once('/').map_or(("", name), |(path, last)| (path, last));
    let last = last.split(':').next().unwrap_or_default();
    let name = if path.is_empty() {
        last.to_owned()
    } else {
        format!("{path}/{last}")
    };
    match name.split_once('/') {
        Some((registry, _)) if registry.contains(['.', ':']) || registry == "localhost" => name,
        Some(_) => format!("index.docker.io/{name}"),
        None => format!("index.docker.io/library/{name}"),
    }
}

fn is_below(repository: &str, place: &str) -> bool {
    let place = if place == "docker.io" || place.is_empty() {
        "index.docker.io"
    } else {
        place
    };
    repository
        .strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::references::{Keys, Known, Reference};
    use serde_json::json;

    #[test]
    fn the_policy_without_a_word_depends_on_the_tag() {
        for (image, policy, expected) in [
            ("busybox", None, PullPolicy::Always),
            ("busybox:latest", None, PullPolicy::Always),
            ("busybox:1", None, PullPolicy::IfNotPresent),
            ("host:5000/busybox", None, PullPolicy::Always),
            ("host:5000/busybox@sha256:abc", None, PullPolicy::IfNotPresent),
            ("busybox", Some("Never"), PullPolicy::Never),
        ] {
            let container = Container {
                image: Some(image.to_owned()),
                image_pull_policy: policy.map(str::to_owned),
                ..Default::default()
            };

            assert_eq!(PullPolicy::of(&container), expected, "{image}");
        }
    }

    #[test]
    fn credentials_are_those_of_the_images_registry_the_nearest_first() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "hub"},
            "registry.example": {"auth": "all"},
            "registry.example/team": {"auth": "team"},
            "registry.example.evil": {"auth": "evil"},
        }});
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "imagePullSecrets": [{"name": "pull"}]}}))
                .unwrap();
        let mut references = Snapshot::default();
        let keys = Keys {
            text: [(".dockerconfigjson".to_owned(), config.to_string().into_bytes())].into(),
            ..Default::default()
        };
        let reference = Reference {
            kind: Kind::Secret,
            name: "pull".to_owned(),
        };
        references.0.insert(reference, Known::Present(keys.into()));
        let found = |image: &str| -> Vec<String> {
            credentials(&pod, image, &references)
                .into_iter()
                .map(|auth| auth.auth)
                .collect()
        };

        assert_eq!(found("busybox:1"), ["hub"]);
        assert_eq!(found("registry.example/team/app:2"), ["team", "all"]);
        assert_eq!(found("registry.example/teams/app"), ["all"]);
        assert_eq!(found("other.example/app"), [""; 0]);
    }
}
