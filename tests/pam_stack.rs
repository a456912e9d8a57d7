//! The module in a real libpam, with an application whose person is a script.

use crate::support::machine::{ALICE, AUTH_ERR, BOB, CAROL, LoggedIn, MODULE_UNKNOWN, Machine, PERM_DENIED, SUCCESS};
use crate::support::totp::{SECRET, code_at, code_now, hotp, now, wrong_code};
use crate::support::{need, output_of};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, process::Command};

const STACK: &str = "auth required pam_totp.so\n";
const PROMPT: &str = "1 \"Verification code: \"";
/// No answer of ours may take longer; the lock is waited for for five seconds.
const PROMPTLY: Duration = Duration::from_millis(4_500);

fn enrolled() -> Machine {
    let machine = Machine::new();
    machine.service("test", STACK);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine
}

fn is_denied(login: &LoggedIn, reason: &str) {
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, reason), "{login:#?}");
    assert_eq!(login.prompts, [PROMPT], "{login:#?}");
    let classic = login.log.iter().filter(|line| line.contains("authentication failure; logname= uid=")).count();
    assert_eq!((classic, login.log.len()), (1, 2), "the classic line and the reason: {login:#?}");
}

/// Everything below a directory: names, types, modes, owners, times and contents.
fn snapshot(directory: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return seen };
    for entry in entries {
        let path = entry.unwrap().path();
        let stat = path.symlink_metadata().unwrap();
        let content = if stat.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        seen.push(format!(
            "{path:?} {:o} {} {} {} {content:?}",
            stat.mode(),
            stat.uid(),
            stat.ino(),
            stat.mtime_nsec()
        ));
        if stat.is_dir() {
            seen.extend(snapshot(&path));
        }
    }
    seen.sort();
    seen
}

#[test]
fn a_right_code_gets_in_once() {
    let machine = enrolled();
    let code = code_now(SECRET);
    let login = machine.login("test", "alice").answer(&code).with(&["--rhost", "192.0.2.7"]).run();
    assert_eq!((login.result(), login.prompts.as_slice()), (SUCCESS, &[PROMPT.to_owned()][..]), "{login:#?}");
    let expected = "pam_totp(test:auth): accepted user=alice rhost=192.0.2.7 factor=totp steps=+0";
    assert_eq!(login.log.len(), 1, "{login:#?}");
    assert!(login.log[0].ends_with(expected), "{login:#?}");
    is_denied(&machine.login("test", "alice").answer(&code).run(), "used-code");
    is_denied(&machine.login("test", "alice").answer(wrong_code(SECRET)).run(), "wrong-code");
    let next = code_at(SECRET, now() + 30);
    assert_eq!(machine.login("test", "alice").answer(format!(" {next}  ")).run().result(), SUCCESS, "blanks come off");
    is_denied(&machine.login("test", "alice").answer(&code).run(), "used-code");
}

#[test]
fn the_file_is_rewritten_faithfully() {
    let machine = enrolled();
    let step = now() / 30;
    let text =
        format!("{SECRET}\r\n\" MY_OPTION  of mine \r\n\" TOTP_AUTH\r\n\" DISALLOW_REUSE 7\r\nodd\r\n12345678\r\n");
    machine.write_as(&ALICE.secret_file(), &text, ALICE.uid, 0o440 & 0o600);
    let login = machine.login("test", "alice").answer(code_at(SECRET, step * 30)).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    assert!(login.log[0].ends_with("remarks=odd-lines-in-file"), "{login:#?}");
    let expected = text.replace("DISALLOW_REUSE 7\r\n", &format!("DISALLOW_REUSE {step}\n"));
    assert_eq!(machine.read(&ALICE.secret_file()), expected);
    let stat = machine.path(&ALICE.secret_file()).metadata().unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o400, ALICE.uid, ALICE.uid));
    assert_eq!(machine.login("test", "alice").answer("12345678").run().result(), SUCCESS);
    assert_eq!(machine.read(&ALICE.secret_file()), expected.replace("12345678\r\n", ""));
    is_denied(&machine.login("test", "alice").answer("12345678").run(), "wrong-code");
}

#[test]
fn a_counter_is_kept_in_the_file_and_its_limit_by_the_ledger() {
    let machine = enrolled();
    machine.enrol(ALICE, "\" HOTP_COUNTER 5\n\" RATE_LIMIT 2 3600\n");
    is_denied(&machine.login("test", "alice").answer("1234567").run(), "not-a-code");
    assert_eq!(machine.login("test", "alice").answer(hotp(SECRET, 7)).run().result(), SUCCESS);
    let file = machine.read(&ALICE.secret_file());
    assert!(file.contains("\" HOTP_COUNTER 8\n"), "{file}");
    for _ in 0..2 {
        is_denied(&machine.login("test", "alice").answer(hotp(SECRET, 7)).run(), "wrong-code");
    }
    let throttled = machine.login("test", "alice").answer(hotp(SECRET, 8)).run();
    is_denied(&throttled, "throttled");
    assert!(throttled.log[1].contains("by=user limit=2/1h"), "{throttled:#?}");
    assert_eq!(machine.read(&ALICE.secret_file()), file, "what is wrong, or not judged, leaves the file alone");
    // An hour later there is a budget again.
    let login = machine.login_when(61 * 60, 61 * 60, "test", "alice").answer(hotp(SECRET, 8)).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
}

#[test]
fn what_is_no_code_is_denied_and_nothing_is_written() {
    let machine = enrolled();
    machine.without_limits();
    machine.enrol(ALICE, "\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n12345678\n");
    let before = snapshot(&machine.path(&ALICE.home()));
    let (code, long) = (code_now(SECRET), "1".repeat(65536));
    fs::write(machine.shared().join("long"), long).unwrap();
    let answers: [(&[u8], &str); 18] = [
        (b"", "empty-answer"),
        (b"      ", "empty-answer"),
        (&code.as_bytes()[..5], "not-a-code"),
        (b"1234567", "not-a-code"),
        (b"123456789", "not-a-code"),
        ("１２３４５６".as_bytes(), "not-a-code"),
        ("١٢٣٤٥٦".as_bytes(), "not-a-code"),
        (b"+12345", "not-a-code"),
        (b"-12345", "not-a-code"),
        (b"12 345", "not-a-code"),
        (b"123456\r", "not-a-code"),
        (b"123456\n", "not-a-code"),
        (b"\r\n123456", "not-a-code"),
        (b"\t123456", "not-a-code"),
        (b"0x1234", "not-a-code"),
        (b"\xff\xfe\xfd\xfc\xfb\xfa", "not-a-code"),
        (b"correct horse battery staple", "not-a-code"),
        (b"\x08\n\r\x7FINCORRECT\x08\n\r\x7FINCORRECT", "refused-by-sshd"),
    ];
    for (answer, reason) in answers {
        is_denied(&machine.login("test", "alice").answer(OsStr::from_bytes(answer)).run(), reason);
    }
    let long = machine.shared().join("long");
    is_denied(&machine.login("test", "alice").with(&["--answer-file", long.to_str().unwrap()]).run(), "not-a-code");
    for silence in ["--null-text", "--null-response", "--fail"] {
        is_denied(&machine.login("test", "alice").with(&[silence]).run(), "no-answer");
    }
    assert_eq!(snapshot(&machine.path(&ALICE.home())), before);
}

#[test]
fn what_is_no_secret_file_is_denied_and_left_as_it_is() {
    let machine = enrolled();
    machine.without_limits();
    let (home, file) = (machine.path(&ALICE.home()), machine.path(&ALICE.secret_file()));
    let right = format!("{SECRET}\n\" TOTP_AUTH\n");
    let write = |text: &[u8], uid: u32, mode: u32| machine.write_as(&ALICE.secret_file(), text, uid, mode);
    let cases: [(&str, &str, &dyn Fn()); 19] = [
        ("missing", "not-enrolled", &|| ()),
        ("empty", "wrong-size", &|| write(b"", ALICE.uid, 0o600)),
        ("garbage", "bad-secret", &|| write(b"#!/bin/sh\nexit 0\n", ALICE.uid, 0o600)),
        ("no secret", "bad-secret", &|| write(b"\n\" TOTP_AUTH\n", ALICE.uid, 0o600)),
        ("binary", "binary-file", &|| write(&[0x41, 0, 0xff, 0x80, 10], ALICE.uid, 0o600)),
        ("neither time nor counter", "no-device", &|| write(SECRET.as_bytes(), ALICE.uid, 0o600)),
        ("a broken option", "bad-option", &|| write(format!("{right}\" WINDOW_SIZE 0\n").as_bytes(), ALICE.uid, 0o600)),
        ("1 MB", "wrong-size", &|| write(&right.as_bytes().repeat(20_000), ALICE.uid, 0o600)),
        ("FIFO", "not-a-file", &|| {
            output_of(Command::new("mkfifo").arg("-m600").arg(&file));
            std::os::unix::fs::chown(&file, Some(ALICE.uid), None).unwrap();
        }),
        ("directory", "not-a-file", &|| fs::create_dir(&file).unwrap()),
        ("socket", "file-error", &|| drop(UnixListener::bind(&file).unwrap())),
        ("link to a good file", "link", &|| {
            machine.write_as("/home/alice/elsewhere", &right, ALICE.uid, 0o600);
            symlink("elsewhere", &file).unwrap();
        }),
        ("link to nothing", "link", &|| symlink("/nowhere", &file).unwrap()),
        ("another's file", "file-error", &|| write(right.as_bytes(), BOB.uid, 0o600)),
        ("root's file", "file-error", &|| write(right.as_bytes(), 0, 0o600)),
        ("0666", "wrong-mode", &|| write(right.as_bytes(), ALICE.uid, 0o666)),
        ("0640", "wrong-mode", &|| write(right.as_bytes(), ALICE.uid, 0o640)),
        ("sticky", "wrong-mode", &|| write(right.as_bytes(), ALICE.uid, 0o1600)),
        ("unreadable home", "file-error", &|| {
            write(right.as_bytes(), ALICE.uid, 0o600);
            std::os::unix::fs::chown(&home, Some(0), Some(0)).unwrap();
        }),
    ];
    for (case, reason, prepare) in cases {
        machine.make_directory(&ALICE.home(), 0o700, ALICE.uid);
        for entry in fs::read_dir(&home).unwrap() {
            let path = entry.unwrap().path();
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
        prepare();
        let before = snapshot(&home);
        let start = Instant::now();
        let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
        let took = start.elapsed();
        println!("{case}: {}", login.log[1]);
        assert!(took < PROMPTLY + Duration::from_secs(5), "{case}: {took:?}");
        is_denied(&login, reason);
        assert_eq!(snapshot(&home), before, "{case}");
    }
}

#[test]
fn every_option_that_cannot_be_read_is_named_with_its_file_and_line() {
    let machine = enrolled();
    machine.without_limits();
    for (option, key) in [
        ("WINDOW_SIZE 0", "WINDOW_SIZE"),
        ("WINDOW_SIZE 101", "WINDOW_SIZE"),
        ("WINDOW_SIZE 3x", "WINDOW_SIZE"),
        ("STEP_SIZE 0", "STEP_SIZE"),
        ("STEP_SIZE 61", "STEP_SIZE"),
        ("STEP_SIZE", "STEP_SIZE"),
        ("DIGITS 9", "DIGITS"),
        ("ALGORITHM MD5", "ALGORITHM"),
        ("RATE_LIMIT 0 30", "RATE_LIMIT"),
        ("RATE_LIMIT 3 9999", "RATE_LIMIT"),
        ("RATE_LIMIT 3 30 soon", "RATE_LIMIT"),
        ("DISALLOW_REUSE 1 two", "DISALLOW_REUSE"),
        ("HOTP_COUNTER 9999999999999999999", "HOTP_COUNTER"),
        ("WINDOW_SIZE 0\n\" STEP_SIZE 0\n\" DIGITS 1\n\" DISALLOW_REUSE x", "DIGITS"),
    ] {
        machine.enrol(ALICE, &format!("\" TOTP_AUTH\n\" {option}\n"));
        let before = machine.read(&ALICE.secret_file());
        let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
        is_denied(&login, "bad-option");
        let line = if option.contains('\n') { 5 } else { 3 };
        let expected = format!("line={line} key={key} path=/home/alice/.google_authenticator ");
        assert!(login.log[1].contains(&expected) && login.log[1].contains("(must be "), "{option}: {login:#?}");
        assert_eq!(machine.read(&ALICE.secret_file()), before, "{option}");
    }
    // What is ignored, as in the C module.
    for option in ["TIME_SKEW x", "RESETTING_TIME_SKEW x", "LAST0 x", "HOTP_COUNTER x", "UNKNOWN", "LAST0 h soon"] {
        machine.enrol(ALICE, &format!("\" TOTP_AUTH\n\" {option}\n"));
        let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
        assert_eq!(login.result(), SUCCESS, "{option}: {login:#?}");
    }
}

#[test]
fn the_owner_is_checked_also_where_the_file_can_be_read() {
    let machine = enrolled();
    machine.service("test", "auth required pam_totp.so user=0 secret=/etc/codes/${USER}\n");
    machine.make_directory("/etc/codes", 0o700, 0);
    machine.write_as("/etc/codes/alice", format!("{SECRET}\n\" TOTP_AUTH\n"), ALICE.uid, 0o600);
    // A wrong code too: the owner is looked at before the content.
    is_denied(&machine.login("test", "alice").answer("000000").run(), "wrong-owner");
    is_denied(&machine.login("test", "alice").answer(code_now(SECRET)).run(), "wrong-owner");
}

#[test]
fn links_above_the_home_are_roots_business_and_below_it_nobodys() {
    let machine = enrolled();
    machine.make_directory("/run/people", 0o755, 0);
    output_of(machine.command("cp").args(["-a", "/home/alice", "/run/people/alice"]));
    let with_home = |home: &str| {
        let passwd = machine.read("/etc/passwd");
        let line = passwd.lines().find(|line| line.starts_with("alice:")).unwrap();
        let changed = format!("alice:x:{0}:{0}::{home}:/bin/sh", ALICE.uid);
        machine.write("/etc/passwd", passwd.replace(line, &changed));
    };
    symlink("people", machine.path("/run/linked")).unwrap();
    with_home("/run/linked/alice");
    let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
    assert_eq!(login.result(), SUCCESS, "a link of root's above the home: {login:#?}");

    // A link that somebody else made, or that lies where somebody else can write.
    machine.make_directory(&BOB.home(), 0o755, BOB.uid);
    symlink("/run/people", machine.path("/home/bob/people")).unwrap();
    with_home("/home/bob/people/alice");
    is_denied(&machine.login("test", "alice").answer(code_now(SECRET)).run(), "link");
    machine.make_directory("/run/open", 0o1777, 0);
    symlink("/run/people", machine.path("/run/open/people")).unwrap();
    with_home("/run/open/people/alice");
    is_denied(&machine.login("test", "alice").answer(code_now(SECRET)).run(), "link");

    // Below the home, also one of root's.
    with_home("/home/alice");
    machine.service("test", "auth required pam_totp.so secret=~/codes/file\n");
    machine.make_directory("/home/alice/real", 0o700, ALICE.uid);
    machine.write_as("/home/alice/real/file", format!("{SECRET}\n\" TOTP_AUTH\n"), ALICE.uid, 0o600);
    symlink("real", machine.path("/home/alice/codes")).unwrap();
    is_denied(&machine.login("test", "alice").answer(code_now(SECRET)).run(), "link");
    fs::remove_file(machine.path("/home/alice/codes")).unwrap();
    fs::rename(machine.path("/home/alice/real"), machine.path("/home/alice/codes")).unwrap();
    assert_eq!(machine.login("test", "alice").answer(code_now(SECRET)).run().result(), SUCCESS);
}

#[test]
fn a_file_with_a_second_name_works_and_is_remarked_upon() {
    let machine = enrolled();
    fs::hard_link(machine.path(&ALICE.secret_file()), machine.path("/home/alice/second")).unwrap();
    let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    assert!(login.log[0].ends_with("remarks=file-has-other-names"), "{login:#?}");
}

#[test]
fn a_short_secret_works_and_is_remarked_upon() {
    let machine = enrolled();
    let short = "GEZDGNBVGY3TQOJQ";
    machine.write_as(&ALICE.secret_file(), format!("{short}\n\" TOTP_AUTH\n"), ALICE.uid, 0o600);
    let login = machine.login("test", "alice").answer(code_now(short)).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    assert!(login.log[0].ends_with("remarks=weak-secret"), "{login:#?}");
}

#[test]
fn a_home_that_cannot_be_written_denies() {
    let machine = enrolled();
    output_of(machine.command("mount").args(["--bind", "/home/alice", "/home/alice"]));
    output_of(machine.command("mount").args(["-o", "remount,bind,ro", "/home/alice"]));
    let before = snapshot(&machine.path(&ALICE.home()));
    let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
    is_denied(&login, "file-error");
    assert!(login.log[1].contains("Read-only"), "{login:#?}");
    assert_eq!(snapshot(&machine.path(&ALICE.home())), before);
    output_of(machine.command("umount").arg("/home/alice"));
    // A directory that alice herself may not write to.
    machine.make_directory(&ALICE.home(), 0o500, ALICE.uid);
    is_denied(&machine.login("test", "alice").answer(code_now(SECRET)).run(), "file-error");
}

#[test]
fn a_limit_on_file_sizes_denies_and_kills_nobody() {
    need("prlimit", "util-linux");
    let machine = enrolled();
    let client = machine.client();
    // The first login of a machine makes the ledger.
    machine.login("test", "alice").answer("no code").run();
    let _ = machine.log();
    let mut command = machine.command("prlimit");
    // The module, not the client, is what writes: its output goes to a pipe.
    command.args(["--fsize=0", "--"]).arg(client).args(["test", "alice", "--answer", &code_now(SECRET)]);
    let output = output_of(&mut command);
    assert!(output.contains("result 7"), "{output}");
    let log = machine.log();
    assert!(log[1].contains("reason=file-error") && log[1].contains("call=write"), "{log:#?}");
    assert_eq!(fs::read_dir(machine.path(&ALICE.home())).unwrap().count(), 1, "nothing is left");
}

#[test]
fn names_that_are_no_names_are_denied_like_anybody() {
    let machine = enrolled();
    machine.without_limits();
    let long = "x".repeat(300);
    let names: [&[u8]; 10] = [
        b"mallory",
        b"..",
        b".",
        b"../alice",
        b"alice/../bob",
        b"/etc/passwd",
        b"-rf",
        long.as_bytes(),
        b"\xff\xfe",
        b"al ice\n",
    ];
    for name in names {
        let login = machine.login("test", OsStr::from_bytes(name)).answer(code_now(SECRET)).run();
        is_denied(&login, "unknown-user");
        assert!(login.log.iter().all(|line| line.is_ascii() && !line.contains('\n')), "{login:#?}");
    }
}

#[test]
fn what_others_choose_cannot_forge_a_log_line() {
    let machine = enrolled();
    let forged = "x rhost=198.51.100.1 user=root\nsshd[1]: Accepted";
    let arguments = ["--ruser", forged, "--rhost", "h rhost=198.51.100.2", "--tty", "t\" \x1b[2J"];
    let login = machine.login("test", "alice").with(&arguments).answer("000").run();
    is_denied(&login, "not-a-code");
    assert!(login.log[0].contains(
        "tty=t\\x22\\x20\\x1B\\x5B2J ruser=x\\x20rhost\\x3D198.51.100.1\\x20user\\x3Droot\\x0Asshd\\x5B1\\x5D:\\x20Accepted \
         rhost=h\\x20rhost\\x3D198.51.100.2  user=alice"
    ), "{login:#?}");
}

#[test]
fn nothing_typed_and_no_secret_is_logged_not_even_with_debug() {
    let machine = enrolled();
    machine.service("test", "auth required pam_totp.so debug\n");
    machine.enrol(ALICE, "\" TOTP_AUTH\n\" RATE_LIMIT 4 30\n12345678\n");
    let code = code_now(SECRET);
    let answers = [code.clone(), code, "12345678".into(), "my password".into(), "777777".into(), "777777".into()];
    let mut logged = String::new();
    for answer in &answers {
        let login = machine.login("test", "alice").answer(answer).run();
        assert!(login.log.iter().any(|line| line.contains("debug user=alice rhost= start=record path=/home/alice/")));
        logged += &login.log.join("\n");
    }
    for secret in answers.iter().map(String::as_str).chain([SECRET, "12345678901234567890", "my\\x20password"]) {
        assert!(!logged.contains(secret), "{secret} in {logged}");
    }
}

#[test]
fn nullok_passes_over_who_never_enrolled_and_nobody_else() {
    let machine = enrolled();
    machine.service("test", "auth required pam_totp.so nullok\nauth required pam_permit.so\n");
    let login = machine.login("test", "bob").run();
    assert_eq!((login.result(), login.prompts.len()), (SUCCESS, 0), "{login:#?}");
    assert!(login.log[0].ends_with("not asked user=bob rhost= reason=not-enrolled (nullok)"), "{login:#?}");
    machine.service("alone", "auth required pam_totp.so nullok\n");
    assert_eq!(machine.login("alone", "bob").run().result(), PERM_DENIED, "libpam wants one module that says yes");
    // Whoever has a file is asked, whatever the file is like; and who cannot be found out about is denied.
    is_denied(&machine.login("test", "alice").answer("000000").run(), "wrong-code");
    is_denied(&machine.login("test", "mallory").answer("000000").run(), "unknown-user");
    machine.write_as(&BOB.secret_file(), "", BOB.uid, 0o600);
    is_denied(&machine.login("test", "bob").answer("000000").run(), "wrong-size");
    let file = machine.path(&BOB.secret_file());
    fs::remove_file(&file).unwrap();
    symlink("/nowhere", &file).unwrap();
    is_denied(&machine.login("test", "bob").answer("000000").run(), "link");
    fs::remove_file(&file).unwrap();
    fs::set_permissions(machine.path(&BOB.home()), fs::Permissions::from_mode(0o000)).unwrap();
    is_denied(&machine.login("test", "bob").answer("000000").run(), "file-error");
    fs::remove_dir(machine.path(&BOB.home())).unwrap();
    is_denied(&machine.login("test", "bob").answer("000000").run(), "file-error");
    // A mount point whose home is not mounted: there is a directory, empty, and root's.
    machine.make_directory(&BOB.home(), 0o755, 0);
    is_denied(&machine.login("test", "bob").answer("000000").run(), "home-of-another");
}

#[test]
fn arguments_are_understood_or_deny() {
    let machine = enrolled();
    machine.service("test", "auth required pam_totp.so echo_verification_code [authtok_prompt=Your code, please: ]\n");
    let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
    assert_eq!((login.result(), login.prompts.as_slice()), (SUCCESS, &["2 \"Your code, please: \"".to_owned()][..]));
    for bad in [
        "nulok",
        "nullok=yes",
        "secret",
        "user=",
        "user=0day",
        "user=mallory",
        "user=4000000123",
        "window=3",
        "grace_period=1d",
        "allowed_perm=rw",
    ] {
        machine.service("test", &format!("auth required pam_totp.so {bad}\nauth optional pam_permit.so\n"));
        let login = machine.login("test", "alice").run();
        assert_eq!((login.result(), login.prompts.len()), (AUTH_ERR, 0), "{bad}: {login:#?}");
        assert_eq!(login.reason(), "bad-argument", "{bad}: {login:#?}");
    }
    for bad in ["secret=", "secret=codes", "secret=/home/alice/../alice/.google_authenticator", "secret=~", "secret=/"]
    {
        machine.service("test", &format!("auth required pam_totp.so nullok {bad}\n"));
        let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
        assert_eq!(login.result(), AUTH_ERR, "{bad}: {login:#?}");
    }
}

#[test]
fn one_user_can_hold_the_files_of_people_who_have_no_account() {
    let machine = enrolled();
    machine.service("test", "auth required pam_totp.so user=bob secret=/home/bob/codes/${USER}\n");
    machine.make_directory("/home/bob/codes", 0o700, BOB.uid);
    let file = format!("{SECRET}\n\" TOTP_AUTH\n");
    for name in ["visitor@example.org", "evil"] {
        machine.write_as(&format!("/home/bob/codes/{name}"), &file, BOB.uid, 0o600);
    }
    machine.write_as("/home/bob/evil", &file, BOB.uid, 0o600);
    let login = machine.login("test", "visitor@example.org").answer(code_now(SECRET)).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    is_denied(&machine.login("test", "nobody-here").answer(code_now(SECRET)).run(), "not-enrolled");
    for name in ["../evil", "codes/../evil", "..", ".", "evil ", "ev\u{e9}l", &"x".repeat(65)] {
        is_denied(&machine.login("test", name).answer(code_now(SECRET)).run(), "bad-user-name");
    }
    machine.service("test", "auth required pam_totp.so user=bob\n");
    is_denied(&machine.login("test", "visitor").answer(code_now(SECRET)).run(), "bad-argument");
    machine.service("test", &format!("auth required pam_totp.so user={} secret=/home/bob/codes/${{USER}}\n", BOB.uid));
    assert_eq!(machine.login("test", "evil").answer(code_now(SECRET)).run().result(), SUCCESS, "a number does too");
}

#[test]
fn a_program_without_root_asks_its_own_user_and_nobody_else() {
    let machine = enrolled();
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    let code = code_now(SECRET);
    let login = machine.login_as(ALICE, "test", "alice").answer(&code).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    is_denied(&machine.login_as(ALICE, "test", "alice").answer(&code).run(), "used-code");
    is_denied(&machine.login_as(ALICE, "test", "bob").answer(&code).run(), "no-rights");
    assert_eq!(machine.login("test", "bob").answer(&code).run().result(), SUCCESS, "bob's code was not touched");
}

#[test]
fn setcred_succeeds_whatever_happened_before() {
    let machine = enrolled();
    let login = machine.login("test", "alice").with(&["--setcred"]).answer(code_now(SECRET)).run();
    assert!(login.output.contains("setcred 0"), "{login:#?}");
    // As sshd does: the code is asked for in another process, so nothing happened in this one.
    let login = machine.login("test", "alice").with(&["--setcred-alone"]).run();
    assert_eq!((login.output.as_str(), login.log.len()), ("setcred 0\nresult 0\n", 0));
}

#[test]
fn a_denial_asks_for_a_delay_and_a_success_does_not() {
    let machine = enrolled();
    let delay = |login: &LoggedIn| {
        let line = login.output.lines().find_map(|line| line.strip_prefix("delay ")).unwrap();
        line.split_once(' ').unwrap().1.parse::<u32>().unwrap()
    };
    let denied = machine.login("test", "alice").answer("000000").run();
    assert!((1_000_000..=3_000_000).contains(&delay(&denied)), "two seconds, give or take a half: {denied:#?}");
    assert_eq!(delay(&machine.login("test", "alice").answer(code_now(SECRET)).run()), 0);
}

#[test]
fn a_lock_that_is_never_given_back_denies_after_a_while() {
    let machine = enrolled();
    need("flock", "util-linux");
    let file = ALICE.secret_file();
    let mut holder = machine.command_as(ALICE, "flock").args([&file, "sleep", "60"]).spawn().unwrap();
    let held = || !machine.command("flock").args(["-n", &file, "true"]).output().unwrap().status.success();
    assert!((0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        held()
    }));
    let start = Instant::now();
    let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
    let took = start.elapsed();
    is_denied(&login, "locked");
    assert!((Duration::from_secs(4)..Duration::from_secs(10)).contains(&took), "{took:?}");
    let _ = holder.kill();
    let _ = holder.wait();
}

#[test]
fn ten_thousand_logins_leave_nothing_behind() {
    let machine = enrolled();
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    // Denied ones and, with a scratch code that is gone after the first, ones that never get to the file.
    for answer in ["000000", "", "abc"] {
        let login = machine.login("test", "alice").answer(answer).with(&["--repeat", "3500"]).run();
        assert_eq!(login.result(), AUTH_ERR);
    }
}

#[test]
fn what_is_planted_where_a_login_writes_is_neither_followed_nor_written_to() {
    let machine = enrolled();
    machine.without_limits();
    let home = machine.path(&ALICE.home());
    let next = home.join(".google_authenticator~pam_totp");
    let canary = "root's, and to stay so\n";
    machine.write_as("/home/canary", canary, 0, 0o600);
    machine.write_as("/home/open", canary, BOB.uid, 0o666);
    let (canary_path, open) = (machine.path("/home/canary"), machine.path("/home/open"));
    let traps: [(&str, &dyn Fn()); 8] = [
        ("link to root's file", &|| symlink("/home/canary", &next).unwrap()),
        ("link to a file of somebody's", &|| symlink("/home/open", &next).unwrap()),
        ("link to nothing", &|| symlink("/home/new", &next).unwrap()),
        ("another name of root's file", &|| fs::hard_link(&canary_path, &next).unwrap()),
        ("another name of somebody's file", &|| fs::hard_link(&open, &next).unwrap()),
        ("FIFO", &|| drop(output_of(Command::new("mkfifo").arg("-m666").arg(&next)))),
        ("socket", &|| drop(UnixListener::bind(&next).unwrap())),
        ("directory", &|| fs::create_dir(&next).unwrap()),
    ];
    for (what, plant) in traps {
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        plant();
        let start = Instant::now();
        let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
        assert!(start.elapsed() < PROMPTLY, "{what}");
        if what == "directory" {
            is_denied(&login, "file-error");
            fs::remove_dir(&next).unwrap();
        } else {
            assert_eq!(login.result(), SUCCESS, "{what}: {login:#?}");
            let stat = machine.path(&ALICE.secret_file()).symlink_metadata().unwrap();
            assert!(stat.is_file() && stat.nlink() == 1, "{what}");
            assert_eq!((stat.uid(), stat.mode() & 0o7777), (ALICE.uid, 0o600), "{what}");
            assert!(next.symlink_metadata().is_err(), "{what} is still there");
        }
        assert_eq!([&canary_path, &open].map(|path| fs::read_to_string(path).unwrap()), [canary; 2], "{what}");
        let (root, bob) = (canary_path.metadata().unwrap(), open.metadata().unwrap());
        assert_eq!((root.uid(), root.mode() & 0o7777, bob.uid(), bob.mode() & 0o7777), (0, 0o600, BOB.uid, 0o666));
        assert!(!machine.path("/home/new").exists(), "{what}");
    }
}

#[test]
fn nothing_of_a_file_that_is_not_ours_to_read_is_logged_not_even_with_debug() {
    let machine = enrolled();
    machine.without_limits();
    machine.service("test", "auth required pam_totp.so debug\n");
    let words = ["canary", "c4nary", "K5QVAX3DMFXGC4TZ", "W5cFcanaryQ"];
    let text = "canary:$6$c4nary:K5QVAX3DMFXGC4TZ\n\" WINDOW_SIZE W5cFcanaryQ\n\" TOTP_AUTH canary\ncanary\n";
    machine.write_as("/home/canary", text, 0, 0o600);
    let file = machine.path(&ALICE.secret_file());
    let link = || symlink("/home/canary", &file).unwrap();
    let another_name = || fs::hard_link(machine.path("/home/canary"), &file).unwrap();
    let own = || machine.write_as(&ALICE.secret_file(), text, ALICE.uid, 0o600);
    let lines =
        || machine.enrol(ALICE, "\" WINDOW_SIZE W5cFcanaryQ\n\" TOTP_AUTH canary\n\" canary K5QVAX3DMFXGC4TZ\n");
    let odd = || machine.enrol(ALICE, "canary\n\" TOTP_AUTH\nK5QVAX3DMFXGC4TZ\n");
    let cases: [(&str, &dyn Fn()); 5] =
        [("link", &link), ("second name", &another_name), ("own", &own), ("options", &lines), ("odd lines", &odd)];
    for (what, prepare) in cases {
        let _ = fs::remove_file(&file);
        prepare();
        for answer in ["000000", "canary", &code_now(SECRET)] {
            let login = machine.login("test", "alice").answer(answer).run();
            let said = login.log.join("\n") + &login.output;
            assert!(said.contains("start=record path=/home/alice/"), "{what}: {said}");
            assert!(!words.iter().any(|word| said.contains(word)), "{what}: {said}");
        }
    }
}

#[test]
fn no_answer_is_a_denial_however_the_application_says_it() {
    let machine = enrolled();
    machine.without_limits();
    // Also where others would let somebody through who has none.
    machine.service("nullok", "auth required pam_totp.so nullok\nauth optional pam_permit.so\n");
    machine.service("password", "auth required pam_totp.so forward_pass\n");
    for service in ["test", "nullok", "password"] {
        for silence in ["--null-text", "--null-response", "--fail"] {
            let login = machine.login(service, "alice").with(&[silence]).run();
            assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "no-answer"), "{service} {silence}");
            assert_eq!(login.prompts.len(), 1, "{service} {silence}");
        }
    }
    assert!(!machine.read(&ALICE.secret_file()).contains("DISALLOW_REUSE"));
}

#[test]
fn an_empty_answer_opens_nothing_whoever_it_is() {
    let machine = enrolled();
    machine.without_limits();
    machine.service("password", "auth required pam_totp.so forward_pass\nauth optional pam_permit.so\n");
    machine.service("permitting", "auth required pam_totp.so\nauth optional pam_permit.so\n");
    machine.write_as(&CAROL.secret_file(), "\n", CAROL.uid, 0o600);
    for service in ["test", "password", "permitting"] {
        for user in ["alice", "bob", "carol", "mallory", "root"] {
            for answer in ["", " ", "\n", "      ", "000000", "0"] {
                let login = machine.login(service, user).answer(answer).run();
                assert_eq!(
                    (login.result(), login.prompts.len()),
                    (AUTH_ERR, 1),
                    "{service} {user} {answer:?}: {login:#?}"
                );
            }
        }
    }
}

#[test]
fn a_module_that_is_not_there_lets_nobody_in() {
    let machine = enrolled();
    let find = "ls -d /usr/lib/*/security /lib/*/security /usr/lib64/security 2>/dev/null; :";
    let directories = output_of(machine.command("sh").args(["-c", find]));
    let is_there = |directory: &&str| machine.path(&format!("{directory}/pam_totp.so")).exists();
    let directory = directories.lines().find(is_there).unwrap();
    let examples = fs::read_dir(crate::support::project().join("pam.d-examples")).unwrap();
    let lines = examples.flat_map(|file| {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#') && line.contains("pam_totp.so"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    // With each line of ours that we ship, and a module behind it that says yes.
    let lines: Vec<_> =
        lines.filter(|line| line.starts_with("auth")).chain(["auth required pam_totp.so".into()]).collect();
    assert!(lines.len() > 3, "{lines:?}");
    fs::rename(machine.path(&format!("{directory}/pam_totp.so")), machine.path(&format!("{directory}/away"))).unwrap();
    for line in &lines {
        machine.service("test", &format!("{line}\nauth required pam_permit.so\n"));
        let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
        assert_ne!(login.result(), SUCCESS, "{line}: {login:#?}");
    }
    fs::rename(machine.path(&format!("{directory}/away")), machine.path(&format!("{directory}/pam_totp.so"))).unwrap();
    machine.service("test", STACK);
    assert_eq!(machine.login("test", "alice").answer(code_now(SECRET)).run().result(), SUCCESS);
}

#[test]
fn an_account_phase_says_yes_to_nobody_and_counts_nothing() {
    let machine = enrolled();
    for _ in 0..3 {
        is_denied(&machine.login("test", "alice").answer(wrong_code(SECRET)).run(), "wrong-code");
    }
    machine.service("test", "auth required pam_totp.so\naccount required pam_totp.so\n");
    // Who failed how often; how long ago, and for how long that blocks them, is another number each second.
    let list = || -> Vec<String> {
        let list = output_of(machine.command(machine.program()).args(["throttle", "list", "--json"]));
        let rows: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap();
        rows.iter().map(|row| format!("{} {} {}", row["name"], row["counted"], row["failures"])).collect()
    };
    let (before, home) = (list(), snapshot(&machine.path(&ALICE.home())));
    assert!(before.iter().any(|row| row.contains("alice") && row.ends_with(" 3")), "{before:?}");
    // As cron does: without an authentication before it. libpam takes a function that we do not have for a failure.
    for user in ["alice", "bob", "mallory"] {
        let login = machine.login("test", user).with(&["--account-alone"]).run();
        assert!(login.output.contains(&format!("account {MODULE_UNKNOWN}\n")), "{login:#?}");
    }
    assert_eq!((list(), snapshot(&machine.path(&ALICE.home()))), (before, home));
    // Nor does any other call change what was said before it.
    let login = machine.login("test", "alice").answer("000000").with(&["--setcred", "--account"]).run();
    assert_eq!(login.result(), AUTH_ERR);
    assert!(login.output.contains("setcred ") && !login.output.contains("setcred 0\n"), "{login:#?}");
    assert!(login.output.contains(&format!("account {MODULE_UNKNOWN}\n")), "{login:#?}");
}

#[test]
fn a_used_code_is_used_however_it_is_spelled() {
    let machine = enrolled();
    machine.without_limits();
    let code = code_now(SECRET);
    assert_eq!(machine.login("test", "alice").answer(&code).run().result(), SUCCESS);
    let wide: String = code.chars().map(|digit| char::from_u32(digit as u32 + 0xFEE0).unwrap()).collect();
    let mut spellings = vec![code.clone(), wide, format!("{}.{}", &code[..3], &code[3..])];
    for blank in [" ", "  ", "\t", "\r", "\n", "\r\n", "\u{a0}", "\u{200b}", "+", "-", "0", "00", "0x"] {
        spellings.extend([format!("{blank}{code}"), format!("{code}{blank}"), format!("{blank}{code}{blank}")]);
        spellings.push(format!("{}{blank}{}", &code[..3], &code[3..]));
    }
    for spelling in spellings {
        let login = machine.login("test", "alice").answer(&spelling).run();
        assert_eq!(login.result(), AUTH_ERR, "{spelling:?}: {login:#?}");
        assert!(
            ["used-code", "not-a-code", "wrong-code"].contains(&login.reason().as_str()),
            "{spelling:?}: {login:#?}"
        );
    }
}

#[test]
fn wrong_used_throttled_and_nobodys_codes_look_alike_from_outside() {
    let machine = enrolled();
    machine.write("/etc/security/pam_totp.toml", "version = 1\n[throttle]\nuser = \"bob:2/1h *:90/1h\"\nhost = \"\"\n");
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    let (code, wrong) = (code_now(SECRET), wrong_code(SECRET));
    assert_eq!(machine.login("test", "alice").answer(&code).run().result(), SUCCESS);
    for _ in 0..2 {
        machine.login("test", "bob").answer(&wrong).run();
    }
    let seen = |user: &str, answer: &str, reason: &str| {
        let login = machine.login("test", user).answer(answer).run();
        is_denied(&login, reason);
        let (delays, shown): (Vec<_>, Vec<_>) = login.output.lines().partition(|line| line.starts_with("delay "));
        let delay = delays.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap());
        // libpam makes of two seconds something around it, at random.
        assert!(delay.clone().count() == 1 && delay.clone().all(|time| (1_000_000..=3_000_000).contains(&time)));
        shown.join("\n")
    };
    let expected = seen("alice", &wrong, "wrong-code");
    for (user, answer, reason) in [
        ("alice", code.as_str(), "used-code"),
        ("alice", "no code at all", "not-a-code"),
        ("bob", &code, "throttled"),
        ("bob", &wrong, "throttled"),
        ("carol", &wrong, "not-enrolled"),
        ("mallory", &wrong, "unknown-user"),
    ] {
        assert_eq!(seen(user, answer, reason), expected, "{reason}");
    }
    // All of them are over within moments, beside two seconds that nobody can look through.
    let time = |user: &str, answer: &str| {
        let mut times: Vec<u64> = (0..7)
            .map(|_| {
                let login = machine.login("test", user).answer(answer).with(&["--time"]).run();
                let line = login.output.lines().find_map(|line| line.strip_prefix("nanoseconds ")).unwrap();
                line.parse().unwrap()
            })
            .collect();
        times.sort_unstable();
        Duration::from_nanos(times[3])
    };
    let times = [("alice", &wrong), ("alice", &code), ("bob", &code), ("carol", &wrong), ("mallory", &wrong)]
        .map(|(user, answer)| time(user, answer));
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*most - *least < Duration::from_millis(100), "{times:?}");
}

#[test]
fn an_answer_of_any_length_is_denied_at_once() {
    let machine = enrolled();
    machine.without_limits();
    machine.service("password", "auth required pam_totp.so forward_pass\n");
    let file = machine.shared().join("long");
    for service in ["test", "password"] {
        for length in [0, 1, 5, 7, 63, 64, 127, 128, 511, 512, 513, 1023, 1024, 65_535, 65_536, 1 << 20] {
            for digit in ["1", "x", " ", "\x1b"] {
                fs::write(&file, digit.repeat(length)).unwrap();
                let start = Instant::now();
                let login = machine.login(service, "alice").with(&["--answer-file", file.to_str().unwrap()]).run();
                assert_eq!(
                    (login.result(), login.prompts.len()),
                    (AUTH_ERR, 1),
                    "{service} {length} {digit:?}: {login:#?}"
                );
                assert!(start.elapsed() < PROMPTLY, "{service} {length} {digit:?}");
                let longest = login.log.iter().map(String::len).max().unwrap();
                assert!(longest < 400, "{service} {length} {digit:?}: a line of {longest} bytes");
            }
        }
    }
    assert_eq!(machine.login("test", "alice").answer(code_now(SECRET)).run().result(), SUCCESS);
}

#[test]
fn a_step_below_one_that_was_accepted_is_as_used_as_that() {
    let machine = enrolled();
    for (window, steps) in [("", 1_u64), ("\" WINDOW_SIZE 9\n", 4)] {
        machine.without_limits();
        machine.enrol(ALICE, &format!("\" TOTP_AUTH\n{window}"));
        let _ = code_now(SECRET); // Not at the very end of a step.
        let now = now();
        let log_in = |time: u64| machine.login("test", "alice").answer(code_at(SECRET, time)).run();
        // The latest first; after it none of the whole window, whichever is tried, and itself neither.
        assert_eq!(log_in(now + 30 * steps).result(), SUCCESS, "{steps}");
        for time in (0..=2 * steps).rev().map(|step| now - 30 * steps + 30 * step) {
            is_denied(&log_in(time), "used-code");
        }
        // The earliest first; then each of them once, and none after a later one.
        machine.enrol(ALICE, &format!("\" TOTP_AUTH\n{window}"));
        for step in 0..=steps {
            let time = now - 30 * steps + 60 * step;
            assert_eq!(log_in(time).result(), SUCCESS, "{steps}: {step}");
            is_denied(&log_in(time), "used-code");
            is_denied(&log_in(time - 30), if step == 0 { "wrong-code" } else { "used-code" });
        }
    }
}

#[test]
fn who_does_not_exist_is_asked_and_denied_also_where_others_are_let_pass() {
    let machine = enrolled();
    let permit = "auth required pam_permit.so\n";
    machine.service("test", &format!("auth required pam_totp.so\n{permit}"));
    machine.service("nullok", &format!("auth required pam_totp.so nullok\n{permit}"));
    let exempt = "[[exempt]]\nusers = [\"any\"]\nnetworks = [\"any\"]\nservices = [\"any\"]\nuntil = 2999-01-01\nreason = \"x\"\n\
                  result = \"success\"\n";
    for policy in [
        "",
        "[defaults]\nenrolment = \"optional\"\n",
        "[defaults]\nenrol_by = 2999-01-01\n",
        "[require]\ngroups = [\"root\"]\n",
        exempt,
    ] {
        // Another beginning each time: what is no beginning of the one that was in use.
        machine.write("/etc/security/pam_totp.toml", format!("# {}\nversion = 1\n{policy}", policy.len()));
        for service in ["test", "nullok"] {
            for name in ["mallory", "Alice", "alice ", "20001", "0"] {
                let login = machine.login(service, name).answer("000000").with(&["--rhost", "198.51.100.7"]).run();
                assert_eq!(
                    (login.result(), login.prompts.len()),
                    (AUTH_ERR, 1),
                    "{policy:?} {service} {name}: {login:#?}"
                );
                assert!(["unknown-user", "throttled"].contains(&login.reason().as_str()), "{login:#?}");
            }
        }
    }
    // And bob, who exists, is let pass there.
    let login = machine.login("test", "bob").with(&["--rhost", "198.51.100.7"]).run();
    assert_eq!((login.result(), login.prompts.len()), (SUCCESS, 0), "{login:#?}");
}
