//! A fleet: a cluster, and private machines that have their records in it, each with its agent.

use super::agent::{Agent, exchange};
use super::etcd::{BASTIONS, Cluster, private};
use super::machine::Machine;
use super::root_only::{POLICY, STACK, json, totp};
use pam_totp::agent::wire::{Knock, Reply, Request, Verdict};
use pam_totp::secret::Secret;
use std::fs;
use std::path::Path;

/// Where a machine has what it comes to the cluster with.
pub const FILES: &str = "/etc/security/pam_totp.fleet.d";
pub const CONF: &str = "/etc/security/pam_totp.fleet.toml";
pub const RING: &str = "/etc/security/pam_totp.keys";

/// A machine of the fleet called NAME, that is not ready yet: it has no keys. What is in `policy` goes on from `[defaults]`.
pub fn machine(cluster: &Cluster, name: &str, policy: &str) -> Machine {
    let machine = Machine::new();
    for service in ["sshd", "test"] {
        machine.service(service, STACK);
    }
    self::policy(&machine, policy);
    equip(cluster, &machine, name);
    machine
}

/// Gives it another policy.
pub fn policy(machine: &Machine, policy: &str) {
    machine.write(POLICY, format!("version = 1\n[defaults]\nstore = \"fleet\"\nfail_delay = \"0s\"\n{policy}"));
}

/// Gives a machine its way to the cluster.
pub fn equip(cluster: &Cluster, machine: &Machine, name: &str) {
    // Several machines may come as the same user: what they are called in the fleet is another thing.
    let user = if BASTIONS.contains(&name) { name } else { BASTIONS[0] };
    cluster.equip(user, &machine.path(FILES));
    let conf =
        cluster.conf(user, Path::new(FILES)).replace(&format!("host = \"{user}\""), &format!("host = \"{name}\""));
    private(&machine.path(CONF), conf);
}

/// Makes the fleet at its first machine: a key, which seals, and its document.
pub fn found(machine: &Machine) {
    let key = json(machine, &["key", "new"])["key"].as_str().unwrap().to_owned();
    totp(machine, &["key", "activate", &key]);
    totp(machine, &["fleet", "init"]);
}

/// Gives a machine the keys that another one has.
pub fn share_keys(from: &Machine, to: &Machine) {
    private(&to.path(RING), fs::read(from.path(RING)).unwrap());
}

/// So many machines of one fleet, called `bastion1` and so on.
pub fn machines(cluster: &Cluster, count: usize, policy: &str) -> Vec<Machine> {
    let machines: Vec<_> = (1..=count).map(|number| machine(cluster, &format!("bastion{number}"), policy)).collect();
    found(&machines[0]);
    machines.iter().skip(1).for_each(|machine| share_keys(&machines[0], machine));
    machines
}

/// An agent on each.
pub fn agents(machines: &[Machine]) -> Vec<Agent<'_>> {
    machines.iter().map(Agent::start).collect()
}

// ---- Requests by hand ----

/// Begins a login at an agent: what it wants back, or that it is over.
pub fn begin(agent: &Agent, knock: Knock) -> Result<Vec<u8>, Verdict> {
    match reply(agent, &Request::Begin(knock, None)) {
        Reply::Question { login, .. } => Ok(login),
        Reply::Verdict { verdict, .. } => Err(verdict),
        _ => panic!("neither question nor verdict"),
    }
}

/// What becomes of it with this code.
pub fn answer(agent: &Agent, login: Vec<u8>, code: &str) -> Verdict {
    match reply(agent, &Request::Answer(login, Ok(Secret::new(code.into())))) {
        Reply::Verdict { verdict, .. } => verdict,
        _ => panic!("no verdict"),
    }
}

/// Both.
pub fn verdict(agent: &Agent, knock: Knock, code: &str) -> Verdict {
    begin(agent, knock).map_or_else(|verdict| verdict, |login| answer(agent, login, code))
}

/// Somebody at the service `test`, who comes from there.
pub fn knock(user: &str, rhost: &str) -> Knock {
    Knock { service: b"test".to_vec(), user: user.into(), rhost: rhost.into(), ..Knock::default() }
}

fn reply(agent: &Agent, request: &Request) -> Reply {
    let reply = exchange(agent.socket(), request.message().unwrap().expose()).expect("an answer in time");
    Reply::parse(&reply).unwrap()
}
