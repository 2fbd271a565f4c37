//! `kill -9` of the server, of an agent, of a Pod's supervisor, of a container, of two of them, at random moments under load: nothing
//! acknowledged is lost, restart policies are followed, no Pod runs twice, and after each round the machines hold exactly what
//! the store says.
//!
//! `MANGROVE_CRASH_ROUNDS` says how often (5 unless said), `MANGROVE_CRASH_SEED` whom and when; both are printed.

mod load;
mod truth;
mod victims;

use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::{kubectl::Kubectl, platform::Platform, said::PATIENCE};

use self::{
    load::{Done, Tenant},
    truth::{Descriptors, Ground, Wanted},
    victims::{POLICIES, Prey, VICTIMS, Victim, kill_now, make, youngest},
};
use crate::{
    BINARY, apply_web,
    other_machines::{OtherMachine, take_the_network_away, with_a_network},
};

const ROUNDS: u64 = 5;
/// What is killed lives at least so long under load, and less than this and [`SPREAD_MS`] together.
const ALIVE_MS: u64 = 100;
const SPREAD_MS: u64 = 1900;
/// The second of two victims dies at most so much later.
const APART_MS: u64 = 200;
/// The load goes on behind the kill for at most so long.
const AFTER_MS: u64 = 500;
/// Longer than a start takes on an idle machine.
const STARTING_MS: u64 = 300;
/// One round in so many has two victims.
const TWO_IN: u64 = 3;
/// A server that starts is killed once more in one round of so many that kill it.
const AGAIN_IN: u64 = 2;

/// The Pod of each tenant that nobody kills.
const BYSTANDER: &str = "bystander";

#[test]
fn whoever_is_killed_at_random_moments_under_load_nothing_is_lost_doubled_or_left() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    let rounds = number("MANGROVE_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("MANGROVE_CRASH_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    println!("{rounds} rounds, seed {seed}");
    let mut random = Random(seed | 1);
    let mut house = House::start(platform);
    let bystanders = house.bystanders();

    let mut order = Vec::new();
    for round in 0..rounds {
        if order.is_empty() {
            order = shuffled(&VICTIMS, &mut random);
        }
        let first = order.pop().expect("it was filled");
        house.round(round, first, &mut random);
        assert_eq!(house.bystanders(), bystanders, "whom nobody kills runs on");
    }

    house.finish();
}

struct Machines {
    platform: Platform,
    second: OtherMachine,
}

/// Two machines and two tenants; each tenant's own Pods are on a machine of their own.
struct House {
    machines: Machines,
    grounds: [Ground; 2],
    tenants: [Tenant; 2],
    descriptors: Descriptors,
}

impl House {
    fn start(platform: Platform) -> House {
        let platform = with_a_network(platform);
        let mut second = OtherMachine::start(&platform, "second", 2);
        platform.up();
        platform.import_web_image();
        let tenants = ["acme", "globex"].map(|name| Tenant::new(platform.tenant(name)));
        second.join(&platform);
        let grounds = [Ground::first(&platform), Ground::second(&second)];
        for (tenant, ground) in tenants.iter().zip(&grounds) {
            make(&tenant.kubectl, BYSTANDER, "Always", &ground.node);
            for policy in POLICIES {
                make(&tenant.kubectl, &policy.to_lowercase(), policy, &ground.node);
            }
            apply_web(&tenant.kubectl);
        }
        let mut house = House {
            machines: Machines { platform, second },
            grounds,
            tenants,
            descriptors: Descriptors::default(),
        };
        house.settles(&[3, 3]);
        house
    }

    fn round(&mut self, round: u64, first: Victim, random: &mut Random) {
        let at = usize::try_from(random.below(2)).expect("it is small");
        let policy = POLICIES[usize::try_from(random.below(3)).expect("it is small")];
        let prey = Prey::of(&self.tenants[at].kubectl, policy, &self.grounds[at]);
        let mut victims = vec![first];
        if random.below(TWO_IN) == 0 {
            let others: Vec<Victim> = VICTIMS.into_iter().filter(|other| *other != first).collect();
            victims.push(shuffled(&others, random)[0]);
        }
        let alive = Duration::from_millis(ALIVE_MS + random.below(SPREAD_MS));
        let apart = Duration::from_millis(random.below(APART_MS));
        let after = Duration::from_millis(random.below(AFTER_MS));
        let again = Duration::from_millis(random.below(STARTING_MS));
        let again = (random.below(AGAIN_IN) == 0).then_some(again);
        println!(
            "round {round}: {victims:?} of {}'s {policy} after {alive:?}",
            ["acme", "globex"][at]
        );

        let killed = |victim: Victim| victims.contains(&victim);
        let keeper_was_killed = |at: usize| killed(Victim::Server) || (at == 1 && killed(Victim::Agent));
        let tenant = &self.tenants[at].kubectl;
        let mut log = tenant.follow(&["logs", "-f", "--tail=1", &prey.name]);
        log.wait_for("");

        let done = under_load(&self.tenants, round, &prey, || {
            std::thread::sleep(alive);
            for (index, victim) in victims.iter().enumerate() {
                if index > 0 {
                    std::thread::sleep(apart);
                }
                self.machines.kill(*victim, &prey);
            }
            std::thread::sleep(after);
        });
        let begin = Instant::now();
        if killed(Victim::Supervisor) || killed(Victim::Container) || keeper_was_killed(at) {
            // Whoever reads on learns that there is no more.
            log.finish();
        }
        self.machines.start_again(&victims, again);
        if prey.has_been_hit(tenant, &victims, keeper_was_killed(at)) {
            tenant.run(&["delete", "pod", &prey.name]);
            make(tenant, &prey.name, policy, &self.grounds[at].node);
        }
        let sizes: Vec<usize> = self
            .tenants
            .iter()
            .map(|tenant| tenant.nothing_is_lost(round))
            .collect();
        self.settles(&sizes);

        for (at, done) in done.iter().enumerate() {
            let fine = keeper_was_killed(at) || done.failed_commands.is_empty();
            assert!(fine, "{:#?}", done.failed_commands);
        }
        let acknowledged: usize = done.iter().map(|done| done.acknowledged).sum();
        println!(
            "    {acknowledged} writes were acknowledged; at rest after {:?}",
            begin.elapsed()
        );
    }

    /// Waits until everything is as the store says, on both machines.
    #[track_caller]
    fn settles(&mut self, sizes: &[usize]) {
        let begin = Instant::now();
        loop {
            let faults = self.faults(sizes);
            if faults.is_empty() {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "not at rest after {PATIENCE:?}: {faults:#?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn faults(&mut self, sizes: &[usize]) -> Vec<String> {
        let mut faults = Vec::new();
        let mut of_tenants = Vec::new();
        for (tenant, size) in self.tenants.iter().zip(sizes) {
            let pods = tenant.kubectl.json(&["get", "pods"]);
            let pods = pods["items"].as_array().expect("a list");
            let wanted = size + 1 + POLICIES.len();
            if pods.len() != wanted {
                faults.push(format!("{} Pods, and not {wanted}", pods.len()));
            }
            faults.extend(pods.iter().filter_map(unready));
            of_tenants.extend(
                pods.iter()
                    .filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())),
            );
        }
        let wanted = Wanted::read(&self.machines.platform);
        of_tenants.sort();
        if of_tenants != wanted.names() {
            faults.push(format!(
                "tenants have {of_tenants:?}, the super plane {:?}",
                wanted.names()
            ));
        }
        if !faults.is_empty() {
            return faults;
        }
        for ground in &self.grounds {
            faults.extend(ground.faults(&self.machines.platform, &wanted));
        }
        if faults.is_empty() {
            let count = |ground: &Ground| ground.supervisors(&self.machines.platform).len();
            let mut keepers = vec![(self.machines.platform.pid(), count(&self.grounds[0]))];
            keepers.extend(self.machines.second.agent().map(|pid| (pid, count(&self.grounds[1]))));
            faults.extend(self.descriptors.faults(&keepers, &self.machines.platform.supervisors()));
        }
        faults
    }

    /// Who runs as whom in the Pods that nobody kills.
    fn bystanders(&self) -> Vec<String> {
        let container = |kubectl: &Kubectl| {
            let status = kubectl.field(&["pod", BYSTANDER], ".status.containerStatuses[0]");
            let status: serde_json::Value = serde_json::from_str(&status).expect("kubectl prints JSON");
            format!("{} {}", status["containerID"], status["restartCount"])
        };
        self.tenants.iter().map(|tenant| container(&tenant.kubectl)).collect()
    }

    fn finish(self) {
        let Machines { platform, second } = self.machines;
        let root = platform.root();
        for ground in &self.grounds[1..] {
            root.run(&["cordon", &ground.node]);
        }
        for tenant in ["acme", "globex"] {
            platform.run(&["tenant", "delete", tenant]);
        }
        second.down();
        take_the_network_away();
        platform.finish();
    }
}

impl Machines {
    fn kill(&mut self, victim: Victim, prey: &Prey) {
        match victim {
            Victim::Server => self.platform.end_server(Signal::SIGKILL),
            Victim::Agent => self.second.end_agent(Signal::SIGKILL),
            Victim::Supervisor | Victim::Container => prey.kill(victim),
            Victim::Youngest => {
                if let Some(pid) = youngest(&self.platform.supervisors()) {
                    kill_now(pid);
                }
            }
        }
    }

    fn start_again(&mut self, victims: &[Victim], again: Option<Duration>) {
        if victims.contains(&Victim::Server) {
            if let Some(after) = again {
                start_and_kill(&self.platform, after);
            }
            self.platform.up();
        }
        if victims.contains(&Victim::Agent) {
            self.second.start_agent(&self.platform);
        }
    }
}

/// What a Pod that is not ready says of itself.
fn unready(pod: &Value) -> Option<String> {
    let status = &pod["status"];
    let conditions = status["conditions"].as_array();
    let ready = conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"));
    (!ready).then(|| {
        let metadata = &pod["metadata"];
        let (name, deleted) = (&metadata["name"], &metadata["deletionTimestamp"]);
        format!("{name} (deleted: {deleted}) is not ready: {status}")
    })
}

/// Both tenants' load while `end` does its work.
fn under_load(tenants: &[Tenant], round: u64, prey: &Prey, end: impl FnOnce()) -> Vec<Done> {
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A test that fails in between ends too.
        let _stop = StopAtEnd(stop);
        let loads = tenants
            .iter()
            .map(|tenant| scope.spawn(move || tenant.load(round, &prey.name, stop)));
        let loads: Vec<_> = loads.collect();
        end();
        stop.store(true, Ordering::Relaxed);
        loads.into_iter().map(|load| load.join().expect("it asserts")).collect()
    })
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn start_and_kill(platform: &Platform, after: Duration) {
    let mut up = platform.up_command();
    let mut child = up
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    std::thread::sleep(after);
    child.kill().expect("it was started here");
    child.wait().expect("it was started here");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn shuffled<T: Copy>(all: &[T], random: &mut Random) -> Vec<T> {
    let mut all = all.to_vec();
    for last in (1..all.len()).rev() {
        all.swap(
            last,
            usize::try_from(random.below(last as u64 + 1)).expect("it is small"),
        );
    }
    all
}

/// xorshift64: enough to pick moments, and the same again from the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
