//! What the checks of all kinds are made of.

use std::{collections::HashSet, fmt::Display, net::IpAddr};

use serde_json::{Map, Value};

use crate::{
    field::{self, Path},
    names::{self, Problems},
    status::Cause,
};

/// Collects what is wrong.
#[derive(Default)]
pub struct Check {
    pub causes: Vec<Cause>,
}

/// What has come before in a list. Lists are as long as a body allows, so it is a set.
#[derive(Default)]
pub struct Seen(HashSet<String>);

impl Seen {
    /// Whether this has come before.
    pub fn again(&mut self, key: impl Into<String>) -> bool {
        !self.0.insert(key.into())
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.contains(key)
    }
}

/// A field's text; empty if it is absent.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// A list's elements; none if it is absent.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A map's entries; none if it is absent.
pub fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

pub fn is_empty_map(value: &Value) -> bool {
    value.as_object().is_none_or(Map::is_empty)
}

impl Check {
    pub fn required(&mut self, path: &Path, detail: impl Display) {
        self.causes.push(field::required(path, detail));
    }

    pub fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: impl Display) {
        self.causes.push(field::invalid(path, value, detail));
    }

    pub fn forbidden(&mut self, path: &Path, detail: impl Display) {
        self.causes.push(field::forbidden(path, detail));
    }

    pub fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.causes.push(field::duplicate(path, value));
    }

    pub fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        self.causes.push(field::not_supported(path, value, supported));
    }

    /// A name or key whose form has problems.
    pub fn named(&mut self, path: &Path, value: &str, problems: Problems) {
        for problem in problems {
            self.invalid(path, value, problem);
        }
    }

    /// A text that must be there; true if it is.
    pub fn present(&mut self, path: &Path, value: &Value) -> bool {
        let present = !text(value).is_empty();
        if !present {
            self.required(path, "");
        }
        present
    }

    /// A name that must be there and have a form.
    pub fn required_name(&mut self, path: &Path, value: &Value, form: fn(&str) -> Problems) {
        if self.present(path, value) {
            self.named(path, text(value), form(text(value)));
        }
    }

    /// One of a few words; must be there.
    pub fn one_of(&mut self, path: &Path, value: &Value, supported: &[&str]) {
        if self.present(path, value) && !supported.contains(&text(value)) {
            self.not_supported(path, value.clone(), supported);
        }
    }

    /// One of a few words, or absent.
    pub fn one_of_or_none(&mut self, path: &Path, value: &Value, supported: &[&str]) {
        if !value.is_null() && !supported.contains(&text(value)) {
            self.not_supported(path, value.clone(), supported);
        }
    }

    /// A number that is absent or not below zero.
    pub fn non_negative(&mut self, path: &Path, value: &Value) {
        if let Some(number) = value.as_i64().filter(|number| *number < 0) {
            self.invalid(path, number, "must be greater than or equal to 0");
        }
    }

    pub fn positive(&mut self, path: &Path, value: &Value) {
        let number = value.as_i64().unwrap_or(0);
        if number <= 0 {
            self.invalid(path, number, "must be greater than zero");
        }
    }

    pub fn immutable(&mut self, path: &Path, new: &Value, old: &Value) {
        if new != old {
            self.invalid(path, new.clone(), "field is immutable");
        }
    }

    pub fn port_number(&mut self, path: &Path, value: &Value) {
        let number = value.as_i64().unwrap_or(0);
        for problem in names::port_number(number) {
            self.invalid(path, number, problem);
        }
    }

    pub fn port_number_or_name(&mut self, path: &Path, value: &Value) {
        match value {
            Value::String(name) => self.named(path, name, names::port_name(name)),
            number => self.port_number(path, number),
        }
    }

    pub fn labels(&mut self, path: &Path, labels: &Value) {
        for (key, value) in entries(labels) {
            self.named(path, key, names::qualified_name(key));
            self.named(path, text(value), names::label_value(text(value)));
        }
    }

    pub fn annotations(&mut self, path: &Path, annotations: &Value) {
        let mut size = 0;
        for (key, value) in entries(annotations) {
            self.named(path, key, names::qualified_name(&key.to_lowercase()));
            size += key.len() + text(value).len();
        }
        if size > ANNOTATIONS_BYTES_MAX {
            self.causes.push(field::too_long(path, ANNOTATIONS_BYTES_MAX));
        }
    }

    pub fn label_selector(&mut self, path: &Path, selector: &Value) {
        self.causes
            .extend(crate::selector::validate_label_selector(selector, path));
    }

    pub fn ip_address(&mut self, path: &Path, address: &str) -> bool {
        let detail = match address.parse::<IpAddr>() {
            Ok(IpAddr::V6(parsed)) if parsed.to_ipv4_mapped().is_some() => "must not be an IPv4-mapped IPv6 address",
            Ok(_) => return true,
            Err(_) if without_leading_zeros(address).parse::<IpAddr>().is_ok() => "must not have leading 0s",
            Err(_) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        };
        self.invalid(path, address, detail);
        false
    }

    /// An absolute number or a percentage.
    pub fn count_or_percent(&mut self, path: &Path, value: &Value) {
        match value {
            Value::String(percent) if percent_of(percent).is_none() => self.invalid(
                path,
                percent.as_str(),
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                 regex used for validation is '[0-9]+%')",
            ),
            Value::String(_) => {}
            number => self.non_negative(path, number),
        }
    }
}

/// `010.02.3.4` as `10.2.3.4`, as sloppy readers take it.
pub fn without_leading_zeros(address: &str) -> String {
    let octets = address.split('.').map(|octet| {
        let shorter = octet.trim_start_matches('0');
        if shorter.is_empty() && !octet.is_empty() {
            "0"
        } else {
            shorter
        }
    });
    octets.collect::<Vec<_>>().join(".")
}

pub fn percent_of(text: &str) -> Option<u64> {
    let number = text.strip_suffix('%')?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse().ok()
}

/// Upstream's `TotalAnnotationSizeLimitB`.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
