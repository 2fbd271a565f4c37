//! An ext4 file system in a file, whose power goes while a process writes to it.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    load::{Acknowledged, check, told},
    process,
};

/// Everything that was written and not made to last is lost: the journal is not written either.
const EXT4_GOING_NOLOGFLUSH: u32 = 2;

nix::ioctl_read!(shut_down, b'X', 125, u32);

fn run(program: &str, arguments: &[&Path]) -> bool {
    let mut command = Command::new(program);
    let status = command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Mounted while it is held.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Option<Mounted> {
        run("mount", &[Path::new("-o"), Path::new("loop"), image, at]).then(|| Mounted(at.to_owned()))
    }

    /// The power goes.
    fn shut_down(&self) {
        let dir = File::open(&self.0).expect("the mount point");
        let mut how = EXT4_GOING_NOLOGFLUSH;
        // SAFETY: the ioctl reads one number at the address that it is given, and keeps nothing of it.
        unsafe { shut_down(dir.as_raw_fd(), &raw mut how) }.expect("a file system can be shut down");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(run("umount", &[&self.0]), "{} is unmounted", self.0.display());
    }
}

#[test]
fn e02_power_that_goes_under_load_loses_nothing_that_was_acknowledged() {
    let rounds = crate::number("POWER_ROUNDS").unwrap_or(8);
    let dir = tempfile::tempdir().expect("a folder");
    let (image, at) = (dir.path().join("image"), dir.path().join("mount"));
    File::create(&image)
        .and_then(|file| file.set_len(32 << 20))
        .expect("an image");
    fs::create_dir(&at).expect("a mount point");
    assert!(run("mkfs.ext4", &[Path::new("-q"), &image]), "mkfs.ext4 is there");
    let mut acknowledged = Acknowledged::default();
    for round in 0..rounds {
        let Some(mounted) = Mounted::new(&image, &at) else {
            assert!(round == 0, "it was mounted before");
            eprintln!("nothing can be mounted here: this needs root and loop devices");
            return;
        };
        let data = at.join("data");
        let mut process = process(&data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let out = process.stdout.take().expect("it is piped");
        let mut said = Vec::new();
        let mut has_power = true;
        for line in BufReader::new(out).lines() {
            let line = line.expect("a line");
            // A machine without power would say no more. This one still runs, and a sync that meets the end of its file
            // system half way may be told that all is well.
            if has_power {
                said.push(line);
            }
            if has_power && said.len() as u64 == 3 + round * 9 % 80 {
                has_power = false;
                mounted.shut_down();
            }
        }
        let _ = process.wait();
        acknowledged.add(&told(said.join("\n").as_bytes(), true));
        drop(mounted);

        let mounted = Mounted::new(&image, &at).expect("the journal is played back");
        check(&data, &acknowledged, &format!("round {round}"));
        drop(mounted);
    }
}
