//! What somebody who enrols can choose: by flags, those of google-authenticator among them, or by answering its questions.

use crate::host::Whose;
use crate::new_device;
use anyhow::{Context, Result, ensure};
use clap::value_parser;
use pam_totp::record::Window;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

/// Steps of the window, one before and one after the present one; HOTP: so many counters ahead.
pub(crate) const WINDOW: u64 = 3;
/// What google-authenticator proposes against clocks that are off by up to four minutes.
const WIDE_WINDOW: u64 = 17;
/// Three tries in thirty seconds, what google-authenticator proposes: a person never notices, a program does.
const RATE_LIMIT: (u64, u64) = (3, 30);

/// The flags.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) device: new_device::Arguments,
    /// What the first device is called, in the root-only store (default: phone)
    #[arg(long = "device", value_name = "NAME")]
    pub(crate) device_name: Option<String>,
    /// Replace what is there; its codes stop working
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Write down that codes work once, the default (the module keeps to it in any case)
    #[arg(short, long, conflicts_with_all = ["allow_reuse", "counter_based"])]
    pub(crate) disallow_reuse: bool,
    /// Do not write it down
    #[arg(short = 'D', long, conflicts_with = "counter_based")]
    pub(crate) allow_reuse: bool,
    /// At most so many tries (1 to 10) ...
    #[arg(short, long, value_name = "N", value_parser = value_parser!(u64).range(1..=10), requires = "rate_time")]
    pub(crate) rate_limit: Option<u64>,
    /// ... in so many seconds (15 to 600)
    #[arg(short = 'R', long, value_name = "SECONDS", value_parser = value_parser!(u64).range(15..=600), requires = "rate_limit")]
    pub(crate) rate_time: Option<u64>,
    /// Any number of tries
    #[arg(short = 'u', long, conflicts_with = "rate_limit")]
    pub(crate) no_rate_limit: bool,
    /// The file (default: ~/.google_authenticator)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) secret: Option<PathBuf>,
    /// Codes accepted around now, or counters ahead (1 to 21, default 3)
    #[arg(short, long, value_name = "N", value_parser = value_parser!(u64).range(1..=21))]
    pub(crate) window_size: Option<u64>,
    /// A small window: 3 for codes by time, 1 for a counter
    #[arg(short = 'W', long, conflicts_with = "window_size")]
    pub(crate) minimal_window: bool,
    /// Number of scratch codes, or of recovery codes (0 to 10, default 5)
    #[arg(short, long, value_name = "N", value_parser = value_parser!(u64).range(0..=10))]
    pub(crate) emergency_codes: Option<u64>,
}

/// What was chosen.
pub(crate) struct Choices {
    pub(crate) disallow_reuse: bool,
    pub(crate) window: u64,
    /// Tries and seconds.
    pub(crate) rate_limit: Option<(u64, u64)>,
}

impl Arguments {
    /// By flags alone, with our defaults.
    pub(crate) fn choices(&self) -> Choices {
        Choices {
            disallow_reuse: !self.allow_reuse,
            window: self.window().unwrap_or(WINDOW),
            rate_limit: if self.no_rate_limit { None } else { Some(self.limit().unwrap_or(RATE_LIMIT)) },
        }
    }

    /// What google-authenticator asks before it shows anything.
    pub(crate) fn ask_for_kind(&self) -> Result<bool> {
        match (self.device.time_based, self.device.counter_based) {
            (true, _) => Ok(false),
            (_, true) => Ok(true),
            _ => Ok(!yes("Do you want authentication tokens to be time-based")?),
        }
    }

    /// What google-authenticator asks once the secret was shown. `None`: the file shall stay as it is.
    pub(crate) fn ask(&self, counter_based: bool, path: &Path) -> Result<Option<Choices>> {
        let question = format!("Do you want me to update your \"{}\" file?", path.display());
        if !self.force && !yes(&question)? {
            return Ok(None);
        }
        let disallow_reuse = counter_based
            || self.disallow_reuse
            || (!self.allow_reuse
                && yes("Do you want each code to work once, so that a code that somebody else has seen is of no use")?);
        let window = match self.window() {
            Some(window) => window,
            None if counter_based
                && yes("Do you want up to 17 codes that the device was pressed for in vain to be skipped")? =>
            {
                WIDE_WINDOW
            }
            None if !counter_based
                && yes(
                    "Do you want codes of up to four minutes before and after now to work, in place of half a minute",
                )? =>
            {
                WIDE_WINDOW
            }
            None => WINDOW,
        };
        let rate_limit = match self.limit() {
            limit @ Some(_) => limit,
            None if self.no_rate_limit => None,
            None => yes("Do you want no more than 3 tries every 30 seconds")?.then_some(RATE_LIMIT),
        };
        Ok(Some(Choices { disallow_reuse, window, rate_limit }))
    }

    /// A flag that is about what a file of the person's says, and the policy where there is none.
    pub(crate) fn about_files(&self) -> Option<&'static str> {
        let flags = [
            (self.secret.is_some(), "--secret"),
            (self.rate_limit.is_some(), "--rate-limit"),
            (self.no_rate_limit, "--no-rate-limit"),
            (self.window_size.is_some(), "--window-size"),
            (self.minimal_window, "--minimal-window"),
            (self.allow_reuse, "--allow-reuse"),
        ];
        flags.iter().find_map(|(is_given, flag)| is_given.then_some(*flag))
    }

    fn window(&self) -> Option<u64> {
        let minimal = if self.device.counter_based { 1 } else { Window::of_size(WINDOW).size() };
        self.window_size.or(self.minimal_window.then_some(minimal))
    }

    fn limit(&self) -> Option<(u64, u64)> {
        self.rate_limit.zip(self.rate_time)
    }
}

/// Asks until the answer is yes or no.
fn yes(question: &str) -> Result<bool> {
    loop {
        print!("\n{question} (y/n) ");
        io::stdout().flush()?;
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer).context("no answer")?;
        ensure!(read > 0, "no answer; nothing was stored");
        match answer.trim_start().chars().next() {
            Some('y' | 'Y') => return Ok(true),
            Some('n' | 'N') => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(line: &str) -> Arguments {
        Line::try_parse_from(format!("x {line}").split_whitespace()).ok().unwrap().arguments
    }

    #[test]
    fn flags_that_a_root_only_record_has_no_place_for_are_named() {
        for (line, flag) in [
            ("", None),
            ("--device x --emergency-codes 2 --digits 8 --disallow-reuse -f -C", None),
            ("-s file", Some("--secret")),
            ("-r 3 -R 30", Some("--rate-limit")),
            ("-u", Some("--no-rate-limit")),
            ("-w 17", Some("--window-size")),
            ("-W", Some("--minimal-window")),
            ("-D", Some("--allow-reuse")),
        ] {
            assert_eq!(arguments(line).about_files(), flag, "{line}");
        }
    }
}
