//! Handing out addresses of streams.

use super::*;

impl Inner {
    pub(in crate::server) fn exec_url(&self, request: v1::ExecRequest) -> Result<String> {
        let container = self.container(&request.container_id)?;
        if !container.is_running() {
            return Err(Error::Precondition(format!(
                "container {} is not running",
                container.id
            )));
        }
        if request.cmd.is_empty() {
            return Err(Error::Invalid("there is no command to run".into()));
        }
        let options = Options {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            tty: request.tty,
        };
        check(options)?;
        self.streams.url(
            "exec",
            Wanted::Exec {
                container: container.id.clone(),
                args: request.cmd,
                options,
            },
        )
    }

    pub(in crate::server) fn attach_url(&self, request: v1::AttachRequest) -> Result<String> {
        let container = self.container(&request.container_id)?;
        if !container.is_running() {
            return Err(Error::Precondition(format!(
                "container {} is not running",
                container.id
            )));
        }
        let options = Options {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            // The container has a terminal or has none, whatever is asked for.
            tty: container.with(|record| record.config.tty),
        };
        check(Options {
            stderr: options.stderr && !options.tty,
            ..options
        })?;
        self.streams.url(
            "attach",
            Wanted::Attach {
                container: container.id.clone(),
                options,
            },
        )
    }

    pub(in crate::server) fn port_forward_url(&self, request: v1::PortForwardRequest) -> Result<String> {
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Error::Precondition(format!("sandbox {} is stopped", sandbox.id)));
        }
        let ports = request
            .port
            .iter()
            .map(|port| {
                u16::try_from(*port)
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| Error::Invalid(format!("{port} is no port")))
            })
            .collect::<Result<_>>()?;
        self.streams.url(
            "portforward",
            Wanted::PortForward {
                sandbox: sandbox.id.clone(),
                ports,
            },
        )
    }
}

fn check(options: Options) -> Result<()> {
    if !(options.stdin || options.stdout || options.stderr) {
        return Err(Error::Invalid(
            "at least one of stdin, stdout and stderr has to be asked for".into(),
        ));
    }
    if options.tty && options.stderr {
        return Err(Error::Invalid("with a terminal there is no separate stderr".into()));
    }
    Ok(())
}
