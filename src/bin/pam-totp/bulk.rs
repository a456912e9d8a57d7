//! `pam-totp enrol --users FILE` and `--group GROUP`: many people at once, who are not there, with a sheet for each.

use crate::choices;
use crate::common_ground;
use crate::enrol::{self, ensure_for_store, new_spares};
use crate::host::{Access, alone, by_fact, by_store, ensure_root, everybody, in_database, policy};
use crate::new_device::NewDevice;
use crate::progress::Progress;
use crate::sheet::{Sheet, is_of, is_sheet};
use crate::status::kind;
use anyhow::{Context, Result, ensure};
use pam_totp::enrol::{DEVICE, host_name, qr};
use pam_totp::fact::Escaped;
use pam_totp::identity::Person;
use pam_totp::otp::base32;
use pam_totp::policy::Policy;
use pam_totp::record::Record;
use pam_totp::secret::Secret;
use pam_totp::store::{Store, StoreError};
use pam_totp::system::files::{FileError, Problem};
use pam_totp::system::groups;
use pam_totp::system::private::{Directory, is_file};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What is about one person alone, or shown to somebody who is there.
const FOR_ONE: [&str; 5] = ["user", "key", "label", "secret", "qr_mode"];

#[derive(clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("whom").args(["users", "group"])))]
pub(crate) struct Arguments {
    #[command(flatten)]
    one: choices::Arguments,
    /// Enrol all whose names are in FILE (`-`: standard input), one a line, without asking for codes; whoever is enrolled
    /// already stays as they are. Blank lines and those that begin with # are skipped
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with_all = FOR_ONE)]
    users: Option<PathBuf>,
    /// The same for the members of a group, and for everybody whose primary group it is, as far as the user database lists
    /// them: sssd and LDAP often list nobody
    #[arg(long, value_name = "GROUP", requires = "out", conflicts_with_all = FOR_ONE)]
    group: Option<String>,
    /// Where the sheets go, NAME.svg and NAME.txt for each person; made for root alone if it is not there
    #[arg(long, value_name = "DIR", requires = "whom")]
    out: Option<PathBuf>,
}

/// `pam-totp enrol`, of one or of many.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (names, out) = match (&arguments.users, &arguments.group, &arguments.out) {
        (Some(file), _, Some(out)) => (Names::In(file), out),
        (None, Some(group), Some(out)) => (Names::Of(group), out),
        _ => return enrol::run(&arguments.one, false),
    };
    ensure_root("enrol many")?;
    let one = &arguments.one;
    let policy = policy(one.whose.conf.as_ref())?;
    ensure_for_store(one, policy.store.value.is_roots())?;
    let access = Access::new(&policy, one.whose.ring.as_deref())?;
    if policy.store.value.is_roots() {
        // Where there is no store it is said once, and not of each.
        access.roster(&policy)?.check().map_err(by_store)?;
    }
    // What apps make of it is the same for all.
    let device = &one.device;
    let trial = NewDevice::new(device, "user", device.counter_based, policy.min_secret_bits.value)?.uri();
    common_ground::ensure_names(trial.expose())?;
    if !device.quiet {
        common_ground::warn(trial.expose());
    }
    let names = names.all()?;
    let out = std::path::absolute(out)?;
    let sheets = Directory::make(&out).map_err(|error| by_fact(error.fact()))?;
    warn_of_readers(&sheets, &out)?;
    // Two at once would write over each other's sheets.
    let _lock = alone("enrol-many", "another pam-totp is enrolling many on this host")?;
    let store = access.store(&policy);
    let done = Bulk { one, policy: &policy, store, sheets, out: &out }.run(&names);
    // Who reads it has to get all of it.
    if one.whose.json {
        writeln!(io::stdout(), "{}", done.object())?;
    } else if !one.device.quiet {
        let (enrolled, skipped, failed) = (done.enrolled.len(), done.skipped.len(), done.failed.len());
        let (out, mut stdout) = (out.display(), io::stdout());
        writeln!(stdout, "{enrolled} enrolled, {skipped} skipped, {failed} failed. Sheets are in {out}.")?;
    }
    ensure!(done.failed.is_empty(), "{} of {} could not be enrolled", done.failed.len(), names.len());
    Ok(())
}

/// Nobody but root can read the sheets; that there are some, and whose, is seen by whoever can read the directory.
fn warn_of_readers(sheets: &Directory, out: &Path) -> Result<()> {
    let failed = |error| by_fact(FileError { path: out.to_owned(), problem: Problem::Failed("stat", error) }.fact());
    if sheets.stat(".").map_err(failed)?.st_mode & 0o077 != 0 {
        eprintln!("pam-totp: others than root see in {} who gets a sheet: chmod 0700 it", out.display());
    }
    Ok(())
}

/// Who is to be enrolled.
enum Names<'a> {
    /// By a file.
    In(&'a Path),
    /// By a group.
    Of(&'a str),
}

impl Names<'_> {
    /// Each once, in the order of the file or the database.
    fn all(&self) -> Result<Vec<Vec<u8>>> {
        let names = match self {
            Self::In(file) => listed(&read(file)?),
            Self::Of(group) => members(group)?,
        };
        let mut seen = BTreeSet::new();
        Ok(names.into_iter().filter(|name| seen.insert(name.clone())).collect())
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text).context("standard input")?;
        return Ok(text);
    }
    std::fs::read(file).with_context(|| file.display().to_string())
}

fn listed(text: &[u8]) -> Vec<Vec<u8>> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).map(<[u8]>::to_vec).collect()
}

fn members(name: &str) -> Result<Vec<Vec<u8>>> {
    let group = groups::by_name(name).with_context(|| format!("the group `{}`", name.escape_debug()))?;
    let group = group.with_context(|| format!("there is no group `{}`", name.escape_debug()))?;
    let accounts = everybody()?;
    let primary = accounts.into_iter().filter(|account| account.gid == group.gid).map(|account| account.name);
    let names: Vec<_> = group.members.into_iter().chain(primary).collect();
    if names.is_empty() {
        let name = name.escape_debug();
        eprintln!(
            "pam-totp: the user database lists nobody in `{name}`: whom a directory does not list is enrolled by --users FILE"
        );
    }
    Ok(names)
}

/// An enrolment of many.
struct Bulk<'a> {
    one: &'a choices::Arguments,
    policy: &'a Policy,
    store: Rc<dyn Store + 'a>,
    sheets: Directory,
    out: &'a Path,
}

/// What became of somebody.
enum Outcome {
    /// Where their record is.
    Enrolled(PathBuf, [PathBuf; 2]),
    /// They have a record already. What about their sheets.
    Skipped(&'static str),
}

/// What became of all.
#[derive(Default)]
struct Done {
    enrolled: Vec<serde_json::Value>,
    skipped: Vec<serde_json::Value>,
    failed: Vec<serde_json::Value>,
}

impl Done {
    fn object(&self) -> serde_json::Value {
        serde_json::json!({ "enrolled": self.enrolled, "skipped": self.skipped, "failed": self.failed })
    }
}

impl Bulk<'_> {
    /// One after the other. Who cannot be enrolled keeps nobody else from it.
    fn run(&self, names: &[Vec<u8>]) -> Done {
        let is_silent = self.one.device.quiet || self.one.whose.json;
        let progress = Progress::new(names.len(), self.one.device.quiet);
        let (mut done, mut seen) = (Done::default(), BTreeSet::new());
        for (number, name) in names.iter().enumerate() {
            let (user, shown) = (String::from_utf8_lossy(name), Escaped(name));
            progress.show(number, &shown.to_string());
            match in_database(name).and_then(|person| {
                // The database may know somebody by several spellings.
                if seen.insert(person.name().to_vec()) { self.enrol(&person).map(Some) } else { Ok(None) }
            }) {
                Ok(None) => {}
                Ok(Some(Outcome::Enrolled(path, sheets))) => {
                    let sheets = sheets.map(|sheet| sheet.to_string_lossy().into_owned());
                    let path = path.to_string_lossy();
                    done.enrolled.push(serde_json::json!({ "user": user, "path": path, "sheets": sheets }));
                }
                Ok(Some(Outcome::Skipped(reason))) => {
                    if !is_silent {
                        progress.clear();
                        say!("{shown}: {reason}");
                    }
                    done.skipped.push(serde_json::json!({ "user": user, "reason": reason }));
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    progress.clear();
                    eprintln!("pam-totp: {shown}: {reason}");
                    done.failed.push(serde_json::json!({ "user": user, "reason": reason }));
                }
            }
        }
        progress.clear();
        done
    }

    /// The sheets are on disk before the record is: nobody has a record, and nothing to make codes from. Whoever is killed in
    /// between leaves sheets that are worth nothing, which the next run writes over.
    fn enrol(&self, person: &Person) -> Result<Outcome> {
        if self.store.has_record(person).map_err(by_store)? && !self.one.force {
            return self.skipped(person).map(Outcome::Skipped);
        }
        let path = self.store.path(person).map_err(by_fact)?;
        let user = String::from_utf8_lossy(person.name());
        let (arguments, is_system) = (&self.one.device, self.policy.store.value.is_roots());
        let new = NewDevice::new(arguments, &user, arguments.counter_based, self.policy.min_secret_bits.value)?;
        let spares = new_spares(self.one, self.policy)?;
        let name = if is_system { self.one.device_name.as_deref().unwrap_or(DEVICE) } else { "" };
        let mut record = Record::of(vec![new.device(name)]);
        spares.put_into(&mut record)?;
        if !is_system {
            self.one.choices().write_to(&mut record, false);
        }
        let (uri, codes) = (new.uri(), spares.texts());
        let sheet = Sheet {
            user: &user,
            host: &host_name(),
            kind: &record.devices.first().map(kind).unwrap_or_default(),
            secret: &new.new.secret(),
            uri: &uri,
            code: &qr::Code::new(uri.expose()).context("the QR code cannot be made")?,
            spares_name: spares.names().0,
            spares: &codes,
        };
        let names = names(person);
        names.iter().try_for_each(|name| self.ensure_sheet(name))?;
        let texts = [sheet.svg(), sheet.text()];
        let stored = names
            .iter()
            .zip(&texts)
            .try_for_each(|(name, text)| self.write(name, text))
            .and_then(|()| self.store.enrol(person, &record, self.one.force).map_err(by_store));
        if let Err(error) = stored {
            // The record may be there all the same, and the disk did not say so.
            if !self.may_be_stored(person, &record) {
                // Of two that were to be replaced one may not have been.
                let secret = new.new.secret();
                let is_ours = |name: &&String| self.sheet(name).is_some_and(|sheet| is_of(sheet.expose(), &secret));
                let removed = names.iter().filter(is_ours).try_for_each(|name| self.sheets.remove(name));
                let _ = removed.and_then(|()| self.sheets.sync());
            }
            return Err(error);
        }
        Ok(Outcome::Enrolled(path, names.map(|name| self.out.join(name))))
    }

    /// By rename: what has the name is replaced, and never written to.
    fn write(&self, name: &str, text: &Secret<Vec<u8>>) -> Result<()> {
        self.sheets
            .write_for_good(name, &format!("{name}~"), text.expose())
            .map_err(|error| by_fact(self.sheets.file_error(name, Problem::Failed("write", error)).fact()))
    }

    /// Whether the sheets may be all that there is of somebody's secret.
    fn may_be_stored(&self, person: &Person, record: &Record) -> bool {
        let secrets = || record.devices.iter().filter_map(|device| device.secret.as_ref().ok());
        match self.store.load(person) {
            Ok(there) => secrets().all(|secret| there.holds(secret)),
            Err(StoreError::NotEnrolled(_)) => false,
            Err(_) => self.store.has_record(person) != Ok(false),
        }
    }

    /// Fails where a file that is no sheet would be written over.
    fn ensure_sheet(&self, name: &str) -> Result<()> {
        let path = self.out.join(name);
        let is_one = self.sheet(name).is_none_or(|text| is_sheet(text.expose()));
        ensure!(is_one, "{} is there, and no sheet: move it away", path.display());
        Ok(())
    }

    /// The file with this name. A link or a FIFO is none.
    fn sheet(&self, name: &str) -> Option<Secret<Vec<u8>>> {
        let is_file = self.sheets.stat(name).is_ok_and(|stat| is_file(&stat));
        is_file.then(|| self.sheets.read(name).ok().flatten()).flatten()
    }

    /// Why somebody who has a record is left alone, and whether there are sheets that fit it.
    fn skipped(&self, person: &Person) -> Result<&'static str> {
        let secrets: Vec<_> = match self.store.load(person) {
            Ok(record) => record.devices.into_iter().filter_map(|device| device.secret.ok()).collect(),
            Err(error) => return Err(by_store(error)).context("there is a record, which cannot be read"),
        };
        let mut reason = "enrolled already";
        for name in names(person) {
            let Some(sheet) = self.sheet(&name) else {
                return Ok("enrolled already, and there is no sheet");
            };
            if !secrets.iter().any(|secret| is_of(sheet.expose(), &base32::encode(secret.expose()))) {
                reason = "enrolled already, with another secret than that of the sheet: destroy the sheet";
            }
        }
        Ok(reason)
    }
}

/// What the sheets of somebody are called.
fn names(person: &Person) -> [String; 2] {
    ["svg", "txt"].map(|kind| format!("{}.{kind}", person.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_name_a_line() {
        let text = b"alice\n\n  # bob\n\tcarol \r\n#\nM\xC3\xBCller x\n\xFF\nalice";
        let names: Vec<&[u8]> = vec![b"alice", b"carol", b"M\xC3\xBCller x", b"\xFF", b"alice"];
        assert_eq!(listed(text), names);
        assert!(listed(b"").is_empty() && listed(b"\n\n").is_empty());
    }
}
