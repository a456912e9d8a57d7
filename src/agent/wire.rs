//! What module and agent say to each other. Numbers are big-endian; a text is its length in two bytes and its bytes.
//!
//! | message | bytes |
//! |---|---|
//! | all | version, kind |
//! | begin `B` | a login, and what an earlier module asked for (maybe) |
//! | answer `A` | a sealed login, and what was typed, or why nothing was |
//! | notice `N` | a login |
//! | wish `W` | what somebody wants done about their own devices |
//! | proof `P` | a sealed wish, and what was typed |
//! | question `Q` | a text to show (maybe), the prompt, whether it echoes, the sealed login |
//! | verdict `V` | allow, ignore, deny or unavailable; seconds of delay; bytes of the answer that are a password (maybe) |
//! | notice `n` | failures and when the latest was (maybe) |
//! | granted `G` | that a wish is done, or what was to be seen |
//! | refused `R` | why a wish is not done |
//! | version `v` | nothing: the other side's version is not spoken here |

use super::wish::{Granted, Wish};
use crate::authenticate::{NoAnswer, Outcome};
use crate::ledger::Notice;
use crate::secret::Secret;
use crate::words::{Reader, Writer};

pub use crate::words::TooLong;

/// The only version so far. A later one will be spoken beside the one before it.
pub const VERSION: u8 = 1;

/// A login, as the module knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Knock {
    /// PAM_SERVICE.
    pub service: Vec<u8>,
    /// PAM_USER.
    pub user: Vec<u8>,
    /// PAM_RHOST.
    pub rhost: Vec<u8>,
    /// What sshd says about the key that it accepted.
    pub login_key: Vec<u8>,
    /// The real uid of the process.
    pub uid: u32,
    /// Who runs the program, where that is whose code is asked for.
    pub caller: Option<u32>,
    /// Nothing is to be shown.
    pub is_silent: bool,
    /// The arguments of the module's line.
    pub arguments: Vec<Vec<u8>>,
}

/// What the module says.
pub enum Request {
    /// Somebody knocks.
    Begin(Knock, Option<Secret<Vec<u8>>>),
    /// What was typed, or why nothing was.
    Answer(Vec<u8>, Result<Secret<Vec<u8>>, NoAnswer>),
    /// Somebody's session begins.
    Notice(Knock),
    /// Somebody wants something done about their own devices: whoever is at the other end of the socket.
    Wish(Wish),
    /// What they have typed for it.
    Proof(Vec<u8>, Secret<Vec<u8>>),
}

/// What the agent says.
pub enum Reply {
    /// Somebody has to be asked.
    Question {
        /// What comes first. Of a wish: the new secret, or the new recovery codes, as bytes.
        text: Option<Secret<Vec<u8>>>,
        /// The prompt.
        prompt: Vec<u8>,
        /// Whether what is typed may be seen.
        echo: bool,
        /// The login, or the wish, for the next request.
        login: Vec<u8>,
    },
    /// The end.
    Verdict {
        /// What libpam is told.
        verdict: Verdict,
        /// Seconds.
        fail_delay: u32,
        /// How many bytes of the answer are a password for the modules behind us.
        password: Option<usize>,
    },
    /// What failed since the last login.
    Notice(Option<Notice>),
    /// The wish is done.
    Granted(Granted),
    /// It is not, and this is why. Who wishes is known by a code, or has nothing to learn from it.
    Refused(Vec<u8>),
    /// The version is not spoken here.
    Version,
}

/// What libpam is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// PAM_SUCCESS.
    Allow,
    /// PAM_IGNORE.
    Ignore,
    /// PAM_AUTH_ERR.
    Deny,
    /// PAM_AUTHINFO_UNAVAIL.
    Unavailable,
}

impl Verdict {
    /// What libpam is told of an outcome. Every denial is the same, whatever its reason, but where there is nothing that could
    /// have judged anybody.
    pub const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted(_) => Self::Allow,
            Outcome::NotAsked(_) => Self::Ignore,
            Outcome::Unavailable(_) => Self::Unavailable,
            Outcome::Denied(_) => Self::Deny,
        }
    }
}

const VERDICTS: [Verdict; 4] = [Verdict::Allow, Verdict::Ignore, Verdict::Deny, Verdict::Unavailable];

/// Why a message means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// It is of another version.
    Version(u8),
    /// It is cut short, too long, or mixed up.
    Message,
}

impl Request {
    /// The message.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn message(&self) -> Result<Secret<Vec<u8>>, TooLong> {
        match self {
            Self::Begin(knock, first_pass) => Writer::of(b'B').knock(knock).maybe(first_pass.as_ref()),
            Self::Answer(login, Ok(answer)) => Writer::of(b'A').text(login).byte(0).text(answer.expose()),
            Self::Answer(login, Err(NoAnswer::Failed(code))) => {
                Writer::of(b'A').text(login).byte(1).number(code.cast_unsigned())
            }
            Self::Answer(login, Err(NoAnswer::Missing)) => Writer::of(b'A').text(login).byte(2),
            Self::Answer(login, Err(NoAnswer::TooLong)) => Writer::of(b'A').text(login).byte(3),
            Self::Notice(knock) => Writer::of(b'N').knock(knock),
            Self::Wish(wish) => Writer::of(b'W').wish(wish),
            Self::Proof(wish, answer) => Writer::of(b'P').text(wish).text(answer.expose()),
        }
        .end()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn parse(message: &[u8]) -> Result<Self, Bad> {
        parse(message, |reader, kind| {
            Some(match kind {
                b'B' => Self::Begin(reader.knock()?, reader.maybe(Reader::secret)?),
                b'A' => {
                    let login = reader.text()?.to_vec();
                    let answer = match reader.byte()? {
                        0 => Ok(reader.secret()?),
                        1 => Err(NoAnswer::Failed(reader.number()?.cast_signed())),
                        2 => Err(NoAnswer::Missing),
                        3 => Err(NoAnswer::TooLong),
                        _ => return None,
                    };
                    Self::Answer(login, answer)
                }
                b'N' => Self::Notice(reader.knock()?),
                b'W' => Self::Wish(reader.wish()?),
                b'P' => Self::Proof(reader.text()?.to_vec(), reader.secret()?),
                _ => return None,
            })
        })
    }
}

impl Reply {
    /// The message.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn message(&self) -> Result<Secret<Vec<u8>>, TooLong> {
        match self {
            Self::Question { text, prompt, echo, login } => {
                Writer::of(b'Q').maybe(text.as_ref()).text(prompt).byte((*echo).into()).text(login)
            }
            Self::Verdict { verdict, fail_delay, password } => {
                let place = VERDICTS.iter().position(|known| known == verdict);
                let place = place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX);
                let length = password.map(|length| u32::try_from(length).unwrap_or(u32::MAX));
                Writer::of(b'V').byte(place).number(*fail_delay).maybe_number(length)
            }
            Self::Notice(None) => Writer::of(b'n').byte(0),
            Self::Notice(Some(notice)) => Writer::of(b'n').byte(1).long(notice.failures).long(notice.latest),
            Self::Granted(granted) => Writer::of(b'G').granted(granted),
            Self::Refused(reason) => Writer::of(b'R').text(reason),
            Self::Version => Writer::of(b'v'),
        }
        .end()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn parse(message: &[u8]) -> Result<Self, Bad> {
        parse(message, |reader, kind| {
            Some(match kind {
                b'Q' => Self::Question {
                    text: reader.maybe(Reader::secret)?,
                    prompt: reader.text()?.to_vec(),
                    echo: reader.bool()?,
                    login: reader.text()?.to_vec(),
                },
                b'V' => Self::Verdict {
                    verdict: *VERDICTS.get(usize::from(reader.byte()?))?,
                    fail_delay: reader.number()?,
                    password: reader.maybe(Reader::number)?.map(usize::try_from).transpose().ok()?,
                },
                b'n' => Self::Notice(
                    reader.maybe(|reader| Some(Notice { failures: reader.long()?, latest: reader.long()? }))?,
                ),
                b'G' => Self::Granted(reader.granted()?),
                b'R' => Self::Refused(reader.text()?.to_vec()),
                b'v' => Self::Version,
                _ => return None,
            })
        })
    }
}

/// The version, the kind, and all the rest to the last byte.
fn parse<T>(message: &[u8], rest: impl FnOnce(&mut Reader, u8) -> Option<T>) -> Result<T, Bad> {
    let mut reader = Reader { rest: message };
    match reader.byte() {
        Some(VERSION) => {}
        Some(version) => return Err(Bad::Version(version)),
        None => return Err(Bad::Message),
    }
    let kind = reader.byte().ok_or(Bad::Message)?;
    rest(&mut reader, kind).filter(|_| reader.rest.is_empty()).ok_or(Bad::Message)
}

impl Writer {
    fn of(kind: u8) -> Self {
        Self::new().byte(VERSION).byte(kind)
    }

    pub(crate) fn knock(self, knock: &Knock) -> Self {
        let Knock { service, user, rhost, login_key, uid, caller, is_silent, arguments } = knock;
        let writer = self.text(service).text(user).text(rhost).text(login_key).number(*uid);
        let writer = writer.maybe_number(*caller);
        let Ok(count) = u8::try_from(arguments.len()) else { return writer.spoiled() };
        let writer = writer.byte((*is_silent).into()).byte(count);
        arguments.iter().fold(writer, |writer, argument| writer.text(argument))
    }
}

impl Reader<'_> {
    pub(crate) fn knock(&mut self) -> Option<Knock> {
        let [service, user, rhost, login_key] =
            [self.text()?, self.text()?, self.text()?, self.text()?].map(<[u8]>::to_vec);
        let (uid, caller, is_silent) = (self.number()?, self.maybe(Self::number)?, self.bool()?);
        let arguments = (0..self.byte()?).map(|_| self.text().map(<[u8]>::to_vec)).collect::<Option<_>>()?;
        Some(Knock { service, user, rhost, login_key, uid, caller, is_silent, arguments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::{Codes, NewDevice};
    use crate::otp::{Algorithm, Digits, Moving};
    use crate::record::{Device, Kind};

    fn knock() -> Knock {
        Knock {
            service: b"sshd".to_vec(),
            user: b"alice".to_vec(),
            rhost: b"192.0.2.7".to_vec(),
            login_key: b"publickey ssh-ed25519 AAAA".to_vec(),
            uid: 0,
            caller: Some(1000),
            is_silent: true,
            arguments: vec![b"nullok".to_vec(), b"conf=/x".to_vec()],
        }
    }

    fn devices() -> Vec<Device> {
        let by_counter = Codes { moving: Moving::Counter { next: 7 }, ..Codes::default() };
        let made = |codes, name| NewDevice::new(codes, 0).unwrap().device(name, 1 << 31);
        let mut devices = vec![made(Codes::default(), "phone"), made(by_counter, "token"), made(Codes::default(), "x")];
        devices[0].last_used = Some(1 << 32);
        devices[1].added = None;
        let Ok(Kind::Totp(totp)) = &mut devices[0].kind else { panic!() };
        totp.used = Ok(Some(vec![59_853_000]));
        devices[2].kind = Ok(Kind::None);
        devices
    }

    fn secret(text: &[u8]) -> Secret<Vec<u8>> {
        Secret::new(text.to_vec())
    }

    fn requests() -> Vec<Secret<Vec<u8>>> {
        let by_counter =
            Codes { moving: Moving::Counter { next: 1 }, algorithm: Algorithm::Sha512, digits: Digits::SIX };
        let requests = [
            Request::Begin(knock(), Some(secret(b"hunter2"))),
            Request::Begin(Knock::default(), None),
            Request::Answer(b"sealed".to_vec(), Ok(secret(b"123456"))),
            Request::Answer(vec![0; 60_000], Err(NoAnswer::Failed(-19))),
            Request::Answer(Vec::new(), Err(NoAnswer::Missing)),
            Request::Answer(Vec::new(), Err(NoAnswer::TooLong)),
            Request::Notice(knock()),
            Request::Wish(Wish::Status),
            Request::Wish(Wish::Add { name: "tablet".to_owned(), codes: Codes::default() }),
            Request::Wish(Wish::Add { name: "token".to_owned(), codes: by_counter }),
            Request::Wish(Wish::Remove { name: "phone".to_owned() }),
            Request::Wish(Wish::Recovery { count: 5 }),
            Request::Proof(b"sealed".to_vec(), secret(b"123456")),
        ];
        requests.iter().map(|request| request.message().unwrap()).collect()
    }

    fn replies() -> Vec<Secret<Vec<u8>>> {
        let verdict = |verdict| Reply::Verdict { verdict, fail_delay: 2, password: Some(7) };
        let question =
            |text| Reply::Question { text, prompt: b"Code: ".to_vec(), echo: true, login: b"sealed".to_vec() };
        let mut replies = vec![
            question(None),
            question(Some(secret(b"QR"))),
            Reply::Verdict { verdict: Verdict::Deny, fail_delay: 0, password: None },
            Reply::Notice(None),
            Reply::Notice(Some(Notice { failures: 3, latest: 1 << 40 })),
            Reply::Granted(Granted::Done),
            Reply::Granted(Granted::Status {
                path: b"/var/lib/x".to_vec(),
                sealed_with: "3f9a01bc".to_owned(),
                devices: devices(),
                spares: 4,
            }),
            Reply::Refused(b"last-device".to_vec()),
            Reply::Version,
        ];
        replies.extend(VERDICTS.map(verdict));
        replies.iter().map(|reply| reply.message().unwrap()).collect()
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for message in requests() {
            let again = Request::parse(message.expose()).ok().unwrap().message().unwrap();
            assert_eq!(message.expose(), again.expose());
        }
        for message in replies() {
            let again = Reply::parse(message.expose()).ok().unwrap().message().unwrap();
            assert_eq!(message.expose(), again.expose());
        }
        let begin = Request::Begin(knock(), None).message().unwrap();
        let Ok(Request::Begin(read, None)) = Request::parse(begin.expose()) else { panic!() };
        assert_eq!(read, knock());
    }

    /// Whatever bytes come, they mean one thing or nothing: what is read writes the same bytes again.
    #[test]
    fn no_two_messages_mean_the_same_and_no_half_of_one_means_anything() {
        let check = |bytes: &[u8]| {
            let again = [
                Request::parse(bytes).map(|request| request.message().unwrap()),
                Reply::parse(bytes).map(|reply| reply.message().unwrap()),
            ];
            again.into_iter().flatten().for_each(|again| assert_eq!(again.expose(), bytes));
        };
        for message in requests().iter().chain(&replies()).map(Secret::expose).filter(|message| message.len() < 1000) {
            for end in 0..message.len() {
                assert_eq!(Request::parse(&message[..end]).err().or(Some(Bad::Message)), Some(Bad::Message), "{end}");
                assert!(Reply::parse(&message[..end]).is_err());
            }
            check(&[message, &b"x"[..]].concat());
            for at in 0..message.len() {
                for change in [1, 0x80, 0xff] {
                    let mut changed = message.clone();
                    changed[at] ^= change;
                    check(&changed);
                }
            }
        }
    }

    #[test]
    fn another_version_is_told_from_nonsense() {
        for version in [0, 2, 255] {
            assert_eq!(Request::parse(&[version, b'B', 1, 2, 3]).err(), Some(Bad::Version(version)));
            assert_eq!(Reply::parse(&[version]).err(), Some(Bad::Version(version)));
        }
        for nonsense in [&b""[..], b"\x01", b"\x01Z", b"\x01vx", b"\x01V\x04\0\0\0\0\0", b"\x01Q\x02"] {
            assert_eq!(Reply::parse(nonsense).err(), Some(Bad::Message));
        }
    }

    #[test]
    fn what_is_too_long_is_not_cut() {
        for knock in [
            Knock { user: vec![b'a'; 1 << 16], ..knock() },
            Knock { user: vec![b'a'; 40_000], rhost: vec![b'a'; 40_000], ..knock() },
            Knock { arguments: vec![Vec::new(); 256], ..knock() },
        ] {
            assert_eq!(Request::Notice(knock).message().err(), Some(TooLong));
        }
    }
}
