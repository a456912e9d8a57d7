//! `pam-totp resync`: a device, or the clock of this host, that was off.

use crate::host::{Whose, by_store};
use anyhow::{Context, Result, anyhow, bail};
use pam_totp::fact::Fact;
use pam_totp::otp::{Code, NotACode};
use pam_totp::record::{Device, Kind};
use pam_totp::secret::Secret;
use pam_totp::system::clock;
use pam_totp::verify::{self, NotResynced};
use std::io::{self, BufRead, Write};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The device (default: the one whose codes they are)
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Ask for no codes: after the clock of this host was ahead, and codes of that time were used, take the present time for
    /// right. Codes that were used while it was ahead could be used again when their time comes
    #[arg(long)]
    accept_clock: bool,
    #[command(flatten)]
    whose: Whose,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let subject = arguments.whose.subject("change the root-only store")?;
    let store = subject.store();
    let record = store.load(&subject.person).map_err(by_store)?;
    if let Some(name) = &arguments.device
        && record.device(name).is_none()
    {
        bail!("there is no device `{}`", name.escape_debug());
    }
    let is_meant = |device: &Device| arguments.device.as_ref().is_none_or(|name| device.name == *name);
    let mut done = Vec::new();
    if arguments.accept_clock {
        let window = (subject.policy.window.value, subject.policy.widest_window());
        store
            .change(&subject.person, &mut |record| {
                done.clear();
                for device in record.devices.iter_mut().filter(|device| is_meant(device)) {
                    if verify::accept_clock(device, window, clock::now()) {
                        done.push((device.name.clone(), "takes the present time for right".to_owned()));
                    }
                }
                if done.is_empty() {
                    Err(Fact::new("nothing-ahead").or("no code of a later time was used"))
                } else {
                    Ok(())
                }
            })
            .map_err(by_store)?;
    } else {
        let codes = [ask("Code from the device: ")?, ask("The code after that: ")?];
        store
            .change(&subject.person, &mut |record| {
                done = vec![resync(&mut record.devices, is_meant, [&codes[0], &codes[1]])?];
                Ok(())
            })
            .map_err(by_store)?;
    }
    let devices: Vec<_> = done.iter().map(|(name, _)| name.as_str()).collect();
    if arguments.whose.json {
        say!("{}", subject.object(serde_json::json!({ "devices": devices })));
    } else {
        for (name, what) in &done {
            say!("{}: {}{what}", subject.title(), if name.is_empty() { String::new() } else { format!("{name} ") });
        }
    }
    Ok(())
}

/// The device that both codes fit, and what became of it.
fn resync(
    devices: &mut [Device],
    is_meant: impl Fn(&Device) -> bool,
    codes: [&Code; 2],
) -> Result<(String, String), Fact> {
    let mut refusal = NotResynced::NotFound;
    for device in devices.iter_mut().filter(|device| is_meant(device)) {
        match verify::resync(device, codes, clock::now()) {
            Ok(by) => {
                let what = match device.kind {
                    Ok(Kind::Hotp(_)) => format!("had moved on by {by} codes"),
                    _ => difference(by),
                };
                return Ok((device.name.clone(), what));
            }
            Err(NotResynced::NotFound) => {}
            Err(error) => refusal = error,
        }
    }
    Err(match refusal {
        NotResynced::NotFound => {
            Fact::new("not-found").or("no two codes that follow each other, within 12 hours or a thousand codes of now")
        }
        NotResynced::Used => Fact::new("used-code").or("these codes, or later ones, were used: wait for the next two"),
        NotResynced::NoCodes => Fact::new("no-device").or("this device has no codes"),
    })
}

/// How a device's clock stands to that of this host.
fn difference(steps: i64) -> String {
    let side = if steps < 0 { "behind" } else { "ahead of" };
    let plural = if steps.unsigned_abs() == 1 { "" } else { "s" };
    format!("is {} time step{plural} {side} this clock", steps.unsigned_abs())
}

fn ask(question: &str) -> Result<Code> {
    write!(io::stderr(), "{question}")?;
    io::stderr().flush()?;
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line).context("no code was given; nothing has changed")?;
    let line = Secret::new(line);
    if read == 0 {
        bail!("no code was given; nothing has changed");
    }
    Code::parse(line.expose().trim_end().as_bytes()).map_err(|error| match error {
        NotACode::Empty => anyhow!("no code was given; nothing has changed"),
        NotACode::Shape | NotACode::RefusedBySshd => anyhow!("a code has 6 to 8 digits; nothing has changed"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_number_and_a_side() {
        assert_eq!(difference(61), "is 61 time steps ahead of this clock");
        assert_eq!(difference(-1), "is 1 time step behind this clock");
        assert_eq!(difference(0), "is 0 time steps ahead of this clock");
    }
}
