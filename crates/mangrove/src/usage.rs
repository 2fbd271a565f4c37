//! What was typed, or one line that says what is wrong with it and where to read on.

use clap::{Command, CommandFactory, Parser, error::ErrorKind};

use crate::cli::Cli;

/// As of the shell's own commands and of clap.
const WRONG_USAGE: i32 = 2;

/// Ends the process after printing help or a complaint.
pub fn parse() -> Cli {
    let error = match Cli::try_parse() {
        Ok(cli) => return cli,
        Err(error) => error,
    };
    let is_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || is_help {
        error.exit();
    }
    let typed: Vec<String> = std::env::args().skip(1).collect();
    let command = meant(&Cli::command(), &typed);
    eprintln!("{}: see `{command} --help`", in_one_line(&error.to_string()));
    std::process::exit(WRONG_USAGE)
}

/// The command that was typed, as far as it is one.
fn meant(root: &Command, typed: &[String]) -> String {
    let (mut command, mut name) = (root, root.get_name().to_owned());
    for word in typed {
        let Some(next) = command.find_subcommand(word) else {
            break;
        };
        command = next;
        name = format!("{name} {word}");
    }
    name
}

/// The complaint and its tip, without usage and pointers.
fn in_one_line(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        words.join(" ")
    });
    let telling = paragraphs.filter(|paragraph| paragraph.starts_with("error:") || paragraph.starts_with("tip:"));
    telling.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_many_lines_become_one() {
        let complaint = |typed: &[&str]| match Cli::try_parse_from([&["mangrove"], typed].concat()) {
            Ok(_) => panic!("{typed:?} is fine"),
            Err(error) => in_one_line(&error.to_string()),
        };
        assert_eq!(
            complaint(&["up", "--nope"]),
            "error: unexpected argument '--nope' found"
        );
        assert_eq!(
            complaint(&["tenant", "create"]),
            "error: the following required arguments were not provided: <NAME>"
        );
        assert_eq!(
            complaint(&["tenant", "list", "-o", "xml"]),
            "error: invalid value 'xml' for '--output <OUTPUT>' [possible values: json]"
        );
        assert_eq!(
            complaint(&["dwn"]),
            "error: unrecognized subcommand 'dwn'; tip: a similar subcommand exists: 'down'"
        );
    }

    #[test]
    fn help_is_pointed_at_for_the_command_that_was_meant() {
        let typed = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let root = Cli::command();
        assert_eq!(
            meant(&root, &typed(&["tenant", "create", "--x"])),
            "mangrove tenant create"
        );
        assert_eq!(meant(&root, &typed(&["--x"])), "mangrove");
    }
}
