//! `pam-totp setup`: the store, and the code in the stacks of sshd, sudo and su, with a way back.
//!
//! `pam` and `sshd` say what files should say, `plan` in which order they are written, `journal` and `watch` bring the old
//! ones back where nobody confirms the new ones.

mod files;
mod journal;
mod pam;
mod plan;
mod policy;
mod prepare;
mod reload;
mod sshd;
mod store;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use journal::{Finished, finish};
pub(crate) use store::promise;

use crate::doctor;
use crate::host::ensure_root;
use crate::root::Root;
use anyhow::{Context, Result, anyhow, bail, ensure};
use pam_totp::policy::values::Span;
use plan::Plan;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How long somebody has to try a login.
const CONFIRM_WITHIN: &str = "5m";
/// Less is for tests; more and nobody remembers that it ends.
const SHORTEST: Span = Span(1);
const LONGEST: Span = Span(86_400);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make `state_dir` ready for records that are root's alone, and say what its file system can promise
    Store(store::Arguments),
    /// Ask for a code at each ssh login, behind the key
    Sshd(Change),
    /// Ask for a code at sudo, before the password
    Sudo(Change),
    /// Ask for a code at su, before the password
    Su(Change),
    /// Keep what the last setup wrote
    Confirm,
    /// Bring back what was there before the last setup, which is not confirmed yet
    Rollback,
    /// Wait until the time to confirm is over, and bring back what was there
    #[command(hide = true)]
    Watch,
}

#[derive(clap::Args)]
struct Change {
    /// Show what would be written, and in which order; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Take out again what setup wrote; whatever else was changed stays
    #[arg(long)]
    remove: bool,
    /// Bring the old files back unless `pam-totp setup confirm` comes within this time: 90s, 5m, 1h
    #[arg(long, value_name = "TIME", default_value = CONFIRM_WITHIN, value_parser = time_to_confirm)]
    confirm_within: Span,
    /// Write to the files of another root, an image say; nothing is reloaded there, and nothing has to be confirmed
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    #[command(flatten)]
    wish: policy::Wish,
}

/// Whose stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Service {
    Sshd,
    Sudo,
    Su,
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sshd => "sshd",
            Self::Sudo => "sudo",
            Self::Su => "su",
        }
    }

    /// The services that have a file of their own and are the same to people.
    fn relatives(self) -> &'static [&'static str] {
        match self {
            Self::Sshd => &["sshd"],
            Self::Sudo => &["sudo", "sudo-i"],
            Self::Su => &["su", "su-l"],
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Store(arguments) => store::run(arguments),
        Command::Sshd(change) => change.run(Service::Sshd),
        Command::Sudo(change) => change.run(Service::Sudo),
        Command::Su(change) => change.run(Service::Su),
        Command::Confirm => confirm(),
        Command::Rollback => rollback(),
        Command::Watch => watch::run(),
    }
}

fn time_to_confirm(text: &str) -> Result<Span, String> {
    let span = Span::try_from(text.to_owned())?;
    if (SHORTEST..=LONGEST).contains(&span) { Ok(span) } else { Err(format!("must be at most {LONGEST}")) }
}

impl Change {
    fn run(&self, service: Service) -> Result<()> {
        ensure_root("set up a service")?;
        let root = Root::open(&self.root).map_err(|error| anyhow!("{} {error}", self.root.display()))?;
        // From here on nobody else changes anything.
        let held = if root.is_live() && !self.dry_run { Some(journal::Held::take()?) } else { None };
        if let Some(held) = &held {
            finish_the_last(&root, held)?;
        }
        let plan = prepare::plan(&root, service, &self.wish, self.remove)?;
        for warning in &plan.warnings {
            say!("{warning}");
        }
        if plan.is_empty() {
            say!("{}: nothing to do, all is as it should be.", service.name());
            return Ok(());
        }
        if self.dry_run {
            return show(&plan);
        }
        for path in plan.steps.iter().map(|step| step.path.as_path()) {
            files::ensure_writable(&root, path)?;
        }
        show(&plan)?;
        policy::put_in_place(&root, &plan)?;
        match held {
            Some(held) => self.with_a_way_back(&root, service, &plan, held),
            None => {
                plan::apply(&root, &plan.steps, None)?;
                say!("Written below {}.", self.root.display());
                Ok(())
            }
        }
    }

    fn with_a_way_back(&self, root: &Root, service: Service, plan: &Plan, held: journal::Held) -> Result<()> {
        if plan.steps.is_empty() {
            return Ok(());
        }
        let remove = if self.remove { " --remove" } else { "" };
        let command = format!("setup {}{remove}", service.name());
        let mut journal = journal::Journal::new(command, plan.steps.clone(), self.confirm_within)?;
        held.write(&journal)?;
        let is_kept_over_a_reboot = match begin_and_apply(root, plan, &held, &mut journal) {
            Ok(is_kept) => is_kept,
            Err(error) => return Err(error.context(held.roll_back(root, &journal).to_string())),
        };
        // Whoever waits for a terminal to take what is said, or is stopped, is not to be in the way of the watcher.
        drop(held);
        let within = self.confirm_within;
        say!("\nLog in from a second terminal now, and keep this one open. Then, here:\n");
        say!("    pam-totp setup confirm\n");
        say!("within {within} keeps it; otherwise everything is rolled back by itself.");
        if !is_kept_over_a_reboot {
            say!("After a reboot before that, the next `pam-totp doctor` or `pam-totp setup` rolls back.");
        }
        if !self.remove {
            let report = doctor::examine(root, &[service.name().to_owned()], None, None);
            if !report.findings.is_empty() {
                say!("\n`pam-totp doctor --service {}` says:\n\n{}", service.name(), report.in_words().trim_end());
            }
        }
        Ok(())
    }
}

/// What is about to be written. Nothing is where nobody can read that.
fn show(plan: &Plan) -> Result<()> {
    let mut out = io::stdout().lock();
    let shown = out.write_all(plan.in_words().as_bytes()).and_then(|()| out.flush());
    shown.context("what is about to be written cannot be shown, and nothing was changed")
}

/// Whether the watcher is there after a reboot too.
fn begin_and_apply(root: &Root, plan: &Plan, held: &journal::Held, journal: &mut journal::Journal) -> Result<bool> {
    let is_kept_over_a_reboot = watch::begin(root)?;
    plan::apply(root, &plan.steps, plan.grace)?;
    journal.wait();
    held.write(journal)?;
    Ok(is_kept_over_a_reboot)
}

/// Brings an end to what another run began, so far as it is over.
fn finish_the_last(root: &Root, held: &journal::Held) -> Result<()> {
    match held.finish(root)? {
        Finished::Nothing => Ok(()),
        Finished::RolledBack(what) => {
            say!("{what}");
            Ok(())
        }
        Finished::NotYet(what) => bail!(what),
        Finished::Waiting { command, left } => bail!(
            "`pam-totp {command}` waits for an answer for another {left}: `pam-totp setup confirm` keeps what it wrote, \
             `pam-totp setup rollback` brings back what was there"
        ),
        Finished::AtWork => bail!(journal::AT_WORK),
    }
}

fn confirm() -> Result<()> {
    ensure_root("confirm a setup")?;
    let root = live()?;
    let held = journal::Held::take()?;
    match held.finish(&root)? {
        Finished::Waiting { command, .. } => {
            held.forget()?;
            watch::end();
            say!("`pam-totp {command}` is confirmed: what it wrote stays.");
            Ok(())
        }
        Finished::RolledBack(what) | Finished::NotYet(what) => bail!("too late. {what}"),
        Finished::Nothing | Finished::AtWork => bail!("there is nothing to confirm"),
    }
}

fn rollback() -> Result<()> {
    ensure_root("roll a setup back")?;
    let root = live()?;
    let held = journal::Held::take()?;
    let Some(journal) = held.read()? else { bail!("there is nothing to roll back") };
    let rolled_back = held.roll_back(&root, &journal);
    ensure!(rolled_back.is_whole(), "{rolled_back}");
    say!("{rolled_back}");
    Ok(())
}

fn live() -> Result<Root> {
    Root::open(Path::new("/")).map_err(|error| anyhow!("/ {error}"))
}
