//! The module's arguments, as they stand on its line in /etc/pam.d. Lexical only: nothing is looked up here.

use crate::fact::Fact;

/// What a person is asked, unless `authtok_prompt=` says otherwise. Clients and scripts look for it: it stays as it is.
pub const PROMPT: &str = "Verification code: ";
/// Where the secret is, unless `secret=` says otherwise.
pub const SECRET: &str = "~/.google_authenticator";

/// The arguments, later ones winning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `secret=`: the file, with `~`, `${HOME}` and `${USER}` still in it.
    pub secret: Vec<u8>,
    /// `user=`: with whose rights the file is read, where it is not the person's own.
    pub user: Option<FixedUser>,
    /// `nullok`: a person who has no record is not asked.
    pub nullok: bool,
    /// `debug`: more lines in the log. No secret and no typed code is in any of them.
    pub debug: bool,
    /// `echo_verification_code`: what is typed may be seen.
    pub echo: bool,
    /// `authtok_prompt=`.
    pub prompt: Vec<u8>,
}

/// The value of `user=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FixedUser {
    /// A number.
    Uid(u32),
    /// A name.
    Name(Vec<u8>),
}

impl Default for Options {
    fn default() -> Self {
        Self { secret: SECRET.into(), user: None, nullok: false, debug: false, echo: false, prompt: PROMPT.into() }
    }
}

impl Options {
    /// Reads the arguments from left to right.
    ///
    /// # Errors
    /// The first argument that is unknown or has a value that it cannot have.
    pub fn parse<'a>(arguments: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, BadArgument> {
        let mut options = Self::default();
        for argument in arguments {
            options.apply(argument)?;
        }
        Ok(options)
    }

    fn apply(&mut self, argument: &[u8]) -> Result<(), BadArgument> {
        match split_value(argument) {
            (b"secret", Some(path)) => self.secret = path.to_vec(),
            (b"user", Some(user)) => self.user = Some(FixedUser::parse(user)?),
            (b"authtok_prompt", Some(prompt)) => self.prompt = prompt.to_vec(),
            (b"nullok", None) => self.nullok = true,
            (b"debug", None) => self.debug = true,
            (b"echo_verification_code" | b"echo-verification-code", None) => self.echo = true,
            _ => return Err(BadArgument::Unknown(argument.to_vec())),
        }
        Ok(())
    }
}

impl FixedUser {
    /// What starts with a digit is a number and nothing but a number: `0day` must not be root.
    fn parse(value: &[u8]) -> Result<Self, BadArgument> {
        match value {
            [] => Err(BadArgument::User(Vec::new())),
            [b'0'..=b'9', ..] => std::str::from_utf8(value)
                .ok()
                .and_then(|digits| digits.parse().ok())
                // (uid_t) -1 means "no change" to the kernel.
                .filter(|&uid| uid != u32::MAX)
                .map(Self::Uid)
                .ok_or_else(|| BadArgument::User(value.to_vec())),
            name => Ok(Self::Name(name.to_vec())),
        }
    }
}

fn split_value(argument: &[u8]) -> (&[u8], Option<&[u8]>) {
    match argument.iter().position(|&byte| byte == b'=') {
        Some(at) => {
            let (key, rest) = argument.split_at(at);
            (key, rest.get(1..))
        }
        None => (argument, None),
    }
}

/// An argument that denies every login until it is corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadArgument {
    /// Not one of ours.
    Unknown(Vec<u8>),
    /// `user=` with something that is neither a name nor a number.
    User(Vec<u8>),
}

impl BadArgument {
    /// For the log.
    pub fn fact(&self) -> Fact {
        match self {
            Self::Unknown(argument) => Fact::new("bad-argument").with("argument", argument).or(
                "unknown; the arguments are secret=, user=, nullok, debug, echo_verification_code, authtok_prompt=",
            ),
            Self::User(value) => {
                Fact::new("bad-argument").with("argument", "user").with("value", value).or("must be a name or a number")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, BadArgument> {
        Options::parse(arguments.iter().map(|argument| argument.as_bytes()))
    }

    #[test]
    fn nothing_means_the_defaults() {
        assert_eq!(parse(&[]), Ok(Options::default()));
    }

    #[test]
    fn every_argument_is_understood_and_the_last_one_wins() {
        let options =
            parse(&["secret=/a", "secret=/b=c", "user=0", "user=alice", "nullok", "debug", "echo-verification-code"]);
        let options = options.unwrap();
        assert_eq!(options.secret, b"/b=c");
        assert_eq!(options.user, Some(FixedUser::Name(b"alice".to_vec())));
        assert!(options.nullok && options.debug && options.echo);
        assert!(parse(&["echo_verification_code"]).unwrap().echo);
        assert_eq!(parse(&["authtok_prompt="]).unwrap().prompt, b"");
        assert_eq!(parse(&["user=1000"]).unwrap().user, Some(FixedUser::Uid(1000)));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for argument in ["", "nul lok", "nullok=", "nullok=yes", "secret", "user", "Debug", "debug ", "=", "windows=3"]
        {
            assert_eq!(parse(&[argument]), Err(BadArgument::Unknown(argument.into())), "{argument:?}");
        }
        for user in ["", "0day", "1 ", "4294967295", "4294967296", "99999999999999999999"] {
            assert_eq!(parse(&[&format!("user={user}")]), Err(BadArgument::User(user.into())), "{user:?}");
        }
        assert!(Options::parse([&b"\xff\xfe"[..]]).is_err());
    }
}
