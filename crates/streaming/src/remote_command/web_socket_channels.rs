//! Over WebSocket the standard streams are channels with fixed numbers.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::exit::Words;
use super::{Connection, Options, Session, TerminalSizes, V1_BASE64, V4_BASE64};
use crate::websocket::channels::{Channels, Division, Encoding};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

pub(super) async fn open<T>(io: T, protocol: &str, options: Options) -> Session
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let encoding = match protocol {
        V4_BASE64 | V1_BASE64 => Encoding::Base64,
        _ => Encoding::Binary,
    };
    let mut inputs = Vec::new();
    if options.stdin {
        inputs.push(STDIN);
    }
    if options.tty {
        inputs.push(RESIZE);
    }
    let division = Division {
        encoding,
        inputs: &inputs,
        outputs: None,
    };
    let mut channels = Channels::start(io, &division);

    // An empty message on the lowest output tells the client that the streams are there, as from a kubelet.
    let first = if options.stdout {
        STDOUT
    } else if options.has_stderr() {
        STDERR
    } else {
        ERROR
    };
    channels.send(first, Bytes::new()).await;

    Session {
        stdin: channels.input(STDIN).map(|input| Box::new(input) as _),
        stdout: options.stdout.then(|| Box::new(channels.output(STDOUT)) as _),
        stderr: options.has_stderr().then(|| Box::new(channels.output(STDERR)) as _),
        resize: channels.input(RESIZE).map(TerminalSizes::read),
        status: Box::new(channels.output(ERROR)),
        words: Words::of(protocol),
        held: Vec::new(),
        connection: Connection::WebSocket(channels),
    }
}
