//! Exec, attach and port-forward: the runtime is asked for a URL, and the connection is handed on to it as bytes.

use http::{Request, Response, StatusCode, Uri};
use k8s_cri::v1 as cri;
use streaming::{Body, Connect, Upstream};

use super::{Shared, text};
use crate::agent::worker::View;
use crate::cri::CriError;
use crate::pod::observed::State;
use crate::query;

/// Which of the standard streams a caller wants; kubelet's own parameter names, with the API's as a courtesy.
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    fn parse(pairs: &[(String, String)]) -> Option<Wanted> {
        let is_set = |names: [&str; 2]| {
            pairs
                .iter()
                .any(|(key, value)| names.contains(&key.as_str()) && matches!(value.as_str(), "1" | "true"))
        };
        let tty = is_set(["tty", "tty"]);
        let wanted = Wanted {
            stdin: is_set(["input", "stdin"]),
            stdout: is_set(["output", "stdout"]),
            // A terminal has one output.
            stderr: is_set(["error", "stderr"]) && !tty,
            tty,
        };
        (wanted.stdin || wanted.stdout || wanted.stderr).then_some(wanted)
    }
}

const NO_STREAMS: &str = "you must specify at least 1 of stdin, stdout, stderr";

impl Shared {
    /// The Pod, if it is here and is the one that was meant.
    fn view(&self, namespace: &str, pod: &str, uid: Option<&str>) -> Result<View, Response<Body>> {
        let absent = || text(StatusCode::NOT_FOUND, &format!("pod {pod:?} does not exist"));
        let view = self.pods.find(namespace, pod).ok_or_else(absent)?.borrow().clone();
        match uid {
            Some(uid) if view.pod.metadata.uid.as_deref() != Some(uid) => Err(absent()),
            _ => Ok(view),
        }
    }

    fn running(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
    ) -> Result<String, Response<Body>> {
        let view = self.view(namespace, pod, uid)?;
        match view.observed.latest(container) {
            Some(latest) if latest.state == State::Running => Ok(latest.id.clone()),
            Some(_) => Err(text(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("container {container} is not running"),
            )),
            None => Err(text(
                StatusCode::NOT_FOUND,
                &format!("container not found (\"{container}\")"),
            )),
        }
    }

    pub(super) async fn exec(
        &self,
        request: Request<Body>,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
    ) -> Response<Body> {
        let pairs = query::parse(request.uri().query().unwrap_or_default());
        let Some(wanted) = Wanted::parse(&pairs) else {
            return text(StatusCode::BAD_REQUEST, NO_STREAMS);
        };
        let cmd: Vec<String> = pairs
            .into_iter()
            .filter(|(key, _)| key == "command")
            .map(|(_, value)| value)
            .collect();
        if cmd.is_empty() {
            return text(StatusCode::BAD_REQUEST, "you must specify at least 1 command");
        }
        let container_id = match self.running(namespace, pod, uid, container) {
            Ok(id) => id,
            Err(refusal) => return refusal,
        };
        let url = self.context.runtime.exec_url(cri::ExecRequest {
            container_id,
            cmd,
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        });
        self.hand_on(request, url.await).await
    }

    pub(super) async fn attach(
        &self,
        request: Request<Body>,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
    ) -> Response<Body> {
        let pairs = query::parse(request.uri().query().unwrap_or_default());
        let Some(wanted) = Wanted::parse(&pairs) else {
            return text(StatusCode::BAD_REQUEST, NO_STREAMS);
        };
        let container_id = match self.running(namespace, pod, uid, container) {
            Ok(id) => id,
            Err(refusal) => return refusal,
        };
        let url = self.context.runtime.attach_url(cri::AttachRequest {
            container_id,
            stdin: wanted.stdin,
            tty: wanted.tty,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        });
        self.hand_on(request, url.await).await
    }

    pub(super) async fn port_forward(
        &self,
        request: Request<Body>,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
    ) -> Response<Body> {
        let pairs = query::parse(request.uri().query().unwrap_or_default());
        let port = pairs
            .iter()
            .filter(|(key, _)| key == "port" || key == "ports")
            .flat_map(|(_, value)| value.split(','))
            .filter_map(|port| port.parse::<u16>().ok().map(i32::from))
            .collect();
        let view = match self.view(namespace, pod, uid) {
            Ok(view) => view,
            Err(refusal) => return refusal,
        };
        let Some(sandbox) = view.observed.sandbox() else {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("pod {pod:?} has no running sandbox"),
            );
        };
        let url = self.context.runtime.port_forward_url(cri::PortForwardRequest {
            pod_sandbox_id: sandbox.id.clone(),
            port,
        });
        self.hand_on(request, url.await).await
    }

    async fn hand_on(&self, mut request: Request<Body>, url: Result<String, CriError>) -> Response<Body> {
        let url = match url {
            Ok(url) => url,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        };
        let parsed = url.parse::<Uri>().ok().filter(|url| url.scheme_str() == Some("http"));
        let Some((url, address)) = parsed.and_then(|url| {
            let address = url.authority()?.to_string();
            Some((url, address))
        }) else {
            let message = format!("the runtime's streaming URL {url:?} is not one of plain HTTP");
            return text(StatusCode::INTERNAL_SERVER_ERROR, &message);
        };
        *request.uri_mut() = url;
        let upstream = Upstream::from(Connect::Tcp { address });
        match self.relay.relay(request, upstream).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_in_both_spellings_and_a_terminal_has_no_errors() {
        let parse = |text: &str| {
            Wanted::parse(&query::parse(text)).map(|wanted| (wanted.stdin, wanted.stdout, wanted.stderr, wanted.tty))
        };

        assert_eq!(parse("input=1&output=1&error=1"), Some((true, true, true, false)));
        assert_eq!(
            parse("stdin=true&stdout=true&stderr=true&tty=true"),
            Some((true, true, false, true))
        );
        assert_eq!(parse("output=0&tty=1"), None);
    }
}
