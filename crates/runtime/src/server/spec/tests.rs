use k8s_cri::v1;

use super::*;
use crate::image::ImageConfig;

fn image(json: &str) -> ImageConfig {
    serde_json::from_str(&format!(r#"{{"config":{json},"rootfs":{{"diff_ids":[]}}}}"#)).unwrap()
}

fn around() -> Surroundings {
    Surroundings {
        supervisor_pid: 42,
        own_network: true,
        own_ipc: true,
        pid: PidNamespace::Own,
        cgroup: "/mangrove/s1/c1".into(),
        cgroup_unified: false,
        hostname: "web-0".into(),
        sandbox_mounts: vec![("/s/hosts".into(), "/etc/hosts".into())],
        available: u64::MAX,
    }
}

fn config() -> v1::ContainerConfig {
    v1::ContainerConfig {
        command: vec!["sh".into()],
        ..v1::ContainerConfig::default()
    }
}

fn with_security(security: v1::LinuxContainerSecurityContext) -> v1::ContainerConfig {
    v1::ContainerConfig {
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(security),
            resources: None,
        }),
        ..config()
    }
}

#[test]
fn commands_and_arguments_replace_those_of_the_image_as_kubernetes_says() {
    let image = image(r#"{"Entrypoint":["entry"],"Cmd":["cmd"]}"#);
    for (command, args, result) in [
        (vec![], vec![], vec!["entry", "cmd"]),
        (vec![], vec!["a"], vec!["entry", "a"]),
        (vec!["c"], vec![], vec!["c"]),
        (vec!["c"], vec!["a"], vec!["c", "a"]),
    ] {
        let strings = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let config = v1::ContainerConfig {
            command: strings(command),
            args: strings(args),
            ..v1::ContainerConfig::default()
        };
        assert_eq!(arguments(&config, &image).unwrap(), strings(result));
    }
    assert!(arguments(&v1::ContainerConfig::default(), &ImageConfig::default()).is_err());
}

#[test]
fn the_environment_has_each_name_once_and_the_request_last() {
    let image = image(r#"{"Env":["PATH=/bin","A=image"]}"#);
    let config = v1::ContainerConfig {
        envs: vec![v1::KeyValue {
            key: "A".into(),
            value: "request".into(),
        }],
        ..config()
    };
    assert_eq!(
        environment(&config, &image, "web-0"),
        ["HOSTNAME=web-0", "PATH=/bin", "A=request"]
    );
}

#[test]
fn the_document_is_one_that_the_runtime_library_reads() {
    let security = v1::LinuxContainerSecurityContext {
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys".into()],
        no_new_privs: true,
        ..Default::default()
    };
    let spec = build(&with_security(security), &ImageConfig::default(), &around()).unwrap();

    let read: libcontainer::oci_spec::runtime::Spec = serde_json::from_value(spec).unwrap();

    let linux = read.linux().as_ref().unwrap();
    assert_eq!(linux.cgroups_path().as_ref().unwrap().to_str(), Some("/mangrove/s1/c1"));
    assert_eq!(linux.masked_paths().as_ref().unwrap().len(), 1);
    assert_eq!(linux.namespaces().as_ref().unwrap().len(), 5);
    assert_eq!(read.process().as_ref().unwrap().no_new_privileges(), Some(true));
}

#[test]
fn capabilities_are_added_dropped_and_never_more_than_there_are() {
    let wanted = |add: &[&str], drop: &[&str], available: u64| {
        let security = v1::LinuxContainerSecurityContext {
            capabilities: Some(v1::Capability {
                add_capabilities: add.iter().map(|s| (*s).to_owned()).collect(),
                drop_capabilities: drop.iter().map(|s| (*s).to_owned()).collect(),
                add_ambient_capabilities: Vec::new(),
            }),
            ..Default::default()
        };
        capabilities::capabilities(&security, available, false).map(|sets| {
            let names = sets["bounding"].as_array().unwrap().clone();
            names.iter().map(|n| n.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        })
    };
    assert_eq!(wanted(&[], &[], u64::MAX).unwrap().len(), 14);
    assert_eq!(wanted(&["NET_ADMIN"], &["ALL"], u64::MAX).unwrap(), ["CAP_NET_ADMIN"]);
    assert_eq!(wanted(&["ALL"], &["cap_sys_admin"], u64::MAX).unwrap().len(), 40);
    assert_eq!(wanted(&["ALL"], &[], 0b11).unwrap(), ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    assert!(wanted(&["NO_SUCH"], &[], u64::MAX).is_err());
}

#[test]
fn a_mount_replaces_ours_at_the_same_place_and_parents_come_first() {
    let mount = |at: &str| v1::Mount {
        container_path: at.into(),
        host_path: "/tmp".into(),
        ..Default::default()
    };
    let config = v1::ContainerConfig {
        mounts: vec![mount("/data/inner"), mount("/data"), mount("/etc/hosts")],
        ..config()
    };
    let mounts = mounts::mounts(&config, &security(&config), &around()).unwrap();
    let at: Vec<&str> = mounts.iter().map(|m| m["destination"].as_str().unwrap()).collect();
    assert_eq!(at.iter().filter(|at| **at == "/etc/hosts").count(), 1);
    let place = |name| at.iter().position(|at| *at == name).unwrap();
    assert!(place("/data") < place("/data/inner"));

    for bad in ["", "/a/../../b"] {
        let config = v1::ContainerConfig {
            mounts: vec![mount(bad)],
            ..self::config()
        };
        assert!(mounts::mounts(&config, &security(&config), &around()).is_err());
    }
}

#[test]
fn stop_signals_are_read_by_name_and_number() {
    for (text, signal) in [
        ("SIGQUIT", libc::SIGQUIT),
        ("QUIT", libc::SIGQUIT),
        ("9", 9),
        ("nonsense", libc::SIGTERM),
        ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
    ] {
        assert_eq!(stop_signal(&image(&format!(r#"{{"StopSignal":"{text}"}}"#))), signal);
    }
    assert_eq!(stop_signal(&ImageConfig::default()), libc::SIGTERM);
}
