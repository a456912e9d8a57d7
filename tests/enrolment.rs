//! A first device inside a login: what a person sees of it through a real ssh client, and who does not get to see it.

use crate::support::machine::{ALICE, AUTH_ERR, AUTHINFO_UNAVAIL, BOB, Home, Machine, PERM_DENIED, User};
use crate::support::root_only::{
    self, POLICY, PROMPT, STACK, STATE, json, next_code, ready, recovery_codes, run, secret, ticket, totp,
};
use crate::support::ssh::{KEY_AND_CODE, Session, Sshd};
use crate::support::terminal::Terminal;
use crate::support::totp::{SECRET, code_now, wrong_code};
use crate::support::{self, dist, output_of, reasons, screen};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const INLINE: &str = "[service.sshd]\nenrolment = \"inline\"\n";

/// What is tested here is not how long a denial takes.
fn machine(policy: &str) -> Machine {
    root_only::machine(&format!("fail_delay = \"0s\"\n{policy}"))
}

fn inline() -> Machine {
    machine(INLINE)
}

/// Whether there is anything of somebody in the store.
fn has_record(machine: &Machine, user: User) -> bool {
    machine.path(&format!("{STATE}/records/{}", user.name)).exists()
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

#[test]
fn on_a_terminal_the_code_is_scanned_from_the_screen() {
    for (qr, locale, options) in
        [("utf8", "C.UTF-8", &["-tt"][..]), ("ascii", "C", &["-tt"]), ("utf8", "C.UTF-8", &["-T"])]
    {
        let machine = machine(&format!("qr = \"{qr}\"\n[service.sshd]\nenrolment = \"inline\"\n"));
        let sshd = Sshd::start(&machine, KEY_AND_CODE);
        let mut terminal = sshd.on_a_terminal(ALICE, locale, options);
        let shown = screen::plain(&terminal.until(PROMPT));
        let secret = secret(&screen::scan(&shown));
        terminal.enter(&code_now(&secret));
        let (after, succeeded) = terminal.finish();
        assert!(succeeded && after.contains("in as alice"), "{qr}: {shown}{after} {:#?}", machine.log());
        let widest = screen::code(&shown).iter().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 80, "{widest} columns");
        assert!(sshd.login(ALICE, &[&next_code(&secret)]).succeeded);
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
    for round in 0..support::rounds(3, 6) {
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

#[test]
fn nobody_is_told_of_the_code_that_enrolled_them_as_a_failure() {
    let machine = machine("enrolment = \"inline\"\n");
    machine.service("notice", &format!("{STACK}session optional pam_totp.so\n"));
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let told = |user: User, secret: &str| {
        let login = machine.login("notice", user.name).answer(next_code(secret)).with(&["--open-session"]).run();
        assert_eq!(login.result(), 0, "{login:#?}");
        login.output.lines().filter(|line| line.starts_with("told ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &[]);
    let mut alices = String::new();
    client.reply(|shown| {
        alices = secret(&screen::scan(shown));
        code_now(&alices)
    });
    assert!(client.finish().succeeded);
    assert_eq!(told(ALICE, &alices), [""; 0]);
    // Of what failed before they are, and of nothing else: two codes, and not the ticket nor the code behind it.
    for _ in 0..2 {
        assert_eq!(machine.login("test", "bob").answer("123456").run().result(), AUTH_ERR);
    }
    totp(&machine, &["remove", "--user", "alice"]);
    let word = ticket(&machine, "alice", &[]);
    let (_, alices, session) = with_ticket(&sshd, ALICE, &word);
    assert!(session.succeeded);
    assert_eq!(told(ALICE, &alices), [""; 0]);
    let mut client = sshd.talk("bob", &sshd.key(BOB), &[]);
    let mut bobs = String::new();
    client.reply(|shown| {
        bobs = secret(&screen::scan(shown));
        code_now(&bobs)
    });
    assert!(client.finish().succeeded);
    let told = told(BOB, &bobs);
    assert!(told.len() == 1 && told[0].contains("2 codes failed since your last login"), "{told:?}");
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

// ---- Tickets ----

/// Enrols through a client that is asked for a ticket first, and says what was asked and the secret.
fn with_ticket(sshd: &Sshd, user: User, ticket: &str) -> (String, String, Session) {
    let mut client = sshd.talk(user.name, &sshd.key(user), &["-o", "NumberOfPasswordPrompts=1"]);
    let asked = client.question().unwrap();
    client.answer(ticket);
    let mut scanned = String::new();
    client.reply(|shown| {
        scanned = secret(&screen::scan(shown));
        code_now(&scanned)
    });
    (asked, scanned, client.finish())
}

#[test]
fn a_ticket_is_good_for_one_device() {
    let machine = machine("[service.sshd]\nenrolment = \"ticket\"\n");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let word = ticket(&machine, "alice", &["--device", "alice's phone"]);
    let letters = word.chars().filter(char::is_ascii_alphanumeric).count();
    assert!(letters * 5 >= 80, "{word}");
    // Only its hash is kept.
    let found = machine.command("grep").args(["-rlF", &word[..9], STATE]).output().unwrap();
    assert!(found.stdout.is_empty(), "{found:?}");

    let (asked, secret, session) = with_ticket(&sshd, ALICE, &word);
    assert!(session.succeeded, "{session:#?} {:#?}", machine.log());
    assert!(asked.contains("alice has no device at ") && asked.contains("Type your ticket"), "{asked}");
    assert!(asked.starts_with("(alice@127.0.0.1) \n") && asked.ends_with(PROMPT), "{asked}");
    let log = machine.log();
    assert!(log.iter().any(|line| line.ends_with("device=alice\\x27s\\x20phone enrolled=ticket")), "{log:#?}");
    assert!(sshd.login(ALICE, &[&next_code(&secret)]).succeeded);

    // Used it is, also where the device is gone again.
    totp(&machine, &["remove", "--user", "alice"]);
    machine.log();
    assert!(!sshd.login(ALICE, &[&word]).succeeded);
    assert_eq!(reasons(&machine.log()), ["wrong-ticket"]);
    // A new one is the way back, typed however one likes; nobody else's is.
    let bobs = ticket(&machine, "bob", &[]);
    let word = ticket(&machine, "alice", &[]).to_lowercase().replace('-', " ");
    assert!(!sshd.login(ALICE, &[&bobs]).succeeded);
    assert!(with_ticket(&sshd, ALICE, &word).2.succeeded, "{:#?}", machine.log());
    assert!(!has_record(&machine, BOB));
}

#[test]
fn a_ticket_that_nobody_can_use_any_more_opens_nothing() {
    let machine = machine("enrolment = \"ticket\"\n");
    let refused = |word: &str, reason: &str| {
        let login = machine.login("test", "alice").answer(word).run();
        assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, reason), "{login:#?}");
        assert_eq!(login.prompts, [format!("1 {PROMPT:?}")]);
    };
    let word = ticket(&machine, "alice", &[]);
    // Taken back.
    assert_eq!(json(&machine, &["invite", "alice", "--revoke"])["revoked"].as_u64(), Some(1));
    refused(&word, "wrong-ticket");
    // Of somebody of that name whose uid is another's now.
    let word = ticket(&machine, "alice", &[]);
    let users = machine.read("/etc/passwd");
    machine.write("/etc/passwd", users.replace("alice:x:20001:", "alice:x:20009:"));
    refused(&word, "wrong-ticket");
    machine.write("/etc/passwd", users);
    // Of somebody who was enrolled otherwise since, and is not any more.
    json(&machine, &["enrol", "--user", "alice", "--no-confirm"]);
    totp(&machine, &["remove", "--user", "alice"]);
    refused(&word, "wrong-ticket");
    // Over. A clock that goes back does not bring it back.
    let word = ticket(&machine, "alice", &["--expires", "2h"]);
    let login = machine.login_when(7300, 7300, "test", "alice").answer(&word).run();
    assert_eq!(login.reason(), "ticket-over", "{login:#?}");
    refused(&word, "ticket-over");
    // And no new one is made that would be over before it was made.
    let output = run(&machine, &["invite", "alice", "--expires", "1h"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("throttle unlock --clock"), "{output:?}");
    totp(&machine, &["throttle", "unlock", "--clock"]);
    assert_eq!(run(&machine, &["invite", "alice", "--expires", "1h"]).status.code(), Some(0));
    assert!(!has_record(&machine, ALICE));
}

#[test]
fn wrong_tickets_are_charged() {
    let machine = machine("enrolment = \"ticket\"\n");
    let word = ticket(&machine, "alice", &[]);
    let wrong = format!("{}AAAA", &word[..25]);
    for guess in 0..11 {
        let login = machine.login("test", "alice").answer(&wrong).with(&["--rhost", "192.0.2.1"]).run();
        assert_eq!(login.reason(), if guess < 10 { "wrong-ticket" } else { "throttled" }, "{guess}");
    }
    // The right one is not judged either.
    let login = machine.login("test", "alice").answer(&word).with(&["--rhost", "192.0.2.1"]).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "throttled"));
}

#[test]
fn of_two_sessions_with_one_ticket_one_wins() {
    let machine = machine("enrolment = \"ticket\"\n");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let word = ticket(&machine, "alice", &[]);
    let begin = || {
        let mut client = sshd.talk("alice", &sshd.key(ALICE), &["-o", "NumberOfPasswordPrompts=1"]);
        client.reply(|_| word.clone());
        let secret = secret(&screen::scan(&client.question().unwrap()));
        (client, secret)
    };
    let clients = [begin(), begin()];
    clients.iter().for_each(|(client, secret)| client.answer(&code_now(secret)));
    let won = clients.map(|(client, _)| finish_anyhow(client).succeeded);
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?} {:#?}", machine.log());
}

/// Somebody at su, by their own hand.
fn su(machine: &Machine, from: User, to: User) -> Terminal {
    Terminal::run(machine.command_as(from, "su").args([to.name, "-c", "id -un"]), "C.UTF-8")
}

#[test]
fn at_su_the_ticket_is_typed_at_the_ordinary_prompt() {
    let machine = machine("enrolment = \"inline\"\n");
    machine.service("su", STACK);
    let word = ticket(&machine, "bob", &[]);
    json(&machine, &["enrol", "--user", "alice", "--no-confirm"]);
    // Whoever has a device, or no ticket, sees the same.
    for (from, to) in [(ALICE, BOB), (BOB, ALICE)] {
        let mut terminal = su(&machine, from, to);
        assert_eq!(terminal.until(PROMPT), PROMPT);
        terminal.enter("123456");
        let (shown, succeeded) = terminal.finish();
        assert!(!succeeded && !shown.contains('█'), "{shown}");
    }
    assert!(!has_record(&machine, BOB));
    machine.log();
    let mut terminal = su(&machine, ALICE, BOB);
    assert_eq!(terminal.until(PROMPT), PROMPT);
    terminal.enter(&word);
    let secret = secret(&screen::scan(&screen::plain(&terminal.until(PROMPT))));
    terminal.enter(&code_now(&secret));
    let (shown, succeeded) = terminal.finish();
    assert!(succeeded && shown.contains("bob"), "{shown} {:#?}", machine.log());
    assert!(
        machine
            .log()
            .iter()
            .any(|line| line.contains("pam_totp(su:auth): accepted user=bob") && line.ends_with("enrolled=ticket"))
    );
}

#[test]
fn what_root_did_while_somebody_was_asked_counts() {
    let policy = |more: &str| format!("enrolment = \"ticket\"\n{more}");
    let machine = machine(&policy("enrol_by = 2999-01-31\n"));
    machine.service("su", &format!("{STACK}auth required pam_permit.so\n"));
    // Who could do without has a device by the time of the answer.
    ticket(&machine, "bob", &[]);
    let mut terminal = su(&machine, ALICE, BOB);
    terminal.until(PROMPT);
    let enrolled = json(&machine, &["enrol", "--user", "bob", "--no-confirm"]);
    terminal.enter("");
    let (shown, succeeded) = terminal.finish();
    assert!(!succeeded && !shown.contains("bob"), "{shown}");
    assert_eq!(reasons(&machine.log()), ["empty-answer"]);
    // And its code is as good as at any other login.
    totp(&machine, &["remove", "--user", "bob"]);
    ticket(&machine, "bob", &[]);
    let mut terminal = su(&machine, ALICE, BOB);
    terminal.until(PROMPT);
    let anew = json(&machine, &["enrol", "--user", "bob", "--no-confirm"]);
    assert_ne!(anew["secret"], enrolled["secret"]);
    terminal.enter(&code_now(anew["secret"].as_str().unwrap()));
    let (shown, succeeded) = terminal.finish();
    assert!(succeeded && shown.contains("bob"), "{shown} {:#?}", machine.log());
    // A ticket that is taken back, or over, while its code is typed.
    for revoke in [true, false] {
        machine.log();
        totp(&machine, &["remove", "--user", "bob"]);
        let word = ticket(&machine, "bob", &["--expires", "2h"]);
        let mut terminal = su(&machine, ALICE, BOB);
        terminal.until(PROMPT);
        terminal.enter(&word);
        let secret = secret(&screen::scan(&screen::plain(&terminal.until(PROMPT))));
        if revoke {
            totp(&machine, &["invite", "bob", "--revoke"]);
        } else {
            // The clock was ahead for a moment: what ends at a date is over from then on.
            machine.login_when(7300, 7300, "test", "carol").answer("1").run();
        }
        machine.log();
        terminal.enter(&code_now(&secret));
        assert!(!terminal.finish().1);
        assert_eq!(reasons(&machine.log()), ["not-invited"], "revoke: {revoke}");
        assert!(!has_record(&machine, BOB));
        json(&machine, &["enrol", "--user", "bob", "--no-confirm"]);
    }
}

#[test]
fn a_home_that_cannot_be_looked_into_may_have_a_secret() {
    let machine = inline();
    let shows = || {
        let login = machine.login("sshd", "bob").with(&["--env", ACCEPTED]);
        let login = (0..3).fold(login, |login, _| login.answer("1")).run();
        assert_eq!(login.result(), AUTH_ERR);
        login.output.contains('█')
    };
    assert!(shows(), "or the rest says nothing");
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    assert!(!shows());
    machine.make_directory(&BOB.home(), 0, BOB.uid);
    assert!(!shows());
    // The same without a file in it: nobody knows.
    machine.make_directory(&BOB.home(), 0o700, BOB.uid);
    fs::remove_file(machine.path(&BOB.secret_file())).unwrap();
    assert!(shows());
    machine.make_directory(&BOB.home(), 0, BOB.uid);
    assert!(!shows());
}

#[test]
fn whoever_had_a_file_by_another_name_is_not_new() {
    let machine = machine("secret = \"~/.otp\"\n[service.sshd]\nenrolment = \"inline\"\n");
    let system = machine.read(POLICY);
    let shows = || {
        let login = machine.login("sshd", "alice").with(&["--env", ACCEPTED]);
        (0..3).fold(login, |login, _| login.answer("1")).run().output.contains('█')
    };
    assert!(shows(), "or the rest says nothing");
    machine.write(POLICY, "version = 1\n[defaults]\nsecret = \"~/.otp\"\nstore = \"home\"\n");
    let file = format!("{}/.otp", ALICE.home());
    machine.write_as(&file, format!("{SECRET}\n\" TOTP_AUTH\n"), ALICE.uid, 0o600);
    assert_eq!(machine.login("test", "alice").answer(code_now(SECRET)).run().result(), 0);
    machine.write(POLICY, system);
    // The file is alice's, to delete as she likes.
    fs::remove_file(machine.path(&file)).unwrap();
    assert!(!shows());
    assert_eq!(json(&machine, &["reset", "--user", "alice"])["forgotten"].as_bool(), Some(true));
    assert!(shows());
}

#[test]
fn root_is_told_what_could_not_be_forgotten() {
    let machine = inline();
    json(&machine, &["enrol", "--user", "bob", "--no-confirm"]);
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    for arguments in [&["reset", "--user", "bob", "--json"][..], &["reset", "--user", "bob"]] {
        let output = run(&machine, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("a secret in the home"), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("\"forgotten\":true"), "{output:?}");
    }
    fs::remove_file(machine.path(&BOB.secret_file())).unwrap();
    assert_eq!(run(&machine, &["reset", "--user", "bob"]).status.code(), Some(0));
}

// ---- Who sees nothing ----

/// A kbd-interactive login alone, which says what it was asked.
const CODE_ALONE: &str = "\
UsePAM yes
KbdInteractiveAuthentication yes
PasswordAuthentication no
PubkeyAuthentication no
AuthenticationMethods keyboard-interactive
";

#[test]
fn without_a_key_nobody_is_shown_a_secret() {
    let machine = inline();
    // As in RHEL's password-auth: whoever has no right password is asked all the same.
    machine.service("sshd", &format!("auth required pam_unix.so\nauth required pam_deny.so\n{STACK}"));
    let sshd = Sshd::start(&machine, CODE_ALONE);
    let asked = |user: User, password: &str| {
        let session =
            sshd.login_with(user.name, &sshd.key(user), &[password, "123456"], &["-o", "NumberOfPasswordPrompts=1"]);
        assert!(!session.succeeded);
        session.questions.iter().map(|question| question.replace(user.name, "USER")).collect::<Vec<_>>()
    };
    json(&machine, &["enrol", "--user", "alice", "--no-confirm"]);
    let of_enrolled = asked(ALICE, "password");
    assert_eq!(of_enrolled.last().unwrap(), &format!("(USER@127.0.0.1) {PROMPT}"));
    for password in ["password", "wrong"] {
        machine.log();
        assert_eq!(asked(BOB, password), of_enrolled);
        assert_eq!(reasons(&machine.log()), ["not-enrolled"]);
    }
    assert!(!has_record(&machine, BOB));
}

/// What sshd says about a key, for an application that is not sshd.
const ACCEPTED: &str =
    "SSH_AUTH_INFO_0=publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";

#[test]
fn whoever_is_shown_nothing_for_want_of_an_answer_from_their_home_is_in_the_log_so() {
    let machine = inline();
    fs::set_permissions(machine.path(&BOB.home()), fs::Permissions::from_mode(0o000)).unwrap();
    let login = || machine.login("sshd", "bob").answer("123456");
    let with_key = login().with(&["--env", ACCEPTED]).run();
    assert_eq!((with_key.result(), with_key.reason().as_str()), (AUTH_ERR, "file-error"), "{with_key:#?}");
    assert!(!with_key.output.contains("otpauth"), "{with_key:#?}");
    // Who would be shown nothing anyway is not denied for that.
    assert_eq!(login().run().reason(), "not-enrolled");
}

#[test]
fn what_sshd_does_not_say_plainly_shows_nothing() {
    let machine = inline();
    machine.service("su", STACK);
    let told = |service: &str, variable: &str| {
        let login = machine.login(service, "bob").answer("123456").answer("123456").answer("123456");
        let login = if variable.is_empty() { login } else { login.with(&["--env", variable]) }.run();
        assert_eq!(login.result(), AUTH_ERR);
        assert!(!has_record(&machine, BOB));
        totp(&machine, &["throttle", "unlock", "--user", "bob", "--host", "uid:0"]);
        login.output.contains("told ")
    };
    assert!(told("sshd", ACCEPTED), "or the rest says nothing");
    assert!(told("sshd", &ACCEPTED.replace("=publickey", "=password\npublickey")));
    for (service, variable) in [
        ("sshd", ""),
        ("sshd", "SSH_AUTH_INFO_0="),
        ("sshd", "SSH_AUTH_INFO_0=password"),
        ("sshd", "SSH_AUTH_INFO_0=publickey"),
        ("sshd", "SSH_AUTH_INFO_0=publickey ssh-ed25519 garbage"),
        ("sshd", &ACCEPTED.replace("ssh-ed25519", "ssh-rsa")),
        ("sshd", &format!("{ACCEPTED}\npublickey garbage")),
        ("sshd", &ACCEPTED.replace("SSH_AUTH_INFO_0", "SSH_AUTH_INFO_1")),
        ("su", ACCEPTED),
        ("test", ACCEPTED),
    ] {
        assert!(!told(service, variable), "{service} {variable}");
    }
}

#[test]
fn a_prompt_answered_with_64_kib_stores_nothing() {
    let machine = inline();
    machine.write("/tmp/answer", "7".repeat(65536));
    let login = machine.login("sshd", "bob").with(&["--env", ACCEPTED, "--answer-file", "/tmp/answer"]).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "not-a-code"), "{login:#?}");
    // An answer that never comes is none either.
    let login = machine.login("sshd", "bob").with(&["--env", ACCEPTED, "--fail"]).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "no-answer"), "{login:#?}");
    assert!(!has_record(&machine, BOB));
}

#[test]
fn where_nothing_can_be_stored_nobody_gets_in() {
    let machine = Machine::with(Home::Ext4, &dist("pam_totp.so"));
    machine.keep_state_at_home();
    let machine = ready(machine, INLINE);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let key = sshd.key(ALICE);
    let fill =
        "dd if=/dev/zero of=/home/filler bs=64k 2>/dev/null; dd if=/dev/zero of=/home/filler2 bs=512 2>/dev/null; true";
    let mut client = sshd.talk("alice", &key, &["-o", "NumberOfPasswordPrompts=1"]);
    let shown = client.question().unwrap();
    output_of(machine.command("sh").args(["-c", fill]));
    client.answer(&code_now(&secret(&screen::scan(&shown))));
    assert!(!finish_anyhow(client).succeeded);
    let log = machine.log();
    assert!(
        log.iter().any(|line| line.contains(" denied ") && line.contains("error=No-space-left-on-device")),
        "{log:#?}"
    );
    assert!(!has_record(&machine, ALICE));
    // With room again the first login is the first.
    output_of(machine.command("sh").args(["-c", "rm /home/filler /home/filler2"]));
    let mut client = sshd.talk("alice", &key, &["-o", "NumberOfPasswordPrompts=1"]);
    client.reply(|shown| code_now(&secret(&screen::scan(shown))));
    assert!(client.finish().succeeded, "{:#?}", machine.log());
}

#[test]
fn without_a_store_nobody_is_shown_anything() {
    let machine = inline();
    fs::remove_file(machine.path(&format!("{STATE}/store.id"))).unwrap();
    let login = machine.login("sshd", "bob").answer("123456").with(&["--env", ACCEPTED]).run();
    assert_eq!(login.result(), AUTHINFO_UNAVAIL);
    assert!(!login.output.contains("told "), "{}", login.output);
}

// ---- Until a date ----

#[test]
fn until_a_date_enrolment_is_offered_and_not_asked_for() {
    let machine = machine("[service.sshd]\nenrolment = \"inline\"\nenrol_by = 2999-01-31\n");
    machine.service("sshd", &format!("auth required pam_permit.so\n{STACK}"));
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &[]);
    client.reply(|shown| {
        assert!(shown.contains("or press Enter to do without until 2999-01-31"), "{shown}");
        String::new()
    });
    assert!(client.finish().succeeded, "{:#?}", machine.log());
    let log = machine.log();
    assert!(
        log.iter()
            .any(|line| line.contains("not asked user=alice") && line.contains("reason=not-enrolled until=2999-01-31"))
    );
    assert!(!has_record(&machine, ALICE));
    // Not with a wrong code, and not by going away.
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &["-o", "NumberOfPasswordPrompts=1"]);
    for _ in 0..3 {
        client.reply(|_| "123456".to_owned());
    }
    assert!(!client.finish().succeeded);
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &[]);
    client.reply(|shown| code_now(&secret(&screen::scan(shown))));
    assert!(client.finish().succeeded);
    // Whoever had a device has no choice.
    totp(&machine, &["remove", "--user", "alice"]);
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &["-o", "NumberOfPasswordPrompts=1"]);
    client.reply(|shown| {
        assert!(!shown.contains("press Enter") && shown.contains("Type your ticket"), "{shown}");
        String::new()
    });
    assert!(!client.finish().succeeded);
}

#[test]
fn until_a_date_only_whoever_has_a_ticket_is_asked_for_one() {
    let machine = machine("enrolment = \"ticket\"\nenrol_by = 2999-01-31\n");
    let login = |answers: &[&str]| {
        let login = machine.login("test", "alice");
        answers.iter().fold(login, |login, answer| login.answer(answer)).run()
    };
    assert_eq!(login(&[]).result(), PERM_DENIED);
    let word = ticket(&machine, "alice", &[]);
    assert_eq!((login(&[""]).result(), login(&["123456"]).result()), (PERM_DENIED, AUTH_ERR));
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let (asked, secret, session) = with_ticket(&sshd, ALICE, &word);
    assert!(session.succeeded && asked.contains("press Enter to do without until 2999-01-31"), "{asked}");
    assert_eq!(login(&[""]).result(), AUTH_ERR);
    assert!(sshd.login(ALICE, &[&next_code(&secret)]).succeeded);
    // When it is over, everybody is asked.
    machine
        .write(POLICY, "version = 1\n[defaults]\nstore = \"system\"\nenrolment = \"ticket\"\nenrol_by = 2026-01-31\n");
    let login = machine.login("test", "bob").answer("").run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "empty-answer"));
}

#[test]
fn whoever_needs_no_code_needs_no_device() {
    let machine = machine("enrolment = \"inline\"\n[require]\ngroups = [\"alice\"]\n");
    let login = machine.login("sshd", "bob").with(&["--env", ACCEPTED]).run();
    assert_eq!((login.result(), login.reason().as_str()), (PERM_DENIED, "not-required"));
    let login = machine.login("sshd", "alice").with(&["--env", ACCEPTED]).answer("1").answer("1").answer("1").run();
    assert_eq!(login.result(), AUTH_ERR);
}

#[test]
fn in_no_place_where_a_password_is_asked_along_or_nobody_is() {
    let machine = inline();
    for (stack, answers) in [("forward_pass", 1), ("use_first_pass", 0)] {
        machine.service("sshd", &format!("auth required pam_totp.so {stack}\n"));
        let login = machine.login("sshd", "bob").with(&["--env", ACCEPTED]);
        let login = (0..answers).fold(login, |login, _| login.answer("password123456")).run();
        assert_eq!(login.result(), AUTH_ERR, "{stack}");
        assert!(!login.output.contains("told "), "{stack}: {}", login.output);
    }
}

#[test]
fn wrong_usage_of_invite_is_refused() {
    let machine = machine("enrolment = \"ticket\"\n");
    for (arguments, code, words) in [
        (&["invite"][..], 2, "required"),
        (&["invite", "alice", "--expires", "24"], 2, "is no time"),
        (&["invite", "alice", "--expires", "31d"], 2, "from 1m to 30d"),
        (&["invite", "alice", "--expires", "1s"], 2, "from 1m to 30d"),
        (&["invite", "alice", "--revoke", "--expires", "1h"], 2, "cannot be used with"),
        (&["invite", "nobody-here"], 1, "there is no user `nobody-here`"),
        (&["invite", "alice", "--device", "a\"b"], 1, "a device has a name"),
        (&["invite", "alice", "--key", "x"], 1, "`x` is no key"),
    ] {
        let output = run(&machine, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(words), "{arguments:?}: {output:?}");
    }
    let output = machine.command_as(ALICE, machine.program()).args(["invite", "alice"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("only root can invite somebody"), "{output:?}");
    json(&machine, &["enrol", "--user", "bob", "--no-confirm"]);
    let output = run(&machine, &["invite", "bob"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("bob has a device already"), "{output:?}");
    // Where nobody could use it, root is told.
    machine.write(POLICY, "version = 1\n[defaults]\nwindow = { behind = 1, ahead = 1 }\nstore = \"system\"\n");
    let output = run(&machine, &["invite", "alice"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("nobody can use it yet"));
    machine.write(POLICY, "version = 1\n[compat]\n");
    let output = run(&machine, &["invite", "alice"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("where the policy has store = \"system\""), "{output:?}");
}
