//! The one body type that requests and answers have on every road through the house.

use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};

/// Any error a body may end with.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// A request or response body, whatever it comes from.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;

/// A body without bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is known whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Boxes a foreign body, such as `hyper::body::Incoming`.
pub fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}
