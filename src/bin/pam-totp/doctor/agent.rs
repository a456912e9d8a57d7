//! Where services ask pam-totp-agent (`via = "agent"`): whether it is there, and whether those who may ask it can.

use super::case::Case;
use super::module::{Flaw, flaw, quoted, shown};
use super::report::{Finding, Report, Weight};
use pam_totp::agent::client;
use pam_totp::fact::Fact;
use pam_totp::policy::callers::TrustedCaller;
use pam_totp::policy::{Document, Via};
use pam_totp::system::passwd::{self, Account};
use pam_totp::system::{Errno, groups};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Who listens is root's, so a `systemctl` of root's starts it.
const START: &str = "systemctl enable --now pam-totp-agent.socket";
const STATUS: &str = "systemctl status pam-totp-agent.socket pam-totp-agent.service";
const NOBODY_GETS_IN: &str = "Nobody gets in where the agent is asked: the module denies (PAM_AUTHINFO_UNAVAIL).";

pub(super) fn examine(case: &Case<'_>, report: &mut Report) {
    let sockets = sockets(case);
    if sockets.is_empty() {
        return;
    }
    if !case.root.is_live() {
        return report.note("whether pam-totp-agent answers, and who may ask it, no file says");
    }
    for (path, services) in &sockets {
        report.findings.extend(judge_socket(case, path, services));
    }
    if let Some(document) = case.document.as_ref() {
        judge_callers(case, document, report);
    }
}

/// Where services ask, and which those are.
fn sockets(case: &Case<'_>) -> BTreeMap<PathBuf, Vec<String>> {
    let mut sockets: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for service in &case.services {
        if let Some(policy) = service.policy.as_ref().filter(|policy| policy.via.value == Via::Agent) {
            sockets.entry(policy.agent_socket.value.clone()).or_default().push(service.name.clone());
        }
    }
    sockets
}

// ---- The socket ----

fn judge_socket(case: &Case<'_>, path: &Path, services: &[String]) -> Vec<Finding> {
    let finding = |weight, name, what: String| Finding {
        weight,
        name,
        service: services.first().filter(|_| services.len() == 1).cloned(),
        what,
        place: Some(shown(path)),
        why: NOBODY_GETS_IN.to_owned(),
        way_out: String::new(),
        lines: Vec::new(),
    };
    let Ok(file) = fs::symlink_metadata(path) else {
        let what = format!("the agent is asked at {}, and nothing is there", shown(path));
        let missing = finding(Weight::Closed, "agent-missing", what);
        return vec![missing.until("Have systemd listen there:", &[START.to_owned()])];
    };
    let (kind, mode) = (file.file_type(), file.mode() & 0o7777);
    let mut findings = Vec::new();
    // At the directories: the socket itself is everybody's to write to.
    let directory = path.parent().unwrap_or(Path::new("/"));
    if let Some((place, flaw)) = flaw(case.root, directory, true) {
        let what = format!("others than root can put a socket of theirs at {}: {} {flaw}", shown(path), shown(&place));
        let why = "Whoever does keeps everybody out: the module asks nobody but root.";
        let open = Finding { why: why.to_owned(), ..finding(Weight::Closed, "agent-directory", what) };
        findings.push(open.until("Make the directory root's alone:", &flaw.commands(&place)));
    }
    if kind.is_symlink() {
        let what = format!("{} is a link: what listens there now need not do so tomorrow", shown(path));
        let link = finding(Weight::Weak, "agent-link", what);
        findings.push(link.until("Name in `agent_socket` where the agent listens, and take the link away.", &[]));
    } else if !kind.is_socket() || file.uid() != 0 {
        let what = match kind.is_socket() {
            true => format!("the socket {} {}, not to root", shown(path), Flaw::Owner(file.uid())),
            false => format!("{} is no socket", shown(path)),
        };
        let lines = [format!("rm {}", quoted(path)), "systemctl restart pam-totp-agent.socket".to_owned()];
        let squatted = finding(Weight::Closed, "agent-squatted", what);
        findings.push(squatted.until("Find out who made it; then take it away:", &lines));
        return findings;
    } else if mode & 0o666 != 0o666 {
        let what = format!("not everybody can ask at {} (mode {mode:04o})", shown(path));
        let why = "Programs that are not root get no answer: nobody gets past them.";
        let closed = Finding { why: why.to_owned(), ..finding(Weight::Weak, "agent-closed-to-others", what) };
        let way_out = "Whom the agent believes what depends on who they are, not on this mode:";
        findings.push(closed.until(way_out, &[format!("chmod 0666 {}", quoted(path))]));
    }
    if let Err(fact) = client::greet(path) {
        findings.push(unanswered(&fact, |name, what| finding(Weight::Closed, name, what)));
    }
    findings
}

fn unanswered(fact: &Fact, finding: impl Fn(&'static str, String) -> Finding) -> Finding {
    match fact.word() {
        "agent-of-other-version" => finding("agent-version", format!("the agent is of another release: {fact}"))
            .until("Have the one run that came with the module:", &["systemctl restart pam-totp-agent.service".into()]),
        "agent-of-another" => finding("agent-squatted", format!("somebody else listens in the agent's place: {fact}"))
            .until("Find out who it is, and end that; then:", &["systemctl restart pam-totp-agent.socket".into()]),
        _ => finding("agent-unanswered", format!("nobody answers as the agent: {fact}"))
            .until("This says why; the log (pam_totp(agent)) does too:", &[STATUS.into()]),
    }
}

// ---- Who may ask ----

fn judge_callers(case: &Case<'_>, document: &Document, report: &mut Report) {
    let callers = document.trusted_callers();
    for caller in callers {
        match passwd::by_name(caller.user().as_bytes()) {
            Ok(Some(account)) => report.findings.extend(unreadable(case, &account)),
            Ok(None) => report.findings.push(unknown(case, "user", caller.user())),
            Err(error) => report.note(cannot_be_told(caller.user(), error)),
        }
    }
    let mut groups: Vec<_> = callers.iter().flat_map(TrustedCaller::groups).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        match groups::by_name(group) {
            Ok(Some(_)) => {}
            Ok(None) => report.findings.push(unknown(case, "group", group)),
            Err(error) => report.note(cannot_be_told(group, error)),
        }
    }
}

fn cannot_be_told(name: &str, error: Errno) -> String {
    let error = std::io::Error::from(error);
    format!("whether there is a `{}`, as [[trusted_caller]] says, cannot be told: {error}", name.escape_debug())
}

fn about_callers(case: &Case<'_>, name: &'static str, what: String) -> Finding {
    Finding {
        weight: Weight::Closed,
        name,
        service: None,
        what,
        place: Some(shown(&case.policy_path)),
        why: "Nobody gets in at the services of this [[trusted_caller]].".to_owned(),
        way_out: String::new(),
        lines: Vec::new(),
    }
}

fn unknown(case: &Case<'_>, kind: &str, name: &str) -> Finding {
    let what = format!("[[trusted_caller]] names a {kind} that there is not: `{}`", name.escape_debug());
    let finding = about_callers(case, "trusted-caller-unknown", what);
    finding.until("Correct the name, or take the table out: whoever gets it one day is trusted then.", &[])
}

/// The module in their process reads the policy, to know that it has to ask the agent.
fn unreadable(case: &Case<'_>, account: &Account) -> Option<Finding> {
    let path = &case.policy_path;
    let (place, mode) = path.ancestors().find_map(|place| {
        let stat = case.root.stat(place).ok()?;
        let bits = if place == path { 0o4 } else { 0o1 };
        let class = match () {
            () if stat.st_uid == account.uid => 6,
            () if stat.st_gid == account.gid => 3,
            () => 0,
        };
        (stat.st_mode >> class & bits == 0).then(|| (place.to_owned(), stat.st_mode & 0o7777))
    })?;
    let name = account.name.escape_ascii();
    let what = format!("`{name}`, a [[trusted_caller]], cannot read the policy: {} has mode {mode:04o}", shown(&place));
    let right = if &place == path { "chmod a+r" } else { "chmod a+x" };
    let finding = about_callers(case, "trusted-caller-policy", what);
    Some(finding.until("There is no secret in it:", &[format!("{right} {}", quoted(&place))]))
}
