//! The container runtime: a CRI v1 server on a Unix socket, with images, sandboxes, their network and their streams.
//!
//! This room runs containers and knows nothing of the Kubernetes API beyond what CRI's own messages say; whoever speaks
//! CRI (our node agent, an upstream kubelet, `crictl`) is its client. It uses `streaming` for the far ends of exec,
//! attach and port-forward, and libcontainer for what makes a process a container.
//!
//! Two kinds of process work together. The **server** ([`Runtime`]) answers CRI and keeps nothing that it could not
//! rebuild. A **supervisor** a sandbox ([`supervisor`]) holds the namespaces, the containers' streams and their exit
//! codes, so that the server may end, crash and come back while containers run on. They share folders and a private
//! socket.
//!
//! What it does not do, and says: AppArmor profiles have to be the machine's; user namespaces, image volumes, host
//! ports, checkpoints are refused or left out; under version 2 of control groups devices are not filtered, so the power
//! to make device nodes is not given there unless asked for.
//!
//! Start reading at [`Runtime`], then `server/sandboxes.rs`, then `supervisor/serve.rs`.
#![allow(
    clippy::disallowed_methods,
    reason = "this room is the outside world's edge: real processes on a real clock"
)]

mod error;
mod image;
mod server;
pub mod supervisor;
mod system;

pub use error::{Error, Result};
pub use image::{Image, ImageConfig, ImageStore, RegistryOptions};
pub use server::{INTERFACE_PREFIX, Runtime, RuntimeOptions};
