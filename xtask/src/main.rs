//! What a person runs from a clone: `cargo xtask demo`, `cargo xtask test`, and the checks that CI makes of the house.
//!
//! Kept lean, since it is compiled before anything else can be installed. Start reading at `main`.
#![allow(
    clippy::disallowed_methods,
    reason = "a program for people, not a part of the platform"
)]

mod arrows;
mod clients;
mod command;
mod demo;
mod licences;
mod long;
mod packages;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask <command>

  demo [--keep] [--etcd-servers URL]   build, start the platform, run two tenants' Deployments, show them, clean up
  test [FILTER...]                     install what the tests need, then format, lint, unit, doc and end-to-end tests
  long [WORD...]                       the tests that take long, whole: crashes, seeds, the soak; says how long first
  arrows                               check that arrows between crates only point down
  licences                             check the licences of all dependencies
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let done = match command {
        "demo" => demo::run(rest),
        "test" => test::run(rest),
        "long" => long::run(rest),
        "arrows" => arrows::check(),
        "licences" => licences::check(),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => Err(format!("there is no command {other:?}\n\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
