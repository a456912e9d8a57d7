//! The words that sshd knows: those of OpenSSH 9.2, of later releases, and of the distributions.

/// The settings that matter here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Key {
    UsePam,
    KbdInteractive,
    Password,
    Pubkey,
    Hostbased,
    Gssapi,
    Kerberos,
    AuthenticationMethods,
    PermitRootLogin,
    PermitEmptyPasswords,
    ForceCommand,
    AllowTcpForwarding,
    AllowStreamLocalForwarding,
    AllowAgentForwarding,
    PermitTunnel,
    GatewayPorts,
    X11Forwarding,
    DisableForwarding,
    LoginGraceTime,
    MaxAuthTries,
    AuthorizedKeysFile,
    AuthorizedKeysCommand,
    AuthorizedKeysCommandUser,
    TrustedUserCaKeys,
    ExposeAuthInfo,
    PermitUserEnvironment,
    PermitUserRc,
    AcceptEnv,
    AllowUsers,
    DenyUsers,
    AllowGroups,
    DenyGroups,
    Port,
}

/// What the arguments of a setting have to be.
pub(super) enum Kind {
    /// One of these, in upper or lower case.
    Choice(&'static [&'static str]),
    /// One of these, exactly.
    ExactChoice(&'static [&'static str]),
    Seconds,
    Number,
    Port,
    /// One word.
    Word,
    /// Everything behind the keyword as it stands.
    Text,
    /// The same, and a path or `none`.
    Command,
    /// Words, of which the first line counts.
    Words,
    /// Words, of all lines.
    Patterns,
    /// Patterns, which may have a host behind an `@`.
    UserPatterns,
    Methods,
}

/// What a keyword is to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    Setting(Key),
    Match,
    Include,
    /// A setting that has nothing to do with a second factor.
    Other,
    /// sshd notes that it does not do this any more, and goes on.
    Ignored,
}

/// A keyword and where it may stand.
pub(super) struct Keyword {
    pub(super) meaning: Meaning,
    /// Not inside a Match block.
    pub(super) global: bool,
}

const FLAG: &[&str] = &["yes", "no"];
const FORWARDING: &[&str] = &["yes", "all", "no", "remote", "local"];

impl Key {
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::PermitRootLogin => {
                Kind::Choice(&["without-password", "prohibit-password", "forced-commands-only", "yes", "no"])
            }
            Self::AllowTcpForwarding | Self::AllowStreamLocalForwarding => Kind::Choice(FORWARDING),
            Self::GatewayPorts => Kind::Choice(&["clientspecified", "yes", "no"]),
            Self::PermitTunnel => Kind::ExactChoice(&["no", "point-to-point", "ethernet", "yes"]),
            Self::LoginGraceTime => Kind::Seconds,
            Self::MaxAuthTries => Kind::Number,
            Self::Port => Kind::Port,
            Self::ForceCommand => Kind::Text,
            Self::AuthorizedKeysCommand => Kind::Command,
            Self::AuthorizedKeysFile => Kind::Words,
            Self::AllowUsers | Self::DenyUsers => Kind::UserPatterns,
            Self::AllowGroups | Self::DenyGroups | Self::AcceptEnv => Kind::Patterns,
            Self::AuthenticationMethods => Kind::Methods,
            Self::TrustedUserCaKeys | Self::PermitUserEnvironment | Self::AuthorizedKeysCommandUser => Kind::Word,
            _ => Kind::Choice(FLAG),
        }
    }

    /// Values of all lines count, not of the first alone.
    pub(super) const fn accumulates(self) -> bool {
        matches!(self.kind(), Kind::Patterns | Kind::UserPatterns | Kind::Port)
    }

    /// As sshd_config(5) writes it.
    pub(crate) fn name(self) -> &'static str {
        SETTINGS.iter().find(|(key, ..)| *key == self).map_or("", |(_, name, _)| name)
    }

    /// Not inside a Match block.
    pub(super) fn is_global(self) -> bool {
        SETTINGS.iter().find(|(key, ..)| *key == self).is_some_and(|(.., global)| *global)
    }
}

/// The settings, the name of each, and whether it is for the whole server alone. The first name of a key is its own; further
/// ones are older.
const SETTINGS: &[(Key, &str, bool)] = &[
    (Key::UsePam, "UsePAM", true),
    (Key::KbdInteractive, "KbdInteractiveAuthentication", false),
    // Names of the same setting since OpenSSH 8.7. Before, another setting of the whole server.
    (Key::KbdInteractive, "ChallengeResponseAuthentication", false),
    (Key::KbdInteractive, "SkeyAuthentication", false),
    (Key::Password, "PasswordAuthentication", false),
    (Key::Pubkey, "PubkeyAuthentication", false),
    (Key::Pubkey, "DSAAuthentication", true),
    (Key::Hostbased, "HostbasedAuthentication", false),
    (Key::Gssapi, "GSSAPIAuthentication", false),
    (Key::Kerberos, "KerberosAuthentication", false),
    (Key::AuthenticationMethods, "AuthenticationMethods", false),
    (Key::PermitRootLogin, "PermitRootLogin", false),
    (Key::PermitEmptyPasswords, "PermitEmptyPasswords", false),
    (Key::ForceCommand, "ForceCommand", false),
    (Key::AllowTcpForwarding, "AllowTcpForwarding", false),
    (Key::AllowStreamLocalForwarding, "AllowStreamLocalForwarding", false),
    (Key::AllowAgentForwarding, "AllowAgentForwarding", false),
    (Key::PermitTunnel, "PermitTunnel", false),
    (Key::GatewayPorts, "GatewayPorts", false),
    (Key::X11Forwarding, "X11Forwarding", false),
    (Key::DisableForwarding, "DisableForwarding", false),
    (Key::LoginGraceTime, "LoginGraceTime", true),
    (Key::MaxAuthTries, "MaxAuthTries", false),
    (Key::AuthorizedKeysFile, "AuthorizedKeysFile", false),
    (Key::AuthorizedKeysCommand, "AuthorizedKeysCommand", false),
    (Key::AuthorizedKeysCommandUser, "AuthorizedKeysCommandUser", false),
    (Key::TrustedUserCaKeys, "TrustedUserCAKeys", false),
    (Key::ExposeAuthInfo, "ExposeAuthInfo", false),
    (Key::PermitUserEnvironment, "PermitUserEnvironment", true),
    (Key::PermitUserRc, "PermitUserRC", false),
    (Key::AcceptEnv, "AcceptEnv", false),
    (Key::AllowUsers, "AllowUsers", false),
    (Key::DenyUsers, "DenyUsers", false),
    (Key::AllowGroups, "AllowGroups", false),
    (Key::DenyGroups, "DenyGroups", false),
    (Key::Port, "Port", true),
];

/// What sshd reads and what does not matter here, outside Match blocks alone.
const OTHER_GLOBAL: &str = "
    AddressFamily Ciphers Compression DebianBanner FingerprintHash GSSAPICleanupCredentials GSSAPICleanupCreds
    GSSAPIKexAlgorithms GSSAPIKeyExchange GSSAPIStoreCredentialsOnRekey GSSAPIStrictAcceptorCheck GSSUseSessionCCache
    GSSAPIUseSessionCredCache HostCertificate HostDSAKey HostKey HostKeyAgent HostKeyAlgorithms IgnoreUserKnownHosts KeepAlive
    KerberosGetAFSToken KerberosOrLocalPasswd KerberosTicketCleanup KerberosUniqueCCache KerberosUseKuserok KexAlgorithms
    ListenAddress MACs MaxStartups ModuliFile PerSourceMaxStartups PerSourceNetBlockSize PerSourcePenalties
    PerSourcePenaltyExemptList PidFile PrintLastLog PrintMotd SecurityKeyProvider SshdAuthPath SshdSessionPath StrictModes
    Subsystem SyslogFacility TCPKeepAlive UseDNS VersionAddendum XAuthLocation";

/// The same, anywhere.
const OTHER: &str = "
    AuthorizedPrincipalsCommand AuthorizedPrincipalsCommandUser AuthorizedPrincipalsFile
    Banner CASignatureAlgorithms ChannelTimeout ChrootDirectory ClientAliveCountMax ClientAliveInterval GSSAPIEnablek5users
    HostbasedAcceptedAlgorithms HostbasedAcceptedKeyTypes HostbasedUsesNameFromPacketOnly IgnoreRhosts IPQoS LogLevel LogVerbose
    MaxSessions PermitListen PermitOpen PermitTTY PubkeyAcceptedAlgorithms PubkeyAcceptedKeyTypes
    PubkeyAuthOptions RDomain RefuseConnection RekeyLimit RequiredRSASize RevokedKeys RSAMinSize SetEnv StreamLocalBindMask
    StreamLocalBindUnlink UnusedConnectionTimeout X11DisplayOffset X11UseLocalhost";

/// Words of old releases, outside Match blocks alone.
const IGNORED_GLOBAL: &str = "
    AFSTokenPassing CheckMail KerberosTgtPassing KeyRegenerationInterval PAMAuthenticationViaKbdInt PermitBlacklistedKeys Protocol
    ReverseMappingCheck RhostsAuthentication ServerKeyBits UseLogin UsePrivilegeSeparation VerifyReverseMapping";

/// The same, anywhere.
const IGNORED: &str = "AuthorizedKeysFile2 RhostsRSAAuthentication RSAAuthentication";

/// What a word means at the start of a line. `None`: nothing, and sshd will not start.
pub(super) fn find(word: &str) -> Option<Keyword> {
    let is = |name: &str| name.eq_ignore_ascii_case(word);
    if let Some((key, _, global)) = SETTINGS.iter().find(|(_, name, _)| is(name)) {
        return Some(Keyword { meaning: Meaning::Setting(*key), global: *global });
    }
    let anywhere = |meaning| Some(Keyword { meaning, global: false });
    if is("Match") {
        return anywhere(Meaning::Match);
    }
    if is("Include") {
        return anywhere(Meaning::Include);
    }
    let lists = [
        (OTHER_GLOBAL, Meaning::Other, true),
        (OTHER, Meaning::Other, false),
        (IGNORED_GLOBAL, Meaning::Ignored, true),
        (IGNORED, Meaning::Ignored, false),
    ];
    let (_, meaning, global) = lists.into_iter().find(|(list, ..)| list.split_whitespace().any(is))?;
    Some(Keyword { meaning, global })
}

/// The methods that AuthenticationMethods may name, `gssapi-keyex` a patch of the distributions'.
pub(super) const METHODS: &[&str] =
    &["publickey", "keyboard-interactive", "password", "hostbased", "gssapi-with-mic", "gssapi-keyex", "none"];
