//! A port of a sandbox and a client, joined.

use super::*;

impl Inner {
    pub(super) async fn serve_forward(self: Arc<Inner>, sandbox: String, mut forward: Forward) {
        match self.dial(&sandbox, forward.port).await {
            Ok(mut stream) => {
                let _ = tokio::io::copy_bidirectional(&mut forward, &mut stream).await;
            }
            Err(e) => forward.fail(&e.to_string()).await,
        }
    }

    /// A connection to a port inside the sandbox, over its own loopback.
    pub(super) async fn dial(&self, sandbox: &str, port: u16) -> Result<TcpStream> {
        let sandbox = self.sandbox(sandbox)?;
        let link = sandbox
            .link()
            .ok_or_else(|| Error::Precondition(format!("sandbox {} is stopped", sandbox.id)))?;
        let mut last = None;
        for family in [Family::V4, Family::V6] {
            let attempt = async {
                let (_, mut fds) = link.call_with(Call::Connect { port, family }, &[]).await?;
                let fd = fds
                    .pop()
                    .ok_or_else(|| Error::Supervisor("there is no connection".into()))?;
                let doing = || format!("connect to port {port} of the sandbox");
                let stream = TcpStream::from_std(std::net::TcpStream::from(fd)).doing(doing)?;
                stream.writable().await.doing(doing)?;
                match stream.take_error().doing(doing)? {
                    Some(e) => Err(e).doing(doing),
                    None => Ok(stream),
                }
            };
            match attempt.await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                // What IPv4 says is what people expect to read.
                Err(e) => last = last.or(Some(e)),
            }
        }
        Err(last.unwrap_or_else(|| Error::Supervisor("there is no connection".into())))
    }
}
