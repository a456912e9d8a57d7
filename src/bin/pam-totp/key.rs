//! `pam-totp key`: the keys that records of the root-only store are sealed with.

use crate::host::{self, Access, by_fact, by_store, ensure_root};
use crate::people::shown;
use crate::progress::Progress;
use crate::status::count;
use anyhow::{Result, anyhow, bail, ensure};
use pam_totp::fact::Fact;
use pam_totp::identity::Named;
use pam_totp::options::Options;
use pam_totp::policy::{Policy, StoreKind, Via};
use pam_totp::store::fleet::{FleetStore, Sealed};
use pam_totp::store::seal::{self, KeyId, KeyRing};
use pam_totp::store::{self, Means, Roster};
use pam_totp::system::lock::HostLock;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Add a key to the ring, and make the ring if there is none. It seals nothing yet
    New(Place),
    /// Have a key seal every record that is written from now on, and no other key
    Activate {
        /// Which, as `list` names it
        #[arg(value_parser = id)]
        id: KeyId,
        /// Although whatever does not have the keys denies everybody whose record is sealed
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Show the keys, and how many records each has sealed
    List(Place),
    /// Seal every record with the active key. Can be killed and begun again
    Reseal(Place),
    /// Take a key that seals nothing any more out of the ring
    Drop {
        /// Which, as `list` names it
        #[arg(value_parser = id)]
        id: KeyId,
        /// Also where records are sealed with it: those people have to be enrolled anew
        #[arg(short, long)]
        force: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Make every record plain again, and have no key seal any more
    Unseal(Place),
}

/// Where keys and records are.
#[derive(clap::Args)]
struct Place {
    /// The keys (default: /etc/security/pam_totp.keys)
    #[arg(long, value_name = "FILE")]
    ring: Option<PathBuf>,
    /// The policy file (default: /etc/security/pam_totp.toml, if it is there)
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn id(text: &str) -> Result<KeyId, &'static str> {
    KeyId::parse(text).ok_or("a key is called by eight hexadecimal digits, see pam-totp key list")
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::New(place) => new(&Open::new(place)?),
        Command::Activate { id, yes, place } => activate(&mut Open::new(place)?.existing()?, *id, *yes),
        Command::List(place) => list(&Open::new(place)?.existing()?),
        Command::Reseal(place) => reseal(&Open::new(place)?.existing()?),
        Command::Drop { id, force, place } => drop_key(&mut Open::new(place)?.existing()?, *id, *force),
        Command::Unseal(place) => unseal(&mut Open::new(place)?.existing()?),
    }
}

/// What a command works on, and nobody else changes meanwhile.
struct Open<'a> {
    policy: Policy,
    /// Some service does without the agent.
    is_in_process: bool,
    path: &'a Path,
    json: bool,
    /// Without the ring, which is about to change.
    access: Access,
    _lock: HostLock,
}

impl<'a> Open<'a> {
    fn new(place: &'a Place) -> Result<Self> {
        ensure_root("use the keys of sealed records")?;
        let document = host::document(place.conf.as_ref())?;
        let policy = |service| Policy::new(service, &Options::default(), &document);
        let is_in_process = |service| policy(service).via.value == Via::Process;
        let is_in_process = document.services().chain([""]).any(is_in_process);
        let policy = policy("");
        let path = place.ring.as_deref().unwrap_or(Path::new(seal::PATH));
        let lock = host::alone("key-ring", "another pam-totp key is running on this host")?;
        let access = Access::without_ring(&policy)?;
        Ok(Self { policy, is_in_process, path, json: place.json, access, _lock: lock })
    }

    fn existing(self) -> Result<Keys<'a>> {
        let ring = KeyRing::read(self.path).map_err(|error| by_fact(error.fact()))?;
        Ok(Keys { open: self, ring })
    }

    fn write(&self, ring: &KeyRing) -> Result<()> {
        ring.write(self.path).map_err(|error| by_fact(error.fact()))
    }
}

/// The same, with the ring that is there.
struct Keys<'a> {
    open: Open<'a>,
    ring: KeyRing,
}

fn new(open: &Open<'_>) -> Result<()> {
    let ring = KeyRing::read_if_there(open.path).map_err(|error| by_fact(error.fact()))?;
    let mut ring = ring.unwrap_or_else(KeyRing::empty);
    let id = ring.add().map_err(|refused| by_fact(refused.fact()))?;
    open.write(&ring)?;
    let path = open.path.display();
    if open.json {
        say!("{}", serde_json::json!({ "key": id.to_string(), "state": state(false), "ring": open.path }));
        return Ok(());
    }
    say!("{id}: added to {path}. It seals nothing until pam-totp key activate {id}.");
    say!("Keep a copy of {path} away from this machine: whose record is sealed enrols anew if the keys are lost.");
    Ok(())
}

fn activate(keys: &mut Keys<'_>, id: KeyId, yes: bool) -> Result<()> {
    ensure_system(&keys.open.policy)?;
    keys.ring.activate(Some(id)).map_err(|refused| by_fact(refused.fact()))?;
    ensure_readable(&keys.open, yes)?;
    keys.open.write(&keys.ring)?;
    keys.report();
    if keys.open.json {
        say!("{}", serde_json::json!({ "key": id.to_string(), "state": state(true), "ring": keys.open.path }));
        return Ok(());
    }
    say!("{id}: seals every record that is written from now on; pam-totp key reseal seals those that are there.");
    Ok(())
}

fn ensure_system(policy: &Policy) -> Result<()> {
    ensure!(
        policy.store.value.is_roots(),
        "records are sealed where the policy has store = \"system\", and those of a fleet (store = \"fleet\")"
    );
    Ok(())
}

/// Fails where logins would find records that they cannot read.
fn ensure_readable(open: &Open, yes: bool) -> Result<()> {
    ensure!(
        yes || !open.is_in_process,
        "not all services have via = \"agent\" in the policy, and the module itself has no keys: from the next write of a \
         record on that person gets in through pam-totp-agent alone, and is denied everywhere else (sealed-record). With --yes it is done"
    );
    Ok(())
}

fn list(keys: &Keys<'_>) -> Result<()> {
    let counted = keys.counted()?;
    let sealed = |id: KeyId| counted.by_key.get(&Some(id.to_string())).copied().unwrap_or(0);
    let listed: Vec<_> =
        keys.ring.keys().map(|(id, is_active)| (id.to_string(), state(is_active), sealed(id))).collect();
    let is_listed = |id: &String| listed.iter().any(|(listed, ..)| listed == id);
    let unknown = counted.by_key.iter().filter_map(|(id, count)| Some((id.as_ref()?, count)));
    let unknown: Vec<_> = unknown.filter(|(id, _)| !is_listed(id)).collect();
    let plain = counted.by_key.get(&None).copied().unwrap_or(0);
    if keys.open.json {
        let object = |(id, state, records): &(String, &str, usize)| serde_json::json!({ "key": id, "state": state, "records": records });
        let missing = |(id, records): &(&String, &usize)| serde_json::json!({ "key": id, "records": records });
        say!(
            "{}",
            serde_json::json!({
                "ring": keys.open.path,
                "keys": listed.iter().map(object).collect::<Vec<_>>(),
                "not_in_the_ring": unknown.iter().map(missing).collect::<Vec<_>>(),
                "plain": plain,
                "failed": failed(&counted.failed),
            })
        );
    } else {
        listed.iter().for_each(|(id, state, records)| say!("{id}  {state:12}  {}", count(*records, "record")));
        unknown.iter().for_each(|(id, records)| say!("{id}  {:12}  {}", "not here", count(**records, "record")));
        say!("{} not sealed.", count(plain, "record"));
    }
    end(keys, &counted.failed)
}

fn reseal(keys: &Keys<'_>) -> Result<()> {
    ensure_system(&keys.open.policy)?;
    let Some(id) = keys.ring.active() else { bail!("no key is active: pam-totp key activate ID") };
    rewrite(keys, &format!("sealed with {id}"))
}

fn unseal(keys: &mut Keys<'_>) -> Result<()> {
    ensure_system(&keys.open.policy)?;
    ensure!(keys.open.policy.store.value == StoreKind::System, "what a fleet keeps is always sealed");
    // First: nobody seals anew what was made plain.
    keys.ring.activate(None).map_err(|refused| by_fact(refused.fact()))?;
    keys.open.write(&keys.ring)?;
    rewrite(keys, "made plain")
}

/// A fleet's documents are not people's alone.
fn rewrite(keys: &Keys<'_>, became: &str) -> Result<()> {
    if keys.open.policy.store.value == StoreKind::Fleet {
        let Sealed { by_key, resealed, failed: left } = keys.fleet()?.reseal_all(false).map_err(by_store)?;
        let all = by_key.iter().fold(left.len(), |sum, (_, count)| sum.saturating_add(*count));
        let already = all.saturating_sub(resealed).saturating_sub(left.len());
        return rewritten(keys, became, (resealed, already), &of_documents(left));
    }
    let (store, people) = (keys.store()?, keys.store()?.people().map_err(by_store)?);
    let progress = Progress::new(people.len(), keys.open.json);
    let (mut done, mut already, mut left) = (0_usize, 0_usize, Vec::new());
    for (number, named) in people.into_iter().enumerate() {
        progress.show(number, &shown(&named));
        match store.reseal(&named) {
            Ok(true) => done = done.saturating_add(1),
            Ok(false) => already = already.saturating_add(1),
            Err(error) => left.push((named, by_store(error).to_string())),
        }
    }
    progress.clear();
    rewritten(keys, became, (done, already), &left)
}

fn rewritten(keys: &Keys<'_>, became: &str, (done, already): (usize, usize), left: &[(Named, String)]) -> Result<()> {
    if keys.open.json {
        say!("{}", serde_json::json!({ "done": done, "already": already, "failed": failed(left) }));
    } else {
        say!("{} {became}, {already} already so, {} left as they are.", count(done, "record"), left.len());
    }
    end(keys, left)
}

fn drop_key(keys: &mut Keys<'_>, id: KeyId, force: bool) -> Result<()> {
    keys.ring.drop_key(id).map_err(|refused| by_fact(refused.fact()))?;
    let counted = keys.counted()?;
    let lost = counted.by_key.get(&Some(id.to_string())).copied().unwrap_or(0);
    if !force {
        let records = count(lost, "record");
        ensure!(lost == 0, "{records} sealed with {id}: pam-totp key reseal first, or --force to have them lost");
        end(keys, &counted.failed)?;
        keys.ensure_nobody_seals_with(id)?;
    }
    keys.open.write(&keys.ring)?;
    keys.report();
    if keys.open.json {
        say!("{}", serde_json::json!({ "key": id.to_string(), "dropped": true, "lost": lost }));
        return Ok(());
    }
    say!("{id}: dropped. Destroy the copies of it too.");
    if lost > 0 {
        say!("{} lost: enrol these people anew (pam-totp status --all).", count(lost, "record"));
    }
    Ok(())
}

const fn state(is_active: bool) -> &'static str {
    if is_active { "active" } else { "decrypt-only" }
}

/// How many records are sealed with which key (`None`: plain), and of whom it cannot be told.
#[derive(Default)]
struct Counted {
    by_key: BTreeMap<Option<String>, usize>,
    failed: Vec<(Named, String)>,
}

impl Keys<'_> {
    fn store(&self) -> Result<Box<dyn Roster + '_>> {
        let means = Means { ring: Some(&self.ring), ..self.open.access.means() };
        store::roster(&self.open.policy, means).map_err(by_store)
    }

    fn fleet(&self) -> Result<FleetStore<'_>> {
        let means = Means { ring: Some(&self.ring), ..self.open.access.means() };
        store::fleet_store(&self.open.policy, means, None).map_err(by_store)
    }

    /// Fails where another host of the fleet would go on sealing with a key that this one does not have any more.
    fn ensure_nobody_seals_with(&self, id: KeyId) -> Result<()> {
        if self.open.policy.store.value != StoreKind::Fleet || self.ring.active().is_none() {
            return Ok(());
        }
        let (id, hosts) = (id.to_string(), self.fleet()?.hosts().map_err(by_store)?);
        let seals = |host: &&pam_totp::store::fleet::Host| host.keys.iter().any(|(key, active)| *active && *key == id);
        match hosts.iter().filter(|host| host.revoked.is_none()).find(seals) {
            None => Ok(()),
            Some(host) => {
                bail!("{} seals with {id}, by what it last said: activate another key there first", host.name)
            }
        }
    }

    /// Says in the fleet what this host has now: others wait for it. Where that cannot be said, it is at the next login.
    fn report(&self) {
        if self.open.policy.store.value == StoreKind::Fleet && self.ring.active().is_some() {
            let _ = self.fleet().map(|fleet| fleet.report(env!("CARGO_PKG_VERSION")));
        }
    }

    fn counted(&self) -> Result<Counted> {
        let mut counted = Counted::default();
        match self.open.policy.store.value {
            StoreKind::System => {}
            StoreKind::Home => return Ok(counted),
            // Without a key that seals nothing was sealed from here.
            StoreKind::Fleet if self.ring.active().is_none() => return Ok(counted),
            StoreKind::Fleet => {
                let sealed = self.fleet()?.reseal_all(true).map_err(by_store)?;
                counted.by_key = sealed.by_key.into_iter().map(|(key, count)| (Some(key), count)).collect();
                counted.failed = of_documents(sealed.failed);
                return Ok(counted);
            }
        }
        let store = self.store()?;
        for named in store.people().map_err(by_store)? {
            match store.sealed_with(&named) {
                Ok(key) => {
                    let number = counted.by_key.entry(key).or_default();
                    *number = number.saturating_add(1);
                }
                Err(error) => counted.failed.push((named, by_store(error).to_string())),
            }
        }
        Ok(counted)
    }
}

/// What could not be done with a fleet's documents, by their keys.
fn of_documents(failed: Vec<(String, Fact)>) -> Vec<(Named, String)> {
    let named = |key: String| Named { name: key.into_bytes(), key: None };
    failed.into_iter().map(|(key, fact)| (named(key), fact.to_string())).collect()
}

/// Of whom something could not be done, and why not.
fn failed(people: &[(Named, String)]) -> Vec<serde_json::Value> {
    let object = |(named, reason): &(Named, String)| serde_json::json!({ "user": String::from_utf8_lossy(&named.name), "key": named.key, "reason": reason });
    people.iter().map(object).collect()
}

/// Names them, and fails if there are any.
fn end(keys: &Keys<'_>, left: &[(Named, String)]) -> Result<()> {
    if !keys.open.json {
        left.iter().for_each(|(named, reason)| eprintln!("pam-totp: {}: {reason}", shown(named)));
    }
    if left.is_empty() { Ok(()) } else { Err(anyhow!("{} could not be used", count(left.len(), "record"))) }
}
