//! What is wrong with sshd's settings: `ways_in` finds it, and here it is said, with the words of the stack they lead to.

use super::case::{Case, Service};
use super::gate;
use super::paths::{Kind, asks_for_a_password, judge};
use super::report::{Finding, Report, Weight};
use super::ways_in::{self, Asks, Circumstances, Found, Method, Way, Who, ways};
use crate::root::{Root, Unreadable};
use crate::sshd_config::{self, Block, Config, Connection, Effective, Files, NoAnswer, Origin, RootLogin};
use pam_totp::policy::{EnrolmentKind, Identity};
use pam_totp::system::{clock, passwd};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;

const SERVICE: &str = "sshd";
/// Whoever is named by nobody: sshd itself wants all of a connection to judge one.
const ANYBODY: &str = "somebody-without-a-name";
/// An address of documentation (RFC 5737), of which no network is.
const ANYWHERE: &str = "192.0.2.1";

impl Files for Root {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Root::read(self, path).map_err(in_io)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.list(directory).map_err(in_io)
    }
}

fn in_io(error: Unreadable) -> io::Error {
    match error {
        Unreadable::Missing => ErrorKind::NotFound.into(),
        Unreadable::Directory => ErrorKind::IsADirectory.into(),
        Unreadable::Failed(errno) => errno.into(),
        other => io::Error::other(other.to_string()),
    }
}

pub(super) fn examine(case: &Case<'_>, report: &mut Report) {
    let Some(service) = case.service(SERVICE) else { return };
    let config = match Config::read(case.root) {
        Ok(config) => config,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            report.note(format!("{} is not there: sshd was not judged", sshd_config::PATH));
            return;
        }
        Err(error) => {
            report.findings.push(unreadable(&error));
            return;
        }
    };
    let live = Live::of(case, report);
    let sshd = Judge { case, service, config: &config, live, stack: Asked::of(service) };
    sshd.refusals(report);
    match case.user {
        Some(user) => sshd.user(user, report),
        None => sshd.everybody(report),
    }
}

fn unreadable(error: &io::Error) -> Finding {
    Finding {
        weight: Weight::Closed,
        name: "sshd-config",
        service: Some(SERVICE.to_owned()),
        what: format!("cannot be read: {error}"),
        place: Some(sshd_config::PATH.to_owned()),
        why: "sshd does not start without it.".to_owned(),
        way_out: "Put a regular file of root's in its place.".to_owned(),
        lines: Vec::new(),
    }
}

/// Whether sshd itself can be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Live {
    Yes,
    FilesAlone,
}

impl Live {
    fn of(case: &Case<'_>, report: &mut Report) -> Self {
        if !case.root.is_live() {
            return Self::FilesAlone;
        }
        if passwd::process_uids().1 != 0 {
            report.note("only root can ask sshd itself (sshd -T): its settings were judged by its files alone");
            return Self::FilesAlone;
        }
        Self::Yes
    }
}

/// What the stack asks a person for.
#[derive(Clone, Copy)]
struct Asked {
    /// Nobody gets through it without a code, but whom the policy lets pass.
    code: bool,
    /// Nor without something else, a password as a rule.
    password: bool,
    /// Both in one answer (`forward_pass`).
    at_once: bool,
}

impl Asked {
    fn of(service: &Service) -> Self {
        let stack = &service.stack;
        let is_open = |kind| matches!(kind, Kind::Skipped | Kind::DenialIgnored | Kind::Endless | Kind::NobodyGetsIn);
        let code = !judge(stack).iter().any(|path| is_open(path.kind));
        let password = asks_for_a_password(stack);
        let at_once = service.policy.as_ref().is_some_and(|policy| policy.options.forward_pass);
        Self { code, password, at_once }
    }
}

struct Judge<'a> {
    case: &'a Case<'a>,
    service: &'a Service,
    config: &'a Config,
    live: Live,
    stack: Asked,
}

/// Whom a judgement is about.
enum Scope<'a> {
    Everybody,
    Block(&'a Block),
    User(&'a str),
}

impl Judge<'_> {
    /// Why sshd does not start, and at what it shrugs.
    fn refusals(&self, report: &mut Report) {
        for (place, word) in &self.config.ignored {
            report.note(format!("{place}: sshd does nothing with `{}` any more", word.escape_debug()));
        }
        for problem in &self.config.problems {
            report.findings.push(Finding {
                why: "sshd does not start, or not with what this line says: after the next restart nobody logs in."
                    .to_owned(),
                way_out: "Correct the line, and ask sshd:".to_owned(),
                lines: vec!["sshd -t".to_owned()],
                place: Some(problem.place.to_string()),
                ..self.finding(Weight::Closed, "sshd-config", problem.trouble.to_string())
            });
        }
    }

    fn everybody(&self, report: &mut Report) {
        let anybody = self.asked(&connection(ANYBODY, &[]), report);
        let server = self.config.server();
        let mut seen = self.judge(&anybody, &server, Who::Person, &Scope::Everybody, report);
        let groups = self.case.groups("root");
        let root = connection("root", &groups);
        let of_root = self.asked(&root, report);
        let in_files = self.config.effective(&root);
        let of_root_alone = self.judge_but(&of_root, &in_files, Who::Root, &Scope::User("root"), &seen, report);
        seen.extend(of_root_alone);
        for block in self.config.blocks().iter().filter(|block| !block.is_all()) {
            let effective = self.config.effective_in(block);
            if self.is_stated(block, &effective) {
                self.exception(block, &effective, report);
            } else {
                self.judge_but(&effective, &effective, Who::Person, &Scope::Block(block), &seen, report);
            }
        }
    }

    fn user(&self, user: &str, report: &mut Report) {
        let groups = self.case.groups(user);
        let who = if self.case.is_root(user) { Who::Root } else { Who::Person };
        let connection = connection(user, &groups);
        let effective = self.asked(&connection, report);
        let seen = self.judge(&effective, &self.config.effective(&connection), who, &Scope::User(user), report);
        // From where they come is not known.
        for block in self.config.blocks().iter().filter(|block| !block.is_all() && block.may_be_for(&connection)) {
            let effective = self.config.effective_in(block);
            self.judge_but(&effective, &effective, who, &Scope::Block(block), &seen, report);
        }
    }

    /// What sshd says is in force, or else its files.
    fn asked(&self, connection: &Connection, report: &mut Report) -> Effective {
        if self.live == Live::FilesAlone {
            return self.config.effective(connection);
        }
        match sshd_config::ask(connection) {
            Ok(effective) => return effective,
            Err(NoAnswer::Refused(text)) if self.config.problems.is_empty() => {
                let text = text.trim_end().escape_debug().to_string();
                let finding = Finding {
                    why: "sshd would not start with its files as they are.".to_owned(),
                    way_out: "Correct what it says, and ask it again:".to_owned(),
                    lines: vec!["sshd -t".to_owned()],
                    place: Some(sshd_config::PATH.to_owned()),
                    ..self.finding(Weight::Closed, "sshd-config", format!("sshd refuses its settings: {text}"))
                };
                if !report.findings.contains(&finding) {
                    report.findings.push(finding);
                }
            }
            Err(NoAnswer::Refused(_)) => {}
            Err(error) => report.note(format!("{error}: sshd's settings were judged by its files alone")),
        }
        self.config.effective(connection)
    }

    fn judge(
        &self,
        effective: &Effective,
        in_files: &Effective,
        who: Who,
        scope: &Scope<'_>,
        report: &mut Report,
    ) -> Vec<Found> {
        self.judge_but(effective, in_files, who, scope, &[], report)
    }

    /// Reports what was found for somebody, but for what is `known` already; says what it was.
    fn judge_but(
        &self,
        effective: &Effective,
        in_files: &Effective,
        who: Who,
        scope: &Scope<'_>,
        known: &[Found],
        report: &mut Report,
    ) -> Vec<Found> {
        let circumstances = self.circumstances();
        let places = ways_in::judge(in_files, who, circumstances);
        let mut found = Vec::new();
        for finding in ways_in::judge(effective, who, circumstances) {
            if known.contains(&finding.found)
                || (gate::is_there(effective) && gate::answers(&finding.found))
                || (self.is_of_root_alone(&finding, effective) && !self.root_has_keys(effective))
            {
                continue;
            }
            // sshd -T does not say where it has something from; our reader does.
            let in_files = places.iter().find(|place| place.found == finding.found);
            let origin = in_files.map_or(&finding.origin, |place| &place.origin);
            report.findings.extend(self.in_words(&finding, origin, scope));
            found.push(finding.found);
        }
        if circumstances.login_key && known.is_empty() && ways(effective, who).iter().any(is_without_a_key) {
            report.findings.push(self.without_a_key(effective, in_files, scope));
        }
        let by_questions = ways(effective, who)
            .iter()
            .any(|way| way.methods == [Method::KeyboardInteractive] && way.asks == Asks::EachQuestion);
        if by_questions && self.stack.code && !self.stack.password && known.is_empty() {
            report.findings.push(self.code_alone(effective, in_files, scope));
        }
        found
    }

    /// That no way is left for root, who may not come in by everything anyway.
    fn is_of_root_alone(&self, finding: &ways_in::Finding, effective: &Effective) -> bool {
        match finding.found {
            Found::RootLockedOut => true,
            Found::NobodyGetsIn => finding.who == Who::Root && effective.permit_root_login.value != RootLogin::Yes,
            _ => false,
        }
    }

    fn circumstances(&self) -> Circumstances {
        let policy = self.service.policy.as_ref();
        Circumstances {
            inline_enrolment: policy.is_some_and(|policy| policy.enrolment.value.kind == EnrolmentKind::Inline),
            login_key: policy.is_some_and(|policy| policy.identity.value == Identity::LoginKey),
            exemptions: policy
                .is_some_and(|policy| policy.exemptions.iter().any(|exemption| exemption.until.over > clock::now())),
        }
    }

    fn finding(&self, weight: Weight, name: &'static str, what: String) -> Finding {
        Finding {
            weight,
            name,
            service: Some(self.service.name.clone()),
            what,
            place: None,
            why: String::new(),
            way_out: String::new(),
            lines: Vec::new(),
        }
    }

    fn in_words(&self, finding: &ways_in::Finding, origin: &Origin, scope: &Scope<'_>) -> Option<Finding> {
        let (weight, name, why) = self.meaning(&finding.found)?;
        let what = self.what(&finding.found);
        let what = match scope {
            Scope::Everybody => what,
            Scope::User(user) => format!("{what}, for {}", user.escape_debug()),
            Scope::Block(block) => format!("{what}, for `Match {}`", block.text.escape_debug()),
        };
        let (place, way_out) = match (scope, origin) {
            (_, Origin::Line(place)) => (Some(place.to_string()), "Write in its place:".to_owned()),
            (Scope::Block(block), _) => {
                (Some(block.place.to_string()), format!("Write below the line {}:", block.place))
            }
            _ => (None, format!("Write into {}, above everything else:", sshd_config::PATH)),
        };
        let why = match self.shadowed(finding) {
            Some(places) => format!("{why} {places}"),
            None => why.to_owned(),
        };
        let mut lines = vec![finding.line.to_owned()];
        if finding.found == Found::ForcedCommandForwards {
            lines.push("PermitTunnel no".to_owned());
        }
        Some(Finding { place, why, way_out, lines, ..self.finding(weight, name, what) })
    }

    fn what(&self, found: &Found) -> String {
        match found {
            Found::KeyAndPassword if self.stack.code && self.stack.password => {
                "key and password are asked for, and the password is handed to the prompt for the code too".to_owned()
            }
            Found::KeyAndPassword if self.stack.code => "the code is typed where sshd asks for a password".to_owned(),
            Found::PasswordForEverything if self.stack.code && !self.stack.password => {
                "a code that is typed as the password is enough: no key and no password is asked for".to_owned()
            }
            found => found.to_string(),
        }
    }

    /// How bad it is, its name for programs, and why it matters. `None`: with this stack it is as it should be.
    fn meaning(&self, found: &Found) -> Option<(Weight, &'static str, &'static str)> {
        use Weight::{Closed, Open, Weak};
        let Asked { code, password, at_once } = self.stack;
        Some(match found {
            Found::NobodyGetsIn => (Closed, "no-way-in", "After the next reload of sshd nobody logs in."),
            Found::RootLockedOut => (
                Closed,
                "root-locked-out",
                "Root has a key, and is asked for a code that sshd does not take from root. With AuthenticationMethods as it is, \
                 `yes` opens nothing but key and code.",
            ),
            Found::EmptyPassword => (Open, "empty-password", "An account without a password is open to everybody."),
            Found::PamOff => (Open, "pam-off", "Whatever the stack says, nobody reads it."),
            Found::KeyAlone => (Open, "key-alone", "Whoever has stolen a key is in: no code is asked for."),
            Found::CommandKeyAlone => {
                (Open, "command-key-alone", "Whoever has stolen the key runs its command: no code is asked for.")
            }
            Found::PasswordAlone => (Open, "password-alone", "Whoever knows a password is in: no code is asked for."),
            Found::KeyAndPassword | Found::PasswordForEverything | Found::QuestionsOff if code && at_once => {
                return None;
            }
            Found::PasswordBeforeQuestions if !code => return None,
            Found::PasswordBeforeQuestions => (
                Closed,
                "password-before-questions",
                "Each of the two runs the whole stack. sshd's `password` answers the prompt for the code with the password, or uses \
                 the code up: nobody gets in this way.",
            ),
            Found::KeyAndPassword if code && password => (
                Closed,
                "key-and-password",
                "What is a right password is no right code: nobody gets in this way. sshd's `password` cannot ask for two things.",
            ),
            Found::KeyAndPassword if code => (
                Weak,
                "key-and-password",
                "People are asked for a password and must type a code, and sshd shows them nothing of what the module says.",
            ),
            Found::KeyAndPassword => (
                Open,
                "key-and-password",
                "Two times the first factor: whoever has taken over a laptop has both, and no code is asked for.",
            ),
            Found::HostAlone => (Open, "host-alone", "Whoever is root on that host is in: no code is asked for."),
            Found::GssapiAlone => (Open, "gssapi-alone", "Whoever has a ticket is in: no code is asked for."),
            Found::OthersWithoutCode => {
                (Open, "others-without-code", "Nobody who gets in this way is asked for a code.")
            }
            Found::PasswordForEverything if code && password => (
                Closed,
                "password-for-everything",
                "What is a right password is no right code: nobody gets in this way, and each try counts as a wrong code.",
            ),
            Found::PasswordForEverything if code => (Open, "code-alone", "One factor, and it is the code."),
            Found::PasswordForEverything => {
                (Open, "password-for-everything", "Whoever knows a password is in: no code is asked for.")
            }
            Found::ForcedCommandForwards => (
                Open,
                "forced-command-forwards",
                "A connection that runs one command only still opens ports and tunnels through this host, without a code.",
            ),
            Found::QuestionsOff => {
                (Closed, "questions-off", "The code is asked for by keyboard-interactive, and that is off.")
            }
            Found::DroppedList(_) => (Closed, "dropped-list", "Whoever is meant to get in this way does not."),
            Found::UnknownDevice(_) => (Closed, "unknown-device", "Whoever is meant to get in this way does not."),
            Found::KeysOfTheUser => (
                Weak,
                "keys-of-the-user",
                "`identity = \"login-key\"` tells people by their keys. Whoever is in can write this file, and so be one person more.",
            ),
            Found::GraceTooShort(_) => (
                Closed,
                "grace-too-short",
                "People scan a code and type one inside their first login; sshd ends the connection before they are done.",
            ),
            Found::Forwards => (
                Weak,
                "forwards",
                "Whoever is in may connect from this host to itself or into an exempt network, and is not asked there. The module \
                 never exempts the host's own addresses; the hosts behind it may exempt this one.",
            ),
        })
    }

    /// Lines that say otherwise, and do not count as another came first.
    fn shadowed(&self, finding: &ways_in::Finding) -> Option<String> {
        let (first, line) = self.config.shadowed().into_iter().find(|(_, line)| line.key == finding.key)?;
        Some(format!(
            "(The line at {} says otherwise and does not count: of several lines the first does, {}.)",
            line.place, first.place
        ))
    }

    /// `identity = "login-key"`, and a way in on which no key comes before the questions.
    fn without_a_key(&self, effective: &Effective, in_files: &Effective, scope: &Scope<'_>) -> Finding {
        Finding {
            weight: Weight::Closed,
            name: "no-login-key",
            what: "people are told by their keys, and questions are asked before a key, or without one".to_owned(),
            why: "`identity = \"login-key\"` denies where sshd has not accepted a key: nobody gets in this way."
                .to_owned(),
            ..self.code_alone(effective, in_files, scope)
        }
    }

    fn code_alone(&self, effective: &Effective, in_files: &Effective, scope: &Scope<'_>) -> Finding {
        let origin = match &effective.authentication_methods.origin {
            Origin::Sshd => &in_files.authentication_methods.origin,
            origin => origin,
        };
        let finding = ways_in::Finding {
            found: Found::PasswordForEverything,
            who: Who::Person,
            key: effective.authentication_methods.key,
            origin: origin.clone(),
            line: ways_in::KEY_AND_CODE,
        };
        let told = self.in_words(&finding, origin, scope);
        let what = "a code alone is enough: no key and no password is asked for".to_owned();
        let why =
            "One factor, and it is the code: the phone alone gets in, and whoever looks over a shoulder.".to_owned();
        match told {
            Some(told) => Finding { weight: Weight::Open, name: "code-alone", what, why, ..told },
            None => self.finding(Weight::Open, "code-alone", what),
        }
    }

    /// Whether a block is about people whom it names, and itself says by what they get in: an exception, and one that is meant.
    fn is_stated(&self, block: &Block, effective: &Effective) -> bool {
        let own = &effective.authentication_methods.origin;
        let is_its_own = *own != self.config.server().authentication_methods.origin && matches!(own, Origin::Line(_));
        is_its_own && block.names_people()
    }

    fn exception(&self, block: &Block, effective: &Effective, report: &mut Report) {
        if gate::is_there(effective) {
            return;
        }
        let without_code = ways(effective, Who::Person).iter().any(|way| way.asks != Asks::EachQuestion);
        if without_code {
            report.note(format!(
                "an exception at {}: no code is asked for from `Match {}`",
                block.place,
                block.text.escape_debug()
            ));
        }
        // A command that they are held to is no bound where they may forward; and who is meant to get in should.
        for finding in ways_in::judge(effective, Who::Person, self.circumstances()) {
            let is_way_out_shut = matches!(
                finding.found,
                Found::NobodyGetsIn | Found::DroppedList(_) | Found::UnknownDevice(_) | Found::PasswordBeforeQuestions
            );
            if is_way_out_shut || finding.found == Found::ForcedCommandForwards {
                report.findings.extend(self.in_words(&finding, &finding.origin, &Scope::Block(block)));
            }
        }
    }

    /// Whether there is a key by which root gets in today.
    fn root_has_keys(&self, effective: &Effective) -> bool {
        if effective.permit_root_login.value == RootLogin::No {
            return false;
        }
        let home =
            self.case.account("root").and_then(|fields| fields.get(5).cloned()).unwrap_or_else(|| "/root".to_owned());
        effective.authorized_keys_file.value.iter().any(|path| {
            let path = path.replace("%h", &home).replace("%u", "root");
            let text = self.case.root.read(&Path::new(&home).join(path)).unwrap_or_default();
            let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_start);
            lines.any(|line| !line.is_empty() && !line.starts_with(b"#"))
        })
    }
}

/// Whether PAM asks before sshd has accepted a key.
fn is_without_a_key(way: &Way) -> bool {
    let mut before = way.methods.iter().take_while(|method| **method != Method::KeyboardInteractive);
    way.asks == Asks::EachQuestion && !before.any(|method| *method == Method::PublicKey)
}

/// Somebody who comes from anywhere.
pub(super) fn connection(user: &str, groups: &[String]) -> Connection {
    Connection {
        user: Some(user.to_owned()),
        groups: groups.to_vec(),
        host: Some(ANYWHERE.to_owned()),
        address: Some(ANYWHERE.to_owned()),
        local_address: Some(ANYWHERE.to_owned()),
        ..Connection::default()
    }
}
