//! Who may use the kubelet API: whoever the client CA calls an administrator, and the API server.

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    pub name: String,
    pub groups: Vec<String>,
}

/// The subject of a certificate whose chain the handshake has checked.
pub fn caller(chain: Option<&[CertificateDer<'_>]>) -> Option<Caller> {
    let first = chain?.first()?;
    let (_, certificate) = X509Certificate::from_der(first).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok().map(str::to_owned))
        .collect();
    Some(Caller { name, groups })
}

pub fn is_allowed(caller: &Caller) -> bool {
    caller.name == "kube-apiserver-kubelet-client" || caller.groups.iter().any(|group| group == "system:masters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_administrators_and_the_api_server_are_allowed() {
        for (name, groups, allowed) in [
            ("kube-apiserver-kubelet-client", vec![], true),
            ("anyone", vec!["system:masters"], true),
            ("anyone", vec!["system:nodes", "acme"], false),
            ("system:masters", vec![], false),
        ] {
            let caller = Caller {
                name: name.to_owned(),
                groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            };

            assert_eq!(is_allowed(&caller), allowed, "{caller:?}");
        }
    }
}
