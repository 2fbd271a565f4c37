//! Amounts of resources as whole numbers, rounded up as upstream rounds them.

use api::quantity::Quantity;

/// In thousandths, as CPU is counted. `None` if the text is not a quantity.
pub fn milli(text: &str) -> Option<i64> {
    text.parse::<Quantity>().ok().map(|quantity| quantity.milli())
}

/// In whole units: bytes, Pods.
pub fn whole(text: &str) -> Option<i64> {
    text.parse::<Quantity>().ok().map(|quantity| quantity.value())
}
