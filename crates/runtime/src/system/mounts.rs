//! The mount table, and leaving nothing in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

#[derive(Debug, Clone)]
pub struct MountEntry {
    pub point: PathBuf,
    pub kind: String,
    /// Mount options and super-block options, as the kernel prints them.
    pub super_options: String,
    pub shared: bool,
}

/// All mounts of this process's namespace, in mount order.
pub fn table() -> io::Result<Vec<MountEntry>> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?
        .lines()
        .filter_map(parse)
        .collect())
}

fn parse(line: &str) -> Option<MountEntry> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let point = unescape(left.nth(4)?);
    let optional = left.skip(1).any(|field| field.starts_with("shared:"));
    let mut right = right.split(' ');
    let kind = right.next()?.to_owned();
    let super_options = right.nth(1).unwrap_or("").to_owned();
    Some(MountEntry {
        point: PathBuf::from(point),
        kind,
        super_options,
        shared: optional,
    })
}

/// Blanks and backslashes are octal in the table.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| bytes.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Takes away every mount at or below `folder`, the innermost first. Returns how many there were.
pub fn unmount_below(folder: &Path) -> io::Result<usize> {
    let mut points: Vec<PathBuf> = table()?
        .into_iter()
        .map(|entry| entry.point)
        .filter(|point| point.starts_with(folder))
        .collect();
    points.reverse();
    for point in &points {
        match umount2(point, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL) | Err(nix::Error::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(points.len())
}

/// A small memory file system, as `/dev/shm` is one.
pub fn mount_shm(folder: &Path, size_bytes: u64) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    mount(
        Some("shm"),
        folder,
        Some("tmpfs"),
        MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(format!("mode=1777,size={size_bytes}").as_str()),
    )?;
    Ok(())
}

/// The mount that holds `path`.
pub fn mount_of(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(table()?
        .into_iter()
        .filter(|entry| path.starts_with(&entry.point))
        .max_by_key(|entry| entry.point.as_os_str().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read() {
        let entry =
            parse(r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue")
                .unwrap();
        assert_eq!(entry.point, Path::new("/mnt 2"));
        assert_eq!(entry.kind, "ext3");
        assert_eq!(entry.super_options, "rw,errors=continue");
        assert!(entry.shared);
        assert!(!parse("22 27 0:21 / /proc rw,relatime - proc proc rw").unwrap().shared);
    }
}
