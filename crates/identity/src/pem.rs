//! PEM, out. (In: `rustls_pki_types::pem`.)

use base64::{Engine, engine::general_purpose::STANDARD};

/// RFC 7468: lines of 64 characters.
const LINE: usize = 64;

pub fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(LINE) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}
