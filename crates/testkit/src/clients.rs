//! Other clients than the kubectl on the path: older and newer ones, and Python's. `cargo xtask test` installs them.

use std::path::{Path, PathBuf};

/// Where they are, if not where `cargo xtask test` puts them.
pub const FOLDER_VARIABLE: &str = "MANGROVE_TEST_CLIENTS";

fn folder() -> PathBuf {
    match std::env::var_os(FOLDER_VARIABLE) {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-clients"),
    }
}

/// The kubectl on the path and all others that are installed for tests.
pub fn kubectls() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("kubectl")];
    for program in ["python/bin/kubectl", "debian/usr/bin/kubectl"] {
        let program = folder().join(program);
        if program.is_file() {
            found.push(program);
        } else {
            println!("there is no {}: `cargo xtask test` installs it", program.display());
        }
    }
    found
}

/// A Python that has the package `kubernetes`; `None`, with a printed word, where there is none.
pub fn python() -> Option<PathBuf> {
    let python = folder().join("python/bin/python3");
    if python.is_file() {
        return Some(python);
    }
    println!(
        "skipped: there is no {}: `cargo xtask test` installs it",
        python.display()
    );
    None
}
