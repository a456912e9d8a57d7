//! The module's side: it asks and shows what the agent says, and gives out the agent's verdict. Whatever else happens, nobody
//! gets in.

use super::wire::{Bad, Knock, Reply, Request, Verdict};
use crate::authenticate::{Application, NoAnswer, Outcome, not_forwarded};
use crate::fact::Fact;
use crate::ledger::Notice;
use crate::secret::Secret;
use crate::system::Errno;
use crate::system::socket::{self, Budget};
use std::path::Path;
use std::time::Duration;

/// How long the agent may take for one request. It is longer than the five seconds for which it waits for a lock, and with
/// what else a login takes it is within six.
const PATIENCE: Duration = Duration::from_millis(5_500);
/// The same where all that is lost is a notice: somebody is in, and waits.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);
/// Questions of one login: a ticket and three first codes, and some to spare.
const MOST_QUESTIONS: usize = 8;

/// How a login ended.
pub enum Ended {
    /// By the agent's word. What it says about it is in the log.
    Judged(Verdict, u32),
    /// Here.
    Here(Outcome),
}

impl From<Fact> for Ended {
    /// There was nobody to judge it.
    fn from(fact: Fact) -> Self {
        Self::Here(Outcome::Unavailable(fact))
    }
}

/// Has somebody judged by the agent that listens there.
pub fn authenticate(
    agent: &Path,
    knock: Knock,
    first_pass: Option<Secret<Vec<u8>>>,
    application: &mut impl Application,
) -> Ended {
    let mut request = Request::Begin(knock, first_pass);
    for _ in 0..MOST_QUESTIONS {
        let (prompt, echo, text, login) = match exchange(agent, &request) {
            Ok(Reply::Question { text, prompt, echo, login }) => (prompt, echo, text, login),
            Ok(Reply::Verdict { verdict, fail_delay, password }) => {
                let is_forwarded = verdict != Verdict::Allow || forward(password, &request, application);
                return if is_forwarded {
                    Ended::Judged(verdict, fail_delay)
                } else {
                    Ended::Here(Outcome::Denied(not_forwarded()))
                };
            }
            Ok(Reply::Notice(_) | Reply::Granted(_) | Reply::Refused(_) | Reply::Version) => {
                return unexpected().into();
            }
            Err(unanswered) => return unanswered.into(),
        };
        request = Request::Answer(login, ask(&prompt, echo, text, application));
    }
    unexpected().into()
}

/// What failed since somebody's last login. Where there is no agent, nothing is said.
pub fn notice(agent: &Path, knock: Knock) -> Option<Notice> {
    match exchange_within(LITTLE_PATIENCE, agent, &Request::Notice(knock)) {
        Ok(Reply::Notice(notice)) => notice,
        _ => None,
    }
}

/// Whether somebody answers there, as the agent of this release does. Nobody is asked about.
///
/// # Errors
/// Why not.
pub fn greet(agent: &Path) -> Result<(), Fact> {
    match exchange(agent, &Request::Notice(Knock::default())).map_err(Unanswered::into_fact)? {
        Reply::Notice(_) => Ok(()),
        _ => Err(unexpected()),
    }
}

fn ask(
    prompt: &[u8],
    echo: bool,
    text: Option<Secret<Vec<u8>>>,
    application: &mut impl Application,
) -> Result<Secret<Vec<u8>>, NoAnswer> {
    if let Some(text) = text {
        let text = std::str::from_utf8(text.expose()).map_err(|_| NoAnswer::Missing)?.to_owned();
        application.tell(&Secret::new(text))?;
    }
    application.ask(prompt, echo)
}

/// Leaves the password for the modules behind us, where there is one: so many bytes of what the agent was just told. `false`: it
/// cannot be left.
fn forward(length: Option<usize>, told: &Request, application: &mut impl Application) -> bool {
    let Some(length) = length else { return true };
    let typed = match told {
        Request::Begin(_, first_pass) => first_pass.as_ref(),
        Request::Answer(_, answer) => answer.as_ref().ok(),
        Request::Notice(_) | Request::Wish(_) | Request::Proof(..) => None,
    };
    let password = typed.and_then(|typed| typed.expose().get(..length));
    password.is_some_and(|password| application.forward(&Secret::new(password.to_vec())))
}

/// Why there is no answer.
pub enum Unanswered {
    /// What was to be said is too long. Who makes it so long is at the door: no outage, which some stacks let pass.
    TooLong,
    /// There is no agent, or one that is not root's, not of this version, or out of its mind.
    NoAgent(Fact),
}

impl Unanswered {
    /// For the log, or for the operator.
    pub fn into_fact(self) -> Fact {
        match self {
            Self::TooLong => Fact::new("login-too-long"),
            Self::NoAgent(fact) => fact,
        }
    }
}

impl From<Unanswered> for Ended {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::TooLong => Self::Here(Outcome::Denied(unanswered.into_fact())),
            Unanswered::NoAgent(fact) => Self::Here(Outcome::Unavailable(fact)),
        }
    }
}

/// Says something to the agent that listens there, and hears what it says to that.
///
/// # Errors
/// [`Unanswered`].
pub fn exchange(agent: &Path, request: &Request) -> Result<Reply, Unanswered> {
    exchange_within(PATIENCE, agent, request)
}

/// Why there is no reply.
enum NoReply {
    /// What was said was not read, at this call: it has no place for us now. Nothing has come of it.
    Unread(&'static str, Errno),
    Other(Fact),
}

fn exchange_within(patience: Duration, agent: &Path, request: &Request) -> Result<Reply, Unanswered> {
    let message = request.message().map_err(|_| Unanswered::TooLong)?;
    let mut budget = Budget::new(patience);
    let reply = loop {
        let no_agent = match reply(agent, message.expose(), &mut budget) {
            Ok(reply) => break reply,
            Err(NoReply::Unread(call, error)) => no_agent(agent, call, error),
            Err(NoReply::Other(fact)) => return Err(Unanswered::NoAgent(fact)),
        };
        budget.pause().map_err(|_| Unanswered::NoAgent(no_agent))?;
    };
    match Reply::parse(reply.expose()) {
        Ok(Reply::Version) | Err(Bad::Version(_)) => Err(Unanswered::NoAgent(
            Fact::new("agent-of-other-version")
                .with_path(agent)
                .or("module and agent have to be of the same release, or of two that follow each other"),
        )),
        Ok(reply) => Ok(reply),
        Err(Bad::Message) => Err(Unanswered::NoAgent(unexpected())),
    }
}

fn reply(agent: &Path, message: &[u8], budget: &mut Budget) -> Result<Secret<Vec<u8>>, NoReply> {
    let failed = |call| {
        move |error| match error {
            Errno::PIPE | Errno::CONNRESET => NoReply::Unread(call, error),
            error => NoReply::Other(no_agent(agent, call, error)),
        }
    };
    let socket = socket::connect(agent, budget).map_err(failed("connect"))?;
    // Before it gets a code: whoever listens there is root's, or nobody.
    match socket::peer(&socket) {
        Ok(0) => {}
        Ok(uid) => {
            let fact = Fact::new("agent-of-another").with_path(agent).with_number("uid", uid);
            return Err(NoReply::Other(fact.or("it is not root's")));
        }
        Err(error) => return Err(NoReply::Other(no_agent(agent, "getsockopt", error))),
    }
    socket::send_message(&socket, message, budget).map_err(failed("send"))?;
    socket::receive_message(&socket, budget).map_err(failed("receive"))
}

fn no_agent(agent: &Path, call: &'static str, error: Errno) -> Fact {
    Fact::new("no-agent").with_path(agent).with("call", call).with_error(error).or("is pam-totp-agent running?")
}

fn unexpected() -> Fact {
    Fact::new("agent-makes-no-sense").or("what listens there is no pam-totp-agent, or a broken one")
}
