//! The private language between the server and a supervisor: one JSON document a packet. Bulk bytes never pass here;
//! descriptors do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::{ContainerState, Exit};

#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    pub id: u64,
    pub call: Call,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// From the answer on events come here too. It tells the containers that run, and waits for those that are being started
    /// (whoever asked for that may be gone); how others ended lies on disk.
    Hello,
    Start {
        container: String,
    },
    Signal {
        container: String,
        signal: i32,
    },
    ReopenLog {
        container: String,
    },
    /// Without a terminal: standard input, output and error come with the packet. With one: the answer carries its
    /// master end.
    Exec {
        exec: String,
        container: String,
        args: Vec<String>,
        terminal: bool,
    },
    SignalExec {
        exec: String,
        signal: i32,
    },
    /// Output goes to the descriptors that come with the packet: standard output, then standard error (not with a
    /// terminal). The answer carries what takes input (a pipe, or the terminal's master end), if there is any.
    Attach {
        attach: String,
        container: String,
        input: bool,
    },
    Detach {
        attach: String,
        container: String,
    },
    /// Input of a container whose input is open once has ended.
    CloseInput {
        container: String,
    },
    /// A connection to a port of the sandbox's own loopback; the answer carries it, perhaps before it stands.
    Connect {
        port: u16,
        family: Family,
    },
    /// Kill everything, take down the network, answer, end.
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    Answer { id: u64, result: Result<Answer, String> },
    Stopped { container: String, exit: Exit },
    ExecStopped { exec: String, code: i32 },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Running {
        containers: BTreeMap<String, ContainerState>,
    },
    Started {
        container: String,
        state: ContainerState,
    },
    Exec {
        pid: i32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    V4,
    V6,
}
