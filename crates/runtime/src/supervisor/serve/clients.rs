//! Those who speak to the supervisor: the server, and short connections of tools.

use super::*;

impl Supervisor {
    pub(super) fn accept(&mut self) {
        while let Ok(socket) = packet::accept(&self.listener) {
            if self.clients.len() >= MAX_CLIENTS {
                continue;
            }
            self.next_client += 1;
            self.clients.insert(
                self.next_client,
                Client {
                    socket,
                    subscribed: false,
                    queue: VecDeque::new(),
                },
            );
        }
    }

    pub(super) fn client_ready(&mut self, id: u64, flags: PollFlags) {
        if flags.contains(PollFlags::POLLOUT) {
            self.flush_client(id);
        }
        if !flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            return;
        }
        let Some(client) = self.clients.get(&id) else { return };
        match packet::receive(client.socket.as_raw_fd()) {
            Ok(Some((bytes, fds))) => match serde_json::from_slice::<Request>(&bytes) {
                Ok(request) => self.handle(id, request, fds),
                Err(e) => {
                    eprintln!("a message that can't be read: {e}");
                    self.drop_client(id);
                }
            },
            Ok(None) => self.drop_client(id),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.drop_client(id),
        }
    }

    pub(super) fn drop_client(&mut self, id: u64) {
        self.clients.remove(&id);
        self.greetings.retain(|(client, _)| *client != id);
        for container in self.containers.values_mut() {
            container.attached.retain(|attached| attached.client != id);
        }
    }

    pub(super) fn send(&mut self, id: u64, message: &Message, fds: Vec<OwnedFd>) {
        let Ok(bytes) = serde_json::to_vec(message) else { return };
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.queue.push_back((bytes, fds));
        if client.queue.len() > MAX_QUEUED_MESSAGES {
            self.drop_client(id);
        } else {
            self.flush_client(id);
        }
    }

    pub(super) fn flush_client(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        while let Some((bytes, fds)) = client.queue.front() {
            let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            match packet::send(client.socket.as_raw_fd(), bytes, &raw) {
                Ok(()) => {
                    client.queue.pop_front();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.drop_client(id),
            }
        }
    }

    pub(super) fn publish(&mut self, message: &Message) {
        let ids: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, c)| c.subscribed)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.send(id, message, Vec::new());
        }
    }

    pub(super) fn answer(&mut self, client: u64, request: u64, outcome: Outcome) {
        let (result, fds) = match outcome {
            Ok((answer, fds)) => (Ok(answer), fds),
            Err(text) => (Err(text), Vec::new()),
        };
        self.send(client, &Message::Answer { id: request, result }, fds);
    }
}
