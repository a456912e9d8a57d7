//! `pam-totp test-login`: a login through the stack of a service, as the service would start it, and what each module said.
//!
//! `copy` makes a copy of the stack that reports, `reports` understands it, and libpam runs it.

mod copy;
mod reports;

use crate::host::{self, ensure_root, service_name};
use crate::pam_config::control::{Action, Answer};
use crate::pam_config::{Call, Stack, Type};
use crate::prompt;
use crate::root::Root;
use crate::sshd_config::{Config, Connection};
use anyhow::{Context, Result, anyhow, ensure};
use copy::{Copied, Copy, copy};
use pam_totp::identity::login_key;
use pam_totp::pam::application::{Conversation, Item, Login};
use pam_totp::secret::Secret;
use pam_totp::system::process::{Fleeting, RealUid};
use pam_totp::system::random;
use reports::{Report, Reports, Said};
use std::cell::RefCell;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

/// The service that says which key it has accepted.
const SSHD: &str = "sshd";
/// Services that log in whoever calls them, and not whom they become.
const CALLERS: [&str; 2] = ["sudo", "sudo-i"];
/// Where the copy is made: no disk, and nobody else's.
const RUN: &str = "/run";
/// PAM_SUCCESS.
const SUCCESS: i32 = 0;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The service, as its file in /etc/pam.d is called
    #[arg(long, value_name = "NAME")]
    service: String,
    /// Who logs in
    #[arg(long, value_name = "USER")]
    user: String,
    /// The host that the login comes from (default: none, as at the console)
    #[arg(long, value_name = "HOST")]
    rhost: Option<String>,
    /// A public key that sshd has accepted before
    #[arg(long, value_name = "FILE.pub")]
    key: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Success if such a login would succeed.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure_root("log in as a service does")?;
    let service = service_name(&arguments.service)?;
    let auth_info = arguments.key.as_deref().map(|path| auth_info(&service, path)).transpose()?;
    let nonce = nonce()?;
    let directory = directory()?;
    let directory = directory.path();
    ensure_reporters(directory, &nonce)?;
    let root = Root::open(Path::new("/")).map_err(|error| anyhow!("/ {error}"))?;
    let [auth, account] = [Type::Auth, Type::Account].map(|kind| Stack::read(&root, &service, kind));
    let copy = copy(&[(Type::Auth, &auth), (Type::Account, &account)], directory, &nonce);
    let copy = copy.map_err(|error| anyhow!("{error}"))?;
    for (name, text) in &copy.files {
        write(&directory.join(name), text)?;
    }
    let walked = walk(arguments, &service, auth_info.as_deref(), directory, Front::new(&copy, &nonce, arguments.json))?;
    if arguments.json {
        say!("{}", walked.object(arguments, &service, &copy));
    } else {
        say!("{}", walked.code(&copy).sentence());
    }
    Ok(if walked.succeeds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What sshd says of a key, as a variable of the PAM environment.
fn auth_info(service: &str, path: &Path) -> Result<String> {
    ensure!(service == SSHD, "--key is for the service sshd: no other says which key was accepted");
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut words = text.lines().next().unwrap_or_default().split_whitespace();
    let line = match (words.next(), words.next()) {
        (Some(kind), Some(blob)) => format!("publickey {kind} {blob}"),
        _ => String::new(),
    };
    let is_key = login_key::is_accepted(line.as_bytes());
    ensure!(is_key, "{} is no public key: one line as ssh-keygen writes to FILE.pub", path.display());
    Ok(format!("SSH_AUTH_INFO_0={line}"))
}

fn nonce() -> Result<String> {
    let random = random::bytes::<16>().context("getrandom")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

/// A directory that is root's alone. The copy has all that the stack says, passwords of databases too, and a module can end
/// this process: it is gone then too.
fn directory() -> Result<Fleeting> {
    let path = Path::new(RUN).join(format!("pam-totp{}", random::suffix().context("getrandom")?));
    DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
    Fleeting::new(&path).with_context(|| path.display().to_string())
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text)).with_context(|| path.display().to_string())
}

/// Makes sure that the modules by which a copy reports are there and do what they are there for.
fn ensure_reporters(directory: &Path, nonce: &str) -> Result<()> {
    struct Listener(Reports);
    impl Conversation for Listener {
        fn told(&mut self, text: &[u8], _: bool) {
            self.0.hear(text);
        }

        fn asked(&mut self, _: &[u8], _: bool) -> Option<Secret<Vec<u8>>> {
            None
        }
    }
    let directory = directory.join("reporters");
    DirBuilder::new().mode(0o700).create(&directory).with_context(|| directory.display().to_string())?;
    let mut stack = String::new();
    for what in ["call", "answer"] {
        write(&directory.join(what), copy::text(nonce, what, 0).as_bytes())?;
        stack += &format!("auth [default=ignore] pam_echo.so file={}\n", directory.join(what).display());
    }
    stack += "auth required pam_debug.so auth=auth_err\n";
    for (name, text) in [(SSHD, stack.as_str()), ("other", "")] {
        write(&directory.join(name), text.as_bytes())?;
    }
    let mut listener = Listener(Reports::new(nonce));
    start(SSHD, "root", &directory, &mut listener)?.authenticate();
    let said = listener.0.done.first().map(|report| report.said);
    ensure!(
        said == Some(Said::Answer(Answer::AUTH_ERR)),
        "pam_echo.so and pam_debug.so of Linux-PAM do not work here, by which the stack is watched: they are in the package \
         libpam-modules (Debian, Ubuntu) or pam (Fedora, RHEL, Amazon Linux)"
    );
    Ok(())
}

fn start<'a>(service: &str, user: &str, directory: &Path, conversation: &'a mut dyn Conversation) -> Result<Login<'a>> {
    let login = Login::start(service.as_bytes(), user.as_bytes(), directory.as_os_str().as_bytes(), conversation);
    login.map_err(|error| anyhow!("{error}"))
}

// ---- The login ----

/// Who sits at the application's front, and listens to the reports too.
struct Front<'a> {
    copy: &'a Copy,
    reports: Reports,
    is_json: bool,
    /// Somebody has interrupted, or the input has ended.
    is_over: bool,
    /// How many reports have been shown.
    shown: usize,
}

impl<'a> Front<'a> {
    fn new(copy: &'a Copy, nonce: &str, is_json: bool) -> Self {
        Self { copy, reports: Reports::new(nonce), is_json, is_over: false, shown: 0 }
    }

    /// Shows what was reported since the last time.
    fn show(&mut self) {
        if !self.is_json {
            for report in self.reports.done.iter().skip(self.shown) {
                if let Some(copied) = self.copy.rules.get(report.number) {
                    say!("{}", line(copied, report));
                }
            }
        }
        self.shown = self.reports.done.len();
    }

    fn finish(&mut self) {
        self.reports.finish();
        self.show();
    }
}

/// libpam has it while it runs, and we in between.
struct Shared<'a>(Rc<RefCell<Front<'a>>>);

impl Conversation for Shared<'_> {
    fn told(&mut self, text: &[u8], _: bool) {
        let mut front = self.0.borrow_mut();
        if front.reports.hear(text) {
            front.show();
        } else {
            let _ = writeln!(std::io::stderr(), "{}", prompt::shown(text));
        }
    }

    fn asked(&mut self, question: &[u8], echo: bool) -> Option<Secret<Vec<u8>>> {
        let mut front = self.0.borrow_mut();
        front.reports.asked();
        let answer = if front.is_over { None } else { prompt::ask(&prompt::shown(question), echo).ok().flatten() };
        front.is_over = answer.is_none();
        answer
    }
}

/// How a login ended.
struct Walked {
    reports: Vec<Report>,
    /// libpam's codes, with its words for them.
    authenticate: (i32, String),
    /// `None`: it did not come to that.
    account: Option<(i32, String)>,
}

fn walk(
    arguments: &Arguments,
    service: &str,
    auth_info: Option<&str>,
    directory: &Path,
    front: Front<'_>,
) -> Result<Walked> {
    let is_json = front.is_json;
    let front = Rc::new(RefCell::new(front));
    let mut shared = Shared(Rc::clone(&front));
    let mut login = start(service, &arguments.user, directory, &mut shared)?;
    for (item, value) in items(arguments, service)? {
        login.set(item, value.as_bytes()).map_err(|error| anyhow!("{error}"))?;
    }
    if let Some(auth_info) = auth_info {
        login.put(auth_info.as_bytes()).map_err(|error| anyhow!("{error}"))?;
    }
    if service == SSHD && !permits_empty_passwords(arguments) {
        login.refuse_empty_passwords();
    }
    let _caller = caller(arguments, service)?;
    let ended = |function: &str, code: i32, words: String| {
        front.borrow_mut().finish();
        if !is_json {
            say!("{function}: {}", words.to_lowercase());
        }
        (code, words)
    };
    let code = login.authenticate();
    let authenticate = ended("pam_authenticate", code, login.describe(code));
    let account = (code == SUCCESS).then(|| {
        let code = login.account();
        ended("pam_acct_mgmt", code, login.describe(code))
    });
    drop(login);
    let reports = std::mem::take(&mut front.borrow_mut().reports.done);
    Ok(Walked { reports, authenticate, account })
}

/// Whether sshd would let in whoever has an empty password. What cannot be read says no, as sshd does unasked.
fn permits_empty_passwords(arguments: &Arguments) -> bool {
    let connection =
        Connection { user: Some(arguments.user.clone()), address: arguments.rhost.clone(), ..Connection::default() };
    let config = Root::open(Path::new("/")).ok().and_then(|root| Config::read(&root).ok());
    config.is_some_and(|config| config.effective(&connection).permit_empty_passwords.value)
}

/// Makes us look as a program does that somebody calls and that logs them in: modules go by the real uid, ours too
/// (`identity = "caller"`), and `pam_rootok` lets in whoever has root's.
fn caller(arguments: &Arguments, service: &str) -> Result<Option<RealUid>> {
    if !CALLERS.contains(&service) {
        return Ok(None);
    }
    let caller = host::in_database(arguments.user.as_bytes())?;
    RealUid::of(caller.uid()).map(Some).context("setresuid")
}

/// What the service would say about a login.
fn items(arguments: &Arguments, service: &str) -> Result<Vec<(Item, String)>> {
    let mut items: Vec<_> = arguments.rhost.iter().map(|host| (Item::Rhost, host.clone())).collect();
    if service == SSHD {
        // Whatever terminal there will be (PAM_TTY_KLUDGE of OpenSSH).
        items.push((Item::Tty, "ssh".to_owned()));
        return Ok(items);
    }
    let terminal = fs::read_link("/proc/self/fd/0").unwrap_or_default();
    if terminal.starts_with("/dev/pts") || terminal.starts_with("/dev/tty") {
        items.push((Item::Tty, terminal.to_string_lossy().into_owned()));
    }
    let caller = match CALLERS.contains(&service) {
        true => arguments.user.clone(),
        false => String::from_utf8_lossy(host::operator()?.name()).into_owned(),
    };
    items.push((Item::Ruser, caller));
    Ok(items)
}

// ---- What is shown ----

/// What our module has done for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// It was not called.
    NotCalled,
    /// It said that nobody need be asked.
    NotAsked,
    /// It cannot be loaded.
    Missing,
    /// It let somebody in whom it did not ask itself.
    LetIn,
    /// It asked, and the code was right.
    Right,
    /// It did not let in.
    Refused,
}

impl Code {
    /// Of several reports the first success counts, and without one the last.
    fn of(reports: &[(Said, bool)]) -> Self {
        let success = Said::Answer(Answer::SUCCESS);
        let told = reports.iter().find(|(said, _)| *said == success).or_else(|| reports.last());
        match told {
            None => Self::NotCalled,
            Some((said, true)) if *said == success => Self::Right,
            Some((said, false)) if *said == success => Self::LetIn,
            Some((Said::Answer(Answer::IGNORE), _)) => Self::NotAsked,
            Some((Said::Answer(Answer::MODULE_UNKNOWN), _)) => Self::Missing,
            Some(_) => Self::Refused,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::NotCalled => "not-called",
            Self::NotAsked => "not-asked",
            Self::Missing => "missing",
            Self::LetIn => "let-in",
            Self::Right => "right",
            Self::Refused => "refused",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::NotCalled => "Nobody asked for a code: pam_totp.so was not called.",
            Self::NotAsked => "Nobody asked for a code: pam_totp.so said ignore; the log says why.",
            Self::Missing => "Nobody asked for a code: pam_totp.so cannot be loaded; the log says why.",
            Self::LetIn => {
                "pam_totp.so asked for nothing and let in: a grace, an exemption, or a code that another module had asked for; the \
                 log says which."
            }
            Self::Right => "A code was asked for and found right, and is used up.",
            Self::Refused => "No code was found right; the log says why, and so does pam-totp verify --explain.",
        }
    }
}

impl Walked {
    fn succeeds(&self) -> bool {
        self.authenticate.0 == SUCCESS && self.account.as_ref().is_some_and(|(code, _)| *code == SUCCESS)
    }

    fn code(&self, copy: &Copy) -> Code {
        let ours = self.reports.iter().filter(|report| {
            let copied = copy.rules.get(report.number);
            copied.is_some_and(|copied| copied.kind == Type::Auth && copied.rule.is_ours())
        });
        Code::of(&ours.map(|report| (report.said, report.has_asked)).collect::<Vec<_>>())
    }

    fn object(&self, arguments: &Arguments, service: &str, copy: &Copy) -> serde_json::Value {
        let called = self.reports.iter().filter_map(|report| Some(object(copy.rules.get(report.number)?, report)));
        let result = |(code, words): &(i32, String)| serde_json::json!({ "code": code, "text": words });
        serde_json::json!({
            "service": service,
            "user": arguments.user,
            "rhost": arguments.rhost,
            "called": called.collect::<Vec<_>>(),
            "authenticate": result(&self.authenticate),
            "account": self.account.as_ref().map(result),
            "code": self.code(copy).word(),
            "succeeds": self.succeeds(),
        })
    }
}

/// A rule that was called, in one line.
fn line(copied: &Copied, report: &Report) -> String {
    let rule = &copied.rule;
    let (control, said) = (control(&rule.written), said(copied, report.said));
    let consequence = consequence(copied, report.said).map_or_else(String::new, |words| format!(": {words}"));
    format!("{}  {}  {said}  (control {control}{consequence})", rule.place, module(copied))
}

fn object(copied: &Copied, report: &Report) -> serde_json::Value {
    let rule = &copied.rule;
    serde_json::json!({
        "type": if copied.kind == Type::Account { "account" } else { "auth" },
        "file": rule.place.file.to_string_lossy(),
        "line": rule.place.line,
        "module": module(copied),
        "answer": match report.said { Said::Answer(answer) => Some(answer.name()), _ => None },
        "said": said(copied, report.said),
        "control": control(&rule.written),
        "consequence": consequence(copied, report.said),
        "asked": report.has_asked,
    })
}

fn module(copied: &Copied) -> String {
    if copied.rule.call == Call::Module {
        copied.rule.module.escape_ascii().to_string()
    } else {
        "(no module)".to_owned()
    }
}

/// As it is written: what has more than a word is in brackets.
fn control(written: &[u8]) -> String {
    let text = written.escape_ascii();
    if written.contains(&b'=') { format!("[{text}]") } else { text.to_string() }
}

fn said(copied: &Copied, said: Said) -> String {
    match said {
        Said::Answer(answer) => answer.to_string(),
        Said::NoAnswer => "a number that is no answer".to_owned(),
        Said::Nothing if copied.is_watched => "incomplete".to_owned(),
        Said::Nothing => "(not seen: the line has no room for what would say it)".to_owned(),
    }
}

/// What libpam makes of an answer. `None`: that was not seen.
fn consequence(copied: &Copied, said: Said) -> Option<String> {
    let action = match said {
        Said::Answer(answer) => copied.rule.control.action(answer),
        Said::NoAnswer => Action::Bad,
        Said::Nothing => return None,
    };
    Some(match action {
        Action::Ignore => "does not count".to_owned(),
        Action::Ok => "counts".to_owned(),
        Action::Done => "counts, and is the end unless something has failed".to_owned(),
        Action::Bad => "has failed".to_owned(),
        Action::Die => "has failed, and is the end".to_owned(),
        Action::Reset => "what came before is forgotten".to_owned(),
        Action::Jump(over) => format!("jumps over {over}"),
        Action::Broken => "has failed, as its number is none".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_was_right_only_if_it_was_asked_for() {
        let said = |answer| Said::Answer(answer);
        for (reports, code) in [
            (&[][..], Code::NotCalled),
            (&[(said(Answer::SUCCESS), true)], Code::Right),
            (&[(said(Answer::SUCCESS), false)], Code::LetIn),
            (&[(said(Answer::IGNORE), false)], Code::NotAsked),
            (&[(said(Answer::AUTH_ERR), true)], Code::Refused),
            (&[(said(Answer::AUTHINFO_UNAVAIL), false)], Code::Refused),
            (&[(said(Answer::MODULE_UNKNOWN), false)], Code::Missing),
            (&[(Said::Nothing, true)], Code::Refused),
            (&[(said(Answer::SUCCESS), true), (said(Answer::IGNORE), false)], Code::Right),
        ] {
            assert_eq!(Code::of(reports), code, "{reports:?}");
        }
    }

    #[test]
    fn a_public_key_is_said_as_sshd_says_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pub");
        let blob = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
        fs::write(&path, format!("ssh-ed25519 {blob} alice@laptop\n")).unwrap();
        let expected = format!("SSH_AUTH_INFO_0=publickey ssh-ed25519 {blob}");
        assert_eq!(auth_info("sshd", &path).unwrap(), expected);
        assert!(auth_info("su", &path).is_err(), "no other service says so");
        fs::write(&path, format!("ssh-rsa {blob}\n")).unwrap();
        assert!(auth_info("sshd", &path).is_err(), "the type is not that of the key");
        fs::write(&path, "\n").unwrap();
        assert!(auth_info("sshd", &path).is_err());
    }
}
