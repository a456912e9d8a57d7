//! A Debian of its own, made by debootstrap(8) from this machine's package sources: see debian.sh.

use super::machine::{collect, without_header};
use super::{need, output_of, project};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A root with its own processes. Everything in it is killed and gone with this value.
pub struct Debian {
    directory: tempfile::TempDir,
    unshare: Child,
    init: u32,
    log: Arc<Mutex<Vec<String>>>,
}

impl Debian {
    /// One with these packages (commas between them) besides the smallest set. The first call takes a minute, and the network.
    pub fn with(packages: &str) -> Self {
        for (program, package) in [("debootstrap", "debootstrap"), ("flock", "util-linux"), ("nsenter", "util-linux")] {
            need(program, package);
        }
        let functions = "set -eu; . tests/support/debian.sh; debian_root \"$1\"";
        let kept = output_of(Command::new("sh").current_dir(project()).args(["-c", functions, "sh", packages]));
        let directory = tempfile::Builder::new().prefix("pam_totp.debian.").tempdir().unwrap();
        let kept = project().join(kept.trim());
        output_of(Command::new("cp").arg("-a").arg(kept.join(".")).arg(directory.path()));
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh"])
            .arg(project().join("tests/support/debian_machine.sh"))
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut ready = String::new();
        BufReader::new(unshare.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let init: Option<u32> = ready.strip_prefix("ready ").and_then(|pid| pid.trim().parse().ok());
        let init = init.expect("no root of its own: this needs root, and namespaces from the kernel");
        let log = PathBuf::from(format!("/proc/{init}/root/dev/log"));
        let socket = UnixDatagram::bind(&log).unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
        Self { directory, unshare, init, log: collect(socket) }
    }

    /// A path in it as the test sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// A program inside, run by root with an environment of its own, and ended after two minutes.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.init))
            .arg(format!("--pid=/proc/{}/ns/pid_for_children", self.unshare.id()))
            .args(["--", "timeout", "--kill-after=5", "120"])
            .arg(program)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        command
    }

    /// A line of shell inside; fails if it fails.
    pub fn sh(&self, line: &str) -> String {
        output_of(self.command("sh").args(["-euc", line]))
    }

    /// A line of shell inside, as it comes.
    pub fn try_sh(&self, line: &str) -> Output {
        self.command("sh").args(["-euc", line]).output().unwrap()
    }

    /// What was logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|line| without_header(line)).collect()
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        // The first process reads its standard input to the end, and every other one ends with it.
        drop(self.unshare.stdin.take());
        let _ = self.unshare.wait();
    }
}
