//! A login without PAM: whoever runs this process is asked, and nobody else.
//!
//! For a command that sshd runs in the place of what somebody wanted (`ForceCommand`). The story is that of every login;
//! what differs is what an unprivileged process can do: there is no ledger, so guesses are counted in the person's file,
//! whether it has a `RATE_LIMIT` line or not.

use crate::authenticate::{Application, Counter, Outcome, Visit, authenticate};
use crate::fact::Fact;
use crate::identity::{self, Person, identify};
use crate::journal::Visitor;
use crate::options::Options;
use crate::policy::{Document, Policy};
use crate::record::{RateLimit, Record};
use crate::source::Source;
use crate::store::{self, Admission, Attempt, Bill, Change, Store, StoreError};
use crate::system::passwd::{self, Account};
use crate::system::{clock, process, syslog};
use crate::verify::Charge;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;

/// The service whose table in the policy holds.
pub const SERVICE: &str = "gate";
/// What the log has in front, as of a module at that service.
const FRONT: &std::ffi::CStr = c"pam_totp(gate:auth)";
/// Tries and seconds of a file that sets no limit: what `pam-totp enrol` writes.
const LIMIT: (usize, u64) = (3, 30);

/// The gate, and who stands before it.
pub struct Gate {
    account: Account,
    policy: Policy,
    host: String,
}

impl Gate {
    /// Reads who runs this process, and what holds for them. `connection` is what sshd says about the connection
    /// (SSH_CONNECTION), empty outside of sshd; `grace_period` as the module's argument.
    ///
    /// # Errors
    /// Why nobody can be asked. It is in the log.
    pub fn new(conf: Option<&[u8]>, grace_period: u64, connection: &str) -> Result<Self, Fact> {
        let host = host(connection).unwrap_or_default().to_owned();
        let account = account().inspect_err(|fact| log_refusal(b"", &host, fact))?;
        match policy(conf, grace_period) {
            Ok(policy) => Ok(Self { account, policy, host }),
            Err(fact) => {
                log_refusal(&account.name, &host, &fact);
                Err(fact)
            }
        }
    }

    /// Whoever runs this process.
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// Seconds to wait after a denial.
    pub const fn fail_delay(&self) -> u64 {
        self.policy.fail_delay.value
    }

    /// Asks for a code and judges it. The caller has it logged by [`Gate::log`].
    pub fn attempt(&self, application: &mut impl Application) -> Outcome {
        let (name, policy) = (&self.account.name, &self.policy);
        let person = identify(name, policy, b"", identity::caller);
        let source = Source::new(self.host.as_bytes(), self.account.uid);
        let visit = Visit {
            person: person.as_ref().map_err(|&error| error),
            name,
            host: &self.host,
            source: &source,
            login_key: b"",
            is_silent: false,
        };
        let (counter, remark) = Counter::of(policy);
        let store = Limited { store: store::of(policy), is_needed: matches!(counter, Counter::Nothing) };
        authenticate(&visit, policy, application, &store, &counter, clock::now).with_remark(remark)
    }

    /// Writes to the log how it ended.
    pub fn log(&self, outcome: &Outcome) {
        let lines = self.visitor().lines(outcome);
        lines.iter().for_each(|(priority, line)| syslog::write(FRONT, *priority, line));
    }

    /// Writes to the log that somebody was sent away unasked.
    pub fn log_refusal(&self, fact: &Fact) {
        log_refusal(&self.account.name, &self.host, fact);
    }

    fn visitor(&self) -> Visitor<'_> {
        visitor(&self.account.name, &self.host)
    }
}

fn visitor<'a>(user: &'a [u8], host: &'a str) -> Visitor<'a> {
    let tty: &[u8] = if host.is_empty() { b"" } else { b"ssh" };
    Visitor { user, tty, ruser: b"", rhost: host.as_bytes() }
}

/// Nobody has guessed anything: another word than that which fail2ban counts.
fn log_refusal(user: &[u8], host: &str, fact: &Fact) {
    syslog::write(FRONT, libc::LOG_NOTICE, &visitor(user, host).line("refused", "reason", fact));
}

/// By the real uid: names in the environment are whatever somebody wrote there.
fn account() -> Result<Account, Fact> {
    if process::has_borrowed_rights() {
        return Err(Fact::new("borrowed-rights")
            .or("the gate must not be setuid, setgid or have file capabilities: whoever passes it has its rights"));
    }
    let account = passwd::by_uid(passwd::process_uids().0);
    account
        .map_err(|error| Fact::new("user-database").with_error(error))?
        .ok_or_else(|| Fact::new("unknown-user").with_number("uid", passwd::process_uids().0))
}

fn policy(conf: Option<&[u8]>, grace_period: u64) -> Result<Policy, Fact> {
    let document = Document::load(conf)?;
    let policy = Policy::new(SERVICE, &Options { grace_period, ..Options::default() }, &document);
    if policy.store.value.is_roots() && passwd::process_uids().1 != 0 {
        return Err(Fact::new("root-only-store").or(
            "nobody but root reads the records of store = \"system\" or \"fleet\", and the gate runs as who logs in: let sshd ask PAM \
             instead (UsePAM yes)",
        ));
    }
    Ok(policy)
}

/// The address in what sshd says: client's address and port, our address and port.
fn host(connection: &str) -> Option<&str> {
    let host = connection.split(' ').next()?;
    let (address, zone) = host.split_once('%').unwrap_or((host, ""));
    let is_plain = |zone: &str| zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    (address.parse::<IpAddr>().is_ok() && is_plain(zone)).then_some(host)
}

/// A store whose records all have a limit, where nothing else counts guesses.
struct Limited<'a> {
    store: Rc<dyn Store + 'a>,
    is_needed: bool,
}

impl Store for Limited<'_> {
    fn attempt<'c>(
        &self,
        person: &Person,
        charge: &dyn Fn(&Record) -> Charge<'c>,
        bill: Option<&Bill>,
    ) -> Result<Attempt, StoreError> {
        let limited = |record: &Record| match &record.rate_limit {
            Ok(None) if self.is_needed => {
                let (tries, seconds) = LIMIT;
                let limit = RateLimit { tries, seconds, charged: Vec::new() };
                charge(&Record { rate_limit: Ok(Some(limit)), ..record.clone() })
            }
            _ => charge(record),
        };
        self.store.attempt(person, &limited, bill)
    }

    fn load(&self, person: &Person) -> Result<Record, StoreError> {
        self.store.load(person)
    }

    fn has_record(&self, person: &Person) -> Result<bool, StoreError> {
        self.store.has_record(person)
    }

    fn never_enrolled(&self, person: &Person) -> Result<bool, StoreError> {
        self.store.never_enrolled(person)
    }

    fn path(&self, person: &Person) -> Result<PathBuf, Fact> {
        self.store.path(person)
    }

    fn enrol(&self, person: &Person, record: &Record, replace: bool) -> Result<(), StoreError> {
        self.store.enrol(person, record, replace)
    }

    fn change(&self, person: &Person, change: Change) -> Result<(), StoreError> {
        self.store.change(person, change)
    }

    fn remove(&self, person: &Person) -> Result<bool, StoreError> {
        self.store.remove(person)
    }

    fn release(&self, person: &Person) -> Result<bool, StoreError> {
        self.store.release(person)
    }

    fn admission(&self) -> Option<&dyn Admission> {
        self.store.admission()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_they_come_from_is_an_address_or_nothing() {
        for (connection, expected) in [
            ("192.0.2.7 50000 198.51.100.1 22", Some("192.0.2.7")),
            ("2001:db8::7 50000 2001:db8::1 22", Some("2001:db8::7")),
            ("fe80::1%eth0 50000 fe80::2%eth0 22", Some("fe80::1%eth0")),
            ("fe80::1%a\nb 1 2 3", None),
            ("UNKNOWN 65535 UNKNOWN 65535", None),
            ("192.0.2.7\n 1 2 3", None),
            ("bastion 1 2 3", None),
            ("", None),
        ] {
            assert_eq!(host(connection), expected, "{connection:?}");
        }
    }
}
