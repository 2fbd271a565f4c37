//! How a part of the platform talks to planes: thin verbs over any tower service, sources and informers over many
//! planes at once, work queues.
//!
//! May use `api` (what objects are) and `world` (time, randomness). Never knows whether a plane is in this process,
//! across the network, or an upstream kube-apiserver, and never knows what a loop built on it is for.
//!
//! Start reading at [`Client`] (one request), then [`Sources`] (which planes there are), [`Informer`] (what they hold),
//! [`WorkQueue`] and [`run`] (what a loop does with it).
//!
//! ```
//! # async fn example(service: client::Client) -> Result<(), client::Error> {
//! use api::resource;
//! let plane = service.plane("abcdefghijklmnop".parse().expect("a plane id"));
//! let pod = plane.get(&resource::PODS, Some("default"), "web").await?;
//! assert_eq!(pod.kind(), "Pod");
//! # Ok(())
//! # }
//! ```

mod backoff;
mod body;
mod cache;
mod client;
mod collection;
mod discovery;
mod error;
mod event;
mod feed;
mod frames;
mod informer;
mod item;
mod keys;
mod lanes;
mod leader;
mod network;
mod options;
mod query;
mod queue;
#[cfg(test)]
mod queue_tests;
mod recorder;
mod remembered;
mod sources;
mod subscription;
mod tasks;

pub use backoff::Backoff;
pub use body::{Body, BoxError, body_of, empty_body, read_body};
pub use cache::IndexFn;
pub use client::Client;
pub use collection::List;
pub use discovery::Discovered;
pub use error::{Error, Refusal};
pub use event::Event;
pub use informer::{Informer, InformerOptions};
pub use item::Item;
pub use keys::{ObjectKey, PlaneKey, SourceId};
pub use leader::{LeaderElection, LeaderOptions, Leadership};
pub use network::ConfigError;
pub use options::{DeleteOptions, ListOptions, Patch, Propagation, WatchOptions};
pub use queue::{QueueOptions, Work, WorkQueue};
pub use recorder::{EventRecorder, EventType};
pub use remembered::Remembered;
pub use sources::{Source, Sources};
pub use subscription::{Change, Notice, Subscription};
pub use tasks::{Outcome, Tasks, enqueue, run};
