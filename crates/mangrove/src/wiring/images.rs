//! Images of this machine's runtime, for the control socket.

use std::path::Path;

use anyhow::Context;
use runtime::{Image, Runtime};
use serde_json::{Value, json};

#[derive(Clone)]
pub struct Images {
    pub runtime: Runtime,
}

impl Images {
    pub fn list(&self) -> Value {
        let image = |image: Image| json!({"id": image.id, "references": image.tags, "sizeBytes": image.size_bytes});
        self.runtime.images().list().into_iter().map(image).collect()
    }

    pub async fn import(&self, archive: &Path) -> anyhow::Result<Value> {
        let images = self.runtime.import_archive(archive).await;
        let images = images.with_context(|| format!("can't import {}", archive.display()))?;
        let references: Vec<String> = images.into_iter().flat_map(|image| image.tags).collect();
        Ok(json!({"references": references}))
    }
}
