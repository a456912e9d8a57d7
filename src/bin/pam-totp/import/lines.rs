//! What other programs have written: a line of pam_oath's users file, or an otpauth URI.

use anyhow::{Context, Result, bail, ensure};
use pam_totp::otp::{Algorithm, Digits, base32};
use pam_totp::secret::Secret;

/// RFC 4226 section 4 (R6): what a secret has to have at least.
const STRONG_BYTES: usize = 16;

/// One device of somebody's, as the other program had it.
pub(crate) struct Imported {
    pub(crate) user: String,
    pub(crate) secret: Secret<Vec<u8>>,
    pub(crate) algorithm: Algorithm,
    pub(crate) digits: Digits,
    pub(crate) moving: Moving,
    /// What could not be taken over.
    pub(crate) remarks: Vec<&'static str>,
}

/// What makes its next code differ from the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moving {
    Time {
        period: u64,
    },
    /// The next counter that has not been used.
    Counter {
        next: u64,
    },
}

/// Reads a line. `user`: whose it is, where an URI need not say so.
pub(crate) fn parse(line: &str, user: Option<&str>) -> Result<Imported> {
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
            Moving::Counter { next: next_counter(counter.checked_add(is_used.into()))? }
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
        "hotp" => {
            let counter = number(value("counter").context("the counter is missing")?, "counter")?;
            Moving::Counter { next: next_counter(Some(counter))? }
        }
        _ => bail!("`{}` is no kind of code that is known here", kind.escape_debug()),
    };
    let digits = digits_of(value("digits").unwrap_or("6"))?;
    let user = user.unwrap_or(from_label).to_owned();
    Ok(Imported { user, secret, algorithm, digits, moving, remarks: Vec::new() })
}

impl Imported {
    /// For whoever reads along: everything but the secret.
    pub(crate) fn what(&self) -> String {
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

/// Records hold them up to 2^63 - 1.
fn next_counter(counter: Option<u64>) -> Result<u64> {
    counter.filter(|&counter| i64::try_from(counter).is_ok()).context("the counter is at its end")
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
            "HOTP alice - 00 9223372036854775807",
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
            "otpauth://hotp/alice?secret=MY&counter=9223372036854775808",
            "otpauth://motp/alice?secret=MY",
            "otpauth://totp/alice?secret=MY&digits=5",
        ] {
            assert!(summary(line).is_err(), "{line}");
        }
    }
}
