//! What the README shows of a terminal is what one sees there, but for what is another each time.

use crate::setup;
use crate::support::machine::{ALICE, BOB, User};
use crate::support::root_only::{PROMPT, machine, secret, totp};
use crate::support::ssh::{KEY_AND_CODE, Sshd};
use crate::support::terminal::Terminal;
use crate::support::totp::code_now;
use crate::support::{need, output_of, project, screen};
use std::fs;

const SHARED: User = User { name: "ec2-user", uid: 20004 };
/// Somebody else's key, which comes first in every list.
const OTHER_KEY: &str = "SHA256:++jZ1v0dYkq7xVbT2mW5cHs9uRfLgNaEoPiKtXyBwQA";

/// Takes the secret from what is shown up to the next prompt, types the code, and says what was shown.
fn enrol(terminal: &mut Terminal) -> String {
    let shown = screen::plain(&terminal.until(PROMPT));
    terminal.enter(&code_now(&secret(&screen::uri(&shown))));
    shown
}

/// All that is in the README below a first line, as far as it is indented.
fn shown_below(first: &str) -> String {
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let (_, rest) =
        readme.split_once(&format!("\n    {first}\n")).unwrap_or_else(|| panic!("no `{first}` in README.md"));
    let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let text: Vec<_> = lines.map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    text.join("\n").trim_end().to_owned()
}

/// Without what is another each time: the QR code, secrets and words, times, fingerprints, and the names of the machine.
fn lasting(text: &str) -> String {
    let host = output_of(std::process::Command::new("uname").arg("-n"));
    let host = host.trim().split('.').next().unwrap();
    let text = text.replace("127.0.0.1", "bastion").replace(host, "bastion");
    let code = screen::code(&text).join("\n");
    let text = if code.is_empty() { text } else { text.replace(&code, "(QR)") };
    let is_long = |word: &str| word.len() > 25 && !word.contains("://");
    let word = |word: &str| match word {
        word if word.starts_with("otpauth://") => word.split_once("secret=").unwrap().0.to_owned(),
        word if is_long(word) => "(random)".to_owned(),
        word if word.ends_with("UTC") || word.chars().filter(char::is_ascii_digit).count() >= 4 => "(time)".to_owned(),
        word => word.to_owned(),
    };
    let line = |line: &str| line.trim_end().split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

fn assert_shown(first: &str, seen: &str) {
    let shown = shown_below(first);
    assert_eq!(lasting(&shown), lasting(seen), "README.md shows (left) what is not seen (right):\n{seen}");
}

#[test]
fn the_first_login_is_as_it_is_shown() {
    let machine = machine("[service.sshd]\nenrolment = \"inline\"\n");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut terminal = sshd.on_a_terminal(ALICE, "C.UTF-8", &["-T"]);
    let shown = enrol(&mut terminal);
    let (after, succeeded) = terminal.finish();
    assert!(succeeded);
    assert_shown("$ ssh alice@bastion", &(shown + &screen::plain(&after)));
    // The picture, too, is one.
    let shown = shown_below("$ ssh alice@bastion");
    assert_eq!(screen::scan(&shown), screen::uri(&shown));
}

#[test]
fn a_shared_account_is_as_it_is_shown() {
    let machine = machine("qr = \"off\"\n[service.sshd]\nidentity = \"login-key\"\nenrolment = \"inline\"\n");
    machine.add(SHARED);
    totp(&machine, &["enrol", "--user", "ec2-user", "--key", OTHER_KEY, "--device", "Bob's phone", "--no-confirm"]);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut seen = totp(&machine, &["invite", "ec2-user", "--device", "Alice's phone"]);
    let ticket = seen.lines().nth(2).unwrap().trim().to_owned();
    seen += "\n$ ssh ec2-user@bastion\n";
    let mut terminal = sshd.on_a_terminal(SHARED, "C.UTF-8", &["-T"]);
    seen += &screen::plain(&terminal.until(PROMPT));
    terminal.enter(&ticket);
    seen += &enrol(&mut terminal);
    let (after, succeeded) = terminal.finish();
    assert!(succeeded, "{seen}{after} {:#?}", machine.log());
    seen += &screen::plain(&after);
    seen += "\n# pam-totp device list ec2-user\n";
    seen += &totp(&machine, &["device", "list", "ec2-user"]);
    assert_shown("# pam-totp invite ec2-user --device \"Alice's phone\"", &seen);
}

#[test]
fn five_minutes_on_a_fresh_debian_are_three_commands_as_written() {
    need("sudo", "sudo");
    let machine = setup::debian();
    let sshd = setup::start(&machine);
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let (_, section) = readme.split_once("## Five minutes to a code at every SSH login\n").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let commands: Vec<_> = section.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let [install, set_up, confirm] = commands.as_slice() else { panic!("{commands:?}") };
    // Nothing of ours is there yet, and what comes is not the host's.
    let directory = output_of(machine.command("sh").args(["-c", "dirname $(find /usr/lib /lib -name pam_totp.so)"]));
    fs::remove_file(machine.path(&format!("{}/pam_totp.so", directory.trim()))).unwrap();
    for directory in ["/usr/local", "/usr/share/pam-configs"] {
        output_of(machine.command("mount").args(["-t", "tmpfs", "tmpfs", directory]));
    }
    let path = std::env::var("PATH").unwrap();
    let home = std::env::var("HOME").unwrap();
    let run = |command: &str| {
        let line = format!("cd '{}' && export PATH='{path}' HOME='{home}' && {command}", project().display());
        output_of(machine.command("sh").args(["-c", &line]))
    };
    run(install);
    let shown = run(set_up);
    assert!(shown.contains("pam-totp setup confirm"), "{shown}");
    let mut terminal = sshd.on_a_terminal(ALICE, "C.UTF-8", &["-T"]);
    enrol(&mut terminal);
    let (after, succeeded) = terminal.finish();
    assert!(succeeded && screen::plain(&after).contains("in as alice"), "{after} {:#?}", machine.log());
    assert!(run(confirm).contains("is confirmed"));
    let without = sshd.login(BOB, &[]);
    assert!(!without.succeeded && !without.questions.is_empty(), "a key alone: {without:?}");
    // The time is over, as far as setup is concerned, and nothing is rolled back.
    assert!(!machine.path("/var/lib/pam_totp/setup.json").exists());

    // What a stack names stays.
    let uninstall = |prefix: &str| {
        let line =
            format!("cd '{}' && export PATH='{path}' HOME='{home}' && {prefix}make -s uninstall", project().display());
        machine.command("sh").args(["-c", &line]).output().unwrap()
    };
    let refused = uninstall("");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("/etc/pam.d/sshd:"), "{words}");
    run("pam-totp setup sshd --remove");
    let unconfirmed = uninstall("");
    let words = String::from_utf8_lossy(&unconfirmed.stderr).into_owned();
    assert!(!unconfirmed.status.success() && words.contains("pam-totp setup confirm"), "{words}");
    let removed = uninstall("pam-totp setup confirm >/dev/null && ");
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
}
