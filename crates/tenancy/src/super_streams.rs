//! Streams into Pods of a super cluster that is elsewhere: by that cluster's own API, which knows its kubelets.

use api::resource;
use async_trait::async_trait;
use client::Client;
use http::{Response, StatusCode, Uri};
use streaming::{Body, PodBackend, PodStream, Relay, status};

/// Cheap to clone.
#[derive(Clone)]
pub struct SuperStreams {
    client: Client,
    relay: Relay,
}

impl SuperStreams {
    /// `client` may use `pods/log`, `pods/exec`, `pods/attach` and `pods/portforward` there.
    pub fn new(client: Client) -> SuperStreams {
        SuperStreams {
            client,
            relay: Relay::new(),
        }
    }
}

#[async_trait]
impl PodBackend for SuperStreams {
    async fn stream(&self, stream: PodStream) -> Response<Body> {
        let mut path = format!(
            "{}{}/{}",
            self.client.prefix(),
            resource::PODS.path(Some(&stream.namespace), Some(&stream.name)),
            stream.subresource.as_str()
        );
        let mut request = stream.request;
        if let Some(query) = request.uri().query() {
            path.push('?');
            path.push_str(query);
        }
        let Ok(uri) = Uri::try_from(path) else {
            return status::failure(
                StatusCode::BAD_REQUEST,
                "BadRequest",
                "the request's query can't be passed on",
            );
        };
        *request.uri_mut() = uri;
        let client = &self.client;
        let relayed = self
            .relay
            .relay_through(request, "the super cluster", |request| client.request(request))
            .await;
        relayed.unwrap_or_else(|error| error.into_response())
    }
}
