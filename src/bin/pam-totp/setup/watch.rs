//! Who brings the old files back while nobody looks: a process of its own, and for a reboot a unit of systemd.

use super::journal::{Finished, Held};
use super::live;
use crate::host::ensure_root;
use crate::root::Root;
use anyhow::{Context, Result};
use pam_totp::policy::values::Span;
use pam_totp::system::files::open_trusted_directory;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

const UNITS: &str = "/etc/systemd/system";
const UNIT: &str = "pam-totp-rollback.service";
/// What a start of the machine comes to.
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";
/// It is there while systemd runs (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// How long until the next look, at most; at the end of the time it is more often.
const LOOK: Duration = Duration::from_secs(1);
const LAST_LOOK: Duration = Duration::from_millis(100);
/// Until something is tried again that could not be done.
const PAUSE: Duration = Duration::from_secs(5);

/// What the unit says, for a program at this path.
pub(super) fn unit(program: &str) -> String {
    format!(
        "# Written by `pam-totp setup`, and removed when what it did is confirmed or rolled back.\n\
         [Unit]\n\
         Description=Roll back an unconfirmed pam-totp setup\n\
         RequiresMountsFor=/var/lib/pam_totp\n\
         \n\
         [Service]\n\
         Type=simple\n\
         ExecStart={program} setup watch\n\
         Restart=on-failure\n\
         RestartSec=5\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// Starts the watcher. Whether it is there after a reboot too.
pub(super) fn begin(root: &Root) -> Result<bool> {
    let program = env::current_exe().context("this program does not know where it is")?;
    let has_unit = root.is_directory(Path::new(UNITS)) && is_roots(&program) && write_unit(&program).is_ok();
    if has_unit && is_booted() {
        // Anew: one of an earlier setup may be just about to end.
        let _ = systemctl(&["daemon-reload"]) && systemctl(&["restart", UNIT]);
    }
    // In any case: in a chroot systemctl says that it did what it did not. Two of them do no harm.
    start(&program)?;
    Ok(has_unit)
}

/// Takes the unit away. A watcher ends by itself when there is nothing to watch.
pub(super) fn end() {
    let link = Path::new(WANTS).join(UNIT);
    let is_there = [link, Path::new(UNITS).join(UNIT)].map(|path| fs::remove_file(path).is_ok());
    if is_there.contains(&true) && is_booted() {
        systemctl(&["daemon-reload"]);
    }
}

/// `pam-totp setup watch`.
pub(super) fn run() -> Result<()> {
    ensure_root("watch a setup")?;
    // Out of the session of whoever called: it survives the end of their terminal. It may lead one already.
    let _ = rustix::process::setsid();
    let _ = env::set_current_dir("/");
    say!("watching");
    let root = live()?;
    loop {
        let pause = match look(&root) {
            Ok(Look::Over) => return Ok(()),
            Ok(Look::Again(pause)) => pause,
            // Nobody else is left to try again.
            Err(_) => PAUSE,
        };
        thread::sleep(pause);
    }
}

enum Look {
    Over,
    Again(Duration),
}

fn look(root: &Root) -> Result<Look> {
    // Somebody is at work, and may still be killed.
    let Some(held) = Held::try_take()? else { return Ok(Look::Again(LAST_LOOK)) };
    Ok(match held.finish(root)? {
        Finished::Waiting { left: Span(3..), .. } => Look::Again(LOOK),
        Finished::Waiting { .. } => Look::Again(LAST_LOOK),
        Finished::NotYet(_) => Look::Again(PAUSE),
        Finished::Nothing | Finished::AtWork | Finished::RolledBack(_) => Look::Over,
    })
}

fn is_booted() -> bool {
    Path::new(BOOTED).is_dir()
}

/// Whether only root can change the program: systemd is to run it as root, long after this.
fn is_roots(program: &Path) -> bool {
    let Some(parent) = program.parent() else { return false };
    let is_closed = open_trusted_directory(parent).is_ok_and(|directory| directory.is_some());
    is_closed && fs::symlink_metadata(program).is_ok_and(|file| file.uid() == 0 && file.mode() & 0o022 == 0)
}

fn write_unit(program: &Path) -> std::io::Result<()> {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._+-".contains(char);
    let name = program.to_str().filter(|name| name.chars().all(is_plain)).ok_or(ErrorKind::InvalidInput)?;
    let path = Path::new(UNITS).join(UNIT);
    let temporary = PathBuf::from(format!("{UNITS}/.{UNIT}.new"));
    let _ = fs::remove_file(&temporary);
    // Root runs what is written there: nobody else writes to it, whatever the umask.
    let mut file = fs::File::options().write(true).create_new(true).mode(0o644).open(&temporary)?;
    file.write_all(unit(name).as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match fs::DirBuilder::new().mode(0o755).create(WANTS) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match symlink(format!("../{UNIT}"), Path::new(WANTS).join(UNIT)) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    [UNITS, WANTS].iter().try_for_each(|directory| fs::File::open(directory)?.sync_all())
}

fn systemctl(arguments: &[&str]) -> bool {
    let mut command = Command::new("/usr/bin/systemctl");
    command.arg("--quiet").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// As a process of its own, in a session of its own by the time that this returns.
fn start(program: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["setup", "watch"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watcher = command.spawn().context("the watcher does not start")?;
    let mut line = String::new();
    let said = watcher.stdout.take().map(BufReader::new).map(|mut pipe| pipe.read_line(&mut line));
    match said {
        Some(Ok(length)) if length > 0 => Ok(()),
        _ => anyhow::bail!("the watcher does not start: nothing was changed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_takes_the_unit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(UNIT);
        let text = unit("/bin/true");
        fs::write(&path, &text).unwrap();
        assert!(text.contains("\nExecStart=/bin/true setup watch\n") && text.contains("\nRestart=on-failure\n"));
        let Ok(said) = Command::new("systemd-analyze").arg("verify").arg(&path).output() else { return };
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.contains(UNIT), "{said}");
    }
}
