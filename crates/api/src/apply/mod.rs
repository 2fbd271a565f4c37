//! Server-side apply: fields have owners, and a configuration that is applied changes and removes only its own.
//!
//! Start at [`tracking`], which is what a write calls. It knows owners ([`managed`]) of sets of fields ([`set`],
//! written as [`fields`]), and asks [`updater`] who owns what then. That walks objects by their type ([`shape`]):
//! [`fieldset`] (which fields a configuration speaks of), [`compare`], [`merge`], [`remove`], [`check`].
//!
//! Rules and forms are those of upstream's `structured-merge-diff`, so that owners written by either mean the same.

mod check;
mod compare;
mod conflict;
mod element;
pub mod fields;
mod fieldset;
mod filter;
mod managed;
mod merge;
mod migration;
mod reconcile;
mod remove;
pub mod scale;
mod set;
mod shape;
mod tracking;
mod updater;

#[cfg(test)]
mod tests;

pub use element::Element;
pub use filter::Filter;
pub use managed::{Managed, Manager, Operation, Owned};
pub use set::Set;
pub use shape::Shape;
pub use tracking::{MANAGER_CHARS_MAX, Write, keep_times, manager_of_user_agent};
pub use updater::{Force, Versions};
