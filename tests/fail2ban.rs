//! Debian's fail2ban on lines of real logins: its own filters, and the filter and jail in packaging/fail2ban.

use crate::support::machine::{ALICE, BOB, Machine};
use crate::support::ssh::{KEY_AND_CODE, Sshd};
use crate::support::totp::{SECRET, code_now, wrong_code};
use crate::support::{example_file, need, output_of, project, reasons};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The stock filters that count us, and our own.
const STOCK_SSHD: &str = "sshd";
const STOCK_PAM: &str = "pam-generic[__pam_auth=pam_totp]";
const OURS: &str = "pam_totp";

/// fail2ban as the package installs it, and our files put where their comments say.
struct Fail2ban<'a> {
    machine: &'a Machine,
    config: PathBuf,
}

impl<'a> Fail2ban<'a> {
    fn install(machine: &'a Machine) -> Self {
        for program in ["fail2ban-regex", "fail2ban-server", "fail2ban-client"] {
            need(program, "fail2ban");
        }
        let config = machine.shared().join("fail2ban");
        // Without the actions: there is none that could reach the firewall of the host.
        let copy = "cp -r /etc/fail2ban \"$1\" && find \"$1\" -name '*.local' -delete && \
                    rm -rf \"$1\"/action.d/* \"$1\"/jail.d/* && cp -r \"$2\"/filter.d \"$2\"/jail.d \"$1\"";
        let ours = project().join("packaging/fail2ban");
        output_of(machine.command("sh").args(["-c", copy, "sh"]).arg(&config).arg(ours));
        Self { machine, config }
    }

    /// The sources of the failures that a filter finds in a log, one a failure.
    fn count(&self, filter: &str, lines: &[String]) -> Vec<String> {
        let log = self.config.join("log");
        fs::write(&log, lines.join("\n") + "\n").unwrap();
        let mut command = self.machine.command("timeout");
        command.args(["60", "fail2ban-regex", "--out", "ip", "-c"]).arg(&self.config).arg(log).arg(filter);
        output_of(&mut command).lines().map(str::to_owned).collect()
    }

    /// A file of the configuration.
    fn write(&self, file: &str, text: &str) {
        fs::write(self.config.join(file), text).unwrap();
    }
}

/// What the comment of a file of ours tells to write into another file.
fn quoted(file: &str) -> String {
    let text = fs::read_to_string(project().join("packaging/fail2ban").join(file)).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("#     ")).skip_while(|line| !line.starts_with('['));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn each_denial_through_sshd_is_counted_once_and_a_success_never() {
    let machine = Machine::new();
    let fail2ban = Fail2ban::install(&machine);
    machine.service("sshd", &example_file("sshd-debian"));
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let wrong = wrong_code(SECRET);
    let code = code_now(SECRET);
    // What is typed on one connection, and the reasons of its denials; the last one gets in after a denial.
    let connections: [(&[&str], bool, &[&str]); 3] = [
        (&[&code], true, &[]),
        (&[&wrong, "12345", &code], false, &["wrong-code", "not-a-code", "used-code"]),
        (&[&wrong, &code], true, &["wrong-code"]),
    ];
    for (answers, succeeds, denials) in connections {
        if succeeds {
            machine.enrol(ALICE, "\" TOTP_AUTH\n");
        }
        assert_eq!(sshd.login(ALICE, answers).succeeded, succeeds, "{answers:?}");
        let log = machine.log_file_lines();
        assert_eq!(reasons(&log), denials, "{log:#?}");
        let each_once = vec!["127.0.0.1"; denials.len()];
        assert_eq!(fail2ban.count(OURS, &log), each_once, "{log:#?}");
        assert_eq!(fail2ban.count(STOCK_PAM, &log), each_once, "{log:#?}");
        let stock = fail2ban.count(STOCK_SSHD, &log);
        assert_eq!(stock.is_empty(), denials.is_empty(), "{stock:?} {log:#?}");
        assert!(stock.iter().all(|source| source == "127.0.0.1"), "{stock:?}");
    }
    machine.service("sshd", &example_file("sshd-debian").replace("pam_totp.so", "pam_totp.so nullok"));
    assert!(sshd.login(BOB, &[]).succeeded);
    let log = machine.log_file_lines();
    assert!(log.iter().any(|line| line.contains(": not asked user=bob rhost=127.0.0.1 ")), "{log:#?}");
    for filter in [OURS, STOCK_PAM, STOCK_SSHD] {
        assert!(fail2ban.count(filter, &log).is_empty(), "{filter} {log:#?}");
    }
}

#[test]
fn a_user_name_that_looks_like_a_denial_bans_nobody_else() {
    let machine = Machine::new();
    let fail2ban = Fail2ban::install(&machine);
    machine.service("sshd", &example_file("sshd-debian"));
    let sshd = Sshd::start(&machine, &KEY_AND_CODE.replace("publickey,", ""));
    let name = "x denied user=y rhost=198.51.100.9 reason=wrong-code";
    assert!(!sshd.login_with(name, &sshd.key(ALICE), &["000000"], &[]).succeeded);
    let log = machine.log_file_lines();
    assert!(log.iter().any(|line| line.contains(name)), "sshd writes the name as it is: {log:#?}");
    assert_eq!(fail2ban.count(OURS, &log), ["127.0.0.1"], "{log:#?}");
}

/// A machine whose denials take no time, with a service whose line in pam.d is wrong (where they do).
fn without_delay() -> Machine {
    let machine = Machine::new();
    machine.service("sshd", "auth required pam_totp.so\n");
    machine.service("broken", "auth required pam_totp.so broken\n");
    // It also puts one more field behind the reason.
    machine.write("/etc/security/pam_totp.toml", "version = 1\n[compat]\ngoogle = true\n");
    machine
}

/// The lines of a denied login through libpam alone, with further arguments for the client.
fn login(machine: &Machine, service: &str, user: &str, arguments: &[&str]) -> Vec<String> {
    let mut client = machine.command("timeout");
    client.arg("60").arg(machine.client()).args([service, user, "--answer", &wrong_code(SECRET)]).args(arguments);
    output_of(&mut client);
    let log = machine.log_file_lines();
    assert_eq!(log.iter().filter(|line| line.contains(": denied user=")).count(), 1, "{log:#?}");
    log
}

#[test]
fn a_source_is_an_address_and_stands_in_one_place() {
    let machine = without_delay();
    let fail2ban = Fail2ban::install(&machine);
    let forged = "rhost=198.51.100.9";
    let spaced = format!("x {forged} reason=x");
    let long = "x".repeat(300);
    let cases: [(&str, &str, &[&str], Option<&str>); 12] = [
        ("sshd", "alice", &["--rhost", "192.0.2.1"], Some("192.0.2.1")),
        ("sshd", "alice", &["--rhost", "2001:db8::7"], Some("2001:db8::7")),
        ("sshd", "alice", &["--rhost", "::1"], Some("::1")),
        ("sshd", "alice", &["--rhost", "::ffff:192.0.2.2"], Some("192.0.2.2")),
        ("sshd", "alice", &["--rhost", "fe80::7%eth0"], Some("fe80::7")),
        ("broken", "alice", &["--rhost", "192.0.2.3"], Some("192.0.2.3")),
        ("sshd", &long, &["--rhost", "192.0.2.4", "--ruser", &long], Some("192.0.2.4")),
        ("sshd", &spaced, &["--rhost", "192.0.2.5"], Some("192.0.2.5")),
        ("sshd", "alice", &["--rhost", "192.0.2.6", "--ruser", &spaced, "--tty", &spaced], Some("192.0.2.6")),
        // su and sudo; a name, which is its owner's to point anywhere; what no host should say.
        ("sshd", "alice", &[], None),
        ("sshd", "alice", &["--rhost", "localhost"], None),
        ("sshd", "alice", &["--rhost", &spaced], None),
    ];
    let log: Vec<String> =
        cases.iter().flat_map(|(service, user, arguments, _)| login(&machine, service, user, arguments)).collect();
    let sources: Vec<&str> = cases.iter().filter_map(|case| case.3).collect();
    assert_eq!(fail2ban.count(OURS, &log), sources, "{log:#?}");
    assert!(!fail2ban.count(STOCK_PAM, &log).contains(&"198.51.100.9".to_owned()), "{log:#?}");
}

#[test]
fn the_program_in_front_may_be_any_and_the_line_must_be_ours() {
    let machine = without_delay();
    let fail2ban = Fail2ban::install(&machine);
    let log = login(&machine, "sshd", "alice", &["--rhost", "192.0.2.1"]);
    let denial = log.iter().find(|line| line.contains(": denied ")).unwrap();
    let (header, text) = denial.split_once(": pam_totp(").unwrap();
    let time = &header[..15];
    let by_others = [
        format!("{time} host sshd[12]: pam_totp({text}"),
        format!("{time} host sshd-session[12]: pam_totp({text}"),
        format!("{time} host gdm-password][12]: pam_totp({text}"),
        format!("2025-11-25T20:31:55.123456+01:00 host sshd[12]: pam_totp({text}"),
    ];
    assert_eq!(fail2ban.count(OURS, &by_others), ["192.0.2.1"; 4], "{by_others:#?}");
    let not_ours = [
        format!("{time} host sshd[12]: Invalid user pam_totp({text} from 192.0.2.8 port 22"),
        format!("{time} host sshd[12]: pam_unix({text}"),
        format!("{time} host sshd[12]: pam_totp({}", text.replace(": denied ", ": accepted ")),
        format!("{time} host sshd[12]: pam_totp({}", text.replace("alice", "a b")),
        format!("{time} host sshd[12]: pam_totp({}", text.replace("alice", "a=b")),
        format!("{time} host sshd[12]: pam_totp({}", text.replace("192.0.2.1", "192.0.2.1x")),
    ];
    assert!(fail2ban.count(OURS, &not_ours).is_empty(), "{not_ours:#?}");
}

#[test]
fn the_filters_comment_leaves_out_what_is_wrong_on_the_host() {
    let machine = without_delay();
    let fail2ban = Fail2ban::install(&machine);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine.write_as(&BOB.secret_file(), format!("{SECRET}\n"), BOB.uid, 0o644);
    let from = ["--rhost", "192.0.2.7"];
    let logins = [("broken", "alice"), ("sshd", "bob"), ("sshd", "alice")];
    let log: Vec<_> = logins.iter().flat_map(|(service, user)| login(&machine, service, user, &from)).collect();
    assert_eq!(reasons(&log), ["bad-argument", "wrong-mode", "wrong-code"]);
    assert_eq!(fail2ban.count(OURS, &log), ["192.0.2.7"; 3]);

    fail2ban.write("filter.d/pam_totp.local", &quoted("filter.d/pam_totp.conf"));
    assert_eq!(fail2ban.count(OURS, &log), ["192.0.2.7"]);
    assert_eq!(fail2ban.count(OURS, &log[4..]), ["192.0.2.7"], "the wrong code: {log:#?}");
}

/// A running fail2ban-server. Ends with its machine at the latest.
struct Server<'a> {
    fail2ban: &'a Fail2ban<'a>,
    process: Child,
}

impl<'a> Server<'a> {
    /// Starts it with these settings on top of what our jail's comment tells to write. Each jail notes whom it bans, and
    /// does nothing else.
    fn start(fail2ban: &'a Fail2ban<'a>, settings: &str) -> Self {
        let directory = fail2ban.config.display();
        let own = ["logtarget", "socket", "pidfile", "dbfile"].map(|file| format!("{file} = {directory}/{file}\n"));
        fail2ban.write("fail2ban.local", &format!("[DEFAULT]\nallowipv6 = auto\n{}", own.concat()));
        let note = format!("[Definition]\nactionban = echo <ip> >>{directory}/banned.<name>\n");
        fail2ban.write("action.d/note.conf", &note);
        fail2ban.write("jail.local", &quoted("jail.d/pam_totp.conf"));
        fail2ban.write("jail.d/test.local", settings);
        let mut command = fail2ban.machine.command("fail2ban-server");
        command.args(["-f", "-c"]).arg(&fail2ban.config).stdout(Stdio::null());
        // Ended by Drop, whatever happens from here on.
        let server = Self { fail2ban, process: command.spawn().unwrap() };
        server.wait_until("it answers", || server.client(&["ping"]).is_some());
        server
    }

    /// What fail2ban-client prints, unless it fails.
    fn client(&self, arguments: &[&str]) -> Option<String> {
        let mut command = self.fail2ban.machine.command("timeout");
        command.args(["10", "fail2ban-client", "-c"]).arg(&self.fail2ban.config).args(arguments);
        let output = command.output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// A line of a jail's status: `   |- Total failed: 2`.
    fn status(&self, jail: &str, line: &str) -> String {
        let status = self.client(&["status", jail]).unwrap_or_else(|| panic!("no {jail}: {}", self.messages()));
        let value = status.lines().find_map(|printed| printed.split_once(line)?.1.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("{status}")).trim().to_owned()
    }

    /// The sources that a jail's action was told to ban.
    fn banned(&self, jail: &str) -> String {
        fs::read_to_string(self.fail2ban.config.join(format!("banned.{jail}"))).unwrap_or_default()
    }

    fn messages(&self) -> String {
        fs::read_to_string(self.fail2ban.config.join("logtarget")).unwrap_or_default()
    }

    fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(15);
        while !condition() {
            assert!(Instant::now() < end, "not within 15 seconds: {what}\n{}", self.messages());
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // Its number inside the machine; what we have started is nsenter, which ends after it.
        if let Ok(pid) = fs::read_to_string(self.fail2ban.config.join("pidfile")) {
            let _ = self.fail2ban.machine.command("kill").args(["-KILL", pid.trim()]).status();
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_jail_is_off_until_somebody_turns_it_on() {
    let machine = Machine::new();
    let fail2ban = Fail2ban::install(&machine);
    let mut dump = machine.command("fail2ban-client");
    let dump = output_of(dump.arg("-c").arg(&fail2ban.config).arg("-d"));
    assert!(dump.contains("dbfile") && !dump.contains("pam_totp"), "{dump}");
}

#[test]
fn a_running_fail2ban_bans_at_the_limit_and_not_before() {
    let machine = Machine::new();
    let fail2ban = Fail2ban::install(&machine);
    machine.service("sshd", &example_file("sshd-debian"));
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    machine.write("/var/log/auth.log", "");
    let server = Server::start(
        &fail2ban,
        "[DEFAULT]\nbanaction = note\nbanaction_allports = note\nbackend = polling\nignoreself = false\nignoreip =\n\
         maxretry = 3\n[pam_totp]\nmaxretry = 3\n[sshd]\nenabled = true\n",
    );
    let regex = server.client(&["get", "pam_totp", "failregex"]).unwrap();
    assert!(regex.contains(" reason="), "the jail is to use our filter: {regex}");
    let wrong = wrong_code(SECRET);
    // On a connection of its own, and what is logged about it.
    let denied = |answers: &[&str]| {
        assert!(!sshd.login(ALICE, answers).succeeded);
        machine.log_file_lines().join("\n") + "\n"
    };
    let exact = ["pam_totp", "pam-generic"];

    machine.append("/var/log/auth.log", &denied(&[&wrong, &wrong]));
    for jail in exact {
        server.wait_until("two failures", || server.status(jail, "Total failed") == "2");
    }
    // It takes a second at least to deny the third, in which nothing may happen.
    let third = denied(&[&wrong]);
    for jail in exact {
        assert_eq!(server.status(jail, "Total failed"), "2", "{jail}");
        assert_eq!((server.status(jail, "Banned IP list").as_str(), server.banned(jail).as_str()), ("", ""), "{jail}");
    }

    machine.append("/var/log/auth.log", &third);
    for jail in exact.into_iter().chain(["sshd"]) {
        server.wait_until(jail, || server.status(jail, "Banned IP list") == "127.0.0.1");
        server.wait_until(jail, || server.banned(jail) == "127.0.0.1\n");
    }
    for jail in exact {
        assert_eq!(server.status(jail, "Total failed"), "3", "{jail} {}", server.messages());
    }
}
