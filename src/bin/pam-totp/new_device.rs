//! A device that somebody is about to have: its secret, how it is shown, and the code that proves that it works.

use crate::qr;
use anyhow::{Context, Result, bail};
use pam_totp::otp::{Algorithm, Answer, Digits, Form, Moving, OtpauthUri, RECOVERY_BYTES, RecoveryCode, base32};
use pam_totp::record::{Device, Hotp, Kind, Record, RecoveryCodes, Totp, Window};
use pam_totp::secret::Secret;
use pam_totp::system::{clock, random};
use pam_totp::verify::{self, Charge, Charged, Denial, Rules, Try, Verdict};
use std::convert::Infallible;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;

/// Seconds per time step (RFC 6238 section 5.2).
const PERIOD: u64 = 30;
/// How many codes may be mistyped before we give up.
const CONFIRMATIONS: usize = 5;
/// What google-authenticator takes for "do not ask me for a code".
const SKIP: &str = "-1";
/// Counters that are looked at from the next one on.
const LOOK_AHEAD: u64 = 3;

/// What somebody can choose about it.
#[derive(clap::Args)]
#[group(skip)] // It has the name of those that it stands among.
pub(crate) struct Arguments {
    /// Codes by time (TOTP, RFC 6238), the default
    #[arg(short, long, conflicts_with = "counter_based")]
    pub(crate) time_based: bool,
    /// Codes by a counter (HOTP, RFC 4226)
    #[arg(short, long)]
    pub(crate) counter_based: bool,
    /// The hash; many apps know SHA1 alone
    #[arg(long, value_name = "NAME", default_value = "SHA1", ignore_case = true)]
    algorithm: AlgorithmName,
    /// Digits of a code (6 to 8); many apps know 6 alone
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(6..=8))]
    digits: u8,
    /// Seconds that a code lasts (1 to 60, default 30)
    #[arg(short = 'S', long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    step_size: Option<u64>,
    /// The name of the account in the app (default: user@host)
    #[arg(short, long)]
    label: Option<String>,
    /// The name above it (default: the name of this host)
    #[arg(short, long)]
    issuer: Option<String>,
    /// Store the secret without asking for a code first
    #[arg(short = 'C', long)]
    pub(crate) no_confirm: bool,
    /// Show neither QR code nor secret nor scratch codes, and do not ask for a code
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How the QR code is drawn
    #[arg(short = 'Q', long, value_name = "MODE", ignore_case = true)]
    qr_mode: Option<qr::Mode>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
enum AlgorithmName {
    Sha1,
    Sha256,
    Sha512,
}

impl From<AlgorithmName> for Algorithm {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::Sha1 => Self::Sha1,
            AlgorithmName::Sha256 => Self::Sha256,
            AlgorithmName::Sha512 => Self::Sha512,
        }
    }
}

/// Codes for the day when no device is at hand.
pub(crate) enum Spares {
    /// Eight digits, as `~/.google_authenticator` has them.
    Scratch(Arc<Secret<Vec<u32>>>),
    /// Of 120 bits, which are stored as hashes.
    Recovery(Vec<RecoveryCode>),
}

impl Spares {
    pub(crate) fn scratch(count: u64) -> Result<Self> {
        scratch_codes(count).map(Self::Scratch).context("the kernel gives no random numbers")
    }

    pub(crate) fn recovery(count: u64) -> Result<Self> {
        let code = |_| random::bytes::<RECOVERY_BYTES>().map(RecoveryCode::new);
        let codes = (0..count).map(code).collect::<Result<_, _>>().context("the kernel gives no random numbers")?;
        Ok(Self::Recovery(codes))
    }

    /// As they are shown.
    pub(crate) fn texts(&self) -> Vec<Secret<String>> {
        match self {
            Self::Scratch(codes) => codes.expose().iter().map(|code| Secret::new(code.to_string())).collect(),
            Self::Recovery(codes) => codes.iter().map(RecoveryCode::text).collect(),
        }
    }

    /// What they are called, in words and in JSON.
    pub(crate) const fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::Scratch(_) => ("Scratch codes", "scratch_codes"),
            Self::Recovery(_) => ("Recovery codes", "recovery_codes"),
        }
    }

    /// Puts them into a record, in the place of those that were in it.
    pub(crate) fn put_into(&self, record: &mut Record) -> Result<()> {
        match self {
            Self::Scratch(codes) => {
                record.scratch = Arc::clone(codes);
                record.scratch_before_odd = codes.expose().len();
            }
            Self::Recovery(codes) => {
                let salt = random::bytes().context("the kernel gives no random numbers")?;
                record.recovery = RecoveryCodes::new(salt, codes.iter().map(RecoveryCode::expose));
            }
        }
        Ok(())
    }

    pub(crate) fn show(&self, out: &mut impl Write) -> Result<()> {
        let texts = self.texts();
        if !texts.is_empty() {
            writeln!(out, "{}, for the day when the app is not at hand. Each works once:", self.names().0)?;
            for text in texts {
                writeln!(out, "  {}", text.expose())?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// A device to be.
pub(crate) struct NewDevice<'a> {
    arguments: &'a Arguments,
    pub(crate) counter_based: bool,
    user: String,
    secret: Arc<Secret<Vec<u8>>>,
}

impl<'a> NewDevice<'a> {
    /// With a secret as long as its hash (RFC 6238 section 5.1), or of as many bits as the policy asks for.
    pub(crate) fn new(arguments: &'a Arguments, user: &str, counter_based: bool, min_bits: u64) -> Result<Self> {
        let length = match arguments.algorithm {
            AlgorithmName::Sha1 => 20,
            AlgorithmName::Sha256 => 32,
            AlgorithmName::Sha512 => 64,
        };
        let secret = new_secret(length, min_bits).context("the kernel gives no random numbers")?;
        Ok(Self { arguments, counter_based, user: user.to_owned(), secret })
    }

    pub(crate) fn secret(&self) -> Secret<String> {
        base32::encode(self.secret.expose())
    }

    fn period(&self) -> u64 {
        self.arguments.step_size.unwrap_or(PERIOD)
    }

    fn algorithm(&self) -> Algorithm {
        self.arguments.algorithm.into()
    }

    fn digits(&self) -> Digits {
        Digits::new(self.arguments.digits).unwrap_or(Digits::SIX)
    }

    /// The device, new. `window`: for a file that says so.
    pub(crate) fn device(&self, name: &str, window: Option<u64>) -> Device {
        let (algorithm, digits) = (self.algorithm(), self.digits());
        let kind = if self.counter_based {
            Kind::Hotp(Hotp { algorithm, digits, look_ahead: window.unwrap_or(LOOK_AHEAD), counter: 1 })
        } else {
            Kind::Totp(Totp {
                algorithm,
                digits,
                period: self.period(),
                window: window.map(Window::of_size),
                skew: 0,
                drift: Vec::new(),
                used: Ok(None),
            })
        };
        let secret = Ok(Arc::clone(&self.secret));
        Device { name: name.to_owned(), secret, kind: Ok(kind), added: Some(clock::now()), last_used: None }
    }

    pub(crate) fn uri(&self) -> Secret<String> {
        let host = host_name();
        let label = self.arguments.label.clone().unwrap_or_else(|| format!("{}@{host}", self.user));
        OtpauthUri {
            issuer: self.arguments.issuer.as_deref().unwrap_or(&host),
            account: &label,
            secret: &self.secret,
            moving: match self.counter_based {
                false => Moving::Time { period: self.period() },
                true => Moving::Counter { next: 1 },
            },
            algorithm: self.algorithm(),
            digits: self.digits(),
        }
        .text()
    }

    /// Everything that the person needs, before anything is stored: what cannot be shown is not stored either.
    pub(crate) fn show(&self, json: bool, spares: Option<&Spares>) -> Result<()> {
        // Made in any case, while it can still be refused for nothing: a secret that was shown should also be stored.
        let uri = self.uri();
        let code = qr::Code::new(uri.expose()).context("the QR code cannot be made")?;
        match (self.arguments.quiet, json) {
            (true, _) => Ok(()),
            (false, true) if self.arguments.no_confirm => Ok(()),
            (false, true) => self.show_on(&mut io::stderr(), &uri, &code, spares),
            (false, false) => self.show_on(&mut io::stdout(), &uri, &code, spares),
        }
    }

    fn show_on(
        &self,
        out: &mut (impl Write + IsTerminal),
        uri: &Secret<String>,
        code: &qr::Code,
        spares: Option<&Spares>,
    ) -> Result<()> {
        let style = match self.arguments.qr_mode {
            Some(mode) => mode.style(),
            None => Some(qr::Style::for_terminal(out.is_terminal())),
        };
        if let Some(style) = style {
            writeln!(out, "Scan this with an authenticator app:\n\n{}", code.text(style))?;
        }
        writeln!(out, "Secret, to type instead: {}", self.secret().expose())?;
        writeln!(out, "URI: {}\n", uri.expose())?;
        if let Some(spares) = spares {
            spares.show(out)?;
        }
        out.flush().map_err(Into::into)
    }

    /// Asks for a code until one is right. The device that comes back has it used up.
    pub(crate) fn confirmed(&self, trial: Device, google: bool) -> Result<Device> {
        if self.arguments.no_confirm || self.arguments.quiet {
            return Ok(trial);
        }
        let mut lines = io::stdin().lock().lines();
        for _ in 0..CONFIRMATIONS {
            let or_skip = if google { " (-1 to skip)" } else { "" };
            write!(io::stderr(), "Code from the app{or_skip}: ")?;
            io::stderr().flush()?;
            let line = lines.next().context("no code was given; nothing was stored")??;
            if google && line.trim() == SKIP {
                return Ok(trial);
            }
            let answer = Answer::new(Secret::new(line.into_bytes()), Form::Code, false);
            match judged(&trial, &answer) {
                (Verdict::Accepted(_), Some(device)) => return Ok(device),
                (Verdict::Denied(Denial::NotACode), _) => {
                    writeln!(io::stderr(), "A code has {} digits.", self.digits().get())?;
                }
                _ => writeln!(
                    io::stderr(),
                    "That is not the code of this secret now. Is the clock of the device right? Here it is {} UTC.",
                    time_of_day(clock::now())
                )?,
            }
        }
        bail!("no right code in {CONFIRMATIONS} tries; nothing was stored")
    }
}

/// Judges an answer as a login would, and says what the device would be then. Mistyping here is no guess: the budget begins
/// with the stored record. And a scratch code does not show that the app works.
fn judged(trial: &Device, answer: &Answer) -> (Verdict, Option<Device>) {
    let trial = Record::of(vec![trial.clone()]);
    let rules = Rules { increment_hotp: false, allow_scratch_codes: false, ..Rules::default() };
    let attempt = Try::new(answer);
    let mut stored = None;
    let mut store = |next: &Record| {
        stored = next.devices.first().cloned();
        Ok::<(), Infallible>(())
    };
    let decision = match verify::charge(&trial, &rules, &attempt, clock::now()) {
        Charge::Refused(decision) => Ok(decision),
        Charge::Due(due) => due.commit(&mut store).map(Charged::decide),
    };
    let Ok(verdict) = decision.and_then(|decision| decision.commit(store));
    (verdict, stored)
}

/// So many bytes, or as many bits as the policy asks for.
fn new_secret(length: usize, min_bits: u64) -> io::Result<Arc<Secret<Vec<u8>>>> {
    const PORTION: usize = 32;
    let length = usize::try_from(min_bits.div_ceil(8)).unwrap_or(0).max(length);
    let mut secret = Vec::with_capacity(length.saturating_add(PORTION));
    while secret.len() < length {
        secret.extend_from_slice(&random::bytes::<PORTION>()?);
    }
    secret.truncate(length);
    Ok(Arc::new(Secret::new(secret)))
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
    fn recovery_codes_are_different_and_have_120_bits() {
        let Spares::Recovery(codes) = Spares::recovery(10).unwrap() else { panic!() };
        let mut bytes: Vec<_> = codes.iter().map(|code| code.expose().to_vec()).collect();
        assert!(bytes.iter().all(|bytes| bytes.len() * 8 == 120));
        bytes.sort_unstable();
        bytes.dedup();
        assert_eq!(bytes.len(), 10);
    }

    #[test]
    fn secrets_are_new_and_have_160_bits_or_more() {
        let [one, two] = [new_secret(20, 0).unwrap(), new_secret(20, 160).unwrap()];
        assert_eq!((one.expose().len(), two.expose().len()), (20, 20));
        assert_ne!(one.expose(), two.expose());
        assert_eq!(new_secret(20, 161).unwrap().expose().len(), 21);
        assert_eq!(new_secret(20, 512).unwrap().expose().len(), 64);
        assert_eq!(new_secret(64, 0).unwrap().expose().len(), 64);
    }
}
