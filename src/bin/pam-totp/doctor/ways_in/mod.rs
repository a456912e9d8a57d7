//! What the settings of sshd let somebody do: by which methods one gets in, which of them ask for a code, and what there is to
//! put right. PAM's own part, what the stack asks for, is not judged here.

use super::sshd_config::{Effective, Forwarding, Key, Origin, RootLogin, Setting, Tunnel};
use std::fmt::{self, Display, Formatter};

/// Who comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// Somebody whose uid is not 0.
    Person,
    /// PermitRootLogin counts.
    Root,
}

/// A method of RFC 4252, as AuthenticationMethods names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Method {
    PublicKey,
    KeyboardInteractive,
    Password,
    HostBased,
    /// `gssapi-with-mic`, and `gssapi-keyex` of the distributions.
    Gssapi,
    /// No credentials: an empty password, where those are allowed.
    None,
}

/// What a way asks of PAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asks {
    /// The stack for `auth`, with each of its questions put to the person.
    EachQuestion,
    /// The same stack, every hidden question of which gets the one password that was typed.
    OnePassword,
    /// Nothing: a stack for `auth` is not run.
    Nothing,
}

/// Methods of which all must succeed, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    pub(crate) methods: Vec<Method>,
    pub(crate) asks: Asks,
    /// A key gets in for its own `command=` alone (PermitRootLogin forced-commands-only).
    pub(crate) is_for_a_command: bool,
}

/// What the policy says that matters to sshd's settings.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Circumstances {
    /// People get a device inside their first login.
    pub(crate) inline_enrolment: bool,
    /// `identity = "login-key"`: the key says who it is.
    pub(crate) login_key: bool,
    /// There are networks from which no code is asked for.
    pub(crate) exemptions: bool,
}

/// Something to put right, the worst first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Found {
    /// No method is left by which anybody gets in.
    NobodyGetsIn,
    /// Root may log in, and no way is left: their keyboard-interactive is refused.
    RootLockedOut,
    /// An empty password is enough.
    EmptyPassword,
    /// `UsePAM no`: no stack is run, whatever is in it.
    PamOff,
    KeyAlone,
    /// The same for a key with a command.
    CommandKeyAlone,
    /// A password that sshd or Kerberos checks, not PAM.
    PasswordAlone,
    /// What tutorials show for a second factor, and is two times the first.
    KeyAndPassword,
    HostAlone,
    GssapiAlone,
    /// Several methods, none of which asks for a code.
    OthersWithoutCode,
    /// The stack is run, and cannot ask: sshd answers each of its questions with the typed password.
    PasswordForEverything,
    /// `password` and `keyboard-interactive` in one list: the stack is run for each.
    PasswordBeforeQuestions,
    /// Who gets in without a code is held to a command, and may forward all the same.
    ForcedCommandForwards,
    /// No way asks questions, as `KbdInteractiveAuthentication no`.
    QuestionsOff,
    /// A list of AuthenticationMethods that sshd drops: this method in it is off.
    DroppedList(String),
    /// A list with a device behind a colon that there is not.
    UnknownDevice(String),
    /// Whoever holds a key of an account can add another one.
    KeysOfTheUser,
    /// Less time to log in than it takes to get a device.
    GraceTooShort(u32),
    /// People whom the host lets through come from its own addresses, or from within its networks.
    Forwards,
}

impl Display for Found {
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        let text = match self {
            Self::NobodyGetsIn => "no method is left by which anybody gets in",
            Self::RootLockedOut => {
                "root may log in, but keyboard-interactive is refused to root, so that no way is left"
            }
            Self::EmptyPassword => "an empty password is enough",
            Self::PamOff => "sshd does not ask PAM, so that no code is asked for",
            Self::KeyAlone => "a key alone is enough",
            Self::CommandKeyAlone => "a key with a command alone is enough",
            Self::PasswordAlone => "a password alone is enough, and PAM is not asked about it",
            Self::KeyAndPassword => "key and password are enough: no code is asked for",
            Self::HostAlone => "the word of another host is enough (hostbased)",
            Self::GssapiAlone => "a Kerberos ticket alone is enough (gssapi)",
            Self::OthersWithoutCode => "methods that ask for no code are enough",
            Self::PasswordForEverything => {
                "passwords are taken by sshd and given to PAM as the answer to each question, that for the code too"
            }
            Self::PasswordBeforeQuestions => "a password and questions are asked for, and the stack is run for each",
            Self::ForcedCommandForwards => "who gets in without a code is held to a command, but may forward",
            Self::QuestionsOff => "sshd asks no questions, so that there is no prompt for a code",
            Self::DroppedList(list) => {
                return write!(formatter, "sshd drops `{}`: a method in it is off", list.escape_debug());
            }
            Self::UnknownDevice(list) => {
                return write!(formatter, "nobody gets in by `{}`: there is no such device", list.escape_debug());
            }
            Self::KeysOfTheUser => "who is in can add a key of their own to the account",
            Self::GraceTooShort(seconds) => {
                return write!(formatter, "{seconds} s to log in are too short to get a device");
            }
            Self::Forwards => "connections through this host come from addresses that may be exempt",
        };
        formatter.write_str(text)
    }
}

/// What was found for somebody, why, and the line that puts it right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    pub(crate) found: Found,
    pub(crate) who: Who,
    /// The setting that is the cause, and where it stands.
    pub(crate) key: Key,
    pub(crate) origin: Origin,
    /// The exact line to write, in the place of the cause or before everything else.
    pub(crate) line: &'static str,
}

/// Key, then code: what the README says to set.
pub(crate) const KEY_AND_CODE: &str = "AuthenticationMethods publickey,keyboard-interactive";
/// A person has to read, scan, and type (README: enrolment inside the first login).
const SHORTEST_GRACE: u32 = 60;

/// By what somebody gets in.
pub(crate) fn ways(effective: &Effective, who: Who) -> Vec<Way> {
    let judge = Judge { effective, who };
    let lists = &effective.authentication_methods.value;
    if lists.is_empty() {
        // `any`: each method that is on, alone.
        let all = ["publickey", "keyboard-interactive", "password", "hostbased", "gssapi-with-mic", "none"];
        return all.iter().filter_map(|method| judge.way(method).ok()).collect();
    }
    lists.iter().filter_map(|list| judge.way(list).ok()).collect()
}

/// What there is to put right for somebody, the worst first.
pub(crate) fn judge(effective: &Effective, who: Who, circumstances: Circumstances) -> Vec<Finding> {
    let mut findings = Vec::new();
    if who == Who::Root && effective.permit_root_login.value == RootLogin::No {
        return findings;
    }
    let judge = Judge { effective, who };
    let ways = ways(effective, who);
    for way in &ways {
        findings.extend(judge.way_without_code(way));
    }
    findings.extend(judge.methods(&ways));
    findings.extend(judge.sessions(&ways, circumstances));
    findings.sort_by(|one, other| one.found.cmp(&other.found));
    findings.dedup_by(|one, other| one.found == other.found);
    findings
}

/// Why a list is no way in.
enum Hindrance {
    /// The setting by which one of its methods is off: sshd drops the list.
    Off(Key),
    /// There is nothing that could answer.
    NoDevice,
    /// Refused to root.
    RefusedToRoot,
}

struct Judge<'a> {
    effective: &'a Effective,
    who: Who,
}

impl Judge<'_> {
    fn way(&self, list: &str) -> Result<Way, Hindrance> {
        let elements: Vec<(&str, Option<&str>)> = list
            .split(',')
            .map(|element| element.split_once(':').map_or((element, None), |(method, device)| (method, Some(device))))
            .collect();
        let mut methods = Vec::new();
        for (name, _) in &elements {
            methods.push(self.method(name)?);
        }
        let knows = |(name, device): &(&str, Option<&str>)| match *name {
            // Where PAM is not used there is none on Linux.
            "keyboard-interactive" => self.effective.use_pam.value && device.is_none_or(|device| device == "pam"),
            _ => device.is_none(),
        };
        if !elements.iter().all(knows) {
            return Err(Hindrance::NoDevice);
        }
        if self.who == Who::Root && !self.root_may(&methods) {
            return Err(Hindrance::RefusedToRoot);
        }
        let asks = if methods.contains(&Method::KeyboardInteractive) {
            Asks::EachQuestion
        } else if methods.contains(&Method::Password) && self.pam_checks_passwords() {
            Asks::OnePassword
        } else {
            Asks::Nothing
        };
        let is_for_a_command =
            self.who == Who::Root && self.effective.permit_root_login.value == RootLogin::ForcedCommandsOnly;
        Ok(Way { methods, asks, is_for_a_command })
    }

    /// The method of this name, if it is on.
    fn method(&self, name: &str) -> Result<Method, Hindrance> {
        let method = match name {
            "publickey" => Method::PublicKey,
            "keyboard-interactive" => Method::KeyboardInteractive,
            "password" => Method::Password,
            "hostbased" => Method::HostBased,
            "gssapi-with-mic" | "gssapi-keyex" => Method::Gssapi,
            _ => Method::None,
        };
        // sshd tries an empty password for `none`, if it takes passwords at all.
        let empty = [&self.effective.password, &self.effective.permit_empty_passwords];
        let off = match self.effective.switch(name) {
            Some(switch) => Some(switch).filter(|switch| !switch.value),
            None => empty.into_iter().find(|switch| !switch.value),
        };
        off.map_or(Ok(method), |switch| Err(Hindrance::Off(switch.key)))
    }

    /// Whether PermitRootLogin takes each of these methods.
    fn root_may(&self, methods: &[Method]) -> bool {
        match self.effective.permit_root_login.value {
            RootLogin::Yes => true,
            RootLogin::ProhibitPassword => {
                methods.iter().all(|method| matches!(method, Method::PublicKey | Method::HostBased | Method::Gssapi))
            }
            // The key must come first, as it brings the command. An answer of root's is never handed to PAM.
            RootLogin::ForcedCommandsOnly => {
                let is_answered =
                    |method: &Method| matches!(method, Method::Password | Method::None | Method::KeyboardInteractive);
                methods.first() == Some(&Method::PublicKey) && !methods.iter().any(is_answered)
            }
            RootLogin::No => false,
        }
    }

    fn pam_checks_passwords(&self) -> bool {
        self.effective.use_pam.value && !self.effective.kerberos.value
    }

    fn finding<T>(&self, found: Found, cause: &Setting<T>, line: &'static str) -> Finding {
        Finding { found, who: self.who, key: cause.key, origin: cause.origin.clone(), line }
    }

    /// What is wrong with a way by which no code is asked for.
    fn way_without_code(&self, way: &Way) -> Option<Finding> {
        let effective = self.effective;
        let methods = &effective.authentication_methods;
        let found = match (way.asks, way.methods.as_slice()) {
            (Asks::EachQuestion, methods) if methods.contains(&Method::Password) && self.pam_checks_passwords() => {
                Found::PasswordBeforeQuestions
            }
            (Asks::EachQuestion, _) => return None,
            (_, [Method::None]) => {
                let cause = &effective.permit_empty_passwords;
                return Some(self.finding(Found::EmptyPassword, cause, "PermitEmptyPasswords no"));
            }
            (Asks::OnePassword, [Method::Password]) => Found::PasswordForEverything,
            (_, [Method::Password]) => Found::PasswordAlone,
            (_, [Method::PublicKey]) if way.is_for_a_command => Found::CommandKeyAlone,
            (_, several) if several.iter().all(|method| *method == Method::PublicKey) => Found::KeyAlone,
            (_, [Method::HostBased]) => Found::HostAlone,
            (_, [Method::Gssapi]) => Found::GssapiAlone,
            (_, [Method::PublicKey, Method::Password] | [Method::Password, Method::PublicKey]) => Found::KeyAndPassword,
            _ => Found::OthersWithoutCode,
        };
        // With `any`, what is in the way is that the method is on; but a key is wanted as the first of two.
        let is_any = methods.value.is_empty();
        let (cause, line) = match found {
            Found::PasswordForEverything | Found::PasswordAlone if is_any => {
                (&effective.password, "PasswordAuthentication no")
            }
            Found::HostAlone if is_any => (&effective.hostbased, "HostbasedAuthentication no"),
            Found::GssapiAlone if is_any => (&effective.gssapi, "GSSAPIAuthentication no"),
            _ => return Some(self.finding(found, methods, KEY_AND_CODE)),
        };
        Some(self.finding(found, cause, line))
    }

    /// What is wrong with the methods as such.
    fn methods(&self, ways: &[Way]) -> Vec<Finding> {
        let effective = self.effective;
        let mut findings = Vec::new();
        let mut refused_to_root = false;
        for list in &effective.authentication_methods.value {
            match self.way(list) {
                Ok(_) => {}
                Err(Hindrance::RefusedToRoot) => refused_to_root = true,
                // Said once, by PamOff.
                Err(Hindrance::NoDevice) if !effective.use_pam.value => {}
                Err(Hindrance::NoDevice) => {
                    let cause = &effective.authentication_methods;
                    findings.push(self.finding(Found::UnknownDevice(list.clone()), cause, KEY_AND_CODE));
                }
                Err(Hindrance::Off(key)) => {
                    findings.push(self.switching_on(Found::DroppedList(list.clone()), key));
                }
            }
        }
        if !effective.use_pam.value {
            findings.push(self.finding(Found::PamOff, &effective.use_pam, "UsePAM yes"));
        } else if !effective.kbd_interactive.value {
            let cause = &effective.kbd_interactive;
            findings.push(self.finding(Found::QuestionsOff, cause, "KbdInteractiveAuthentication yes"));
        }
        if ways.is_empty() && refused_to_root {
            findings.push(self.finding(Found::RootLockedOut, &effective.permit_root_login, "PermitRootLogin yes"));
        } else if ways.is_empty() {
            findings.push(self.nobody());
        }
        findings
    }

    /// Why no way is left.
    fn nobody(&self) -> Finding {
        let effective = self.effective;
        let found = Found::NobodyGetsIn;
        let lists = &effective.authentication_methods.value;
        if lists.is_empty() {
            return self.finding(found, &effective.pubkey, "PubkeyAuthentication yes");
        }
        let off = lists.iter().find_map(|list| match self.way(list) {
            Err(Hindrance::Off(key)) => Some(key),
            _ => None,
        });
        match off {
            _ if !effective.use_pam.value => self.finding(found, &effective.use_pam, "UsePAM yes"),
            Some(key) => self.switching_on(found, key),
            None => self.finding(found, &effective.authentication_methods, KEY_AND_CODE),
        }
    }

    /// A list is void as this is off. Methods that ask for no code are better left off.
    fn switching_on(&self, found: Found, key: Key) -> Finding {
        let effective = self.effective;
        match key {
            Key::Pubkey => self.finding(found, &effective.pubkey, "PubkeyAuthentication yes"),
            Key::KbdInteractive => self.finding(found, &effective.kbd_interactive, "KbdInteractiveAuthentication yes"),
            _ => self.finding(found, &effective.authentication_methods, KEY_AND_CODE),
        }
    }

    /// What is wrong around the methods: keys, time, and what a session may do.
    fn sessions(&self, ways: &[Way], circumstances: Circumstances) -> Vec<Finding> {
        let effective = self.effective;
        let mut findings = Vec::new();
        let is_without_code = ways.iter().any(|way| way.asks != Asks::EachQuestion);
        if effective.force_command.value.is_some() && is_without_code && self.forwards().is_some() {
            findings.push(self.finding(
                Found::ForcedCommandForwards,
                &effective.force_command,
                "DisableForwarding yes",
            ));
        }
        if circumstances.exemptions
            && let Some((key, origin)) = self.forwards()
        {
            let line = if key == Key::PermitTunnel { "PermitTunnel no" } else { "DisableForwarding yes" };
            findings.push(Finding { found: Found::Forwards, who: self.who, key, origin, line });
        }
        let grace = &effective.login_grace_time;
        if circumstances.inline_enrolment && (1..SHORTEST_GRACE).contains(&grace.value) {
            findings.push(self.finding(Found::GraceTooShort(grace.value), grace, "LoginGraceTime 120"));
        }
        let keys = &effective.authorized_keys_file;
        if circumstances.login_key && effective.pubkey.value && keys.value.iter().any(|path| is_of_the_user(path)) {
            findings.push(self.finding(Found::KeysOfTheUser, keys, "AuthorizedKeysFile /etc/ssh/authorized_keys/%u"));
        }
        findings
    }

    /// The setting by which a session reaches other hosts, or other programs of this one. DisableForwarding does not cover tunnels.
    fn forwards(&self) -> Option<(Key, Origin)> {
        let effective = self.effective;
        let by = |setting: &Setting<Forwarding>| {
            (setting.value != Forwarding::No).then(|| (setting.key, setting.origin.clone()))
        };
        let tunnel = &effective.permit_tunnel;
        let tunnel = (tunnel.value != Tunnel::No).then(|| (tunnel.key, tunnel.origin.clone()));
        if effective.disable_forwarding.value {
            return tunnel;
        }
        by(&effective.allow_tcp_forwarding).or_else(|| by(&effective.allow_stream_local_forwarding)).or(tunnel)
    }
}

/// Whether a path of AuthorizedKeysFile is below the user's home: it is relative, or says so with `%h`.
fn is_of_the_user(path: &str) -> bool {
    let is_elsewhere = path.starts_with(['/', '~']) || path.eq_ignore_ascii_case("none");
    !is_elsewhere || path.contains("%h") || path.starts_with("/home/")
}

#[cfg(test)]
mod tests;
