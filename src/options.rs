//! The module's arguments, as they stand on its line in /etc/pam.d. Lexical only: nothing is looked up here.

use crate::fact::Fact;

/// Who may use a secret file, unless `allowed_perm=` says otherwise: its owner.
pub const ALLOWED_PERM: u32 = 0o600;

/// The arguments, later ones winning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `conf=`: the policy file, if not the default one.
    pub conf: Option<Vec<u8>>,
    /// `secret=`: the file, with `~`, `${HOME}` and `${USER}` still in it.
    pub secret: Option<Vec<u8>>,
    /// `user=`: with whose rights the file is read, where it is not the person's own.
    pub user: Option<FixedUser>,
    /// Off with `no_strict_owner`: the file may belong to anybody.
    pub strict_owner: bool,
    /// `allowed_perm=`: mode bits that a file may have.
    pub allowed_perm: u32,
    /// `nullok`: a person who has no record is not asked.
    pub nullok: bool,
    /// `debug`: more lines in the log. No secret and no typed code is in any of them.
    pub debug: bool,
    /// `echo_verification_code`: what is typed may be seen.
    pub echo: bool,
    /// `authtok_prompt=`.
    pub prompt: Option<Vec<u8>>,
    /// `try_first_pass`, `use_first_pass`: whether a module before us has asked already.
    pub first_pass: FirstPass,
    /// `forward_pass`: password and code come in one answer; the password goes on to the next module.
    pub forward_pass: bool,
    /// Off with `noskewadj`.
    pub skew_adjustment: bool,
    /// Off with `no_increment_hotp`: a wrong code leaves the counter alone.
    pub increment_hotp: bool,
    /// `allow_readonly`: logins go on while the file's file system is mounted read-only.
    pub allow_readonly: bool,
    /// `grace_period=`: seconds for which a host is not asked again after a login from there.
    pub grace_period: u64,
}

/// Where the first answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstPass {
    /// The person is asked.
    #[default]
    Prompt,
    /// What an earlier module got is tried first, then the person is asked.
    Try,
    /// What an earlier module got is the answer.
    Use,
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
        Self {
            conf: None,
            secret: None,
            user: None,
            strict_owner: true,
            allowed_perm: ALLOWED_PERM,
            nullok: false,
            debug: false,
            echo: false,
            prompt: None,
            first_pass: FirstPass::default(),
            forward_pass: false,
            skew_adjustment: true,
            increment_hotp: true,
            allow_readonly: false,
            grace_period: 0,
        }
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
            (b"conf", Some(path)) => self.conf = Some(path.to_vec()),
            (b"secret", Some(path)) => self.secret = Some(path.to_vec()),
            (b"user", Some(user)) => self.user = Some(FixedUser::parse(user)?),
            (b"no_strict_owner", None) => self.strict_owner = false,
            (b"allowed_perm", Some(mode)) => self.allowed_perm = allowed_perm(mode)?,
            (b"authtok_prompt", Some(prompt)) => self.prompt = Some(prompt.to_vec()),
            (b"nullok", None) => self.nullok = true,
            (b"debug", None) => self.debug = true,
            (b"echo_verification_code" | b"echo-verification-code", None) => self.echo = true,
            (b"try_first_pass", None) => self.first_pass = FirstPass::Try,
            (b"use_first_pass", None) => self.first_pass = FirstPass::Use,
            (b"forward_pass", None) => self.forward_pass = true,
            (b"noskewadj", None) => self.skew_adjustment = false,
            (b"no_increment_hotp", None) => self.increment_hotp = false,
            (b"allow_readonly", None) => self.allow_readonly = true,
            (b"grace_period", Some(seconds)) => self.grace_period = grace_period(seconds)?,
            _ => return Err(BadArgument::Unknown(argument.to_vec())),
        }
        Ok(())
    }
}

/// An octal number other than 0. A negative one has all higher bits set, so -1 allows everything.
fn allowed_perm(value: &[u8]) -> Result<u32, BadArgument> {
    let number = std::str::from_utf8(value).ok().and_then(|text| i32::from_str_radix(text, 8).ok());
    number
        .filter(|&mode| mode != 0)
        .map(i32::cast_unsigned)
        .ok_or_else(|| BadArgument::Value("allowed_perm", value.to_vec(), "must be an octal number such as 0600"))
}

fn grace_period(value: &[u8]) -> Result<u64, BadArgument> {
    if value.is_empty() {
        return Ok(0);
    }
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| BadArgument::Value("grace_period", value.to_vec(), "must be a number of seconds"))
}

impl FixedUser {
    /// What starts with a digit is a number and nothing but a number: `0day` must not be root.
    fn parse(value: &[u8]) -> Result<Self, BadArgument> {
        match value {
            [] => Err(Self::bad(value)),
            [b'0'..=b'9', ..] => std::str::from_utf8(value)
                .ok()
                .and_then(|digits| digits.parse().ok())
                // (uid_t) -1 means "no change" to the kernel.
                .filter(|&uid| uid != u32::MAX)
                .map(Self::Uid)
                .ok_or_else(|| Self::bad(value)),
            name => Ok(Self::Name(name.to_vec())),
        }
    }

    fn bad(value: &[u8]) -> BadArgument {
        BadArgument::Value("user", value.to_vec(), "must be a name or a number")
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
    /// This argument, with a value that it cannot have, and what it could have.
    Value(&'static str, Vec<u8>, &'static str),
}

impl BadArgument {
    /// For the log.
    pub fn fact(&self) -> Fact {
        match self {
            Self::Unknown(argument) => Fact::new("bad-argument").with("argument", argument).or(
                "unknown; the arguments are conf=, secret=, user=, no_strict_owner, allowed_perm=, nullok, debug, \
                 echo_verification_code, authtok_prompt=, try_first_pass, use_first_pass, forward_pass, noskewadj, \
                 no_increment_hotp, allow_readonly, grace_period=",
            ),
            Self::Value(argument, value, expected) => {
                Fact::new("bad-argument").with("argument", argument).with("value", value).or(expected)
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
        assert_eq!(options.secret.as_deref(), Some(&b"/b=c"[..]));
        assert_eq!(options.user, Some(FixedUser::Name(b"alice".to_vec())));
        assert!(options.nullok && options.debug && options.echo);
        assert!(parse(&["echo_verification_code"]).unwrap().echo);
        assert_eq!(parse(&["user=1000"]).unwrap().user, Some(FixedUser::Uid(1000)));
        assert_eq!(parse(&["use_first_pass", "try_first_pass"]).unwrap().first_pass, FirstPass::Try);
        assert_eq!(parse(&["try_first_pass", "use_first_pass"]).unwrap().first_pass, FirstPass::Use);
        let options = parse(&["no_strict_owner", "noskewadj", "no_increment_hotp", "allow_readonly"]).unwrap();
        assert!(!options.strict_owner && !options.skew_adjustment && !options.increment_hotp && options.allow_readonly);
        for (value, mode) in [("0640", 0o640), ("1", 1), ("-1", u32::MAX)] {
            assert_eq!(parse(&[&format!("allowed_perm={value}")]).unwrap().allowed_perm, mode, "{value}");
        }
        for (value, seconds) in [("", 0), ("0", 0), ("86400", 86400)] {
            assert_eq!(parse(&[&format!("grace_period={value}")]).unwrap().grace_period, seconds, "{value}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for argument in ["", "nul lok", "nullok=", "nullok=yes", "secret", "user", "Debug", "debug ", "=", "windows=3"]
        {
            assert_eq!(parse(&[argument]), Err(BadArgument::Unknown(argument.into())), "{argument:?}");
        }
        let bad = [
            ("user", &["", "0day", "1 ", "4294967295", "4294967296", "99999999999999999999"][..]),
            ("allowed_perm", &["", "0", "0x1", "8", "600 ", "rw", "777777777777777777777"]),
            ("grace_period", &["-1", "1d", " ", "1 ", "99999999999999999999999"]),
        ];
        for (argument, values) in bad {
            for value in values {
                let result = parse(&[&format!("{argument}={value}")]);
                assert!(
                    matches!(result, Err(BadArgument::Value(name, ..)) if name == argument),
                    "{argument}={value:?}"
                );
            }
        }
        assert!(Options::parse([&b"\xff\xfe"[..]]).is_err());
    }
}
