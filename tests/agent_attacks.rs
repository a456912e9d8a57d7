//! What a local user, or a server that is not root, tries at the agent.

use crate::agent::{WITHOUT_LIMITS, begin, enrol, enrol_counter, knock, machine, shared};
use crate::support::agent::{Agent, as_uid, receive, shared_socket};
use crate::support::machine::{ALICE, AUTH_ERR, BOB, CAROL, SUCCESS};
use crate::support::output_of;
use crate::support::root_only::{STACK, STATE};
use crate::support::totp::{hotp, wrong_code};
use pam_totp::agent::wire::{Knock, Reply, Request, Verdict};
use pam_totp::secret::Secret;
use std::fs::File;
use std::io::{Error, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Somebody of this machine whom no policy names.
const STRANGER: u32 = 20_100;

/// fail2ban reads these lines, and believes them: the process is root's.
#[test]
fn who_is_refused_does_not_say_from_where_and_at_which_service() {
    let machine = shared("[[trusted_caller]]\nuser = \"bob\"\nservices = [\"vpn\"]\ngroups = [\"any\"]\n");
    let agent = Agent::start_shared(&machine);
    enrol(&machine, ALICE);
    let forged = Knock { rhost: b"198.51.100.7".to_vec(), ..knock("sshd", "alice") };
    for uid in [BOB.uid, CAROL.uid, 65534] {
        let _ = machine.log();
        let reply = agent.reply_to(uid, &begin(forged.clone()));
        assert!(matches!(reply, Some(Reply::Verdict { verdict: Verdict::Deny, .. })), "{uid}");
        let log = machine.log();
        assert_eq!(log.len(), 1, "{log:#?}");
        assert!(
            log[0].starts_with("pam_totp(local:auth): denied user=alice rhost= reason=caller-refused "),
            "{log:#?}"
        );
        assert!(log[0].contains(&format!("peer={uid}")), "{log:#?}");
    }
}

#[test]
fn how_somebody_is_asked_holds_for_the_answer_too() {
    let machine = machine(WITHOUT_LIMITS);
    let _agent = Agent::start(&machine);
    machine.service("both", "auth required pam_totp.so forward_pass\naccount required pam_permit.so\n");
    let secret = enrol_counter(&machine, ALICE);
    let login = machine.login_as(ALICE, "both", "alice").answer(format!("password{}", hotp(&secret, 1))).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
}

#[test]
fn many_logins_of_one_server_at_once_are_all_judged() {
    let machine = machine(WITHOUT_LIMITS);
    let _agent = Agent::start(&machine);
    machine.service("locker", STACK);
    let secret = enrol_counter(&machine, ALICE);
    let race = machine.login_as(ALICE, "locker", "alice").with(&["--parallel", "40"]).answer(hotp(&secret, 1)).run();
    assert_eq!((race.count(SUCCESS), race.count(AUTH_ERR)), (1, 39), "{:?} {:#?}", race.results, race.log.last());
}

/// Everybody may have uids of their own by the thousands (subuid(5)), and so be many.
#[test]
fn uids_that_nobody_has_keep_no_places_from_others() {
    let machine = shared(WITHOUT_LIMITS);
    let agent = Agent::start_shared(&machine);
    machine.service("locker", STACK);
    let secret = enrol_counter(&machine, ALICE);
    let is_over = AtomicBool::new(false);
    let login = thread::scope(|scope| {
        for uid in (STRANGER..STRANGER + 8).flat_map(|uid| [uid; 8]) {
            let (is_over, socket) = (&is_over, agent.socket());
            let idle = move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut stream = UnixStream::connect(socket).unwrap();
                    let _ = stream.read(&mut [0]);
                }
            };
            scope.spawn(move || as_uid(uid, idle));
        }
        thread::sleep(Duration::from_millis(200));
        let login = machine.login_as(ALICE, "locker", "alice").answer(hotp(&secret, 1)).run();
        is_over.store(true, Ordering::Relaxed);
        login
    });
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
}

/// A home can be on a server that is away, or be a file system of its owner's. Whether there is a file in it is looked at for
/// whoever has no device.
#[test]
fn a_home_that_never_answers_keeps_few_places_from_others() {
    let machine = shared(&format!("enrolment = \"optional\"\n{WITHOUT_LIMITS}"));
    let agent = Agent::start_shared(&machine);
    let secret = enrol_counter(&machine, BOB);
    // One that nobody serves.
    let fuse = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse: modprobe fuse");
    let mut mount = machine.command("mount");
    mount.args(["-i", "-t", "fuse", "-o", "fd=100,rootmode=40000,user_id=0,group_id=0,allow_other", "home"]);
    let descriptor = fuse.as_raw_fd();
    // SAFETY: one call that is allowed between fork and exec (signal-safety(7)).
    #[allow(unsafe_code)]
    unsafe {
        mount.pre_exec(move || if libc::dup2(descriptor, 100) == 100 { Ok(()) } else { Err(Error::last_os_error()) });
    }
    output_of(mount.arg(ALICE.home()));
    let message = begin(knock("test", "alice")).message().unwrap();
    let mut asked: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = UnixStream::connect(agent.socket()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            stream.write_all(&u32::try_from(message.expose().len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(message.expose()).unwrap();
            stream
        })
        .collect();
    assert_eq!(machine.login("test", "bob").answer(hotp(&secret, 1)).run().result(), SUCCESS);
    // Of whom nothing is known is asked.
    let replies: Vec<_> = asked.iter_mut().filter_map(|stream| Reply::parse(&receive(stream)?).ok()).collect();
    assert!(replies.iter().all(|reply| matches!(reply, Reply::Question { .. })));
    assert_eq!(replies.len(), 100 - 4);
    // It answers, if only that nothing can be read.
    drop(fuse);
    let replies = asked.iter_mut().filter_map(receive).count();
    assert_eq!(replies, 4);
}

/// Whoever has let `su alice` come to the prompt by the hundreds can answer them all at once, and each comes from a process of
/// root's. Nothing of them ends here, as where the cluster of a fleet is slow.
#[test]
fn what_one_person_asks_by_many_processes_of_roots_keeps_few_places_from_others() {
    let machine = machine(WITHOUT_LIMITS);
    let agent = Agent::start(&machine);
    let wrong = wrong_code(&enrol_counter(&machine, BOB));
    // Of one person a hundred in a row are judged.
    let answers: Vec<_> = [ALICE, CAROL]
        .into_iter()
        .flat_map(|user| vec![(user.name, hotp(&enrol_counter(&machine, user), 1)); 80])
        .map(|(name, code)| {
            let by_su = Knock { uid: CAROL.uid, ..knock("test", name) };
            let Some(Reply::Question { login, .. }) = agent.reply_to(0, &begin(by_su)) else { panic!("not asked") };
            Request::Answer(login, Ok(Secret::new(code.into_bytes()))).message().unwrap()
        })
        .collect();
    let locks = File::options().read(true).write(true).open(machine.path(STATE).join("locks")).unwrap();
    lock(&locks);
    let asked: Vec<_> = answers.iter().map(|message| send(&agent, message.expose())).collect();
    // Who is denied needs no lock.
    let login = machine.login("test", "bob").answer(wrong).run();
    assert_eq!(login.result(), AUTH_ERR, "not unavailable: {login:#?}");
    // A module would ask again.
    let replies = asked.into_iter().filter_map(|mut stream| receive(&mut stream)).count();
    assert!((8..64).contains(&replies), "{replies}");
}

fn send(agent: &Agent, message: &[u8]) -> UnixStream {
    let mut stream = agent.connect().unwrap();
    stream.write_all(&u32::try_from(message.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(message).unwrap();
    stream
}

/// Until it is closed.
fn lock(file: &File) {
    // SAFETY: numbers, of which all bits may be 0.
    #[allow(unsafe_code)]
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: an open descriptor and a range.
    #[allow(unsafe_code)]
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
    assert_eq!(result, 0, "{}", Error::last_os_error());
}

/// Whoever has given up has been told so, and others wait.
#[test]
fn what_was_asked_by_somebody_who_has_gone_is_not_judged() {
    let machine = machine(WITHOUT_LIMITS);
    let agent = Agent::start(&machine);
    machine.service("locker", STACK);
    let secret = enrol_counter(&machine, ALICE);
    let Some(Reply::Question { login, .. }) = agent.reply_to(0, &begin(knock("locker", "alice"))) else {
        panic!("not asked");
    };
    let message = Request::Answer(login, Ok(Secret::new(hotp(&secret, 1).into_bytes()))).message().unwrap();
    let _ = machine.log();
    agent.signal("STOP");
    drop(send(&agent, message.expose()));
    agent.signal("CONT");
    // It comes after that one.
    let login = machine.login_as(ALICE, "locker", "alice").answer(hotp(&secret, 1)).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    assert_eq!(login.log.iter().filter(|line| line.contains("user=alice")).count(), 1, "{login:#?}");
}

#[test]
fn a_session_does_not_wait_long_for_an_agent_that_hangs() {
    let machine = shared("");
    let _listener = UnixListener::bind(shared_socket(&machine)).unwrap();
    machine
        .service("late", "auth required pam_permit.so\naccount required pam_permit.so\nsession optional pam_totp.so\n");
    let started = Instant::now();
    let login = machine.login("late", "alice").with(&["--open-session"]).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    // One second, and not the five and a half of a verdict.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// That is for where there is no agent, and some stacks let people in then.
#[test]
fn what_is_too_long_to_be_asked_is_a_denial_and_no_outage() {
    let machine = machine("");
    let _agent = Agent::start(&machine);
    let login = machine.login("test", "x".repeat(70_000)).answer("123456").run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "login-too-long"));
}
