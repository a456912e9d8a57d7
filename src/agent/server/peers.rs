//! Whom the agent believes what.
//!
//! | who asks | is believed |
//! |---|---|
//! | root | everything: it could read the records itself |
//! | a `[[trusted_caller]]` | whose code it is, of people in its groups, at its services; the code |
//! | anybody else | the code, of theirs |
//! | uid 65534 | nothing: whoever has no uid on this machine (a user namespace) has that one |
//!
//! Of who is not root the source is their uid, and there is no enrolment, no grace and no exemption for what they ask.

use super::super::wire::Knock;
use crate::fact::Fact;
use crate::identity::{NOBODY, Person, Unidentified};
use crate::options::Options;
use crate::policy::{Document, Enrolment, EnrolmentKind, Origin, Policy, Setting};
use crate::system::passwd;

/// The service of who asks for themselves.
pub(super) const LOCAL: &str = "local";

/// A request as far as it is believed.
pub(super) struct Admitted {
    pub(super) knock: Knock,
    pub(super) policy: Policy,
    /// Whether they may ask about this person. Who may not is asked all the same.
    pub(super) is_theirs: bool,
}

impl Admitted {
    /// What is believed of this.
    pub(super) fn new(peer: u32, knock: &Knock, conf: Option<&[u8]>) -> Result<Self, Fact> {
        let options = Options::parse(knock.arguments.iter().map(Vec::as_slice)).map_err(|bad| bad.fact())?;
        let admitted = match peer {
            0 => Self::of_root(knock, &options, conf),
            NOBODY => Err(refused("unmapped")),
            _ => Self::of_somebody(peer, knock, &options, conf),
        }?;
        if admitted.policy.store.value.is_roots() { Ok(admitted) } else { Err(not_for_the_agent()) }
    }

    fn of_root(knock: &Knock, options: &Options, conf: Option<&[u8]>) -> Result<Self, Fact> {
        let document = Document::load(options.conf.as_deref().or(conf))?;
        let policy = Policy::new(&String::from_utf8_lossy(&knock.service), options, &document);
        Ok(Self { knock: knock.clone(), policy, is_theirs: true })
    }

    fn of_somebody(peer: u32, knock: &Knock, options: &Options, conf: Option<&[u8]>) -> Result<Self, Fact> {
        let document = Document::load(conf)?;
        let (service, is_theirs) = service(peer, knock, &document)?;
        // How somebody is asked, and nothing that would spare them that.
        let Options { first_pass, forward_pass, echo, prompt, .. } = options.clone();
        let options = Options { first_pass, forward_pass, echo, prompt, ..Options::default() };
        let policy = without_favours(Policy::new(&service, &options, &document));
        let knock = Knock {
            service: service.into_bytes(),
            user: knock.user.clone(),
            uid: peer,
            is_silent: true,
            // How they are asked is read from these again when their answer comes.
            arguments: knock.arguments.clone(),
            ..Knock::default()
        };
        Ok(Self { knock, policy, is_theirs })
    }
}

/// Who asks about their own devices, by their uid alone, and what holds for their code: what holds for a program that asks for
/// them.
pub(super) fn oneself(peer: u32, conf: Option<&[u8]>) -> Result<(Person, Policy), Fact> {
    match peer {
        0 => return Err(refused("root").or("root needs no agent for this")),
        NOBODY => return Err(refused("unmapped")),
        _ => {}
    }
    let policy = without_favours(Policy::new(LOCAL, &Options::default(), &Document::load(conf)?));
    if !policy.store.value.is_roots() {
        return Err(not_for_the_agent());
    }
    let account = passwd::by_uid(peer).map_err(|error| Fact::new("user-database").with_error(error))?;
    let person = Person::from_account(account.ok_or_else(|| refused("unknown-uid"))?);
    Ok((person.map_err(Unidentified::fact)?, policy))
}

/// Everybody is asked for a code.
fn without_favours(policy: Policy) -> Policy {
    Policy {
        enrolment: ours(Enrolment::of(EnrolmentKind::Required)),
        grace: ours(0),
        exemptions: Vec::new(),
        require: None,
        ..policy
    }
}

/// A request that was refused, for the log. Log readers have addresses banned: who is not root names none, and no service.
pub(super) fn of_refused(peer: u32, knock: &Knock) -> Knock {
    match peer {
        0 => knock.clone(),
        _ => Knock { service: LOCAL.into(), user: knock.user.clone(), uid: peer, ..Knock::default() },
    }
}

/// At which service somebody asks, and whether for somebody for whom they may.
fn service(peer: u32, knock: &Knock, document: &Document) -> Result<(String, bool), Fact> {
    let person = Person::in_database(&knock.user).ok();
    if person.as_ref().is_some_and(|person| person.uid() == peer) {
        return Ok((LOCAL.to_owned(), true));
    }
    let caller = passwd::by_uid(peer).map_err(|error| Fact::new("user-database").with_error(error))?;
    let caller = caller.ok_or_else(|| refused("unknown-uid"))?;
    let trusted: Vec<_> =
        document.trusted_callers().iter().filter(|trusted| trusted.may_ask_at(&caller.name, &knock.service)).collect();
    if trusted.is_empty() {
        return Err(refused("not-trusted")
            .or("[[trusted_caller]] in the policy says who may ask about others, about whom, and at which service"));
    }
    let may_ask = |person: &Person| {
        trusted.iter().any(|trusted| trusted.may_ask_for(person.name(), (person.uid(), person.gid())))
    };
    // Who does not exist is like anybody else.
    Ok((String::from_utf8_lossy(&knock.service).into_owned(), person.as_ref().is_none_or(may_ask)))
}

fn not_for_the_agent() -> Fact {
    Fact::new("not-for-the-agent")
        .or("the agent reads root-only records alone: store = \"system\" or \"fleet\" in [defaults] of the policy")
}

fn ours<T>(value: T) -> Setting<T> {
    Setting { value, origin: Origin::Default }
}

fn refused(why: &'static str) -> Fact {
    Fact::new("caller-refused").with("because", why)
}
