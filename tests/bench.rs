//! `make bench`: what a login costs, from pam_start to pam_end, one process a login, in one run, interleaved.

#![allow(clippy::disallowed_methods, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(dead_code, unreachable_pub)]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::time::Instant;
use support::machine::{ALICE, Home, Machine};
use support::totp::{SECRET, code_now, wrong_code};
use support::{dist, need, output_of};

const ROUNDS: usize = 200;
const LINES: &str = "\" TOTP_AUTH\n\" DISALLOW_REUSE\n";

fn main() {
    need("oathtool", "oathtool");
    for (home, name) in [(Home::Ext4, "ext4 on a loop device"), (Home::Memory, "tmpfs")] {
        let machine = Machine::with(home, &dist("pam_totp.so"));
        // The rules would end the wrong ones; what they cost is the same.
        machine.without_limits();
        machine.service("permit", "auth required pam_permit.so\n");
        machine.service("ours", "auth required pam_totp.so\n");
        machine.service("theirs", "auth required pam_google_authenticator.so noskewadj\n");
        machine.service("theirs-skew", "auth required pam_google_authenticator.so\n");
        println!("\nhome on {name}, {ROUNDS} rounds, microseconds");
        println!("{:44} {:>8} {:>8} {:>8}", "", "lowest", "median", "90 %");
        let cases = [
            ("libpam with pam_permit", "permit", None),
            ("pam_totp, right", "ours", Some(true)),
            ("pam_totp, wrong", "ours", Some(false)),
            ("pam_google_authenticator, right", "theirs", Some(true)),
            ("pam_google_authenticator, wrong", "theirs", Some(false)),
            ("pam_google_authenticator, wrong, skew scan", "theirs-skew", Some(false)),
        ];
        let mut times = vec![Vec::new(); cases.len() + 1];
        for _ in 0..ROUNDS {
            for ((_, service, right), times) in cases.iter().zip(&mut times) {
                times.push(login(&machine, service, *right));
            }
            times[cases.len()].push(bare_calls(&machine));
        }
        let names = cases.iter().map(|(name, ..)| *name).chain(["bare calls: read, write, fsync, rename, fsync"]);
        let medians: Vec<f64> = names.zip(&mut times).map(|(name, times)| report(name, times)).collect();
        let floor = medians[0] + medians[6];
        println!("pam_totp, right, above its floor (libpam + bare calls): {:.0} µs", medians[1] - floor);
        println!("pam_totp, right / pam_google_authenticator, right: {:.2}", medians[1] / medians[3]);
        println!("pam_totp, wrong / right: {:.2}", medians[2] / medians[1]);
    }
}

/// Microseconds of one login. The record is new each time, so that the code is.
fn login(machine: &Machine, service: &str, right: Option<bool>) -> f64 {
    machine.enrol(ALICE, LINES);
    let code = match right {
        Some(false) => wrong_code(SECRET),
        _ => code_now(SECRET),
    };
    // Without waiting for the log, as Machine::login does.
    let mut command = machine.command(machine.client());
    let output = output_of(command.args([service, "alice", "--time", "--answer", &code]));
    let word = |key: &str| output.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    assert_eq!(word("result ") == "0", right != Some(false), "{output}");
    word("nanoseconds ").parse::<f64>().unwrap() / 1000.0
}

/// Microseconds of what a login cannot do without: it reads the file, and puts another in its place for good.
fn bare_calls(machine: &Machine) -> f64 {
    machine.enrol(ALICE, LINES);
    let (path, next) = (machine.path(&ALICE.secret_file()), machine.path("/home/alice/next"));
    let directory = File::open(machine.path(&ALICE.home())).unwrap();
    let start = Instant::now();
    let mut text = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut text).unwrap();
    let mut file = OpenOptions::new().write(true).create_new(true).open(&next).unwrap();
    file.write_all(&text).unwrap();
    file.sync_all().unwrap();
    std::fs::rename(&next, &path).unwrap();
    directory.sync_all().unwrap();
    start.elapsed().as_secs_f64() * 1e6
}

fn report(name: &str, times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[times.len() * percent / 100];
    println!("{name:44} {:8.0} {:8.0} {:8.0}", times[0], at(50), at(90));
    at(50)
}
