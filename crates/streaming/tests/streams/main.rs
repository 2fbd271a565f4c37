//! Real clients (kubectl, an independent WebSocket implementation) through a relay to the far ends of streams.

mod far_end;
mod kubectl;
mod relaying;
mod web_socket;
