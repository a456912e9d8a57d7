//! `pam-totp throttle`.

use crate::host::{self, Access, by_fact, ensure_root};
use anyhow::{Result, ensure};
use clap::ArgGroup;
use pam_totp::fact::Escaped;
use pam_totp::identity::Person;
use pam_totp::ledger::{Kind, Listed, MAX_CONSECUTIVE, Who};
use pam_totp::policy::Policy;
use pam_totp::policy::throttle::{Throttle, Trigger};
use pam_totp::policy::values::Span;
use pam_totp::source::Source;
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show whose codes failed, how often, and who is blocked
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
        /// The policy file (default: /etc/security/pam_totp.toml, if it is there)
        #[arg(long, value_name = "FILE")]
        conf: Option<PathBuf>,
    },
    /// Forget failures
    Unlock(Unlock),
}

#[derive(clap::Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["user", "host", "clock"])))]
struct Unlock {
    /// All failures of this person, those that disabled the device included
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Of an account that several people share: those of whoever holds this key
    #[arg(long, value_name = "KEY", requires = "user")]
    key: Option<String>,
    /// All failures from this source, named as `list` names it: an address, a host or uid:N
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The latest time that the clock ever showed: after the clock was ahead, what ends at a date is over without this
    #[arg(long)]
    clock: bool,
    /// The policy file (default: /etc/security/pam_totp.toml, if it is there)
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::List { json, conf } => list(&host::policy(conf.as_ref())?, *json),
        Command::Unlock(unlock) => self::unlock(&host::policy(unlock.conf.as_ref())?, unlock),
    }
}

/// All rows of the ledger with failures in them.
pub(crate) fn rows(policy: &Policy) -> Result<Vec<Listed>> {
    let access = Access::new(policy, None)?;
    access.ledger(policy)?.list(policy.throttle.as_ref()).map_err(by_fact)
}

fn list(policy: &Policy, json: bool) -> Result<()> {
    ensure_root("read the ledger")?;
    let (rows, out) = (rows(policy)?, &mut io::stdout());
    if json {
        let rows: Vec<_> = rows.iter().map(|row| object(policy, row)).collect();
        return writeln!(out, "{}", serde_json::Value::from(rows)).map_err(Into::into);
    }
    if rows.is_empty() {
        return writeln!(out, "No failures.").map_err(Into::into);
    }
    writeln!(out, "{:32}  {:9}  {:>8}  {:>10}  state", "name", "counted", "failures", "latest")?;
    for row in &rows {
        let latest = row.ages.first().map(|age| format!("{} ago", Span(*age))).unwrap_or_default();
        let state = state(blocked(policy, row));
        writeln!(out, "{:32}  {:9}  {:>8}  {latest:>10}  {state}", name(row), row.kind.name(), row.failures)?;
    }
    Ok(())
}

/// In words how long somebody is blocked, as [`blocked`] has it.
pub(crate) fn state(blocked: Option<Option<u64>>) -> String {
    match blocked {
        None => String::new(),
        Some(None) => "disabled".to_owned(),
        Some(Some(seconds)) => format!("blocked for {}", Span(seconds)),
    }
}

/// The name, with nothing in it that a terminal would act on.
fn name(row: &Listed) -> String {
    match row.kind {
        Kind::Shared | Kind::Source => String::from_utf8_lossy(&row.name).into_owned(),
        Kind::Known | Kind::Strangers | Kind::InARow => Escaped(&row.name).to_string(),
    }
}

fn object(policy: &Policy, row: &Listed) -> serde_json::Value {
    serde_json::json!({
        "name": name(row),
        "counted": row.kind.name(),
        "failures": row.failures,
        "latest_seconds_ago": row.ages.first(),
        "blocked": blocked(policy, row).is_some(),
        "blocked_seconds": blocked(policy, row).flatten(),
    })
}

/// For how many seconds a row blocks whom it is about, by the rules for all services; `Some(None)`: until it is unlocked.
pub(crate) fn blocked(policy: &Policy, row: &Listed) -> Option<Option<u64>> {
    let throttle = policy.throttle.as_ref()?;
    match row.kind {
        Kind::InARow => (row.failures >= MAX_CONSECUTIVE).then_some(None),
        _ => reached(throttle, row, "", None).map(|(_, left)| Some(left)),
    }
}

/// The rule of a service that a row has reached, or that of the person's own file, and for how many seconds it does yet; the
/// longest of several.
pub(crate) fn reached(
    throttle: &Throttle,
    row: &Listed,
    service: &str,
    own_limit: Option<Trigger>,
) -> Option<(Trigger, u64)> {
    let rule = match row.kind {
        Kind::InARow => return None,
        Kind::Source => &throttle.host,
        Kind::Known | Kind::Strangers | Kind::Shared => &throttle.user,
    };
    let left = |trigger: Trigger| {
        // Until the oldest of so many failures is old enough.
        let nth = usize::try_from(trigger.failures).ok()?.checked_sub(1)?;
        let left = row.ages.get(nth).and_then(|age| trigger.period.checked_sub(*age)).filter(|left| *left > 0)?;
        Some((trigger, left))
    };
    let who: &[u8] = if row.kind == Kind::Source { b"" } else { &row.name };
    if row.kind != Kind::Source && throttle.spares_user(who, service.as_bytes()) {
        // What was counted before they were listed blocks nobody.
        return None;
    }
    rule.triggers(who, service.as_bytes()).into_iter().chain(own_limit).filter_map(left).max_by_key(|(_, left)| *left)
}

fn unlock(policy: &Policy, unlock: &Unlock) -> Result<()> {
    ensure_root("change the ledger")?;
    let access = Access::new(policy, None)?;
    let (ledger, throttle) = (access.ledger(policy)?, policy.throttle.as_ref());
    if unlock.clock {
        ledger.forget_latest_wall();
        say!("The latest time of the clock is forgotten.");
    }
    let mut not_there = Vec::new();
    if let Some(user) = &unlock.user {
        let unlocked = match (Person::in_database(user.as_bytes()), &unlock.key) {
            // Of an account that is shared, those too of keys that have no device.
            (Ok(person), None) => {
                let whole = ledger.unlock_person(Who::newcomers(&person), throttle);
                Ok(ledger.unlock_person(Who::of(&person), throttle).map_err(by_fact)? || whole.map_err(by_fact)?)
            }
            (Ok(account), Some(key)) => ledger.unlock_person(Who::of(&host::holder(&account, key)?), throttle),
            (Err(_), key) => ledger.unlock_name(user.as_bytes(), key.as_deref().unwrap_or_default(), throttle),
        };
        match unlocked.map_err(by_fact)? {
            true => say!("{user}: unlocked"),
            false => not_there.push(user.clone()),
        }
    }
    if let Some(host) = &unlock.host {
        let source = Source::named(host);
        match ledger.unlock_source(&source, throttle).map_err(by_fact)? {
            true => say!("{source}: unlocked"),
            false => not_there.push(source.to_string()),
        }
    }
    ensure!(not_there.is_empty(), "no failures of {}", not_there.join(" or "));
    Ok(())
}
