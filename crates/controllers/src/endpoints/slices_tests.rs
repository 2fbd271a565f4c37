use super::backend::backends;
use super::*;

pub fn service(change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "s", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.97.0.1", "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}});
    change(&mut tree);
    Object::from_tree(tree)
}

pub fn pod(number: usize, change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({
        "metadata": {"name": format!("web-{number:03}"), "namespace": "n", "uid": format!("u{number}")},
        "spec": {"nodeName": "node", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": format!("10.244.0.{number}"),
            "conditions": [{"type": "Ready", "status": "True"}]}});
    change(&mut tree);
    Object::from_tree(tree)
}

/// What a server would hold after the steps.
fn carried_out(slices: &[Object], steps: &[Step], serial: &mut usize) -> Vec<Object> {
    let mut after = slices.to_vec();
    for step in steps {
        match step {
            Step::Create(body) => {
                *serial += 1;
                let mut tree = body.clone();
                tree["metadata"]["name"] = json!(format!("web-{serial}"));
                tree["metadata"]["uid"] = json!(format!("slice-{serial}"));
                after.push(Object::from_tree(tree));
            }
            Step::Change { slice, patch } => {
                let place = after.iter().position(|other| other.uid() == slice.uid()).unwrap();
                let mut tree = slice.tree().clone();
                tree["endpoints"] = patch["endpoints"].clone();
                tree["ports"] = patch["ports"].clone();
                tree["metadata"]["labels"] = patch["metadata"]["labels"].clone();
                tree["metadata"]["labels"]
                    .as_object_mut()
                    .unwrap()
                    .retain(|_, value| !value.is_null());
                after[place] = Object::from_tree(tree);
            }
            Step::Delete(slice) => after.retain(|other| other.uid() != slice.uid()),
        }
    }
    after
}

fn settle(service: &Object, pods: &[Object], slices: &[Object], serial: &mut usize) -> Vec<Object> {
    let backends = backends(service, pods.to_vec());
    let after = carried_out(slices, &plan(service, &backends, slices), serial);
    assert_eq!(plan(service, &backends, &after), [], "a second pass changes nothing");
    after
}

fn sizes(slices: &[Object]) -> Vec<usize> {
    slices
        .iter()
        .map(|slice| slice.tree()["endpoints"].as_array().unwrap().len())
        .collect()
}

#[test]
fn a_slice_says_where_the_pods_are_and_whose_it_is() {
    let slices = settle(&service(|_| {}), &[pod(1, |_| {})], &[], &mut 0);

    insta::assert_json_snapshot!(slices[0].tree(), @r#"
    {
      "addressType": "IPv4",
      "apiVersion": "discovery.k8s.io/v1",
      "endpoints": [
        {
          "addresses": [
            "10.244.0.1"
          ],
          "conditions": {
            "ready": true,
            "serving": true,
            "terminating": false
          },
          "nodeName": "node",
          "targetRef": {
            "kind": "Pod",
            "name": "web-001",
            "namespace": "n",
            "uid": "u1"
          }
        }
      ],
      "kind": "EndpointSlice",
      "metadata": {
        "generateName": "web-",
        "labels": {
          "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
          "kubernetes.io/service-name": "web",
          "team": "a"
        },
        "name": "web-1",
        "namespace": "n",
        "ownerReferences": [
          {
            "apiVersion": "v1",
            "blockOwnerDeletion": true,
            "controller": true,
            "kind": "Service",
            "name": "web",
            "uid": "s"
          }
        ],
        "uid": "slice-1"
      },
      "ports": [
        {
          "name": "http",
          "port": 8080,
          "protocol": "TCP"
        }
      ]
    }
    "#);
}

#[test]
fn a_service_without_pods_has_one_empty_slice_and_it_is_used_when_pods_come() {
    let (service, mut serial) = (service(|_| {}), 0);
    let empty = settle(&service, &[], &[], &mut serial);
    assert_eq!(sizes(&empty), [0]);

    let filled = settle(&service, &[pod(1, |_| {})], &empty, &mut serial);
    assert_eq!(sizes(&filled), [1]);
    let emptied = settle(&service, &[], &filled, &mut serial);
    assert_eq!(sizes(&emptied), [0]);
}

#[test]
fn slices_hold_a_hundred_and_ends_stay_where_they_are() {
    let (service, mut serial) = (service(|_| {}), 0);
    let pods: Vec<Object> = (0..250).map(|number| pod(number, |_| {})).collect();
    let full = settle(&service, &pods, &[], &mut serial);
    assert_eq!(sizes(&full), [100, 100, 50]);

    let fewer: Vec<Object> = pods.iter().skip(1).cloned().collect();
    let steps = plan(&service, &backends(&service, fewer), &full);

    assert_eq!(steps.len(), 1, "one slice changes, the others stay");
}

#[test]
fn states_of_pods_become_conditions() {
    let unready = |pod: &mut Value| pod["status"]["conditions"][0]["status"] = "False".into();
    let leaving = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let pods = [
        pod(1, unready),
        pod(2, leaving),
        pod(3, |pod| pod["status"]["phase"] = "Failed".into()),
        pod(4, |pod| pod["status"]["podIP"] = "".into()),
    ];
    let conditions = |service: &Object| {
        let slices = settle(service, &pods, &[], &mut 0);
        let endpoints = slices[0].tree()["endpoints"].as_array().unwrap().clone();
        endpoints
            .iter()
            .map(|end| ["ready", "serving", "terminating"].map(|field| end["conditions"][field] == true))
            .collect::<Vec<_>>()
    };

    assert_eq!(
        conditions(&service(|_| {})),
        [[false, false, false], [false, true, true]]
    );
    let eager = service(|service| service["spec"]["publishNotReadyAddresses"] = true.into());
    assert_eq!(conditions(&eager), [[true, false, false], [true, true, true]]);
}

#[test]
fn pods_with_other_ports_under_one_name_have_slices_of_their_own() {
    let other = |pod: &mut Value| pod["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090.into();

    let slices = settle(&service(|_| {}), &[pod(1, |_| {}), pod(2, other)], &[], &mut 0);

    let ports: Vec<_> = slices
        .iter()
        .map(|slice| slice.tree()["ports"][0]["port"].as_i64().unwrap())
        .collect();
    assert_eq!(ports, [8080, 9090]);
}

#[test]
fn a_headless_service_without_ports_lists_its_pods_by_hostname() {
    let headless = service(|service| {
        service["spec"]["clusterIP"] = "None".into();
        service["spec"]["ports"] = json!([]);
    });
    let named = pod(1, |pod| {
        pod["spec"]["hostname"] = "one".into();
        pod["spec"]["subdomain"] = "web".into();
    });

    let slices = settle(&headless, &[named], &[], &mut 0);

    assert_eq!(slices[0].tree()["endpoints"][0]["hostname"], "one");
    assert_eq!(slices[0].label(HEADLESS), Some(""));
}

#[test]
fn a_label_that_left_the_service_leaves_its_slices() {
    let (before, after) = (
        service(|_| {}),
        service(|service| service["metadata"]["labels"] = json!({})),
    );
    let mut serial = 0;
    let slices = settle(&before, &[pod(1, |_| {})], &[], &mut serial);

    let slices = settle(&after, &[pod(1, |_| {})], &slices, &mut serial);

    assert_eq!(slices[0].label("team"), None);
}
