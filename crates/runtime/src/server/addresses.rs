//! Who has which address: one file an address, named after it, holding the sandbox's id. Taking is creating a file that
//! must not exist, giving back is removing it, so there is no moment at which a crash loses or doubles one.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Mutex;

use super::options::Cidr;
use crate::error::{Doing, Error, Result};

pub struct Addresses {
    folder: PathBuf,
    cidr: Cidr,
    /// The last one given: the next search starts behind it, so that an address rests before it is used again and late
    /// packets for its old owner find nobody.
    last: Mutex<u32>,
}

impl Addresses {
    pub fn open(folder: PathBuf, cidr: Cidr) -> Result<Addresses> {
        fs::create_dir_all(&folder).doing(|| format!("make {}", folder.display()))?;
        let last = fs::read_to_string(folder.join("last"))
            .ok()
            .and_then(|text| text.trim().parse::<Ipv4Addr>().ok())
            .map(u32::from)
            .filter(|last| cidr.hosts().contains(last))
            .unwrap_or(cidr.hosts().start - 1);
        Ok(Addresses {
            folder,
            cidr,
            last: Mutex::new(last),
        })
    }

    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    pub fn take(&self, sandbox: &str) -> Result<Ipv4Addr> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let hosts = self.cidr.hosts();
        let start = *last;
        for candidate in (start + 1..hosts.end).chain(hosts.start..(start + 1).min(hosts.end)) {
            let address = Ipv4Addr::from(candidate);
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(self.folder.join(address.to_string()));
            match file {
                Ok(mut file) => {
                    file.write_all(sandbox.as_bytes()).doing(|| "keep an address")?;
                    *last = candidate;
                    let _ = fs::write(self.folder.join("last"), address.to_string());
                    return Ok(address);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).doing(|| "keep an address"),
            }
        }
        Err(Error::Exhausted(format!(
            "all {} addresses of {}/{} are taken",
            hosts.len(),
            self.cidr.network,
            self.cidr.prefix
        )))
    }

    /// Only the sandbox that has it gives it back; asking twice is fine.
    pub fn give_back(&self, address: Ipv4Addr, sandbox: &str) {
        let file = self.folder.join(address.to_string());
        if fs::read_to_string(&file).is_ok_and(|owner| owner == sandbox) {
            let _ = fs::remove_file(file);
        }
    }

    /// Takes back what belongs to no living sandbox.
    pub fn sweep(&self, living: &HashSet<String>) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name() == "last" {
                continue;
            }
            let owner = fs::read_to_string(entry.path()).unwrap_or_default();
            if !living.contains(&owner) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub fn taken(&self) -> usize {
        fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name() != "last")
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(folder: &tempfile::TempDir) -> Addresses {
        Addresses::open(folder.path().to_owned(), Cidr::parse("10.9.8.0/29").unwrap()).unwrap()
    }

    #[test]
    fn each_address_has_one_owner_and_rests_after_use() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(&folder);

        let given: Vec<Ipv4Addr> = (0..5).map(|n| pool.take(&n.to_string()).unwrap()).collect();

        assert_eq!(given[0], Ipv4Addr::new(10, 9, 8, 2));
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), 5);
        assert!(matches!(pool.take("more"), Err(Error::Exhausted(_))));

        pool.give_back(given[1], "not the owner");
        assert!(pool.take("more").is_err());
        pool.give_back(given[1], "1");
        pool.give_back(given[3], "3");
        assert_eq!(pool.take("a").unwrap(), given[1]);
        pool.give_back(given[1], "a");
        assert_eq!(pool.take("b").unwrap(), given[3], "the one just given back comes last");
    }

    #[test]
    fn what_was_given_survives_and_what_nobody_owns_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let first = pool(&folder).take("one").unwrap();
        let second = pool(&folder).take("two").unwrap();
        assert_ne!(first, second);

        pool(&folder).sweep(&HashSet::from(["two".to_owned()]));

        assert_eq!(pool(&folder).taken(), 1);
    }
}
