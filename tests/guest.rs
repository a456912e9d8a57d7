//! The module is a guest in somebody else's process, which may be a login's session, a locked screen or root's: what it must not
//! leave there, read there, or end.

use crate::sudo_su::type_to;
use crate::support::agent::Agent;
use crate::support::machine::{ALICE, AUTH_ERR, BOB, Home, Machine, SUCCESS};
use crate::support::root_only::{STATE, json, totp};
use crate::support::totp::{SECRET, code_at, code_now, hotps, now, wrong_code};
use crate::support::{dist, need, output_of, root_only, rounds};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Output;

const STACK: &str = "auth required pam_totp.so\naccount required pam_totp.so\nsession required pam_totp.so\n";

fn host() -> Machine {
    let machine = Machine::new();
    machine.service("test", STACK);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine
}

/// A machine with alice's secret, in her home or in root's store.
fn with_store(store: &str) -> (Machine, String) {
    if store == "home" {
        return (host(), SECRET.to_owned());
    }
    let machine = root_only::machine("");
    let enrolled = json(&machine, &["enrol", "--user", "alice", "--no-confirm"]);
    let secret = enrolled["secret"].as_str().unwrap().to_owned();
    (machine, secret)
}

/// What strace says of a login from the first look at our module on.
fn traced(machine: &Machine, options: &[&str], client: &[&str]) -> (Output, Vec<String>) {
    need("strace", "strace");
    let trace = machine.shared().join("trace");
    let mut command = machine.command("strace");
    command.args(["-f", "-qq", "-y", "-s", "200"]).args(options).arg("-o").args([&trace, &machine.client()]);
    let output = command.args(client).output().unwrap();
    let trace = fs::read_to_string(&trace).unwrap();
    let ours = trace.lines().skip_while(|line| !line.contains("pam_totp.so")).skip(1);
    (output, ours.map(str::to_owned).collect())
}

fn result(output: &Output) -> i32 {
    let text = String::from_utf8_lossy(&output.stdout);
    let result = text.lines().find_map(|line| line.strip_prefix("result ")).unwrap_or_else(|| panic!("{output:?}"));
    result.parse().unwrap()
}

// ---- Descriptors and ids ----

#[test]
fn what_a_session_inherits_has_no_descriptor_of_ours() {
    // With everything that we open: records, locks, the ledger, the notice of failures, the log.
    for store in ["home", "system"] {
        let (machine, secret) = with_store(store);
        let permitting =
            "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
        // What the test's own program hands down is there with and without us.
        let inherited = |stack: &str, answers: &[&str]| {
            machine.service("su-l", stack);
            let look = "echo here; for fd in /proc/$$/fd/*; do readlink $fd; done";
            let output = type_to(&machine, BOB, &["su", "-", "alice", "-c", look], answers);
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            let (_, targets) = shown.split_once("here\n").unwrap_or_else(|| panic!("{output:?} {:#?}", machine.log()));
            let mut kinds: Vec<_> =
                targets.lines().map(|target| target.split('[').next().unwrap().to_owned()).collect();
            kinds.sort();
            kinds
        };
        let _ = machine.login("test", "alice").answer("000000").run();
        let ours = permitting.replace("auth required pam_permit.so", "auth required pam_totp.so")
            + "session required pam_totp.so\n";
        assert_eq!(inherited(&ours, &[&code_now(&secret)]), inherited(permitting, &[]), "{store}");
        // Nor would one that is begun while we are at work, by another thread of the program.
        let code = code_at(&secret, now() + 30);
        let (output, calls) = traced(
            &machine,
            &["-e", "trace=open,openat,openat2,socket,memfd_create,dup,fcntl"],
            &["test", "alice", "--answer", &code],
        );
        assert_eq!(result(&output), SUCCESS, "{output:?} {:#?}", machine.log());
        let opened: Vec<_> = calls.iter().filter(|line| line.contains("open") || line.contains("socket(")).collect();
        assert!(opened.iter().any(|line| line.contains("ledger-1")) && opened.len() > 8, "{opened:#?}");
        // libpam reads its own files, and tells audit(8).
        for line in opened.iter().filter(|line| !line.contains("/pam.d") && !line.contains("NETLINK_AUDIT")) {
            assert!(line.contains("CLOEXEC") || line.contains("= -1 "), "{store}: {line}");
        }
    }
}

#[test]
fn ids_groups_umask_signals_and_directory_are_afterwards_what_they_were() {
    need("setpriv", "util-linux");
    let machine = host();
    machine.without_limits();
    machine.make_directory("/home/alice/here", 0o755, 0);
    let cases: [(&str, &str, i32); 6] = [
        ("alice", "right", SUCCESS),
        ("alice", "000000", AUTH_ERR),
        ("alice", "", AUTH_ERR),
        ("bob", "000000", AUTH_ERR),
        ("carol", "000000", AUTH_ERR),
        ("mallory", "000000", AUTH_ERR),
    ];
    machine.write_as(&BOB.secret_file(), "garbage\n", BOB.uid, 0o666);
    for (user, answer, expected) in cases {
        let answer = if answer == "right" { code_now(SECRET) } else { answer.to_owned() };
        // Of a program with groups, a umask and a directory of its own, and signals that it ignores: the client looks itself
        // before and after, ends with an error if anything differs.
        let script = "umask 0137; trap '' XFSZ USR1 PIPE; cd /home/alice/here; exec \"$@\"";
        let mut command = machine.command("setpriv");
        command.args(["--groups", "4,6,20002", "--", "sh", "-c", script, "sh"]).arg(machine.client());
        let output = command.args(["test", user, "--answer", &answer]).output().unwrap();
        assert!(output.status.success(), "{user}: {output:?}");
        assert_eq!(result(&output), expected, "{user}: {output:?} {:#?}", machine.log());
    }
    // And where the ids cannot be taken on or given back, whatever else happens.
    for fault in ["setgroups:error=EPERM", "openat:error=EIO", "read:error=EIO", "newfstatat,fstat,statx:error=EIO"] {
        for when in 1.. {
            let inject = format!("inject={fault}:when={when}");
            let (output, _) = traced(&machine, &["-e", &inject], &["test", "alice", "--answer", "000000"]);
            if !fs::read_to_string(machine.shared().join("trace")).unwrap().contains("(INJECTED)") {
                break;
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!said.contains("left something behind"), "{fault} {when}: {said}");
        }
    }
}

#[test]
fn a_file_in_a_home_is_opened_with_its_owners_rights() {
    let machine = host();
    // The owner could not read it: root's rights must not.
    machine.write_as(&ALICE.secret_file(), format!("{SECRET}\n\" TOTP_AUTH\n"), 0, 0o600);
    let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "file-error"), "{login:#?}");
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let code = code_now(SECRET);
    let trace = ["-e", "trace=setfsuid,openat,openat2,rename,renameat,renameat2,unlinkat,fchmod,fchown"];
    let (output, calls) = traced(&machine, &trace, &["test", "alice", "--answer", &code]);
    assert_eq!(result(&output), SUCCESS);
    let (mut rights, mut touched) = (0, 0);
    for line in &calls {
        if let Some((_, uid)) = line.split_once("setfsuid(") {
            // 4294967295 only asks.
            rights =
                uid.split(')').next().unwrap().parse::<u32>().ok().filter(|uid| *uid != u32::MAX).unwrap_or(rights);
        } else if line.contains(".google_authenticator") {
            assert_eq!(rights, ALICE.uid, "{line} in {calls:#?}");
            touched += 1;
        }
    }
    assert!(touched >= 4 && rights == 0, "{touched} {rights} {calls:#?}");
}

// ---- Names and people ----

#[test]
fn each_call_asks_anew_who_it_is() {
    let machine = host();
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    let code = code_now(SECRET);
    // On one handle: another module, or the application, has changed the name in between.
    let login = machine.login("test", "alice").answer(&code).answer("000000").with(&["--then-user", "bob"]).run();
    assert_eq!(login.results, [SUCCESS, AUTH_ERR], "what alice typed is nothing of bob's: {login:#?}");
    let has = |what: &str| login.log.iter().any(|line| line.contains(what));
    assert!(has("accepted user=alice") && has("denied user=bob") && has("user=bob"), "{login:#?}");
    let login = machine.login("test", "alice").answer(&code).answer(&code).with(&["--then-user", "bob"]).run();
    assert_eq!(login.results, [AUTH_ERR, SUCCESS], "alice's is used, and bob's is not: {login:#?}");
    assert_eq!(login.prompts.len(), 2);
}

#[test]
fn two_spellings_of_a_name_are_one_person() {
    // A name service that knows people by what they like to be called.
    let library = machine_with_names();
    let (machine, directory) = (&library.0, &library.1);
    let login = |name: &str, answer: &str| {
        let mut command = machine.command(machine.client());
        command.env("LD_LIBRARY_PATH", directory);
        result(&command.args(["test", name, "--rhost", "192.0.2.7", "--answer", answer]).output().unwrap())
    };
    let code = code_now(SECRET);
    assert_eq!(login("Alice", &code), SUCCESS, "{:#?}", machine.log());
    let log = machine.log();
    assert!(log.iter().all(|line| !line.contains("unknown-user")), "{log:#?}");
    for name in ["alice", "ALICE", "alice@example.org"] {
        assert_eq!(login(name, &code), AUTH_ERR, "{name}");
        assert_eq!(crate::support::reasons(&machine.log()), ["used-code"], "{name}");
    }
    // Three are charged; the wrong codes of all spellings have one budget.
    for (name, reason) in [("Alice", "wrong-code"), ("alice@example.org", "throttled"), ("alice", "throttled")] {
        assert_eq!(login(name, &wrong_code(SECRET)), AUTH_ERR);
        assert_eq!(crate::support::reasons(&machine.log()), [reason], "{name}");
    }
}

/// A machine with alice, whom a name service also finds as `Alice`, `ALICE` and `alice@example.org`; and where that service is.
fn machine_with_names() -> (Machine, PathBuf) {
    let machine = Machine::new();
    machine.service("test", "auth required pam_totp.so\n");
    machine.write(root_only::POLICY, "version = 1\n[throttle]\nuser = \"*:4/1h\"\nhost = \"\"\n");
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let directory = machine.with_directory();
    (machine, directory)
}

#[test]
fn a_group_whose_members_are_not_listed_needs_a_code_all_the_same() {
    let (machine, directory) = machine_with_names();
    fs::remove_file(machine.path("/home/alice/.google_authenticator")).unwrap();
    let result_of = |user: &str, require: &str| {
        machine.write(root_only::POLICY, format!("version = 1\n[require]\ngroups = [{require}]\n"));
        let mut command = machine.command(machine.client());
        command.env("LD_LIBRARY_PATH", &directory);
        let result = result(&command.args(["test", user, "--answer", "000000"]).output().unwrap());
        (result, crate::support::reasons(&machine.log()).concat())
    };
    assert_eq!(result_of("alice", "\"directory-admins\""), (AUTH_ERR, "not-enrolled".to_owned()));
    assert_eq!(result_of("bob", "\"directory-admins\"").1, "not-required");
    // Nobody is spared by what is not listed.
    assert_eq!(result_of("alice", "\"alice\", \"!directory-admins\""), (AUTH_ERR, "not-enrolled".to_owned()));
}

#[test]
fn nobody_is_who_they_say_in_what_they_can_write() {
    let machine = host();
    machine.write_as(&BOB.secret_file(), "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP\n\" TOTP_AUTH\n", BOB.uid, 0o600);
    // What chfn(1) lets people say of themselves, and what an application hands through.
    let passwd = machine.read("/etc/passwd");
    let line = passwd.lines().find(|line| line.starts_with("alice:")).unwrap();
    let own_words = format!("alice:x:{0}:{0}:bob,{SECRET},20002,bob:/home/alice:/bin/sh", ALICE.uid);
    machine.write("/etc/passwd", passwd.replace(line, &own_words));
    machine.write_as("/home/alice/.pam_environment", "USER DEFAULT=bob\nLOGNAME DEFAULT=bob\n", ALICE.uid, 0o644);
    let login = |answer: &str| {
        let mut command = machine.command(machine.client());
        command.envs(["USER", "LOGNAME", "SUDO_USER", "PAM_USER"].map(|name| (name, "bob")));
        let arguments = ["--ruser", "bob", "--env", "USER=bob", "--env", "LOGNAME=bob", "--env", "PAM_USER=bob"];
        result(&command.args(["test", "alice", "--answer", answer]).args(arguments).output().unwrap())
    };
    assert_eq!(login(&code_now("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")), AUTH_ERR, "bob's code is bob's");
    assert_eq!(login(&code_now(SECRET)), SUCCESS, "{:#?}", machine.log());
    // Nor does a secret count that stands where its owner wrote it, but in the file.
    fs::remove_file(machine.path(&ALICE.secret_file())).unwrap();
    assert_eq!(login(&code_at(SECRET, now() + 30)), AUTH_ERR);
}

#[test]
fn what_others_choose_is_in_the_name_of_no_file() {
    let machine = host();
    let strange = ["../canary", "/etc/canary", "canary/../../canary", "-canary"];
    for name in strange {
        let arguments = ["test", "alice", "--answer", "000000", "--ruser", name, "--rhost", name, "--tty", name];
        let (output, calls) = traced(&machine, &["-e", "trace=%file"], &arguments);
        assert_eq!(result(&output), AUTH_ERR);
        assert!(calls.len() > 8 && !calls.iter().any(|line| line.contains("canary")), "{name}: {calls:#?}");
    }
}

#[test]
fn no_name_is_resolved_and_no_network_is_used() {
    let machine = host();
    let exempt = "[[exempt]]\nusers = [\"any\"]\nnetworks = [\"any\"]\nservices = [\"any\"]\nuntil = 2999-01-01\nreason = \"x\"\n\
                  [throttle]\nhost_whitelist = [\"192.0.2.0/24\"]\n";
    for policy in ["", exempt] {
        machine.write(root_only::POLICY, format!("# {}\nversion = 1\n{policy}", policy.len()));
        for rhost in ["localhost", "bastion.example.org", "192.0.2.7.example.org", "192.0.2", "1.1"] {
            let arguments = ["test", "alice", "--answer", "000000", "--rhost", rhost];
            let (output, calls) = traced(&machine, &["-e", "trace=openat,%network"], &arguments);
            assert_eq!(result(&output), AUTH_ERR, "{rhost}: {output:?} {:#?}", machine.log());
            let asks = |line: &&String| {
                ["socket(AF_INET", "resolv.conf", "/etc/hosts", "/etc/services"].iter().any(|word| line.contains(word))
            };
            // Up to our last word: what libpam tells audit(8) of it is libpam's.
            let end = calls.iter().position(|line| line.contains("denied user=alice"));
            let calls = &calls[..end.unwrap_or_else(|| panic!("{calls:#?}"))];
            assert!(calls.len() > 5, "{calls:#?}");
            assert_eq!(calls.iter().find(asks), None, "{rhost}");
        }
    }
}

#[test]
fn with_the_root_only_store_nothing_in_a_home_is_opened() {
    let machine = root_only::machine("");
    let secret = json(&machine, &["enrol", "--user", "alice", "--no-confirm"])["secret"].as_str().unwrap().to_owned();
    // A trap that nobody gets out of.
    fs::remove_dir_all(machine.path(&ALICE.home())).unwrap();
    output_of(machine.command("mkfifo").args(["-m", "666", "/home/alice"]));
    for (user, answer, expected) in [
        ("alice", code_now(&secret), SUCCESS),
        ("alice", "000000".into(), AUTH_ERR),
        ("bob", "000000".into(), AUTH_ERR),
    ] {
        let (output, calls) = traced(&machine, &["-e", "trace=%file"], &["test", user, "--answer", &answer]);
        assert_eq!(result(&output), expected, "{output:?} {:#?}", machine.log());
        assert!(calls.iter().any(|line| line.contains("records")), "{calls:#?}");
        assert!(!calls.iter().any(|line| line.contains("/home") || line.contains("\"home\"")), "{calls:#?}");
    }
}

#[test]
fn nobody_can_write_shorten_open_or_lock_what_is_kept_about_them() {
    need("flock", "util-linux");
    let machine = root_only::machine("");
    totp(&machine, &["enrol", "--user", "alice", "--no-confirm"]);
    let _ = machine.login("test", "alice").answer("000000").run();
    let names = machine.command("find").args([STATE, "/run/pam_totp"]).output().unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    assert!(["ledger-1", "records/alice", "locks", "store.id"].iter().all(|name| names.contains(name)), "{names}");
    for name in names.lines() {
        for attempt in [
            "printf x >>\"$1\"",
            ": <\"$1\"",
            "truncate -s 0 \"$1\"",
            "chmod 777 \"$1\"",
            "mv \"$1\" \"$1.away\"",
            "rm -rf \"$1\" && ! test -e \"$1\"",
            "flock -n \"$1\" true",
            "ln \"$1\" /home/alice/mine",
        ] {
            let output = machine.command_as(ALICE, "sh").args(["-c", attempt, "sh", name]).output().unwrap();
            assert!(!output.status.success(), "alice can: {attempt} {name}");
        }
    }
}

// ---- Secrets ----

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes in hexadecimal, with all bits turned over.
fn turned(bytes: &[u8]) -> String {
    hexadecimal(&bytes.iter().map(|byte| !byte).collect::<Vec<_>>())
}

#[test]
fn nothing_typed_and_no_secret_is_left_in_memory() {
    for store in ["home", "system"] {
        let (machine, secret) = with_store(store);
        let raw = pam_totp::otp::base32::decode(secret.as_bytes()).unwrap();
        let mut answers =
            vec![(code_now(&secret), SUCCESS), ("987012".into(), AUTH_ERR), ("a password".into(), AUTH_ERR)];
        if store == "system" {
            let codes = json(&machine, &["recovery", "new", "--user", "alice"]);
            answers.push((codes["recovery_codes"][0].as_str().unwrap().to_owned(), SUCCESS));
        }
        for (answer, expected) in answers {
            let needles = [
                ("what was typed", turned(answer.as_bytes())),
                ("what was typed, without dashes", turned(answer.replace('-', "").as_bytes())),
                ("the secret in base32", turned(secret.as_bytes())),
                ("the secret in hexadecimal", turned(hexadecimal(raw.expose()).as_bytes())),
                ("the secret", turned(raw.expose())),
                ("the address", turned(b"203.0.113.77")),
            ];
            let typed = needles[0].1.as_str();
            let mut login = machine.login("test", "alice").with(&["--answer-turned", typed, "--rhost", "203.0.113.77"]);
            for (_, needle) in &needles {
                login = login.with(&["--search", needle]);
            }
            let login = login.run();
            assert_eq!(login.result(), expected, "{login:#?}");
            let canaries = [&answer, &secret, &hexadecimal(raw.expose())];
            for line in &login.log {
                assert!(!canaries.iter().any(|canary| line.contains(canary.as_str())), "{store}, {answer}: {line}");
            }
            assert!(login.log.iter().any(|line| line.contains("pam_totp(test:auth)")), "{login:#?}");
            for (name, needle) in &needles {
                let line = login.output.lines().find_map(|line| line.strip_prefix(&format!("found {needle} ")));
                let found = line.unwrap().parse::<u32>().unwrap();
                // What libpam itself keeps shows that this is where to look.
                assert_eq!(found > 0, *name == "the address", "{store}, {answer}: {name} is in memory {found} times");
            }
        }
    }
}

// ---- Ten thousand logins ----

/// A machine where nothing waits for a disk, alice has codes that count, and bob has something that is no record.
fn with_counter(store: &str) -> (Machine, Vec<String>) {
    const SYSTEM: &str = "state_dir = \"/run/state\"\n[throttle]\nuser = \"\"\nhost = \"\"\n";
    let machine = Machine::with(Home::Memory, &dist("pam_totp.so"));
    let count = LOGINS.1 as u64;
    if store == "home" {
        machine.without_limits();
        machine.service("test", STACK);
        machine.enrol(ALICE, "\" HOTP_COUNTER 1\n");
        machine.write_as(&BOB.secret_file(), "garbage\n", BOB.uid, 0o600);
        return (machine, hotps(SECRET, 1, count));
    }
    let via = if store == "agent" { "via = \"agent\"\n" } else { "" };
    let machine = root_only::ready(machine, &format!("{via}{SYSTEM}"));
    let enrolled = json(&machine, &["enrol", "--user", "alice", "--no-confirm", "--counter-based"]);
    json(&machine, &["enrol", "--user", "bob", "--no-confirm"]);
    machine.write("/run/state/records/bob", "garbage\n");
    let codes = hotps(enrolled["secret"].as_str().unwrap(), 1, count);
    (machine, codes)
}

/// How many logins there are in one process, in `make test` and in `make soak`.
const LOGINS: (usize, usize) = (800, 10_000);

#[test]
fn logins_of_every_kind_one_after_the_other_leave_nothing_in_their_process() {
    for store in ["home", "system", "agent"] {
        let (machine, codes) = with_counter(store);
        let _agent = (store == "agent").then(|| Agent::start(&machine));
        let logins = rounds(LOGINS.0, LOGINS.1);
        // Each fifth goes wrong, at the prompt or by what is typed; its code is not used, and the next one is still near enough.
        let wrong = [
            &["--fail"][..],
            &["--null-text"],
            &["--null-response"],
            &["--answer", ""],
            &["--answer", "a password"],
            &["--answer", "12345678"],
        ];
        let (mut arguments, mut expected) = (Vec::new(), Vec::new());
        for (number, code) in codes.iter().take(logins).enumerate() {
            if number % 5 == 4 {
                arguments.extend(wrong[number / 5 % wrong.len()]);
                expected.push(AUTH_ERR);
            } else {
                arguments.extend(["--answer", code.as_str()]);
                expected.push(SUCCESS);
            }
        }
        let results = one_after_the_other(&machine, "alice", &arguments, logins / 10);
        let differs = results.iter().zip(&expected).position(|(one, other)| one != other);
        assert_eq!((results.len(), differs), (logins, None), "{store}");
        // Where the record is broken, and where nobody knows the person.
        for user in ["bob", "mallory"] {
            let results = one_after_the_other(&machine, user, &["--answer", "123456"].repeat(logins / 10), 20);
            assert_eq!(results, vec![AUTH_ERR; logins / 10], "{store}, {user}");
        }
    }
}

/// Logins in one process, which fails if those after the first so many leave anything in it.
fn one_after_the_other(machine: &Machine, user: &str, answers: &[&str], settled: usize) -> Vec<i32> {
    let mut command = machine.command(machine.client());
    command.args(["test", user, "--each", "--settled", &settled.to_string()]).args(answers);
    let output = output_of(&mut command);
    output.lines().filter_map(|line| line.strip_prefix("result ")?.parse().ok()).collect()
}

#[test]
fn memcheck_finds_nothing() {
    need("valgrind", "valgrind");
    for store in ["home", "system"] {
        let (machine, codes) = with_counter(store);
        let mut kinds = vec![("alice", vec!["--answer", &codes[0]], SUCCESS)];
        if store == "home" {
            kinds.push(("alice", vec!["--answer", "123456"], AUTH_ERR));
        }
        let ticket;
        if store == "system" {
            let policy = machine.read(root_only::POLICY);
            machine.write(root_only::POLICY, policy.replace("[defaults]", "[defaults]\nenrolment = \"ticket\""));
            ticket = root_only::ticket(&machine, "carol", &[]);
            kinds.push(("carol", vec!["--answer", &ticket, "--answer-shown"], SUCCESS));
        }
        for (user, arguments, expected) in kinds {
            let mut command = machine.command("valgrind");
            command.args(["--quiet", "--error-exitcode=99", "--leak-check=full"]).arg(machine.client());
            let output = command.args(["test", user, "--open-session"]).args(&arguments).output().unwrap();
            assert!(
                output.status.success(),
                "{store}, {user}, {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(result(&output), expected, "{store}, {user}, {arguments:?}");
        }
    }
}

// ---- Programs and ends ----

#[test]
fn no_program_and_no_thread_is_started_whatever_the_names_are() {
    let machine = host();
    let script = "$(touch /home/canary)`touch /home/canary`;touch /home/canary|sh";
    let code = code_now(SECRET);
    for (user, answer) in [("alice", code.as_str()), ("alice", script), (script, "000000"), ("bob", "000000")] {
        let arguments = ["test", user, "--answer", answer, "--ruser", script, "--rhost", script, "--tty", script];
        let (output, calls) =
            traced(&machine, &["-e", "trace=openat,%process"], &[&arguments[..], &["--open-session"]].concat());
        result(&output);
        assert!(calls.len() > 5, "{calls:#?}");
        let names: BTreeSet<_> = ["execve", "execveat", "fork", "vfork", "clone", "clone3"].into();
        let started: Vec<_> =
            calls.iter().filter(|line| names.iter().any(|name| line.contains(&format!("{name}(")))).collect();
        assert!(started.is_empty(), "{started:#?}");
    }
    assert!(!machine.path("/home/canary").exists());
}

#[test]
fn whatever_fails_the_program_that_asked_lives() {
    let machine = host();
    machine.without_limits();
    // A locked screen opens where its program ends.
    let faults = [
        "openat:error=EIO",
        "openat:error=EMFILE",
        "newfstatat,statx,fstat:error=EIO",
        "read:error=EIO",
        "read:retval=0",
        "getrandom:error=ENOSYS",
        "write:error=ENOSPC",
        "fsync,fdatasync:error=EIO",
        "mmap:error=ENOMEM",
        "renameat,renameat2,rename:error=EROFS",
        "flock:error=EIO",
    ];
    // The first login of a machine makes the ledger.
    machine.login("test", "alice").answer("000000").run();
    let _ = traced(&machine, &[], &["test", "alice", "--answer", "000000"]);
    let trace = fs::read_to_string(machine.shared().join("trace")).unwrap();
    let mut felt = 0;
    for fault in faults {
        let names: Vec<_> = fault.split(':').next().unwrap().split(',').collect();
        let calls = |lines: &str| {
            lines.lines().filter(|line| names.iter().any(|name| line.contains(&format!(" {name}(")))).count()
        };
        // From our module on: before that it is libpam that is in trouble.
        let (before, ours) = trace.split_at(trace.find("pam_totp.so").unwrap());
        for when in calls(before)..=calls(before) + calls(ours) {
            machine.enrol(ALICE, "\" TOTP_AUTH\n");
            let mut command = machine.command("strace");
            command.args(["-f", "-qq", "--seccomp-bpf", "-e", &format!("trace={}", names.join(","))]);
            command.args(["-e", &format!("inject={fault}:when={}", when + 1), "-o", "/dev/null"]);
            command.arg(machine.client()).args(["test", "alice", "--answer", &code_at(SECRET, now())]);
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            // That the client cannot write itself is its own affair.
            let lives = output.status.signal().is_none() && output.status.code().is_some_and(|code| code < 128);
            assert!(lives || said.contains("failed printing to stdout"), "{fault}, {when}: {output:?}");
            felt += 1;
        }
    }
    assert!(felt > 200, "only {felt} faults");
}
