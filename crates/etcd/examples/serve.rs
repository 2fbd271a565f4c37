//! A store as an etcd, in thirty lines: `cargo run -p etcd --example serve -- DIR 127.0.0.1:2379`. The program itself is
//! `mangrove store`.

use std::sync::Arc;

use etcd::server::{Doors, Listener, Member, MemberOptions, Serves, serve};
use keyspace::{Local, index::Limits};
use store::{Store, StoreOptions};
use world::World;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve DIR ADDRESS".into());
    };
    let world = World::real();
    let limits = Limits {
        // Only who uses it compacts it.
        history_revisions_max: usize::MAX,
        history_bytes_max: usize::MAX,
        ..Limits::default()
    };
    let store = Store::open(StoreOptions {
        limits,
        ..StoreOptions::new(dir, world.clone())
    })?;
    let keyspace: Arc<dyn Local> = store.local("default").await?;
    let options = MemberOptions {
        client_urls: vec![format!("http://{address}")],
        ..MemberOptions::default()
    };
    let member = Member::open(keyspace, store.keyspace("default.meta").await?, options, world).await?;
    let listener = Listener::Tcp(tokio::net::TcpListener::bind(&address).await?);
    let doors = Doors {
        tls: None,
        streams_max: u32::MAX,
        serves: Serves::All,
    };
    println!("ready to serve on {address}");
    tokio::select! {
        () = serve(listener, doors, Arc::new(Arc::new(member))) => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    drop(store);
    Ok(())
}
