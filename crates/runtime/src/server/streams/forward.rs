//! A port of a sandbox and a client, joined.

use super::*;

/// For what a client still says when the Pod has hung up (containerd has the same).
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Inner {
    pub(super) async fn serve_forward(self: Arc<Inner>, sandbox: String, forward: Forward) {
        match self.dial(&sandbox, forward.port).await {
            Ok(stream) => carry(forward, stream).await,
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

/// Carries bytes both ways until the Pod has said all. It does not wait for the client to hang up too: an older kubectl
/// does so only when its streams have ended.
async fn carry(forward: Forward, stream: TcpStream) {
    let (mut from_client, mut to_client) = tokio::io::split(forward);
    let (mut from_pod, mut to_pod) = stream.into_split();
    let up = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_pod).await;
        let _ = to_pod.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut from_pod, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => down.await,
        () = &mut down => {
            let _ = tokio::time::timeout(LAST_WORDS, up).await;
        }
    }
}
