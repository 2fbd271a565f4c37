//! What clients connect to, so that all their connections can be cut at once.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::broadcast,
    task::{JoinHandle, JoinSet},
};

pub struct Proxy {
    pub endpoint: String,
    cuts: broadcast::Sender<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let (cuts, _) = broadcast::channel(1);
        let made = cuts.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let mut cut = made.subscribe();
                connections.spawn(async move {
                    let Ok(mut to) = TcpStream::connect(("127.0.0.1", to)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut from, &mut to) => {}
                        _ = cut.recv() => {}
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Proxy { endpoint, cuts, task }
    }

    pub fn cut(&self) {
        // Nobody may be connected.
        let _ = self.cuts.send(());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
