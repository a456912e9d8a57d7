//! What a setup is about to do and has done, written down before its first step, so that whoever comes after it can undo it.
//!
//! Killed while it writes, everything is undone by whoever comes next: the watcher, another setup, doctor. Done, it waits
//! for somebody to confirm; at the end of that time, or after a reboot, everything is undone too.

use super::plan::{self, Step, Undone};
use super::{files, watch};
use crate::host::by_fact;
use crate::root::Root;
use anyhow::{Context, Result, anyhow, ensure};
use pam_totp::policy::STATE_DIR;
use pam_totp::policy::values::Span;
use pam_totp::system::clock;
use pam_totp::system::lock::{self, Patience};
use pam_totp::system::passwd::process_uids;
use pam_totp::system::private::Directory;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

const NAME: &str = "setup.json";
const TEMPORARY: &str = "setup.json.new";
/// What is left of one that could not be undone as a whole, for people to read.
const STOPPED: &str = "setup.stopped.json";
const LOCK: &str = "setup.lock";
const VERSION: u32 = 1;
/// What the directory reads of a file.
const LARGEST: usize = 1 << 20;
/// Which start of the machine this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

pub(super) const AT_WORK: &str = "another `pam-totp setup` is at work: try again when it is done";

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    version: u32,
    /// What it is called with: `setup sshd`.
    command: String,
    state: State,
    /// Within which boot …
    boot: String,
    /// … and how many seconds after the step to [`State::Waiting`] it has to be confirmed,
    within: u64,
    /// which is this second of CLOCK_BOOTTIME.
    deadline: u64,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Applying,
    Waiting,
}

impl Journal {
    pub(super) fn new(command: String, steps: Vec<Step>, within: Span) -> Result<Self> {
        Ok(Self {
            version: VERSION,
            command,
            state: State::Applying,
            boot: boot()?,
            within: within.0,
            deadline: 0,
            steps,
        })
    }

    /// All is written: from now on somebody may confirm.
    pub(super) fn wait(&mut self) {
        self.state = State::Waiting;
        self.deadline = clock::moment().boot.saturating_add(self.within);
    }

    /// Did it take the code out? Then going back puts it in again.
    fn removes(&self) -> bool {
        self.command.ends_with(" --remove")
    }

    /// Seconds that are left to confirm; 0 also where it was not done, or the machine was started anew.
    fn left(&self) -> Result<u64> {
        if self.state == State::Applying || self.boot != boot()? {
            return Ok(0);
        }
        // Whoever writes another number there does not get more than was agreed.
        Ok(self.deadline.saturating_sub(clock::moment().boot).min(self.within))
    }
}

fn boot() -> Result<String> {
    let id = fs::read_to_string(BOOT_ID).context(BOOT_ID)?;
    Ok(id.trim().to_owned())
}

/// What became of what another run began.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// Nothing was left over.
    Nothing,
    /// Somebody is just writing.
    AtWork,
    /// It is there, and may be confirmed for so long.
    Waiting { command: String, left: Span },
    /// It was undone; in words.
    RolledBack(String),
    /// It is to be undone, and could not be by now: the disk is full, say. It is tried again.
    NotYet(String),
}

/// Undoes what was cut off, or was not confirmed in time. For whoever is root, on this machine.
pub(crate) fn finish(root: &Root) -> Result<Finished> {
    let is_begun = Path::new(STATE_DIR).join(NAME).exists();
    if !root.is_live() || process_uids().1 != 0 || !is_begun {
        return Ok(Finished::Nothing);
    }
    match Held::try_take()? {
        Some(held) => held.finish(root),
        None => Ok(Finished::AtWork),
    }
}

/// The right to change the journal, and what it is about. Ends with this value, or with its process.
pub(super) struct Held {
    directory: Directory,
    _lock: OwnedFd,
}

impl Held {
    /// Waits a few seconds for somebody who is at work.
    pub(super) fn take() -> Result<Self> {
        let directory = directory()?;
        let lock = lock_file(&directory)?;
        let held = lock::exclusive(&lock, &mut Patience::default());
        ensure!(held.is_ok(), AT_WORK);
        Ok(Self { directory, _lock: lock })
    }

    /// `None`: somebody is at work.
    pub(super) fn try_take() -> Result<Option<Self>> {
        let directory = directory()?;
        let lock = lock_file(&directory)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { directory, _lock: lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| directory.path(LOCK).display().to_string()),
        }
    }

    pub(super) fn read(&self) -> Result<Option<Journal>> {
        let place = self.directory.path(NAME);
        let Some(text) = self.directory.read(NAME).with_context(|| place.display().to_string())? else {
            return Ok(None);
        };
        let journal: Journal = serde_json::from_slice(text.expose()).map_err(|error| {
            anyhow!(
                "{}: {error}. What an earlier setup changed is written there: put it right by hand, then remove the file",
                place.display()
            )
        })?;
        ensure!(
            journal.version == VERSION,
            "{}: is of another version of pam-totp: roll back with that one",
            place.display()
        );
        Ok(Some(journal))
    }

    pub(super) fn write(&self, journal: &Journal) -> Result<()> {
        let text = serde_json::to_vec_pretty(journal)?;
        ensure!(text.len() < LARGEST, "the files are too large for a way back: nothing was changed");
        let place = self.directory.path(NAME);
        self.directory.write_for_good(NAME, TEMPORARY, &text).with_context(|| place.display().to_string())
    }

    /// What is there stays.
    pub(super) fn forget(&self) -> Result<()> {
        let forgotten = self.directory.remove(NAME).and_then(|()| self.directory.sync());
        forgotten.with_context(|| self.directory.path(NAME).display().to_string())
    }

    /// See [`finish`].
    pub(super) fn finish(&self, root: &Root) -> Result<Finished> {
        let _ = self.directory.remove(TEMPORARY);
        let Some(journal) = self.read()? else {
            watch::end();
            return Ok(Finished::Nothing);
        };
        match journal.left()? {
            0 => {
                let rolled_back = self.roll_back(root, &journal);
                let what = rolled_back.to_string();
                Ok(if rolled_back.undone.not_yet.is_some() {
                    Finished::NotYet(what)
                } else {
                    Finished::RolledBack(what)
                })
            }
            left => Ok(Finished::Waiting { command: journal.command, left: Span(left) }),
        }
    }

    /// Undoes all steps, and says so in the log.
    pub(super) fn roll_back(&self, root: &Root, journal: &Journal) -> RolledBack {
        let why = match journal.state {
            State::Applying => "was cut off",
            State::Waiting => "was not confirmed",
        };
        let undone = plan::undo(root, &journal.steps, journal.removes());
        let rolled_back = RolledBack { command: journal.command.clone(), why, undone };
        log(&rolled_back.to_string());
        if rolled_back.undone.not_yet.is_some() {
            // Half of it is no longer there: from now on nobody confirms it.
            if let Err(error) = self.write(&Journal { deadline: 0, ..journal.clone() }) {
                log(&format!("{error:#}"));
            }
            return rolled_back;
        }
        let kept = if rolled_back.undone.stopped.is_some() {
            self.directory.rename(NAME, STOPPED).and_then(|()| self.directory.sync())
        } else {
            self.directory.remove(NAME).and_then(|()| self.directory.sync())
        };
        if let Err(error) = kept {
            log(&format!("{}: {error}", self.directory.path(NAME).display()));
        }
        watch::end();
        rolled_back
    }
}

fn directory() -> Result<Directory> {
    Directory::make(Path::new(STATE_DIR)).map_err(|error| by_fact(error.fact()))
}

fn lock_file(directory: &Directory) -> Result<OwnedFd> {
    directory.lock_file(LOCK).with_context(|| directory.path(LOCK).display().to_string())
}

/// What was undone, in words.
#[derive(Debug)]
pub(super) struct RolledBack {
    command: String,
    why: &'static str,
    undone: Undone,
}

impl RolledBack {
    /// Is all as it was before?
    pub(super) fn is_whole(&self) -> bool {
        let Undone { stopped, not_yet, not_reloaded, .. } = &self.undone;
        stopped.is_none() && not_yet.is_none() && not_reloaded.is_none()
    }
}

impl Display for RolledBack {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { command, why, undone: Undone { restored, stopped, not_yet, not_reloaded } } = self;
        let names: Vec<_> = restored.iter().map(|path| files::shown(path)).collect();
        let names = if names.is_empty() { "no file had to be changed".to_owned() } else { names.join(", ") };
        write!(out, "pam-totp {command} {why}, and is rolled back: {names}")?;
        if let Some(stopped) = stopped {
            write!(out, ". STOPPED HALFWAY: {stopped}; the other contents are in {STATE_DIR}/{STOPPED}")?;
        }
        if let Some(error) = not_yet {
            write!(out, ". NOT YET ALL: {error}; it is tried again")?;
        }
        if let Some(error) = not_reloaded {
            write!(out, ". NOT RELOADED: {error}")?;
        }
        Ok(())
    }
}

/// authpriv.alert, as syslog(3) numbers them.
const PRIORITY: u32 = (10 << 3) | 1;

/// Where everybody looks who wonders about logins; and on the terminal, if there is one.
fn log(text: &str) {
    let line = format!("<{PRIORITY}>pam-totp[{}]: {text}", std::process::id());
    let _ = send(&line);
}

fn send(line: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(line.as_bytes(), "/dev/log").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(text: &str) -> Result<Journal, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn it_comes_back_as_it_was_written_and_a_word_that_is_not_known_is_an_error() {
        let steps = vec![Step { path: "/etc/x".into(), before: None, after: Some("y\n".into()), reload: true }];
        let mut written = Journal::new("setup sshd".to_owned(), steps, Span(300)).unwrap();
        assert_eq!(written.left().unwrap(), 0, "not done yet");
        written.wait();
        assert!((299..=300).contains(&written.left().unwrap()));
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(journal(&text).unwrap(), written);
        assert!(journal(&text.replacen("\"version\"", "\"more\":1,\"version\"", 1)).is_err());
        for end in 0..text.len() {
            assert!(journal(&text[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn its_time_is_over_after_another_start_and_is_never_longer_than_agreed() {
        let mut journal = Journal::new(String::new(), Vec::new(), Span(60)).unwrap();
        journal.wait();
        journal.deadline = u64::MAX;
        assert_eq!(journal.left().unwrap(), 60);
        journal.boot = "another".to_owned();
        assert_eq!(journal.left().unwrap(), 0);
        journal.boot = boot().unwrap();
        journal.deadline = 1;
        assert_eq!(journal.left().unwrap(), 0);
    }
}
