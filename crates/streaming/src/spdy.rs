//! SPDY/3.1 as Kubernetes speaks it: streams with headers, multiplexed over one upgraded connection. Peers (all of
//! them built on moby/spdystream) neither honour nor send flow control windows, so neither do we; a stream that is not
//! read stops its whole connection once [`crate::pipe`]'s bound is reached.

mod frame;
mod headers;
mod reader;
mod session;
mod stream;
mod table;
mod writer;

pub use frame::SpdyError;
pub use headers::Headers;
pub use session::{Role, Session};
pub use stream::{Stream, StreamReader, StreamWriter};
