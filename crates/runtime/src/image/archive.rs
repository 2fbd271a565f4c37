//! Images from a file: OCI layouts and what `docker save` writes, as a tar, perhaps compressed. The file is read once,
//! from front to back, so that it may also come through a pipe.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::config::{Descriptor, Document, MAX_DOCUMENT_BYTES, Manifest};
use super::layer::{decompressed, hex};
use super::reference::{Reference, check_digest};
use super::store::{Image, ImageStore, Staged};
use crate::error::{Doing, Error, Result};

/// All of an archive, unpacked as files; an archive beyond it is refused.
pub const MAX_ARCHIVE_BYTES: u64 = 64 << 30;

/// Blobs and documents in one archive.
const MAX_ARCHIVE_ENTRIES: usize = 20_000;

/// Indexes within indexes (an archive of a multi-platform image has two).
const MAX_INDEX_DEPTH: usize = 4;

/// One entry of `manifest.json` in a docker archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

struct Archive {
    files: BTreeMap<String, PathBuf>,
    /// Old docker archives name a layer that occurs twice by a link.
    links: BTreeMap<String, String>,
}

impl ImageStore {
    /// Brings in all images of an archive. Blocks.
    pub fn import(&self, reader: impl Read + Send + 'static) -> Result<Vec<Image>> {
        let staging = self.staging()?;
        let archive = Archive::read(reader, &staging.path)?;
        let staged = if archive.files.contains_key("index.json") {
            archive.oci()?
        } else if archive.files.contains_key("manifest.json") {
            archive.docker()?
        } else {
            return Err(Error::Invalid(
                "the file is no image archive: it has neither index.json (OCI) nor manifest.json (docker)".into(),
            ));
        };
        if staged.is_empty() {
            return Err(Error::Invalid("the archive holds no image for this machine".into()));
        }
        staged.into_iter().map(|image| self.commit(image)).collect()
    }
}

impl Archive {
    fn read(reader: impl Read + Send + 'static, folder: &Path) -> Result<Archive> {
        let mut archive = Archive {
            files: BTreeMap::new(),
            links: BTreeMap::new(),
        };
        let mut room = MAX_ARCHIVE_BYTES;
        let mut tar = tar::Archive::new(decompressed(reader).doing(|| "read the archive")?);
        for (number, entry) in tar.entries().doing(|| "read the archive")?.enumerate() {
            let mut entry = entry.doing(|| "read the archive")?;
            if number >= MAX_ARCHIVE_ENTRIES {
                return Err(Error::Invalid(format!(
                    "the archive has more than {MAX_ARCHIVE_ENTRIES} entries"
                )));
            }
            let name = normal(&entry.path().doing(|| "read the archive")?.to_string_lossy());
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let path = folder.join(number.to_string());
                    let mut file = File::create(&path).doing(|| "stage a blob")?;
                    let size = io::copy(&mut (&mut entry).take(room + 1), &mut file).doing(|| "stage a blob")?;
                    room = room.checked_sub(size).ok_or_else(|| {
                        Error::Invalid(format!("the archive has more than {MAX_ARCHIVE_BYTES} bytes"))
                    })?;
                    archive.files.insert(name, path);
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    if let Some(link) = entry.link_name().doing(|| "read the archive")? {
                        let target = match Path::new(&name).parent() {
                            Some(parent) if entry.header().entry_type() == tar::EntryType::Symlink => parent.join(link),
                            _ => link.into_owned(),
                        };
                        archive.links.insert(name, normal(&target.to_string_lossy()));
                    }
                }
                _ => {}
            }
        }
        Ok(archive)
    }

    fn path(&self, name: &str) -> Result<&PathBuf> {
        let name = normal(name);
        let name = self.links.get(&name).unwrap_or(&name);
        self.files
            .get(name)
            .ok_or_else(|| Error::Invalid(format!("the archive names {name}, which is not in it")))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name)?;
        let size = fs::metadata(path).doing(|| "read the archive")?.len();
        if size > MAX_DOCUMENT_BYTES {
            return Err(Error::Invalid(format!(
                "{name} has {size} bytes; at most {MAX_DOCUMENT_BYTES} are read"
            )));
        }
        fs::read(path).doing(|| "read the archive")
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<&PathBuf> {
        self.path(&format!("blobs/sha256/{}", check_digest(&descriptor.digest)?))
    }

    fn checked_document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.document(&format!("blobs/sha256/{}", check_digest(&descriptor.digest)?))?;
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        if digest != descriptor.digest {
            return Err(Error::Invalid(format!(
                "a blob's content is {digest}, its name says {}",
                descriptor.digest
            )));
        }
        Ok(bytes)
    }

    fn oci(&self) -> Result<Vec<Staged>> {
        let Document::Index(index) = Document::parse(&self.document("index.json")?)? else {
            return Err(Error::Invalid("index.json is no index".into()));
        };
        index
            .manifests
            .iter()
            .map(|descriptor| self.oci_image(descriptor))
            .collect()
    }

    fn oci_image(&self, named: &Descriptor) -> Result<Staged> {
        let mut descriptor = named.clone();
        let mut manifest = None;
        for _ in 0..MAX_INDEX_DEPTH {
            match Document::parse(&self.checked_document(&descriptor)?)? {
                Document::Manifest(found) => {
                    manifest = Some(found);
                    break;
                }
                Document::Index(index) => descriptor = index.for_this_machine()?.clone(),
            }
        }
        let manifest: Manifest = manifest.ok_or_else(|| Error::Invalid("indexes within indexes, too deep".into()))?;
        // containerd's annotation is a whole name, the standard one often only a tag.
        let name = named.annotations.as_ref().and_then(|annotations| {
            annotations
                .get("io.containerd.image.name")
                .or_else(|| annotations.get("org.opencontainers.image.ref.name"))
        });
        let reference = name
            .filter(|name| name.contains(['/', ':']))
            .map(|name| Reference::parse(name))
            .transpose()?;
        Ok(Staged {
            config: self.checked_document(&manifest.config)?,
            layers: manifest
                .layers
                .iter()
                .map(|layer| Ok(Some(self.blob(layer)?.clone())))
                .collect::<Result<_>>()?,
            tags: reference.iter().filter_map(Reference::tagged).collect(),
            digests: reference.iter().map(|r| r.with_digest(&named.digest)).collect(),
            imported: true,
        })
    }

    fn docker(&self) -> Result<Vec<Staged>> {
        let images: Vec<DockerImage> = serde_json::from_slice(&self.document("manifest.json")?)
            .map_err(|e| Error::Invalid(format!("manifest.json can't be read: {e}")))?;
        images
            .iter()
            .map(|image| {
                let references = image
                    .repo_tags
                    .iter()
                    .flatten()
                    .map(|tag| Reference::parse(tag))
                    .collect::<Result<Vec<_>>>()?;
                Ok(Staged {
                    config: self.document(&image.config)?,
                    layers: image
                        .layers
                        .iter()
                        .map(|layer| Ok(Some(self.path(layer)?.clone())))
                        .collect::<Result<_>>()?,
                    tags: references.iter().filter_map(Reference::tagged).collect(),
                    digests: Vec::new(),
                    imported: true,
                })
            })
            .collect()
    }
}

/// `./a/../b` and `b` are one name in an archive.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
