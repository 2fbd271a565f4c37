//! The images of this machine: one file that says which there are, one folder a layer. Layers are shared by whatever
//! images and containers need them and go when the last of those has gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::ImageConfig;
use super::layer::{self, LayerRecord};
use super::reference::Reference;
use crate::error::{Doing, Error, Result};
use crate::system::{inroot, persist};

/// More images than a machine holds; a store that is asked for more refuses.
const MAX_IMAGES: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its configuration: what CRI calls the image id.
    pub id: String,
    pub config: ImageConfig,
    /// Layer folders, the lowest first.
    pub layers: Vec<String>,
    pub size_bytes: u64,
    pub tags: BTreeSet<String>,
    /// `name@sha256:...` of manifests.
    pub digests: BTreeSet<String>,
    /// Uid that its user means, if the image says so by number or in its own `/etc/passwd`.
    pub uid: Option<u32>,
    /// It came in an archive, so nobody could pull it again.
    #[serde(default)]
    pub imported: bool,
}

/// What an archive or a registry gave, before it is unpacked.
pub(super) struct Staged {
    pub config: Vec<u8>,
    /// One a layer, the lowest first; `None` for those that were here already.
    pub layers: Vec<Option<PathBuf>>,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub imported: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Index {
    images: BTreeMap<String, Image>,
}

struct State {
    index: Index,
    /// Layers that containers stand on, by container.
    in_use: HashMap<String, Vec<String>>,
}

#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

struct Inner {
    images: PathBuf,
    layers: PathBuf,
    state: Mutex<State>,
    /// Held while layers are unpacked or swept, so that one never takes away what the other has just found.
    layers_lock: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl ImageStore {
    /// `layers` must lie beside the folder of containers, since overlays name both relative to each other.
    pub fn open(images: PathBuf, layers: PathBuf) -> Result<ImageStore> {
        for folder in [&images, &layers] {
            fs::create_dir_all(folder).doing(|| format!("make {}", folder.display()))?;
        }
        // What a crash left half made.
        for entry in fs::read_dir(&layers).doing(|| "read the layers' folder")?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("tmp-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let _ = fs::remove_dir_all(images.join("staging"));
        let file = images.join("index.json");
        let index = match persist::read_json(&file) {
            Ok(index) => index,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Index::default(),
            Err(e) => return Err(e).doing(|| format!("read {}", file.display())),
        };
        Ok(ImageStore {
            inner: Arc::new(Inner {
                images,
                layers,
                state: Mutex::new(State {
                    index,
                    in_use: HashMap::new(),
                }),
                layers_lock: Mutex::new(()),
            }),
        })
    }

    pub fn list(&self) -> Vec<Image> {
        lock(&self.inner.state).index.images.values().cloned().collect()
    }

    /// By id (whole, or its beginning), by tag, or by digest.
    pub fn find(&self, name: &str) -> Option<Image> {
        let state = lock(&self.inner.state);
        let images = &state.index.images;
        if let Some(image) = images.get(name).or_else(|| images.get(&format!("sha256:{name}"))) {
            return Some(image.clone());
        }
        if let Ok(reference) = Reference::parse(name) {
            let found = match (&reference.digest, reference.tagged()) {
                (Some(digest), _) => {
                    let full = reference.with_digest(digest);
                    images.values().find(|image| image.digests.contains(&full))
                }
                (None, Some(tagged)) => images.values().find(|image| image.tags.contains(&tagged)),
                (None, None) => None,
            };
            if let Some(image) = found {
                return Some(image.clone());
            }
        }
        // People shorten ids; 8 digits are few enough to type and enough to mean one.
        if name.len() >= 8 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            let prefix = format!("sha256:{name}");
            let mut matching = images.values().filter(|image| image.id.starts_with(&prefix));
            if let (Some(image), None) = (matching.next(), matching.next()) {
                return Some(image.clone());
            }
        }
        None
    }

    /// Forgets the image, all its names. Layers that containers stand on stay until those go.
    pub fn remove(&self, name: &str) -> Result<()> {
        let Some(image) = self.find(name) else {
            return Ok(());
        };
        {
            let mut state = lock(&self.inner.state);
            state.index.images.remove(&image.id);
            self.save(&state)?;
        }
        self.sweep();
        Ok(())
    }

    /// Layers of a container stay as long as it does.
    pub fn hold(&self, container: &str, layers: &[String]) {
        lock(&self.inner.state)
            .in_use
            .insert(container.to_owned(), layers.to_vec());
    }

    pub fn release(&self, container: &str) {
        let mut state = lock(&self.inner.state);
        let Some(layers) = state.in_use.remove(container) else {
            return;
        };
        let kept = used(&state);
        if layers.iter().any(|layer| !kept.contains(layer)) {
            drop(state);
            self.sweep();
        }
    }

    /// Takes away layers which nothing needs.
    pub fn sweep(&self) {
        let _unpacking = lock(&self.inner.layers_lock);
        let kept = used(&lock(&self.inner.state));
        for entry in fs::read_dir(&self.inner.layers).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let folder = name.trim_end_matches(".json");
            if kept.contains(folder) || folder.starts_with("tmp-") {
                continue;
            }
            // The record first: a folder without one counts as absent.
            let _ = fs::remove_file(self.inner.layers.join(format!("{folder}.json")));
            let _ = fs::remove_dir_all(self.inner.layers.join(folder));
        }
    }

    pub fn layers_folder(&self) -> &Path {
        &self.inner.layers
    }

    pub fn images_folder(&self) -> &Path {
        &self.inner.images
    }

    /// Bytes and files of all layers, each counted once.
    pub fn usage(&self) -> (u64, u64) {
        let mut total = (0, 0);
        for layer in used(&lock(&self.inner.state)) {
            if let Some(record) = self.layer_record(&layer) {
                total.0 += record.size_bytes;
                total.1 += record.entries;
            }
        }
        total
    }

    fn layer_record(&self, folder: &str) -> Option<LayerRecord> {
        persist::read_json(&self.inner.layers.join(format!("{folder}.json"))).ok()
    }

    fn save(&self, state: &State) -> Result<()> {
        persist::write_json(&self.inner.images.join("index.json"), &state.index).doing(|| "write the image index")
    }

    pub(super) fn staging(&self) -> Result<Staging> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.inner.images.join("staging").join(number.to_string());
        fs::create_dir_all(&path).doing(|| "make a staging folder")?;
        Ok(Staging { path })
    }

    /// Which of the image's layers are here already, the lowest first.
    pub(super) fn present(&self, config: &ImageConfig) -> Vec<bool> {
        chain(config)
            .iter()
            .map(|chain_id| self.has(&layer::folder_name(chain_id), chain_id))
            .collect()
    }

    fn has(&self, folder: &str, chain_id: &str) -> bool {
        self.layer_record(folder)
            .is_some_and(|record| record.chain_id == chain_id)
            && self.inner.layers.join(folder).is_dir()
    }

    /// Unpacks what is missing and makes the image known. Blocks.
    pub(super) fn commit(&self, staged: Staged) -> Result<Image> {
        let config = ImageConfig::parse(&staged.config)?;
        if config.rootfs.diff_ids.len() != staged.layers.len() {
            return Err(Error::Invalid(format!(
                "the image has {} layers, its configuration describes {}",
                staged.layers.len(),
                config.rootfs.diff_ids.len()
            )));
        }
        let id = format!("sha256:{}", layer::hex(&Sha256::digest(&staged.config)));
        let _sweeping = lock(&self.inner.layers_lock);
        let mut folders: Vec<String> = Vec::new();
        let mut size_bytes = staged.config.len() as u64;
        for ((chain_id, diff_id), file) in chain(&config).iter().zip(&config.rootfs.diff_ids).zip(staged.layers) {
            super::reference::check_digest(diff_id)?;
            let folder = layer::folder_name(chain_id);
            if !self.has(&folder, chain_id) {
                let file = file.ok_or_else(|| {
                    Error::Precondition("a layer was removed while the image was pulled; pull it again".into())
                })?;
                self.unpack(&file, diff_id, chain_id, &folder, &folders)?;
            }
            size_bytes += self.layer_record(&folder).map_or(0, |record| record.size_bytes);
            folders.push(folder);
        }
        let uid = self.uid(&config, &folders);
        let mut state = lock(&self.inner.state);
        if state.index.images.len() >= MAX_IMAGES && !state.index.images.contains_key(&id) {
            return Err(Error::Exhausted(format!("there are {MAX_IMAGES} images; remove some")));
        }
        // A tag means one image; the one that had it keeps its id and its digests.
        for image in state.index.images.values_mut() {
            image.tags.retain(|tag| !staged.tags.contains(tag));
        }
        let image = state.index.images.entry(id.clone()).or_insert_with(|| Image {
            id,
            config,
            layers: folders,
            size_bytes,
            tags: BTreeSet::new(),
            digests: BTreeSet::new(),
            uid,
            imported: false,
        });
        image.imported |= staged.imported;
        image.tags.extend(staged.tags);
        image.digests.extend(staged.digests);
        let image = image.clone();
        self.save(&state)?;
        Ok(image)
    }

    fn unpack(&self, file: &Path, diff_id: &str, chain_id: &str, folder: &str, below: &[String]) -> Result<()> {
        let layers = &self.inner.layers;
        let temporary = layers.join(format!("tmp-{folder}"));
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary).doing(|| "make a layer's folder")?;
        let parents: Vec<PathBuf> = below.iter().rev().map(|name| layers.join(name)).collect();
        let tar = File::open(file)
            .and_then(layer::decompressed)
            .doing(|| "open a layer")?;
        let mut record = match layer::unpack(tar, diff_id, &temporary, &parents) {
            Ok(record) => record,
            Err(e) => {
                let _ = fs::remove_dir_all(&temporary);
                return Err(e);
            }
        };
        record.chain_id = chain_id.to_owned();
        let target = layers.join(folder);
        let _ = fs::remove_dir_all(&target);
        // The content must be on disk before the record says that it is there.
        sync_filesystem(&temporary).doing(|| "sync a layer")?;
        fs::rename(&temporary, &target).doing(|| "keep a layer")?;
        persist::write_json(&layers.join(format!("{folder}.json")), &record).doing(|| "keep a layer's record")
    }

    /// What the kubelet checks `runAsNonRoot` against.
    fn uid(&self, config: &ImageConfig, folders: &[String]) -> Option<u32> {
        let user = config.config.as_ref()?.user.as_deref()?.split(':').next()?;
        if user.is_empty() {
            return None;
        }
        if let Ok(uid) = user.parse() {
            return Some(uid);
        }
        folders.iter().rev().find_map(|folder| {
            let root = inroot::open_root(&self.inner.layers.join(folder)).ok()?;
            let text = inroot::read_small(&root, Path::new("etc/passwd"), 1 << 20).ok()?;
            let entry = text.lines().find(|line| line.split(':').next() == Some(user))?;
            entry.split(':').nth(2)?.parse().ok()
        })
    }
}

fn used(state: &State) -> BTreeSet<String> {
    state
        .index
        .images
        .values()
        .flat_map(|image| &image.layers)
        .chain(state.in_use.values().flatten())
        .cloned()
        .collect()
}

/// Chain ids, the lowest layer first.
fn chain(config: &ImageConfig) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in &config.rootfs.diff_ids {
        chain.push(layer::chain_id(chain.last().map(String::as_str), diff_id));
    }
    chain
}

fn sync_filesystem(path: &Path) -> io::Result<()> {
    let folder = File::open(path)?;
    // SAFETY: syncfs takes a descriptor that is open and touches no memory of ours.
    nix::errno::Errno::result(unsafe { libc::syncfs(std::os::fd::AsRawFd::as_raw_fd(&folder)) })?;
    Ok(())
}

/// A folder for what is being brought in; gone when dropped.
pub(super) struct Staging {
    pub path: PathBuf,
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
