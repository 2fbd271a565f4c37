//! Requests for certificates: what for and by whom. What is signed is for the signer to read.

use serde_json::Value;

use super::check::{Check, Seen, list, text};
use crate::{
    field::{self, Path},
    names,
};

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

const EXPIRATION_SECONDS_MIN: i64 = 600;

const DOMAIN_BYTES_MAX: usize = 253;

pub fn check_signing_request(check: &mut Check, request: &Value, old: Option<&Value>) {
    let spec = &request["spec"];
    let path = Path::ROOT.field("spec");
    if let Some(old) = old {
        check.immutable(&path, spec, &old["spec"]);
        return;
    }
    check.present(&path.field("request"), &spec["request"]);
    let usages_path = path.field("usages");
    let usages = list(&spec["usages"]);
    if usages.is_empty() {
        check.required(&usages_path, "");
    }
    let mut seen = Seen::default();
    for (at, usage) in usages.iter().enumerate() {
        let path = usages_path.index(at);
        if !USAGES.contains(&text(usage)) {
            check.not_supported(&path, usage.clone(), &USAGES);
        }
        if seen.again(text(usage)) {
            check.duplicate(&path, usage.clone());
        }
    }
    let signer = path.field("signerName");
    match text(&spec["signerName"]) {
        "kubernetes.io/legacy-unknown" => {
            let detail = "the legacy signerName is not allowed via this API version";
            check.invalid(&signer, text(&spec["signerName"]), detail);
        }
        name => check_signer(check, &signer, name),
    }
    if let Some(seconds) = spec["expirationSeconds"]
        .as_i64()
        .filter(|seconds| *seconds < EXPIRATION_SECONDS_MIN)
    {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        check.invalid(&path.field("expirationSeconds"), seconds, detail);
    }
}

/// `example.com/signer`.
fn check_signer(check: &mut Check, path: &Path, name: &str) {
    if name.is_empty() {
        check.required(path, "");
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        check.invalid(path, name, detail);
        return;
    };
    if domain.len() > DOMAIN_BYTES_MAX {
        check.causes.push(field::too_long(path, DOMAIN_BYTES_MAX));
    }
    for (whole, rule) in [
        (domain, names::dns1123_label as fn(&str) -> names::Problems),
        (rest, names::dns1123_subdomain),
    ] {
        // The first label with problems tells them all.
        let problems = whole.split('.').map(|label| (label, rule(label)));
        if let Some((label, problems)) = problems.into_iter().find(|(_, problems)| !problems.is_empty()) {
            for problem in problems {
                check.invalid(path, whole, format!("validating label {label:?}: {problem}"));
            }
        }
    }
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        check.invalid(path, domain, detail);
    }
}
