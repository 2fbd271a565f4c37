//! etcd's API as it is, by an independent gRPC implementation (tonic): every field can be set and seen.
#![allow(dead_code, reason = "each test uses its part")]

use etcd::wire::etcdserverpb::{WatchRequest, WatchResponse, watch_request::RequestUnion};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

#[derive(Clone)]
pub struct Client {
    grpc: Grpc<Channel>,
    /// Of a user.
    pub token: Option<String>,
}

/// No answer of a test is larger.
const ANSWER_BYTES_MAX: usize = 1 << 30;

impl Client {
    pub async fn connect(endpoint: &str) -> Client {
        let channel = Channel::from_shared(endpoint.to_owned())
            .expect("a URL")
            .connect()
            .await;
        let grpc = Grpc::new(channel.expect("it answers"));
        Client {
            grpc: grpc.max_decoding_message_size(ANSWER_BYTES_MAX),
            token: None,
        }
    }

    pub async fn call<Q, A>(&mut self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.expect("the connection lasts");
        let path = PathAndQuery::from_static(method);
        let codec = ProstCodec::<Q, A>::default();
        let request = self.as_user(request);
        Ok(self.grpc.unary(request, path, codec).await?.into_inner())
    }

    fn as_user<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let token = token.parse().expect("a token may be a header");
            request.metadata_mut().insert("token", token);
        }
        request
    }

    /// The first request goes along: etcd answers nothing, not even headers, before it has heard one.
    pub async fn watch(&mut self, first: RequestUnion) -> WatchCalls {
        self.grpc.ready().await.expect("the connection lasts");
        let (requests, sent) = mpsc::channel(64);
        let first = WatchRequest {
            request_union: Some(first),
        };
        requests.send(first).await.expect("there is room");
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        let asked = self
            .grpc
            .streaming(Request::new(ReceiverStream::new(sent)), path, codec);
        WatchCalls {
            requests,
            responses: asked.await.expect("a stream").into_inner(),
        }
    }

    pub async fn many<Q, A>(&mut self, method: &'static str, request: Q) -> Result<Vec<A>, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.expect("the connection lasts");
        let path = PathAndQuery::from_static(method);
        let codec = ProstCodec::<Q, A>::default();
        let request = self.as_user(request);
        let mut stream = self.grpc.server_streaming(request, path, codec).await?.into_inner();
        let mut all = Vec::new();
        while let Some(message) = stream.message().await? {
            all.push(message);
        }
        Ok(all)
    }
}

impl Client {
    /// One answer for each request, on one stream.
    pub async fn all<Q, A>(&mut self, method: &'static str, requests: Vec<Q>) -> Result<Vec<A>, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.expect("the connection lasts");
        let path = PathAndQuery::from_static(method);
        let codec = ProstCodec::<Q, A>::default();
        let requests = Request::new(tokio_stream::iter(requests));
        let mut stream = self.grpc.streaming(requests, path, codec).await?.into_inner();
        let mut all = Vec::new();
        while let Some(message) = stream.message().await? {
            all.push(message);
        }
        Ok(all)
    }
}

pub struct WatchCalls {
    pub requests: mpsc::Sender<WatchRequest>,
    pub responses: Streaming<WatchResponse>,
}

impl WatchCalls {
    pub async fn send(&self, request: RequestUnion) {
        let request = WatchRequest {
            request_union: Some(request),
        };
        self.requests.send(request).await.expect("the stream lasts");
    }

    pub async fn next(&mut self) -> WatchResponse {
        self.responses
            .message()
            .await
            .expect("no error")
            .expect("the stream lasts")
    }
}
