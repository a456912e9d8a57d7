//! What root decides: the module's arguments above `/etc/security/pam_totp.toml`, and both above a person's own file.

pub mod callers;
pub mod exempt;
mod explain;
mod file;
mod in_use;
pub mod odds;
pub mod throttle;
pub mod values;

pub use explain::{Line, explain};
pub use file::{
    BadPolicy, CertIdentity, CertName, EnrolmentKind, Fingerprint, Identity, PolicyFile, Qr, StoreKind, Via,
};

#[cfg(feature = "fleet")]
pub(crate) use file::{AbsolutePath, Problem, bad, read_toml};

use crate::fact::Fact;
use crate::options::Options;
use crate::record::Window;
use crate::source::Source;
use crate::system::addresses;
use crate::system::files::read_trusted;
use callers::TrustedCaller;
use exempt::{Exemption, Require};
use file::{Table, line_and_column};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use throttle::Throttle;
use toml::Spanned;
use values::{End, Network};

/// The policy file, unless `conf=` names another.
pub const PATH: &str = "/etc/security/pam_totp.toml";
/// Where what is root's alone is kept, unless `state_dir` says otherwise.
pub const STATE_DIR: &str = "/var/lib/pam_totp";
/// Where the agent listens, unless `agent_socket` says otherwise. The directory is root's, so that nobody else can.
pub const AGENT_SOCKET: &str = "/run/pam_totp-agent.sock";
/// Where the secret is, unless `secret` says otherwise.
pub const SECRET: &str = "~/.google_authenticator";
/// What a person is asked, unless `prompt` says otherwise. Clients and scripts look for it: it stays as it is.
pub const PROMPT: &str = "Verification code: ";
/// The same with `forward_pass`.
pub const COMBINED_PROMPT: &str = "Password & verification code: ";
/// One time step on either side of the present one (RFC 6238 section 5.2 advises no more).
pub const WINDOW: Window = Window { behind: 1, ahead: 1 };
/// How long the application should wait after a denial before it goes on, in seconds. libpam takes the longest of the
/// stack and varies it by up to a half, so that the time of a denial says nothing about its reason.
pub const FAIL_DELAY: u64 = 2;

/// Half blocks: the whole code is on a screen of 80 by 24, and nearly every client shows them (what the client of somebody
/// else's can show is not to be seen from here). In one that cannot, the secret below is there to be typed.
const QR: Qr = Qr::Utf8;

/// A service that is covered by another's table unless it has its own: the login shells of su and sudo.
const RELATIVES: [(&str, &str); 2] = [("su-l", "su"), ("sudo-i", "sudo")];

/// A policy file and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// What it says. Where there is no file: nothing.
    pub file: PolicyFile,
    text: Vec<u8>,
}

impl Document {
    /// The policy of this host, or with `conf` of that file, which has to be there then. What root has seen in use is
    /// remembered, so that a file that is gone or was cut short is not taken for a decision.
    ///
    /// # Errors
    /// What is wrong with the file, its owner, its mode, or a directory above it.
    pub fn load(conf: Option<&[u8]>) -> Result<Self, Fact> {
        let path = path_of(conf);
        let (document, is_new) = Self::read(conf)?;
        if is_new {
            in_use::write(path, in_use::Copy::InUse, &document.text);
        }
        Ok(document)
    }

    /// The same, and nothing is remembered. `true`: it is to be.
    ///
    /// # Errors
    /// As [`Document::load`].
    pub fn read(conf: Option<&[u8]>) -> Result<(Self, bool), Fact> {
        let path = path_of(conf);
        // First, as it is written last: what is remembered is never newer than what is read.
        let in_use = in_use::read(path, in_use::Copy::InUse)?;
        match read_trusted(path) {
            Ok(Some(text)) => {
                let file = PolicyFile::parse(&text).map_err(|bad| bad.fact(path.as_os_str().as_bytes()))?;
                let is_new = in_use::check(in_use, path, &text, &file)?;
                Ok((Self { file, text }, is_new))
            }
            Ok(None) if conf.is_some() => {
                Err(Fact::new("no-policy").with_path(path).or("conf= names a file that is not there"))
            }
            Ok(None) if in_use.is_some() => Err(Fact::new("no-policy")
                .with_path(path)
                .or("the file that was in use is gone: put it back, or install another with pam-totp check --install")),
            Ok(None) => Ok((Self::default(), false)),
            Err(error) => Err(error.fact()),
        }
    }

    /// Reads a text that is not in force.
    ///
    /// # Errors
    /// [`BadPolicy`].
    pub fn parse(text: Vec<u8>) -> Result<Self, BadPolicy> {
        PolicyFile::parse(&text).map(|file| Self { file, text })
    }

    /// Puts a policy in force: checked, then by rename, and remembered.
    ///
    /// # Errors
    /// What is wrong with it, or why it cannot be put there; the old one is in force then.
    pub fn install(text: &[u8], path: &Path) -> Result<(), Fact> {
        PolicyFile::parse(text).map_err(|bad| bad.fact(path.as_os_str().as_bytes()))?;
        // First, so that a login that sees the new file beside the memory of the old one knows that it is whole.
        in_use::write(path, in_use::Copy::Installed, text);
        crate::system::files::install(path, text).map_err(|error| error.fact())?;
        in_use::write(path, in_use::Copy::InUse, text);
        Ok(())
    }

    /// Whether the file has a table for a service, or for one that covers it.
    pub fn has_table(&self, service: &str) -> bool {
        self.table(service).is_some()
    }

    /// Who may ask the agent about others than themselves.
    pub fn trusted_callers(&self) -> &[TrustedCaller] {
        &self.file.trusted_caller
    }

    /// The names in `[service.NAME]`.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.file.service.keys().map(String::as_str)
    }

    fn table(&self, service: &str) -> Option<&Table> {
        let relative = || RELATIVES.iter().find(|(name, _)| *name == service).map(|(_, relative)| *relative);
        self.file.service.get(service).or_else(|| self.file.service.get(relative()?))
    }

    fn origin(&self, offset: usize) -> Origin {
        Origin::Line(line_and_column(&self.text, offset).0)
    }
}

fn path_of(conf: Option<&[u8]>) -> &Path {
    Path::new(OsStr::from_bytes(conf.unwrap_or(PATH.as_bytes())))
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has said anything.
    Default,
    /// A line of the policy file, counted from 1.
    Line(usize),
    /// An argument of the module.
    Argument,
}

/// A value, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// What it is.
    pub value: T,
    /// Who says so.
    pub origin: Origin,
}

impl<T> std::ops::Deref for Setting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Setting<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: change(self.value), origin: self.origin }
    }
}

/// What becomes of somebody who has no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolment {
    /// How they get in, or get one.
    pub kind: EnrolmentKind,
    /// Whoever never had one gets in without one until then.
    pub optional_until: Option<End>,
}

impl Enrolment {
    /// Always.
    pub const fn of(kind: EnrolmentKind) -> Self {
        Self { kind, optional_until: None }
    }

    /// Whether people get a device inside a login.
    pub const fn is_inside_a_login(self) -> bool {
        matches!(self.kind, EnrolmentKind::Inline | EnrolmentKind::Ticket)
    }
}

/// What holds at one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// PAM_SERVICE.
    pub service: String,
    /// What only an argument can say.
    pub options: Options,
    /// Where records are.
    pub store: Setting<StoreKind>,
    /// The file, with `~`, `${HOME}` and `${USER}` still in it.
    pub secret: Setting<Vec<u8>>,
    /// Where what is root's alone is kept.
    pub state_dir: Setting<PathBuf>,
    /// Who judges.
    pub via: Setting<Via>,
    /// Where the agent listens.
    pub agent_socket: Setting<PathBuf>,
    /// The window of a record that does not say.
    pub window: Setting<Window>,
    /// The largest `WINDOW_SIZE` that a record can have; without it `window` is, if that is stated.
    pub max_window: Setting<Option<u64>>,
    /// What is asked.
    pub prompt: Setting<Vec<u8>>,
    /// What is typed may be seen.
    pub echo: Setting<bool>,
    /// Whose code is asked for.
    pub identity: Setting<Identity>,
    /// Which certificates say who somebody is.
    pub cert_identity: Setting<Option<CertIdentity>>,
    /// Who may be without a device, and how they get one.
    pub enrolment: Setting<Enrolment>,
    /// How the QR code of an enrolment inside a login is drawn.
    pub qr: Setting<Qr>,
    /// Seconds for which somebody is not asked again. 0: none.
    pub grace: Setting<u64>,
    /// Seconds that the application is asked to wait after a denial.
    pub fail_delay: Setting<u64>,
    /// Secrets with fewer bits deny.
    pub min_secret_bits: Setting<u64>,
    /// Scratch codes work.
    pub allow_scratch_codes: Setting<bool>,
    /// Bastions and NATs: many people behind one address.
    pub shared_sources: Setting<Vec<Network>>,
    /// Bastions of the fleet: whoever comes from there by the key that a code was given with elsewhere is not asked for a while.
    pub grace_behind: Setting<Vec<Network>>,
    /// As google-authenticator-libpam does it.
    pub google: Setting<bool>,
    /// Three right codes of a wrong time set the clock difference of a record.
    pub skew_adjustment: Setting<bool>,
    /// How many codes may be wrong. `None`: nothing is counted.
    pub throttle: Setting<Option<Throttle>>,
    /// Who is not asked.
    pub exemptions: Vec<Setting<Exemption>>,
    /// Who needs a code.
    pub require: Option<Setting<Require>>,
}

impl Policy {
    /// The arguments above the service's table, that above the defaults, and our own below all.
    pub fn new(service: &str, options: &Options, document: &Document) -> Self {
        let pick = Pick { document, service: document.table(service) };
        let store = pick.value(|table| table.store.as_ref(), |kind| *kind, StoreKind::Home);
        // What the C module would do it does with a file of the person's.
        let compat = |setting: Setting<bool>| match (setting.value, store.value) {
            (false, _) | (_, StoreKind::Home) => setting,
            (true, StoreKind::System | StoreKind::Fleet) => store.clone().map(|_| false),
        };
        let google = compat(pick.compat(|compat| compat.google.as_ref(), false));
        let skew_adjustment = compat(pick.compat(|compat| compat.skew_adjustment.as_ref(), false));
        let skew_adjustment = match (google.value, options.skew_adjustment) {
            (_, false) => Setting { value: false, origin: Origin::Argument },
            (true, true) => google.clone(),
            (false, true) => skew_adjustment,
        };
        let prompt = if options.forward_pass { COMBINED_PROMPT } else { PROMPT };
        let fail_delay = if google.value { 0 } else { FAIL_DELAY };
        let via = if store.value == StoreKind::Fleet { Via::Agent } else { Via::Process };
        Self {
            service: service.to_owned(),
            store,
            secret: pick
                .value(|table| table.secret.as_ref(), |text| text.0.clone().into_bytes(), SECRET.into())
                .or_argument(options.secret.clone()),
            state_dir: pick.value(|table| table.state_dir.as_ref(), |path| path.0.clone(), STATE_DIR.into()),
            via: pick.value(|table| table.via.as_ref(), |via| *via, via),
            agent_socket: pick.value(|table| table.agent_socket.as_ref(), |path| path.0.clone(), AGENT_SOCKET.into()),
            window: pick.value(|table| table.window.as_ref(), |window| (*window).into(), WINDOW),
            max_window: pick.value(|table| table.max_window.as_ref(), |size| Some(size.0), None),
            prompt: pick
                .value(|table| table.prompt.as_ref(), |text| text.0.clone().into_bytes(), prompt.into())
                .or_argument(options.prompt.clone()),
            echo: pick
                .value(|table| table.echo.as_ref(), |echo| *echo, false)
                .or_argument(options.echo.then_some(true)),
            identity: pick.value(|table| table.identity.as_ref(), |identity| *identity, Identity::PamUser),
            cert_identity: pick.value(|table| table.cert_identity.as_ref(), |cert| Some(cert.clone()), None),
            enrolment: pick.enrolment().or_argument(options.nullok.then_some(Enrolment::of(EnrolmentKind::Optional))),
            qr: pick.value(|table| table.qr.as_ref(), |qr| *qr, QR),
            grace: pick.value(|table| table.grace.as_ref(), |grace| grace.0.0, 0),
            fail_delay: pick.value(|table| table.fail_delay.as_ref(), |delay| delay.0.0, fail_delay),
            min_secret_bits: pick.value(|table| table.min_secret_bits.as_ref(), |bits| bits.0, 0),
            allow_scratch_codes: pick.value(|table| table.allow_scratch_codes.as_ref(), |allow| *allow, true),
            shared_sources: pick.value(|table| table.shared_sources.as_ref(), Clone::clone, Vec::new()),
            grace_behind: pick.value(|table| table.grace_behind.as_ref(), Clone::clone, Vec::new()),
            throttle: pick.throttle(&google),
            exemptions: document.file.exempt.iter().map(|exemption| pick.spanned(exemption)).collect(),
            require: document.file.require.as_ref().map(|require| pick.spanned(require)),
            google,
            skew_adjustment,
            options: options.clone(),
        }
    }

    /// The widest window that a record can have, where there is a bound.
    pub fn widest_window(&self) -> Option<Window> {
        match (self.max_window.value, self.window.origin) {
            (Some(size), _) => Some(Window::of_size(size)),
            (None, Origin::Default) => None,
            (None, _) => Some(self.window.value),
        }
    }

    /// Whether somebody may not be asked again from there: an address that many people share, or that is this machine's own,
    /// says too little about who is there.
    pub fn may_have_grace(&self, source: &Source) -> bool {
        if self.grace.value == 0 {
            return false;
        }
        let is_one_persons = match source {
            Source::Address(address) => {
                !self.shared_sources.iter().any(|network| network.contains(*address))
                    && !source.is_here_or_next_door()
                    && addresses::is_own(*address) == Ok(false)
            }
            // Whoever comes to a server that runs as root and does not say from where.
            Source::Local(uid) => *uid != 0 && self.service != exempt::NEVER_LOCAL,
            // "localhost" is a name too.
            Source::Name(_) => false,
        };
        // What ends it are failures, which nobody counts where there is no throttle.
        is_one_persons && self.throttle.is_some()
    }

    /// Whether somebody who comes from there may have been asked at a bastion a moment ago: it says nothing about who is there, but
    /// the key does.
    pub fn may_have_grace_behind(&self, source: &Source) -> bool {
        let is_bastion = |address| self.grace_behind.iter().any(|network| network.contains(address));
        self.grace.value > 0 && self.throttle.is_some() && source.address().is_some_and(is_bastion)
    }

    /// Whether something here ends at a date, which needs the ledger's memory of the clock.
    pub fn has_dates(&self) -> bool {
        !self.exemptions.is_empty()
            || self.enrolment.optional_until.is_some()
            // Tickets end.
            || self.enrolment.is_inside_a_login()
            || self.grace.value > 0
    }
}

/// Chooses values for one service.
struct Pick<'a> {
    document: &'a Document,
    service: Option<&'a Table>,
}

impl Pick<'_> {
    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.service.into_iter().chain([&self.document.file.defaults])
    }

    fn value<W, T>(
        &self,
        key: impl Fn(&Table) -> Option<&Spanned<W>>,
        read: impl FnOnce(&W) -> T,
        default: T,
    ) -> Setting<T> {
        match self.tables().find_map(key) {
            Some(written) => self.setting(written, read),
            None => Setting { value: default, origin: Origin::Default },
        }
    }

    fn compat(&self, key: impl Fn(&file::Compat) -> Option<&Spanned<bool>>, default: bool) -> Setting<bool> {
        let of_service = self.service.and_then(|table| key(&table.compat));
        let of_defaults = || key(&self.document.file.defaults.compat).or_else(|| key(&self.document.file.compat));
        match of_service.or_else(of_defaults) {
            Some(written) => self.setting(written, |value| *value),
            None => Setting { value: default, origin: Origin::Default },
        }
    }

    /// `enrolment` and `enrol_by` are one setting: the nearer table that has either decides.
    fn enrolment(&self) -> Setting<Enrolment> {
        let of_table = |table: &Table| match (&table.enrol_by, &table.enrolment) {
            (Some(end), kind) => {
                let kind = kind.as_ref().map_or(EnrolmentKind::Required, |kind| match kind.get_ref() {
                    EnrolmentKind::Required | EnrolmentKind::Optional => EnrolmentKind::Required,
                    inside @ (EnrolmentKind::Inline | EnrolmentKind::Ticket) => *inside,
                });
                Some(self.setting(end, |end| Enrolment { kind, optional_until: Some(*end) }))
            }
            (None, Some(kind)) => Some(self.setting(kind, |kind| Enrolment::of(*kind))),
            (None, None) => None,
        };
        let default = Setting { value: Enrolment::of(EnrolmentKind::Required), origin: Origin::Default };
        self.tables().find_map(of_table).unwrap_or(default)
    }

    /// Off like the C module, unless somebody asks for it.
    fn throttle(&self, google: &Setting<bool>) -> Setting<Option<Throttle>> {
        match &self.document.file.throttle {
            Some(written) => self.setting(written, |throttle| Some(throttle.clone())),
            None if google.value => google.clone().map(|_| None),
            None => Setting { value: Some(Throttle::default()), origin: Origin::Default },
        }
    }

    fn spanned<T: Clone>(&self, written: &Spanned<T>) -> Setting<T> {
        self.setting(written, T::clone)
    }

    fn setting<W, T>(&self, written: &Spanned<W>, read: impl FnOnce(&W) -> T) -> Setting<T> {
        Setting { value: read(written.get_ref()), origin: self.document.origin(written.span().start) }
    }
}

impl<T> Setting<T> {
    fn or_argument(self, argument: Option<T>) -> Self {
        match argument {
            Some(value) => Self { value, origin: Origin::Argument },
            None => self,
        }
    }
}

#[cfg(test)]
mod tests;
