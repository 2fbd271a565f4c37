//! A body that holds something until its last byte: a watch's place among those under way.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::Body;

type Error = Box<dyn std::error::Error + Send + Sync>;

struct Held<T> {
    body: Body,
    _held: T,
}

/// Drops `held` with the body.
pub fn hold<T: Send + Unpin + 'static>(body: Body, held: T) -> Body {
    Held { body, _held: held }.boxed_unsync()
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::full_body;

    #[tokio::test]
    async fn what_is_held_goes_with_the_body_and_not_before() {
        let held = Arc::new(());
        let body = hold(full_body("answer"), Arc::clone(&held));

        assert_eq!(Arc::strong_count(&held), 2);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "answer");
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
