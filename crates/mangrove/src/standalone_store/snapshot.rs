//! Saving a running store, or an etcd, into a file of etcd's format, and making a data directory of such a file.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use etcd::server::backup::{self, Checksum, Users};
use keyspace::{Revision, index::Limits};
use store::StoreOptions;
use world::World;

use super::{DEFAULT_KEYSPACE, members::META};

#[derive(Subcommand)]
pub enum Snapshot {
    /// Save all of a running store or etcd into a file
    Save {
        file: PathBuf,
        #[command(flatten)]
        server: Server,
    },
    /// Make a data directory of a file that was saved here, or by etcdctl or etcdutl
    Restore {
        file: PathBuf,
        /// The data directory to make; there must be none
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// The keyspace to restore into
        #[arg(long, default_value = DEFAULT_KEYSPACE)]
        keyspace: String,
        /// Take a database file that was copied from a data directory of etcd: it has no checksum
        #[arg(long)]
        skip_hash_check: bool,
        /// Raise the revision by so much, and take all before as compacted: no client then takes up an old watch in silence
        #[arg(long, value_name = "COUNT", default_value_t = 0)]
        bump_revision: u64,
    },
    /// Say what a file has
    Status { file: PathBuf },
}

#[derive(Args)]
pub struct Server {
    /// The server to save
    #[arg(long, value_name = "URL", default_value = "http://localhost:2379")]
    endpoints: String,
    /// CA of the server, PEM
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Client certificate, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Key of the client certificate, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// A user with the role root, where the server has users
    #[arg(long, value_name = "NAME:PASSWORD", value_parser = user)]
    user: Option<(String, String)>,
}

fn user(text: &str) -> Result<(String, String), String> {
    let (name, password) = text.split_once(':').ok_or("want NAME:PASSWORD")?;
    Ok((name.to_owned(), password.to_owned()))
}

/// Everything that the file has; it is not served from, so nothing of it is given up.
const LIMITS: Limits = Limits {
    history_revisions_max: usize::MAX,
    history_bytes_max: usize::MAX,
    quota_bytes_max: usize::MAX,
};

pub async fn run(command: Snapshot) -> anyhow::Result<()> {
    match command {
        Snapshot::Save { file, server } => save(&file, &server).await,
        Snapshot::Restore {
            file,
            data_dir,
            keyspace,
            skip_hash_check,
            bump_revision,
        } => {
            let checksum = if skip_hash_check {
                Checksum::Skipped
            } else {
                Checksum::Required
            };
            restore(&file, &data_dir, &keyspace, checksum, bump_revision).await
        }
        Snapshot::Status { file } => {
            let index = read(&file, Checksum::Required)?;
            println!("revision\t{}", index.revision());
            println!("compacted\t{}", index.compacted());
            println!("keys\t{}", index.live_keys());
            println!("leases\t{}", index.lease_ids().len());
            Ok(())
        }
    }
}

async fn save(file: &Path, server: &Server) -> anyhow::Result<()> {
    let read = |file: &Option<PathBuf>| match file {
        Some(file) => fs::read(file)
            .map(Some)
            .with_context(|| format!("can't read {}", file.display())),
        None => Ok(None),
    };
    let mut options = etcd::EtcdOptions::new([&server.endpoints], "");
    options.ca_pem = read(&server.cacert)?;
    options.certificate_pem = read(&server.cert)?;
    options.key_pem = read(&server.key)?;
    options.user.clone_from(&server.user);
    let mut pieces = etcd::snapshot(&options).await?;
    let part = file.with_extension("part");
    let mut out = File::create(&part).with_context(|| format!("can't write {}", part.display()))?;
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await? {
        out.write_all(&piece)?;
        bytes += piece.len();
    }
    out.sync_all()?;
    // What was cut short ends in no checksum of itself; that is found now and not when it is needed.
    read_index(fs::read(&part)?, Checksum::Required).with_context(|| format!("{} is not whole", part.display()))?;
    fs::rename(&part, file)?;
    println!("saved {bytes} bytes to {}", file.display());
    Ok(())
}

fn read(file: &Path, checksum: Checksum) -> anyhow::Result<keyspace::index::Index> {
    let bytes = fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    read_index(bytes, checksum).with_context(|| format!("{} can't be restored", file.display()))
}

fn read_index(bytes: Vec<u8>, checksum: Checksum) -> anyhow::Result<keyspace::index::Index> {
    let now = World::real().clock.monotonic();
    Ok(backup::restore(&bytes.into(), checksum, LIMITS, now)?)
}

async fn restore(
    file: &Path,
    data_dir: &Path,
    keyspace: &str,
    checksum: Checksum,
    bump_revision: u64,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        !fs::exists(data_dir)?,
        "{} is there already: restore into a new directory",
        data_dir.display()
    );
    let mut index = read(file, checksum)?;
    let users = Users::of(&fs::read(file)?.into(), checksum)?;
    if bump_revision > 0 {
        let revision = Revision(index.revision().0 + bump_revision);
        index.advance(revision);
        index.publish();
        index.compact(revision)?;
    }
    let (revision, keys) = (index.revision(), index.live_keys());
    let options = StoreOptions {
        limits: LIMITS,
        ..StoreOptions::new(data_dir, World::real())
    };
    let store = store::Store::open(options)?;
    // Who may read it is known before there is anything to read.
    let meta = store.keyspace(&format!("{keyspace}{META}")).await?;
    users.write(meta.as_ref()).await?;
    store.load(keyspace, index).await?;
    println!(
        "restored {keys} keys at revision {revision} into {}",
        data_dir.display()
    );
    Ok(())
}
