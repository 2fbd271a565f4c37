//! What a platform could leave on a machine, as lists that can be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use crate::cgroups::Groups;

/// One line a thing; the first word says of what kind it is.
#[derive(Clone, Debug)]
pub struct Footprint(BTreeSet<String>);

impl Footprint {
    pub fn take(groups: &Groups) -> Footprint {
        let mut things = BTreeSet::new();
        let mut add = |kind: &str, lines: Vec<String>| {
            things.extend(lines.into_iter().map(|line| format!("{kind}: {line}")));
        };
        add("interface", interfaces());
        add("route", lines("ip", &["route", "show", "table", "all"]));
        add("address", lines("ip", &["-o", "address"]));
        add("routing rule", lines("ip", &["rule"]));
        add("packet rule", lines("nft", &["list", "ruleset"]));
        add("mount", mounts());
        add("control group", groups.names());
        add("process", groups.processes().into_iter().map(describe).collect());
        add(
            "file",
            fs::read_dir("/run")
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path().display().to_string())
                .collect(),
        );
        Footprint(things)
    }

    /// What was not there `before`, and what is missing now.
    pub fn since(&self, before: &Footprint) -> Vec<String> {
        let new = self.0.difference(&before.0).cloned();
        let gone = before.0.difference(&self.0).map(|thing| format!("gone: {thing}"));
        new.chain(gone).collect()
    }

    /// How many there are of each kind: for what comes and goes under names that are never the same.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for thing in &self.0 {
            let kind = thing.split_once(':').map_or(thing.as_str(), |(kind, _)| kind);
            *counts.entry(kind.to_owned()).or_default() += 1;
        }
        counts
    }
}

fn interfaces() -> Vec<String> {
    let links = lines("ip", &["-o", "link"]);
    // Of "5: name@peer: <FLAGS> ..." the name: flags of what stays may change.
    links
        .iter()
        .filter_map(|link| link.split_whitespace().nth(1).map(str::to_owned))
        .collect()
}

/// Mount points of the calling thread, each with how often it is there.
fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let mut points: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    points.sort_unstable();
    points
        .chunk_by(|one, other| one == other)
        .map(|same| format!("{} x{}", same[0], same.len()))
        .collect()
}

fn describe(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " ").trim_end())
}

fn lines(program: &str, arguments: &[&str]) -> Vec<String> {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}
