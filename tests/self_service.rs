//! What people do about their own devices: by the program, at a terminal, through the agent; and what they cannot do, whatever
//! bytes they send it.

use crate::devices::typed;
use crate::support::agent::{Agent, as_uid, exchange, shared_socket};
use crate::support::machine::{ALICE, AUTH_ERR, BOB, Machine, SUCCESS, User};
use crate::support::root_only::{self, STATE, json, next_code, recovery_codes, run, totp};
use crate::support::terminal::Terminal;
use crate::support::totp::{code_now, hotp, wrong_code};
use pam_totp::agent::wire::{Reply, Request, Verdict};
use pam_totp::agent::wish::{Granted, Wish};
use pam_totp::enrol::Codes;
use pam_totp::otp::base32;
use pam_totp::secret::Secret;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

const PROMPT: &str = "Code of a device that you have: ";
pub(crate) const PROMPT_OR_RECOVERY: &str = "Code of a device that you have, or a recovery code: ";
pub(crate) const FIRST_CODE: &str = "Code from the app: ";
const EC2_USER: User = User { name: "ec2-user", uid: 20010 };

/// A machine with an agent whose socket has the same name outside of it. What is in `policy` goes on from `[defaults]`.
fn machine(policy: &str) -> Machine {
    let machine = Machine::new();
    let socket = shared_socket(&machine);
    root_only::ready(machine, &format!("agent_socket = \"{}\"\nfail_delay = \"0s\"\n{policy}", socket.display()))
}

/// Somebody with a device by time and one that counts, which has a new code for each command.
struct Person<'a> {
    machine: &'a Machine,
    user: User,
    phone: String,
    token: String,
    counter: u64,
    recovery: Vec<String>,
}

impl<'a> Person<'a> {
    fn new(machine: &'a Machine, user: User) -> Self {
        let enrolled = json(machine, &["enrol", "--user", user.name, "--no-confirm"]);
        let added = json(machine, &["device", "add", "token", "--user", user.name, "--no-confirm", "--counter-based"]);
        Self {
            machine,
            user,
            phone: string(&enrolled["secret"]),
            token: string(&added["secret"]),
            counter: 0,
            recovery: enrolled["recovery_codes"].as_array().unwrap().iter().map(string).collect(),
        }
    }

    /// A code that was never used.
    fn code(&mut self) -> String {
        self.counter += 1;
        hotp(&self.token, self.counter)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        by(self.machine, self.user, arguments)
    }

    /// What comes of a command and these lines.
    fn typed(&self, arguments: &[&str], lines: &[&str]) -> Output {
        typed(self.command(arguments), lines)
    }

    /// The same with a right code, which has to do.
    fn done(&mut self, arguments: &[&str]) -> String {
        let code = self.code();
        let output = self.typed(arguments, &[&code]);
        assert!(output.status.success(), "{arguments:?} {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The command fails, and says so.
    fn refused(&self, arguments: &[&str], answer: &str, words: &str) {
        let before = self.devices();
        let output = self.typed(arguments, &[answer]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?} {output:?}");
        assert!(errors.contains(words), "{arguments:?} {errors}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert_eq!(self.devices(), before, "{arguments:?}");
    }

    /// The names of what they have, as root sees them.
    fn devices(&self) -> Vec<String> {
        let list = json(self.machine, &["device", "list", self.user.name]);
        list["devices"].as_array().unwrap().iter().map(|device| string(&device["name"])).collect()
    }

    fn log_in(&self, answer: &str) -> i32 {
        self.machine.login("test", self.user.name).answer(answer).run().result()
    }

    // ---- By hand ----

    fn send(&self, request: &Request) -> Option<Reply> {
        send(self.machine, self.user.uid, request)
    }

    /// What is sealed for a wish.
    fn wish(&self, wish: Wish) -> Vec<u8> {
        question(self.send(&Request::Wish(wish))).1
    }

    /// A wish that a right code was given for, and what was shown.
    fn proposal(&mut self, wish: Wish) -> (Secret<Vec<u8>>, Vec<u8>) {
        let wish = self.wish(wish);
        let code = self.code();
        let (text, proposal) = question(self.send(&proof(&wish, &code)));
        (text.unwrap(), proposal)
    }
}

/// The program, run by somebody.
fn by(machine: &Machine, user: User, arguments: &[&str]) -> Command {
    let mut command = machine.command_as(user, machine.program());
    command.args(arguments);
    command
}

fn send(machine: &Machine, uid: u32, request: &Request) -> Option<Reply> {
    send_bytes(machine, uid, request.message().unwrap().expose())
}

fn send_bytes(machine: &Machine, uid: u32, message: &[u8]) -> Option<Reply> {
    let socket: PathBuf = shared_socket(machine);
    as_uid(uid, || exchange(&socket, message)).map(|reply| Reply::parse(&reply).ok().unwrap())
}

fn proof(wish: &[u8], answer: &str) -> Request {
    Request::Proof(wish.to_vec(), Secret::new(answer.into()))
}

fn add(name: &str) -> Wish {
    Wish::Add { name: name.to_owned(), codes: Codes::default() }
}

fn question(reply: Option<Reply>) -> (Option<Secret<Vec<u8>>>, Vec<u8>) {
    match reply {
        Some(Reply::Question { text, login, .. }) => (text, login),
        other => panic!("no question: {}", ending(other)),
    }
}

/// What a reply comes to: a word.
fn ending(reply: Option<Reply>) -> String {
    match reply {
        None => "nothing".to_owned(),
        Some(Reply::Question { .. }) => "question".to_owned(),
        Some(Reply::Granted(Granted::Done)) => "done".to_owned(),
        Some(Reply::Granted(Granted::Status { .. })) => "status".to_owned(),
        Some(Reply::Verdict { verdict: Verdict::Deny, .. }) => "denied".to_owned(),
        Some(Reply::Refused(reason)) => String::from_utf8(reason).unwrap().split(' ').next().unwrap().to_owned(),
        Some(_) => "something else".to_owned(),
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// The secret on a screen.
pub(crate) fn secret_on(screen: &str) -> String {
    let (_, rest) = screen.split_once("Secret, to type instead: ").unwrap_or_else(|| panic!("{screen}"));
    rest.split_whitespace().next().unwrap().to_owned()
}

fn ours(machine: &Machine) -> Vec<String> {
    machine.log().into_iter().filter(|line| line.contains("pam_totp(local:auth)")).collect()
}

// ---- What a person sees ----

#[test]
fn alice_adds_a_phone_with_her_old_one_and_removes_that() {
    let machine = machine("");
    let _agent = Agent::start_shared(&machine);
    let enrolled = json(&machine, &["enrol", "--user", "alice", "--no-confirm"]);
    let phone = string(&enrolled["secret"]);
    let _ = machine.log();
    let alice = |arguments: &[&str]| by(&machine, ALICE, arguments);
    let mut terminal = Terminal::run(&alice(&["device", "add", "tablet"]), "C.UTF-8");
    assert_eq!(terminal.until(PROMPT_OR_RECOVERY), PROMPT_OR_RECOVERY, "nothing is shown before");
    let code = code_now(&phone);
    terminal.enter(&code);
    let shown = terminal.until(FIRST_CODE);
    assert!(shown.contains("Scan this") && shown.contains('█') && !shown.contains(&code), "{shown}");
    let tablet = secret_on(&shown);
    terminal.enter(&wrong_code(&tablet));
    assert!(terminal.until(FIRST_CODE).contains("That is not the code of this secret now"));
    let first = code_now(&tablet);
    terminal.enter(&first);
    let (shown, succeeded) = terminal.finish();
    assert!(succeeded && shown.contains("alice: tablet added.") && !shown.contains(&first), "{shown}");
    let log = ours(&machine);
    assert_eq!(log.len(), 2, "{log:#?}");
    assert!(
        log[0].contains(": accepted user=alice rhost= factor=totp ") && log[0].contains(" device=phone "),
        "{log:?}"
    );
    assert!(log[1].ends_with(": changed user=alice rhost= change=device-add device=tablet peer=20001"), "{log:?}");
    assert!(!log.concat().contains(&tablet));
    // The first code is used up, the next one removes the phone.
    assert_eq!(machine.login("test", "alice").answer(&first).run().reason(), "used-code");
    let removed = typed(alice(&["device", "remove", "phone"]), &[&next_code(&tablet)]);
    assert!(removed.status.success(), "{removed:?}");
    assert_eq!(String::from_utf8_lossy(&removed.stdout), "alice: phone removed.\n");
    let log = ours(&machine);
    assert!(log.iter().any(|line| line.contains(" change=device-remove device=phone ")), "{log:#?}");
    let denied = machine.login("test", "alice").answer(next_code(&phone)).run();
    assert_eq!((denied.result(), denied.reason().as_str()), (AUTH_ERR, "wrong-code"));
    assert!(!machine.read(&format!("{STATE}/records/alice")).contains(&phone));
}

#[test]
fn new_recovery_codes_end_the_old_ones() {
    let machine = machine("via = \"agent\"\n");
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    let shown = alice.done(&["recovery", "new"]);
    let new = recovery_codes(&shown);
    assert_eq!(new.len(), 5, "{shown}");
    assert_eq!(alice.log_in(&alice.recovery[0]), AUTH_ERR);
    assert_eq!(alice.log_in(&new[0]), SUCCESS);
    let object: Value = serde_json::from_str(&alice.done(&["recovery", "new", "--count", "2", "--json"])).unwrap();
    assert_eq!(object["user"], "alice");
    assert!(ours(&machine).iter().any(|line| line.contains(" change=recovery-new count=2 peer=20001")));
    let codes = object["recovery_codes"].as_array().unwrap();
    assert_eq!((codes.len(), alice.log_in(&string(&codes[1])), alice.log_in(&new[1])), (2, SUCCESS, AUTH_ERR));
}

#[test]
fn what_cannot_be_shown_is_not_stored() {
    let machine = machine("");
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let line = format!("echo {} | pam-totp recovery new", alice.code());
    let line = line.replace("pam-totp", machine.program().to_str().unwrap());
    let status = machine.command_as(ALICE, "sh").args(["-c", &line]).stdout(full).status().unwrap();
    assert!(!status.success());
    assert_eq!(alice.log_in(&alice.recovery[0]), SUCCESS);
}

#[test]
fn status_is_what_root_sees_of_them() {
    let machine = machine("");
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    assert_eq!(alice.log_in(&code_now(&alice.phone)), SUCCESS);
    for arguments in [&["status"][..], &["status", "--json"], &["device", "list"], &["device", "list", "--json"]] {
        let hers = alice.done(arguments);
        let roots = totp(&machine, &[arguments, &["--user", "alice"]].concat());
        assert_eq!(hers, roots);
        assert!(hers.contains("phone") && hers.contains("token"), "{hers}");
        assert!(!hers.contains(&alice.phone) && !hers.contains(&alice.token));
    }
}

#[test]
fn a_recovery_code_brings_the_next_device_and_nothing_else() {
    let machine = machine("");
    let _agent = Agent::start_shared(&machine);
    let alice = Person::new(&machine, ALICE);
    for arguments in [&["device", "remove", "phone"][..], &["recovery", "new"], &["status"]] {
        alice.refused(arguments, &alice.recovery[0], "pam-totp: not accepted");
    }
    let mut terminal = Terminal::run(&alice.command(&["device", "add", "tablet", "--qr-mode", "none"]), "C.UTF-8");
    terminal.until(PROMPT_OR_RECOVERY);
    // Nor were those that were refused used up by it.
    terminal.enter(&alice.recovery[0]);
    let tablet = secret_on(&terminal.until(FIRST_CODE));
    terminal.enter(&code_now(&tablet));
    assert!(terminal.finish().1);
    assert_eq!(alice.devices(), ["phone", "token", "tablet"]);
    alice.refused(&["device", "add", "x"], &alice.recovery[0], "pam-totp: not accepted");
}

#[test]
fn the_last_device_stays() {
    let machine = machine("");
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    let object: Value = serde_json::from_str(&alice.done(&["device", "remove", "phone", "--json"])).unwrap();
    assert_eq!(object, serde_json::json!({ "user": "alice", "device": "phone", "removed": true }));
    for arguments in [&["device", "remove", "token"][..], &["device", "remove", "token", "--force"]] {
        let code = alice.code();
        alice.refused(arguments, &code, "last-device device=token (add another one first");
    }
    let code = alice.code();
    alice.refused(&["device", "remove", "phone"], &code, "no-such-device device=phone");
    assert!(ours(&machine).iter().any(|line| line.contains(": not changed user=alice rhost= reason=last-device ")));
}

// ---- What is refused ----

#[test]
fn what_is_wrong_with_a_code_is_in_the_log_alone() {
    let machine = machine("[throttle]\nuser = \"*:3/1h\"\nhost = \"\"\n");
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    let used = code_now(&alice.phone);
    assert_eq!(alice.log_in(&used), SUCCESS);
    let _ = machine.log();
    let (wrong, right) = (wrong_code(&alice.phone), alice.code());
    for (answer, reason) in [
        ("", "empty-answer"),
        ("x", "not-a-code"),
        (&*used, "used-code"),
        (&*wrong, "wrong-code"),
        (&*wrong, "wrong-code"),
    ] {
        alice.refused(&["device", "remove", "phone"], answer, "pam-totp: not accepted\n");
        let log = ours(&machine);
        assert_eq!(log.len(), 1, "{log:?}");
        assert!(log[0].contains(&format!(": denied user=alice rhost= reason={reason} ")), "{log:?}");
    }
    // The right one comes too late.
    for arguments in [&["device", "remove", "token"][..], &["status"], &["recovery", "new"], &["device", "add", "x"]] {
        alice.refused(arguments, &right, "pam-totp: not accepted\n");
        let log = ours(&machine);
        assert!(log[0].contains("reason=throttled "), "{arguments:?} {log:?}");
    }
    totp(&machine, &["throttle", "unlock", "--user", "alice"]);
    assert!(alice.typed(&["status"], &[&right]).status.success());
}

#[test]
fn nothing_spares_anybody_the_code() {
    let machine = machine(
        "grace = \"1h\"\nenrolment = \"optional\"\n[[exempt]]\nusers = [\"any\"]\nnetworks = [\"any\"]\n\
         services = [\"any\"]\nuntil = 2999-01-01\nreason = \"a test\"\n",
    );
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    alice.done(&["status"]);
    alice.refused(&["device", "remove", "phone"], "", "pam-totp: not accepted");
    let wrong = wrong_code(&alice.phone);
    alice.refused(&["device", "remove", "phone"], &wrong, "pam-totp: not accepted");
    // Who has none has none that could be accepted.
    let output = typed(by(&machine, BOB, &["device", "add", "x"]), &["123456"]);
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("pam-totp: not accepted\n"), "{output:?}");
    assert_eq!(run(&machine, &["device", "list", "bob"]).status.code(), Some(1));
}

#[test]
fn without_an_agent_there_is_root() {
    let machine = machine("");
    let alice = Person::new(&machine, ALICE);
    for arguments in [&["status"][..], &["device", "list"], &["device", "remove", "phone"], &["recovery", "new"]] {
        alice.refused(arguments, "", "pam-totp: only root can ");
        alice.refused(arguments, "", "no-agent path=");
        alice.refused(arguments, "", "(is pam-totp-agent running?)");
    }
    let _agent = Agent::start_shared(&machine);
    alice.refused(&["device", "add", "x", "--no-confirm"], "", "only root can add a device that has shown no code");
    alice.refused(&["device", "add", "x", "--quiet"], "", "only root can add a device that has shown no code");
    alice.refused(&["status", "--user", "bob"], "", "only root can do this for somebody else");
    alice.refused(&["device", "rename", "phone", "x"], "", "only root can ");
}

#[test]
fn of_an_account_that_is_shared_nobody_is_anybody() {
    let machine = machine("[service.sshd]\nidentity = \"login-key\"\n");
    let _agent = Agent::start_shared(&machine);
    machine.add(EC2_USER);
    let key = "key-id:carol";
    let person = Person::new(&machine, ALICE);
    let enrolled = json(&machine, &["enrol", "--user", "ec2-user", "--key", key, "--no-confirm"]);
    let own = |arguments: &[&str]| typed(by(&machine, EC2_USER, arguments), &[&code_now(&string(&enrolled["secret"]))]);
    let output = own(&["status"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("pam-totp: shared-account user=ec2-user ("),
        "{output:?}"
    );
    let output = own(&["status", "--key", key]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("only root can "), "{output:?}");
    // Others have one of their own.
    assert!(person.typed(&["status"], &[&code_now(&person.phone)]).status.success());
}

#[test]
fn who_asks_is_who_is_at_the_socket() {
    let machine = machine("");
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    let mut bob = Person::new(&machine, BOB);
    for uid in [0, 65534] {
        assert_eq!(ending(send(&machine, uid, &Request::Wish(Wish::Status))), "caller-refused", "{uid}");
    }
    // Nobody waits for what a uid without an account has to say.
    let of_nobody = ending(send(&machine, 12345, &Request::Wish(Wish::Status)));
    assert!(["caller-refused", "nothing"].contains(&of_nobody.as_str()), "{of_nobody}");
    // What is sealed for alice is nothing for bob, with whosever code.
    let wish = alice.wish(add("hers"));
    let (_, proposal) = alice.proposal(add("hers"));
    for code in [alice.code(), bob.code()] {
        for sealed in [&wish, &proposal] {
            assert_eq!(ending(bob.send(&proof(sealed, &code))), "unknown-wish");
            assert_eq!(ending(send(&machine, 0, &proof(sealed, &code))), "unknown-wish");
        }
    }
    // A wish is no login, nor the other way round.
    let answer = Request::Answer(wish.clone(), Ok(Secret::new(alice.code().into())));
    assert_eq!(ending(alice.send(&answer)), "denied");
    let mut altered = wish.clone();
    for at in [0, 5, 30, wish.len() - 1] {
        altered[at] ^= 1;
        assert_eq!(ending(alice.send(&proof(&altered, &alice.recovery[0].clone()))), "unknown-wish");
        altered[at] ^= 1;
    }
    // There is no place for a name, and what is no wish is not answered.
    let message = Request::Wish(Wish::Status).message().unwrap().expose().clone();
    assert_eq!(ending(send_bytes(&machine, BOB.uid, &[&message[..], b"\0\x05alice"].concat())), "nothing");
    for garbage in [&b"\x01W"[..], b"\x01Wr\0\0", b"\x01Wn\xff", b"\x01Wz", b"\x01P", b"\x01P\xff\xff"] {
        assert_eq!(ending(send_bytes(&machine, BOB.uid, garbage)), "nothing", "{garbage:?}");
    }
    assert_eq!(alice.devices(), ["phone", "token"]);
    assert_eq!(bob.devices(), ["phone", "token"]);
}

// ---- What happens meanwhile ----

#[test]
fn an_agent_that_was_started_anew_knows_of_nothing() {
    let machine = machine("");
    let mut agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    let mut terminal = Terminal::run(&alice.command(&["device", "add", "tablet"]), "C.UTF-8");
    terminal.until(PROMPT_OR_RECOVERY);
    agent.again();
    let code = alice.code();
    terminal.enter(&code);
    let (shown, succeeded) = terminal.finish();
    assert!(!succeeded && shown.contains("unknown-wish (the agent was started anew while you typed"), "{shown}");
    let mut terminal = Terminal::run(&alice.command(&["device", "add", "tablet"]), "C.UTF-8");
    terminal.until(PROMPT_OR_RECOVERY);
    // It was not used up.
    terminal.enter(&code);
    let tablet = secret_on(&terminal.until(FIRST_CODE));
    agent.again();
    terminal.enter(&code_now(&tablet));
    let (shown, succeeded) = terminal.finish();
    assert!(!succeeded && shown.contains("unknown-wish"), "{shown}");
    assert_eq!(alice.devices(), ["phone", "token"]);
    agent.kill();
    alice.refused(&["status"], "", "no-agent");
}

#[test]
fn of_two_at_once_none_loses_what_the_other_stored() {
    let machine = machine("");
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    let (one, first) = alice.proposal(add("one"));
    let (two, second) = alice.proposal(add("two"));
    let (again, twin) = alice.proposal(add("one"));
    let removal = alice.wish(Wish::Remove { name: "phone".to_owned() });
    let code = alice.code();
    let app = |secret: &Secret<Vec<u8>>| code_now(base32::encode(secret.expose()).expose());
    let requests = [proof(&first, &app(&one)), proof(&second, &app(&two)), proof(&removal, &code)];
    let replies: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = requests.iter().map(|request| scope.spawn(|| ending(alice.send(request)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(replies, ["done"; 3]);
    let mut devices = alice.devices();
    devices.sort();
    assert_eq!(devices, ["one", "token", "two"]);
    assert_eq!(ending(alice.send(&proof(&twin, &app(&again)))), "name-taken");
}

#[test]
fn what_was_removed_does_not_come_back_by_what_was_sealed() {
    let machine = machine("");
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    let (secret, proposal) = alice.proposal(add("tablet"));
    let request = proof(&proposal, &code_now(base32::encode(secret.expose()).expose()));
    let replies: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| ending(alice.send(&request)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(replies.iter().filter(|reply| *reply == "done").count(), 1, "{replies:?}");
    totp(&machine, &["device", "remove", "tablet", "--user", "alice"]);
    assert_eq!(ending(alice.send(&request)), "used-wish");
    // Nor do recovery codes that are spent.
    let (_, proposal) = alice.proposal(Wish::Recovery { count: 5 });
    assert_eq!(ending(alice.send(&proof(&proposal, ""))), "done");
    totp(&machine, &["recovery", "new", "--user", "alice"]);
    assert_eq!(ending(alice.send(&proof(&proposal, ""))), "used-wish");
    // A wish whose code was used up needs another.
    let wish = alice.wish(add("x"));
    let code = alice.code();
    assert_eq!(ending(alice.send(&proof(&wish, &code))), "question");
    assert_eq!(ending(alice.send(&proof(&wish, &code))), "denied");
    assert_eq!(alice.devices(), ["phone", "token"]);
}

#[test]
fn what_root_does_meanwhile_holds() {
    let machine = machine("");
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    let app = |secret: &Secret<Vec<u8>>| code_now(base32::encode(secret.expose()).expose());
    // The device whose code it was is gone.
    let (secret, proposal) = alice.proposal(add("tablet"));
    let (_, codes) = alice.proposal(Wish::Recovery { count: 5 });
    totp(&machine, &["device", "remove", "token", "--user", "alice"]);
    assert_eq!(ending(alice.send(&proof(&proposal, &app(&secret)))), "record-changed");
    assert_eq!(ending(alice.send(&proof(&codes, ""))), "record-changed");
    // So is she.
    let mut bob = Person::new(&machine, BOB);
    let (secret, proposal) = bob.proposal(add("tablet"));
    totp(&machine, &["remove", "--user", "bob"]);
    assert_eq!(ending(bob.send(&proof(&proposal, &app(&secret)))), "record-gone");
    // Somebody of her name and with a device of that name is somebody else.
    let (secret, proposal) = {
        totp(&machine, &["reset", "--user", "bob"]);
        let mut bob = Person::new(&machine, BOB);
        bob.proposal(add("tablet"))
    };
    totp(&machine, &["reset", "--user", "bob"]);
    let bob = Person::new(&machine, BOB);
    assert_eq!(ending(bob.send(&proof(&proposal, &app(&secret)))), "record-changed");
    assert_eq!(bob.devices(), ["phone", "token"]);
    assert_eq!(alice.devices(), ["phone"]);
}

#[test]
fn what_would_not_be_stored_is_not_shown() {
    let machine = machine("");
    let _agent = Agent::start_shared(&machine);
    let mut alice = Person::new(&machine, ALICE);
    for name in ["phone", "token"] {
        let wish = alice.wish(add(name));
        let code = alice.code();
        assert_eq!(ending(alice.send(&proof(&wish, &code))), "name-taken");
    }
    for number in 0.. {
        let name = format!("a device with quite a long name, and the number {number}");
        let added = run(&machine, &["device", "add", &name, "--user", "alice", "--no-confirm"]);
        if !added.status.success() {
            break;
        }
    }
    let wish = alice.wish(add("a device with quite a long name, and no number"));
    let code = alice.code();
    assert_eq!(ending(alice.send(&proof(&wish, &code))), "record-too-large");
    // A first code that is wrong too often, and one that never was one.
    let bob = &mut Person::new(&machine, BOB);
    let (secret, mut proposal) = bob.proposal(add("tablet"));
    let wrong = wrong_code(base32::encode(secret.expose()).expose());
    for _ in 0..4 {
        proposal = question(bob.send(&proof(&proposal, &wrong))).1;
        proposal = question(bob.send(&proof(&proposal, "x"))).1;
    }
    assert_eq!(ending(bob.send(&proof(&proposal, &wrong))), "wrong-first-code");
    assert_eq!(bob.devices(), ["phone", "token"]);
}
