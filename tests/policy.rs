//! The policy file, from what `pam-totp check` says about it to what a login makes of it.

use crate::sudo_su::{PASSWORD, type_to};
use crate::support::machine::{ALICE, AUTH_ERR, BOB, CAROL, LoggedIn, Machine, PERM_DENIED, SUCCESS, User};
use crate::support::ssh::{KEY_AND_CODE, Sshd, Wire};
use crate::support::totp::{SECRET, code_at, code_now, now, wrong_code};
use crate::support::{dist, example_file, need, output_of, reasons};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

const POLICY: &str = "/etc/security/pam_totp.toml";
const STACK: &str = "auth required pam_totp.so\n";
/// With a module that says yes where ours has no say.
const PERMITTING: &str = "auth required pam_totp.so\nauth required pam_permit.so\n";
const PROMPT: &str = "1 \"Verification code: \"";
/// Somewhere else (RFC 5737, TEST-NET-2).
const AWAY: &str = "198.51.100.7";
/// No login here waits for anything.
const PROMPTLY: Duration = Duration::from_secs(3);

/// alice is enrolled. `test` is our module alone, `permitting` has one behind it that says yes.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.service("test", STACK);
    machine.service("permitting", PERMITTING);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    fs::copy(dist("pam-totp"), machine.shared().join("pam-totp")).unwrap();
    machine
}

/// Puts a policy in force as an editor does. The comment keeps it from being the beginning of another one.
fn put(machine: &Machine, text: &str) {
    machine.write_as(POLICY, format!("# {} bytes\nversion = 1\n{text}", text.len()), 0, 0o644);
}

/// A login that gives a wrong code where it is asked for one.
fn try_in(machine: &Machine, service: &str, user: &str, rhost: &str) -> LoggedIn {
    machine.login(service, user).with(&["--rhost", rhost]).answer("000000").run()
}

fn is_asked(login: &LoggedIn) {
    assert_eq!((login.result(), login.prompts.as_slice()), (AUTH_ERR, &[PROMPT.to_owned()][..]), "{login:#?}");
}

/// Not asked, and libpam's word where no other module has one.
fn is_passed_over(login: &LoggedIn, reason: &str) {
    assert_eq!((login.result(), login.prompts.len(), login.log.len()), (PERM_DENIED, 0, 1), "{login:#?}");
    assert!(login.log[0].contains(": not asked user=") && login.log[0].contains(reason), "{login:#?}");
}

fn is_denied_unasked(login: &LoggedIn, reason: &str) {
    assert_eq!((login.result(), login.prompts.len()), (AUTH_ERR, 0), "{login:#?}");
    assert_eq!(login.reason(), reason, "{login:#?}");
}

fn is_accepted(login: &LoggedIn, factor: &str) {
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    assert!(login.log[0].contains(&format!(" factor={factor}")), "{login:#?}");
}

fn pam_totp(machine: &Machine, arguments: &[&str]) -> Output {
    machine.command(machine.shared().join("pam-totp")).args(arguments).output().unwrap()
}

fn pam_totp_as(machine: &Machine, user: User, arguments: &[&str]) -> Output {
    machine.command_as(user, machine.shared().join("pam-totp")).args(arguments).output().unwrap()
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The day, UTC, that is so many seconds away.
fn day_in(seconds: u64) -> String {
    let date = output_of(Command::new("date").args(["-u", "-d", &format!("@{}", now() + seconds), "+%F"]));
    date.trim().to_owned()
}

const DAY: u64 = 86_400;

fn su(machine: &Machine, caller: User, target: &str, lines: &[&str]) -> Output {
    type_to(machine, caller, &["su", target, "-c", "id -un"], lines)
}

// ---- The file ----

#[test]
fn a_policy_that_is_no_file_of_roots_alone_denies_at_once_and_says_why() {
    let machine = machine();
    let file = machine.path(POLICY);
    let directory = machine.path("/etc/security");
    let good = || put(&machine, "");
    let text = |bytes: &[u8]| machine.write_as(POLICY, bytes, 0, 0o644);
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let long = |size: usize| {
        let start = "version = 1\n#";
        format!("{start}{}", "x".repeat(size - start.len()))
    };
    let cases: [(&str, &str, &str, &dyn Fn()); 21] = [
        ("FIFO", "not-a-file", POLICY, &|| drop(output_of(Command::new("mkfifo").arg("-m644").arg(&file)))),
        ("socket", "file-error", POLICY, &|| drop(UnixListener::bind(&file).unwrap())),
        ("device", "not-a-file", POLICY, &|| {
            output_of(Command::new("mknod").arg("-m644").arg(&file).args(["c", "1", "5"]));
        }),
        ("link to nothing", "link", POLICY, &|| symlink("/nowhere", &file).unwrap()),
        ("link to root's file", "link", POLICY, &|| symlink("/etc/passwd", &file).unwrap()),
        ("0666", "wrong-mode", POLICY, &|| {
            good();
            mode(&file, 0o666);
        }),
        ("0620", "wrong-mode", POLICY, &|| {
            good();
            mode(&file, 0o620);
        }),
        ("of a user's", "wrong-owner", POLICY, &|| {
            good();
            chown(&file, Some(BOB.uid), Some(0)).unwrap();
        }),
        ("directory of a user's", "wrong-owner", "/etc/security", &|| {
            good();
            chown(&directory, Some(BOB.uid), None).unwrap();
        }),
        ("directory 0775", "wrong-mode", "/etc/security", &|| {
            good();
            mode(&directory, 0o775);
        }),
        ("directory 1777", "wrong-mode", "/etc/security", &|| {
            good();
            mode(&directory, 0o1777);
        }),
        ("directory above it 0757", "wrong-mode", "/etc", &|| {
            good();
            mode(&machine.path("/etc"), 0o757);
        }),
        ("65537 bytes", "wrong-size", "size=65537", &|| text(long(65537).as_bytes())),
        ("no byte", "bad-policy", "the_file_must_begin_with:_version", &|| text(b"")),
        ("blanks", "bad-policy", "the_file_must_begin_with:_version", &|| text(b"\n \n# nothing\n")),
        ("NUL", "bad-policy", "at=/etc/security/pam_totp.toml:2:3", &|| text(b"version = 1\n# \0\n")),
        ("zeros", "bad-policy", "at=/etc/security/pam_totp.toml:1:1", &|| text(&[0; 512])),
        ("Latin-1", "bad-policy", "the_file_is_not_UTF-8_text", &|| text(b"version = 1\n# f\xfcr\n")),
        ("UTF-16", "bad-policy", "the_file_is_not_UTF-8_text", &|| text(b"\xff\xfev\0e\0r\0s\0i\0o\0n\0")),
        ("cut in a word", "bad-policy", "at=/etc/security/pam_totp.toml:2:", &|| text(b"version = 1\n[defau")),
        ("cut in a value", "bad-policy", "at=/etc/security/pam_totp.toml:3:", &|| {
            text(b"version = 1\n[defaults]\nprompt = \"Co");
        }),
    ];
    for (case, reason, detail, prepare) in cases {
        let _ = fs::remove_file(&file);
        prepare();
        let start = Instant::now();
        let login = machine.login("test", "alice").run();
        assert!(start.elapsed() < PROMPTLY, "{case}: {:?}", start.elapsed());
        is_denied_unasked(&login, reason);
        let line = login.log[1].replace(' ', "_");
        assert!(line.contains(detail), "{case}: {login:#?}");
        for path in ["/etc", "/etc/security"] {
            mode(&machine.path(path), 0o755);
        }
        chown(&directory, Some(0), None).unwrap();
    }
    let _ = fs::remove_file(&file);
    text(long(65536).as_bytes());
    is_asked(&try_in(&machine, "test", "alice", AWAY));
    // A directory above it that is a link, even one of root's.
    fs::rename(&directory, machine.path("/etc/security.d")).unwrap();
    symlink("security.d", &directory).unwrap();
    is_denied_unasked(&machine.login("test", "alice").run(), "link");
}

#[test]
fn a_policy_file_that_conf_names_has_to_be_there_and_to_be_as_trustworthy() {
    let machine = machine();
    let (alice, bob) = ("/home/alice/p.toml", "/run/p.toml");
    machine.write_as(alice, "version = 1\n", ALICE.uid, 0o644);
    machine.write_as(bob, "version = 1\n", BOB.uid, 0o644);
    machine.make_directory("/run/one/two", 0o755, 0);
    machine.write_as("/run/one/two/p.toml", "version = 1\n", 0, 0o644);
    for (conf, reason) in [
        ("/etc/security/none.toml", "no-policy"),
        ("/nowhere/at/all.toml", "no-policy"),
        ("", "bad-path"),
        ("pam_totp.toml", "bad-path"),
        ("/run/one/../one/two/p.toml", "bad-path"),
        ("/run/one/two/", "not-a-file"),
        ("/", "not-a-file"),
        (alice, "wrong-owner"),
        (bob, "wrong-owner"),
    ] {
        machine.service("test", &format!("auth required pam_totp.so conf={conf} nullok\nauth required pam_permit.so\n"));
        is_denied_unasked(&machine.login("test", "alice").run(), reason);
    }
    machine.service("test", "auth required pam_totp.so conf=/run/one/two/p.toml\n");
    is_asked(&try_in(&machine, "test", "alice", AWAY));
    // In use or not, this one has to be there; and it says nothing about the default one.
    fs::remove_file(machine.path("/run/one/two/p.toml")).unwrap();
    is_denied_unasked(&machine.login("test", "alice").run(), "no-policy");
    machine.service("test", STACK);
    is_asked(&try_in(&machine, "test", "alice", AWAY));
}

#[test]
fn sshd_and_su_wait_for_no_fifo_in_the_place_of_the_policy() {
    let machine = machine();
    for service in ["sshd", "su"] {
        machine.service(service, &example_file(if service == "sshd" { "sshd-debian" } else { "su" }));
    }
    let sshd = Sshd::start(&machine, &format!("{KEY_AND_CODE}LoginGraceTime 20\n"));
    output_of(Command::new("mkfifo").arg("-m644").arg(machine.path(POLICY)));
    let start = Instant::now();
    let session = sshd.login(ALICE, &[&code_now(SECRET)]);
    assert!(!session.succeeded && session.questions.is_empty(), "{session:#?}");
    assert!(!su(&machine, BOB, "alice", &[PASSWORD]).status.success());
    // The delays after the denials aside, of which sshd makes several.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let log = machine.log();
    assert!(reasons(&log).len() >= 2 && reasons(&log).iter().all(|reason| reason == "not-a-file"), "{log:#?}");
    fs::remove_file(machine.path(POLICY)).unwrap();
    assert!(sshd.login(ALICE, &[&code_now(SECRET)]).succeeded);
}

#[test]
fn a_policy_that_was_in_use_and_is_gone_denies() {
    let machine = machine();
    let file = machine.path(POLICY);
    let gone = || {
        fs::remove_file(&file).unwrap();
        let login = machine.login("test", "alice").run();
        is_denied_unasked(&login, "no-policy");
        assert!(login.log[1].contains("path=/etc/security/pam_totp.toml"), "{login:#?}");
    };
    // One that was never right was never in use.
    machine.write_as(POLICY, "version = 1\n[defaults]\nwidow = 1\n", 0, 0o644);
    is_denied_unasked(&machine.login("test", "alice").run(), "bad-policy");
    fs::remove_file(&file).unwrap();
    is_asked(&try_in(&machine, "test", "alice", AWAY));

    put(&machine, "");
    is_asked(&try_in(&machine, "test", "alice", AWAY));
    gone();
    // Also after it was replaced, and with the state elsewhere.
    put(&machine, "[defaults]\nprompt = \"Code: \"\n");
    assert_eq!(try_in(&machine, "test", "alice", AWAY).prompts, ["1 \"Code: \""]);
    put(&machine, "[defaults]\nstate_dir = \"/srv/codes\"\n");
    is_asked(&try_in(&machine, "test", "alice", AWAY));
    gone();
    // The program says so too, and makes nothing without a policy.
    for arguments in [&["check"][..], &["throttle", "list"], &["enrol", "--json", "--no-confirm", "--force"]] {
        let (code, out, err) = said(&pam_totp(&machine, arguments));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}: {err}");
        assert!(err.starts_with("pam-totp: no-policy path=/etc/security/pam_totp.toml "), "{arguments:?}: {err}");
    }
    // Back by the way that the message names.
    machine.write("/root/p.toml", "version = 1\n");
    assert_eq!(said(&pam_totp(&machine, &["check", "--install", "/root/p.toml"])).0, Some(0));
    is_asked(&try_in(&machine, "test", "alice", AWAY));

    // One that was installed is in use from then on, though nobody has logged in yet.
    let machine = self::machine();
    machine.write("/root/p.toml", "version = 1\n");
    assert_eq!(said(&pam_totp(&machine, &["check", "--install", "/root/p.toml"])).0, Some(0));
    fs::remove_file(machine.path(POLICY)).unwrap();
    is_denied_unasked(&machine.login("test", "alice").run(), "no-policy");
}

/// One wrong code an hour, at the end.
const CLOSING: &str = "\
version = 1
# What stands last is what a cut takes first.

[service.test]
allow_scratch_codes = false
# Somebody who guesses has one guess.

[throttle]
# From anywhere.
user = \"*:1/1h\"
# At anybody.
host = \"*:1/1h\"
";

#[test]
fn a_policy_that_was_cut_short_denies_or_asks_for_no_less() {
    let machine = machine();
    machine.enrol(ALICE, "\" TOTP_AUTH\n12345678\n");
    machine.write_as(POLICY, CLOSING, 0, 0o644);
    is_asked(&try_in(&machine, "test", "alice", AWAY));
    // alice has no guess left now: as long as the policy holds, her right code is refused.
    let inode = machine.path(POLICY).metadata().unwrap().ino();
    let lengths = (0..CLOSING.len()).step_by(CLOSING.len() / 60);
    let mut seen = Vec::new();
    for length in lengths.chain([CLOSING.len() - 1]) {
        // In place, as a disk that is full leaves it.
        machine.write(POLICY, &CLOSING[..length]);
        let answer = if length % 2 == 0 { code_now(SECRET) } else { "12345678".to_owned() };
        let login = machine.login("test", "alice").with(&["--rhost", AWAY]).answer(answer).run();
        assert_eq!(login.result(), AUTH_ERR, "cut to {length} bytes: {login:#?}");
        let reason = login.reason();
        if reason == "policy-cut-short" {
            let missing = format!("missing-bytes={} ", CLOSING.len() - length);
            assert!(login.prompts.is_empty() && login.log[1].contains(&missing), "{login:#?}");
        }
        seen.push(reason);
    }
    assert_eq!(machine.path(POLICY).metadata().unwrap().ino(), inode);
    assert_eq!(seen.last().unwrap(), "throttled", "a line end is no rule");
    let count = |reason: &str| seen.iter().filter(|seen| seen.as_str() == reason).count();
    assert!(count("bad-policy") > 20 && count("policy-cut-short") > 10, "{seen:?}");
    assert!(seen.len() >= 60 && seen.len() == count("bad-policy") + count("policy-cut-short") + count("throttled"));

    // Where it is meant: by way of the program.
    let (shorter, _) = CLOSING.split_once("[throttle]").unwrap();
    machine.write(POLICY, shorter);
    is_denied_unasked(&machine.login("test", "alice").run(), "policy-cut-short");
    let (code, _, err) = said(&pam_totp(&machine, &["check"]));
    assert!(code == Some(1) && err.contains("policy-cut-short"), "{err}");
    machine.write("/root/p.toml", shorter);
    let (code, _, err) = said(&pam_totp(&machine, &["check", "--install", "/root/p.toml"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    is_accepted(&machine.login("test", "alice").with(&["--rhost", AWAY]).answer(code_now(SECRET)).run(), "totp");
}

#[test]
fn a_beginning_of_a_policy_that_only_asks_for_more_is_taken() {
    let machine = machine();
    let before = "version = 1\n[defaults]\nmin_secret_bits = 80\n";
    for opening in [
        "[[exempt]]\nusers = [\"alice\"]\nnetworks = [\"any\"]\nservices = [\"any\"]\nuntil = 2099-01-01\nreason = \"x\"\n",
        "[require]\ngroups = [\"root\"]\n",
        "[compat]\nskew_adjustment = true\n",
        "[service.test]\nenrolment = \"optional\"\n",
    ] {
        machine.write_as(POLICY, format!("{before}{opening}"), 0, 0o644);
        try_in(&machine, "test", "alice", AWAY);
        machine.write(POLICY, before);
        is_asked(&try_in(&machine, "test", "alice", AWAY));
        is_asked(&try_in(&machine, "test", "bob", AWAY));
    }
}

// ---- pam-totp check ----

#[test]
fn check_names_the_place_of_a_mistake_and_the_key_that_was_meant() {
    let machine = machine();
    for (text, mistake) in [
        ("[defaults]\nwidow = 3\n", "3:1: unknown key `widow`; did you mean `window`?"),
        ("[service.sshd]\n  alow_scratch_codes = false\n", "3:3: unknown key `alow_scratch_codes`; did you mean `allow_scratch_codes`?"),
        ("[defaults]\nxyzzy = 3\n", "3:1: unknown key `xyzzy`"),
        ("[defaults]\necho = 1\n", "3:8: invalid type: integer `1`, expected a boolean"),
        ("[throttle]\nuser = \"*:10\"\n", "3:8: `10` is no trigger such as 10/1h: 1 to 100 failures in 1s to 30d"),
        ("[defaults\n", "2:10: unclosed table, expected `]`"),
        ("[[exempt]]\nusers = [\"backup\"]\n", "2:1: missing field `networks`"),
    ] {
        let text = format!("version = 1\n{text}");
        machine.write("/root/p.toml", &text);
        let (code, out, err) = said(&pam_totp(&machine, &["check", "/root/p.toml"]));
        assert_eq!((code, out.as_str(), err), (Some(1), "", format!("pam-totp: /root/p.toml:{mistake}\n")));
        // The same of the file in force, where the log says it to whoever could not log in.
        machine.write_as(POLICY, &text, 0, 0o644);
        let (code, _, err) = said(&pam_totp(&machine, &["check"]));
        assert_eq!((code, err), (Some(1), format!("pam-totp: {POLICY}:{mistake}\n")));
        let (place, _) = mistake.split_once(": ").unwrap();
        let login = machine.login("test", "alice").run();
        is_denied_unasked(&login, "bad-policy");
        assert!(login.log[1].contains(&format!("at={POLICY}:{place} ")), "{login:#?}");
    }
    // What is not wrong with its text.
    fs::remove_file(machine.path(POLICY)).unwrap();
    for (prepare, reason) in [
        ("ln -s /etc/passwd", "link"),
        ("mkfifo", "not-a-file"),
        ("mkdir", "not-a-file"),
        ("install -m 0666 /root/good.toml", "wrong-mode"),
        ("install -o bob /root/good.toml", "wrong-owner"),
    ] {
        machine.write("/root/good.toml", "version = 1\n");
        let script = format!("{prepare} {POLICY}");
        output_of(machine.command("sh").args(["-c", &script]));
        let mut command = machine.command("timeout");
        command.arg("10").arg(machine.shared().join("pam-totp")).arg("check");
        let (code, out, err) = said(&command.output().unwrap());
        assert_eq!((code, out.as_str()), (Some(1), ""), "{prepare}: {err}");
        assert!(err.starts_with(&format!("pam-totp: {reason} path={POLICY}")), "{prepare}: {err}");
        output_of(machine.command("rm").args(["-r", POLICY]));
    }
}

/// What is said about one service, a line an element, blanks as one.
fn section(report: &str, service: &str) -> Vec<String> {
    let mut lines = report.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.find(|line| line.starts_with(&format!("{service} ("))).unwrap_or_else(|| panic!("{service}: {report}"));
    lines.take_while(|line| !line.is_empty()).collect()
}

#[test]
fn check_shows_what_holds_at_each_service_who_says_so_and_what_that_leaves_to_guessers() {
    let machine = machine();
    for service in ["test", "permitting"] {
        fs::remove_file(machine.path(&format!("/etc/pam.d/{service}"))).unwrap();
    }
    // Nothing loads us, and there is no policy: what would hold anywhere.
    let (code, report, err) = said(&pam_totp(&machine, &["check"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(report.starts_with(&format!("{POLICY}: not there: defaults\n")), "{report}");
    let other = section(&report, "other");
    for line in [
        "window { behind = 1, ahead = 1 } default",
        "throttle.user \"*:10/1h,30/1d\" default",
        "guessing: 3 live codes of 1000000 a device, 30 guesses a day: right once in a day with 0.0090 %, in a year with \
         3.23 %, times the devices",
    ] {
        assert!(other.contains(&line.to_owned()), "{line}: {other:#?}");
    }
    assert!(other.iter().any(|line| line.contains("100 live codes") && line.ends_with("; max_window bounds that")));

    machine.service("sshd", "# ours\nauth required pam_totp.so [authtok_prompt=Code: ] nullok\n");
    machine.service("su", "auth sufficient pam_rootok.so\nauth required pam_totp.so\n");
    machine.service("su-l", "auth include su\n");
    machine.service("sudo", "@include common-ours\n");
    machine.service("sudo-i", "@include common-ours\n");
    machine.service("common-ours", "auth requisite \\\n pam_totp.so\n");
    machine.service("login", "auth required pam_totp.so conf=/etc/own.toml\n");
    machine.service("cron", "auth required pam_unix.so\naccount required pam_totp.so\n");
    let policy = "version = 1\n[defaults]\nwindow = { behind = 2, ahead = 0 }\nprompt = \"Token: \"\n\
                  [service.su]\nwindow = { behind = 0, ahead = 0 }\nfail_delay = \"4s\"\n\
                  [service.sudo]\ngrace = \"12h\"\n[throttle]\nuser = \"*:5/1d\"\n\
                  [require]\ngroups = [\"root\", \"no-such-group\"]\n";
    machine.write_as(POLICY, policy, 0, 0o644);
    let (code, report, err) = said(&pam_totp(&machine, &["check"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(report.starts_with(&format!("{POLICY}: no error\n")), "{report}");
    let has = |service: &str, lines: &[&str]| {
        let section = section(&report, service);
        for line in lines {
            assert!(section.contains(&(*line).to_owned()), "{service}: {line}: {section:#?}");
        }
    };
    has(
        "sshd",
        &[
            "window { behind = 2, ahead = 0 } line 3",
            "prompt \"Code: \" argument",
            "enrolment \"optional\" argument",
            "fail_delay 2s default",
            "throttle.user \"*:5/1d\" line 10",
            "throttle.host \"*:10/1h,30/1d\" line 10",
            "note: whoever has no device gets in without a code, for ever: `enrol_by` sets an end",
        ],
    );
    for su in ["su", "su-l"] {
        has(
            su,
            &[
                "window { behind = 0, ahead = 0 } line 6",
                "prompt \"Token: \" line 4",
                "fail_delay 4s line 7",
                "require.groups root, no-such-group line 12",
                "note: there is no group `no-such-group`: until there is, everybody needs a code",
                "guessing: 1 live codes of 1000000 a device, 5 guesses a day: right once in a day with 0.0005 %, in a year \
                 with 0.18 %, times the devices",
            ],
        );
    }
    for sudo in ["sudo", "sudo-i"] {
        has(sudo, &["grace 12h line 9"]);
    }
    let places = ["sshd (/etc/pam.d/sshd:2)", "su-l (/etc/pam.d/su:2)", "sudo (/etc/pam.d/common-ours:1)"];
    assert!(places.iter().all(|place| report.contains(&format!("\n{place}\n"))), "{report}");
    assert!(report.contains("login (/etc/pam.d/login:1): has a policy file of its own, /etc/own.toml"), "{report}");
    assert!(!report.contains("cron"), "it asks nobody for a code: {report}");
    let fallen = "\nWithout a table of their own, so that [defaults] holds: common-ours (/etc/pam.d/common-ours:1), \
                  login (/etc/pam.d/login:1), sshd (/etc/pam.d/sshd:2)\n";
    assert!(report.ends_with(fallen), "{report}");

    // What holds is what is shown: su-l asks what su asks.
    machine.service("su", "auth required pam_totp.so\n");
    assert_eq!(try_in(&machine, "su-l", "alice", AWAY).prompts, ["1 \"Token: \""]);
    // One service, another file.
    let (_, one, _) = said(&pam_totp(&machine, &["check", "--service", "su-l"]));
    assert!(one.contains("\nsu-l (") && !one.contains("\nsu (") && !one.contains("\nsshd ("), "{one}");
    let (_, unknown, _) = said(&pam_totp(&machine, &["check", "--service", "vpn"]));
    assert!(unknown.contains("\nvpn (no file in /etc/pam.d loads the module)\n"), "{unknown}");
    machine.write_as("/etc/own.toml", "version = 1\n[defaults]\necho = true\n", 0, 0o644);
    let (code, own, _) = said(&pam_totp(&machine, &["check", "--conf", "/etc/own.toml", "--service", "login"]));
    assert!(code == Some(0) && section(&own, "login").contains(&"echo true line 3".to_owned()), "{own}");
    let (code, _, err) = said(&pam_totp(&machine, &["check", "--conf", "/etc/none.toml"]));
    assert!(code == Some(1) && err.starts_with("pam-totp: no-policy path=/etc/none.toml"), "{err}");
}

#[test]
fn anybody_can_check_a_policy_and_only_root_can_put_one_in_force() {
    let machine = machine();
    put(&machine, "");
    let mine = "/home/alice/p.toml";
    machine.write_as(mine, "version = 1\n[service.test]\necho = true\n", ALICE.uid, 0o600);
    let inode = || machine.path(POLICY).metadata().unwrap().ino();
    let before = (inode(), machine.read(POLICY));
    for arguments in [&["check"][..], &["check", mine], &["check", "--service", "test", mine]] {
        let (code, out, err) = said(&pam_totp_as(&machine, ALICE, arguments));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
        assert_eq!(section(&out, "test").contains(&"echo true line 3".to_owned()), arguments.len() > 1, "{out}");
    }
    assert_eq!(said(&pam_totp_as(&machine, BOB, &["check", mine])).0, Some(1), "bob cannot read it");
    let (code, out, err) = said(&pam_totp_as(&machine, ALICE, &["check", "--install", mine]));
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert_eq!((inode(), machine.read(POLICY)), before);
    assert!(!machine.path("/home/alice").read_dir().unwrap().any(|e| e.unwrap().file_name().len() > 25), "no litter");
    for wrong in [
        &["check", "--install"][..],
        &["check", "one", "two"],
        &["check", "--sevice", "sshd"],
        &["check", "--service"],
        &["check", "--conf"],
        &["chek"],
        &[],
    ] {
        let (code, out, err) = said(&pam_totp(&machine, wrong));
        assert!((code, out.as_str()) == (Some(2), "") && err.contains("--help"), "{wrong:?}: {code:?} {err}");
    }
    assert_eq!((inode(), machine.read(POLICY)), before);
}

#[test]
fn install_replaces_a_policy_by_rename_or_leaves_it_as_it_is() {
    let machine = machine();
    put(&machine, "[defaults]\nprompt = \"Old: \"\n");
    let stat = || machine.path(POLICY).metadata().unwrap();
    let prompt = || try_in(&machine, "test", "alice", AWAY).prompts;
    let install = |arguments: &[&str]| said(&pam_totp(&machine, &[&["check", "--install"], arguments].concat()));
    let names = || {
        let mut names: Vec<_> =
            machine.path("/etc/security").read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(prompt(), ["1 \"Old: \""]);
    let (inode, text, listed) = (stat().ino(), machine.read(POLICY), names());
    // What is wrong, and what cannot be read, changes nothing.
    for (text, code) in [
        ("version = 1\n[defaults]\nwidow = 1\n", Some(1)),
        ("", Some(1)),
        ("[defaults]\necho = true\n", Some(1)),
        ("version = 1\n\0", Some(1)),
    ] {
        machine.write("/root/p.toml", text);
        let (status, out, err) = install(&["/root/p.toml"]);
        assert_eq!((status, out.as_str()), (code, ""), "{err}");
        assert!(err.starts_with("pam-totp: /root/p.toml:"), "{err}");
    }
    for missing in ["/root/none.toml", "/root"] {
        assert_eq!(install(&[missing]).0, Some(1));
    }
    // Nobody else may be able to write above it.
    machine.make_directory("/run/open", 0o777, 0);
    machine.write("/root/p.toml", "version = 1\n[defaults]\nprompt = \"New: \"\n");
    let (code, _, err) = install(&["--conf", "/run/open/p.toml", "/root/p.toml"]);
    assert!(code == Some(1) && err.contains("wrong-mode"), "{err}");
    assert_eq!((stat().ino(), machine.read(POLICY), names()), (inode, text, listed.clone()));
    assert_eq!(prompt(), ["1 \"Old: \""]);

    // What is right is in force with the next login, whatever the umask and whoever the file belonged to.
    machine.write_as("/home/alice/p.toml", "version = 1\n[defaults]\nprompt = \"New: \"\n", ALICE.uid, 0o600);
    let script = format!("umask 0777; exec {} check --install /home/alice/p.toml", machine.shared().join("pam-totp").display());
    let report = output_of(machine.command("sh").args(["-c", &script]));
    assert!(report.starts_with(&format!("{POLICY}: no error\n")) && report.contains("\"New: \""), "{report}");
    assert_ne!(stat().ino(), inode);
    assert_eq!((stat().mode() & 0o7777, stat().uid(), stat().gid(), stat().nlink()), (0o644, 0, 0, 1));
    assert_eq!((prompt(), names()), (vec!["1 \"New: \"".to_owned()], listed));
    // In the place of a link: not through it.
    machine.write("/etc/security/elsewhere", "mine\n");
    fs::remove_file(machine.path(POLICY)).unwrap();
    symlink("elsewhere", machine.path(POLICY)).unwrap();
    assert_eq!(install(&["/root/p.toml"]).0, Some(0));
    assert!(machine.path(POLICY).symlink_metadata().unwrap().is_file());
    assert_eq!(machine.read("/etc/security/elsewhere"), "mine\n");
    // A policy of a file of its own.
    assert_eq!(install(&["--conf", "/etc/security/own.toml", "/root/p.toml"]).0, Some(0));
    assert_eq!(machine.read("/etc/security/own.toml"), machine.read("/root/p.toml"));
}

#[test]
fn logins_beside_installs_see_one_policy_or_the_other() {
    let machine = machine();
    // One long and one short, and both without limits.
    let throttle = "[throttle]\nuser = \"\"\nhost = \"\"\n";
    let short = format!("version = 1\n{throttle}[defaults]\nprompt = \"Short: \"\n");
    let long = format!("# Long\n{short}[service.test]\nprompt = \"Long: \"\nmin_secret_bits = 128\n# {}\n", "x".repeat(60_000));
    for (name, text) in [("long", &long), ("short", &short)] {
        machine.write(&format!("/root/{name}"), text);
    }
    let install = |name: &str| said(&pam_totp(&machine, &["check", "--install", &format!("/root/{name}")]));
    assert_eq!(install("long").0, Some(0));
    let is_over = AtomicBool::new(false);
    let client = machine.client();
    let mut prompts = Vec::new();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    while !is_over.load(Ordering::SeqCst) {
                        let arguments = ["test", "alice", "--answer", "no code"];
                        let output = output_of(machine.command("timeout").arg("20").arg(&client).args(arguments));
                        seen.push(output.lines().next().unwrap_or_default().to_owned());
                    }
                    seen
                })
            })
            .collect();
        for _ in 0..40 {
            for name in ["short", "long"] {
                let (code, _, err) = install(name);
                assert_eq!((code, err.as_str()), (Some(0), ""));
            }
        }
        is_over.store(true, Ordering::SeqCst);
        prompts.extend(readers.into_iter().flat_map(|reader| reader.join().unwrap()));
    });
    let count = |prompt: &str| prompts.iter().filter(|seen| *seen == &format!("prompt 1 \"{prompt}: \"")).count();
    assert!(count("Long") > 0 && count("Short") > 0, "both were seen: {prompts:?}");
    let log = machine.log();
    let reasons = reasons(&log);
    assert_eq!(reasons, vec!["not-a-code".to_owned(); prompts.len()], "{prompts:?}");
}
