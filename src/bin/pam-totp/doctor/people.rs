//! Who would be locked out: people who can log in, are asked for a code, and have no device.

use super::case::{Case, Service};
use super::report::{Finding, Report, Weight};
use super::sshd::connection;
use super::state::{Key, key, several};
use crate::host::Access;
use crate::people::{People, Seen, State, shown};
use crate::sshd_config::Config;
use pam_totp::identity::Person;
use pam_totp::ledger::EARLIEST;
use pam_totp::policy::{EnrolmentKind, Identity, Policy, StoreKind};
use pam_totp::store;
use pam_totp::system::{clock, passwd};
use std::collections::HashMap;

/// The uid and name of whoever looks after the machine.
const ROOT: &[u8] = b"root";
/// Where it is somebody else who asks for root.
const BECOMES_ROOT: [&str; 4] = ["sudo", "sudo-i", "su", "su-l"];

pub(super) fn examine(case: &Case<'_>, report: &mut Report) {
    if !case.root.is_live() {
        return report.note("who can log in and has no device was not looked at: that is for the machine itself");
    }
    if let Some(user) = case.user
        && passwd::by_name(user.as_bytes()) == Ok(None)
    {
        return report.findings.push(unknown(user));
    }
    if passwd::process_uids().1 != 0 {
        // That there is something to see was said.
        return;
    }
    let mut known = HashMap::new();
    for service in &case.services {
        let is_told = |policy: &&Policy| {
            policy.options.user.is_none() && !(case.is_fleet_out_of_reach && policy.store.value == StoreKind::Fleet)
        };
        if let Some(policy) = service.policy.as_ref().filter(is_told) {
            judge(case, service, policy, &mut known, report);
        }
    }
}

fn unknown(user: &str) -> Finding {
    Finding {
        weight: Weight::Closed,
        name: "unknown-user",
        service: None,
        what: format!("there is no user `{}`", user.escape_debug()),
        place: None,
        why: "Nobody gets in by a name that no user database knows.".to_owned(),
        way_out: "Look whether it is spelled so:".to_owned(),
        lines: vec!["getent passwd".to_owned()],
    }
}

/// Everybody. `None`: that cannot be told, and `state` has said why.
fn everybody<'a>(policy: &Policy, known: &'a mut HashMap<Key, Option<Vec<Seen>>>) -> Option<&'a [Seen]> {
    let look = || {
        // What is wrong with it was said.
        let access = Access::new(policy, None).unwrap_or_default();
        if policy.store.value.is_roots() {
            access.roster(policy).ok()?.check().ok()?;
        }
        Some(People::new(policy, &access).ok()?.look())
    };
    known.entry(key(policy)).or_insert_with(look).as_deref()
}

fn judge(
    case: &Case<'_>,
    service: &Service,
    policy: &Policy,
    known: &mut HashMap<Key, Option<Vec<Seen>>>,
    report: &mut Report,
) {
    let enrolment = policy.enrolment.value;
    let now = clock::now().max(EARLIEST);
    let is_inline = enrolment.kind == EnrolmentKind::Inline && service.name == "sshd";
    if enrolment.kind == EnrolmentKind::Optional || is_inline {
        return;
    }
    let Some(seen) = everybody(policy, known) else { return };
    let door = Door::of(case, service);
    let concerned = |seen: &&Seen| {
        let is_meant = case.user.is_none_or(|user| user.as_bytes() == seen.named.name);
        is_meant && is_asked(policy, seen, now) && door.is_open_to(case, seen)
    };
    let locked_out: Vec<_> = seen.iter().filter(concerned).filter(|seen| !is_invited(policy, seen, now)).collect();
    let (never, gone): (Vec<_>, Vec<_>) = locked_out.iter().partition(|seen| matches!(seen.state, State::Never));
    let names = |people: &[&&Seen]| people.iter().map(|seen| shown(&seen.named)).collect::<Vec<_>>();
    note_gone(&names(&gone), report);
    if never.is_empty() {
        return;
    }
    let names = names(&never);
    let place = service.ours().first().map(|rule| rule.place.to_string());
    match enrolment.optional_until.filter(|end| now < end.over) {
        Some(end) => report.note(format!("{}: without a device from {end} on: {}", service.name, counted(&names))),
        None if enrolment.kind == EnrolmentKind::Required => {
            report.findings.push(locked_out_of(policy, place, &names));
        }
        None => report.note(format!("{}: without a device and without a ticket: {}", service.name, counted(&names))),
    }
}

/// Whom sshd lets try at all.
struct Door(Option<Config>);

impl Door {
    fn of(case: &Case<'_>, service: &Service) -> Self {
        Self((service.name == "sshd").then(|| Config::read(case.root).ok()).flatten())
    }

    fn is_open_to(&self, case: &Case<'_>, seen: &Seen) -> bool {
        let (Some(config), Ok(name)) = (&self.0, std::str::from_utf8(&seen.named.name)) else { return true };
        let groups = case.groups(name);
        config.effective(&connection(name, &groups)).may_try(name, &groups)
    }
}

/// Whether somebody who has no device is asked for a code there.
fn is_asked(policy: &Policy, seen: &Seen, now: u64) -> bool {
    let (name, gid) = match (&seen.state, seen.logs_in_with) {
        (State::Never | State::Gone, Some(gid)) => (&seen.named.name, gid),
        (State::Enrolled(record), Some(gid)) if record.devices.is_empty() => (&seen.named.name, gid),
        _ => return false,
    };
    // root needs neither sudo nor su, and sshd lets nobody in as root without a key, as a rule.
    let is_elsewhere = BECOMES_ROOT.contains(&policy.service.as_str()) && policy.identity.value == Identity::Caller
        || ["sudo", "sudo-i"].contains(&policy.service.as_str());
    if name == ROOT && (is_elsewhere || policy.service == "sshd" && !has_key_of_root()) {
        return false;
    }
    let is_exempt = policy
        .exemptions
        .iter()
        .any(|exemption| now < exemption.until.over && exemption.may_be_about(name, gid, &policy.service));
    // Whoever once had one is asked in whatever group.
    let is_free = matches!(seen.state, State::Never)
        && policy.require.as_ref().is_some_and(|require| !require.needs_a_code(name, Some(gid)));
    !is_exempt && !is_free
}

/// Whether somebody looks for root over ssh at all.
fn has_key_of_root() -> bool {
    std::fs::metadata("/root/.ssh/authorized_keys").is_ok_and(|keys| keys.len() > 0)
}

fn is_invited(policy: &Policy, seen: &Seen, now: u64) -> bool {
    if !policy.enrolment.is_inside_a_login() {
        return false;
    }
    let store = store::of(policy);
    let person = Person::in_database(&seen.named.name).ok();
    store.admission().zip(person).is_some_and(|(admission, person)| admission.is_invited(&person, now) == Ok(true))
}

/// Root has taken their devices, or lost them: only root knows.
fn note_gone(names: &[String], report: &mut Report) {
    if !names.is_empty() {
        report.note(format!(
            "had a device, have none, and do not get in: {} (pam-totp enrol --user NAME gives them one, pam-totp reset --user NAME \
             lets them begin anew)",
            counted(names)
        ));
    }
}

fn counted(names: &[String]) -> String {
    let people = if names.len() == 1 { "1 person".to_owned() } else { format!("{} people", names.len()) };
    format!("{people}, {}", several(names))
}

fn locked_out_of(policy: &Policy, place: Option<String>, names: &[String]) -> Finding {
    let mut lines = match names {
        [name] => vec![format!("pam-totp enrol --user {name}")],
        _ => vec!["pam-totp enrol --user NAME".to_owned(), "pam-totp enrol --group GROUP --out DIR".to_owned()],
    };
    // Elsewhere it needs a ticket, and not where people could take their record away.
    let way_out = if policy.service == "sshd" && policy.store.value.is_roots() {
        lines.push("enrolment = \"inline\"".to_owned());
        "Give them devices, or let them get one at their first login with a key (the last line, in [service.sshd]):"
    } else {
        "Give them devices:"
    };
    let have = if names.len() == 1 { "has" } else { "have" };
    Finding {
        weight: Weight::Closed,
        name: "locked-out",
        service: Some(policy.service.clone()),
        what: format!("{} can log in and {have} no device", counted(names)),
        place,
        why: "They are asked for a code that they do not have, and do not get in.".to_owned(),
        way_out: way_out.to_owned(),
        lines,
    }
}
