//! gRPC on HTTP/2: messages with their five bytes in front, statuses in trailers. Nothing here knows what is asked.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, future::poll_fn};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use prost::Message;

use super::status::{Code, Status};

pub const PREFIX_BYTES: usize = 5;

/// One message as it goes over the wire.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    put_framed(&mut out, message);
    out.freeze()
}

pub fn put_framed(out: &mut BytesMut, message: &impl Message) {
    put_prefix(out, message.encoded_len());
    message.encode_raw(out);
}

pub fn put_prefix(out: &mut BytesMut, length: usize) {
    out.reserve(PREFIX_BYTES + length);
    out.put_u8(0);
    out.put_u32(length as u32);
}

/// The message alone.
pub fn unframed(mut framed: Bytes) -> Bytes {
    framed.advance(PREFIX_BYTES.min(framed.len()));
    framed
}

pub fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::new(Code::Internal, format!("grpc: error unmarshalling request: {error}")))
}

/// Where messages come from.
enum Source {
    Body(Incoming),
    /// There are no more.
    Ended,
    /// There are no more, and whoever sends them is still there.
    Silent,
}

/// The messages of a request's body.
pub struct Messages {
    source: Source,
    chunk: Bytes,
    gathered: BytesMut,
    max_bytes: usize,
}

impl Messages {
    pub fn new(body: Incoming, max_bytes: usize) -> Messages {
        Messages {
            source: Source::Body(body),
            chunk: Bytes::new(),
            gathered: BytesMut::new(),
            max_bytes,
        }
    }

    /// One, and then the end.
    pub fn one(message: &Bytes) -> Messages {
        Messages::made_up(message, Source::Ended)
    }

    /// One, and then nothing until the stream is dropped.
    pub fn one_and_silence(message: &Bytes) -> Messages {
        Messages::made_up(message, Source::Silent)
    }

    fn made_up(message: &Bytes, source: Source) -> Messages {
        let mut gathered = BytesMut::new();
        put_prefix(&mut gathered, message.len());
        gathered.extend_from_slice(message);
        Messages {
            source,
            chunk: Bytes::new(),
            max_bytes: message.len(),
            gathered,
        }
    }

    pub async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The only one.
    pub async fn single(mut self) -> Result<Bytes, Status> {
        let none = || Status::of(Code::Internal, "grpc: there is no message");
        self.next().await.unwrap_or_else(|| Err(none()))
    }

    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            if let Some(message) = self.take().transpose() {
                return Poll::Ready(Some(message));
            }
            let body = match &mut self.source {
                Source::Body(body) => body,
                Source::Ended => return Poll::Ready(None),
                Source::Silent => return Poll::Pending,
            };
            let Some(frame) = ready!(Pin::new(body).poll_frame(context)) else {
                let rest = self.chunk.len() + self.gathered.len();
                let torn = Status::of(Code::Internal, "grpc: the stream ends within a message");
                return Poll::Ready((rest > 0).then_some(Err(torn)));
            };
            match frame.map(Frame::into_data) {
                // An empty one, most often the end of the stream.
                Ok(Ok(data)) if data.is_empty() => {}
                Ok(Ok(data)) if self.chunk.is_empty() && self.gathered.is_empty() => self.chunk = data,
                Ok(Ok(data)) => {
                    self.gathered.extend_from_slice(&std::mem::take(&mut self.chunk));
                    self.gathered.extend_from_slice(&data);
                }
                Ok(Err(_trailers)) => {}
                Err(error) => return Poll::Ready(Some(Err(Status::new(Code::Canceled, error.to_string())))),
            }
        }
    }

    /// A whole message, if it is there.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let buffered: &[u8] = if self.gathered.is_empty() {
            &self.chunk
        } else {
            &self.gathered
        };
        let Some(prefix) = buffered.get(..PREFIX_BYTES) else {
            return Ok(None);
        };
        if prefix[0] != 0 {
            let what = "grpc: compressed flag set with identity or empty encoding";
            return Err(Status::of(Code::Internal, what));
        }
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if length > self.max_bytes {
            let what = format!(
                "grpc: received message larger than max ({length} vs. {})",
                self.max_bytes
            );
            return Err(Status::new(Code::ResourceExhausted, what));
        }
        let end = PREFIX_BYTES + length;
        if buffered.len() < end {
            return Ok(None);
        }
        Ok(Some(if self.gathered.is_empty() {
            unframed(self.chunk.split_to(end))
        } else {
            unframed(self.gathered.split_to(end).freeze())
        }))
    }
}

pub type Outgoing = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// The body of an answer.
pub enum Body {
    /// One gRPC message and its good end.
    Message(Option<Bytes>),
    Messages(Option<Outgoing>),
    /// Bytes as they are, of plain HTTP.
    Plain(Option<Bytes>),
    /// Bytes as they come, of plain HTTP.
    Lines(Outgoing),
    /// The end, which is told in trailers.
    End(Option<HeaderMap>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        match &mut *self {
            Body::Message(message) => match message.take() {
                Some(bytes) => {
                    *self = Body::End(Some(good()));
                    data(bytes)
                }
                None => Poll::Ready(None),
            },
            Body::Messages(Some(messages)) => match ready!(messages.as_mut().poll_next(context)) {
                Some(Ok(bytes)) => data(bytes),
                end => {
                    let trailers = end.and_then(Result::err).map_or_else(good, |status| bad(&status));
                    *self = Body::Messages(None);
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            },
            Body::Messages(None) => Poll::Ready(None),
            Body::Plain(bytes) => bytes.take().map_or(Poll::Ready(None), data),
            Body::Lines(lines) => match ready!(lines.as_mut().poll_next(context)) {
                Some(Ok(bytes)) => data(bytes),
                _ => Poll::Ready(None),
            },
            Body::End(trailers) => Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(
            self,
            Body::Messages(None) | Body::Message(None) | Body::Plain(None) | Body::End(None)
        )
    }
}

fn good() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

fn bad(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(status.code as u16));
    let text = percent(&status.text);
    trailers.insert(
        "grpc-message",
        HeaderValue::from_str(&text).expect("what is left after escaping may be a header"),
    );
    trailers
}

/// As gRPC has texts in headers.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

pub fn answer(answer: Result<Bytes, Status>) -> Response<Body> {
    match answer {
        Ok(message) => with_type(Body::Message(Some(message))),
        Err(status) => refusal(&status),
    }
}

pub fn stream(messages: Outgoing) -> Response<Body> {
    with_type(Body::Messages(Some(messages)))
}

/// Told in the headers, with no body at all.
pub fn refusal(status: &Status) -> Response<Body> {
    let mut response = with_type(Body::End(None));
    response.headers_mut().extend(bad(status));
    response
}

fn with_type(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_for_headers() {
        assert_eq!(percent("a 100%\u{fc}\n"), "a 100%25%C3%BC%0A");
    }

    #[test]
    fn a_message_has_five_bytes_in_front() {
        let message = String::from("x");
        let bytes = framed(&message);
        assert_eq!(&bytes[..], [0, 0, 0, 0, 3, 10, 1, b'x']);
        assert_eq!(&unframed(bytes)[..], [10, 1, b'x']);
    }
}
