//! The image of the measured Pods: busybox, as Debian builds it, in a docker archive.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::Context;
use serde_json::json;
use sha2::{Digest, Sha256};

pub const REFERENCE: &str = "localhost/mangrove-bench:1";
const BUSYBOX: &str = "/bin/busybox";

pub fn write(path: &Path) -> anyhow::Result<()> {
    let busybox = fs::read(BUSYBOX)
        .with_context(|| format!("can't read {BUSYBOX}: install it by `apt-get install busybox-static`"))?;
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "bin/busybox", 0o755, &busybox)?;
    let layer = layer.into_inner()?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": [BUSYBOX, "sleep", "1000000"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    })
    .to_string();
    let manifest = json!([{"Config": "config.json", "RepoTags": [REFERENCE], "Layers": ["layer.tar"]}]).to_string();
    let file = File::create(path).with_context(|| format!("can't write {}", path.display()))?;
    let mut archive = tar::Builder::new(file);
    append(&mut archive, "layer.tar", 0o644, &layer)?;
    append(&mut archive, "config.json", 0o644, config.as_bytes())?;
    append(&mut archive, "manifest.json", 0o644, manifest.as_bytes())?;
    archive
        .finish()
        .with_context(|| format!("can't write {}", path.display()))
}

fn append(
    archive: &mut tar::Builder<impl std::io::Write>,
    name: &str,
    mode: u32,
    content: &[u8],
) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, content)?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
