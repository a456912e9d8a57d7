//! The policy file, from what `pam-totp check` says about it to what a login makes of it.

use crate::sudo_su::{PASSWORD, type_to};
use crate::support::machine::{ALICE, AUTH_ERR, BOB, LoggedIn, Machine, PERM_DENIED, SUCCESS, User};
use crate::support::ssh::{KEY_AND_CODE, Sshd, Wire};
use crate::support::totp::{SECRET, code_at, code_now, now, wrong_code};
use crate::support::{example_file, need, output_of, reasons};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
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
const PROMPTLY: Duration = Duration::from_secs(10);

/// alice is enrolled. `test` is our module alone, `permitting` has one behind it that says yes.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.service("test", STACK);
    machine.service("permitting", PERMITTING);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
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
    machine.command(machine.program()).args(arguments).output().unwrap()
}

fn pam_totp_as(machine: &Machine, user: User, arguments: &[&str]) -> Output {
    machine.command_as(user, machine.program()).args(arguments).output().unwrap()
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
/// Denials that nobody has to wait for.
const HASTY: &str = "[defaults]\nfail_delay = \"0s\"\n";
/// For what takes more guesses than the rules allow.
const UNLIMITED: &str = "[throttle]\nuser = \"\"\nhost = \"\"\n";
/// What a machine without a clock of its own takes for the present.
const LONG_AGO: &str = "@1970-01-02 00:00:00";

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
        machine
            .service("test", &format!("auth required pam_totp.so conf={conf} nullok\nauth required pam_permit.so\n"));
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
    put(&machine, "[defaults]\nstate_dir = \"/run/codes\"\n");
    is_asked(&try_in(&machine, "test", "alice", AWAY));
    gone();
    // The program says so too, and makes nothing without a policy.
    for arguments in [&["check"][..], &["throttle", "list"], &["enrol", "--json", "--no-confirm", "--force"]] {
        let (code, out, err) = said(&pam_totp(&machine, arguments));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}: {err}");
        assert!(err.starts_with("pam-totp: no-policy path=/etc/security/pam_totp.toml "), "{arguments:?}: {err}");
    }
    // Back by the way that the message names.
    machine.write("/run/p.toml", "version = 1\n");
    assert_eq!(said(&pam_totp(&machine, &["check", "--install", "/run/p.toml"])).0, Some(0));
    is_asked(&try_in(&machine, "test", "alice", AWAY));

    // One that was installed is in use from then on, though nobody has logged in yet.
    let machine = self::machine();
    machine.write("/run/p.toml", "version = 1\n");
    assert_eq!(said(&pam_totp(&machine, &["check", "--install", "/run/p.toml"])).0, Some(0));
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
    let code = code_now(SECRET);
    let lengths = (0..CLOSING.len()).step_by(CLOSING.len() / 60);
    let mut seen = Vec::new();
    for length in lengths.chain([CLOSING.len() - 1]) {
        // In place, as a disk that is full leaves it.
        machine.write(POLICY, &CLOSING[..length]);
        let answer = if length % 2 == 0 { code.as_str() } else { "12345678" };
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
    machine.write("/run/p.toml", shorter);
    let (code, _, err) = said(&pam_totp(&machine, &["check", "--install", "/run/p.toml"]));
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
        (
            "[service.sshd]\n  alow_scratch_codes = false\n",
            "3:3: unknown key `alow_scratch_codes`; did you mean `allow_scratch_codes`?",
        ),
        ("[defaults]\nxyzzy = 3\n", "3:1: unknown key `xyzzy`"),
        ("[defaults]\necho = 1\n", "3:8: invalid type: integer `1`, expected a boolean"),
        ("[throttle]\nuser = \"*:10\"\n", "3:8: `10` is no trigger such as 10/1h: 1 to 100 failures in 1s to 30d"),
        ("[defaults\n", "2:10: unclosed table, expected `]`"),
        ("[[exempt]]\nusers = [\"backup\"]\n", "2:1: missing field `networks`"),
    ] {
        let text = format!("version = 1\n{text}");
        machine.write("/run/p.toml", &text);
        let (code, out, err) = said(&pam_totp(&machine, &["check", "/run/p.toml"]));
        assert_eq!((code, out.as_str(), err), (Some(1), "", format!("pam-totp: /run/p.toml:{mistake}\n")));
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
        ("install -m 0666 /run/good.toml", "wrong-mode"),
        ("install -o bob /run/good.toml", "wrong-owner"),
    ] {
        machine.write("/run/good.toml", "version = 1\n");
        let script = format!("{prepare} {POLICY}");
        output_of(machine.command("sh").args(["-c", &script]));
        let mut command = machine.command("timeout");
        command.arg("10").arg(machine.program()).arg("check");
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
        machine.write("/run/p.toml", text);
        let (status, out, err) = install(&["/run/p.toml"]);
        assert_eq!((status, out.as_str()), (code, ""), "{err}");
        assert!(err.starts_with("pam-totp: /run/p.toml:"), "{err}");
    }
    for missing in ["/run/none.toml", "/run"] {
        assert_eq!(install(&[missing]).0, Some(1));
    }
    // Nobody else may be able to write above it.
    machine.make_directory("/run/open", 0o777, 0);
    machine.write("/run/p.toml", "version = 1\n[defaults]\nprompt = \"New: \"\n");
    let (code, _, err) = install(&["--conf", "/run/open/p.toml", "/run/p.toml"]);
    assert!(code == Some(1) && err.contains("wrong-mode"), "{err}");
    assert_eq!((stat().ino(), machine.read(POLICY), names()), (inode, text, listed.clone()));
    assert_eq!(prompt(), ["1 \"Old: \""]);

    // What is right is in force with the next login, whatever the umask and whoever the file belonged to.
    machine.write_as("/home/alice/p.toml", "version = 1\n[defaults]\nprompt = \"New: \"\n", ALICE.uid, 0o600);
    let script = format!("umask 0777; exec {} check --install /home/alice/p.toml", machine.program().display());
    let report = output_of(machine.command("sh").args(["-c", &script]));
    assert!(report.starts_with(&format!("{POLICY}: no error\n")) && report.contains("\"New: \""), "{report}");
    assert_ne!(stat().ino(), inode);
    assert_eq!((stat().mode() & 0o7777, stat().uid(), stat().gid(), stat().nlink()), (0o644, 0, 0, 1));
    assert_eq!((prompt(), names()), (vec!["1 \"New: \"".to_owned()], listed));
    // In the place of a link: not through it.
    machine.write("/etc/security/elsewhere", "mine\n");
    fs::remove_file(machine.path(POLICY)).unwrap();
    symlink("elsewhere", machine.path(POLICY)).unwrap();
    assert_eq!(install(&["/run/p.toml"]).0, Some(0));
    assert!(machine.path(POLICY).symlink_metadata().unwrap().is_file());
    assert_eq!(machine.read("/etc/security/elsewhere"), "mine\n");
    // A policy of a file of its own.
    assert_eq!(install(&["--conf", "/etc/security/own.toml", "/run/p.toml"]).0, Some(0));
    assert_eq!(machine.read("/etc/security/own.toml"), machine.read("/run/p.toml"));
}

#[test]
fn logins_beside_installs_see_one_policy_or_the_other() {
    let machine = machine();
    // One long and one short, and both without limits.
    let short = format!("version = 1\n{UNLIMITED}[defaults]\nprompt = \"Short: \"\n");
    let long = format!(
        "# Long\n{short}[service.test]\nprompt = \"Long: \"\nmin_secret_bits = 128\n# {}\n",
        "x".repeat(60_000)
    );
    for (name, text) in [("long", &long), ("short", &short)] {
        machine.write(&format!("/run/{name}"), text);
    }
    let install = |name: &str| said(&pam_totp(&machine, &["check", "--install", &format!("/run/{name}")]));
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

// ---- Exemptions ----

/// An exemption of `who`, from TEST-NET-2 at `test` and `permitting`, and whatever else is said.
fn exempt(who: &str, until: &str, more: &str) -> String {
    exempt_from("198.51.100.0/24", who, until, more)
}

fn exempt_from(networks: &str, who: &str, until: &str, more: &str) -> String {
    format!(
        "[[exempt]]\n{who}\nnetworks = [\"{networks}\"]\nservices = [\"test\", \"permitting\", \"sshd\"]\nuntil = {until}\n\
         reason = \"nightly copies = ticket 4711\"\n{more}\n"
    )
}

const FOREVER: &str = "2099-12-31";

#[test]
fn somebody_exempt_is_not_asked_and_the_log_says_until_when_and_why() {
    let machine = machine();
    put(&machine, &exempt("users = [\"alice\"]", FOREVER, ""));
    let login = machine.login("test", "alice").with(&["--rhost", AWAY]).run();
    is_passed_over(&login, "reason=exempt until=2099-12-31 for=nightly\\x20copies\\x20\\x3D\\x20ticket\\x204711");
    let login = machine.login("permitting", "alice").with(&["--rhost", AWAY]).run();
    assert_eq!((login.result(), login.prompts.len()), (SUCCESS, 0), "{login:#?}");
    assert!(login.log[0].contains(": not asked user=alice rhost=198.51.100.7 reason=exempt "), "{login:#?}");
    // As if there had been a code, where that is said.
    put(&machine, &exempt("users = [\"alice\"]", FOREVER, "result = \"success\""));
    let login = machine.login("test", "alice").with(&["--rhost", AWAY]).run();
    assert_eq!((login.result(), login.prompts.len()), (SUCCESS, 0), "{login:#?}");
    assert!(login.log[0].contains(": accepted user=alice rhost=198.51.100.7 factor=exempt until="), "{login:#?}");
    // Somebody who does not exist is not exempt, whoever is.
    put(&machine, &exempt("users = [\"any\"]", FOREVER, "result = \"success\""));
    is_asked(&try_in(&machine, "test", "mallory", AWAY));
}

#[test]
fn an_exemption_is_for_the_people_places_and_services_that_it_names() {
    let machine = machine();
    machine.append("/etc/group", "robots:x:30001:bob,carol\n");
    let alice = "users = [\"alice\"]";
    let is_exempt = |policy: &str, service: &str, user: &str, rhost: &str| {
        put(&machine, policy);
        let login = try_in(&machine, service, user, rhost);
        match login.prompts.len() {
            0 => is_passed_over(&login, "reason=exempt "),
            _ => is_asked(&login),
        }
        login.prompts.is_empty()
    };
    machine.service("elsewhere", STACK);
    machine.service("sshd", STACK);
    let policy = exempt(alice, FOREVER, "");
    assert!(is_exempt(&policy, "test", "alice", AWAY));
    assert!(is_exempt(&policy, "test", "alice", "::ffff:198.51.100.7"), "IPv4 in IPv6's clothes");
    for (service, user, rhost) in [
        ("elsewhere", "alice", AWAY),
        ("test", "bob", AWAY),
        ("test", "alice", "198.51.101.7"),
        ("test", "alice", "2001:db8::7"),
        // Names are not resolved, and none is in a network.
        ("test", "alice", "host.example.org"),
        ("test", "alice", "198.51.100.7.example.org"),
        ("test", "alice", "198.51.100"),
        ("test", "alice", ""),
    ] {
        assert!(!is_exempt(&policy, service, user, rhost), "{service} {user} {rhost}");
    }
    // Groups, by membership and by primary group; unknown ones have no members.
    let groups = exempt("groups = [\"no-such-group\", \"robots\", \"alice\"]", FOREVER, "");
    assert!(["bob", "carol", "alice"].iter().all(|user| is_exempt(&groups, "test", user, AWAY)));
    assert!(!is_exempt(&exempt("groups = [\"robots\"]", FOREVER, ""), "test", "alice", AWAY));
    assert!(!is_exempt(&exempt("groups = [\"no-such-group\"]", FOREVER, ""), "test", "bob", AWAY));
    // From anywhere: not from this machine itself, whatever the address.
    let anywhere = exempt_from("any", alice, FOREVER, "");
    assert!(is_exempt(&anywhere, "test", "alice", "2001:db8::7"));
    assert!(is_exempt(&anywhere, "test", "alice", ""), "somebody at this machine has no address");
    assert!(!is_exempt(&anywhere, "sshd", "alice", ""), "but not over sshd");
    assert!(!is_exempt(&anywhere, "test", "alice", "host.example.org"));
    let own = output_of(Command::new("hostname").arg("-I"));
    let own: Vec<&str> = own.split_whitespace().collect();
    let loopback =
        ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "169.254.1.1", "fe80::1%lo", "0.0.0.0", "localhost"];
    for address in own.iter().chain(&loopback) {
        assert!(!is_exempt(&anywhere, "test", "alice", address), "{address}");
    }
    let listed = exempt_from("127.0.0.0/8", alice, FOREVER, "");
    assert!(!is_exempt(&listed, "test", "alice", "127.0.0.1"), "not even where it is listed");
    // What many share, unless it is said to be meant.
    let shared = "[defaults]\nshared_sources = [\"198.51.100.0/28\"]\n";
    for more in ["", "shared_sources = false"] {
        assert!(!is_exempt(&format!("{shared}{}", exempt(alice, FOREVER, more)), "test", "alice", AWAY));
    }
    assert!(is_exempt(&format!("{shared}{}", exempt(alice, FOREVER, "")), "test", "alice", "198.51.100.16"));
    assert!(is_exempt(&format!("{shared}{}", exempt(alice, FOREVER, "shared_sources = true")), "test", "alice", AWAY));
}

#[test]
fn an_exemption_that_is_over_is_void_and_a_clock_set_back_does_not_revive_it() {
    let machine = machine();
    let until = day_in(2 * DAY);
    put(&machine, &exempt("users = [\"alice\"]", &until, "result = \"success\""));
    let log_in = |time: &str| {
        let login = machine.login_at(time, "test", "alice").with(&["--rhost", AWAY]).answer("000000").run();
        assert_eq!(login.log.last().unwrap().contains(&format!(" void-exemption={until}")), login.result() == AUTH_ERR);
        (login.result(), login.prompts.len())
    };
    let (open, void) = ((SUCCESS, 0), (AUTH_ERR, 1));
    assert_eq!(log_in("+0"), open);
    // To the end of the day that it names.
    assert_eq!(log_in(&format!("@{until} 23:59:00")), open);
    assert_eq!(log_in(&format!("@{} 00:00:05", day_in(3 * DAY))), void);
    for back in ["+0", "-1d", LONG_AGO] {
        assert_eq!(log_in(back), void, "{back}");
    }
    // A right code is still one, and the log still says that the exemption is over.
    let login = machine.login("test", "alice").with(&["--rhost", AWAY]).answer(code_now(SECRET)).run();
    assert!(login.result() == SUCCESS && login.log[0].contains("factor=totp"), "{login:#?}");
    assert!(login.log[0].contains(&format!("void-exemption={until}")), "{login:#?}");
    // Only root says that the clock was wrong.
    let unlock = ["throttle", "unlock", "--clock"];
    assert_eq!(said(&pam_totp_as(&machine, ALICE, &unlock)).0, Some(1));
    assert_eq!(log_in("+0"), void);
    assert_eq!(said(&pam_totp(&machine, &unlock)).0, Some(0));
    assert_eq!(log_in("+0"), open);
    // At 1970 nothing opens that is over now.
    put(&machine, &exempt("users = [\"alice\"]", "2001-01-01", "result = \"success\""));
    let login = machine.login_at(LONG_AGO, "test", "alice").with(&["--rhost", AWAY]).answer("0").run();
    assert!(login.result() == AUTH_ERR && login.log[1].contains("void-exemption=2001-01-01"), "{login:#?}");
    // A ledger that cannot be trusted opens nothing either.
    put(&machine, &exempt("users = [\"alice\"]", FOREVER, "result = \"success\""));
    assert_eq!(try_in(&machine, "test", "alice", AWAY).result(), SUCCESS);
    fs::set_permissions(machine.path("/var/lib/pam_totp"), fs::Permissions::from_mode(0o777)).unwrap();
    let login = try_in(&machine, "test", "alice", AWAY);
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "wrong-mode"), "{login:#?}");
}

#[test]
fn at_1970_nothing_opens_that_is_over_also_on_a_host_that_knows_no_other_time() {
    let machine = machine();
    put(&machine, &exempt("users = [\"alice\"]", "2001-01-01", "result = \"success\""));
    let login = machine.login_at(LONG_AGO, "test", "alice").with(&["--rhost", AWAY]).answer("0").run();
    assert!(login.result() == AUTH_ERR && login.log[1].contains("void-exemption=2001-01-01"), "{login:#?}");
    put(&machine, "[defaults]\nenrol_by = 2001-01-01\n");
    let login = machine.login_at(LONG_AGO, "test", "bob").answer("0").run();
    assert_eq!((login.result(), login.prompts.len()), (AUTH_ERR, 1), "{login:#?}");
}

#[test]
fn installing_a_shorter_policy_denies_no_login_beside_it() {
    let machine = machine();
    let (long, short) = ("version = 1\n[throttle]\nuser = \"*:3/1d\"\n", "version = 1\n");
    let login = || machine.login("test", "alice").answer("no code").run().reason();
    for policy in [long, short, long, short] {
        machine.write("/run/draft.toml", policy);
        assert_eq!(said(&pam_totp(&machine, &["check", "--install", "/run/draft.toml"])).0, Some(0));
        assert_eq!(login(), "not-a-code");
    }
    // A login that had seen the long one writes down that it was in use, after the short one was installed.
    machine.write(POLICY, long);
    assert_eq!(login(), "not-a-code");
    machine.write(POLICY, short);
    assert_eq!(login(), "not-a-code", "what root has installed is whole");
    machine.write(POLICY, long);
    assert_eq!(login(), "not-a-code");
    machine.write(POLICY, "version = 1\n[throttle]\n");
    assert_eq!(login(), "policy-cut-short");
}

#[test]
fn over_sshd_only_somebody_from_another_machine_is_exempt() {
    let machine = machine();
    machine.service("sshd", &example_file("sshd-debian"));
    let exempt = exempt_from("any", "users = [\"any\"]", FOREVER, "result = \"success\"");
    put(&machine, &format!("{HASTY}{exempt}"));
    let wire = Wire::new();
    let questions = |sshd: &Sshd| {
        let session = sshd.login(ALICE, &[&wrong_code(SECRET)]);
        assert_eq!(session.succeeded, session.questions.is_empty(), "{session:#?} {:#?}", machine.log());
        session.questions.len()
    };
    let mut sshd = Sshd::start_on(&machine, KEY_AND_CODE, &wire);
    assert_eq!(questions(&sshd), 0);
    let log = machine.log();
    assert!(log.iter().any(|l| l.contains("accepted user=alice rhost=198.51.100.2 factor=exempt ")), "{log:#?}");
    // From the machine itself to itself, as a forwarded connection looks.
    sshd.has_clients_in(wire.server());
    assert_eq!(questions(&sshd), 1);
    let log = machine.log();
    assert!(log.iter().any(|l| l.contains("denied user=alice rhost=198.51.100.1 ")), "{log:#?}");
    drop(sshd);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    assert_eq!(questions(&sshd), 1, "from 127.0.0.1");
}

// ---- Who needs a code ----

#[test]
fn only_the_required_groups_need_a_code_and_whoever_has_a_device_is_asked() {
    let machine = machine();
    machine.append("/etc/group", "staff-x:x:30001:bob\nguests:x:30002:bob\n");
    let require = |groups: &str| put(&machine, &format!("[require]\ngroups = [{groups}]\n"));
    let asked = |user: &str| {
        let login = try_in(&machine, "test", user, AWAY);
        match login.prompts.len() {
            0 => is_passed_over(&login, "reason=not-required "),
            _ => is_asked(&login),
        }
        !login.prompts.is_empty()
    };
    require("\"staff-x\"");
    assert!(asked("bob"), "a member");
    assert!(!asked("carol"), "not a member, and without a device");
    let login = machine.login("permitting", "carol").run();
    assert_eq!((login.result(), login.prompts.len()), (SUCCESS, 0), "{login:#?}");
    assert!(asked("alice"), "not a member, but with a device");
    assert!(asked("mallory"), "nobody");
    require("\"carol\"");
    assert!(asked("carol"), "by her primary group");
    assert!(!asked("bob"));
    require("\"staff-x\", \"!guests\"");
    assert!(!asked("bob"), "in both");
    // A group that there is not, and name services that do not answer: everybody needs a code.
    for unknown in ["\"staff-x\", \"no-such-group\"", "\"staff-x\", \"!no-such-group\""] {
        require(unknown);
        assert!(asked("carol"), "{unknown}");
    }
    require("\"staff-x\"");
    let nsswitch = machine.read("/etc/nsswitch.conf");
    let with_groups = |source: &str| {
        let others = nsswitch.lines().filter(|line| !line.starts_with("group:"));
        let lines: Vec<_> = others.chain([source]).collect();
        machine.write("/etc/nsswitch.conf", lines.join("\n") + "\n");
    };
    with_groups("group: files");
    assert!(!asked("carol"));
    with_groups("group: nowhere");
    assert!(asked("carol"), "a name service that is not there");
    with_groups("group: files");
    output_of(machine.command("mv").args(["/etc/group", "/etc/group.away"]));
    assert!(asked("carol"), "no groups at all");
    put(&machine, &exempt("groups = [\"staff-x\"]", FOREVER, ""));
    assert!(asked("bob"), "nor is anybody exempt by a group then");
    output_of(machine.command("mv").args(["/etc/group.away", "/etc/group"]));
    let login = try_in(&machine, "test", "bob", AWAY);
    is_passed_over(&login, "reason=exempt ");
}

// ---- Enrolment ----

#[test]
fn enrolment_is_required_optional_or_optional_until_a_day() {
    let machine = machine();
    machine.service("nullok", "auth required pam_totp.so nullok\n");
    let is_let_in = |time: &str, service: &str, why: &str| {
        let login = machine.login_at(time, service, "bob").answer("000000").run();
        match login.prompts.len() {
            0 => is_passed_over(&login, &format!("reason=not-enrolled {why}")),
            _ => assert_eq!(login.reason(), "not-enrolled", "{login:#?}"),
        }
        // Whoever has a device is asked.
        is_asked(&machine.login_at(time, service, "alice").answer("000000").run());
        login.prompts.is_empty()
    };
    for policy in ["", "[defaults]\nenrolment = \"required\"\n"] {
        put(&machine, &format!("{policy}{UNLIMITED}"));
        assert!(!is_let_in("+0", "test", ""));
        assert!(is_let_in("+0", "nullok", "(nullok)"), "an argument is above the policy");
    }
    let policy = "[defaults]\nenrolment = \"optional\"\n[service.permitting]\nenrolment = \"required\"\n";
    put(&machine, &format!("{policy}{UNLIMITED}"));
    assert!(is_let_in("+0", "test", "(enrolment is optional)"));
    assert!(!is_let_in("+0", "permitting", ""), "a service is above the defaults");
    // Until a day, which a clock that was set back does not bring back.
    let day = day_in(2 * DAY);
    let until = format!("until={day} (enrolment is optional until then)");
    put(&machine, &format!("[service.test]\nenrol_by = {day}\n{UNLIMITED}"));
    assert!(is_let_in("+0", "test", &until));
    assert!(!is_let_in("+0", "permitting", ""));
    assert!(is_let_in(&format!("@{day} 23:59:00"), "test", &until));
    assert!(!is_let_in("+5d", "test", ""));
    assert!(!is_let_in("+0", "test", ""));
    assert!(!is_let_in(LONG_AGO, "test", ""));
    assert_eq!(said(&pam_totp(&machine, &["throttle", "unlock", "--clock"])).0, Some(0));
    assert!(is_let_in("+0", "test", &until));
    put(&machine, &format!("[service.test]\nenrol_by = 2001-01-01\n{UNLIMITED}"));
    assert!(!is_let_in(LONG_AGO, "test", ""));
    let (_, report, _) = said(&pam_totp(&machine, &["check", "--service", "test"]));
    assert!(report.contains("note: enrol_by 2001-01-01 is over: enrolment is required"), "{report}");
}

// ---- Grace ----

/// What sshd puts into the PAM environment about an accepted key (sshd_config(5), ExposeAuthInfo).
const KEY: &str = "SSH_AUTH_INFO_0=publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOne";
const OTHER_KEY: &str = "SSH_AUTH_INFO_0=publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAITwo";

/// A machine with an hour of grace, where alice and bob are enrolled.
fn gracious() -> Machine {
    let machine = machine();
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    for service in ["sshd", "su", "elsewhere"] {
        machine.service(service, STACK);
    }
    put(&machine, "[defaults]\nfail_delay = \"0s\"\ngrace = \"1h\"\nshared_sources = [\"198.51.100.128/25\"]\n");
    machine
}

/// A right code, of a step that was not used before.
fn get_in(machine: &Machine, service: &str, more: &[&str]) {
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    is_accepted(&machine.login(service, "alice").with(more).answer(code_now(SECRET)).run(), "totp");
}

fn has_grace(login: &LoggedIn) -> bool {
    match login.prompts.len() {
        0 => is_accepted(login, "grace"),
        _ => is_asked(login),
    }
    login.prompts.is_empty()
}

#[test]
fn grace_is_for_the_person_the_service_and_the_source_of_the_last_login() {
    let machine = gracious();
    let grace = |service: &str, user: &str, rhost: &str| has_grace(&try_in(&machine, service, user, rhost));
    assert!(!grace("elsewhere", "alice", AWAY), "nobody got in yet");
    get_in(&machine, "test", &["--rhost", AWAY]);
    assert!(grace("test", "alice", AWAY) && grace("test", "alice", "::ffff:198.51.100.7"));
    assert!(!grace("elsewhere", "alice", AWAY), "another service");
    assert!(!grace("test", "alice", "198.51.100.8"), "another source");
    assert!(!grace("test", "bob", AWAY), "another person");
    assert!(grace("test", "alice", AWAY));
    // Addresses that say too little: what many share, and this machine's own.
    let own = output_of(Command::new("hostname").arg("-I"));
    let own: Vec<&str> = own.split_whitespace().collect();
    for rhost in [&["198.51.100.200", "127.0.0.1", "::1", "fe80::1%lo"], own.as_slice()].concat() {
        get_in(&machine, "test", &["--rhost", rhost]);
        assert!(!grace("test", "alice", rhost), "{rhost}");
        assert_eq!(said(&pam_totp(&machine, &["throttle", "unlock", "--user", "alice"])).0, Some(0));
    }
    // Without a policy's word there is none.
    get_in(&machine, "test", &["--rhost", AWAY]);
    assert!(grace("test", "alice", AWAY));
    put(&machine, "");
    assert!(!grace("test", "alice", AWAY));
    put(&machine, "[service.elsewhere]\ngrace = \"1h\"\n");
    assert!(!grace("test", "alice", AWAY));
}

#[test]
fn grace_ends_with_its_time_with_three_failures_and_with_another_secret() {
    let machine = gracious();
    let from = ["--rhost", AWAY];
    let grace_at = |time: &str| has_grace(&machine.login_at(time, "test", "alice").with(&from).answer("000000").run());
    let fail = |rhost: &str| is_asked(&try_in(&machine, "elsewhere", "alice", rhost));
    get_in(&machine, "test", &from);
    assert!(grace_at("+0") && grace_at("+59m"));
    assert!(!grace_at("+61m"));
    assert!(!grace_at("+0") && !grace_at("-1d"), "a clock that was set back does not bring it back");
    assert_eq!(said(&pam_totp(&machine, &["throttle", "unlock", "--clock"])).0, Some(0));
    // Wherever the codes failed.
    get_in(&machine, "test", &from);
    fail("198.51.100.8");
    fail("198.51.100.9");
    assert!(grace_at("+0"), "two");
    fail("198.51.100.10");
    assert!(!grace_at("+0"), "three");
    // A right code makes it good again.
    get_in(&machine, "test", &from);
    assert!(grace_at("+0"));
    // Another secret.
    let other = "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK";
    machine.write_as(&ALICE.secret_file(), format!("{other}\n\" TOTP_AUTH\n"), ALICE.uid, 0o600);
    assert!(!grace_at("+0"));
    machine.write_as(&ALICE.secret_file(), "", ALICE.uid, 0o600);
    assert_eq!(try_in(&machine, "test", "alice", AWAY).reason(), "wrong-size", "nor for a file that cannot be read");
    fs::remove_file(machine.path(&ALICE.secret_file())).unwrap();
    assert_eq!(try_in(&machine, "test", "alice", AWAY).reason(), "record-gone");
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    assert_eq!(said(&pam_totp(&machine, &["throttle", "unlock", "--user", "alice"])).0, Some(0));
    // Somebody who is blocked has none.
    get_in(&machine, "test", &from);
    put(&machine, "[defaults]\ngrace = \"1h\"\n[throttle]\nuser = \"*:2/1h\"\n");
    for _ in 0..2 {
        assert!(grace_at("+0"));
        fail(AWAY);
    }
    let login = try_in(&machine, "test", "alice", AWAY);
    assert_eq!((login.prompts.len(), login.reason().as_str()), (1, "throttled"), "{login:#?}");
}

#[test]
fn grace_is_for_the_login_key_that_sshd_vouches_for_and_nobody_else_can_name_one() {
    let machine = gracious();
    let log_in = |service: &str, key: &[&str]| {
        let login = machine.login(service, "alice").with(&["--rhost", AWAY]).with(key);
        has_grace(&login.answer("000000").run())
    };
    get_in(&machine, "sshd", &["--rhost", AWAY, "--env", KEY]);
    assert!(log_in("sshd", &["--env", KEY]));
    assert!(!log_in("sshd", &["--env", OTHER_KEY]), "another key");
    assert!(!log_in("sshd", &[]), "no key");
    // Elsewhere it is a word like any other: it neither takes grace away nor gives any.
    get_in(&machine, "su", &["--rhost", AWAY, "--env", KEY]);
    assert!(log_in("su", &["--env", OTHER_KEY]) && log_in("su", &[]));
    // The environment of the process is the caller's.
    let client = machine.client();
    let forged = |key: &str| {
        let mut command = machine.command("timeout");
        command.env("SSH_AUTH_INFO_0", key.split_once('=').unwrap().1).arg("60").arg(&client);
        output_of(command.args(["sshd", "alice", "--rhost", AWAY, "--answer", "000000"]))
    };
    assert!(log_in("sshd", &["--env", KEY]));
    assert!(forged(KEY).contains("result 7\n"), "asked, and denied");
    get_in(&machine, "sshd", &["--rhost", AWAY]);
    assert!(forged(OTHER_KEY).contains("result 0\n"), "a login without a key, as before");
}

#[test]
fn with_grace_the_password_is_asked_for_all_the_same_and_passed_on() {
    let machine = gracious();
    machine.service("test", "auth required pam_totp.so forward_pass\nauth required pam_unix.so use_first_pass\n");
    let log_in = |answer: &str| {
        let login = machine.login("test", "alice").with(&["--rhost", AWAY]).answer(answer).run();
        assert_eq!(login.prompts, ["1 \"Password & verification code: \""], "{login:#?}");
        let ours = login.log.iter().find(|line| line.contains("pam_totp(")).unwrap();
        (login.result(), ours.split_once("7 ").unwrap().1.to_owned())
    };
    let code = code_now(SECRET);
    assert_eq!(log_in(&format!("{PASSWORD}{code}")).0, SUCCESS);
    let grace = || "factor=grace".to_owned();
    assert_eq!(log_in(PASSWORD), (SUCCESS, grace()));
    assert_eq!(log_in("no password"), (AUTH_ERR, grace()), "pam_unix has the last word");
    // With a code behind it, as before.
    assert_eq!(log_in(&format!("{PASSWORD}{}", code_at(SECRET, now() + 30))), (SUCCESS, grace()));
}

#[test]
fn lines_of_grace_in_a_persons_file_count_for_nothing_where_the_policy_has_grace() {
    let machine = gracious();
    machine.service("test", "auth required pam_totp.so grace_period=3600\n");
    let lines = format!("\" TOTP_AUTH\n\" LAST0 {AWAY} {}\n", now() - 20);
    machine.enrol(ALICE, &lines);
    assert!(!has_grace(&try_in(&machine, "test", "alice", AWAY)));
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    is_accepted(&machine.login("test", "alice").with(&["--rhost", AWAY]).answer(code_now(SECRET)).run(), "totp");
    assert!(!machine.read(&ALICE.secret_file()).contains("LAST"), "nor are any written");
    put(&machine, "");
    machine.enrol(ALICE, &lines);
    assert!(has_grace(&try_in(&machine, "test", "alice", AWAY)));
}

#[test]
fn over_sshd_grace_is_for_the_same_key_from_the_same_machine() {
    let machine = gracious();
    machine.service("sshd", &example_file("sshd-debian"));
    let wire = Wire::new();
    let mut sshd = Sshd::start_on(&machine, KEY_AND_CODE, &wire);
    let key = sshd.key(ALICE);
    let other = machine.shared().join("key.other");
    output_of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other));
    let public = fs::read_to_string(other.with_extension("other.pub")).unwrap();
    machine.append("/home/alice/.ssh/authorized_keys", &public);
    let questions = |sshd: &Sshd, key: &Path, answer: &str| {
        let session = sshd.login_with("alice", key, &[answer], &[]);
        assert_eq!(session.succeeded, session.questions.is_empty() || answer != "000000", "{session:#?}");
        session.questions.len()
    };
    assert_eq!(questions(&sshd, &key, &code_now(SECRET)), 1);
    let _ = machine.log();
    assert_eq!(questions(&sshd, &key, "000000"), 0);
    let log = machine.log();
    assert!(log.iter().any(|line| line.ends_with("accepted user=alice rhost=198.51.100.2 factor=grace")), "{log:#?}");
    assert_eq!(questions(&sshd, &other, "000000"), 1, "another key");
    sshd.has_clients_in(wire.server());
    assert_eq!(questions(&sshd, &key, "000000"), 1, "another source");
    drop(sshd);
    // A loopback address is anybody's who can have a connection forwarded.
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    assert_eq!(questions(&sshd, &key, &code_now(SECRET)), 1);
    assert_eq!(questions(&sshd, &key, "000000"), 1);
}

// ---- The notice ----

const NOTICE: &str = "3 codes failed since your last login, the latest on ";

fn three_failures(machine: &Machine, user: &str) {
    for _ in 0..3 {
        is_asked(&try_in(machine, "test", user, AWAY));
    }
}

#[test]
fn whoever_gets_in_over_ssh_is_told_once_how_many_codes_failed_and_when() {
    let machine = machine();
    machine.service("sshd", &format!("{}session optional pam_totp.so\n", example_file("sshd-debian")));
    put(&machine, HASTY);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let before = now();
    // Two over ssh, one elsewhere.
    assert!(!sshd.login(ALICE, &["000000", "000000"]).succeeded);
    is_asked(&try_in(&machine, "test", "alice", AWAY));
    let session = sshd.look_in(ALICE, &[&code_now(SECRET)]);
    assert!(session.succeeded, "{session:#?}");
    let (_, rest) = session.output.split_once(NOTICE).unwrap_or_else(|| panic!("{session:#?}"));
    let told = rest.split('.').next().unwrap();
    let minute = |time: u64| {
        output_of(Command::new("date").args(["-u", "-d", &format!("@{time}"), "+%F at %R UTC"])).trim().to_owned()
    };
    assert!([minute(before), minute(before + 30), minute(now())].contains(&told.to_owned()), "{told}");
    // Not before the session, and not twice.
    assert!(session.questions.iter().all(|question| question.ends_with("Verification code: ")), "{session:#?}");
    assert!(!session.errors.contains("failed since"), "{session:#?}");
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let session = sshd.look_in(ALICE, &[&code_now(SECRET)]);
    assert!(session.succeeded && !session.output.contains("failed since"), "{session:#?}");
}

#[test]
fn the_notice_waits_for_a_session_that_is_not_silent() {
    let machine = machine();
    let session = "session optional pam_totp.so\n";
    machine.service("open", &format!("{STACK}{session}"));
    let log_in_at = |service: &str, more: &[&str]| {
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        let login = machine.login(service, "alice").with(more).answer(code_now(SECRET)).run();
        assert_eq!(login.result(), SUCCESS, "{login:#?}");
        let (before, after) = login.output.split_once("opening the session\n").unwrap_or((login.output.as_str(), ""));
        assert!(!before.contains("told "), "nothing is said during authentication: {login:#?}");
        assert!(after.is_empty() || after.contains("session 0\n"), "{login:#?}");
        after.lines().filter(|line| line.starts_with("told ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let log_in = |more: &[&str]| log_in_at("open", more);
    let open = ["--open-session"];
    assert_eq!(log_in(&open), [""; 0], "nothing failed");
    three_failures(&machine, "alice");
    // What a stranger's code and password see is no different: neither a denial nor the right code says anything.
    assert_eq!(log_in(&[]), [""; 0], "no session");
    assert_eq!(log_in(&["--open-session", "--silent"]), [""; 0]);
    // Nor where it is somebody else's session, or is not shown: whatever flags the application gives.
    for service in ["sudo", "sudo-i", "su"] {
        machine.service(service, &format!("{STACK}{session}"));
        assert_eq!(log_in_at(service, &open), [""; 0], "{service}");
    }
    let told = log_in(&open);
    assert!(told.len() == 1 && told[0].starts_with(&format!("told 4 \"{NOTICE}")), "{told:?}");
    assert!(told[0].ends_with(" UTC.\""), "{told:?}");
    assert_eq!(log_in(&open), [""; 0], "told");
    is_asked(&try_in(&machine, "test", "alice", AWAY));
    let told = log_in(&open);
    assert!(told.len() == 1 && told[0].starts_with("told 4 \"1 code failed since your last login, on 2"), "{told:?}");
}

#[test]
fn a_login_shell_of_su_shows_the_targets_notice_and_sudo_shows_nobodys() {
    let machine = machine();
    need("sudo", "sudo");
    for service in ["su", "su-l", "sudo"] {
        let stack = format!("{}session optional pam_totp.so\n", example_file(service.trim_end_matches("-l")));
        machine.service(service, &stack);
    }
    machine.write_as("/etc/sudoers", "Defaults !lecture\nalice ALL=(ALL) ALL\n", 0, 0o440);
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    for user in ["alice", "bob"] {
        three_failures(&machine, user);
    }
    is_accepted(&machine.login("test", "bob").answer(code_now(SECRET)).run(), "totp");
    // sudo opens a session for bob, whom it would be news to, and it is alice who sits there.
    let command = ["sudo", "-k", "-S", "-u", "bob", "id", "-un"];
    let (code, out, err) = said(&type_to(&machine, ALICE, &command, &[&code_now(SECRET), PASSWORD]));
    assert_eq!((code, out.as_str()), (Some(0), "bob\n"), "{err}");
    assert!(!err.contains("failed since"), "{err}");
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    machine.service("open", &format!("{STACK}session optional pam_totp.so\n"));
    let login = machine.login("open", "bob").with(&["--open-session"]).answer(code_now(SECRET)).run();
    assert!(login.output.contains(NOTICE), "it waits for bob: {login:#?}");
    // bob becomes alice, and it is her who is told: at a login shell, as su shows nothing that modules say elsewhere.
    let log_in = |shell: &[&str], last: &[&str]| {
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        let code = code_now(SECRET);
        let (code, out, err) = said(&type_to(&machine, BOB, shell, &[&[code.as_str(), PASSWORD], last].concat()));
        assert!(code == Some(0) && out.contains("alice\n"), "{out} {err}");
        out + &err
    };
    let plain = ["su", "alice", "-c", "id -un"];
    assert!(!log_in(&plain, &[]).contains("failed since"));
    let shell = ["su", "-", "alice"];
    let told = log_in(&shell, &["id -un"]);
    assert!(told.contains(NOTICE), "{told}");
    assert!(!log_in(&shell, &["id -un"]).contains("failed since"));
}

// ---- What a service is told to do ----

#[test]
fn each_service_has_its_own_settings_and_the_others_have_the_defaults() {
    let machine = machine();
    let service = |text: &str| put(&machine, &format!("[service.test]\n{text}\n{UNLIMITED}"));
    let [here, there] = ["test", "permitting"].map(|service| {
        let machine = &machine;
        move |answer: &str| machine.login(service, "alice").answer(answer).run()
    });
    let enrol = |lines: &str| machine.enrol(ALICE, &format!("\" TOTP_AUTH\n{lines}"));

    service("prompt = \"Code, please: \"\necho = true");
    assert_eq!(here("000000").prompts, ["2 \"Code, please: \""]);
    is_asked(&there("000000"));

    service("secret = \"/etc/codes/${USER}\"");
    machine.make_directory("/etc/codes", 0o755, 0);
    let other = "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK";
    machine.make_directory("/etc/codes", 0o755, ALICE.uid);
    machine.write_as("/etc/codes/alice", format!("{other}\n\" TOTP_AUTH\n"), ALICE.uid, 0o600);
    assert_eq!(here(&code_now(SECRET)).reason(), "wrong-code");
    is_accepted(&here(&code_now(other)), "totp");
    is_accepted(&there(&code_now(SECRET)), "totp");

    let earlier = |seconds: u64| {
        let _ = code_now(SECRET);
        code_at(SECRET, now() - seconds)
    };
    service("window = { behind = 0, ahead = 0 }");
    enrol("");
    assert_eq!(here(&earlier(30)).reason(), "wrong-code");
    is_accepted(&there(&earlier(30)), "totp");
    enrol("\" WINDOW_SIZE 9\n");
    assert_eq!(here(&earlier(30)).reason(), "wrong-code", "it bounds the file's own");
    service("max_window = 5");
    assert_eq!(here(&earlier(90)).reason(), "wrong-code");
    is_accepted(&here(&earlier(60)), "totp");
    enrol("\" WINDOW_SIZE 9\n");
    is_accepted(&there(&earlier(90)), "totp");

    service("min_secret_bits = 161");
    enrol("");
    assert_eq!(here(&code_now(SECRET)).reason(), "weak-secret");
    is_accepted(&there(&code_now(SECRET)), "totp");
    service("min_secret_bits = 160");
    enrol("");
    is_accepted(&here(&code_now(SECRET)), "totp");

    service("allow_scratch_codes = false");
    enrol("12345678\n");
    assert_eq!(here("12345678").reason(), "not-a-code");
    is_accepted(&there("12345678"), "scratch-code");

    let delay = |login: &LoggedIn| {
        let line = login.output.lines().find_map(|line| line.strip_prefix("delay 7 ")).unwrap();
        line.parse::<u32>().unwrap() / 1_000_000
    };
    service("fail_delay = \"14s\"");
    assert!((7..=21).contains(&delay(&here("000000"))));
    assert!((1..=3).contains(&delay(&there("000000"))));
    service("fail_delay = \"0s\"");
    assert_eq!(delay(&here("000000")), 0);

    // A C module's way, there alone, with no ledger unless it is asked for.
    put(&machine, "[service.test.compat]\ngoogle = true\n");
    enrol("");
    let login = here("000000");
    assert!(login.log[1].ends_with("reason=wrong-code compat=google"), "{login:#?}");
    let code = code_now(SECRET);
    for _ in 0..2 {
        let login = here(&code);
        is_accepted(&login, "totp");
        assert!(login.log[0].ends_with(" compat=google"), "a code works twice there: {login:#?}");
    }
    let login = there(&code);
    is_accepted(&login, "totp");
    assert!(!login.log[0].contains("compat"), "{login:#?}");
    assert_eq!(there(&code).reason(), "used-code");
    for _ in 0..11 {
        assert_eq!(here("000000").reason(), "wrong-code");
    }
    assert_eq!(said(&pam_totp(&machine, &["throttle", "unlock", "--user", "alice"])).0, Some(0));
    put(&machine, "[service.test.compat]\ngoogle = true\n[throttle]\nuser = \"*:1/1h\"\n");
    assert_eq!([here("000000").reason(), here("000000").reason()], ["wrong-code", "throttled"]);

    // One for all services.
    let state = machine.path("/run/codes/ledger-1");
    assert!(!state.exists());
    put(&machine, "[defaults]\nstate_dir = \"/run/codes\"\n");
    is_asked(&there("000000"));
    let stat = state.metadata().unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (0, 0o600));
}

#[test]
fn what_is_done_as_the_c_module_does_says_so_at_each_login() {
    let machine = machine();
    let last = |answer: &str| machine.login("test", "alice").answer(answer).run().log.pop().unwrap();
    for (policy, is_said) in [
        ("", false),
        ("[compat]\ngoogle = true\n", true),
        ("[service.test.compat]\ngoogle = true\n", true),
        ("[service.elsewhere.compat]\ngoogle = true\n", false),
        ("[compat]\ngoogle = true\n[service.test.compat]\ngoogle = false\n", false),
    ] {
        put(&machine, policy);
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        for answer in [code_now(SECRET), "000000".into(), "no code".into()] {
            let line = last(&answer);
            assert_eq!(line.ends_with(" compat=google"), is_said, "{policy:?} {answer}: {line}");
        }
    }
}

#[test]
fn nothing_is_shown_before_the_session_whatever_the_verdict_is() {
    let machine = machine();
    machine.service("test", "auth required pam_totp.so debug\nsession optional pam_totp.so\n");
    put(&machine, "[throttle]\nuser = \"bob:2/1h\"\nhost = \"\"\n");
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    three_failures(&machine, "alice");
    three_failures(&machine, "bob");
    let code = code_now(SECRET);
    for (user, answer) in [
        ("alice", "000000"),
        ("alice", "no code"),
        ("bob", &code),
        ("carol", "000000"),
        ("alice", &code),
        ("alice", &code),
    ] {
        let login = machine.login("test", user).answer(answer).run();
        let shown: Vec<_> = login.output.lines().filter(|line| !line.starts_with("delay ")).collect();
        assert_eq!(shown, [format!("prompt {PROMPT}"), format!("result {}", login.result())], "{user} {answer}");
    }
    // There was something to be told all the time.
    let login = machine.login("test", "alice").answer(code_at(SECRET, now() + 30)).with(&["--open-session"]).run();
    assert!(login.output.contains("told 4 ") && login.output.contains("failed since your last login"), "{login:#?}");
}

#[test]
fn what_su_and_sudo_are_told_holds_for_their_login_shells_unless_those_are_told_otherwise() {
    let machine = machine();
    for service in ["su", "su-l", "sudo", "sudo-i"] {
        machine.service(service, STACK);
    }
    let asked = |service: &str| try_in(&machine, service, "alice", "").prompts.pop().unwrap();
    put(&machine, &format!("{UNLIMITED}[service.su]\nprompt = \"Su: \"\n[service.sudo]\nprompt = \"Sudo: \"\n"));
    assert_eq!(["su", "su-l"].map(asked), ["1 \"Su: \"", "1 \"Su: \""]);
    assert_eq!(["sudo", "sudo-i"].map(asked), ["1 \"Sudo: \"", "1 \"Sudo: \""]);
    assert_eq!(asked("test"), PROMPT);
    let own = "[service.su-l]\nprompt = \"Login: \"\n[service.sudo-i]\necho = true\n";
    put(&machine, &format!("{UNLIMITED}[service.su]\nprompt = \"Su: \"\n[service.sudo]\nprompt = \"Sudo: \"\n{own}"));
    assert_eq!(["su", "su-l"].map(asked), ["1 \"Su: \"", "1 \"Login: \""]);
    assert_eq!(asked("sudo"), "1 \"Sudo: \"");
    assert!(asked("sudo-i").starts_with("2 "), "its own table, and nothing of sudo's");
}
