//! What one process holds, as the kernel counts it.

use std::{fs, iter::Sum, ops::Add};

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Vitals {
    pub resident_kib: u64,
    /// What it has allocated: resident memory without the pages of files, which come and go at the kernel's will.
    pub anonymous_kib: u64,
    pub descriptors: u64,
    pub threads: u64,
}

impl Vitals {
    /// `None` if it has ended.
    pub fn of(pid: u32) -> Option<Vitals> {
        let process = format!("/proc/{pid}");
        let rollup = fs::read_to_string(format!("{process}/smaps_rollup")).ok()?;
        let kib = |name: &str| {
            let value = rollup.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().trim_end_matches(" kB").parse().ok()
        };
        let entries = |folder: &str| Some(fs::read_dir(format!("{process}/{folder}")).ok()?.count() as u64);
        Some(Vitals {
            resident_kib: kib("Rss:")?,
            anonymous_kib: kib("Anonymous:")?,
            descriptors: entries("fd")?,
            threads: entries("task")?,
        })
    }
}

impl Add for Vitals {
    type Output = Vitals;

    fn add(self, other: Vitals) -> Vitals {
        Vitals {
            resident_kib: self.resident_kib + other.resident_kib,
            anonymous_kib: self.anonymous_kib + other.anonymous_kib,
            descriptors: self.descriptors + other.descriptors,
            threads: self.threads + other.threads,
        }
    }
}

impl Sum for Vitals {
    fn sum<I: Iterator<Item = Vitals>>(all: I) -> Vitals {
        all.fold(Vitals::default(), Add::add)
    }
}
