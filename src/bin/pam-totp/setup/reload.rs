//! sshd: whether it likes its settings, and that it takes them.
//!
//! It is told by SIGHUP, which is what `systemctl reload` comes to, and starts itself anew under the same process id. Where
//! none runs (socket activation, a machine that is being made) each connection reads the files by itself.

use crate::sshd_config::{Connection, Effective, NoAnswer, parse, settings_of};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How often somebody looks.
const LOOK: Duration = Duration::from_millis(20);
/// Looks until a reload is taken to be over: five seconds.
const LOOKS: u32 = 250;
/// Seconds to wait for a connection where LoginGraceTime has no end.
const MOST_GRACE: u32 = 600;

/// What sshd says to the files as they are.
pub(super) fn check() -> Result<()> {
    match settings_of(None, &Connection::default(), &["-t"]) {
        Ok(_) => Ok(()),
        Err(error) => Err(anyhow!("sshd does not take its settings: {error}")),
    }
}

/// What would be in force for whoever connects, if the main file said this.
pub(super) fn effective(text: &str, connection: &Connection) -> Result<Effective> {
    let said = settings_of(Some(text), connection, &["-T"]).map_err(|error| anyhow!("{error}"))?;
    Ok(parse(&said))
}

/// The version of this host's sshd, such as (9, 2). `None`: no sshd, or one that does not say.
pub(super) fn version() -> Option<(u32, u32)> {
    // Old ones know no `-V`, and say how they are used, and their version with it.
    let said = match settings_of(None, &Connection::default(), &["-V"]) {
        Ok(said) | Err(NoAnswer::Refused(said)) => said,
        Err(_) => return None,
    };
    parse_version(&said)
}

pub(super) fn parse_version(said: &str) -> Option<(u32, u32)> {
    let (_, rest) = said.split_once("OpenSSH_")?;
    let (major, rest) = rest.split_once('.')?;
    let end = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest.get(..end)?.parse().ok()?))
}

/// Has every sshd of this host read its settings, and waits until it has. Settings that it does not take are never loaded.
pub(super) fn reload() -> Result<()> {
    check()?;
    for server in servers() {
        server.reload()?;
    }
    Ok(())
}

/// Fails where an sshd goes by another file than the one that setup knows.
pub(super) fn ensure_common() -> Result<()> {
    for Server { pid, words } in servers() {
        let mut words = words.iter().skip(1);
        while let Some(word) = words.next() {
            let other = match word.strip_prefix("-f") {
                Some("") => words.next().map(String::as_str),
                rest => rest,
            };
            if let Some(other) = other.filter(|other| *other != crate::sshd_config::PATH) {
                bail!("sshd (process {pid}) goes by {}, which setup does not know: not touched", other.escape_debug());
            }
            ensure!(
                !word.starts_with("-o"),
                "sshd (process {pid}) was started with settings of its own (-o), which setup does not know: not touched"
            );
        }
    }
    Ok(())
}

/// An sshd that listens.
struct Server {
    pid: i32,
    /// How it was started, as far as that is known.
    words: Vec<String>,
}

/// All of them, of this machine: not of its containers, not of a chroot's, and not what a user calls by that name.
fn servers() -> Vec<Server> {
    let servers = processes().filter(|pid| is_roots(*pid)).filter_map(|pid| {
        let words = sshd_words(pid)?;
        let title = words.join(" ");
        // `sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups`; before 8.2 as it was started.
        if let Some(words) = title.strip_prefix("sshd: ") {
            let (words, _) = words.split_once(" [listener]")?;
            return Some(Server { pid, words: words.split(' ').map(str::to_owned).collect() });
        }
        // One for a single connection, or one that only looks at its settings.
        let is_other = words.iter().skip(1).any(|word| ["-R", "-i", "-t", "-T", "-V", "-G"].contains(&word.as_str()));
        (!is_other).then_some(Server { pid, words })
    });
    servers.collect()
}

/// The connections on which nobody is logged in yet.
pub(super) fn connections() -> Vec<(i32, String)> {
    let is_trusted =
        |pid: &i32| is_roots(*pid) || parent(*pid).is_some_and(|pid| is_roots(pid) && sshd_words(pid).is_some());
    let open = processes().filter(is_trusted).filter_map(|pid| {
        let title = sshd_words(pid)?.join(" ");
        let is_open = ["[preauth]", "[net]", "[accepted]", "[pam]", "-R"].iter().any(|part| title.contains(part));
        is_open.then(|| Some((pid, started(pid)?))).flatten()
    });
    open.collect()
}

/// Waits until these have come to an end, or are of somebody who is logged in.
pub(super) fn wait_for(begun: &[(i32, String)], grace: u32) -> Result<()> {
    let seconds = if grace == 0 { MOST_GRACE } else { grace.min(MOST_GRACE) };
    let looks = u64::from(seconds).saturating_add(5).saturating_mul(50);
    for look in 0..looks {
        let open = connections();
        let left = begun.iter().filter(|begun| open.contains(begun)).count();
        if left == 0 {
            return Ok(());
        }
        if look == 50 {
            say!("Waiting for {left} connections that began under the old settings, for up to {seconds} s ...");
        }
        thread::sleep(LOOK);
    }
    bail!("a connection that began under the old settings of sshd does not come to an end")
}

/// The words of a process of this machine that is an sshd.
fn sshd_words(pid: i32) -> Option<Vec<String>> {
    let of = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    let program = fs::read_link(of("exe")).ok()?;
    let name = program.file_name()?.to_str()?;
    // Replaced by an upgrade it still runs.
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    if !["sshd", "sshd-session", "sshd-auth"].contains(&name) {
        return None;
    }
    let is_ours = fs::read_link(of("ns/pid")).ok()? == fs::read_link("/proc/self/ns/pid").ok()?;
    let place = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    if !is_ours || place(&of("root"))? != place(Path::new("/"))? {
        return None;
    }
    let line = fs::read(of("cmdline")).ok()?;
    let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    Some(words.filter(|word| !word.is_empty()).collect())
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process is root's. Whom its directory in /proc belongs to says less: root, where it may not be dumped.
fn is_roots(pid: i32) -> bool {
    status(pid, "Uid:").is_some_and(|uids| uids.split_ascii_whitespace().all(|uid| uid == "0"))
}

/// Of one for a single connection that is not root's: the sshd that made it.
fn parent(pid: i32) -> Option<i32> {
    status(pid, "PPid:")?.trim().parse().ok()
}

fn status(pid: i32, key: &str) -> Option<String> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned)
}

/// When a process was started: with its id it is one process and no other.
fn started(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19).map(str::to_owned)
}

impl Server {
    fn reload(&self) -> Result<()> {
        let pid = Pid::from_raw(self.pid).context("no process")?;
        // One that is just starting would be ended by it.
        self.wait_until(|| self.listens_to_hup())?;
        let before = self.program();
        kill_process(pid, Signal::HUP).with_context(|| format!("sshd (process {}) cannot be told", self.pid))?;
        // Where the kernel lays programs out alike each time this takes all of the five seconds.
        let _ = self.wait_until(|| self.program() != before);
        self.wait_until(|| self.listens_to_hup())
    }

    /// What the kernel gave the program at its start, random bytes' address among it.
    fn program(&self) -> Option<Vec<u8>> {
        fs::read(format!("/proc/{}/auxv", self.pid)).ok()
    }

    /// It does once it listens to the network.
    fn listens_to_hup(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
    }

    fn wait_until(&self, is_so: impl Fn() -> bool) -> Result<()> {
        for _ in 0..LOOKS {
            if is_so() {
                return Ok(());
            }
            ensure!(Path::new(&format!("/proc/{}", self.pid)).exists(), "sshd (process {}) has ended", self.pid);
            thread::sleep(LOOK);
        }
        bail!("sshd (process {}) does not come back from reading its settings", self.pid)
    }
}
