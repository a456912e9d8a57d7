//! This host: its policy, whose record is meant, and who may change it.

use anyhow::{Context, Result, anyhow, ensure};
use pam_totp::fact::Fact;
use pam_totp::fleet::conf;
use pam_totp::identity::{Person, Unidentified};
use pam_totp::ledger::{self, Kept};
use pam_totp::options::Options;
use pam_totp::policy::{Document, Policy, StoreKind};
use pam_totp::store::fleet::{Fleet, FleetStore};
use pam_totp::store::seal;
use pam_totp::store::{self, KeyRing, Means, Roster, Store, StoreError};
use pam_totp::system::clock;
use pam_totp::system::lock::{HostLock, NoLock, Patience, exclusive_on_host};
use pam_totp::system::passwd::{self, Account};
use std::env;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Whose record a command is about. Every command that has these flags has them from here.
#[derive(Clone, clap::Args)]
#[group(skip)]
pub(crate) struct Whose {
    /// Whose record (default: your own; only root changes somebody else's)
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Of an account that several people share: whoever holds this key (SHA256:..., or key-id:... of a certificate)
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// The policy file (default: /etc/security/pam_totp.toml, if it is there)
    #[arg(long, value_name = "FILE")]
    pub(crate) conf: Option<PathBuf>,
    /// The keys of sealed records (default: /etc/security/pam_totp.keys, if it is there)
    #[arg(long, value_name = "FILE")]
    pub(crate) ring: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Somebody, and what holds for them.
pub(crate) struct Subject {
    pub(crate) policy: Policy,
    pub(crate) person: Person,
    pub(crate) access: Access,
}

/// What a store of root's is opened with.
#[derive(Default)]
pub(crate) struct Access {
    pub(crate) ring: Option<KeyRing>,
    fleet: Option<Fleet>,
}

impl Access {
    /// For this policy: the keys, where there are sealed records and we may use them, and the way to the fleet, if it has one.
    pub(crate) fn new(policy: &Policy, ring: Option<&Path>) -> Result<Self> {
        if passwd::process_uids().1 != 0 {
            return Ok(Self::default());
        }
        Ok(Self { ring: self::ring(policy, ring)?, ..Self::without_ring(policy)? })
    }

    /// The same, for whoever has the keys themselves.
    pub(crate) fn without_ring(policy: &Policy) -> Result<Self> {
        let is_fleet = policy.store.value == StoreKind::Fleet;
        let fleet = is_fleet.then(|| Fleet::open(Path::new(conf::PATH)).map_err(by_fact)).transpose()?;
        Ok(Self { ring: None, fleet })
    }

    pub(crate) fn means(&self) -> Means<'_> {
        Means { ring: self.ring.as_ref(), fleet: self.fleet.as_ref(), is_waited_for: false }
    }

    /// The people of a store of root's.
    pub(crate) fn roster<'a>(&'a self, policy: &'a Policy) -> Result<Box<dyn Roster + 'a>> {
        store::roster(policy, self.means()).map_err(by_store)
    }

    pub(crate) fn store<'a>(&'a self, policy: &'a Policy) -> Rc<dyn Store + 'a> {
        store::open(policy, self.means()).store
    }

    /// What counts the guesses of logins here.
    pub(crate) fn ledger<'a>(&'a self, policy: &'a Policy) -> Result<Box<dyn Kept + 'a>> {
        if policy.store.value == StoreKind::Fleet {
            return Ok(Box::new(self.fleet(policy)?));
        }
        let opened = ledger::open(&policy.state_dir, clock::moment).map_err(|error| by_fact(error.fact()))?;
        Ok(Box::new(opened.ledger))
    }

    /// The fleet's store, for what there is of it alone.
    pub(crate) fn fleet<'a>(&'a self, policy: &'a Policy) -> Result<FleetStore<'a>> {
        store::fleet_store(policy, self.means(), None).map_err(by_store)
    }
}

impl Whose {
    /// Fails where the store is root's and we are not.
    pub(crate) fn subject(&self, what: &str) -> Result<Subject> {
        let policy = policy(self.conf.as_ref())?;
        if policy.store.value.is_roots() {
            ensure_root(what)?;
        }
        let account = person(self.user.as_deref())?;
        let person = match &self.key {
            None => account,
            Some(key) => {
                ensure!(policy.store.value.is_roots(), "--key is about the root-only store");
                holder(&account, key)?
            }
        };
        let access = Access::new(&policy, self.ring.as_deref())?;
        Ok(Subject { policy, person, access })
    }
}

impl Subject {
    /// Whoever runs this, and is not root.
    pub(crate) fn own(whose: &Whose) -> Result<Self> {
        Ok(Self {
            policy: policy(whose.conf.as_ref())?,
            person: person(whose.user.as_deref())?,
            access: Access::default(),
        })
    }

    pub(crate) fn store(&self) -> Rc<dyn Store + '_> {
        self.access.store(&self.policy)
    }

    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(self.person.name()).into_owned()
    }

    /// The name, and with it the key of somebody who shares it.
    pub(crate) fn title(&self) -> String {
        title(&self.person)
    }

    /// An object about this person: their name, their key if they share it, and the rest.
    pub(crate) fn object(&self, rest: serde_json::Value) -> serde_json::Value {
        let mut object = serde_json::json!({ "user": self.name() });
        if let (Some(object), serde_json::Value::Object(rest)) = (object.as_object_mut(), rest) {
            object.extend(self.person.key().map(|key| ("key".to_owned(), key.into())));
            object.extend(rest);
        }
        object
    }

    /// For what a file of the person's has no place for.
    pub(crate) fn ensure_system_store(&self, what: &str) -> Result<()> {
        ensure!(
            self.policy.store.value.is_roots(),
            "~/.google_authenticator {what}; with store = \"system\" in the policy there is more"
        );
        Ok(())
    }
}

/// What holds where no service has a word of its own.
pub(crate) fn policy(conf: Option<&PathBuf>) -> Result<Policy> {
    Ok(Policy::new("", &Options::default(), &document(conf)?))
}

/// The policy. While there is something wrong with it nobody can log in: better said now than then.
pub(crate) fn document(conf: Option<&PathBuf>) -> Result<Document> {
    Document::load(conf.map(|path| path.as_os_str().as_bytes())).map_err(by_fact)
}

/// The keys of sealed records, where there are such records and keys, and we may use them.
fn ring(policy: &Policy, path: Option<&Path>) -> Result<Option<KeyRing>> {
    if !policy.store.value.is_roots() {
        return Ok(None);
    }
    let ring = match path {
        Some(path) => KeyRing::read(path).map(Some),
        None => KeyRing::read_if_there(Path::new(seal::PATH)),
    };
    ring.map_err(|error| by_fact(error.fact()))
}

/// Keeps other programs on this host from what we are at, or says that one of them is at it.
pub(crate) fn alone(name: &str, busy: &'static str) -> Result<HostLock> {
    exclusive_on_host(name, &mut Patience::default()).map_err(|error| match error {
        NoLock::Busy => anyhow!("{busy}"),
        NoLock::Refused(error) | NoLock::Failed(error) => anyhow!("/run/pam_totp/{name} cannot be locked: {error}"),
    })
}

/// A name, with the key of somebody who shares it.
pub(crate) fn title(person: &Person) -> String {
    let name = String::from_utf8_lossy(person.name());
    person.key().map_or_else(|| name.to_string(), |key| format!("{name} {key}"))
}

/// Ends the program for everybody but root.
pub(crate) fn ensure_root(what: &str) -> Result<()> {
    ensure!(passwd::process_uids().1 == 0, "only root can {what}");
    Ok(())
}

/// Somebody by name, or whoever runs this.
pub(crate) fn person(name: Option<&str>) -> Result<Person> {
    let (_, euid) = passwd::process_uids();
    let Some(name) = name else {
        let account = passwd::by_uid(euid).context("the user database cannot be asked")?;
        let account = account.with_context(|| format!("uid {euid} is not in the user database"))?;
        return Person::in_database(&account.name).map_err(|error| by_fact(error.fact()));
    };
    let person = in_database(name.as_bytes())?;
    ensure!(euid == 0 || person.uid() == euid, "only root can do this for somebody else");
    Ok(person)
}

/// Whoever has made themselves root to run this, or root. Who is root can say who it is; sudo and the kernel say it unasked.
pub(crate) fn operator() -> Result<Person> {
    let (uid, _) = passwd::process_uids();
    let by_sudo = || env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    let uid = if uid == 0 { by_sudo().or_else(|| passwd::login_uid().ok().flatten()).unwrap_or(0) } else { uid };
    let account = passwd::by_uid(uid).context("the user database cannot be asked")?;
    let account = account.with_context(|| format!("uid {uid} is not in the user database"))?;
    Person::in_database(&account.name).map_err(|error| by_fact(error.fact()))
}

/// Everybody whom the user database lists.
pub(crate) fn everybody() -> Result<Vec<Account>> {
    let accounts = passwd::all().context("the user database cannot be read")?;
    // Where a name service is dead or not there, the rest looks like a list.
    ensure!(accounts.iter().any(|account| account.uid == 0), "the user database does not even list root");
    Ok(accounts)
}

/// Somebody by name.
pub(crate) fn in_database(name: &[u8]) -> Result<Person> {
    Person::in_database(name).map_err(|error| match error {
        Unidentified::Unknown => anyhow!("there is no user `{}`", String::from_utf8_lossy(name).escape_debug()),
        error => by_fact(error.fact()),
    })
}

/// Somebody who shares an account.
pub(crate) fn holder(account: &Person, key: &str) -> Result<Person> {
    account.holder(key).with_context(|| {
        format!("`{}` is no key: SHA256:... as ssh-keygen -l shows it, or key-id:...", key.escape_debug())
    })
}

/// The name of a service, as libpam has it.
pub(crate) fn service_name(name: &str) -> Result<String> {
    let is_name = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    ensure!(is_name, "`{}` is no service: it is the name of a file in /etc/pam.d", name.escape_debug());
    Ok(name.to_ascii_lowercase())
}

pub(crate) fn by_fact(fact: Fact) -> anyhow::Error {
    anyhow!("{fact}")
}

pub(crate) fn by_store(error: StoreError) -> anyhow::Error {
    by_fact(error.into_fact())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_the_name_of_a_file() {
        assert_eq!(service_name("SSHD").unwrap(), "sshd");
        for no_service in ["", ".", "..", "a/b", "/etc/pam.d/sshd", "a\0b"] {
            assert!(service_name(no_service).is_err(), "{no_service:?}");
        }
    }
}
