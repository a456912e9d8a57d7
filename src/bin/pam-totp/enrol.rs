//! `pam-totp enrol`.

use crate::choices::{Arguments, Choices, WINDOW};
use crate::common_ground;
use crate::device::ensure_name;
use crate::host::{Subject, by_store};
use crate::new_device::{NewDevice, Spares};
use anyhow::{Context, Result, bail, ensure};
use pam_totp::enrol::{DEVICE, SPARES};
use pam_totp::policy::{Origin, Policy, Setting, StoreKind};
use pam_totp::record::{Kind, RateLimit, Record};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Somebody who is about to have a second factor.
struct Enrolment<'a> {
    arguments: &'a Arguments,
    /// Called as google-authenticator.
    google: bool,
    subject: &'a Subject,
    path: PathBuf,
    new: NewDevice<'a>,
    spares: Spares,
}

/// `pam-totp enrol`, or with `google` what google-authenticator does.
pub(crate) fn run(arguments: &Arguments, google: bool) -> Result<()> {
    let mut subject = arguments.whose.subject("enrol somebody in the root-only store")?;
    let is_system = subject.policy.store.value.is_roots();
    if is_system {
        ensure!(!google, "the secrets of this host are not in files of their people: use pam-totp enrol");
    }
    ensure_for_store(arguments, is_system)?;
    if let Some(file) = &arguments.secret {
        let file = std::path::absolute(file)?.as_os_str().as_bytes().to_vec();
        subject.policy.secret = Setting { value: file, origin: Origin::Argument };
    }
    let (subject, store) = (&subject, subject.store());
    let path = store.path(&subject.person).map_err(crate::host::by_fact)?;
    if !google && !arguments.force && store.has_record(&subject.person).map_err(by_store)? {
        let or = if is_system { "pam-totp device add adds a device to it; " } else { "" };
        bail!("{} exists; {or}--force replaces it, and the codes of its devices stop working", path.display());
    }
    let counter_based = if google { arguments.ask_for_kind()? } else { arguments.device.counter_based };
    let new = NewDevice::new(&arguments.device, &subject.name(), counter_based, subject.policy.min_secret_bits.value)?;
    if !google {
        common_ground::ensure_names(new.uri().expose())?;
    }
    if !arguments.device.quiet {
        common_ground::warn(new.uri().expose());
    }
    let spares = new_spares(arguments, &subject.policy)?;
    Enrolment { arguments, google, subject, path, new, spares }.run(is_system)
}

/// Fails where a flag is about the other store.
pub(crate) fn ensure_for_store(arguments: &Arguments, is_system: bool) -> Result<()> {
    match (&arguments.device_name, arguments.about_files()) {
        (_, Some(flag)) if is_system => {
            bail!("{flag} is about ~/.google_authenticator; with store = \"system\" the policy decides that")
        }
        (Some(_), _) if !is_system => {
            bail!("--device is about the root-only store; the device of ~/.google_authenticator has no name")
        }
        (Some(name), _) => ensure_name(name),
        (None, _) => Ok(()),
    }
}

/// Recovery codes or scratch codes, as many as flags and policy say.
pub(crate) fn new_spares(arguments: &Arguments, policy: &Policy) -> Result<Spares> {
    let count = if policy.allow_scratch_codes.value { arguments.emergency_codes.unwrap_or(SPARES) } else { 0 };
    match policy.store.value {
        StoreKind::Home => Spares::scratch(count),
        StoreKind::System | StoreKind::Fleet => Spares::recovery(count),
    }
}

impl Enrolment<'_> {
    fn run(&self, is_system: bool) -> Result<()> {
        let name = if is_system { self.arguments.device_name.as_deref().unwrap_or(DEVICE) } else { "" };
        self.new.show(self.arguments.whose.json, Some(&self.spares))?;
        let device = self.new.confirmed(self.new.device(name), self.google)?;
        let mut record = Record::of(vec![device]);
        self.spares.put_into(&mut record)?;
        if !is_system {
            let choices = match self.google {
                false => self.arguments.choices(),
                true => match self.arguments.ask(self.new.is_counter_based(), &self.path)? {
                    Some(choices) => choices,
                    None => return Ok(()),
                },
            };
            choices.write_to(&mut record, self.google);
        }
        if self.arguments.whose.json {
            // Printed before it is stored: a secret that nobody has seen must not take the place of one that works.
            // Whoever reads this looks at the exit status too.
            self.print_json()?;
        }
        self.store(&record)?;
        if !self.arguments.whose.json && !self.arguments.device.quiet {
            // Stored it is, whether this can be printed or not.
            let _ = writeln!(io::stdout(), "Stored in {}.", self.path.display());
        }
        Ok(())
    }

    fn store(&self, record: &Record) -> Result<()> {
        // google-authenticator asks before it stores, and replaces what is there.
        let replace = self.arguments.force || self.google;
        let context = || format!("{} was not {}", self.path.display(), if replace { "replaced" } else { "made" });
        self.subject.store().enrol(&self.subject.person, record, replace).map_err(by_store).with_context(context)
    }

    fn print_json(&self) -> Result<()> {
        let codes: Vec<String> = self.spares.texts().iter().map(|code| code.expose().clone()).collect();
        let object = self.subject.object(serde_json::json!({
            "secret": self.new.new.secret().expose(),
            "uri": self.new.uri().expose(),
            self.spares.names().1: codes,
            "path": self.path.to_string_lossy(),
        }));
        writeln!(io::stdout(), "{object}")?;
        io::stdout().flush().map_err(Into::into)
    }
}

impl Choices {
    /// What a file says besides the secret. google-authenticator, told that codes may be used again, writes no used code down.
    pub(crate) fn write_to(&self, record: &mut Record, google: bool) {
        record.rate_limit = Ok(self.rate_limit.map(|(tries, seconds)| RateLimit {
            tries: usize::try_from(tries).unwrap_or(usize::MAX),
            seconds,
            charged: Vec::new(),
        }));
        for device in &mut record.devices {
            match &mut device.kind {
                Ok(Kind::Totp(totp)) => {
                    totp.window = (self.window != WINDOW).then(|| pam_totp::record::Window::of_size(self.window));
                    match (self.disallow_reuse, google) {
                        (true, _) if totp.used == Ok(None) => totp.used = Ok(Some(Vec::new())),
                        (false, true) => totp.used = Ok(None),
                        _ => {}
                    }
                }
                Ok(Kind::Hotp(hotp)) => hotp.look_ahead = self.window,
                _ => {}
            }
        }
    }
}
