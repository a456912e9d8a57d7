//! A real sshd on a loopback port of a private machine, and a real ssh client that answers its questions.

use super::machine::{Machine, User};
use super::terminal::Terminal;
use super::{need, output_of};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

/// Key, then code: what the README says to set, and what a test needs.
pub const KEY_AND_CODE: &str = "\
UsePAM yes
KbdInteractiveAuthentication yes
PasswordAuthentication no
AuthenticationMethods publickey,keyboard-interactive
";

/// How often somebody looks whether a client has a question: for a minute.
const PATIENCE: usize = 12_000;

/// A running sshd. Ends with its machine.
pub struct Sshd<'a> {
    machine: &'a Machine,
    server: Child,
    host: &'static str,
    port: u16,
    /// The network namespace of its clients, if it is not this one.
    clients: Option<String>,
}

/// Two network namespaces and a wire between them. Gone with this value.
pub struct Wire {
    server: Child,
    client: Child,
}

impl Wire {
    /// The address of the server's end (RFC 5737, TEST-NET-2).
    pub const SERVER: &str = "198.51.100.1";
    /// That of the client's.
    pub const CLIENT: &str = "198.51.100.2";

    pub fn new() -> Self {
        need("ip", "iproute2");
        let client = Self::namespace("");
        let server = Self::namespace(&format!(
            "ip link add here type veth peer name there netns {} && ip address add {}/24 dev here && ip link set here up &&",
            client.id(),
            Self::SERVER
        ));
        let wire = Self { server, client };
        let there = format!("ip address add {}/24 dev there && ip link set there up", Self::CLIENT);
        output_of(Command::new("nsenter").arg(format!("--net={}", wire.client())).args(["sh", "-c", &there]));
        wire
    }

    /// A namespace that is there for as long as the standard input of the shell in it.
    fn namespace(setup: &str) -> Child {
        let script = format!("ip link set lo up && {setup} echo ready && read -r _");
        let mut shell = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "no network namespace: this needs root, and veth from the kernel");
        shell
    }

    /// The server's end, as nsenter(1) takes it.
    pub fn server(&self) -> String {
        format!("/proc/{}/ns/net", self.server.id())
    }

    /// The client's.
    pub fn client(&self) -> String {
        format!("/proc/{}/ns/net", self.client.id())
    }

    /// A command at the server's end.
    pub fn at_server(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net={}", self.server())).arg(command.get_program()).args(command.get_args());
        let environment = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        inside.env_clear().envs(environment).current_dir("/").stdin(Stdio::null());
        inside
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for shell in [&mut self.server, &mut self.client] {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
    }
}

/// Types the next answer, and writes down the question; without an answer it gives up.
const ANSWERS: &str = "#!/bin/sh\ncd \"${0%/*}\" || exit 1\nprintf '%s\\n' \"$1\" >>questions\n\
                       head -n 1 answers\nsed -i 1d answers\n";
/// Says the question into one FIFO, and reads the answer from another.
const ASKS: &str = "#!/bin/sh\ncd \"${0%/*}\" || exit 1\nprintf '%s' \"$1\" >ask\ncat answer\n";

/// What a client is to do.
struct Wish<'a> {
    /// The script that answers its questions.
    askpass: &'static str,
    name: &'a str,
    key: &'a Path,
    answers: &'a [&'a str],
    options: &'a [&'a str],
    program: &'a [&'a str],
    stdin: Stdio,
}

impl<'a> Wish<'a> {
    /// To log in, and say `in as NAME`.
    fn of(name: &'a str, key: &'a Path) -> Self {
        let program = &["echo in as $(id -un)"];
        Self { askpass: ANSWERS, name, key, answers: &[], options: &[], program, stdin: Stdio::null() }
    }
}

/// What a client's session came to.
#[derive(Debug)]
pub struct Session {
    pub succeeded: bool,
    pub output: String,
    pub errors: String,
    /// The questions that the client was asked, as it shows them.
    pub questions: Vec<String>,
}

impl<'a> Sshd<'a> {
    /// Starts sshd with these settings on top of the ones that a test cannot do without.
    pub fn start(machine: &'a Machine, settings: &str) -> Self {
        Self::start_at(machine, |common| format!("{common}{settings}"), None)
    }

    /// The same with an sshd_config that is made of those that a test cannot do without.
    pub fn start_with(machine: &'a Machine, config: impl FnOnce(&str) -> String) -> Self {
        Self::start_at(machine, config, None)
    }

    /// The same at the end of a wire; its clients come from the other end.
    pub fn start_on(machine: &'a Machine, settings: &str, wire: &Wire) -> Self {
        Self::start_at(machine, |common| format!("{common}{settings}"), Some(wire))
    }

    fn start_at(machine: &'a Machine, config: impl FnOnce(&str) -> String, wire: Option<&Wire>) -> Self {
        let host = wire.map_or("127.0.0.1", |_| Wire::SERVER);
        need("sshd", "openssh-server");
        need("ssh", "openssh-client");
        let host_key = machine.shared().join("host_key");
        if !host_key.exists() {
            output_of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let common = format!(
            "Port {port}\nListenAddress {host}\nHostKey {}\nPidFile none\nMaxStartups 100\nUseDNS no\n",
            host_key.display()
        );
        machine.write("/etc/ssh/sshd_config", config(&common));
        let server = machine.command("/usr/sbin/sshd");
        let mut server = wire.map_or(server, |wire| wire.at_server(&machine.command("/usr/sbin/sshd")));
        let server = server.args(["-D", "-f", "/etc/ssh/sshd_config"]).stderr(Stdio::inherit()).spawn().unwrap();
        // Ended by Drop, whatever happens from here on.
        let sshd = Self { machine, server, host, port, clients: wire.map(Wire::client) };
        let listens = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(25));
            match wire {
                None => TcpStream::connect((host, port)).is_ok(),
                Some(wire) => listens_at(wire, port),
            }
        });
        assert!(listens, "sshd does not listen on port {port}: {:#?}", machine.log());
        sshd
    }

    /// From now on its clients come from there.
    pub fn has_clients_in(&mut self, namespace: String) {
        self.clients = Some(namespace);
    }

    /// A key of the user's that sshd accepts.
    pub fn key(&self, user: User) -> PathBuf {
        let key = self.machine.shared().join(format!("key.{}", user.name));
        if !key.exists() {
            output_of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
            let public = fs::read(key.with_extension(format!("{}.pub", user.name))).unwrap();
            self.machine.make_directory(&format!("{}/.ssh", user.home()), 0o700, user.uid);
            self.machine.write_as(&format!("{}/.ssh/authorized_keys", user.home()), public, user.uid, 0o600);
        }
        key
    }

    /// One more key of the user's that sshd accepts, made with these options of ssh-keygen(1).
    pub fn another_key(&self, user: User, name: &str, options: &[&str]) -> PathBuf {
        let key = self.new_key(name, options);
        self.machine.make_directory(&format!("{}/.ssh", user.home()), 0o700, user.uid);
        let authorized = format!("{}/.ssh/authorized_keys", user.home());
        let before = fs::read_to_string(self.machine.path(&authorized)).unwrap_or_default();
        self.machine.write_as(&authorized, before + &fs::read_to_string(public(&key)).unwrap(), user.uid, 0o600);
        key
    }

    /// A key that is nobody's yet.
    pub fn new_key(&self, name: &str, options: &[&str]) -> PathBuf {
        let key = self.machine.shared().join(format!("key.{name}"));
        make_key(&key, options);
        key
    }

    /// Runs `true` over ssh as `user`, with their key, typing these answers.
    pub fn login(&self, user: User, answers: &[&str]) -> Session {
        self.login_with(user.name, &self.key(user), answers, &[])
    }

    /// The same with any name and key, and further options for ssh.
    pub fn login_with(&self, name: &str, key: &Path, answers: &[&str], options: &[&str]) -> Session {
        self.finish(self.begin(name, key, answers, options))
    }

    /// Opens a terminal as `user`, with their key and these answers, and leaves it at once.
    pub fn look_in(&self, user: User, answers: &[&str]) -> Session {
        let typed = tempfile::NamedTempFile::new().unwrap();
        fs::write(typed.path(), "exit\n").unwrap();
        let key = self.key(user);
        let stdin = typed.reopen().unwrap().into();
        self.finish(self.run(Wish { answers, options: &["-tt"], program: &[], stdin, ..Wish::of(user.name, &key) }))
    }

    /// Starts a client and does not wait for it.
    pub fn begin(&self, name: &str, key: &Path, answers: &[&str], options: &[&str]) -> Client {
        self.run(Wish { answers, options, ..Wish::of(name, key) })
    }

    fn run(&self, wish: Wish) -> Client {
        let Wish { askpass, name, key, answers, options, program, stdin } = wish;
        let directory = tempfile::tempdir().unwrap();
        output_of(Command::new("mkfifo").arg(directory.path().join("ask")).arg(directory.path().join("answer")));
        let script = directory.path().join("askpass");
        fs::write(&script, askpass).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(directory.path().join("answers"), answers.join("\n") + "\n").unwrap();
        let child = self
            .ssh(key, options)
            .args(["-o", &format!("NumberOfPasswordPrompts={}", answers.len().max(1))])
            .args(["-l", name, self.host])
            .args(program)
            .env("SSH_ASKPASS", &script)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Client { child, directory }
    }

    /// Starts a client that runs `echo in as NAME` and whose person looks at each question.
    pub fn talk(&self, name: &str, key: &Path, options: &[&str]) -> Dialogue<'_> {
        let client = self.run(Wish { askpass: ASKS, answers: &["", "", ""], options, ..Wish::of(name, key) });
        Dialogue { sshd: self, client }
    }

    /// A client that logs in on a terminal and says `in as NAME` there.
    pub fn on_a_terminal(&self, user: User, locale: &str, options: &[&str]) -> Terminal {
        let mut ssh = self.ssh(&self.key(user), options);
        ssh.args(["-l", user.name, self.host, "echo in as $(id -un)"]);
        Terminal::run(&ssh, locale)
    }

    /// A client of the user's that nobody answers questions for.
    pub fn client(&self, user: User, options: &[&str]) -> Command {
        let mut ssh = self.ssh(&self.key(user), options);
        ssh.args(["-o", "BatchMode=yes", "-l", user.name, self.host]).stdin(Stdio::null());
        ssh
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// An ssh that is nobody's yet.
    fn ssh(&self, key: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(if self.clients.is_some() { "nsenter" } else { "ssh" });
        if let Some(namespace) = &self.clients {
            command.arg(format!("--net={namespace}")).arg("ssh");
        }
        command
            .args(["-F", "none", "-p", &self.port.to_string(), "-i"])
            .arg(key)
            // Before ours, as the first value counts.
            .args(options)
            .args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ControlPath=none"]);
        command
    }

    /// Waits for a client.
    pub fn finish(&self, client: Client) -> Session {
        let output = client.child.wait_with_output().unwrap();
        let questions = fs::read_to_string(client.directory.path().join("questions")).unwrap_or_default();
        Session {
            succeeded: output.status.success(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
            questions: questions.lines().map(str::to_owned).collect(),
        }
    }
}

/// Makes a key with these options of ssh-keygen(1).
pub fn make_key(key: &Path, options: &[&str]) {
    output_of(Command::new("ssh-keygen").args(options).args(["-q", "-N", "", "-f"]).arg(key));
}

/// The public half of a key.
pub fn public(key: &Path) -> PathBuf {
    PathBuf::from(format!("{}.pub", key.display()))
}

/// The certificate of a key.
pub fn certificate(key: &Path) -> PathBuf {
    PathBuf::from(format!("{}-cert.pub", key.display()))
}

/// What ssh-keygen(1) shows as the fingerprint of a key.
pub fn fingerprint(key: &Path) -> String {
    let line = output_of(Command::new("ssh-keygen").args(["-l", "-E", "sha256", "-f"]).arg(public(key)));
    line.split(' ').nth(1).unwrap().to_owned()
}

/// Gives a key a certificate with this key id, by ssh-keygen(1), which ssh finds beside the key.
pub fn certify(authority: &Path, key: &Path, key_id: &str, options: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    output_of(command.args(["-q", "-s"]).arg(authority).args(["-I", key_id]).args(options).arg(public(key)));
}

/// A client whose person reads each question before they answer it.
pub struct Dialogue<'a> {
    sshd: &'a Sshd<'a>,
    client: Client,
}

impl Dialogue<'_> {
    /// The next question, all of its lines, as the client shows it. `None`: the client has ended without one.
    pub fn question(&mut self) -> Option<String> {
        let mut text = Vec::new();
        let mut reader = fs::File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.client.directory.path().join("ask"))
            .unwrap();
        for _ in 0..PATIENCE {
            match reader.read_to_end(&mut text) {
                // Whoever asked has said everything.
                Ok(_) if !text.is_empty() => {
                    return Some(String::from_utf8(text).unwrap());
                }
                Ok(_) if self.client.child.try_wait().unwrap().is_some() => return None,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the client neither asks nor ends");
    }

    /// Answers it.
    pub fn answer(&self, answer: &str) {
        fs::write(self.client.directory.path().join("answer"), format!("{answer}\n")).unwrap();
    }

    /// The next question, and what to say to it.
    pub fn reply(&mut self, answer: impl FnOnce(&str) -> String) {
        let question = self.question().expect("a question");
        self.answer(&answer(&question));
    }

    /// The client goes away in the middle.
    pub fn hang_up(mut self) {
        self.client.child.kill().unwrap();
        self.client.child.wait().unwrap();
    }

    /// Waits for its end, and has nothing more to say.
    pub fn finish_anyhow(mut self) -> Session {
        while self.question().is_some() {
            self.answer("");
        }
        self.finish()
    }

    /// Waits for its end; there must be no further question.
    pub fn finish(mut self) -> Session {
        assert_eq!(self.question(), None);
        let (sshd, client) = (self.sshd, self.client);
        sshd.finish(client)
    }
}

/// Whether somebody listens on a port at the server's end of a wire.
fn listens_at(wire: &Wire, port: u16) -> bool {
    let sockets = fs::read_to_string(format!("/proc/{}/net/tcp", wire.server.id())).unwrap();
    sockets.lines().any(|line| line.contains(&format!(":{port:04X} ")) && line.contains(" 0A "))
}

impl Drop for Sshd<'_> {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A client at work.
pub struct Client {
    child: Child,
    directory: tempfile::TempDir,
}
