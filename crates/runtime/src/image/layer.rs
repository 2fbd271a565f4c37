//! One layer, from a tar stream to a folder that overlayfs can use as a lower one. The stream is somebody else's: paths
//! never leave the folder, sizes and counts are bounded, and what was read is what the digest says, or nothing remains.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Doing, Error, Result};
use crate::system::inroot;

/// Unpacked; larger than any image layer in earnest, smaller than a disk.
pub const MAX_LAYER_BYTES: u64 = 32 << 30;

/// Files, folders and links of one layer.
pub const MAX_LAYER_ENTRIES: u64 = 2_000_000;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    pub chain_id: String,
    pub size_bytes: u64,
    pub entries: u64,
}

/// Layers are kept by the chain of digests below and including them, because what a folder that a layer only implies
/// looks like depends on the layers below.
pub fn chain_id(parent: Option<&str>, diff_id: &str) -> String {
    match parent {
        None => diff_id.to_owned(),
        Some(parent) => format!("sha256:{}", hex(&Sha256::digest(format!("{parent} {diff_id}")))),
    }
}

/// 128 bits of the chain id: short, so that many fit into mount options, and still nobody finds two alike.
pub fn folder_name(chain_id: &str) -> String {
    chain_id.trim_start_matches("sha256:").chars().take(32).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what is a tar, or a gzip of one.
pub fn decompressed(mut reader: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = [0; 4];
    let mut length = 0;
    while length < magic.len() {
        match reader.read(&mut magic[length..])? {
            0 => break,
            n => length += n,
        }
    }
    let whole = io::Cursor::new(magic[..length].to_vec()).chain(reader);
    match magic {
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(BufReader::with_capacity(
            128 << 10,
            whole,
        )))),
        [0x28, 0xb5, 0x2f, 0xfd] => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "layers compressed with zstd are not supported; push the image with gzip",
        )),
        _ => Ok(Box::new(BufReader::with_capacity(128 << 10, whole))),
    }
}

/// Counts and hashes what passes, and ends at a limit.
struct Measured<R> {
    inner: R,
    hash: Sha256,
    size: u64,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.size += length as u64;
        if self.size > MAX_LAYER_BYTES {
            return Err(io::Error::other(format!(
                "a layer of more than {MAX_LAYER_BYTES} bytes"
            )));
        }
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

/// Unpacks into `target`, an empty folder. `parents` are the layers below, the uppermost first.
pub fn unpack(tar: impl Read, diff_id: &str, target: &Path, parents: &[PathBuf]) -> Result<LayerRecord> {
    let root = inroot::open_root(target).doing(|| format!("open {}", target.display()))?;
    let parents = parents
        .iter()
        .map(|path| inroot::open_root(path))
        .collect::<io::Result<Vec<_>>>()
        .doing(|| "open the layers below")?;
    let mut measured = Measured {
        inner: tar,
        hash: Sha256::new(),
        size: 0,
    };
    let mut unpacker = Unpacker {
        root: &root,
        parents: &parents,
        folder_times: Vec::new(),
        entries: 0,
        size_bytes: 0,
    };
    let mut archive = tar::Archive::new(&mut measured);
    for entry in archive.entries().doing(|| "read a layer")? {
        let mut entry = entry.doing(|| "read a layer")?;
        let path = entry.path().doing(|| "read a layer")?.into_owned();
        unpacker
            .entry(&mut entry, &path)
            .doing(|| format!("unpack {}", path.display()))?;
    }
    unpacker.finish().doing(|| "set folder times")?;
    let record = LayerRecord {
        chain_id: String::new(),
        size_bytes: unpacker.size_bytes,
        entries: unpacker.entries,
    };
    // The digest covers what follows the last entry, too.
    io::copy(&mut measured, &mut io::sink()).doing(|| "read a layer")?;
    let digest = format!("sha256:{}", hex(&measured.hash.finalize()));
    if digest != diff_id {
        return Err(Error::Invalid(format!(
            "a layer's content is {digest}, its configuration says {diff_id}"
        )));
    }
    Ok(record)
}

struct Unpacker<'a> {
    root: &'a OwnedFd,
    parents: &'a [OwnedFd],
    /// Set at the end, since each file made in a folder changes its time.
    folder_times: Vec<(PathBuf, u64)>,
    entries: u64,
    size_bytes: u64,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &Path) -> io::Result<()> {
        self.entries += 1;
        if self.entries > MAX_LAYER_ENTRIES {
            return Err(io::Error::other(format!(
                "a layer of more than {MAX_LAYER_ENTRIES} entries"
            )));
        }
        let path = inroot::clean(path)?;
        let kind = entry.header().entry_type();
        if matches!(kind, tar::EntryType::XGlobalHeader) {
            return Ok(());
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            // The root itself: only its attributes matter.
            return self.attributes_of_root(entry);
        };
        let folder = self.folder(parent)?;
        let name_bytes = name.as_bytes();
        if name_bytes == b".wh..wh..opq" {
            return set_xattr(&self.reopen(parent)?, "trusted.overlay.opaque", b"y");
        }
        if name_bytes.starts_with(b".wh..wh.") {
            return Ok(());
        }
        if let Some(hidden) = name_bytes.strip_prefix(b".wh.") {
            let hidden = Path::new(std::ffi::OsStr::from_bytes(hidden));
            if hidden.as_os_str().is_empty() || hidden == Path::new("..") || hidden == Path::new(".") {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.clear(&folder, hidden)?;
            mknodat(&folder, hidden, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?;
            return Ok(());
        }
        let name = Path::new(name);
        let header = entry.header();
        let mode = Mode::from_bits_truncate(header.mode()? & 0o7777);
        let owner = (Uid::from_raw(id(header.uid())), Gid::from_raw(id(header.gid())));
        let time = header.mtime().unwrap_or(0);
        match kind {
            tar::EntryType::Directory => {
                match mkdirat(&folder, name, Mode::from_bits_truncate(0o755)) {
                    Err(nix::Error::EEXIST) if self.is_folder(&path) => {}
                    Err(nix::Error::EEXIST) => {
                        self.clear(&folder, name)?;
                        mkdirat(&folder, name, Mode::from_bits_truncate(0o755))?;
                    }
                    other => other?,
                }
                self.folder_times.push((path.clone(), time));
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                self.clear(&folder, name)?;
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let mut file = File::from(openat(&folder, name, flags, Mode::from_bits_truncate(0o600))?);
                self.size_bytes += io::copy(entry, &mut file)?;
                file.flush()?;
            }
            tar::EntryType::Symlink => {
                let link = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                self.clear(&folder, name)?;
                symlinkat(link.as_ref(), &folder, name)?;
            }
            tar::EntryType::Link => {
                let link = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?.into_owned();
                let link = inroot::clean(&link)?;
                let target_name = link.file_name().ok_or(io::ErrorKind::InvalidData)?;
                let target = inroot::open(
                    self.root,
                    link.parent().unwrap_or(Path::new("")),
                    OFlag::O_DIRECTORY | OFlag::O_PATH,
                )?;
                self.clear(&folder, name)?;
                linkat(&target, Path::new(target_name), &folder, name, AtFlags::empty())?;
                // It shares everything with its target.
                return Ok(());
            }
            tar::EntryType::Char | tar::EntryType::Block => {
                self.clear(&folder, name)?;
                let device = makedev(
                    header.device_major()?.unwrap_or(0).into(),
                    header.device_minor()?.unwrap_or(0).into(),
                );
                let kind = if kind == tar::EntryType::Char {
                    SFlag::S_IFCHR
                } else {
                    SFlag::S_IFBLK
                };
                mknodat(&folder, name, kind, mode, device)?;
            }
            tar::EntryType::Fifo => {
                self.clear(&folder, name)?;
                mknodat(&folder, name, SFlag::S_IFIFO, mode, 0)?;
            }
            other => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("an entry of unknown kind {other:?}"),
                ));
            }
        }
        fchownat(
            &folder,
            name,
            Some(owner.0),
            Some(owner.1),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )?;
        if kind != tar::EntryType::Symlink {
            // After the owner, because a change of owner takes the set-user-id bit away.
            fchmodat(&folder, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        self.extended_attributes(entry, &folder, name, kind)?;
        if kind != tar::EntryType::Directory {
            set_time(&folder, name, time)?;
        }
        Ok(())
    }

    fn attributes_of_root<R: Read>(&mut self, entry: &tar::Entry<'_, R>) -> io::Result<()> {
        let header = entry.header();
        let root = self.reopen(Path::new(""))?;
        nix::unistd::fchown(
            &root,
            Some(Uid::from_raw(id(header.uid()))),
            Some(Gid::from_raw(id(header.gid()))),
        )?;
        nix::sys::stat::fchmod(&root, Mode::from_bits_truncate(header.mode()? & 0o7777))?;
        Ok(())
    }

    /// The folder, made where the layer only implies it; then it looks like the one below it.
    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        inroot::make_folders(self.root, path, Mode::from_bits_truncate(0o755), |made, fd| {
            for parent in self.parents {
                let Ok(below) = inroot::open(parent, made, OFlag::O_RDONLY | OFlag::O_DIRECTORY) else {
                    continue;
                };
                let stat = nix::sys::stat::fstat(&below)?;
                nix::unistd::fchown(fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
                nix::sys::stat::fchmod(fd, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
                break;
            }
            Ok(())
        })
    }

    fn reopen(&self, path: &Path) -> io::Result<OwnedFd> {
        inroot::open(self.root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    fn is_folder(&self, path: &Path) -> bool {
        inroot::open(self.root, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).is_ok()
    }

    /// Makes room for an entry that comes twice in one layer: the later one counts.
    fn clear(&self, folder: &OwnedFd, name: &Path) -> io::Result<()> {
        match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(nix::Error::EISDIR) => {
                fs::remove_dir_all(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn extended_attributes<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        folder: &OwnedFd,
        name: &Path,
        kind: tar::EntryType,
    ) -> io::Result<()> {
        let Some(extensions) = entry.pax_extensions()? else {
            return Ok(());
        };
        if !matches!(kind, tar::EntryType::Regular | tar::EntryType::Directory) {
            return Ok(());
        }
        for extension in extensions.flatten() {
            let Some(attribute) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else {
                continue;
            };
            // Overlayfs's own attributes would let a layer point anywhere.
            if attribute.starts_with("trusted.") || attribute.starts_with("user.overlay.") {
                continue;
            }
            let fd = openat(
                folder,
                name,
                OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            // A file system that can't keep them loses them, as it would for everybody.
            let _ = set_xattr(&fd, attribute, extension.value_bytes());
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        for (path, time) in self.folder_times.drain(..).rev() {
            if let Some(name) = path.file_name() {
                let parent = path.parent().unwrap_or(Path::new(""));
                if let Ok(folder) = inroot::open(self.root, parent, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                    let _ = set_time(&folder, Path::new(name), time);
                }
            }
        }
        Ok(())
    }
}

/// Some builders leave owners blank, which every tar reads as root.
fn id(field: io::Result<u64>) -> u32 {
    field.ok().and_then(|id| id.try_into().ok()).unwrap_or(0)
}

fn set_time(folder: &OwnedFd, name: &Path, seconds: u64) -> io::Result<()> {
    let time = nix::sys::time::TimeSpec::new(seconds.min(i64::MAX as u64) as i64, 0);
    nix::sys::stat::utimensat(
        folder.as_fd(),
        name,
        &time,
        &time,
        nix::sys::stat::UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

fn set_xattr(fd: &OwnedFd, name: &str, value: &[u8]) -> io::Result<()> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the pointers are to a C string and to `value.len()` bytes, both alive for the call.
    let result = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

    use super::*;

    enum Item<'a> {
        File(&'a str, &'a str),
        Folder(&'a str, u32),
        Symlink(&'a str, &'a str),
        Hardlink(&'a str, &'a str),
    }

    fn tar_of(items: &[Item]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for item in items {
            let mut header = tar::Header::new_ustar();
            header.set_mtime(1000);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mode(0o644);
            let put_name = |header: &mut tar::Header, name: &str| {
                // Straight into the field: the builder itself refuses what an attacker would send.
                let field = &mut header.as_old_mut().name;
                field[..name.len()].copy_from_slice(name.as_bytes());
            };
            let mut body: &[u8] = &[];
            match item {
                Item::File(name, text) => {
                    put_name(&mut header, name);
                    header.set_entry_type(tar::EntryType::Regular);
                    body = text.as_bytes();
                }
                Item::Folder(name, mode) => {
                    put_name(&mut header, name);
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                }
                Item::Symlink(name, to) | Item::Hardlink(name, to) => {
                    put_name(&mut header, name);
                    header.as_old_mut().linkname[..to.len()].copy_from_slice(to.as_bytes());
                    header.set_entry_type(if matches!(item, Item::Symlink(..)) {
                        tar::EntryType::Symlink
                    } else {
                        tar::EntryType::Link
                    });
                }
            }
            header.set_size(body.len() as u64);
            header.set_cksum();
            builder.append(&header, body).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(items: &[Item], parents: &[PathBuf]) -> (tempfile::TempDir, Result<LayerRecord>) {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("layer");
        fs::create_dir(&folder).unwrap();
        let tar = tar_of(items);
        let digest = format!("sha256:{}", hex(&Sha256::digest(&tar)));
        let result = unpack(&tar[..], &digest, &folder, parents);
        (outer, result)
    }

    #[test]
    fn files_folders_and_links_arrive() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: owners can only be set by root");
        }
        let (outer, result) = unpacked(
            &[
                Item::Folder("./bin", 0o750),
                Item::File("bin/tool", "text"),
                Item::Symlink("bin/link", "tool"),
                Item::Hardlink("bin/hard", "/bin/tool"),
                Item::File("bin/tool2", "first"),
                Item::File("bin/tool2", "second"),
            ],
            &[],
        );
        let record = result.unwrap();
        let at = outer.path().join("layer/bin");
        assert_eq!(record.entries, 6);
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o750);
        assert_eq!(fs::metadata(&at).unwrap().mtime(), 1000);
        assert_eq!(fs::read_to_string(at.join("link")).unwrap(), "text");
        assert_eq!(fs::metadata(at.join("hard")).unwrap().nlink(), 2);
        assert_eq!(fs::read_to_string(at.join("tool2")).unwrap(), "second");
    }

    #[test]
    fn whiteouts_become_what_overlayfs_understands() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: device nodes can only be made by root");
        }
        let (outer, result) = unpacked(
            &[
                Item::File("etc/.wh.gone", ""),
                Item::File("var/.wh..wh..opq", ""),
                Item::File("etc/.wh..wh.plnk", ""),
            ],
            &[],
        );
        result.unwrap();
        let gone = fs::metadata(outer.path().join("layer/etc/gone")).unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        assert_eq!(fs::read_dir(outer.path().join("layer/etc")).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_ever_written_outside() {
        for items in [
            vec![Item::File("../escape", "x")],
            vec![Item::File("a/../../escape", "x")],
            vec![Item::Symlink("link", "../.."), Item::File("link/escape", "x")],
            vec![Item::Symlink("link", "/"), Item::File("link/escape", "x")],
            vec![Item::Hardlink("link", "../../secret")],
        ] {
            let (outer, _) = unpacked(&items, &[]);
            assert!(!outer.path().join("escape").exists());
            assert!(!Path::new("/escape").exists());
            assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn an_implied_folder_looks_like_the_one_below() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: owners can only be set by root");
        }
        let (below, result) = unpacked(&[Item::Folder("tmp", 0o1777)], &[]);
        result.unwrap();
        let (above, result) = unpacked(&[Item::File("tmp/file", "x")], &[below.path().join("layer")]);
        result.unwrap();
        let mode = fs::metadata(above.path().join("layer/tmp"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o1777);
    }

    #[test]
    fn a_layer_that_is_not_what_its_digest_says_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tar = tar_of(&[]);
        let wrong = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(
            unpack(&tar[..], &wrong, folder.path(), &[]),
            Err(Error::Invalid(_))
        ));
    }
}
