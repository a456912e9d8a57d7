//! What people do about their own devices where the records are root's: pam-totp-agent does it for them, with the code of a device
//! that they have. This program has no rights that they do not have.

use crate::host::{self, Subject, Whose};
use crate::new_device::{NewDevice, Spares, not_its_code};
use crate::prompt::{self, shown};
use crate::status::Status;
use anyhow::{Context, Result, anyhow, bail, ensure};
use pam_totp::agent::client::{Unanswered, exchange};
use pam_totp::agent::wire::{Reply, Request, Verdict};
use pam_totp::agent::wish::{Granted, Wish};
use pam_totp::otp::{RECOVERY_BYTES, RecoveryCode};
use pam_totp::record::Record;
use pam_totp::secret::Secret;
use pam_totp::system::passwd;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;

/// Somebody at their own devices.
pub(crate) struct Own {
    pub(crate) subject: Subject,
    /// What they are about to do, in words.
    what: &'static str,
}

/// What waits for an answer.
struct Question {
    text: Option<Secret<Vec<u8>>>,
    prompt: String,
    wish: Vec<u8>,
}

/// What is shown before it is stored.
pub(crate) struct Proposal<'a> {
    own: &'a Own,
    question: Question,
}

/// Whoever is not root, where the records are root's. `None`: what is asked for is done here.
pub(crate) fn own(whose: &Whose, what: &'static str) -> Result<Option<Own>> {
    if passwd::process_uids().1 == 0 || !host::policy(whose.conf.as_ref())?.store.value.is_roots() {
        return Ok(None);
    }
    ensure!(whose.key.is_none(), "only root can {what} for one of the people who share an account");
    Ok(Some(Own { subject: Subject::own(whose)?, what }))
}

impl Own {
    pub(crate) fn status(&self) -> Result<Status> {
        match self.granted(Wish::Status)? {
            Granted::Status { path, sealed_with, devices, spares } => Ok(Status {
                path: OsString::from_vec(path).into(),
                found: Some((usize::try_from(spares).unwrap_or(usize::MAX), Record::of(devices))),
                had_one: true,
                sealed_with: Some(sealed_with).filter(|key| !key.is_empty()),
            }),
            Granted::Done => Err(nonsense()),
        }
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.granted(Wish::Remove { name: name.to_owned() }).map(drop)
    }

    /// The device to be, with the secret that the agent has made.
    pub(crate) fn add<'a>(&'a self, name: &str, new: NewDevice<'a>) -> Result<(NewDevice<'a>, Proposal<'a>)> {
        let (secret, proposal) = self.proposed(Wish::Add { name: name.to_owned(), codes: new.new.codes() })?;
        Ok((new.with_secret(secret), proposal))
    }

    pub(crate) fn recovery(&self, count: u64) -> Result<(Spares, Proposal<'_>)> {
        let (bytes, proposal) = self.proposed(Wish::Recovery { count: u8::try_from(count)? })?;
        let codes = bytes.expose().chunks(RECOVERY_BYTES).map(|bytes| bytes.try_into().map(RecoveryCode::new));
        Ok((Spares::Recovery(codes.collect::<Result<_, _>>().map_err(|_| nonsense())?), proposal))
    }

    fn granted(&self, wish: Wish) -> Result<Granted> {
        match self.answered(self.asked(wish)?)? {
            Reply::Granted(granted) => Ok(granted),
            _ => Err(nonsense()),
        }
    }

    fn proposed(&self, wish: Wish) -> Result<(Secret<Vec<u8>>, Proposal<'_>)> {
        let mut question = Question::of(self.answered(self.asked(wish)?)?)?;
        let text = question.text.take().ok_or_else(nonsense)?;
        Ok((text, Proposal { own: self, question }))
    }

    fn asked(&self, wish: Wish) -> Result<Question> {
        Question::of(self.said(&Request::Wish(wish))?)
    }

    fn answered(&self, question: Question) -> Result<Reply> {
        let answer = prompt::ask(&question.prompt, false)?.context("no code was given; nothing was changed")?;
        self.said(&Request::Proof(question.wish, answer))
    }

    /// What the agent says to that. Whose code was not accepted learns no more.
    fn said(&self, request: &Request) -> Result<Reply> {
        let reply = exchange(&self.subject.policy.agent_socket, request);
        match reply
            .map_err(Unanswered::into_fact)
            .map_err(|fact| anyhow!("only root can {}, or pam-totp-agent for you: {fact}", self.what))?
        {
            Reply::Refused(reason) => bail!("{}", shown(&reason)),
            Reply::Verdict { verdict: Verdict::Unavailable, .. } => {
                bail!("there is nothing to judge the code by now; the log of this machine says why")
            }
            Reply::Verdict { .. } => bail!("not accepted"),
            reply => Ok(reply),
        }
    }
}

impl Proposal<'_> {
    /// Asks for the first code of the device until it is right, which stores it.
    pub(crate) fn confirmed(self) -> Result<()> {
        let Self { own, mut question } = self;
        loop {
            match own.answered(question)? {
                Reply::Granted(_) => return Ok(()),
                reply => question = Question::of(reply)?,
            }
            writeln!(io::stderr(), "{}", not_its_code())?;
        }
    }

    /// Says that it has been shown, which stores it.
    pub(crate) fn seen(self) -> Result<()> {
        match self.own.said(&Request::Proof(self.question.wish, Secret::new(Vec::new())))? {
            Reply::Granted(_) => Ok(()),
            _ => Err(nonsense()),
        }
    }
}

impl Question {
    fn of(reply: Reply) -> Result<Self> {
        match reply {
            Reply::Question { text, prompt, login, .. } => Ok(Self { text, prompt: shown(&prompt), wish: login }),
            _ => Err(nonsense()),
        }
    }
}

fn nonsense() -> anyhow::Error {
    anyhow!("what pam-totp-agent says makes no sense: are it and this program of the same release?")
}
