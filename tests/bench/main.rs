//! `make bench`: what a login costs, from pam_start to pam_end, one process a login, in one run.
//!
//! ```text
//! bench [disk | ext4 | tmpfs]   everything, with homes and state_dir on the disk of the temporary directory, on an ext4 on a
//!                               loop device, or on a tmpfs
//! bench logins | counts | many | growth
//!                               a part of that, which is printed only
//! bench people [COUNT]          the root-only store with 10 people in it and with COUNT (1,000,000, which is the most)
//! bench fleet [COUNT]           a fleet, with a few people and with COUNT (100,000)
//! bench hosts [COUNT...]       hosts of a fleet that come to the cluster at once (10, 100, 1000)
//! ```
//!
//! What is printed is in `target/bench` too, with a picture of it; with PAM_TOTP_WRITE=1 `docs/benchmark.md` has it then.

#![allow(clippy::disallowed_methods, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(dead_code, unreachable_pub, unsafe_code)]

mod counts;
mod fleet;
mod growth;
mod logins;
mod report;
mod site;
#[path = "../support/mod.rs"]
mod support;
mod throughput;

use report::Report;
use site::Site;
use support::machine::{Home, Machine};
use support::{dist, need};

const PEOPLE: usize = 1_000_000;
const FLEET: usize = 100_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text}: is that a number?"));
    let programs = ["oathtool", "strace", "valgrind"];
    programs.iter().for_each(|program| need(program, program));
    need("cc", "gcc");
    match words.as_slice() {
        [] | ["disk"] => everything(Home::Directory, "the disk of the temporary directory"),
        ["ext4"] => everything(Home::Ext4, "an ext4 on a loop device"),
        ["tmpfs"] => everything(Home::Memory, "a tmpfs"),
        [part @ ("logins" | "counts" | "many" | "growth")] => {
            let (machine, mut report) = (machine(Home::Directory), Report::default());
            let measure = match *part {
                "logins" => logins::measure,
                "counts" => counts::measure,
                "many" => throughput::measure,
                _ => growth::measure,
            };
            measure(&Site::new(&machine), &mut report);
            report.print_goals();
        }
        ["people", count @ ..] => {
            let mut report = Report::default();
            let count = count.first().map_or(PEOPLE, |count| number(count));
            growth::many_people(&machine(Home::LargeExt4), count, &mut report);
            report.print_goals();
        }
        ["fleet", count @ ..] => fleet::bench(count.first().map_or(FLEET, |count| number(count))),
        ["hosts"] => fleet::bench_hosts(&fleet::HOSTS),
        ["hosts", counts @ ..] => fleet::bench_hosts(&counts.iter().map(|count| number(count)).collect::<Vec<_>>()),
        // What this program calls itself for.
        ["load", module] => counts::load(module),
        _ => panic!("{arguments:?}: what is that?"),
    }
}

fn everything(home: Home, disk: &str) {
    let mut report = Report::default();
    report.say(&format!("Homes and `state_dir` are on {disk}; {}.", report::host()));
    let machine = machine(home);
    let site = Site::new(&machine);
    logins::measure(&site, &mut report);
    counts::measure(&site, &mut report);
    throughput::measure(&site, &mut report);
    growth::measure(&site, &mut report);
    report.finish();
}

fn machine(home: Home) -> Machine {
    Machine::with(home, &dist("pam_totp.so"))
}
