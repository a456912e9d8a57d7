//! Several people who share an account and are told from each other by their keys (`identity = "login-key"`), through a real
//! sshd with keys and certificates of a real ssh-keygen.

use crate::sudo_su::type_to;
use crate::support::machine::{ALICE, AUTH_ERR, BOB, LoggedIn, Machine, SUCCESS, User};
use crate::support::root_only::{self, PROMPT, STACK, json, next_code, run, secret, ticket, totp};
use crate::support::ssh::{self, KEY_AND_CODE, Session, Sshd, Wire, fingerprint};
use crate::support::totp::{code_at, code_now, now, wrong_code};
use crate::support::{output_of, reasons, screen};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const EC2_USER: User = User { name: "ec2-user", uid: 20010 };
const ED25519: &[&str] = &["-t", "ed25519"];
/// Counts a person and no source: everybody here comes from one.
const NO_HOSTS: &str = "[throttle]\nhost = \"\"\n";

/// A machine with a shared account, where people enrol as `enrolment` says.
fn machine(enrolment: &str, more: &str) -> Machine {
    let machine = root_only::machine(&format!(
        "fail_delay = \"0s\"\n[service.sshd]\nidentity = \"login-key\"\nenrolment = \"{enrolment}\"\n{more}"
    ));
    machine.add(EC2_USER);
    machine
}

/// One of the people.
struct Holder {
    key: PathBuf,
    fingerprint: String,
    secret: String,
    recovery: Vec<String>,
}

/// A new key of the account's, whose holder has no device.
fn new_key(sshd: &Sshd, name: &str) -> PathBuf {
    sshd.another_key(EC2_USER, name, ED25519)
}

/// Somebody with a key and a device, by root's word.
fn holder(machine: &Machine, sshd: &Sshd, name: &str) -> Holder {
    let key = new_key(sshd, name);
    let fingerprint = fingerprint(&key);
    let made = json(machine, &["enrol", "--user", "ec2-user", "--key", &fingerprint, "--no-confirm"]);
    let recovery = made["recovery_codes"].as_array().into_iter().flatten();
    let recovery = recovery.map(|code| code.as_str().unwrap().to_owned()).collect();
    Holder { key, fingerprint, secret: made["secret"].as_str().unwrap().to_owned(), recovery }
}

fn login(sshd: &Sshd, key: &Path, answers: &[&str]) -> Session {
    sshd.login_with("ec2-user", key, answers, &[])
}

/// Goes through an enrolment: the answers before the QR code, and then the code of a time that many seconds from now.
fn enrol(sshd: &Sshd, key: &Path, words: &[&str], seconds: i64) -> (Holder, Session) {
    let _ = code_now("GEZDGNBVGY3TQOJQ"); // Not at the very end of a step.
    let mut client = sshd.talk("ec2-user", key, &[]);
    for word in words {
        client.reply(|_| (*word).to_owned());
    }
    let shown = client.question().unwrap_or_else(|| panic!("{key:?}: no QR code"));
    let secret = secret(&screen::uri(&shown));
    client.answer(&code_at(&secret, now().checked_add_signed(seconds).unwrap()));
    let recovery = root_only::recovery_codes(&shown);
    (Holder { key: key.to_owned(), fingerprint: fingerprint(key), secret, recovery }, client.finish())
}

/// What our module says of logins.
fn ours(machine: &Machine) -> Vec<String> {
    machine.log().into_iter().filter(|line| line.contains("pam_totp(")).collect()
}

/// Whether a line of the log says all of this.
pub(crate) fn says(log: &[String], words: &[&str]) -> bool {
    log.iter().any(|line| words.iter().all(|word| line.contains(word)))
}

/// The devices of the account as (key, name).
fn devices(machine: &Machine) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed = json(machine, &["device", "list", "ec2-user"]);
    let devices = listed["devices"].as_array().unwrap();
    devices.iter().map(|device| (text(&device["key"]), text(&device["name"]))).collect()
}

/// What a row of the ledger has counted.
fn failures(machine: &Machine, name: &str, counted: &str) -> Option<u64> {
    let rows = json(machine, &["throttle", "list"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name && row["counted"] == counted);
    row.map(|row| row["failures"].as_u64().unwrap())
}

/// A login at the service of sshd, with what sshd would say about keys.
fn told(machine: &Machine, info: &str, answers: &[&str]) -> LoggedIn {
    let login = machine.login("sshd", "ec2-user").with(&["--env", &format!("SSH_AUTH_INFO_0={info}")]);
    answers.iter().fold(login, |login, answer| login.answer(answer)).run()
}

/// The line that sshd has for a key or a certificate, by its public half.
fn line(public: &Path) -> String {
    let text = fs::read_to_string(public).unwrap();
    let words: Vec<_> = text.split(' ').take(2).collect();
    format!("publickey {}\n", words.join(" ").trim_end())
}

fn assert_in(session: &Session, machine: &Machine) {
    assert!(session.succeeded, "{session:#?} {:#?}", machine.log());
    assert_eq!(session.output, "in as ec2-user\n");
}

#[test]
fn a_key_is_called_as_ssh_keygen_calls_it() {
    let machine = machine("inline", "");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let kinds: [&[&str]; 5] = [
        ED25519,
        &["-t", "rsa", "-b", "2048"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
    ];
    let mut expected = Vec::new();
    for (number, kind) in kinds.into_iter().enumerate() {
        let key = sshd.another_key(EC2_USER, &format!("kind{number}"), kind);
        let words = if number == 0 { vec![] } else { vec![ticket(&machine, "ec2-user", &[])] };
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let (holder, session) = enrol(&sshd, &key, &words, 0);
        assert_in(&session, &machine);
        let grounds = if number == 0 { "first" } else { "ticket" };
        let accepted = format!(
            "pam_totp(sshd:auth): accepted user=ec2-user rhost=127.0.0.1 factor=totp steps=+0 device=phone \
             enrolled={grounds} key={}",
            holder.fingerprint
        );
        assert_eq!(ours(&machine), [accepted], "{kind:?}");
        assert_in(&login(&sshd, &key, &[&next_code(&holder.secret)]), &machine);
        assert!(says(&ours(&machine), &["accepted", &format!("key={}", holder.fingerprint)]));
        expected.push((holder.fingerprint, "phone".to_owned()));
    }
    expected.sort();
    assert_eq!(devices(&machine), expected);
    let text = totp(&machine, &["device", "list", "ec2-user"]);
    for (fingerprint, _) in &expected {
        assert!(text.contains(&format!("{fingerprint} phone: 6 digits every 30 seconds")), "{text}");
    }
}

#[test]
fn ten_people_with_ten_keys_and_ten_phones() {
    let machine = machine("inline", "");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let keys: Vec<_> = (0..10).map(|number| new_key(&sshd, &format!("person{number}"))).collect();
    // The code of the last step is still good, the one of now vouches for somebody else, and the next one is for a login.
    let mut people: Vec<Holder> = Vec::new();
    for (number, key) in keys.iter().enumerate().take(6) {
        let word = (number > 0).then(|| ticket(&machine, "ec2-user", &["--device", &name(number)]));
        let (holder, session) = enrol(&sshd, key, &word.iter().map(String::as_str).collect::<Vec<_>>(), -30);
        assert_in(&session, &machine);
        people.push(holder);
    }
    machine.log();
    for (number, key) in keys.iter().enumerate().skip(6) {
        let vouching = code_now(&people[number - 6].secret);
        let (holder, session) = enrol(&sshd, key, &[&vouching], 0);
        assert_in(&session, &machine);
        let (voucher, key) = (&people[number - 6].fingerprint, &holder.fingerprint);
        let log = ours(&machine);
        assert!(says(&log, &[&format!("enrolled=device-of-account vouched-by={voucher} key={key}")]), "{log:#?}");
        // It is used up with that, for the next one and for its owner too.
        if let Some(next) = keys.get(number + 1) {
            assert!(!login(&sshd, next, &[&vouching]).succeeded);
            assert!(says(&ours(&machine), &["reason=used-code enrolment=device-of-account"]));
        }
        assert!(!login(&sshd, &keys[number - 6], &[&vouching]).succeeded);
        assert_eq!(reasons(&machine.log()), ["used-code"]);
        people.push(holder);
    }

    let mut expected: Vec<_> = people.iter().map(|holder| holder.fingerprint.clone()).zip((0..).map(name)).collect();
    expected.sort();
    assert_eq!(devices(&machine), expected);
    let text = totp(&machine, &["device", "list", "ec2-user"]);
    let shown: Vec<_> = text.lines().map(|line| line.split_once(": ").unwrap().0.to_owned()).collect();
    assert_eq!(shown, expected.iter().map(|(key, name)| format!("{key} {name}")).collect::<Vec<_>>());

    for (number, holder) in people.iter().enumerate() {
        let other = &people[(number + 1) % people.len()];
        let (code, spare) = (next_code(&holder.secret), holder.recovery[0].as_str());
        for foreign in [code.as_str(), spare] {
            assert!(!login(&sshd, &other.key, &[foreign]).succeeded);
            let log = ours(&machine);
            assert!(says(&log, &["denied user=ec2-user", &format!("key={}", other.fingerprint)]), "{log:#?}");
        }
        for own in [code.as_str(), spare] {
            assert_in(&login(&sshd, &holder.key, &[own]), &machine);
            let log = ours(&machine);
            assert!(says(&log, &["accepted user=ec2-user", &format!("key={}", holder.fingerprint)]), "{log:#?}");
        }
    }
}

/// What the device of a person is called: the first one's and those of whom a colleague vouches for have no name of a ticket.
fn name(number: usize) -> String {
    if (1..6).contains(&number) { format!("phone {number}") } else { "phone".to_owned() }
}

#[test]
fn whoever_is_removed_stays_out_and_nobody_else() {
    let machine = machine("inline", NO_HOSTS);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let [removed, unplugged, stays] = ["removed", "unplugged", "stays"].map(|name| holder(&machine, &sshd, name));
    let said = totp(&machine, &["remove", "--user", "ec2-user", "--key", &removed.fingerprint]);
    assert!(said.contains("Nobody is let in with that key unless they are invited again"), "{said}");
    totp(&machine, &["device", "remove", "phone", "--force", "--user", "ec2-user", "--key", &unplugged.fingerprint]);
    assert_eq!(devices(&machine), [(stays.fingerprint.clone(), "phone".to_owned())]);
    machine.log();
    for holder in [&removed, &unplugged] {
        assert!(!login(&sshd, &holder.key, &[&code_now(&holder.secret)]).succeeded);
        let log = ours(&machine);
        assert!(says(&log, &["denied", &format!("key={}", holder.fingerprint)]), "{log:#?}");
        // Nor with a recovery code.
        assert!(!login(&sshd, &holder.key, &[&holder.recovery[0]]).succeeded);
    }
    assert_in(&login(&sshd, &stays.key, &[&code_now(&stays.secret)]), &machine);

    // Of the account itself there is nothing to forget as long as somebody of it is enrolled.
    let reset = run(&machine, &["reset", "--user", "ec2-user"]);
    let text = String::from_utf8_lossy(&reset.stdout).into_owned();
    assert!(text.contains("not forgotten; there are 2 of people who share it"), "{reset:?}");
    machine.log();
    let newest = new_key(&sshd, "newest");
    for key in [&removed.key, &newest] {
        let session = login(&sshd, key, &[""]);
        assert!(!session.succeeded && !session.questions.join("").contains("otpauth"), "{session:#?}");
    }
    machine.log();
    // A colleague's code is for who never had a device, and nothing says so but the log.
    let mut client = sshd.talk("ec2-user", &removed.key, &["-o", "NumberOfPasswordPrompts=1"]);
    client.reply(|_| next_code(&stays.secret));
    let shown = client.question();
    assert!(shown.is_none(), "{shown:?}");
    assert_eq!(reasons(&machine.log()), ["record-gone"]);
    let word = ticket(&machine, "ec2-user", &["--device", "new phone"]);
    let (back, session) = enrol(&sshd, &removed.key, &[&word], 0);
    assert_in(&session, &machine);
    assert!(devices(&machine).contains(&(back.fingerprint, "new phone".to_owned())));
}

#[test]
fn wrong_codes_with_one_key_block_that_key_alone() {
    let machine = machine("inline", NO_HOSTS);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let [tried, other] = ["tried", "other"].map(|name| holder(&machine, &sshd, name));
    let wrong = wrong_code(&tried.secret);
    for _ in 0..2 {
        assert!(!login(&sshd, &tried.key, &[wrong.as_str(); 5]).succeeded);
    }
    machine.log();
    assert!(!login(&sshd, &tried.key, &[&code_now(&tried.secret)]).succeeded);
    assert!(says(&ours(&machine), &["reason=throttled by=user", &format!("key={}", tried.fingerprint)]));
    assert_in(&login(&sshd, &other.key, &[&code_now(&other.secret)]), &machine);
    let row = |holder: &Holder| format!("ec2-user,{}", holder.fingerprint).replace(',', "\\x2C");
    assert_eq!(failures(&machine, &row(&tried), "strangers"), Some(10));
    assert_eq!(
        (failures(&machine, &row(&other), "strangers"), failures(&machine, "ec2-user", "strangers")),
        (None, None)
    );
    assert_eq!(failures(&machine, "ec2-user\\x2Cnew-keys", "strangers"), None);
    // To unlock the account is to unlock none of its people.
    assert!(!run(&machine, &["throttle", "unlock", "--user", "ec2-user"]).status.success());
    assert!(!login(&sshd, &tried.key, &[&code_now(&tried.secret)]).succeeded);
    totp(&machine, &["throttle", "unlock", "--user", "ec2-user", "--key", &tried.fingerprint]);
    assert_in(&login(&sshd, &tried.key, &[&code_now(&tried.secret)]), &machine);
}

#[test]
fn guesses_with_ever_new_keys_are_those_of_one() {
    let machine = machine("inline", NO_HOSTS);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let enrolled = holder(&machine, &sshd, "enrolled");
    // A word of the right form that is good for somebody else.
    let (foreign, wrong) = (ticket(&machine, "bob", &[]), wrong_code(&enrolled.secret));
    for number in 0..10 {
        let (word, reason) = if number % 2 == 0 { (&foreign, "wrong-ticket") } else { (&wrong, "wrong-code") };
        let key = new_key(&sshd, &format!("attacker{number}"));
        machine.log();
        assert!(!login(&sshd, &key, &[word]).succeeded);
        assert_eq!(reasons(&machine.log()), [reason], "{number}");
        assert_eq!(failures(&machine, "ec2-user\\x2Cnew-keys", "strangers"), Some(number + 1));
    }
    let (word, key) = (ticket(&machine, "ec2-user", &[]), new_key(&sshd, "attacker"));
    for right in [&code_now(&enrolled.secret), &word] {
        assert!(!login(&sshd, &key, &[right]).succeeded);
        assert_eq!(reasons(&machine.log()), ["throttled"]);
    }
    // Nothing was used up by that.
    assert_in(&login(&sshd, &enrolled.key, &[&code_now(&enrolled.secret)]), &machine);
    totp(&machine, &["throttle", "unlock", "--user", "ec2-user"]);
    assert_in(&enrol(&sshd, &key, &[&word], 0).1, &machine);
}

#[test]
fn nobody_vouches_with_a_device_that_is_disabled() {
    let machine = machine("inline", "[throttle]\nuser = \"\"\nhost = \"\"\n");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let disabled = holder(&machine, &sshd, "disabled");
    let (info, wrong) = (line(&ssh::public(&disabled.key)), wrong_code(&disabled.secret));
    let login = machine.login("sshd", "ec2-user").with(&["--env", &format!("SSH_AUTH_INFO_0={info}")]);
    assert_eq!(login.answer(wrong).with(&["--repeat", "100"]).run().result(), AUTH_ERR);
    let login = told(&machine, &info, &[&code_now(&disabled.secret)]);
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "device-disabled"));
    let newcomer = new_key(&sshd, "newcomer");
    let login = told(&machine, &line(&ssh::public(&newcomer)), &[&code_now(&disabled.secret)]);
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "device-disabled"), "{login:#?}");
}

#[test]
fn new_keys_lock_nobody_out_and_nobody_who_vouches_gets_them_more_guesses() {
    let machine = machine("inline", "[throttle]\nuser = \"\"\nhost = \"\"\n");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    // The account has a device of its own, at services that know of no keys.
    let own = json(&machine, &["enrol", "--user", "ec2-user", "--no-confirm"]);
    let (own, wrong) = (own["secret"].as_str().unwrap(), wrong_code(own["secret"].as_str().unwrap()));
    let colleague = holder(&machine, &sshd, "colleague");
    let guess = |times: &str| {
        let info = line(&ssh::public(&new_key(&sshd, &format!("attacker{times}"))));
        let login = machine.login("sshd", "ec2-user").with(&["--env", &format!("SSH_AUTH_INFO_0={info}")]);
        let login = login.answer(&wrong).with(&["--repeat", times]).run();
        assert_eq!(login.result(), AUTH_ERR);
    };
    guess("97");
    // A code that vouches is taken back, and so is the first one of the new device; the others' guesses stay.
    let (_, session) = enrol(&sshd, &new_key(&sshd, "second"), &[&code_now(&colleague.secret)], 0);
    assert_in(&session, &machine);
    assert_eq!(failures(&machine, "ec2-user\\x2Cnew-keys", "in-a-row"), Some(97));
    guess("3");
    let attacker = line(&ssh::public(&new_key(&sshd, "attacker")));
    let login = told(&machine, &attacker, &[&next_code(&colleague.secret)]);
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "device-disabled"));
    // Nobody with a device has anything to do with that.
    assert_eq!(machine.login("test", "ec2-user").answer(code_now(own)).run().result(), SUCCESS);
    assert_in(&login_again(&sshd, &colleague), &machine);
    // Root's ticket lets new keys in again, and no device that was disabled.
    let login = machine.login("test", "ec2-user").answer(&wrong).with(&["--repeat", "100"]).run();
    assert_eq!(login.result(), AUTH_ERR);
    let word = ticket(&machine, "ec2-user", &[]);
    assert_eq!(failures(&machine, "ec2-user\\x2Cnew-keys", "in-a-row"), None);
    let login = machine.login("test", "ec2-user").answer(next_code(own)).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "device-disabled"));
    assert_in(&enrol(&sshd, &new_key(&sshd, "third"), &[&word], 0).1, &machine);
    totp(&machine, &["throttle", "unlock", "--user", "ec2-user"]);
    assert_eq!(machine.login("test", "ec2-user").answer(next_code(own)).run().result(), SUCCESS);
}

/// With the code after the one that vouched.
fn login_again(sshd: &Sshd, holder: &Holder) -> Session {
    login(sshd, &holder.key, &[&next_code(&holder.secret)])
}

#[test]
fn an_account_whose_last_key_is_removed_has_had_one() {
    let machine = machine("inline", NO_HOSTS);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let last = holder(&machine, &sshd, "last");
    let newcomer = line(&ssh::public(&new_key(&sshd, "newcomer")));
    let marks = machine.path("/var/lib/pam_totp/enrolled");
    // A store that was restored without its marks.
    fs::read_dir(&marks).unwrap().for_each(|mark| fs::remove_file(mark.unwrap().path()).unwrap());
    totp(&machine, &["remove", "--user", "ec2-user", "--key", &last.fingerprint]);
    let login = told(&machine, &newcomer, &["1"]);
    assert!(login.output.contains("Type your ticket") && !login.output.contains('█'), "{}", login.output);
}

#[test]
fn without_enrolment_inside_a_login_a_new_key_has_no_way_in() {
    for (enrolment, argument) in [("required", ""), ("optional", ""), ("required", " nullok")] {
        let machine = machine(enrolment, NO_HOSTS);
        // Who is not asked is let in.
        machine.service(
            "sshd",
            &(STACK.replace(".so\naccount", &format!(".so{argument}\nauth required pam_permit.so\naccount"))),
        );
        let sshd = Sshd::start(&machine, KEY_AND_CODE);
        let key = new_key(&sshd, "new");
        let is_let_pass = (enrolment, argument) != ("required", "");
        // On an account that never had a device the policy decides.
        let session = login(&sshd, &key, if is_let_pass { &[] } else { &["123456"] });
        assert_eq!(session.succeeded, is_let_pass, "{enrolment}{argument}: {session:#?} {:#?}", machine.log());
        let log = ours(&machine);
        assert!(says(&log, &["reason=not-enrolled", &format!("key={}", fingerprint(&key))]), "{log:#?}");
        let enrolled = holder(&machine, &sshd, "enrolled");
        let refused = |state: &str| {
            for answer in [code_now(&enrolled.secret), enrolled.recovery[0].clone()] {
                let session = login(&sshd, &key, &[&answer]);
                assert!(!session.succeeded, "{enrolment}{argument} {state}");
                assert_eq!(session.questions, [format!("(ec2-user@127.0.0.1) {PROMPT}")]);
                assert_eq!(reasons(&machine.log()), ["not-enrolled"]);
            }
        };
        refused("beside a device");
        assert_in(&login(&sshd, &enrolled.key, &[&code_now(&enrolled.secret)]), &machine);
        totp(&machine, &["remove", "--user", "ec2-user", "--key", &enrolled.fingerprint]);
        machine.log();
        refused("after one");
        // Only root can say that there never was one.
        totp(&machine, &["reset", "--user", "ec2-user"]);
        assert_eq!(login(&sshd, &key, &["123456"]).succeeded, is_let_pass, "{enrolment}{argument}");
    }
}

/// Two clients at their QR codes answer at once; who got in, and what was logged.
fn race(machine: &Machine, sshd: &Sshd, keys: [&PathBuf; 2], word: Option<&str>) -> (Holder, Holder) {
    let _ = code_now("GEZDGNBVGY3TQOJQ");
    let mut clients = keys.map(|key| sshd.talk("ec2-user", key, &[]));
    let holders = [0, 1].map(|place| {
        let client = &mut clients[place];
        if let Some(word) = word {
            client.reply(|_| word.to_owned());
        }
        let secret = secret(&screen::uri(&client.question().unwrap()));
        let key = keys[place].clone();
        Holder { fingerprint: fingerprint(&key), key, secret, recovery: Vec::new() }
    });
    let codes = holders.each_ref().map(|holder| code_now(&holder.secret));
    machine.log();
    clients.iter().zip(&codes).for_each(|(client, code)| client.answer(code));
    let succeeded = clients.map(|client| client.finish_anyhow().succeeded);
    let [one, two] = holders;
    match succeeded {
        [true, false] => (one, two),
        [false, true] => (two, one),
        _ => panic!("{succeeded:?} {:#?}", machine.log()),
    }
}

#[test]
fn of_two_new_keys_at_once_one_is_the_first_and_one_has_the_ticket() {
    let machine = machine("inline", "[throttle]\nuser = \"\"\nhost = \"\"\n");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    for round in 0..4 {
        let keys = [0, 1, 2].map(|number| new_key(&sshd, &format!("round{round}.{number}")));
        let (first, loser) = race(&machine, &sshd, [&keys[0], &keys[1]], None);
        let log = ours(&machine);
        assert!(says(&log, &["accepted", "enrolled=first", &format!("key={}", first.fingerprint)]), "{log:#?}");
        let lost = ["denied", "reason=not-invited grounds=first", &format!("key={}", loser.fingerprint)];
        assert!(says(&log, &lost), "{log:#?}");
        assert_eq!(devices(&machine), [(first.fingerprint.clone(), "phone".to_owned())]);

        let word = ticket(&machine, "ec2-user", &["--device", "by ticket"]);
        let (second, loser) = race(&machine, &sshd, [&loser.key, &keys[2]], Some(&word));
        let log = ours(&machine);
        assert!(says(&log, &["accepted", "enrolled=ticket", &format!("key={}", second.fingerprint)]), "{log:#?}");
        let lost = ["denied", "reason=not-invited grounds=ticket", &format!("key={}", loser.fingerprint)];
        assert!(says(&log, &lost), "{log:#?}");
        assert_eq!(devices(&machine).len(), 2);
        assert!(!login(&sshd, &loser.key, &[&word]).succeeded);
        assert_eq!(reasons(&machine.log()), ["wrong-ticket"]);
        assert_in(&login(&sshd, &second.key, &[&next_code(&second.secret)]), &machine);

        for holder in [&first, &second] {
            totp(&machine, &["reset", "--user", "ec2-user", "--key", &holder.fingerprint]);
        }
        totp(&machine, &["reset", "--user", "ec2-user"]);
    }
}

#[test]
fn what_names_nobody_is_denied_behind_the_same_prompt() {
    let machine = machine("inline", "[throttle]\nuser = \"\"\nhost = \"\"\n");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let enrolled = holder(&machine, &sshd, "enrolled");
    let (own, other) = (line(&ssh::public(&enrolled.key)), line(&ssh::public(&sshd.new_key("other", ED25519))));
    let authority = sshd.new_key("ca", ED25519);
    let (certified, host) = (sshd.new_key("certified", ED25519), sshd.new_key("host", ED25519));
    ssh::certify(&authority, &certified, "alice", &["-n", "ec2-user"]);
    ssh::certify(&authority, &host, "alice", &["-h"]);
    let base64 = own.trim_end().rsplit(' ').next().unwrap();
    let denied = |info: &str, hint: &str| {
        let login = told(&machine, info, &[&code_now(&enrolled.secret)]);
        assert_eq!(login.result(), AUTH_ERR, "{info}");
        assert_eq!(login.prompts, [format!("1 {PROMPT:?}")], "{info}");
        let log: Vec<_> = login.log.iter().filter(|line| line.contains(" denied ")).collect();
        assert!(log[0].contains("reason=no-login-key (") && log[0].contains(hint), "{info}: {log:?}");
        assert!(!log[0].contains("key=SHA256"), "{log:?}");
    };
    let (none, several, unreadable) = ("has accepted no key", "more than one key", "cannot be read");
    denied("", none);
    denied("\n", none);
    denied("password\nkeyboard-interactive/pam\n", none);
    denied(&format!("hostbased {}", &own["publickey ".len()..]), none);
    denied(&format!("{own}{other}"), several);
    denied(&format!("{own}password\n{other}"), several);
    denied("publickey", unreadable);
    denied("publickey ssh-ed25519 garbage!\n", unreadable);
    denied(&format!("{own}publickey\n"), unreadable);
    denied(&format!("publickey ssh-rsa {base64}\n"), unreadable);
    denied(&format!("publickey ssh-ed25519 {base64} comment\n"), unreadable);
    denied(&format!("publickey ssh-dss {}\n", "AAAAB3NzaC1kc3MAAAABAA=="), "does not know");
    denied(&line(&ssh::certificate(&certified)), "cert_identity in the policy");
    denied(&line(&ssh::certificate(&host)), "cert_identity in the policy");
    // Without the variable it is no other, and nobody else's password is asked for.
    let login = machine.login("sshd", "ec2-user").answer(code_now(&enrolled.secret)).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "no-login-key"));
    assert!(says(&login.log, &[none]));
    // The same key twice is one, and other methods name nobody.
    let login = told(&machine, &format!("{own}password\n{own}"), &[&code_now(&enrolled.secret)]);
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
}

#[test]
fn two_keys_or_none_at_a_real_sshd_are_nobodys() {
    let machine = machine("inline", NO_HOSTS);
    let sshd = Sshd::start(&machine, &KEY_AND_CODE.replace("publickey,", "publickey,publickey,"));
    let [one, two] = ["one", "two"].map(|name| holder(&machine, &sshd, name));
    let second = format!("IdentityFile={}", two.key.display());
    let session = sshd.login_with("ec2-user", &one.key, &[&code_now(&one.secret)], &["-o", &second]);
    assert!(!session.succeeded);
    assert_eq!(session.questions, [format!("(ec2-user@127.0.0.1) {PROMPT}")], "{session:#?}");
    assert!(says(&ours(&machine), &["reason=no-login-key", "more than one key"]));
    drop(sshd);
    let sshd = Sshd::start(&machine, &KEY_AND_CODE.replace("publickey,", ""));
    let session = login(&sshd, &one.key, &[&code_now(&one.secret)]);
    assert!(!session.succeeded);
    assert_eq!(session.questions, [format!("(ec2-user@127.0.0.1) {PROMPT}")], "{session:#?}");
    assert!(says(&ours(&machine), &["reason=no-login-key", "has accepted no key"]));
    // Also where somebody new would be enrolled at once.
    drop(sshd);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    assert_in(&login(&sshd, &one.key, &[&code_now(&one.secret)]), &machine);
}

#[test]
fn a_certificate_names_its_holder_by_its_key_id() {
    let directory = tempfile::tempdir().unwrap();
    let [ours_ca, foreign_ca] = ["ours", "foreign"].map(|name| directory.path().join(name));
    for authority in [&ours_ca, &foreign_ca] {
        ssh::make_key(authority, ED25519);
    }
    let machine = machine(
        "inline",
        &format!("cert_identity = {{ by = \"key-id\", ca = [\"{}\"] }}\n{NO_HOSTS}", fingerprint(&ours_ca)),
    );
    let both = [&ours_ca, &foreign_ca].map(|ca| fs::read_to_string(ssh::public(ca)).unwrap()).concat();
    machine.write("/etc/ssh/authorities", both);
    let sshd = Sshd::start(&machine, &format!("{KEY_AND_CODE}TrustedUserCAKeys /etc/ssh/authorities\n"));
    let certified = |name: &str, kind: &[&str], authority: &Path, key_id: &str| {
        let key = sshd.new_key(name, kind);
        ssh::certify(authority, &key, key_id, &["-n", "ec2-user"]);
        key
    };
    let key = certified("alice", ED25519, &ours_ca, "alice@example.org");
    let (alice, session) = enrol(&sshd, &key, &[], -30);
    assert_in(&session, &machine);
    assert!(says(&ours(&machine), &["enrolled=first key=key-id:alice@example.org"]));
    assert_eq!(devices(&machine), [("key-id:alice@example.org".to_owned(), "phone".to_owned())]);
    // The next certificate of the same key, which has another nonce, and one of another key and kind.
    fs::remove_file(ssh::certificate(&key)).unwrap();
    ssh::certify(&ours_ca, &key, "alice@example.org", &["-n", "ec2-user", "-z", "7"]);
    assert_in(&login(&sshd, &key, &[&code_now(&alice.secret)]), &machine);
    let kinds: [&[&str]; 4] = [
        &["-t", "rsa", "-b", "2048"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        let key = certified(&format!("alice{number}"), kind, &ours_ca, "alice@example.org");
        machine.log();
        let spare = alice.recovery[number].as_str();
        let session = login(&sshd, &key, &[spare]);
        assert_in(&session, &machine);
        assert!(says(&ours(&machine), &["accepted", "key=key-id:alice@example.org"]), "{kind:?}");
    }
    // Nobody else is she: another key id, and the same one of another authority or of a key without a certificate.
    let bob = certified("bob", ED25519, &ours_ca, "bob@example.org");
    assert!(!login(&sshd, &bob, &[&alice.recovery[4]]).succeeded);
    assert!(says(&ours(&machine), &["reason=wrong-ticket", "key=key-id:bob@example.org"]));
    let refused = |key: &Path, hint: &str| {
        let session = login(&sshd, key, &[&next_code(&alice.secret)]);
        assert!(!session.succeeded, "{hint}");
        assert_eq!(session.questions, [format!("(ec2-user@127.0.0.1) {PROMPT}")], "{session:#?}");
        let log = ours(&machine);
        assert!(says(&log, &["reason=no-login-key", hint]), "{log:#?}");
    };
    refused(&certified("foreign", ED25519, &foreign_ca, "alice@example.org"), "authority");
    let long = "a".repeat(65);
    for (number, key_id) in
        ["alice smith", "alice,bob", "älice", "alice\nbob", "", long.as_str()].into_iter().enumerate()
    {
        refused(&certified(&format!("odd{number}"), ED25519, &ours_ca, key_id), "1 to 64");
    }
    // sshd itself takes no certificate of a host; nor do we.
    let host = sshd.new_key("host", ED25519);
    ssh::certify(&ours_ca, &host, "alice@example.org", &["-h"]);
    let login = told(&machine, &line(&ssh::certificate(&host)), &[&next_code(&alice.secret)]);
    assert!(login.result() == AUTH_ERR && says(&login.log, &["reason=no-login-key", "cannot be read"]), "{login:#?}");
    // A key id that could be a path is the name of a file all the same, in its place.
    let (path, session) =
        enrol(&sshd, &certified("path", ED25519, &ours_ca, "../../x"), &[&next_code(&alice.secret)], 0);
    assert_in(&session, &machine);
    assert!(machine.path(&format!("{}/records/ec2-user,key-id%3A..%2F..%2Fx", root_only::STATE)).exists());
    assert_in(&sshd.login_with("ec2-user", &path.key, &[&next_code(&path.secret)], &[]), &machine);
}

/// Two files by which pam_env(8) sets the variable of sshd to a line about a key.
fn forge(machine: &Machine, line: &str) {
    let line = line.trim_end();
    machine.write("/etc/forged.env", format!("SSH_AUTH_INFO_0={line}\n"));
    machine.write("/etc/forged.conf", format!("SSH_AUTH_INFO_0 OVERRIDE=\"{line}\"\n"));
}

#[test]
fn what_su_and_sudo_are_told_about_keys_is_ignored() {
    let machine =
        root_only::machine("fail_delay = \"0s\"\nenrolment = \"inline\"\n[service.sshd]\nidentity = \"login-key\"\n");
    machine.add(EC2_USER);
    machine.write_as("/etc/sudoers", "Defaults !lecture, env_keep += SSH_AUTH_INFO_0\nALL ALL=(ALL) ALL\n", 0, 0o440);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let enrolled = holder(&machine, &sshd, "enrolled");
    let about = line(&ssh::public(&enrolled.key));
    forge(&machine, &about);
    let setting = "required pam_env.so conffile=/etc/forged.conf envfile=/etc/forged.env readenv=1\n";
    let stack = |auth: &str| format!("auth {setting}{}session {setting}", STACK.replacen("auth", auth, 1));
    // It is set by that, for whoever gets in.
    machine.service("su", &stack("auth sufficient pam_rootok.so\nauth"));
    let set = output_of(machine.command("su").args(["ec2-user", "-c", "echo \"$SSH_AUTH_INFO_0\""]));
    assert_eq!(set, about);
    for service in ["su", "sudo"] {
        machine.service(service, &stack("auth"));
    }
    let su: &[&str] = &["su", "ec2-user", "-c", "id -un"];
    let sudo: &[&str] = &["sudo", "-k", "-S", "id", "-un"];
    let export = format!("export SSH_AUTH_INFO_0='{}'; exec \"$@\"", about.trim_end());
    for (caller, program) in [(ALICE, su), (BOB, su), (ALICE, sudo), (BOB, sudo), (EC2_USER, sudo)] {
        machine.log();
        let program = [&["sh", "-c", &export, "sh"], program].concat();
        let output = type_to(&machine, caller, &program, &[&code_now(&enrolled.secret)]);
        assert!(!output.status.success(), "{output:?}");
        // It makes nobody a holder of the key, nor somebody whose first factor has passed.
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(shown.contains(PROMPT) && !shown.contains("otpauth"), "{shown}");
        let log = ours(&machine);
        assert!(says(&log, &["denied", "reason="]) && !says(&log, &["SHA256"]), "{log:#?}");
    }
    // Nor where it is in the environment of PAM already.
    for service in ["su", "sudo", "test"] {
        let login = machine.login(service, "alice").with(&["--env", &format!("SSH_AUTH_INFO_0={about}")]);
        let login = login.answer(code_now(&enrolled.secret)).run();
        assert_eq!(login.result(), AUTH_ERR, "{login:#?}");
        assert!(!login.output.contains("otpauth") && says(&login.log, &["reason=not-enrolled"]), "{login:#?}");
    }
    assert_in(&login(&sshd, &enrolled.key, &[&code_now(&enrolled.secret)]), &machine);
}

#[test]
fn what_a_users_environment_says_about_keys_is_ignored_at_sshd() {
    let machine = machine("inline", NO_HOSTS);
    let sshd = Sshd::start(&machine, &format!("{KEY_AND_CODE}PermitUserEnvironment yes\nAcceptEnv SSH_AUTH_INFO_0\n"));
    let [victim, attacker] = ["victim", "attacker"].map(|name| holder(&machine, &sshd, name));
    let about = line(&ssh::public(&victim.key));
    forge(&machine, &about);
    for (file, forged) in [(".pam_environment", "/etc/forged.conf"), (".ssh/environment", "/etc/forged.env")] {
        let file = format!("{}/{file}", EC2_USER.home());
        machine.write_as(&file, machine.read(forged), EC2_USER.uid, 0o600);
    }
    let module = "pam_env.so conffile=/etc/forged.conf envfile=/etc/forged.env user_readenv=1";
    machine.service(
        "sshd",
        &format!("auth required {module}\n{STACK}session required {module}\nsession optional pam_totp.so\n"),
    );
    let option = format!("SetEnv=SSH_AUTH_INFO_0=\"{}\"", about.trim_end());
    let attempt = |answer: &str| sshd.login_with("ec2-user", &attacker.key, &[answer], &["-o", &option]);
    machine.log();
    assert!(!attempt(&code_now(&victim.secret)).succeeded);
    let log = ours(&machine);
    assert!(says(&log, &["reason=wrong-code", &format!("key={}", attacker.fingerprint)]), "{log:#?}");
    assert!(!says(&log, &[&victim.fingerprint]), "{log:#?}");
    assert_in(&attempt(&code_now(&attacker.secret)), &machine);
    let log = machine.log();
    assert!(says(&log, &["accepted", &format!("key={}", attacker.fingerprint)]), "{log:#?}");
    assert!(says(&log, &["reading of user environment"]) && !says(&log, &["ignoring line"]), "{log:#?}");
    // A key without a device stays one.
    let newcomer = new_key(&sshd, "newcomer");
    let session = login(&sshd, &newcomer, &["000000"]);
    assert!(!session.succeeded);
    assert!(says(&ours(&machine), &["denied", &format!("key={}", fingerprint(&newcomer))]));
}

#[test]
fn grace_is_of_the_key_and_an_exemption_of_the_account() {
    let until = "2099-01-01";
    let machine = machine(
        "inline",
        &format!(
            "grace = \"1h\"\n{NO_HOSTS}[[exempt]]\nusers = [\"ec2-user\"]\nnetworks = [\"203.0.113.0/24\"]\n\
             services = [\"sshd\"]\nuntil = {until}\nreason = \"test\"\n"
        ),
    );
    let wire = Wire::new();
    let sshd = Sshd::start_on(&machine, KEY_AND_CODE, &wire);
    // Who is not asked is let in.
    machine.service("sshd", &STACK.replace("\naccount", "\nauth required pam_permit.so\naccount"));
    let [one, two] = ["one", "two"].map(|name| holder(&machine, &sshd, name));
    assert_in(&login(&sshd, &one.key, &[&code_now(&one.secret)]), &machine);
    machine.log();
    let again = login(&sshd, &one.key, &["000000"]);
    assert!(again.succeeded && again.questions.is_empty(), "{again:#?}");
    let log = ours(&machine);
    assert!(says(&log, &["accepted", "factor=grace", &format!("key={}", one.fingerprint)]), "{log:#?}");
    let other = login(&sshd, &two.key, &["000000"]);
    assert!(!other.succeeded && other.questions.len() == 1, "{other:#?}");
    assert!(says(&ours(&machine), &["reason=wrong-code", &format!("key={}", two.fingerprint)]));

    // From where the account is exempt the log still says who it was, and without a key nobody is exempt.
    for holder in [&one, &two] {
        let login = machine.login("sshd", "ec2-user").with(&["--rhost", "203.0.113.9"]);
        let info = format!("SSH_AUTH_INFO_0={}", line(&ssh::public(&holder.key)));
        let login = login.with(&["--env", &info]).run();
        assert_eq!(login.result(), SUCCESS, "{login:#?}");
        assert!(
            says(&login.log, &["not asked", "reason=exempt", &format!("key={}", holder.fingerprint)]),
            "{login:#?}"
        );
    }
    let login = machine.login("sshd", "ec2-user").with(&["--rhost", "203.0.113.9"]).answer("000000").run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "no-login-key"), "{login:#?}");
}

#[test]
fn a_ticket_can_be_for_one_key_alone() {
    let machine = machine("ticket", NO_HOSTS);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let [meant, other] = ["meant", "other"].map(|name| new_key(&sshd, name));
    // Nobody is the first here without one.
    let session = login(&sshd, &meant, &["000000"]);
    assert!(!session.succeeded && !session.questions.join("").contains("otpauth"));
    machine.log();
    let word = ticket(&machine, "ec2-user", &["--key", &fingerprint(&meant), "--device", "meant"]);
    assert!(!login(&sshd, &other, &[&word]).succeeded);
    assert_eq!(reasons(&machine.log()), ["wrong-ticket"]);
    let (holder, session) = enrol(&sshd, &meant, &[&word], 0);
    assert_in(&session, &machine);
    assert_eq!(devices(&machine), [(holder.fingerprint.clone(), "meant".to_owned())]);
    // What is taken back is good for nobody.
    let word = ticket(&machine, "ec2-user", &[]);
    totp(&machine, &["invite", "ec2-user", "--revoke"]);
    machine.log();
    assert!(!login(&sshd, &other, &[&word]).succeeded);
    assert_eq!(reasons(&machine.log()), ["wrong-ticket"]);
}

#[test]
fn whose_device_is_taken_away_vouches_for_nobody_who_is_still_at_the_door() {
    for way in ["remove", "device"] {
        let machine = machine("inline", NO_HOSTS);
        let sshd = Sshd::start(&machine, KEY_AND_CODE);
        let leaver = holder(&machine, &sshd, "leaver");
        let key = new_key(&sshd, "next");
        let mut client = sshd.talk("ec2-user", &key, &["-o", "NumberOfPasswordPrompts=1"]);
        client.reply(|_| code_now(&leaver.secret));
        let secret = secret(&screen::uri(&client.question().unwrap()));
        let whose = ["--user", "ec2-user", "--key", &leaver.fingerprint];
        match way {
            "remove" => totp(&machine, &[&["remove"], &whose[..]].concat()),
            _ => totp(&machine, &[&["device", "remove", "phone", "--force"], &whose[..]].concat()),
        };
        machine.log();
        client.answer(&code_now(&secret));
        assert!(!client.finish_anyhow().succeeded);
        let log = ours(&machine);
        assert!(says(&log, &["denied", "reason=not-invited grounds=device-of-account"]), "{way}: {log:#?}");
        let listed = run(&machine, &["device", "list", "ec2-user"]);
        assert!(!String::from_utf8_lossy(&listed.stdout).contains(&fingerprint(&key)), "{listed:?}");
    }
}

#[test]
fn the_device_of_the_account_itself_is_nobodys_with_a_key() {
    let machine = machine("inline", NO_HOSTS);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    // From the days when it was one person's.
    let made = json(&machine, &["enrol", "--user", "ec2-user", "--no-confirm"]);
    let own = made["secret"].as_str().unwrap();
    let key = new_key(&sshd, "new");
    let spare = made["recovery_codes"][0].as_str().unwrap();
    assert!(!login(&sshd, &key, &[spare]).succeeded);
    assert_eq!(reasons(&machine.log()), ["wrong-ticket"]);
    // It vouches like any other.
    let (holder, session) = enrol(&sshd, &key, &[&code_now(own)], 0);
    assert_in(&session, &machine);
    assert!(says(&ours(&machine), &["enrolled=device-of-account vouched-by=account"]));
    assert!(!login(&sshd, &key, &[&next_code(own)]).succeeded);
    assert_eq!(
        devices(&machine),
        [(String::new(), "phone".to_owned()), (holder.fingerprint.clone(), "phone".to_owned())]
    );
    totp(&machine, &["remove", "--user", "ec2-user"]);
    assert_in(&login(&sshd, &key, &[&next_code(&holder.secret)]), &machine);
}

#[test]
fn what_is_lost_of_one_is_neither_a_way_in_nor_in_the_way_of_others() {
    let machine = machine("inline", NO_HOSTS);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let [lost, whole] = ["lost", "whole"].map(|name| holder(&machine, &sshd, name));
    // A backup without the marks: a new key is not the first one as long as there is a record.
    fs::remove_dir_all(machine.path(&format!("{}/enrolled", root_only::STATE))).unwrap();
    totp(&machine, &["setup", "store"]);
    let session = login(&sshd, &new_key(&sshd, "new"), &["000000"]);
    assert!(!session.succeeded && !session.questions.join("").contains("otpauth"), "{session:#?}");
    // A record that cannot be read.
    let name = lost.fingerprint.replace(':', "%3A").replace('+', "%2B").replace('/', "%2F");
    let record = format!("{}/records/ec2-user,{name}", root_only::STATE);
    assert!(machine.path(&record).exists());
    machine.write(&record, "garbage");
    let listed = run(&machine, &["device", "list", "ec2-user"]);
    let shown = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(!listed.status.success() && shown.starts_with(&format!("{} phone: ", whole.fingerprint)), "{listed:?}");
    assert!(String::from_utf8_lossy(&listed.stderr).contains(&lost.fingerprint), "{listed:?}");
    machine.log();
    assert!(!login(&sshd, &lost.key, &[&code_now(&lost.secret)]).succeeded);
    let (_, session) = enrol(&sshd, &new_key(&sshd, "newer"), &[&code_now(&whole.secret)], 0);
    assert_in(&session, &machine);
    assert_in(&login(&sshd, &whole.key, &[&next_code(&whole.secret)]), &machine);
}
