//! What a rule does with each answer of its module: the second word of a line.

use std::fmt;

/// A return code of a module's pam_sm_authenticate(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Answer(u8);

/// The codes from 0 up, by the names that they have in a control (pam.conf(5)).
const NAMES: [&str; 32] = [
    "success",
    "open_err",
    "symbol_err",
    "service_err",
    "system_err",
    "buf_err",
    "perm_denied",
    "auth_err",
    "cred_insufficient",
    "authinfo_unavail",
    "user_unknown",
    "maxtries",
    "new_authtok_reqd",
    "acct_expired",
    "session_err",
    "cred_unavail",
    "cred_expired",
    "cred_err",
    "no_module_data",
    "conv_err",
    "authtok_err",
    "authtok_recover_err",
    "authtok_lock_busy",
    "authtok_disable_aging",
    "try_again",
    "ignore",
    "abort",
    "authtok_expired",
    "module_unknown",
    "bad_item",
    "conv_again",
    "incomplete",
];

impl Answer {
    pub(crate) const SUCCESS: Self = Self(0);
    pub(crate) const SERVICE_ERR: Self = Self(3);
    pub(crate) const SYSTEM_ERR: Self = Self(4);
    pub(crate) const BUF_ERR: Self = Self(5);
    pub(crate) const PERM_DENIED: Self = Self(6);
    pub(crate) const AUTH_ERR: Self = Self(7);
    pub(crate) const CRED_INSUFFICIENT: Self = Self(8);
    pub(crate) const AUTHINFO_UNAVAIL: Self = Self(9);
    pub(crate) const USER_UNKNOWN: Self = Self(10);
    pub(crate) const MAXTRIES: Self = Self(11);
    pub(crate) const NEW_AUTHTOK_REQD: Self = Self(12);
    pub(crate) const CONV_ERR: Self = Self(19);
    pub(crate) const IGNORE: Self = Self(25);
    pub(crate) const ABORT: Self = Self(26);
    pub(crate) const MODULE_UNKNOWN: Self = Self(28);
    /// Ends a login at once: the application has to come back.
    pub(crate) const INCOMPLETE: Self = Self(31);

    /// Every code that libpam knows.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0_u8..).take(NAMES.len()).map(Self)
    }

    /// As a control writes it: `auth_err`.
    pub(crate) fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What libpam does with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Nothing.
    Ignore,
    /// The answer is the result so far, unless something failed before.
    Ok,
    /// The same, and the end of this (sub)stack, unless something failed before.
    Done,
    /// The (sub)stack has failed.
    Bad,
    /// The same, and its end.
    Die,
    /// The result is again what it was at the beginning of this (sub)stack.
    Reset,
    /// Nothing, and the next so many rules are passed over; a substack is one. Beyond the end is a failure.
    Jump(u32),
    /// A jump whose number is none (it overflows): a failure.
    Broken,
}

/// The action for each answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control([Option<Action>; NAMES.len()]);

/// A control that libpam cannot read: to it every answer is bad then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Illegible;

impl Control {
    /// Every answer is bad, success too.
    pub(crate) const BAD: Self = Self([Some(Action::Bad); NAMES.len()]);

    /// Reads `required`, or what stands inside the brackets of `[success=ok default=bad]`; libpam takes each with and without.
    pub(crate) fn parse(word: &[u8]) -> Result<Self, Illegible> {
        use Action::{Bad, Die, Done, Ignore};
        let simple = |success, ignore, default| {
            let mut control = Self([Some(default); NAMES.len()]);
            control.set(Answer::SUCCESS, Some(success));
            control.set(Answer::NEW_AUTHTOK_REQD, Some(success));
            control.set(Answer::IGNORE, Some(ignore));
            Ok(control)
        };
        match word.to_ascii_lowercase().as_slice() {
            b"required" => simple(Action::Ok, Ignore, Bad),
            b"requisite" => simple(Action::Ok, Ignore, Die),
            b"optional" => simple(Action::Ok, Ignore, Ignore),
            b"sufficient" => simple(Done, Ignore, Ignore),
            _ => Self::values(word),
        }
    }

    /// `value=action` one after the other; blanks between them are optional. `default` is for what was not named before it.
    fn values(mut text: &[u8]) -> Result<Self, Illegible> {
        let mut control = Self([None; NAMES.len()]);
        loop {
            text = trim(text);
            if text.is_empty() {
                break;
            }
            let named = Answer::all().find_map(|answer| Some((answer, text.strip_prefix(answer.name().as_bytes())?)));
            let (answer, rest) = match named {
                Some((answer, rest)) => (Some(answer), rest),
                None => (None, text.strip_prefix(b"default").ok_or(Illegible)?),
            };
            let (action, rest) = action(trim(trim(rest).strip_prefix(b"=").ok_or(Illegible)?)).ok_or(Illegible)?;
            match answer {
                Some(answer) => control.set(answer, action),
                None => control.set_rest(action),
            }
            text = rest;
        }
        control.set_rest(Some(Action::Bad));
        Ok(control)
    }

    /// What an answer leads to.
    pub(crate) fn action(&self, answer: Answer) -> Action {
        self.0.get(usize::from(answer.0)).copied().flatten().unwrap_or(Action::Bad)
    }

    fn set(&mut self, answer: Answer, action: Option<Action>) {
        if let Some(place) = self.0.get_mut(usize::from(answer.0)) {
            *place = action;
        }
    }

    fn set_rest(&mut self, action: Option<Action>) {
        for place in &mut self.0 {
            *place = place.or(action);
        }
    }
}

/// An action at the beginning of a text, and what is behind it. Without an action the answer is as if it had not been named.
fn action(text: &[u8]) -> Option<(Option<Action>, &[u8])> {
    let names: [(&[u8], Action); 6] = [
        (b"ignore", Action::Ignore),
        (b"ok", Action::Ok),
        (b"done", Action::Done),
        (b"bad", Action::Bad),
        (b"die", Action::Die),
        (b"reset", Action::Reset),
    ];
    if let Some(found) = names.iter().find_map(|(name, action)| Some((Some(*action), text.strip_prefix(*name)?))) {
        return Some(found);
    }
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    // An int of C, which runs over: its actions are the numbers below 0.
    let digit = |number: i32, digit: &u8| number.wrapping_mul(10).wrapping_add(i32::from(digit.wrapping_sub(b'0')));
    let action = match digits.iter().fold(0, digit) {
        0 => return None,
        -1 => Some(Action::Ok),
        -2 => Some(Action::Done),
        -3 => Some(Action::Bad),
        -4 => Some(Action::Die),
        -5 => Some(Action::Reset),
        -6 => None,
        number => Some(u32::try_from(number).map_or(Action::Broken, Action::Jump)),
    };
    Some((action, rest))
}

/// isspace(3) knows one more than Rust.
fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !byte.is_ascii_whitespace() && *byte != 0x0b).unwrap_or(text.len());
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Action::*;
    use super::*;

    /// The actions for success, new_authtok_reqd, ignore, auth_err and user_unknown.
    fn actions(word: &str) -> [Action; 5] {
        let control = Control::parse(word.as_bytes()).unwrap_or_else(|_| panic!("{word}"));
        [Answer::SUCCESS, Answer::NEW_AUTHTOK_REQD, Answer::IGNORE, Answer::AUTH_ERR, Answer::USER_UNKNOWN]
            .map(|answer| control.action(answer))
    }

    #[test]
    fn the_four_words_mean_what_the_manual_says() {
        assert_eq!(actions("required"), [Ok, Ok, Ignore, Bad, Bad]);
        assert_eq!(actions("Requisite"), [Ok, Ok, Ignore, Die, Die]);
        assert_eq!(actions("SUFFICIENT"), [Done, Done, Ignore, Ignore, Ignore]);
        assert_eq!(actions("optional"), [Ok, Ok, Ignore, Ignore, Ignore]);
    }

    #[test]
    fn what_is_not_named_is_the_default_and_without_one_bad() {
        assert_eq!(actions("success=1 default=ignore"), [Jump(1), Ignore, Ignore, Ignore, Ignore]);
        assert_eq!(actions("success = done\tauth_err=\x0bdie\r"), [Done, Bad, Bad, Die, Bad]);
        assert_eq!(actions("success=okdefault=reset"), [Ok, Reset, Reset, Reset, Reset]);
        assert_eq!(actions("default=ok success=bad default=die"), [Bad, Ok, Ok, Ok, Ok], "the first default counts");
        assert_eq!(actions(""), [Bad; 5]);
        assert_eq!(actions("success=12user_unknown=003"), [Jump(12), Bad, Bad, Bad, Jump(3)]);
    }

    #[test]
    fn a_jump_that_overflows_is_what_it_is_in_c() {
        let first = |word: &str| actions(word)[0];
        assert_eq!(first("success=4294967295"), Ok);
        assert_eq!(first("success=4294967290 default=die"), Die, "as if it were not there");
        assert_eq!(first("success=4294967289 default=die"), Broken);
        assert_eq!(first("success=4294967297"), Jump(1));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for word in
            ["sucess=ok", "success", "success=", "success=0", "success=ok,default=bad", "success=4294967296", "="]
        {
            assert_eq!(Control::parse(word.as_bytes()), Err(Illegible), "{word}");
        }
    }
}
