//! Over SPDY each standard stream is a stream, named by its `streamtype` header and opened by the client.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::exit::Words;
use super::{Connection, Options, Session, TerminalSizes, V3, V4};
use crate::refusal::SessionError;
use crate::spdy::{self, Role};

/// A client opens its streams at once; upstream (`DefaultStreamCreationTimeout`) gives it as long.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn open<T>(io: T, protocol: &str, options: Options) -> Result<Session, SessionError>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut session = spdy::Session::new(io, Role::Server);
    let streams = tokio::time::timeout(OPEN_TIMEOUT, expect(&mut session, protocol, options))
        .await
        .ok()
        .flatten()
        .ok_or(SessionError::NoStreams)?;
    let Streams {
        error,
        stdin,
        stdout,
        stderr,
        resize,
    } = streams;
    let (stdin, stdin_back) = stdin.map(spdy::Stream::split).unzip();
    let (resize, resize_back) = resize.map(spdy::Stream::split).unzip();
    Ok(Session {
        stdin: stdin.map(|reader| Box::new(reader) as _),
        stdout: stdout.map(|stream| Box::new(stream.split().1) as _),
        stderr: stderr.map(|stream| Box::new(stream.split().1) as _),
        resize: resize.map(TerminalSizes::read),
        status: Box::new(error.split().1),
        words: Words::of(protocol),
        // kubectl takes the end of our half of stdin for the command's end and stops sending.
        held: stdin_back.into_iter().chain(resize_back).collect(),
        connection: Connection::Spdy(session),
    })
}

struct Streams {
    error: spdy::Stream,
    stdin: Option<spdy::Stream>,
    stdout: Option<spdy::Stream>,
    stderr: Option<spdy::Stream>,
    resize: Option<spdy::Stream>,
}

/// Takes the streams that the options ask for; none if the client leaves before it has opened them.
async fn expect(session: &mut spdy::Session, protocol: &str, options: Options) -> Option<Streams> {
    let wants_resize = options.tty && matches!(protocol, V3 | V4);
    let (mut error, mut stdin, mut stdout, mut stderr, mut resize) = (None, None, None, None, None);
    let mut missing = 1
        + usize::from(options.stdin)
        + usize::from(options.stdout)
        + usize::from(options.has_stderr())
        + usize::from(wants_resize);
    while missing > 0 {
        let stream = session.accept().await?;
        let slot = match stream.headers().get("streamtype") {
            Some("error") => Some(&mut error),
            Some("stdin") if options.stdin => Some(&mut stdin),
            Some("stdout") if options.stdout => Some(&mut stdout),
            Some("stderr") if options.has_stderr() => Some(&mut stderr),
            Some("resize") if wants_resize => Some(&mut resize),
            _ => None,
        };
        match slot {
            Some(slot) if slot.is_none() => {
                stream.reply().await;
                *slot = Some(stream);
                missing -= 1;
            }
            _ => stream.refuse(),
        }
    }
    Some(Streams {
        error: error?,
        stdin,
        stdout,
        stderr,
        resize,
    })
}
