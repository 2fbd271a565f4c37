//! The identity of a plane.

use std::{fmt, str::FromStr};

/// A plane's id: 16 characters of `a-z0-9`, random, never reused, never the plane's name.
///
/// The width is fixed so that one plane's keys are never a prefix of another's (D1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaneId([u8; PlaneId::LEN]);

#[derive(Debug, thiserror::Error)]
#[error("a plane id is 16 characters of a-z and 0-9, not {0:?}")]
pub struct NotAPlaneId(String);

impl PlaneId {
    pub const LEN: usize = 16;
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

    /// Sorts before or with every other id, for the lower bounds of ranges.
    pub const LOWEST: PlaneId = PlaneId([b'0'; PlaneId::LEN]);

    /// Makes an id of 16 random bytes (about 82 bits remain).
    pub fn from_random(random: [u8; PlaneId::LEN]) -> PlaneId {
        PlaneId(random.map(|byte| Self::ALPHABET[usize::from(byte) % Self::ALPHABET.len()]))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a plane id is ASCII")
    }
}

impl FromStr for PlaneId {
    type Err = NotAPlaneId;

    fn from_str(text: &str) -> Result<PlaneId, NotAPlaneId> {
        let bytes: [u8; PlaneId::LEN] = text.as_bytes().try_into().map_err(|_| NotAPlaneId(text.to_owned()))?;
        if bytes.iter().all(|byte| Self::ALPHABET.contains(byte)) {
            Ok(PlaneId(bytes))
        } else {
            Err(NotAPlaneId(text.to_owned()))
        }
    }
}

impl fmt::Display for PlaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PlaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for PlaneId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for PlaneId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<PlaneId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
