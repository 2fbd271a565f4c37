//! Bodies as both sides of the in-process door have them.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};

use crate::Error;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The largest answer that is read whole. A page of a list is at most [`crate::client::PAGE_ITEMS`] objects of at most
/// 1.5 MiB each upstream, but in practice a few MiB; beyond this a caller should ask for smaller pages.
pub(crate) const MAX_ANSWER_BYTES: usize = 256 << 20;

pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub fn body_of(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a body whole, refusing one above `limit_bytes`.
pub async fn read_body(mut body: Body, limit_bytes: usize) -> Result<Bytes, Error> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| Error::Transport { source })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len() > limit_bytes {
            return Err(Error::TooLarge { limit_bytes });
        }
        match &first {
            // One frame is the common case in process, and is then not copied.
            None => first = Some(data),
            Some(_) => rest.extend_from_slice(&data),
        }
    }
    let first = first.unwrap_or_default();
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_above_the_limit_is_refused() {
        assert_eq!(read_body(body_of("12345"), 5).await.unwrap(), "12345");

        assert!(matches!(
            read_body(body_of("123456"), 5).await,
            Err(Error::TooLarge { limit_bytes: 5 })
        ));
    }
}
