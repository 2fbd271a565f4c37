//! A Pod's resolver and its `/etc/hosts`.

use std::net::Ipv4Addr;

use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

/// The node's side of DNS.
#[derive(Clone, Debug, Default)]
pub struct ClusterDns {
    /// Who resolves the cluster's names; without it `ClusterFirst` means the node's resolver.
    pub server: Option<Ipv4Addr>,
    pub domain: String,
    /// The node's own resolver.
    pub host: DnsConfig,
}

/// Upstream refuses more search domains and longer lists (`MaxDNSSearchPaths`, `MaxDNSNameservers`).
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

/// Reads a `resolv.conf`.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => config.searches = words.map(str::to_owned).collect(),
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

pub fn of(pod: &Pod, cluster: &ClusterDns) -> DnsConfig {
    let empty = Default::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let on_host = spec.host_network == Some(true);
    let cluster_first = match spec.dns_policy.as_deref() {
        Some("None") => return merged(DnsConfig::default(), pod),
        Some("Default") => false,
        Some("ClusterFirstWithHostNet") => true,
        _ => !on_host,
    };
    let config = match cluster.server.filter(|_| cluster_first) {
        Some(server) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let domain = &cluster.domain;
            let mut searches = vec![
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.clone(),
            ];
            searches.extend(cluster.host.searches.iter().cloned());
            DnsConfig {
                servers: vec![server.to_string()],
                searches,
                options: vec!["ndots:5".to_owned()],
            }
        }
        None => cluster.host.clone(),
    };
    merged(config, pod)
}

/// `spec.dnsConfig` adds servers and searches and overrides options by name.
fn merged(mut config: DnsConfig, pod: &Pod) -> DnsConfig {
    if let Some(own) = pod.spec.as_ref().and_then(|spec| spec.dns_config.as_ref()) {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            config
                .options
                .retain(|given| given.split(':').next() != Some(name.as_str()));
            config.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
    }
    unique(&mut config.servers, MAX_SERVERS);
    unique(&mut config.searches, MAX_SEARCHES);
    config
}

fn unique(list: &mut Vec<String>, at_most: usize) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
    list.truncate(at_most);
}

/// The Pod's name on its network; `(hostname, domain)`.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    /// The kernel's limit, and a DNS label's.
    const MAX: usize = 63;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let given = spec.and_then(|spec| {
        spec.hostname_override
            .as_deref()
            .or(spec.hostname.as_deref())
            .filter(|hostname| !hostname.is_empty())
    });
    let hostname = match given {
        Some(hostname) => hostname.to_owned(),
        None => {
            let mut cut = name.len().min(MAX);
            while !name.is_char_boundary(cut) {
                cut -= 1;
            }
            name[..cut].trim_end_matches(['-', '.']).to_owned()
        }
    };
    let domain = spec
        .and_then(|spec| spec.subdomain.as_deref())
        .filter(|subdomain| !subdomain.is_empty())
        .map(|subdomain| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            format!("{subdomain}.{namespace}.svc.{cluster_domain}")
        });
    (hostname, domain)
}

/// What the kernel is told; the full name where the Pod asks for it.
pub fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> String {
    let (hostname, domain) = hostname(pod, cluster_domain);
    let full = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true));
    match domain {
        Some(domain) if full => format!("{hostname}.{domain}"),
        _ => hostname,
    }
}

/// The file that all containers of the Pod get as `/etc/hosts`. `host_file` is the node's, for Pods on its network.
pub fn hosts_file(pod: &Pod, pod_ips: &[String], cluster_domain: &str, host_file: &str) -> String {
    let on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let mut text = String::new();
    if on_host {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(host_file);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    } else {
        text.push_str(concat!(
            "# Kubernetes-managed hosts file.\n",
            "127.0.0.1\tlocalhost\n",
            "::1\tlocalhost ip6-localhost ip6-loopback\n",
            "fe00::0\tip6-localnet\n",
            "fe00::0\tip6-mcastprefix\n",
            "fe00::1\tip6-allnodes\n",
            "fe00::2\tip6-allrouters\n",
        ));
        let (hostname, domain) = hostname(pod, cluster_domain);
        for ip in pod_ips {
            match &domain {
                Some(domain) => text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n")),
                None => text.push_str(&format!("{ip}\t{hostname}\n")),
            }
        }
    }
    let mut aliases = pod
        .spec
        .iter()
        .flat_map(|spec| spec.host_aliases.iter().flatten())
        .peekable();
    if aliases.peek().is_some() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cluster() -> ClusterDns {
        ClusterDns {
            server: Some([10, 96, 0, 10].into()),
            domain: "cluster.local".to_owned(),
            host: parse_resolv_conf(
                "# comment\nnameserver 192.0.2.53\nsearch corp.example\noptions ndots:1 timeout:2\n",
            ),
        }
    }

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "web"}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_policy_decides_who_resolves() {
        let cluster_first = [
            "web.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            "corp.example",
        ];
        for (spec, servers, searches) in [
            (json!({}), vec!["10.96.0.10"], cluster_first.to_vec()),
            (
                json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                vec!["192.0.2.53"],
                vec!["corp.example"],
            ),
            (
                json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                vec!["10.96.0.10"],
                cluster_first.to_vec(),
            ),
            (
                json!({"dnsPolicy": "Default"}),
                vec!["192.0.2.53"],
                vec!["corp.example"],
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.1"], "searches": ["a.b"]}}),
                vec!["1.1.1.1"],
                vec!["a.b"],
            ),
        ] {
            let config = of(&pod(spec.clone()), &cluster());

            assert_eq!(config.servers, servers, "{spec}");
            assert_eq!(config.searches, searches, "{spec}");
        }
    }

    #[test]
    fn own_options_override_by_name() {
        let pod = pod(json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}));

        assert_eq!(of(&pod, &cluster()).options, ["ndots:2", "edns0"]);
    }

    #[test]
    fn a_subdomain_gives_the_pod_a_full_name() {
        let pod = pod(json!({"hostname": "db-0", "subdomain": "db", "setHostnameAsFQDN": true,
            "hostAliases": [{"ip": "10.1.1.1", "hostnames": ["one", "two"]}]}));

        let hosts = hosts_file(&pod, &["10.244.0.5".to_owned()], "cluster.local", "");

        assert_eq!(kernel_hostname(&pod, "cluster.local"), "db-0.db.web.svc.cluster.local");
        assert!(hosts.contains("10.244.0.5\tdb-0.db.web.svc.cluster.local\tdb-0\n"));
        assert!(hosts.ends_with("# Entries added by HostAliases.\n10.1.1.1\tone\ttwo\n"));
    }

    #[test]
    fn a_long_name_is_cut_to_a_label() {
        let mut pod = pod(json!({}));
        pod.metadata.name = Some(format!("{}-x", "a".repeat(62)));

        assert_eq!(hostname(&pod, "cluster.local").0, "a".repeat(62));
    }
}
