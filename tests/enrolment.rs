//! A first device inside a login: what a person sees of it through a real ssh client, and who does not get to see it.

use crate::support::machine::{ALICE, AUTH_ERR, BOB, IGNORE, Machine, SUCCESS, User};
use crate::support::ssh::{KEY_AND_CODE, Session, Sshd};
use crate::support::totp::{code_at, code_now, now, wrong_code};
use crate::support::{self, dist, output_of, screen};
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

const POLICY: &str = "/etc/security/pam_totp.toml";
const STATE: &str = "/var/lib/pam_totp";
const STACK: &str = "auth required pam_totp.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
const PROMPT: &str = "Verification code: ";

/// A machine with a root-only store, on which people enrol inside their first login.
fn machine(policy: &str) -> Machine {
    let machine = Machine::new();
    for service in ["sshd", "test"] {
        machine.service(service, STACK);
    }
    machine.write(POLICY, format!("version = 1\n[defaults]\nstore = \"system\"\n{policy}"));
    fs::copy(dist("pam-totp"), machine.shared().join("pam-totp")).unwrap();
    totp(&machine, &["setup", "store"]);
    machine
}

fn inline() -> Machine {
    machine("[service.sshd]\nenrolment = \"inline\"\n")
}

fn run(machine: &Machine, arguments: &[&str]) -> Output {
    machine.command(machine.shared().join("pam-totp")).args(arguments).output().unwrap()
}

fn totp(machine: &Machine, arguments: &[&str]) -> String {
    output_of(machine.command(machine.shared().join("pam-totp")).args(arguments))
}

fn json(machine: &Machine, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&totp(machine, &[arguments, &["--json"]].concat())).unwrap()
}

/// A ticket of somebody's.
fn ticket(machine: &Machine, user: &str, more: &[&str]) -> String {
    json(machine, &[&["invite", user], more].concat())["ticket"].as_str().unwrap().to_owned()
}

/// The secret in what was scanned.
fn secret(uri: &str) -> String {
    let (_, rest) = uri.split_once("secret=").unwrap_or_else(|| panic!("{uri}"));
    rest.split('&').next().unwrap().to_owned()
}

fn recovery_codes(screen: &str) -> Vec<String> {
    let is_code = |line: &&str| line.len() == 29 && line.matches('-').count() == 5;
    screen.lines().map(str::trim).filter(is_code).map(str::to_owned).collect()
}

/// Whether there is anything of somebody in the store.
fn has_record(machine: &Machine, user: User) -> bool {
    machine.path(&format!("{STATE}/records/{}", user.name)).exists()
}

/// The code after the one that is used up.
fn next_code(secret: &str) -> String {
    code_at(secret, now() + 30)
}

#[test]
fn the_first_login_shows_a_qr_code_and_ends_with_a_device() {
    let machine = inline();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &[]);
    let shown = client.question().unwrap();
    // Nothing of it is behind the client's "(alice@127.0.0.1) ", and nothing acts on a terminal.
    assert!(shown.starts_with("(alice@127.0.0.1) \n") && shown.ends_with(&format!("\n{PROMPT}")), "{shown}");
    assert!(!shown.contains('\x1b') && shown.contains('█'));
    let uri = screen::scan(&shown);
    assert_eq!(uri, screen::uri(&shown));
    let secret = secret(&uri);
    assert!(shown.contains(&format!("Secret, to type into the app instead: {secret}\n")));
    let recovery = recovery_codes(&shown);
    assert_eq!(recovery.len(), 5, "{shown}");
    assert!(!has_record(&machine, ALICE), "nothing is stored before a code was right");

    client.answer(&code_now(&secret));
    let session = client.finish();
    assert!(session.succeeded, "{session:#?} {:#?}", machine.log());
    assert_eq!(session.output, "in as alice\n");
    let log = machine.log();
    let ours: Vec<_> = log.iter().filter(|line| line.contains("pam_totp(sshd:auth)")).collect();
    let expected =
        "pam_totp(sshd:auth): accepted user=alice rhost=127.0.0.1 factor=totp steps=+0 device=phone enrolled=first";
    assert_eq!(ours, [expected], "{log:#?}");
    assert!(!log.iter().any(|line| line.contains(&secret) || recovery.iter().any(|code| line.contains(code))));

    // From now on it is a login like any other: the code is used up, the next one is good, and so is a recovery code.
    let used = sshd.login(ALICE, &[&code_now(&secret)]);
    assert!(!used.succeeded);
    assert_eq!(used.questions, [format!("(alice@127.0.0.1) {PROMPT}")]);
    assert!(sshd.login(ALICE, &[&next_code(&secret)]).succeeded);
    assert!(sshd.login(ALICE, &[&recovery[2]]).succeeded);
    assert!(!sshd.login(ALICE, &[&recovery[2]]).succeeded);
    let status = json(&machine, &["status", "--user", "alice"]);
    assert_eq!((status["recovery_codes"].as_u64(), status["devices"].as_array().map(Vec::len)), (Some(4), Some(1)));
}

/// What a terminal shows up to the end of the prompt, typed at as a person would.
fn on_a_terminal(sshd: &Sshd, locale: &str, options: &[&str], answer: impl FnOnce(&str) -> String) -> (String, String) {
    sshd.on_a_terminal(ALICE, locale, options, PROMPT, answer)
}

#[test]
fn on_a_terminal_the_code_is_scanned_from_the_screen() {
    for (qr, locale, options) in
        [("utf8", "C.UTF-8", &["-tt"][..]), ("ascii", "C", &["-tt"]), ("utf8", "C.UTF-8", &["-T"])]
    {
        let machine = machine(&format!("qr = \"{qr}\"\n[service.sshd]\nenrolment = \"inline\"\n"));
        let sshd = Sshd::start(&machine, KEY_AND_CODE);
        let mut scanned = String::new();
        let (before, after) = on_a_terminal(&sshd, locale, options, |shown| {
            scanned = screen::scan(&screen::plain(shown));
            code_now(&secret(&scanned))
        });
        assert!(after.contains("in as alice"), "{qr}: {before}{after} {:#?}", machine.log());
        let columns = |line: &&str| line.chars().count();
        let widest = screen::code(&screen::plain(&before)).iter().map(columns).max().unwrap();
        assert!(widest <= 80, "{widest} columns");
        assert!(sshd.login(ALICE, &[&next_code(&secret(&scanned))]).succeeded);
    }
}

#[test]
fn without_a_picture_the_secret_is_typed() {
    let machine = machine("qr = \"off\"\n[service.sshd]\nenrolment = \"inline\"\n");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &[]);
    let mut typed = String::new();
    client.reply(|shown| {
        assert!(!shown.contains("##") && !shown.contains('█'), "{shown}");
        typed = secret(&screen::uri(shown));
        code_now(&typed)
    });
    assert!(client.finish().succeeded);
    assert!(sshd.login(ALICE, &[&next_code(&typed)]).succeeded);
}

#[test]
fn a_wrong_first_code_stores_nothing_and_is_charged() {
    let machine = inline();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &["-o", "NumberOfPasswordPrompts=1"]);
    let mut first = String::new();
    client.reply(|shown| {
        first = secret(&screen::scan(shown));
        wrong_code(&first)
    });
    for _ in 0..2 {
        client.reply(|shown| {
            assert!(shown.ends_with(PROMPT) && !shown.contains('█'), "{shown}");
            wrong_code(&first)
        });
    }
    assert!(!client.finish().succeeded);
    let log = machine.log();
    let denied: Vec<_> = log.iter().filter(|line| line.contains(" denied ")).collect();
    let expected = "pam_totp(sshd:auth): denied user=alice rhost=127.0.0.1 reason=wrong-code tries=3 enrolment=first";
    assert_eq!(denied, [expected], "{log:#?}");
    assert!(!has_record(&machine, ALICE));
    let rows = json(&machine, &["throttle", "list"]);
    let charged = |name: &str, counted: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name && row["counted"] == counted);
        row.map(|row| row["failures"].as_u64().unwrap())
    };
    assert_eq!((charged("alice", "strangers"), charged("127.0.0.1", "source")), (Some(3), Some(3)), "{rows}");

    // The next login has another secret, of which codes of the last one are none.
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &["-o", "NumberOfPasswordPrompts=1"]);
    let mut second = String::new();
    client.reply(|shown| {
        second = secret(&screen::scan(shown));
        code_now(&first)
    });
    assert_ne!(first, second);
    client.reply(|_| code_now(&second));
    assert!(client.finish().succeeded);
    // What that login was charged it has taken back, and nothing else.
    let rows = json(&machine, &["throttle", "list"]);
    assert!(rows.to_string().contains("\"failures\":3"), "{rows}");
}

#[test]
fn of_two_sessions_at_once_one_wins() {
    let machine = inline();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    for round in 0..6 {
        let mut clients = [sshd.talk("alice", &sshd.key(ALICE), &[]), sshd.talk("alice", &sshd.key(ALICE), &[])];
        let secrets = clients.each_mut().map(|client| secret(&screen::scan(&client.question().unwrap())));
        assert_ne!(secrets[0], secrets[1]);
        let codes = secrets.each_ref().map(|secret| code_now(secret));
        clients.iter().zip(&codes).for_each(|(client, code)| client.answer(code));
        let sessions = clients.map(|client| finish_anyhow(client));
        let winners: Vec<_> = (0..2).filter(|&place| sessions[place].succeeded).collect();
        assert_eq!(winners.len(), 1, "round {round}: {sessions:#?} {:#?}", machine.log());
        let log = machine.log();
        let lost = log.iter().filter(|line| line.contains("reason=already-enrolled enrolment=first")).count();
        assert_eq!(lost, 1, "{log:#?}");
        // The device is the winner's.
        let uri_secret = &secrets[winners[0]];
        assert!(sshd.login(ALICE, &[&next_code(uri_secret)]).succeeded);
        totp(&machine, &["reset", "--user", "alice"]);
        totp(&machine, &["throttle", "unlock", "--user", "alice"]);
        totp(&machine, &["throttle", "unlock", "--host", "127.0.0.1"]);
        machine.log();
    }
}

/// The end of a client that may be asked again, and says nothing then.
fn finish_anyhow(mut client: support::ssh::Dialogue) -> Session {
    while client.question().is_some() {
        client.answer("");
    }
    client.finish()
}

#[test]
fn a_client_that_goes_away_leaves_nothing_behind() {
    let machine = inline();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &[]);
    client.question().unwrap();
    client.hang_up();
    assert!(!has_record(&machine, ALICE));
    assert!(totp(&machine, &["status", "--user", "alice"]).contains("not enrolled"));
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &[]);
    client.reply(|shown| code_now(&secret(&screen::scan(shown))));
    assert!(client.finish().succeeded);
}

#[test]
fn a_record_that_appears_meanwhile_stays() {
    let machine = inline();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &[]);
    let shown = client.question().unwrap();
    let enrolled = json(&machine, &["enrol", "--user", "alice", "--no-confirm"]);
    client.answer(&code_now(&secret(&screen::scan(&shown))));
    assert!(!finish_anyhow(client).succeeded);
    assert!(sshd.login(ALICE, &[&code_now(enrolled["secret"].as_str().unwrap())]).succeeded);
    // The same where root removes it again: whoever had a device needs root's word.
    let mut client = sshd.talk("bob", &sshd.key(BOB), &[]);
    let shown = client.question().unwrap();
    json(&machine, &["enrol", "--user", "bob", "--no-confirm"]);
    totp(&machine, &["remove", "--user", "bob"]);
    machine.log();
    client.answer(&code_now(&secret(&screen::scan(&shown))));
    assert!(!finish_anyhow(client).succeeded);
    assert!(machine.log().iter().any(|line| line.contains("reason=not-invited grounds=first")));
    assert!(!has_record(&machine, BOB));
}
