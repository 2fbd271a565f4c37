//! A client of the API server in this process, as somebody (D10). Only here are identities made.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use apiserver::{ApiServer, Body, Identity};
use client::Client;
use http::{Request, Response};
use tower::Service;

/// A client that is `name` and belongs to `groups`, on every plane.
pub fn client(api: &ApiServer, name: &str, groups: &[&str]) -> Client {
    let mut groups = groups.to_vec();
    groups.push("system:authenticated");
    Client::new(As {
        api: api.clone(),
        identity: Identity::new(name, &groups),
    })
}

#[derive(Clone)]
struct As {
    api: ApiServer,
    identity: Identity,
}

impl Service<Request<Body>> for As {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <ApiServer as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.api.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.identity.clone());
        self.api.call(request)
    }
}
