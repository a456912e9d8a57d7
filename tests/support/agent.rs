//! A pam-totp-agent on a private machine.

use super::machine::Machine;
use super::output_of;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Where it listens, unless the policy says otherwise.
pub const SOCKET: &str = "/run/pam_totp-agent.sock";

/// One that runs. Ends when dropped.
pub struct Agent<'a> {
    machine: &'a Machine,
    process: Option<Child>,
}

impl<'a> Agent<'a> {
    pub fn start(machine: &'a Machine) -> Self {
        Self::start_with(machine, &[])
    }

    pub fn start_with(machine: &'a Machine, arguments: &[&str]) -> Self {
        let mut agent = Self { machine, process: None };
        agent.again(arguments);
        agent
    }

    /// Starts it, where none is running.
    pub fn again(&mut self, arguments: &[&str]) {
        self.kill();
        let mut command = Self::command(self.machine);
        let process = command.args(arguments).stdout(Stdio::null()).spawn().unwrap();
        self.process = Some(process);
        let is_up = (0..400).any(|_| {
            thread::sleep(Duration::from_millis(5));
            self.connect().is_some()
        });
        assert!(is_up, "the agent does not listen");
    }

    /// The program, not yet started.
    pub fn command(machine: &Machine) -> Command {
        let mut command = machine.command(machine.agent());
        command.env_remove("PATH");
        command
    }

    /// A connection of root's.
    pub fn connect(&self) -> Option<UnixStream> {
        UnixStream::connect(self.socket()).ok()
    }

    /// Where it listens, as the test sees it.
    pub fn socket(&self) -> PathBuf {
        self.machine.path(SOCKET)
    }

    /// Its process id, as its machine's host sees it.
    pub fn pid(&self) -> u32 {
        let parent = self.process.as_ref().unwrap().id();
        // nsenter starts it as a child of its own, as it goes into another namespace of processes.
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub fn signal(&self, signal: &str) {
        output_of(Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]));
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = format!("/proc/{0}/task/{0}/children", process.id());
            for child in std::fs::read_to_string(pid).unwrap_or_default().split_whitespace() {
                let _ = Command::new("kill").args(["-KILL", child]).status();
            }
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}
