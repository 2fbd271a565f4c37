//! What a shell in a Pod reaches of the machine and of others. T9, T11, T12, T21.

use std::net::SocketAddrV4;

use super::{arena, listening, shell};

#[test]
fn t11_a_pod_reaches_no_kubelet_no_runtime_and_no_plane_but_its_own() {
    let Some((platform, acme, globex)) = arena() else {
        return;
    };
    let sockets = listening();
    assert!(sockets.len() >= 3, "API, doors, kubelet: {sockets:?}");
    let gateway = shell(&acme, "ip route | awk '/default/ {print $3}'").trim().to_owned();
    assert!(gateway.split('.').count() == 4, "{gateway}");
    let token = "$(cat /var/run/secrets/kubernetes.io/serviceaccount/token)";
    let paths = [
        "pods",
        "runningpods/",
        "metrics",
        "api/v1/secrets",
        "containerLogs/default/victim/main",
        "configz",
        "logs/",
    ];
    let on_the_loop = |socket: &SocketAddrV4| socket.ip().is_loopback();
    let here = sockets.iter().map(|socket| {
        if on_the_loop(socket) {
            gateway.clone()
        } else {
            socket.ip().to_string()
        }
    });
    let hosts: Vec<String> = here
        .zip(&sockets)
        .map(|(host, socket)| format!("{host}:{}", socket.port()))
        .collect();
    // All at once, since a wall gives no answer: what each says, and at its end its code.
    let urls = hosts.iter().flat_map(|host| {
        let of = move |scheme: &'static str| paths.map(|path| format!("{scheme}://{host}/{path}"));
        of("https").into_iter().chain(of("http"))
    });
    let urls: Vec<String> = urls.collect();
    let ask = format!("curl -s -k --max-time 2 -w '\\ncode %{{http_code}}\\n' -H \"Authorization: Bearer {token}\"");
    let said = shell(
        &acme,
        &format!(
            "for url in {}; do (said=$({ask} $url); printf 'asked %s\\n%s\\n' \"$url\" \"$said\") & done; wait",
            urls.join(" ")
        ),
    );
    let answers: Vec<&str> = said.split("asked ").skip(1).collect();
    assert_eq!(answers.len(), urls.len(), "{said}");
    for answer in answers {
        let code = answer.rsplit_once("code ").map_or("", |(_, code)| code.trim());
        // 000: nobody answers, or not in HTTP. 400: HTTP where TLS is wanted.
        assert!(["000", "400", "401", "403", "404"].contains(&code), "{answer}");
    }
    // The victim's Pod by its address: whatever it serves, its secret is not for the asking; and by the super cluster's names.
    let below = platform.root();
    let names = shell(
        &acme,
        "nslookup victim.default.svc.cluster.local; nslookup kubernetes.kube-system.svc.cluster.local",
    );
    assert!(!names.contains("10.244."), "{names}");
    let own = shell(&acme, "nslookup kubernetes.default.svc.cluster.local");
    assert!(own.contains("10.1"), "{own}");
    assert_eq!(globex.field(&["pod", "victim"], ".status.phase"), "Running");
    assert!(!below.run(&["get", "pods", "-A"]).is_empty());
    platform.finish();
}

#[test]
fn t09_a_pod_sees_its_own_files_processes_and_devices_alone() {
    let Some((platform, acme, _)) = arena() else {
        return;
    };
    let data = platform.data_dir().display().to_string();
    // Files: neither the platform's, nor the machine's, nor the victim's.
    for path in [
        data.as_str(),
        "/run/mangrove",
        "/var/lib/mangrove",
        "/canary",
        "/root/.kube",
        // Where this test was built.
        env!("CARGO_MANIFEST_DIR"),
    ] {
        let said = shell(&acme, &format!("ls -la {path}"));
        assert!(said.contains("No such file"), "{path}: {said}");
    }
    let found = shell(
        &acme,
        "find / -xdev \\( -name control.sock -o -name cri.sock -o -name admin.kubeconfig \\) | head",
    );
    assert_eq!(found.trim(), "");
    // Processes: its own.
    let processes = shell(&acme, "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done");
    assert!(
        !processes.contains("mangrove up") && !processes.contains("CANARY"),
        "{processes}"
    );
    let environment = shell(&acme, "cat /proc/*/environ | tr '\\0' '\\n'");
    assert!(!environment.contains("CANARY"), "{environment}");
    // Devices, mounts, the kernel.
    let refused = |words: &str| {
        let said = shell(&acme, &format!("{words} && echo IT WORKED"));
        assert!(!said.contains("IT WORKED"), "{words}: {said}");
    };
    for words in [
        "mknod /tmp/disk b 254 0 && head -c 512 /tmp/disk > /tmp/read",
        "mknod /tmp/mem c 1 1 && head -c 16 /tmp/mem > /tmp/read",
        "mount -t tmpfs none /mnt",
        "mkdir -p /tmp/p && mount -t proc none /tmp/p",
        "mount -o remount,rw /proc/sys",
        "echo b > /proc/sysrq-trigger",
        "echo '|/tmp/x' > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "head -c 16 /proc/kcore | grep -q .",
        "chroot /proc/1/root /bin/ls /run/mangrove",
        "nsenter -t 1 -m ls /run/mangrove",
        "reboot -f",
        "ip link add evil type dummy",
        "for f in $(find /sys/fs/cgroup -name release_agent); do echo /tmp/x > $f || exit 1; done; false",
        "hostname evil",
        "date -s 2001-01-01 && date | grep -q 2001 && cat /proc/uptime > /dev/null && test \"$(date +%Y)\" = 2001",
    ] {
        refused(words);
    }
    assert_eq!(
        acme.field(&["pod", "shell"], ".status.containerStatuses[0].restartCount"),
        "0"
    );
    platform.finish();
}
