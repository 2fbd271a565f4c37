//! A running container and a client, joined.

use super::*;

impl Inner {
    pub(super) async fn serve_attach(&self, container: &str, options: Options, mut session: Session) {
        match self.attach(container, options, &mut session).await {
            // As the kubelet has it: an attach that ends with its container has succeeded.
            Ok(()) => session.finish(ExecStatus::Code(0)).await,
            Err(e) => session.finish(ExecStatus::Failed(e.to_string())).await,
        }
    }

    pub(super) async fn attach(&self, container: &str, options: Options, session: &mut Session) -> Result<()> {
        let doing = || "make pipes";
        let container = self.container(container)?;
        let sandbox = self.sandbox(&container.sandbox)?;
        let link = sandbox
            .link()
            .ok_or_else(|| Error::Precondition(format!("sandbox {} is stopped", sandbox.id)))?;
        let id = new_id();
        let (from_stdout, stdout) = new_pipe().doing(doing)?;
        let (from_stderr, stderr) = new_pipe().doing(doing)?;
        let call = Call::Attach {
            attach: id.clone(),
            container: container.id.clone(),
            input: options.stdin,
        };
        let fds = if options.tty {
            vec![stdout.as_raw_fd()]
        } else {
            vec![stdout.as_raw_fd(), stderr.as_raw_fd()]
        };
        let (_, mut fds) = link.call_with(call, &fds).await?;
        drop((stdout, stderr));
        let out = copy_task(Some(reader(from_stdout).doing(doing)?), session.stdout.take());
        let err = copy_task(Some(reader(from_stderr).doing(doing)?), session.stderr.take());
        let mut sizes = None;
        let mut input = None;
        if let Some(fd) = fds.pop() {
            if options.tty {
                let terminal = Arc::new(Terminal::new(fd).doing(|| "open the terminal")?);
                sizes = resize_task(session, terminal.clone());
                if options.stdin {
                    input = copy_task(session.stdin.take(), Some(terminal::End(terminal)));
                }
            } else {
                input = copy_task(
                    session.stdin.take(),
                    Some(pipe::Sender::from_owned_fd(fd).doing(doing)?),
                );
            }
        }
        let input_ended = async {
            match &mut input {
                Some(task) => {
                    let _ = task.await;
                    let close = Call::CloseInput {
                        container: container.id.clone(),
                    };
                    let _ = link.call(close).await;
                    std::future::pending::<()>().await;
                }
                None => std::future::pending().await,
            }
        };
        let mut phase = container.phase.subscribe();
        let ended = async {
            let _ = phase.wait_for(|phase| !matches!(phase, Phase::Running(_))).await;
            let drained = async {
                for task in [out, err].into_iter().flatten() {
                    let _ = task.await;
                }
            };
            // The supervisor gives a slow client ten seconds; past that nothing comes.
            let _ = tokio::time::timeout(crate::supervisor::MAX_STALL, drained).await;
        };
        let gone = session.gone();
        tokio::select! {
            () = ended => {}
            () = input_ended => {}
            () = gone.cancelled() => {}
        }
        drop((sizes, input));
        let detach = Call::Detach {
            attach: id,
            container: container.id.clone(),
        };
        let _ = link.call(detach).await;
        Ok(())
    }
}
