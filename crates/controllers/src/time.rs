//! Times as objects carry them.

use jiff::Timestamp;
use serde_json::Value;
use world::World;

pub fn now(world: &World) -> Timestamp {
    Timestamp::try_from(world.clock.wall()).unwrap_or_default()
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn parse(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}
