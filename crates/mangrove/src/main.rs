//! The binary: command line, configuration and wiring. Everything else is in the rooms; this one knows them all and no
//! room knows it.
//!
//! Start reading at [`cli`] (what a person can type), then [`up`] (how the house is put together).
#![allow(clippy::disallowed_methods, reason = "the real world is passed in from here")]

mod agent;
mod bench;
mod cli;
mod control;
mod detach;
mod down;
mod image;
mod platform;
mod progress;
mod running;
mod standalone_store;
mod tenancy;
mod tenant;
mod up;
mod usage;
mod wiring;

use std::process::ExitCode;

/// Gives back what tenants that are gone have used, which the C library's does not (D17).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before any thread exists and before anything is allocated that a supervisor would carry along.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == runtime::supervisor::ARGUMENT)
    {
        runtime::supervisor::main();
    }
    let cli = usage::parse();
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: what failed, why, what to do.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
