//! The shell around the pure parts: loops, tasks, and what they share.

pub(crate) mod context;
mod ending;
pub(crate) mod events;
pub(crate) mod handler;
pub(crate) mod heartbeat;
mod hooks;
mod images;
mod last_words;
pub(crate) mod log_rotation;
mod materials;
pub(crate) mod neighbours;
pub(crate) mod objects;
pub(crate) mod pods;
pub(crate) mod pressure;
mod prober;
mod report;
pub(crate) mod runtime_events;
pub(crate) mod services;
mod steps;
pub(crate) mod tokens;
pub(crate) mod volume_directories;
pub(crate) mod walls;
pub(crate) mod worker;
