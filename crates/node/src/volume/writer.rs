//! Writes a volume so that a reader sees the files of one moment, never of two: they lie in a directory of their
//! own, `..data` is a symbolic link to it that is replaced by one rename, and each name a link through `..data`.
//! (Upstream's layout, since programs look for `..data`.)

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use super::VolumeError;
use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Whose the files are.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Owner {
    pub user: Option<u32>,
    /// `fsGroup`: it may read what the owner may.
    pub group: Option<u32>,
}

/// Makes `directory` hold exactly `payload`. Returns whether anything changed. `stamp` must be new each time.
pub fn write(directory: &Path, payload: &Payload, owner: Owner, stamp: &str) -> Result<bool, VolumeError> {
    let current = fs::read_link(directory.join(DATA)).ok();
    if let Some(current) = &current
        && holds(&directory.join(current), payload, owner)
    {
        return Ok(false);
    }

    let fresh_name = format!("..{stamp}");
    let fresh = directory.join(&fresh_name);
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&fresh)
        .map_err(VolumeError::io("creating", &fresh))?;
    open_to_all(&fresh)?;
    for (path, file) in payload {
        let target = fresh.join(path);
        for parent in target
            .ancestors()
            .skip(1)
            .take_while(|parent| *parent != fresh)
            .collect::<Vec<_>>()
            .iter()
            .rev()
        {
            if !parent.exists() {
                fs::create_dir(parent).map_err(VolumeError::io("creating", *parent))?;
                open_to_all(parent)?;
            }
        }
        write_file(&target, &file.data, mode(file.mode, owner), owner).map_err(VolumeError::io("writing", &target))?;
    }

    let link = directory.join(DATA_NEW);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(VolumeError::io("removing", &link)(error)),
        _ => {}
    }
    symlink(&fresh_name, &link).map_err(VolumeError::io("linking", &link))?;
    fs::rename(&link, directory.join(DATA)).map_err(VolumeError::io("renaming", &link))?;

    let names: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        let visible = directory.join(name);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new(DATA).join(name), &visible).map_err(VolumeError::io("linking", &visible))?;
        }
    }
    sweep(directory, &names, &fresh_name)?;
    Ok(true)
}

fn mode(mode: u32, owner: Owner) -> u32 {
    if owner.group.is_some() { mode | 0o440 } else { mode }
}

/// Directories of generated files are for all to read, whatever the process's umask.
fn open_to_all(directory: &Path) -> Result<(), VolumeError> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).map_err(VolumeError::io("opening", directory))
}

fn write_file(path: &Path, data: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
    use io::Write as _;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(data)?;
    if owner != Owner::default() {
        chown(path, owner.user, owner.group)?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn holds(directory: &Path, payload: &Payload, owner: Owner) -> bool {
    let mut found = BTreeSet::new();
    if list(directory, Path::new(""), &mut found).is_err() || !found.iter().eq(payload.keys()) {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let path = directory.join(path);
        let same_mode =
            fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode() & 0o7777 == mode(file.mode, owner));
        same_mode && fs::read(&path).is_ok_and(|data| data == file.data)
    })
}

fn list(root: &Path, below: &Path, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        } else {
            found.insert(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Removes names that are no longer in the payload and directories of earlier moments.
fn sweep(directory: &Path, names: &BTreeSet<&str>, fresh: &str) -> Result<(), VolumeError> {
    let entries = fs::read_dir(directory).map_err(VolumeError::io("reading", directory))?;
    for entry in entries {
        let entry = entry.map_err(VolumeError::io("reading", directory))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let result = if name == DATA || name == fresh || names.contains(name) {
            continue;
        } else if is_directory && name.starts_with("..") {
            fs::remove_dir_all(&path)
        } else if !is_directory {
            fs::remove_file(&path)
        } else {
            continue;
        };
        result.map_err(VolumeError::io("removing", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::payload::File;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        files
            .iter()
            .map(|(path, data, mode)| {
                let file = File {
                    data: data.as_bytes().to_vec(),
                    mode: *mode,
                };
                (path.to_string(), file)
            })
            .collect()
    }

    fn read(directory: &Path, path: &str) -> Option<String> {
        fs::read_to_string(directory.join(path)).ok()
    }

    #[test]
    fn an_update_appears_whole_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let owner = Owner::default();

        let first = write(
            directory,
            &payload(&[("a", "1", 0o644), ("deep/b", "2", 0o400)]),
            owner,
            "one",
        )
        .unwrap();
        let again = write(
            directory,
            &payload(&[("a", "1", 0o644), ("deep/b", "2", 0o400)]),
            owner,
            "two",
        )
        .unwrap();
        assert!(first && !again);
        assert_eq!(read(directory, "deep/b").as_deref(), Some("2"));
        assert_eq!(
            fs::metadata(directory.join("deep/b")).unwrap().permissions().mode() & 0o777,
            0o400
        );
        assert_eq!(fs::read_link(directory.join("a")).unwrap(), Path::new("..data/a"));

        let changed = write(
            directory,
            &payload(&[("a", "3", 0o644), ("c", "4", 0o644)]),
            owner,
            "three",
        )
        .unwrap();

        assert!(changed);
        assert_eq!(read(directory, "a").as_deref(), Some("3"));
        assert_eq!(read(directory, "c").as_deref(), Some("4"));
        assert_eq!(read(directory, "deep/b"), None);
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["..data", "..three", "a", "c"]);
    }

    #[test]
    fn a_changed_mode_is_a_change_and_an_empty_payload_empties() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let owner = Owner::default();
        write(directory, &payload(&[("a", "1", 0o644)]), owner, "one").unwrap();

        assert!(write(directory, &payload(&[("a", "1", 0o600)]), owner, "two").unwrap());
        assert!(write(directory, &payload(&[]), owner, "three").unwrap());

        assert_eq!(read(directory, "a"), None);
        assert!(fs::symlink_metadata(directory.join("a")).is_err());
    }
}
