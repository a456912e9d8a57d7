//! In the place of google-authenticator-libpam, whose Debian package runs beside ours here.

use crate::support::machine::{ALICE, AUTH_ERR, BOB, Home, LoggedIn, Machine, SUCCESS};
use crate::support::totp::{SECRET, code_at, code_now, hotp, now};
use crate::support::{dist, example, output_of, rounds, soak};
use pam_totp::system::random;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

#[test]
fn thousands_of_login_sequences_end_alike() {
    let module = "pam_google_authenticator.so";
    let is_there = ["/lib", "/usr/lib"].iter().any(|base| {
        Path::new(base).read_dir().unwrap().any(|entry| entry.unwrap().path().join("security").join(module).exists())
    });
    assert!(is_there, "{module} is missing: install the package libpam-google-authenticator");
    // Others each time only where there is time to meet what nobody has met before.
    let new_seed = || if soak() { u64::from(u32::from_ne_bytes(random::bytes().unwrap())) } else { 1 };
    let seed = std::env::var("SEED").map_or_else(|_| new_seed(), |s| s.parse().unwrap());
    let sequences = std::env::var("SEQUENCES").map_or_else(|_| rounds(1500, 6000), |number| number.parse().unwrap());
    println!("SEED={seed}");
    let machine = Machine::with(Home::Memory, &dist("pam_totp.so"));
    machine.write("/etc/security/pam_totp.toml", "version = 1\n[compat]\ngoogle = true\n");
    fs::copy(example("libpam_probe.so"), machine.path("/run/pam_probe.so")).unwrap();
    let driver = machine.shared().join("differential");
    fs::copy(example("differential"), &driver).unwrap();
    let output = machine
        .command("timeout")
        .args(["600", "faketime", "-f", "1"])
        .arg(&driver)
        .args([seed.to_string(), sequences.to_string()])
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_FMT", "%s")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut reached = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("reached ")) {
        let (count, what) = line.split_once(' ').unwrap();
        reached.insert(what.to_owned(), count.parse::<u64>().unwrap());
    }
    // The branches that our module went through, by what it logged.
    for line in machine.log().iter().filter(|line| line.contains("pam_totp(ours:auth)")) {
        for key in ["factor=", "reason=", "key="] {
            if let Some((_, value)) = line.split_once(key) {
                *reached.entry(format!("{key}{}", value.split(' ').next().unwrap())).or_insert(0) += 1;
            }
        }
    }
    println!("{reached:#?}");
    assert!(output.status.success(), "SEED={seed}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    for branch in BRANCHES {
        assert!(
            reached.get(branch).is_some_and(|count| *count > 0),
            "no case reached {branch}; SEED={seed} {reached:#?}"
        );
    }
}

/// What the sequences have to come by: results (6 is libpam's word where all modules ignore), and branches.
const BRANCHES: [&str; 32] = [
    "result 0",
    "result 6",
    "result 7",
    "prompts 0",
    "prompts 1",
    "prompts 2",
    "file kept",
    "file written",
    "authtok",
    "factor=totp",
    "factor=hotp",
    "factor=scratch-code",
    "factor=grace",
    "reason=bad-option",
    "reason=wrong-code",
    "reason=used-code",
    "reason=throttled",
    "reason=wrong-time",
    "reason=not-a-code",
    "reason=empty-answer",
    "reason=refused-by-sshd",
    "reason=no-answer",
    "reason=no-first-pass",
    "reason=not-enrolled",
    "reason=bad-secret",
    "reason=wrong-mode",
    "reason=no-device",
    "reason=bad-argument",
    "key=STEP_SIZE",
    "key=WINDOW_SIZE",
    "key=RATE_LIMIT",
    "key=DISALLOW_REUSE",
];

const STACK: &str = "auth required pam_totp.so\n";
/// Ours, without a ledger that would end a test of many wrong codes.
const OURS: &str = "version = 1\n[throttle]\nuser = \"\"\nhost = \"\"\n";
const GOOGLE: &str = "version = 1\n[compat]\ngoogle = true\n";
const POLICY: &str = "/etc/security/pam_totp.toml";

fn machine() -> Machine {
    let machine = Machine::new();
    machine.service("test", STACK);
    machine
}

/// A login with our own way, and one as the C module does it.
fn both(machine: &Machine, lines: &str, arguments: &str, login: &dyn Fn() -> LoggedIn) -> [LoggedIn; 2] {
    [OURS, GOOGLE].map(|policy| {
        machine.write(POLICY, policy);
        machine.service("test", &format!("auth required pam_totp.so {arguments}\n"));
        machine.enrol(ALICE, lines);
        login()
    })
}

fn outcomes(logins: [LoggedIn; 2]) -> [(i32, usize); 2] {
    logins.map(|login| (login.result(), login.prompts.len()))
}

#[test]
fn where_we_differ_both_ways_are_as_the_table_says() {
    let machine = machine();
    let alice = || machine.login("test", "alice");
    let totp = "\" TOTP_AUTH\n";

    // A blank before or after the code.
    let run = || alice().answer(format!(" {} ", code_now(SECRET))).run();
    assert_eq!(outcomes(both(&machine, totp, "", &run)), [(SUCCESS, 1), (AUTH_ERR, 1)]);

    // An older code that was not used, and the same code again, where the file does not ask for the one-time rule.
    let twice = |first: u64, second: u64| {
        let (one, two) = (code_at(SECRET, now() + first), code_at(SECRET, now() + second));
        assert_eq!(alice().answer(one).run().result(), SUCCESS);
        alice().answer(two).run()
    };
    let _ = code_now(SECRET);
    let older = "\" TOTP_AUTH\n\" DISALLOW_REUSE\n";
    assert_eq!(outcomes(both(&machine, older, "", &|| twice(30, 0))), [(AUTH_ERR, 1), (SUCCESS, 1)]);
    assert_eq!(outcomes(both(&machine, totp, "", &|| twice(0, 0))), [(AUTH_ERR, 1), (SUCCESS, 1)]);
    assert_eq!(outcomes(both(&machine, older, "", &|| twice(0, 0))), [(AUTH_ERR, 1), (AUTH_ERR, 1)]);

    // A spent budget: who asks, and what a blocked try costs.
    let spent = format!("\" TOTP_AUTH\n\" RATE_LIMIT 1 3600 {}\n", now());
    let run = || alice().answer("000000").run();
    assert_eq!(outcomes(both(&machine, &spent, "", &run)), [(AUTH_ERR, 1), (AUTH_ERR, 0)]);
    let later = |time: i64| machine.login_when(time, time, "test", "alice").answer("000000").run();
    let run = || {
        later(50 * 60);
        later(70 * 60)
    };
    let reasons = both(&machine, &spent, "", &run).map(|login| login.reason());
    assert_eq!(reasons, ["wrong-code", "throttled"], "the C module's block is prolonged by blocked tries");

    // Skew adjustment: three codes of an hour ago.
    let three = || {
        let step = now() / 30 - 120;
        let mut login = alice().answer(code_at(SECRET, step * 30)).run();
        for offset in 1..3 {
            let time = format!("+{}s", offset * 30);
            login = machine.login_at(&time, "test", "alice").answer(code_at(SECRET, (step + offset) * 30)).run();
        }
        login
    };
    assert_eq!(outcomes(both(&machine, totp, "", &three)), [(AUTH_ERR, 1), (SUCCESS, 1)]);
    assert_eq!(outcomes(both(&machine, totp, "noskewadj", &three)), [(AUTH_ERR, 1), (AUTH_ERR, 1)]);
    machine.write(POLICY, format!("{OURS}[compat]\nskew_adjustment = true\n"));
    machine.service("test", STACK);
    machine.enrol(ALICE, totp);
    assert_eq!(three().result(), SUCCESS, "asked for");

    // Lines of grace: only with grace_period=, and never for a time to come.
    for (arguments, last, expected) in [
        ("", format!("\" LAST0 h {}\n", now() + 9999), (AUTH_ERR, 1)),
        ("grace_period=60", format!("\" LAST0 h {}\n", now() + 9999), (AUTH_ERR, 1)),
        ("grace_period=60", format!("\" LAST0 h {}\n", now() - 20), (SUCCESS, 0)),
    ] {
        let run = || alice().with(&["--rhost", "h"]).answer("000000").run();
        assert_eq!(
            outcomes(both(&machine, &format!("{totp}{last}"), arguments, &run)),
            [expected; 2],
            "{arguments} {last}"
        );
    }
    // With forward_pass the password is asked for in grace too.
    let grace = format!("{totp}\" LAST0 h {}\n", now() - 20);
    let run = || alice().with(&["--rhost", "h"]).answer("password").run();
    assert_eq!(outcomes(both(&machine, &grace, "grace_period=600 forward_pass", &run)), [(SUCCESS, 1); 2]);

    // A failed conversation.
    let run = || alice().with(&["--fail", "--fail"]).run();
    assert_eq!(outcomes(both(&machine, totp, "", &run)), [(AUTH_ERR, 1), (AUTH_ERR, 2)]);

    // The delay after a denial.
    let delays =
        both(&machine, totp, "", &|| alice().answer("000000").run()).map(|login| !login.output.contains("delay 7 0\n"));
    assert_eq!(delays, [true, false]);

    // An odd line among the scratch codes.
    let run = || alice().answer("12345678").run();
    assert_eq!(outcomes(both(&machine, "\" TOTP_AUTH\nodd\n12345678\n", "", &run)), [(SUCCESS, 1), (AUTH_ERR, 1)]);

    // Arguments and paths that are holes elsewhere: denied.
    let run = || alice().run();
    assert_eq!(outcomes(both(&machine, totp, "user=0day", &run)), [(AUTH_ERR, 0); 2]);
    machine.write_as("/etc/evil", format!("{SECRET}\n{totp}"), 0, 0o600);
    let run = || machine.login("test", "../evil").answer(code_now(SECRET)).run();
    assert_eq!(outcomes(both(&machine, totp, "user=root secret=/etc/codes/${USER}", &run)), [(AUTH_ERR, 1); 2]);
    fs::remove_file(machine.path("/etc/evil")).unwrap();
    let secret_file = machine.path(&ALICE.secret_file());
    let run = || {
        fs::rename(&secret_file, secret_file.with_extension("elsewhere")).unwrap();
        symlink(".google_authenticator.elsewhere", &secret_file).unwrap();
        let login = alice().answer(code_now(SECRET)).run();
        fs::remove_file(&secret_file).unwrap();
        login
    };
    assert_eq!(outcomes(both(&machine, totp, "", &run)), [(AUTH_ERR, 1); 2], "a link");
    let run = || {
        fs::remove_file(&secret_file).unwrap();
        output_of(machine.command_as(ALICE, "mkfifo").args(["-m600", &ALICE.secret_file()]));
        let login = alice().answer(code_now(SECRET)).run();
        fs::remove_file(&secret_file).unwrap();
        login
    };
    assert_eq!(outcomes(both(&machine, totp, "", &run)), [(AUTH_ERR, 1); 2], "a FIFO");

    // A file that cannot be written: nothing is shown but the prompt.
    machine.make_directory(&ALICE.home(), 0o500, ALICE.uid);
    let run = || alice().answer(code_now(SECRET)).run();
    assert_eq!(outcomes(both(&machine, older, "", &run)), [(AUTH_ERR, 1); 2]);
    machine.make_directory(&ALICE.home(), 0o700, ALICE.uid);

    // A secret of eight bits works, and is remarked upon.
    for policy in [OURS, GOOGLE] {
        machine.write(POLICY, policy);
        machine.write_as(&ALICE.secret_file(), "AA\n\" TOTP_AUTH\n", ALICE.uid, 0o600);
        let login = alice().answer(code_now("AA")).run();
        assert_eq!(login.result(), SUCCESS);
        assert!(login.log[0].contains("remarks=weak-secret"), "{login:#?}");
    }

    // The mode of the file, and a home that is not there.
    let run = || alice().answer(code_now(SECRET)).run();
    for login in both(&machine, "\" TOTP_AUTH\n\" DISALLOW_REUSE\n", "", &run) {
        assert_eq!(login.result(), SUCCESS);
        assert_eq!(machine.path(&ALICE.secret_file()).metadata().unwrap().mode() & 0o7777, 0o600);
    }
    let run = || machine.login("test", "bob").answer("000000").run();
    fs::remove_dir(machine.path(&BOB.home())).unwrap();
    assert_eq!(outcomes(both(&machine, totp, "nullok", &run)), [(AUTH_ERR, 1); 2]);
}

#[test]
fn both_modules_take_turns_on_one_file() {
    let machine = machine();
    // Where both count tries, they count them in the file.
    machine.write(POLICY, GOOGLE);
    machine.service("theirs", "auth required pam_google_authenticator.so\n");
    machine
        .enrol(ALICE, "\" TOTP_AUTH\n\" DISALLOW_REUSE\n\" RATE_LIMIT 4 3600\n\" WINDOW_SIZE 17\n12345678\n23456789\n");
    let (ours, theirs) = ("test", "theirs");
    let try_code = |service: &str, code: &str| machine.login(service, "alice").answer(code).run().result();
    let _ = code_now(SECRET);
    let step = |steps: u64| code_at(SECRET, now() + steps * 30);
    assert_eq!([try_code(ours, &step(0)), try_code(theirs, &step(0))], [SUCCESS, AUTH_ERR], "used at ours");
    assert_eq!([try_code(theirs, &step(1)), try_code(ours, &step(1))], [SUCCESS, AUTH_ERR], "used at theirs");
    // Four tries are spent, whoever counted them.
    assert_eq!([try_code(ours, &step(2)), try_code(theirs, &step(2))], [AUTH_ERR; 2]);
    machine.enrol(ALICE, "\" HOTP_COUNTER 1\n12345678\n23456789\n");
    assert_eq!([try_code(ours, &hotp(SECRET, 1)), try_code(theirs, &hotp(SECRET, 2))], [SUCCESS; 2]);
    assert_eq!([try_code(ours, &hotp(SECRET, 2)), try_code(theirs, &hotp(SECRET, 1))], [AUTH_ERR; 2]);
    assert_eq!([try_code(theirs, "12345678"), try_code(ours, "12345678")], [SUCCESS, AUTH_ERR]);
    assert_eq!([try_code(ours, "23456789"), try_code(theirs, "23456789")], [SUCCESS, AUTH_ERR]);
}

#[test]
fn a_policy_file_counts_only_if_root_alone_wrote_it_and_all_of_it_is_right() {
    let machine = machine();
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let path = "/etc/security/pam_totp.toml";
    let denied = |reason: &str| {
        let login = machine.login("test", "alice").run();
        assert_eq!((login.result(), login.prompts.len(), login.reason().as_str()), (AUTH_ERR, 0, reason), "{login:#?}");
        login.log[1].clone()
    };
    let works = || machine.login("test", "alice").answer("000000").run().reason() == "wrong-code";
    assert!(works(), "without a policy file everything has its default");
    machine.write_as(path, "version = 1\n[compat]\ngoogel = true\n", 0, 0o644);
    assert!(denied("bad-policy").contains("at=/etc/security/pam_totp.toml:3:1 unknown-key=googel did-you-mean=google"));
    for text in ["", "[compat]\n", "version = 2\n", "version = 1\nversion = 1\n", "version = 1\n\u{0}"] {
        machine.write_as(path, text, 0, 0o644);
        denied("bad-policy");
    }
    for (uid, mode, reason) in [(0, 0o664, "wrong-mode"), (0, 0o646, "wrong-mode"), (ALICE.uid, 0o644, "wrong-owner")] {
        machine.write_as(path, GOOGLE, uid, mode);
        denied(reason);
    }
    machine.write_as(path, GOOGLE, 0, 0o644);
    let login = machine.login("test", "alice").answer("000000").run();
    assert!(login.log[1].contains("reason=wrong-code compat=google"), "it names itself: {login:#?}");
    // A link, a directory, a FIFO in its place; a directory above it that others can write to.
    let file = machine.path(path);
    fs::rename(&file, machine.path("/etc/security/real.toml")).unwrap();
    symlink("real.toml", &file).unwrap();
    denied("link");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    denied("not-a-file");
    fs::remove_dir(&file).unwrap();
    machine.service("test", "auth required pam_totp.so conf=/etc/security/real.toml\n");
    assert!(works());
    machine.service("test", "auth required pam_totp.so conf=/etc/security/none.toml\n");
    denied("no-policy");
    machine.make_directory("/run/open", 0o777, 0);
    machine.write_as("/run/open/p.toml", GOOGLE, 0, 0o644);
    machine.service("test", "auth required pam_totp.so conf=/run/open/p.toml\n");
    denied("wrong-mode");
    // A program that is not root reads root's file, or its own user's.
    machine.service("test", "auth required pam_totp.so conf=/etc/security/real.toml\n");
    let login = machine.login_as(ALICE, "test", "alice").answer(code_now(SECRET)).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
}

#[test]
fn on_a_read_only_file_system_codes_work_once_where_that_is_allowed() {
    let machine = machine();
    let remount = |options: &str| {
        output_of(machine.command("mount").args(["-o", &format!("remount,bind,{options}"), "/home/alice"]));
    };
    output_of(machine.command("mount").args(["--bind", "/home/alice", "/home/alice"]));
    let log_in = |code: &str| {
        let login = machine.login("test", "alice").answer(code).run();
        (login.result(), if login.result() == SUCCESS { String::new() } else { login.reason() })
    };
    for policy in [OURS, GOOGLE] {
        machine.write(POLICY, policy);
        machine.enrol(ALICE, "\" TOTP_AUTH\n\" DISALLOW_REUSE\n\" RATE_LIMIT 6 3600\n12345678\n");
        let before = machine.read(&ALICE.secret_file());
        remount("ro");
        machine.service("test", "auth required pam_totp.so\n");
        let code = code_now(SECRET);
        assert_eq!(log_in(&code), (AUTH_ERR, "file-error".into()), "not without the argument");
        machine.service("test", "auth required pam_totp.so allow_readonly\n");
        assert_eq!(log_in(&code).0, SUCCESS);
        assert_eq!(log_in(&code), (AUTH_ERR, "used-code".into()));
        assert_eq!(log_in("12345678").0, SUCCESS);
        assert_eq!(log_in("12345678"), (AUTH_ERR, "wrong-code".into()));
        assert_eq!(machine.read(&ALICE.secret_file()), before);
        let kept: Vec<_> = fs::read_dir(machine.path("/run/pam_totp")).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].metadata().unwrap().mode() & 0o7777, 0o600);
        // A race is decided there too, and the budget counts.
        let next = code_at(SECRET, now() + 30);
        let race = machine.login("test", "alice").answer(&next).with(&["--parallel", "16"]).run();
        assert_eq!(race.count(SUCCESS), 1);
        assert_eq!(log_in("000000"), (AUTH_ERR, "throttled".into()));
        // Writable again: what was kept goes into the file with the next good login.
        remount("rw");
        let later = code_at(SECRET, now() + 61 * 60);
        assert_eq!(machine.login_when(61 * 60, 61 * 60, "test", "alice").answer(later).run().result(), SUCCESS);
        let after = machine.read(&ALICE.secret_file());
        let used = after.split_once("DISALLOW_REUSE ").unwrap().1.split_whitespace().next().unwrap();
        assert!(!after.contains("12345678") && used.parse::<u64>().unwrap() > now() / 30 + 120, "{after}");
        assert_eq!(fs::read_dir(machine.path("/run/pam_totp")).unwrap().count(), 0);
    }
    // What was used where it is read-only is used elsewhere too: here one service in a mount namespace of its own.
    machine.write(POLICY, "version = 1\n");
    machine.enrol(ALICE, "\" TOTP_AUTH\n12345678\n23456789\n");
    remount("ro");
    assert_eq!(log_in("12345678").0, SUCCESS);
    remount("rw");
    machine.service("plain", STACK);
    let plain = |code: &str| machine.login("plain", "alice").answer(code).run().result();
    assert_eq!([plain("12345678"), plain("23456789")], [AUTH_ERR, SUCCESS]);
    remount("ro");
    assert_eq!(log_in("12345678").0, AUTH_ERR);
    remount("rw");
    // Another error is not a read-only file system; and a program that is not root has nowhere to keep anything.
    machine.write(POLICY, "version = 1\n");
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine.make_directory(&ALICE.home(), 0o500, ALICE.uid);
    assert_eq!(log_in(&code_now(SECRET)), (AUTH_ERR, "file-error".into()));
    machine.make_directory(&ALICE.home(), 0o700, ALICE.uid);
    remount("ro");
    let login = machine.login_as(ALICE, "test", "alice").answer(code_now(SECRET)).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "not-kept"));
    remount("rw");
    let login = machine.login_as(ALICE, "test", "alice").answer(code_now(SECRET)).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
}
