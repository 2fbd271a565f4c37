//! Query strings: percent-encoded, in the order given.

use std::fmt::Write;

#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    /// Adds a parameter if there is a value.
    pub(crate) fn text(&mut self, key: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        encode(value, &mut self.0);
    }

    /// With its question mark; empty if there is no parameter.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Leaves RFC 3986's unreserved characters, encodes all others.
fn encode(value: &str, into: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(byte.into());
        } else {
            write!(into, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_encoded_and_absent_values_left_out() {
        let mut query = Query::default();
        query.text("labelSelector", Some("app in (a,b),x!=y"));
        query.text("limit", None);
        query.text("watch", Some("true"));

        assert_eq!(
            query.as_str(),
            "?labelSelector=app%20in%20%28a%2Cb%29%2Cx%21%3Dy&watch=true"
        );
    }
}
