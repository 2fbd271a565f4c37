//! Running other programs, with errors that say which one failed and how.

use std::process::{Command, Stdio};

/// Runs with output to the terminal.
pub fn run(command: &mut Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("can't start {}: {error}", name(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{}` ended with {status}", line(command)))
    }
}

/// Runs and returns what was printed; what it printed on standard error is part of the error.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("can't start {}: {error}", name(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!(
            "`{}` ended with {}: {}{text}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

/// Runs what is expected to fail and returns its words.
pub fn refused(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("can't start {}: {error}", name(command)))?;
    if output.status.success() {
        return Err(format!("`{}` should have been refused", line(command)));
    }
    Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let mut line = name(command);
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
