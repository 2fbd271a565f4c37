//! etcdctl against ours and against a real etcd: the same commands, the same output, apart from who answers.

mod served;
mod server;

use std::process::Command;

use serde_json::Value;
use std::time::Duration;

use etcd::server::backup::{self, Checksum};
use served::Served;
use server::{Etcd, Generation};

const ETCDCTL: &str = "/usr/bin/etcdctl";

/// Each after those before it. `-w json` is added; what is read from standard input comes after `<<`.
const COMMANDS: &[&str] = &[
    "put a 1",
    "put a 2 --prev-kv",
    "put b/1 x",
    "put b/2 y",
    "put b/3 z",
    "put missing v --ignore-value",
    "put b/1 --ignore-value",
    "put b/1 w --ignore-lease",
    "get a",
    "get a --rev 2",
    "get a --rev 99",
    "get nothing",
    "get b/ --prefix",
    "get b/ --prefix --keys-only",
    "get b/ --prefix --count-only",
    "get b/ --prefix --limit 2",
    "get b/ --prefix --limit 2 --order DESCEND",
    "get b/ --prefix --sort-by VALUE --order DESCEND",
    "get b/ --prefix --sort-by CREATE --order DESCEND",
    "get b/ --prefix --sort-by MODIFY",
    "get b/ --prefix --sort-by VERSION --order ASCEND --limit 3",
    "get b/2 --from-key",
    "get b/1 b/3",
    "get b/ --prefix --consistency s",
    "lease grant 1000",
    "lease list",
    "lease timetolive 1234",
    "lease revoke 1234",
    "lease keep-alive 1234 --once",
    "txn -i << mod(\"a\") > \"0\"\n\nput a 3\nget a\n\nput b 1\n\n",
    "txn -i << value(\"a\") = \"x\"\nversion(\"a\") = \"1\"\n\nput a 9\n\nget a\ndel b/3 --prev-kv\n\n",
    "txn -i << create(\"new\") = \"0\"\n\nput new 1\n\n\n",
    "del a --prev-kv",
    "del a",
    "del b/ --prefix --prev-kv",
    "del new --from-key",
    "put again 1",
    "compact 3",
    "compact 3",
    "compact 999",
    "compact 5 --physical",
    "get a --rev 3",
    "alarm disarm",
    "auth enable",
    "user add root --new-user-password secret --interactive=false",
    "user add root --new-user-password secret --interactive=false",
    "user add alice --new-user-password pass --interactive=false",
    "user list",
    "user get alice",
    "user get nobody",
    "role add reader",
    "role add reader",
    "role grant-permission reader read b/ --prefix=true",
    "role grant-permission reader readwrite own",
    "role get reader",
    "role list",
    "user grant-role alice reader",
    "user grant-role alice nothing",
    "user grant-role root root",
    "auth enable",
    "get b/ --prefix",
    "--user root:wrong get b/ --prefix",
    "--user alice:pass get b/ --prefix",
    "--user alice:pass get c",
    "--user alice:pass put own 1",
    "--user alice:pass put b/1 1",
    "--user alice:pass del own",
    "--user alice:pass user list",
    "--user root:secret user get alice",
    "--user root:secret role revoke-permission reader own",
    "--user alice:pass put own 2",
    "--user root:secret user revoke-role alice reader",
    "--user alice:pass get b/ --prefix",
    "--user root:secret user delete alice",
    "--user root:secret role delete reader",
    "--user root:secret auth disable",
    "user list",
    "role list",
    "endpoint hashkv",
];

struct Told {
    good: bool,
    out: String,
    error: String,
}

fn run(url: &str, command: &str) -> Told {
    let (command, input) = command.split_once(" << ").unwrap_or((command, ""));
    let mut child = Command::new("timeout");
    child.args(["10", ETCDCTL, "--endpoints", url, "-w", "json"]);
    child.args(command.split(' ')).env("ETCDCTL_API", "3");
    child.stdin(std::process::Stdio::piped());
    child
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = child.spawn().expect("etcdctl starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, input.as_bytes()).expect("it is heard");
    drop(stdin);
    let output = child.wait_with_output().expect("etcdctl ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(url, "ENDPOINT");
    // Its own log has times and names of its own.
    let error = text(&output.stderr);
    let error: Vec<&str> = error.lines().filter(|line| !line.starts_with('{')).collect();
    Told {
        good: output.status.success(),
        out: text(&output.stdout).lines().map(masked).collect::<Vec<_>>().join("\n"),
        error: error.join("\n"),
    }
}

/// Who answers is not what is answered.
fn masked(line: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<Value>(line) else {
        return line.to_owned();
    };
    mask(&mut json);
    json.to_string()
}

fn mask(json: &mut Value) {
    match json {
        Value::Array(values) => values.iter_mut().for_each(mask),
        Value::Object(object) => {
            for name in ["cluster_id", "member_id", "raft_term", "ID", "id", "hash_revision"] {
                object.remove(name);
            }
            object.values_mut().for_each(mask);
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_can_tell_no_difference() {
    if !std::path::Path::new(ETCDCTL).exists() {
        println!("skipped: there is no {ETCDCTL} (Debian's package etcd-client)");
        return;
    }
    let Some(etcd) = Etcd::start_in(served::folder()) else {
        return;
    };
    let served = Served::start().await;
    let (ours, theirs) = (served.endpoint.clone(), etcd.endpoint.clone());
    let compare = move || {
        let mut differences = Vec::new();
        for command in COMMANDS {
            let (one, other) = (run(&ours, command), run(&theirs, command));
            if (one.good, &one.out, &one.error) != (other.good, &other.out, &other.error) {
                differences.push(format!(
                    "{command}\nours   {} {} {}\ntheirs {} {} {}",
                    one.good, one.out, one.error, other.good, other.out, other.error
                ));
            }
        }
        differences
    };
    let differences = tokio::task::spawn_blocking(compare).await.unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A snapshot of ours is taken by etcdctl, and what it makes of it by a real etcd; and a snapshot of that one by us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_ours_is_restored_into_a_real_etcd() {
    if !std::path::Path::new(ETCDCTL).exists() {
        return;
    }
    if server::program().is_some_and(|program| server::generation(&program) == Generation::From36) {
        println!("skipped: an etcd from 3.6 on takes nothing that etcdctl 3.4 restored, not even of its own");
        return;
    }
    let served = Served::start().await;
    let endpoint = served.endpoint.clone();
    let restored = tokio::task::spawn_blocking(move || {
        let dir = served::folder();
        for number in 0..50 {
            assert!(run(&endpoint, &format!("put key{number:02} value{number}")).good);
        }
        assert!(run(&endpoint, "del key07").good);
        assert!(run(&endpoint, "lease grant 3600").good);
        assert!(run(&endpoint, "compact 20 --physical").good);
        let file = dir.path().join("saved.db");
        let target = tempfile::tempdir().expect("a folder");
        let data = target.path().join("data");
        assert!(run(&endpoint, &format!("snapshot save {}", file.display())).good);
        assert!(run(&endpoint, &format!("snapshot status {}", file.display())).good);
        let restore = format!("snapshot restore {} --data-dir {}", file.display(), data.display());
        assert!(run(&endpoint, &restore).good);
        let (all, hash) = (
            run(&endpoint, "get k --prefix").out,
            run(&endpoint, "endpoint hashkv").out,
        );
        (target, data, all, hash)
    });
    let (_target, data, all, hash) = restored.await.unwrap();
    let Some(etcd) = Etcd::start_on(&data) else { return };
    let endpoint = etcd.endpoint.clone();
    let told = tokio::task::spawn_blocking(move || {
        let dir = served::folder();
        let file = dir.path().join("theirs.db");
        assert!(run(&endpoint, &format!("snapshot save {}", file.display())).good);
        let theirs = std::fs::read(file).expect("it was saved");
        let told = (
            run(&endpoint, "get k --prefix").out,
            run(&endpoint, "endpoint hashkv").out,
        );
        (theirs, told)
    });
    let (theirs, told) = told.await.unwrap();
    assert_eq!(told, (all, hash));
    let ours = served.keyspace.view().read().revision();
    let restored = backup::restore(&theirs.into(), Checksum::Required, served::limits(), Duration::ZERO).unwrap();
    assert_eq!((restored.revision(), restored.live_keys()), (ours, 49));
}
