//! What a person can type.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{bench, down, image, standalone_store, tenant, up};

#[derive(Parser)]
#[command(
    name = "mangrove",
    version,
    about = "Many Kubernetes on shared machines",
    propagate_version = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start the whole platform on this machine
    Up(Up),
    /// End the platform: no process, mount, network namespace, cgroup, rule or interface is left
    Down(Down),
    /// Tenants, each with a Kubernetes of its own
    #[command(subcommand)]
    Tenant(Tenant),
    /// Container images of this machine
    #[command(subcommand)]
    Image(Image),
    /// Measure this program on this machine
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Serve the etcd v3 API from this machine's disk
    Store(Box<standalone_store::Store>),
}

#[derive(Args, Clone)]
pub struct Up {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Where the Kubernetes APIs are served
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// Also write the super cluster's kubeconfig into this file (entries already in it stay)
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Return when everything is ready, and leave it running
    #[arg(long)]
    pub detach: bool,
    /// Keep all state in an etcd instead of the data directory
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// CA of the etcd servers, PEM
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub etcd_cafile: Option<PathBuf>,
    /// Client certificate for the etcd servers, PEM
    #[arg(long, value_name = "FILE", requires_all = ["etcd_servers", "etcd_keyfile"])]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of the client certificate, PEM
    #[arg(long, value_name = "FILE", requires_all = ["etcd_servers", "etcd_certfile"])]
    pub etcd_keyfile: Option<PathBuf>,
}

pub const DATA_DIR: &str = "/var/lib/mangrove";

#[derive(Args)]
pub struct Down {
    /// The data directory of the platform to end [default: the one that runs]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Which platform is meant.
#[derive(Args)]
pub struct Which {
    /// The data directory of the platform [default: the one that runs]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Json,
}

#[derive(Subcommand)]
pub enum Tenant {
    /// Make a tenant and write its kubeconfig
    Create {
        name: String,
        /// Merge the tenant's kubeconfig into this file [default: print where to get it]
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        #[arg(short, long)]
        output: Option<Output>,
        #[command(flatten)]
        which: Which,
    },
    /// List tenants
    List {
        #[arg(short, long)]
        output: Option<Output>,
        #[command(flatten)]
        which: Which,
    },
    /// Show one tenant
    Get {
        name: String,
        #[arg(short, long)]
        output: Option<Output>,
        #[command(flatten)]
        which: Which,
    },
    /// Print a tenant's kubeconfig, or merge it into a file
    Kubeconfig {
        name: String,
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        #[arg(short, long)]
        output: Option<Output>,
        #[command(flatten)]
        which: Which,
    },
    /// Delete a tenant and everything it has, and wait until it is gone
    Delete {
        name: String,
        #[arg(short, long)]
        output: Option<Output>,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Subcommand)]
pub enum Image {
    /// Import images from an OCI or docker archive
    Import {
        archive: PathBuf,
        #[command(flatten)]
        which: Which,
    },
    /// List images
    List {
        #[arg(short, long)]
        output: Option<Output>,
        #[command(flatten)]
        which: Which,
    },
}

impl Command {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Up(options) => up::run(options),
            Command::Down(options) => down::run(options),
            Command::Tenant(command) => tenant::run(command),
            Command::Image(command) => image::run(command),
            Command::Bench(command) => bench::run(command),
            Command::Store(command) => standalone_store::run(*command),
        }
    }
}
