//! `pam-totp status --all`: everybody who has a record, and everybody who can log in and has none.

use crate::host::{self, Access, Whose, by_fact, by_store};
use crate::{status, throttle};
use anyhow::{Context, Result, ensure};
use pam_totp::fact::Escaped;
use pam_totp::identity::{Named, Person};
use pam_totp::policy::{Policy, StoreKind};
use pam_totp::record::{Device, Record};
use pam_totp::store::{Store, StoreError};
use pam_totp::system::clock;
use pam_totp::system::passwd::{self, Account};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The shells that can be logged in with, one a line (shells(5)).
const SHELLS: &str = "/etc/shells";
/// What an account without a shell has (passwd(5)).
const USUAL_SHELL: &str = "/bin/sh";

/// Shows everybody; fails in the end where something could not be told.
pub(crate) fn run(whose: &Whose) -> Result<()> {
    host::ensure_root("see everybody")?;
    let policy = host::policy(whose.conf.as_ref())?;
    let access = Access::new(&policy, whose.ring.as_deref())?;
    let mut seen = People::new(&policy, &access)?.look();
    // They are shown, whatever became of the ledger.
    let counted = throttle_all(&policy, &mut seen);
    seen.sort_by(|one, other| (one.state.rank(), &one.named).cmp(&(other.state.rank(), &other.named)));
    if whose.json {
        let is_counted = counted.is_ok();
        let list = serde_json::Value::from_iter(seen.iter().map(|seen| seen.object(&access, &policy, is_counted)));
        writeln!(io::stdout(), "{list}")?;
    } else {
        show(&seen)?;
    }
    counted.context("who is throttled cannot be told")?;
    let broken = seen.iter().filter(|seen| matches!(seen.state, State::Broken(_))).count();
    ensure!(broken == 0, "{broken} of {} could not be read", seen.len());
    Ok(())
}

/// Everybody on this host, as far as somebody lists them.
pub(crate) struct People<'a> {
    policy: &'a Policy,
    access: &'a Access,
    store: Rc<dyn Store + 'a>,
    /// Those of the user database, and those that have records. `None`: gone from the database.
    accounts: BTreeMap<Named, Result<Option<Account>>>,
    /// What /etc/shells lists, if it is there.
    shells: Option<Vec<PathBuf>>,
}

/// Somebody who is listed.
pub(crate) struct Seen {
    pub(crate) named: Named,
    /// Whether the user database knows them.
    pub(crate) is_known: bool,
    /// Their primary group, if they have an account they can log in with.
    pub(crate) logs_in_with: Option<u32>,
    pub(crate) path: PathBuf,
    pub(crate) state: State,
    /// As [`throttle::blocked`] has it.
    blocked: Option<Option<u64>>,
}

/// What about them.
pub(crate) enum State {
    Enrolled(Box<Record>),
    /// They can log in, have no record, and never had one.
    Never,
    /// They had one, and are not let pass without.
    Gone,
    /// What is wrong.
    Broken(String),
}

impl<'a> People<'a> {
    pub(crate) fn new(policy: &'a Policy, access: &'a Access) -> Result<Self> {
        let listed = host::everybody()?;
        let named = |account: &Account| Named { name: account.name.clone(), key: None };
        // The first of several of the same name counts, as it is the one that is found by name.
        let mut accounts = BTreeMap::new();
        for account in listed {
            accounts.entry(named(&account)).or_insert(Ok(Some(account)));
        }
        if policy.store.value.is_roots() {
            for named in access.roster(policy)?.people().map_err(by_store)? {
                accounts.entry(named).or_insert_with_key(|named| {
                    passwd::by_name(&named.name).context("the user database cannot be asked")
                });
            }
        }
        Ok(Self { policy, access, store: access.store(policy), accounts, shells: shells()? })
    }

    pub(crate) fn look(&self) -> Vec<Seen> {
        // Whose account is shared by the holders of keys has their records, and needs none itself.
        let shared: BTreeSet<_> =
            self.accounts.keys().filter(|named| named.key.is_some()).map(|named| &named.name).collect();
        let looked = self.accounts.iter().filter_map(|(named, account)| {
            let logs_in_with = match account {
                Ok(Some(account)) if self.can_log_in(account) => Some(account.gid),
                _ => None,
            };
            let seen =
                |path, state| Seen { named: named.clone(), is_known: true, logs_in_with, path, state, blocked: None };
            match account {
                Ok(Some(account)) => match self.person(named, account) {
                    Ok(person) => {
                        let path = self.store.path(&person).map_err(by_fact);
                        let is_shared = named.key.is_none() && shared.contains(&named.name);
                        let state = self.state(&person, is_shared, logs_in_with.is_none())?;
                        Some(match path {
                            Ok(path) => seen(path, state),
                            Err(error) => seen(PathBuf::new(), State::Broken(error.to_string())),
                        })
                    }
                    Err(error) => Some(seen(PathBuf::new(), State::Broken(format!("{error:#}")))),
                },
                Ok(None) => Some(self.gone(named)),
                Err(error) => Some(seen(PathBuf::new(), State::Broken(format!("{error:#}")))),
            }
        });
        looked.collect()
    }

    fn person(&self, named: &Named, account: &Account) -> Result<Person> {
        let person = Person::from_account(account.clone()).map_err(|error| by_fact(error.fact()))?;
        match &named.key {
            Some(key) => host::holder(&person, key),
            None => Ok(person),
        }
    }

    /// `None`: they need not be shown, for they have no record, and need none. An account that is shared was enrolled along
    /// with the first of its people.
    fn state(&self, person: &Person, is_shared: bool, cannot_log_in: bool) -> Option<State> {
        let may_lack = is_shared || cannot_log_in;
        match self.store.load(person) {
            Ok(record) => Some(State::Enrolled(Box::new(record))),
            Err(StoreError::NotEnrolled(_)) => match self.store.never_enrolled(person) {
                Ok(true) => (!may_lack).then_some(State::Never),
                Ok(false) => (!is_shared).then_some(State::Gone),
                Err(error) => (!may_lack).then(|| State::Broken(by_store(error).to_string())),
            },
            // Where there is no home there is no file either.
            Err(_) if may_lack && self.store.has_record(person) != Ok(true) => None,
            Err(_) if self.is_homeless(person) => Some(State::Never),
            Err(error) => Some(State::Broken(by_store(error).to_string())),
        }
    }

    fn is_homeless(&self, person: &Person) -> bool {
        self.policy.store.value == StoreKind::Home
            && person.home().is_some_and(|home| {
                std::fs::symlink_metadata(home).is_err_and(|error| error.kind() == ErrorKind::NotFound)
            })
    }

    /// Whose account is gone: only the root-only store has something of them.
    fn gone(&self, named: &Named) -> Seen {
        let store = self.access.roster(self.policy);
        let state = match store.as_ref().map(|store| store.load_of_gone(named)) {
            Ok(Ok(record)) => State::Enrolled(Box::new(record)),
            Ok(Err(error)) => State::Broken(by_store(error).to_string()),
            Err(error) => State::Broken(error.to_string()),
        };
        let path = store.map(|store| store.path_of(named)).unwrap_or_default();
        Seen { named: named.clone(), is_known: false, logs_in_with: None, path, state, blocked: None }
    }

    fn can_log_in(&self, account: &Account) -> bool {
        is_login_shell(&account.shell, self.shells.as_deref())
    }
}

/// `None`: the file is not there.
fn shells() -> Result<Option<Vec<PathBuf>>> {
    match std::fs::read_to_string(SHELLS) {
        Ok(text) => Ok(Some(text.lines().map(|line| PathBuf::from(line.trim())).collect())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(SHELLS),
    }
}

/// Whether an account with this shell is somebody's who logs in.
fn is_login_shell(shell: &Path, listed: Option<&[PathBuf]>) -> bool {
    let shell = if shell.as_os_str().is_empty() { Path::new(USUAL_SHELL) } else { shell };
    let is_refusal = shell.file_name().is_some_and(|name| name == "nologin" || name == "false");
    !is_refusal && listed.is_none_or(|listed| listed.iter().any(|one| one == shell))
}

/// Says of each whether they are blocked now.
fn throttle_all(policy: &Policy, seen: &mut [Seen]) -> Result<()> {
    if policy.throttle.is_none() {
        return Ok(());
    }
    let rows = throttle::rows(policy)?;
    let blocked: Vec<_> = rows.iter().filter_map(|row| Some((row, throttle::blocked(policy, row)?))).collect();
    for seen in seen {
        let own = blocked.iter().filter(|(row, _)| row.is_about(&seen.named)).map(|(_, left)| *left);
        // Until it is unlocked is longest of all.
        seen.blocked = own.max_by_key(|left| left.unwrap_or(u64::MAX));
    }
    Ok(())
}

// ---- How it is shown ----

impl State {
    /// The broken ones come last, right above the sum, where a terminal shows them.
    const fn rank(&self) -> u8 {
        match self {
            Self::Enrolled(_) => 0,
            Self::Gone => 1,
            Self::Never => 2,
            Self::Broken(_) => 3,
        }
    }
}

/// A name with nothing in it that a terminal would act on.
pub(crate) fn shown(named: &Named) -> String {
    let name = Escaped(&named.name);
    match &named.key {
        Some(key) => format!("{name} {}", Escaped(key.as_bytes())),
        None => name.to_string(),
    }
}

impl Seen {
    fn word(&self) -> &'static str {
        match &self.state {
            State::Enrolled(_) if !self.is_known => "no such user",
            State::Enrolled(record) if record.devices.is_empty() => "no device left",
            State::Enrolled(_) => "enrolled",
            State::Gone => "had a device",
            State::Never => "not enrolled",
            State::Broken(_) => "broken",
        }
    }

    /// The name of the key that the record is sealed with, where it is.
    pub(crate) fn sealed_with(&self, access: &Access, policy: &Policy) -> Option<String> {
        match self.state {
            State::Enrolled(_) | State::Broken(_) => status::sealed_with(access, policy, &self.named),
            State::Never | State::Gone => None,
        }
    }

    fn name(&self) -> String {
        shown(&self.named)
    }

    fn record(&self) -> Option<&Record> {
        match &self.state {
            State::Enrolled(record) => Some(record),
            _ => None,
        }
    }

    fn object(&self, access: &Access, policy: &Policy, is_counted: bool) -> serde_json::Value {
        let (enrolled, ever, reason) = match &self.state {
            State::Enrolled(_) => (Some(true), Some(true), None),
            State::Gone => (Some(false), Some(true), None),
            State::Never => (Some(false), Some(false), None),
            State::Broken(reason) => (None, None, Some(reason)),
        };
        let record = self.record();
        let mut object = serde_json::json!({
            "user": String::from_utf8_lossy(&self.named.name),
            "in_user_database": self.is_known,
            "store": status::store_name(policy),
            "path": self.path.to_string_lossy(),
            "enrolled": enrolled,
            "ever_enrolled": ever,
            "sealed_with": self.sealed_with(access, policy),
            "devices": record.map(status::devices).unwrap_or_default(),
            "recovery_codes": record.map_or(0, status::spares),
            "blocked": is_counted.then_some(self.blocked.is_some()),
            "blocked_seconds": self.blocked.flatten(),
            "reason": reason,
        });
        if let (Some(object), Some(key)) = (object.as_object_mut(), &self.named.key) {
            object.insert("key".to_owned(), key.as_str().into());
        }
        object
    }

    /// A row of the table for each device, the first one with what is about the person.
    fn rows(&self) -> Vec<[String; COLUMNS]> {
        let place = match &self.state {
            State::Broken(reason) => reason.clone(),
            State::Never | State::Gone => String::new(),
            State::Enrolled(_) => Escaped(self.path.as_os_str().as_bytes()).to_string(),
        };
        let codes = self.record().map(|record| status::spares(record).to_string()).unwrap_or_default();
        let mut devices = self.record().map(|record| record.devices.iter()).unwrap_or_default();
        let [device, since, used] = devices.next().map(columns).unwrap_or_default();
        let first =
            [self.name(), self.word().to_owned(), throttle::state(self.blocked), codes, device, since, used, place];
        let others = devices.map(columns).map(|[device, since, used]| {
            let none = String::new;
            [none(), none(), none(), none(), device, since, used, none()]
        });
        [first].into_iter().chain(others).collect()
    }
}

const COLUMNS: usize = 8;
const HEADS: [&str; COLUMNS] = ["name", "state", "throttled", "codes", "device", "since", "last used", "where"];

/// What it is called, since when it is there, when it was last used.
fn columns(device: &Device) -> [String; 3] {
    let day = |time: Option<u64>| {
        let text = time.map(clock::utc).unwrap_or_default();
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    let name = if device.name.is_empty() { "-" } else { &device.name };
    [name.to_owned(), day(device.added), day(device.last_used)]
}

fn show(seen: &[Seen]) -> Result<()> {
    let rows: Vec<_> = [HEADS.map(str::to_owned)].into_iter().chain(seen.iter().flat_map(Seen::rows)).collect();
    table(&rows).iter().try_for_each(|line| writeln!(io::stdout(), "{line}"))?;
    let mut counts = BTreeMap::<&str, usize>::new();
    for seen in seen {
        let count = counts.entry(seen.word()).or_default();
        *count = count.saturating_add(1);
    }
    let blocked = seen.iter().filter(|seen| seen.blocked.is_some()).count();
    let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    writeln!(io::stdout(), "{} in all: {}; {blocked} throttled", seen.len(), counts.join(", "))?;
    Ok(())
}

/// Columns as wide as what is in them, but for the last; one that is empty below its head is left out.
fn table(rows: &[[String; COLUMNS]]) -> Vec<String> {
    let mut lines = vec![String::new(); rows.len()];
    for column in 0..COLUMNS {
        let cells = || rows.iter().map(|row| row.get(column).map_or("", String::as_str));
        if cells().skip(1).all(str::is_empty) {
            continue;
        }
        let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0).saturating_add(2);
        for (line, cell) in lines.iter_mut().zip(cells()) {
            *line += &format!("{cell:width$}");
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_shell_to_log_in_with_can_log_in() {
        let listed = ["/bin/sh", "/usr/bin/zsh", "/usr/sbin/nologin", "# /bin/ksh", ""].map(PathBuf::from);
        for (shell, among_listed, anywhere) in [
            ("/bin/sh", true, true),
            ("", true, true),
            ("/usr/bin/zsh", true, true),
            ("/bin/ksh", false, true),
            ("/bin/sync", false, true),
            ("/usr/sbin/nologin", false, false),
            ("/sbin/nologin", false, false),
            ("/bin/false", false, false),
        ] {
            let can = |listed| is_login_shell(Path::new(shell), listed);
            assert_eq!((can(Some(&listed)), can(None)), (among_listed, anywhere), "{shell}");
        }
        assert!(!is_login_shell(Path::new(""), Some(&[])));
    }

    #[test]
    fn a_table_is_aligned_and_has_no_empty_columns() {
        let row = |cells: [&str; 3]| [cells[0], cells[1], "", "", "", "", "", cells[2]].map(str::to_owned);
        let rows = [HEADS.map(str::to_owned), row(["alice", "enrolled", "/x"]), row(["Zoë", "not enrolled", ""])];
        assert_eq!(table(&rows), ["name   state         where", "alice  enrolled      /x", "Zoë    not enrolled"]);
    }
}
