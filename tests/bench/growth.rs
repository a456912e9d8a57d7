//! What a login costs as things get more: people, scratch codes, devices, time steps.

use super::counts::instructions;
use super::logins::interleaved;
use super::report::{Goal, Report, Table, percentile};
use super::site::{self, Case, GOOGLE, HEX, Kind, OATH, OATH_USERS, Site, Way, lay};
use crate::support::machine::Machine;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

const ROUNDS: usize = 40;
/// What a login with many people may take of one with few.
const FLAT: f64 = 1.1;
/// Rounds of a comparison that a goal is about.
const MANY_ROUNDS: usize = 200;

pub fn measure(site: &Site, report: &mut Report) {
    report.add(growth(
        "Scratch codes",
        "A right code, with so many scratch codes in the file.",
        &[0, 10, 100, 1000],
        &[Way::Home, Way::Google],
        |way, count| {
            let codes = site::file(site.machine, way, Kind::Right, count, "");
            Case::of(site.machine, way, Kind::Right, way.service(), codes)
        },
    ));
    report.add(growth(
        "Window",
        "A wrong code, with a window of so many time steps.",
        &[3, 9, 21, 99],
        &[Way::Home, Way::Google, Way::Oath],
        |way, count| window(site.machine, way, count),
    ));
    report.add(growth(
        "Devices",
        "A wrong code, with so many devices in the record.",
        &[1, 2, 4, 8],
        &[Way::System],
        |way, count| devices(site.machine, way, count),
    ));
    people(site, report);
}

/// Microseconds and instructions, a line for each size.
fn growth<'a>(title: &str, about: &str, sizes: &[u32], ways: &[Way], case: impl Fn(Way, u32) -> Case<'a>) -> Table {
    let about = format!("{about} Medians of {ROUNDS} rounds, and the instructions of `pam_authenticate`.");
    let columns: Vec<String> =
        ways.iter().flat_map(|way| [format!("{}, µs", way.name()), "instructions".to_owned()]).collect();
    let columns: Vec<&str> = [""].into_iter().chain(columns.iter().map(String::as_str)).collect();
    let mut table = Table::new(title, &about, &columns);
    for size in sizes {
        let cases: Vec<Case> = ways.iter().map(|way| case(*way, *size)).collect();
        let medians = medians(&cases.iter().collect::<Vec<_>>(), ROUNDS);
        let cells = cases.iter().zip(medians);
        let cells = cells.flat_map(|(case, median)| [format!("{median:.0}"), instructions(case).to_string()]);
        table.row([size.to_string()].into_iter().chain(cells).collect());
    }
    table
}

fn medians(cases: &[&Case], rounds: usize) -> Vec<f64> {
    interleaved(cases, rounds).iter().map(|taken| percentile(taken.iter().map(|taken| taken.wall), 50)).collect()
}

fn window<'a>(machine: &'a Machine, way: Way, steps: u32) -> Case<'a> {
    // pam_oath's is on either side.
    let service = format!("window-{}", way.service());
    let codes = match way {
        Way::Oath => {
            let line = format!("auth required {OATH}.so usersfile={OATH_USERS} window={}\n", steps / 2);
            machine.service(&service, &line);
            site::wrong(Kind::Wrong)
        }
        _ => site::file(machine, way, Kind::Wrong, 0, &format!("\" WINDOW_SIZE {steps}\n")),
    };
    if way == Way::Google {
        // The window alone, and not the search for a clock that is wrong.
        machine.service(&service, &format!("auth required {GOOGLE}.so secret=${{HOME}}/.google noskewadj\n"));
        return Case::of(machine, way, Kind::Wrong, &service, codes);
    }
    let service = if way == Way::Oath { &service } else { way.service() };
    Case::of(machine, way, Kind::Wrong, service, codes)
}

fn devices<'a>(machine: &'a Machine, way: Way, count: u32) -> Case<'a> {
    let service = format!("devices-{count}");
    site::ours(machine, way, &service, "");
    let codes = site::enrol(machine, &service, Kind::Wrong);
    for number in 1..count {
        let user = Kind::Wrong.user().name;
        site::program(machine, &service, &["device", "add", &format!("d{number}"), "--user", user, "--no-confirm"]);
    }
    Case::of(machine, way, Kind::Wrong, &service, codes)
}

fn people(site: &Site, report: &mut Report) {
    let about = format!(
        "With so many other people in the root-only store and in {OATH}'s file. Microseconds, medians of {ROUNDS} rounds. \
         `make bench BENCH=people` goes on to a million in the store."
    );
    let names =
        [(Way::System, Kind::Right), (Way::System, Kind::Wrong), (Way::Oath, Kind::Right), (Way::Oath, Kind::Wrong)];
    let cases = names.map(|(way, kind)| site.case(way, kind).unwrap());
    let columns = names.map(|(way, kind)| format!("{}, {}", way.name(), kind.name()));
    let columns: Vec<&str> = [""].into_iter().chain(columns.iter().map(String::as_str)).collect();
    let mut table = Table::new("People", &about, &columns);
    let mut there = 0;
    for people in [10, 100, 1000, 10_000, 100_000] {
        crowd(&site.machine.path("/home/state-system"), there..people);
        // Ours are in it with the counters that they have got to.
        let path = site.machine.path(OATH_USERS);
        let others: String = (there..people).map(|number| format!("HOTP {} - {HEX}\n", person(number))).collect();
        lay(&path, (others + &fs::read_to_string(&path).unwrap()).as_bytes(), 0);
        there = people;
        let row = medians(&cases, ROUNDS).into_iter().map(|median| format!("{median:.0}"));
        table.row([people.to_string()].into_iter().chain(row).collect());
    }
    report.add(table);
}

fn person(number: usize) -> String {
    format!("person{number:07}")
}

/// Other people in a root-only store, by name: nobody reads their files, and nothing of them is synced.
fn crowd(state_dir: &Path, people: Range<usize>) {
    for number in people {
        let name = person(number);
        for file in
            [format!("records/{name}"), format!("records/{name}~"), format!("enrolled/{name}.{}", 100_000 + number)]
        {
            File::create_new(state_dir.join(file)).unwrap();
        }
    }
    // What they leave to be written is not to be measured.
    rustix::fs::sync();
}

/// Two root-only stores on one file system: 10 people in one, `count` in the other.
pub fn many_people(machine: &Machine, count: usize, report: &mut Report) {
    let mut cases = Vec::new();
    for (service, people) in [("few", 10), ("many", count)] {
        let start = Instant::now();
        site::ours(machine, Way::System, service, "");
        crowd(&machine.path(&format!("/home/state-{service}")), 1..people);
        for kind in [Kind::Right, Kind::Wrong] {
            let codes = site::enrol(machine, service, kind);
            cases.push(Case::of(machine, Way::System, kind, service, codes));
        }
        println!("{people} people, made in {:.0} s", start.elapsed().as_secs_f64());
    }
    let [few_right, few_wrong, many_right, many_wrong] =
        medians(&cases.iter().collect::<Vec<_>>(), MANY_ROUNDS).try_into().unwrap();
    let about =
        format!("In the root-only store, on an ext4 on a loop device. Microseconds, medians of {MANY_ROUNDS} rounds.");
    let mut table = Table::new(&format!("{count} people beside 10"), &about, &["", "10", &count.to_string()]);
    for (kind, few, many) in [(Kind::Right, few_right, many_right), (Kind::Wrong, few_wrong, many_wrong)] {
        table.row(vec![kind.name().to_owned(), format!("{few:.0}"), format!("{many:.0}")]);
        report.goal(Goal::at_most(&format!("{count} people / 10, {}", kind.name()), many / few, FLAT));
    }
    report.add(table);
}
