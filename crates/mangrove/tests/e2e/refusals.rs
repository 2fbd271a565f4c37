//! What can be done wrong at the command line: one line that says what failed, why and what to do.

use std::{net::TcpListener, os::unix::process::CommandExt, path::Path, process::Command};

use nix::{
    mount::{MsFlags, mount, umount},
    sys::signal::Signal,
};
use testkit::{image::ImageBuilder, platform::Platform, said::Said};

use crate::BINARY;

/// The complaint: one line, all of these words in it.
#[track_caller]
fn refused(said: Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, Some(code), "{said}");
    assert_eq!(said.out, "", "{said}");
    let line = said.err.trim_end();
    assert!(line.starts_with("error: ") && !line.contains('\n'), "one line: {said}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {said}");
    }
}

fn mangrove(arguments: &[&str]) -> Said {
    Said::of(Command::new(BINARY).args(arguments))
}

#[test]
fn wrong_flags_are_named_and_the_help_is_pointed_at() {
    refused(mangrove(&["up", "--nope"]), 2, &["--nope", "mangrove up --help"]);
    refused(mangrove(&["up", "--listen", "here"]), 2, &["here", "--listen"]);
    refused(mangrove(&["upp"]), 2, &["upp", "mangrove --help"]);
    refused(
        mangrove(&["tenant", "create"]),
        2,
        &["NAME", "mangrove tenant create --help"],
    );
    refused(mangrove(&["tenant", "list", "-o", "xml"]), 2, &["xml", "json"]);
    refused(mangrove(&["up", "--etcd-certfile", "x"]), 2, &["--etcd-servers"]);
    let help = mangrove(&["--help"]);
    assert!(help.clone().out().contains("tenant"), "{help}");
    assert!(mangrove(&["--version"]).out().starts_with("mangrove "));
}

#[test]
fn without_root_it_says_what_root_is_needed_for() {
    if !nix::unistd::geteuid().is_root() {
        refused(mangrove(&["up"]), 1, &["root", "sudo"]);
        return;
    }
    // The test's own program may be in a folder that only root can enter.
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("mangrove");
    std::fs::copy(BINARY, &binary).unwrap();
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everyone).unwrap();
    const NOBODY: u32 = 65534;
    for arguments in [&["up", "--data-dir", "/nowhere"][..], &["down"]] {
        let mut command = Command::new(&binary);
        command.args(arguments).uid(NOBODY).gid(NOBODY);
        refused(Said::of(&mut command), 1, &["root", "sudo"]);
    }
}

#[test]
fn a_platform_that_is_not_there_or_is_in_the_way_is_named() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    refused(
        platform.said(&["tenant", "list"]),
        1,
        &["no platform runs", "mangrove up"],
    );
    refused(
        platform.said(&["image", "list"]),
        1,
        &["no platform runs", "mangrove up"],
    );
    let nothing = platform.run(&["down", "--data-dir", platform.data_dir().to_str().unwrap()]);
    assert!(nothing.contains("nothing runs"), "{nothing}");

    let busy = TcpListener::bind("127.0.0.1:6443").unwrap();
    refused(platform.try_up(), 1, &["127.0.0.1:6443", "in use", "--listen"]);
    drop(busy);
    let said = Said::of(
        platform
            .command(&["up", "--detach", "--data-dir", "/proc/mangrove"])
            .env("NO_COLOR", "1"),
    );
    refused(said, 1, &["/proc/mangrove"]);

    platform.up();
    refused(
        platform.try_up(),
        1,
        &[
            "runs on this machine already",
            &platform.pid().to_string(),
            "mangrove down",
        ],
    );
    refused(platform.said(&["down", "--data-dir", "/elsewhere"]), 1, &["/elsewhere"]);
    refused(
        platform.said(&["tenant", "get", "nobody"]),
        1,
        &["nobody", "mangrove tenant list"],
    );
    refused(platform.said(&["tenant", "kubeconfig", "nobody"]), 1, &["nobody"]);
    refused(
        platform.said(&["tenant", "delete", "nobody"]),
        1,
        &["nobody", "mangrove tenant list"],
    );
    refused(platform.said(&["tenant", "create", "Not_A_Name"]), 1, &["Not_A_Name"]);
    platform.run(&["tenant", "create", "acme"]);
    refused(
        platform.said(&["tenant", "create", "acme"]),
        1,
        &["acme", "already", "mangrove tenant kubeconfig acme"],
    );
    refused(
        platform.said(&["image", "import", "/nowhere.tar"]),
        1,
        &["/nowhere.tar"],
    );
    let not_an_archive = platform.folder().join("words.tar");
    std::fs::write(&not_an_archive, "just words").unwrap();
    let not_an_archive = not_an_archive.to_str().unwrap();
    refused(
        platform.said(&["image", "import", not_an_archive]),
        1,
        &[not_an_archive],
    );
    platform.import(&ImageBuilder::busybox("mangrove.test/fine:1").unwrap().build().unwrap());

    // Somebody took the record of the one that runs: its folder is still its own.
    let record = std::fs::read("/run/mangrove/platform.json").unwrap();
    std::fs::remove_file("/run/mangrove/platform.json").unwrap();
    let mut second = platform.command(&["up", "--detach", "--listen", "127.0.0.1:0"]);
    second.arg("--data-dir").arg(platform.data_dir());
    refused(
        Said::of(&mut second),
        1,
        &[platform.data_dir().to_str().unwrap(), "in use"],
    );
    std::fs::write("/run/mangrove/platform.json", record).unwrap();
    assert_eq!(platform.known_tenant("super").names(&["virtualclusters"]), ["acme"]);
    platform.finish();
}

#[test]
fn a_data_directory_of_a_newer_program_is_left_alone() {
    let Some(platform) = Platform::start(BINARY) else {
        return;
    };
    platform.end_server(Signal::SIGTERM);
    let store = platform.data_dir().join("store");
    let log = std::fs::read_dir(&store)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"MGRVLOG\0")))
        .expect("a store has a log");
    let written = std::fs::read(&log).unwrap();
    let mut newer = written.clone();
    newer[8] = 200;
    std::fs::write(&log, &newer).unwrap();

    refused(platform.try_up(), 1, &["format version 200", "newer"]);

    assert_eq!(std::fs::read(&log).unwrap(), newer, "nothing was changed");
    std::fs::write(&log, &written).unwrap();
    platform.up();
    platform.finish();
}

#[test]
fn an_etcd_that_is_not_there_is_named() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    let platform = platform.with_options(&["--etcd-servers", "http://127.0.0.1:9"]);
    refused(platform.try_up(), 1, &["http://127.0.0.1:9", "etcd"]);
    platform.finish();
}

#[test]
fn a_kernel_without_what_containers_need_is_told() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    let cgroups = Path::new("/sys/fs/cgroup");
    mount(Some("none"), cgroups, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    refused(platform.try_up(), 1, &["cgroup", "mount cgroup2"]);
    umount(cgroups).unwrap();

    let filesystems = Path::new("/proc/filesystems");
    let fewer = platform.folder().join("filesystems");
    std::fs::write(&fewer, "nodev\ttmpfs\n\text4\n").unwrap();
    mount(Some(&fewer), filesystems, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    refused(platform.try_up(), 1, &["overlay", "modprobe overlay"]);
    umount(filesystems).unwrap();
    platform.finish();
}
