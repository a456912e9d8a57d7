//! `pam-totp enrol`.

use crate::choices::{Arguments, Choices, WINDOW};
use crate::host;
use crate::qr;
use anyhow::{Context, Result, anyhow, bail, ensure};
use pam_totp::fact::Fact;
use pam_totp::identity::{Person, Unidentified};
use pam_totp::otp::{Algorithm, Answer, Digits, Form, Moving, OtpauthUri, base32};
use pam_totp::record::{Device, Hotp, RateLimit, Record, Slot, Totp, Window, google};
use pam_totp::secret::Secret;
use pam_totp::store::home::HomeStore;
use pam_totp::store::{Store, StoreError};
use pam_totp::system::{clock, passwd, random};
use pam_totp::verify::{self, Charge, Charged, Denial, Rules, Try, Verdict};
use std::convert::Infallible;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of a new secret: 160 bits, as RFC 4226 section 4 (R6) recommends.
const SECRET_BYTES: usize = 20;
/// How many scratch codes a new record has.
const SCRATCH_CODES: u64 = 5;
/// Seconds per time step (RFC 6238 section 5.2).
const PERIOD: u64 = 30;
/// How many codes may be mistyped before we give up.
const CONFIRMATIONS: usize = 5;
/// What google-authenticator takes for "do not ask me for a code".
const SKIP: &str = "-1";

/// Somebody who is about to have a second factor.
struct Enrolment<'a> {
    arguments: &'a Arguments,
    /// Called as google-authenticator.
    google: bool,
    user: String,
    person: Person,
    path: PathBuf,
    secret: Arc<Secret<Vec<u8>>>,
    scratch: Arc<Secret<Vec<u32>>>,
}

/// `pam-totp enrol`, or with `google` what google-authenticator does.
pub(crate) fn run(arguments: &Arguments, google: bool) -> Result<()> {
    let policy = host::policy(arguments.conf.as_ref())?;
    let person = person(arguments.user.as_deref())?;
    let file = arguments.secret.as_ref().map(std::path::absolute).transpose()?;
    let store = HomeStore {
        secret: file.as_ref().map_or(policy.secret.value.as_slice(), |file| file.as_os_str().as_bytes()),
        ..HomeStore::default()
    };
    let path = store.path(&person).map_err(by_fact)?;
    if !google && !arguments.force && store.has_record(&person).map_err(by_store)? {
        bail!("{} exists; --force replaces it, and the codes of its device stop working", path.display());
    }
    let counter_based = if google { arguments.ask_for_kind()? } else { arguments.counter_based };
    let scratch = arguments.emergency_codes.unwrap_or(SCRATCH_CODES);
    let enrolment = Enrolment {
        arguments,
        google,
        user: String::from_utf8_lossy(person.name()).into_owned(),
        person,
        path,
        secret: new_secret(policy.min_secret_bits.value).context("the kernel gives no random numbers")?,
        scratch: scratch_codes(if policy.allow_scratch_codes.value { scratch } else { 0 })
            .context("the kernel gives no random numbers")?,
    };
    enrolment.run(&store, counter_based)
}

impl Enrolment<'_> {
    fn run(&self, store: &HomeStore, counter_based: bool) -> Result<()> {
        let uri = self.uri(counter_based);
        // Made now, while it can still be refused for nothing: a secret that was shown should also be stored.
        let code = qr::Code::new(uri.expose()).context("the QR code cannot be made")?;
        match (self.arguments.quiet, self.arguments.json) {
            (true, _) => {}
            (false, true) if self.arguments.no_confirm => {}
            (false, true) => self.show(&mut io::stderr(), &uri, &code)?,
            (false, false) => self.show(&mut io::stdout(), &uri, &code)?,
        }
        let trial = self.record(&Choices { counter_based, ..self.arguments.choices() });
        let asks = !self.arguments.no_confirm && !self.arguments.quiet;
        let used = if asks { self.confirmed(&trial)? } else { trial };
        let choices = match self.google {
            false => self.arguments.choices(),
            true => match self.arguments.ask(counter_based, &self.path)? {
                Some(choices) => choices,
                None => return Ok(()),
            },
        };
        let record = with_state_of(self.record(&choices), &used, self.google);
        if self.arguments.json {
            // Printed before it is stored: a secret that nobody has seen must not take the place of one that works.
            // Whoever reads this looks at the exit status too.
            self.print_json(&uri)?;
        }
        self.store(store, &record)?;
        if !self.arguments.json && !self.arguments.quiet {
            // Stored it is, whether this can be printed or not.
            let _ = writeln!(io::stdout(), "Stored in {}.", self.path.display());
        }
        Ok(())
    }

    fn record(&self, choices: &Choices) -> Record {
        let (algorithm, digits) = (Algorithm::Sha1, Digits::SIX);
        let device = if choices.counter_based {
            Device::Hotp(Hotp { algorithm, digits, look_ahead: choices.window, counter: 1 })
        } else {
            Device::Totp(Totp {
                algorithm,
                digits,
                period: self.period(),
                window: (choices.window != WINDOW).then(|| Window::of_size(choices.window)),
                skew: 0,
                drift: Vec::new(),
                used: Ok(choices.disallow_reuse.then(Vec::new)),
            })
        };
        let limit = choices.rate_limit.map(|(tries, seconds)| RateLimit {
            tries: usize::try_from(tries).unwrap_or(usize::MAX),
            seconds,
            charged: Vec::new(),
        });
        Record {
            secret: Ok(Arc::clone(&self.secret)),
            device: Ok(device),
            rate_limit: Ok(limit),
            scratch: Arc::clone(&self.scratch),
            scratch_before_odd: self.scratch.expose().len(),
            logins: std::array::from_fn(|_| Slot::Empty),
        }
    }

    fn period(&self) -> u64 {
        self.arguments.step_size.unwrap_or(PERIOD)
    }

    fn uri(&self, counter_based: bool) -> Secret<String> {
        let host = host_name();
        let label = self.arguments.label.clone().unwrap_or_else(|| format!("{}@{host}", self.user));
        OtpauthUri {
            issuer: self.arguments.issuer.as_deref().unwrap_or(&host),
            account: &label,
            secret: &self.secret,
            moving: match counter_based {
                false => Moving::Time { period: self.period() },
                true => Moving::Counter { next: 1 },
            },
            algorithm: Algorithm::Sha1,
            digits: Digits::SIX,
        }
        .text()
    }
}

/// What the code that confirmed has used up, in the record that will be stored. google-authenticator, told that codes may be
/// used again, writes nothing down.
fn with_state_of(record: Record, used: &Record, google: bool) -> Record {
    let device = match (record.device, &used.device) {
        (Ok(Device::Totp(totp)), Ok(Device::Totp(confirmed))) if !google || totp.used != Ok(None) => {
            Ok(Device::Totp(Totp { used: confirmed.used.clone(), ..totp }))
        }
        (Ok(Device::Hotp(hotp)), Ok(Device::Hotp(confirmed))) => {
            Ok(Device::Hotp(Hotp { counter: confirmed.counter, ..hotp }))
        }
        (device, _) => device,
    };
    Record { device, ..record }
}

fn person(name: Option<&str>) -> Result<Person> {
    let (_, euid) = passwd::process_uids();
    let own = || -> Result<Person> {
        let account = passwd::by_uid(euid).context("the user database cannot be asked")?;
        let account = account.with_context(|| format!("uid {euid} is not in the user database"))?;
        Person::in_database(&account.name).map_err(|error| by_fact(error.fact()))
    };
    let Some(name) = name else { return own() };
    let person = Person::in_database(name.as_bytes()).map_err(|error| match error {
        Unidentified::Unknown => anyhow!("there is no user `{}`", name.escape_debug()),
        error => by_fact(error.fact()),
    })?;
    ensure!(euid == 0 || person.uid() == euid, "only root can enrol somebody else");
    Ok(person)
}

impl Enrolment<'_> {
    /// Everything that the person needs, before anything is stored: what cannot be shown is not stored either.
    fn show(&self, out: &mut (impl Write + IsTerminal), uri: &Secret<String>, code: &qr::Code) -> Result<()> {
        let style = match self.arguments.qr_mode {
            Some(mode) => mode.style(),
            None => Some(qr::Style::for_terminal(out.is_terminal())),
        };
        if let Some(style) = style {
            writeln!(out, "Scan this with an authenticator app:\n\n{}", code.text(style))?;
        }
        writeln!(out, "Secret, to type instead: {}", base32::encode(self.secret.expose()).expose())?;
        writeln!(out, "URI: {}\n", uri.expose())?;
        if !self.scratch.expose().is_empty() {
            writeln!(out, "Scratch codes, for the day when the app is not at hand. Each works once:")?;
            for code in self.scratch.expose() {
                writeln!(out, "  {code}")?;
            }
            writeln!(out)?;
        }
        out.flush().map_err(Into::into)
    }

    /// Asks for a code until one is right. The record that comes back has it used up.
    fn confirmed(&self, trial: &Record) -> Result<Record> {
        let mut lines = io::stdin().lock().lines();
        for _ in 0..CONFIRMATIONS {
            let or_skip = if self.google { " (-1 to skip)" } else { "" };
            write!(io::stderr(), "Code from the app{or_skip}: ")?;
            io::stderr().flush()?;
            let line = lines.next().context("no code was given; nothing was stored")??;
            if self.google && line.trim() == SKIP {
                return Ok(trial.clone());
            }
            let answer = Answer::new(Secret::new(line.into_bytes()), Form::Code, false);
            match judged(trial, &answer) {
                (Verdict::Accepted { .. }, Some(next)) => return Ok(next),
                (Verdict::Denied(Denial::NotACode), _) => writeln!(io::stderr(), "A code has 6 digits.")?,
                _ => writeln!(
                    io::stderr(),
                    "That is not the code of this secret now. Is the clock of the device right? Here it is {} UTC.",
                    time_of_day(clock::now())
                )?,
            }
        }
        bail!("no right code in {CONFIRMATIONS} tries; nothing was stored")
    }

    fn store(&self, store: &HomeStore, record: &Record) -> Result<()> {
        // google-authenticator asks before it stores, and replaces what is there.
        let replace = self.arguments.force || self.google;
        let context = || format!("{} was not {}", self.path.display(), if replace { "replaced" } else { "made" });
        store.enrol(&self.person, &google::new_text(record), replace).map_err(by_store).with_context(context)
    }

    fn print_json(&self, uri: &Secret<String>) -> Result<()> {
        let codes: Vec<String> = self.scratch.expose().iter().map(ToString::to_string).collect();
        let object = serde_json::json!({
            "user": self.user,
            "secret": base32::encode(self.secret.expose()).expose(),
            "uri": uri.expose(),
            "scratch_codes": codes,
            "path": self.path.to_string_lossy(),
        });
        writeln!(io::stdout(), "{object}")?;
        io::stdout().flush().map_err(Into::into)
    }
}

/// A secret of the usual length, or of as many bits as the policy asks for.
fn new_secret(min_bits: u64) -> io::Result<Arc<Secret<Vec<u8>>>> {
    let length = usize::try_from(min_bits.div_ceil(8)).unwrap_or(0).max(SECRET_BYTES);
    let mut secret = Vec::with_capacity(length.saturating_add(SECRET_BYTES));
    while secret.len() < length {
        secret.extend_from_slice(&random::bytes::<SECRET_BYTES>()?);
    }
    secret.truncate(length);
    Ok(Arc::new(Secret::new(secret)))
}

/// Judges an answer as a login would, and says what would be stored then. Mistyping here is no guess: the budget begins
/// with the stored record. And a scratch code does not show that the app works.
fn judged(trial: &Record, answer: &Answer) -> (Verdict, Option<Record>) {
    let trial = Record { rate_limit: Ok(None), scratch: Arc::new(Secret::new(Vec::new())), ..trial.clone() };
    let (rules, attempt) = (Rules { increment_hotp: false, ..Rules::default() }, Try::new(answer));
    let mut stored = None;
    let mut store = |next: &Record| {
        stored = Some(next.clone());
        Ok::<(), Infallible>(())
    };
    let decision = match verify::charge(&trial, &rules, &attempt, clock::now()) {
        Charge::Refused(decision) => Ok(decision),
        Charge::Due(due) => due.commit(&mut store).map(Charged::decide),
    };
    let Ok(verdict) = decision.and_then(|decision| decision.commit(store));
    (verdict, stored)
}

/// Different numbers from 10000000 to 99999999, each as likely as the other.
fn scratch_codes(count: u64) -> io::Result<Arc<Secret<Vec<u32>>>> {
    const FIRST: u32 = 10_000_000;
    const COUNT: u32 = 90_000_000;
    let count = usize::try_from(count).unwrap_or(0);
    let mut codes = Vec::with_capacity(count);
    while codes.len() < count {
        let number = u32::from_ne_bytes(random::bytes()?);
        // The last, incomplete run of `COUNT` numbers would make its first ones likelier.
        if number < (u32::MAX / COUNT).saturating_mul(COUNT) {
            let code = FIRST.saturating_add(number % COUNT);
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
    }
    Ok(Arc::new(Secret::new(codes)))
}

/// The short name of this host: the QR code gets larger with every letter.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match name.split('.').next() {
        Some(short) if !short.is_empty() => short.to_owned(),
        _ => "localhost".to_owned(),
    }
}

fn time_of_day(now: u64) -> String {
    let minutes = now / 60;
    format!("{:02}:{:02}:{:02}", minutes / 60 % 24, minutes % 60, now % 60)
}

fn by_fact(fact: Fact) -> anyhow::Error {
    anyhow!("{fact}")
}

fn by_store(error: StoreError) -> anyhow::Error {
    by_fact(error.into_fact())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_codes_are_different_and_have_eight_digits() {
        for _ in 0..100 {
            let mut codes = scratch_codes(5).unwrap().expose().clone();
            codes.sort_unstable();
            codes.dedup();
            assert_eq!(codes.len(), 5);
            assert!(codes.iter().all(|code| code.to_string().len() == 8));
        }
    }

    #[test]
    fn secrets_are_new_and_have_160_bits_or_more() {
        let [one, two] = [new_secret(0).unwrap(), new_secret(160).unwrap()];
        assert_eq!((one.expose().len(), two.expose().len()), (20, 20));
        assert_ne!(one.expose(), two.expose());
        assert_eq!(new_secret(161).unwrap().expose().len(), 21);
        assert_eq!(new_secret(512).unwrap().expose().len(), 64);
    }
}
