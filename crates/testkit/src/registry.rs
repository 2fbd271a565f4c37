//! A container registry on loopback: the reading half of the OCI distribution protocol, over HTTP/1.1.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::image::Image;

const UNKNOWN: &str = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"there is no such thing here"}]}"#;

/// Serves until the process ends.
pub struct Registry {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
}

/// By path, what is served there: media type, digest, bytes.
type Content = HashMap<String, (&'static str, String, Vec<u8>)>;

impl Registry {
    /// Serves `image` as `repository:tag`.
    pub fn serve(repository: &str, tag: &str, image: &Image) -> io::Result<Registry> {
        let manifest = image.manifest();
        let digest = format!("sha256:{}", crate::image::digest(&manifest));
        let mut content = Content::new();
        for reference in [tag, &digest] {
            content.insert(
                format!("/v2/{repository}/manifests/{reference}"),
                (
                    "application/vnd.oci.image.manifest.v1+json",
                    digest.clone(),
                    manifest.clone(),
                ),
            );
        }
        for (hex, bytes) in [
            (&image.config_digest, &image.config),
            (&image.layer_digest, &image.layer),
        ] {
            let digest = format!("sha256:{hex}");
            content.insert(
                format!("/v2/{repository}/blobs/{digest}"),
                ("application/octet-stream", digest, bytes.clone()),
            );
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let served = Arc::new(AtomicUsize::new(0));
        let counter = served.clone();
        let content = Arc::new(content);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (content, counter) = (content.clone(), counter.clone());
                std::thread::spawn(move || serve(stream, &content, &counter));
            }
        });
        Ok(Registry { address, served })
    }

    /// `host:port`, the first part of images' names.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// How many manifests and blobs have been handed out.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

/// One connection, kept as long as the other side wants it.
fn serve(stream: TcpStream, content: &Content, counter: &AtomicUsize) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
        }
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match content.get(path) {
            Some((media_type, digest, bytes)) => {
                write!(
                    writer,
                    "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\nContent-Length: {}\r\n\r\n",
                    bytes.len()
                )?;
                if method != "HEAD" {
                    counter.fetch_add(1, Ordering::Relaxed);
                    writer.write_all(bytes)?;
                }
            }
            None if path == "/v2/" => write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}")?,
            None => write!(
                writer,
                "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{UNKNOWN}",
                UNKNOWN.len()
            )?,
        }
        writer.flush()?;
    }
}
