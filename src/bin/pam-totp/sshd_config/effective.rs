//! The settings that are in force for a connection.

use super::Origin;
use super::keywords::Key;
use super::matching::{self, Verdict};
use super::words;
use std::collections::BTreeMap;

/// A value, and the line that it comes from. Two are equal if their values are.
#[derive(Clone, Debug)]
pub(crate) struct Setting<T> {
    pub(crate) key: Key,
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

impl<T: PartialEq> PartialEq for Setting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.value == other.value
    }
}

/// PermitRootLogin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RootLogin {
    Yes,
    /// `prohibit-password`, of old `without-password`: no password and no keyboard-interactive.
    ProhibitPassword,
    /// A key for which there is a command.
    ForcedCommandsOnly,
    No,
}

/// AllowTcpForwarding and AllowStreamLocalForwarding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forwarding {
    Yes,
    Local,
    Remote,
    No,
}

/// GatewayPorts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GatewayPorts {
    No,
    Yes,
    ClientSpecified,
}

/// PermitTunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tunnel {
    No,
    PointToPoint,
    Ethernet,
    Yes,
}

/// What sshd goes by for a connection. Where no line says otherwise, the defaults of OpenSSH 8.7 to 9.2, which Debian, Ubuntu and
/// Red Hat leave as they are: what differs there is said in the sshd_config that they ship.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Effective {
    pub(crate) use_pam: Setting<bool>,
    pub(crate) kbd_interactive: Setting<bool>,
    pub(crate) password: Setting<bool>,
    pub(crate) pubkey: Setting<bool>,
    pub(crate) hostbased: Setting<bool>,
    pub(crate) gssapi: Setting<bool>,
    /// Passwords are Kerberos', and PAM is not asked about those that it takes.
    pub(crate) kerberos: Setting<bool>,
    /// Each a list with commas; empty for `any`.
    pub(crate) authentication_methods: Setting<Vec<String>>,
    pub(crate) permit_root_login: Setting<RootLogin>,
    pub(crate) permit_empty_passwords: Setting<bool>,
    pub(crate) force_command: Setting<Option<String>>,
    pub(crate) allow_tcp_forwarding: Setting<Forwarding>,
    pub(crate) allow_stream_local_forwarding: Setting<Forwarding>,
    pub(crate) allow_agent_forwarding: Setting<bool>,
    pub(crate) permit_tunnel: Setting<Tunnel>,
    pub(crate) gateway_ports: Setting<GatewayPorts>,
    pub(crate) x11_forwarding: Setting<bool>,
    pub(crate) disable_forwarding: Setting<bool>,
    /// In seconds; 0 for no limit.
    pub(crate) login_grace_time: Setting<u32>,
    pub(crate) max_auth_tries: Setting<u32>,
    pub(crate) authorized_keys_file: Setting<Vec<String>>,
    pub(crate) authorized_keys_command: Setting<Option<String>>,
    pub(crate) authorized_keys_command_user: Setting<Option<String>>,
    pub(crate) trusted_user_ca_keys: Setting<Option<String>>,
    pub(crate) expose_auth_info: Setting<bool>,
    /// `yes`, `no` or patterns for names.
    pub(crate) permit_user_environment: Setting<String>,
    pub(crate) permit_user_rc: Setting<bool>,
    /// Patterns for names of variables.
    pub(crate) accept_env: Setting<Vec<String>>,
    pub(crate) allow_users: Setting<Vec<String>>,
    pub(crate) deny_users: Setting<Vec<String>>,
    pub(crate) allow_groups: Setting<Vec<String>>,
    pub(crate) deny_groups: Setting<Vec<String>>,
    pub(crate) ports: Setting<Vec<u16>>,
}

impl Effective {
    /// The switch of a method of AuthenticationMethods. `none` has none: sshd always listens to it.
    pub(crate) fn switch(&self, method: &str) -> Option<&Setting<bool>> {
        match method {
            "publickey" => Some(&self.pubkey),
            "keyboard-interactive" => Some(&self.kbd_interactive),
            "password" => Some(&self.password),
            "hostbased" => Some(&self.hostbased),
            "gssapi-with-mic" | "gssapi-keyex" => Some(&self.gssapi),
            _ => None,
        }
    }

    /// Whether sshd lets somebody try at all, from wherever (AllowUsers, DenyUsers, AllowGroups, DenyGroups).
    pub(crate) fn may_try(&self, user: &str, groups: &[String]) -> bool {
        // `USER@HOST` may be about where they come from.
        let is_named = |pattern: &str, is_enough_from_somewhere: bool| {
            let (name, is_from_anywhere) = pattern.split_once('@').map_or((pattern, true), |(name, _)| (name, false));
            (is_from_anywhere || is_enough_from_somewhere) && matching::list(user, name) == Verdict::Yes
        };
        let is_in = |patterns: &[String]| patterns.iter().any(|pattern| matching::groups(groups, pattern));
        let (users, all) = (&self.allow_users.value, &self.allow_groups.value);
        let is_denied =
            self.deny_users.value.iter().any(|pattern| is_named(pattern, false)) || is_in(&self.deny_groups.value);
        let is_allowed = users.is_empty() || users.iter().any(|pattern| is_named(pattern, true));
        !is_denied && is_allowed && (all.is_empty() || is_in(all))
    }

    /// Whether a client sets a variable of this name for what sshd starts.
    pub(crate) fn takes_from_client(&self, variable: &str) -> bool {
        self.accept_env.value.iter().any(|pattern| matching::wildcard(variable.as_bytes(), pattern.as_bytes()))
    }

    /// Whether ~/.ssh/environment, or a line of authorized_keys, does.
    pub(crate) fn takes_from_home(&self, variable: &str) -> bool {
        match self.permit_user_environment.value.as_str() {
            "yes" => true,
            "no" => false,
            patterns => matching::list(variable, patterns) == Verdict::Yes,
        }
    }

    /// Whether sshd drops a list of AuthenticationMethods, as a method in it is off: the first of those switches.
    pub(crate) fn off_in<'a>(&'a self, list: &'a str) -> Option<&'a Setting<bool>> {
        let methods = list.split(',').map(|method| method.split(':').next().unwrap_or_default());
        methods.filter_map(|method| self.switch(method)).find(|switch| !switch.value)
    }
}

/// The words of each setting, and where the first of them stands.
#[derive(Clone, Default, Debug)]
pub(super) struct Values(BTreeMap<Key, (Vec<String>, Origin)>);

impl Values {
    /// Takes a line's words: the first line counts, or all of them.
    pub(super) fn take(&mut self, key: Key, words: &[String], origin: &Origin) {
        match self.0.get_mut(&key) {
            Some((known, _)) if key.accumulates() => known.extend_from_slice(words),
            Some(_) => {}
            None => {
                self.0.insert(key, (words.to_vec(), origin.clone()));
            }
        }
    }

    /// What a Match block says goes before what the server says, but for what is the server's alone.
    pub(super) fn override_with(&mut self, other: Self) {
        let overriding = other.0.into_iter().filter(|(key, _)| !key.is_global());
        self.0.extend(overriding);
    }

    fn words(&self, key: Key) -> Setting<Vec<String>> {
        let (value, origin) = self.0.get(&key).cloned().unwrap_or_default();
        Setting { key, value, origin }
    }

    /// The one word of a setting, read by `read`; where there is none, the default.
    fn one<T>(&self, key: Key, default: T, read: impl Fn(&str) -> Option<T>) -> Setting<T> {
        let Setting { value, origin, .. } = self.words(key);
        match value.first().and_then(|word| read(word)) {
            Some(value) => Setting { key, value, origin },
            None => Setting { key, value: default, origin: Origin::Default },
        }
    }

    fn flag(&self, key: Key, default: bool) -> Setting<bool> {
        self.one(key, default, |word| Some(word.eq_ignore_ascii_case("yes")))
    }

    fn choice<T: Copy>(&self, key: Key, default: T, choices: &[(&str, T)]) -> Setting<T> {
        self.one(key, default, |word| {
            choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, value)| *value)
        })
    }

    fn forwarding(&self, key: Key) -> Setting<Forwarding> {
        use Forwarding::{Local, No, Remote, Yes};
        self.choice(key, Yes, &[("yes", Yes), ("all", Yes), ("no", No), ("local", Local), ("remote", Remote)])
    }

    fn unless_none(&self, key: Key) -> Setting<Option<String>> {
        self.one(key, None, |word| Some((!word.eq_ignore_ascii_case("none")).then(|| word.to_owned())))
    }
}

impl From<&Values> for Effective {
    fn from(values: &Values) -> Self {
        let mut authentication_methods = values.words(Key::AuthenticationMethods);
        authentication_methods.value.retain(|list| list != "any");
        let mut authorized_keys_file = values.words(Key::AuthorizedKeysFile);
        if authorized_keys_file.value.is_empty() {
            authorized_keys_file.value = [".ssh/authorized_keys", ".ssh/authorized_keys2"].map(str::to_owned).into();
        }
        let Setting { key, value, origin } = values.words(Key::Port);
        let ports: Vec<u16> = value.iter().filter_map(|port| port.parse().ok()).collect();
        let ports = Setting { key, value: if ports.is_empty() { vec![22] } else { ports }, origin };
        Self {
            use_pam: values.flag(Key::UsePam, false),
            kbd_interactive: values.flag(Key::KbdInteractive, true),
            password: values.flag(Key::Password, true),
            pubkey: values.flag(Key::Pubkey, true),
            hostbased: values.flag(Key::Hostbased, false),
            gssapi: values.flag(Key::Gssapi, false),
            kerberos: values.flag(Key::Kerberos, false),
            authentication_methods,
            permit_root_login: values.choice(
                Key::PermitRootLogin,
                RootLogin::ProhibitPassword,
                &[
                    ("yes", RootLogin::Yes),
                    ("prohibit-password", RootLogin::ProhibitPassword),
                    ("without-password", RootLogin::ProhibitPassword),
                    ("forced-commands-only", RootLogin::ForcedCommandsOnly),
                    ("no", RootLogin::No),
                ],
            ),
            permit_empty_passwords: values.flag(Key::PermitEmptyPasswords, false),
            force_command: values.unless_none(Key::ForceCommand),
            allow_tcp_forwarding: values.forwarding(Key::AllowTcpForwarding),
            allow_stream_local_forwarding: values.forwarding(Key::AllowStreamLocalForwarding),
            allow_agent_forwarding: values.flag(Key::AllowAgentForwarding, true),
            permit_tunnel: values.choice(
                Key::PermitTunnel,
                Tunnel::No,
                &[
                    ("no", Tunnel::No),
                    ("point-to-point", Tunnel::PointToPoint),
                    ("ethernet", Tunnel::Ethernet),
                    ("yes", Tunnel::Yes),
                ],
            ),
            gateway_ports: values.choice(
                Key::GatewayPorts,
                GatewayPorts::No,
                &[
                    ("no", GatewayPorts::No),
                    ("yes", GatewayPorts::Yes),
                    ("clientspecified", GatewayPorts::ClientSpecified),
                ],
            ),
            x11_forwarding: values.flag(Key::X11Forwarding, false),
            disable_forwarding: values.flag(Key::DisableForwarding, false),
            login_grace_time: values.one(Key::LoginGraceTime, 120, words::seconds),
            max_auth_tries: values.one(Key::MaxAuthTries, 6, |word| word.parse().ok()),
            authorized_keys_file,
            authorized_keys_command: values.unless_none(Key::AuthorizedKeysCommand),
            authorized_keys_command_user: values.unless_none(Key::AuthorizedKeysCommandUser),
            trusted_user_ca_keys: values.unless_none(Key::TrustedUserCaKeys),
            expose_auth_info: values.flag(Key::ExposeAuthInfo, false),
            permit_user_environment: values
                .one(Key::PermitUserEnvironment, "no".to_owned(), |word| Some(word.to_owned())),
            permit_user_rc: values.flag(Key::PermitUserRc, true),
            accept_env: values.words(Key::AcceptEnv),
            allow_users: values.words(Key::AllowUsers),
            deny_users: values.words(Key::DenyUsers),
            allow_groups: values.words(Key::AllowGroups),
            deny_groups: values.words(Key::DenyGroups),
            ports,
        }
    }
}
