//! `pam-totp verify`: is this code right, and if not, why. It is used up by a login alone; here nothing of the person's is
//! changed. What a guess costs is the operator's own.

use crate::host::{self, Access, by_fact, ensure_root, service_name};
use crate::pam_config::{Stack, Type};
use crate::prompt;
use crate::root::Root;
use crate::throttle;
use anyhow::{Context, Result, anyhow, ensure};
use pam_totp::authenticate::{own_limit, rules};
use pam_totp::fact::Fact;
use pam_totp::gate;
use pam_totp::identity::Person;
use pam_totp::ledger::{self, Kept, Kind, Login, MAX_CONSECUTIVE, Refusal, Who};
use pam_totp::options::Options;
use pam_totp::otp::{Answer, Form};
use pam_totp::policy::throttle::Trigger;
use pam_totp::policy::values::Span;
use pam_totp::policy::{Document, Policy};
use pam_totp::source::Source;
use pam_totp::store::{Store, StoreError};
use pam_totp::system::clock;
use pam_totp::verify::{self as judge, Accepted, At, Denial, Explained, Explanation, Factor, Fit, Rules};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whose code it is
    #[arg(long, value_name = "USER")]
    user: String,
    /// Of an account that several people share: whoever holds this key (SHA256:..., or key-id:... of a certificate)
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// As at this service: by its table in the policy, and the arguments in its stack
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Say what the code is, and what stands in its way
    #[arg(long)]
    explain: bool,
    /// The policy file (default: that of the service, or /etc/security/pam_totp.toml, if it is there)
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// The keys of sealed records (default: /etc/security/pam_totp.keys, if it is there)
    #[arg(long, value_name = "FILE")]
    ring: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Success if the code is right.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure_root("see whether a code of somebody's is right")?;
    let policy = policy(arguments)?;
    let account = host::person(Some(&arguments.user))?;
    let person = arguments.key.as_ref().map_or_else(|| Ok(account.clone()), |key| host::holder(&account, key))?;
    let answer = prompt::ask("Code: ", false)?.context("no code was given")?;
    let answer = Answer::new(answer, Form::Code, policy.google.value);
    let access = Access::new(&policy, arguments.ring.as_deref())?;
    let told =
        Question { policy: &policy, access: &access, account: &account, person: &person, answer: &answer }.told()?;
    match (arguments.json, arguments.explain) {
        (true, explain) => say!("{}", told.object(&person, explain)),
        (false, false) => say!("{}", told.word()),
        (false, true) => say!("{}", told.lines(&person).join("\n")),
    }
    Ok(if told.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What holds at the service: its stack may have arguments of its own.
fn policy(arguments: &Arguments) -> Result<Policy> {
    let service = arguments.service.as_deref().map(service_name).transpose()?.unwrap_or_default();
    let options = if service.is_empty() { Options::default() } else { options(&service)? };
    ensure!(
        options.user.is_none(),
        "`{service}` has user=, and so no people of its own: their codes cannot be judged here"
    );
    let conf = arguments.conf.as_ref().map(|path| path.as_os_str().as_bytes()).or(options.conf.as_deref());
    Ok(Policy::new(&service, &options, &Document::load(conf).map_err(by_fact)?))
}

fn options(service: &str) -> Result<Options> {
    let root = Root::open(Path::new("/")).map_err(|error| anyhow!("/ {error}"))?;
    let stack = Stack::read(&root, service, Type::Auth);
    let rules = stack.rules();
    let Some(rule) = rules.into_iter().find(|rule| rule.is_ours()) else { return Ok(Options::default()) };
    let options = Options::parse(rule.arguments.iter().map(Vec::as_slice));
    options.map_err(|bad| anyhow!("{}: {}", rule.place, bad.fact()))
}

/// Somebody's code, as an operator has it.
struct Question<'a> {
    policy: &'a Policy,
    access: &'a Access,
    account: &'a Person,
    person: &'a Person,
    answer: &'a Answer,
}

/// What is said about it.
#[derive(Default)]
struct Told {
    /// By the person's record.
    explanation: Option<Explanation>,
    /// Why there is none.
    unjudged: Option<Fact>,
    /// Other people of the account whose code it is.
    others: Vec<(Person, Vec<Fit>)>,
    blocks: Vec<Block>,
}

/// What is in the person's way, whatever their code.
enum Block {
    /// 100 failures in a row.
    Disabled,
    /// A rule, for so many seconds.
    Throttled { kind: Kind, limit: Trigger, left: u64 },
}

/// The ledger, where there is one.
type Counted<'a> = Option<Box<dyn Kept + 'a>>;

impl Question<'_> {
    /// Paid for by the operator before it is judged: there is no guessing here that a login has not.
    fn told(&self) -> Result<Told> {
        let ledger = self.ledger()?;
        let operator = host::operator()?;
        let source = Source::Local(operator.uid());
        let login = Login {
            who: Who::of(&operator),
            source: &source,
            service: &self.policy.service,
            throttle: self.policy.throttle.as_ref(),
            own_limit: None,
        };
        if self.answer.check().is_err() {
            ledger.iter().for_each(|ledger| ledger.charge_source(&login));
            let fact = Fact::new("not-a-code").or("a code has 6 to 8 digits, a recovery code 24 letters and digits");
            return Ok(Told { unjudged: Some(fact), ..Told::default() });
        }
        // Before that: the operator may be the person.
        let blocks = self.blocks(&ledger)?;
        let charge = match ledger.as_ref().map(|ledger| ledger.charge(&login)).transpose() {
            Ok(charge) => charge,
            Err(refusal) => return Ok(Told { unjudged: Some(refused(refusal)), ..Told::default() }),
        };
        let told = Told { blocks, ..self.judged(ledger.is_some()) };
        match (&ledger, charge) {
            // Its own charge, and nothing else: nobody has logged in.
            (Some(ledger), Some(receipt)) if told.is_right() => ledger.take_back(&login, receipt),
            (Some(ledger), Some(receipt)) => ledger.keep(&login, receipt),
            _ => {}
        }
        Ok(told)
    }

    fn ledger(&self) -> Result<Counted<'_>> {
        if self.policy.throttle.is_none() {
            return Ok(None);
        }
        self.access.ledger(self.policy).map(Some)
    }

    fn judged(&self, is_counted: bool) -> Told {
        let is_counted = is_counted && !self.is_at_the_gate() && !self.policy.google.value;
        let rules = Rules { is_counted, ..rules(self.policy, "") };
        let store = self.access.store(self.policy);
        let explain = |person: &Person| {
            store.load(person).map(|record| judge::explain(&record, &rules, self.answer, clock::now()))
        };
        let (explanation, unjudged) = match explain(self.person) {
            Ok(explanation) => (Some(explanation), None),
            Err(error) => (None, Some(unjudged(&*store, self.person, error))),
        };
        let others = self.others().into_iter().filter_map(|other| {
            let fits = explain(&other).ok()?.fits;
            (!fits.is_empty()).then_some((other, fits))
        });
        Told { explanation, unjudged, others: others.collect(), blocks: Vec::new() }
    }

    /// The other people of an account that is shared.
    fn others(&self) -> Vec<Person> {
        if !self.policy.store.value.is_roots() {
            return Vec::new();
        }
        let people = self.access.roster(self.policy).ok().and_then(|roster| roster.people().ok()).unwrap_or_default();
        let of_account = people.into_iter().filter(|named| named.name == self.account.name());
        let others = of_account.filter(|named| named.key.as_deref() != self.person.key());
        others
            .filter_map(|named| named.key.map_or_else(|| Some(self.account.clone()), |key| self.account.holder(&key)))
            .collect()
    }

    /// Whether a process of the person's own would judge the code, which has no ledger.
    fn is_at_the_gate(&self) -> bool {
        self.policy.service == gate::SERVICE && self.person.uid() != 0
    }

    fn blocks(&self, ledger: &Counted<'_>) -> Result<Vec<Block>> {
        let (Some(ledger), Some(throttle)) = (ledger, self.policy.throttle.as_ref()) else { return Ok(Vec::new()) };
        if self.is_at_the_gate() {
            return Ok(Vec::new());
        }
        // As a login has it, where the record's own count is not what counts.
        let record =
            if self.policy.google.value { None } else { self.access.store(self.policy).load(self.person).ok() };
        let own_limit = record.as_ref().and_then(own_limit);
        let rows =
            ledger.list(Some(throttle)).map_err(by_fact)?.into_iter().filter(|row| row.is_about(&self.person.named()));
        let block = |row: ledger::Listed| match row.kind {
            Kind::InARow => (row.failures >= MAX_CONSECUTIVE).then_some(Block::Disabled),
            kind => {
                let (limit, left) = throttle::reached(throttle, &row, &self.policy.service, own_limit)?;
                Some(Block::Throttled { kind, limit, left })
            }
        };
        Ok(rows.filter_map(block).collect())
    }
}

/// Why nobody's code can be judged.
fn unjudged(store: &dyn Store, person: &Person, error: StoreError) -> Fact {
    match error {
        StoreError::NotEnrolled(_) if store.never_enrolled(person) == Ok(true) => {
            Fact::new("no-device").or("not enrolled: pam-totp enrol --user NAME, or pam-totp invite NAME")
        }
        error => error.into_fact(),
    }
}

/// The operator's own budget is spent.
fn refused(refusal: Refusal) -> Fact {
    let way_out = "your own guesses here, by pam-totp verify and at logins, are counted as at a login: wait, or pam-totp throttle \
                   unlock for yourself";
    match refusal {
        Refusal::Person(limit) => {
            Fact::new("throttled").with("by", "user").with("limit", limit.to_string()).or(way_out)
        }
        Refusal::Source(limit) => {
            Fact::new("throttled").with("by", "host").with("limit", limit.to_string()).or(way_out)
        }
        Refusal::Disabled => Fact::new("throttled").with("by", "in-a-row").or(way_out),
        Refusal::Unwritable => Fact::new("ledger-error").or("the ledger in state_dir cannot be written"),
        Refusal::Unreachable(fact) => fact,
    }
}

// ---- What is shown ----

impl Told {
    /// As a login would say, wherever it came from.
    fn is_right(&self) -> bool {
        self.blocks.is_empty() && self.explanation.as_ref().is_some_and(Explanation::is_right)
    }

    fn word(&self) -> String {
        match &self.unjudged {
            _ if self.is_right() => "right".to_owned(),
            Some(fact) if fact.word() == "throttled" => format!("refused: {fact}"),
            _ => "refused".to_owned(),
        }
    }

    fn lines(&self, person: &Person) -> Vec<String> {
        let user = String::from_utf8_lossy(person.name()).into_owned();
        let mut lines = Vec::new();
        match (&self.explanation, &self.unjudged) {
            (Some(explanation), _) if self.is_right() => lines.push(format!("right: {}", code(explanation, &user))),
            (Some(explanation), _) if explanation.is_right() => {
                lines.push(format!("refused, though the code is right: {}", code(explanation, &user)));
            }
            (Some(explanation), _) => lines.push(format!("refused: {}", code(explanation, &user))),
            (None, Some(fact)) => lines.push(format!("refused: {fact}")),
            (None, None) => {}
        }
        for (other, fits) in &self.others {
            let which: Vec<_> = fits.iter().map(|fit| format!("{}, {}", device(&fit.device), place(fit.at))).collect();
            lines.push(format!(
                "it is a code of somebody else of the account, {}: {}",
                host::title(other),
                which.join("; ")
            ));
        }
        lines.extend(self.blocks.iter().map(|block| block.line(&user)));
        lines
    }

    fn object(&self, person: &Person, explain: bool) -> serde_json::Value {
        let mut object = serde_json::json!({
            "user": String::from_utf8_lossy(person.name()),
            "result": if self.is_right() { "right" } else { "refused" },
        });
        let Some(map) = object.as_object_mut() else { return object };
        map.extend(person.key().map(|key| ("key".to_owned(), key.into())));
        let throttled = self.unjudged.as_ref().filter(|fact| fact.word() == "throttled");
        if let Some(reason) = throttled.map(Fact::word).or(self.reason()).filter(|_| explain || throttled.is_some()) {
            map.insert("reason".to_owned(), reason.into());
        }
        if explain {
            let fits = self.explanation.iter().flat_map(|explanation| &explanation.fits);
            let others =
                self.others.iter().flat_map(|(other, fits)| fits.iter().map(|fit| fit_object(fit, other.key())));
            map.insert("fits".to_owned(), fits.map(|fit| fit_object(fit, person.key())).collect());
            map.insert("fits_of_others".to_owned(), others.collect());
            map.insert("blocks".to_owned(), self.blocks.iter().map(Block::object).collect());
            map.insert("explanation".to_owned(), self.lines(person).into());
        }
        object
    }

    /// What is wrong with the code itself, in a word that a log has too.
    fn reason(&self) -> Option<&'static str> {
        let Some(explanation) = &self.explanation else { return self.unjudged.as_ref().map(Fact::word) };
        match (&explanation.judged, &explanation.spent) {
            (Explained::Refused(denial), _) | (Explained::Right(_), Some(denial)) => Some(denial.fact().word()),
            (Explained::Right(_), None) => None,
        }
    }
}

impl Block {
    fn line(&self, user: &str) -> String {
        let way_out = format!("pam-totp throttle unlock --user {user}");
        match self {
            Self::Disabled => {
                format!(
                    "disabled: {MAX_CONSECUTIVE} codes in a row were wrong, and none counts any more until: {way_out}"
                )
            }
            Self::Throttled { kind, limit, left } => {
                let from = match kind {
                    Kind::Known => "from where they have got in lately",
                    _ => "from where they have not got in lately",
                };
                let until = clock::utc(clock::now().saturating_add(*left));
                format!("throttled: by=user limit={limit}, {from}, until {until} (in {}), or: {way_out}", Span(*left))
            }
        }
    }

    fn object(&self) -> serde_json::Value {
        match self {
            Self::Disabled => serde_json::json!({ "by": "in-a-row" }),
            Self::Throttled { kind, limit, left } => {
                serde_json::json!({ "by": "user", "counted": kind.name(), "limit": limit.to_string(), "seconds": left })
            }
        }
    }
}

fn fit_object(fit: &Fit, key: Option<&str>) -> serde_json::Value {
    let (steps, seconds, counters) = match fit.at {
        At::Step { from_now, period } => (Some(from_now), Some(seconds(from_now, period)), None),
        At::Counter { ahead } => (None, None, Some(ahead)),
    };
    serde_json::json!({
        "device": fit.device,
        "key": key,
        "steps": steps,
        "seconds": seconds,
        "counters": counters,
        "used": fit.is_used,
        "in_window": fit.is_in_window,
    })
}

/// What the code is, by the person's record.
fn code(explanation: &Explanation, user: &str) -> String {
    let text = match &explanation.judged {
        Explained::Right(accepted) => right(accepted),
        Explained::Refused(denial) => wrong(denial, &explanation.fits, user),
    };
    match &explanation.spent {
        Some(denial) => format!("{}, RATE_LIMIT of the record; the code itself: {text}", denial.fact()),
        None => text,
    }
}

fn right(accepted: &Accepted) -> String {
    let name = device(&accepted.device);
    match accepted.factor {
        Factor::Totp { ahead, steps } => {
            let steps = i64::try_from(steps).unwrap_or(i64::MAX);
            format!("{name}, {}", in_steps(if ahead { steps } else { steps.saturating_neg() }))
        }
        Factor::Hotp { skipped: 0 } => format!("{name}, the next counter"),
        Factor::Hotp { skipped } => format!("{name}, ahead by {}", count(skipped, "counter")),
        Factor::Scratch { left } | Factor::Recovery { left } => {
            format!("a recovery code, with {left} left once it is used")
        }
    }
}

fn wrong(denial: &Denial, fits: &[Fit], user: &str) -> String {
    let resync = format!("pam-totp resync --user {user}");
    match (denial, nearest(fits)) {
        (Denial::UsedCode, Some(fit)) => {
            format!("used already (accepted for this step or a later one): {}, {}", device(&fit.device), place(fit.at))
        }
        (Denial::WrongCode { .. } | Denial::WrongTime, Some(fit)) => match fit.at {
            At::Step { from_now, .. } if fit.is_used => format!(
                "used already (accepted for that step or a later one): {}, {}: wait for the next code, and if that is refused too: \
                 {resync}",
                device(&fit.device),
                in_steps(from_now)
            ),
            At::Step { from_now, period } => {
                let side = if from_now < 0 { "behind" } else { "ahead" };
                format!(
                    "right at a skew of {}: the clock of {} is {} s {side}; set it, or: {resync}",
                    in_steps(from_now),
                    device(&fit.device),
                    seconds(from_now, period).unsigned_abs()
                )
            }
            At::Counter { ahead } if fit.is_used => format!(
                "used already, or passed over: {}, {} back",
                device(&fit.device),
                count(ahead.unsigned_abs(), "counter")
            ),
            At::Counter { ahead } => format!(
                "{} is ahead by {}, more than are looked at: {resync}",
                device(&fit.device),
                count(ahead.unsigned_abs(), "counter")
            ),
        },
        (Denial::WrongCode { .. }, None) => {
            "wrong-code: no code of theirs within 12 hours or a thousand counters of now, and no recovery code that is left; of one \
             that was used nothing is kept"
                .to_owned()
        }
        (denial, _) => denial.fact().to_string(),
    }
}

/// Of several devices the one that it is of most likely: a code that is far off may be one by chance.
fn nearest(fits: &[Fit]) -> Option<&Fit> {
    fits.iter().min_by_key(|fit| match fit.at {
        At::Step { from_now, .. } => (!fit.is_in_window, from_now.unsigned_abs()),
        At::Counter { ahead } => (!fit.is_in_window, ahead.unsigned_abs()),
    })
}

fn device(name: &str) -> String {
    if name.is_empty() { "the file's device".to_owned() } else { format!("device {name}") }
}

fn place(at: At) -> String {
    match at {
        At::Step { from_now, .. } => in_steps(from_now),
        At::Counter { ahead } if ahead < 0 => format!("{} back", count(ahead.unsigned_abs(), "counter")),
        At::Counter { ahead } => format!("ahead by {}", count(ahead.unsigned_abs(), "counter")),
    }
}

fn in_steps(steps: i64) -> String {
    format!("{steps:+} step{}", if steps.unsigned_abs() == 1 { "" } else { "s" })
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn seconds(steps: i64, period: u64) -> i64 {
    steps.saturating_mul(i64::try_from(period).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(at: At, is_used: bool) -> Fit {
        Fit { device: "phone".to_owned(), at, is_used, is_in_window: false }
    }

    #[test]
    fn a_wrong_code_is_told_by_what_it_is() {
        let wrong_code = Denial::WrongCode { moved_from: None };
        let step = |from_now| At::Step { from_now, period: 30 };
        for (denial, fits, expected) in [
            (
                &wrong_code,
                vec![fit(step(-5), false)],
                "right at a skew of -5 steps: the clock of device phone is 150 s behind; set it, or: pam-totp resync --user alice",
            ),
            (
                &Denial::UsedCode,
                vec![fit(step(0), true)],
                "used already (accepted for this step or a later one): device phone, +0 steps",
            ),
            (
                &wrong_code,
                vec![fit(At::Counter { ahead: 37 }, false)],
                "device phone is ahead by 37 counters, more than are looked at: pam-totp resync --user alice",
            ),
            (
                &wrong_code,
                vec![fit(At::Counter { ahead: -1 }, true)],
                "used already, or passed over: device phone, 1 counter back",
            ),
        ] {
            assert_eq!(wrong(denial, &fits, "alice"), expected);
        }
        assert!(wrong(&wrong_code, &[], "alice").starts_with("wrong-code: no code of theirs within 12 hours"));
        assert!(wrong(&Denial::NoDevice, &[], "alice").starts_with("no-device"));
    }

    #[test]
    fn of_two_devices_the_nearer_is_told() {
        let far = fit(At::Step { from_now: 900, period: 30 }, false);
        let near = Fit { device: "tablet".to_owned(), ..fit(At::Step { from_now: -3, period: 30 }, false) };
        assert_eq!(nearest(&[far, near]).map(|fit| fit.device.as_str()), Some("tablet"));
    }

    #[test]
    fn a_right_code_says_where_it_stands() {
        let accepted = |factor| Accepted { factor, length: 6, device: "phone".to_owned() };
        assert_eq!(right(&accepted(Factor::Totp { ahead: true, steps: 1 })), "device phone, +1 step");
        assert_eq!(right(&accepted(Factor::Totp { ahead: false, steps: 2 })), "device phone, -2 steps");
        assert_eq!(right(&accepted(Factor::Hotp { skipped: 3 })), "device phone, ahead by 3 counters");
        assert_eq!(
            right(&Accepted { factor: Factor::Scratch { left: 4 }, length: 8, device: String::new() }),
            "a recovery code, with 4 left once it is used"
        );
    }
}
