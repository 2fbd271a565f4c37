//! Everything CI gates on, in the order in which it is quickest to fail.

use std::process::Command;

use crate::{arrows, clients, command, licences, packages};

pub fn run(filter: &[String]) -> Result<(), String> {
    packages::install(&[packages::BUILD, packages::DEMO, packages::TEST])?;
    let cargo = |arguments: &[&str]| command::run(Command::new("cargo").args(arguments));
    step("format", || cargo(&["fmt", "--all", "--check"]))?;
    step("arrows", arrows::check)?;
    step("licences", licences::check)?;
    step("clippy", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    clients::install();
    // The end-to-end tests start the program itself.
    step("build", || cargo(&["build", "--workspace", "--locked", "--quiet"]))?;
    let has_nextest = Command::new("cargo")
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|out| out.status.success());
    let mut arguments = if has_nextest {
        vec!["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]
    } else {
        vec!["test", "--workspace", "--locked"]
    };
    if !has_nextest {
        println!("cargo-nextest is not installed: running the tests by `cargo test`");
    }
    arguments.extend(filter.iter().map(String::as_str));
    step("tests", || cargo(&arguments))?;
    if has_nextest {
        step("doc tests", || {
            cargo(&["test", "--workspace", "--locked", "--doc", "--quiet"])
        })?;
    }
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    println!("==> {name}");
    work().map_err(|error| format!("{name}: {error}"))
}
