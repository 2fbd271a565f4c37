//! Services: what each type may say, and what stays.

use serde_json::{Value, json};

use super::{created, updated};
use crate::resource::SERVICES;

fn service(spec: Value) -> Value {
    let mut whole = json!({"ports": [{"port": 80}]});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"metadata": {"name": "web", "namespace": "n"}, "spec": whole})
}

#[test]
fn a_service_is_refused_in_upstreams_words() {
    for (spec, expected) in [
        (
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}),
            vec![],
        ),
        (
            json!({"type": "ExternalName"}),
            vec!["spec.externalName: Required value"],
        ),
        (
            json!({"type": "ExternalName", "externalName": "example.com.", "clusterIPs": ["10.0.0.1"], "clusterIP": "10.0.0.1"}),
            vec!["spec.clusterIPs: Forbidden: may not be set for ExternalName services"],
        ),
        (
            json!({"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"]}),
            vec!["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
        (
            json!({"clusterIP": "010.0.0.1", "clusterIPs": ["010.0.0.1"]}),
            vec!["spec.clusterIPs[0]: Invalid value: \"010.0.0.1\": must not have leading 0s"],
        ),
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
            vec![
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each \
                 IP family",
            ],
        ),
        (
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "a", "protocol": "UDP"}]}),
            vec!["spec.ports[1].name: Duplicate value: \"a\""],
        ),
        (
            json!({"ports": [{"port": 0, "targetPort": "no_such"}]}),
            vec![
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: \"no_such\": must contain only alpha-numeric characters (a-z, \
                 0-9), and hyphens (-)",
            ],
        ),
        (
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1/8"]}),
            vec![
                "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the \
                 prefix length",
            ],
        ),
        (
            json!({"loadBalancerClass": "example.com/x"}),
            vec!["spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"],
        ),
        (
            json!({"externalTrafficPolicy": "Local"}),
            vec![
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible \
                 services",
            ],
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 100_000}}}),
            vec![
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 100000: must be greater than 0 and \
                 less than 86400",
            ],
        ),
    ] {
        assert_eq!(created(&SERVICES, service(spec.clone())), expected, "{spec}");
    }
}

#[test]
fn what_a_balancer_was_given_stays() {
    let with = |class: &str, port: u16| {
        service(json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "loadBalancerClass": class, "healthCheckNodePort": port,
        }))
    };

    assert_eq!(
        updated(&SERVICES, with("b", 30001), with("a", 30000)),
        [
            "spec.loadBalancerClass: Invalid value: \"b\": may not change once set",
            "spec.healthCheckNodePort: Forbidden: field is immutable"
        ]
    );
}
