//! Who is not asked: exemptions that end and give their reason (PCI DSS 4.0.1, 8.5.1), and groups that need no code.

use super::values::{End, Name, Network, Set};
use crate::source::Source;
use crate::system::{addresses, groups};
use serde::Deserialize;
use std::fmt;

/// The one service that has no login without a PAM_RHOST: an empty one there means nothing good.
pub(super) const NEVER_LOCAL: &str = "sshd";

/// Somebody who logs in somewhere.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'a> {
    /// The canonical name.
    pub name: &'a [u8],
    /// The primary group. `None`: a name of no user database, in no group.
    pub gid: Option<u32>,
    /// PAM_SERVICE.
    pub service: &'a str,
    /// Where from.
    pub source: &'a Source,
}

/// `[[exempt]]`: all of who, from where, at what, until when and why, or it is an error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Exemption {
    users: Option<Set<Name>>,
    groups: Option<Set<Name>>,
    networks: Set<Network>,
    services: Set<Name>,
    /// When it is over.
    pub until: End,
    /// Why, for the log.
    pub reason: String,
    /// What libpam is told.
    pub result: Answer,
    shared_sources: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    users: Option<Set<Name>>,
    groups: Option<Set<Name>>,
    networks: Set<Network>,
    services: Set<Name>,
    until: End,
    reason: String,
    #[serde(default)]
    result: Answer,
    /// It holds for `shared_sources` too.
    #[serde(default)]
    shared_sources: bool,
}

/// What libpam is told about somebody who is exempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// PAM_IGNORE: the other modules decide.
    #[default]
    Ignore,
    /// PAM_SUCCESS, as if there had been a code.
    Success,
}

impl TryFrom<Written> for Exemption {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { users, groups, networks, services, until, reason, result, shared_sources } = written;
        if users.is_none() && groups.is_none() {
            return Err("missing field `users` or `groups`".to_owned());
        }
        if reason.trim().is_empty() {
            return Err("`reason` must say why".to_owned());
        }
        Ok(Self { users, groups, networks, services, until, reason, result, shared_sources })
    }
}

impl Exemption {
    /// Whether it is about this login, be it over or not. `shared`: sources that many people share.
    pub fn is_about(&self, visitor: &Visitor, shared: &[Network]) -> bool {
        // From the cheapest question to the dearest.
        self.services.has(visitor.service.as_bytes())
            && self.covers(visitor.source, visitor.service, shared)
            && self.is_about_person(visitor.name, visitor.gid)
    }

    /// Whether it is about somebody at a service, from wherever that may be.
    pub fn may_be_about(&self, name: &[u8], gid: u32, service: &str) -> bool {
        self.services.has(service.as_bytes()) && self.is_about_person(name, Some(gid))
    }

    /// A group that is unknown, or cannot be asked for, has no members here.
    fn is_about_person(&self, name: &[u8], gid: Option<u32>) -> bool {
        self.users.as_ref().is_some_and(|users| users.has(name)) || self.is_about_a_group_of(name, gid)
    }

    fn is_about_a_group_of(&self, name: &[u8], gid: Option<u32>) -> bool {
        match (&self.groups, gid) {
            (None, _) => false,
            (Some(Set::Any), _) => true,
            (Some(Set::Of(_)), None) => false,
            (Some(Set::Of(names)), Some(gid)) => {
                names.iter().any(|Name(group)| groups::is_member(name, gid, group) == Ok(Some(true)))
            }
        }
    }

    /// Whether somebody can be said to be where the exemption holds: not behind an address that is this machine's own (a
    /// forwarded connection), nor behind one that many share, unless that is what it is for.
    fn covers(&self, source: &Source, service: &str, shared: &[Network]) -> bool {
        match source {
            Source::Name(_) => false,
            Source::Local(_) => self.networks == Set::Any && service != NEVER_LOCAL,
            Source::Address(address) => {
                let is_listed = match &self.networks {
                    Set::Any => true,
                    Set::Of(networks) => networks.iter().any(|network| network.contains(*address)),
                };
                let is_shared = shared.iter().any(|network| network.contains(*address));
                is_listed
                    && (self.shared_sources || !is_shared)
                    && !source.is_here_or_next_door()
                    && addresses::is_own(*address) == Ok(false)
            }
        }
    }
}

impl Set<Name> {
    fn has(&self, name: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Of(names) => names.iter().any(|Name(listed)| listed.as_bytes() == name),
        }
    }
}

impl fmt::Display for Exemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(users) = &self.users {
            write!(f, "users {users} ")?;
        }
        if let Some(groups) = &self.groups {
            write!(f, "groups {groups} ")?;
        }
        let shared = if self.shared_sources { " (shared sources too)" } else { "" };
        let Self { networks, services, until, reason, .. } = self;
        write!(f, "from {networks}{shared} at {services} until {until}: {reason}")
    }
}

/// `[require]`: only these groups need a code. Whoever has a device is asked all the same.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenRequire")]
pub struct Require {
    groups: Vec<Name>,
    not_groups: Vec<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRequire {
    groups: Vec<String>,
}

impl TryFrom<WrittenRequire> for Require {
    type Error = String;

    fn try_from(written: WrittenRequire) -> Result<Self, String> {
        let (mut groups, mut not_groups) = (Vec::new(), Vec::new());
        for group in written.groups {
            match group.strip_prefix('!') {
                Some(group) => not_groups.push(Name::try_from(group.to_owned())?),
                None => groups.push(Name::try_from(group)?),
            }
        }
        if groups.is_empty() {
            // "Everybody but these" is what an exemption with an end is for.
            return Err("`groups` must name a group without `!`, or nobody needs a code".to_owned());
        }
        Ok(Self { groups, not_groups })
    }
}

impl Require {
    /// Whether a person needs a code: in one of the groups and in none of those with `!`. A group that is unknown or cannot
    /// be asked for means yes, and so does a name of no user database (`gid` is `None`). Where name services differ about who
    /// is in a group, that counts by which a code is needed.
    pub fn needs_a_code(&self, name: &[u8], gid: Option<u32>) -> bool {
        let Some(gid) = gid else { return true };
        let may_be_in = |Name(group): &Name| groups::may_be_member(name, gid, group).ok().flatten();
        let is_in = |Name(group): &Name| groups::is_member(name, gid, group).ok().flatten();
        match (in_one(self.groups.iter().map(may_be_in)), in_one(self.not_groups.iter().map(is_in))) {
            (Some(is_required), Some(is_spared)) => is_required && !is_spared,
            _ => true,
        }
    }

    /// The groups, for somebody who wants to know whether they exist.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().chain(&self.not_groups).map(|Name(group)| group.as_str())
    }
}

/// Whether one of the answers is yes. `None`: one of them is missing.
fn in_one(mut answers: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    answers.try_fold(false, |any, is_in| Some(any | is_in?))
}

impl fmt::Display for Require {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.groups.iter().map(Name::to_string);
        let others = self.not_groups.iter().map(|group| format!("!{group}"));
        f.write_str(&names.chain(others).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "users = [\"backup\"]\nnetworks = [\"192.0.2.0/24\"]\nservices = [\"sshd\"]\nuntil = 2027-01-31\n\
                        reason = \"nightly copies\"\n";

    fn exemption(text: &str) -> Exemption {
        toml::from_str(text).unwrap()
    }

    fn is_about(exemption: &Exemption, name: &str, service: &str, rhost: &str) -> bool {
        let source = Source::new(rhost.as_bytes(), 1000);
        let visitor = Visitor { name: name.as_bytes(), gid: Some(4_000_000_000), service, source: &source };
        exemption.is_about(&visitor, &[Network::try_from("192.0.2.7".to_owned()).unwrap()])
    }

    #[test]
    fn an_exemption_is_about_what_it_says() {
        let narrow = exemption(TEXT);
        assert!(is_about(&narrow, "backup", "sshd", "192.0.2.9"));
        assert!(is_about(&narrow, "backup", "sshd", "::ffff:192.0.2.9"));
        for (name, service, rhost) in [
            ("backup2", "sshd", "192.0.2.9"),
            ("backup", "su", "192.0.2.9"),
            ("backup", "sshd", "192.0.3.9"),
            ("backup", "sshd", "host.example.org"),
            ("backup", "sshd", ""),
            // One that many share.
            ("backup", "sshd", "192.0.2.7"),
        ] {
            assert!(!is_about(&narrow, name, service, rhost), "{name} {service} {rhost}");
        }
        assert!(is_about(&exemption(&format!("{TEXT}shared_sources = true\n")), "backup", "sshd", "192.0.2.7"));
        let from_anywhere = |name: &str, service| narrow.may_be_about(name.as_bytes(), 4_000_000_000, service);
        assert!(from_anywhere("backup", "sshd") && !from_anywhere("backup2", "sshd") && !from_anywhere("backup", "su"));
    }

    #[test]
    fn any_network_is_not_this_machine_itself() {
        let wide = exemption(&TEXT.replace("192.0.2.0/24", "any").replace("\"sshd\"", "\"sshd\", \"sudo\""));
        for rhost in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "fe80::1%eth0", "localhost", "192.0.2.7", ""] {
            assert!(!is_about(&wide, "backup", "sshd", rhost), "{rhost}");
        }
        assert!(is_about(&wide, "backup", "sshd", "198.51.100.1"));
        assert!(is_about(&wide, "backup", "sudo", ""), "somebody on this machine has no address");
        let listed = exemption(&TEXT.replace("192.0.2.0/24", "127.0.0.0/8"));
        assert!(!is_about(&listed, "backup", "sshd", "127.0.0.1"));
    }

    #[test]
    fn an_unknown_group_exempts_nobody_and_frees_nobody() {
        let unknown = exemption(&TEXT.replace("users = [\"backup\"]", "groups = [\"no-such-group-here\"]"));
        assert!(!is_about(&unknown, "backup", "sshd", "192.0.2.9"));
        assert!(is_about(
            &exemption(&TEXT.replace("users = [\"backup\"]", "groups = [\"any\"]")),
            "x",
            "sshd",
            "192.0.2.9"
        ));
        let require = |groups: &str| toml::from_str::<Require>(&format!("groups = [{groups}]")).unwrap();
        assert!(require("\"no-such-group-here\"").needs_a_code(b"alice", Some(4_000_000_000)));
        assert!(require("\"root\", \"!no-such-group-here\"").needs_a_code(b"alice", Some(4_000_000_000)));
        assert!(require("\"root\"").needs_a_code(b"root", Some(0)));
        assert!(!require("\"root\"").needs_a_code(b"alice", Some(4_000_000_000)));
        assert!(!require("\"root\", \"!root\"").needs_a_code(b"root", Some(0)));
    }

    #[test]
    fn each_key_of_an_exemption_has_to_be_there() {
        for (number, line) in TEXT.lines().enumerate() {
            let without: String =
                TEXT.lines().enumerate().filter(|(n, _)| *n != number).map(|(_, l)| format!("{l}\n")).collect();
            assert!(toml::from_str::<Exemption>(&without).is_err(), "without {line}");
        }
        for (from, to) in [
            ("[\"backup\"]", "[]"),
            ("[\"backup\"]", "\"backup\""),
            ("[\"192.0.2.0/24\"]", "[]"),
            ("\"192.0.2.0/24\"", "\"192.0.2.1/24\""),
            ("[\"sshd\"]", "[]"),
            ("2027-01-31", "\"2027-01-31\""),
            ("2027-01-31", "2027-02-31"),
            ("nightly copies", " "),
        ] {
            assert!(toml::from_str::<Exemption>(&TEXT.replace(from, to)).is_err(), "{to}");
        }
        assert!(toml::from_str::<Exemption>(&format!("{TEXT}result = \"permit\"\n")).is_err());
        for groups in ["", "\"!root\"", "\"!a\", \"!b\"", "\"\"", "\"!\"", "\"a b\"", "1"] {
            assert!(toml::from_str::<Require>(&format!("groups = [{groups}]")).is_err(), "{groups}");
        }
    }
}
