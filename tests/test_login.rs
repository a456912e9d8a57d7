//! `pam-totp test-login`: the real stack through the real libpam, and who answered what.

use crate::support::machine::{ALICE, BOB, Machine};
use crate::support::root_only::{self, PROMPT, json, next_code};
use crate::support::ssh::{Sshd, fingerprint};
use crate::support::terminal::Terminal;
use crate::support::totp::{code_now, wrong_code};
use crate::support::{output_of, reasons};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// What the test types, a line a prompt.
fn test_login(machine: &Machine, arguments: &[&str], lines: &[&str]) -> Output {
    let mut command = machine.command(machine.program());
    typed(command.arg("test-login").args(arguments), lines)
}

/// Runs a command that reads these lines.
pub fn typed(command: &mut Command, lines: &[&str]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Whoever does not ask does not read.
    let _ = child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes());
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(output: &Output) -> Vec<String> {
    text(&output.stdout).lines().map(str::to_owned).collect()
}

/// The secret of alice's new device.
fn enrol(machine: &Machine) -> String {
    json(machine, &["enrol", "--user", "alice", "--no-confirm"])["secret"].as_str().unwrap().to_owned()
}

fn machine() -> Machine {
    root_only::machine("fail_delay = \"0s\"\n")
}

const SSHD: [&str; 4] = ["--service", "sshd", "--user", "alice"];

#[test]
fn a_login_shows_every_module_that_is_called_and_what_it_answers() {
    let machine = machine();
    let secret = enrol(&machine);
    machine.service(
        "made-auth",
        "# a comment\nauth [success=1 default=ignore] pam_unix.so nodelay\nauth requisite pam_deny.so\n",
    );
    machine.service(
        "sshd",
        "@include made-auth\nauth required pam_totp.so\nauth optional pam_deny.so\naccount required pam_permit.so\n",
    );
    let code = code_now(&secret);
    let _ = machine.log();
    let output = test_login(&machine, &[&SSHD[..], &["--rhost", "192.0.2.7"]].concat(), &["password", &code]);
    assert_eq!(
        lines(&output),
        [
            "/etc/pam.d/made-auth:2  pam_unix.so  success  (control [success=1 default=ignore]: jumps over 1)",
            "/etc/pam.d/sshd:2  pam_totp.so  success  (control required: counts)",
            "/etc/pam.d/sshd:3  pam_deny.so  auth_err  (control optional: does not count)",
            "pam_authenticate: success",
            "/etc/pam.d/sshd:4  pam_permit.so  success  (control required: counts)",
            "pam_acct_mgmt: success",
            "A code was asked for and found right, and is used up.",
        ],
        "{output:?}"
    );
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), format!("Password: {PROMPT}"));
    let log = machine.log();
    assert!(
        log.iter().any(|line| line.contains("pam_totp(sshd:auth): accepted user=alice rhost=192.0.2.7 ")),
        "{log:#?}"
    );

    // It was a real login: the code is spent.
    let again = test_login(&machine, &SSHD, &["password", &code]);
    assert_eq!(again.status.code(), Some(1));
    let last = [
        "pam_authenticate: authentication failure",
        "No code was found right; the log says why, and so does pam-totp verify --explain.",
    ];
    let shown = lines(&again);
    assert_eq!(shown[shown.len() - 2..], last, "{again:?}");
    assert!(
        shown
            .iter()
            .any(|line| line.starts_with("/etc/pam.d/sshd:2  pam_totp.so  auth_err  (control required: has failed)"))
    );
    assert_eq!(reasons(&machine.log()), ["used-code"]);
    assert!(
        !text(&output_of(machine.command("ls").arg("/run")).into_bytes()).contains("pam-totp."),
        "the copy is gone"
    );
}

#[test]
fn whoever_is_not_asked_for_a_code_is_told_so() {
    let machine = machine();
    for (stack, sentence) in [
        ("auth required pam_totp.so nullok\nauth required pam_permit.so\n", "pam_totp.so said ignore"),
        ("auth sufficient pam_permit.so\nauth required pam_totp.so\n", "pam_totp.so was not called"),
        ("auth optional pam_totp.so no_such_argument\nauth required pam_permit.so\n", "No code was found right"),
    ] {
        machine.service("test", &format!("{stack}account required pam_permit.so\n"));
        let output = test_login(&machine, &["--service", "TEST", "--user", "bob"], &[]);
        assert!(text(&output.stdout).contains(sentence), "{output:?}");
        assert!(output.status.success());
    }
}

#[test]
fn an_account_that_is_closed_is_no_login() {
    let machine = machine();
    machine.service("test", "auth required pam_permit.so\naccount substack closed\naccount required pam_permit.so\n");
    machine.service("closed", "account [default=die] pam_deny.so\naccount required pam_permit.so\n");
    let output = test_login(&machine, &["--service", "test", "--user", "bob", "--json"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let called: Vec<_> =
        told["called"].as_array().unwrap().iter().map(|rule| (&rule["file"], &rule["line"], &rule["type"])).collect();
    let rule = |file: &str, line: u32, kind: &str| (format!("/etc/pam.d/{file}"), line, kind.to_owned());
    let expected = [rule("test", 1, "auth"), rule("closed", 1, "account"), rule("test", 3, "account")];
    assert_eq!(
        format!("{called:?}"),
        format!(
            "{:?}",
            expected
                .iter()
                .map(|(file, line, kind)| (serde_json::json!(file), serde_json::json!(line), serde_json::json!(kind)))
                .collect::<Vec<_>>()
        )
    );
    assert_eq!((told["authenticate"]["code"].as_i64(), told["succeeds"].as_bool()), (Some(0), Some(false)), "{told}");
    assert_eq!((told["account"]["code"] == 0, told["code"].as_str()), (false, Some("not-called")));
}

#[test]
fn what_a_module_shows_is_shown_and_not_taken_for_a_report() {
    let machine = machine();
    machine.write("/etc/motto", "auth=success");
    machine.write("/etc/report", "@00000000000000000000000000000000:answer:0");
    machine.service(
        "test",
        "auth optional pam_echo.so file=/etc/report\nauth optional pam_echo.so file=/etc/motto\nauth required pam_deny.so\n",
    );
    let output = test_login(&machine, &["--service", "test", "--user", "bob"], &[]);
    assert_eq!(text(&output.stderr), "@00000000000000000000000000000000:answer:0\nauth=success\n");
    assert_eq!(
        lines(&output)[2],
        "/etc/pam.d/test:3  pam_deny.so  auth_err  (control required: has failed)",
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_key_that_sshd_has_accepted_says_whose_code_it_is() {
    let machine = root_only::machine("fail_delay = \"0s\"\n[service.sshd]\nidentity = \"login-key\"\n");
    let key = machine.shared().join("key");
    output_of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    let public = key.with_extension("pub");
    let made = json(&machine, &["enrol", "--user", "alice", "--key", &fingerprint(&key), "--no-confirm"]);
    let secret = made["secret"].as_str().unwrap();
    let with_key = [&SSHD[..], &["--key", public.to_str().unwrap()]].concat();
    let output = test_login(&machine, &with_key, &[&code_now(secret)]);
    assert!(output.status.success(), "{output:?}");
    let without = test_login(&machine, &SSHD, &[&next_code(secret)]);
    assert_eq!(without.status.code(), Some(1), "{without:?}");
    let elsewhere =
        test_login(&machine, &["--service", "test", "--user", "alice", "--key", public.to_str().unwrap()], &[]);
    assert!(text(&elsewhere.stderr).contains("--key is for the service sshd"), "{elsewhere:?}");
}

#[test]
fn at_a_terminal_what_is_typed_is_not_shown() {
    let machine = machine();
    let code = code_now(&enrol(&machine));
    let mut command = machine.command(machine.program());
    let mut terminal = Terminal::run(command.arg("test-login").args(SSHD), "C.UTF-8");
    let before = terminal.until(PROMPT);
    // A key too many, and taken back.
    terminal.enter(&format!("{code}x\x7f"));
    let (shown, succeeded) = terminal.finish();
    assert!(succeeded && shown.contains("found right"), "{before}{shown}");
    assert!(!shown.contains(&code) && !shown.contains(&code[..3]), "{shown}");
}

#[test]
fn what_is_not_there_is_said() {
    let machine = machine();
    let wrong = wrong_code(crate::support::totp::SECRET);
    let by_alice = machine.command_as(ALICE, machine.program()).arg("test-login").args(SSHD).output().unwrap();
    assert!(text(&by_alice.stderr).contains("only root"), "{by_alice:?}");
    let no_name = test_login(&machine, &["--service", "../sshd", "--user", "alice"], &[&wrong]);
    assert!(text(&no_name.stderr).contains("is no service"), "{no_name:?}");
    machine.service("made-broken", "@include made-none\n");
    let broken = test_login(&machine, &["--service", "made-broken", "--user", "alice"], &[&wrong]);
    assert!(text(&broken.stderr).contains("libpam starts no login"), "{broken:?}");
    // Of the machine's own copy, which is where ours is.
    let remove = "for d in /usr/lib/*/security /lib/*/security /usr/lib64/security; do [ -e $d/pam_totp.so ] && rm -f $d/pam_debug.so; done; :";
    output_of(machine.command("sh").args(["-c", remove]));
    let no_reporter = test_login(&machine, &SSHD, &[&wrong]);
    assert!(text(&no_reporter.stderr).contains("libpam-modules"), "{no_reporter:?}");
    for output in [by_alice, no_name, broken, no_reporter] {
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    }
    assert_eq!(reasons(&machine.log()), [""; 0], "nobody has logged in");
}

/// The copies that are there.
fn copies(machine: &Machine) -> Vec<String> {
    let names = output_of(machine.command("ls").arg("/run"));
    names.lines().filter(|name| name.starts_with("pam-totp.")).map(str::to_owned).collect()
}

/// Who has started the program of a module, if that is there: not who waits for the end of it all.
fn waits_for_sleep(machine: &Machine) -> Option<String> {
    let parents = machine.command("ps").args(["-o", "ppid=", "-C", "sleep"]).output().unwrap();
    // An orphan is what an earlier one has left.
    text(&parents.stdout).split_whitespace().find(|parent| *parent != "1").map(str::to_owned)
}

#[test]
fn the_copy_is_gone_however_it_ends() {
    let machine = machine();
    machine.service("test", "auth required pam_exec.so /bin/sleep 30\naccount required pam_permit.so\n");
    for signal in ["INT", "TERM", "KILL"] {
        // Whoever runs the tests in the background of a shell has INT ignored, and hands that down.
        let mut command = machine.command("env");
        command.arg("--default-signal=INT").arg(machine.program());
        let command = command.args(["test-login", "--service", "test", "--user", "bob"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let is_so = |wanted: &dyn Fn() -> bool| {
            (0..200).any(|_| {
                thread::sleep(Duration::from_millis(25));
                wanted()
            })
        };
        assert!(is_so(&|| waits_for_sleep(&machine).is_some()));
        assert_eq!(copies(&machine).len(), 1);
        let program = waits_for_sleep(&machine).unwrap();
        output_of(machine.command("kill").args(["-s", signal, &program]));
        assert!(!child.wait().unwrap().success(), "{signal}");
        assert!(is_so(&|| copies(&machine).is_empty()), "{signal}: {:?}", copies(&machine));
    }
}

#[test]
fn an_empty_password_opens_no_more_than_sshd_lets_it() {
    let machine = machine();
    let shadow = machine.read("/etc/shadow");
    let emptied =
        |line: &str| if line.starts_with("bob:") { "bob::20000::::::\n".to_owned() } else { format!("{line}\n") };
    machine.write("/etc/shadow", shadow.lines().map(emptied).collect::<String>());
    for service in ["sshd", "test"] {
        machine.service(
            service,
            "auth required pam_unix.so nullok nodelay\naccount required pam_permit.so\nsession required pam_permit.so\n",
        );
    }
    let with_password =
        "UsePAM yes\nPubkeyAuthentication no\nPasswordAuthentication yes\nKbdInteractiveAuthentication no\n";
    for (settings, expected) in
        [("", false), ("PermitEmptyPasswords yes\n", true), ("Match User alice\nPermitEmptyPasswords yes\n", false)]
    {
        let sshd = Sshd::start(&machine, &format!("{with_password}{settings}"));
        let session = sshd.login(BOB, &[""]);
        assert_eq!(session.succeeded, expected, "{settings}: {session:?}");
        let output = test_login(&machine, &["--service", "sshd", "--user", "bob"], &[""]);
        assert_eq!(output.status.success(), expected, "{settings}: {output:?}");
    }
    assert!(
        test_login(&machine, &["--service", "test", "--user", "bob"], &[""]).status.success(),
        "others ask for nothing"
    );
}

#[test]
fn for_sudo_it_is_as_if_the_user_had_called() {
    let machine = root_only::machine("fail_delay = \"0s\"\n[service.sudo]\nidentity = \"caller\"\n");
    let code = code_now(&enrol(&machine));
    machine.service("sudo", root_only::STACK);
    let sudo = ["--service", "sudo", "--user", "alice"];
    let output = test_login(&machine, &sudo, &[&code]);
    assert!(output.status.success() && text(&output.stdout).contains("found right"), "{output:?}");
    // Who is not root is not let in for being root.
    machine
        .service("sudo", "auth sufficient pam_rootok.so\nauth required pam_deny.so\naccount required pam_permit.so\n");
    assert_eq!(test_login(&machine, &sudo, &[]).status.code(), Some(1));
    assert!(test_login(&machine, &["--service", "sudo", "--user", "root"], &[]).status.success());
    let nobody = test_login(&machine, &["--service", "sudo", "--user", "nobody-at-all"], &[]);
    assert!(text(&nobody.stderr).contains("there is no user"), "{nobody:?}");
}
