//! What there is to judge: the stacks, and the policy.

use super::report::{Finding, Report, Weight};
use crate::pam_config::{self, Rule, Stack, Type};
use crate::root::{Root, Unreadable};
use pam_totp::options::Options;
use pam_totp::policy::{self, Document, Policy};
use pam_totp::system::{clock, groups, passwd};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(super) struct Case<'a> {
    pub(super) root: &'a Root,
    /// In the order in which they were named, or of their names.
    pub(super) services: Vec<Service>,
    /// The only user who matters.
    pub(super) user: Option<&'a str>,
    /// Where the policy is that holds where no line names another.
    pub(super) policy_path: PathBuf,
    /// That policy; built-in defaults where there is none. `None`: it is wrong, which was reported, or cannot be read.
    pub(super) document: Option<Document>,
    /// What is in the fleet cannot be told, and `fleet` has said why.
    pub(super) is_fleet_out_of_reach: bool,
}

/// A service, and what it does with the module.
pub(super) struct Service {
    pub(super) name: String,
    pub(super) stack: Stack,
    /// What holds for the first line that calls the module for `auth`. `None`: no line does, or it or its policy is wrong.
    pub(super) policy: Option<Policy>,
}

impl Service {
    /// The lines that call the module.
    pub(super) fn ours(&self) -> Vec<&Rule> {
        self.stack.rules().into_iter().filter(|rule| rule.is_ours()).collect()
    }
}

impl<'a> Case<'a> {
    pub(super) fn read(
        root: &'a Root,
        chosen: &[String],
        user: Option<&'a str>,
        conf: Option<&Path>,
        report: &mut Report,
    ) -> Self {
        let policy_path = conf.map_or_else(|| policy::PATH.into(), Path::to_owned);
        let document = document(root, &policy_path, report);
        let is_chosen = !chosen.is_empty();
        let names = if is_chosen { chosen.to_vec() } else { pam_config::services(root) };
        let mut services = Vec::new();
        for name in names {
            let stack = Stack::read(root, &name, Type::Auth);
            let mut service = Service { name, stack, policy: None };
            let ours = service.ours();
            if !is_chosen && ours.is_empty() {
                continue;
            }
            if let Some(rule) = ours.first() {
                service.policy = policy_of(root, &service.name, rule, document.as_ref(), report);
            }
            services.push(service);
        }
        Self { root, services, user, policy_path, document, is_fleet_out_of_reach: false }
    }

    /// A day, for whoever has to say until when.
    pub(super) fn in_a_month(&self) -> String {
        let time = clock::utc(clock::now().saturating_add(30 * 86_400));
        time.split(' ').next().unwrap_or_default().to_owned()
    }

    /// The fields of somebody's line in this root's /etc/passwd.
    pub(super) fn account(&self, user: &str) -> Option<Vec<String>> {
        self.entries("/etc/passwd").into_iter().find(|fields| fields.first().is_some_and(|name| name == user))
    }

    fn entries(&self, path: &str) -> Vec<Vec<String>> {
        let text = self.root.read(Path::new(path)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
    }

    pub(super) fn is_root(&self, user: &str) -> bool {
        user == "root" || self.account(user).is_some_and(|fields| fields.get(2).is_some_and(|uid| uid == "0"))
    }

    /// As sshd has them, by the name service; by this root's files where that is another machine's, or does not answer.
    pub(super) fn groups(&self, user: &str) -> Vec<String> {
        if self.root.is_live()
            && let Ok(Some(account)) = passwd::by_name(user.as_bytes())
            && let Ok(groups) = groups::names_of(&account.name, account.gid)
        {
            return groups;
        }
        let primary = self.account(user).and_then(|fields| fields.get(3).cloned());
        let is_in = |fields: &Vec<String>| {
            let is_primary = primary.is_some() && fields.get(2) == primary.as_ref();
            is_primary || fields.get(3).is_some_and(|members| members.split(',').any(|member| member == user))
        };
        self.entries("/etc/group").into_iter().filter(is_in).filter_map(|fields| fields.into_iter().next()).collect()
    }

    /// The service, if it is judged.
    pub(super) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}

/// The policy file of a root; the built-in defaults where there is none.
fn document(root: &Root, path: &Path, report: &mut Report) -> Option<Document> {
    let text = match root.read(path) {
        Ok(text) => text,
        Err(Unreadable::Missing) => {
            let note = "is not there: where none was in use before, the built-in defaults hold";
            report.note(format!("{} {note}", path.display()));
            return Some(Document::default());
        }
        Err(error) => {
            report.findings.push(Finding {
                weight: Weight::Closed,
                name: "policy",
                service: None,
                what: format!("the policy {error}"),
                place: Some(path.display().to_string()),
                why: "Nobody gets in where a code is asked for: what holds is not known.".to_owned(),
                way_out: "Put a regular file of root's in its place; this shows what is wrong with it:".to_owned(),
                lines: vec![format!("pam-totp check {}", path.display())],
            });
            return None;
        }
    };
    Document::parse(text)
        .map_err(|bad| {
            report.findings.push(Finding {
                weight: Weight::Closed,
                name: "policy",
                service: None,
                what: bad.to_string(),
                place: Some(path.display().to_string()),
                why: "Nobody gets in where a code is asked for until the policy is right.".to_owned(),
                way_out: "Correct a copy of it, and put it in force if it is right:".to_owned(),
                lines: vec![format!("pam-totp check --install COPY --conf {}", path.display())],
            });
        })
        .ok()
}

/// What holds for a line that calls the module.
fn policy_of(
    root: &Root,
    service: &str,
    rule: &Rule,
    document: Option<&Document>,
    report: &mut Report,
) -> Option<Policy> {
    let arguments: Vec<&[u8]> = rule.arguments.iter().map(Vec::as_slice).collect();
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(bad) => {
            report.findings.push(Finding {
                weight: Weight::Closed,
                name: "argument",
                service: Some(service.to_owned()),
                what: bad.fact().to_string(),
                place: Some(rule.place.to_string()),
                why: "The module denies everybody where an argument is not what it knows.".to_owned(),
                way_out: "Correct the argument, or take it out.".to_owned(),
                lines: Vec::new(),
            });
            return None;
        }
    };
    let own = match &options.conf {
        None => None,
        // One that is named and missing denies: `module` says so.
        Some(conf) if root.read(Path::new(OsStr::from_bytes(conf))) == Err(Unreadable::Missing) => return None,
        Some(conf) => {
            let path = Path::new(OsStr::from_bytes(conf));
            Some(self::document(root, path, report)?)
        }
    };
    Some(Policy::new(service, &options, own.as_ref().or(document)?))
}
