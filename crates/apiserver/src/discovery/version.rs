//! `/version`: which Kubernetes this is to be taken for.

use serde_json::{Value, json};

/// The Kubernetes release whose kinds, defaults and words are served.
const MAJOR: &str = "1";
const MINOR: &str = "36";
const PATCH: &str = "2";

/// Tools parse `gitVersion` as a semantic version, in which what follows `+` does not count.
pub fn version() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": format!("v{MAJOR}.{MINOR}.{PATCH}+mangrove"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// Go's names.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
