//! How many codes may be wrong, in pam_abl's rule language.
//!
//! ```text
//! rule       ::= clause (blanks clause)*          "": no rule
//! clause     ::= who ':' trigger (',' trigger)*
//! who        ::= ['!'] name-service ('|' name-service)*
//! name-service ::= name | name '/' name           a user, or a user at a service; '*' is any
//! trigger    ::= number '/' number[s|m|h|d]       so many failures in so much time
//! ```
//!
//! A clause is for the tries that its first part names (with `!`: for all others), and any trigger of any such clause
//! that is reached blocks.

use super::RELATIVES;
use super::values::{DAY, Network, Span, seconds};
use crate::source::Source;
use serde::Deserialize;
use std::fmt;

/// Most failures that a trigger can ask for: the ledger remembers that many (RFC 4226 section 7.3 wants few; NIST SP
/// 800-63B-4 section 3.2.2 allows 100).
pub const MAX_FAILURES: u64 = 100;
/// Longest time that a trigger can look back.
pub const MAX_PERIOD: u64 = 30 * DAY;

/// The rules of a host: ten wrong codes an hour and thirty a day, a person and a source. At the usual three live codes
/// of six digits, thirty a day guess right once in thirty years.
const DEFAULT_RULE: &str = "*:10/1h,30/1d";

/// `[throttle]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Throttle {
    /// What blocks a person.
    pub user: Rule,
    /// What blocks a source.
    pub host: Rule,
    /// People whose failures are not counted.
    pub user_whitelist: Vec<WhoAt>,
    /// Sources whose failures are not counted.
    pub host_whitelist: Vec<Network>,
}

impl Default for Throttle {
    fn default() -> Self {
        let rule = || Rule::parse(DEFAULT_RULE).unwrap_or_default();
        Self { user: rule(), host: rule(), user_whitelist: Vec::new(), host_whitelist: Vec::new() }
    }
}

impl Throttle {
    /// Whether this person's failures at this service are not counted.
    pub fn spares_user(&self, user: &[u8], service: &[u8]) -> bool {
        self.user_whitelist.iter().any(|listed| listed.is(user, service))
    }

    /// Whether failures from this source are not counted.
    pub fn spares_source(&self, source: &Source) -> bool {
        let address = source.address();
        address.is_some_and(|address| self.host_whitelist.iter().any(|network| network.contains(address)))
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Rule {
    clauses: Vec<Clause>,
    written: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    is_negated: bool,
    who: Vec<WhoAt>,
    triggers: Vec<Trigger>,
}

/// A user, or anybody (`*`), at a service, or at any.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WhoAt {
    user: Option<String>,
    service: Option<String>,
}

/// So many failures in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trigger {
    /// 1 to [`MAX_FAILURES`].
    pub failures: u64,
    /// Seconds, 1 to [`MAX_PERIOD`].
    pub period: u64,
}

impl Rule {
    /// The triggers of the clauses that are for this try.
    pub fn triggers(&self, user: &[u8], service: &[u8]) -> Vec<Trigger> {
        let clauses = self.clauses.iter().filter(|clause| clause.is_for(user, service));
        clauses.flat_map(|clause| clause.triggers.iter().copied()).collect()
    }

    /// The longest time that any trigger looks back; 0 without a trigger.
    pub fn longest_period(&self) -> u64 {
        let triggers = self.clauses.iter().flat_map(|clause| &clause.triggers);
        triggers.map(|trigger| trigger.period).max().unwrap_or(0)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let clauses = text.split_whitespace().map(Clause::parse).collect::<Result<_, _>>()?;
        Ok(Self { clauses, written: text.to_owned() })
    }
}

impl Clause {
    /// What is said of su and sudo is said of their login shells too.
    fn is_for(&self, user: &[u8], service: &[u8]) -> bool {
        let relative =
            RELATIVES.iter().find(|(name, _)| name.as_bytes() == service).map(|(_, relative)| relative.as_bytes());
        let names = |who: &WhoAt| who.is(user, service) || relative.is_some_and(|relative| who.is(user, relative));
        self.who.iter().any(names) != self.is_negated
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (who, triggers) =
            text.rsplit_once(':').ok_or_else(|| format!("`{text}` is no clause such as *:10/1h,30/1d"))?;
        let (is_negated, names) = match who.strip_prefix('!') {
            Some(names) => (true, names),
            None => (false, who),
        };
        let who = names.split('|').map(|name| WhoAt::try_from(name.to_owned())).collect::<Result<_, _>>()?;
        let triggers = triggers.split(',').map(Trigger::parse).collect::<Result<_, _>>()?;
        Ok(Self { is_negated, who, triggers })
    }
}

impl WhoAt {
    fn is(&self, user: &[u8], service: &[u8]) -> bool {
        let is = |wanted: &Option<String>, name: &[u8]| wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == name);
        is(&self.user, user) && is(&self.service, service)
    }
}

impl TryFrom<String> for WhoAt {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (user, service) = text.split_once('/').unwrap_or((&text, "*"));
        let is_word =
            |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "|/!:,".contains(c));
        let name = |word: &str| match word {
            "*" => Ok(None),
            word if is_word(word) && !word.contains('*') => Ok(Some(word.to_owned())),
            _ => Err(format!("`{}` is neither a user, nor user/service, nor *", text.escape_debug())),
        };
        Ok(Self { user: name(user)?, service: name(service)? })
    }
}

impl Trigger {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = || {
            format!("`{text}` is no trigger such as 10/1h: 1 to {MAX_FAILURES} failures in 1s to {}", Span(MAX_PERIOD))
        };
        let (failures, period) = text.split_once('/').ok_or_else(expected)?;
        let is_number = failures.bytes().all(|byte| byte.is_ascii_digit());
        let failures = failures.parse().ok().filter(|n| is_number && (1..=MAX_FAILURES).contains(n));
        let period = seconds(period).filter(|seconds| (1..=MAX_PERIOD).contains(seconds));
        failures.zip(period).map(|(failures, period)| Self { failures, period }).ok_or_else(expected)
    }

    /// The most failures that can be had in any stretch of `length` seconds.
    pub const fn most_in(self, length: u64) -> u64 {
        self.failures.saturating_mul(length.div_ceil(if self.period == 0 { 1 } else { self.period }))
    }
}

impl TryFrom<String> for Rule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.written)
    }
}

impl fmt::Display for WhoAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.user.as_deref().unwrap_or("*"))?;
        self.service.as_ref().map_or(Ok(()), |service| write!(f, "/{service}"))
    }
}

/// `10/1h`.
impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.failures, Span(self.period))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triggers(rule: &str, user: &str, service: &str) -> Vec<String> {
        let rule = Rule::parse(rule).unwrap();
        rule.triggers(user.as_bytes(), service.as_bytes()).iter().map(Trigger::to_string).collect()
    }

    #[test]
    fn a_clause_is_for_those_whom_it_names() {
        assert_eq!(triggers("*:10/1h,30/1d", "alice", "sshd"), ["10/1h", "30/1d"]);
        assert_eq!(triggers("!root:10/1h", "alice", "sshd"), ["10/1h"]);
        assert!(triggers("!root:10/1h", "root", "sshd").is_empty());
        assert_eq!(triggers("root|admin/su:3/90 *:10/1h", "admin", "su"), ["3/90s", "10/1h"]);
        assert_eq!(triggers("root|admin/su:3/90 *:10/1h", "admin", "sshd"), ["10/1h"]);
        assert_eq!(triggers("*/su:3/1m", "alice", "su"), ["3/1m"]);
        assert_eq!(triggers("*/su:3/1m", "alice", "su-l"), ["3/1m"]);
        assert!(triggers("*/su-l:3/1m", "alice", "su").is_empty());
        assert!(triggers("*/su:3/1m", "alice", "sshd").is_empty());
        assert!(triggers("!root|alice/sshd:3/1m", "alice", "sshd").is_empty());
        assert_eq!(triggers("!root|alice/sshd:3/1m", "alice", "su"), ["3/1m"]);
    }

    #[test]
    fn an_empty_rule_blocks_nobody() {
        for rule in ["", "  "] {
            assert!(triggers(rule, "alice", "sshd").is_empty());
        }
    }

    #[test]
    fn what_is_no_rule_is_an_error() {
        for rule in [
            "*",
            ":1/1h",
            "*:",
            "*:1",
            "*:/1h",
            "*:1/",
            "*:0/1h",
            "*:101/1h",
            "*:1/0s",
            "*:1/31d",
            "*:1/1w",
            "*:1/1h,",
            "*:-1/1h",
            "*:+1/1h",
            "*:1/+1h",
            "!:1/1h",
            "a||b:1/1h",
            "a/b/c:1/1h",
            "a/:1/1h",
            "/b:1/1h",
            "a*:1/1h",
            "!!a:1/1h",
            "a b:1/1h",
            "*:1/1h,2",
            "*:99999999999999999999/1h",
        ] {
            assert!(Rule::parse(rule).is_err(), "{rule}");
        }
    }

    #[test]
    fn whitelists() {
        let throttle: Throttle =
            toml::from_str("user_whitelist = [\"backup\", \"*/cron\"]\nhost_whitelist = [\"192.0.2.0/24\"]").unwrap();
        assert!(throttle.spares_user(b"backup", b"sshd") && throttle.spares_user(b"alice", b"cron"));
        assert!(!throttle.spares_user(b"alice", b"sshd"));
        assert!(throttle.spares_source(&Source::new(b"::ffff:192.0.2.9", 0)));
        assert!(
            !throttle.spares_source(&Source::new(b"192.0.3.9", 0)) && !throttle.spares_source(&Source::new(b"", 0))
        );
        assert_eq!(throttle.user, Throttle::default().user, "what is not stated has its default");
    }

    #[test]
    fn the_most_that_a_trigger_lets_pass() {
        let trigger = |failures, period| Trigger { failures, period };
        assert_eq!(
            [trigger(10, 3600).most_in(DAY), trigger(30, DAY).most_in(DAY), trigger(5, 7 * DAY).most_in(DAY)],
            [240, 30, 5]
        );
    }
}
