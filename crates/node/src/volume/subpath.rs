//! `subPath`: one place inside a volume, mounted alone. A container can put symbolic links into its volumes, so the
//! path is opened by the kernel with the promise not to leave the volume, and what was opened is bind-mounted.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};

/// Opens `sub_path` below `volume`, making directories that are missing, and binds it to `target`.
pub fn bind(volume: &Path, sub_path: &str, target: &Path) -> io::Result<PathBuf> {
    let place = open_beneath(volume, sub_path)?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    let is_directory = fs::metadata(&source)?.is_dir();
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if is_directory {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        fs::File::create(target)?;
    }
    mount(
        Some(&source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )?;
    Ok(target.to_owned())
}

fn open_beneath(volume: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let relative = Path::new(sub_path);
    if relative
        .components()
        .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(io::Error::other("it must be relative and without `..`"));
    }
    let root = open(
        volume,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(root.as_fd(), relative, how) {
        Ok(place) => return Ok(place),
        Err(nix::Error::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    // Missing parts become directories as open as the volume's own.
    let mode = {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(volume)?.permissions().mode() & 0o777
    };
    let mut place = root;
    for part in relative.components() {
        let Component::Normal(name) = part else { continue };
        match mkdirat(place.as_fd(), name, Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // One part at a time: each must lie beneath the last, hence beneath the volume.
        place = openat2(place.as_fd(), name, how)?;
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_if_missing_and_never_leaves_the_volume() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volume");
        fs::create_dir(&volume).unwrap();
        fs::create_dir(directory.path().join("secret")).unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("absolute")).unwrap();
        std::os::unix::fs::symlink("a", volume.join("in")).unwrap();

        assert!(open_beneath(&volume, "a/b/c").is_ok());
        assert!(volume.join("a/b/c").is_dir());
        assert!(open_beneath(&volume, "in/b").is_ok());
        for escape in ["out", "out/x", "absolute", "../secret", "a/../../secret", "/etc"] {
            assert!(open_beneath(&volume, escape).is_err(), "{escape}");
        }
    }
}
