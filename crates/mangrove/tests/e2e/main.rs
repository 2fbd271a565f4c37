//! The whole platform from outside: its own commands, the unmodified kubectl, raw TLS. Every test has a machine of its
//! own (namespaces), starts `mangrove up` on it, and ends with nothing left there.
#![allow(clippy::disallowed_methods, reason = "these tests live in the real world")]

mod attacks;
mod bodies;
mod clients;
mod commands;
mod controllers;
mod crash;
mod disk;
mod door;
mod drain;
mod in_cluster;
mod node_loss;
mod on_etcd;
mod other_machines;
mod refusals;
mod restart;
mod second_node;
mod shown;
mod soak;
mod stateful;
mod tenants;
mod terminal;
mod two_tenants;
mod walls;
mod workloads;

use testkit::{kubectl::Kubectl, platform::Platform};

const BINARY: &str = env!("CARGO_BIN_EXE_mangrove");

/// What the README's demo applies, unmodified.
const WEB: &str = include_str!("../../../../examples/web.yaml");

/// A platform with the image of [`WEB`]; `None` where it can't run.
fn platform_with_image() -> Option<Platform> {
    let platform = Platform::start(BINARY)?;
    platform.import_web_image();
    Some(platform)
}

/// Applies [`WEB`] and waits until all of it runs.
#[track_caller]
fn apply_web(tenant: &Kubectl) {
    tenant.apply(WEB);
    rolled_out(tenant, "web");
}

/// Waits until a Deployment is as it should be.
#[track_caller]
fn rolled_out(tenant: &Kubectl, deployment: &str) {
    tenant.run(&[
        "rollout",
        "status",
        &format!("deployment/{deployment}"),
        "--timeout=100s",
    ]);
    let selector = format!("app={deployment}");
    tenant.run(&["wait", "--for=condition=Ready", "pod", "-l", &selector, "--timeout=60s"]);
}
