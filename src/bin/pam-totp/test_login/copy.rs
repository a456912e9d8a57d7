//! A copy of a service's stacks that does the same and says what each module answers.
//!
//! libpam does not tell which module answered what. So behind each rule there are others for each of its answers: one by
//! which `pam_echo` says whose answer it is, and one by which `pam_debug` says that answer and gives it again, with the
//! action that it had. The rule itself only jumps there, which to libpam 1.5.2 changes nothing of the result so far:
//!
//! ```text
//! auth [default=ignore] pam_echo.so file=7.call             # rule 7 is called
//! auth [success=1 open_err=4 ... default=ignore] MODULE     # the rule, each answer a jump
//! auth [default=92] pam_echo.so file=7.none                 # no answer that libpam knows: a failure already
//! auth [default=ignore] pam_echo.so file=7.answer           # what comes now is an answer of rule 7
//! auth [success=ACTION default=die] pam_debug.so auth=success
//! auth [default=89] pam_deny.so                             # over the other answers
//! auth [default=ignore] pam_echo.so file=7.answer
//! auth [open_err=ACTION default=die] pam_debug.so auth=open_err
//! ...
//! ```
//!
//! Jumps of the stack are translated. A substack stays one, in a file of its own: `done`, `die` and `reset` are about it.

use crate::pam_config::control::{Action, Answer, Control};
use crate::pam_config::{Call, Item, Place, Rule, Stack, Type, Whole, is_read_as};
use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Rules for an answer: who says whose it is, who says and gives it, and the jump over the rest.
const RULES_AN_ANSWER: usize = 3;
/// Rules before those: who says that it is called, itself, and who says that it has given no answer.
const RULES_BEFORE: usize = 3;
/// A number that no int has, and that libpam takes for a jump to nowhere: [`Action::Broken`] again.
const BROKEN: &str = "4294967289";

/// The files of the copy, and what they say by number.
pub(crate) struct Copy {
    /// By their names in the directory.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) rules: Vec<Copied>,
}

/// A rule of the copy.
pub(crate) struct Copied {
    #[allow(dead_code, reason = "the command tells")]
    pub(crate) kind: Type,
    pub(crate) rule: Rule,
    /// Its line has no room for all answers: it does what it does, and does not say what it has answered.
    #[allow(dead_code, reason = "the command tells")]
    pub(crate) is_watched: bool,
}

/// Why there is no copy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotCopied {
    /// libpam starts no login at this service.
    Refused,
    /// The stack has no end.
    Endless,
    /// What libpam makes of this line is what is in its memory.
    Chance(Place),
    /// The line cannot be written again: it is too long, or ends in what joins it with the next.
    Line(Place),
}

impl fmt::Display for NotCopied {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => write!(out, "libpam starts no login at this service: see pam-totp doctor"),
            Self::Endless => write!(out, "the stack has no end: see pam-totp doctor"),
            Self::Chance(place) => {
                write!(
                    out,
                    "{place}: what libpam makes of this line is left to chance: correct it, see pam-totp doctor"
                )
            }
            Self::Line(place) => {
                write!(out, "{place}: this line cannot be written again with what says its answer: shorten it")
            }
        }
    }
}

/// The text by which a rule of the copy says something: nobody else knows the nonce.
pub(crate) fn text(nonce: &str, what: &str, number: usize) -> String {
    format!("@{nonce}:{what}:{number}")
}

/// Copies both stacks of a service. The files are for this directory, whose path has no blanks.
pub(crate) fn copy(stacks: &[(Type, &Stack)], directory: &Path, nonce: &str) -> Result<Copy, NotCopied> {
    let mut writer =
        Writer { directory, nonce, kind: Type::Auth, copy: Copy { files: BTreeMap::new(), rules: Vec::new() } };
    let mut whole = Vec::new();
    let mut name = String::new();
    for (kind, stack) in stacks {
        match stack.whole {
            Whole::Read => {}
            Whole::Refused => return Err(NotCopied::Refused),
            Whole::Endless => return Err(NotCopied::Endless),
        }
        writer.kind = *kind;
        whole.extend(writer.stack(&stack.items)?);
        name.clone_from(&stack.service);
    }
    let mut copy = writer.copy;
    // libpam reads it too. Where the service has no rule, this had none either.
    copy.files.insert("other".to_owned(), Vec::new());
    copy.files.insert(name, whole);
    Ok(copy)
}

struct Writer<'a> {
    directory: &'a Path,
    nonce: &'a str,
    kind: Type,
    copy: Copy,
}

/// How many rules of the copy an item has become.
fn width(item: &Item) -> usize {
    match item {
        // To a jump it is one, whatever is in it.
        Item::Substack(_) => 1,
        Item::Rule(rule) => match form(rule) {
            Form::Watched => {
                // Behind the last answer there is nothing to be jumped over.
                answers().count().saturating_mul(RULES_AN_ANSWER).saturating_add(RULES_BEFORE).saturating_sub(1)
            }
            Form::Unwatched => 2,
            Form::Nobody => 3,
        },
    }
}

/// What a rule is written as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Watched,
    Unwatched,
    /// libpam itself answers.
    Nobody,
}

fn form(rule: &Rule) -> Form {
    // With the longest word for the type.
    let longest = line("-account", &jumps(), &rule.module, &rule.arguments);
    match rule.call {
        Call::Nobody | Call::Chance => Form::Nobody,
        Call::Module if longest.is_some() => Form::Watched,
        Call::Module => Form::Unwatched,
    }
}

/// What libpam looks up in a control: `incomplete` ends a login before.
fn answers() -> impl Iterator<Item = Answer> {
    Answer::all().filter(|&answer| answer != Answer::INCOMPLETE)
}

/// The control of a watched rule.
fn jumps() -> String {
    let jumps = answers().enumerate().map(|(index, answer)| {
        let over = index.saturating_mul(RULES_AN_ANSWER).saturating_add(1);
        format!("{answer}={over} ")
    });
    format!("{}default=ignore", jumps.collect::<String>())
}

impl Writer<'_> {
    /// The text of a (sub)stack.
    fn stack(&mut self, items: &[Item]) -> Result<Vec<u8>, NotCopied> {
        let widths: Vec<usize> = items.iter().map(width).collect();
        let mut text = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let behind = widths.get(index.saturating_add(1)..).unwrap_or_default();
            match item {
                Item::Rule(rule) => text.extend(self.rule(rule, behind)?),
                Item::Substack(inside) => text.extend(self.substack(inside)?),
            }
        }
        Ok(text)
    }

    fn substack(&mut self, items: &[Item]) -> Result<Vec<u8>, NotCopied> {
        let text = self.stack(items)?;
        // No service has such a name.
        let name = format!("{}.substack", self.copy.files.len());
        let path = self.directory.join(&name);
        self.copy.files.insert(name, text);
        Ok([self.word().as_bytes(), b" substack ", path.as_os_str().as_bytes(), b"\n"].concat())
    }

    /// All that is written for a rule. `behind`: how wide the items behind it are, in its (sub)stack.
    fn rule(&mut self, rule: &Rule, behind: &[usize]) -> Result<Vec<u8>, NotCopied> {
        if rule.call == Call::Chance {
            return Err(NotCopied::Chance(rule.place.clone()));
        }
        let number = self.copy.rules.len();
        let form = form(rule);
        self.copy.rules.push(Copied { kind: self.kind, rule: rule.clone(), is_watched: form != Form::Unwatched });
        let mut lines = vec![self.says("call", number, "ignore")];
        match form {
            Form::Watched => {
                lines.push(self.module(rule, &jumps())?);
                self.answers(rule, number, behind, &mut lines);
            }
            Form::Unwatched => lines.push(self.module(rule, &translated(&rule.control, behind))?),
            Form::Nobody => {
                lines.push(self.says("answer", number, "ignore"));
                lines.push(self.gives(rule, Answer::PERM_DENIED, 0, behind));
            }
        }
        Ok(lines.concat())
    }

    /// The lines behind a rule that is watched.
    fn answers(&mut self, rule: &Rule, number: usize, behind: &[usize], lines: &mut Vec<Vec<u8>>) {
        let mut left = answers().count().saturating_mul(RULES_AN_ANSWER).saturating_sub(1);
        lines.push(self.says("none", number, &left.to_string()));
        for answer in answers() {
            left = left.saturating_sub(RULES_AN_ANSWER);
            let is_last = left == 0;
            lines.push(self.says("answer", number, "ignore"));
            let rest = if is_last { 0 } else { left.saturating_add(1) };
            lines.push(self.gives(rule, answer, rest, behind));
            if !is_last {
                lines.push(format!("{} [default={left}] pam_deny.so\n", self.word()).into_bytes());
            }
        }
    }

    /// The rule itself.
    fn module(&self, rule: &Rule, control: &str) -> Result<Vec<u8>, NotCopied> {
        let dash = if rule.is_quiet { "-" } else { "" };
        let line = line(&format!("{dash}{}", self.word()), control, &rule.module, &rule.arguments);
        line.ok_or_else(|| NotCopied::Line(rule.place.clone()))
    }

    /// A rule that says something about another one.
    fn says(&mut self, what: &str, number: usize, action: &str) -> Vec<u8> {
        let name = format!("{number}.{what}");
        let path = self.directory.join(&name);
        self.copy.files.entry(name).or_insert_with(|| text(self.nonce, what, number).into_bytes());
        let start = format!("{} [default={action}] pam_echo.so file=", self.word());
        [start.as_bytes(), path.as_os_str().as_bytes(), b"\n"].concat()
    }

    /// A rule that gives the answer of another one, to what that makes of it. `rest`: lines of that one behind it.
    fn gives(&self, rule: &Rule, answer: Answer, rest: usize, behind: &[usize]) -> Vec<u8> {
        let event = if self.kind == Type::Account { "acct" } else { "auth" };
        let action = action(rule.control.action(answer), rest, behind);
        format!("{} [{answer}={action} default=die] pam_debug.so {event}={answer}\n", self.word()).into_bytes()
    }

    const fn word(&self) -> &'static str {
        match self.kind {
            Type::Account => "account",
            Type::Auth => "auth",
            Type::Password => "password",
            Type::Session => "session",
        }
    }
}

/// An action as a control has it, where a jump has other lengths to go.
fn action(action: Action, rest: usize, behind: &[usize]) -> String {
    match action {
        Action::Ignore => "ignore".to_owned(),
        Action::Ok => "ok".to_owned(),
        Action::Done => "done".to_owned(),
        Action::Bad => "bad".to_owned(),
        Action::Die => "die".to_owned(),
        Action::Reset => "reset".to_owned(),
        Action::Broken => BROKEN.to_owned(),
        Action::Jump(over) => {
            let over = usize::try_from(over).unwrap_or(usize::MAX);
            // Too far it has to be again.
            let beyond = usize::from(over > behind.len());
            let far =
                behind.iter().take(over).fold(rest.saturating_add(beyond), |far, width| far.saturating_add(*width));
            far.to_string()
        }
    }
}

/// The control of a rule that is not watched: the commonest action is the default.
fn translated(control: &Control, behind: &[usize]) -> String {
    let mut counts: Vec<(Action, usize)> = Vec::new();
    for answer in answers() {
        let action = control.action(answer);
        match counts.iter_mut().find(|(known, _)| *known == action) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => counts.push((action, 1)),
        }
    }
    let commonest = counts.iter().max_by_key(|(_, count)| *count).map_or(Action::Bad, |(action, _)| *action);
    let others = answers().filter(|&answer| control.action(answer) != commonest);
    let others = others.map(|answer| format!("{answer}={} ", action(control.action(answer), 0, behind)));
    format!("{}default={}", others.collect::<String>(), action(commonest, 0, behind))
}

/// A line of a PAM file. `None`: libpam would not read it as what it is.
fn line(kind: &str, control: &str, module: &[u8], arguments: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut words = vec![kind.as_bytes().to_vec(), control.as_bytes().to_vec(), module.to_vec()];
    words.extend_from_slice(arguments);
    let mut line = format!("{kind} [{control}]").into_bytes();
    for word in [module].into_iter().chain(arguments.iter().map(Vec::as_slice)) {
        line.push(b' ');
        line.extend(quoted(word));
    }
    if line.ends_with(b"\\") {
        // Or the next line would be a part of this one.
        line.extend(b" #");
    }
    line.push(b'\n');
    is_read_as(&line, &words).then_some(line)
}

/// A word, in brackets if it needs them.
fn quoted(word: &[u8]) -> Vec<u8> {
    if !word.is_empty() && !word.starts_with(b"[") && !word.iter().any(|byte| b" \t\n".contains(byte)) {
        return word.to_vec();
    }
    let mut quoted = b"[".to_vec();
    for &byte in word {
        if byte == b']' {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b']');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_it_has_to_be() {
        for (word, text) in
            [("a=b", "a=b"), ("a b", "[a b]"), ("", "[]"), ("[x", "[[x]"), ("a] b", "[a\\] b]"), ("a]b", "a]b")]
        {
            assert_eq!(quoted(word.as_bytes()), text.as_bytes());
            let line = line("auth", "default=ok", b"m.so", &[word.as_bytes().to_vec(), b"next".to_vec()]);
            let line = line.unwrap_or_else(|| panic!("{word}"));
            assert_eq!(String::from_utf8(line).unwrap(), format!("auth [default=ok] m.so {text} next\n"));
        }
        assert_eq!(line("auth", "default=ok", b"m.so", &[b"a\\".to_vec()]).unwrap(), b"auth [default=ok] m.so a\\ #\n");
        assert_eq!(line("auth", "default=ok", b"m.so", &[b"a b\\".to_vec()]), None);
        // libpam has room for 1023 bytes.
        let of = |length: usize| line("auth", "default=ok", b"m.so", &[vec![b'x'; length]]);
        assert_eq!(of(1000).map(|line| line.len()), Some(1024));
        assert_eq!(of(1001), None);
    }

    #[test]
    fn a_jump_goes_over_what_has_become_of_the_rules() {
        for (over, far) in [(1, "12"), (2, "13"), (3, "111"), (4, "112"), (9, "112")] {
            assert_eq!(action(Action::Jump(over), 2, &[10, 1, 98]), far);
        }
        let control = Control::parse(b"success=2 auth_err=die user_unknown=die default=ignore").unwrap();
        assert_eq!(translated(&control, &[5, 5]), "success=10 auth_err=die user_unknown=die default=ignore");
    }
}
