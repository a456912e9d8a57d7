//! What a pattern of sshd's matches: names, hosts, addresses, and the files of an Include.

use std::net::IpAddr;

/// What a list of patterns says about a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// A pattern behind a `!` matches: that settles it, whatever else does.
    Negated,
    /// Nothing matches, or only patterns behind a `!` could have.
    No,
    /// A pattern matches.
    Yes,
}

/// The longest pattern that sshd looks at; a list with a longer one matches nothing.
const LONGEST: usize = 1023;

/// A list with commas, each pattern with `*` and `?`, and with `!` in front or without.
pub(super) fn list(name: &str, patterns: &str) -> Verdict {
    let mut verdict = Verdict::No;
    // A comma at the end ends the last pattern and starts none.
    for pattern in patterns.strip_suffix(',').unwrap_or(patterns).split(',') {
        let (negated, pattern) = pattern.strip_prefix('!').map_or((false, pattern), |pattern| (true, pattern));
        if pattern.len() >= LONGEST {
            return Verdict::No;
        }
        match (wildcard(name.as_bytes(), pattern.as_bytes()), negated) {
            (true, true) => return Verdict::Negated,
            (true, false) if !patterns.is_empty() => verdict = Verdict::Yes,
            _ => {}
        }
    }
    verdict
}

/// The names of hosts are compared without regard to case.
pub(super) fn host(name: &str, patterns: &str) -> Verdict {
    list(&name.to_ascii_lowercase(), &patterns.to_ascii_lowercase())
}

/// Groups: whoever is in one behind a `!` is out.
pub(super) fn groups(groups: &[String], patterns: &str) -> bool {
    let verdicts: Vec<Verdict> = groups.iter().map(|group| list(group, patterns)).collect();
    !verdicts.contains(&Verdict::Negated) && verdicts.contains(&Verdict::Yes)
}

/// A list of networks and of patterns for addresses. `None`: sshd refuses to start with it.
pub(super) fn addresses(address: Option<&str>, patterns: &str) -> Option<Verdict> {
    let parsed = address.and_then(|address| address.parse::<IpAddr>().ok());
    let mut verdict = Verdict::No;
    for pattern in patterns.split(',') {
        let (negated, pattern) = pattern.strip_prefix('!').map_or((false, pattern), |pattern| (true, pattern));
        if pattern.is_empty() {
            return None;
        }
        let matches = match Network::parse(pattern) {
            Network::Is(network) => parsed.is_some_and(|address| network.contains(&address)),
            Network::Inconsistent => return None,
            Network::IsNot => {
                parsed.is_some() && address.is_some_and(|address| wildcard(address.as_bytes(), pattern.as_bytes()))
            }
        };
        match (matches, negated) {
            (true, true) => return Some(Verdict::Negated),
            (true, false) => verdict = Verdict::Yes,
            (false, _) => {}
        }
    }
    Some(verdict)
}

/// Something that may be a network.
enum Network {
    Is(ipnet::IpNet),
    /// An address behind which there is a mask that does not fit it.
    Inconsistent,
    IsNot,
}

impl Network {
    fn parse(text: &str) -> Self {
        let (address, mask) = text.split_once('/').map_or((text, None), |(address, mask)| (address, Some(mask)));
        let Ok(address) = address.parse::<IpAddr>() else { return Self::IsNot };
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let mask = match mask.map(str::parse::<u8>) {
            None => widest,
            Some(Ok(mask)) if mask <= 128 => mask,
            Some(_) => return Self::IsNot,
        };
        match ipnet::IpNet::new(address, mask) {
            Ok(network) if network.network() == address => Self::Is(network),
            _ => Self::Inconsistent,
        }
    }
}

/// `*` and `?`; in time that grows with the product of the two lengths at most.
pub(super) fn wildcard(name: &[u8], pattern: &[u8]) -> bool {
    let (mut rest, mut pattern) = (name, pattern);
    // Where the last `*` stood: what comes after it, and what it has not swallowed yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), rest.split_first()) {
            (Some((b'*', after)), _) => {
                star = Some((after, rest));
                pattern = after;
            }
            (Some((wanted, after)), Some((byte, tail))) if *wanted == b'?' || wanted == byte => {
                (pattern, rest) = (after, tail);
            }
            (None, None) => return true,
            _ => {
                let Some((after, [_, left @ ..])) = star else { return false };
                star = Some((after, left));
                (pattern, rest) = (after, left);
            }
        }
    }
}

/// Whether a name in a directory fits one component of a pattern of glob(7). A dot in front must be there in the pattern.
pub(super) fn component(name: &[u8], pattern: &[u8]) -> bool {
    if name.starts_with(b".") && !pattern.starts_with(b".") && !pattern.starts_with(b"\\.") {
        return false;
    }
    let (mut rest, mut pattern) = (name, pattern);
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', after)) = pattern.split_first() {
            star = Some((after, rest));
            pattern = after;
            continue;
        }
        let step = rest.split_first().and_then(|(byte, tail)| Some((one(*byte, pattern)?, tail)));
        match step {
            Some(step) => (pattern, rest) = step,
            None if pattern.is_empty() && rest.is_empty() => return true,
            None => {
                let Some((after, [_, left @ ..])) = star else { return false };
                star = Some((after, left));
                (pattern, rest) = (after, left);
            }
        }
    }
}

/// What is left of a pattern whose first element, no `*`, fits a byte.
fn one(byte: u8, pattern: &[u8]) -> Option<&[u8]> {
    match pattern {
        [b'?', after @ ..] => Some(after),
        [b'[', set @ ..] => match bracket(byte, set) {
            Some((fits, after)) => fits.then_some(after),
            // Never closed: a bracket like any other character.
            None => (byte == b'[').then_some(set),
        },
        [b'\\', wanted, after @ ..] | [wanted, after @ ..] => (*wanted == byte).then_some(after),
        [] => None,
    }
}

/// Whether a byte is in a bracket expression, and what comes behind its end. `None`: it has none.
fn bracket(byte: u8, set: &[u8]) -> Option<(bool, &[u8])> {
    let (negated, mut set) = match set {
        [b'!' | b'^', set @ ..] => (true, set),
        _ => (false, set),
    };
    let mut found = false;
    let mut first = true;
    loop {
        set = match set {
            [b']', after @ ..] if !first => return Some((found != negated, after)),
            [low, b'-', high, after @ ..] if *high != b']' => {
                found |= (*low..=*high).contains(&byte);
                after
            }
            [wanted, after @ ..] => {
                found |= *wanted == byte;
                after
            }
            [] => return None,
        };
        first = false;
    }
}

/// Whether a component of a path is a pattern at all.
pub(super) fn is_pattern(component: &[u8]) -> bool {
    component.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}
