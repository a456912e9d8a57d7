//! A real sshd on a loopback port of a private machine, and a real ssh client that answers its questions.

use super::machine::{Machine, User};
use super::{need, output_of};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
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

/// A running sshd. Ends with its machine.
pub struct Sshd<'a> {
    machine: &'a Machine,
    server: Child,
    port: u16,
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
        need("sshd", "openssh-server");
        need("ssh", "openssh-client");
        let host_key = machine.shared().join("host_key");
        if !host_key.exists() {
            output_of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nMaxStartups 100\nUseDNS no\n{settings}",
            host_key.display()
        );
        machine.write("/etc/ssh/sshd_config", config);
        let mut server = machine.command("/usr/sbin/sshd");
        let server = server.args(["-D", "-f", "/etc/ssh/sshd_config"]).stderr(Stdio::inherit()).spawn().unwrap();
        // Ended by Drop, whatever happens from here on.
        let sshd = Self { machine, server, port };
        let listens = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(25));
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert!(listens, "sshd does not listen on port {port}: {:#?}", machine.log());
        sshd
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

    /// Runs `true` over ssh as `user`, with their key, typing these answers.
    pub fn login(&self, user: User, answers: &[&str]) -> Session {
        self.login_with(user.name, &self.key(user), answers, &[])
    }

    /// The same with any name and key, and further options for ssh.
    pub fn login_with(&self, name: &str, key: &std::path::Path, answers: &[&str], options: &[&str]) -> Session {
        self.finish(self.begin(name, key, answers, options))
    }

    /// Starts a client and does not wait for it.
    pub fn begin(&self, name: &str, key: &std::path::Path, answers: &[&str], options: &[&str]) -> Client {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("askpass");
        // Types the next answer, and writes down the question; without an answer it gives up.
        let text = "#!/bin/sh\ncd \"${0%/*}\" || exit 1\nprintf '%s\\n' \"$1\" >>questions\n\
                    head -n 1 answers\nsed -i 1d answers\n";
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(directory.path().join("answers"), answers.join("\n") + "\n").unwrap();
        let child = Command::new("ssh")
            .args(["-F", "none", "-p", &self.port.to_string(), "-i"])
            .arg(key)
            // Before ours, as the first value counts.
            .args(options)
            .args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ControlPath=none"])
            .args(["-o", &format!("NumberOfPasswordPrompts={}", answers.len().max(1))])
            .args(["-l", name, "127.0.0.1", "echo in as $(id -un)"])
            .env("SSH_ASKPASS", &script)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Client { child, directory }
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
