//! The files that every container finds in `/etc`: hosts, host name, name servers. Pure texts.

use k8s_cri::v1::DnsConfig;

use crate::error::{Error, Result};

/// What resolvers read at most (glibc's MAXNS).
const MAX_NAME_SERVERS: usize = 3;

/// `/etc/resolv.conf`; `None` means: as the host's.
pub fn resolv_conf(dns: Option<&DnsConfig>) -> Result<Option<String>> {
    let Some(dns) = dns.filter(|dns| !(dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty()))
    else {
        return Ok(None);
    };
    if dns.servers.len() > MAX_NAME_SERVERS {
        return Err(Error::Invalid(format!(
            "{} name servers; resolvers read {MAX_NAME_SERVERS}",
            dns.servers.len()
        )));
    }
    let words = dns.servers.iter().chain(&dns.searches).chain(&dns.options);
    if let Some(word) = words.into_iter().find(|word| word.contains(char::is_whitespace)) {
        return Err(Error::Invalid(format!(
            "{word:?} in the DNS configuration holds blanks"
        )));
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Ok(Some(text))
}

pub fn hosts(address: Option<std::net::Ipv4Addr>, hostname: &str) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if let Some(address) = address {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_written_as_resolvers_read_them() {
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["ns.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            resolv_conf(Some(&dns)).unwrap().unwrap(),
            "search ns.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(None).unwrap(), None);
        let trick = DnsConfig {
            servers: vec!["1.1.1.1\nnameserver 6.6.6.6".into()],
            ..DnsConfig::default()
        };
        assert!(resolv_conf(Some(&trick)).is_err());
    }
}
