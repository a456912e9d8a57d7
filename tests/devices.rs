//! The root-only store, its devices, and the commands that look after them.

use crate::enrol::converse;
use crate::sudo_su::{PASSWORD, type_to};
use crate::support::machine::{ALICE, AUTH_ERR, AUTHINFO_UNAVAIL, BOB, LoggedIn, Machine, SUCCESS};
use crate::support::ssh::{KEY_AND_CODE, Sshd};
use crate::support::totp::{SECRET, code_at, code_by, code_now, hotp, now};
use crate::support::{example_file, need, output_of, reasons};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output, Stdio};

const POLICY: &str = "/etc/security/pam_totp.toml";
const SYSTEM: &str = "version = 1\n[defaults]\nstore = \"system\"\n";
/// No beginning of that one, which would be taken for a file that was cut short.
const HOMES: &str = "version = 1\n[defaults]\nstore = \"home\"\n";
/// For tests that are about something else and log in often.
const UNLIMITED: &str = "[throttle]\nuser = \"\"\nhost = \"\"\n";
const STACK: &str = "auth required pam_totp.so\n";
/// Who is not asked is let in.
const NULLOK: &str = "auth required pam_totp.so nullok\nauth required pam_permit.so\n";

/// A host with the policy and no store.
fn bare() -> Machine {
    let machine = Machine::new();
    machine.service("test", STACK);
    machine.write(POLICY, format!("{SYSTEM}{UNLIMITED}"));
    machine
}

/// A host with a store.
fn host() -> Machine {
    let machine = bare();
    done(&machine, "setup store");
    machine
}

/// A host whose people have files, for the commands that work on those too.
fn host_of_homes() -> Machine {
    let machine = bare();
    machine.write(POLICY, format!("version = 1\n{UNLIMITED}"));
    machine
}

/// The program with these arguments, run by root.
fn pam_totp(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = machine.command(machine.program());
    command.args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command line, blanks between its words, and returns what it printed.
fn done(machine: &Machine, line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    output_of(&mut pam_totp(machine, &words))
}

/// The same with `--json`.
fn json(machine: &Machine, line: &str) -> Value {
    let printed = done(machine, &format!("{line} --json"));
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{line}: {error}: {printed}"))
}

/// Runs a command that has to fail with 1 and say these words.
fn refused_by(mut command: Command, words: &str) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?} {output:?}");
    let errors = text(&output.stderr);
    assert!(errors.starts_with("pam-totp: ") && errors.contains(words), "{command:?} {errors}");
}

fn refused(machine: &Machine, line: &str, words: &str) {
    let arguments: Vec<_> = line.split(' ').collect();
    refused_by(pam_totp(machine, &arguments), words);
}

/// Runs a command with these lines on its standard input.
pub(crate) fn typed(mut command: Command, lines: &[&str]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes());
    child.wait_with_output().unwrap()
}

/// Enrols alice and returns her secret and her recovery codes.
fn enrol(machine: &Machine, options: &str) -> (String, Vec<String>) {
    let object = json(machine, format!("enrol --user alice --no-confirm {options}").trim_end());
    (string(&object["secret"]), strings(&object["recovery_codes"]))
}

/// Adds a device to what alice has and returns its secret.
fn add(machine: &Machine, name: &str, options: &str) -> String {
    let line = format!("device add {name} --user alice --no-confirm {options}");
    string(&json(machine, line.trim_end())["secret"])
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap_or_else(|| panic!("{value}")).iter().map(string).collect()
}

/// What a login comes to: `in` and by what, `passed` who was not asked, or the reason why not.
fn ending(login: &LoggedIn) -> String {
    match login.result() {
        SUCCESS => match login.log.iter().find_map(|line| line.split_once(" factor=")) {
            // By how many steps the clocks differ depends on the moment.
            Some((_, factor)) => {
                let words = factor.split(' ').filter(|word| !word.starts_with("steps="));
                format!("in {}", words.collect::<Vec<_>>().join(" "))
            }
            None => "passed".to_owned(),
        },
        AUTH_ERR => login.reason(),
        other => format!("{other} {}", login.reason()),
    }
}

fn log_in(machine: &Machine, answer: &str) -> String {
    ending(&machine.login("test", "alice").answer(answer).run())
}

/// A login so many seconds from now.
fn log_in_later(machine: &Machine, seconds: u64, answer: &str) -> String {
    ending(&machine.login_at(&format!("+{seconds}s"), "test", "alice").answer(answer).run())
}

/// A login so many seconds from now with the code that the device shows then.
fn log_in_after(machine: &Machine, seconds: u64, secret: &str) -> String {
    log_in_later(machine, seconds, &code_at(secret, now() + seconds))
}

const RECORD: &str = "/var/lib/pam_totp/records/alice";

/// Whether this can be read in any of the files of the records, the siblings included.
fn is_on_disk(machine: &Machine, words: &str) -> bool {
    let files = fs::read_dir(machine.path("/var/lib/pam_totp/records")).unwrap();
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).any(|file| text(&file).contains(words))
}

// ---- The store ----

#[test]
fn setup_makes_a_store_that_is_roots_alone_and_keeps_what_is_there() {
    let machine = bare();
    let mut command = machine.command_as(ALICE, machine.program());
    command.args(["setup", "store"]);
    refused_by(command, "only root can set the store up");
    let printed = done(&machine, "setup store");
    assert!(printed.starts_with("/var/lib/pam_totp: is a store now ("), "{printed}");
    assert_eq!(printed.lines().count(), 2, "where, and what the file system promises: {printed}");
    let mode = |path: &str| {
        let stat = machine.path(&format!("/var/lib/pam_totp/{path}")).metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid()), (0, 0), "{path}");
        stat.mode() & 0o7777
    };
    assert_eq!(["", "records", "enrolled"].map(mode), [0o700; 3]);
    assert_eq!(["store.id", "locks"].map(mode), [0o600; 2]);
    let id = machine.read("/var/lib/pam_totp/store.id");
    let object = json(&machine, "setup store");
    assert_eq!((string(&object["store_id"]), &object["was_there"]), (id.trim().to_owned(), &Value::Bool(true)));
    assert!(!string(&object["file_system"]).is_empty() && !string(&object["promise"]).is_empty(), "{object}");
    assert_eq!(object["in_use"], Value::Bool(true));
    assert!(done(&machine, "setup store").contains("was a store already"));
    assert_eq!(machine.read("/var/lib/pam_totp/store.id"), id);
    // A policy that looks elsewhere is told so.
    machine.write("/etc/security/homes.toml", "version = 1\n");
    let printed = done(&machine, "setup store --conf /etc/security/homes.toml");
    assert!(printed.contains("write store = \"system\" into [defaults]"), "{printed}");
}

#[test]
fn before_there_is_a_store_nobody_gets_in_and_nobody_is_blamed() {
    let machine = bare();
    machine.write(POLICY, SYSTEM);
    let unavailable = || {
        let login = machine.login("test", "alice").with(&["--rhost", "192.0.2.1"]).answer("123456").run();
        assert_eq!((login.result(), login.reason().as_str()), (AUTHINFO_UNAVAIL, "no-store"), "{login:#?}");
        assert_eq!(login.prompts, ["1 \"Verification code: \""]);
        let ours: Vec<_> = login.log.iter().filter(|line| line.contains("pam_totp(test:auth)")).collect();
        assert_eq!(ours.len(), 1, "{login:#?}");
        assert!(ours[0].contains("pam-totp setup store"), "it says what to do: {ours:?}");
        assert!(!login.log.iter().any(|line| line.contains("authentication failure")), "{login:#?}");
    };
    // More than the throttle allows.
    (0..12).for_each(|_| unavailable());
    refused(&machine, "enrol --user alice --no-confirm", "no-store");
    refused(&machine, "status --user alice", "pam-totp setup store");
    machine.service("test", NULLOK);
    let login = machine.login("test", "alice").answer("123456").run();
    assert_eq!(login.result(), AUTHINFO_UNAVAIL, "not even who needs no code: {login:#?}");
    machine.service("test", STACK);
    done(&machine, "setup store");
    assert_eq!(done(&machine, "throttle list"), "No failures.\n");
    let (secret, _) = enrol(&machine, "");
    assert_eq!(log_in(&machine, &code_now(&secret)), "in totp device=phone");
}

#[test]
fn a_record_cannot_be_read_by_whom_it_is_about() {
    let machine = host();
    let (secret, _) = enrol(&machine, "");
    assert!(machine.read(RECORD).contains(&secret));
    let stat = machine.path(RECORD).metadata().unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777, stat.nlink()), (0, 0, 0o600, 1));
    machine.service("su", &example_file("su"));
    let read =
        format!("cat {RECORD}; ls /var/lib/pam_totp /var/lib/pam_totp/records; head -c1 /var/lib/pam_totp/store.id");
    let by_su = machine.command("su").args(["alice", "-c", &read]).output().unwrap();
    let as_alice = machine.command_as(ALICE, "sh").args(["-c", &read]).output().unwrap();
    for output in [by_su, as_alice] {
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert_eq!(text(&output.stderr).matches("Permission denied").count(), 4, "{output:?}");
    }
    for arguments in [&["status"][..], &["device", "list"], &["recovery", "new"], &["remove"], &["resync"]] {
        let mut command = machine.command_as(ALICE, machine.program());
        command.args(arguments);
        refused_by(command, "only root can ");
    }
}

#[test]
fn logins_through_sshd_and_su_use_the_store() {
    let machine = host();
    machine.service("sshd", &example_file("sshd-debian"));
    machine.service("su", &example_file("su"));
    let (secret, codes) = enrol(&machine, "");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let code = code_now(&secret);
    assert!(sshd.login(ALICE, &[&code]).succeeded, "{:#?}", machine.log());
    assert!(!sshd.login(ALICE, &[&code]).succeeded);
    assert_eq!(reasons(&machine.log()), ["used-code"]);
    let su = |code: &str| type_to(&machine, BOB, &["su", "alice", "-c", "id -un"], &[code, PASSWORD]);
    let output = su(&codes[0]);
    assert_eq!(text(&output.stdout), "alice\n", "{output:?} {:#?}", machine.log());
    assert!(!su(&codes[0]).status.success());
    assert_eq!(reasons(&machine.log()), ["wrong-code"]);
    let stat = machine.path(RECORD).metadata().unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (0, 0, 0o600), "also where su's caller was bob");
    // Where there is no store sshd says nothing that fail2ban counts.
    fs::rename(machine.path("/var/lib/pam_totp/store.id"), machine.path("/var/lib/pam_totp/away")).unwrap();
    assert!(!sshd.login(ALICE, &[&code_now(&secret)]).succeeded);
    let log = machine.log();
    assert_eq!(reasons(&log), ["no-store"]);
    assert!(!log.iter().any(|line| line.to_lowercase().contains("authentication failure")), "{log:#?}");
}

// ---- Enrolment ----

#[test]
fn enrol_confirm_log_in_once() {
    let machine = host();
    let mut code = String::new();
    let output = converse(pam_totp(&machine, &["enrol", "--user", "alice"]), |secret| {
        code = code_now(secret);
        vec!["000".to_owned(), code.clone()]
    });
    assert!(output.status.success(), "{output:?}");
    let screen = text(&output.stdout);
    assert!(screen.ends_with(&format!("Stored in {RECORD}.\n")), "{screen}");
    let shown =
        screen.split_once("Recovery codes, for the day when the app is not at hand. Each works once:\n").unwrap().1;
    assert_eq!(shown.lines().take_while(|line| line.len() == 2 + 29).count(), 5, "{screen}");
    let secret = screen.split_once("Secret, to type instead: ").unwrap().1.lines().next().unwrap();
    assert_eq!(log_in(&machine, &code), "used-code", "by the confirmation");
    let next = code_at(secret, now() + 30);
    assert_eq!(log_in(&machine, &next), "in totp device=phone");
    assert_eq!(log_in(&machine, &next), "used-code");
    assert!(!machine.path(&ALICE.secret_file()).exists());
}

#[test]
fn every_kind_of_device_logs_in() {
    let machine = host();
    for (options, oathtool) in [
        ("--algorithm SHA256", &["--totp=SHA256"][..]),
        ("--algorithm sha512 --digits 8", &["--totp=SHA512", "--digits=8"]),
        ("--digits 7", &["--totp", "--digits=7"]),
        ("--step-size 60 --device tablet", &["--totp", "--time-step-size=60s"]),
        ("--time-based", &["--totp"]),
    ] {
        let (secret, codes) = enrol(&machine, &format!("--force {options}"));
        assert_eq!(codes.len(), 5);
        let name = if options.contains("tablet") { "tablet" } else { "phone" };
        let code = code_by(oathtool, &secret, now() + 300);
        assert_eq!(log_in_later(&machine, 300, &code), format!("in totp device={name}"), "{options}");
        assert_eq!(log_in_later(&machine, 300, &code), "used-code", "{options}");
    }
    let (secret, codes) = enrol(&machine, "--force --counter-based --emergency-codes 0");
    assert!(codes.is_empty());
    assert_eq!(log_in(&machine, &hotp(&secret, 2)), "in hotp skipped=1 device=phone");
    assert_eq!(log_in(&machine, &hotp(&secret, 2)), "wrong-code");
    assert_eq!(log_in(&machine, &hotp(&secret, 3)), "in hotp skipped=0 device=phone");
}

#[test]
fn a_record_is_replaced_only_by_force_and_then_nothing_of_it_works() {
    let machine = host();
    let (secret, codes) = enrol(&machine, "");
    refused(
        &machine,
        "enrol --user alice --no-confirm",
        "pam-totp device add adds a device to it; --force replaces it",
    );
    let (other, _) = enrol(&machine, "--force");
    assert_eq!(log_in(&machine, &code_now(&secret)), "wrong-code");
    assert_eq!(log_in(&machine, &codes[0]), "wrong-code");
    assert_eq!(log_in(&machine, &code_now(&other)), "in totp device=phone");
    assert!(!is_on_disk(&machine, &secret));
    // Without a right code everything stays.
    let before = machine.read(RECORD);
    let wrong = typed(pam_totp(&machine, &["enrol", "--user", "alice", "--force"]), &["000000"; 5]);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(text(&wrong.stderr).contains("nothing was stored"), "{wrong:?}");
    let wrong = typed(pam_totp(&machine, &["enrol", "--user", "alice", "--force", "--json"]), &["000000"; 5]);
    assert!(wrong.status.code() == Some(1) && wrong.stdout.is_empty(), "{wrong:?}");
    assert_eq!(machine.read(RECORD), before);
}

#[test]
fn who_may_not_enrol_and_what_is_not_for_this_store_is_told_so() {
    let machine = host();
    for arguments in [&["enrol"][..], &["enrol", "--user", "bob"]] {
        let mut command = machine.command_as(ALICE, machine.program());
        command.args(arguments);
        refused_by(command, "only root can enrol somebody in the root-only store");
    }
    let mut google = machine.command(machine.google_authenticator());
    google.args(["-t", "-d", "-f", "-W", "-u", "-C"]);
    refused_by(google, "use pam-totp enrol");
    for flag in [
        "--secret /root/x",
        "--rate-limit 3 --rate-time 30",
        "--no-rate-limit",
        "--window-size 17",
        "--minimal-window",
        "--allow-reuse",
    ] {
        let name = flag.split(' ').next().unwrap();
        refused(
            &machine,
            &format!("enrol --user alice --no-confirm {flag}"),
            &format!("{name} is about ~/.google_authenticator"),
        );
    }
    refused(&machine, "enrol --user nobody-here --no-confirm", "there is no user `nobody-here`");
    assert!(!machine.path(RECORD).exists());
    // And the other way round.
    machine.write(POLICY, HOMES);
    refused(&machine, "enrol --user alice --no-confirm --device tablet", "--device is about the root-only store");
}

// ---- Devices ----

#[test]
fn each_device_logs_in_by_its_name_until_it_is_removed() {
    let machine = host();
    let (phone, _) = enrol(&machine, "");
    let mut code = String::new();
    let output = converse(pam_totp(&machine, &["device", "add", "key", "--user", "alice"]), |secret| {
        code = code_now(secret);
        vec![code.clone()]
    });
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).ends_with("alice: key added.\n"), "{output:?}");
    assert_eq!(log_in(&machine, &code), "used-code", "by the confirmation");
    let tablet = add(&machine, "tablet", "--digits 8 --algorithm SHA256");
    assert_eq!(log_in(&machine, &code_now(&phone)), "in totp device=phone");
    let eight = |seconds: u64| code_by(&["--totp=SHA256", "--digits=8"], &tablet, now() + seconds);
    assert_eq!(log_in(&machine, &eight(0)), "in totp device=tablet");
    refused(&machine, "device add tablet --user alice --no-confirm", "there is a device `tablet` already");
    assert_eq!(done(&machine, "device rename tablet work --user alice"), "alice: tablet is called work now.\n");
    assert_eq!(log_in_later(&machine, 300, &eight(300)), "in totp device=work");
    refused(&machine, "device rename work phone --user alice", "name-taken");
    refused(&machine, "device rename tablet x --user alice", "no-such-device");
    refused(&machine, "device remove tablet --user alice", "no-such-device");

    let list = json(&machine, "device list --user alice");
    let names: Vec<_> = list["devices"].as_array().unwrap().iter().map(|device| string(&device["name"])).collect();
    assert_eq!(names, ["phone", "key", "work"]);
    assert_eq!(list["devices"][2]["algorithm"], "SHA256");
    let printed = done(&machine, "device list --user alice");
    assert!(printed.contains("work: 8 digits every 30 seconds (SHA256), added "), "{printed}");
    for secret in [&phone, &tablet] {
        assert!(!printed.contains(secret.as_str()) && !list.to_string().contains(secret.as_str()));
    }

    assert_eq!(done(&machine, "device remove phone --user alice"), "alice: phone removed.\n");
    assert!(!is_on_disk(&machine, &phone) && is_on_disk(&machine, &tablet));
    assert_eq!(log_in_after(&machine, 600, &phone), "wrong-code");
    assert_eq!(log_in_later(&machine, 600, &eight(600)), "in totp device=work", "the others are as they were");
    let removed = json(&machine, "device remove key --user alice");
    assert_eq!((string(&removed["device"]), &removed["removed"]), ("key".to_owned(), &Value::Bool(true)));
    let renamed = json(&machine, "device rename work w --user alice");
    assert_eq!((string(&renamed["device"]), string(&renamed["renamed"])), ("work".to_owned(), "w".to_owned()));
}

#[test]
fn without_the_last_device_nobody_gets_in_by_anything() {
    let machine = host();
    let (secret, codes) = enrol(&machine, "");
    refused(
        &machine,
        "device remove phone --user alice",
        "phone is the last device: with --force nobody gets in as alice",
    );
    assert_eq!(log_in(&machine, &codes[0]), "in recovery-code left=4");
    done(&machine, "device remove phone --user alice --force");
    assert_eq!(log_in(&machine, &code_now(&secret)), "no-device");
    assert_eq!(log_in(&machine, &codes[1]), "no-device");
    machine.service("test", NULLOK);
    assert_eq!(log_in(&machine, &code_now(&secret)), "no-device", "nor by being let off");
    assert!(done(&machine, "status --user alice").contains("alice: enrolled, in "));
    let tablet = add(&machine, "tablet", "");
    assert_eq!(log_in(&machine, &code_now(&tablet)), "in totp device=tablet");
    assert_eq!(log_in(&machine, &codes[1]), "in recovery-code left=3", "they stand in for a device again");
}

#[test]
fn a_record_takes_a_dozen_devices_and_says_when_it_is_full() {
    let machine = host();
    let (phone, _) = enrol(&machine, "");
    let secrets: Vec<_> = (0..11).map(|number| add(&machine, &format!("device-{number}"), "")).collect();
    let before = machine.read(RECORD);
    let full = (12..40).find_map(|number| {
        let name = format!("device-{number}");
        let output = pam_totp(&machine, &["device", "add", &name, "--user", "alice", "--quiet"]).output().unwrap();
        (!output.status.success()).then_some(output)
    });
    let full = full.expect("there is an end to it");
    assert_eq!(full.status.code(), Some(1));
    let errors = text(&full.stderr);
    assert!(errors.contains("record-too-large") && errors.contains("remove one"), "{errors}");
    assert_eq!(machine.read(RECORD).len(), before.len());
    assert_eq!(log_in(&machine, &code_now(&phone)), "in totp device=phone");
    assert_eq!(log_in(&machine, &code_now(&secrets[10])), "in totp device=device-10");
    done(&machine, "device remove device-0 --user alice");
    let _ = add(&machine, "again", "");
}

#[test]
fn a_name_that_a_list_or_a_terminal_would_stumble_over_is_refused() {
    let machine = host();
    enrol(&machine, "");
    let long = "x".repeat(65);
    for name in ["", " phone", "a\"b", "a\\b", "a\x1b[31mb", "a\nb", "a\u{9b}b", &long] {
        let add = pam_totp(&machine, &["device", "add", name, "--user", "alice", "--no-confirm"]);
        refused_by(add, "a device has a name of 1 to 64 letters");
        let rename = pam_totp(&machine, &["device", "rename", "phone", name, "--user", "alice"]);
        refused_by(rename, "a device has a name of 1 to 64 letters");
        let enrol = pam_totp(&machine, &["enrol", "--force", "--no-confirm", "--user", "alice", "--device", name]);
        refused_by(enrol, "a device has a name of 1 to 64 letters");
        // What is asked for comes back in no message as it is.
        for arguments in
            [&["device", "remove", name, "--user", "alice"][..], &["resync", "--device", name, "--user", "alice"]]
        {
            let output = pam_totp(&machine, arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let errors = text(&output.stderr);
            assert!(!errors.trim_end().contains(|letter: char| letter.is_control()), "{errors:?}");
        }
    }
    let add = &["device", "add", "Anna's 📱 [1] = #2", "--user", "alice", "--no-confirm", "--json"];
    let added: Value = serde_json::from_str(&output_of(&mut pam_totp(&machine, add))).unwrap();
    let login = machine.login("test", "alice").answer(code_now(&string(&added["secret"]))).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    assert!(login.log.iter().all(|line| line.is_ascii()), "{login:#?}");
    assert!(done(&machine, "device list --user alice").contains("Anna's 📱 [1] = #2: 6 digits"));
}

#[test]
fn a_file_in_a_home_has_one_device_without_a_name() {
    let machine = host_of_homes();
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    for line in ["device add x --user alice", "device rename a b --user alice", "device remove x --user alice"] {
        refused(&machine, line, "with store = \"system\" in the policy there is more");
    }
    refused(&machine, "recovery new --user alice", "pam-totp enrol --force");
    assert_eq!(done(&machine, "device list --user alice"), "(the file's device): 6 digits every 30 seconds (SHA1)\n");
}

// ---- Recovery codes ----

#[test]
fn recovery_codes_work_once_each_however_they_are_typed_until_there_are_new_ones() {
    let machine = host();
    let (_, old) = enrol(&machine, "");
    assert_eq!(log_in(&machine, &old[0]), "in recovery-code left=4");
    assert_eq!(log_in(&machine, &old[0]), "wrong-code");
    assert_eq!(log_in(&machine, &old[1].to_lowercase()), "in recovery-code left=3");
    let record = machine.read(RECORD);
    let hashes = record.lines().find(|line| line.starts_with("hashes")).unwrap();
    let printed = done(&machine, "recovery new --user alice --count 3");
    assert!(!is_on_disk(&machine, hashes), "nor the hashes of the old ones");
    let new: Vec<_> = printed.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect();
    assert_eq!(new.len(), 3, "{printed}");
    assert_eq!(log_in(&machine, &old[2]), "wrong-code");
    let last = new[2].to_lowercase().replace('-', " ");
    let typed = [new[0].replace('-', ""), format!("  {} ", new[1]), last];
    for (typed, left) in typed.iter().zip([2, 1, 0]) {
        assert_eq!(log_in(&machine, typed), format!("in recovery-code left={left}"), "{typed}");
        assert_eq!(log_in(&machine, typed), if left > 0 { "wrong-code" } else { "not-a-code" }, "{typed}");
    }
    let codes = strings(&json(&machine, "recovery new --user alice")["recovery_codes"]);
    assert_eq!((codes.len(), log_in(&machine, &codes[4])), (5, "in recovery-code left=4".to_owned()));
    let record = machine.read(RECORD);
    for code in codes.iter().chain(&new) {
        assert!(!record.contains(code) && !record.contains(&code.replace('-', "")), "only hashes are stored");
    }
    refused(&machine, "recovery new --user bob", "not-enrolled");
    machine.write(POLICY, format!("{SYSTEM}allow_scratch_codes = false\n{UNLIMITED}"));
    refused(&machine, "recovery new --user alice", "the policy has allow_scratch_codes = false");
    assert_eq!(log_in(&machine, &codes[0]), "not-a-code");
    assert_eq!(enrol(&machine, "--force").1, [""; 0]);
}

#[test]
fn a_recovery_code_at_the_end_of_a_password_has_its_dashes() {
    let machine = host();
    machine.service("test", "auth required pam_totp.so forward_pass\nauth required pam_unix.so use_first_pass\n");
    let (secret, codes) = enrol(&machine, "");
    assert_eq!(log_in(&machine, &format!("{PASSWORD}{}", codes[0])), "in recovery-code left=4");
    assert_eq!(log_in(&machine, &format!("{PASSWORD}{}", codes[0])), "wrong-code");
    assert_eq!(log_in(&machine, &format!("{PASSWORD}{}", codes[1].to_lowercase())), "in recovery-code left=3");
    assert_eq!(log_in(&machine, &format!("{PASSWORD}{}", codes[2].replace('-', ""))), "not-a-code");
    assert_eq!(log_in(&machine, &format!("{PASSWORD}{}", code_now(&secret))), "in totp device=phone");
    let login = machine.login("test", "alice").answer(format!("not it{}", codes[2])).run();
    assert_eq!(login.result(), AUTH_ERR, "the password is looked at as well: {login:#?}");
}

// ---- Status ----

#[test]
fn status_says_what_there_is_and_never_a_secret() {
    let machine = host();
    assert_eq!(done(&machine, "status --user alice"), "alice: not enrolled\n");
    let object = json(&machine, "status --user alice");
    assert_eq!((&object["enrolled"], &object["ever_enrolled"]), (&Value::Bool(false), &Value::Bool(false)));
    assert_eq!((string(&object["store"]), string(&object["path"])), ("system".to_owned(), RECORD.to_owned()));
    let (secret, codes) = enrol(&machine, "");
    let printed = done(&machine, "status --user alice");
    assert!(
        printed
            .starts_with(&format!("alice: enrolled, in {RECORD}\n  phone: 6 digits every 30 seconds (SHA1), added "))
    );
    assert!(printed.ends_with("\n  5 recovery codes left\n") && !printed.contains("last used"), "{printed}");
    let before = now();
    assert_eq!(log_in(&machine, &code_now(&secret)), "in totp device=phone");
    (0..4).for_each(|number| assert!(log_in(&machine, &codes[number]).starts_with("in ")));
    let printed = done(&machine, "status --user alice");
    assert!(printed.contains(", last used 20") && printed.ends_with("\n  1 recovery code left\n"), "{printed}");
    let object = json(&machine, "status --user alice");
    assert_eq!((&object["enrolled"], &object["recovery_codes"]), (&Value::Bool(true), &Value::from(1)));
    let device = &object["devices"][0];
    assert!(device["last_used"].as_u64().is_some_and(|time| (before..=now()).contains(&time)), "{object}");
    assert_eq!((&device["kind"], &device["digits"]), (&Value::from("totp"), &Value::from(6)));
    assert!(!printed.contains(&secret) && !object.to_string().contains(&secret));
    done(&machine, "remove --user alice");
    let printed = done(&machine, "status --user alice");
    assert_eq!(printed, "alice: no device any more; had one, and is not let pass without\n");
    let object = json(&machine, "status --user alice");
    assert_eq!((&object["enrolled"], &object["ever_enrolled"]), (&Value::Bool(false), &Value::Bool(true)));
    // A record that cannot be read is no absence.
    enrol(&machine, "--force");
    machine.write_as(RECORD, "nonsense", 0, 0o600);
    refused(&machine, "status --user alice", "bad-record");
    assert_eq!(log_in(&machine, "123456"), "bad-record");
}

#[test]
fn people_see_the_status_of_their_own_files() {
    let machine = host_of_homes();
    let status = |arguments: &[&str]| {
        let mut command = machine.command_as(ALICE, machine.program());
        command.arg("status").args(arguments);
        command
    };
    assert_eq!(output_of(&mut status(&[])), "alice: not enrolled\n");
    machine.enrol(ALICE, "\" TOTP_AUTH\n12345678\n23456789\n");
    let printed = output_of(&mut status(&[]));
    assert_eq!(
        printed,
        "alice: enrolled, in /home/alice/.google_authenticator\n  (the file's device): 6 digits every 30 seconds (SHA1)\n  \
         2 recovery codes left\n"
    );
    let object: Value = serde_json::from_str(&output_of(&mut status(&["--json"]))).unwrap();
    assert_eq!((string(&object["store"]), &object["recovery_codes"]), ("home".to_owned(), &Value::from(2)));
    refused_by(status(&["--user", "bob"]), "only root can do this for somebody else");
    for output in [printed, object.to_string(), done(&machine, "status --user alice")] {
        assert!(!output.contains(SECRET) && !output.contains("12345678"), "{output}");
    }
    assert_eq!(done(&machine, "status --user bob"), "bob: not enrolled\n");
}

// ---- Clocks ----

fn resync(machine: &Machine, options: &[&str], codes: [&str; 2]) -> Output {
    typed(pam_totp(machine, &[&["resync", "--user", "alice"], options].concat()), &codes)
}

#[test]
fn two_codes_bring_a_device_back_whose_clock_is_off() {
    let machine = host();
    let (secret, _) = enrol(&machine, "");
    let _ = add(&machine, "other", "");
    let fast = |seconds: u64| code_at(&secret, now() + 1800 + seconds);
    let _ = code_now(&secret); // Not at the very end of a step.
    assert_eq!(log_in(&machine, &fast(0)), "wrong-code");
    let codes = [fast(0), fast(30)];
    let output = resync(&machine, &[], [&codes[0], &fast(60)]);
    assert_eq!(output.status.code(), Some(1), "they have to follow each other: {output:?}");
    assert!(text(&output.stderr).contains("not-found"), "{output:?}");
    let output = resync(&machine, &["--device", "other"], [&codes[0], &codes[1]]);
    assert_eq!(output.status.code(), Some(1), "not that one's: {output:?}");
    let output = resync(&machine, &[], [&codes[0], &codes[1]]);
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output.stdout);
    assert!(
        printed.starts_with("alice: phone is 6") && printed.ends_with(" time steps ahead of this clock\n"),
        "{printed}"
    );
    assert_eq!(log_in(&machine, &codes[0]), "used-code");
    assert_eq!(log_in(&machine, &codes[1]), "used-code");
    assert_eq!(log_in_later(&machine, 90, &fast(90)), "in totp device=phone");
    assert_eq!(log_in_later(&machine, 600, &fast(600)), "in totp device=phone", "at that difference from now on");
    assert_eq!(log_in_after(&machine, 1200, &secret), "wrong-code", "and not by the right time");
    let output = resync(&machine, &[], [&codes[0], &codes[1]]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("used-code"), "{output:?}");
    let output = resync(&machine, &["--json", "--device", "phone"], [&fast(900), &fast(930)]);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["devices"][0], "phone", "{output:?}");
    for (codes, words) in [(["12345", "123456"], "6 to 8 digits"), (["", ""], "no code was given")] {
        let output = resync(&machine, &[], codes);
        assert!(output.status.code() == Some(1) && text(&output.stderr).contains(words), "{output:?}");
    }
    refused(&machine, "resync --user alice --device nothing", "there is no device `nothing`");
    refused(&machine, "resync --user bob", "not-enrolled");
}

#[test]
fn two_codes_bring_a_counter_back_that_is_far_ahead() {
    let machine = host();
    let (secret, _) = enrol(&machine, "--counter-based");
    assert_eq!(log_in(&machine, &hotp(&secret, 500)), "wrong-code");
    let output = resync(&machine, &[], [&hotp(&secret, 500), &hotp(&secret, 501)]);
    assert_eq!(text(&output.stdout), "alice: phone had moved on by 499 codes\n", "{output:?}");
    assert_eq!(log_in(&machine, &hotp(&secret, 501)), "wrong-code");
    assert_eq!(log_in(&machine, &hotp(&secret, 502)), "in hotp skipped=0 device=phone");
    let output = resync(&machine, &[], [&hotp(&secret, 500), &hotp(&secret, 501)]);
    assert_eq!(output.status.code(), Some(1), "never back: {output:?}");
}

#[test]
fn people_bring_the_devices_of_their_own_files_back() {
    let machine = host_of_homes();
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let _ = code_now(SECRET);
    let slow = |seconds: u64| code_at(SECRET, now() - 1800 + seconds);
    let mut command = machine.command_as(ALICE, machine.program());
    command.arg("resync");
    let codes = [slow(0), slow(30)];
    let output = typed(command, &[&codes[0], &codes[1]]);
    assert!(text(&output.stdout).ends_with(" time steps behind this clock\n"), "{output:?}");
    let file = machine.read(&ALICE.secret_file());
    assert!(file.contains("\" TIME_SKEW -") && file.contains("\" DISALLOW_REUSE "), "{file}");
    assert_eq!(log_in(&machine, &codes[1]), "used-code");
    assert_eq!(log_in_later(&machine, 90, &slow(90)), "in totp");
    assert_eq!(machine.path(&ALICE.secret_file()).metadata().unwrap().uid(), ALICE.uid);
}

#[test]
fn after_a_clock_that_was_ahead_root_accepts_the_present() {
    for machine in [host(), host_of_homes()] {
        let (device, options) = match machine.read(POLICY).contains("system") {
            true => (" device=phone", ""),
            false => ("", " --no-rate-limit"),
        };
        let secret = string(&json(&machine, &format!("enrol --user alice --no-confirm{options}"))["secret"]);
        let _ = code_now(&secret);
        // At the right time a clock an hour behind a used code denies, and says why.
        assert_eq!(log_in_after(&machine, 3600, &secret), format!("in totp{device}"));
        assert_eq!(log_in(&machine, &code_at(&secret, now())), "clock-behind-mark");
        // Ten years on, and back.
        assert_eq!(log_in_after(&machine, 10 * 365 * 86400, &secret), format!("in totp{device}"));
        let login = machine.login("test", "alice").answer(code_now(&secret)).run();
        assert_eq!(login.reason(), "clock-behind-mark", "{login:#?}");
        assert!(login.log[1].contains("resync --accept-clock"), "it says what to do: {login:#?}");
        let _ = code_now(&secret);
        let output = done(&machine, "resync --accept-clock --user alice");
        assert!(output.ends_with("takes the present time for right\n"), "{output}");
        for ahead in [0, 30] {
            assert_eq!(
                log_in(&machine, &code_at(&secret, now() + ahead)),
                "used-code",
                "all that could have been used"
            );
        }
        assert_eq!(log_in_after(&machine, 90, &secret), format!("in totp{device}"));
        // Nothing that there is to accept.
        done(&machine, "enrol --user alice --no-confirm --force --quiet");
        refused(&machine, "resync --accept-clock --user alice", "no code of a later time was used");
    }
}

// ---- The ratchet ----

#[test]
fn who_ever_had_a_device_is_not_let_pass_without_until_root_says_so() {
    let machine = host();
    machine.service("test", NULLOK);
    assert_eq!(log_in(&machine, ""), "passed");
    let (secret, codes) = enrol(&machine, "");
    assert_eq!(log_in(&machine, "000000"), "wrong-code");
    assert_eq!(done(&machine, "remove --user alice").lines().count(), 1);
    assert_eq!(log_in(&machine, &code_now(&secret)), "record-gone");
    assert_eq!(log_in(&machine, &codes[0]), "record-gone");
    refused(&machine, "remove --user alice", "alice has no record");
    refused(&machine, "remove --user bob", "bob has no record");
    assert_eq!(ending(&machine.login("test", "bob").answer("").run()), "passed", "that is alice's alone");
    assert_eq!(done(&machine, "reset --user alice"), "alice: never enrolled, as far as this host knows.\n");
    assert_eq!(log_in(&machine, ""), "passed");
    let object = json(&machine, "reset --user alice");
    assert_eq!((&object["removed"], &object["forgotten"]), (&Value::Bool(false), &Value::Bool(false)));
    // What removes the record by another way.
    enrol(&machine, "");
    fs::remove_file(machine.path(RECORD)).unwrap();
    assert_eq!(log_in(&machine, "000000"), "record-gone");
    let object = json(&machine, "reset --user alice");
    assert_eq!((&object["removed"], &object["forgotten"]), (&Value::Bool(false), &Value::Bool(true)));
    assert_eq!(log_in(&machine, ""), "passed");
}

#[test]
fn an_emptied_store_or_a_policy_that_is_gone_lets_nobody_pass() {
    let machine = host();
    machine.service("test", NULLOK);
    let (secret, _) = enrol(&machine, "");
    assert_eq!(log_in(&machine, &code_now(&secret)), "in totp device=phone");
    fs::remove_file(machine.path(POLICY)).unwrap();
    for user in ["alice", "bob"] {
        let login = machine.login("test", user).answer("").run();
        assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "no-policy"), "{login:#?}");
    }
    machine.write(POLICY, format!("{SYSTEM}{UNLIMITED}"));
    for entry in fs::read_dir(machine.path("/var/lib/pam_totp")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    for user in ["alice", "bob"] {
        let login = machine.login("test", user).answer(code_now(&secret)).run();
        assert_eq!((login.result(), login.reason().as_str()), (AUTHINFO_UNAVAIL, "no-store"), "{login:#?}");
    }
}

#[test]
fn a_name_that_is_given_to_somebody_else_is_somebody_else() {
    let machine = host();
    let (secret, _) = enrol(&machine, "");
    let passwd = machine.read("/etc/passwd").replace("alice:x:20001:20001:", "alice:x:20009:20001:");
    machine.write("/etc/passwd", passwd);
    let login = machine.login("test", "alice").answer(code_now(&secret)).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "record-of-another"), "{login:#?}");
    done(&machine, "reset --user alice");
    let (secret, _) = enrol(&machine, "");
    assert_eq!(log_in(&machine, &code_now(&secret)), "in totp device=phone");
}

#[test]
fn who_got_in_by_a_file_does_not_get_in_by_deleting_it() {
    let machine = host_of_homes();
    machine.service("test", NULLOK);
    assert_eq!(log_in(&machine, ""), "passed");
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    assert_eq!(log_in(&machine, &code_now(SECRET)), "in totp");
    fs::remove_file(machine.path(&ALICE.secret_file())).unwrap();
    assert_eq!(log_in(&machine, "000000"), "record-gone");
    let printed = done(&machine, "status --user alice");
    assert_eq!(printed, "alice: no device any more; had one, and is not let pass without\n");
    let mut command = machine.command_as(ALICE, machine.program());
    command.arg("reset");
    refused_by(command, "only root can ");
    done(&machine, "reset --user alice");
    assert_eq!(log_in(&machine, ""), "passed");
    // Removed by the command, root's or her own.
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    assert!(done(&machine, "remove --user alice").starts_with("alice: removed."));
    assert!(!machine.path(&ALICE.secret_file()).exists());
    assert_eq!(log_in(&machine, "000000"), "record-gone");
}

#[test]
fn a_file_at_one_service_says_nothing_about_another() {
    let machine = host_of_homes();
    machine.service("test", NULLOK);
    machine.service("second", "auth required pam_totp.so secret=~/.other\n");
    machine.write_as("/home/alice/.other", format!("{SECRET}\n\" TOTP_AUTH\n"), ALICE.uid, 0o600);
    assert_eq!(ending(&machine.login("second", "alice").answer(code_now(SECRET)).run()), "in totp");
    assert_eq!(log_in(&machine, ""), "passed", "she never had a file there");
    fs::remove_file(machine.path("/home/alice/.other")).unwrap();
    machine.service("second", "auth required pam_totp.so nullok secret=~/.other\nauth required pam_permit.so\n");
    assert_eq!(ending(&machine.login("second", "alice").answer("000000").run()), "record-gone");
}

#[test]
fn who_has_a_file_at_home_is_not_let_pass_where_records_are_roots() {
    let machine = host();
    machine.service("test", NULLOK);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    assert_eq!(log_in(&machine, &code_now(SECRET)), "not-enrolled", "what is in it does not count");
    assert_eq!(ending(&machine.login("test", "bob").answer("").run()), "passed");
    // Whether there is one cannot be told: that is why they are asked, and what the log says.
    fs::set_permissions(machine.path("/home/bob"), fs::Permissions::from_mode(0o000)).unwrap();
    let login = machine.login("test", "bob").answer("000000").run();
    assert!(ending(&login) == "file-error" && login.log[1].contains(" path=/home/bob/"), "{login:#?}");
    done(&machine, "import --to system --user alice --delete");
    assert_eq!(log_in_after(&machine, 120, SECRET), "in totp device=imported");
}

#[test]
fn what_is_printed_in_vain_changes_no_exit_status() {
    let machine = host();
    enrol(&machine, "");
    let to_a_full_disk = |line: &str| {
        let program = machine.program();
        machine.command("sh").args(["-c", &format!("{} {line} >/dev/full", program.display())]).output().unwrap()
    };
    for (line, code) in [
        ("device rename phone tablet --user alice", 0),
        ("device list --user alice", 1),
        ("status --user alice", 1),
        ("recovery new --user alice", 1),
        ("setup store", 0),
        ("remove --user alice", 0),
    ] {
        let output = to_a_full_disk(line);
        assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
        assert!(!text(&output.stderr).contains("panicked"), "{line}: {output:?}");
    }
}

// ---- Import ----

/// Gives alice a file, and no record.
fn at_home(machine: &Machine, lines: &str) {
    machine.enrol(ALICE, lines);
    if machine.path(RECORD).exists() {
        done(machine, "remove --user alice");
    }
}

/// Takes alice's file over, and keeps it.
fn take_over(machine: &Machine, lines: &str) -> String {
    at_home(machine, lines);
    done(machine, "import --to system --user alice --keep")
}

#[test]
fn what_a_home_holds_works_on_in_the_store_and_what_was_used_stays_used() {
    let machine = host();
    let _ = code_now(SECRET);
    let step = now() / 30;
    let printed =
        take_over(&machine, &format!("\" TOTP_AUTH\n\" DISALLOW_REUSE {} {}\n12345678\n23456789\n", step - 1, step));
    assert!(printed.starts_with(&format!("alice: {} is in {RECORD} now.\n", ALICE.secret_file())), "{printed}");
    assert!(printed.contains("is there still") && !printed.contains(SECRET), "{printed}");
    for ahead in [0, 30] {
        assert_eq!(log_in(&machine, &code_at(SECRET, step * 30 + ahead)), "used-code", "{ahead}");
    }
    assert_eq!(log_in_later(&machine, 90, &code_at(SECRET, step * 30 + 90)), "in totp device=imported");
    assert_eq!(log_in(&machine, "12345678"), "in recovery-code left=1");
    assert_eq!(log_in_later(&machine, 120, "12345678"), "wrong-code");
    assert_eq!(log_in(&machine, "23456789"), "in recovery-code left=0");
    assert!(!machine.read(RECORD).contains("23456789"));
    // The file is as it was, and nothing that becomes of it matters.
    assert!(machine.read(&ALICE.secret_file()).contains("12345678"));
    machine.write_as(
        &ALICE.secret_file(),
        "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK\n\" TOTP_AUTH\n99999999\n",
        ALICE.uid,
        0o600,
    );
    assert_eq!(log_in_later(&machine, 120, "99999999"), "wrong-code");
    assert_eq!(log_in_after(&machine, 300, "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK"), "wrong-code");
    fs::remove_file(machine.path(&ALICE.secret_file())).unwrap();
    assert_eq!(log_in_after(&machine, 300, SECRET), "in totp device=imported");

    // A file that remembers nothing.
    let _ = code_now(SECRET);
    take_over(&machine, "\" TOTP_AUTH\n\" WINDOW_SIZE 5\n");
    for ahead in [0, 30, 60] {
        let login = machine.login("test", "alice").answer(code_at(SECRET, now() + ahead)).run();
        assert_eq!(login.reason(), "used-code", "{ahead}");
    }
    // Its window of two steps either way goes along.
    assert_eq!(log_in_later(&machine, 300, &code_at(SECRET, now() + 360)), "in totp device=imported");

    take_over(&machine, "\" HOTP_COUNTER 7\n");
    assert_eq!(log_in(&machine, &hotp(SECRET, 6)), "wrong-code");
    assert_eq!(log_in(&machine, &hotp(SECRET, 7)), "in hotp skipped=0 device=imported");
}

#[test]
fn the_file_is_deleted_where_that_is_asked_for() {
    let machine = host();
    let import = |options: &str| {
        at_home(&machine, "\" TOTP_AUTH\n");
        done(&machine, &format!("import --to system --user alice{options}"));
        machine.path(&ALICE.secret_file()).exists()
    };
    assert!(!import(" --delete"));
    assert!(import(" --keep"));
    assert!(import(""), "nobody is there to be asked");
    at_home(&machine, "\" TOTP_AUTH\n");
    let object = json(&machine, "import --to system --user alice --delete");
    assert_eq!((string(&object["path"]), &object["deleted"]), (RECORD.to_owned(), &Value::Bool(true)));
    assert_eq!(string(&object["from"]), ALICE.secret_file());
    need("script", "bsdutils");
    let program = format!("{} import --to system --user alice", machine.program().display());
    for (answer, is_there) in [("n", true), ("y", false)] {
        at_home(&machine, "\" TOTP_AUTH\n");
        let mut command = machine.command("script");
        command.args(["-qec", &program, "/dev/null"]);
        let output = typed(command, &[answer]);
        assert!(output.status.success(), "{output:?}");
        assert!(text(&output.stdout).contains("Delete /home/alice/.google_authenticator? (y/n)"), "{output:?}");
        assert_eq!(machine.path(&ALICE.secret_file()).exists(), is_there, "{answer}");
    }
}

#[test]
fn nothing_is_taken_over_that_would_be_wrong_there() {
    let machine = host();
    let line = "import --to system --user alice --keep";
    refused(&machine, line, "not-enrolled");
    machine.enrol(ALICE, "");
    refused(&machine, line, "neither a TOTP_AUTH nor a HOTP_COUNTER line");
    machine.write_as(&ALICE.secret_file(), "MFRGGZDFMZTWQ2LK\n\" TOTP_AUTH\n", ALICE.uid, 0o600);
    machine.write(POLICY, format!("{SYSTEM}min_secret_bits = 128\n{UNLIMITED}"));
    refused(&machine, line, "the secret has 80 bits, and min_secret_bits asks for 128");
    assert!(!machine.path(RECORD).exists());
    machine.write(POLICY, format!("{SYSTEM}{UNLIMITED}"));
    done(&machine, line);
    assert_eq!(log_in_after(&machine, 120, "MFRGGZDFMZTWQ2LK"), "in totp device=imported");
    for line in [line, "import --to system --user alice --keep --force"] {
        refused(&machine, line, "holds this secret already");
    }
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    refused(&machine, line, "--force replaces the record");
    let mut command = machine.command_as(ALICE, machine.program());
    command.args(["import", "--to", "system", "--user", "alice"]);
    refused_by(command, "only root can ");
    let from_file = "import /etc/users.oath --to home";
    let way_out = "into store = \"system\" (/etc/security/pam_totp.toml:3): leave --to out, or write store = \"home\"";
    refused(&machine, from_file, way_out);
    refused(&machine, "import --to home --user alice", "into a home secrets come from a FILE");
    refused(&machine, "import --to system", "--user says whose home");
    machine.write(POLICY, HOMES);
    let way_out = "into store = \"home\" (/etc/security/pam_totp.toml:3): write store = \"system\"";
    refused(&machine, line, way_out);
    refused(&machine, "import --to home --user alice", "into a home secrets come from a FILE");
}

#[test]
fn secrets_of_other_programs_become_devices_of_a_record() {
    let machine = host();
    const HEX: &str = "3132333435363738393031323334353637383930";
    machine.write("/etc/users.oath", format!("HOTP/T30 alice - {HEX}\nHOTP bob - {HEX}\n"));
    let (phone, codes) = enrol(&machine, "");
    let printed = done(&machine, "import /etc/users.oath --to system");
    assert!(printed.ends_with("2 taken over, 0 not.\n") && printed.contains(RECORD), "{printed}");
    assert!(!printed.contains(HEX) && !printed.contains(SECRET), "{printed}");
    let login = machine.login("test", "bob").answer(hotp(SECRET, 1)).run();
    assert_eq!(ending(&login), "in hotp skipped=0 device=imported");
    assert_eq!(log_in(&machine, &code_now(SECRET)), "used-code");
    assert_eq!(log_in_after(&machine, 300, SECRET), "in totp device=imported");
    assert_eq!(log_in_after(&machine, 600, &phone), "in totp device=phone");
    assert_eq!(log_in(&machine, &codes[0]), "in recovery-code left=4");
    let output = pam_totp(&machine, &["import", "/etc/users.oath", "--user", "alice"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("holds this secret already"), "{output:?}");
    let uri = "otpauth://totp/x:someone?secret=MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK&digits=8\n";
    let import = pam_totp(&machine, &["import", "-", "--user", "alice", "--json"]);
    let output = typed(import, &[uri]);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&object["taken"][0]["user"], &object["failed"]),
        (&Value::from("alice"), &Value::from(0)),
        "{output:?}"
    );
    let code = code_by(&["--totp", "--digits=8"], "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK", now() + 300);
    let login = machine.login_at("+300s", "test", "alice").answer(code).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    let list = done(&machine, "device list --user alice");
    assert!(list.contains("\nimported 2: 8 digits every 30 seconds (SHA1), added "), "{list}");
    // Two lines of one person are two devices, also where they replace a record.
    machine.write("/etc/users.oath", format!("HOTP alice - 00{HEX}\nHOTP alice - 01{HEX}\n"));
    done(&machine, "import /etc/users.oath --force");
    let list = done(&machine, "device list --user alice");
    let names: Vec<_> = list.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert_eq!(names, ["imported", "imported 2"]);
    let mut command = machine.command_as(ALICE, machine.program());
    command.args(["import", "/etc/users.oath"]);
    refused_by(command, "only root can ");
}

// ---- Usage ----

#[test]
fn a_wrong_command_line_ends_with_two_and_changes_nothing() {
    let machine = host();
    for line in [
        "device",
        "device add",
        "device add x y",
        "device rename x",
        "device remove",
        "recovery",
        "recovery new --count 0",
        "recovery new --count 11",
        "setup",
        "setup stores",
        "resync --user",
        "reset alice",
        "remove alice",
        "status alice",
        "enrol --digits 9",
        "enrol --algorithm MD5",
        "enrol --step-size 0",
        "enrol --time-based --counter-based",
        "import",
        "import --to cloud",
        "import --to system --user alice --keep --delete",
        "import /etc/x --delete",
    ] {
        let output = pam_totp(&machine, &line.split(' ').collect::<Vec<_>>()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{line}: {output:?}");
    }
    for line in
        ["--help", "device --help", "device add --help", "recovery new --help", "setup store --help", "--version"]
    {
        assert!(!done(&machine, line).is_empty(), "{line}");
    }
    refused(&machine, "status --user alice --conf /nowhere.toml", "no-policy");
    assert_eq!(fs::read_dir(machine.path("/var/lib/pam_totp/records")).unwrap().count(), 0);
}
