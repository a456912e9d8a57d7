//! `pam-totp import`: secrets that another program or an app has already, and those of homes.

mod homes;
pub(crate) mod lines;

use crate::choices::WINDOW;
use crate::host::{self, Access, Whose, by_fact, by_store};
use anyhow::{Context, Result, bail, ensure};
use lines::{Imported, Moving};
use pam_totp::fact::Fact;
use pam_totp::policy::{self, Origin, Policy, StoreKind};
use pam_totp::record::{Device, Hotp, Kind, RateLimit, Record, Totp, google};
use pam_totp::secret::Secret;
use pam_totp::system::clock;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a record gets that brings no limit along.
const RATE_LIMIT: RateLimit = RateLimit { tries: 3, seconds: 30, charged: Vec::new() };

/// What an imported device is called in the root-only store.
const DEVICE: &str = "imported";

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("from").required(true).args(["file", "to"]).multiple(true)))]
pub(crate) struct Arguments {
    /// A users file of pam_oath, or otpauth URIs, one a line (`-`: standard input)
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The store that logins look into, as the policy says. Without FILE: take over what is in the home of --user
    #[arg(long, value_name = "STORE")]
    to: Option<To>,
    /// Without FILE: of everybody on this host who has such a file. Nobody's record is replaced; whose file has another secret
    /// than the record is named
    #[arg(long, requires = "to", conflicts_with_all = ["file", "user", "force"])]
    all_homes: bool,
    #[command(flatten)]
    whose: Whose,
    /// Replace what is there
    #[arg(short, long)]
    force: bool,
    /// Delete the file in the home once it is taken over (default: ask)
    #[arg(long, conflicts_with_all = ["keep", "file"])]
    delete: bool,
    /// Keep it; it is not looked at any more
    #[arg(long, conflicts_with = "file")]
    keep: bool,
}

/// Where to.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// Files in homes: from a FILE alone
    Home,
    /// The root-only store
    System,
    /// The store of a fleet
    Fleet,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.whose.key.is_none(), "what is imported is an account's, and not that of the holder of a key");
    let policy = host::policy(arguments.whose.conf.as_ref())?;
    ensure!(
        arguments.to != Some(To::Home) || arguments.file.is_some(),
        "into a home secrets come from a FILE: pam-totp import FILE"
    );
    let is_other = match (arguments.to, policy.store.value) {
        (None, _)
        | (Some(To::Home), StoreKind::Home)
        | (Some(To::System), StoreKind::System)
        | (Some(To::Fleet), StoreKind::Fleet) => None,
        (Some(To::Home), _) => Some("home"),
        (Some(To::System), _) => Some("system"),
        (Some(To::Fleet), _) => Some("fleet"),
    };
    if let Some(store) = is_other {
        // A code that two stores know would work twice.
        let path = arguments.whose.conf.as_deref().unwrap_or(Path::new(policy::PATH)).display();
        let place = match policy.store.origin {
            Origin::Line(line) => format!("{path}:{line}"),
            Origin::Default | Origin::Argument => format!("{path} names no other"),
        };
        let there = match policy.store.value {
            StoreKind::Home => "home",
            StoreKind::System => "system",
            StoreKind::Fleet => "fleet",
        };
        let way_out = if arguments.file.is_some() { "leave --to out, or " } else { "" };
        bail!(
            "logins do not look there, but into store = \"{there}\" ({place}): {way_out}write store = \"{store}\" into \
             [defaults] of the policy first"
        );
    }
    match &arguments.file {
        Some(file) => run_file(arguments, file, &policy),
        None if arguments.all_homes => homes::run_all(arguments, &policy),
        None => homes::run_one(arguments),
    }
}

/// Takes over every line, says what became of each, and fails in the end if one of them could not be taken.
fn run_file(arguments: &Arguments, file: &Path, policy: &Policy) -> Result<()> {
    if policy.store.value.is_roots() {
        host::ensure_root("change the root-only store")?;
    }
    let access = Access::new(policy, arguments.whose.ring.as_deref())?;
    let text = read(file)?;
    let user = arguments.whose.user.as_deref();
    let lines =
        || (1..).zip(text.expose().lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let is_single = lines().count() == 1;
    let (mut taken, mut failed) = (Vec::new(), 0_u32);
    for (number, line) in lines() {
        let place = || format!("{}:{number}", file.display());
        let imported = match lines::parse(line, user.filter(|_| is_single)) {
            Ok(imported) => imported,
            Err(error) => {
                eprintln!("{}: {error:#}", place());
                failed = failed.saturating_add(1);
                continue;
            }
        };
        if user.is_some_and(|user| user != imported.user) {
            continue;
        }
        // What this file has just brought is not in its own way.
        let is_first = taken.iter().all(|object: &serde_json::Value| object["user"] != imported.user.as_str());
        match store(&imported, policy, &access, arguments.force && is_first) {
            Ok(path) => {
                let object = serde_json::json!({ "user": imported.user, "path": path.to_string_lossy(), "what": imported.what() });
                taken.push(object);
                if arguments.whose.json {
                    continue;
                }
                say!("{}: {}: {} in {}", place(), imported.user.escape_debug(), imported.what(), path.display());
                for remark in &imported.remarks {
                    say!("{}: {}: {remark}", place(), imported.user.escape_debug());
                }
            }
            Err(error) => {
                eprintln!("{}: {}: {error:#}", place(), imported.user.escape_debug());
                failed = failed.saturating_add(1);
            }
        }
    }
    if arguments.whose.json {
        say!("{}", serde_json::json!({ "taken": taken, "failed": failed }));
    } else {
        say!("{} taken over, {failed} not.", taken.len());
    }
    ensure!(failed == 0, "{failed} could not be taken over");
    ensure!(!taken.is_empty(), "there was nothing to take over");
    Ok(())
}

fn read(file: &Path) -> Result<Secret<String>> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).context("standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    }
    Ok(Secret::new(text))
}

/// The last step that could have been accepted by now.
fn newest(totp: &Totp, policy: &Policy) -> Result<u64> {
    let window = totp.window.unwrap_or(policy.window.value);
    let ahead = policy.widest_window().map_or(window, |widest| window.within(widest)).ahead;
    let step = clock::now().checked_div(totp.period).context("a time step of no time")?;
    Ok(step.saturating_add_signed(totp.skew).saturating_add(ahead))
}

fn ensure_bits(secret: &[u8], policy: &Policy) -> Result<()> {
    let (bits, least) = ((secret.len() as u64).saturating_mul(8), policy.min_secret_bits.value);
    ensure!(bits >= least, "the secret has {bits} bits, and min_secret_bits asks for {least}");
    Ok(())
}

fn store(imported: &Imported, policy: &Policy, access: &Access, replace: bool) -> Result<PathBuf> {
    let person = host::person(Some(&imported.user))?;
    ensure_bits(imported.secret.expose(), policy)?;
    let store = access.store(policy);
    let path = store.path(&person).map_err(by_fact)?;
    let is_system = policy.store.value.is_roots();
    let there = store.load(&person).ok();
    // What was used here since would work again.
    let is_there = there.as_ref().is_some_and(|record| record.holds(&imported.secret));
    ensure!(!is_there, "{} holds this secret already", path.display());
    let device = imported.device(if is_system { DEVICE } else { "" }, policy)?;
    match there {
        // One device more.
        Some(_) if is_system && !replace => store.change(&person, &mut |record| {
            if record.holds(&imported.secret) {
                return Err(Fact::new("already-enrolled").or("somebody else was faster"));
            }
            let mut device = device.clone();
            device.name = free_name(record);
            record.devices.push(device);
            Ok(())
        }),
        _ => {
            let mut record = Record::of(vec![device]);
            record.rate_limit = Ok((!is_system).then_some(RATE_LIMIT));
            store.enrol(&person, &record, replace)
        }
    }
    .map_err(by_store)?;
    Ok(path)
}

/// `imported`, `imported 2` …
fn free_name(record: &Record) -> String {
    let names = (1_u64..).map(|n| if n == 1 { DEVICE.to_owned() } else { format!("{DEVICE} {n}") });
    names.into_iter().find(|name| record.device(name).is_none()).unwrap_or_default()
}

impl Imported {
    /// What may have been used with the other program is used here.
    fn device(&self, name: &str, policy: &Policy) -> Result<Device> {
        let (algorithm, digits) = (self.algorithm, self.digits);
        let kind = match self.moving {
            Moving::Time { period } => {
                ensure!(google::STEP_SIZES.contains(&period), "a time step lasts 1 to 60 seconds here, not {period}");
                let (window, skew, drift) = (None, 0, Vec::new());
                let mut totp = Totp { algorithm, digits, period, window, skew, drift, used: Ok(None) };
                totp.used = Ok(Some(vec![newest(&totp, policy)?]));
                Kind::Totp(totp)
            }
            // The file's counters begin at 1.
            Moving::Counter { next } => {
                Kind::Hotp(Hotp { algorithm, digits, look_ahead: WINDOW, counter: next.max(1) })
            }
        };
        let secret = Ok(Arc::new(Secret::new(self.secret.expose().clone())));
        Ok(Device { name: name.to_owned(), secret, kind: Ok(kind), added: Some(clock::now()), last_used: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_imported_device_has_a_name_that_is_free() {
        let mut record = Record::of(Vec::new());
        for expected in ["imported", "imported 2", "imported 3"] {
            let name = free_name(&record);
            assert_eq!(name, expected);
            let kind = Ok(Kind::None);
            let secret = Ok(Arc::new(Secret::new(vec![1])));
            record.devices.push(Device { name, secret, kind, added: None, last_used: None });
        }
        record.devices.remove(1);
        assert_eq!(free_name(&record), "imported 2");
    }
}
