//! Every dependency's licence has to be one that Apache-2.0 software may be built from.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::command;

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    // Weak copyleft by file: we change no file of such a crate.
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that state no licence in their manifest, and what their repository states.
const STATED_ELSEWHERE: &[(&str, &str)] = &[("rust-criu", "MIT")];

pub fn check() -> Result<(), String> {
    let metadata = command::output(Command::new("cargo").args(["metadata", "--format-version=1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let mut wrong = BTreeSet::new();
    for package in &packages {
        let stated = package["license"].as_str();
        let elsewhere = STATED_ELSEWHERE
            .iter()
            .find(|(name, _)| package["name"] == *name)
            .map(|(_, licence)| *licence);
        let licence = stated.or(elsewhere).unwrap_or("");
        if !is_allowed(licence) {
            wrong.insert(format!("{} {}: {licence:?}", package["name"], package["version"]));
        }
    }
    if wrong.is_empty() {
        println!("licences: {} packages, all allowed", packages.len());
        return Ok(());
    }
    Err(format!(
        "licences that are not on the list:\n  {}",
        wrong.into_iter().collect::<Vec<_>>().join("\n  ")
    ))
}

/// An SPDX expression of allowed licences: of an "OR" one part is enough, of an "AND" all are needed.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    let part = |part: &str| part.split(" AND ").all(|licence| ALLOWED.contains(&licence.trim()));
    // "(A OR B) AND C" reads as "A OR B AND C" without its brackets: then every part of the "AND" is asked for.
    expression.split(" OR ").any(part)
}
