//! `pam-totp enrol`.

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
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of a new secret: 160 bits, as RFC 4226 section 4 (R6) recommends.
const SECRET_BYTES: usize = 20;
/// How many scratch codes a new record has.
const SCRATCH_CODES: usize = 5;
/// Seconds per time step (RFC 6238 section 5.2).
const PERIOD: u64 = 30;
/// One step before and one after the present one; HOTP: so many counters ahead.
const WINDOW: u64 = 3;
/// Three tries in thirty seconds, what google-authenticator proposes: a person never notices, a program does.
const RATE_LIMIT: RateLimit = RateLimit { tries: 3, seconds: 30, charged: Vec::new() };
/// How many codes may be mistyped before we give up.
const CONFIRMATIONS: usize = 5;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whom to enrol (default: yourself; only root enrols somebody else)
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Store the secret without asking for a code first
    #[arg(long)]
    no_confirm: bool,
    /// Replace the secret that is there; its codes stop working
    #[arg(long)]
    force: bool,
    /// A counter in place of the time (HOTP, RFC 4226)
    #[arg(long)]
    counter_based: bool,
    /// Print one JSON object; what a person has to read goes to standard error
    #[arg(long)]
    json: bool,
}

/// Somebody who is about to have a second factor.
struct Enrolment {
    user: String,
    secret: Arc<Secret<Vec<u8>>>,
    path: PathBuf,
    record: Record,
    uri: Secret<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let person = person(arguments.user.as_deref())?;
    let store = HomeStore::default();
    let path = store.path(&person).map_err(by_fact)?;
    if !arguments.force && store.has_record(&person).map_err(by_store)? {
        bail!("{} exists; --force replaces it, and the codes of its device stop working", path.display());
    }
    let enrolment = Enrolment::new(&person, path, arguments.counter_based)?;
    // Made now, while it can still be refused for nothing: a secret that was shown should also be stored.
    let uri = qr::Code::new(enrolment.uri.expose()).context("the QR code cannot be made")?;
    let record = if arguments.json {
        let record = if arguments.no_confirm {
            enrolment.record.clone()
        } else {
            enrolment.show(&mut io::stderr(), &uri)?;
            enrolment.confirmed()?
        };
        // Printed before it is stored: a secret that nobody has seen must not take the place of one that works. Whoever
        // reads this looks at the exit status too.
        enrolment.print_json()?;
        record
    } else {
        enrolment.show(&mut io::stdout(), &uri)?;
        if arguments.no_confirm { enrolment.record.clone() } else { enrolment.confirmed()? }
    };
    enrolment.store(&store, &person, &record, arguments.force)?;
    if !arguments.json {
        // Stored it is, whether this can be printed or not.
        let _ = writeln!(io::stdout(), "Stored in {}.", enrolment.path.display());
    }
    Ok(())
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

impl Enrolment {
    fn new(person: &Person, path: PathBuf, counter_based: bool) -> Result<Self> {
        let secret = new_secret().context("the kernel gives no random numbers")?;
        let record = new_record(&secret, counter_based).context("the kernel gives no random numbers")?;
        let user = String::from_utf8_lossy(person.name()).into_owned();
        let host = host_name();
        let moving = match counter_based {
            false => Moving::Time { period: PERIOD },
            true => Moving::Counter { next: 1 },
        };
        let uri = OtpauthUri {
            issuer: &host,
            account: &format!("{user}@{host}"),
            secret: &secret,
            moving,
            algorithm: Algorithm::Sha1,
            digits: Digits::SIX,
        }
        .text();
        Ok(Self { user, secret, path, record, uri })
    }

    /// Everything that the person needs, before anything is stored: what cannot be shown is not stored either.
    fn show(&self, out: &mut (impl Write + IsTerminal), code: &qr::Code) -> Result<()> {
        let style = qr::Style::for_terminal(out.is_terminal());
        writeln!(out, "Scan this with an authenticator app:\n\n{}", code.text(style))?;
        writeln!(out, "Secret, to type instead: {}", base32::encode(self.secret.expose()).expose())?;
        writeln!(out, "URI: {}\n", self.uri.expose())?;
        writeln!(out, "Scratch codes, for the day when the app is not at hand. Each works once:")?;
        for code in self.record.scratch.expose() {
            writeln!(out, "  {code}")?;
        }
        writeln!(out)?;
        out.flush().map_err(Into::into)
    }

    /// Asks for a code until one is right. The record that comes back has it used up.
    fn confirmed(&self) -> Result<Record> {
        let mut lines = io::stdin().lock().lines();
        for _ in 0..CONFIRMATIONS {
            write!(io::stderr(), "Code from the app: ")?;
            io::stderr().flush()?;
            let line = lines.next().context("no code was given; nothing was stored")??;
            let answer = Answer::new(Secret::new(line.into_bytes()), Form::Code, false);
            match self.judged(&answer) {
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

    /// Judges an answer as a login would, and what would be stored then. Mistyping here is no guess: the budget begins with
    /// the stored record. And a scratch code does not show that the app works.
    fn judged(&self, answer: &Answer) -> (Verdict, Option<Record>) {
        let nothing = || Arc::new(Secret::new(Vec::new()));
        let trial = Record { rate_limit: Ok(None), scratch: nothing(), ..self.record.clone() };
        let (rules, attempt) = (Rules { increment_hotp: false, ..Rules::default() }, Try::new(answer));
        let mut stored = None;
        let mut store = |next: &Record| {
            let rest = Record { device: next.device.clone(), ..self.record.clone() };
            stored = Some(rest);
            Ok::<(), Infallible>(())
        };
        let decision = match verify::charge(&trial, &rules, &attempt, clock::now()) {
            Charge::Refused(decision) => Ok(decision),
            Charge::Due(due) => due.commit(&mut store).map(Charged::decide),
        };
        let Ok(verdict) = decision.and_then(|decision| decision.commit(store));
        (verdict, stored)
    }

    fn store(&self, store: &HomeStore, person: &Person, record: &Record, force: bool) -> Result<()> {
        store.enrol(person, &google::new_text(record), force).map_err(by_store).with_context(|| match force {
            true => format!("{} was not replaced", self.path.display()),
            false => format!("{} was not made", self.path.display()),
        })
    }

    fn print_json(&self) -> Result<()> {
        let codes: Vec<String> = self.record.scratch.expose().iter().map(ToString::to_string).collect();
        let object = serde_json::json!({
            "user": self.user,
            "secret": base32::encode(self.secret.expose()).expose(),
            "uri": self.uri.expose(),
            "scratch_codes": codes,
            "path": self.path.to_string_lossy(),
        });
        writeln!(io::stdout(), "{object}")?;
        io::stdout().flush().map_err(Into::into)
    }
}

fn new_secret() -> io::Result<Arc<Secret<Vec<u8>>>> {
    Ok(Arc::new(Secret::new(random::bytes::<SECRET_BYTES>()?.to_vec())))
}

fn new_record(secret: &Arc<Secret<Vec<u8>>>, counter_based: bool) -> io::Result<Record> {
    let (algorithm, digits) = (Algorithm::Sha1, Digits::SIX);
    let device = if counter_based {
        Device::Hotp(Hotp { algorithm, digits, look_ahead: WINDOW, counter: 1 })
    } else {
        let window = Window::of_size(WINDOW);
        let used = Ok(Some(Vec::new()));
        Device::Totp(Totp { algorithm, digits, period: PERIOD, window, skew: 0, drift: Vec::new(), used })
    };
    Ok(Record {
        secret: Ok(Arc::clone(secret)),
        device: Ok(device),
        rate_limit: Ok(Some(RATE_LIMIT)),
        scratch: Arc::new(Secret::new(scratch_codes()?)),
        scratch_before_odd: SCRATCH_CODES,
        logins: std::array::from_fn(|_| Slot::Empty),
    })
}

/// Different numbers from 10000000 to 99999999, each as likely as the other.
fn scratch_codes() -> io::Result<Vec<u32>> {
    const FIRST: u32 = 10_000_000;
    const COUNT: u32 = 90_000_000;
    let mut codes = Vec::with_capacity(SCRATCH_CODES);
    while codes.len() < SCRATCH_CODES {
        let number = u32::from_ne_bytes(random::bytes()?);
        // The last, incomplete run of `COUNT` numbers would make its first ones likelier.
        if number < (u32::MAX / COUNT).saturating_mul(COUNT) {
            let code = FIRST.saturating_add(number % COUNT);
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
    }
    Ok(codes)
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
            let mut codes = scratch_codes().unwrap();
            codes.sort_unstable();
            codes.dedup();
            assert_eq!(codes.len(), 5);
            assert!(codes.iter().all(|code| code.to_string().len() == 8));
        }
    }

    #[test]
    fn secrets_are_new_and_have_160_bits() {
        let [one, two] = [new_secret().unwrap(), new_secret().unwrap()];
        assert_eq!(one.expose().len(), 20);
        assert_ne!(one.expose(), two.expose());
    }
}
