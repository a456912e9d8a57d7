//! What can be counted rather than timed: instructions, system calls, memory; and what loading a module takes.

use super::report::{Goal, Report, Table, percentile};
use super::site::{Case, GOOGLE, Kind, OATH, Site, Way};
use crate::support::{dist, output_of};
use std::ffi::CString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Times that a module is loaded, each in a process of its own.
const LOADS: usize = 100;
/// Times that a process is looked at for its memory.
const LOOKS: usize = 5;
/// Instructions that a login may take.
const INSTRUCTIONS: f64 = 350_000.0;

pub fn measure(site: &Site, report: &mut Report) {
    let columns = ["", "", "instructions", "system calls", "of them syncs", "KB"];
    let about = "Instructions of `pam_authenticate` alone (callgrind), in the process that asks; what the agent does is not among \
                 them. System calls and syncs of the whole, without those that a login by pam_permit makes too (strace). By how \
                 much the process was larger at its largest.";
    let mut table = Table::new("What a login does", about, &columns);
    let permit = calls(site.case(Way::Permit, Kind::Right).unwrap());
    for case in site.cases.iter().filter(|case| case.way != Way::Permit) {
        let (instructions, calls) = (instructions(case), calls(case));
        let kilobytes = percentile((0..LOOKS).map(|_| case.login().kilobytes), 50);
        let all = calls.len().saturating_sub(permit.len());
        let syncs = calls.iter().filter(|call| ["fsync", "fdatasync"].contains(&call.as_str())).count();
        let mut row = vec![case.kind.name().to_owned(), case.way.name().to_owned()];
        row.extend([instructions, all, syncs, kilobytes as usize].map(|number| number.to_string()));
        table.row(row);
        if case.way.is_ours() && [Kind::Right, Kind::Wrong].contains(&case.kind) {
            let name = format!("{}: instructions, {}", case.way.name(), case.kind.name());
            report.goal(Goal::at_most(&name, instructions as f64, INSTRUCTIONS));
        }
    }
    report.add(table);
    report.add(loads());
}

/// The instructions of pam_authenticate.
pub fn instructions(case: &Case) -> usize {
    let valgrind =
        ["valgrind", "--tool=callgrind", "--toggle-collect=pam_authenticate", "--callgrind-out-file=/dev/null"];
    let output = case.command(&valgrind).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim().parse());
    count.unwrap_or_else(|| panic!("callgrind says: {said}")).unwrap()
}

/// The names of the system calls of a login's process.
fn calls(case: &Case) -> Vec<String> {
    let traced = case.machine.shared().join("calls");
    output_of(&mut case.command(&["strace", "-f", "-o", traced.to_str().unwrap()]));
    let text = fs::read_to_string(&traced).unwrap();
    let calls = text.lines().filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('));
    calls
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect()
}

/// What each module is by itself.
fn loads() -> Table {
    let modules: Vec<_> = [dist("pam_totp.so"), installed(GOOGLE), installed(OATH), installed("pam_permit")].into();
    let mut taken = vec![Vec::new(); modules.len()];
    let this = std::env::current_exe().unwrap();
    for _ in 0..LOADS {
        for (module, taken) in modules.iter().zip(&mut taken) {
            taken.push(output_of(Command::new(&this).arg("load").arg(module)).trim().parse::<f64>().unwrap());
        }
    }
    let about = format!(
        "Size of the file; microseconds from `dlopen` to the end of `dlclose`, in a process that has libpam already: \
                         median, 10 % and 90 % of {LOADS} processes."
    );
    let mut table = Table::new("The module by itself", &about, &["", "KB", "µs", "p10", "p90"]);
    for (module, taken) in modules.iter().zip(&taken) {
        let mut row = vec![module.file_name().unwrap().to_str().unwrap().to_owned()];
        row.push((fs::metadata(module).unwrap().len() / 1024).to_string());
        row.extend([50, 10, 90].map(|percent| format!("{:.0}", percentile(taken.iter().copied(), percent))));
        table.row(row);
    }
    table
}

/// Where libpam looks for it.
fn installed(module: &str) -> PathBuf {
    let triplet = output_of(Command::new("cc").arg("-print-multiarch"));
    PathBuf::from(format!("/lib/{}/security/{module}.so", triplet.trim()))
}

/// Loads a module as libpam would, and prints the microseconds.
pub fn load(module: &str) {
    let open = |name: &str| {
        let name = CString::new(name).unwrap();
        // SAFETY: a string; what is loaded has no constructors but the compiler's.
        unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) }
    };
    assert!(!open("libpam.so.0").is_null());
    let start = Instant::now();
    let handle = open(module);
    assert!(!handle.is_null(), "{module}");
    // SAFETY: just opened.
    unsafe { libc::dlclose(handle) };
    println!("{:.1}", start.elapsed().as_secs_f64() * 1e6);
}
