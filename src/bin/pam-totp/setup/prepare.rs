//! From what there is to what is to be written: the plan.

use super::files::{self, shown};
use super::plan::{Plan, Step};
use super::policy::{self, Settled, Wish};
use super::{Service, pam, sshd};
use crate::doctor::paths::{self, Kind};
use crate::doctor::ways_in::Circumstances;
use crate::pam_config::{Stack, Type};
use crate::root::Root;
use anyhow::{Result, anyhow, bail, ensure};
use pam_totp::policy::{EnrolmentKind, StoreKind};
use pam_totp::store::system::STORE_ID;

/// What is to be done at a service, judged.
pub(super) fn plan(root: &Root, service: Service, wish: &Wish, remove: bool) -> Result<Plan> {
    if remove {
        return removal(root, service);
    }
    let settled = policy::settle(root, service, wish)?;
    let stacks = stacks(root, service, |path, text| pam::with_code(service, path, text))?;
    ensure_asked(root, service, &stacks)?;
    let mut plan = Plan { policy: settled.text.clone(), ..Plan::default() };
    if settled.store == StoreKind::System
        && !root.read(&settled.state_dir.join(STORE_ID)).is_ok_and(|id| !id.is_empty())
    {
        if root.is_live() {
            plan.store = Some(settled.state_dir.clone());
        } else {
            plan.warnings
                .push("Run `pam-totp setup store` on the machine itself: until then nobody gets in.".to_owned());
        }
    }
    let change = match service {
        Service::Sshd => {
            let inline_enrolment = settled.enrolment == EnrolmentKind::Inline;
            sshd::with_code(root, Circumstances { inline_enrolment, ..Circumstances::default() })?
        }
        Service::Sudo | Service::Su => None,
    };
    in_order(&mut plan, root, stacks, change);
    if !plan.is_empty() {
        plan.warnings.extend(warnings(service, &settled));
    }
    Ok(plan)
}

fn removal(root: &Root, service: Service) -> Result<Plan> {
    let mut plan = Plan::default();
    let stacks = stacks(root, service, |path, text| pam::without_code(service, path, text).map(Some))?;
    let change = match service {
        Service::Sshd => sshd::without_code(root)?,
        Service::Sudo | Service::Su => None,
    };
    in_order(&mut plan, root, stacks, change);
    Ok(plan)
}

/// sshd asks for the key alone while the stack changes, where it would otherwise take what the stack wants for a password.
fn in_order(plan: &mut Plan, root: &Root, stacks: Vec<Step>, change: Option<sshd::Change>) {
    let Some(sshd::Change { path, before, between, after, grace, warnings }) = change else {
        plan.steps = stacks;
        return;
    };
    plan.warnings.extend(warnings);
    let step = |before: Option<String>, after| Step { path: path.clone(), before, after, reload: true };
    match between.filter(|between| !stacks.is_empty() && root.is_live() && Some(between) != before.as_ref()) {
        Some(between) => {
            plan.grace = Some(grace);
            plan.steps.push(step(before, Some(between.clone())));
            plan.steps.extend(stacks);
            plan.steps.push(step(Some(between), after));
        }
        None => {
            plan.steps.extend(stacks);
            plan.steps.push(step(before, after));
        }
    }
}

/// The files of the service that are to change.
fn stacks(
    root: &Root,
    service: Service,
    edit: impl Fn(&std::path::Path, &str) -> Result<Option<String>>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for name in service.relatives() {
        let path = pam::path(name);
        let Some(before) = files::text(root, &path)? else {
            let is_own = *name == service.name();
            ensure!(!is_own, "{} is not there: no {name} that setup knows", shown(&path));
            continue;
        };
        if let Some(after) = edit(&path, &before)?.filter(|after| *after != before) {
            steps.push(Step { path, before: Some(before), after: Some(after), reload: false });
        }
    }
    Ok(steps)
}

/// Fails where somebody would get in without a code by the stacks as they will be, or nobody at all.
fn ensure_asked(root: &Root, service: Service, steps: &[Step]) -> Result<()> {
    let mut then = root.again().map_err(|error| anyhow!("{error}"))?;
    for step in steps {
        then = then.with(&step.path, step.after.clone().map(String::into_bytes));
    }
    for name in service.relatives() {
        let path = pam::path(name);
        if then.read(&path).is_err() {
            continue;
        }
        let stack = Stack::read(&then, name, Type::Auth);
        for finding in paths::judge(&stack) {
            let is_fine = match finding.kind {
                Kind::NotAsked => true,
                Kind::Skipped => finding.only_root && service == Service::Su,
                _ => false,
            };
            if !is_fine {
                let way: Vec<_> = finding.path.iter().map(|step| step.rule.place.to_string()).collect();
                let way = if way.is_empty() { String::new() } else { format!(" (by way of {})", way.join(", ")) };
                bail!("{}: with the code in it {}{way}: not touched", shown(&path), in_words(finding.kind));
            }
        }
    }
    Ok(())
}

fn in_words(kind: Kind) -> &'static str {
    match kind {
        Kind::Skipped => "there would be a way past it",
        Kind::DenialIgnored => "a wrong one would not count",
        Kind::OutageIgnored => "a store that cannot be reached would not count",
        Kind::UnknownUserIgnored => "whoever is not known would not be asked",
        Kind::MissingModuleIgnored => "a missing module would not count",
        Kind::NotAsked => "whoever is exempt would get in",
        Kind::NobodyGetsIn => "nobody would get in",
        Kind::Endless => "libpam would not come to an end",
    }
}

fn warnings(service: Service, settled: &Settled) -> Vec<String> {
    let mut warnings = Vec::new();
    if service == Service::Sshd {
        warnings.push("sshd: from then on a key is needed, and password logins end.".to_owned());
    }
    match settled.enrolment {
        EnrolmentKind::Required => warnings.push(format!(
            "{}: whoever has no device is denied from then on: `pam-totp enrol --user NAME` makes one.",
            service.name()
        )),
        EnrolmentKind::Optional => {
            warnings.push(format!("{}: whoever never had a device gets in without a code.", service.name()));
        }
        EnrolmentKind::Inline | EnrolmentKind::Ticket => {}
    }
    warnings
}
