//! What a person can type.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{agent, bench, down, image, standalone_store, tenancy, tenant, up};

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
    /// Run Pods of a platform that is on another machine: this one becomes a node of it
    Agent(Agent),
    /// End the platform: no process, mount, network namespace, cgroup, rule or interface is left
    Down(Down),
    /// Tenants, each with a Kubernetes of its own
    #[command(subcommand)]
    Tenant(Tenant),
    /// Tenants on any Kubernetes: the multi-tenant layer alone, beside a cluster that runs already
    Tenancy(Tenancy),
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
    #[command(flatten)]
    pub etcd: Etcd,
}

/// Where state is kept, if not in the data directory.
#[derive(Args, Clone)]
pub struct Etcd {
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

#[derive(Args, Clone)]
pub struct Tenancy {
    /// The administrator's kubeconfig of the cluster that runs the tenants' Pods [default: as a Pod of that cluster]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    pub context: Option<String>,
    /// Where the tenants' planes are kept
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Where the tenants' Kubernetes APIs are served
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    pub listen: SocketAddr,
    /// By what address tenants reach it, for their kubeconfigs [default: the one that it listens on]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The namespace of the super cluster in which tenants' kubeconfigs and the leader's lease are
    #[arg(long, value_name = "NAME", default_value = "mangrove-system")]
    pub namespace: String,
    /// Of the super cluster; tenants' Services get their addresses of it
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: String,
    /// By what address the tenants' Pods reach this process; without one they don't reach their API server and DNS
    #[arg(long, value_name = "IP")]
    pub pods_door: Option<std::net::Ipv4Addr>,
    /// The domain of Services' names
    #[arg(long, value_name = "DOMAIN", default_value = crate::wiring::house::CLUSTER_DOMAIN)]
    pub cluster_domain: String,
    #[command(flatten)]
    pub etcd: Etcd,
}

pub const DATA_DIR: &str = "/var/lib/mangrove";

#[derive(Args, Clone)]
pub struct Agent {
    /// The super cluster's API
    #[arg(long, value_name = "URL", required_unless_present = "kubeconfig", requires = "token")]
    pub server: Option<String>,
    /// A token of the super cluster's, with the rights of a node
    #[arg(long, value_name = "TOKEN", requires = "server")]
    pub token: Option<String>,
    /// CA of the server, PEM
    #[arg(long, value_name = "FILE", requires = "server")]
    pub certificate_authority: Option<PathBuf>,
    /// Server and credentials of the super cluster in one file
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub kubeconfig: Option<PathBuf>,
    /// The node's name [default: the machine's]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Where the other nodes reach this one [default: what this machine speaks from]
    #[arg(long, value_name = "ADDR")]
    pub address: Option<Ipv4Addr>,
    /// Where everything is kept; archives in its folder `images` are imported
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// The control group below which everything runs
    #[arg(long, value_name = "NAME", default_value = "mangrove")]
    pub cgroup_root: String,
}

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
            Command::Agent(options) => agent::run(options),
            Command::Down(options) => down::run(options),
            Command::Tenant(command) => tenant::run(command),
            Command::Tenancy(options) => tenancy::run(options),
            Command::Image(command) => image::run(command),
            Command::Bench(command) => bench::run(command),
            Command::Store(command) => standalone_store::run(*command),
        }
    }
}
