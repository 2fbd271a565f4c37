//! Messages of etcd's API, from the .proto files that come with the client crate: both sides speak from one text.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.toml");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let protos = protos();
    let files = [
        "etcd/api/authpb/auth.proto",
        "etcd/api/etcdserverpb/rpc.proto",
        "etcd/api/mvccpb/kv.proto",
        "etcd/server/etcdserver/api/v3election/v3electionpb/v3election.proto",
        "etcd/server/etcdserver/api/v3lock/v3lockpb/v3lock.proto",
    ];
    prost_build::Config::new()
        // Slices of what was received, without a copy.
        .bytes(["."])
        // The JSON gateway translates by it.
        .file_descriptor_set_path(out.join("etcd.descriptors"))
        .compile_protos(&files.map(|file| protos.join(file)), &[protos])
        .expect("etcd's .proto files compile (is protoc there?)");
}

/// The folder of .proto files in the source of the `etcd-client` that this build uses.
fn protos() -> PathBuf {
    let cargo = std::env::var_os("CARGO").expect("cargo sets CARGO");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    let client = packages.iter().find(|package| package["name"] == "etcd-client");
    let manifest = client.and_then(|package| package["manifest_path"].as_str());
    let manifest = Path::new(manifest.expect("etcd-client is a dependency"));
    manifest.parent().expect("a manifest lies in a folder").join("proto")
}
