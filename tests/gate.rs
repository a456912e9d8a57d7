//! `pam-totp gate` behind a real sshd that does not ask PAM.

use crate::support::machine::{ALICE, BOB, Machine};
use crate::support::output_of;
use crate::support::reasons;
use crate::support::ssh::{Sshd, public};
use crate::support::terminal::Terminal;
use crate::support::totp::{SECRET, code_now, wrong_code};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PROMPT: &str = "Verification code: ";
const NO_PAM: &str =
    "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n";
/// What the README says to write beside ForceCommand.
const NOTHING_BESIDE: &str = "DisableForwarding yes\nPermitTunnel no\nPermitUserRC no\n";
/// Without waiting after a wrong code.
const POLICY: &str = "version = 1\n[service.gate]\nfail_delay = \"0s\"\n";
/// Enough for a test.
const MANY: &str = "\" TOTP_AUTH\n\" RATE_LIMIT 100 30\n";

fn machine() -> Machine {
    let machine = Machine::new();
    machine.write("/etc/security/pam_totp.toml", POLICY);
    machine.enrol(ALICE, MANY);
    machine
}

/// An sshd whose people come to the gate.
fn gated<'a>(machine: &'a Machine, arguments: &str, settings: &str) -> Sshd<'a> {
    let gate = machine.program();
    Sshd::start(machine, &format!("{NO_PAM}{settings}ForceCommand {} gate {arguments}\n", gate.display()))
}

/// A client of alice's on a terminal.
fn on_a_terminal(sshd: &Sshd, words: &[&str]) -> Terminal {
    Terminal::run(sshd.client(ALICE, &["-tt"]).args(words), "C.UTF-8")
}

/// The code of now, which counts as new again.
fn new_code(machine: &Machine) -> String {
    machine.enrol(ALICE, MANY);
    code_now(SECRET)
}

/// What our lines in the log say.
fn log(machine: &Machine) -> Vec<String> {
    let log = machine.log();
    log.iter().filter_map(|line| line.strip_prefix("pam_totp(gate:auth): ").map(str::to_owned)).collect()
}

fn ended(command: &mut Command) -> (Option<i32>, String, String) {
    let mut bounded = Command::new("timeout");
    bounded.args(["--kill-after=1", "30"]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    let Output { status, stdout, stderr } = bounded.output().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn a_shell_opens_behind_a_code_and_never_again_behind_the_same() {
    let machine = machine();
    let sshd = gated(&machine, "", NOTHING_BESIDE);
    let code = code_now(SECRET);
    let mut terminal = on_a_terminal(&sshd, &[]);
    assert_eq!(terminal.until(PROMPT), PROMPT);
    terminal.enter(&code);
    let shown = terminal.until("$ ");
    assert!(!shown.contains(&code), "it was shown: {shown}");
    terminal.enter("echo $0 $(id -un) $((40 + 2)); stty -a; exit 7");
    let (shown, status) = terminal.status();
    assert!(shown.contains("-sh alice 42") && status == Some(7), "{status:?} {shown}");
    assert!(
        shown.contains("isig icanon iexten echo ") && shown.contains(" ixon ") && shown.contains("eol = <undef>"),
        "{shown}"
    );
    let accepted = "accepted user=alice rhost=127.0.0.1 factor=totp steps=+0 ledger=not-for-this-process";
    assert_eq!(log(&machine), [accepted]);

    let mut terminal = on_a_terminal(&sshd, &[]);
    let mut texts = Vec::new();
    for answer in [code.as_str(), &wrong_code(SECRET), "12345"] {
        texts.push(terminal.until(PROMPT));
        terminal.enter(answer);
    }
    let (shown, status) = terminal.status();
    assert_eq!(texts[1], texts[2], "a used code and a wrong one look the same");
    assert!(shown.contains("no right code in 3 tries") && status == Some(1), "{status:?} {shown}");
    let log = log(&machine);
    assert_eq!(reasons(&log), ["used-code", "wrong-code", "not-a-code"]);
    let classic = format!(
        "authentication failure; logname= uid={0} euid={0} tty=ssh ruser= rhost=127.0.0.1  user=alice",
        ALICE.uid
    );
    assert_eq!(log.iter().filter(|line| **line == classic).count(), 3, "{log:#?}");
}

#[test]
fn what_was_asked_for_runs_as_sshd_would_run_it() {
    let machine = machine();
    let sshd = gated(&machine, "", NOTHING_BESIDE);
    for (line, expected, status) in [
        ("echo $0:$SSH_ORIGINAL_COMMAND:$HOME | cut -c 1-7; exit 7", "sh:echo", 7),
        ("kill -9 $$", "", 137),
        ("grep -c . /proc/self/fd/nothing; ls /proc/self/fd | tr -d [:space:]", "0123", 0),
        // Not SIGPIPE, which a program in Rust ignores.
        ("grep -c \"SigIgn:.*[02468ace]...$\" /proc/self/status", "1", 0),
    ] {
        let mut terminal = on_a_terminal(&sshd, &[line]);
        terminal.until(PROMPT);
        terminal.enter(&new_code(&machine));
        let (shown, ended) = terminal.status();
        assert!(shown.contains(expected) && ended == Some(status), "{line}: {ended:?} {shown}");
    }
}

#[test]
fn without_a_terminal_nothing_runs() {
    let machine = machine();
    let sshd = gated(&machine, "", NOTHING_BESIDE);
    let _ = machine.log();
    for (words, options) in [(&["touch", "in"][..], &[][..]), (&[], &["-T"])] {
        let (status, output, errors) = ended(sshd.client(ALICE, options).args(words));
        assert_eq!((status, output.as_str()), (Some(1), ""), "{errors}");
        assert!(errors.contains("use ssh -t"), "{errors}");
    }
    assert!(!machine.path("/home/alice/in").exists());
    // Nobody has guessed anything: there is nothing for fail2ban to count.
    assert_eq!(log(&machine), ["refused user=alice rhost=127.0.0.1 reason=no-terminal"; 2]);
}

/// Moves a file in by each program, and says which of them came.
fn transfers(machine: &Machine, sshd: &Sshd) -> Vec<(&'static str, bool, String)> {
    let file = machine.shared().join("file");
    fs::write(&file, "moved").unwrap();
    let key = sshd.key(ALICE).display().to_string();
    let port = sshd.port().to_string();
    let ssh = [
        "-F",
        "none",
        "-i",
        &key,
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "BatchMode=yes",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
    ];
    let batch = machine.shared().join("batch");
    fs::write(&batch, format!("put {} sftp\n", file.display())).unwrap();
    let mut scp = Command::new("scp");
    scp.args(ssh).args(["-P", &port]).arg(&file).arg("alice@127.0.0.1:scp");
    let mut old_scp = Command::new("scp");
    old_scp.arg("-O").args(ssh).args(["-P", &port]).arg(&file).arg("alice@127.0.0.1:old-scp");
    let mut sftp = Command::new("sftp");
    sftp.args(ssh).args(["-P", &port, "-b"]).arg(&batch).arg("alice@127.0.0.1");
    let mut rsync = Command::new("rsync");
    rsync.arg("-e").arg(format!("ssh -p {port} {}", ssh.join(" "))).arg(&file).arg("alice@127.0.0.1:rsync");
    [("scp", scp), ("old-scp", old_scp), ("sftp", sftp), ("rsync", rsync)]
        .into_iter()
        .map(|(name, mut command)| {
            let (status, _, errors) = ended(&mut command);
            let path = format!("/home/alice/{name}");
            let came = machine.path(&path).exists();
            assert_eq!(came, status == Some(0), "{name}: {errors}");
            let _ = fs::remove_file(machine.path(&path));
            (name, came, errors)
        })
        .collect()
}

fn came(transfers: &[(&'static str, bool, String)]) -> Vec<&'static str> {
    transfers.iter().filter(|(_, came, _)| *came).map(|(name, ..)| *name).collect()
}

#[test]
fn files_are_moved_only_where_that_is_let_pass() {
    let machine = machine();
    let sshd = gated(&machine, "", NOTHING_BESIDE);
    let refused = transfers(&machine, &sshd);
    assert_eq!(came(&refused), [] as [&str; 0]);
    // Of a subsystem, sshd throws the standard error away.
    let texts = [
        "Connection closed",
        "scp is refused: a code is needed",
        "Connection closed",
        "rsync is refused: a code is needed",
    ];
    for ((name, _, errors), text) in refused.iter().zip(texts) {
        assert!(errors.contains(text), "{name}: {errors}");
    }
    drop(sshd);
    let sshd = gated(&machine, "--pass sftp", NOTHING_BESIDE);
    assert_eq!(came(&transfers(&machine, &sshd)), ["scp", "sftp"]);
    drop(sshd);
    let sshd = gated(&machine, "--pass sftp,scp,rsync", NOTHING_BESIDE);
    let _ = machine.log();
    assert_eq!(came(&transfers(&machine, &sshd)), ["scp", "old-scp", "sftp", "rsync"]);
    let passed = log(&machine);
    assert_eq!(passed[0], "not asked user=alice rhost=127.0.0.1 reason=passed program=sftp");
    // And nothing beside them.
    for line in ["touch in", "scp -t x; touch in", "internal-sftp & touch in", "rsync --server . x\ntouch in"] {
        let (status, ..) = ended(sshd.client(ALICE, &[]).arg(line));
        assert!(status == Some(1) && !machine.path("/home/alice/in").exists(), "{line}");
    }
    // A policy that is wrong lets nothing pass.
    machine.write("/etc/security/pam_totp.toml", "version = 1\nnonsense = 1\n");
    assert_eq!(came(&transfers(&machine, &sshd)), [] as [&str; 0]);
}

#[test]
fn with_grace_a_code_opens_for_a_while_from_the_same_address() {
    let machine = machine();
    let sshd = gated(&machine, "--grace 600", NOTHING_BESIDE);
    assert_eq!(came(&transfers(&machine, &sshd)), [] as [&str; 0]);
    let mut terminal = on_a_terminal(&sshd, &["true"]);
    terminal.until(PROMPT);
    terminal.enter(&code_now(SECRET));
    assert!(terminal.finish().1);
    assert_eq!(came(&transfers(&machine, &sshd)), ["scp", "old-scp", "sftp", "rsync"]);
    let (status, output, _) = ended(sshd.client(ALICE, &[]).arg("echo in"));
    assert_eq!((status, output.as_str()), (Some(0), "in\n"));
    // Not from elsewhere, and not for ever.
    let text = machine.read(&ALICE.secret_file());
    assert!(text.contains("LAST0 127.0.0.1 "), "{text}");
    machine.write_as(&ALICE.secret_file(), text.replace("LAST0 127.0.0.1 ", "LAST0 127.0.0.2 "), ALICE.uid, 0o600);
    assert_eq!(ended(sshd.client(ALICE, &[]).arg("echo in")).0, Some(1));
    machine.write_as(&ALICE.secret_file(), &text, ALICE.uid, 0o600);
    drop(sshd);
    let sshd = gated(&machine, "", NOTHING_BESIDE);
    assert_eq!(ended(sshd.client(ALICE, &[]).arg("echo in")).0, Some(1));
}

#[test]
fn no_key_signal_or_wait_at_the_prompt_opens_a_shell() {
    let machine = machine();
    let sshd = gated(&machine, "", NOTHING_BESIDE);
    for keys in ["\x03", "\x1c", "\x04", "123\x04", "123\x03"] {
        let mut terminal = on_a_terminal(&sshd, &[]);
        terminal.until(PROMPT);
        terminal.press(keys);
        let (shown, status) = terminal.status();
        assert!(shown.ends_with("no code\r\n") && status == Some(1), "{keys:?}: {status:?} {shown}");
    }
    let mut terminal = on_a_terminal(&sshd, &[]);
    terminal.until(PROMPT);
    // And none stops them.
    for keys in ["\x1a\n", "\x13123456\n"] {
        terminal.press(keys);
        terminal.until("Permission denied.\r\nVerification code: ");
    }
    for signal in ["TERM", "HUP", "INT", "QUIT", "ABRT", "KILL"] {
        let mut terminal = on_a_terminal(&sshd, &["echo in"]);
        terminal.until(PROMPT);
        let gate = output_of(machine.command("pgrep").args(["-n", "-x", "pam-totp"]));
        let gate = gate.trim();
        // No dump, and nobody of the same uid looks into it.
        let owner = output_of(machine.command("stat").args(["-c", "%u", &format!("/proc/{gate}/environ")]));
        assert_eq!(owner, "0\n");
        output_of(machine.command("kill").args(["-s", signal, gate]));
        let (shown, status) = terminal.status();
        assert!(!shown.contains("in\r\n") && status != Some(0), "{signal}: {status:?} {shown}");
    }
    drop(terminal);
    drop(sshd);
    let sshd = gated(&machine, "--timeout 1", NOTHING_BESIDE);
    let mut terminal = on_a_terminal(&sshd, &[]);
    terminal.until(PROMPT);
    let begin = Instant::now();
    let (shown, status) = terminal.status();
    assert!(shown.contains("no code in 1 seconds") && status == Some(1), "{status:?} {shown}");
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_environment_says_neither_who_it_is_nor_what_runs() {
    let machine = machine();
    let other = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";
    let sshd = gated(&machine, "", &format!("{NOTHING_BESIDE}PermitUserEnvironment yes\n"));
    sshd.key(ALICE);
    machine.make_directory("/home/alice/else", 0o700, ALICE.uid);
    machine.write_as("/home/alice/else/.google_authenticator", format!("{other}\n{MANY}"), ALICE.uid, 0o600);
    let environment = "HOME=/home/alice/else\nUSER=bob\nLOGNAME=bob\nSHELL=/bin/false\nPATH=/home/alice/else\n\
                       SSH_CONNECTION=192.0.2.1 1 192.0.2.2 22\nSSH_ORIGINAL_COMMAND=echo from the file\nENV=/bin/false\n";
    machine.write_as("/home/alice/.ssh/environment", environment, ALICE.uid, 0o600);
    let mut terminal = on_a_terminal(&sshd, &["echo $HOME $USER $SHELL"]);
    terminal.until(PROMPT);
    terminal.enter(&code_now(other));
    terminal.until(PROMPT);
    terminal.enter(&code_now(SECRET));
    let (shown, status) = terminal.status();
    assert!(shown.contains("/home/alice/else bob /bin/false\r\n") && status == Some(0), "{status:?} {shown}");
    let log = log(&machine);
    assert_eq!(reasons(&log), ["wrong-code"]);
    assert!(log.iter().all(|line| line.contains("user=alice") && line.contains("rhost=127.0.0.1")), "{log:#?}");
}

#[test]
fn a_file_without_a_limit_gets_one() {
    let machine = machine();
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let sshd = gated(&machine, "", NOTHING_BESIDE);
    let wrong = wrong_code(SECRET);
    let mut terminal = on_a_terminal(&sshd, &[]);
    for _ in 0..3 {
        terminal.until(PROMPT);
        terminal.enter(&wrong);
    }
    assert!(!terminal.finish().1);
    assert!(machine.read(&ALICE.secret_file()).contains("\" RATE_LIMIT 3 30 "));
    let mut terminal = on_a_terminal(&sshd, &[]);
    terminal.until(PROMPT);
    terminal.enter(&code_now(SECRET));
    terminal.until(PROMPT);
    drop(terminal);
    assert_eq!(reasons(&machine.log()).get(3).map(String::as_str), Some("throttled"));
}

#[test]
fn what_cannot_be_judged_is_refused_with_the_reason() {
    let machine = machine();
    let sshd = gated(&machine, "", NOTHING_BESIDE);
    for (policy, reason) in [
        ("version = 1\n[defaults]\nstore = \"system\"\n", "root-only-store"),
        ("version = 1\nnonsense = 1\n", "bad-policy"),
        ("", "bad-policy"),
    ] {
        machine.write("/etc/security/pam_totp.toml", policy);
        let _ = machine.log();
        let (shown, status) = on_a_terminal(&sshd, &["echo in"]).status();
        assert!(shown.contains(reason) && !shown.contains("in\r\n") && status == Some(1), "{policy}: {shown}");
        let log = log(&machine);
        assert!(log[0].starts_with("refused user=alice "), "{log:?}");
        assert_eq!(reasons(&log), [reason], "{policy}");
    }
    // The table of the service holds.
    machine.write("/etc/security/pam_totp.toml", "version = 1\n[service.gate]\nprompt = \"Gate: \"\necho = true\n");
    let mut terminal = on_a_terminal(&sshd, &["echo in"]);
    terminal.until("Gate: ");
    terminal.enter("123456");
    terminal.until("123456\r\n");
}

#[test]
fn it_is_never_setuid() {
    let machine = machine();
    let copy = machine.shared().join("setuid");
    fs::copy(machine.program(), &copy).unwrap();
    for mode in ["4755", "2755"] {
        output_of(Command::new("chmod").arg(mode).arg(&copy));
        let (status, _, errors) = ended(machine.command_as(BOB, &copy).args(["gate", "--", "id"]));
        assert!(status == Some(1) && errors.contains("borrowed-rights"), "{mode}: {errors}");
    }
}

#[test]
fn a_key_with_a_command_of_its_own() {
    let machine = machine();
    let sshd = Sshd::start(&machine, NO_PAM);
    let key = fs::read_to_string(public(&sshd.key(ALICE))).unwrap();
    let gate = machine.program();
    let line = |arguments: &str| format!("restrict,pty,command=\"{} gate{arguments}\" {key}", gate.display());
    machine.write_as("/home/alice/.ssh/authorized_keys", line(""), ALICE.uid, 0o600);
    let mut terminal = on_a_terminal(&sshd, &["echo in"]);
    terminal.until(PROMPT);
    terminal.enter(&wrong_code(SECRET));
    terminal.until(PROMPT);
    terminal.enter(&code_now(SECRET));
    assert_eq!(terminal.status(), ("\r\nin\r\n".to_owned(), Some(0)));
    assert_eq!(forwarded(&sshd), [false; 3]);

    let own = line(" -- /usr/bin/printenv SSH_ORIGINAL_COMMAND");
    machine.write_as("/home/alice/.ssh/authorized_keys", own, ALICE.uid, 0o600);
    let mut terminal = on_a_terminal(&sshd, &["echo in"]);
    terminal.until(PROMPT);
    terminal.enter(&new_code(&machine));
    assert_eq!(terminal.status(), ("\r\necho in\r\n".to_owned(), Some(0)));
}

#[test]
fn forwarding_starts_before_it_unless_sshd_has_it_off() {
    let machine = machine();
    let sshd = gated(&machine, "", "");
    let _ = machine.log();
    assert_eq!(forwarded(&sshd), [true; 3]);
    assert_eq!(log(&machine), [] as [&str; 0], "the gate was never started");
    drop(sshd);
    let sshd = gated(&machine, "", NOTHING_BESIDE);
    assert_eq!(forwarded(&sshd), [false; 3]);
}

/// Whether alice's key alone gets through by -L, -R and -D.
fn forwarded(sshd: &Sshd) -> [bool; 3] {
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = inside.local_addr().unwrap();
    thread::spawn(move || {
        for mut connection in inside.incoming().map_while(Result::ok) {
            let _ = connection.write_all(b"inside");
        }
    });
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    ["-L", "-R", "-D"].map(|way| {
        let port = free();
        let what = if way == "-D" { port.to_string() } else { format!("{port}:{target}") };
        let options = ["-N", "-o", "ExitOnForwardFailure=yes", way, &what];
        let mut ssh = sshd.client(ALICE, &options).stderr(Stdio::null()).spawn().unwrap();
        let came = gets_through(way, port, target, || ssh.try_wait().unwrap().is_some());
        let _ = ssh.kill();
        let _ = ssh.wait();
        came
    })
}

/// Whether what is forwarded comes from inside. Waits for the port to be there, and for the client no longer than it lives.
fn gets_through(way: &str, port: u16, target: SocketAddr, mut is_over: impl FnMut() -> bool) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for _ in 0..200 {
        if let Ok(mut connection) = TcpStream::connect(address) {
            connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            if way == "-D" {
                // SOCKS 4, CONNECT.
                let [high, low] = target.port().to_be_bytes();
                connection.write_all(&[4, 1, high, low, 127, 0, 0, 1, 0]).unwrap();
            }
            let mut text = Vec::new();
            let mut some = [0; 64];
            while let Ok(length @ 1..) = connection.read(&mut some) {
                text.extend_from_slice(&some[..length]);
                if text.ends_with(b"inside") {
                    return true;
                }
            }
            return false;
        }
        if is_over() {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{way}: neither a port nor an end");
}
