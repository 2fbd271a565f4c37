//! Images from nothing but this machine's statically linked busybox (Debian package `busybox-static`).

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::json;
use sha2::{Digest, Sha256};

/// What goes into an image.
pub struct ImageBuilder {
    reference: String,
    layer: tar::Builder<Vec<u8>>,
    config: serde_json::Value,
    /// Shared libraries that are in it already.
    libraries: BTreeSet<String>,
}

impl ImageBuilder {
    /// An empty image that will be known as `reference`, such as `mangrove.test/web:1`.
    pub fn new(reference: &str) -> ImageBuilder {
        ImageBuilder {
            reference: reference.to_owned(),
            layer: tar::Builder::new(Vec::new()),
            config: json!({}),
            libraries: BTreeSet::new(),
        }
    }

    /// Busybox with all its applets, the usual folders and a passwd file.
    pub fn busybox(reference: &str) -> io::Result<ImageBuilder> {
        let mut image = ImageBuilder::new(reference);
        for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "var", "www"] {
            image.folder(folder)?;
        }
        let busybox = find_busybox()?;
        image.file("bin/busybox", 0o755, &std::fs::read(&busybox)?)?;
        let applets = std::process::Command::new(&busybox).arg("--list").output()?;
        for applet in String::from_utf8_lossy(&applets.stdout)
            .lines()
            .filter(|applet| *applet != "busybox")
        {
            image.link(&format!("bin/{applet}"), "busybox")?;
        }
        image.file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )?;
        image.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
        image.config = json!({"Env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"], "Cmd": ["/bin/sh"], "WorkingDir": "/"});
        Ok(image)
    }

    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        self.layer.append_data(&mut header, format!("{path}/"), io::empty())
    }

    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        self.layer.append_data(&mut header, path, content)
    }

    /// A program of this machine with the shared libraries it needs, without its debug information.
    pub fn program(&mut self, path: &str, program: &Path) -> io::Result<()> {
        self.file(path, 0o755, &stripped(program)?)?;
        let output = std::process::Command::new("ldd").arg(program).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Of "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)" and "/lib64/ld-linux-x86-64.so.2 (0x...)" the paths.
        for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
            if self.libraries.insert(library.to_owned()) {
                self.file(library.trim_start_matches('/'), 0o755, &std::fs::read(library)?)?;
            }
        }
        Ok(())
    }

    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.layer.append_link(&mut header, path, target)
    }

    /// Sets a field of the image's configuration, such as `Cmd` or `Entrypoint`.
    pub fn configure(mut self, field: &str, value: serde_json::Value) -> ImageBuilder {
        self.config[field] = value;
        self
    }

    /// The layer (an uncompressed tar), its digest, and the configuration, as registries and archives need them.
    pub fn build(self) -> io::Result<Image> {
        let layer = self.layer.into_inner()?;
        let layer_digest = digest(&layer);
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
            "created": "2026-01-01T00:00:00Z", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "testkit"}],
        });
        let config = serde_json::to_vec(&config).map_err(io::Error::other)?;
        Ok(Image {
            reference: self.reference,
            layer,
            layer_digest,
            config_digest: digest(&config),
            config,
        })
    }
}

pub struct Image {
    pub reference: String,
    pub layer: Vec<u8>,
    /// Hexadecimal SHA-256.
    pub layer_digest: String,
    pub config: Vec<u8>,
    pub config_digest: String,
}

impl Image {
    /// Writes a docker archive (what `docker save` writes).
    pub fn write_docker_archive(&self, path: &Path) -> io::Result<()> {
        let mut archive = tar::Builder::new(io::BufWriter::new(std::fs::File::create(path)?));
        let config_name = format!("{}.json", self.config_digest);
        let layer_name = format!("{}/layer.tar", self.layer_digest);
        let manifest = json!([{"Config": config_name, "RepoTags": [self.reference], "Layers": [layer_name]}]);
        for (name, content) in [
            (config_name.as_str(), &self.config),
            (layer_name.as_str(), &self.layer),
            (
                "manifest.json",
                &serde_json::to_vec(&manifest).map_err(io::Error::other)?,
            ),
        ] {
            let mut header = header(tar::EntryType::Regular, 0o644, content.len() as u64);
            archive.append_data(&mut header, name, content.as_slice())?;
        }
        archive.into_inner()?.flush()
    }

    /// The OCI image manifest of this image.
    pub fn manifest(&self) -> Vec<u8> {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{}", self.config_digest), "size": self.config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{}", self.layer_digest), "size": self.layer.len()}],
        });
        serde_json::to_vec(&manifest).expect("a JSON value always encodes")
    }
}

/// A program without its debug information; as it is where there is no `strip`.
fn stripped(program: &Path) -> io::Result<Vec<u8>> {
    let name = format!("testkit-strip-{}", std::process::id());
    let out = std::env::temp_dir().join(name);
    let strip = std::process::Command::new("strip")
        .arg("-o")
        .arg(&out)
        .arg(program)
        .output();
    let content = match strip {
        Ok(output) if output.status.success() => std::fs::read(&out),
        _ => std::fs::read(program),
    };
    // It may not be there.
    let _ = std::fs::remove_file(&out);
    content
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_767_225_600);
    header
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn find_busybox() -> io::Result<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "there is no busybox: install Debian's package busybox-static",
            )
        })
}
