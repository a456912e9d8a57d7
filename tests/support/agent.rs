//! A pam-totp-agent on a private machine.

use super::machine::Machine;
use super::output_of;
use pam_totp::agent::wire::{Reply, Request};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Where it listens, unless the policy says otherwise.
pub const SOCKET: &str = "/run/pam_totp-agent.sock";

/// One that runs. Ends when dropped.
pub struct Agent<'a> {
    machine: &'a Machine,
    process: Option<Child>,
    inside: PathBuf,
    outside: PathBuf,
}

/// A place for a socket that has the same name inside and outside.
pub fn shared_socket(machine: &Machine) -> PathBuf {
    machine.shared().join("agent.sock")
}

impl<'a> Agent<'a> {
    /// One at the usual place.
    pub fn start(machine: &'a Machine) -> Self {
        Self::start_at(machine, Path::new(SOCKET), machine.path(SOCKET))
    }

    /// One at a place that has the same name inside and outside, and that anybody gets to.
    pub fn start_shared(machine: &'a Machine) -> Self {
        let socket = shared_socket(machine);
        Self::start_at(machine, &socket, socket.clone())
    }

    fn start_at(machine: &'a Machine, inside: &Path, outside: PathBuf) -> Self {
        let mut agent = Self { machine, process: None, inside: inside.to_owned(), outside };
        agent.again();
        agent
    }

    /// Starts one by a command of the test's own.
    pub fn start_by(machine: &'a Machine, command: &mut Command) -> Self {
        let mut agent = Self { machine, process: None, inside: SOCKET.into(), outside: machine.path(SOCKET) };
        agent.run(command);
        agent
    }

    /// Starts it anew.
    pub fn again(&mut self) {
        self.kill();
        self.run(Self::command(self.machine).arg("--socket").arg(&self.inside));
    }

    /// Starts it anew where it has ended.
    pub fn again_if_gone(&mut self) {
        let process = self.process.as_mut().unwrap();
        if process.try_wait().unwrap().is_some() || self.connect().is_none() {
            self.again();
        }
    }

    fn run(&mut self, command: &mut Command) {
        let process = command.stdout(Stdio::null()).spawn().unwrap();
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
        UnixStream::connect(&self.outside).ok()
    }

    /// Where it listens, as the test sees it.
    pub fn socket(&self) -> &Path {
        &self.outside
    }

    /// What it answers to somebody with this uid. `None`: nothing.
    pub fn reply_to(&self, uid: u32, request: &Request) -> Option<Reply> {
        let message = request.message().unwrap();
        let reply = as_uid(uid, || exchange(&self.outside, message.expose()))?;
        Some(Reply::parse(&reply).unwrap())
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
            // It is nobody's child now, and takes its time.
            let is_gone = (0..400).any(|_| {
                let is_gone = self.connect().is_none();
                thread::sleep(Duration::from_millis(if is_gone { 0 } else { 5 }));
                is_gone
            });
            assert!(is_gone || thread::panicking(), "the agent does not end");
        }
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

// ---- Requests by hand ----

/// Does something as somebody else, in a thread of its own: the kernel keeps ids a thread.
pub fn as_uid<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let work = move || {
            #[allow(unsafe_code)]
            // SAFETY: numbers; of this thread alone, which ends with the work.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            assert_eq!(result, 0, "no uid {uid}");
            work()
        };
        scope.spawn(work).join().unwrap()
    })
}

/// Sends a message, and gets one, if one comes.
pub fn exchange(socket: &Path, message: &[u8]) -> Option<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&u32::try_from(message.len()).unwrap().to_be_bytes()).ok()?;
    stream.write_all(message).ok()?;
    receive(&mut stream)
}

pub fn receive(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; u32::from_be_bytes(length).try_into().unwrap()];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}
