//! Terminals that lie in the container's own devpts.

use super::*;

/// Where libcontainer hands over the master end of a terminal that lies in the container's own devpts.
pub(super) struct Console {
    pub(super) listener: UnixListener,
    pub(super) path: std::path::PathBuf,
}

impl Console {
    pub(super) fn listen(sandbox: &SandboxPlan, name: &str) -> Result<Console, String> {
        let name = format!("tty-{name}");
        std::env::set_current_dir(&sandbox.run).map_err(text("enter the run folder"))?;
        let _ = fs::remove_file(&name);
        let listener = UnixListener::bind(&name).map_err(text("listen for the terminal"))?;
        std::env::set_current_dir("/").map_err(text("leave the run folder"))?;
        Ok(Console {
            listener,
            path: sandbox.run.join(name),
        })
    }

    pub(super) fn accept(self) -> Result<OwnedFd, String> {
        let (stream, _) = self.listener.accept().map_err(text("accept the terminal"))?;
        let _ = fs::remove_file(&self.path);
        let received = packet::receive(stream.as_raw_fd()).map_err(text("receive the terminal"))?;
        received
            .and_then(|(_, mut fds)| fds.pop())
            .ok_or_else(|| "no terminal was sent".to_owned())
    }
}
