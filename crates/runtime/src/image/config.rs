//! The documents that describe an image: index, manifest, configuration. Only what a runtime needs of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Descriptions are small; the largest known are a few hundred KiB.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// Overlayfs takes the names of all lower folders in one page, which ends at about 120 of ours.
pub const MAX_LAYERS: usize = 110;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub config: Option<ProcessConfig>,
    pub rootfs: RootFs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ProcessConfig {
    pub user: Option<String>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub stop_signal: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub manifests: Vec<Descriptor>,
}

/// An index and a manifest are told apart by what they hold; media types are left out by some builders.
pub enum Document {
    Index(Index),
    Manifest(Manifest),
}

impl ImageConfig {
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig> {
        let config: ImageConfig = serde_json::from_slice(bytes)
            .map_err(|e| Error::Invalid(format!("the image's configuration can't be read: {e}")))?;
        if config.rootfs.diff_ids.is_empty() || config.rootfs.diff_ids.len() > MAX_LAYERS {
            return Err(Error::Invalid(format!(
                "the image has {} layers; 1 to {MAX_LAYERS} are supported",
                config.rootfs.diff_ids.len()
            )));
        }
        if !config.os.is_empty() && config.os != "linux" {
            return Err(Error::Invalid(format!("the image is for {}, not for linux", config.os)));
        }
        if !config.architecture.is_empty() && config.architecture != architecture() {
            return Err(Error::Invalid(format!(
                "the image is for {}, this machine is {}",
                config.architecture,
                architecture()
            )));
        }
        Ok(config)
    }
}

impl Document {
    pub fn parse(bytes: &[u8]) -> Result<Document> {
        let read = |e| Error::Invalid(format!("the image's manifest can't be read: {e}"));
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(read)?;
        if value.get("manifests").is_some() {
            Ok(Document::Index(serde_json::from_value(value).map_err(read)?))
        } else {
            Ok(Document::Manifest(serde_json::from_value(value).map_err(read)?))
        }
    }
}

impl Index {
    /// The manifest for this machine; one that names no platform does for any.
    pub fn for_this_machine(&self) -> Result<&Descriptor> {
        let fits = |d: &&Descriptor| {
            d.platform
                .as_ref()
                .is_some_and(|p| p.os == "linux" && p.architecture == architecture())
        };
        self.manifests
            .iter()
            .find(fits)
            .or_else(|| self.manifests.iter().find(|d| d.platform.is_none()))
            .ok_or_else(|| Error::Invalid(format!("the image has no variant for linux/{}", architecture())))
    }
}

/// This machine's name in Go's words, which images use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
