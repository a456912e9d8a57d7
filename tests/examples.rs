//! Each file of pam.d-examples in its place, with the settings that its comments give, through the program that it is for.

use crate::support::machine::{ALICE, BOB, CAROL, Machine, SUCCESS};
use crate::support::postgres::Postgres;
use crate::support::root_only::{POLICY, STACK, next_code, run};
use crate::support::ssh::{Session, Sshd, Wire};
use crate::support::terminal::Terminal;
use crate::support::totp::{SECRET, code_now, wrong_code};
use crate::support::{example_file, need, output_of, project, reasons, screen};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

const PASSWORD: &str = "password";
/// What Red Hat's file includes, as authselect writes it, as far as it is about passwords.
const RED_HATS: [(&str, &str); 2] = [
    (
        "password-auth",
        "auth required pam_unix.so\naccount required pam_unix.so\npassword required pam_unix.so\nsession required pam_unix.so\n",
    ),
    ("postlogin", "session optional pam_umask.so silent\n"),
];
/// Modules of Red Hat's that Debian does not have.
const NOT_DEBIANS: [&str; 1] = ["pam_sepermit.so"];

/// All files of pam.d-examples.
fn examples() -> Vec<String> {
    let files = fs::read_dir(project().join("pam.d-examples")).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The indented lines of a file's comments that follow one which begins so.
fn written_below(text: &str, heading: &str) -> Option<String> {
    let comments: Vec<_> = text.lines().filter_map(|line| line.strip_prefix('#')).map(str::trim_end).collect();
    let below = comments.iter().position(|line| line.trim_start().starts_with(heading))?;
    let lines = comments[below..].iter().skip_while(|line| !line.starts_with("     "));
    let lines = lines.map_while(|line| line.strip_prefix("     "));
    Some(lines.flat_map(|line| [line, "\n"]).collect())
}

/// The same, of what must be there.
fn written(name: &str, heading: &str) -> String {
    written_below(&example_file(name), heading).unwrap_or_else(|| panic!("{name} has no lines below `{heading}`"))
}

/// `NAME` of `# /etc/pam.d/NAME` at the top.
fn service(text: &str) -> &str {
    let (_, rest) = text.split_once("# /etc/pam.d/").expect("a comment that says where it goes");
    rest.split([' ', ':', ',']).next().unwrap()
}

/// The policy that a file's comments give, if they do. Nobody waits after a denial.
fn policy(text: &str) -> String {
    let written = written_below(text, "In /etc/security/pam_totp.toml").unwrap_or_default();
    let lines = written.lines().filter(|line| !line.starts_with("version"));
    // An exemption ends: the day in the file is not for ever.
    let lines = lines.map(|line| if line.starts_with("until = ") { "until = 2999-12-31" } else { line });
    let before = ["version = 1", "[defaults]", "fail_delay = \"0s\""];
    before.into_iter().chain(lines).flat_map(|line| [line, "\n"]).collect()
}

/// A machine with a file of the examples in its place, and its settings; alice has a device.
fn machine(name: &str) -> Machine {
    let machine = Machine::new();
    let text = example_file(name);
    machine.service(service(&text), &text);
    machine.write(POLICY, policy(&text));
    // Debian's own waits two seconds after a wrong password.
    let passwords = machine.read("/etc/pam.d/common-auth").replace("pam_unix.so nullok", "pam_unix.so nullok nodelay");
    assert!(passwords.contains(" nodelay"), "{passwords}");
    machine.service("common-auth", &passwords);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine
}

#[test]
fn doctor_finds_nothing_in_any_of_them() {
    // Red Hat's modules that Debian does not have stand for themselves.
    let script = "for module; do file=$(ls /usr/lib/*/security/pam_permit.so); [ -e \"${file%/*}/$module\" ] || \
                  cp \"$file\" \"${file%/*}/$module\"; done";
    let machine = Machine::new();
    let host_key = "rm -f /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key";
    output_of(machine.command("sh").args(["-c", host_key]));
    for name in examples() {
        let text = example_file(&name);
        machine.service(service(&text), &text);
        // What was in use before does not count.
        output_of(machine.command("rm").args(["-rf", "/var/lib/pam_totp"]));
        machine.write(POLICY, policy(&text));
        if service(&text) == "sshd" {
            machine.write("/etc/ssh/sshd_config", sshd_settings(&name));
        }
        if name == "sshd-rhel" {
            RED_HATS.iter().for_each(|(service, stack)| machine.service(service, stack));
            output_of(machine.command("sh").args(["-c", script, "sh"]).args(NOT_DEBIANS));
        }
        let conf = written_below(&text, "In /etc/security/pam_totp.postgresql.toml");
        conf.into_iter().for_each(|conf| machine.write("/etc/security/pam_totp.postgresql.toml", conf));
        let output = run(&machine, &["doctor", "--service", service(&text), "--json"]);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        // Nobody has a device there yet, nobody made a store, and the clock is that of the machine around.
        let is_of_the_file =
            |finding: &&Value| !["locked-out", "store-missing", "clock"].iter().any(|name| finding["name"] == **name);
        let findings: Vec<_> = report["findings"].as_array().unwrap().iter().filter(is_of_the_file).collect();
        assert!(findings.is_empty(), "{name}: {findings:#?}");
        output_of(machine.command(machine.program()).arg("check"));
    }
}

#[test]
fn the_readme_lists_all_of_them() {
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    for name in examples() {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("README.md has no row for {name}"));
        // What a person sees is the same there.
        let prompts = written(&name, "A person");
        for prompt in prompts.lines() {
            let prompt = prompt.trim_start_matches("(alice@bastion) ").trim_end_matches(':');
            assert!(row.contains(prompt), "{name}: no `{prompt}` in {row}");
        }
    }
}

// ---- sshd ----

fn sshd_settings(name: &str) -> String {
    let text = example_file(name);
    let settings =
        written_below(&text, "In /etc/ssh/sshd_config").or_else(|| written_below(&text, "In a file of /etc/ssh"));
    settings.unwrap()
}

/// What was asked, without `(alice@host)`.
fn questions(session: &Session) -> Vec<&str> {
    session.questions.iter().map(|question| question.split_once(") ").map_or(question.as_str(), |(_, q)| q)).collect()
}

/// No key at all.
fn no_key() -> PathBuf {
    PathBuf::from("/nonexistent")
}

/// ssh gives up after one round of questions.
const ONCE: [&str; 2] = ["-o", "NumberOfPasswordPrompts=1"];

#[test]
fn sshd_with_a_code_and_a_password() {
    let machine = machine("sshd-password");
    let sshd = Sshd::start(&machine, &sshd_settings("sshd-password"));
    let log_in = |code: &str, password: &str| sshd.login_with("alice", &no_key(), &[code, password], &ONCE);
    let code = code_now(SECRET);
    let wrong = log_in(&wrong_code(SECRET), PASSWORD);
    assert_eq!((wrong.succeeded, questions(&wrong)), (false, vec!["Verification code: ", "Password: "]));
    let right = log_in(&code, PASSWORD);
    assert!(right.succeeded, "{right:#?} {:#?}", machine.log());
    let _ = machine.log();
    let used = log_in(&code, PASSWORD);
    assert_eq!((used.succeeded, reasons(&machine.log())), (false, vec!["used-code".to_owned()]));
    assert!(!log_in(&next_code(SECRET), "passw0rd").succeeded);
    // A key is no help.
    let with_key = sshd.login_with("alice", &sshd.key(ALICE), &[&code, PASSWORD], &ONCE);
    assert_eq!((with_key.succeeded, questions(&with_key).len()), (false, 2));
}

#[test]
fn sshd_with_a_code_and_a_key_or_a_password() {
    let machine = machine("sshd-key-or-password");
    let sshd = Sshd::start(&machine, &sshd_settings("sshd-key-or-password"));
    let (key, other_key) = (sshd.key(ALICE), sshd.new_key("other", &["-t", "ed25519"]));
    let log_in = |key: &Path, code: &str, password: &str| {
        sshd.login_with(
            "alice",
            key,
            &[code, password],
            &[&ONCE[..], &["-o", "SetEnv=SSH_AUTH_INFO_0=publickey"]].concat(),
        )
    };
    let (code, wrong) = (code_now(SECRET), wrong_code(SECRET));
    let refused = log_in(&key, &wrong, "");
    assert_eq!((refused.succeeded, questions(&refused)), (false, vec!["Verification code: "]));
    let with_key = log_in(&key, &code, "");
    assert!(with_key.succeeded, "{with_key:#?} {:#?}", machine.log());
    assert_eq!(questions(&with_key), ["Verification code: "]);
    assert!(!log_in(&key, &code, "").succeeded, "a code works once");
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    for key in [&no_key(), &other_key] {
        let refused = log_in(key, &wrong, PASSWORD);
        assert_eq!((refused.succeeded, questions(&refused)), (false, vec!["Verification code: ", "Password: "]));
    }
    let with_password = log_in(&other_key, &code, PASSWORD);
    assert!(with_password.succeeded, "{with_password:#?} {:#?}", machine.log());
    assert!(!log_in(&no_key(), &code, PASSWORD).succeeded, "a code works once");
    assert!(!log_in(&no_key(), &next_code(SECRET), "passw0rd").succeeded);
}

#[test]
fn sshd_with_a_code_from_outside_alone() {
    let machine = machine("sshd-outside");
    let wire = Wire::new();
    let outside = |namespace: &str, commands: &str| {
        output_of(Command::new("nsenter").args([&format!("--net={namespace}"), "sh", "-c", commands]));
    };
    outside(&wire.server(), "ip address add 203.0.113.1/24 dev here");
    outside(&wire.client(), "ip address add 203.0.113.2/24 dev there");
    let mut sshd = Sshd::start_on(&machine, &sshd_settings("sshd-outside"), &wire);
    let key = sshd.key(ALICE);
    let office = sshd.login_with("alice", &key, &[""], &[]);
    assert!(office.succeeded && office.questions.is_empty(), "{office:#?} {:#?}", machine.log());
    let stranger = sshd.login_with("alice", &sshd.new_key("other", &["-t", "ed25519"]), &[""], &[]);
    assert!(!stranger.succeeded, "an exemption is no key");
    let from = |code: &str| sshd.login_with("alice", &key, &[code], &["-b", "203.0.113.2"]);
    let (code, wrong) = (code_now(SECRET), wrong_code(SECRET));
    let refused = from(&wrong);
    assert_eq!((refused.succeeded, questions(&refused)), (false, vec!["Verification code: "]));
    let right = from(&code);
    assert!(right.succeeded, "{right:#?} {:#?}", machine.log());
    assert!(!from(&code).succeeded);
    // As a forwarded connection looks: from an address of the network that is this host's own.
    sshd.has_clients_in(wire.server());
    let forwarded = sshd.login_with("alice", &key, &[&code], &[]);
    assert_eq!((forwarded.succeeded, questions(&forwarded)), (false, vec!["Verification code: "]));
}

// ---- The console ----

#[test]
fn login_at_a_terminal() {
    need("login", "login");
    let machine = machine("login");
    let at_console = || {
        let mut command = machine.command("script");
        command.args(["-q", "-e", "-c", "login alice", "/dev/null"]);
        Terminal::run(&command, "C.UTF-8")
    };
    let answer = |terminal: &mut Terminal, code: &str| {
        terminal.until("Verification code: ");
        terminal.enter(code);
        terminal.until("Password: ");
        terminal.enter(PASSWORD);
    };
    let refused = |terminal: &mut Terminal, code: &str| {
        answer(terminal, code);
        terminal.until("Login incorrect");
        terminal.until("login: ");
        terminal.enter("alice");
    };
    let is_in = |mut terminal: Terminal, code: &str| {
        answer(&mut terminal, code);
        terminal.until("$ ");
        terminal.enter("echo in as $(id -un); exit");
        let (shown, succeeded) = terminal.finish();
        assert!(succeeded && screen::plain(&shown).contains("in as alice"), "{shown} {:#?}", machine.log());
    };
    let code = code_now(SECRET);
    let mut terminal = at_console();
    refused(&mut terminal, &wrong_code(SECRET));
    is_in(terminal, &code);
    assert_eq!(reasons(&machine.log()), ["wrong-code"]);
    let mut terminal = at_console();
    refused(&mut terminal, &code);
    is_in(terminal, &next_code(SECRET));
    assert_eq!(reasons(&machine.log()), ["used-code"]);
}

// ---- Servers that ask once ----

/// A server. Ends with its machine.
struct Server {
    process: Child,
    log: PathBuf,
}

impl Server {
    fn start(machine: &Machine, mut command: Command) -> Self {
        let log = machine.shared().join("server.log");
        let file = fs::File::create(&log).unwrap();
        let process = command.stdout(file.try_clone().unwrap()).stderr(file).stdin(Stdio::null()).spawn().unwrap();
        Self { process, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has written this.
    fn until(&self, text: &str) {
        let is_up = (0..400).any(|_| {
            thread::sleep(Duration::from_millis(25));
            self.log().contains(text)
        });
        assert!(is_up, "no `{text}` in {}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What every server that asks once must do with an answer.
fn judges(machine: &Machine, rhost: &str, lets_in: impl Fn(&str) -> bool + Sync, why: impl Fn() -> String) {
    let code = code_now(SECRET);
    assert!(!lets_in(&format!("{PASSWORD}{}", wrong_code(SECRET))), "a wrong code");
    assert!(lets_in(&format!("{PASSWORD}{code}")), "{} {:#?}", why(), machine.log());
    let accepted = format!("accepted user=alice rhost={rhost} factor=totp");
    let log = machine.log();
    assert!(log.iter().any(|line| line.contains(&accepted)), "{log:#?}");
    assert!(!lets_in(&format!("{PASSWORD}{code}")), "a code that was used");
    assert_eq!(reasons(&machine.log()), ["used-code"]);
    // Each takes its time.
    thread::scope(|scope| {
        scope.spawn(|| assert!(!lets_in(PASSWORD), "no code"));
        scope.spawn(|| assert!(!lets_in(&format!("passw0rd{}", next_code(SECRET))), "a wrong password"));
    });
}

#[test]
fn vsftpd_takes_both_in_one_answer() {
    need("vsftpd", "vsftpd");
    let machine = machine("vsftpd");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut vsftpd = machine.command("sh");
    let ours = "mkdir -p /var/run/vsftpd/empty && exec vsftpd /etc/vsftpd.conf \
                -olisten=YES -olisten_ipv6=NO -olisten_address=127.0.0.1 -olisten_port=\"$1\"";
    vsftpd.args(["-c", ours, "sh", &port.to_string()]);
    let server = Server::start(&machine, vsftpd);
    let listens = (0..400).any(|_| {
        thread::sleep(Duration::from_millis(25));
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    assert!(listens, "{}", server.log());
    judges(&machine, "127.0.0.1", |answer| ftp(port, answer), || server.log());
}

/// Whether alice sees her home by FTP (RFC 959).
fn ftp(port: u16, password: &str) -> bool {
    let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut replies = BufReader::new(server.try_clone().unwrap()).lines();
    let mut reply = || replies.next().unwrap().unwrap();
    assert!(reply().starts_with("220 "));
    let mut say = |line: String| write!(server, "{line}\r\n").unwrap();
    say("USER alice".to_owned());
    assert!(reply().starts_with("331 "));
    say(format!("PASS {password}"));
    let answer = reply();
    if !answer.starts_with("230 ") {
        assert!(answer.starts_with("530 "), "{answer}");
        return false;
    }
    say("PWD".to_owned());
    assert!(reply().starts_with("257 \"/home/alice\""));
    true
}

#[test]
fn of_people_who_come_by_radius_nobody_keeps_out_another() {
    let machine = machine("radiusd");
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    machine.service("radiusd", STACK);
    let wrong = wrong_code(SECRET);
    for _ in 0..10 {
        assert_eq!(machine.login("radiusd", "bob").answer(&wrong).run().reason(), "wrong-code");
    }
    assert_eq!(machine.login("radiusd", "bob").answer(&wrong).run().reason(), "throttled");
    let alice = machine.login("radiusd", "alice").answer(code_now(SECRET)).run();
    assert_eq!(alice.result(), SUCCESS, "{alice:#?}");
    // The console has the same source.
    machine.service("login", STACK);
    machine.enrol(CAROL, "\" TOTP_AUTH\n");
    let carol = machine.login("login", "carol").answer(code_now(SECRET)).run();
    assert_eq!(carol.result(), SUCCESS, "{carol:#?}");
}

#[test]
fn postgresql_takes_both_in_one_answer() {
    let machine = machine("postgresql");
    // Whatever holds for the rest of the machine.
    machine.write(POLICY, "version = 1\n[defaults]\nstore = \"system\"\n");
    machine.write(
        "/etc/security/pam_totp.postgresql.toml",
        written("postgresql", "In /etc/security/pam_totp.postgresql.toml"),
    );
    let private = "install -d -o postgres /run/lib-postgresql && mount --bind /run/lib-postgresql /var/lib/postgresql";
    output_of(
        machine
            .command("sh")
            .args(["-c", &format!("rm /var/lib/postgresql && mkdir /var/lib/postgresql && {private}")]),
    );
    for command in written("postgresql", "than at sshd").lines() {
        let command = command.replace("pam-totp", machine.program().to_str().unwrap());
        let command = format!("{command}{}", if command.contains(" enrol ") { " --no-confirm" } else { "" });
        output_of(machine.command("sh").args(["-c", &command]));
    }
    let file = machine.read("/var/lib/postgresql/codes/alice");
    let ours = file.replacen(file.lines().next().unwrap(), SECRET, 1);
    machine.write("/var/lib/postgresql/codes/alice", ours);
    let postgres = Postgres::start(&machine, written("postgresql", "In pg_hba.conf").trim());
    let mut terminal = Terminal::run(&postgres.psql(), "C.UTF-8");
    terminal.until("Password for user alice: ");
    terminal.enter("");
    assert!(!terminal.finish().1);
    judges(&machine, "127.0.0.1", |answer| postgres.lets_in(answer), || postgres.log());
}

#[test]
fn openvpn_takes_both_in_one_answer() {
    need("openvpn", "openvpn");
    let machine = machine("openvpn");
    let wire = Wire::new();
    let shared = machine.shared();
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=vpn -days 2 \
                -keyout key -out cert 2>&1";
    output_of(Command::new("sh").args(["-c", make]).current_dir(shared));
    // The server has a network of its own, so the kernel has to have tun; the client does without.
    let tun = "mkdir -p /dev/net && mknod /dev/net/tun c 10 200";
    output_of(machine.command("sh").args(["-c", tun]));
    let settings = format!(
        "local {}\nproto tcp-server\ndev tun\nserver 10.8.0.0 255.255.255.0\ndh none\nca cert\ncert cert\nkey key\n\
         verify-client-cert none\nverb 3\n{}",
        Wire::SERVER,
        written("openvpn", "In the server's")
    );
    fs::write(shared.join("server.conf"), settings).unwrap();
    let mut openvpn = machine.command("openvpn");
    openvpn.arg("--cd").arg(shared).args(["--config", "server.conf"]);
    let server = Server::start(&machine, wire.at_server(&openvpn));
    server.until("Initialization Sequence Completed");
    // The keys change every three seconds, and with them the client has to show again who it is.
    let settings = format!(
        "client\ndev null\npull-filter ignore ifconfig\npull-filter ignore route\nproto tcp-client\nremote {}\nca cert\nconnect-retry-max 1\nverb 3\nreneg-sec 3\ninactive 30\n{}",
        Wire::SERVER,
        written("openvpn", "In each client's")
    );
    let client = |settings: &str| {
        let file = tempfile::NamedTempFile::new_in(shared).unwrap();
        fs::write(&file, settings).unwrap();
        let mut client = Command::new("nsenter");
        client.arg(format!("--net={}", wire.client())).args(["openvpn", "--cd"]).arg(shared);
        client.arg("--config").arg(file.path());
        (client, file)
    };
    let (asks, _file) = client(&settings);
    let mut terminal = Terminal::run(&asks, "C.UTF-8");
    for prompt in written("openvpn", "A person").lines() {
        terminal.until(prompt);
        // What is typed here may be lost (it flushes its input when it turns the echo off), so nobody logs in here.
        terminal.enter("alice");
    }
    // It has asked: end it as Ctrl+\\ does.
    terminal.enter("\u{1c}");
    terminal.finish();
    let log_in = |answer: &str| {
        let answers = tempfile::NamedTempFile::new_in(shared).unwrap();
        fs::write(&answers, format!("alice\n{answer}\n")).unwrap();
        let from_file = format!("auth-user-pass {}\n", answers.path().display());
        let (mut client, _file) = client(&settings.replace("auth-user-pass\n", &from_file));
        let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
        let ends = ["Initialization Sequence Completed", "AUTH_FAILED"];
        let end = lines.find(|line| ends.iter().any(|end| line.contains(end)));
        let is_in = end.unwrap_or_else(|| panic!("{}", server.log())).contains(ends[0]);
        if is_in {
            // A second code is not asked for, and the first one would be refused.
            server.until("auth-token authentication succeeded");
        }
        let _ = client.kill();
        client.wait().unwrap();
        is_in
    };
    judges(&machine, Wire::CLIENT, log_in, || server.log());
}

#[test]
fn freeradius_takes_both_in_one_answer() {
    need("freeradius", "freeradius");
    need("radtest", "freeradius-utils");
    let machine = machine("radiusd");
    let wire = Wire::new();
    let users = "/etc/freeradius/3.0/mods-config/files/authorize";
    let line = written("radiusd", "At the top of /etc/freeradius/3.0/mods-config/files/authorize");
    machine.write(users, line + &machine.read(users));
    output_of(machine.command("sh").args(["-ec", &written("radiusd", "As root, once")]));
    let mut freeradius = machine.command("freeradius");
    freeradius.args(["-f", "-l", "stdout"]);
    output_of(machine.command("mkdir").args(["-p", "/run/freeradius", "/var/log/freeradius"]));
    let server = Server::start(&machine, wire.at_server(&freeradius));
    server.until("Ready to process requests");
    let log_in = |answer: &str| {
        let radtest = wire
            .at_server(machine.command("radtest").args(["alice", answer, "127.0.0.1", "0", "testing123"]))
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&radtest.stdout);
        let is_in = shown.contains("Access-Accept");
        assert_ne!(is_in, shown.contains("Access-Reject"), "{radtest:?} {}", server.log());
        is_in
    };
    judges(&machine, "", log_in, || server.log());
}

// ---- cloud-init ----

/// User data of packaging/cloud-init that cloud-init itself has nothing against.
fn user_data(name: &str) -> Value {
    need("cloud-init", "cloud-init");
    let file = project().join("packaging/cloud-init").join(name);
    output_of(Command::new("cloud-init").args(["schema", "--config-file"]).arg(&file));
    // cloud-init is written in the python3 of the system, and reads YAML by its yaml.
    let as_json = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    serde_json::from_str(&output_of(Command::new("/usr/bin/python3").args(["-c", as_json]).arg(file))).unwrap()
}

/// What it writes to a path.
fn file_of<'a>(data: &'a Value, path: &str) -> &'a str {
    let files = data["write_files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("no {path}"));
    assert_eq!((&file["owner"], &file["permissions"]), (&"root:root".into(), &"0644".into()));
    file["content"].as_str().unwrap()
}

#[test]
fn cloud_init_brings_up_a_bastion_that_enrols_at_the_first_login() {
    let data = user_data("bastion.yaml");
    let policy = file_of(&data, POLICY);
    let machine = Machine::new();
    machine.write("/root/draft.toml", policy);
    let check = output_of(machine.command(machine.program()).args(["check", "/root/draft.toml", "--service", "sshd"]));
    let enrolment = check.lines().find(|line| line.contains("enrolment")).unwrap_or_else(|| panic!("{check}"));
    assert!(enrolment.contains("inline"), "{check}");
    let script = data["runcmd"][0].as_str().unwrap();
    let said = output_of(Command::new("sh").args(["-n", "-c", script]));
    assert_eq!(said, "");
    // What it runs, with programs that only write down that they were called, and one of them that fails.
    let programs = ["curl", "sha256sum", "apt-get", "pam-totp", "systemctl"];
    let steps = |fails: &str| {
        let directory = tempfile::tempdir().unwrap();
        let stub =
            "#!/bin/sh\necho \"${0##*/} $*\" >>\"${0%/*}/calls\"\ncase \"${0##*/} $*\" in \"$FAILS\"*) exit 1;; esac\n";
        for program in programs {
            let file = directory.path().join(program);
            fs::write(&file, stub).unwrap();
            output_of(Command::new("chmod").arg("755").arg(file));
        }
        let path = format!("{}:/usr/bin:/bin", directory.path().display());
        let output = Command::new("sh").args(["-c", script]).env("PATH", path).env("FAILS", fails).output().unwrap();
        (output.status.success(), fs::read_to_string(directory.path().join("calls")).unwrap())
    };
    let (succeeded, calls) = steps("nothing");
    let ours: Vec<_> = calls.lines().filter(|line| line.starts_with("pam-totp")).collect();
    let expected = ["setup store", "check", "setup sshd --confirm-within 5m", "doctor --service sshd", "setup confirm"];
    assert_eq!(ours, expected.map(|step| format!("pam-totp {step}")));
    assert!(succeeded && !calls.contains("systemctl"), "{calls}");
    assert_eq!(steps("pam-totp doctor"), (true, calls));
    for step in ["curl", "sha256sum", "apt-get", "pam-totp setup store", "pam-totp check", "pam-totp setup sshd"] {
        let (succeeded, calls) = steps(step);
        assert!(!succeeded && !calls.contains("confirm\n"), "{step}: {calls}");
        assert!(calls.ends_with("systemctl disable --now ssh.socket ssh.service\n"), "{step}: {calls}");
    }
}

#[test]
fn cloud_init_lets_nobody_in_behind_the_bastion_but_from_there() {
    let data = user_data("behind.yaml");
    let settings = file_of(&data, "/etc/ssh/sshd_config.d/10-behind-bastion.conf");
    let machine = Machine::new();
    let wire = Wire::new();
    let bastion = "ip address add 10.0.0.5/24 dev there";
    output_of(Command::new("nsenter").args([&format!("--net={}", wire.client()), "sh", "-c", bastion]));
    output_of(Command::new("nsenter").args([
        &format!("--net={}", wire.server()),
        "ip",
        "route",
        "add",
        "10.0.0.0/24",
        "dev",
        "here",
    ]));
    let sshd = Sshd::start_on(&machine, &format!("UsePAM yes\n{settings}"), &wire);
    let key = sshd.key(ALICE);
    let from_bastion = sshd.login_with("alice", &key, &[""], &["-b", "10.0.0.5"]);
    assert!(from_bastion.succeeded && from_bastion.questions.is_empty(), "{from_bastion:#?} {:#?}", machine.log());
    assert!(!sshd.login(ALICE, &[""]).succeeded, "from elsewhere");
    assert!(
        !sshd.login_with("alice", &sshd.new_key("other", &["-t", "ed25519"]), &[""], &["-b", "10.0.0.5"]).succeeded
    );
}
