//! What the operator's log says about a login, in PAM and outside of it.

use crate::authenticate::Outcome;
use crate::fact::{Escaped, Fact};
use crate::system::passwd;

/// Who knocked, as the application has it.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'a> {
    /// For whom.
    pub user: &'a [u8],
    /// PAM_TTY.
    pub tty: &'a [u8],
    /// PAM_RUSER.
    pub ruser: &'a [u8],
    /// PAM_RHOST.
    pub rhost: &'a [u8],
}

/// A line: its priority in syslog(3), and its text.
pub type Line = (i32, String);

impl Visitor<'_> {
    /// One line on success, two on denial.
    pub fn lines(&self, outcome: &Outcome) -> Vec<Line> {
        let failure = matches!(outcome, Outcome::Denied(_)).then(|| self.failure());
        failure.into_iter().chain([self.reason(outcome)]).collect()
    }

    /// One line about one fact.
    pub fn line(&self, what: &str, key: &str, fact: &Fact) -> String {
        format!("{what} user={} rhost={} {key}={fact}", Escaped(self.user), Escaped(self.rhost))
    }

    /// The one line with the reason.
    pub fn reason(&self, outcome: &Outcome) -> Line {
        match outcome {
            Outcome::Accepted(fact) => (libc::LOG_INFO, self.line("accepted", "factor", fact)),
            Outcome::NotAsked(fact) => (libc::LOG_INFO, self.line("not asked", "reason", fact)),
            // Not the line that fail2ban counts: nobody has guessed anything.
            Outcome::Unavailable(fact) => (libc::LOG_ERR, self.line("unavailable", "reason", fact)),
            Outcome::Denied(fact) => (libc::LOG_NOTICE, self.line("denied", "reason", fact)),
        }
    }

    /// The classic line, which fail2ban and log readers know from pam_unix.
    pub fn failure(&self) -> Line {
        let (uid, euid) = passwd::process_uids();
        let line = format!(
            "authentication failure; logname= uid={uid} euid={euid} tty={} ruser={} rhost={}  user={}",
            Escaped(self.tty),
            Escaped(self.ruser),
            Escaped(self.rhost),
            Escaped(self.user),
        );
        (libc::LOG_NOTICE, line)
    }
}
