//! Images from a registry. Registries on this machine's loopback are spoken to in the clear, all others by TLS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use futures::StreamExt;
use futures::future::BoxFuture;
use oci_client::Reference as RemoteReference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::config::{Descriptor, Document, ImageConfig, MAX_DOCUMENT_BYTES, MAX_LAYERS, Manifest};
use super::layer::{MAX_LAYER_BYTES, hex};
use super::reference::{Reference, check_digest};
use super::store::{Image, ImageStore, Staged};
use crate::error::{Doing, Error, Result};

/// A registry that sends nothing for so long is given up; the kubelet tries again.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Layers fetched at the same time, as docker does.
const MAX_CONCURRENT_DOWNLOADS: usize = 3;

const ACCEPTED: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Where else to look: registry as named -> registry to ask (`docker.io` -> `127.0.0.1:5000`).
    pub mirrors: BTreeMap<String, String>,
    /// Registries that are spoken to without TLS, besides those on loopback.
    pub plain_http: Vec<String>,
}

/// As CRI hands them over; never written anywhere.
#[derive(Clone, Default)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// base64 of `username:password`.
    pub auth: String,
    pub registry_token: String,
}

impl Credentials {
    fn into_auth(self) -> Result<RegistryAuth> {
        if !self.registry_token.is_empty() {
            return Ok(RegistryAuth::Bearer(self.registry_token));
        }
        if !self.username.is_empty() {
            return Ok(RegistryAuth::Basic(self.username, self.password));
        }
        if self.auth.is_empty() {
            return Ok(RegistryAuth::Anonymous);
        }
        let bad = || Error::Invalid("the registry credentials are not base64 of user:password".into());
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(self.auth.trim())
            .map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let (username, password) = text.split_once(':').ok_or_else(bad)?;
        Ok(RegistryAuth::Basic(
            username.to_owned(),
            password.trim_end_matches('\0').to_owned(),
        ))
    }
}

impl ImageStore {
    pub async fn pull(&self, name: &str, credentials: Credentials, options: &RegistryOptions) -> Result<Image> {
        let reference = Reference::parse(name)?;
        let auth = credentials.into_auth()?;
        let registry = match options.mirrors.get(&reference.registry) {
            Some(mirror) => mirror.clone(),
            None => reference.registry.clone(),
        };
        let source = Reference {
            registry: registry.clone(),
            ..reference.clone()
        };
        let plain = source.is_loopback() || options.plain_http.contains(&registry);
        let client = Client::new(ClientConfig {
            protocol: if plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            user_agent: "mangrove",
            ..ClientConfig::default()
        });
        let host = if registry == "docker.io" {
            "index.docker.io".to_owned()
        } else {
            registry
        };
        let pull = Pull {
            client,
            host,
            repository: reference.repository.clone(),
            auth,
            name: reference.to_string(),
        };

        let wanted = reference.digest.clone().or(reference.tag.clone()).unwrap_or_default();
        let (bytes, digest) = pull.document(&wanted).await?;
        let manifest = match Document::parse(&bytes)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => {
                let (bytes, _) = pull.document(&index.for_this_machine()?.digest).await?;
                match Document::parse(&bytes)? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => return Err(Error::Invalid("an index within an index".into())),
                }
            }
        };
        let staged = pull.stage(self, &manifest, &reference, &digest).await?;
        let (staging, staged) = staged;
        let store = self.clone();
        // Unpacking is disk work for a blocking thread, with the staging folder kept until it is done.
        tokio::task::spawn_blocking(move || {
            let _staging = staging;
            store.commit(staged)
        })
        .await
        .map_err(|e| Error::Supervisor(format!("unpacking stopped: {e}")))?
    }
}

struct Pull {
    client: Client,
    host: String,
    repository: String,
    auth: RegistryAuth,
    /// For messages.
    name: String,
}

impl Pull {
    fn remote(&self, tag_or_digest: &str) -> RemoteReference {
        if tag_or_digest.starts_with("sha256:") {
            RemoteReference::with_digest(self.host.clone(), self.repository.clone(), tag_or_digest.to_owned())
        } else {
            RemoteReference::with_tag(self.host.clone(), self.repository.clone(), tag_or_digest.to_owned())
        }
    }

    fn failed(&self, error: OciDistributionError) -> Error {
        let text = format!("pull {}: {error}", self.name);
        match error {
            OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. } => {
                Error::Unauthorized(text)
            }
            OciDistributionError::ImageManifestNotFoundError(_) => Error::not_found("image", self.name.clone()),
            OciDistributionError::RegistryError { ref envelope, .. }
                if envelope
                    .errors
                    .iter()
                    .any(|e| matches!(e.code, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown)) =>
            {
                Error::not_found("image", self.name.clone())
            }
            OciDistributionError::ServerError { code: 404, .. } => Error::not_found("image", self.name.clone()),
            OciDistributionError::DigestError(_) => Error::Invalid(text),
            _ => Error::Registry(text),
        }
    }

    /// A manifest or an index, and its digest.
    async fn document(&self, tag_or_digest: &str) -> Result<(Vec<u8>, String)> {
        let (bytes, _) = self
            .client
            .pull_manifest_raw(&self.remote(tag_or_digest), &self.auth, ACCEPTED)
            .await
            .map_err(|e| self.failed(e))?;
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(Error::Invalid(format!(
                "the manifest of {} has {} bytes",
                self.name,
                bytes.len()
            )));
        }
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        if tag_or_digest.starts_with("sha256:") && tag_or_digest != digest {
            return Err(Error::Invalid(format!(
                "the registry sent {digest} for {tag_or_digest} of {}",
                self.name
            )));
        }
        Ok((bytes.to_vec(), digest))
    }

    async fn stage(
        &self,
        store: &ImageStore,
        manifest: &Manifest,
        reference: &Reference,
        digest: &str,
    ) -> Result<(super::store::Staging, Staged)> {
        if manifest.layers.len() > MAX_LAYERS {
            return Err(Error::Invalid(format!(
                "the image has {} layers; up to {MAX_LAYERS} are supported",
                manifest.layers.len()
            )));
        }
        let staging = store.staging()?;
        let config_file = staging.path.join("config");
        self.blob(&manifest.config, &config_file, MAX_DOCUMENT_BYTES).await?;
        let config = tokio::fs::read(&config_file).await.doing(|| "read the configuration")?;
        let present = store.present(&ImageConfig::parse(&config)?);
        if present.len() != manifest.layers.len() {
            return Err(Error::Invalid(
                "manifest and configuration differ in their layers".into(),
            ));
        }
        let mut downloads: Vec<BoxFuture<'_, Result<Option<PathBuf>>>> = Vec::new();
        for (number, (layer, here)) in manifest.layers.iter().zip(present).enumerate() {
            let file = staging.path.join(format!("layer-{number}"));
            downloads.push(Box::pin(async move {
                if here {
                    return Ok(None);
                }
                self.blob(layer, &file, MAX_LAYER_BYTES).await?;
                Ok(Some(file))
            }));
        }
        let layers: Vec<Result<Option<_>>> = futures::stream::iter(downloads)
            .buffered(MAX_CONCURRENT_DOWNLOADS)
            .collect()
            .await;
        let staged = Staged {
            config,
            layers: layers.into_iter().collect::<Result<_>>()?,
            tags: reference.tagged().into_iter().collect(),
            digests: vec![reference.with_digest(digest)],
            imported: false,
        };
        Ok((staging, staged))
    }

    async fn blob(&self, descriptor: &Descriptor, target: &Path, max_bytes: u64) -> Result<()> {
        check_digest(&descriptor.digest)?;
        let too_big = || Error::Invalid(format!("a blob of {} has more than {max_bytes} bytes", self.name));
        if descriptor.size > max_bytes {
            return Err(too_big());
        }
        let mut stream = self
            .client
            .pull_blob_stream(&self.remote(&descriptor.digest), descriptor.digest.as_str())
            .await
            .map_err(|e| self.failed(e))?;
        let mut file = tokio::fs::File::create(target).await.doing(|| "stage a blob")?;
        let mut hash = Sha256::new();
        let mut size = 0;
        while let Some(bytes) = stream.stream.next().await {
            let bytes = bytes.map_err(|e| Error::Registry(format!("pull {}: {e}", self.name)))?;
            size += bytes.len() as u64;
            if size > max_bytes {
                return Err(too_big());
            }
            hash.update(&bytes);
            file.write_all(&bytes).await.doing(|| "stage a blob")?;
        }
        file.flush().await.doing(|| "stage a blob")?;
        let digest = format!("sha256:{}", hex(&hash.finalize()));
        if digest != descriptor.digest {
            return Err(Error::Invalid(format!(
                "a blob of {} is {digest}, its manifest says {}",
                self.name, descriptor.digest
            )));
        }
        Ok(())
    }
}
