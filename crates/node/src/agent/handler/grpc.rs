//! Asking a container by the gRPC health checking protocol (`grpc.health.v1.Health/Check`).

use std::time::Duration;

use http::uri::PathAndQuery;
use k8s_openapi::api::core::v1::GRPCAction;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use super::{Outcome, Target, USER_AGENT, address};

#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl ServingStatus {
    fn word(self) -> &'static str {
        match self {
            ServingStatus::Unknown => "UNKNOWN",
            ServingStatus::Serving => "SERVING",
            ServingStatus::NotServing => "NOT_SERVING",
            ServingStatus::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

const CHECK: &str = "/grpc.health.v1.Health/Check";

pub async fn grpc(target: Target<'_>, action: &GRPCAction, timeout: Duration) -> Outcome {
    let address = match address(target, None, &IntOrString::Int(action.port)) {
        Ok(address) => address,
        Err(problem) => return Outcome::Broken(problem),
    };
    let service = action.service.clone().unwrap_or_default();
    // Upstream's words.
    match tokio::time::timeout(timeout, check(&address, service)).await {
        Ok(Ok(ServingStatus::Serving)) => Outcome::Passed,
        Ok(Ok(status)) => Outcome::Failed(format!("service unhealthy (responded with {:?})", status.word())),
        Ok(Err(status)) => Outcome::Failed(match status.code() {
            Code::Unimplemented => format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            ),
            Code::Unavailable => format!(
                "timeout: failed to connect service {address:?} within {timeout:?}: {}",
                status.message()
            ),
            _ => format!("error: health rpc probe failed: {}", status.message()),
        }),
        Err(_) => Outcome::Failed(format!("timeout: health rpc did not complete within {timeout:?}")),
    }
}

async fn check(address: &str, service: String) -> Result<ServingStatus, Status> {
    let unavailable = |error: tonic::transport::Error| {
        use std::error::Error as _;
        // The error itself says only "transport error".
        let cause = error.source().map(ToString::to_string);
        Status::unavailable(cause.unwrap_or_else(|| error.to_string()))
    };
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
        .map_err(unavailable)?
        .connect()
        .await
        .map_err(unavailable)?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(unavailable)?;
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = Request::new(HealthCheckRequest { service });
    let answer = client.unary(request, PathAndQuery::from_static(CHECK), codec).await?;
    Ok(answer.into_inner().status())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use k8s_openapi::api::core::v1::Container;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::body::Body;
    use tonic::codegen::{BoxFuture, Service};
    use tonic::server::{NamedService, UnaryService};

    use super::*;

    /// Says of each service what it is told to.
    #[derive(Clone)]
    struct Health(HashMap<&'static str, ServingStatus>);

    impl NamedService for Health {
        const NAME: &'static str = "grpc.health.v1.Health";
    }

    impl UnaryService<HealthCheckRequest> for Health {
        type Response = HealthCheckResponse;
        type Future = BoxFuture<tonic::Response<HealthCheckResponse>, Status>;

        fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
            let status = self.0.get(request.into_inner().service.as_str()).copied();
            Box::pin(async move {
                let status = status.ok_or_else(|| Status::not_found("unknown service"))? as i32;
                Ok(tonic::Response::new(HealthCheckResponse { status }))
            })
        }
    }

    impl Service<http::Request<Body>> for Health {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let this = self.clone();
            Box::pin(async move {
                let codec = tonic_prost::ProstCodec::<HealthCheckResponse, HealthCheckRequest>::default();
                Ok(tonic::server::Grpc::new(codec).unary(this, request).await)
            })
        }
    }

    #[tokio::test]
    async fn a_service_that_serves_passes_and_others_fail_with_upstreams_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let health = Health(HashMap::from([
            ("", ServingStatus::Serving),
            ("sick", ServingStatus::NotServing),
        ]));
        let serving = tonic::transport::Server::builder()
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        let container = Container::default();
        let target = Target {
            container_id: "c",
            container: &container,
            ip: Some([127, 0, 0, 1].into()),
        };
        let ask = async |port: u16, service: &str| {
            let action = GRPCAction {
                port: port.into(),
                service: Some(service.to_owned()),
            };
            grpc(target, &action, Duration::from_secs(5)).await
        };

        assert_eq!(ask(port, "").await, Outcome::Passed);
        assert_eq!(
            ask(port, "sick").await,
            Outcome::Failed("service unhealthy (responded with \"NOT_SERVING\")".to_owned())
        );
        assert_eq!(
            ask(port, "unknown").await,
            Outcome::Failed("error: health rpc probe failed: unknown service".to_owned())
        );
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        assert!(
            matches!(ask(closed, "").await, Outcome::Failed(text) if text.starts_with("timeout: failed to connect"))
        );
    }
}
