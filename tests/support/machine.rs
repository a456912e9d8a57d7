//! A private machine: see machine.sh.

use super::{dist, example, need, output_of, project};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

/// What /home is.
#[derive(Clone, Copy)]
pub enum Home {
    /// A directory of the host's temporary file system.
    Directory,
    /// An ext4 file system of its own, where an fsync takes its time.
    Ext4,
    /// The same, sparse, with three million inodes.
    LargeExt4,
    /// A tmpfs, where it takes none.
    Memory,
}

/// A machine with its own /etc, /home, /run, /dev and log. Everything in it is killed and gone with this value.
pub struct Machine {
    directory: tempfile::TempDir,
    unshare: Child,
    init: u32,
    log: Arc<Mutex<Vec<String>>>,
    /// Held by who reads the log.
    reader: Mutex<()>,
}

/// A user of the machine.
#[derive(Clone, Copy)]
pub struct User {
    pub name: &'static str,
    pub uid: u32,
}

pub const ALICE: User = User { name: "alice", uid: 20001 };
pub const BOB: User = User { name: "bob", uid: 20002 };
pub const CAROL: User = User { name: "carol", uid: 20003 };

impl User {
    pub fn home(&self) -> String {
        format!("/home/{}", self.name)
    }

    pub fn secret_file(&self) -> String {
        format!("/home/{}/.google_authenticator", self.name)
    }
}

impl Machine {
    /// A machine with the module of `make build`, and alice, bob and carol on it, password `password`.
    pub fn new() -> Self {
        Self::with(Home::Directory, &dist("pam_totp.so"))
    }

    pub fn with(home: Home, module: &Path) -> Self {
        for (program, package) in [("unshare", "util-linux"), ("nsenter", "util-linux"), ("mkfs.ext4", "e2fsprogs")] {
            need(program, package);
        }
        // SAFETY of the host: the directory is ours alone, and everything else happens in the new namespaces.
        let directory = tempfile::Builder::new().prefix("pam_totp.").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let log = UnixDatagram::bind(directory.path().join("log")).unwrap();
        fs::set_permissions(directory.path().join("log"), fs::Permissions::from_mode(0o666)).unwrap();
        let log = collect(log);
        let kind = match home {
            Home::Directory => "directory",
            Home::Ext4 => "ext4",
            Home::LargeExt4 => "large-ext4",
            Home::Memory => "memory",
        };
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh"])
            .arg(project().join("tests/support/machine.sh"))
            .args([directory.path(), module])
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut ready = String::new();
        BufReader::new(unshare.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let init = ready.strip_prefix("ready ").and_then(|pid| pid.trim().parse().ok());
        let init = init.expect("no private machine: this needs root, and namespaces and loop devices from the kernel");
        let machine = Self { directory, unshare, init, log, reader: Mutex::new(()) };
        for user in [ALICE, BOB, CAROL] {
            machine.add(user);
        }
        machine
    }

    /// One user more.
    pub fn add(&self, user: User) {
        let User { name, uid } = user;
        // crypt(3) of "password"; yescrypt and sha512 are everywhere, this is sha512.
        static HASH: LazyLock<String> = LazyLock::new(|| {
            output_of(Command::new("openssl").args(["passwd", "-6", "-salt", "pam_totp", "password"])).trim().to_owned()
        });
        self.append("/etc/passwd", &format!("{name}:x:{uid}:{uid}::/home/{name}:/bin/sh\n"));
        self.append("/etc/group", &format!("{name}:x:{uid}:\n"));
        self.append("/etc/shadow", &format!("{name}:{}:20000::::::\n", *HASH));
        self.make_directory(&user.home(), 0o700, uid);
    }

    /// People and groups from a directory too, nss_spelled.rs. The LD_LIBRARY_PATH of whoever is to find it.
    pub fn with_directory(&self) -> PathBuf {
        let place = self.shared().join("names");
        fs::create_dir(&place).unwrap();
        fs::copy(example("libnss_spelled.so"), place.join("libnss_spelled.so.2")).unwrap();
        self.write("/etc/nsswitch.conf", "passwd: files spelled\ngroup: files spelled\n");
        place
    }

    /// A path of the machine as the test sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// A directory that has the same name inside and outside.
    pub fn shared(&self) -> &Path {
        self.directory.path()
    }

    pub fn make_directory(&self, path: &str, mode: u32, uid: u32) {
        let path = self.path(path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
    }

    pub fn append(&self, path: &str, text: &str) {
        let mut file = fs::File::options().append(true).create(true).open(self.path(path)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Writes a file of root's, 0644.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(path), text).unwrap();
    }

    /// Writes a file with owner and mode, in the place of whatever is there.
    pub fn write_as(&self, path: &str, text: impl AsRef<[u8]>, uid: u32, mode: u32) {
        let file = self.path(path);
        let _ = fs::remove_file(&file);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        chown(&file, Some(uid), Some(uid)).unwrap();
    }

    /// Gives a user a secret file: the RFC's secret and these lines.
    pub fn enrol(&self, user: User, lines: &str) {
        self.write_as(&user.secret_file(), format!("{}\n{lines}", super::totp::SECRET), user.uid, 0o600);
    }

    /// Counts no guesses a person and a source, for a test that is about something else and makes many.
    pub fn without_limits(&self) {
        self.write("/etc/security/pam_totp.toml", "version = 1\n[throttle]\nuser = \"\"\nhost = \"\"\n");
    }

    /// The PAM service `name`.
    pub fn service(&self, name: &str, stack: &str) {
        self.write(&format!("/etc/pam.d/{name}"), stack);
    }

    /// A program inside, run by root with an environment of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.unshare.id()))
            .arg(format!("--pid=/proc/{}/ns/pid_for_children", self.unshare.id()))
            .arg("--")
            .arg(program)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// A program inside, run by one of its users.
    pub fn command_as(&self, user: User, program: impl AsRef<OsStr>) -> Command {
        need("setpriv", "util-linux");
        let mut command = self.command("setpriv");
        let uid = user.uid.to_string();
        command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--"]).arg(program);
        command.env("HOME", user.home()).env("USER", user.name).env("LOGNAME", user.name);
        command
    }

    /// A login through libpam with a scripted person; see pam_client.rs.
    pub fn login(&self, service: &str, user: impl AsRef<OsStr>) -> Login<'_> {
        let mut command = self.command("timeout");
        command.args(PATIENCE).arg(self.client()).arg(service).arg(user);
        Login { command, machine: self }
    }

    /// The same, by a program that this user runs.
    pub fn login_as(&self, caller: User, service: &str, user: &str) -> Login<'_> {
        let mut command = self.command_as(caller, "timeout");
        command.args(PATIENCE).arg(self.client()).arg(service).arg(user);
        Login { command, machine: self }
    }

    /// The same, at another time ("+1h", "@2020-01-01 00:00:00"). The machine has been running for as long as it has.
    pub fn login_at(&self, time: &str, service: &str, user: &str) -> Login<'_> {
        need("faketime", "faketime");
        let mut command = self.command("faketime");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.args(["-f", time]).arg(self.client()).args([service, user]);
        Login { command, machine: self }
    }

    /// The same, with two clocks moved: the wall clock, and the one that counts from the start of the machine (faketime bends
    /// the former, a time namespace the latter).
    pub fn login_when(&self, wall: i64, boot: i64, service: &str, user: &str) -> Login<'_> {
        need("faketime", "faketime");
        let mut command = self.command("unshare");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.args(["--time", "--boottime", &boot.to_string(), "--fork", "--kill-child", "timeout"]).args(PATIENCE);
        command.args(["faketime", "-f", &format!("{wall:+}")]).arg(self.client()).args([service, user]);
        Login { command, machine: self }
    }

    /// The scripted person of pam_client.rs.
    pub fn client(&self) -> PathBuf {
        self.copied(&example("pam-client"))
    }

    /// `pam-totp`.
    pub fn program(&self) -> PathBuf {
        self.copied(&dist("pam-totp"))
    }

    /// `pam-totp-agent`.
    pub fn agent(&self) -> PathBuf {
        self.copied(&dist("pam-totp-agent"))
    }

    /// A `pam-totp-agent` of another build.
    pub fn agent_of(&self, program: &Path) -> PathBuf {
        self.copied(program)
    }

    /// The same by the name of google-authenticator.
    pub fn google_authenticator(&self) -> PathBuf {
        let link = self.program().with_file_name("google-authenticator");
        if !link.exists() {
            symlink("pam-totp", &link).unwrap();
        }
        link
    }

    /// Copied in, as the project may be where a user of the machine cannot get at it.
    fn copied(&self, program: &Path) -> PathBuf {
        let copy = self.shared().join(program.file_name().unwrap());
        if !copy.exists() {
            // By a process of its own: a child of another thread could still have our copy open to be written ("Text file busy").
            output_of(Command::new("cp").arg(program).arg(&copy));
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        }
        copy
    }

    /// Puts /var/lib/pam_totp on the file system of /home.
    pub fn keep_state_at_home(&self) {
        for path in ["/home/state", "/var/lib/pam_totp"] {
            self.make_directory(path, 0o700, 0);
        }
        output_of(self.command("mount").args(["--bind", "/home/state", "/var/lib/pam_totp"]));
    }

    /// What was logged since the last call, without time stamps. Waits until nothing more comes.
    pub fn log(&self) -> Vec<String> {
        self.datagrams().iter().map(|line| without_header(line)).collect()
    }

    /// The same, and of each line how much it matters (LOG_ALERT is 1).
    pub fn log_with_priorities(&self) -> Vec<(u8, String)> {
        let priority = |line: &str| line.strip_prefix('<')?.split_once('>')?.0.parse::<u8>().ok();
        self.datagrams().iter().map(|line| (priority(line).unwrap_or(0) & 7, without_header(line))).collect()
    }

    /// The same as a syslog daemon writes it to a file: `Nov 22 15:38:30 host sshd[12]: text`.
    pub fn log_file_lines(&self) -> Vec<String> {
        self.datagrams().iter().map(|line| as_in_a_file(line)).collect()
    }

    fn datagrams(&self) -> Vec<String> {
        let _reader = self.reader.lock().unwrap();
        let mut seen = usize::MAX;
        while self.is_busy() {
            thread::sleep(Duration::from_millis(30));
            let mut lines = self.log.lock().unwrap();
            if lines.len() == seen {
                return std::mem::take(&mut lines);
            }
            seen = lines.len();
        }
        // Nobody is left to log anything, and what was logged is here once this is: no need to wait and see.
        UnixDatagram::unbound().unwrap().send_to(END.as_bytes(), self.shared().join("log")).unwrap();
        loop {
            let mut lines = self.log.lock().unwrap();
            if let Some(end) = lines.iter().rposition(|line| line == END) {
                lines.remove(end);
                return std::mem::take(&mut lines);
            }
            drop(lines);
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Whether a program runs inside, besides the first one. Of one that has ended and was not waited for, /proc knows no file.
    fn is_busy(&self) -> bool {
        let processes = self.path("/proc").read_dir().unwrap().map(|entry| entry.unwrap());
        let mut others = processes
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| name != "1" && name.parse::<u32>().is_ok()));
        others.any(|process| process.path().join("exe").read_link().is_ok())
    }
}

/// What the test itself sends to the log, behind everything else.
const END: &str = "end";

/// Reads the log for as long as the machine is there: nobody could log in to one whose log is full.
pub(super) fn collect(socket: UnixDatagram) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let weak = Arc::downgrade(&lines);
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Some(lines) = weak.upgrade() {
            match socket.recv(&mut buffer) {
                Ok(length) => lines.lock().unwrap().push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                }
                Err(error) => panic!("the log: {error}"),
            }
        }
    });
    lines
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process reads its standard input to the end, and every other one ends with it.
        drop(self.unshare.stdin.take());
        let _ = self.unshare.wait();
    }
}

/// `<86>Nov 22 15:38:30 sshd[12]: text` without priority, time and process id.
pub(super) fn without_header(line: &str) -> String {
    let line = line.trim_end_matches(['\0', '\n']);
    let line = line.split_once('>').map_or(line, |(_, rest)| rest);
    let text = line.get(16..).unwrap_or(line);
    text.split_once("]: ").map_or(text, |(_, rest)| rest).to_owned()
}

/// `<86>Nov 22 15:38:30 sshd[12]: text` without priority, and with the name of a host.
fn as_in_a_file(line: &str) -> String {
    let line = line.trim_end_matches(['\0', '\n']);
    let line = line.split_once('>').map_or(line, |(_, rest)| rest);
    let (time, text) = line.split_at(line.len().min(16));
    format!("{time}host {text}")
}

/// A login to be.
pub struct Login<'a> {
    command: Command,
    machine: &'a Machine,
}

/// A login that was.
#[derive(Debug)]
pub struct LoggedIn {
    /// libpam's code; of several logins, each one's.
    pub results: Vec<i32>,
    /// `STYLE TEXT` of each prompt.
    pub prompts: Vec<String>,
    /// Everything that the client printed.
    pub output: String,
    /// What was logged meanwhile.
    pub log: Vec<String>,
}

/// A login that hangs is a test that fails.
const PATIENCE: [&str; 2] = ["--kill-after=1", "60"];

pub const SUCCESS: i32 = 0;
pub const PERM_DENIED: i32 = 6;
pub const AUTH_ERR: i32 = 7;
pub const AUTHINFO_UNAVAIL: i32 = 9;
pub const IGNORE: i32 = 25;
pub const MODULE_UNKNOWN: i32 = 28;

impl Login<'_> {
    pub fn answer(mut self, answer: impl AsRef<OsStr>) -> Self {
        self.command.arg("--answer").arg(answer);
        self
    }

    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn run(self) -> LoggedIn {
        let (output, log) = self.output();
        assert!(
            output.status.success(),
            "the client failed: {}\n{}{}\n{log:#?}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let with = |key: &str| output.lines().filter_map(|line| line.strip_prefix(key).map(str::to_owned)).collect();
        let results: Vec<String> = with("result ");
        let results = results.iter().map(|code| code.parse().unwrap()).collect();
        LoggedIn { results, prompts: with("prompt "), log, output }
    }

    /// As it comes, also when the client itself fails.
    pub fn output(mut self) -> (Output, Vec<String>) {
        // What earlier logins logged is not ours.
        let _ = self.machine.log();
        let output = self.command.output().unwrap();
        (output, self.machine.log())
    }
}

impl LoggedIn {
    /// The one result.
    pub fn result(&self) -> i32 {
        assert_eq!(self.results.len(), 1, "{self:?}");
        self.results[0]
    }

    /// The reason in the log, of a denial.
    pub fn reason(&self) -> String {
        let line = self.log.iter().find(|line| line.contains(" reason=")).unwrap_or_else(|| panic!("{self:#?}"));
        let (_, reason) = line.split_once(" reason=").unwrap();
        reason.split(' ').next().unwrap().to_owned()
    }

    /// How many of several logins ended so.
    pub fn count(&self, result: i32) -> usize {
        self.results.iter().filter(|&&code| code == result).count()
    }
}
