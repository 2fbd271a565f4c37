//! What tests share: container images built on the spot, planes in memory, a two-tenant fixture.
//!
//! Used by tests and by `xtask` only; no room knows it. Start reading at [`image`].
#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

pub mod image;
