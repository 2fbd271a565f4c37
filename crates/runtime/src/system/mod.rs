//! What the machine offers and the standard library does not: netlink, cgroup hierarchies, sockets that carry file
//! descriptors, paths that can't leave their root. All synchronous, all usable in the single-threaded supervisor.

pub mod cgroup;
pub mod inroot;
pub mod mounts;
pub mod netlink;
pub mod packet;
pub mod persist;
pub mod process;
