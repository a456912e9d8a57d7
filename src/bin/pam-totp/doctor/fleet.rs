//! Where records are the fleet's (`store = "fleet"`): whether this host gets to them, and what the cluster is like.

use super::case::Case;
use super::module::{quoted, shown};
use super::report::{Finding, Report, Weight};
use super::state::several;
use crate::host::Access;
use crate::status::count;
use pam_totp::fact::Fact;
use pam_totp::fleet::conf::{self, Conf};
use pam_totp::fleet::etcd::{Cluster, Member};
use pam_totp::policy::{Policy, StoreKind};
use pam_totp::store::fleet::{FleetStore, Host, PATIENCE};
use pam_totp::store::seal::{self, KeyRing};
use pam_totp::store::system::room;
use pam_totp::store::{Roster, StoreError};
use pam_totp::system::private::Directory;
use pam_totp::system::{clock, passwd};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

/// What is remembered of documents that were read here, in `state_dir`.
const MARKS: &str = "fleet-marks";
/// Bytes that it needs for one more.
const ROOM: u64 = 16 << 10;
/// Bytes that etcd's file may have, where the server does not say (`--quota-backend-bytes`).
const QUOTA: u64 = 2 << 30;
/// Of ten parts of that.
const NEARLY_FULL: u64 = 8;
/// Seconds by which clocks may differ: those of machines with NTP differ by less than one, and a `Date` has whole ones.
const CLOCK: u64 = 5;
/// After so many seconds etcd has compacted what was overwritten, with any setting that keeps its file small.
const KEPT: u64 = 3600;
/// After so many seconds of silence one asks whether a host is still there. It speaks at logins, and when it has none it says
/// nothing.
const SILENT: u64 = 30 * 86_400;
/// What no host of a fleet may read: neither is below a prefix.
const OUTSIDE: [&[u8]; 2] = [b"/", b"pam_totp of others"];

const NOBODY: &str = "Nobody gets in where a code is asked for.";
const OTHERS_GO_ON: &str = "The fleet goes on without it, as long as more than half of the cluster are there.";
const CERTIFICATES: &str = "openssl x509 -noout -subject -dates -ext subjectAltName,extendedKeyUsage -in CERTIFICATE";

/// Whether the fleet is out of reach, which says all there is to say of the records in it.
pub(super) fn examine(case: &Case<'_>, report: &mut Report) -> bool {
    let policies = case.services.iter().filter_map(|service| service.policy.as_ref());
    let mut of_fleet: Vec<_> = policies.filter(|policy| policy.store.value == StoreKind::Fleet).collect();
    of_fleet.dedup_by_key(|policy| policy.state_dir.value.clone());
    let Some(policy) = of_fleet.first() else { return false };
    if !case.root.is_live() {
        report.note("what is in the fleet, and whether this host gets to it, no file says");
        return true;
    }
    if passwd::process_uids().1 != 0 {
        // That there is more to see is said of all that is root's alone.
        return true;
    }
    of_fleet.iter().for_each(|policy| judge_state(&policy.state_dir, report));
    let ring = judge_ring(report);
    let path = Path::new(conf::PATH);
    let (conf, cluster) = match Conf::read(path).and_then(|conf| Ok((Cluster::new(&conf)?, conf))) {
        Ok((cluster, conf)) => (conf, cluster),
        Err(fact) => {
            report.findings.push(no_conf(&fact));
            return true;
        }
    };
    let answers = judge_cluster(&conf, &cluster, report);
    let Some(ring) = ring.filter(|_| answers) else { return true };
    judge_documents(policy, &conf, &cluster, &ring, report)
}

fn finding(weight: Weight, name: &'static str, place: impl Into<Option<String>>, what: impl Into<String>) -> Finding {
    Finding {
        weight,
        name,
        service: None,
        what: what.into(),
        place: place.into(),
        why: String::new(),
        way_out: String::new(),
        lines: Vec::new(),
    }
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

// ---- This host ----

fn no_conf(fact: &Fact) -> Finding {
    let path = conf::PATH.to_owned();
    let (what, way_out, lines) = match fact.word() {
        "no-fleet-conf" => (
            "this host is of a fleet, and no file says where that is".to_owned(),
            "Write it, root's alone, as pam_totp.fleet.toml(5) has it; on a host that has one, it shows how:",
            vec![format!("install -m 0600 COPY {path}")],
        ),
        // Only of the file itself: it names others.
        "bad-fleet-conf" if fact.to_string().contains("cause=") => (
            format!("where the fleet is cannot be read: {fact}"),
            "It is believed if it is root's alone:",
            vec![format!("chown root:root {path}"), format!("chmod 0600 {path}")],
        ),
        "bad-fleet-conf" => {
            (format!("where the fleet is says nothing of use: {fact}"), "Correct what it names.", Vec::new())
        }
        _ => (
            format!("what this host comes to the fleet with cannot be used: {fact}"),
            "Put the file right that it names; keys and passwords are root's alone:",
            vec!["chmod 0600 FILE".to_owned()],
        ),
    };
    finding(Weight::Closed, "fleet-conf", path, what).because(NOBODY).until(way_out, &lines)
}

/// The keys, if something can be done with them.
fn judge_ring(report: &mut Report) -> Option<KeyRing> {
    let ring = |name, what: String| finding(Weight::Closed, name, seal::PATH.to_owned(), what).because(NOBODY);
    match KeyRing::read_if_there(Path::new(seal::PATH)) {
        Ok(Some(keys)) if keys.active().is_some() => return Some(keys),
        Ok(Some(keys)) => {
            let known: Vec<_> = keys.keys().map(|(id, _)| format!("pam-totp key activate {id}")).collect();
            let inactive = ring("fleet-key-inactive", "this host seals with no key, and writes nothing without".into());
            let way_out = "Have the one seal that the other hosts seal with (pam-totp fleet list says which):";
            report.findings.push(inactive.until(way_out, &known));
        }
        Ok(None) => {
            let none = ring("fleet-key-ring", "this host does not have the keys that the fleet is sealed with".into());
            let way_out =
                format!("Copy {} from a host that has them, root's alone; on the first one, make them:", seal::PATH);
            report.findings.push(none.until(way_out, &lines(&["pam-totp key new", "pam-totp key activate ID"])));
        }
        Err(error) => {
            let broken = ring("fleet-key-ring", format!("the keys of the fleet cannot be used: {}", error.fact()));
            let way_out = "It is believed if it is root's alone; if it is broken, copy it from another host:";
            let lines = [format!("chown root:root {}", seal::PATH), format!("chmod 0600 {}", seal::PATH)];
            report.findings.push(broken.until(way_out, &lines));
        }
    }
    None
}

/// What `state_dir` is to a host of a fleet: there is no record in it.
fn judge_state(path: &Path, report: &mut Report) {
    let directory = match Directory::open(path) {
        // `state` says what is wrong with it.
        Err(_) => return,
        Ok(None) => {
            return report.note(format!("{} is not there yet: this host makes it at its first login", shown(path)));
        }
        Ok(Some(directory)) => directory,
    };
    let room = room(&directory).ok();
    if room.as_ref().is_some_and(|room| !room.is_read_only && (room.bytes < ROOM || room.files == Some(0))) {
        let what = format!("the file system of {} is full", shown(path));
        report.findings.push(
            finding(Weight::Weak, "fleet-state-full", shown(path), what)
                .because("What this host has seen of the fleet's documents it cannot write down: one that is put back may go unnoticed here.")
                .until("Make room, or give it a file system of its own.", &[]),
        );
    }
    if room.is_some_and(|room| room.is_read_only) {
        let what = format!("{} cannot be written to", shown(path));
        let closed = finding(Weight::Closed, "fleet-state", shown(path), what);
        report.findings.push(
            closed
                .because(format!("This host remembers there what it has seen of the fleet's documents. {NOBODY}"))
                .until("Have it writable:", &[format!("mount -o remount,rw {}", quoted(path))]),
        );
    }
    let mut seen = 0_usize;
    if let Ok(Some(marks)) = directory.subdirectory(MARKS) {
        let _ = marks.for_each_name(|_| seen = seen.saturating_add(1));
    }
    report.note(format!(
        "{} has no records: they are in the cluster. This host remembers {} of there, which nobody puts back unnoticed",
        shown(path),
        count(seen, "document")
    ));
    let is_empty = |name: &str| {
        let mut entries = 0_usize;
        let read = directory.subdirectory(name).map(|found| {
            found.map(|found| found.for_each_name(|name| entries = entries.saturating_add(usize::from(name != "lock"))))
        });
        read.is_err() || entries == 0
    };
    if !is_empty("records") {
        report.note(format!(
            "{} holds records of a root-only store, which nobody looks at any more: take them away once all of these people are in the \
             fleet (pam-totp status --all)",
            shown(&path.join("records"))
        ));
    }
}

// ---- The cluster ----

fn deadline() -> Instant {
    let now = clock::instant();
    now.checked_add(PATIENCE).unwrap_or(now)
}

/// What each member says of itself. One that was slow is asked again: it may be the machine that is busy, this one or that one.
fn members_of(cluster: &Cluster) -> Vec<(String, Result<Member, Fact>)> {
    let is_slow =
        |member: &Result<Member, Fact>| member.as_ref().is_err_and(|fact| fact.to_string().contains("error=timed-out"));
    let mut first = cluster.members(deadline());
    if first.iter().any(|(_, member)| is_slow(member)) {
        let again = cluster.members(deadline());
        let slow = first.iter_mut().zip(again).filter(|((_, member), _)| is_slow(member));
        slow.for_each(|(first, again)| *first = again);
    }
    first
}

/// Whether it answers to this host.
fn judge_cluster(conf: &Conf, cluster: &Cluster, report: &mut Report) -> bool {
    let fleet = format!("{}fleet", conf.prefix).into_bytes();
    let read = cluster.read(&[&fleet], deadline()).map(drop);
    let asked = members_of(cluster);
    let weight = if read.is_ok() { Weight::Weak } else { Weight::Closed };
    let silent = asked.iter().filter_map(|(endpoint, member)| Some((endpoint, member.as_ref().err()?)));
    let unreachable: Vec<_> = silent.map(|(endpoint, fact)| out_of_reach(weight, endpoint, fact)).collect();
    let members: Vec<_> =
        asked.iter().filter_map(|(endpoint, member)| Some((endpoint.as_str(), member.as_ref().ok()?))).collect();
    // What is wrong with this host's clock is said of the clock.
    let clock = judge_clocks(&members, weight);
    if let Err(fact) = &read {
        let is_told = match fact.word() {
            "clock-off" => clock.is_some(),
            // If nobody answers, why not is said of each.
            "etcd-unreachable" => members.is_empty(),
            _ => unreachable.iter().any(|finding| finding.what.contains(&fact.to_string())),
        };
        report.findings.extend((!is_told).then(|| no_answer(conf, fact)));
    }
    report.findings.extend(unreachable);
    report.findings.extend(clock);
    report.findings.extend(judge_versions(&members));
    report.findings.extend(judge_state_of(&members));
    if read.is_ok() {
        judge_rights(conf, cluster, report);
    }
    read.is_ok()
}

/// What is wrong with the certificates, where something is; and what to do.
fn of_certificates(said: &str) -> Option<(&'static str, &'static str, Vec<String>)> {
    let (why, way_out, lines_to_type): (_, _, &[&str]) = match () {
        () if said.contains("CommonName") => (
            "With users, etcd's gateway takes a client certificate that names somebody (CN) for nobody's, whatever the password.",
            "Issue this host's anew, with an empty subject and a name as SAN alone:",
            &[
                "openssl req -x509 -CA ca.pem -CAkey ca.key -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj / \
                 -addext basicConstraints=CA:FALSE -addext subjectAltName=critical,DNS:HOST -addext extendedKeyUsage=clientAuth \
                 -keyout bastion.key -out bastion.pem",
            ],
        ),
        () if said.contains("extendedKeyUsage serverAuth,clientAuth") => (
            "etcd's gateway comes to etcd's own port with the server's certificate, which is not good for a client.",
            "Issue the server's anew, good for both, and start it again:",
            &[
                "openssl req -x509 -CA ca.pem -CAkey ca.key -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=etcd \
                 -addext basicConstraints=CA:FALSE -addext subjectAltName=IP:ADDRESS -addext extendedKeyUsage=serverAuth,clientAuth \
                 -keyout server.key -out server.pem",
                "systemctl restart etcd",
            ],
        ),
        () if said.contains("does not take this host's certificate") => (
            "etcd hangs up on whoever has no certificate of its authority that is valid today.",
            "Look at what `cert` names, and issue another; etcd's own authority is its --trusted-ca-file:",
            &[CERTIFICATES],
        ),
        () if said.contains("not of the authority in `ca`") => (
            "Whoever answers there is not who `ca` vouches for, so it is told nothing.",
            "Put the certificate of the cluster's authority where `ca` says; if it is there, find out who answers:",
            &[CERTIFICATES],
        ),
        () if said.contains("bad-certificate") => (
            "A server that cannot show who it is, is told nothing.",
            "Look at the server's certificate; when it is a new one, etcd takes it at the next connection:",
            &[CERTIFICATES],
        ),
        () => return None,
    };
    Some((why, way_out, lines(lines_to_type)))
}

fn out_of_reach(weight: Weight, endpoint: &str, fact: &Fact) -> Finding {
    let said = fact.to_string();
    let goes_on = if weight == Weight::Closed { NOBODY } else { OTHERS_GO_ON };
    if let Some((why, way_out, lines)) = of_certificates(&said) {
        let found =
            finding(weight, "etcd-certificate", endpoint.to_owned(), format!("no certificate is taken: {said}"));
        return found.because(format!("{why} {goes_on}")).until(way_out, &lines);
    }
    let what = format!("no answer from {endpoint}: {said}");
    let address = endpoint.split_once("://").map_or(endpoint, |(_, address)| address);
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "2379"));
    let host = host.trim_matches(['[', ']']);
    let lines = [format!("nc -z -w 1 {host} {port}"), "journalctl -u etcd".to_owned()];
    let found = finding(weight, "etcd-unreachable", endpoint.to_owned(), what).because(goes_on);
    found.until("Look whether etcd runs there, and whether a firewall is between:", &lines)
}

/// The cluster is there, and does not do what it is asked for.
fn no_answer(conf: &Conf, fact: &Fact) -> Finding {
    let said = fact.to_string();
    if let Some((why, way_out, lines)) = of_certificates(&said) {
        let found = finding(Weight::Closed, "etcd-certificate", None, format!("no certificate is taken: {said}"));
        return found.because(format!("{why} {NOBODY}")).until(way_out, &lines);
    }
    let user = conf.user.as_ref().map_or("USER", |(user, _)| user.as_str());
    let user = quoted(Path::new(user));
    let (name, what, way_out, lines) = match () {
        () if said.contains("permission") => (
            "etcd-role",
            format!("this host may not read where the fleet is: {said}"),
            "Give its user a role for what is below the prefix, and for nothing else:",
            vec![
                format!("etcdctl role grant-permission fleet readwrite --prefix=true {}", conf.prefix),
                format!("etcdctl user grant-role {user} fleet"),
            ],
        ),
        () if said.contains("authentication-is-not-enabled") => (
            "etcd-open",
            format!("this host has a user, and the cluster knows none: {said}"),
            "Have it know users: whoever gets to it writes there otherwise:",
            lines(&["etcdctl auth enable"]),
        ),
        () if said.contains("etcd-refused") => (
            "etcd-user",
            format!("etcd does not know who this host is: {said}"),
            "Put the password right, there or in `password_file`:",
            vec![format!("etcdctl user passwd {user}")],
        ),
        () => (
            "etcd-no-answer",
            format!("the cluster does not do what it is asked for: {said}"),
            "Without more than half of its members it does nothing. Look at them:",
            lines(&["etcdctl endpoint status --cluster -w table", "etcdctl endpoint health --cluster"]),
        ),
    };
    finding(Weight::Closed, name, None, what).because(NOBODY).until(way_out, &lines)
}

// ---- What its members say ----

/// The three numbers of a version.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

/// Whether roles are no boundary in it. `None`: what it is nobody knows.
fn lets_past_roles(version: &str) -> Option<bool> {
    let [major, minor, patch] = numbers(version)?;
    Some(match (major, minor) {
        (3, 4) => patch < 44,
        (3, 5) => patch < 30,
        (3, 6) => patch < 11,
        _ => (major, minor) < (3, 4),
    })
}

fn judge_versions(members: &[(&str, &Member)]) -> Option<Finding> {
    let old: BTreeSet<_> = members
        .iter()
        .filter(|(_, member)| lets_past_roles(&member.version) != Some(false))
        .map(|(_, member)| member.version.as_str())
        .collect();
    if old.is_empty() {
        return None;
    }
    let old = old.into_iter().collect::<Vec<_>>().join(", ");
    let what =
        format!("roles are no boundary in etcd {old} (GHSA-rfx7-8w68-q57q, GHSA-q8m4-xhhv-38mg, CVE-2026-44283)");
    Some(
        finding(Weight::Weak, "etcd-version", None, what)
            .because(
                "Whoever has a certificate of this cluster may read and write more than their role says, and may stop all writing \
                 by an alarm. What is in the fleet stays sealed, and what is put there by others is not believed.",
            )
            .until(
                "Have 3.5.33, 3.6.14 or later (3.4.44, 3.5.30 and 3.6.11 have these put right), a member at a time. Until then: a \
                 cluster for this alone, its own authority, and a firewall that lets nobody but the fleet's hosts to it.",
                &[],
            ),
    )
}

fn endpoints_where(members: &[(&str, &Member)], is_meant: impl Fn(&Member) -> bool) -> Option<String> {
    let meant: Vec<_> =
        members.iter().filter(|(_, member)| is_meant(member)).map(|(endpoint, _)| (*endpoint).to_owned()).collect();
    (!meant.is_empty()).then(|| several(&meant))
}

fn is_nearly_full(member: &Member) -> bool {
    let quota = member.quota.filter(|quota| *quota > 0).unwrap_or(QUOTA);
    member.db_size / NEARLY_FULL >= quota / 10
}

/// Alarms, room, leaders and whether it is one cluster.
fn judge_state_of(members: &[(&str, &Member)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let has = |alarm: &'static str| move |member: &Member| member.alarms.iter().any(|one| one.contains(alarm));
    let make_room = lines(&[
        "etcdctl compact REVISION",
        "etcdctl defrag --cluster",
        "etcdctl alarm disarm",
        "etcdctl endpoint status --cluster -w table",
    ]);
    if let Some(endpoints) = endpoints_where(members, has("NOSPACE")) {
        let what = format!("etcd is full, and takes nothing more: alarm NOSPACE at {endpoints}");
        findings.push(
            finding(Weight::Closed, "etcd-nospace", None, what)
                .because(format!("A code that cannot be marked as used is not taken. {NOBODY}"))
                .until(
                    "Throw away what was overwritten (REVISION as the last line shows it), and take back the alarm:",
                    &make_room,
                ),
        );
    } else if let Some(endpoints) = endpoints_where(members, is_nearly_full) {
        let what = format!(
            "etcd is nearly full at {endpoints}: more than four fifths of --quota-backend-bytes, 2 GiB where it does not say"
        );
        findings.push(
            finding(Weight::Weak, "etcd-nearly-full", None, what)
                .because("Once it is full it takes nothing more, and nobody in the fleet gets in.")
                .until(
                    "Throw away what was overwritten, and have etcd do so itself (--auto-compaction-retention=5m):",
                    &make_room,
                ),
        );
    }
    if let Some(endpoints) = endpoints_where(members, has("CORRUPT")) {
        let what = format!("members of etcd differ in what they hold: alarm CORRUPT at {endpoints}");
        findings.push(
            finding(Weight::Closed, "etcd-corrupt", None, what)
                .because("What is read depends on who is asked; etcd takes nothing more.")
                .until(
                    "Take the member out that is wrong, and have it come back empty:",
                    &lines(&["etcdctl alarm list", "etcdctl member remove ID"]),
                ),
        );
    }
    if let Some(endpoints) = endpoints_where(members, |member| member.leader == 0) {
        findings.push(
            finding(Weight::Weak, "etcd-no-leader", None, format!("no leader is known at {endpoints}"))
                .because("It takes part in nothing: an election takes a second or two, and this was looked at later.")
                .until(
                    "Look whether it gets to the others, and they to it:",
                    &lines(&["etcdctl endpoint status --cluster -w table"]),
                ),
        );
    }
    let clusters: BTreeSet<_> = members.iter().map(|(_, member)| member.cluster).collect();
    if clusters.len() > 1 {
        let what = format!("`endpoints` are of {} clusters", clusters.len());
        findings.push(
            finding(Weight::Closed, "etcd-clusters", conf::PATH.to_owned(), what)
                .because("Each would take a code once. Only the one that is asked first is believed, and that is another each time.")
                .until("Name in `endpoints` the members of one.", &[]),
        );
    }
    findings
}

/// `weight`: how it weighs where this host is off by so much that it is let in nowhere.
fn judge_clocks(members: &[(&str, &Member)], weight: Weight) -> Option<Finding> {
    let off: Vec<_> = members
        .iter()
        .filter_map(|(endpoint, member)| Some((*endpoint, member.ahead?)))
        .filter(|(_, ahead)| ahead.unsigned_abs() > CLOCK)
        .collect();
    if off.is_empty() {
        return None;
    }
    let side = |ahead: i64| if ahead < 0 { "behind" } else { "ahead" };
    let each: Vec<_> = off
        .iter()
        .map(|(endpoint, ahead)| format!("{endpoint} is {} s {}", ahead.unsigned_abs(), side(*ahead)))
        .collect();
    let is_own = off.len().saturating_mul(2) > members.len();
    let whose = if is_own { "this host's clock is not the cluster's" } else { "a clock of the cluster's is off" };
    let found = finding(
        if is_own { weight } else { Weight::Weak },
        "fleet-clock",
        None,
        format!("{whose}: {}", several(&each)),
    );
    Some(
        found
            .because("A code is good for half a minute: hosts that do not agree on the time refuse codes, and from half a minute on this one denies everybody (clock-off).")
            .until("Have all of them synchronised with the same servers; this says how far off one is:", &lines(&["chronyc tracking", "timedatectl timesync-status"])),
    )
}

/// What this host's user may do that is none of its business.
fn judge_rights(conf: &Conf, cluster: &Cluster, report: &mut Report) {
    let read = |key: &&[u8]| cluster.read(&[key], deadline()).is_ok();
    if !OUTSIDE.iter().any(read) {
        return;
    }
    let prefix = &conf.prefix;
    let Some((user, _)) = &conf.user else {
        let what = "the cluster lets in whoever has a certificate, and asks for no user";
        let open = finding(Weight::Weak, "etcd-open", None, what);
        let because = "They cannot read what is sealed, but may delete all of it, and then nobody gets in. No host can be taken out but \
                       by its certificate.";
        let way_out = "Make a user for each host with a role for the prefix, write it into the configuration of each, and then have etcd \
                       ask for it:";
        let lines = [
            "etcdctl role add fleet".to_owned(),
            format!("etcdctl role grant-permission fleet readwrite --prefix=true {prefix}"),
            format!("etcdctl user add {}", conf.host),
            format!("etcdctl user grant-role {} fleet", conf.host),
            "etcdctl auth enable".to_owned(),
        ];
        return report.findings.push(open.because(because).until(way_out, &lines));
    };
    let user = quoted(Path::new(user));
    let what = format!("the user {user} of this host may read more of the cluster than {prefix}");
    let wide = finding(Weight::Weak, "etcd-role-too-wide", None, what);
    let way_out = "Leave it the one role that it needs (see which others it has):";
    let lines = [
        format!("etcdctl user get {user} --detail"),
        format!("etcdctl user revoke-role {user} ROLE"),
        format!("etcdctl role grant-permission fleet readwrite --prefix=true {prefix}"),
    ];
    report.findings.push(wide.because("Whoever takes over this host has that too.").until(way_out, &lines));
}

// ---- What is in it ----

/// Whether nothing more can be said of what is in it.
fn judge_documents(policy: &Policy, conf: &Conf, cluster: &Cluster, ring: &KeyRing, report: &mut Report) -> bool {
    let access = match Access::new(policy, None) {
        Ok(access) => access,
        Err(error) => {
            report.note(format!("what is in the fleet cannot be told: {error:#}"));
            return true;
        }
    };
    let fleet = match access.fleet(policy) {
        Ok(fleet) => fleet,
        Err(error) => {
            report.note(format!("what is in the fleet cannot be told: {error:#}"));
            return true;
        }
    };
    if let Err(error) = fleet.check() {
        report.findings.push(no_fleet(conf, error));
        return true;
    }
    if !judge_keys(&fleet, ring, report) {
        report.note("which hosts and people there are was not looked at: not all of the fleet can be read here");
        return true;
    }
    match fleet.hosts() {
        Ok(hosts) => judge_hosts(&hosts, &conf.host, ring, clock::now(), report),
        Err(error) => report.note(format!("which hosts there are cannot be told: {}", error.into_fact())),
    }
    judge_compaction(&fleet, conf, cluster, report);
    false
}

fn no_fleet(conf: &Conf, error: StoreError) -> Finding {
    let fact = error.into_fact();
    let place = format!("etcd:{}fleet", conf.prefix);
    match fact.word() {
        "no-fleet" => finding(Weight::Closed, "fleet-missing", place, format!("there is no fleet at {}", conf.prefix))
            .because(NOBODY)
            .until(
                "If another host has made one, correct `prefix` or `endpoints`. On the first host, make it:",
                &lines(&["pam-totp fleet init"]),
            ),
        "document-put-back" | "document-deleted" | "document-exchanged" => finding(
            Weight::Closed,
            "fleet-rolled-back",
            place,
            format!("the cluster is not what this host has seen: {fact}"),
        )
        .because(NOBODY)
        .until(
            "If it was restored from a snapshot, and by you, take it as it is, on every host:",
            &lines(&["pam-totp fleet accept-rollback --all"]),
        ),
        _ => finding(Weight::Closed, "fleet-unreadable", place, format!("this host cannot read the fleet: {fact}"))
            .because(NOBODY)
            .until(
                format!("Mostly it has other keys: compare, and copy {} from a host that gets people in:", seal::PATH),
                &lines(&["pam-totp key list"]),
            ),
    }
}

/// Whether this host has all keys that something is sealed with.
fn judge_keys(fleet: &FleetStore<'_>, ring: &KeyRing, report: &mut Report) -> bool {
    let sealed = match fleet.reseal_all(true) {
        Ok(sealed) => sealed,
        Err(error) => {
            report.note(format!("what the fleet is sealed with cannot be told: {}", error.into_fact()));
            return false;
        }
    };
    let is_known = |id: &str| ring.keys().any(|(known, _)| known.to_string() == id);
    let active = ring.active().map(|id| id.to_string());
    for (id, documents) in sealed.by_key.iter().filter(|(id, _)| !is_known(id)) {
        let what = format!("{} sealed with the key {id}, which this host does not have", count(*documents, "document"));
        report.findings.push(
            finding(Weight::Closed, "fleet-key-missing", seal::PATH.to_owned(), what)
                .because("Whose these are gets in at other hosts, and not here.")
                .until(
                    format!("Copy {} from a host that has it (it says who):", seal::PATH),
                    &lines(&["pam-totp fleet list"]),
                ),
        );
    }
    let of_others = sealed.by_key.iter().filter(|(id, _)| is_known(id) && Some(id) != active.as_ref());
    let (keys, documents) = of_others.fold((0_usize, 0_usize), |(keys, documents), (_, count)| {
        (keys.saturating_add(1), documents.saturating_add(*count))
    });
    if keys > 0 {
        report.note(format!(
            "{} still sealed with {} that seals nothing any more: pam-totp key reseal",
            count(documents, "document"),
            if keys == 1 { "a key".to_owned() } else { format!("{keys} keys") }
        ));
    }
    let idle: Vec<_> = ring
        .keys()
        .filter(|(id, is_active)| !is_active && !sealed.by_key.iter().any(|(known, _)| *known == id.to_string()))
        .map(|(id, _)| id.to_string())
        .collect();
    if !idle.is_empty() {
        report.note(format!("nothing in the fleet is sealed with {}", idle.join(", ")));
    }
    for (key, fact) in sealed.failed.iter().take(1) {
        let others = sealed.failed.len().saturating_sub(1);
        let what = format!(
            "there is something in the fleet that pam_totp has not written: {} ({fact}), and {others} more",
            key.escape_debug()
        );
        report.findings.push(
            finding(Weight::Weak, "fleet-foreign", format!("etcd:{}", key.escape_debug()), what)
                .because("Who writes there is not of the fleet, or another program has the same prefix.")
                .until("Find out who did, and give each a prefix of its own.", &[]),
        );
    }
    sealed.by_key.iter().all(|(id, _)| is_known(id))
}

fn judge_hosts(hosts: &[Host], own: &str, ring: &KeyRing, now: u64, report: &mut Report) {
    let active = ring.active().map(|id| id.to_string());
    let place = |host: &Host| format!("etcd:hosts/{}", host.name);
    match hosts.iter().find(|host| host.name == own) {
        Some(host) if host.revoked.is_some() => report.findings.push(
            finding(
                Weight::Closed,
                "fleet-host-revoked",
                place(host),
                format!("this host, {own}, was taken out of the fleet"),
            )
            .because("It could read what was sealed then, and is asked for nothing since.")
            .until(
                format!(
                    "Set it up anew, with another name (`host` in {}), the new keys and a new certificate.",
                    conf::PATH
                ),
                &[],
            ),
        ),
        Some(_) => {}
        None => {
            report.note(format!("this host, {own}, has not yet said that it is there: it does so at its first login"))
        }
    }
    for host in hosts.iter().filter(|host| host.revoked.is_none() && host.name != own) {
        if host.is_unread() {
            let what = format!("what there is of a host {} cannot be read with the keys of this host", host.name);
            report.findings.push(
                finding(Weight::Weak, "fleet-host-unread", place(host), what)
                    .because("It was spoiled, or somebody wrote it who may write to the cluster and has none of the fleet's keys.")
                    .until(
                        "If there is such a host, a login there writes it anew; if not, take it out with `pam-totp fleet revoke` and --yes. \
                         Give no keys to a host that you do not know.",
                        &[],
                    ),
            );
            continue;
        }
        let has = |id: &str| host.keys.iter().any(|(key, _)| key == id);
        if let Some(active) = active.as_ref().filter(|active| !has(active)) {
            let what = format!("{} does not have the key {active} that this host seals with", host.name);
            report.findings.push(
                finding(Weight::Closed, "fleet-host-keys", place(host), what)
                    .because("Whom this host writes something about gets in there no more.")
                    .until(
                        format!("Copy {} there; it says what it has at its next login:", seal::PATH),
                        &[format!("scp -p {} root@{}:{}", seal::PATH, host.name, seal::PATH)],
                    ),
            );
        }
        if host.version != env!("CARGO_PKG_VERSION") {
            let what =
                format!("{} has pam_totp {}, and this host {}", host.name, host.version, env!("CARGO_PKG_VERSION"));
            report.findings.push(
                finding(Weight::Weak, "fleet-host-version", place(host), what)
                    .because("What a newer one writes an older one may not be able to read, and it denies then.")
                    .until("Bring all hosts to the same version, within days.", &[]),
            );
        }
        if now.saturating_sub(host.at) > SILENT {
            let what = format!("nothing was heard of {} since {}", host.name, clock::utc(host.at));
            report.findings.push(
                finding(Weight::Weak, "fleet-host-silent", place(host), what)
                    .because("It says something at logins. If it is gone, whoever has its disk has the fleet's keys.")
                    .until(
                        "If it is there, log in there once. If it is gone, or nobody knows where it is, take it out:",
                        &[format!("pam-totp fleet revoke {}", host.name)],
                    ),
            );
        }
    }
}

/// No server says how it is set. What was overwritten long ago, and can still be read, says it.
fn judge_compaction(fleet: &FleetStore<'_>, conf: &Conf, cluster: &Cluster, report: &mut Report) {
    let key = format!("{}fleet", conf.prefix).into_bytes();
    let latest = match fleet.latest_before(clock::now().saturating_sub(KEPT)) {
        Ok(latest) => latest,
        Err(error) => return report.note(cannot_be_told(&error.into_fact().to_string())),
    };
    // The one before it was overwritten at the latest then.
    let Some(before) = latest.and_then(|revision| revision.checked_sub(1)).filter(|revision| *revision > 0) else {
        return report.note(cannot_be_told("nothing in the fleet has stayed as it is for an hour"));
    };
    match cluster.remembers(&key, before, deadline()) {
        Ok(false) => {}
        Ok(true) => report.findings.push(not_compacted()),
        Err(fact) => report.note(cannot_be_told(&fact.to_string())),
    }
}

fn cannot_be_told(why: &str) -> String {
    format!(
        "whether etcd throws away what was overwritten cannot be told from here ({why}): --auto-compaction-retention=5m"
    )
}

fn not_compacted() -> Finding {
    finding(Weight::Weak, "etcd-not-compacted", None, "etcd still keeps what was overwritten more than an hour ago")
        .because("Each login leaves an old version behind: one day etcd is full, and nobody in the fleet gets in.")
        .until(
            "Start every member with these, one after the other; then give back the room:",
            &lines(&[
                "etcd … --auto-compaction-mode=periodic --auto-compaction-retention=5m",
                "etcdctl compact REVISION",
                "etcdctl defrag --cluster",
            ]),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(version: &str) -> Member {
        Member {
            id: 1,
            cluster: 7,
            version: version.to_owned(),
            db_size: 1 << 20,
            db_size_in_use: 1 << 20,
            quota: None,
            leader: 1,
            raft_term: 2,
            alarms: Vec::new(),
            ahead: Some(0),
        }
    }

    fn names(findings: &[Finding]) -> Vec<&'static str> {
        findings.iter().map(|finding| finding.name).collect()
    }

    #[test]
    fn versions_in_which_roles_are_no_boundary_are_known() {
        for (version, is_old) in [
            ("3.3.27", true),
            ("3.4.23", true),
            ("3.4.43", true),
            ("3.4.44", false),
            ("3.5.16", true),
            ("3.5.29", true),
            ("3.5.30", false),
            ("3.5.33", false),
            ("3.6.10", true),
            ("3.6.11", false),
            ("3.7.0", false),
            ("3.7.0-rc.1", false),
            ("4.0.0", false),
        ] {
            assert_eq!(lets_past_roles(version), Some(is_old), "{version}");
            let member = member(version);
            assert_eq!(judge_versions(&[("a", &member)]).is_some(), is_old, "{version}");
        }
        assert_eq!(lets_past_roles("unknown"), None);
        assert!(judge_versions(&[("a", &member("unknown"))]).is_some());
    }

    #[test]
    fn a_member_that_is_nearly_full_without_a_leader_or_of_another_cluster_is_told() {
        let judged = |change: fn(&mut Member)| {
            let (mut one, other) = (member("3.5.33"), member("3.5.33"));
            change(&mut one);
            names(&judge_state_of(&[("one", &one), ("other", &other)]))
        };
        assert_eq!(judged(|_| {}), [""; 0]);
        assert_eq!(judged(|member| member.db_size = 17 << 27), ["etcd-nearly-full"]);
        assert_eq!(judged(|member| member.db_size = 12 << 27), [""; 0]);
        // Where it says how much it may have, that counts.
        assert_eq!(judged(|member| (member.db_size, member.quota) = (17 << 27, Some(8 << 30))), [""; 0]);
        assert_eq!(judged(|member| (member.db_size, member.quota) = (17 << 20, Some(20 << 20))), ["etcd-nearly-full"]);
        assert_eq!(judged(|member| member.alarms = vec!["NOSPACE".to_owned()]), ["etcd-nospace"]);
        assert_eq!(judged(|member| member.alarms = vec!["CORRUPT".to_owned()]), ["etcd-corrupt"]);
        assert_eq!(judged(|member| member.leader = 0), ["etcd-no-leader"]);
        assert_eq!(judged(|member| member.cluster = 8), ["etcd-clusters"]);
    }

    #[test]
    fn whose_clock_is_off_is_told_by_the_others() {
        let judged = |ahead: [Option<i64>; 3]| {
            let members = ahead.map(|ahead| Member { ahead, ..member("3.5.33") });
            let members: Vec<_> = members.iter().map(|member| ("https://a:1", member)).collect();
            judge_clocks(&members, Weight::Closed).map(|found| (found.weight, found.what))
        };
        assert_eq!(judged([Some(-1), Some(0), None]), None);
        assert_eq!(judged([Some(5), Some(-5), None]), None);
        let (weight, what) = judged([Some(6), Some(0), Some(0)]).unwrap();
        assert!(
            weight == Weight::Weak && what.starts_with("a clock of the cluster's") && what.contains("6 s ahead"),
            "{what}"
        );
        let (weight, what) = judged([Some(-40), Some(-39), Some(-40)]).unwrap();
        assert!(
            weight == Weight::Closed && what.starts_with("this host's clock") && what.contains("40 s behind"),
            "{what}"
        );
    }

    #[test]
    fn hosts_that_are_silent_of_other_versions_or_of_other_keys_are_told() {
        let mut ring = KeyRing::empty();
        let [own, other] = [(); 2].map(|()| ring.add().unwrap());
        ring.activate(Some(own)).unwrap();
        let host = |name: &str| Host {
            name: name.to_owned(),
            keys: vec![(own.to_string(), true)],
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: 1_000_000_000,
            revoked: None,
        };
        let judged = |hosts: &[Host], later: u64| {
            let mut report = Report::default();
            judge_hosts(hosts, "own", &ring, 1_000_000_000 + later, &mut report);
            (names(&report.findings), report.notes.len())
        };
        assert_eq!(judged(&[host("own"), host("b")], SILENT), (vec![], 0));
        assert_eq!(judged(&[host("b")], 0), (vec![], 1));
        assert_eq!(judged(&[host("own"), host("b")], SILENT + 1), (vec!["fleet-host-silent"], 0));
        let revoked = |name| Host { revoked: Some(1), ..host(name) };
        assert_eq!(judged(&[host("own"), revoked("b")], SILENT + 1), (vec![], 0));
        assert_eq!(judged(&[revoked("own")], 0), (vec!["fleet-host-revoked"], 0));
        let old = Host { version: "0.0.1".to_owned(), ..host("b") };
        assert_eq!(judged(&[host("own"), old], 0), (vec!["fleet-host-version"], 0));
        let with = |keys: &[(&str, bool)]| Host {
            keys: keys.iter().map(|(id, is_active)| ((*id).to_owned(), *is_active)).collect(),
            ..host("b")
        };
        let (own, other) = (own.to_string(), other.to_string());
        assert_eq!(judged(&[host("own"), with(&[(&other, true)])], 0), (vec!["fleet-host-keys"], 0));
        assert_eq!(judged(&[host("own"), with(&[(&own, false), (&other, true)])], 0), (vec![], 0));
    }

    #[test]
    fn each_certificate_that_is_not_taken_has_its_own_way_out() {
        let words = [
            "message=CommonName-of-client",
            "(… extendedKeyUsage serverAuth,clientAuth)",
            "etcd does not take this host's certificate",
            "the server's certificate is not of the authority in `ca`",
            "bad-certificate (the server's certificate has expired)",
        ];
        let ways: BTreeSet<_> = words.iter().map(|said| of_certificates(said).unwrap().1).collect();
        assert_eq!(ways.len(), words.len());
        assert_eq!(of_certificates("etcd-unreachable error=timed-out"), None);
    }
}
