use serde_json::json;

use super::*;
use crate::resource::{CONFIG_MAPS, DEPLOYMENTS, PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES};

fn quota(spec: Value) -> Value {
    let mut quota = json!({"metadata": {"name": "q"}, "spec": spec});
    quota["status"] = Count::new(&quota).status();
    quota
}

fn pod(resources: Value) -> Value {
    json!({"spec": {"containers": [{"name": "a", "resources": resources}]}, "status": {"phase": "Pending"}})
}

/// The status after the object was made, or why it may not be.
fn created(quota: &Value, resource: &Resource, object: &Value) -> Result<Option<Value>, String> {
    charge(quota, resource, None, Some(object), Overdraft::Refused)
}

fn used(quota: &Value, resource: &Resource, object: &Value) -> Value {
    created(quota, resource, object).unwrap().unwrap_or_default()["used"].clone()
}

#[test]
fn objects_count_for_what_they_are() {
    for (resource, object, hard, expected) in [
        (
            &PODS,
            pod(json!({"requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "2"}, "limits": {"cpu": "1"}})),
            json!({"pods": "9", "count/pods": "9", "cpu": "9", "requests.memory": "9Gi", "limits.cpu": "9", "requests.example.com/gpu": "9"}),
            json!({"pods": "1", "count/pods": "1", "cpu": "100m", "requests.memory": "1Gi", "limits.cpu": "1", "requests.example.com/gpu": "2"}),
        ),
        (
            &SERVICES,
            json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}}),
            json!({"services": "9", "services.nodeports": "9", "services.loadbalancers": "9", "secrets": "9"}),
            json!({"services": "1", "services.nodeports": "2", "services.loadbalancers": "1", "secrets": "0"}),
        ),
        (
            &PERSISTENT_VOLUME_CLAIMS,
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}}),
            json!({"requests.storage": "9Gi", "fast.storageclass.storage.k8s.io/requests.storage": "9Gi", "slow.storageclass.storage.k8s.io/persistentvolumeclaims": "9"}),
            json!({"requests.storage": "2Gi", "fast.storageclass.storage.k8s.io/requests.storage": "2Gi", "slow.storageclass.storage.k8s.io/persistentvolumeclaims": "0"}),
        ),
        (
            &CONFIG_MAPS,
            json!({}),
            json!({"configmaps": "9", "count/configmaps": "9"}),
            json!({"configmaps": "1", "count/configmaps": "1"}),
        ),
        (
            &DEPLOYMENTS,
            json!({}),
            json!({"count/deployments.apps": "9", "count/deployments": "9"}),
            json!({"count/deployments.apps": "1", "count/deployments": "0"}),
        ),
    ] {
        let quota = quota(json!({"hard": hard}));
        assert_eq!(used(&quota, resource, &object), expected, "{resource:?}");
    }
}

#[test]
fn what_is_too_much_is_refused_in_upstreams_words() {
    let mut quota = quota(json!({"hard": {"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi"}}));
    quota["status"]["used"] = json!({"pods": "1", "requests.cpu": "600m", "limits.memory": "0"});
    let asks = |cpu: &str| pod(json!({"requests": {"cpu": cpu}, "limits": {"memory": "1Mi"}}));

    assert_eq!(
        created(&quota, &PODS, &asks("500m")).unwrap_err(),
        "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    );
    assert_eq!(
        used(&quota, &PODS, &asks("400m")),
        json!({"pods": "2", "requests.cpu": "1", "limits.memory": "1Mi"})
    );
    assert_eq!(
        created(&quota, &PODS, &pod(json!({}))).unwrap_err(),
        "failed quota: q: must specify limits.memory for: a; requests.cpu for: a"
    );
    quota["status"]["used"]["pods"] = json!("2");
    assert_eq!(
        created(&quota, &PODS, &asks("500m")).unwrap_err(),
        "exceeded quota: q, requested: pods=1,requests.cpu=500m, used: pods=2,requests.cpu=600m, limited: \
         pods=2,requests.cpu=1"
    );
}

#[test]
fn what_goes_or_shrinks_is_given_back_and_never_refused() {
    let mut quota = quota(json!({"hard": {"pods": "1", "count/pods": "1"}}));
    quota["status"]["used"] = json!({"pods": "3", "count/pods": "3"});
    let running = pod(json!({}));
    let mut ended = running.clone();
    ended["status"]["phase"] = json!("Succeeded");

    let after = |old, new| {
        let charged = charge(&quota, &PODS, old, new, Overdraft::Refused).unwrap();
        charged.map(|status| status["used"].clone())
    };

    assert_eq!(
        after(Some(&running), Some(&ended)),
        Some(json!({"pods": "2", "count/pods": "3"}))
    );
    assert_eq!(after(Some(&ended), None), Some(json!({"pods": "3", "count/pods": "2"})));
    assert_eq!(after(Some(&running), Some(&running)), None);
}

#[test]
fn scopes_say_whom_a_quota_is_for() {
    let mut bounded = pod(json!({"requests": {"cpu": "1"}}));
    bounded["spec"]["activeDeadlineSeconds"] = json!(60);
    bounded["spec"]["priorityClassName"] = json!("high");
    bounded["spec"]["affinity"] =
        json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["other"]}]}});
    let plain = pod(json!({}));
    let select = |operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values},
        ]}})
    };
    for (spec, for_bounded, for_plain) in [
        (json!({}), true, true),
        (json!({"scopes": ["Terminating"]}), true, false),
        (json!({"scopes": ["NotTerminating"]}), false, true),
        (json!({"scopes": ["BestEffort"]}), false, true),
        (json!({"scopes": ["NotBestEffort", "Terminating"]}), true, false),
        (json!({"scopes": ["CrossNamespacePodAffinity"]}), true, false),
        (select("In", json!(["high", "higher"])), true, false),
        (select("NotIn", json!(["high"])), false, true),
        (select("Exists", json!(null)), true, false),
        (select("DoesNotExist", json!(null)), false, true),
    ] {
        let mut spec = spec;
        spec["hard"] = json!({"pods": "9"});
        let quota = quota(spec.clone());
        let counts = |pod: &Value| created(&quota, &PODS, pod).unwrap().is_some();
        assert_eq!((counts(&bounded), counts(&plain)), (for_bounded, for_plain), "{spec}");
    }
}

#[test]
fn a_count_over_everything_is_the_sum_of_the_charges() {
    let quota = quota(json!({"hard": {"pods": "9", "requests.cpu": "9", "count/configmaps": "9"}}));
    let (one, two) = (
        pod(json!({"requests": {"cpu": "1"}})),
        pod(json!({"requests": {"cpu": "500m"}})),
    );
    let map = json!({});

    let mut count = Count::new(&quota);
    for (resource, object) in [(&PODS, &one), (&PODS, &two), (&CONFIG_MAPS, &map)] {
        count.add(resource, object);
    }
    let counted = count.status();

    assert_eq!(
        counted["used"],
        json!({"pods": "2", "requests.cpu": "1500m", "count/configmaps": "1"})
    );
    let mut charged = quota.clone();
    for (resource, object) in [(&PODS, &one), (&PODS, &two), (&CONFIG_MAPS, &map)] {
        charged["status"] = created(&charged, resource, object).unwrap().unwrap();
    }
    assert_eq!(charged["status"], counted);
    assert!(is_counted(&charged));
    charged["spec"]["hard"]["secrets"] = json!("1");
    assert!(!is_counted(&charged));
}

#[test]
fn the_kinds_to_count_follow_from_the_names() {
    let names: Vec<String> = [
        "cpu",
        "limits.memory",
        "services.nodeports",
        "secrets",
        "fast.storageclass.storage.k8s.io/requests.storage",
        "count/widgets.example.com",
        "requests.example.com/gpu",
    ]
    .map(str::to_owned)
    .to_vec();

    let found: Vec<String> = resources_of(names.iter())
        .into_iter()
        .map(|(group, plural)| format!("{plural}.{group}"))
        .collect();

    assert_eq!(
        found,
        [
            "persistentvolumeclaims.",
            "pods.",
            "secrets.",
            "services.",
            "widgets.example.com"
        ]
    );
}
