//! The seam by which an API server hands a request into a Pod to whoever can reach that Pod.

use async_trait::async_trait;

use crate::body::Body;

/// One request into a Pod, after authorization.
pub struct PodStream {
    /// The plane whose Pod it is: a plane id, or `super`.
    pub plane: String,
    pub namespace: String,
    pub name: String,
    /// Identity of the Pod that was authorized; a Pod made anew under the same name has another.
    pub uid: String,
    /// `spec.nodeName` of that Pod, empty while it is not bound.
    pub node: String,
    pub subresource: Subresource,
    /// The caller's request: method, query, headers and, where the connection can be upgraded, hyper's `OnUpgrade`
    /// extension. The path is the caller's and means nothing to the backend.
    pub request: http::Request<Body>,
}

/// The streams a Pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    Log,
    Exec,
    Attach,
    PortForward,
}

impl Subresource {
    /// As it stands in API paths and RBAC rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Subresource::Log => "log",
            Subresource::Exec => "exec",
            Subresource::Attach => "attach",
            Subresource::PortForward => "portforward",
        }
    }

    pub fn parse(name: &str) -> Option<Subresource> {
        match name {
            "log" => Some(Subresource::Log),
            "exec" => Some(Subresource::Exec),
            "attach" => Some(Subresource::Attach),
            "portforward" => Some(Subresource::PortForward),
            _ => None,
        }
    }

    /// Whether the request makes sense only as an upgrade of an HTTP/1.1 connection.
    pub fn is_upgrade(self) -> bool {
        self != Subresource::Log
    }
}

/// Who can reach Pods. Refusals are answers (`metav1.Status` bodies, see [`crate::status`]), not errors: what the
/// backend says is what the caller is told.
#[async_trait]
pub trait PodBackend: Send + Sync + 'static {
    async fn stream(&self, stream: PodStream) -> http::Response<Body>;
}
