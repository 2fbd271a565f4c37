//! Names of images, written out in full as docker does it: `busybox` is `docker.io/library/busybox:latest`. Pure.

use std::fmt;

use crate::error::{Error, Result};

/// Longer than any name a registry takes (docker: 255 for the repository, 128 for a tag, 71 for a digest, a host).
const MAX_REFERENCE_BYTES: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host and perhaps port, `docker.io` for what names none.
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Reference> {
        let bad = |why: &str| Error::Invalid(format!("{text:?} is not an image reference: {why}"));
        if text.is_empty() || text.len() > MAX_REFERENCE_BYTES {
            return Err(bad("its length"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if let Some(digest) = digest {
            check_digest(digest).map_err(|_| bad("only sha256 digests are known"))?;
        }
        // A colon after the last slash starts a tag, one before it a port.
        let (name, tag) = match rest.rfind(':') {
            Some(at) if !rest[at..].contains('/') => (&rest[..at], Some(&rest[at + 1..])),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            let fine = !tag.is_empty()
                && tag.len() <= 128
                && !tag.starts_with(['.', '-'])
                && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if !fine {
                return Err(bad("its tag"));
            }
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                let first = if first == "index.docker.io" { "docker.io" } else { first };
                (first.to_owned(), rest.to_owned())
            }
            _ => ("docker.io".to_owned(), name.to_owned()),
        };
        let repository = if registry == "docker.io" && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        let part_is_fine = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
                && part.starts_with(|c: char| c.is_ascii_alphanumeric())
        };
        if !repository.split('/').all(part_is_fine) {
            return Err(bad("its repository"));
        }
        let host_is_fine = |host: &str| {
            host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
        };
        if !host_is_fine(&registry) {
            return Err(bad("its registry"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Reference {
            registry,
            repository,
            tag,
            digest: digest.map(str::to_owned),
        })
    }

    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `name:tag`, if there is a tag.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name()))
    }

    pub fn with_digest(&self, digest: &str) -> String {
        format!("{}@{digest}", self.name())
    }

    /// A registry on this machine is spoken to without TLS.
    pub fn is_loopback(&self) -> bool {
        let host = self
            .registry
            .rsplit_once(':')
            .map_or(self.registry.as_str(), |(host, _)| host);
        host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The hexadecimal part of a `sha256:` digest.
pub fn check_digest(digest: &str) -> Result<&str> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        .ok_or_else(|| Error::Invalid(format!("{digest:?} is not a sha256 digest")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_out_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (short, long) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app:latest"),
            ("index.docker.io/library/x", "docker.io/library/x:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/app:v1", "127.0.0.1:5000/app:v1"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("host:80/a/b/c", "host:80/a/b/c:latest"),
        ] {
            assert_eq!(Reference::parse(short).unwrap().to_string(), long);
        }
        let by_digest = Reference::parse(&format!("busybox@{digest}")).unwrap();
        assert_eq!(by_digest.to_string(), format!("docker.io/library/busybox@{digest}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            "UPPER",
            "a//b",
            "a:",
            "a:b:c",
            "a@sha256:12",
            "../x",
            "host:80/",
            "a b",
            "-a",
            "a:.tag",
            "x/../y",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn loopback_is_known() {
        for (name, loopback) in [
            ("localhost:5000/a", true),
            ("127.0.0.1:5000/a", true),
            ("127.9.9.9:1/a", true),
            ("10.0.0.1:5000/a", false),
            ("busybox", false),
        ] {
            assert_eq!(Reference::parse(name).unwrap().is_loopback(), loopback, "{name}");
        }
    }
}
