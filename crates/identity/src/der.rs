//! As much of DER as a certificate needs. Written here because the libraries at hand can't put several organizations
//! (Kubernetes: groups) into one subject.

use std::time::SystemTime;

use jiff::{Timestamp, tz::TimeZone};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// DER `TRUE`.
pub const TRUE: &[u8] = &[0x01, 0x01, 0xff];

/// 2.5.4.3
pub const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.4.10
pub const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
/// `ecdsa-with-SHA256`, as an AlgorithmIdentifier.
pub const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// What stands before the 65 bytes of an uncompressed point in a P-256 SubjectPublicKeyInfo.
const P256_SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
            out.push(0x80 | (bytes.len() - first) as u8);
            out.extend_from_slice(&bytes[first..]);
        }
    }
    out.extend_from_slice(content);
    out
}

pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

/// A positive integer, big-endian.
pub fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let trimmed: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    match trimmed.first() {
        None => tlv(INTEGER, &[0]),
        Some(first) if *first & 0x80 != 0 => tlv(INTEGER, &[&[0], trimmed.as_slice()].concat()),
        Some(_) => tlv(INTEGER, &trimmed),
    }
}

/// `unused` bits at the end are not part of the string.
pub fn bit_string(unused: u8, bytes: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[&[unused], bytes].concat())
}

pub fn octet_string(bytes: &[u8]) -> Vec<u8> {
    tlv(OCTET_STRING, bytes)
}

pub fn oid(encoded: &[u8]) -> Vec<u8> {
    tlv(OID, encoded)
}

/// `[number] content`, constructed: an explicit tag.
pub fn tagged(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, content)
}

/// `[number] bytes`, primitive: an implicit tag.
pub fn implicit(number: u8, bytes: &[u8]) -> Vec<u8> {
    tlv(0x80 | number, bytes)
}

/// A name: each attribute in a relative name of its own, in order.
pub fn name(attributes: &[(&[u8], &str)]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = attributes
        .iter()
        .map(|(attribute, value)| tlv(SET, &sequence(&[&oid(attribute), &tlv(UTF8_STRING, value.as_bytes())])))
        .collect();
    tlv(SEQUENCE, &parts.concat())
}

/// RFC 5280: UTCTime through 2049, GeneralizedTime from 2050. `None` outside the years that DER can say.
pub fn time(at: SystemTime) -> Option<Vec<u8>> {
    let at = Timestamp::try_from(at).ok()?.to_zoned(TimeZone::UTC);
    match at.year() {
        1950..=2049 => Some(tlv(UTC_TIME, at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())),
        0..=9999 => Some(tlv(
            GENERALIZED_TIME,
            at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes(),
        )),
        _ => None,
    }
}

pub fn extension(id: &[u8], critical: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[&oid(id), critical, &octet_string(value)])
}

/// The SubjectPublicKeyInfo of an uncompressed P-256 point.
pub fn p256_public_key(point: &[u8]) -> Vec<u8> {
    [P256_SPKI_PREFIX, point].concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lengths_take_as_few_bytes_as_they_need() {
        assert_eq!(tlv(4, &[0; 127])[..2], [4, 127]);
        assert_eq!(tlv(4, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(tlv(4, &[0; 300])[..4], [4, 0x82, 1, 44]);
    }

    #[test]
    fn integers_have_no_sign_and_no_needless_zero() {
        assert_eq!(unsigned(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(unsigned(&[0]), [2, 1, 0]);
    }

    #[test]
    fn times_change_their_form_in_2050() {
        let at = |seconds| time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();

        assert_eq!(&at(0)[2..], b"700101000000Z");
        assert_eq!(&at(2_524_607_999)[2..], b"491231235959Z");
        assert_eq!(&at(2_524_608_000)[2..], b"20500101000000Z");
    }
}
