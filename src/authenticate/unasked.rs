//! Who is not asked: by exemption, for want of a device, or because they were here a while ago.

use super::asked::Judged;
use super::{Counter, Done, Login, Outcome, Pending, Step, lines_period};
use crate::fact::Fact;
use crate::identity::{Person, login_key};
use crate::ledger::{EARLIEST, Grace};
use crate::otp::Answer;
use crate::policy::exempt::{self, Visitor};
use crate::policy::{EnrolmentKind, Identity};
use crate::record::Record;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::verify::{self, Verdict};
use std::borrow::Cow;

impl<'a, N: Fn() -> u64> Login<'a, N> {
    /// An exemption that is not over. One that is over is void, and the log says so.
    pub(super) fn exempt(&mut self) -> Option<Outcome> {
        let person = self.looked_at();
        let (name, gid) = (person.name(), gid(&person));
        let visitor = Visitor { name, gid, service: &self.policy.service, source: self.visit.source };
        for exemption in &self.policy.exemptions {
            if !exemption.is_about(&visitor, &self.policy.shared_sources) || self.visit.person.is_err() {
                continue;
            }
            if self.latest_time() >= exemption.until.over {
                self.void_exemption = Some(exemption.until.to_string());
                continue;
            }
            let fact = Fact::new("exempt").with("until", exemption.until.to_string()).with("for", &exemption.reason);
            return Some(match exemption.result {
                exempt::Answer::Ignore => Outcome::NotAsked(fact),
                exempt::Answer::Success => Outcome::Accepted(fact),
            });
        }
        None
    }

    /// Why somebody without a device is let pass. Whoever has one, or ever had one, is asked, and so is everybody where the
    /// store does not know.
    pub(super) fn passes_without_a_device(&self) -> Option<Fact> {
        let person = self.looked_at();
        let enrolment = self.policy.enrolment.value;
        let reason = match enrolment.optional_until {
            _ if !self.needs_a_code(&person) => {
                Fact::new("not-required").or("in none of the groups that [require] names")
            }
            _ if self.policy.options.nullok => Fact::new("not-enrolled").or("nullok"),
            _ if enrolment.kind == EnrolmentKind::Optional => Fact::new("not-enrolled").or("enrolment is optional"),
            Some(end) if self.latest_time() < end.over => {
                Fact::new("not-enrolled").with("until", end.to_string()).or("enrolment is optional until then")
            }
            _ => return None,
        };
        if self.visit.person.is_err() {
            // As at who has a device.
            let _ = self.store.has_record(&person);
            return None;
        }
        (self.told(self.store.never_enrolled(&person)) == Some(true)).then_some(reason)
    }

    /// What the store says of somebody without a device. `None`: it cannot tell, and the log will say why.
    pub(super) fn told(&self, said: Result<bool, StoreError>) -> Option<bool> {
        said.map_err(|error| {
            self.doubt.borrow_mut().get_or_insert_with(|| error.into_fact());
        })
        .ok()
    }

    /// Whether somebody is in one of the groups that need a code, where there are such.
    pub(super) fn needs_a_code(&self, person: &Person) -> bool {
        self.policy.require.as_ref().is_none_or(|require| require.needs_a_code(person.name(), gid(person)))
    }

    /// The present, or the latest time that this host's clock ever showed: a clock that was set back opens nothing again.
    /// Where the ledger does not work, everything is over.
    pub(super) fn latest_time(&self) -> u64 {
        match self.counter {
            Counter::Ledger(ledger) => ledger.latest_wall(),
            Counter::Nothing => (self.now)().max(EARLIEST),
            Counter::Broken(_) => u64::MAX,
        }
    }

    /// Whether there was a login from here lately. A record that cannot be read gives nobody grace.
    pub(super) fn has_grace(&mut self) -> bool {
        let lines = lines_period(self.policy);
        if lines > 0 {
            let has_grace = |record: &Record| verify::has_grace(record, self.visit.host, lines, (self.now)());
            return !self.visit.host.is_empty() && self.loaded().is_some_and(|record| has_grace(&record));
        }
        let Counter::Ledger(ledger) = self.counter else { return false };
        let is_here = self.policy.may_have_grace(self.visit.source);
        let is_behind =
            self.policy.may_have_grace_behind(self.visit.source) && login_key::is_accepted(self.visit.login_key);
        if !is_here && !is_behind {
            return false;
        }
        self.record = self.loaded();
        self.grace().is_some_and(|(period, factors)| {
            let factors = factors.expose();
            let here = Grace { period, circumstances: self.circumstances(), factors, is_elsewhere: false };
            let elsewhere = Grace { circumstances: self.visit.login_key, is_elsewhere: true, ..here };
            is_here && ledger.has_grace(&self.counted(), &here)
                || is_behind && ledger.has_grace(&self.counted(), &elsewhere)
        })
    }

    /// What else has to be the same for grace: the key, or where the code is the caller's, whom they become.
    pub(super) fn circumstances(&self) -> &[u8] {
        match self.policy.identity.value {
            Identity::Caller => self.visit.name,
            Identity::PamUser | Identity::LoginKey => self.visit.login_key,
        }
    }

    /// How long the policy's grace lasts, and with which secret.
    pub(super) fn grace(&self) -> Option<(u64, Secret<Vec<u8>>)> {
        Some((self.policy.grace.value, self.record.as_ref()?.factors()?))
    }

    /// With `forward_pass` the password is asked for all the same, and a code may be typed behind it.
    pub(super) fn with_grace(&self) -> Step {
        if self.policy.options.forward_pass {
            Pending::Grace.into()
        } else {
            Outcome::Accepted(Fact::new("grace")).into()
        }
    }

    pub(super) fn with_password(&mut self, answer: &Answer) -> Step {
        let password = match self.judged(Some(answer)) {
            Ok(Judged { verdict: Verdict::Accepted(accepted), .. }) => answer.before(accepted.length),
            _ => Secret::new(answer.whole().expose().clone()),
        };
        Step::Done(Done { outcome: Outcome::Accepted(Fact::new("grace")), password: Some(password), by: None })
    }

    pub(super) fn is_throttled(&self) -> bool {
        self.loaded().is_some_and(|record| verify::is_throttled(&record, (self.now)()))
    }

    /// The record, if there is one that can be read.
    pub(super) fn loaded(&self) -> Option<Record> {
        let loaded = self.store.load(&self.looked_at());
        loaded.ok().filter(|_| self.visit.person.is_ok())
    }

    /// Whoever logs in, or for a name that is nobody's somebody who has nothing: what comes of a look at them is thrown away.
    pub(super) fn looked_at(&self) -> Cow<'a, Person> {
        self.visit.person.map_or_else(|_| Cow::Owned(Person::nobody()), Cow::Borrowed)
    }
}

/// The primary group of somebody who is in the user database.
fn gid(person: &Person) -> Option<u32> {
    (!person.is_virtual()).then(|| person.gid())
}
