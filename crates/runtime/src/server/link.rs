//! The server's end of the conversation with one supervisor.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Doing, Error, Result};
use crate::supervisor::protocol::{Answer, Call, Message, Request};
use crate::system::packet;

type Reply = std::result::Result<(Answer, Vec<OwnedFd>), String>;

/// What the supervisor says without being asked (and that a container has started, in order with the rest).
pub enum News {
    Message(Message),
    Started {
        container: String,
        state: crate::supervisor::plan::ContainerState,
    },
    /// The connection has ended; nothing comes any more.
    Gone,
}

pub struct Link {
    shared: Arc<Shared>,
    _reader: AbortOnDropHandle<()>,
}

struct Shared {
    socket: AsyncFd<OwnedFd>,
    /// `None` once the supervisor is gone.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>,
    next: AtomicU64,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Reply>>>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Link {
    /// `heard` is called for all news, in order, on the link's own task; it must be quick.
    pub fn connect(path: &Path, mut heard: impl FnMut(News) + Send + 'static) -> io::Result<Link> {
        let socket = packet::connect_to(path)?;
        crate::supervisor::set_nonblocking(&socket)?;
        // SAFETY: an `OwnedFd` always refers to the same open socket, until it is dropped with the registration.
        let socket = unsafe { AsyncFd::register(socket)? };
        let shared = Arc::new(Shared {
            socket,
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
        });
        let reader = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    let received = async {
                        loop {
                            let mut ready = shared.socket.readable().await?;
                            match ready.try_io(|fd| packet::receive(fd.as_raw_fd())) {
                                Ok(result) => return result,
                                Err(_would_block) => continue,
                            }
                        }
                    };
                    let Ok(Some((bytes, fds))) = received.await else { break };
                    match serde_json::from_slice::<Message>(&bytes) {
                        Ok(Message::Answer { id, result }) => {
                            if let Ok(Answer::Started { container, state }) = &result {
                                heard(News::Started {
                                    container: container.clone(),
                                    state: state.clone(),
                                });
                            }
                            let waiting = shared.waiting().as_mut().and_then(|waiting| waiting.remove(&id));
                            if let Some(waiting) = waiting {
                                let _ = waiting.send(result.map(|answer| (answer, fds)));
                            }
                        }
                        Ok(message) => heard(News::Message(message)),
                        Err(e) => {
                            tracing::error!("a supervisor speaks another language: {e}");
                            break;
                        }
                    }
                }
                // Whoever waits learns by the dropped sender.
                shared.waiting().take();
                heard(News::Gone);
            }
        });
        Ok(Link {
            shared,
            _reader: AbortOnDropHandle::new(reader),
        })
    }

    /// True before [`News::Gone`] is heard.
    pub fn has_ended(&self) -> bool {
        self.shared.waiting().is_none()
    }

    pub async fn call(&self, call: Call) -> Result<Answer> {
        self.call_with(call, &[]).await.map(|(answer, _)| answer)
    }

    pub async fn call_with(&self, call: Call, fds: &[RawFd]) -> Result<(Answer, Vec<OwnedFd>)> {
        let gone = || Error::Supervisor("the sandbox's supervisor has gone".into());
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match self.shared.waiting().as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(gone()),
        };
        let bytes = serde_json::to_vec(&Request { id, call })
            .map_err(io::Error::from)
            .doing(|| "speak to a supervisor")?;
        loop {
            let mut ready = self.shared.socket.writable().await.doing(|| "speak to a supervisor")?;
            match ready.try_io(|socket| packet::send(socket.as_raw_fd(), &bytes, fds)) {
                Ok(Ok(())) => break,
                Ok(Err(e)) => {
                    if let Some(waiting) = self.shared.waiting().as_mut() {
                        waiting.remove(&id);
                    }
                    return Err(match e.kind() {
                        io::ErrorKind::InvalidInput => Error::Invalid(e.to_string()),
                        _ => gone(),
                    });
                }
                Err(_would_block) => continue,
            }
        }
        match receiver.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(text)) => Err(Error::Supervisor(text)),
            Err(_) => Err(gone()),
        }
    }
}
