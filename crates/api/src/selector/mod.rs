//! Which objects a list or watch is about: label selectors and field selectors.

mod field;
mod label;
mod parse;

pub use field::FieldSelector;
pub use label::{LabelSelector, Operator, Requirement, validate as validate_label_selector};
