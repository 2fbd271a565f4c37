//! A command and a client, joined.

use super::*;

impl Inner {
    pub(super) async fn serve_exec(&self, container: &str, args: Vec<String>, options: Options, mut session: Session) {
        let result = if options.tty {
            self.exec_with_terminal(container, args, &mut session).await
        } else {
            self.exec_with_pipes(container, args, options, &mut session).await
        };
        match result {
            Ok(code) => session.finish(ExecStatus::Code(code)).await,
            Err(e) => session.finish(ExecStatus::Failed(e.to_string())).await,
        }
    }

    pub(super) async fn exec_with_pipes(
        &self,
        container: &str,
        args: Vec<String>,
        options: Options,
        session: &mut Session,
    ) -> Result<i32> {
        let doing = || "make pipes";
        let container = self.container(container)?;
        let null = || {
            File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map(OwnedFd::from)
        };
        let (stdin, input) = if options.stdin {
            let (reader, writer) = new_pipe().doing(doing)?;
            (reader, Some(pipe::Sender::from_owned_fd(writer).doing(doing)?))
        } else {
            (null().doing(doing)?, None)
        };
        let output = |wanted: bool| -> Result<(OwnedFd, Option<pipe::Receiver>)> {
            if wanted {
                let (from, to) = new_pipe().doing(doing)?;
                Ok((to, Some(reader(from).doing(doing)?)))
            } else {
                Ok((null().doing(doing)?, None))
            }
        };
        let (stdout, from_stdout) = output(options.stdout)?;
        let (stderr, from_stderr) = output(options.stderr)?;
        let running = self.exec(&container, args, Some([stdin, stdout, stderr])).await?;
        let _input = copy_task(session.stdin.take(), input);
        let stdout = copy_task(from_stdout, session.stdout.take());
        let stderr = copy_task(from_stderr, session.stderr.take());
        let gone = session.gone();
        let exit = async {
            let code = running.exit.await;
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, async {
                for task in [stdout, stderr].into_iter().flatten() {
                    let _ = task.await;
                }
            })
            .await;
            code
        };
        tokio::select! {
            code = exit => code.map_err(|_| Error::Supervisor("the sandbox's supervisor has gone".into())),
            // The pipes close with us; the command notices as in any broken pipeline.
            () = gone.cancelled() => Err(Error::Precondition("the client has gone".into())),
        }
    }

    pub(super) async fn exec_with_terminal(
        &self,
        container: &str,
        args: Vec<String>,
        session: &mut Session,
    ) -> Result<i32> {
        let container = self.container(container)?;
        let running = self.exec(&container, args, None).await?;
        let master = running
            .terminal
            .ok_or_else(|| Error::Supervisor("there is no terminal".into()))?;
        let terminal = Arc::new(Terminal::new(master).doing(|| "open the terminal")?);
        let _input = copy_task(session.stdin.take(), Some(terminal::End(terminal.clone())));
        let output = copy_task(Some(terminal::End(terminal.clone())), session.stdout.take());
        let _sizes = resize_task(session, terminal);
        let gone = session.gone();
        let exit = async {
            let code = running.exit.await;
            if let Some(output) = output {
                let _ = tokio::time::timeout(DRAIN_TIMEOUT, output).await;
            }
            code
        };
        tokio::select! {
            code = exit => code.map_err(|_| Error::Supervisor("the sandbox's supervisor has gone".into())),
            () = gone.cancelled() => Err(Error::Precondition("the client has gone".into())),
        }
    }
}
