//! `pam-totp import`: secrets that another program or an app has already, and those of homes.

mod homes;

use crate::choices::WINDOW;
use crate::host::{self, Access, Whose, by_fact, by_store};
use anyhow::{Context, Result, bail, ensure};
use pam_totp::fact::Fact;
use pam_totp::otp::{Algorithm, Digits, base32};
use pam_totp::policy::{Policy, StoreKind};
use pam_totp::record::{Device, Hotp, Kind, RateLimit, Record, Totp, google};
use pam_totp::secret::Secret;
use pam_totp::system::clock;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// RFC 4226 section 4 (R6): what a secret has to have at least.
const STRONG_BYTES: usize = 16;
/// What a record gets that brings no limit along.
const RATE_LIMIT: RateLimit = RateLimit { tries: 3, seconds: 30, charged: Vec::new() };

/// What an imported device is called in the root-only store.
const DEVICE: &str = "imported";

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("from").required(true).args(["file", "to"]).multiple(true)))]
pub(crate) struct Arguments {
    /// A users file of pam_oath, or otpauth URIs, one a line (`-`: standard input)
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Without FILE: take over what is in the home of --user
    #[arg(long, value_name = "STORE")]
    to: Option<To>,
    /// Without FILE: of everybody on this host who has such a file. Nobody's record is replaced; whose file has another secret
    /// than the record is named
    #[arg(long, requires = "to", conflicts_with_all = ["file", "user", "force"])]
    all_homes: bool,
    #[command(flatten)]
    whose: Whose,
    /// Replace what is there
    #[arg(short, long)]
    force: bool,
    /// Delete the file in the home once it is taken over (default: ask)
    #[arg(long, conflicts_with_all = ["keep", "file"])]
    delete: bool,
    /// Keep it; it is not looked at any more
    #[arg(long, conflicts_with = "file")]
    keep: bool,
}

/// Where to.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// Files in homes
    Home,
    /// The root-only store
    System,
    /// The store of a fleet
    Fleet,
}

/// One device of somebody's, as the other program had it.
struct Imported {
    user: String,
    secret: Secret<Vec<u8>>,
    algorithm: Algorithm,
    digits: Digits,
    moving: Moving,
    /// What could not be taken over.
    remarks: Vec<&'static str>,
}

enum Moving {
    Time {
        period: u64,
    },
    /// The next counter that has not been used.
    Counter {
        next: u64,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.whose.key.is_none(), "what is imported is an account's, and not that of the holder of a key");
    let policy = host::policy(arguments.whose.conf.as_ref())?;
    let is_other = match (arguments.to, policy.store.value) {
        (None, _)
        | (Some(To::Home), StoreKind::Home)
        | (Some(To::System), StoreKind::System)
        | (Some(To::Fleet), StoreKind::Fleet) => None,
        (Some(To::Home), _) => Some("home"),
        (Some(To::System), _) => Some("system"),
        (Some(To::Fleet), _) => Some("fleet"),
    };
    if let Some(store) = is_other {
        // A code that two stores know would work twice.
        bail!("logins do not look there: write store = \"{store}\" into [defaults] of the policy first");
    }
    match &arguments.file {
        Some(file) => run_file(arguments, file, &policy),
        None if arguments.all_homes => homes::run_all(arguments, &policy),
        None => homes::run_one(arguments),
    }
}

/// Takes over every line, says what became of each, and fails in the end if one of them could not be taken.
fn run_file(arguments: &Arguments, file: &Path, policy: &Policy) -> Result<()> {
    if policy.store.value.is_roots() {
        host::ensure_root("change the root-only store")?;
    }
    let access = Access::new(policy, arguments.whose.ring.as_deref())?;
    let text = read(file)?;
    let user = arguments.whose.user.as_deref();
    let lines =
        || (1..).zip(text.expose().lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let is_single = lines().count() == 1;
    let (mut taken, mut failed) = (Vec::new(), 0_u32);
    for (number, line) in lines() {
        let place = || format!("{}:{number}", file.display());
        let imported = match parse(line, user.filter(|_| is_single)) {
            Ok(imported) => imported,
            Err(error) => {
                eprintln!("{}: {error:#}", place());
                failed = failed.saturating_add(1);
                continue;
            }
        };
        if user.is_some_and(|user| user != imported.user) {
            continue;
        }
        // What this file has just brought is not in its own way.
        let is_first = taken.iter().all(|object: &serde_json::Value| object["user"] != imported.user.as_str());
        match store(&imported, policy, &access, arguments.force && is_first) {
            Ok(path) => {
                let object = serde_json::json!({ "user": imported.user, "path": path.to_string_lossy(), "what": imported.what() });
                taken.push(object);
                if arguments.whose.json {
                    continue;
                }
                say!("{}: {}: {} in {}", place(), imported.user.escape_debug(), imported.what(), path.display());
                for remark in &imported.remarks {
                    say!("{}: {}: {remark}", place(), imported.user.escape_debug());
                }
            }
            Err(error) => {
                eprintln!("{}: {}: {error:#}", place(), imported.user.escape_debug());
                failed = failed.saturating_add(1);
            }
        }
    }
    if arguments.whose.json {
        say!("{}", serde_json::json!({ "taken": taken, "failed": failed }));
    } else {
        say!("{} taken over, {failed} not.", taken.len());
    }
    ensure!(failed == 0, "{failed} could not be taken over");
    ensure!(!taken.is_empty(), "there was nothing to take over");
    Ok(())
}

fn read(file: &Path) -> Result<Secret<String>> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).context("standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    }
    Ok(Secret::new(text))
}

/// The last step that could have been accepted by now.
fn newest(totp: &Totp, policy: &Policy) -> Result<u64> {
    let window = totp.window.unwrap_or(policy.window.value);
    let ahead = policy.widest_window().map_or(window, |widest| window.within(widest)).ahead;
    let step = clock::now().checked_div(totp.period).context("a time step of no time")?;
    Ok(step.saturating_add_signed(totp.skew).saturating_add(ahead))
}

fn ensure_bits(secret: &[u8], policy: &Policy) -> Result<()> {
    let (bits, least) = ((secret.len() as u64).saturating_mul(8), policy.min_secret_bits.value);
    ensure!(bits >= least, "the secret has {bits} bits, and min_secret_bits asks for {least}");
    Ok(())
}

fn parse(line: &str, user: Option<&str>) -> Result<Imported> {
    match line.trim().strip_prefix("otpauth://") {
        Some(rest) => parse_uri(rest, user),
        None => parse_oath(line),
    }
}

/// `TYPE USER PIN SECRET [COUNTER [LAST-CODE [TIME]]]`, the secret in hexadecimal.
fn parse_oath(line: &str) -> Result<Imported> {
    let mut words = line.split_whitespace();
    let mut word = |what: &'static str| words.next().with_context(|| format!("the {what} is missing"));
    let (kind, user, pin, secret) = (word("type")?, word("user")?, word("PIN")?, word("secret")?);
    let (counter, last_code) = (words.next(), words.next());
    let mut parts = kind.split('/');
    ensure!(parts.next() == Some("HOTP"), "`{}` is neither a line of pam_oath nor an otpauth URI", kind.escape_debug());
    let (moving, digits) = (parts.next().unwrap_or("E"), parts.next().unwrap_or("6"));
    let moving = match moving.strip_prefix('T') {
        Some(period) => Moving::Time { period: number(period, "time step")? },
        None if moving == "E" || moving.is_empty() => {
            let counter = counter.map_or(Ok(0), |counter| number(counter, "counter"))?;
            // pam_oath keeps the counter of the last code that it accepted.
            let is_used = last_code.is_some() || counter > 0;
            Moving::Counter {
                next: if is_used { counter.checked_add(1).context("the counter is at its end")? } else { 0 },
            }
        }
        None => bail!("`{}` is no kind of code that is known here", kind.escape_debug()),
    };
    let mut remarks = Vec::new();
    if pin != "-" && pin != "+" {
        remarks.push("the PIN is not taken over: put a module for passwords into the stack");
    }
    let (algorithm, digits) = (Algorithm::Sha1, digits_of(digits)?);
    Ok(Imported { user: user.to_owned(), secret: hexadecimal(secret)?, algorithm, digits, moving, remarks })
}

/// `TYPE/LABEL?KEY=VALUE&…`, without the scheme.
fn parse_uri(rest: &str, user: Option<&str>) -> Result<Imported> {
    let (kind, rest) = rest.split_once('/').context("the label is missing")?;
    let (label, query) = rest.split_once('?').context("the secret is missing")?;
    let label = percent_decoded(label)?;
    let account = label.rsplit(':').next().unwrap_or_default().trim();
    let from_label = account.split('@').next().unwrap_or_default();
    let value = |key: &str| {
        query.split('&').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key)).map(|(_, value)| value)
    };
    let secret = percent_decoded(value("secret").context("the secret is missing")?)?;
    let secret = base32::decode(secret.trim_end_matches('=').as_bytes()).context("the secret is not base32")?;
    let algorithm = match value("algorithm").map(str::to_ascii_uppercase).as_deref() {
        None | Some("SHA1") => Algorithm::Sha1,
        Some("SHA256") => Algorithm::Sha256,
        Some("SHA512") => Algorithm::Sha512,
        Some(other) => bail!("`{}` is no algorithm that is known here", other.escape_debug()),
    };
    let moving = match kind {
        "totp" => Moving::Time { period: number(value("period").unwrap_or("30"), "period")? },
        "hotp" => Moving::Counter { next: number(value("counter").context("the counter is missing")?, "counter")? },
        _ => bail!("`{}` is no kind of code that is known here", kind.escape_debug()),
    };
    let digits = digits_of(value("digits").unwrap_or("6"))?;
    let user = user.unwrap_or(from_label).to_owned();
    Ok(Imported { user, secret, algorithm, digits, moving, remarks: Vec::new() })
}

fn store(imported: &Imported, policy: &Policy, access: &Access, replace: bool) -> Result<PathBuf> {
    let person = host::person(Some(&imported.user))?;
    ensure_bits(imported.secret.expose(), policy)?;
    let store = access.store(policy);
    let path = store.path(&person).map_err(by_fact)?;
    let is_system = policy.store.value.is_roots();
    let there = store.load(&person).ok();
    // What was used here since would work again.
    let is_there = there.as_ref().is_some_and(|record| record.holds(&imported.secret));
    ensure!(!is_there, "{} holds this secret already", path.display());
    let device = imported.device(if is_system { DEVICE } else { "" }, policy)?;
    match there {
        // One device more.
        Some(_) if is_system && !replace => store.change(&person, &mut |record| {
            if record.holds(&imported.secret) {
                return Err(Fact::new("already-enrolled").or("somebody else was faster"));
            }
            let mut device = device.clone();
            device.name = free_name(record);
            record.devices.push(device);
            Ok(())
        }),
        _ => {
            let mut record = Record::of(vec![device]);
            record.rate_limit = Ok((!is_system).then_some(RATE_LIMIT));
            store.enrol(&person, &record, replace)
        }
    }
    .map_err(by_store)?;
    Ok(path)
}

/// `imported`, `imported 2` …
fn free_name(record: &Record) -> String {
    let names = (1_u64..).map(|n| if n == 1 { DEVICE.to_owned() } else { format!("{DEVICE} {n}") });
    names.into_iter().find(|name| record.device(name).is_none()).unwrap_or_default()
}

impl Imported {
    /// What may have been used with the other program is used here.
    fn device(&self, name: &str, policy: &Policy) -> Result<Device> {
        let (algorithm, digits) = (self.algorithm, self.digits);
        let kind = match self.moving {
            Moving::Time { period } => {
                ensure!(google::STEP_SIZES.contains(&period), "a time step lasts 1 to 60 seconds here, not {period}");
                let (window, skew, drift) = (None, 0, Vec::new());
                let mut totp = Totp { algorithm, digits, period, window, skew, drift, used: Ok(None) };
                totp.used = Ok(Some(vec![newest(&totp, policy)?]));
                Kind::Totp(totp)
            }
            // The file's counters begin at 1.
            Moving::Counter { next } => {
                Kind::Hotp(Hotp { algorithm, digits, look_ahead: WINDOW, counter: next.max(1) })
            }
        };
        let secret = Ok(Arc::new(Secret::new(self.secret.expose().clone())));
        Ok(Device { name: name.to_owned(), secret, kind: Ok(kind), added: Some(clock::now()), last_used: None })
    }

    /// For whoever reads along: everything but the secret.
    fn what(&self) -> String {
        let (digits, algorithm) = (self.digits.get(), self.algorithm.name());
        let weak = if self.secret.expose().len() < STRONG_BYTES { ", a secret of less than 128 bits" } else { "" };
        match self.moving {
            Moving::Time { period } => {
                format!("{digits} digits every {period} seconds ({algorithm}){weak}; codes up to now count as used")
            }
            Moving::Counter { next: 0 } => {
                format!("{digits} digits by counter ({algorithm}){weak}, from the second code on")
            }
            Moving::Counter { next } => {
                format!("{digits} digits by counter ({algorithm}){weak}, from counter {next} on")
            }
        }
    }
}

fn number(text: &str, what: &str) -> Result<u64> {
    text.parse().with_context(|| format!("the {what} `{}` is no number", text.escape_debug()))
}

fn digits_of(text: &str) -> Result<Digits> {
    let digits = text.parse().ok().and_then(Digits::new);
    digits.with_context(|| format!("a code has 6 to 8 digits, not `{}`", text.escape_debug()))
}

fn hexadecimal(text: &str) -> Result<Secret<Vec<u8>>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let digits = std::str::from_utf8(pair).ok().filter(|digits| digits.len() == 2 && !digits.starts_with('+'))?;
        u8::from_str_radix(digits, 16).ok()
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    bytes.filter(|bytes| !bytes.is_empty()).map(Secret::new).context("the secret is not hexadecimal")
}

fn percent_decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                bytes.extend_from_slice(hexadecimal(&String::from_utf8_lossy(&[*high, *low]))?.expose());
                tail
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8(bytes).context("not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(line: &str) -> Result<String, String> {
        let imported = parse(line, None).map_err(|error| error.to_string())?;
        Ok(format!("{} {} {}", imported.user, imported.secret.expose().len(), imported.what()))
    }

    #[test]
    fn lines_of_pam_oath_are_read() {
        let hex = "3132333435363738393031323334353637383930";
        for (line, expected) in [
            (format!("HOTP alice - {hex}"), "6 digits by counter (SHA1), from the second code on"),
            (
                format!("HOTP\talice\t+\t{hex}\t7\t162583\t2026-01-01T00:00:00L"),
                "6 digits by counter (SHA1), from counter 8 on",
            ),
            (format!("HOTP/E/8 alice 1234 {hex} 0 755224"), "8 digits by counter (SHA1), from counter 1 on"),
            (format!("HOTP/T30 alice - {hex}"), "6 digits every 30 seconds (SHA1); codes up to now count as used"),
            (
                format!("HOTP/T60/7 alice - {hex} 0 1234567 2026-01-01T00:00:00L"),
                "7 digits every 60 seconds (SHA1); codes up to now count as used",
            ),
        ] {
            assert_eq!(summary(&line), Ok(format!("alice 20 {expected}")), "{line}");
        }
        for line in [
            "HOTP alice - xyz",
            "HOTP alice -",
            "HOTP alice - 123",
            "TOTP alice - 00",
            "HOTP/X alice - 00",
            "HOTP/T30/9 alice - 00",
            "HOTP/Tx alice - 00",
            "HOTP alice - 00 x",
            "HOTP alice - +1+2",
        ] {
            assert!(summary(line).is_err(), "{line}");
        }
    }

    #[test]
    fn uris_are_read() {
        let secret = "secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        assert_eq!(
            summary(&format!(
                "otpauth://totp/My%20Host:alice@host?{secret}&issuer=x&period=60&digits=8&algorithm=sha512"
            )),
            Ok("alice 20 8 digits every 60 seconds (SHA512); codes up to now count as used".to_owned())
        );
        assert_eq!(
            summary(&format!("otpauth://hotp/alice?counter=5&{secret}")),
            Ok("alice 20 6 digits by counter (SHA1), from counter 5 on".to_owned())
        );
        assert!(summary("otpauth://totp/alice?secret=MY%3D%3D").unwrap().contains("less than 128 bits"));
        for line in [
            "otpauth://totp/alice",
            "otpauth://totp/alice?secret=!",
            "otpauth://hotp/alice?secret=MY",
            "otpauth://motp/alice?secret=MY",
            "otpauth://totp/alice?secret=MY&digits=5",
        ] {
            assert!(summary(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_imported_device_has_a_name_that_is_free() {
        let mut record = Record::of(Vec::new());
        for expected in ["imported", "imported 2", "imported 3"] {
            let name = free_name(&record);
            assert_eq!(name, expected);
            let kind = Ok(Kind::None);
            let secret = Ok(Arc::new(Secret::new(vec![1])));
            record.devices.push(Device { name, secret, kind, added: None, last_used: None });
        }
        record.devices.remove(1);
        assert_eq!(free_name(&record), "imported 2");
    }
}
