//! `pam-totp fleet`: what there is of the fleet as a whole.

use crate::host::{self, Access, by_store, ensure_root};
use crate::people::shown;
use crate::status::count;
use anyhow::{Context, Result, bail, ensure};
use clap::ArgGroup;
use pam_totp::fact::Fact;
use pam_totp::identity::Named;
use pam_totp::policy::{Policy, StoreKind};
use pam_totp::store::Roster;
use pam_totp::store::fleet::{Accepted, FleetStore, Host, Revoked, Rolled, Sealed};
use pam_totp::system::clock;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make the fleet, on the first of its hosts; on any other, say whether it is there
    Init(Place),
    /// Show the hosts, and which keys each has
    List(Place),
    /// Take a host out: everything is sealed anew with a key that it does not have, and people enrol anew, as it could read their secrets
    Revoke(Revoke),
    /// Take documents for good that are older than what this host has seen, or gone: after a restore. Until then they are refused
    AcceptRollback(AcceptRollback),
}

#[derive(clap::Args)]
struct Revoke {
    /// What the host is called, see `list`
    host: String,
    /// Those people alone who were let in there
    #[arg(long)]
    seen_there: bool,
    /// Although there are hosts that do not have the new key yet, and deny everybody until they do, or this one has not said
    /// which keys it has
    #[arg(long)]
    yes: bool,
    /// Although no host of that name has ever said that it is there: it may have deleted that
    #[arg(long)]
    unlisted: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
#[command(group(ArgGroup::new("whose").required(true).args(["user", "all"])))]
struct AcceptRollback {
    /// This person's
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Of an account that several people share: that of whoever holds this key
    #[arg(long, value_name = "KEY", requires = "user")]
    key: Option<String>,
    /// Where it cannot be opened at all, by any key that is here: give it up. That person enrols anew
    #[arg(long, requires = "user")]
    give_up: bool,
    /// All
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: Place,
}

/// Where policy and keys are.
#[derive(clap::Args)]
struct Place {
    /// The policy file (default: /etc/security/pam_totp.toml, if it is there)
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// The keys of the fleet (default: /etc/security/pam_totp.keys)
    #[arg(long, value_name = "FILE")]
    ring: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What a command works on.
struct Open {
    policy: Policy,
    access: Access,
}

impl Open {
    fn new(place: &Place) -> Result<Self> {
        ensure_root("look after the fleet")?;
        let policy = host::policy(place.conf.as_ref())?;
        ensure!(
            policy.store.value == StoreKind::Fleet,
            "this host is in no fleet: the policy has another store than \"fleet\""
        );
        let access = Access::new(&policy, place.ring.as_deref())?;
        Ok(Self { policy, access })
    }

    fn fleet(&self) -> Result<FleetStore<'_>> {
        self.access.fleet(&self.policy)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Init(place) => init(&Open::new(place)?, place.json),
        Command::List(place) => list(&Open::new(place)?, place.json),
        Command::Revoke(arguments) => revoke(&Open::new(&arguments.place)?, arguments),
        Command::AcceptRollback(arguments) => accept_rollback(&Open::new(&arguments.place)?, arguments),
    }
}

fn init(open: &Open, json: bool) -> Result<()> {
    let fleet = open.fleet()?;
    let was_there = fleet.init().map_err(by_store)?;
    fleet.report(env!("CARGO_PKG_VERSION")).map_err(by_store)?;
    if json {
        say!("{}", serde_json::json!({ "was_there": was_there }));
    } else if was_there {
        say!("The fleet is there, and this host is one of it.");
    } else {
        say!("The fleet is made, and this host is the first of it.");
    }
    Ok(())
}

fn list(open: &Open, json: bool) -> Result<()> {
    let hosts = open.fleet()?.hosts().map_err(by_store)?;
    if json {
        say!("{}", serde_json::Value::from_iter(hosts.iter().map(object)));
        return Ok(());
    }
    for host in &hosts {
        if host.is_unread() {
            say!("{}  what it says of itself cannot be read with the keys of this host", host.name);
            continue;
        }
        let keys: Vec<_> = host
            .keys
            .iter()
            .map(|(id, is_active)| format!("{}{}", id.escape_debug(), if *is_active { " (active)" } else { "" }))
            .collect();
        let state = match host.revoked {
            Some(when) => format!("revoked {}", clock::utc(when)),
            None => format!("keys {}, last heard of {}", keys.join(" "), clock::utc(host.at)),
        };
        say!("{}  pam_totp {}  {state}", host.name, host.version.escape_debug());
    }
    Ok(())
}

fn object(host: &Host) -> serde_json::Value {
    let key = |(id, is_active): &(String, bool)| serde_json::json!({ "key": id, "active": is_active });
    serde_json::json!({
        "host": host.name,
        "version": host.version,
        "keys": host.keys.iter().map(key).collect::<Vec<_>>(),
        "at": host.at,
        "revoked": host.revoked,
        "unread": host.is_unread(),
    })
}

fn revoke(open: &Open, arguments: &Revoke) -> Result<()> {
    let Revoke { host: name, seen_there, yes, unlisted, place: Place { json, .. } } = arguments;
    let (seen_there, yes) = (*seen_there, *yes);
    let fleet = open.fleet()?;
    // This one may have a new key that it has not spoken of yet.
    fleet.report(env!("CARGO_PKG_VERSION")).map_err(by_store)?;
    let hosts = fleet.hosts().map_err(by_store)?;
    ensure_known(&hosts, name, *unlisted)?;
    let active =
        open.access.ring.as_ref().and_then(pam_totp::store::KeyRing::active).context("no key is active")?.to_string();
    let has = |host: &Host, wanted: &str| host.keys.iter().any(|(id, _)| id == wanted);
    let others = || hosts.iter().filter(|host| host.name != *name && host.revoked.is_none() && !host.is_unread());
    let unread: Vec<_> = hosts.iter().filter(|host| host.name != *name && host.is_unread()).collect();
    ensure!(
        yes || unread.is_empty(),
        "what is there of {} cannot be read with the keys of this host: it was spoiled, or written by somebody who has none of them. \
         If there is no such host: pam-totp fleet revoke it first, with --yes. If there is one, a login there writes it anew. With \
         --yes it is passed over",
        names(unread.iter().copied())
    );
    if hosts.iter().any(|host| host.name == *name && has(host, &active)) {
        bail!(
            "{name} has the key {active} that everything is sealed with. Take it out of the cluster first (its user there, its \
             certificate); then make a key that it does not have: pam-totp key new, copy /etc/security/pam_totp.keys to {}, \
             and there and here: pam-totp key activate ID. Then again",
            names(others())
        );
    }
    // Whoever is there may have had it unsay that.
    ensure!(
        yes || hosts.iter().all(|host| host.name != *name || !host.keys.is_empty()),
        "{name} does not say which keys it has: make one that it cannot have, and activate it everywhere else. With --yes {active} \
         is taken for such a key"
    );
    let without: Vec<_> = others().filter(|host| !has(host, &active)).collect();
    ensure!(
        yes || without.is_empty(),
        "{} not said yet that they have the key {active}, and would deny everybody: copy /etc/security/pam_totp.keys there; a host \
         says what it has at a login. With --yes it is done all the same",
        if let [one] = without.as_slice() {
            format!("{} has", one.name)
        } else {
            format!("{} have", names(without.into_iter()))
        },
    );
    // What they write from now on would be sealed with a key that the revoked one has.
    let behind: Vec<_> = others().filter(|host| host.keys.iter().any(|(id, seals)| *seals && *id != active)).collect();
    ensure!(
        yes || behind.is_empty(),
        "by what they last said, {} still seal with another key than {active}, which {name} may have: pam-totp key activate {active} \
         there, and a login. With --yes it is done all the same",
        names(behind.iter().copied())
    );
    // First: whatever cannot be read of the rest.
    fleet.strike_off(name).map_err(by_store)?;
    let Sealed { resealed, mut failed, .. } = fleet.reseal_all(false).map_err(by_store)?;
    let Revoked { people, failed: unread } = fleet.revoke_records(name, seen_there).map_err(by_store)?;
    failed.extend(unread);
    let left = if seen_there { fleet.people().map_err(by_store)?.len() } else { 0 };
    if *json {
        say!(
            "{}",
            serde_json::json!({
                "host": name,
                "resealed": resealed,
                "to_enrol": people.iter().map(shown).collect::<Vec<_>>(),
                "left": left,
            })
        );
    } else {
        say!("{name}: revoked. {} sealed anew with {active}.", count(resealed, "document"));
        say!("{} must enrol anew: pam-totp invite NAME makes a ticket.", people_count(people.len()));
        people.iter().for_each(|named| say!("  {}", shown(named)));
        if left > 0 {
            say!(
                "{} others keep their devices. {name} could have read their secrets too: without --seen-there they enrol anew.",
                left
            );
        }
        say!("When all hosts have the new key: pam-totp key drop the old one everywhere.");
    }
    failed.iter().for_each(report);
    ensure!(failed.is_empty(), "{} could not be read or sealed anew", count(failed.len(), "document"));
    Ok(())
}

/// One that has deleted what it said of itself can be revoked all the same.
fn ensure_known(hosts: &[Host], name: &str, unlisted: bool) -> Result<()> {
    ensure!(
        unlisted || hosts.iter().any(|host| host.name == name),
        "there is no host {} in the fleet, but {}; with --unlisted it is revoked all the same",
        name.escape_debug(),
        names(hosts.iter())
    );
    Ok(())
}

/// Who can write to the cluster chooses its keys.
fn report((key, fact): &(String, Fact)) {
    eprintln!("pam-totp: {}: {fact}", key.escape_debug());
}

fn names<'a>(hosts: impl Iterator<Item = &'a Host>) -> String {
    let names: Vec<_> = hosts.map(|host| host.name.as_str()).collect();
    if names.is_empty() { "no other host".to_owned() } else { names.join(", ") }
}

fn people_count(number: usize) -> String {
    if number == 1 { "1 person".to_owned() } else { format!("{number} people") }
}

fn accept_rollback(open: &Open, arguments: &AcceptRollback) -> Result<()> {
    let named =
        arguments.user.as_ref().map(|user| Named { name: user.clone().into_bytes(), key: arguments.key.clone() });
    let Accepted { rolled, failed } =
        open.fleet()?.accept_rollback(named.as_ref(), arguments.give_up).map_err(by_store)?;
    let end = || {
        failed.iter().for_each(report);
        ensure!(failed.is_empty(), "{} could not be opened: --user NAME --give-up", count(failed.len(), "document"));
        Ok(())
    };
    if arguments.place.json {
        let object = |rolled: &Rolled| {
            serde_json::json!({
                "name": rolled.name,
                "behind": rolled.behind,
                "was_gone": rolled.was_gone,
                "weakened": rolled.is_weakened,
            })
        };
        say!("{}", serde_json::json!({ "accepted": rolled.iter().map(object).collect::<Vec<_>>() }));
        return end();
    }
    for Rolled { name, behind, was_gone, is_weakened } in &rolled {
        let what = match (was_gone, behind) {
            (true, _) => "was gone, and has no device now: pam-totp invite or pam-totp enrol".to_owned(),
            (false, 0) => "is taken as it is".to_owned(),
            (false, writes) => {
                format!("is taken as it is, {} behind", count(usize::try_from(*writes).unwrap_or(usize::MAX), "write"))
            }
        };
        let weak = if *is_weakened {
            "; codes by counter and recovery codes that were used since may be good again"
        } else {
            ""
        };
        say!("{}: {what}{weak}", name.escape_debug());
    }
    if rolled.is_empty() {
        say!("There is nothing else that this host would refuse.");
    }
    end()
}
