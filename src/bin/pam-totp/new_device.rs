//! A device that somebody is about to have: its secret, how it is shown, and the code that proves that it works.

use crate::qr;
use anyhow::{Context, Result, bail};
use pam_totp::enrol::{self, Codes, PERIOD, host_name};
use pam_totp::otp::{Algorithm, Answer, Digits, Form, Moving, RecoveryCode};
use pam_totp::record::{Device, Record, RecoveryCodes};
use pam_totp::secret::Secret;
use pam_totp::system::{clock, random};
use pam_totp::verify::{self, Denial, Rules, Verdict};
use std::convert::Infallible;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;

/// How many codes may be mistyped before we give up.
const CONFIRMATIONS: usize = 5;
/// What google-authenticator takes for "do not ask me for a code".
const SKIP: &str = "-1";

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
        enrol::recovery_codes(count).map(Self::Recovery).context("the kernel gives no random numbers")
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
    pub(crate) new: enrol::NewDevice,
    user: String,
}

impl<'a> NewDevice<'a> {
    pub(crate) fn new(arguments: &'a Arguments, user: &str, counter_based: bool, min_bits: u64) -> Result<Self> {
        let codes = Codes {
            moving: match counter_based {
                false => Moving::Time { period: arguments.step_size.unwrap_or(PERIOD) },
                true => Moving::Counter { next: 1 },
            },
            algorithm: arguments.algorithm.into(),
            digits: Digits::new(arguments.digits).unwrap_or(Digits::SIX),
        };
        let new = enrol::NewDevice::new(codes, min_bits).context("the kernel gives no random numbers")?;
        Ok(Self { arguments, new, user: user.to_owned() })
    }

    /// The same with another secret.
    pub(crate) fn with_secret(self, secret: Secret<Vec<u8>>) -> Self {
        Self { new: enrol::NewDevice::with_secret(self.new.codes(), secret), ..self }
    }

    pub(crate) fn is_counter_based(&self) -> bool {
        matches!(self.new.codes().moving, Moving::Counter { .. })
    }

    /// The device, new.
    pub(crate) fn device(&self, name: &str) -> Device {
        self.new.device(name, clock::now())
    }

    pub(crate) fn uri(&self) -> Secret<String> {
        let host = host_name();
        let label = self.arguments.label.clone().unwrap_or_else(|| format!("{}@{host}", self.user));
        self.new.uri(self.arguments.issuer.as_deref().unwrap_or(&host), &label)
    }

    /// Everything that the person needs, before anything is stored: what cannot be shown is not stored either.
    pub(crate) fn show(&self, json: bool, spares: Option<&Spares>) -> Result<()> {
        // Made in any case, while it can still be refused for nothing: a secret that was shown should also be stored.
        let uri = self.uri();
        let code = enrol::qr::Code::new(uri.expose()).context("the QR code cannot be made")?;
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
        code: &enrol::qr::Code,
        spares: Option<&Spares>,
    ) -> Result<()> {
        let style = match self.arguments.qr_mode {
            Some(mode) => mode.style(),
            None => Some(qr::Style::for_terminal(out.is_terminal())),
        };
        if let Some(style) = style {
            writeln!(out, "Scan this with an authenticator app:\n\n{}", style.text(code))?;
        }
        writeln!(out, "Secret, to type instead: {}", self.new.secret().expose())?;
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
                    writeln!(io::stderr(), "A code has {} digits.", self.new.codes().digits.get())?;
                }
                _ => writeln!(io::stderr(), "{}", not_its_code())?,
            }
        }
        bail!("no right code in {CONFIRMATIONS} tries; nothing was stored")
    }
}

/// What somebody is told whose first code is not right.
pub(crate) fn not_its_code() -> String {
    let now = time_of_day(clock::now());
    format!("That is not the code of this secret now. Is the clock of the device right? Here it is {now} UTC.")
}

/// Judges an answer as a login would, and says what the device would be then. Mistyping here is no guess: the budget begins
/// with the stored record.
fn judged(trial: &Device, answer: &Answer) -> (Verdict, Option<Device>) {
    let trial = Record::of(vec![trial.clone()]);
    let mut stored = None;
    let Ok(verdict) = verify::first_code(&trial, &Rules::default(), answer, clock::now()).commit(|next| {
        stored = next.devices.first().cloned();
        Ok::<(), Infallible>(())
    });
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
}
