//! WebSocket (RFC 6455), server side, as Kubernetes uses it: either several numbered channels, one byte in front of
//! each message ([`channels`]), or one pipe of bytes ([`tunnel`]).

pub(crate) mod channels;
mod frame;
pub(crate) mod handshake;
pub(crate) mod tunnel;
mod writer;
