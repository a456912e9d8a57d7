use super::*;
use crate::policy::throttle::Rule;
use crate::system::private::tests::directory;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64 as Clock, AtomicUsize};

/// A table in the memory of one process.
pub(crate) struct Table(Vec<AtomicU64>);

impl Memory for Table {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }

    fn prepare(&self, _: Range<usize>) -> bool {
        true
    }
}

fn table() -> Table {
    let words: Vec<AtomicU64> = (0..LENGTH).map(|_| AtomicU64::new(0)).collect();
    for (word, value) in words.iter().zip(new_header().unwrap()) {
        word.store(value, SeqCst);
    }
    // Most tests begin at 1970.
    words[HIGHEST].store(0, SeqCst);
    Table(words)
}

pub(crate) fn ledger<C: Fn() -> Moment>(clock: C) -> HostLedger<Table, C> {
    HostLedger { memory: table(), clock, mac: OnceLock::new() }
}

fn rules(user: &str, host: &str) -> Throttle {
    let rule = |text: &str| Rule::try_from(text.to_owned()).unwrap();
    Throttle { user: rule(user), host: rule(host), ..Throttle::default() }
}

pub(crate) const ALICE: Who = Who::Person { name: b"alice", uid: 1000, key: "", is_virtual: false };
const HOUR: u64 = 3600;

/// A machine whose clocks are set by hand.
struct Machine {
    wall: Clock,
    boot: Clock,
}

impl Machine {
    fn at(wall: u64, boot: u64) -> Self {
        Self { wall: Clock::new(wall), boot: Clock::new(boot) }
    }

    fn set(&self, wall: u64, boot: u64) {
        self.wall.store(wall, SeqCst);
        self.boot.store(boot, SeqCst);
    }

    fn ledger(&self) -> HostLedger<Table, impl Fn() -> Moment + '_> {
        ledger(|| Moment { wall: self.wall.load(SeqCst), boot: self.boot.load(SeqCst) })
    }
}

/// Guesses until it is refused, at most `most` times; how many were judged.
fn guess<C: Fn() -> Moment>(ledger: &HostLedger<Table, C>, login: &Login, most: usize) -> usize {
    (0..most).take_while(|_| ledger.charge(login).map(|charge| ledger.keep(login, charge)).is_ok()).count()
}

fn login<'a>(who: Who<'a>, source: &'a Source, throttle: &'a Throttle) -> Login<'a> {
    Login { who, source, service: "sshd", throttle: Some(throttle), own_limit: None }
}

pub(crate) fn somebody(name: &str) -> Who<'_> {
    Who::Person { name: name.as_bytes(), uid: 1, key: "", is_virtual: false }
}

pub(crate) fn source(text: &str) -> Source {
    Source::named(text)
}

#[test]
fn of_a_thousand_guesses_at_once_ten_are_judged() {
    let throttle = rules("*:10/1h,30/1d", "");
    let ledger = ledger(|| Moment { wall: 1_000_000, boot: 100 });
    for round in 0..20 {
        let name = format!("user{round}");
        let who = Who::Person { name: name.as_bytes(), uid: 1, key: "", is_virtual: false };
        let here = source("192.0.2.1");
        let start = Barrier::new(50);
        let judged: usize = std::thread::scope(|scope| {
            let runners: Vec<_> = (0..50)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let login = login(who, &here, &throttle);
                        (0..20)
                            .filter(|_| ledger.charge(&login).map(|charge| ledger.keep(&login, charge)).is_ok())
                            .count()
                    })
                })
                .collect();
            runners.into_iter().map(|runner| runner.join().unwrap()).sum()
        });
        assert_eq!(judged, 10, "round {round}");
    }
}

/// Of so many people that the rows of some of them are the last ones.
#[test]
fn of_two_guesses_at_the_same_moment_one_is_judged() {
    const ROUNDS: usize = 500;
    let throttle = rules("*:1/1h", "");
    let ledger = ledger(|| Moment { wall: 1_000_000, boot: 100 });
    let (there, judged) = (AtomicUsize::new(0), [(); ROUNDS].map(|()| AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let here = source("192.0.2.1");
                for (round, judged) in judged.iter().enumerate() {
                    let name = format!("user{round}");
                    there.fetch_add(1, SeqCst);
                    // Without sleeping: whoever is woken is late.
                    for spins in 0_u32.. {
                        if there.load(SeqCst) > 2 * round + 1 {
                            break;
                        }
                        if spins % 1000 == 999 { std::thread::yield_now() } else { std::hint::spin_loop() }
                    }
                    let login = login(somebody(&name), &here, &throttle);
                    if let Ok(charge) = ledger.charge(&login) {
                        ledger.keep(&login, charge);
                        judged.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    assert!(judged.iter().all(|judged| judged.load(SeqCst) == 1), "{judged:?}");
}

#[test]
fn the_budget_comes_back_when_failures_are_old_enough() {
    let throttle = rules("*:10/1h,30/1d", "");
    let machine = Machine::at(1_000_000, 100);
    let ledger = machine.ledger();
    let here = source("192.0.2.1");
    let login = login(ALICE, &here, &throttle);
    let mut judged = Vec::new();
    for hours in 0..25 {
        machine.set(1_000_000 + hours * HOUR, 100 + hours * HOUR);
        judged.push(guess(&ledger, &login, 100));
    }
    let expected: Vec<_> = [10, 10, 10].into_iter().chain([0; 21]).chain([10]).collect();
    assert_eq!(judged, expected);
    // A second before an hour is over nothing comes back, and what was blocked has not prolonged it.
    let machine = Machine::at(1_000_000, 100);
    let ledger = machine.ledger();
    assert_eq!(guess(&ledger, &login, 100), 10);
    machine.set(1_000_000 + HOUR - 1, 100 + HOUR - 1);
    assert_eq!(guess(&ledger, &login, 100), 0);
    machine.set(1_000_000 + HOUR, 100 + HOUR);
    assert_eq!(guess(&ledger, &login, 100), 10);
}

#[test]
fn no_clock_opens_the_budget() {
    let throttle = rules("*:10/1h", "");
    let here = source("192.0.2.1");
    let login = login(ALICE, &here, &throttle);
    const NOW: u64 = 1_700_000_000;
    for (what, wall, boot, judged) in [
        ("ten years on", NOW + 315_360_000, 101, 0),
        ("an hour on", NOW + HOUR, 101, 0),
        ("an hour back", NOW - HOUR, 101, 0),
        ("1970", 0, 101, 0),
        ("an uptime of fifty years", NOW + 2 * HOUR, 1_600_000_000, 0),
        ("far beyond 2106", 1 << 40, 101, 0),
        ("an hour of uptime that the wall clock does not confirm", NOW, 100 + HOUR, 0),
        ("an hour back, and an hour later", NOW, 100 + 2 * HOUR, 0),
        ("set back for good, and an hour later", NOW - 100_000, 100 + HOUR, 10),
        ("another boot", NOW + 60, 5, 0),
        ("another boot at 1970", 0, 5, 0),
        ("another boot ten years on", NOW + 315_360_000, 5, 0),
        ("another boot, for an hour", NOW + 2 * HOUR, HOUR, 10),
        ("another boot at 1970, for an hour", 3 * HOUR, HOUR, 10),
    ] {
        let machine = Machine::at(NOW, 100);
        let ledger = machine.ledger();
        assert_eq!(guess(&ledger, &login, 100), 10);
        // Seen once at its beginning, as any other boot is.
        if boot < 100 || what.contains("boot") {
            machine.set(wall, 0);
            let _ = ledger.now();
        }
        machine.set(wall, boot);
        assert_eq!(guess(&ledger, &login, 100), judged, "{what}");
    }
}

#[test]
fn the_wall_clock_has_no_end() {
    let throttle = rules("*:10/1h", "");
    let here = source("192.0.2.1");
    for start in [(1 << 31) - 1800, (1 << 32) - 1800, 1 << 33] {
        let machine = Machine::at(start, 100);
        let ledger = machine.ledger();
        let login = login(ALICE, &here, &throttle);
        assert_eq!(guess(&ledger, &login, 100), 10);
        machine.set(start + HOUR - 1, 100 + HOUR - 1);
        assert_eq!(guess(&ledger, &login, 100), 0, "{start}");
        machine.set(start + HOUR, 100 + HOUR);
        assert_eq!(guess(&ledger, &login, 100), 10, "{start}");
        assert_eq!(ledger.latest_wall(), start + HOUR);
    }
}

#[test]
fn a_boot_clock_that_is_none_does_not_move_the_ledgers_own() {
    let machine = Machine::at(1_700_000_000, 100);
    let ledger = machine.ledger();
    assert_eq!(ledger.now().uptime, 100);
    for (boot, uptime) in [(1_700_000_000, 100), (u64::MAX, 100), (150, 150), (1 << 30, 150), (5, 150), (10, 155)] {
        machine.set(1_700_000_000, boot);
        assert_eq!(ledger.now().uptime, uptime, "{boot}");
    }
    assert!(is_good(&ledger.memory.0));
}

#[test]
fn nobody_can_keep_the_owner_out() {
    let throttle = rules("*:10/1h,30/1d", "*:10/1h,30/1d");
    let ledger = ledger(|| Moment { wall: 1_700_000_000, boot: 100 });
    let (home, nat, other) = (source("192.0.2.1"), source("192.0.2.2"), source("198.51.100.9"));
    let alice_at = |source| login(ALICE, source, &throttle);
    for from in [&home, &nat] {
        let charge = ledger.charge(&alice_at(from)).unwrap();
        ledger.give_back(&alice_at(from), vec![charge], None).unwrap();
    }
    // A thousand passwords typed at the prompt, from the owner's own address too.
    for from in [&other, &nat] {
        (0..1000).for_each(|_| ledger.charge_source(&alice_at(from)));
    }
    // A hundred tries of a stranger's su.
    let stranger = source("uid:1001");
    assert_eq!(guess(&ledger, &alice_at(&stranger), 100), 10);
    // Fifty wrong codes of a colleague behind the same address.
    let bob = Who::Person { name: b"bob", uid: 1002, key: "", is_virtual: false };
    guess(&ledger, &login(bob, &nat, &throttle), 50);
    for from in [&home, &nat] {
        let charge = ledger.charge(&alice_at(from)).unwrap();
        ledger.give_back(&alice_at(from), vec![charge], None).unwrap();
    }
    // Where she has never been, she is a stranger like any other.
    let new = source("203.0.113.1");
    assert_eq!(ledger.charge(&alice_at(&new)).unwrap_err(), Refusal::Person(Trigger { failures: 10, period: HOUR }));
    // From a known source there is a budget too.
    assert_eq!(guess(&ledger, &alice_at(&home), 100), 10);
}

#[test]
fn a_source_is_known_for_thirty_days() {
    let throttle = rules("*:3/1h", "");
    let machine = Machine::at(1_700_000_000, 100);
    let ledger = machine.ledger();
    let (home, other) = (source("192.0.2.1"), source("198.51.100.9"));
    let (at_home, elsewhere) = (login(ALICE, &home, &throttle), login(ALICE, &other, &throttle));
    ledger.give_back(&at_home, Vec::new(), None).unwrap();
    for (days, judged) in [(0, 3), (29, 3), (30, 0)] {
        machine.set(1_700_000_000 + days * DAY, 100 + days * DAY);
        assert_eq!(guess(&ledger, &elsewhere, 100), 3);
        assert_eq!(guess(&ledger, &at_home, 100), judged, "after {days} days");
    }
}

#[test]
fn the_hundredth_failure_in_a_row_disables_and_a_login_begins_anew() {
    let throttle = rules("", "");
    let machine = Machine::at(1_700_000_000, 100);
    let ledger = machine.ledger();
    let here = source("192.0.2.1");
    let login = login(ALICE, &here, &throttle);
    assert_eq!(guess(&ledger, &login, 99), 99);
    let charge = ledger.charge(&login).unwrap();
    ledger.give_back(&login, vec![charge], None).unwrap();
    assert_eq!(guess(&ledger, &login, 99), 99);
    assert!(!ledger.is_disabled(ALICE));
    assert_eq!(guess(&ledger, &login, 1000), 1);
    assert!(ledger.is_disabled(ALICE));
    machine.set(1_800_000_000, 100_000_100);
    assert_eq!(ledger.charge(&login).unwrap_err(), Refusal::Disabled, "time does not help");
    assert_eq!(
        guess(&ledger, &Login { who: Who::Person { name: b"bob", uid: 2, key: "", is_virtual: false }, ..login }, 5),
        5
    );
    assert!(ledger.unlock_person(ALICE, Some(&throttle)).unwrap());
    assert_eq!(guess(&ledger, &login, 1000), 100);
}

#[test]
fn what_failed_is_told_once() {
    let throttle = rules("*:10/1h", "");
    let machine = Machine::at(1_700_000_000, 100);
    let ledger = machine.ledger();
    let here = source("192.0.2.1");
    let login = login(ALICE, &here, &throttle);
    let log_in = || {
        let charge = ledger.charge(&login).unwrap();
        ledger.give_back(&login, vec![charge], None).unwrap();
    };
    log_in();
    assert_eq!(ledger.take_notice(ALICE), None);
    guess(&ledger, &login, 2);
    machine.set(1_700_000_060, 160);
    guess(&ledger, &login, 1);
    assert_eq!(ledger.take_notice(ALICE), None, "not before a login");
    machine.set(1_700_000_100, 200);
    log_in();
    assert_eq!(ledger.take_notice(ALICE), Some(Notice { failures: 3, latest: 1_700_000_060 }));
    assert_eq!(ledger.take_notice(ALICE), None);
}

#[test]
fn with_all_sources_taken_the_rows_of_people_still_bind() {
    let throttle = rules("*:10/1h", "*:10/1h");
    let ledger = ledger(|| Moment { wall: 1_700_000_000, boot: 100 });
    for number in 0..100_000_u32 {
        let from = Source::Address(std::net::Ipv4Addr::from(0x0a00_0000 + number).into());
        ledger.charge_source(&login(Who::Nobody(b"x"), &from, &throttle));
    }
    let judged: usize = (0..1000_u32)
        .map(|number| {
            let from = Source::Address(std::net::Ipv4Addr::from(0x0b00_0000 + number).into());
            guess(&ledger, &login(ALICE, &from, &throttle), 3)
        })
        .sum();
    assert_eq!(judged, 10);
}

#[test]
fn people_for_whom_no_row_is_left_share_one_and_are_bound_by_it() {
    let throttle = rules("*:10/1h", "");
    let ledger = ledger(|| Moment { wall: 1_700_000_000, boot: 100 });
    let here = source("192.0.2.1");
    let names: Vec<String> = (0..20_000).map(|number| format!("user{number}")).collect();
    for name in &names {
        let who = Who::Person { name: name.as_bytes(), uid: 1, key: "", is_virtual: false };
        guess(&ledger, &login(who, &here, &throttle), 1);
    }
    for name in ["alice", "bob", "carol"] {
        assert!(guess(&ledger, &login(somebody(name), &here, &throttle), 100) <= 10, "{name}");
    }
    // Live rows stay whose they are.
    let live = ledger.list(Some(&throttle)).unwrap().iter().filter(|row| row.kind == Kind::Strangers).count();
    assert!(live > 2000, "{live}");
    let nobodys: usize =
        (0..1000).map(|n| guess(&ledger, &login(Who::Nobody(format!("x{n}").as_bytes()), &here, &throttle), 100)).sum();
    assert!(nobodys <= 256 * 10, "names that do not exist share {nobodys}");
}

#[test]
fn rows_of_long_ago_are_given_to_others() {
    let throttle = rules("*:10/1h", "*:10/1h");
    let machine = Machine::at(1_700_000_000, 100);
    let ledger = machine.ledger();
    for day in 0..10_u64 {
        machine.set(1_700_000_000 + day * DAY, 100 + day * DAY);
        let mut counted = 0;
        for number in 0..1000_u32 {
            let from = Source::Address(std::net::Ipv4Addr::from(0x0a00_0000 + number + 1000 * day as u32).into());
            ledger.charge_source(&login(Who::Nobody(b"x"), &from, &throttle));
        }
        counted += ledger.list(Some(&throttle)).unwrap().iter().filter(|row| row.kind == Kind::Source).count();
        assert!(counted > 990, "day {day}: {counted}");
    }
}

#[test]
fn whitelists_spare_and_the_other_half_still_counts() {
    let throttle: Throttle = toml::from_str(
        "user = \"*:3/1h\"\nhost = \"*:5/1h\"\nuser_whitelist = [\"robot\"]\nhost_whitelist = [\"192.0.2.0/24\"]",
    )
    .unwrap();
    let ledger = ledger(|| Moment { wall: 1_700_000_000, boot: 100 });
    let (listed, other) = (source("192.0.2.1"), source("198.51.100.9"));
    let robot = Who::Person { name: b"robot", uid: 5, key: "", is_virtual: false };
    assert_eq!(guess(&ledger, &login(ALICE, &listed, &throttle), 50), 3, "the person's row binds");
    assert_eq!(guess(&ledger, &login(robot, &other, &throttle), 50), 5, "the source's row binds");
    assert_eq!(guess(&ledger, &login(robot, &listed, &throttle), 50), 50);
}

#[test]
fn unlocking_one_leaves_the_others() {
    let throttle = rules("*:3/1h", "*:5/1h");
    let ledger = ledger(|| Moment { wall: 1_700_000_000, boot: 100 });
    let (one, two) = (source("192.0.2.1"), source("2001:db8:0:1::5"));
    let bob = Who::Person { name: b"bob", uid: 2, key: "", is_virtual: false };
    for from in [&one, &two] {
        guess(&ledger, &login(ALICE, from, &throttle), 5);
        guess(&ledger, &login(bob, from, &throttle), 5);
    }
    let listed: Vec<_> = ledger
        .list(Some(&throttle))
        .unwrap()
        .into_iter()
        .map(|row| (row.kind.name(), String::from_utf8(row.name).unwrap(), row.failures))
        .collect();
    for expected in [
        ("strangers", "alice", 3),
        ("strangers", "bob", 3),
        ("source", "192.0.2.1", 5),
        ("source", "2001:db8:0:1::/64", 1),
        ("in-a-row", "alice", 3),
    ] {
        assert!(listed.contains(&(expected.0, expected.1.to_owned(), expected.2)), "{expected:?} {listed:?}");
    }
    assert!(ledger.unlock_person(ALICE, Some(&throttle)).unwrap());
    assert!(
        !ledger.unlock_person(ALICE, Some(&throttle)).unwrap()
            && !ledger.unlock_name(b"nobody", "", Some(&throttle)).unwrap()
    );
    assert_eq!(guess(&ledger, &login(ALICE, &two, &throttle), 5), 3);
    assert_eq!(guess(&ledger, &login(bob, &two, &throttle), 5), 0);
    assert_eq!(
        ledger.charge(&login(ALICE, &one, &throttle)).unwrap_err(),
        Refusal::Source(Trigger { failures: 5, period: HOUR })
    );
    assert!(ledger.unlock_source(&one, Some(&throttle)).unwrap());
    assert!(!ledger.unlock_source(&one, Some(&throttle)).unwrap(), "there is nothing left");
    assert_eq!(guess(&ledger, &login(bob, &one, &throttle), 5), 0);
    // Of somebody who is gone, what is known is the name.
    let failed = |name: &[u8]| ledger.list(Some(&throttle)).unwrap().iter().filter(|row| row.name == name).count();
    assert_eq!((failed(b"alice"), failed(b"bob")), (2, 2));
    assert!(ledger.unlock_name(b"alice", "", Some(&throttle)).unwrap());
    assert!(!ledger.unlock_name(b"alice", "", Some(&throttle)).unwrap());
    assert_eq!((failed(b"alice"), failed(b"bob")), (0, 2));
    // By a row alone, as a login ends it.
    ledger.end_row(bob).unwrap();
    assert_eq!(failed(b"bob"), 1);
    assert_eq!(ledger.take_notice(bob).map(|notice| notice.failures), Some(3));
}

#[test]
fn failures_in_a_row_that_are_all_there_is_are_forgotten_by_name_too() {
    let throttle = rules("", "");
    let machine = Machine::at(1_700_000_000, 100);
    let ledger = machine.ledger();
    let here = source("192.0.2.1");
    assert_eq!(guess(&ledger, &login(ALICE, &here, &throttle), 3), 3);
    machine.set(1_700_000_000 + 2 * DAY, 100 + 2 * DAY);
    assert_eq!(ledger.list(Some(&throttle)).unwrap().len(), 1);
    for was_there in [true, false] {
        assert_eq!(ledger.unlock_name(b"alice", "", Some(&throttle)), Ok(was_there));
    }
    assert_eq!(ledger.list(Some(&throttle)).unwrap(), []);
}

#[test]
fn garbage_counts_for_nothing_and_blocks_nobody() {
    let throttle = rules("*:10/1h", "*:10/1h");
    let ledger = ledger(|| Moment { wall: 1_700_000_000, boot: 100 });
    // splitmix64
    let mut state = 1_u64;
    for word in &ledger.memory.0[HEADER..] {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word.store(z ^ (z >> 31), SeqCst);
    }
    let here = source("192.0.2.1");
    for name in ["alice", "bob", "carol", "dave"] {
        let who = Who::Person { name: name.as_bytes(), uid: 1, key: "", is_virtual: false };
        // Counters in a row may be anything, which disables at the worst.
        ledger.unlock_person(who, Some(&throttle)).unwrap();
        let judged = guess(&ledger, &login(who, &here, &throttle), 100);
        assert!(judged <= 10, "{name}: {judged}");
    }
}

#[test]
fn a_layout_that_is_not_ours_is_not_good() {
    let good = table();
    assert!(is_good(&good.0));
    for (at, value) in [(0, 0), (1, 2), (LATEST, LONGEST_UPTIME), (BASE, LONGEST_UPTIME)] {
        let table = table();
        table.0[at].store(value, SeqCst);
        assert!(!is_good(&table.0), "{at}");
    }
    let table = table();
    KEY.for_each(|at| table.0[at].store(0, SeqCst));
    assert!(!is_good(&table.0));
    assert!(!is_good(&[]));
}

#[test]
fn the_ledger_of_a_directory_is_made_once_and_anew_where_it_is_none() {
    let throttle = rules("*:3/1h", "");
    let here = source("192.0.2.1");
    let login = login(ALICE, &here, &throttle);
    let path = directory();
    let state_dir = Directory::open(path.path()).unwrap().unwrap();
    let opened = || super::open(path.path(), || Moment { wall: 1_700_000_000, boot: 100 }).unwrap();
    assert_eq!(look(&state_dir), Ok(Found::Nothing));
    let judged =
        |ledger: &HostLedger<crate::system::table::Table, _>| (0..5).filter(|_| ledger.charge(&login).is_ok()).count();
    for left in [3, 0] {
        let Opened { ledger, remark } = opened();
        assert_eq!((judged(&ledger), remark), (left, None));
        assert_eq!(look(&state_dir), Ok(Found::Ledger));
    }
    let whole = std::fs::read(path.path().join(FILE)).unwrap();
    for garbage in [&whole[..whole.len() - 8], &vec![0; whole.len()]] {
        std::fs::write(path.path().join(FILE), garbage).unwrap();
        assert_eq!(look(&state_dir), Ok(Found::Garbage));
        let Opened { ledger, remark } = opened();
        assert_eq!((judged(&ledger), remark), (3, Some("ledger-made-anew")));
    }
    assert!(super::open(&path.path().join(FILE), || Moment { wall: 0, boot: 0 }).is_err(), "no directory");
}

#[test]
fn a_ledger_until_the_next_boot_is_for_a_disk_that_takes_nothing() {
    for (error, expected) in
        [(Errno::ROFS, true), (Errno::NOSPC, true), (Errno::DQUOT, true), (Errno::ACCESS, false), (Errno::IO, false)]
    {
        let error = FileError { path: FILE.into(), problem: Problem::Failed("create", error) };
        assert_eq!(is_full_or_read_only(&error), expected, "{error:?}");
    }
}

#[test]
fn the_latest_time_of_the_wall_clock_is_kept() {
    let machine = Machine::at(1000, 1);
    let ledger = machine.ledger();
    assert_eq!(ledger.latest_wall(), 1000);
    machine.set(5000, 2);
    assert_eq!(ledger.latest_wall(), 5000);
    machine.set(10, 3);
    assert_eq!(ledger.latest_wall(), 5000);
    ledger.forget_latest_wall();
    assert_eq!(ledger.latest_wall(), EARLIEST, "no clock shows less");
    assert_eq!(new_header().unwrap()[HIGHEST], EARLIEST);
}

#[test]
fn a_row_that_is_full_still_counts() {
    let one = source("192.0.2.1");
    for (user, host, a_day) in
        [("*:60/1h", "", 60 * 24), ("", "*:10/1h", 240), ("", "*:60/1h", 60 * 24), ("*:5/10m", "", 720)]
    {
        let throttle = rules(user, host);
        let machine = Machine::at(1_700_000_000, 100);
        let ledger = machine.ledger();
        let mut judged = 0;
        for minutes in (0..24 * 60).step_by(5) {
            machine.set(1_700_000_000 + minutes * 60, 100 + minutes * 60);
            // The owner logs in between, or the hundredth in a row would be the end.
            let login = login(ALICE, &one, &throttle);
            judged += guess(&ledger, &login, 1000);
            ledger.tally(ALICE, ledger.now()).unwrap().clear();
        }
        assert_eq!(judged, a_day, "{user} {host}");
    }
}

#[test]
fn a_guess_that_was_stopped_before_it_was_written_down_is_written_down_anew() {
    let throttle = rules("*:3/1h", "");
    let here = source("192.0.2.1");
    let login = login(ALICE, &here, &throttle);
    let boot = AtomicU64::new(100);
    let stops = AtomicU64::new(0);
    // Each look at the clock is an hour after the one before while somebody stops the process.
    let ledger = ledger(|| {
        let stopped = stops.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        let now = boot.fetch_add(if stopped { HOUR } else { 0 }, SeqCst);
        Moment { wall: now, boot: now }
    });
    for _ in 0..3 {
        stops.store(1, SeqCst);
        let charge = ledger.charge(&login).unwrap();
        ledger.keep(&login, charge);
        let listed = ledger.list(Some(&throttle)).unwrap();
        let row = listed.iter().find(|row| row.kind == Kind::Strangers).unwrap();
        assert_eq!(row.ages.first(), Some(&0), "it is as old as it is: {listed:?}");
    }
    stops.store(1000, SeqCst);
    assert_eq!(ledger.charge(&login).unwrap_err(), Refusal::Unwritable, "and not for ever");
}

#[test]
fn nobody_takes_the_place_of_others_marks() {
    let throttle = rules("*:3/1h", "");
    let machine = Machine::at(1_700_000_000, 100);
    let ledger = machine.ledger();
    let home = source("192.0.2.1");
    let names: Vec<String> = (0..100).map(|number| format!("user{number}")).collect();

    let is_known = |login: Login| ledger.is_known(&ledger.person(login.who), &login, ledger.now());
    let knows = |name: &String| is_known(login(somebody(name), &home, &throttle));
    for name in &names {
        ledger.give_back(&login(somebody(name), &home, &throttle), Vec::new(), None).unwrap();
    }
    assert!(names.iter().all(knows));
    for number in 0..20_000_u32 {
        machine.set(1_700_000_000 + u64::from(number), 100 + u64::from(number));
        let from = Source::Address(std::net::Ipv4Addr::from(0x0a00_0000 + number).into());
        ledger.give_back(&login(ALICE, &from, &throttle), Vec::new(), None).unwrap();
    }
    assert!(names.iter().all(knows));
    let last = source("10.0.78.31");
    assert!(is_known(login(ALICE, &last, &throttle)), "the latest of one's own are kept");
    let first = source("10.0.0.0");
    assert!(!is_known(login(ALICE, &first, &throttle)));
    let latest = |number: u32| Source::Address(std::net::Ipv4Addr::from(0x0a00_0000 + 20_000 - number).into());
    let kept = (1..100).take_while(|&number| is_known(login(ALICE, &latest(number), &throttle))).count();
    assert_eq!(kept, 12);
}

#[test]
fn what_one_policy_forgets_another_still_counts() {
    let (long, short) = (rules("*:20/30d", ""), rules("*:10/1h", ""));
    let machine = Machine::at(1_700_000_000, 100);
    let ledger = machine.ledger();
    let here = source("192.0.2.1");
    assert_eq!(guess(&ledger, &login(ALICE, &here, &long), 100), 20);
    machine.set(1_700_000_000 + 2 * DAY, 100 + 2 * DAY);
    for number in 0..6000 {
        let name = format!("user{number}");
        let who = Who::Person { name: name.as_bytes(), uid: 1, key: "", is_virtual: false };
        guess(&ledger, &login(who, &here, &short), 1);
    }
    assert_eq!(guess(&ledger, &login(ALICE, &here, &long), 100), 0);
}

#[test]
fn a_device_is_disabled_for_its_own_failures_alone_and_can_be_unlocked_in_any_case() {
    let throttle = rules("", "");
    let ledger = ledger(|| Moment { wall: 1_700_000_000, boot: 100 });
    let here = source("192.0.2.1");
    let names: Vec<String> = (0..12_000).map(|number| format!("user{number}")).collect();

    for name in &names {
        guess(&ledger, &login(somebody(name), &here, &throttle), 1);
    }
    assert!(guess(&ledger, &login(ALICE, &here, &throttle), 200) <= 100);
    assert_eq!(ledger.charge(&login(ALICE, &here, &throttle)).unwrap_err(), Refusal::Disabled);
    let disabled = names
        .iter()
        .filter(|name| !ledger.tally(somebody(name), ledger.now()).unwrap().is_shared())
        .filter(|name| ledger.tally(somebody(name), ledger.now()).unwrap().is_disabled());
    assert_eq!(disabled.count(), 0, "nobody who has a row of their own");
    // What several share is listed too.
    let listed = ledger.list(Some(&throttle)).unwrap();
    assert!(listed.iter().any(|row| row.kind == Kind::InARow && row.name == b"(several)" && row.failures > 1));
    assert!(ledger.unlock_person(ALICE, Some(&throttle)).unwrap());
    assert!(ledger.charge(&login(ALICE, &here, &throttle)).is_ok());
    // Whoever made the row was killed before the name was in it.
    let bob = Who::Person { name: b"bob", uid: 2, key: "", is_virtual: false };
    let new = super::tests::ledger(|| Moment { wall: 1_700_000_000, boot: 100 });
    guess(&new, &login(bob, &here, &throttle), 100);
    let subject = new.person(bob);
    let row = PEOPLE.bucket(&new.memory, subject.hash).unwrap();
    row[4].store(0, SeqCst);
    assert!(new.unlock_person(bob, Some(&throttle)).unwrap());
    assert!(new.charge(&login(bob, &here, &throttle)).is_ok());
    assert!(new.list(Some(&throttle)).unwrap().iter().any(|row| row.kind == Kind::InARow && row.name == b"bob"));
}

#[test]
fn there_is_no_grace_while_the_row_for_those_without_one_is_spent() {
    let throttle = rules("*:3/1h", "");
    let ledger = ledger(|| Moment { wall: 1_700_000_000, boot: 100 });
    let here = source("192.0.2.1");
    let login = login(ALICE, &here, &throttle);
    let grace = Grace { period: HOUR, circumstances: b"", factors: b"secret", is_elsewhere: false };
    ledger.give_back(&login, Vec::new(), Some(&grace)).unwrap();
    assert!(ledger.has_grace(&login, &grace));
    let rows = ledger.rows(ledger.now(), Some(&throttle));
    for _ in 0..3 {
        assert!(ledger.has_grace(&login, &grace));
        let admission = rows.admit(KNOWN_SHARED, &ledger.shared(b"alice"), &login.user_triggers());
        assert!(matches!(admission, Ok(Admission::Counted(_))));
    }
    assert!(!ledger.has_grace(&login, &grace));
}

#[test]
fn rows_of_people_without_failures_are_given_to_others_in_time() {
    let throttle = rules("", "");
    let machine = Machine::at(1_700_000_000, 100);
    let ledger = machine.ledger();
    let here = source("192.0.2.1");
    let shared = |from: u32| {
        (from..from + 6000)
            .filter(|number| {
                let name = format!("user{number}");
                let who = Who::Person { name: name.as_bytes(), uid: 1, key: "", is_virtual: false };
                let login = login(who, &here, &throttle);
                assert_eq!(guess(&ledger, &login, 1), 1);
                let is_shared = ledger.tally(who, ledger.now()).unwrap().is_shared();
                ledger.give_back(&login, Vec::new(), None).unwrap();
                ledger.take_notice(who);
                is_shared
            })
            .count()
    };
    let (first, second) = (shared(0), shared(6000));
    machine.set(1_700_000_000 + 31 * DAY, 100 + 31 * DAY);
    let third = shared(12_000);
    assert!(first < 300 && second > 2000 && third < 300, "{first} {second} {third}");
}

#[test]
#[cfg(feature = "fleet")]
fn a_file_is_of_whom_its_name_says() {
    for (file, label) in
        [("alice", "alice"), ("b%20c", "b c"), ("deploy,key-id%3Aalice", "deploy,key-id:alice"), ("%", "%")]
    {
        assert_eq!(label_of_file(file), label.as_bytes(), "{file}");
    }
}

#[test]
fn a_row_is_somebodys_while_there_is_anything_to_count() {
    let throttle = rules("", "");
    let here = source("192.0.2.1");
    // A bucket's rows, and one more.
    let full = PEOPLE.rows;
    for (what, is_given_away) in [("failed", false), ("got in", true), ("told", true)] {
        let machine = Machine::at(1_700_000_000, 100);
        let ledger = machine.ledger();
        let bucket = |name: &String| ledger.person(somebody(name)).hash % PEOPLE.buckets as u64;
        let names: Vec<_> =
            (0..).map(|number| format!("user{number}")).filter(|name| bucket(name) == 0).take(full + 1).collect();
        for name in &names[..full] {
            let login = login(somebody(name), &here, &throttle);
            assert_eq!(guess(&ledger, &login, 1), 1);
            if what != "failed" {
                ledger.give_back(&login, Vec::new(), None).unwrap();
            }
            if what == "told" {
                assert!(ledger.take_notice(somebody(name)).is_some());
            }
        }
        let is_shared = || ledger.tally(somebody(&names[full]), ledger.now()).unwrap().is_shared();
        assert!(is_shared(), "{what}: not before 30 days are over");
        machine.set(1_700_000_000 + 31 * DAY, 100 + 31 * DAY);
        assert_eq!(is_shared(), !is_given_away, "{what}");
        assert_eq!(ledger.take_notice(somebody(&names[full])), None, "{what}: nobody is told of another's failures");
    }
}

#[test]
fn what_was_no_guess_ends_no_grace() {
    let throttle = rules("*:10/1h", "");
    let ledger = ledger(|| Moment { wall: 1_700_000_000, boot: 100 });
    let here = source("192.0.2.1");
    let login = login(ALICE, &here, &throttle);
    let grace = Grace { period: HOUR, circumstances: b"", factors: b"secret", is_elsewhere: false };
    assert_eq!(guess(&ledger, &login, 2), 2);
    ledger.give_back(&login, Vec::new(), Some(&grace)).unwrap();
    for _ in 0..4 {
        let receipt = ledger.charge(&login).unwrap();
        ledger.take_back(&login, receipt);
        assert!(ledger.has_grace(&login, &grace));
    }
    assert_eq!(guess(&ledger, &login, 3), 3);
    assert!(!ledger.has_grace(&login, &grace));
}
