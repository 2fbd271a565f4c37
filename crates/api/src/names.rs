//! What may be a name, a label, a key; each answers with upstream's explanation of what is wrong.

/// The explanations of what is wrong; empty if nothing is.
pub type Problems = Vec<String>;

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

/// Upstream counts labels in bytes and, in older words, DNS names in characters; both mean bytes.
fn too_many_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn too_many_characters(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// Upstream's explanation of a regular expression that did not match.
fn regex(message: &str, format: &str, examples: &[&str]) -> String {
    let examples: String = examples
        .iter()
        .enumerate()
        .map(|(at, example)| format!("{}'{example}', ", if at > 0 { " or " } else { "" }))
        .collect();
    format!("{message} (e.g. {examples}regex used for validation is '{format}')")
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    lower(*first) && lower(*last) && bytes.iter().all(|byte| lower(*byte) || *byte == b'-')
}

/// `a-z`, `0-9` and `-`, at most 63 bytes; container names, namespaces.
pub fn dns1123_label(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > 63 {
        problems.push(too_many_characters(63));
    }
    if !is_label(text) {
        problems.push(if text.contains('.') && text.split('.').all(is_label) {
            "must not contain dots".to_owned()
        } else {
            regex(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                LABEL_FORMAT,
                &["my-name", "123-abc"],
            )
        });
    }
    problems
}

/// Labels joined by dots, at most 253 bytes; the name of most objects.
pub fn dns1123_subdomain(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > 253 {
        problems.push(too_many_characters(253));
    }
    if !text.split('.').all(is_label) {
        problems.push(regex(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            &format!("{LABEL_FORMAT}(\\.{LABEL_FORMAT})*"),
            &["example.com"],
        ));
    }
    problems
}

/// As a label of DNS-1123, but starting with a letter; Services before 1.34, CRD names.
pub fn dns1035_label(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > 63 {
        problems.push(too_many_characters(63));
    }
    if !is_label(text) || !text.as_bytes()[0].is_ascii_lowercase() {
        problems.push(regex(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    problems
}

/// `*.example.com`.
pub fn wildcard_subdomain(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > 253 {
        problems.push(too_many_characters(253));
    }
    let good = text
        .strip_prefix("*.")
        .is_some_and(|rest| rest.split('.').all(is_label));
    if !good {
        problems.push(regex(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{LABEL_FORMAT}(\\.{LABEL_FORMAT})*"),
            &["*.example.com"],
        ));
    }
    problems
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

const NAME_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const NAME_MESSAGE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// Keys of labels and annotations, finalizers, resource names: `[prefix/]name`.
pub fn qualified_name(text: &str) -> Problems {
    let explain = || regex(NAME_MESSAGE, NAME_FORMAT, &["MyName", "my.name", "123-abc"]);
    let mut problems = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(
                    dns1123_subdomain(prefix)
                        .into_iter()
                        .map(|problem| format!("prefix part {problem}")),
                );
            }
            name
        }
        _ => {
            problems.push(format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                explain()
            ));
            return problems;
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push(format!("name part {}", too_many_bytes(63)));
    }
    if !is_label_text(name) {
        problems.push(format!("name part {}", explain()));
    }
    problems
}

pub fn label_value(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > 63 {
        problems.push(too_many_bytes(63));
    }
    if !text.is_empty() && !is_label_text(text) {
        problems.push(regex(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            &format!("({NAME_FORMAT})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// Names of RBAC objects: anything that can be one step of a path.
pub fn path_segment(text: &str) -> Problems {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .into_iter()
        .filter(|illegal| text.contains(illegal))
        .map(|illegal| format!("may not contain '{illegal}'"))
        .collect()
}

/// Keys of ConfigMaps and Secrets.
pub fn config_key(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > 253 {
        problems.push(too_many_characters(253));
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(good) {
        problems.push(regex(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    problems.extend(leaves_folder(text));
    problems
}

fn leaves_folder(text: &str) -> Option<String> {
    match text {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// Names of environment variables: printable ASCII but `=`.
pub fn env_var_name(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.is_empty() {
        problems.push("environment variable name must be non-empty".to_owned());
    }
    if !text.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'=') {
        problems.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    problems
}

/// Names of ports: at most 15 of `a-z0-9-`, at least one letter.
pub fn port_name(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > 15 {
        problems.push(too_many_characters(15));
    }
    if text.is_empty() || !text.bytes().all(|byte| lower(byte) || byte == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

pub fn port_number(port: i64) -> Problems {
    if (1..=65535).contains(&port) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_in_upstreams_words() {
        assert_eq!(
            dns1123_subdomain("My_Pod"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                 must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_label("-a"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    }

    #[test]
    fn good_names_have_no_problems() {
        for (check, good) in [
            (dns1123_label as fn(&str) -> Problems, "a-1"),
            (dns1123_subdomain, "a.b-c.1"),
            (dns1035_label, "a1"),
            (qualified_name, "example.com/My.Name_1"),
            (label_value, ""),
            (path_segment, "system:node:one"),
            (config_key, ".profile"),
            (env_var_name, "A B"),
            (port_name, "http-2"),
            (wildcard_subdomain, "*.example.com"),
        ] {
            assert!(check(good).is_empty(), "{good}");
        }
        for (check, bad) in [
            (dns1123_label as fn(&str) -> Problems, ""),
            (dns1123_subdomain, "a..b"),
            (dns1035_label, "1a"),
            (dns1035_label, ""),
            (qualified_name, "a/b/c"),
            (qualified_name, "/c"),
            (label_value, "a b"),
            (path_segment, "a/b"),
            (config_key, ".."),
            (env_var_name, "A=B"),
            (port_name, "123"),
            (wildcard_subdomain, "example.com"),
        ] {
            assert!(!check(bad).is_empty(), "{bad}");
        }
    }
}
