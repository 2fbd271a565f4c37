//! What classes say of those who name them, or who name none.

use serde_json::json;

use crate::harness::{House, POD};

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const PRIORITIES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
const RUNTIMES: &str = "/apis/node.k8s.io/v1/runtimeclasses";
const STORAGE: &str = "/apis/storage.k8s.io/v1/storageclasses";
const INGRESS_CLASSES: &str = "/apis/networking.k8s.io/v1/ingressclasses";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";

#[tokio::test]
async fn a_pod_has_the_priority_of_its_class() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
    api.made(PRIORITIES, &class("usual", 10, true)).await;
    api.made(PRIORITIES, &class("high", 1000, false)).await;
    let pod = |name: &str, class: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "containers": [{"name": "a", "image": "b"}], "priorityClassName": class,
        }})
    };

    let usual = api.made(POD, &pod("usual", "")).await;
    let high = api.made(POD, &pod("high", "high")).await;
    let system = api.made(POD, &pod("system", "system-node-critical")).await;
    let (unknown, said) = api.post(POD, &pod("unknown", "none")).await;
    let (second, why) = api.post(PRIORITIES, &class("second", 1, true)).await;

    assert_eq!(
        [&usual, &high, &system].map(|pod| pod["spec"]["priority"].as_i64().unwrap()),
        [10, 1000, 2_000_001_000]
    );
    assert_eq!(usual["spec"]["priorityClassName"], "usual");
    assert_eq!((unknown.as_u16(), second.as_u16()), (403, 403));
    assert_eq!(
        said["message"],
        "pods \"unknown\" is forbidden: no PriorityClass with name none was found"
    );
    assert_eq!(
        why["message"],
        "priorityclasses.scheduling.k8s.io \"second\" is forbidden: PriorityClass usual is already marked as default. \
         Only one default can exist"
    );
}

#[tokio::test]
async fn a_pod_pays_for_how_it_is_run() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let class = json!({
        "metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}},
    });
    api.made(RUNTIMES, &class).await;
    let mut pod = json!({"metadata": {"name": "one"}, "spec": {
        "containers": [{"name": "a", "image": "b"}], "runtimeClassName": "vm",
    }});

    let made = api.made(POD, &pod).await;
    pod["metadata"]["name"] = "two".into();
    pod["spec"]["runtimeClassName"] = "none".into();
    let (unknown, said) = api.post(POD, &pod).await;

    assert_eq!(made["spec"]["overhead"], json!({"memory": "64Mi"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"vm": "yes"}));
    assert_eq!(unknown, 403);
    assert_eq!(
        said["message"],
        "pods \"two\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
    );
}

#[tokio::test]
async fn a_claim_grows_if_its_class_lets_it() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let class = |name: &str, grows: bool| {
        json!({
            "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": (!grows).to_string()}},
            "provisioner": "example.com/disk", "allowVolumeExpansion": grows,
        })
    };
    api.made(STORAGE, &class("fixed", false)).await;
    api.made(STORAGE, &class("grows", true)).await;
    let claim = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }})
    };
    let fixed = api.made(CLAIMS, &claim("fixed")).await;
    let mut wanted = claim("grows");
    wanted["spec"]["storageClassName"] = "grows".into();
    api.made(CLAIMS, &wanted).await;
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});

    let (unbound, _) = api.merge(&format!("{CLAIMS}/grows"), &more).await;
    let mut codes = Vec::new();
    for name in ["fixed", "grows"] {
        let bound = json!({"status": {"phase": "Bound"}});
        api.merge(&format!("{CLAIMS}/{name}/status"), &bound).await;
        codes.push(api.merge(&format!("{CLAIMS}/{name}"), &more).await.0.as_u16());
    }

    assert_eq!(fixed["spec"]["storageClassName"], "fixed");
    assert_eq!(unbound, 403);
    assert_eq!(codes, [403, 200]);
}

#[tokio::test]
async fn an_ingress_gets_the_default_class() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let class = json!({
        "metadata": {"name": "edge", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/edge"},
    });
    api.made(INGRESS_CLASSES, &class).await;
    let ingress = json!({"metadata": {"name": "web"}, "spec": {
        "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
    }});

    let made = api.made(INGRESSES, &ingress).await;

    assert_eq!(made["spec"]["ingressClassName"], "edge");
}
