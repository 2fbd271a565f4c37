//! The variables that tell a container where Services are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service};

/// Where the plane's own API is, from inside a Pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KubernetesService {
    pub ip: IpAddr,
    pub port: u16,
}

/// `services` are those of the Pod's namespace. A Pod that has a Service of its own named `kubernetes` in view is
/// told of that only if links are enabled and the plane's is not given.
pub fn of<'a>(
    pod: &Pod,
    kubernetes: Option<KubernetesService>,
    services: impl Iterator<Item = &'a Service>,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    if pod
        .spec
        .as_ref()
        .is_none_or(|spec| spec.enable_service_links != Some(false))
    {
        for service in services {
            let Some(spec) = &service.spec else { continue };
            let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
                continue;
            };
            let name = service.metadata.name.as_deref().unwrap_or_default();
            let ports: Vec<Port> = spec
                .ports
                .iter()
                .flatten()
                .filter_map(|port| {
                    Some(Port {
                        number: u16::try_from(port.port).ok()?,
                        protocol: port.protocol.as_deref().unwrap_or("TCP"),
                        name: port.name.as_deref().unwrap_or_default(),
                    })
                })
                .collect();
            add(&mut variables, name, ip, &ports);
        }
    }
    if let Some(kubernetes) = kubernetes {
        let port = Port {
            number: kubernetes.port,
            protocol: "TCP",
            name: "https",
        };
        add(&mut variables, "kubernetes", &kubernetes.ip.to_string(), &[port]);
    }
    variables
}

struct Port<'a> {
    number: u16,
    protocol: &'a str,
    name: &'a str,
}

fn screaming(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

fn add(variables: &mut BTreeMap<String, String>, service: &str, ip: &str, ports: &[Port]) {
    let Some(first) = ports.first() else { return };
    let prefix = screaming(service);
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    };
    let mut put = |suffix: String, value: String| {
        variables.insert(format!("{prefix}_{suffix}"), value);
    };
    put("SERVICE_HOST".to_owned(), ip.to_owned());
    put("SERVICE_PORT".to_owned(), first.number.to_string());
    let url = |port: &Port| format!("{}://{host}:{}", port.protocol.to_lowercase(), port.number);
    put("PORT".to_owned(), url(first));
    for port in ports {
        if !port.name.is_empty() {
            put(
                format!("SERVICE_PORT_{}", screaming(port.name)),
                port.number.to_string(),
            );
        }
        let link = format!("PORT_{}_{}", port.number, port.protocol.to_uppercase());
        put(link.clone(), url(port));
        put(format!("{link}_PROTO"), port.protocol.to_lowercase());
        put(format!("{link}_PORT"), port.number.to_string());
        put(format!("{link}_ADDR"), ip.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn services() -> Vec<Service> {
        [
            json!({"metadata": {"name": "my-web"}, "spec": {"clusterIP": "10.96.1.1",
                "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}),
            json!({"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}),
        ]
        .map(|tree| serde_json::from_value(tree).unwrap())
        .to_vec()
    }

    #[test]
    fn a_service_shows_in_both_of_the_old_forms() {
        let kubernetes = KubernetesService {
            ip: [10, 96, 0, 1].into(),
            port: 443,
        };

        let variables = of(&Pod::default(), Some(kubernetes), services().iter());

        for (name, value) in [
            ("MY_WEB_SERVICE_HOST", "10.96.1.1"),
            ("MY_WEB_SERVICE_PORT", "80"),
            ("MY_WEB_SERVICE_PORT_HTTP", "80"),
            ("MY_WEB_SERVICE_PORT_DNS", "53"),
            ("MY_WEB_PORT", "tcp://10.96.1.1:80"),
            ("MY_WEB_PORT_53_UDP", "udp://10.96.1.1:53"),
            ("MY_WEB_PORT_53_UDP_ADDR", "10.96.1.1"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!variables.keys().any(|name| name.starts_with("HEADLESS")));
    }

    #[test]
    fn without_links_only_the_planes_own_remains() {
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "enableServiceLinks": false}})).unwrap();

        assert!(of(&pod, None, services().iter()).is_empty());
    }
}
