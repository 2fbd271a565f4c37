//! Arrows between crates point down and nowhere else: the list of `ARCHITECTURE.md`, checked.

use std::process::Command;

use serde_json::Value;

use crate::command;

/// Each room and those it may use. A new arrow is a decision: it is added here and in `ARCHITECTURE.md`.
const ROOMS: &[(&str, &[&str])] = &[
    ("world", &[]),
    ("api", &[]),
    ("keyspace", &["world"]),
    ("store", &["keyspace", "world"]),
    ("etcd", &["keyspace", "world"]),
    ("identity", &["world"]),
    ("streaming", &[]),
    ("apiserver", &["api", "identity", "keyspace", "streaming", "world"]),
    ("client", &["api", "world"]),
    ("controllers", &["api", "client", "world"]),
    ("scheduler", &["api", "client", "world"]),
    ("network", &["api", "world"]),
    ("runtime", &["streaming", "world"]),
    ("node", &["api", "client", "identity", "network", "streaming", "world"]),
    (
        "tenancy",
        &["api", "client", "identity", "network", "streaming", "world"],
    ),
    (
        "in_process",
        &["api", "apiserver", "client", "controllers", "keyspace", "tenancy"],
    ),
];

/// May use every room, and is used by none of them (tests aside).
const TOPS: &[&str] = &["mangrove", "testkit", "xtask"];

pub fn check() -> Result<(), String> {
    let metadata = command::output(Command::new("cargo").args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or("");
        if TOPS.contains(&name) {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == name) else {
            wrong.push(format!("{name} is not on the list of rooms"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or("");
            let in_tests = dependency["kind"] == "dev";
            if names.contains(&target) && !in_tests && !allowed.contains(&target) {
                wrong.push(format!("{name} -> {target} is not allowed"));
            }
        }
    }
    if wrong.is_empty() {
        println!("arrows: {} rooms, all arrows point down", ROOMS.len());
        return Ok(());
    }
    Err(format!("arrows between crates:\n  {}", wrong.join("\n  ")))
}
