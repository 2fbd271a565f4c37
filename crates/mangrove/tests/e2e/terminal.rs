//! `exec -it` as it is typed: a terminal on both sides.

use testkit::{
    kubectl::Kubectl,
    terminal::{CTRL_C, CTRL_D, Terminal},
};

/// A shell in a Pod of the Deployment `web`, at a terminal: it knows its size and hears when that changes, keys reach what
/// runs there, and it ends as it ended.
pub fn a_shell_at_a_terminal(tenant: &Kubectl) {
    let command = tenant.command(&["exec", "-it", "deployment/web", "--", "/bin/sh"]);
    let mut shell = Terminal::start(&command, 33, 111);
    shell.ask("echo $((40 + 2)) at $(tty)", "42 at /dev/pts/");

    has_size(&mut shell, "33 111");
    shell.resize(44, 122);
    has_size(&mut shell, "44 122");

    shell.ask("echo begin$((0)); sleep 100000", "begin0");
    shell.type_text(CTRL_C);
    shell.ask("echo code $?.", "code 130.");

    // Full screen programs see keys as they come, and nothing is shown twice.
    shell.ask("stty -echo; echo quiet$((0))", "quiet0");
    shell.type_text("read word; echo heard-$word\n");
    shell.type_text("secret\n");
    shell.wait_for("heard-secret");

    shell.type_text("exit 7\n");
    let (code, shown) = shell.finish();
    assert_eq!(code, Some(7), "{shown}");
    assert!(!shown.contains("\r\nsecret"), "{shown}");

    let mut shell = Terminal::start(&command, 33, 111);
    shell.ask("echo up$((0))", "up0");
    shell.type_text(CTRL_D);
    let (code, shown) = shell.finish();
    assert_eq!(code, Some(0), "{shown}");

    let command = tenant.command(&["exec", "-it", "deployment/web", "--", "no-such-program"]);
    let (code, shown) = Terminal::start(&command, 33, 111).finish();
    assert_ne!(code, Some(0), "{shown}");
    assert!(shown.contains("no-such-program"), "{shown}");
}

/// The size is told beside the keys, so it may be a moment late.
fn has_size(shell: &mut Terminal, size: &str) {
    shell.ask(
        &format!("until [ \"$(stty size)\" = '{size}' ]; do sleep 0.05; done; echo size is $(stty size)."),
        &format!("size is {size}."),
    );
}

/// `run -it --rm`, which attaches.
pub fn a_pod_for_as_long_as_somebody_sits_there(tenant: &Kubectl) {
    let command = tenant.command(&[
        "run",
        "-it",
        "--rm",
        "shell",
        "--image=mangrove.test/web:1",
        "--restart=Never",
        "--",
        "/bin/sh",
    ]);
    let mut shell = Terminal::start(&command, 33, 111);
    shell.type_text("\n");
    shell.ask("echo here$((0))", "here0");
    shell.type_text("exit 3\n");
    let (code, shown) = shell.finish();
    assert_eq!(code, Some(3), "{shown}");
    assert!(shown.contains("pod \"shell\" deleted"), "{shown}");
    assert!(!tenant.names(&["pods"]).contains(&"shell".to_owned()));
}
