//! What has to be on the machine, by Debian package name.

use std::{path::Path, process::Command};

use crate::command;

/// A program, where to look for it, and the package that brings it.
pub struct Needed {
    program: &'static str,
    package: &'static str,
    what_for: &'static str,
}

pub const BUILD: &[Needed] = &[
    Needed {
        program: "protoc",
        package: "protobuf-compiler",
        what_for: "compiles the CRI and etcd protocols",
    },
    Needed {
        program: "make",
        package: "make",
        what_for: "builds the allocator",
    },
];

pub const DEMO: &[Needed] = &[
    Needed {
        program: "nft",
        package: "nftables",
        what_for: "carries Service traffic",
    },
    Needed {
        program: "busybox",
        package: "busybox-static",
        what_for: "is what the demo's containers run",
    },
    Needed {
        program: "kubectl",
        package: "kubernetes-client",
        what_for: "is the client of every Kubernetes step",
    },
];

pub const TEST: &[Needed] = &[
    Needed {
        program: "etcd",
        package: "etcd-server",
        what_for: "is the real etcd that keyspaces are compared with",
    },
    Needed {
        program: "etcdctl",
        package: "etcd-client",
        what_for: "looks into that etcd",
    },
    Needed {
        program: "curl",
        package: "curl",
        what_for: "is a client inside Pods",
    },
    Needed {
        program: "ip",
        package: "iproute2",
        what_for: "makes network namespaces for tests",
    },
];

/// Installs what is missing of `lists` and says so; without root lists it and stops.
pub fn install(lists: &[&[Needed]]) -> Result<(), String> {
    let missing: Vec<&Needed> = lists
        .iter()
        .flat_map(|list| list.iter())
        .filter(|needed| !needed.is_there())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("Missing on this machine:");
    for needed in &missing {
        println!("  {:<20} {} {}", needed.package, needed.program, needed.what_for);
    }
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    if !is_root()? {
        return Err(format!(
            "not root, so nothing was installed; run: sudo apt-get install {}",
            packages.join(" ")
        ));
    }
    println!("Installing {}", packages.join(" "));
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        command::output(&mut apt)
    };
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&packages);
    apt(&arguments)?;
    match missing.iter().find(|needed| !needed.is_there()) {
        None => Ok(()),
        Some(needed) => Err(format!(
            "package {} was installed, but there is no {}",
            needed.package, needed.program
        )),
    }
}

impl Needed {
    fn is_there(&self) -> bool {
        let path = std::env::var("PATH").unwrap_or_default();
        // Sbin folders are not on every user's path, but that is where Debian puts nft and ip.
        path.split(':')
            .chain(["/usr/sbin", "/sbin"])
            .any(|folder| Path::new(folder).join(self.program).is_file())
    }
}

pub fn is_root() -> Result<bool, String> {
    Ok(command::output(Command::new("id").arg("-u"))?.trim() == "0")
}
