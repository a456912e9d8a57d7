//! What is wrong with a stack: `paths` finds it, and here it is said.

use super::case::{Case, Service};
use super::paths::{self, Kind, Step, is_silent, judge};
use super::report::{Finding, Report, Weight};
use crate::pam_config::control::{Action, Answer};
use crate::pam_config::{self, OURS, PAM_D, Place, Rule, Trouble};
use pam_totp::options::FirstPass;
use pam_totp::policy::exempt::Answer as Exempt;
use pam_totp::policy::{Document, EnrolmentKind, Origin, Policy};
use pam_totp::system::clock;
use std::collections::BTreeSet;
use std::path::Path;

/// The line that asks for a code.
pub(super) const OUR_LINE: &str = "auth       required     pam_totp.so";
/// What says yes where nobody is asked.
const YES_LINE: &str = "auth       required     pam_permit.so";
/// The programs whose real uid is that of whoever calls them, so that `pam_rootok` tells root from others. In sshd or login it
/// says yes to everybody.
const CALLED_BY_PEOPLE: [&str; 19] = [
    "chage",
    "chfn",
    "chpasswd",
    "chsh",
    "groupadd",
    "groupdel",
    "groupmod",
    "ksu",
    "newusers",
    "passwd",
    "runuser",
    "runuser-l",
    "su",
    "su-l",
    "sudo",
    "sudo-i",
    "useradd",
    "userdel",
    "usermod",
];
/// Modules that let people past by who or where they are: an exception that somebody means.
const BY_WHO_OR_WHERE: [&str; 8] =
    ["access", "group", "listfile", "localuser", "succeed_if", "time", "usertype", "wheel"];

pub(super) fn examine(case: &Case<'_>, report: &mut Report) {
    if case.services.is_empty() {
        report.findings.push(not_in_use());
    }
    tables_of_nothing(case, report);
    let mut told = BTreeSet::new();
    for service in &case.services {
        let stack = Judged { case, service, ours: service.ours(), found: judge(&service.stack) };
        report.findings.extend(stack.paths());
        report.findings.extend(stack.not_asked());
        report.findings.extend(stack.asked_twice());
        report.findings.extend(stack.nobody_asked_before());
        report.findings.extend(stack.quiet());
        for (place, trouble) in &service.stack.troubles {
            // What several services include is said once.
            if told.insert((place.clone(), format!("{trouble:?}"))) {
                report.findings.push(stack.trouble(place, trouble));
            }
        }
    }
}

fn not_in_use() -> Finding {
    Finding {
        weight: Weight::Open,
        name: "not-in-use",
        service: None,
        what: format!("no file in {PAM_D} asks for a code"),
        place: None,
        why: "The module is not in use: everybody gets in as before.".to_owned(),
        way_out: "Let this put it into sshd's stack and settings, with a way back:".to_owned(),
        lines: vec!["pam-totp setup sshd".to_owned()],
    }
}

/// A table of the policy whose name no service has: `[service.ssh]`, say.
fn tables_of_nothing(case: &Case<'_>, report: &mut Report) {
    let known = pam_config::services(case.root);
    for table in case.document.iter().flat_map(Document::services) {
        // The gate is no service of libpam's; and these two are those of `su` and `sudo` (see the policy).
        let is_known = known.iter().any(|name| name == table) || ["gate", "su-l", "sudo-i"].contains(&table);
        if !is_known {
            report.note(format!("[service.{table}] in the policy is about nothing: no file in {PAM_D} is called so"));
        }
    }
}

struct Judged<'a> {
    case: &'a Case<'a>,
    service: &'a Service,
    ours: Vec<&'a Rule>,
    found: Vec<paths::Finding<'a>>,
}

impl<'a> Judged<'a> {
    fn paths(&self) -> Vec<Finding> {
        let found = &self.found;
        // Where a wrong code does not count, nor does anything else that this line says.
        let blamed = found.iter().find(|path| path.kind == Kind::DenialIgnored).and_then(|path| self.ours_on(path));
        let is_said = |path: &paths::Finding<'_>| {
            let is_trap =
                matches!(path.kind, Kind::OutageIgnored | Kind::UnknownUserIgnored | Kind::MissingModuleIgnored);
            is_trap && blamed.is_some_and(|blamed| self.ours_on(path).is_some_and(|rule| std::ptr::eq(rule, blamed)))
        };
        found.iter().filter(|path| !is_said(path)).filter_map(|path| self.path(path)).collect()
    }

    fn has(&self, kind: Kind) -> bool {
        self.found.iter().any(|path| path.kind == kind)
    }

    /// Whether nobody gets through it at all.
    fn is_dead(&self) -> bool {
        self.has(Kind::NobodyGetsIn) || self.has(Kind::Endless)
    }

    /// The rule of ours on a path.
    fn ours_on(&self, path: &paths::Finding<'a>) -> Option<&'a Rule> {
        path.path.iter().map(|step| step.rule).find(|rule| rule.is_ours())
    }

    fn path(&self, path: &paths::Finding<'a>) -> Option<Finding> {
        match path.kind {
            Kind::Skipped if path.only_root && CALLED_BY_PEOPLE.contains(&self.service.name.as_str()) => None,
            Kind::Skipped if self.ours.is_empty() => Some(self.no_line_of_ours()),
            Kind::Skipped if path.only_root => Some(self.rootok(path)),
            Kind::Skipped => Some(self.skipped(path)),
            Kind::DenialIgnored => Some(self.not_required(path)),
            Kind::OutageIgnored => Some(self.trap(
                path,
                "outage-ignored",
                Weight::Open,
                "does not count that the module could not decide",
                "Whoever makes the store or the agent unreachable, by filling a disk say, gets in without a code.",
            )),
            Kind::UnknownUserIgnored => Some(self.trap(
                path,
                "unknown-user-ignored",
                Weight::Weak,
                "does not count that the module does not know the user",
                "This module says `auth_err` where google-authenticator says `user_unknown`; a module that is put in its \
                 place lets people without a device in.",
            )),
            Kind::MissingModuleIgnored => Some(self.trap(
                path,
                "missing-module-ignored",
                Weight::Open,
                "does not count that the module is missing",
                "Where its file is missing or cannot be loaded, as in the middle of an upgrade, nobody is asked for a code.",
            )),
            Kind::NotAsked => None,
            Kind::NobodyGetsIn => Some(self.nobody()),
            Kind::Endless => Some(self.endless()),
        }
    }

    /// `what` is about the service as a whole.
    fn finding(&self, weight: Weight, name: &'static str, place: Option<&Place>, what: String) -> Finding {
        Finding {
            weight,
            name,
            service: Some(self.service.name.clone()),
            what,
            place: place.map(Place::to_string),
            why: String::new(),
            way_out: String::new(),
            lines: Vec::new(),
        }
    }

    /// The service's own file.
    fn file(&self) -> Place {
        Place { file: Path::new(PAM_D).join(&self.service.name).into(), line: 0 }
    }

    fn no_line_of_ours(&self) -> Finding {
        let place = self.file();
        let (what, way_out) = if self.service.stack.is_other {
            (
                "it has no auth lines of its own, and those of `other` ask for no code",
                "Write a stack for it, with this line:",
            )
        } else {
            ("no line asks for a code", "Write above the line that asks for the password:")
        };
        Finding {
            why: "Everybody gets in by this service as if the module were not installed.".to_owned(),
            way_out: way_out.to_owned(),
            lines: vec![OUR_LINE.to_owned()],
            ..self.finding(Weight::Open, "no-line", Some(&place), what.to_owned())
        }
    }

    fn rootok(&self, path: &paths::Finding<'a>) -> Finding {
        let culprit = self.culprit(path);
        Finding {
            why: "pam_rootok.so asks whether the process is root's. Here that is a daemon's, so it says yes to everybody."
                .to_owned(),
            way_out: "Take the line out.".to_owned(),
            ..self.finding(
                Weight::Open,
                "skipped",
                culprit.map(|step| &step.rule.place),
                "pam_rootok.so lets everybody past the line that asks for a code".to_owned(),
            )
        }
    }

    /// The step that leads past a rule of ours.
    fn culprit<'p>(&self, path: &'p paths::Finding<'a>) -> Option<&'p Step<'a>> {
        let rules = self.service.stack.rules();
        let index = |rule: &Rule| rules.iter().position(|known| std::ptr::eq(*known, rule));
        let next = path.path.iter().skip(1).map(|step| index(step.rule)).chain([None]);
        path.path.iter().zip(next).find_map(|(step, next)| {
            let from = index(step.rule)?.saturating_add(1);
            let between = rules.get(from..next.unwrap_or(rules.len()))?;
            between.iter().any(|rule| rule.is_ours()).then_some(step)
        })
    }

    fn skipped(&self, path: &paths::Finding<'a>) -> Finding {
        let culprit = self.culprit(path);
        let rule = culprit.map(|step| step.rule);
        let what = match culprit.map(|step| (step, step.rule.control.action(step.answer))) {
            Some((step, Action::Jump(_))) => format!(
                "where {} says `{}`, the line that asks for a code is jumped over",
                module(step.rule),
                step.answer
            ),
            Some((step, _)) => format!(
                "where {} says `{}`, it is enough (`{}`): no code is asked for",
                module(step.rule),
                step.answer,
                step.rule.written.escape_ascii()
            ),
            None => "there is a way past the line that asks for a code".to_owned(),
        };
        if rule.is_some_and(is_by_who_or_where) {
            return Finding {
                why: format!(
                    "This way in asks for no code: {}. An exception here has no end, and no log.",
                    in_words(path)
                ),
                way_out: format!(
                    "Take the line out, and say in {} whom it was for: `[[exempt]]` for people from a network, `[require]` for \
                     who needs a code (README, \"Who is not asked\").",
                    self.case.policy_path.display()
                ),
                ..self.finding(Weight::Open, "skipped", rule.map(|rule| &rule.place), what)
            };
        }
        let first = self.ours.first().map(|rule| required(rule)).unwrap_or_default();
        let above = rule.map_or_else(|| self.file().to_string(), |rule| self.above(rule));
        Finding {
            why: format!("This way in asks for no code: {}.", in_words(path)),
            way_out: format!("Take the line that asks for the code from its place, and write it above {above}:"),
            lines: vec![first],
            ..self.finding(Weight::Open, "skipped", rule.map(|rule| &rule.place), what)
        }
    }

    /// Where a line that goes before a rule is written. Not into a file that others include: it would ask at their services too,
    /// and the jumps in there would lead elsewhere.
    fn above(&self, rule: &Rule) -> String {
        let own = self.file().file;
        let is_beside = self.ours.first().is_some_and(|ours| ours.place.file == rule.place.file);
        if is_beside || rule.place.file == own {
            return rule.place.to_string();
        }
        let (own, included) = (self.file(), Place { file: rule.place.file.clone(), line: 0 });
        format!("the line of {own} by which {included} is included")
    }

    fn not_required(&self, path: &paths::Finding<'a>) -> Finding {
        let rule = self.ours_on(path);
        let counts = |rule: &Rule| matches!(rule.control.action(Answer::AUTH_ERR), Action::Bad | Action::Die);
        let forgives = path.path.iter().find(|step| step.rule.control.action(step.answer) == Action::Reset);
        let why = format!("This way in takes any code, or none: {}.", in_words(path));
        if let (Some(true), Some(step)) = (rule.map(counts), forgives) {
            let what = format!("{} makes a wrong code as if it had never been typed (`reset`)", module(step.rule));
            return Finding {
                why,
                way_out: "Write `ignore` in the place of `reset`.".to_owned(),
                ..self.finding(Weight::Open, "not-required", Some(&step.rule.place), what)
            };
        }
        let control = rule.map(|rule| rule.written.escape_ascii().to_string()).unwrap_or_default();
        Finding {
            why,
            way_out: "Write in its place:".to_owned(),
            lines: rule.map(required).into_iter().collect(),
            ..self.finding(
                Weight::Open,
                "not-required",
                rule.map(|rule| &rule.place),
                format!("a code is asked for, but a wrong one does not count (`{control}`)"),
            )
        }
    }

    fn trap(&self, path: &paths::Finding<'a>, name: &'static str, weight: Weight, what: &str, why: &str) -> Finding {
        let rule = self.ours_on(path);
        let control = rule.map(|rule| rule.written.escape_ascii().to_string()).unwrap_or_default();
        Finding {
            why: why.to_owned(),
            way_out: "Write in its place:".to_owned(),
            lines: rule.map(required).into_iter().collect(),
            ..self.finding(weight, name, rule.map(|rule| &rule.place), format!("`{control}` {what}"))
        }
    }

    fn nobody(&self) -> Finding {
        let place = self.file();
        let lines = match self.ours.is_empty() {
            true => vec![OUR_LINE.to_owned(), YES_LINE.to_owned()],
            false => vec![YES_LINE.to_owned()],
        };
        Finding {
            why: "Whatever the modules say, the stack as a whole denies, or libpam cannot read it.".to_owned(),
            way_out: "Look for the other findings about this service, for a jump beyond the end, and for a `pam_deny.so` that \
                      everybody meets. A stack that asks for a code ends like this:"
                .to_owned(),
            lines,
            ..self.finding(Weight::Closed, "nobody-gets-in", Some(&place), "nobody gets in".to_owned())
        }
    }

    fn endless(&self) -> Finding {
        let place = self.file();
        Finding {
            why: "Each login runs until it is out of memory or time, and is denied.".to_owned(),
            way_out: "Take out the `include` that leads back to a file that is being read.".to_owned(),
            ..self.finding(Weight::Closed, "endless", Some(&place), "its files include each other for ever".to_owned())
        }
    }

    /// Who is let pass without a code by the policy.
    fn not_asked(&self) -> Vec<Finding> {
        let Some(policy) = &self.service.policy else { return Vec::new() };
        let enrolment = policy.enrolment.value;
        let for_ever = enrolment.kind == EnrolmentKind::Optional && enrolment.optional_until.is_none();
        let now = clock::now();
        let is_exempt = policy.exemptions.iter().map(|exemption| &exemption.value);
        let is_exempt = is_exempt.filter(|exemption| exemption.until.over > now).any(|it| it.result == Exempt::Ignore);
        let for_a_while = enrolment.optional_until.is_some_and(|end| end.over > now);
        let passes = for_ever || for_a_while || is_exempt || policy.require.is_some();
        let is_a_way = self.has(Kind::NotAsked);
        let mut findings = Vec::new();
        if for_ever && is_a_way {
            findings.push(self.without_an_end(policy));
        }
        if passes && !is_a_way && !self.is_dead() && !self.has(Kind::DenialIgnored) {
            let place = self.ours.first().map(|rule| &rule.place);
            findings.push(Finding {
                why: "Where all modules of a stack have no say, libpam denies: whoever has no device, or is exempt, does not get in."
                    .to_owned(),
                way_out: "Write below it:".to_owned(),
                lines: vec![YES_LINE.to_owned()],
                ..self.finding(
                    Weight::Closed,
                    "nobody-says-yes",
                    place,
                    "the policy lets people pass without a code, and no other module says yes to them".to_owned(),
                )
            });
        }
        findings
    }

    fn without_an_end(&self, policy: &Policy) -> Finding {
        let service = &self.service.name;
        let rule = self.ours.first();
        let until = format!("enrol_by = {}", self.case.in_a_month());
        let file = self.case.policy_path.display().to_string().escape_debug().to_string();
        let (place, way_out, lines) = match policy.enrolment.origin {
            Origin::Line(line) => (
                format!("{file}:{line}"),
                "Say until when instead; from then on whoever has no device is denied:".to_owned(),
                vec![until],
            ),
            _ => (
                rule.map(|rule| rule.place.to_string()).unwrap_or_default(),
                format!("Take `nullok` out, and write into {file} until when it holds:"),
                vec![format!("[service.{service}]"), until],
            ),
        };
        Finding {
            place: Some(place),
            why: "Whoever never enrolled gets in without a code, for as long as nobody changes this: for them a stolen key or \
                  password is enough."
                .to_owned(),
            way_out,
            lines,
            ..self.finding(Weight::Open, "no-end", None, "enrolment is optional, without an end".to_owned())
        }
    }

    fn asked_twice(&self) -> Option<Finding> {
        let [first, second, ..] = self.ours.as_slice() else { return None };
        // libpam reads it for itself and for those who lack one; nobody logs in by this name.
        if self.service.name == "other" {
            return None;
        }
        if self.is_dead() {
            return None;
        }
        // One that is only reached where the other one was not is as good as one.
        let apart = matches!(first.control.action(Answer::SUCCESS), Action::Jump(_) | Action::Done);
        (!apart).then(|| Finding {
            why: "A code works once. The second line asks again, and the code that was right a moment ago is refused."
                .to_owned(),
            way_out: format!("Take one of the two out, the one at {} or this.", first.place),
            ..self.finding(Weight::Closed, "asked-twice", Some(&second.place), "two lines ask for a code".to_owned())
        })
    }

    /// `use_first_pass` looks at the password that somebody typed, and here nobody did: sshd keeps none for the stack.
    fn nobody_asked_before(&self) -> Option<Finding> {
        let rule = self.ours.first()?;
        let looks_only = self.service.policy.as_ref().is_some_and(|policy| policy.options.first_pass == FirstPass::Use);
        let rules = self.service.stack.rules();
        let mut before = rules.iter().take_while(|known| !std::ptr::eq(**known, *rule));
        (looks_only && before.all(|rule| is_silent(rule))).then(|| Finding {
            why: "It takes the code from the end of a password, asks for none itself, and no line above asks: everybody is denied."
                .to_owned(),
            way_out: "Write in its place:".to_owned(),
            lines: vec![required(rule).replace(" use_first_pass", "")],
            ..self.finding(Weight::Closed, "no-first-pass", Some(&rule.place), "`use_first_pass` has nothing to look at".to_owned())
        })
    }

    fn quiet(&self) -> Option<Finding> {
        let rule = self.ours.iter().find(|rule| rule.is_quiet)?;
        Some(Finding {
            why: "Where the module is missing everybody is denied all the same, and the log does not say why."
                .to_owned(),
            way_out: "Write in its place:".to_owned(),
            lines: vec![required(rule)],
            ..self.finding(Weight::Weak, "quiet", Some(&rule.place), "the line begins with `-`".to_owned())
        })
    }

    fn trouble(&self, place: &Place, trouble: &Trouble) -> Finding {
        let (what, way_out) = in_words_of(trouble);
        let weight = match trouble {
            Trouble::Vendor(_) | Trouble::TooLong => Weight::Weak,
            _ => Weight::Closed,
        };
        Finding {
            why: "libpam does not read this line as it is meant: it fails for everybody, or is passed over by chance."
                .to_owned(),
            way_out,
            ..self.finding(weight, "stack-line", Some(place), what)
        }
    }
}

/// What is wrong with a line, and the way out.
fn in_words_of(trouble: &Trouble) -> (String, String) {
    let path = |path: &Path| path.as_os_str().as_encoded_bytes().escape_ascii().to_string();
    match trouble {
        Trouble::Type(word) => (
            format!("`{}` is no type of a rule", word.escape_ascii()),
            "Begin the line with auth, account, password, session or @include.".to_owned(),
        ),
        Trouble::NoControl => {
            ("no control".to_owned(), "Write required, requisite, sufficient or optional behind the type.".to_owned())
        }
        Trouble::Control(word) => (
            format!("`{}` is no control", word.escape_ascii()),
            "Write required, requisite, sufficient, optional, include, substack or [VALUE=ACTION ...].".to_owned(),
        ),
        Trouble::NoName => ("no module, or no file to include".to_owned(), "Name it, or take the line out.".to_owned()),
        Trouble::Include(file, error) => {
            (format!("{} {error}", path(file)), "Put the file in its place, or take the line out.".to_owned())
        }
        Trouble::Vendor(file) => (
            format!("{} is only in /usr/lib, where Debian's libpam does not look for included files", path(file)),
            format!("Copy it to {PAM_D}."),
        ),
        Trouble::Loop(file) => {
            (format!("{} includes itself", path(file)), "Take the line out that leads back to it.".to_owned())
        }
        Trouble::Depth => {
            ("too many files within each other".to_owned(), "Write the rules into the service's own file.".to_owned())
        }
        Trouble::Module(word) => {
            (format!("`{}` is no name of a module", word.escape_ascii()), "Name it, as pam_unix.so.".to_owned())
        }
        Trouble::Cut => ("the last line ends in `\\`".to_owned(), "Take the `\\` out.".to_owned()),
        Trouble::TooLong => {
            ("more than 1023 bytes, which libpam cuts in two".to_owned(), "Make the line shorter.".to_owned())
        }
    }
}

/// The line of ours as it should be.
fn required(rule: &Rule) -> String {
    let mut line = OUR_LINE.replace(OURS, &rule.module.escape_ascii().to_string());
    for argument in &rule.arguments {
        let argument = argument.escape_ascii().to_string();
        let is_plain = !argument.contains(' ');
        line.push(' ');
        line.push_str(&if is_plain { argument } else { format!("[{argument}]") });
    }
    line
}

fn is_by_who_or_where(rule: &Rule) -> bool {
    let name = module(rule);
    BY_WHO_OR_WHERE.iter().any(|module| name == format!("pam_{module}.so"))
}

fn module(rule: &Rule) -> String {
    rule.module_name().escape_ascii().to_string()
}

/// `pam_unix.so success (/etc/pam.d/common-auth:17), then ...`
fn in_words(path: &paths::Finding<'_>) -> String {
    let steps = path.path.iter().map(|Step { rule, answer }| {
        let module = if rule.module.is_empty() { "nobody".to_owned() } else { module(rule) };
        format!("{module} {answer} ({})", rule.place)
    });
    // A path through ten thousand lines is told by its beginning.
    let steps: Vec<String> = steps.collect();
    let shown = steps.get(..12).unwrap_or(&steps).join(", ");
    if steps.len() > 12 { format!("{shown}, and so on") } else { shown }
}
