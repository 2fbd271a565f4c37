use super::super::{
    backend::backends,
    slices::tests::{pod, service},
};
use super::*;

fn created(service: &Object, pods: Vec<Object>) -> Value {
    match plan(service, &backends(service, pods), None) {
        Step::Create(body) => body,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ready_and_unready_ends_stand_apart_and_leaving_ones_not_at_all() {
    let unready = |pod: &mut Value| pod["status"]["conditions"][0]["status"] = "False".into();
    let leaving = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();

    let body = created(&service(|_| {}), vec![pod(1, |_| {}), pod(2, unready), pod(3, leaving)]);

    insta::assert_json_snapshot!(body["subsets"], @r#"
    [
      {
        "addresses": [
          {
            "ip": "10.244.0.1",
            "nodeName": "node",
            "targetRef": {
              "kind": "Pod",
              "name": "web-001",
              "namespace": "n",
              "uid": "u1"
            }
          }
        ],
        "notReadyAddresses": [
          {
            "ip": "10.244.0.2",
            "nodeName": "node",
            "targetRef": {
              "kind": "Pod",
              "name": "web-002",
              "namespace": "n",
              "uid": "u2"
            }
          }
        ],
        "ports": [
          {
            "name": "http",
            "port": 8080,
            "protocol": "TCP"
          }
        ]
      }
    ]
    "#);
}

#[test]
fn ports_with_the_same_ends_share_a_subset() {
    let two = service(|service| {
        service["spec"]["ports"] = json!([
            {"name": "http", "port": 80, "targetPort": "http"}, {"name": "admin", "port": 81, "targetPort": 9000}]);
    });
    let other = |pod: &mut Value| pod["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090.into();

    let alike = created(&two, vec![pod(1, |_| {})]);
    let unlike = created(&two, vec![pod(1, |_| {}), pod(2, other)]);

    assert_eq!(alike["subsets"].as_array().unwrap().len(), 1);
    let subsets = unlike["subsets"].as_array().unwrap();
    assert_eq!(subsets.len(), 3);
    let admin = subsets
        .iter()
        .find(|subset| subset["ports"][0]["name"] == "admin")
        .unwrap();
    assert_eq!(admin["addresses"].as_array().unwrap().len(), 2);
}

#[test]
fn what_stands_is_left_and_what_changed_is_patched() {
    let service = service(|_| {});
    let there = Object::from_tree(created(&service, vec![pod(1, |_| {})]));

    assert_eq!(
        plan(&service, &backends(&service, vec![pod(1, |_| {})]), Some(&there)),
        Step::Nothing
    );
    let Step::Change(patch) = plan(&service, &[], Some(&there)) else {
        panic!()
    };
    assert_eq!(patch["subsets"], json!([]));
}

#[test]
fn more_than_a_thousand_ends_are_cut_and_it_is_said() {
    let body = created(&service(|_| {}), (0..1001).map(|number| pod(number, |_| {})).collect());

    assert_eq!(body["subsets"][0]["addresses"].as_array().unwrap().len(), ADDRESSES_MAX);
    assert_eq!(body["metadata"]["annotations"][OVER_CAPACITY], "truncated");
}
