//! Streams into Pods: connection upgrades relayed as plain bytes, and their far ends, where SPDY/3.1 and WebSocket
//! become standard input, output, errors, window sizes and forwarded ports.
//!
//! This room knows HTTP connections and nothing else: no plane, no Pod beyond its name, no runtime. An API server hands
//! requests to a [`PodBackend`] and relays them with [`relay::Relay`]; only a CRI streaming server (or a test) ends
//! them, with [`remote_command::accept`] and [`port_forward::accept`]. Both framings are written here rather than taken from a crate because
//! a message may be larger than what we are ready to hold: payloads pass in pieces, and every buffer has a bound.
//!
//! Start reading at [`backend`], then [`relay`], then [`remote_command`].

pub mod backend;
pub mod body;
mod handover;
mod pipe;
pub mod port_forward;
mod refusal;
pub mod relay;
pub mod remote_command;
pub mod spdy;
pub mod status;
pub mod upgrade;
mod websocket;
mod wire;

pub use backend::{PodBackend, PodStream, Subresource};
pub use body::Body;
pub use refusal::{Refusal, SessionError};
pub use relay::{Connect, Relay, RelayError, Upstream};
