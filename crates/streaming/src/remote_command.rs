//! The far end of exec and attach: standard streams, window sizes, and how it ended.
//!
//! ```no_run
//! # use streaming::remote_command::{self, ExecStatus, Options};
//! # use streaming::Body;
//! # use tokio::io::AsyncWriteExt;
//! # fn handle(mut request: http::Request<hyper::body::Incoming>) -> http::Response<Body> {
//! let options = Options { stdout: true, ..Options::default() };
//! let (response, session) = match remote_command::accept(&mut request, options) {
//!     Ok(accepted) => accepted,
//!     Err(refusal) => return refusal.into_response(),
//! };
//! tokio::spawn(async move {
//!     let Ok(mut session) = session.await else { return };
//!     if let Some(stdout) = &mut session.stdout {
//!         let _ = stdout.write_all(b"hello\n").await;
//!     }
//!     session.finish(ExecStatus::Code(0)).await;
//! });
//! response
//! # }
//! ```

mod exit;
mod resize;
mod spdy_streams;
mod web_socket_channels;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::handover::{self, Spoken, Transport};
use crate::refusal::{Refusal, SessionError};
use crate::{spdy, websocket};

pub use exit::ExecStatus;
pub use resize::{TerminalSize, TerminalSizes};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
const V2: &str = "v2.channel.k8s.io";
const V1: &str = "channel.k8s.io";
const V4_BASE64: &str = "v4.base64.channel.k8s.io";
const V1_BASE64: &str = "base64.channel.k8s.io";

/// apimachinery `remotecommand` constants: version 3 brought window sizes, 4 the exit status as `metav1.Status`, 5 (WebSocket only)
/// the end of a single channel.
const SPOKEN: Spoken = Spoken {
    spdy: &[V4, V3, V2, V1],
    web_socket: &[V5, V4, V4_BASE64, V1, V1_BASE64],
    unnamed: V1,
};

/// What the process has. With a terminal its errors come on stdout, so that there is no stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Options {
    /// From a query string, in the API server's words (`stdin=true`) or the kubelet's (`input=1`).
    pub fn from_query(query: &str) -> Options {
        let mut options = Options::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let on = matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
            match name {
                "stdin" | "input" => options.stdin = on,
                "stdout" | "output" => options.stdout = on,
                "stderr" | "error" => options.stderr = on,
                "tty" => options.tty = on,
                _ => {}
            }
        }
        options
    }

    fn has_stderr(self) -> bool {
        self.stderr && !self.tty
    }
}

pub type Input = Box<dyn AsyncRead + Send + Unpin>;
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// An exec or attach whose streams are open. Dropping it breaks the connection; [`Session::finish`] ends it in order.
pub struct Session {
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    /// Window sizes, with a terminal and a protocol that has them.
    pub resize: Option<TerminalSizes>,
    status: Output,
    words: exit::Words,
    /// Our halves of streams that only the client writes; their end would say that the command has ended.
    held: Vec<spdy::StreamWriter>,
    connection: Connection,
}

enum Connection {
    Spdy(spdy::Session),
    WebSocket(websocket::channels::Channels),
}

/// What becomes a [`Session`] once the client has its answer.
pub type Pending = BoxFuture<'static, Result<Session, SessionError>>;

/// Grants the upgrade. Send the response, and await the other on a task of your own: it completes only after the
/// response was sent.
pub fn accept<B>(request: &mut Request<B>, options: Options) -> Result<(Response<Body>, Pending), Refusal> {
    let granted = handover::grant(request, &SPOKEN)?;
    let protocol = granted.protocol;
    let connection = granted.connection;
    let session = async move {
        let io = TokioIo::new(connection.await?);
        match granted.transport {
            Transport::Spdy => spdy_streams::open(io, protocol, options).await,
            Transport::WebSocket => Ok(web_socket_channels::open(io, protocol, options).await),
        }
    };
    Ok((granted.response, Box::pin(session)))
}

impl Session {
    /// Cancelled once the client is gone, whatever the streams do.
    pub fn gone(&self) -> CancellationToken {
        match &self.connection {
            Connection::Spdy(session) => session.gone(),
            Connection::WebSocket(channels) => channels.gone(),
        }
    }

    /// Tells the client how it ended, after all that was written before, and closes. Drop outputs that were taken out
    /// of the session first.
    pub async fn finish(mut self, status: ExecStatus) {
        drop((self.stdin, self.stdout, self.stderr, self.resize));
        if let Some(text) = self.words.tell(&status) {
            let _ = self.status.write_all(text.as_bytes()).await;
        }
        drop((self.status, self.held));
        match self.connection {
            Connection::Spdy(session) => session.close().await,
            Connection::WebSocket(channels) => channels.close().await,
        }
    }
}
