//! What it costs that another process decides: of one login, and of many at once.

use super::{Case, KINDS, Store, interleaved};
use crate::support::agent::Agent;
use crate::support::dist;
use crate::support::machine::{Home, Machine, User};
use crate::support::totp::hotps;
use std::process::{Child, Stdio};
use std::time::Instant;

/// Clients at once.
const CLIENTS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Logins of each client, one after the other.
const LOGINS: u64 = 20;
/// Times that all of that is done.
const ROUNDS: usize = 3;

pub fn bench() {
    for (home, name) in [(Home::Ext4, "ext4 on a loop device"), (Home::Memory, "tmpfs")] {
        let machine = Machine::with(home, &dist("pam_totp.so"));
        let store = Store::new(&machine, "system", "/home/state");
        let conf = machine.read("/etc/security/system.toml");
        machine.write("/etc/security/agent.toml", conf.replace("[defaults]\n", "[defaults]\nvia = \"agent\"\n"));
        machine.service("agent", "auth required pam_totp.so conf=/etc/security/agent.toml\n");
        let through = Store { service: "agent", ..store.clone() };
        let _agent = Agent::start(&machine);
        println!("\nroot-only store on {name}, in the process of the module and through the agent");
        latency(&store, &through);
        throughput(&machine);
    }
}

fn latency(own: &Store, through: &Store) {
    let mut cases = [
        Case::new("in the process, right", || own.login(true)),
        Case::new("in the process, wrong", || own.login(false)),
        Case::new("through the agent, right", || through.login(true)),
        Case::new("through the agent, wrong", || through.login(false)),
    ];
    let medians = interleaved(&mut cases);
    let (_, wall) = KINDS[0];
    let [right, wrong, agent_right, agent_wrong] = medians.map(wall);
    println!("by the clock:");
    println!("  through the agent, right, above the same in the process: {:.0} µs", agent_right - right);
    println!("  through the agent, wrong, above the same in the process: {:.0} µs", agent_wrong - wrong);
    println!("  through the agent, wrong / right: {:.2}", agent_wrong / agent_right);
}

/// Somebody with a device that counts.
struct Person {
    name: &'static str,
    secret: String,
    counter: u64,
}

/// Everybody logs in again and again, each on their own account.
fn throughput(machine: &Machine) {
    let most = CLIENTS.into_iter().max().unwrap();
    let mut people: Vec<_> = (0..most).map(|number| person(machine, number)).collect();
    println!("right logins a second (median of {ROUNDS}; {LOGINS} logins a client):");
    println!("{:>10} {:>16} {:>18} {:>8}", "clients", "in the process", "through the agent", "ratio");
    for clients in CLIENTS {
        let mut rates = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            for (service, rates) in ["system", "agent"].into_iter().zip(&mut rates) {
                rates.push(rate(machine, service, &mut people[..clients]));
            }
        }
        let [own, agent] = rates.map(|mut rates: Vec<f64>| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        println!("{clients:>10} {own:>16.0} {agent:>18.0} {:>8.2}", agent / own);
    }
}

fn person(machine: &Machine, number: usize) -> Person {
    let name: &'static str = format!("client{number:02}").leak();
    machine.add(User { name, uid: 21_000 + u32::try_from(number).unwrap() });
    let arguments = ["enrol", "--user", name, "--counter-based", "--no-confirm", "--json"];
    let conf = ["--conf", "/etc/security/system.toml"];
    let printed = super::output_of(machine.command(machine.program()).args(arguments).args(conf));
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    Person { name, secret: printed["secret"].as_str().unwrap().to_owned(), counter: 1 }
}

/// Logins a second.
fn rate(machine: &Machine, service: &str, people: &mut [Person]) -> f64 {
    let commands: Vec<_> = people
        .iter_mut()
        .map(|person| {
            let codes = hotps(&person.secret, person.counter, LOGINS);
            person.counter += LOGINS;
            let mut command = machine.command(machine.client());
            command.args([service, person.name, "--each"]).args(codes.iter().flat_map(|code| ["--answer", code]));
            command.stdout(Stdio::piped());
            command
        })
        .collect();
    let start = Instant::now();
    let clients: Vec<Child> = commands.into_iter().map(|mut command| command.spawn().unwrap()).collect();
    let count = clients.len();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        let results = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && results.lines().all(|line| line == "result 0"), "a login failed: {results}");
    }
    (count as f64 * LOGINS as f64) / start.elapsed().as_secs_f64()
}
