//! A file that was saved is a store again.

use std::path::Path;

use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use tokio::process::Command;

use crate::process::Process;

async fn mangrove(arguments: &[&str]) -> Result<String, String> {
    let told = Command::new(env!("CARGO_BIN_EXE_mangrove"))
        .args(["store", "snapshot"])
        .args(arguments)
        .output()
        .await
        .expect("it runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if told.status.success() {
        Ok(text(&told.stdout))
    } else {
        Err(text(&told.stderr))
    }
}

async fn as_user(store: &Process, name: &str) -> Result<Client, etcd_client::Error> {
    let user = ConnectOptions::new().with_user(name, "secret");
    Client::connect([store.endpoint()], Some(user)).await
}

/// Who could read nothing before can read nothing in what is restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyspace_that_was_guarded_is_guarded_when_it_is_restored() {
    let Some(store) = Process::start().await else { return };
    let mut anybody = Client::connect([store.endpoint()], None).await.unwrap();
    anybody.put("open/a", "1", None).await.unwrap();
    anybody.put("secret", "canary", None).await.unwrap();
    for name in ["root", "reader"] {
        anybody.user_add(name, "secret", None).await.unwrap();
    }
    anybody.user_grant_role("root", "root").await.unwrap();
    anybody.role_add("reads").await.unwrap();
    let reads = Permission::new(PermissionType::Read, "open/").with_prefix();
    anybody.role_grant_permission("reads", reads).await.unwrap();
    anybody.user_grant_role("reader", "reads").await.unwrap();
    anybody.auth_enable().await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().expect("plain text").to_owned();
    let (file, endpoint) = (path("saved.db"), store.endpoint());
    let save = ["save", &file, "--endpoints", &endpoint];
    let refused = mangrove(&save).await.unwrap_err();
    assert!(refused.contains("user name is empty"), "{refused}");
    assert!(!Path::new(&file).exists());
    mangrove(&[&save[..], &["--user", "reader:secret"]].concat())
        .await
        .unwrap_err();
    mangrove(&[&save[..], &["--user", "root:secret"]].concat())
        .await
        .unwrap();
    mangrove(&["restore", &file, "--data-dir", &path("data")])
        .await
        .unwrap();

    let data = tempfile::tempdir().unwrap();
    std::fs::remove_dir(data.path()).unwrap();
    std::fs::rename(path("data"), data.path()).unwrap();
    let restored = Process::start_on(data, Vec::new()).await.expect("it was there before");
    let mut anybody = Client::connect([restored.endpoint()], None).await.unwrap();
    let refused = anybody.get("open/a", None).await.unwrap_err().to_string();
    assert!(refused.contains("user name is empty"), "{refused}");
    let mut reader = as_user(&restored, "reader").await.unwrap();
    assert_eq!(reader.get("open/a", None).await.unwrap().kvs()[0].value(), b"1");
    assert!(reader.get("secret", None).await.is_err());
    assert!(reader.put("open/a", "2", None).await.is_err());
    let mut root = as_user(&restored, "root").await.unwrap();
    assert_eq!(root.get("secret", None).await.unwrap().kvs()[0].value(), b"canary");
    assert!(as_user(&restored, "nobody").await.is_err());
}
