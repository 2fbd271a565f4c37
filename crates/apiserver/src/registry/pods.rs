//! What only Pods have: binding to a node, and the streams into them.

use api::{Reason, Status};
use http::{Request, Response, StatusCode, Uri};
use serde_json::{Value, json};
use streaming::{PodStream, Subresource};

use super::{
    Kind, Place, Registry, body, forms, meta,
    owners::Noted,
    read::place,
    refusals::{self, bad_request},
    update::Aspect,
};
use crate::{
    Body,
    context::{Context, Verb},
    empty_body,
};

impl Registry {
    /// `pods/binding`, and `bindings`, which is the same by another name.
    pub(super) async fn bind(
        &self,
        context: &Context,
        kind: &Kind,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        if context.info.verb != Verb::Create {
            return Err(refusals::method_not_allowed());
        }
        let binding = body::json(&body::bytes(request).await?)?;
        let target = &binding["target"];
        let node = target["name"].as_str().unwrap_or_default().to_owned();
        let named = meta::text(&binding, "name").to_owned();
        let name = context.info.name.clone().unwrap_or_else(|| named.clone());
        if !named.is_empty() && named != name {
            return Err(bad_request("name in URL does not match name in Binding object"));
        }
        if node.is_empty() || !matches!(target["kind"].as_str(), None | Some("" | "Node")) {
            let mut status = Status::new(
                Reason::Invalid,
                format!("Binding \"{name}\" is invalid: target.name: Required value"),
            )
            .about("", "Binding", &name);
            status.causes.push(api::status::Cause {
                reason: "FieldValueRequired",
                message: "Required value".to_owned(),
                field: "target.name".to_owned(),
            });
            return Err(status);
        }
        let pods = Kind::BuiltIn(api::table::find("", "v1", "pods").expect("Pods are a built-in kind"));
        let mut context = context.clone();
        context.info.name = Some(name.clone());
        // The scheduler writes what it decided, whatever else has changed in the Pod.
        context.info.verb = Verb::Patch;
        let now = meta::now(&*self.planes().world().clock);
        let conflict = |why: String| {
            Status::new(
                Reason::Conflict,
                format!("Operation cannot be fulfilled on pods/binding {name:?}: {why}"),
            )
            .about("", "pods/binding", &name)
        };
        let change = |current: &Value| {
            let uid = meta::text(&binding, "uid");
            if !uid.is_empty() && uid != meta::text(current, "uid") {
                return Err(conflict(format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    meta::text(current, "uid")
                )));
            }
            if current["metadata"]["deletionTimestamp"].is_string() {
                return Err(conflict(format!(
                    "pod {name} is being deleted, cannot be assigned to a host"
                )));
            }
            match current["spec"]["nodeName"].as_str().unwrap_or_default() {
                "" => {}
                has => return Err(conflict(format!("pod {name} is already assigned to node {has:?}"))),
            }
            if current["spec"]["schedulingGates"]
                .as_array()
                .is_some_and(|gates| !gates.is_empty())
            {
                return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
            }
            let mut tree = current.clone();
            tree["spec"]["nodeName"] = node.clone().into();
            for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
                if !tree["metadata"]["annotations"].is_object() {
                    tree["metadata"]["annotations"] = json!({});
                }
                tree["metadata"]["annotations"][key] = value.clone();
            }
            let conditions = &mut tree["status"]["conditions"];
            if !conditions.is_array() {
                *conditions = json!([]);
            }
            if let Some(conditions) = conditions.as_array_mut() {
                conditions.retain(|condition| condition["type"] != "PodScheduled");
                conditions.push(json!({
                    "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
                }));
            }
            Ok(body::Read {
                tree,
                warnings: Vec::new(),
            })
        };
        let _ = kind;
        self.update_object(&context, &pods, Aspect::Binding, Noted::Never, &change)
            .await?;
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(forms::tree(StatusCode::CREATED, &status))
    }

    /// `log`, `exec`, `attach`, `portforward`: handed to whoever can reach the Pod.
    pub(super) async fn stream(
        &self,
        context: &Context,
        kind: &Kind,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let subresource = Subresource::parse(&context.info.subresource).ok_or_else(refusals::unknown_resource)?;
        let place: Place = place(context, kind);
        let stored = place
            .read()
            .await?
            .stored
            .ok_or_else(|| refusals::not_found(kind, place.name))?;
        let pod = stored.object.tree();
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        if subresource != Subresource::PortForward {
            let container = choose_container(pod, context.query.option("container").unwrap_or_default())?;
            if context.query.option("container").is_none_or(str::is_empty) {
                set_container(&mut request, &container)?;
            }
        }
        if matches!(subresource, Subresource::Exec | Subresource::Attach)
            && let phase @ ("Succeeded" | "Failed") = pod["status"]["phase"].as_str().unwrap_or_default()
        {
            return Err(bad_request(format!(
                "cannot exec into a container in a completed pod; current phase is {phase}"
            )));
        }
        if node.is_empty() {
            return match subresource {
                // As upstream: what runs nowhere has said nothing.
                Subresource::Log => Ok(Response::new(empty_body())),
                _ => Err(bad_request(format!("pod {} does not have a host assigned", place.name))),
            };
        }
        let backend = self
            .pod_backend()
            .ok_or_else(|| Status::new(Reason::ServiceUnavailable, "nobody who can reach Pods is connected yet"))?;
        let plane = if place.plane.is_root() {
            "super".to_owned()
        } else {
            place.plane.id.to_string()
        };
        Ok(backend
            .stream(PodStream {
                plane,
                namespace: stored.object.namespace().to_owned(),
                name: stored.object.name().to_owned(),
                uid: stored.object.uid().to_owned(),
                node,
                subresource,
                request,
            })
            .await)
    }
}

/// The container a stream is to, by upstream's rules.
fn choose_container(pod: &Value, asked: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().map(Vec::as_slice).unwrap_or_default();
        containers
            .iter()
            .filter_map(|it| it["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let (mut containers, init, ephemeral) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    let name = meta::text(pod, "name");
    if asked.is_empty() {
        if containers.len() == 1 && init.is_empty() && ephemeral.is_empty() {
            return Ok(containers.remove(0));
        }
        // kubectl's own rule, which spares other clients the question.
        if let Some(default) = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str()
            && containers.iter().any(|has| has == default)
        {
            return Ok(default.to_owned());
        }
        if containers.len() == 1 {
            return Ok(containers.remove(0));
        }
        let mut message = format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            containers.join(" ")
        );
        if !init.is_empty() {
            message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
        }
        if !ephemeral.is_empty() {
            message.push_str(&format!(
                " or one of the ephemeral containers: [{}]",
                ephemeral.join(" ")
            ));
        }
        return Err(bad_request(message));
    }
    if containers.iter().chain(&init).chain(&ephemeral).any(|has| has == asked) {
        Ok(asked.to_owned())
    } else {
        Err(bad_request(format!("container {asked} is not valid for pod {name}")))
    }
}

/// Names the container in the request, so that nobody behind has to choose again.
fn set_container(request: &mut Request<Body>, container: &str) -> Result<(), Status> {
    let uri = request.uri();
    let kept: Vec<&str> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && *pair != "container" && *pair != "container=")
        .collect();
    let mut query = kept.join("&");
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str("container=");
    query.extend(form_urlencoded::byte_serialize(container.as_bytes()));
    let mut parts = uri.clone().into_parts();
    let path = format!("{}?{query}", uri.path());
    parts.path_and_query = Some(path.parse().map_err(|_| bad_request("the path is not one"))?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad_request("the path is not one"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_chosen_by_upstreams_rules() {
        let pod = |names: &[&str]| {
            let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"metadata": {"name": "web"}, "spec": {"containers": containers}})
        };

        assert_eq!(choose_container(&pod(&["a"]), "").unwrap(), "a");
        assert_eq!(choose_container(&pod(&["a", "b"]), "b").unwrap(), "b");
        assert_eq!(
            choose_container(&pod(&["a", "b"]), "").unwrap_err().message,
            "a container name must be specified for pod web, choose one of: [a b]"
        );
        assert_eq!(
            choose_container(&pod(&["a"]), "x").unwrap_err().message,
            "container x is not valid for pod web"
        );
    }

    #[test]
    fn the_chosen_container_goes_on_in_the_query() {
        let mut request = Request::new(empty_body());
        *request.uri_mut() = "/api/v1/namespaces/a/pods/b/log?follow=true&container="
            .parse()
            .unwrap();

        set_container(&mut request, "web").unwrap();

        assert_eq!(request.uri().query(), Some("follow=true&container=web"));
    }
}
