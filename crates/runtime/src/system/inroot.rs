//! Paths inside a root that can't lead out of it, whatever symbolic links lie in it: image layers and container roots
//! are other people's trees.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// Deeper paths are refused; the kernel's own limit is 4096 bytes.
pub const MAX_PATH_BYTES: usize = 4096;

pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(
        path,
        OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_PATH,
        Mode::empty(),
    )?)
}

/// The names that make up `path`: no root, no `.`, no `..`.
pub fn clean(path: &Path) -> io::Result<PathBuf> {
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "path too long"));
    }
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("path {} has a .. in it", path.display()),
                ));
            }
            Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(out)
}

/// Opens `path` as if `root` were `/`: links are followed, and none leads out.
pub fn open(root: impl AsFd, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let path = clean(path)?;
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &path
    };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(root, path, how)?)
}

/// The folder at `path`, made with what lies above it where it is missing. `made` is called with each folder that had
/// to be made, so that its owner and mode can be set.
pub fn make_folders(
    root: impl AsFd + Copy,
    path: &Path,
    mode: Mode,
    mut made: impl FnMut(&Path, &OwnedFd) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let path = clean(path)?;
    match open(root, &path, OFlag::O_DIRECTORY | OFlag::O_PATH) {
        Ok(fd) => return Ok(fd),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut at = open(root, Path::new(""), OFlag::O_DIRECTORY | OFlag::O_PATH)?;
    let mut so_far = PathBuf::new();
    for name in path.components() {
        so_far.push(name);
        at = match open(root, &so_far, OFlag::O_DIRECTORY | OFlag::O_PATH) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                mkdirat(&at, Path::new(name.as_os_str()), mode)?;
                let fd = open(root, &so_far, OFlag::O_DIRECTORY | OFlag::O_RDONLY)?;
                made(&so_far, &fd)?;
                fd
            }
            Err(e) => return Err(e),
        };
    }
    Ok(at)
}

/// The text of a small file in the root; empty if there is none.
pub fn read_small(root: impl AsFd, path: &Path, max_bytes: u64) -> io::Result<String> {
    match open(root, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        Ok(fd) => {
            let file = File::from(fd);
            if !file.metadata()?.is_file() {
                return Ok(String::new());
            }
            let mut bytes = Vec::new();
            file.take(max_bytes).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => Ok(String::new()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_points_outside_stays_inside() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("root");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        std::fs::write(folder.path().join("secret"), "outside").unwrap();
        std::fs::write(inside.join("secret"), "inside").unwrap();
        std::os::unix::fs::symlink("../../secret", inside.join("etc/relative")).unwrap();
        std::os::unix::fs::symlink("/secret", inside.join("etc/absolute")).unwrap();

        let root = open_root(&inside).unwrap();

        for name in ["etc/relative", "etc/absolute", "secret"] {
            assert_eq!(read_small(&root, Path::new(name), 100).unwrap(), "inside");
        }
        assert!(clean(Path::new("a/../../b")).is_err());
    }

    #[test]
    fn folders_are_made_through_links_inside_the_root() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("usr/lib")).unwrap();
        std::os::unix::fs::symlink("usr/lib", folder.path().join("lib")).unwrap();
        let root = open_root(folder.path()).unwrap();
        let mut made = Vec::new();

        make_folders(
            &root,
            Path::new("/lib/a/b"),
            Mode::from_bits_truncate(0o755),
            |path, _| {
                made.push(path.to_owned());
                Ok(())
            },
        )
        .unwrap();

        assert!(folder.path().join("usr/lib/a/b").is_dir());
        assert_eq!(made, [Path::new("lib/a"), Path::new("lib/a/b")]);
    }
}
