//! Where a login comes from: the other half of what is counted and exempted.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Bits of an IPv6 address that make a source. A single customer has at least a /64 (RFC 6177), and walks through it at
/// will.
const IPV6_PREFIX: u128 = u128::MAX << 64;

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// PAM_RHOST, where it is an IP address. An IPv4-mapped one (RFC 4291 section 2.5.5.2) is IPv4.
    Address(IpAddr),
    /// PAM_RHOST, where it is anything else. Names are never resolved (CVE-2024-10963), so this is in no network.
    Name(Vec<u8>),
    /// There is no PAM_RHOST: somebody on this machine, by the real uid of the process.
    Local(u32),
}

impl Source {
    /// Reads PAM_RHOST; `uid` is the caller's real one.
    pub fn new(rhost: &[u8], uid: u32) -> Self {
        if rhost.is_empty() {
            return Self::Local(uid);
        }
        let text = std::str::from_utf8(rhost).unwrap_or_default();
        match address(text) {
            Some(address) => Self::Address(address),
            None => Self::Name(rhost.to_ascii_lowercase()),
        }
    }

    /// The address, where there is one.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(_) | Self::Local(_) => None,
        }
    }

    /// Whether this machine itself is where the login comes from by the look of its address: loopback or link-local.
    /// `ssh -W localhost:22` through a bastion looks like that, whoever is at its other end.
    pub const fn is_here_or_next_door(&self) -> bool {
        match self {
            Self::Address(IpAddr::V4(address)) => {
                address.is_loopback() || address.is_link_local() || address.is_unspecified()
            }
            Self::Address(IpAddr::V6(address)) => {
                address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified()
            }
            Self::Name(_) | Self::Local(_) => false,
        }
    }

    /// What counts as one and the same source. A name that looks like something else is still a name.
    pub fn key(&self) -> Vec<u8> {
        let kind = match self {
            Self::Address(_) => 'a',
            Self::Name(_) => 'n',
            Self::Local(_) => 'l',
        };
        format!("{kind}{self}").into_bytes()
    }

    /// Whether it is somebody else at each host: a uid, or an address of the machine's own or from next door.
    pub const fn is_of_one_host(&self) -> bool {
        matches!(self, Self::Local(_)) || self.is_here_or_next_door()
    }

    /// The same where several hosts count together, for somebody who is at this one of them.
    pub fn key_at(&self, host: &str) -> Vec<u8> {
        let mut key = self.key();
        if self.is_of_one_host() {
            key.extend([b"@", host.as_bytes()].concat());
        }
        key
    }

    /// Reads what [`fmt::Display`] writes, for an operator who names a source.
    pub fn named(text: &str) -> Self {
        match text.strip_prefix("uid:").and_then(|uid| uid.parse().ok()) {
            Some(uid) => Self::Local(uid),
            None => Self::new(text.strip_suffix("/64").unwrap_or(text).as_bytes(), 0),
        }
    }
}

/// An address. A link-local one may have a zone (RFC 4007 section 11), which says which of our interfaces and not who is
/// there; behind any other, `%` is a part of a name.
fn address(text: &str) -> Option<IpAddr> {
    match text.split_once('%') {
        None => text.parse().ok().map(|address: IpAddr| address.to_canonical()),
        Some((address, _)) => address.parse().ok().filter(Ipv6Addr::is_unicast_link_local).map(IpAddr::V6),
    }
}

/// As `pam-totp throttle` shows it and takes it: `192.0.2.7`, `2001:db8:0:1::/64`, `host.example.org`, `uid:1000`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => {
                write!(f, "{}/64", Ipv6Addr::from_bits(address.to_bits() & IPV6_PREFIX))
            }
            Self::Name(name) => write!(f, "{}", crate::fact::Escaped(name)),
            Self::Local(uid) => write!(f, "uid:{uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_has_one_key() {
        for (rhost, key) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:0:1:aaaa::1", "2001:db8:0:1::/64"),
            ("2001:db8:0:1::2", "2001:db8:0:1::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("Host.Example.ORG", "host.example.org"),
            ("uid:0", "uid:0"),
            ("192.0.2.7 ", "192.0.2.7\\x20"),
            ("", "uid:1000"),
        ] {
            assert_eq!(Source::new(rhost.as_bytes(), 1000).to_string(), key, "{rhost:?}");
        }
        assert_ne!(Source::new(b"uid:0", 0).key(), Source::new(b"", 0).key());
        for named in ["192.0.2.7", "2001:db8:0:1::/64", "host.example.org", "uid:1000"] {
            assert_eq!(Source::named(named).to_string(), named);
        }
    }

    #[test]
    fn a_name_is_in_no_network() {
        for rhost in [
            "localhost",
            "192.0.2.9%.example.org",
            "2001:db8::1%eth0",
            "10.0.0.1.example.org",
            "10.0.0",
            "0x7f.1",
            "127.1",
            "uid:0",
            "\u{ff}",
        ] {
            assert_eq!(Source::new(rhost.as_bytes(), 0).address(), None, "{rhost}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_looks() {
        for rhost in
            ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "169.254.1.1", "fe80::1%eth0", "0.0.0.0", "::"]
        {
            assert!(Source::new(rhost.as_bytes(), 0).is_here_or_next_door(), "{rhost}");
        }
        for rhost in ["192.0.2.7", "10.0.0.1", "2001:db8::1", "", "localhost"] {
            assert!(!Source::new(rhost.as_bytes(), 0).is_here_or_next_door(), "{rhost}");
        }
    }
}
