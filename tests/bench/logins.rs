//! What one login takes, each way and of each kind.

use super::report::{Goal, Report, Table, percentile};
use super::site::{Case, GOOGLE, KINDS, Kind, OATH, Site, Taken, WAYS, Way};
use crate::support::numbers::Numbers;

const ROUNDS: usize = 200;
/// Microseconds that a store may take more than its floor.
const ABOVE: f64 = 100.0;
/// What a login with the root-only store may take of one with the C module.
const SHARE: f64 = 0.25;
/// What a wrong code may take of a right one.
const WRONG: f64 = 1.1;

pub fn measure(site: &Site, report: &mut Report) {
    let all: Vec<_> = site.cases.iter().collect();
    let taken = interleaved(&all, rounds());
    let median = |way: Way, kind: Kind| {
        let at = all.iter().position(|case| (case.way, case.kind) == (way, kind))?;
        Some(percentile(taken[at].iter().map(|taken| taken.wall), 50))
    };
    let columns = ["", "", "µs", "p10", "p90", "running", "above its floor", GOOGLE, OATH];
    let mut table = Table::new(
        "One login",
        &format!(
            "From `pam_start` to `pam_end`, one process a login, {} rounds of all in an order of their own. Microseconds by \
             the clock: median, 10 % and 90 %; and the median for which the process was running. Then the medians beside that \
             of the floor, and divided by those of the other modules.",
            rounds()
        ),
        &columns,
    );
    for kind in KINDS {
        for (case, taken) in all.iter().zip(&taken).filter(|(case, _)| case.kind == kind) {
            let wall = |percent| percentile(taken.iter().map(|taken| taken.wall), percent);
            let above = case.way.floor().and_then(|floor| Some(wall(50) - median(floor, Kind::Right)?));
            let beside = |other: Way| {
                let other = median(other, kind).filter(|_| case.way.is_ours())?;
                Some(format!("{:.2}", wall(50) / other))
            };
            let mut row = vec![kind.name().to_owned(), case.way.name().to_owned()];
            row.extend([wall(50), wall(10), wall(90)].map(|time| format!("{time:.0}")));
            row.push(format!("{:.0}", percentile(taken.iter().map(|taken| taken.cpu), 50)));
            row.push(above.filter(|_| case.kind.is_accepted()).map_or_else(String::new, |above| format!("{above:.0}")));
            row.extend([Way::Google, Way::Oath].map(|other| beside(other).unwrap_or_default()));
            table.row(row);
            report.bar(kind.name(), case.way.name(), [wall(10), wall(50), wall(90)]);
        }
    }
    report.add(table);
    goals(report, &median);
}

fn goals(report: &mut Report, median: &impl Fn(Way, Kind) -> Option<f64>) {
    let median = |way, kind| median(way, kind).unwrap();
    for way in WAYS.into_iter().filter(|way| way.is_ours()) {
        let (right, name) = (median(way, Kind::Right), way.name());
        let floor = median(way.floor().unwrap(), Kind::Right);
        report.goal(Goal::at_most(&format!("{name}: µs above its floor"), right - floor, ABOVE));
        report.goal(Goal::at_most(&format!("{name}: wrong / right"), median(way, Kind::Wrong) / right, WRONG));
    }
    for (way, share) in [(Way::Home, 1.0), (Way::System, SHARE)] {
        let name = format!("{}, right / {GOOGLE}", way.name());
        report.goal(Goal::at_most(&name, median(way, Kind::Right) / median(Way::Google, Kind::Right), share));
    }
}

/// All of them, each once a round, in another order each time.
pub fn interleaved(cases: &[&Case], rounds: usize) -> Vec<Vec<Taken>> {
    let mut numbers = Numbers(1);
    let mut taken = vec![Vec::with_capacity(rounds); cases.len()];
    let mut order: Vec<usize> = (0..cases.len()).collect();
    for _ in 0..rounds {
        for at in (1..order.len()).rev() {
            order.swap(at, numbers.next(at as u64 + 1) as usize);
        }
        order.iter().for_each(|&at| taken[at].push(cases[at].login()));
    }
    taken
}

/// How many, where nobody asks for another number to try something out.
fn rounds() -> usize {
    std::env::var("BENCH_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap())
}
