//! The pages of the manual in docs/, followed by somebody who types what they say, in the order in which they say it.
//!
//! In an indented block a line that begins with `# ` is a command of root's, one with `$ ` a person's, and the others are what
//! is shown (a number is any number, `…` is anything). Below a line ``In `FILE`:`` there is what the file is to hold.

use crate::setup;
use crate::shared_accounts::says;
use crate::support::agent::Agent;
use crate::support::fleet::share_keys;
use crate::support::machine::{ALICE, AUTH_ERR, AUTHINFO_UNAVAIL, BOB, CAROL, Machine, SUCCESS, User};
use crate::support::postgres::Postgres;
use crate::support::root_only::{self, POLICY, json, next_code, recovery_codes, secret, totp};
use crate::support::ssh::{KEY_AND_CODE, Session, Sshd, fingerprint, public};
use crate::support::terminal::Terminal;
use crate::support::totp::{SECRET, code_at, code_now, hotp, now, wrong_code};
use crate::support::{need, output_of, project, reasons, screen};
use crate::test_login::typed;
use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// What enrolment asks on a terminal.
const FROM_THE_APP: &str = "Code from the app";

/// Where something is put into a policy that a denial takes no time, as a test makes many.
const STORE: &str = "    store = \"system\"\n";
const QUICK: &str = "fail_delay = \"0s\"\n";

#[derive(Debug)]
enum Step {
    File { path: String, text: String },
    Command { of: char, line: String, shown: Vec<String> },
}

/// A page, as far as it was not followed yet. All of it must be.
struct Page<'a> {
    machine: &'a Machine,
    steps: VecDeque<Step>,
}

impl<'a> Page<'a> {
    fn open(machine: &'a Machine, name: &str) -> Self {
        Self::open_with(machine, name, &[])
    }

    /// The same, where a reader would write something else.
    fn open_with(machine: &'a Machine, name: &str, instead: &[(&str, &str)]) -> Self {
        // What is root's home there is nobody else's.
        output_of(machine.command("mount").args(["-t", "tmpfs", "-o", "mode=0700", "tmpfs", "/root"]));
        machine.program();
        let mut text = fs::read_to_string(project().join("docs").join(name)).unwrap();
        text = text.replace(STORE, &format!("{STORE}    {QUICK}"));
        // A day to come.
        let day = output_of(Command::new("date").args(["-u", "-d", "+40 days", "+%F"]));
        for (from, to) in [&[("2027-01-31", day.trim())], instead].concat() {
            text = text.replace(from, to);
        }
        Self { machine, steps: steps(&text) }
    }

    fn next(&mut self, whose: char) -> (String, Vec<String>) {
        loop {
            match self.steps.pop_front() {
                Some(Step::File { path, text }) => self.machine.write(&path, text),
                Some(Step::Command { of, line, shown }) if of == whose => return (line, shown),
                other => panic!("not a line that begins with {whose}: {other:?}"),
            }
        }
    }

    /// The next command, in a shell of root's.
    fn shell(&mut self, whose: char) -> (Command, Vec<String>) {
        let (line, shown) = self.next(whose);
        let line = format!("PATH=\"{}:$PATH\"; {line}", self.machine.shared().display());
        let mut shell = self.machine.command("sh");
        shell.args(["-c", &line]);
        (shell, shown)
    }

    /// Root types the next command, and these lines.
    fn root_types(&mut self, lines: &[&str]) -> Output {
        let (mut shell, shown) = self.shell('#');
        let output = typed(&mut shell, lines);
        assert_shown(&shown, &said(&output));
        output
    }

    /// Root types the next command, which succeeds.
    fn root(&mut self, lines: &[&str]) -> String {
        let output = self.root_types(lines);
        assert!(output.status.success(), "{output:?} {:#?}", self.machine.log());
        said(&output)
    }

    /// Root types the next command, which does not.
    fn root_fails(&mut self, lines: &[&str]) -> String {
        let output = self.root_types(lines);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        said(&output)
    }

    /// Root types the next command, and the code of the secret that it shows.
    fn root_enrols(&mut self) -> String {
        let (shell, shown) = self.shell('#');
        let mut terminal = Terminal::run(&shell, "C.UTF-8");
        let before = screen::plain(&terminal.until(FROM_THE_APP));
        terminal.enter(&code_now(&secret(&screen::uri(&before))));
        let (after, succeeded) = terminal.finish();
        assert!(succeeded, "{before}{after}");
        assert_shown(&shown, &format!("{before}{after}"));
        before + &screen::plain(&after)
    }

    /// Root types the next command, here and at another machine.
    fn on_both(&mut self, other: &Machine) {
        let line = line_of(self);
        self.root(&[]);
        let line = format!("PATH=\"{}:$PATH\"; {line}", other.shared().display());
        output_of(other.command("sh").args(["-c", &line]));
    }

    /// Root types the next command, which makes a key that the page calls so: each machine has one of another name.
    fn root_makes_key(&mut self, id: &str) {
        for step in &mut self.steps {
            if let Step::Command { shown, .. } = step {
                shown.iter_mut().for_each(|text| *text = text.replace(id, "…"));
            }
        }
        let key = self.root(&[])[..8].to_owned();
        for step in &mut self.steps {
            if let Step::Command { line, .. } = step {
                *line = line.replace(id, &key);
            }
        }
    }

    /// A person types the next command, and at its prompts the first answers and the last.
    fn types(&mut self, user: User, first: &[&dyn Fn(&str) -> String], last: impl FnOnce(&str) -> String) -> String {
        let (line, shown) = self.next('$');
        let line = format!("PATH=\"{}:$PATH\"; {line}", self.machine.shared().display());
        let mut shell = self.machine.command_as(user, "sh");
        shell.args(["-c", &line]);
        let mut terminal = Terminal::run(&shell, "C.UTF-8");
        let mut seen = screen::plain(&terminal.until(": "));
        for answer in first {
            terminal.enter(&answer(&seen));
            seen += &screen::plain(&terminal.until(FROM_THE_APP));
        }
        terminal.enter(&last(&seen));
        let (after, succeeded) = terminal.finish();
        assert!(succeeded, "{seen}{after} {:#?}", self.machine.log());
        seen += &screen::plain(&after);
        assert_shown(&shown, &seen);
        seen
    }

    /// A person types the next command, which is `ssh NAME@bastion`, and what `answer` makes of what is shown.
    fn ssh(
        &mut self,
        sshd: &Sshd,
        name: &str,
        key: &Path,
        mut answer: impl FnMut(&str) -> String,
    ) -> (Session, String) {
        let (line, shown) = self.next('$');
        assert_eq!(line, format!("ssh {name}@bastion"));
        let mut client = sshd.talk(name, key, &[]);
        let mut seen = String::new();
        while let Some(question) = client.question() {
            client.answer(&answer(&question));
            seen += &format!("{question}\n");
        }
        let session = client.finish();
        assert_shown(&shown, &(seen.clone() + &session.output + &session.errors));
        (session, seen)
    }

    /// The same, by somebody who gets in with these answers and no others.
    fn logs_in(&mut self, sshd: &Sshd, user: User, answers: &[&str]) {
        let mut rest = answers.iter();
        let key = sshd.key(user);
        let (session, _) = self.ssh(sshd, user.name, &key, |_| rest.next().copied().unwrap_or_default().to_owned());
        assert!(session.succeeded && rest.next().is_none(), "{session:?} {:#?}", self.machine.log());
    }

    /// The same, by somebody who types these words and then is shown a device. What is shown.
    fn is_enrolled(&mut self, sshd: &Sshd, name: &str, key: &Path, words: &[&str]) -> Enrolled {
        let mut rest = words.iter();
        let mut screen = String::new();
        let (session, _) = self.ssh(sshd, name, key, |shown| match rest.next() {
            Some(word) => (*word).to_owned(),
            None => {
                screen = shown.to_owned();
                code_now(&secret(&screen::uri(shown)))
            }
        });
        assert!(session.succeeded, "{session:?} {:#?}", self.machine.log());
        Enrolled::from(&screen)
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.steps.is_empty(), "nobody did this: {:#?}", self.steps);
        }
    }
}

/// A device, and what it came with.
struct Enrolled {
    secret: String,
    recovery: Vec<String>,
}

impl Enrolled {
    fn from(screen: &str) -> Self {
        Self { secret: secret(&screen::uri(screen)), recovery: recovery_codes(screen) }
    }

    /// By root's word, without a code.
    fn by_root(machine: &Machine, user: &str) -> Self {
        let made = json(machine, &["enrol", "--user", user, "--no-confirm"]);
        let codes = made["recovery_codes"].as_array().unwrap().iter();
        Self {
            secret: made["secret"].as_str().unwrap().to_owned(),
            recovery: codes.map(|code| code.as_str().unwrap().to_owned()).collect(),
        }
    }
}

/// What a page tells one to do.
fn steps(text: &str) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    let mut file = None;
    for line in text.lines() {
        match line.strip_prefix("    ") {
            None if line.is_empty() => {}
            // A file ends where text or the next command begins.
            None => file = line.strip_prefix("In `").and_then(|rest| rest.strip_suffix("`:")),
            Some(line) => match (line.split_at_checked(2), file) {
                (Some((mark @ ("# " | "$ "), line)), None) => {
                    let of = if mark == "# " { '#' } else { '$' };
                    steps.push_back(Step::Command { of, line: line.to_owned(), shown: vec![] });
                }
                (_, Some(path)) => match steps.back_mut() {
                    Some(Step::File { path: last, text }) if last == path => *text += &format!("{line}\n"),
                    _ => steps.push_back(Step::File { path: path.to_owned(), text: format!("{line}\n") }),
                },
                (_, None) => match steps.back_mut() {
                    Some(Step::Command { shown, .. }) => shown.push(line.to_owned()),
                    other => panic!("{line}: neither typed nor shown, below {other:?}"),
                },
            },
        }
    }
    assert!(!steps.is_empty());
    steps
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether each of these lines was seen, in their order.
fn assert_shown(shown: &[String], seen: &str) {
    let host = output_of(Command::new("uname").arg("-n"));
    let host = host.trim().split('.').next().unwrap();
    let plain = seen.replace("127.0.0.1", "bastion").replace(host, "bastion");
    let mut lines = plain.lines();
    for line in shown {
        assert!(lines.any(|seen| has(&numberless(seen), &numberless(line))), "not shown: {line}\nbut:\n{seen}");
    }
}

fn has(seen: &str, line: &str) -> bool {
    line.split('…').try_fold(seen, |rest, part| rest.split_once(part).map(|(_, rest)| rest)).is_some()
}

/// Each number is 0.
fn numberless(text: &str) -> String {
    let mut result = String::new();
    for letter in text.chars() {
        match letter {
            '0'..='9' if result.ends_with('0') => {}
            '0'..='9' => result.push('0'),
            other => result.push(other),
        }
    }
    result
}

/// A machine whose sshd asks for a key and a code, where people enrol at their first login.
fn bastion() -> Machine {
    root_only::machine("fail_delay = \"0s\"\n[service.sshd]\nenrolment = \"inline\"\n")
}

/// A denial takes no time from now on, by the policy that setup wrote.
fn make_quick(machine: &Machine) {
    let policy = machine.read(POLICY);
    machine.write(POLICY, policy.replace("[defaults]\n", &format!("[defaults]\n{QUICK}")));
}

fn ticket(shown: &str) -> &str {
    shown.lines().map(str::trim).find(|line| line.len() == 29 && line.matches('-').count() == 5).unwrap()
}

#[test]
fn bastion_md() {
    let machine = setup::debian();
    let sshd = setup::start(&machine);
    let mut page = Page::open(&machine, "bastion.md");
    page.root(&[]);
    assert!(!machine.path(POLICY).exists());
    page.root(&[]);
    let alice = page.is_enrolled(&sshd, "alice", &sshd.key(ALICE), &[]);
    page.root(&[]);
    make_quick(&machine);
    assert!(!sshd.login(BOB, &[]).succeeded, "a key alone");
    let findings = said(&page.root_types(&[])); // doctor
    assert!(!findings.contains("OPEN") && !findings.contains("CLOSED"), "{findings}");
    page.root(&[&alice.recovery[0]]); // test-login
    assert!(sshd.login(ALICE, &[&next_code(&alice.secret)]).succeeded);
    page.root(&[]);
    page.root(&[]);
    page.root(&[]);
    assert!(!machine.read("/etc/pam.d/sshd").contains("pam_totp"));
}

#[test]
fn lost_phone_md() {
    let machine = bastion();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let lost = Enrolled::by_root(&machine, "alice");
    let mut page = Page::open(&machine, "lost-phone.md");
    page.logs_in(&sshd, ALICE, &[&lost.recovery[0]]);

    let agent = Agent::start(&machine);
    let mut tablet = String::new();
    page.types(ALICE, &[&|_| lost.recovery[1].clone()], |shown| {
        tablet = secret(&screen::uri(shown));
        code_at(&tablet, now() - 30)
    });
    page.types(ALICE, &[], |_| code_now(&tablet));
    assert!(!sshd.login(ALICE, &[&code_now(&lost.secret)]).succeeded);
    let shown = page.types(ALICE, &[], |_| next_code(&tablet));
    assert!(sshd.login(ALICE, &[&recovery_codes(&shown)[0]]).succeeded);
    drop(agent);
    totp(&machine, &["reset", "--user", "alice"]);
    let lost = Enrolled::by_root(&machine, "alice");

    page.root_enrols();
    page.root(&[]);
    let new = recovery_codes(&page.root(&[]));
    page.root(&[]);
    assert!(!sshd.login(ALICE, &[&code_now(&lost.secret)]).succeeded);
    assert!(!sshd.login(ALICE, &[&lost.recovery[1]]).succeeded);
    assert!(sshd.login(ALICE, &[&new[0]]).succeeded);

    let enrolled = Enrolled::from(&page.root_enrols());
    assert!(!sshd.login(ALICE, &[&new[1]]).succeeded);
    assert!(sshd.login(ALICE, &[&next_code(&enrolled.secret)]).succeeded);

    page.root(&[]);
    assert!(!sshd.login(ALICE, &[&enrolled.recovery[0]]).succeeded);
    let shown = page.root(&[]);
    let enrolled = page.is_enrolled(&sshd, "alice", &sshd.key(ALICE), &[ticket(&shown)]);

    totp(&machine, &["throttle", "unlock", "--host", "127.0.0.1"]);
    let wrong = wrong_code(&enrolled.secret);
    for _ in 0..10 {
        machine.login("test", "alice").answer(&wrong).with(&["--rhost", "192.0.2.7"]).run();
    }
    let blocked = machine.login("test", "alice").answer(&enrolled.recovery[0]).run();
    assert_eq!((blocked.result(), blocked.reason().as_str()), (AUTH_ERR, "throttled"));
    page.root(&[]);
    page.root(&[]);
    assert_eq!(machine.login("test", "alice").answer(&enrolled.recovery[0]).run().result(), SUCCESS);
}

#[test]
fn locked_out_md() {
    let machine = setup::debian();
    let sshd = setup::start(&machine);
    totp(&machine, &["setup", "sshd"]);
    totp(&machine, &["setup", "confirm"]);
    make_quick(&machine);
    let alice = Enrolled::by_root(&machine, "alice");
    let mut page = Page::open(&machine, "locked-out.md");
    let _ = machine.log();
    assert!(!sshd.login(ALICE, &[&code_at(&alice.secret, now() - 300)]).succeeded);
    machine.write("/var/log/auth.log", machine.log_file_lines().join("\n"));
    page.root(&[]);
    page.root_fails(&[&code_at(&alice.secret, now() - 300)]); // verify
    let [first, second] = [-300_i64, -270].map(|off| code_at(&alice.secret, now().checked_add_signed(off).unwrap()));
    page.root(&[&first, &second]); // resync
    assert!(sshd.login(ALICE, &[&code_at(&alice.secret, now() - 240)]).succeeded, "{:#?}", machine.log());

    machine.append(POLICY, "enrollment = \"inline\"\n");
    let _ = machine.log();
    assert!(!sshd.login(ALICE, &[&alice.recovery[0]]).succeeded);
    assert_eq!(reasons(&machine.log()), ["bad-policy"]);
    page.root_fails(&[]);
    page.root(&[]);
    page.root(&[]);
    assert!(sshd.login(ALICE, &[&alice.recovery[0]]).succeeded, "{:#?}", machine.log());
    page.root_types(&[]); // doctor

    machine.append(POLICY, "enrollment = \"inline\"\n");
    page.root(&[]);
    assert!(sshd.login(BOB, &[]).succeeded, "{:#?}", machine.log());
    page.root(&[]);
    assert!(sshd.login(ALICE, &[]).succeeded);
}

#[test]
fn roll_out_md() {
    let machine = setup::debian();
    machine.append("/etc/group", "staff2:x:20099:alice,carol\n");
    let sshd = setup::start(&machine);
    let mut page = Page::open_with(&machine, "roll-out.md", &[("--group staff", "--group staff2")]);
    page.root(&[]);
    page.root(&[]);
    page.root(&[]); // setup
    page.is_enrolled(&sshd, "alice", &sshd.key(ALICE), &[]);
    page.logs_in(&sshd, BOB, &[""]);
    page.root(&[]);
    page.root(&[]); // status
    page.root_types(&[]); // doctor
    page.root(&[]);
    let sheet = machine.read("/root/sheets/carol.txt");
    assert!(sshd.login(CAROL, &[&code_now(&secret(&sheet))]).succeeded, "{:#?}", machine.log());
    totp(&machine, &["reset", "--user", "carol"]);
    page.root(&[]);
    page.root(&[]);
    let shown = page.root(&[]);
    page.is_enrolled(&sshd, "carol", &sshd.key(CAROL), &[ticket(&shown)]);
    assert!(sshd.login(BOB, &[""]).succeeded, "before the day");
    let policy = machine.read(POLICY);
    let past = policy.lines().map(|line| if line.starts_with("enrol_by") { "enrol_by = 2026-01-31" } else { line });
    machine.write(POLICY, past.collect::<Vec<_>>().join("\n") + "\n");
    assert!(!sshd.login(BOB, &[""]).succeeded, "after it");
    let word = root_only::ticket(&machine, "bob", &[]);
    let mut client = sshd.talk("bob", &sshd.key(BOB), &[]);
    client.reply(|_| word);
    client.reply(|shown| code_now(&secret(&screen::uri(shown))));
    assert!(client.finish().succeeded);
}

#[test]
fn from_google_authenticator_md() {
    let machine = Machine::new();
    let stack = "auth required pam_google_authenticator.so nullok\nauth required pam_permit.so\n\
                 account required pam_permit.so\nsession required pam_permit.so\n";
    machine.service("sshd", stack);
    machine.enrol(ALICE, "\" TOTP_AUTH\n12345678\n87654321\n");
    machine.enrol(BOB, "\" TOTP_AUTH\n12345678\n");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let code = code_at(SECRET, now() - 30);
    assert!(sshd.login(ALICE, &[&code]).succeeded, "is libpam-google-authenticator installed? {:#?}", machine.log());
    let mut page = Page::open(&machine, "from-google-authenticator.md");
    page.root(&[]);
    page.root(&[]);
    page.logs_in(&sshd, ALICE, &[&code_now(SECRET)]);
    assert!(sshd.login(CAROL, &[]).succeeded, "nullok");
    for _ in 0..3 {
        page.root(&[]);
    }
    assert!(!machine.path(&ALICE.secret_file()).exists() && !machine.path(&BOB.secret_file()).exists());
    page.logs_in(&sshd, ALICE, &["87654321"]);
    assert!(!sshd.login(ALICE, &["87654321"]).succeeded);
    assert!(sshd.login(BOB, &["12345678"]).succeeded);
    page.root(&[]);
    assert!(sshd.login(CAROL, &[]).succeeded, "nullok");
}

#[test]
fn sudo_md() {
    let machine = setup::debian();
    machine.write_as("/etc/sudoers", "Defaults !lecture\nalice ALL=(ALL) ALL\nbob ALL=(ALL) ALL\n", 0, 0o440);
    let mut page = Page::open(&machine, "sudo.md");
    page.root(&[]);
    page.root(&[]);
    let alice = Enrolled::from(&page.root_enrols());
    let (line, shown) = page.next('$');
    // sudo reads from where the test can type.
    let sudo = |user: User, line: &str, lines: &[&str]| {
        let mut shell = machine.command_as(user, "sh");
        typed(shell.args(["-c", &format!("sudo() {{ command sudo -S \"$@\"; }}; {line}")]), lines)
    };
    let output = sudo(ALICE, &line, &[&next_code(&alice.secret), "password"]);
    assert!(output.status.success(), "{output:?} {:#?}", machine.log());
    // What is asked comes on another stream.
    assert_shown(&shown[..1], &String::from_utf8_lossy(&output.stderr));
    assert_shown(&shown[1..], &String::from_utf8_lossy(&output.stdout));
    page.root(&[]);
    make_quick(&machine);
    assert!(!sudo(BOB, &line, &["000000", "password"]).status.success(), "no device");
    assert!(!sudo(ALICE, &line, &["000000", "password"]).status.success());

    machine.write_as("/etc/sudoers", "Defaults !lecture,targetpw\nalice ALL=(ALL) ALL\n", 0, 0o440);
    page.root(&[]);
    let _ = machine.log();
    let output = sudo(ALICE, "sudo -k -u bob id -un", &[&alice.recovery[0], "password"]);
    assert!(output.status.success(), "bob has no device: {output:?}");
    assert!(says(&machine.log(), &["pam_totp(sudo:auth): accepted", "caller=alice"]));
    page.root(&[]);
    page.root(&[]);
    assert!(!machine.read("/etc/pam.d/sudo").contains("pam_totp"));
}

const EC2_USER: User = User { name: "ec2-user", uid: 20010 };

#[test]
fn shared_account_md() {
    let machine = bastion();
    machine.add(EC2_USER);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let keys = ["first", "second", "third"].map(|name| sshd.another_key(EC2_USER, name, &["-t", "ed25519"]));
    let mut page = Page::open_with(&machine, "shared-account.md", &[("SHA256:BOBS-KEY", &fingerprint(&keys[1]))]);
    machine.write("/root/bob.pub", fs::read(public(&keys[1])).unwrap());
    let keyless = Enrolled::by_root(&machine, "alice");
    assert!(sshd.login(ALICE, &[&keyless.recovery[0]]).succeeded);
    page.root(&[]);
    assert!(!sshd.login(ALICE, &[&keyless.recovery[1]]).succeeded, "enrolled without a key");
    let alice = page.is_enrolled(&sshd, "ec2-user", &keys[0], &[]);
    page.root(&[]);
    let shown = page.root(&[]);
    let bob = page.is_enrolled(&sshd, "ec2-user", &keys[1], &[ticket(&shown)]);
    let carol = page.is_enrolled(&sshd, "ec2-user", &keys[2], &[&next_code(&alice.secret)]);
    page.root(&[]);
    let login = |key: &Path, code: &str| sshd.login_with("ec2-user", key, &[code], &[]).succeeded;
    assert!(!login(&keys[2], &bob.recovery[0]) && login(&keys[1], &bob.recovery[0]));
    page.root(&[]);
    assert!(!login(&keys[1], &bob.recovery[1]));
    assert!(login(&keys[0], &alice.recovery[0]) && login(&keys[2], &carol.recovery[0]));
}

#[test]
fn service_accounts_md() {
    const BACKUP: User = User { name: "backup2", uid: 20011 };
    const DEPLOY: User = User { name: "deploy", uid: 20012 };
    let machine = setup::debian();
    for user in [BACKUP, DEPLOY] {
        machine.add(user);
    }
    machine.append("/etc/group", "people:x:20099:alice\n");
    let sshd = setup::start(&machine);
    totp(&machine, &["setup", "sshd"]);
    totp(&machine, &["setup", "confirm"]);
    make_quick(&machine);
    let instead = [
        ("backup@", "backup2@"),
        ("User backup", "User backup2"),
        ("Address 192.0.2.7", "Address 127.0.0.1"),
        ("/usr/local/bin/send-backup", "/bin/echo all of it"),
    ];
    let mut page = Page::open_with(&machine, "service-accounts.md", &instead);
    // No systemd is there.
    put_systemctl(&machine, "#!/bin/sh\n[ \"$*\" = 'reload ssh' ] && kill -HUP $(pgrep -o -x sshd) && sleep 1\n");
    assert!(!sshd.login(BACKUP, &[]).succeeded);
    page.root(&[]);
    let (session, asked) = page.ssh(&sshd, BACKUP.name, &sshd.key(BACKUP), |_| String::new());
    assert!(session.output == "all of it\n" && asked.is_empty(), "{session:?}");
    assert!(!sshd.login(ALICE, &[]).succeeded);
    let findings = said(&page.root_types(&[])); // doctor
    assert!(!findings.contains("OPEN") && !findings.contains("CLOSED"), "{findings}");

    let from = |user: &str, address: &str| {
        machine.login("sshd", user).answer("000000").answer("").answer("").with(&["--rhost", address]).run().result()
    };
    page.root(&[]);
    assert_eq!(from("deploy", "198.51.100.7"), SUCCESS);
    assert_ne!(from("deploy", "192.0.2.7"), SUCCESS);
    assert_ne!(from("bob", "198.51.100.7"), SUCCESS);

    page.root(&[]);
    page.root(&[]);
    assert_eq!(from("bob", "192.0.2.7"), SUCCESS);
    assert_ne!(from("alice", "192.0.2.7"), SUCCESS);
}

#[test]
fn from_pam_oath_md() {
    const HEX: &str = "3132333435363738393031323334353637383930";
    let machine = Machine::new();
    let stack = "auth required pam_oath.so usersfile=/etc/users.oath window=5\nauth required pam_permit.so\n\
                 account required pam_permit.so\nsession required pam_permit.so\n";
    machine.service("sshd", stack);
    machine.write_as("/etc/users.oath", format!("HOTP alice - {HEX}\nHOTP/T30 bob - {HEX}\n"), 0, 0o600);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    assert!(sshd.login(ALICE, &[&hotp(SECRET, 0)]).succeeded, "is libpam-oath installed? {:#?}", machine.log());
    let mut page = Page::open(&machine, "from-pam-oath.md");
    for _ in 0..5 {
        page.root(&[]);
    }
    assert!(!sshd.login(ALICE, &[&hotp(SECRET, 0)]).succeeded, "used at pam_oath");
    page.logs_in(&sshd, ALICE, &[&hotp(SECRET, 1)]);
    assert!(!sshd.login(BOB, &[&code_now(SECRET)]).succeeded, "may have been used at pam_oath");
    page.root(&[]);
    assert!(!sshd.login(CAROL, &[]).succeeded);
    page.root(&[]);
    assert!(!machine.path("/etc/users.oath").exists());
}

#[test]
fn from_duo_md() {
    let machine = Machine::new();
    machine.append("/etc/group", "totp:x:20099:alice\n");
    // Somebody who asks for a password by that name.
    let module = "cd $(dirname $(find /usr/lib /lib -name pam_totp.so)) && cp pam_unix.so pam_duo.so";
    output_of(machine.command("sh").args(["-c", module]));
    let stack = "auth required pam_duo.so nodelay\nauth required pam_permit.so\naccount required pam_permit.so\n\
                 session required pam_permit.so\n";
    machine.service("sshd", stack);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut page = Page::open(&machine, "from-duo.md");
    for _ in 0..5 {
        page.root(&[]);
    }
    let alice = page.is_enrolled(&sshd, "alice", &sshd.key(ALICE), &[]);
    page.logs_in(&sshd, BOB, &["password"]);
    assert!(!sshd.login(BOB, &["wrong"]).succeeded, "Duo says no");
    assert!(!sshd.login(ALICE, &["password"]).succeeded);
    assert!(sshd.login(ALICE, &[&alice.recovery[0]]).succeeded);
    page.root(&[]); // status
    page.root(&[]);
    assert!(sshd.login(ALICE, &[&alice.recovery[1]]).succeeded);
    assert!(!sshd.login(BOB, &["password"]).succeeded);
}

#[test]
fn sealed_records() {
    let machine = root_only::machine("");
    let alice = Enrolled::by_root(&machine, "alice");
    let mut page = Page::open(&machine, "sealed-records.md");
    page.root_makes_key("3f9a01bc");
    for _ in 0..3 {
        page.root(&[]);
    }
    let login = || machine.login("sshd", "alice").answer(code_now(&alice.secret)).run();
    assert_eq!(login().reason(), "sealed-record");
    let refused = page.root_fails(&[]);
    assert!(refused.contains("active-key"), "{refused}");
    page.root(&[]);
    assert_eq!(login().result(), SUCCESS);
}

/// What systemd would do about the agent, where there is none.
const SYSTEMCTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
case $* in
"enable --now pam-totp-agent.socket" | "start pam-totp-agent.socket")
    "$here/pam-totp-agent" >/dev/null 2>&1 &
    echo $! >"$here/agent.pid"
    until [ -S /run/pam_totp-agent.sock ]; do sleep 0.05; done
    ;;
"stop pam-totp-agent.socket pam-totp-agent.service" | "disable --now pam-totp-agent.socket pam-totp-agent.service")
    kill "$(cat "$here/agent.pid")" && rm /run/pam_totp-agent.sock
    ;;
"restart pam-totp-agent.service")
    kill "$(cat "$here/agent.pid")" && rm /run/pam_totp-agent.sock
    "$here/pam-totp-agent" >/dev/null 2>&1 &
    echo $! >"$here/agent.pid"
    until [ -S /run/pam_totp-agent.sock ]; do sleep 0.05; done
    ;;
*) exit 1 ;;
esac
"#;

fn put_systemctl(machine: &Machine, script: &str) {
    let systemctl = machine.shared().join("systemctl");
    fs::write(&systemctl, script).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn agent_md() {
    const LINE: &str = "hostssl all all 127.0.0.1/32 pam pamservice=postgresql";
    let machine = setup::debian();
    machine.agent();
    put_systemctl(&machine, SYSTEMCTL);
    totp(&machine, &["setup", "store"]);
    totp(&machine, &["setup", "sudo"]);
    totp(&machine, &["setup", "confirm"]);
    let alice = Enrolled::by_root(&machine, "alice");
    let mut codes = alice.recovery.iter().map(String::as_str);
    let mut page = Page::open(&machine, "agent.md");
    page.root(&[]); // enable
    page.root(&[]); // One service
    page.root(&[codes.next().unwrap(), "password"]);
    page.root_types(&[]); // doctor
    page.root(&[]); // All
    page.root(&[codes.next().unwrap(), "password"]);
    for _ in 0..4 {
        page.root(&[]); // groupadd, usermod, --install, usermod
    }
    assert!(fs::read_to_string(project().join("docs/agent.md")).unwrap().contains(LINE));
    let postgres = Postgres::start(&machine, LINE);
    let code = code_now(&alice.secret);
    assert!(!postgres.lets_in("password000000"));
    assert!(postgres.lets_in(&format!("password{code}")), "{} {:#?}", postgres.log(), machine.log());
    assert!(!postgres.lets_in(&format!("password{code}")), "used");
    let of_postgres = |line: &String| line.starts_with("pam_totp(postgresql:auth): denied") && line.contains(" peer=");
    assert!(machine.log().iter().any(of_postgres));

    let (line, shown) = page.next('#'); // systemctl stop
    assert!(shown.is_empty());
    let unlocks = |user: User, name: &str, code: &str| {
        machine.login_as(user, "swaylock", name).answer(code).answer("password").run().result()
    };
    let code = codes.next().unwrap();
    assert_ne!(unlocks(BOB, "alice", code), SUCCESS, "of another");
    assert_eq!(unlocks(ALICE, "alice", code), SUCCESS);
    assert_ne!(unlocks(ALICE, "alice", code), SUCCESS, "used");
    output_of(machine.command("sh").args(["-c", &format!("PATH=\"{}:$PATH\"; {line}", machine.shared().display())]));
    assert_eq!(unlocks(ALICE, "alice", codes.next().unwrap()), AUTHINFO_UNAVAIL);
    page.root_fails(&[]); // doctor
    for _ in 0..4 {
        page.root(&[]); // start, sed, --install, disable
    }
    let sudo = machine.login("sudo", "alice").answer(next_code(&alice.secret)).answer("password").run();
    assert_eq!(sudo.result(), SUCCESS, "{sudo:#?}");
}

#[test]
fn each_page_of_the_manual_has_a_test_and_is_linked() {
    let here = fs::read_to_string(project().join("tests/manual_pages.rs")).unwrap();
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    for entry in fs::read_dir(project().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let text = fs::read_to_string(project().join("docs").join(&name)).unwrap_or_default();
        if text.lines().any(|line| line.starts_with("    # ") || line.starts_with("    $ ")) {
            assert!(here.contains(&format!(", \"{name}\"")), "{name}: nobody follows it");
            assert!(readme.contains(&format!("](docs/{name})")), "{name}: not in README.md");
        }
    }
}

// ---- A fleet ----

/// As [`SYSTEMCTL`], of a member of etcd, which systemd starts with what is in /etc/default/etcd.
const SYSTEMCTL_ETCD: &str = r#"#!/bin/sh
here=$(dirname "$0")
stop() {
    [ -e "$here/etcd.pid" ] || return 0
    kill "$(cat "$here/etcd.pid")"
    # One that has ended and that nobody waits for has no file.
    while readlink "/proc/$(cat "$here/etcd.pid")/exe" >/dev/null; do sleep 0.05; done
    rm "$here/etcd.pid"
}
case $* in
"stop etcd") stop ;;
"restart etcd")
    stop
    set -a
    . /etc/default/etcd
    setsid etcd >>"$here/etcd.log" 2>&1 &
    echo $! >"$here/etcd.pid"
    ;;
*) exit 1 ;;
esac
"#;

/// Members on addresses of their own, which no other test has.
struct Members {
    machines: Vec<Machine>,
    /// `127.X.Y.`, where the page has `10.0.0.`.
    network: String,
}

impl Members {
    fn new() -> Self {
        need("etcd", "etcd-server");
        need("etcdctl", "etcd-client");
        let [one, other] = pam_totp::system::random::bytes::<2>().unwrap();
        let network = format!("127.{}.{other}.", one.clamp(1, 254));
        let machines: Vec<_> = (0..3).map(|_| Machine::new()).collect();
        machines.iter().for_each(|machine| put_systemctl(machine, SYSTEMCTL_ETCD));
        Self { machines, network }
    }

    /// The same command on the other members, with their names and addresses.
    fn others(&self, line: &str) {
        for (machine, number) in self.machines.iter().zip(1..).skip(1) {
            let line = self.of(number, line);
            let line = format!("PATH=\"{}:$PATH\"; {line}", machine.shared().display());
            output_of(machine.command("sh").args(["-c", &line]));
        }
    }

    /// What the first member has, as another one has it.
    fn of(&self, number: usize, text: &str) -> String {
        let lines = text.split_inclusive('\n').map(|line| match line.split_once("nitial-cluster ") {
            Some((before, after)) => self.renamed(number, before) + "nitial-cluster " + after,
            None if line.starts_with("ETCD_INITIAL_CLUSTER=") => line.to_owned(),
            None => self.renamed(number, line),
        });
        lines.collect()
    }

    fn renamed(&self, number: usize, text: &str) -> String {
        let address = |number: usize| format!("{}{number}:", self.network);
        text.replace("etcd1", &format!("etcd{number}")).replace(&address(1), &address(number))
    }

    /// The files of the authority go to whoever they are for.
    fn copy(&self, names: &[&str], to: &Machine, directory: &str) {
        to.make_directory(directory, 0o755, 0);
        for name in names {
            let text = self.machines[0].read(&format!("/root/fleet/{name}"));
            to.write_as(&format!("{directory}/{name}"), text, 0, 0o600);
        }
    }
}

/// The next command of the page, as it is.
fn line_of(page: &Page<'_>) -> String {
    match page.steps.iter().find(|step| matches!(step, Step::Command { .. })) {
        Some(Step::Command { line, .. }) => line.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn fleet_md() {
    let members = Members::new();
    let hosts = [(); 2].map(|()| Machine::new());
    let [one, two] = &hosts;
    for host in &hosts {
        host.agent();
        host.program();
        host.service("test", root_only::STACK);
        put_systemctl(host, SYSTEMCTL);
        output_of(host.command("mount").args(["-t", "tmpfs", "-o", "mode=0700", "tmpfs", "/root"]));
    }
    let instead = [
        // A peer on this machine comes from 127.0.0.1, and not from its own address.
        ("IP:10.0.0.$n", "IP:10.0.0.$n,IP:127.0.0.1"),
        ("10.0.0.", members.network.as_str()),
        ("/var/lib/etcd/", "/var/lib/etcd-of-the-fleet/"),
        ("    store = \"fleet\"\n", "    store = \"fleet\"\n    fail_delay = \"0s\"\n"),
    ];
    let mut page = Page::open_with(&members.machines[0], "fleet.md", &instead);
    for _ in 0..5 {
        page.root(&[]); // The directory, the authority, certificates, passwords
    }
    page.root(&[]); // etcd1's own
    for (machine, number) in members.machines.iter().zip(1..).skip(1) {
        let names = ["ca.pem".to_owned(), format!("etcd{number}.pem"), format!("etcd{number}.key")];
        members.copy(&names.each_ref().map(String::as_str), machine, "/etc/etcd");
    }
    let restart = line_of(&page);
    page.root(&[]);
    let settings = members.machines[0].read("/etc/default/etcd");
    for (machine, number) in members.machines.iter().zip(1..).skip(1) {
        machine.write("/etc/default/etcd", members.of(number, &settings));
    }
    members.others(&restart);
    // It takes a moment until there is a leader.
    let env = "cd /; for i in $(seq 100); do etcdctl endpoint health >/dev/null 2>&1 && exit; sleep 0.1; done; exit 1";
    let ready = |env: &str| {
        output_of(members.machines[0].command("sh").args(["-c", &format!(". /root/fleet/env; {env}")]));
    };
    let Some(Step::File { path, text }) = page.steps.pop_front() else { panic!("no env") };
    members.machines[0].write(&path, text);
    ready(env);
    page.root(&[]); // health
    for _ in 0..5 {
        page.root(&[]); // role, users, their roles, auth, env
    }

    for (host, name) in hosts.iter().zip(["bastion1", "bastion2"]) {
        let names = ["pem", "key", "password"].map(|end| format!("{name}.{end}"));
        let [pem, key, password] = names.each_ref().map(String::as_str);
        members.copy(&["ca.pem", pem, key, password], host, "/etc/pam_totp");
    }
    page.machine = one;
    page.root(&[]); // chmod
    page.root_makes_key("3f9a01bc");
    page.root(&[]); // activate
    page.root(&[]); // init
    page.root(&[]); // The agent
    let alice = Enrolled::from(&page.root_enrols());
    page.root(&[]); // The policy
    let found = said(&page.root_types(&[])); // doctor
    let is_about_the_fleet = |line: &&str| line.starts_with("CLOSED") && line.contains("etcd");
    assert!(!found.lines().any(|line| is_about_the_fleet(&line)) && !found.contains("no answer"), "{found}");
    let login = |host: &Machine, user: &str, code: &str| {
        let login = host.login("test", user).answer(code).run();
        (login.result(), if login.result() == SUCCESS { String::new() } else { login.reason() })
    };
    let denied = |reason: &str| (AUTH_ERR, reason.to_owned());
    let next = next_code(&alice.secret);
    assert_eq!(login(one, "alice", &next).0, SUCCESS, "{:#?}", one.log());

    share_keys(one, two);
    let conf = one.read("/etc/security/pam_totp.fleet.toml").replace("bastion1", "bastion2");
    two.write_as("/etc/security/pam_totp.fleet.toml", conf, 0, 0o600);
    two.write("/root/draft.toml", one.read("/root/draft.toml"));
    page.machine = two;
    for _ in 0..4 {
        page.root(&[]); // init, the agent, the policy, list
    }
    assert_eq!(login(two, "alice", &next), denied("used-code"));
    assert_eq!(login(two, "alice", &alice.recovery[0]).0, SUCCESS, "{:#?}", two.log());
    assert_eq!(login(one, "alice", &alice.recovery[0]).0, AUTH_ERR, "used");

    page.machine = one;
    hosts.iter().for_each(|host| host.enrol(BOB, "\" TOTP_AUTH\n12345678"));
    page.root(&[]); // import
    assert_eq!(login(two, "bob", "12345678").0, SUCCESS, "{:#?}", two.log());
    let again = root_only::run(two, &["import", "--to", "fleet", "--user", "bob", "--delete"]);
    assert!(again.status.success() && !two.path(&BOB.secret_file()).exists(), "the same secret: {again:?}");

    page.root_makes_key("5e77d210");
    share_keys(one, two);
    page.on_both(two); // activate
    page.root(&[]); // reseal
    page.on_both(two); // drop
    assert_eq!(login(two, "alice", &alice.recovery[1]).0, SUCCESS, "{:#?}", two.log());

    // The snapshot of before is put back later, when there are two hosts again as far as it knows.
    page.machine = &members.machines[0];
    page.root(&[]); // user delete
    let out = login(two, "alice", &alice.recovery[2]);
    assert_eq!(out.0, AUTHINFO_UNAVAIL, "{out:?}");
    page.machine = one;
    page.root_makes_key("77c0ffee");
    page.root(&[]); // activate
    page.root(&[]); // revoke
    assert_eq!(login(one, "alice", &alice.recovery[2]), denied("revoked"));
    totp(one, &["enrol", "--user", "carol", "--no-confirm"]);
    let alice = Enrolled::by_root(one, "alice");

    page.machine = &members.machines[0];
    page.root(&[]); // snapshot
    assert_eq!(login(one, "alice", &alice.recovery[0]).0, SUCCESS, "{:#?}", one.log());
    for machine in &members.machines[1..] {
        let snapshot = fs::read(members.machines[0].path("/root/fleet.db")).unwrap();
        output_of(machine.command("mount").args(["-t", "tmpfs", "-o", "mode=0700", "tmpfs", "/root"]));
        machine.write_as("/root/fleet.db", snapshot, 0, 0o600);
    }
    for _ in 0..3 {
        let line = line_of(&page);
        if line.contains("restart") {
            page.root(&[]);
            members.others(&line);
        } else {
            members.others(&line);
            page.root(&[]); // stop, restore
        }
    }
    ready(env);
    page.machine = one;
    page.root(&[]); // The agent
    let refused = login(one, "alice", &alice.recovery[0]);
    assert_eq!(refused, denied("document-put-back"), "{:#?}", one.log());
    page.root(&[]); // accept-rollback
    assert_eq!(login(one, "alice", &alice.recovery[1]).0, SUCCESS, "{:#?}", one.log());
}
