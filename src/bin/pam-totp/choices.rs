//! What somebody who enrols can choose: by flags, those of google-authenticator among them, or by answering its questions.

use crate::qr;
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
pub(crate) struct Arguments {
    /// Whom to enrol (default: yourself; only root enrols somebody else)
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The policy file (default: /etc/security/pam_totp.toml, if it is there)
    #[arg(long, value_name = "FILE")]
    pub(crate) conf: Option<PathBuf>,
    /// Print one JSON object; what a person has to read goes to standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// Store the secret without asking for a code first
    #[arg(short = 'C', long)]
    pub(crate) no_confirm: bool,
    /// Replace the secret that is there; its codes stop working
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Codes by time (TOTP, RFC 6238), the default
    #[arg(short, long, conflicts_with = "counter_based")]
    pub(crate) time_based: bool,
    /// Codes by a counter (HOTP, RFC 4226)
    #[arg(short, long)]
    pub(crate) counter_based: bool,
    /// Write down that codes work once, the default (the module keeps to it in any case)
    #[arg(short, long, conflicts_with_all = ["allow_reuse", "counter_based"])]
    pub(crate) disallow_reuse: bool,
    /// Do not write it down
    #[arg(short = 'D', long, conflicts_with = "counter_based")]
    pub(crate) allow_reuse: bool,
    /// The name of the account in the app (default: user@host)
    #[arg(short, long)]
    pub(crate) label: Option<String>,
    /// The name above it (default: the name of this host)
    #[arg(short, long)]
    pub(crate) issuer: Option<String>,
    /// Show neither QR code nor secret nor scratch codes, and do not ask for a code
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How the QR code is drawn
    #[arg(short = 'Q', long, value_name = "MODE", ignore_case = true)]
    pub(crate) qr_mode: Option<qr::Mode>,
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
    /// Seconds that a code lasts (1 to 60, default 30)
    #[arg(short = 'S', long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=60))]
    pub(crate) step_size: Option<u64>,
    /// Codes accepted around now, or counters ahead (1 to 21, default 3)
    #[arg(short, long, value_name = "N", value_parser = value_parser!(u64).range(1..=21))]
    pub(crate) window_size: Option<u64>,
    /// A small window: 3 for codes by time, 1 for a counter
    #[arg(short = 'W', long, conflicts_with = "window_size")]
    pub(crate) minimal_window: bool,
    /// Number of scratch codes (0 to 10, default 5)
    #[arg(short, long, value_name = "N", value_parser = value_parser!(u64).range(0..=10))]
    pub(crate) emergency_codes: Option<u64>,
}

/// What was chosen.
pub(crate) struct Choices {
    pub(crate) counter_based: bool,
    pub(crate) disallow_reuse: bool,
    pub(crate) window: u64,
    /// Tries and seconds.
    pub(crate) rate_limit: Option<(u64, u64)>,
}

impl Arguments {
    /// By flags alone, with our defaults.
    pub(crate) fn choices(&self) -> Choices {
        Choices {
            counter_based: self.counter_based,
            disallow_reuse: !self.allow_reuse,
            window: self.window().unwrap_or(WINDOW),
            rate_limit: if self.no_rate_limit { None } else { Some(self.limit().unwrap_or(RATE_LIMIT)) },
        }
    }

    /// What google-authenticator asks before it shows anything.
    pub(crate) fn ask_for_kind(&self) -> Result<bool> {
        match (self.time_based, self.counter_based) {
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
        Ok(Some(Choices { counter_based, disallow_reuse, window, rate_limit }))
    }

    fn window(&self) -> Option<u64> {
        let minimal = if self.counter_based { 1 } else { Window::of_size(WINDOW).size() };
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
