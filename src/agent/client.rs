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
    // What the agent means by the password before a code is a part of this.
    let mut typed = first_pass.as_ref().map(|text| Secret::new(text.expose().clone()));
    let mut request = Request::Begin(knock, first_pass);
    for _ in 0..MOST_QUESTIONS {
        let (prompt, echo, text, login) = match exchange(agent, &request) {
            Ok(Reply::Question { text, prompt, echo, login }) => (prompt, echo, text, login),
            Ok(Reply::Verdict { verdict, fail_delay, password }) => {
                let is_forwarded = verdict != Verdict::Allow || forward(password, typed.as_ref(), application);
                return if is_forwarded {
                    Ended::Judged(verdict, fail_delay)
                } else {
                    Ended::Here(Outcome::Denied(not_forwarded()))
                };
            }
            Ok(Reply::Notice(_) | Reply::Granted(_) | Reply::Refused(_) | Reply::Version) => {
                return unexpected().into();
            }
            Err(fact) => return fact.into(),
        };
        let answer = ask(&prompt, echo, text, application);
        typed = answer.as_ref().ok().map(|text| Secret::new(text.expose().clone()));
        request = Request::Answer(login, answer);
    }
    unexpected().into()
}

/// What failed since somebody's last login. Where there is no agent, nothing is said.
pub fn notice(agent: &Path, knock: Knock) -> Option<Notice> {
    match exchange(agent, &Request::Notice(knock)) {
        Ok(Reply::Notice(notice)) => notice,
        _ => None,
    }
}

/// Whether somebody answers there, as the agent of this release does. Nobody is asked about.
///
/// # Errors
/// Why not.
pub fn greet(agent: &Path) -> Result<(), Fact> {
    match exchange(agent, &Request::Notice(Knock::default()))? {
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

/// Leaves the password for the modules behind us, where there is one. `false`: it cannot be left.
fn forward(length: Option<usize>, typed: Option<&Secret<Vec<u8>>>, application: &mut impl Application) -> bool {
    let Some(length) = length else { return true };
    let password = typed.and_then(|typed| typed.expose().get(..length));
    password.is_some_and(|password| application.forward(&Secret::new(password.to_vec())))
}

/// Says something to the agent that listens there, and hears what it says to that.
///
/// # Errors
/// There is no agent, or one that is not root's, or not of this version.
pub fn exchange(agent: &Path, request: &Request) -> Result<Reply, Fact> {
    let message = request.message().map_err(|_| Fact::new("login-too-long"))?;
    let failed = |call| move |error: Errno| no_agent(agent, call, error);
    let mut budget = Budget::new(PATIENCE);
    let socket = socket::connect(agent, &mut budget).map_err(failed("connect"))?;
    // Before it gets a code: whoever listens there is root's, or nobody.
    match socket::peer(&socket) {
        Ok(0) => {}
        Ok(uid) => {
            return Err(Fact::new("agent-of-another").with_path(agent).with_number("uid", uid).or("it is not root's"));
        }
        Err(error) => return Err(no_agent(agent, "getsockopt", error)),
    }
    socket::send_message(&socket, message.expose(), &mut budget).map_err(failed("send"))?;
    let reply = socket::receive_message(&socket, &mut budget).map_err(failed("receive"))?;
    match Reply::parse(reply.expose()) {
        Ok(Reply::Version) | Err(Bad::Version(_)) => Err(Fact::new("agent-of-other-version")
            .with_path(agent)
            .or("module and agent have to be of the same release, or of two that follow each other")),
        Ok(reply) => Ok(reply),
        Err(Bad::Message) => Err(unexpected()),
    }
}

fn no_agent(agent: &Path, call: &'static str, error: Errno) -> Fact {
    Fact::new("no-agent").with_path(agent).with("call", call).with_error(error).or("is pam-totp-agent running?")
}

fn unexpected() -> Fact {
    Fact::new("agent-makes-no-sense").or("what listens there is no pam-totp-agent, or a broken one")
}
