//! Runs a command on a machine of its own, to look at what a test would see: `cargo run -p testkit --example machine --
//! bash`. What it leaves behind is told and killed.

use std::process::{Command, ExitCode};

use testkit::machine::Machine;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(program) = words.next() else {
        eprintln!("error: which command? For example: machine bash");
        return ExitCode::from(2);
    };
    let Some(machine) = Machine::enter() else {
        return ExitCode::FAILURE;
    };
    let status = Command::new(&program).args(words).status();
    for thing in machine.leftovers() {
        println!("left: {thing}");
    }
    match status {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: {program}: {error}");
            ExitCode::FAILURE
        }
    }
}
