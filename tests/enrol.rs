//! `pam-totp enrol`, and what a scanner makes of what it prints.

use crate::support::machine::{ALICE, AUTH_ERR, Machine, SUCCESS, User};
use crate::support::screen;
use crate::support::totp::{code_at, code_now, hotp, now};
use crate::support::{dist, need, output_of};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};
use std::{fs, thread, time::Duration};

fn machine() -> Machine {
    let machine = Machine::new();
    machine.service("test", "auth required pam_totp.so\n");
    machine
}

fn enrol(machine: &Machine, who: User, arguments: &[&str]) -> Command {
    let mut command = machine.command_as(who, machine.program());
    command.arg("enrol").args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Starts an enrolment, waits until it asks, and types what `answer` makes of the secret that it showed.
pub(crate) fn converse(mut command: Command, answers: impl FnOnce(&str) -> Vec<String>) -> Output {
    let screen = tempfile::NamedTempFile::new().unwrap();
    command.stdin(Stdio::piped()).stdout(screen.reopen().unwrap()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let secret = (0..200).find_map(|_| {
        thread::sleep(Duration::from_millis(25));
        let shown = fs::read_to_string(screen.path()).unwrap();
        Some(shown.split_once("Secret, to type instead: ")?.1.split_once('\n')?.0.to_owned())
    });
    let answers = answers(&secret.expect("no secret was shown"));
    child.stdin.take().unwrap().write_all((answers.join("\n") + "\n").as_bytes()).unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stdout = fs::read(screen.path()).unwrap();
    output
}

#[test]
fn enrol_confirm_log_in() {
    let machine = machine();
    let mut typed = String::new();
    let output = converse(enrol(&machine, ALICE, &[]), |secret| {
        typed = code_now(secret);
        vec!["000".to_owned(), typed.clone()]
    });
    assert!(output.status.success(), "{output:?}");
    let file = machine.read(&ALICE.secret_file());
    let secret = file.lines().next().unwrap().to_owned();
    assert_eq!(secret.len(), 32);
    assert!(file.contains("\n\" TOTP_AUTH\n") && file.contains("\n\" RATE_LIMIT 3 30\n"), "{file}");
    assert_eq!(file.lines().filter(|line| line.len() == 8 && line.bytes().all(|b| b.is_ascii_digit())).count(), 5);
    let stat = machine.path(&ALICE.secret_file()).metadata().unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (ALICE.uid, 0o400));
    // The code that confirmed is used; the next one is not.
    let login = machine.login("test", "alice").answer(&typed).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "used-code"));
    assert_eq!(machine.login("test", "alice").answer(code_at(&secret, now() + 30)).run().result(), SUCCESS);
}

#[test]
fn without_a_right_code_nothing_is_stored() {
    let machine = machine();
    let output = converse(enrol(&machine, ALICE, &[]), |_| vec!["000000".to_owned(); 5]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nothing was stored"), "{output:?}");
    let output = enrol(&machine, ALICE, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!machine.path(&ALICE.secret_file()).exists());
    assert_eq!(fs::read_dir(machine.path(&ALICE.home())).unwrap().count(), 0);
}

#[test]
fn a_scratch_code_does_not_confirm_that_the_app_works() {
    let machine = machine();
    let screen = machine.shared().join("screen");
    let mut command = enrol(&machine, ALICE, &[]);
    command.stdin(Stdio::piped()).stdout(fs::File::create(&screen).unwrap()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let scratch = (0..200).find_map(|_| {
        thread::sleep(Duration::from_millis(25));
        let shown = fs::read_to_string(&screen).unwrap();
        shown.lines().find_map(|line| line.strip_prefix("  ").filter(|code| code.len() == 8).map(str::to_owned))
    });
    let typed = format!("{}\n", scratch.expect("no scratch codes were shown"));
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    assert!(!machine.path(&ALICE.secret_file()).exists());
}

#[test]
fn a_secret_that_cannot_be_shown_does_not_replace_one_that_works() {
    let machine = machine();
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let before = machine.read(&ALICE.secret_file());
    for arguments in [&["--json", "--no-confirm", "--force"][..], &["--no-confirm", "--force"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = enrol(&machine, ALICE, arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(machine.read(&ALICE.secret_file()), before);
    }
}

#[test]
fn json_has_everything_and_nothing_else_is_on_standard_output() {
    let machine = machine();
    let output = enrol(&machine, ALICE, &["--json", "--no-confirm"]).output().unwrap();
    let object = json(&output);
    assert!(output.stderr.is_empty());
    let secret = object["secret"].as_str().unwrap();
    assert_eq!(object["user"], "alice");
    assert_eq!(object["path"], "/home/alice/.google_authenticator");
    assert_eq!(object["scratch_codes"].as_array().unwrap().len(), 5);
    assert!(object["uri"].as_str().unwrap().starts_with("otpauth://totp/"));
    assert!(object["uri"].as_str().unwrap().contains(&format!("secret={secret}&issuer=")));
    let scratch = object["scratch_codes"][4].as_str().unwrap();
    assert_eq!(machine.login("test", "alice").answer(scratch).run().result(), SUCCESS);
    assert_eq!(machine.login("test", "alice").answer(scratch).run().result(), AUTH_ERR);
    assert_eq!(machine.login("test", "alice").answer(code_now(secret)).run().result(), SUCCESS);
}

#[test]
fn counter_based_codes() {
    let machine = machine();
    let mut used = String::new();
    let output = converse(enrol(&machine, ALICE, &["--counter-based"]), |secret| {
        used = hotp(secret, 1);
        vec![used.clone()]
    });
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("otpauth://hotp/") && text(&output.stdout).contains("&counter=1"));
    let file = machine.read(&ALICE.secret_file());
    assert!(file.contains("\n\" HOTP_COUNTER 2\n"), "{file}");
    let secret = file.lines().next().unwrap().to_owned();
    assert_eq!(machine.login("test", "alice").answer(&used).run().result(), AUTH_ERR);
    assert_eq!(machine.login("test", "alice").answer(hotp(&secret, 3)).run().result(), SUCCESS);
}

#[test]
fn an_existing_secret_is_replaced_only_by_force() {
    let machine = machine();
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let before = machine.read(&ALICE.secret_file());
    let output = enrol(&machine, ALICE, &["--no-confirm"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--force"), "{output:?}");
    assert_eq!(machine.read(&ALICE.secret_file()), before);
    let object = json(&enrol(&machine, ALICE, &["--no-confirm", "--force", "--json"]).output().unwrap());
    assert!(machine.read(&ALICE.secret_file()).starts_with(object["secret"].as_str().unwrap()));
}

#[test]
fn root_enrols_others_and_others_do_not() {
    let machine = machine();
    let program = machine.program();
    let output = machine.command(&program).args(["enrol", "--user", "alice", "--no-confirm"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(machine.path(&ALICE.secret_file()).metadata().unwrap().uid(), ALICE.uid, "the file is alice's");
    let output = enrol(&machine, ALICE, &["--user", "bob", "--no-confirm"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).contains("only root")), (Some(1), true));
    let output = machine.command(&program).args(["enrol", "--user", "mallory", "--no-confirm"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).contains("no user `mallory`")), (Some(1), true));
    for usage in [&["enrol", "--nonsense"][..], &["nonsense"], &[], &["enrol", "--user"]] {
        assert_eq!(machine.command(&program).args(usage).output().unwrap().status.code(), Some(2), "{usage:?}");
    }
}

#[test]
fn a_full_disk_leaves_the_old_secret_as_it_was() {
    let machine = machine();
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let before = machine.read(&ALICE.secret_file());
    // A file system with room for nothing more, in the place of alice's home.
    let script = "mount -t tmpfs -o size=64k,mode=0777 tmpfs /mnt && cp -a /home/alice/. /mnt/ && chown 20001 /mnt \
                  && dd if=/dev/zero of=/mnt/filler bs=4k 2>/dev/null; mount --move /mnt /home/alice";
    output_of(machine.command("sh").args(["-c", script]));
    let output = enrol(&machine, ALICE, &["--no-confirm", "--force"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("No-space-left"), "{output:?}");
    assert!(text(&output.stderr).contains("was not replaced"), "{output:?}");
    assert_eq!(machine.read(&ALICE.secret_file()), before);
    let names: Vec<_> =
        fs::read_dir(machine.path(&ALICE.home())).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn nobody_is_enrolled_while_the_policy_file_denies_everybody() {
    let machine = machine();
    machine.write("/etc/security/pam_totp.toml", "version = 1\n[compta]\n");
    let output = enrol(&machine, ALICE, &["--no-confirm"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("pam_totp.toml:2:2 unknown-key=compta did-you-mean=compat"), "{output:?}");
    assert!(!machine.path(&ALICE.secret_file()).exists());
    machine.write("/etc/security/other.toml", "version = 1\n");
    let arguments = ["--no-confirm", "--conf", "/etc/security/other.toml"];
    assert!(enrol(&machine, ALICE, &arguments).output().unwrap().status.success());
}

// ---- As google-authenticator ----

/// The program by its other name, and what a person types at its questions.
fn google(machine: &Machine, arguments: &[&str], answers: &str) -> Output {
    let mut command = machine.command_as(ALICE, machine.google_authenticator());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn options(machine: &Machine) -> Vec<String> {
    let file = machine.read(&ALICE.secret_file());
    file.lines().filter_map(|line| line.strip_prefix("\" ").map(|line| line.trim_end().to_owned())).collect()
}

#[test]
fn the_script_of_the_tutorials_enrols_at_the_first_login() {
    let machine = machine();
    output_of(machine.command("mount").args(["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/usr/local/bin"]));
    fs::copy(dist("pam-totp"), machine.path("/usr/local/bin/pam-totp")).unwrap();
    output_of(machine.command("ln").args(["-s", "pam-totp", "/usr/local/bin/google-authenticator"]));
    let script = "if [ ! -f ~/.google_authenticator ]; then\n  google-authenticator --time-based --disallow-reuse --force \
                  --rate-limit=3 --rate-time=30 --window-size=3\nfi\n";
    machine.write("/etc/profile.d/mfa.sh", script);
    let mut command = machine.command("su");
    command.args(["-", "alice"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"-1\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text(&output.stdout).contains("Stored in /home/alice/.google_authenticator."), "{output:?}");
    assert_eq!(options(&machine), ["RATE_LIMIT 3 30", "DISALLOW_REUSE", "TOTP_AUTH"]);
    let file = machine.read(&ALICE.secret_file());
    let again = machine.command("su").args(["-", "alice", "-c", "id -un"]).output().unwrap();
    assert_eq!((text(&again.stdout).as_str(), machine.read(&ALICE.secret_file())), ("alice\n", file.clone()), "once");
    let login = machine.login("test", "alice").answer(code_now(file.lines().next().unwrap())).run();
    assert_eq!((login.result(), login.prompts.len()), (SUCCESS, 1), "the next login asks for a code");
}

#[test]
fn called_google_authenticator_it_asks_what_was_not_said() {
    let machine = machine();
    // Time-based; no code; update; one-time; no wide window; rate limit.
    let output = google(&machine, &[], "y\n-1\ny\nmaybe\ny\nn\nY\n");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(options(&machine), ["RATE_LIMIT 3 30", "DISALLOW_REUSE", "TOTP_AUTH"]);
    // Counter; no code; update; wide window; no limit.
    let output = google(&machine, &[], "n\n-1\ny\ny\nn\n");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(options(&machine), ["WINDOW_SIZE 17", "HOTP_COUNTER 1"]);
    let before = machine.read(&ALICE.secret_file());
    // The file shall stay: nothing is stored, which is no error. An end of file is one.
    assert_eq!(google(&machine, &["-t", "-C"], "n\n").status.code(), Some(0));
    assert_eq!(google(&machine, &["-t", "-C"], "y\n").status.code(), Some(1));
    assert_eq!(machine.read(&ALICE.secret_file()), before);
}

#[test]
fn every_flag_of_google_authenticator_is_understood() {
    let machine = machine();
    let all = [
        "-t",
        "-D",
        "-f",
        "-C",
        "-l",
        "me",
        "-i",
        "us",
        "-Q",
        "utf8-grey",
        "-r",
        "10",
        "-R",
        "600",
        "-S",
        "60",
        "-w",
        "21",
        "-e",
        "10",
    ];
    let output = google(&machine, &all, "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(options(&machine), ["RATE_LIMIT 10 600", "WINDOW_SIZE 21", "STEP_SIZE 60", "TOTP_AUTH"]);
    assert!(screen::uri(&text(&output.stdout)).ends_with("&issuer=us&period=60"), "{output:?}");
    assert!(screen::uri(&text(&output.stdout)).starts_with("otpauth://totp/us:me?"));
    let output = google(&machine, &["-c", "-f", "-q", "-u", "-W", "-e", "0", "-s", "/home/alice/other"], "");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0), "{output:?}");
    let other = machine.read("/home/alice/other");
    assert_eq!(other.lines().skip(1).collect::<Vec<_>>(), ["\" WINDOW_SIZE 1", "\" HOTP_COUNTER 1"]);
    for bad in [
        &["-r", "3"][..],
        &["-R", "30"],
        &["-r", "0", "-R", "30"],
        &["-r", "11", "-R", "30"],
        &["-r", "3", "-R", "14"],
        &["-r", "3", "-R", "601"],
        &["-u", "-r", "3", "-R", "30"],
        &["-S", "0"],
        &["-S", "61"],
        &["-w", "0"],
        &["-w", "22"],
        &["-w", "3", "-W"],
        &["-e", "11"],
        &["-t", "-c"],
        &["-d", "-D"],
        &["-c", "-d"],
        &["-Q", "SIXEL"],
        &["-t", "-t"],
        &["-x"],
    ] {
        assert_eq!(google(&machine, bad, "").status.code(), Some(1), "{bad:?}");
    }
    for (fine, what) in
        [(&["--help"][..], "Usage"), (&["--version"], "google-authenticator"), (&["something"], "Usage")]
    {
        let output = google(&machine, fine, "");
        assert_eq!((output.status.code(), text(&output.stdout).contains(what)), (Some(0), true), "{fine:?} {output:?}");
    }
    // The same flags on pam-totp enrol, without questions.
    let output = enrol(&machine, ALICE, &["-f", "-C", "-Q", "none", "-w", "5"]).output().unwrap();
    assert!(output.status.success() && screen::code(&text(&output.stdout)).is_empty());
    assert_eq!(options(&machine), ["RATE_LIMIT 3 30", "WINDOW_SIZE 5", "DISALLOW_REUSE", "TOTP_AUTH"]);
}

// ---- The QR code ----

#[test]
fn a_scanner_reads_the_half_blocks() {
    let machine = machine();
    let output = enrol(&machine, ALICE, &["--no-confirm"]).output().unwrap();
    let screen = text(&output.stdout);
    let lines = screen::code(&screen);
    assert!(lines[0].chars().count() <= 80 && lines.len() <= 24, "fits a terminal");
    assert_eq!(screen::scan(&screen), screen::uri(&screen));
}

#[test]
fn a_scanner_reads_the_ascii_code() {
    let machine = machine();
    let output = enrol(&machine, ALICE, &["--no-confirm"]).env("LC_ALL", "C").output().unwrap();
    let screen = text(&output.stdout);
    assert!(screen.is_ascii());
    let lines = screen::code(&screen);
    assert!(lines[0].len() <= 80, "{} columns", lines[0].len());
    assert_eq!(screen::scan(&screen), screen::uri(&screen));
}

#[test]
fn on_a_terminal_the_code_is_white_on_black_whatever_the_colours() {
    need("script", "bsdutils");
    let machine = machine();
    let program = format!("{} enrol --no-confirm", machine.program().display());
    let output = output_of(machine.command_as(ALICE, "script").args(["-qec", &program, "/dev/null"]));
    let (on, off) = ("\x1b[40;97m", "\x1b[0m");
    let plain: String = output
        .replace('\r', "")
        .lines()
        .map(|line| match line.strip_prefix(on) {
            Some(rest) => rest.strip_suffix(off).expect("colours are reset at each end of line").to_owned() + "\n",
            None => line.to_owned() + "\n",
        })
        .collect();
    assert!(output.contains(on) && screen::code(&plain).len() > 15);
    assert_eq!(screen::scan(&plain), screen::uri(&plain));
}
