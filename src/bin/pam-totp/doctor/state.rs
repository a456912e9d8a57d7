//! What is kept in `state_dir`, and the records of people, there or in their homes.

use super::case::Case;
use super::report::{Finding, Report, Weight};
use crate::host::Access;
use crate::people::{People, Seen, State, shown as shown_name};
use crate::root::{Root, Unreadable};
use crate::{setup, status};
use pam_totp::fact::{Escaped, Fact};
use pam_totp::identity::{Named, Person};
use pam_totp::ledger::{self, Found};
use pam_totp::policy::{Policy, StoreKind};
use pam_totp::record::native::{BadRecord, Document};
use pam_totp::record::{Kind, Record};
use pam_totp::store::StoreError;
use pam_totp::store::system::{FileSystem, Room, STORE_ID, SystemStore, room};
use pam_totp::store::{Roster, remembered, seal};
use pam_totp::system::passwd;
use pam_totp::system::private::Directory;
use rustix::fs::FileType;
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Less than this and a file system that copies on write may deny any moment: btrfs takes room by the megabyte.
const COPYING_ROOM: u64 = 16 << 20;
/// Less than this and there is no room for what is not there yet: the ledger, which has 11 MB, and a record.
const ROOM: u64 = 16 << 10;
/// As many people are named of each kind of finding.
const MOST: usize = 10;

const RECORDS: &str = "records";

pub(super) fn examine(case: &Case<'_>, report: &mut Report) {
    let policies = distinct(case);
    if case.root.is_live() && passwd::process_uids().1 != 0 {
        if !policies.is_empty() {
            report.note("what is root's alone, and so who has a device, was not looked at: run this as root");
        }
        return;
    }
    for policy in policies {
        if case.root.is_live() { of_this_machine(case, policy, report) } else { of_image(case, policy, report) }
    }
}

/// What all that is looked at here depends on.
pub(super) type Key = (&'static str, PathBuf, Vec<u8>, bool, u32, bool);

pub(super) fn key(policy: &Policy) -> Key {
    let (name, state_dir, options) = (status::store_name(policy), policy.state_dir.value.clone(), &policy.options);
    match policy.store.value {
        StoreKind::System | StoreKind::Fleet => (name, state_dir, Vec::new(), true, 0, options.user.is_some()),
        StoreKind::Home => {
            let secret = policy.secret.value.clone();
            (name, state_dir, secret, options.strict_owner, options.allowed_perm, options.user.is_some())
        }
    }
}

/// The policies in use, those that lead to the same places once.
fn distinct<'a>(case: &'a Case<'_>) -> Vec<&'a Policy> {
    let mut policies: Vec<&Policy> = Vec::new();
    for policy in case.services.iter().filter_map(|service| service.policy.as_ref()) {
        if !policies.iter().any(|other| key(other) == key(policy)) {
            policies.push(policy);
        }
    }
    policies
}

/// Once, whichever policies lead there.
fn push(report: &mut Report, finding: Finding) {
    if !report.findings.contains(&finding) {
        report.findings.push(finding);
    }
}

fn finding(weight: Weight, name: &'static str, path: &Path, what: impl Into<String>) -> Finding {
    Finding {
        weight,
        name,
        service: None,
        what: what.into(),
        place: Some(shown(path)),
        why: String::new(),
        way_out: String::new(),
        lines: Vec::new(),
    }
}

impl Finding {
    pub(super) fn because(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    pub(super) fn until(self, way_out: impl Into<String>, lines: &[String]) -> Self {
        Self { way_out: way_out.into(), lines: lines.to_vec(), ..self }
    }
}

fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

// ---- This machine ----

fn of_this_machine(case: &Case<'_>, policy: &Policy, report: &mut Report) {
    let path = policy.state_dir.as_path();
    let is_system = policy.store.value == StoreKind::System;
    let is_fleet = policy.store.value == StoreKind::Fleet;
    match Directory::open(path) {
        Err(error) => return push(report, refused(path, &error.fact())),
        // `fleet` says what it is to a host of one.
        Ok(_) if is_fleet => {}
        Ok(None) if is_system => return push(report, no_store(path)),
        Ok(None) => report.note(format!("{} is not there yet: the first login makes it", shown(path))),
        Ok(Some(directory)) => {
            let is_read_only = judge_room(&directory, path, is_system, report);
            if is_system && is_read_only {
                // Nothing of it can be read as a login would.
                return;
            }
            // Where it cannot be written to, a login keeps to one in /run.
            if !is_read_only && (policy.throttle.is_some() || policy.has_dates()) {
                judge_ledger(&directory, path, report);
            }
            if let Some(finding) = is_system.then(|| judge_store(path)).flatten() {
                return push(report, finding);
            }
            judge_marks(case, &directory, report);
        }
    }
    if !(is_fleet && case.is_fleet_out_of_reach) {
        judge_people(case, policy, report);
    }
}

fn refused(path: &Path, fact: &Fact) -> Finding {
    finding(Weight::Closed, "state-dir", path, format!("what is root's alone cannot be used: {fact}"))
        .because("A login takes nothing that others could have changed: nobody gets in where a code is asked for.")
        .until(
            "Put that right: it, and all directories above it, must be root's, with no right to write for others.",
            &[],
        )
}

fn no_store(path: &Path) -> Finding {
    finding(Weight::Closed, "store-missing", path, format!("there is no store in {}", shown(path)))
        .because("Nobody gets in where a code is asked for: nobody can be told from somebody who has no device.")
        .until(
            "If something should be mounted there, mount it. Otherwise make the store:",
            &["pam-totp setup store".into()],
        )
}

/// What a login would be told.
fn judge_store(path: &Path) -> Option<Finding> {
    match (SystemStore { state_dir: path, homes: None, ring: None }).check() {
        Ok(()) => None,
        Err(StoreError::Unreachable(_)) => Some(no_store(path)),
        Err(error) => Some(
            finding(Weight::Closed, "store-broken", path, format!("the store cannot be used: {}", error.into_fact()))
                .because("Nobody gets in where a code is asked for.")
                .until("Put that right; what is missing this makes anew:", &["pam-totp setup store".into()]),
        ),
    }
}

/// What the file system can promise, and whether that holds. Whether it is read-only.
fn judge_room(directory: &Directory, path: &Path, is_system: bool, report: &mut Report) -> bool {
    match room(directory) {
        Ok(room) => {
            if let Some(finding) = of_room(&room, path, is_system) {
                push(report, finding);
            }
            room.is_read_only
        }
        Err(error) => {
            let error = std::io::Error::from(error);
            report.note(format!("how full the file system of {} is cannot be told: {error}", shown(path)));
            false
        }
    }
}

fn of_room(room: &Room, path: &Path, is_system: bool) -> Option<Finding> {
    let (name, promise) = setup::promise(room.file_system);
    let is_full = |least| room.bytes < least || room.files == Some(0);
    let left = match room.files {
        Some(0) => "no further file".to_owned(),
        _ => format!("{} KiB", room.bytes / 1024),
    };
    let full = |weight| {
        let what = format!("the file system of {} is full: there is room for {left}", shown(path));
        finding(weight, "store-full", path, what).until("Make room, or give it a file system of its own.", &[])
    };
    let promised = |weight| full(weight).because(format!("{name}: {promise}."));
    match room.file_system {
        _ if room.is_read_only && is_system => Some(
            finding(Weight::Closed, "store-read-only", path, format!("{} cannot be written to", shown(path)))
                .because("A code that cannot be marked as used is not taken: nobody gets in.")
                .until(
                    "Find out why it is read-only (dmesg tells of errors of the disk), and have it writable:",
                    &[format!("mount -o remount,rw {}", shown(path))],
                ),
        ),
        _ if room.is_read_only => Some(
            finding(Weight::Weak, "state-read-only", path, format!("{} cannot be written to", shown(path)))
                .because("Who has a device is not remembered, and failures are counted until the next boot alone.")
                .until("Have it writable.", &[]),
        ),
        FileSystem::CopyOnWrite(_) if is_full(COPYING_ROOM) => {
            Some(promised(if is_system { Weight::Closed } else { Weight::Weak }))
        }
        FileSystem::Memory(_) | FileSystem::Network(_) if is_system => {
            let what = format!("the store {} is on {name}", shown(path));
            Some(
                finding(Weight::Weak, "store-file-system", path, what)
                    .because(format!("{name}: {promise}."))
                    .until("Keep state_dir on an ext4 or xfs of this machine.", &[]),
            )
        }
        _ if is_full(ROOM) => Some(
            full(Weight::Weak)
                .because(format!("{name}: {promise}. Once root's reserve is used up, nobody can be enrolled.")),
        ),
        _ => None,
    }
}

fn judge_ledger(directory: &Directory, path: &Path, report: &mut Report) {
    match ledger::look(directory) {
        Ok(Found::Nothing | Found::Ledger) => {}
        Ok(Found::Garbage) => report.note(format!(
            "{} is broken: the next login makes it anew, and what was counted is lost",
            shown(&path.join(ledger::FILE))
        )),
        Err(error) => push(
            report,
            finding(
                Weight::Closed,
                "ledger",
                &path.join(ledger::FILE),
                format!("failures cannot be counted: {}", error.fact()),
            )
            .because("What cannot be counted is not judged: nobody gets in.")
            .until("Move it away; the next login makes it anew.", &[]),
        ),
    }
}

/// Names that are remembered of people who are gone.
fn judge_marks(case: &Case<'_>, directory: &Directory, report: &mut Report) {
    let Ok(marks) = remembered(directory) else { return };
    let listed: HashSet<Vec<u8>> = passwd::all().unwrap_or_default().into_iter().map(|account| account.name).collect();
    let is_gone = |named: &Named| !listed.contains(&named.name) && passwd::by_name(&named.name) == Ok(None);
    let mut gone: Vec<_> = marks.into_iter().map(|(named, _)| named).filter(is_gone).map(|named| named.name).collect();
    gone.dedup();
    if !gone.is_empty() && case.user.is_none() {
        let names: Vec<_> = gone.iter().map(|name| name.escape_ascii().to_string()).collect();
        report.note(format!(
            "remembered to have had a device, and gone: {}. Whoever gets such a name and its uid again needs pam-totp reset first",
            several(&names)
        ));
    }
}

/// Some of them, and how many others there are.
pub(super) fn several(names: &[String]) -> String {
    let shown = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

// ---- Records ----

fn judge_people(case: &Case<'_>, policy: &Policy, report: &mut Report) {
    if policy.options.user.is_some() {
        return report.note("files of people whom no user database knows (user=) were not looked at");
    }
    let is_fleet = policy.store.value == StoreKind::Fleet;
    let access = Access::new(policy, None).unwrap_or_else(|error| {
        push(report, no_ring(&error));
        Access::default()
    });
    let seen = match People::new(policy, &access).map(|people| people.look()) {
        Ok(seen) => seen,
        Err(error) => return report.note(format!("who has a device cannot be told: {error:#}")),
    };
    let is_meant = |seen: &&Seen| case.user.is_none_or(|user| user.as_bytes() == seen.named.name);
    let mut findings: Vec<_> = seen.iter().filter(is_meant).filter_map(|seen| of_person(policy, seen)).collect();
    // What a fleet keeps is always sealed, and nobody but the agent is asked.
    if !is_fleet {
        let sealed = seen.iter().filter(is_meant).filter(|seen| seen.sealed_with(&access, policy).is_some());
        note_sealed(sealed.count(), report);
    }
    let is_enrolled = |seen: &Seen| !matches!(seen.state, State::Gone | State::Never);
    if let Some(first) = seen.iter().find(|seen| matches!(seen.state, State::Gone))
        && case.user.is_none()
        && !seen.iter().any(is_enrolled)
    {
        findings.push(all_gone(policy, &seen, first));
    }
    push_some(findings, report);
}

fn no_ring(error: &anyhow::Error) -> Finding {
    finding(
        Weight::Closed,
        "key-ring",
        Path::new(seal::PATH),
        format!("the keys of sealed records cannot be used: {error}"),
    )
    .because("Nobody whose record is sealed gets in.")
    .until("Put that right, or your copy of the file back.", &[])
}

fn note_sealed(count: usize, report: &mut Report) {
    if count > 0 {
        report.note(format!(
            "{} sealed: pam-totp-agent reads them, and the module itself denies these people (sealed-record); pam-totp key list",
            status::count(count, "record")
        ));
    }
}

/// The first few of each kind; of the others, how many they are.
fn push_some(findings: Vec<Finding>, report: &mut Report) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for finding in findings {
        let count = counts.entry(finding.name).or_default();
        *count = count.saturating_add(1);
        if *count <= MOST {
            push(report, finding);
        }
    }
    let mut more: Vec<_> = counts.into_iter().filter(|(_, count)| *count > MOST).collect();
    more.sort_unstable();
    for (name, count) in more {
        let more = count.saturating_sub(MOST);
        report.note(format!("{name}: {more} more like these; pam-totp status --all shows them"));
    }
}

fn all_gone(policy: &Policy, seen: &[Seen], first: &Seen) -> Finding {
    let gone = seen
        .iter()
        .filter(|seen| matches!(seen.state, State::Gone))
        .map(|seen| shown_name(&seen.named))
        .collect::<Vec<_>>();
    let place =
        if policy.store.value == StoreKind::System { policy.state_dir.join(RECORDS) } else { first.path.clone() };
    finding(
        Weight::Closed,
        "records-gone",
        &place,
        format!("nobody has a device any more; these had: {}", several(&gone)),
    )
    .because("Whoever once had a device does not get in without, whatever became of it.")
    .until("Put the records back from a backup, or enrol everybody anew:", &["pam-totp enrol --user NAME".into()])
}

fn of_person(policy: &Policy, seen: &Seen) -> Option<Finding> {
    let Seen { named, path, .. } = seen;
    match &seen.state {
        // An account need not be on all hosts.
        State::Enrolled(_) if !seen.is_known && policy.store.value == StoreKind::Fleet => None,
        State::Enrolled(_) if !seen.is_known => Some(orphan(named, path, "")),
        State::Broken(reason) if policy.store.value == StoreKind::Fleet => Some(broken_in_fleet(named, path, reason)),
        State::Broken(reason) if !seen.is_known => Some(orphan(named, path, &format!(" ({reason})"))),
        State::Broken(reason) => Some(broken(named, path, reason)),
        State::Enrolled(record) if policy.store.value == StoreKind::Home => {
            Some(broken(named, path, &useless(record)?))
        }
        State::Enrolled(_) | State::Never | State::Gone => None,
    }
}

fn orphan(named: &Named, path: &Path, more: &str) -> Finding {
    let what = format!("there is a record of {}, whom the user database does not know{more}", shown_name(named));
    let file = shown(path);
    finding(Weight::Weak, "record-orphaned", path, what)
        .because("Whoever gets the name next does not get in, as it is the record of another.")
        .until("If the account is gone for good, remove the record:", &[format!("rm -f {file} {file}~")])
}

fn broken(named: &Named, path: &Path, reason: &str) -> Finding {
    // So the store calls it.
    let is_anothers = reason.starts_with("record-of-another");
    let name = if is_anothers { "record-of-another" } else { "record-broken" };
    let user = Escaped(&named.name);
    let key = named.key.as_ref().map(|key| format!(" --key {}", key.escape_debug())).unwrap_or_default();
    let way_out = if is_anothers {
        "If the account is a new one of an old name, enrol it anew:"
    } else {
        "Put right what it says, take the file from a backup, or enrol them anew:"
    };
    finding(Weight::Closed, name, path, format!("{} does not get in: {reason}", shown_name(named)))
        .because("What cannot be relied on is not judged, and nobody is let in for want of it.")
        .until(way_out, &[format!("pam-totp enrol --user {user}{key} --force")])
}

/// The same, where there is no file, and other hosts have the same record.
fn broken_in_fleet(named: &Named, path: &Path, reason: &str) -> Finding {
    let finding = broken(named, path, reason);
    let user = Escaped(&named.name);
    match () {
        () if finding.name == "record-of-another" => finding
            .because("A fleet goes by name and uid: where they do not belong together it is somebody else of that name.")
            .until(
                "Have the account the same uid on all hosts. If the name is somebody else's now, and no host has the old one:",
                &[format!("id {user}"), format!("pam-totp reset --user {user}")],
            ),
        () if reason.starts_with("document-") => finding.until(
            "Find out who changed the cluster. If it was restored from a snapshot, and by you, on every host:",
            &[format!("pam-totp fleet accept-rollback --user {user}")],
        ),
        () => finding,
    }
}

/// Why no device in a file can be used. `None`: one can, or there is none.
fn useless(record: &Record) -> Option<String> {
    let mut reason = None;
    for device in &record.devices {
        reason = Some(match (&device.kind, &device.secret) {
            (_, Err(bad)) => bad.fact().to_string(),
            (Err(bad), _) => bad.fact().to_string(),
            (Ok(Kind::None), _) => "neither \" TOTP_AUTH nor \" HOTP_COUNTER is in the file".to_owned(),
            (Ok(Kind::Totp(_) | Kind::Hotp(_)), Ok(_)) => return None,
        });
    }
    reason
}

// ---- Another root ----

fn of_image(case: &Case<'_>, policy: &Policy, report: &mut Report) {
    let path = policy.state_dir.as_path();
    if policy.store.value == StoreKind::Fleet {
        // `fleet` has said that no file tells of it.
        return;
    }
    if policy.store.value == StoreKind::Home {
        return report.note("whose home has a file for codes was not looked at: that is for the machine itself");
    }
    if !case.root.is_directory(path) {
        return report.note(format!("{} is not there yet: pam-totp setup store makes it", shown(path)));
    }
    if case.root.stat(&path.join(STORE_ID)).map_or(0, |stat| stat.st_size) == 0 {
        return push(report, no_store(path));
    }
    let records = match case.root.list(&path.join(RECORDS)) {
        Ok(records) => records,
        Err(Unreadable::Missing) => return push(report, no_store(path)),
        Err(error) => return report.note(format!("{} {error}", shown(&path.join(RECORDS)))),
    };
    let accounts = accounts(case.root);
    if accounts.is_none() {
        report.note("there is no /etc/passwd to be read: whose records these are cannot be told");
    }
    let (mut findings, mut sealed) = (Vec::new(), 0_usize);
    for name in records.iter().filter_map(|name| name.to_str()) {
        let Some(named) = Person::of_file_name(name) else { continue };
        if case.user.is_some_and(|user| user.as_bytes() != named.name) {
            continue;
        }
        let place = path.join(RECORDS).join(name);
        let account = accounts.as_ref().map(|accounts| accounts.get(&named.name).copied());
        findings.extend(match (record_state(case.root, &place), account) {
            (Err(reason), Some(None)) => Some(orphan(&named, &place, &format!(" ({reason})"))),
            (Err(reason), _) => Some(broken(&named, &place, &reason)),
            (Ok(_), Some(None)) => Some(orphan(&named, &place, "")),
            (Ok(None), _) => {
                sealed = sealed.saturating_add(1);
                None
            }
            (Ok(Some((user, uid))), Some(Some(expected))) if user != name || uid != expected => {
                let reason = format!("record-of-another user={} uid={uid} expected={expected}", user.escape_debug());
                Some(broken(&named, &place, &reason))
            }
            (Ok(_), _) => None,
        });
    }
    note_sealed(sealed, report);
    push_some(findings, report);
}

/// Whose record it says it is, or what is wrong with it. `Ok(None)`: it is sealed.
fn record_state(root: &Root, path: &Path) -> Result<Option<(String, u32)>, String> {
    let stat = root.stat(path).map_err(|error| format!("the record {error}"))?;
    let mode = stat.st_mode & 0o7777;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && mode & 0o077 != 0 {
        return Err(format!("wrong-mode mode={mode:04o} (chmod 0600 it: others can use it)"));
    }
    let text = root.read(path).map_err(|error| format!("the record {error}"))?;
    match Document::parse(&text) {
        Ok(document) => Ok(Some((document.user, document.uid))),
        Err(BadRecord::Sealed(_)) => Ok(None),
        Err(bad) => Err(bad.fact().to_string()),
    }
}

/// Names and uids of a root's own file: no name service is asked. The first of several of the same name counts.
fn accounts(root: &Root) -> Option<HashMap<Vec<u8>, u32>> {
    let text = root.read(Path::new("/etc/passwd")).ok()?;
    let mut accounts = HashMap::new();
    for line in text.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b':');
        let (Some(name), uid) = (fields.next(), fields.nth(1)) else { continue };
        let uid = uid.and_then(|uid| std::str::from_utf8(uid).ok()?.parse().ok());
        if let Some(uid) = uid {
            accounts.entry(name.to_vec()).or_insert(uid);
        }
    }
    Some(accounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    const STATE: &str = "var/lib/pam_totp";
    const SYSTEM: &str = "version = 1\n[defaults]\nstore = \"system\"\n";

    struct Image(TempDir);

    impl Image {
        fn new(policy: &str) -> Self {
            let image = Self(tempfile::tempdir().unwrap());
            image.put("etc/pam.d/sshd", b"auth required pam_totp.so\n");
            image.put("etc/pam.d/login", b"auth required pam_totp.so\n");
            image.put("etc/security/pam_totp.toml", policy.as_bytes());
            image.put("etc/passwd", b"root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nodd\n");
            image
        }

        fn with_store() -> Self {
            let image = Self::new(SYSTEM);
            image.put(&format!("{STATE}/store.id"), b"0123\n");
            fs::create_dir(image.0.path().join(STATE).join(RECORDS)).unwrap();
            image
        }

        fn put(&self, path: &str, content: &[u8]) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
        }

        /// The record in this file, of this user and uid.
        fn record(&self, file: &str, user: &str, uid: u32) {
            let record = Record::of(Vec::new());
            let text = Document { user: user.to_owned(), uid, generation: 1, record }.text().unwrap();
            self.raw(file, text.expose());
        }

        fn raw(&self, file: &str, content: &[u8]) {
            let path = format!("{STATE}/{RECORDS}/{file}");
            self.put(&path, content);
            fs::set_permissions(self.0.path().join(path), fs::Permissions::from_mode(0o600)).unwrap();
        }

        fn report_for(&self, user: Option<&str>) -> Report {
            let (root, mut report) = (Root::open(self.0.path()).unwrap(), Report::default());
            let case = Case::read(&root, &[], user, None, &mut Report::default());
            examine(&case, &mut report);
            report
        }

        fn report(&self) -> Report {
            self.report_for(None)
        }
    }

    fn names(report: &Report) -> Vec<&'static str> {
        report.findings.iter().map(|finding| finding.name).collect()
    }

    #[test]
    fn what_is_not_there_yet_in_an_image_is_a_note_and_half_a_store_a_finding() {
        let image = Image::new(SYSTEM);
        let report = image.report();
        assert_eq!((names(&report), report.notes.len()), (vec![], 1));
        assert!(report.notes[0].contains("not there yet"), "{:?}", report.notes);
        fs::create_dir_all(image.0.path().join(STATE)).unwrap();
        assert_eq!(names(&image.report()), ["store-missing"], "once, though two services need it");
        image.put(&format!("{STATE}/store.id"), b"");
        assert_eq!(names(&image.report()), ["store-missing"]);
        image.put(&format!("{STATE}/store.id"), b"0123\n");
        assert_eq!(names(&image.report()), ["store-missing"], "no records/");
        let report = Image::new("version = 1\n").report();
        assert!(report.findings.is_empty() && report.notes[0].contains("the machine itself"), "{report:?}");
    }

    #[test]
    fn records_of_an_image_are_held_against_its_own_users() {
        let image = Image::with_store();
        image.record("alice", "alice", 1000);
        image.record("alice,key-id%3Ax", "alice,key-id%3Ax", 1000);
        // What is no record.
        image.raw("alice~", b"");
        image.raw("~one", b"");
        assert_eq!(names(&image.report()), [""; 0]);

        image.record("root", "root", 7);
        image.record("daemon", "daemon", 1);
        image.raw("alice", b"x");
        image.record("alice,key-id%3Ax", "root", 1000);
        let report = image.report();
        assert_eq!(names(&report), ["record-broken", "record-of-another", "record-orphaned", "record-of-another"]);
        let files: Vec<_> =
            report.findings.iter().map(|f| f.place.as_ref().unwrap().rsplit('/').next().unwrap()).collect();
        assert_eq!(files, ["alice", "alice,key-id%3Ax", "daemon", "root"]);
        assert_eq!(names(&image.report_for(Some("root"))), ["record-of-another"]);

        fs::remove_file(image.0.path().join("etc/passwd")).unwrap();
        let report = image.report();
        assert_eq!(names(&report), ["record-broken"], "whose they are cannot be told");
        assert!(report.notes.iter().any(|note| note.contains("/etc/passwd")), "{:?}", report.notes);
    }

    #[test]
    fn a_record_that_others_can_read_or_that_is_no_file_is_broken() {
        let image = Image::with_store();
        image.record("alice", "alice", 1000);
        let path = image.0.path().join(STATE).join(RECORDS).join("alice");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let report = image.report();
        assert!(names(&report) == ["record-broken"] && report.findings[0].what.contains("wrong-mode"), "{report:?}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(image.report().findings[0].what.contains("is a directory"));
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(names(&image.report()), ["record-broken"]);
    }

    #[test]
    fn of_many_alike_the_first_are_told_and_the_rest_counted() {
        let image = Image::with_store();
        for number in 0..25 {
            image.raw(&format!("u{number}"), b"x");
        }
        let report = image.report();
        assert_eq!((report.findings.len(), report.notes.len()), (MOST, 1));
        assert!(report.notes[0].starts_with("record-orphaned: 15 more"), "{:?}", report.notes);
        let names: Vec<_> = (0..12).map(|number| number.to_string()).collect();
        assert_eq!(several(&names), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
        assert_eq!(several(&names[..2]), "0, 1");
    }

    #[test]
    fn a_full_disk_weighs_what_its_file_system_makes_of_it() {
        let judged = |file_system, bytes, files, is_system| {
            let room = Room { file_system, is_read_only: false, bytes, files };
            of_room(&room, Path::new("/state"), is_system).map(|finding| (finding.name, finding.weight))
        };
        let (btrfs, ext4) = (FileSystem::CopyOnWrite("btrfs"), FileSystem::InPlace("ext4"));
        assert_eq!(judged(btrfs, COPYING_ROOM, None, true), None);
        assert_eq!(judged(btrfs, COPYING_ROOM - 1, None, true), Some(("store-full", Weight::Closed)));
        assert_eq!(judged(btrfs, 0, None, false), Some(("store-full", Weight::Weak)));
        assert_eq!(judged(ext4, ROOM, Some(1), true), None);
        assert_eq!(judged(ext4, ROOM - 1, Some(1), true), Some(("store-full", Weight::Weak)));
        assert_eq!(judged(ext4, 1 << 30, Some(0), true), Some(("store-full", Weight::Weak)));
        assert_eq!(judged(FileSystem::Unknown(7), 1 << 30, Some(9), true), None);
        for other in [FileSystem::Memory("tmpfs"), FileSystem::Network("nfs")] {
            assert_eq!(judged(other, 1 << 30, None, true), Some(("store-file-system", Weight::Weak)));
            assert_eq!(judged(other, 1 << 30, None, false), None);
        }
        let read_only = |is_system| {
            let room = Room { file_system: ext4, is_read_only: true, bytes: 0, files: Some(0) };
            of_room(&room, Path::new("/state"), is_system).map(|finding| (finding.name, finding.weight))
        };
        assert_eq!(read_only(true), Some(("store-read-only", Weight::Closed)));
        assert_eq!(read_only(false), Some(("state-read-only", Weight::Weak)));
    }
}
