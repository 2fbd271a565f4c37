//! A disk that is full: writes are refused, reads are served, nothing acknowledged is lost.

use bytes::Bytes;
use http::{Method, StatusCode};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use serde_json::{Value, json};
use testkit::platform::Platform;

use crate::{
    BINARY,
    door::{Access, block_on, request},
};

/// Room for some dozens of the objects below.
const DISK: &str = "size=24m";
const LARGER_DISK: &str = "size=256m";
const OBJECT_BYTES: usize = 256 << 10;
/// More than fit.
const OBJECTS_MAX: usize = 500;

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_loses_nothing() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    let store = platform.data_dir().join("store");
    std::fs::create_dir_all(&store).unwrap();
    mount(Some("store"), &store, Some("tmpfs"), MsFlags::empty(), Some(DISK)).unwrap();
    platform.up();
    let acme = platform.tenant("acme");
    let access = Access::of(&acme);
    let path = format!("{}/api/v1/namespaces/default/configmaps", access.prefix);
    let config_map = |name: &str| {
        let text = "x".repeat(OBJECT_BYTES);
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}});
        request(Method::POST, &path, "application/json", Bytes::from(body.to_string()))
    };

    let acknowledged = block_on(async {
        let mut door = access.open().await.unwrap();
        let mut acknowledged = vec!["kube-root-ca.crt".to_owned()];
        let refusal = loop {
            assert!(acknowledged.len() < OBJECTS_MAX, "the disk is never full");
            let name = format!("note-{:03}", acknowledged.len());
            match door.send(config_map(&name)).await {
                (StatusCode::CREATED, _) => acknowledged.push(name),
                refused => break refused,
            }
        };
        assert!(acknowledged.len() > 10, "{acknowledged:?}");
        assert!(refusal.0.is_server_error(), "{refusal:?}");
        assert_eq!(
            (&refusal.1["kind"], &refusal.1["status"]),
            (&json!("Status"), &json!("Failure")),
            "{refusal:?}"
        );

        // Refused again, and read as before.
        let (status, refusal) = door.send(config_map("one-more")).await;
        assert!(status.is_server_error(), "{refusal}");
        let (status, list) = door.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{list}");
        assert_eq!(names(&list), acknowledged);
        acknowledged
    });

    // More room, and a new start.
    platform.end_server(Signal::SIGTERM);
    let larger = MsFlags::MS_REMOUNT;
    mount(None::<&str>, &store, None::<&str>, larger, Some(LARGER_DISK)).unwrap();
    platform.up();
    block_on(async {
        let mut door = access.open().await.unwrap();
        let (status, list) = door.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{list}");
        assert_eq!(names(&list), acknowledged);
        let (status, made) = door.send(config_map("one-more")).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
    });
    platform.down();
    umount2(&store, MntFlags::empty()).expect("`down` has left a mount that is not the platform's alone");
    platform.finish();
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("a list");
    items
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned))
        .collect()
}
