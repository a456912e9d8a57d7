//! Many logins at once, of processes that make several each: everybody on an account of their own, and all on one.

use super::report::{Report, Table, percentile};
use super::site::{self, GOOGLE, OATH, Site, Way, lay};
use crate::support::machine::{Machine, User};
use crate::support::totp::{SECRET, hotps};
use std::cell::Cell;
use std::process::{Child, Stdio};
use std::time::Instant;

/// Processes at once.
const CLIENTS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Logins of each, one after the other.
const LOGINS: u64 = 10;
/// Times that all of that is done.
const ROUNDS: usize = 3;
/// Whoever is wrong is told so again and again: no rule ends it.
const UNLIMITED: &str = "[throttle]\nuser = \"\"\nhost = \"\"\n";

const WAYS: [Way; 5] = [Way::System, Way::Agent, Way::Home, Way::Google, Way::Oath];

/// Somebody with a device that counts.
struct Person {
    name: &'static str,
    secret: String,
    counter: Cell<u64>,
}

impl Person {
    fn codes(&self) -> Vec<String> {
        hotps(&self.secret, self.counter.replace(self.counter.get() + LOGINS), LOGINS)
    }
}

pub fn measure(site: &Site, report: &mut Report) {
    let machine = site.machine;
    let most = CLIENTS.into_iter().max().unwrap();
    let users: Vec<User> = (0..most)
        .map(|number| User { name: format!("client{number:02}").leak(), uid: 21_000 + u32::try_from(number).unwrap() })
        .collect();
    users.iter().for_each(|user| machine.add(*user));
    let people: Vec<Vec<Person>> = WAYS.iter().map(|way| people(machine, *way, &users)).collect();
    let about = format!(
        "Verdicts a second, the start of the processes included: {LOGINS} logins one after the other of each process, median of \
         {ROUNDS}. The codes are right, and of ours each has to get in."
    );
    report.add(table("Many at once, on an account each", &about, |way, clients| {
        let people = &people[WAYS.iter().position(|other| *other == way).unwrap()];
        let logins: Vec<_> = people[..clients].iter().map(|person| (person.name, person.codes())).collect();
        rate(machine, way, way.is_ours(), &logins)
    }));
    let about = "The same with all of them on one account, each with the same codes at the same time.";
    report.add(table("Many at once, on one account", about, |way, clients| {
        let person = &people[WAYS.iter().position(|other| *other == way).unwrap()][0];
        let codes = person.codes();
        rate(machine, way, false, &vec![(person.name, codes); clients])
    }));
}

fn table(title: &str, about: &str, rate: impl Fn(Way, usize) -> f64) -> Table {
    let columns: Vec<&str> = ["processes"].into_iter().chain(WAYS.iter().map(|way| way.name())).collect();
    let mut table = Table::new(title, about, &columns);
    for clients in CLIENTS {
        let mut rates = [const { Vec::new() }; WAYS.len()];
        for _ in 0..ROUNDS {
            WAYS.iter().zip(&mut rates).for_each(|(way, rates)| rates.push(rate(*way, clients)));
        }
        let rates = rates.map(|rates| format!("{:.0}", percentile(rates, 50)));
        table.row([clients.to_string()].into_iter().chain(rates).collect());
    }
    table
}

fn service(way: Way) -> String {
    format!("many-{}", way.service())
}

/// Everybody, enrolled for a service of its own.
fn people(machine: &Machine, way: Way, users: &[User]) -> Vec<Person> {
    let service = service(way);
    let file = match way {
        Way::Google => "secret=${HOME}/.many no_increment_hotp".to_owned(),
        Way::Oath => "usersfile=/home/oath/many window=5".to_owned(),
        _ => String::new(),
    };
    match way {
        Way::Google => machine.service(&service, &format!("auth required {GOOGLE}.so {file}\n")),
        Way::Oath => {
            let lines: String = users.iter().map(|user| format!("HOTP {} - {}\n", user.name, site::HEX)).collect();
            lay(&machine.path("/home/oath/many"), lines.as_bytes(), 0);
            machine.service(&service, &format!("auth required {OATH}.so {file}\n"));
        }
        _ => site::ours(machine, way, &service, UNLIMITED),
    }
    let person = |user: &User| {
        let secret = match way {
            Way::System | Way::Agent => site::enrolled(machine, &service, user.name, &["--counter-based"]).secret,
            Way::Home | Way::Google => {
                let name = if way == Way::Home { ".home" } else { ".many" };
                let text = format!("{SECRET}\n\" HOTP_COUNTER 1\n");
                lay(&machine.path(&format!("{}/{name}", user.home())), text.as_bytes(), user.uid);
                SECRET.to_owned()
            }
            _ => SECRET.to_owned(),
        };
        Person { name: user.name, secret, counter: Cell::new(u64::from(way != Way::Oath)) }
    };
    users.iter().map(person).collect()
}

/// Verdicts a second.
fn rate(machine: &Machine, way: Way, all_get_in: bool, logins: &[(&str, Vec<String>)]) -> f64 {
    let service = service(way);
    let commands: Vec<_> = logins
        .iter()
        .map(|(name, codes)| {
            let mut command = machine.command(machine.client());
            command.args([&service, *name, "--each"]).args(codes.iter().flat_map(|code| ["--answer", code]));
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
        let is_in = !all_get_in || results.lines().all(|line| line == "result 0");
        assert!(output.status.success() && is_in, "{way:?}: a login failed: {results}");
    }
    (count as f64 * LOGINS as f64) / start.elapsed().as_secs_f64()
}
