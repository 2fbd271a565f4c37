//! In which order a merged list stands.

use serde_json::Value;

use super::{DIRECTIVE, Refused, SET_ELEMENT_ORDER};

/// The elements of a patch must appear in its own order list, in the same order.
pub(super) fn check_order(patch: &[Value], order: &[Value], key: &str) -> Result<(), Refused> {
    let mut rest = order.iter();
    for item in patch {
        if item.get(DIRECTIVE).is_some() {
            continue;
        }
        if !rest.any(|ordered| same(ordered, item, key)) {
            return Err(Refused::Unprocessable(format!(
                "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
                Value::from(patch.to_vec()),
                Value::from(order.to_vec())
            )));
        }
    }
    Ok(())
}

fn same(one: &Value, other: &Value, key: &str) -> bool {
    if key.is_empty() {
        one == other
    } else {
        one.get(key).is_some() && one.get(key) == other.get(key)
    }
}

/// Puts a merged list in order: what the patch names in the patch's order, what only the server has in the
/// server's, interleaved by the server's order as far as that goes.
pub(super) fn in_order(merged: Vec<Value>, patch_order: &[Value], server_order: &[Value], key: &str) -> Vec<Value> {
    let index = |order: &[Value], item: &Value| order.iter().position(|candidate| same(candidate, item, key));
    let (mut named, mut own): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| index(patch_order, item).is_some());
    named.sort_by_key(|item| index(patch_order, item));
    own.sort_by_key(|item| index(server_order, item));

    let mut ordered = Vec::with_capacity(named.len() + own.len());
    let (mut named, mut own) = (named.into_iter().peekable(), own.into_iter().peekable());
    loop {
        let own_first = match (own.peek(), named.peek()) {
            (None, None) => return ordered,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(named)) => match (index(server_order, own), index(server_order, named)) {
                (Some(own), Some(named)) => own < named,
                _ => false,
            },
        };
        ordered.extend(if own_first { own.next() } else { named.next() });
    }
}
