//! Logins that another process decides: through real libpam, sshd and PostgreSQL, by requests of any uid made by hand, and with
//! whatever can be wrong at a socket.

use crate::support::agent::{Agent, as_uid, exchange, receive, shared_socket};
use crate::support::machine::{ALICE, AUTH_ERR, AUTHINFO_UNAVAIL, BOB, CAROL, LoggedIn, Machine, SUCCESS, User};
use crate::support::postgres::Postgres;
use crate::support::root_only::{self, PROMPT, STACK, STATE, json, next_code, run, secret, totp};
use crate::support::ssh::{KEY_AND_CODE, Sshd};
use crate::support::totp::{code_at, code_now, hotp, now, wrong_code};
use crate::support::{output_of, reasons, rounds, screen};
use pam_totp::agent::wire::{Knock, Reply, Request, VERSION, Verdict};
use pam_totp::secret::Secret;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

/// A module that waits for longer than this has not denied in time.
const IN_TIME: Duration = Duration::from_secs(6);
/// What is tested is not the ledger.
pub const WITHOUT_LIMITS: &str = "[throttle]\nuser = \"\"\nhost = \"\"\n";
const NOBODY: u32 = 65534;

/// The machine, and the agent's part of its policy. What is in `policy` goes on from `[defaults]`.
pub fn machine(policy: &str) -> Machine {
    root_only::machine(&format!("via = \"agent\"\nfail_delay = \"0s\"\n{policy}"))
}

/// The same, with the agent where anybody outside of the machine gets to it too.
pub fn shared(policy: &str) -> Machine {
    let machine = Machine::new();
    let socket = shared_socket(&machine);
    root_only::ready(
        machine,
        &format!("via = \"agent\"\nagent_socket = \"{}\"\nfail_delay = \"0s\"\n{policy}", socket.display()),
    )
}

/// A new device of somebody's, and its secret.
pub fn enrol(machine: &Machine, user: User) -> String {
    let printed = json(machine, &["enrol", "--user", user.name, "--no-confirm", "--force"]);
    printed["secret"].as_str().unwrap().to_owned()
}

/// The same, of a device that counts.
pub fn enrol_counter(machine: &Machine, user: User) -> String {
    let printed = json(machine, &["enrol", "--user", user.name, "--no-confirm", "--force", "--counter-based"]);
    printed["secret"].as_str().unwrap().to_owned()
}

pub fn knock(service: &str, user: &str) -> Knock {
    Knock { service: service.into(), user: user.into(), ..Knock::default() }
}

pub fn begin(knock: Knock) -> Request {
    Request::Begin(knock, None)
}

fn answer(login: Vec<u8>, text: &str) -> Request {
    Request::Answer(login, Ok(Secret::new(text.into())))
}

/// What somebody with this uid gets for a code.
fn verdict(agent: &Agent, uid: u32, knock: &Knock, code: &str) -> Option<Verdict> {
    match agent.reply_to(uid, &begin(knock.clone()))? {
        Reply::Question { login, .. } => match agent.reply_to(uid, &answer(login, code))? {
            Reply::Verdict { verdict, .. } => Some(verdict),
            _ => panic!("no verdict"),
        },
        Reply::Verdict { verdict, .. } => Some(verdict),
        _ => panic!("neither question nor verdict"),
    }
}

fn parked(agent: &Agent, uid: u32, knock: Knock) -> Vec<u8> {
    match agent.reply_to(uid, &begin(knock)) {
        Some(Reply::Question { login, .. }) => login,
        _ => panic!("no question"),
    }
}

// ---- What a person sees ----

#[test]
fn the_agent_decides_what_the_module_would() {
    let machine = machine("");
    let agent = Agent::start(&machine);
    let secret = enrol(&machine, ALICE);
    let code = code_now(&secret);
    let right = machine.login("test", "alice").with(&["--rhost", "192.0.2.7"]).answer(&code).run();
    let asked = [format!("1 \"{PROMPT}\"")];
    assert_eq!((right.result(), right.prompts.as_slice()), (SUCCESS, &asked[..]));
    assert_eq!(
        right.log,
        ["pam_totp(test:auth): accepted user=alice rhost=192.0.2.7 factor=totp steps=+0 device=phone"]
    );
    let used = machine.login("test", "alice").with(&["--rhost", "192.0.2.7"]).answer(&code).run();
    assert_eq!((used.result(), used.reason().as_str()), (AUTH_ERR, "used-code"));
    assert!(used.log.iter().any(|line| line.contains("pam_totp(test:auth): authentication failure; ")), "{used:#?}");
    assert_eq!(used.log.len(), 2, "{used:#?}");
    let wrong = machine.login("test", "alice").answer(wrong_code(&secret)).run();
    assert_eq!((wrong.result(), wrong.reason().as_str()), (AUTH_ERR, "wrong-code"));
    for nobody in ["bob", "nobody-of-that-name"] {
        let denied = machine.login("test", nobody).answer("123456").run();
        assert_eq!((denied.result(), denied.prompts.as_slice()), (AUTH_ERR, &asked[..]), "{nobody}");
    }
    drop(agent);
    let unavailable = machine.login("test", "alice").answer(next_code(&secret)).run();
    assert_eq!((unavailable.result(), unavailable.reason().as_str()), (AUTHINFO_UNAVAIL, "no-agent"));
    assert!(!unavailable.log.iter().any(|line| line.contains("authentication failure")), "nobody is banned for it");
}

#[test]
fn a_first_device_is_made_inside_a_login_that_the_agent_decides() {
    let machine = machine("[service.sshd]\nenrolment = \"inline\"\n");
    machine.service("sshd", &format!("{STACK}session optional pam_totp.so\n"));
    let mut agent = Agent::start(&machine);
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &[]);
    let shown = client.question().unwrap();
    let secret = secret(&screen::scan(&shown));
    client.answer(&wrong_code(&secret));
    client.reply(|question| {
        assert!(question.ends_with(PROMPT) && !question.contains('█'), "{question}");
        code_now(&secret)
    });
    let session = client.finish();
    assert!(session.succeeded, "{session:#?} {:#?}", machine.log());
    let log = machine.log();
    assert!(log.iter().any(|line| line.contains("accepted user=alice") && line.contains("enrolled=first")), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains(&secret)));
    // The next one, a failure, and what is said about it.
    assert!(!sshd.login(ALICE, &[&wrong_code(&secret)]).succeeded);
    let session = sshd.look_in(ALICE, &[&next_code(&secret)]);
    assert!(session.succeeded && session.output.contains("1 code failed since your last login"), "{session:#?}");
    // Somebody who was shown a secret of an agent that is gone has none.
    let mut client = sshd.talk("bob", &sshd.key(BOB), &[]);
    let shown = client.question().unwrap();
    agent.again();
    client.answer(&code_now(&crate::support::root_only::secret(&screen::scan(&shown))));
    assert!(!client.finish_anyhow().succeeded);
    assert!(!machine.path(&format!("{STATE}/records/bob")).exists());
}

#[test]
fn who_is_asked_for_want_of_an_answer_from_their_home_is_in_the_log_so() {
    let machine = machine("enrolment = \"optional\"\n");
    let _agent = Agent::start(&machine);
    machine.service("test", "auth required pam_totp.so\nauth required pam_permit.so\n");
    assert_eq!(machine.login("test", "bob").run().result(), SUCCESS);
    fs::set_permissions(machine.path(&BOB.home()), fs::Permissions::from_mode(0o000)).unwrap();
    let login = machine.login("test", "bob").answer("000000").run();
    assert_eq!((login.result(), login.prompts.len(), login.reason().as_str()), (AUTH_ERR, 1, "file-error"));
    assert!(login.log.iter().any(|line| line.contains(" path=/home/bob")), "{login:#?}");
}

#[test]
fn a_password_before_the_code_is_left_for_the_next_module() {
    let machine = machine("");
    let stack = "auth required pam_totp.so forward_pass\nauth required pam_unix.so use_first_pass\naccount required pam_permit.so\n";
    machine.service("both", stack);
    let _agent = Agent::start(&machine);
    let secret = enrol(&machine, ALICE);
    let login = |text: String| machine.login("both", "alice").answer(text).run();
    let code = code_now(&secret);
    assert_eq!(login(format!("wrong{code}")).result(), AUTH_ERR, "the code is right, and used up");
    assert_eq!(login(format!("password{code}")).result(), AUTH_ERR);
    let right = login(format!("password{}", next_code(&secret)));
    assert_eq!(right.result(), SUCCESS, "{right:#?}");
}

/// A password may end in six digits, and is looked at first. What that cost is taken back by the right code, though the agent
/// has forgotten about it in between.
#[test]
fn what_a_login_was_charged_before_the_question_is_taken_back() {
    let machine = machine("[throttle]\nuser = \"*:3/1h\"\n");
    let stack = "auth required pam_unix.so\nauth required pam_totp.so try_first_pass\naccount required pam_permit.so\n";
    machine.service("late", stack);
    output_of(machine.command("sh").args(["-c", "echo alice:hunter123456 | chpasswd -c SHA512"]));
    let _agent = Agent::start(&machine);
    let secret = enrol_counter(&machine, ALICE);
    for counter in 1..8 {
        let right = machine.login("late", "alice").answer("hunter123456").answer(hotp(&secret, counter)).run();
        assert_eq!(right.result(), SUCCESS, "{counter}: {right:#?}");
    }
    for tries in 1..=2 {
        let denied = machine.login("late", "alice").answer("hunter123456").answer("000000").run();
        assert_eq!((denied.result(), tries), (AUTH_ERR, tries));
    }
    let throttled = machine.login("late", "alice").answer("hunter123456").answer(hotp(&secret, 8)).run();
    assert_eq!(throttled.result(), AUTH_ERR, "four guesses had been made: {throttled:#?}");
}

// ---- Programs that are not root ----

#[test]
fn a_server_that_is_not_root_asks_about_the_people_of_its_groups() {
    let machine = machine(
        "[[trusted_caller]]\nuser = \"postgres\"\nservices = [\"postgresql\"]\ngroups = [\"alice\", \"bob\"]\n[throttle]\nhost = \"\"\n",
    );
    let _agent = Agent::start(&machine);
    machine.service("postgresql", STACK);
    let secret = enrol(&machine, ALICE);
    let postgres = Postgres::start(&machine, "host all all 127.0.0.1/32 pam pamservice=postgresql");
    let read = machine.command("runuser").args(["-u", "postgres", "--", "ls", STATE]).output().unwrap();
    assert!(!read.status.success(), "it gets at no secret: {read:?}");
    let code = code_now(&secret);
    assert!(!postgres.lets_in(&wrong_code(&secret)));
    let log = machine.log();
    assert!(postgres.lets_in(&code), "{} {log:#?} {:#?}", postgres.log(), machine.log());
    assert!(!postgres.lets_in(&code), "used");
    assert!(reasons(&log).contains(&"wrong-code".to_owned()), "{log:#?}");
    let log = machine.log();
    assert!(
        log.iter()
            .any(|line| line.contains("pam_totp(postgresql:auth): accepted user=alice") && line.contains("peer=")),
        "{log:#?}"
    );
}

#[test]
fn a_program_of_somebodys_own_asks_about_them_alone() {
    let machine = machine(WITHOUT_LIMITS);
    let _agent = Agent::start(&machine);
    machine.service("locker", STACK);
    let [alice, bob] = [enrol(&machine, ALICE), enrol(&machine, BOB)];
    assert!(!machine.command_as(ALICE, "ls").arg(STATE).output().unwrap().status.success());
    let login = |caller, user: &str, code: &str| machine.login_as(caller, "locker", user).answer(code).run();
    let denied = login(ALICE, "alice", &wrong_code(&alice));
    assert_eq!((denied.result(), denied.reason().as_str()), (AUTH_ERR, "wrong-code"));
    let right = login(ALICE, "alice", &code_now(&alice));
    assert_eq!(right.result(), SUCCESS, "{right:#?}");
    assert!(
        right.log.iter().any(|line| line.starts_with("pam_totp(local:auth): accepted user=alice rhost= ")),
        "{right:#?}"
    );
    let of_another = login(ALICE, "bob", &code_now(&bob));
    assert_eq!((of_another.result(), of_another.reason().as_str()), (AUTH_ERR, "caller-refused"));
    assert!(of_another.prompts.is_empty());
    assert_eq!(login(BOB, "bob", &code_now(&bob)).result(), SUCCESS, "nobody has spent it");
}

/// Root, oneself, somebody else, a trusted caller, nobody: each with every field forged.
#[test]
fn of_who_is_not_root_only_the_code_counts() {
    let policy = "grace = \"1h\"\n\
        [service.sshd]\nenrolment = \"inline\"\n\
        [[exempt]]\nusers = [\"alice\", \"bob\", \"carol\"]\nnetworks = [\"192.0.2.0/24\"]\nservices = [\"any\"]\nuntil = 2099-01-01\nreason = \"test\"\n\
        [[trusted_caller]]\nuser = \"carol\"\nservices = [\"vpn\"]\ngroups = [\"any\"]\n\
        [throttle]\nuser = \"\"\nhost = \"\"\n";
    let machine = shared(policy);
    let agent = Agent::start_shared(&machine);
    let secret = enrol_counter(&machine, ALICE);
    let mut counter = 0;
    let mut right = || {
        counter += 1;
        hotp(&secret, counter)
    };
    let key = "publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJfJCNKc0bZ0LSbyNuQZvVqMqFvKp1iRUNHEjz0QdJ1S\n";
    let forged: Vec<(&str, Knock)> = vec![
        ("rhost", Knock { rhost: b"192.0.2.7".to_vec(), ..knock("sshd", "alice") }),
        ("login key", Knock { login_key: key.into(), ..knock("sshd", "alice") }),
        ("uid", Knock { uid: 0, caller: Some(0), ..knock("sudo", "alice") }),
        ("nullok", Knock { arguments: vec![b"nullok".to_vec()], ..knock("test", "alice") }),
        ("grace", Knock { arguments: vec![b"grace_period=86400".to_vec()], ..knock("test", "alice") }),
        ("conf", Knock { arguments: vec![b"conf=/etc/security/weak.toml".to_vec()], ..knock("test", "alice") }),
        ("user", Knock { arguments: vec![b"user=root".to_vec()], ..knock("test", "alice") }),
        ("service", knock("vpn", "alice")),
    ];
    machine.write("/etc/security/weak.toml", "version = 1\n[defaults]\nstore = \"system\"\nenrolment = \"optional\"\n");
    for (field, knock) in &forged {
        // About themselves: asked, and judged by the code alone.
        assert_eq!(verdict(&agent, ALICE.uid, knock, "000000"), Some(Verdict::Deny), "{field}");
        assert_eq!(verdict(&agent, ALICE.uid, knock, &right()), Some(Verdict::Allow), "{field}");
        // About somebody else: refused unasked, right code or not.
        let reply = agent.reply_to(BOB.uid, &begin(knock.clone()));
        assert!(matches!(reply, Some(Reply::Verdict { verdict: Verdict::Deny, .. })), "{field}");
        // Nobody of this machine, whoever they say they are.
        for user in ["alice", "nobody", "root"] {
            let reply = agent.reply_to(NOBODY, &begin(Knock { user: user.into(), ..knock.clone() }));
            assert!(matches!(reply, Some(Reply::Verdict { verdict: Verdict::Deny, .. })), "{field} {user}");
        }
        // A trusted caller, at its service alone.
        let at_its_service = Knock { service: b"vpn".to_vec(), ..knock.clone() };
        assert_eq!(verdict(&agent, CAROL.uid, &at_its_service, "000000"), Some(Verdict::Deny), "{field}");
        assert_eq!(verdict(&agent, CAROL.uid, &at_its_service, &right()), Some(Verdict::Allow), "{field}");
        if knock.service != b"vpn" {
            let reply = agent.reply_to(CAROL.uid, &begin(knock.clone()));
            assert!(matches!(reply, Some(Reply::Verdict { verdict: Verdict::Deny, .. })), "{field}");
        }
    }
    // About root, and about who does not exist: asked as everybody is, and denied. Of somebody without a device no different.
    let _ = machine.log();
    totp(&machine, &["enrol", "--user", "root", "--no-confirm", "--force", "--counter-based"]);
    for user in ["root", "nobody-of-that-name", "bob"] {
        let Some(Reply::Question { login, text: None, .. }) = agent.reply_to(CAROL.uid, &begin(knock("vpn", user)))
        else {
            panic!("{user} is not asked")
        };
        let reply = agent.reply_to(CAROL.uid, &answer(login, "123456"));
        assert!(matches!(reply, Some(Reply::Verdict { verdict: Verdict::Deny, .. })), "{user}");
    }
    assert_eq!(reasons(&machine.log()), ["caller-refused", "unknown-user", "not-enrolled"]);
    // Root is believed: there is an exemption for that network, and an enrolment for that key.
    let exempt = &forged[0].1;
    assert!(matches!(agent.reply_to(0, &begin(exempt.clone())), Some(Reply::Verdict { verdict: Verdict::Ignore, .. })));
    let newcomer = Knock { login_key: key.into(), rhost: b"198.51.100.7".to_vec(), ..knock("sshd", "bob") };
    assert!(matches!(agent.reply_to(0, &begin(newcomer.clone())), Some(Reply::Question { text: Some(_), .. })));
    assert!(matches!(agent.reply_to(BOB.uid, &begin(newcomer)), Some(Reply::Question { text: None, .. })));
    // Notices are root's business.
    assert!(matches!(agent.reply_to(ALICE.uid, &Request::Notice(knock("sshd", "alice"))), Some(Reply::Notice(None))));
}

// ---- Logins that wait ----

#[test]
fn two_hundred_people_may_sit_at_their_prompts_while_another_logs_in() {
    let machine = shared(WITHOUT_LIMITS);
    let agent = Agent::start_shared(&machine);
    let [alice, bob] = [enrol_counter(&machine, ALICE), enrol_counter(&machine, BOB)];
    // More than the agent has threads, of which none begins or ends with a login.
    let threads = || fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap().count();
    assert_eq!(threads(), 1 + 64);
    let waiting: Vec<_> = (0..200).map(|_| parked(&agent, 0, knock("test", "alice"))).collect();
    assert_eq!(threads(), 1 + 64);
    // Who had to wait for them would find no agent in time.
    assert_eq!(machine.login("test", "bob").answer(hotp(&bob, 1)).run().result(), SUCCESS);
    // And all of them at once, with the same code: one gets in.
    let code = hotp(&alice, 1);
    let verdicts: Vec<_> = thread::scope(|scope| {
        let answers: Vec<_> = waiting
            .into_iter()
            .map(|login| {
                let (agent, code) = (&agent, &code);
                scope.spawn(move || agent.reply_to(0, &answer(login, code)))
            })
            .collect();
        answers.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    let count = |wanted| {
        verdicts
            .iter()
            .filter(|reply| matches!(reply, Some(Reply::Verdict { verdict, .. }) if *verdict == wanted))
            .count()
    };
    assert_eq!((count(Verdict::Allow), count(Verdict::Deny)), (1, 199));
}

#[test]
fn one_of_many_sessions_through_libpam_gets_in() {
    let machine = machine(WITHOUT_LIMITS);
    let _agent = Agent::start(&machine);
    let secret = enrol_counter(&machine, ALICE);
    for counter in 1..=u64::try_from(rounds(5, 50)).unwrap() {
        let race = machine.login("test", "alice").with(&["--parallel", "40"]).answer(hotp(&secret, counter)).run();
        assert_eq!((race.count(SUCCESS), race.count(AUTH_ERR)), (1, 39), "{:?}", race.results);
    }
}

#[test]
fn a_login_that_was_put_away_is_good_for_whoever_began_it_unaltered_and_once() {
    let machine = shared(WITHOUT_LIMITS);
    let mut agent = Agent::start_shared(&machine);
    let secret = enrol_counter(&machine, ALICE);
    let denied = |agent: &Agent, uid, login: Vec<u8>, code: &str| {
        let reply = agent.reply_to(uid, &answer(login, code));
        assert!(matches!(reply, Some(Reply::Verdict { verdict: Verdict::Deny, .. })));
        reasons(&machine.log())
    };
    let login = parked(&agent, ALICE.uid, knock("test", "alice"));
    let (right, _) = (hotp(&secret, 1), machine.log());
    for at in 0..login.len() {
        let mut altered = login.clone();
        altered[at] ^= 1;
        let reply = agent.reply_to(ALICE.uid, &answer(altered, &right));
        assert!(matches!(reply, Some(Reply::Verdict { verdict: Verdict::Deny, .. })), "{at}");
    }
    let log = machine.log();
    assert_eq!(reasons(&log), vec!["unknown-login"; login.len()]);
    assert_eq!(denied(&agent, ALICE.uid, login[..login.len() - 1].to_vec(), &right), ["unknown-login"]);
    assert_eq!(denied(&agent, ALICE.uid, Vec::new(), &right), ["unknown-login"]);
    for other in [0, BOB.uid] {
        assert_eq!(denied(&agent, other, login.clone(), &right), ["unknown-login"], "{other}");
    }
    // Neither said more than the log does; the code is as good as it was. Given twice, it is used.
    let reply = agent.reply_to(ALICE.uid, &answer(login.clone(), &right));
    assert!(matches!(reply, Some(Reply::Verdict { verdict: Verdict::Allow, .. })));
    let _ = machine.log();
    assert_eq!(denied(&agent, ALICE.uid, login.clone(), &right), ["wrong-code"]);
    agent.again();
    assert_eq!(denied(&agent, ALICE.uid, login, &hotp(&secret, 2)), ["unknown-login"]);
}

// ---- Whatever comes through the socket ----

#[test]
fn whatever_bytes_come_the_agent_goes_on_and_lets_nobody_in() {
    let machine = shared(WITHOUT_LIMITS);
    let agent = Agent::start_shared(&machine);
    let secret = enrol_counter(&machine, ALICE);
    let good = begin(knock("test", "alice")).message().unwrap().expose().clone();
    let login = parked(&agent, 0, knock("test", "alice"));
    let parked = answer(login, "123456").message().unwrap().expose().clone();
    // A generator of our own (xorshift), so that a failure can be repeated.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 32).unwrap()
    };
    for round in 0..rounds(1500, 50_000) {
        let mut bytes = if round % 2 == 0 { good.clone() } else { parked.clone() };
        for _ in 0..=random() % 4 {
            let at = random() % bytes.len();
            match random() % 4 {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.insert(at, u8::try_from(random() % 256).unwrap()),
                2 => bytes[at] = u8::try_from(random() % 256).unwrap(),
                _ => bytes.extend_from_within(..at),
            }
        }
        let reply = exchange(agent.socket(), &bytes);
        let reply = reply.map(|reply| Reply::parse(&reply).unwrap());
        assert!(!matches!(reply, Some(Reply::Verdict { verdict: Verdict::Allow | Verdict::Ignore, .. })), "{bytes:?}");
    }
    // What is no message at all.
    for garbage in [&b""[..], b"\0", b"\xff\xff\xff\xff", b"GET / HTTP/1.0\r\n\r\n", &[0; 100_000]] {
        let mut stream = agent.connect().unwrap();
        let _ = stream.write_all(garbage);
        drop(stream);
    }
    for version in [0, VERSION + 1, 255] {
        let mut other = good.clone();
        other[0] = version;
        let reply = exchange(agent.socket(), &other).unwrap();
        assert!(matches!(Reply::parse(&reply), Ok(Reply::Version)));
    }
    // Byte by byte, it is what it is.
    let mut stream = agent.connect().unwrap();
    for byte in [&u32::try_from(good.len()).unwrap().to_be_bytes()[..], &good].concat() {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(matches!(Reply::parse(&receive(&mut stream).unwrap()), Ok(Reply::Question { .. })));
    assert_eq!(verdict(&agent, 0, &knock("test", "alice"), &hotp(&secret, 1)), Some(Verdict::Allow));
}

#[test]
fn connections_of_somebody_who_says_nothing_are_in_nobody_elses_way() {
    let machine = shared("");
    let agent = Agent::start_shared(&machine);
    let [alice, bob] = [enrol_counter(&machine, ALICE), enrol(&machine, BOB)];
    let open = |uid: u32, count: usize| {
        as_uid(uid, || (0..count).map(|_| UnixStream::connect(agent.socket()).unwrap()).collect::<Vec<_>>())
    };
    let others = ["dora", "emil", "fred", "gina", "hugo", "iris"];
    let others: Vec<_> = others.into_iter().zip(20_100..).map(|(name, uid)| User { name, uid }).collect();
    others.iter().for_each(|&user| machine.add(user));
    // Who waits for one of them to be given up never is in time. A disk that has other things to do is not, now and then.
    let crowd = || others.iter().flat_map(|user| open(user.uid, 100)).collect::<Vec<_>>();
    let mut attempts = (1..=3).map(|counter| {
        let code = hotp(&alice, counter);
        let idle = crowd();
        let started = Instant::now();
        assert_eq!(machine.login("test", "alice").answer(code).run().result(), SUCCESS);
        (idle, started)
    });
    let in_time = attempts.find(|(_, started)| started.elapsed() < Duration::from_millis(1900));
    let (idle, started) = in_time.expect("nobody gets in before idle connections are given up");
    // They are not kept for ever either, and then there is a place for everybody.
    for mut stream in idle {
        // Long enough for a machine that has other things to do.
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let end = stream.read(&mut [0]);
        let is_closed = match &end {
            Ok(0) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            Ok(_) => false,
        };
        assert!(is_closed, "{end:?} after {:?}", started.elapsed());
    }
    assert_eq!(verdict(&agent, BOB.uid, &knock("", "bob"), &code_now(&bob)), Some(Verdict::Allow));
}

// ---- An agent that is not there, or not one ----

/// What listens in the place of the agent.
enum Impostor {
    Says(Vec<u8>),
    SaysRaw(Vec<u8>),
    Drips,
    Hangs,
}

fn whole(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// Serves connections until the listener is gone.
fn impersonate(listener: &UnixListener, impostor: &Impostor) {
    listener.set_nonblocking(true).unwrap();
    let started = Instant::now();
    let mut held = Vec::new();
    while started.elapsed() < Duration::from_secs(8) {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(5));
            if held.len() > 1000 {
                break;
            }
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        let _ = match impostor {
            Impostor::Says(message) => receive(&mut stream).map(|_| stream.write_all(&whole(message))),
            Impostor::SaysRaw(bytes) => receive(&mut stream).map(|_| stream.write_all(bytes)),
            Impostor::Drips => {
                let _ = stream.write_all(&60_000_u32.to_be_bytes());
                while started.elapsed() < Duration::from_secs(8) && stream.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
                None
            }
            Impostor::Hangs => None,
        };
        if matches!(impostor, Impostor::Hangs) {
            held.push(stream);
        }
    }
}

/// The reason why there was nobody to judge a login, which was found out in time.
fn unavailable(login: &LoggedIn) -> String {
    assert_eq!(login.result(), AUTHINFO_UNAVAIL, "{login:#?}");
    let nanoseconds = login.output.lines().find_map(|line| line.strip_prefix("nanoseconds "));
    let took = Duration::from_nanos(nanoseconds.unwrap().parse().unwrap());
    assert!(took < IN_TIME, "{took:?}: {login:#?}");
    assert!(!login.log.iter().any(|line| line.contains("authentication failure")), "{login:#?}");
    login.reason()
}

#[test]
fn an_agent_that_is_absent_hung_or_lying_denies_in_time() {
    let verdict =
        |verdict| Reply::Verdict { verdict, fail_delay: 0, password: None }.message().unwrap().expose().clone();
    let question = Reply::Question { text: None, prompt: b"Code: ".to_vec(), echo: false, login: vec![7; 100] };
    let mut newer = verdict(Verdict::Allow);
    newer[0] = VERSION + 1;
    let mut longer = verdict(Verdict::Allow);
    longer.push(0);
    let impostors = [
        (Impostor::Hangs, "no-agent"),
        (Impostor::Drips, "no-agent"),
        (Impostor::SaysRaw(Vec::new()), "no-agent"),
        (Impostor::SaysRaw(b"\0\0".to_vec()), "no-agent"),
        (Impostor::SaysRaw(b"\0\0\0\0".to_vec()), "no-agent"),
        (Impostor::SaysRaw(b"\xff\xff\xff\xff".to_vec()), "no-agent"),
        (Impostor::SaysRaw(whole(&verdict(Verdict::Allow))[..8].to_vec()), "no-agent"),
        (Impostor::Says(b"OK".to_vec()), "agent-of-other-version"),
        (Impostor::Says(newer), "agent-of-other-version"),
        (Impostor::Says(Reply::Version.message().unwrap().expose().clone()), "agent-of-other-version"),
        (Impostor::Says(longer), "agent-makes-no-sense"),
        (Impostor::Says(vec![VERSION, b'V', 9, 0, 0, 0, 0, 0]), "agent-makes-no-sense"),
        (Impostor::Says(Reply::Notice(None).message().unwrap().expose().clone()), "agent-makes-no-sense"),
        (Impostor::Says(question.message().unwrap().expose().clone()), "agent-makes-no-sense"),
    ];
    // Each on a machine of its own, all at once: some of them take their six seconds.
    thread::scope(|scope| {
        for (impostor, reason) in &impostors {
            scope.spawn(move || {
                let machine = shared("");
                let listener = UnixListener::bind(shared_socket(&machine)).unwrap();
                let login = thread::scope(|scope| {
                    scope.spawn(|| impersonate(&listener, impostor));
                    let mut client = machine.login("test", "alice").with(&["--time"]);
                    for _ in 0..8 {
                        client = client.answer("123456");
                    }
                    client.run()
                });
                assert_eq!(&unavailable(&login), reason, "{login:#?}");
            });
        }
    });
}

#[test]
fn what_is_not_roots_or_not_there_is_no_agent() {
    let machine = shared("");
    let socket = shared_socket(&machine);
    let login = || unavailable(&machine.login("test", "alice").with(&["--time"]).answer("123456").run());
    assert_eq!(login(), "no-agent", "nothing is there");
    // Somebody's, who would like to have a code.
    let theirs = machine.shared().join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(BOB.uid), Some(BOB.uid)).unwrap();
    let listener = as_uid(BOB.uid, || UnixListener::bind(theirs.join("socket")).unwrap());
    symlink(theirs.join("socket"), &socket).unwrap();
    assert_eq!(login(), "agent-of-another");
    listener.set_nonblocking(true).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got.is_empty(), "it was told something");
    fs::remove_file(&socket).unwrap();
    for (what, make) in [
        ("a file", &(|path: &Path| fs::write(path, "").unwrap()) as &dyn Fn(&Path)),
        ("a directory", &|path: &Path| fs::create_dir(path).unwrap()),
        ("a link to nothing", &|path: &Path| symlink("/nowhere", path).unwrap()),
        ("a link to itself", &|path: &Path| symlink("agent.sock", path).unwrap()),
        ("a FIFO", &|path: &Path| drop(output_of(std::process::Command::new("mkfifo").arg(path)))),
    ] {
        make(&socket);
        assert_eq!(login(), "no-agent", "{what}");
        let _ = fs::remove_file(&socket).or_else(|_| fs::remove_dir(&socket));
    }
    // A socket that nobody listens at any more, and one that nobody accepts from: with the queue full, and not.
    let listener = UnixListener::bind(&socket).unwrap();
    assert_eq!(login(), "no-agent", "nobody accepts");
    drop(listener);
    assert_eq!(login(), "no-agent", "nobody listens");
    // What was left there does not keep an agent from its place.
    let agent = Agent::start_shared(&machine);
    let secret = enrol(&machine, ALICE);
    assert_eq!(machine.login("test", "alice").answer(code_now(&secret)).run().result(), SUCCESS);
    let second = Agent::command(&machine).arg("--socket").arg(&socket).output().unwrap();
    assert!(
        !second.status.success() && String::from_utf8_lossy(&second.stderr).contains("agent-is-there"),
        "{second:?}"
    );
    drop(agent);
}

#[test]
fn an_agent_is_roots_and_says_what_it_cannot_do() {
    let machine = machine("");
    let start = |user: Option<User>, arguments: &[&str]| {
        let mut command = match user {
            None => Agent::command(&machine),
            Some(user) => machine.command_as(user, machine.agent()),
        };
        let output = command.args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, text) = start(Some(ALICE), &[]);
    assert!(code == Some(1) && text.contains("not-root"), "{text}");
    for wrong in [&["--sokcet", "/x"][..], &["--socket"], &["x"]] {
        let (code, text) = start(None, wrong);
        assert!(code == Some(2) && text.contains("Usage: pam-totp-agent"), "{text}");
    }
    assert_eq!(start(None, &["--help"]).0, Some(0));
    assert!(start(None, &["--version"]).1.starts_with("pam-totp-agent "));
    machine.make_directory("/home/alice/run", 0o755, ALICE.uid);
    for path in ["/home/alice/run/socket", "/nowhere/socket"] {
        let (code, text) = start(None, &["--socket", path]);
        assert!(code == Some(1) && text.contains("pam-totp-agent: "), "{path}: {text}");
    }
    let refused = run(&machine, &["check", "--service", "test"]);
    assert!(String::from_utf8_lossy(&refused.stdout).contains("via"), "{refused:?}");
    // It serves no home.
    let _agent = Agent::start(&machine);
    machine.write(root_only::POLICY, "version = 1\n[defaults]\nvia = \"agent\"\n");
    let login = machine.login("test", "alice").answer("123456").run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "bad-policy"), "{login:#?}");
}

// ---- An agent that dies ----

#[test]
fn no_code_is_accepted_without_its_commit_however_the_agent_ends() {
    let machine = machine(WITHOUT_LIMITS);
    let mut agent = Agent::start(&machine);
    let secret = enrol_counter(&machine, ALICE);
    let started = Instant::now();
    assert_eq!(machine.login("test", "alice").answer("000000").run().result(), AUTH_ERR);
    let usual = started.elapsed();
    let (mut counter, mut accepted, mut unjudged) = (1, Vec::new(), 0);
    let count = rounds(30, 200);
    for number in 0..count {
        let code = hotp(&secret, counter);
        let login = thread::scope(|scope| {
            let login = scope.spawn(|| machine.login("test", "alice").answer(&code).run());
            // At some time of the login, from before its beginning to after its end.
            thread::sleep(usual * u32::try_from(number).unwrap() * 3 / 2 / u32::try_from(count).unwrap());
            agent.kill();
            login.join().unwrap()
        });
        agent.again();
        match login.result() {
            SUCCESS => accepted.push(code),
            // Spent in the commit that nobody heard of any more.
            AUTH_ERR => {}
            // Spent or not: the next login shows.
            AUTHINFO_UNAVAIL => {
                unjudged += 1;
                continue;
            }
            other => panic!("{other}: {login:#?}"),
        }
        counter += 1;
    }
    // Whatever was accepted is used up, and the latest code is as good as ever.
    for code in &accepted {
        let again = machine.login("test", "alice").answer(code).run();
        assert_eq!(again.result(), AUTH_ERR, "accepted twice: {again:#?}");
    }
    assert!(unjudged > 0 && !accepted.is_empty(), "{unjudged} unjudged, {} accepted", accepted.len());
    let next =
        [counter, counter + 1].map(|counter| machine.login("test", "alice").answer(hotp(&secret, counter)).run());
    assert!(next.iter().any(|login| login.result() == SUCCESS), "{next:#?}");
}

/// Eight people at once, each with one code after the other, while the agent is killed and started again and again.
#[test]
fn under_load_a_killed_agent_lets_nobody_in_twice_and_all_is_well_after_its_restart() {
    const CODES: u64 = 12;
    let machine = machine(WITHOUT_LIMITS);
    let people: Vec<_> = (0..8_u32)
        .map(|number| {
            let user = User { name: format!("client{number}").leak(), uid: 21_000 + number };
            machine.add(user);
            (user, enrol_counter(&machine, user))
        })
        .collect();
    let mut agent = Agent::start(&machine);
    // Copied once, before many ask for it.
    let client = machine.client();
    let log_in = |user: User, code: &str| {
        let output = machine.command(&client).args(["test", user.name, "--answer", code]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let result =
            text.lines().find_map(|line| line.strip_prefix("result ")).map(|code| code.parse::<i32>().unwrap());
        result.unwrap_or_else(|| panic!("{output:?}"))
    };
    let done = AtomicUsize::new(0);
    let started = Instant::now();
    // Whatever goes wrong, the test ends.
    let is_going_on = || started.elapsed() < Duration::from_secs(120);
    let (accepted, unjudged) = thread::scope(|scope| {
        let clients: Vec<_> = people
            .iter()
            .map(|(user, secret)| {
                let (done, log_in, is_going_on) = (&done, &log_in, &is_going_on);
                scope.spawn(move || {
                    let (mut accepted, mut unjudged) = (Vec::new(), 0);
                    for counter in 1..=CODES {
                        let (code, mut denied) = (hotp(secret, counter), 0);
                        // Denied once, it may have been begun with one agent and ended with the next. Denied twice, it was spent
                        // and nobody heard of it.
                        while denied < 2 && is_going_on() {
                            match log_in(*user, &code) {
                                SUCCESS => {
                                    accepted.push((*user, code));
                                    break;
                                }
                                AUTH_ERR => denied += 1,
                                AUTHINFO_UNAVAIL => unjudged += 1,
                                other => panic!("{other}"),
                            }
                        }
                    }
                    done.fetch_add(1, SeqCst);
                    (accepted, unjudged)
                })
            })
            .collect();
        while done.load(SeqCst) < people.len() {
            thread::sleep(Duration::from_millis(150));
            agent.again();
        }
        let ends: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        let unjudged: usize = ends.iter().map(|(_, unjudged)| unjudged).sum();
        (ends.into_iter().flat_map(|(accepted, _)| accepted).collect::<Vec<_>>(), unjudged)
    });
    assert!(unjudged > 0 && accepted.len() > people.len(), "{unjudged} unjudged, {} accepted", accepted.len());
    for (user, code) in &accepted {
        assert_eq!(log_in(*user, code), AUTH_ERR, "{}'s was accepted twice", user.name);
    }
    for (user, secret) in &people {
        assert_eq!(log_in(*user, &hotp(secret, CODES + 1)), SUCCESS, "{}", user.name);
    }
}

#[test]
fn an_agent_that_is_stopped_denies_in_time_and_goes_on_where_it_was() {
    let machine = machine("");
    let agent = Agent::start(&machine);
    let secret = enrol(&machine, ALICE);
    agent.signal("STOP");
    let login = machine.login("test", "alice").with(&["--time"]).answer(code_now(&secret)).run();
    assert_eq!(unavailable(&login), "no-agent");
    agent.signal("CONT");
    let code = code_now(&secret);
    let login = machine.login("test", "alice").answer(&code).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    // Nothing that was asked of it meanwhile has spent the next one.
    let next = code_at(&secret, now() + 30);
    assert_eq!(machine.login("test", "alice").answer(next).run().result(), SUCCESS);
}

// ---- Sealed records ----

#[test]
fn the_agent_reads_and_seals_records_that_the_module_cannot_read() {
    const RING: &str = "/etc/security/pam_totp.keys";
    let machine = machine(WITHOUT_LIMITS);
    let conf = machine.read(root_only::POLICY).replace("via = \"agent\"", "via = \"process\"");
    machine.write("/etc/security/process.toml", conf);
    machine
        .service("process", "auth required pam_totp.so conf=/etc/security/process.toml\nauth required pam_permit.so\n");
    let _agent = Agent::start(&machine);
    let [alice, bob] = [enrol_counter(&machine, ALICE), enrol_counter(&machine, BOB)];
    let mut counter = 1;
    let mut login = |service: &str, user: &str| {
        let login = machine.login(service, user).answer(hotp(&alice, counter)).run();
        if login.result() == SUCCESS {
            counter += 1;
            return "accepted".to_owned();
        }
        login.reason()
    };
    let new_key = || json(&machine, &["key", "new"])["key"].as_str().unwrap().to_owned();
    let first_line = |name: &str| {
        let bytes = fs::read(machine.path(&format!("{STATE}/records/{name}"))).unwrap();
        String::from_utf8(bytes.split(|&byte| byte == b'\n').next().unwrap().to_vec()).unwrap()
    };
    let old = new_key();
    assert_eq!(login("test", "alice"), "accepted");
    assert!(first_line("alice").contains("sha256"), "a key that is not active seals nothing");
    // All logins go by way of the agent here, so that nobody is shut out: no --yes.
    totp(&machine, &["key", "activate", &old]);
    assert_eq!(login("test", "alice"), "accepted", "the agent needs no restart");
    assert_eq!(first_line("alice"), format!("# pam_totp record, sealed with key {old}"));
    assert_eq!(login("process", "alice"), "sealed-record");
    // Another key: what is written next is sealed with that.
    let new = new_key();
    totp(&machine, &["key", "activate", &new]);
    assert_eq!(login("test", "alice"), "accepted");
    assert_eq!(first_line("alice"), format!("# pam_totp record, sealed with key {new}"));
    totp(&machine, &["key", "reseal"]);
    totp(&machine, &["key", "drop", &old]);
    // Somebody else's record in the place of this one, and one that was altered.
    let copy =
        |from: &str, to: &str| output_of(machine.command("cp").args([from, to].map(|name| format!("{STATE}/{name}"))));
    copy("records/alice", "kept");
    copy("records/bob", "records/alice");
    assert_eq!(login("test", "alice"), "broken-seal");
    copy("kept", "records/alice");
    assert_eq!(login("test", "alice"), "accepted");
    // A ring that is somebody's to read, cut off, or not there.
    let ring = machine.read(RING);
    machine.write_as(RING, &ring, 0, 0o644);
    assert_eq!(login("test", "alice"), "bad-key-ring", "its mode");
    machine.write_as(RING, &ring[..ring.len() - 10], 0, 0o600);
    assert_eq!(login("test", "alice"), "bad-key-ring");
    fs::remove_file(machine.path(RING)).unwrap();
    assert_eq!(login("test", "alice"), "sealed-record");
    machine.write_as(RING, ring.replace(&new, "00000000"), 0, 0o600);
    assert_eq!(login("test", "alice"), "unknown-seal-key");
    machine.write_as(RING, &ring, 0, 0o600);
    assert_eq!(machine.login("test", "bob").answer(hotp(&bob, 1)).run().result(), SUCCESS, "all is as it was");
}
