//! Whole trees of distributions: their functional lines, and what setup makes of them.

use super::policy::{Enrolment, Store, Wish};
use super::{Service, plan, prepare};
use crate::doctor::paths::{self, Kind};
use crate::pam_config::{Stack, Type};
use crate::root::Root;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// The names and contents of a distribution's files.
type Files = Vec<(&'static str, String)>;

const COMMON_AUTH: &str = "auth\t[success=1 default=ignore]\tpam_unix.so nullok\nauth\trequisite\tpam_deny.so\n\
                           auth\trequired\tpam_permit.so\n";
const DEBIAN_SSHD: &str = "# PAM configuration for the Secure Shell service\n\n# Standard Un*x authentication.\n\
    @include common-auth\n\naccount    required     pam_nologin.so\n@include common-account\n\
    session [success=ok ignore=ignore module_unknown=ignore default=bad]        pam_selinux.so close\n\
    session    required     pam_loginuid.so\n@include common-session\n@include common-password\n";
const DEBIAN_SUDO: &str = "#%PAM-1.0\n\nsession    required   pam_limits.so\n\n@include common-auth\n@include common-account\n\
     @include common-session-noninteractive\n";
const DEBIAN_SU: &str = "auth       sufficient pam_rootok.so\n# auth       required   pam_wheel.so\n\
    session       required   pam_env.so readenv=1\n@include common-auth\n@include common-account\n@include common-session\n";
const DEBIAN_SU_L: &str = "#%PAM-1.0\nauth\t\tinclude\t\tsu\naccount\t\tinclude\t\tsu\nsession\t\tinclude\t\tsu\n";
const DEBIAN_CONFIG: &str = "# This is the sshd server system-wide configuration file.\n\n\
    Include /etc/ssh/sshd_config.d/*.conf\n\n#PermitRootLogin prohibit-password\nKbdInteractiveAuthentication no\nUsePAM yes\n\
    X11Forwarding yes\nSubsystem\tsftp\t/usr/lib/openssh/sftp-server\n";

const UNIX: &str = "auth        required      pam_env.so\nauth        sufficient    pam_unix.so nullok try_first_pass\n\
    auth        required      pam_deny.so\n";
const FAILLOCK: &str = "auth        required                                     pam_env.so\n\
    auth        required                                     pam_faildelay.so delay=2000000\n\
    auth        [default=1 ignore=ignore success=ok]         pam_usertype.so isregular\n\
    auth        [default=1 ignore=ignore success=ok]         pam_localuser.so\n\
    auth        sufficient                                   pam_unix.so nullok\n\
    auth        [default=1 ignore=ignore success=ok]         pam_usertype.so isregular\n\
    auth        sufficient                                   pam_sss.so forward_pass\n\
    auth        required                                     pam_deny.so\n";
const POSTLOGIN: &str = "session     optional                   pam_umask.so silent\n\
    session     [success=1 default=ignore] pam_succeed_if.so service !~ gdm* service !~ su* quiet\n";
const RED_HAT_SSHD: &str = "#%PAM-1.0\nauth       substack     password-auth\nauth       include      postlogin\n\
    account    required     pam_sepermit.so\naccount    include      password-auth\npassword   include      password-auth\n\
    session    required     pam_selinux.so close\nsession    include      password-auth\nsession    include      postlogin\n";
const AMAZON_2_SSHD: &str = "#%PAM-1.0\nauth\t   required\tpam_sepermit.so\nauth       substack     password-auth\n\
    auth       include      postlogin\n# Used with polkit to reauthorize users in remote sessions\n\
    -auth      optional     pam_reauthorize.so prepare\naccount    required     pam_nologin.so\n\
    session    include      postlogin\n-session   optional     pam_reauthorize.so prepare\n";
const RED_HAT_SUDO: &str = "#%PAM-1.0\nauth       include      system-auth\naccount    include      system-auth\n\
    password   include      system-auth\nsession    include      system-auth\n";
const RED_HAT_SUDO_I: &str = "#%PAM-1.0\nauth       include      sudo\naccount    include      sudo\n\
    password   include      sudo\nsession    optional     pam_keyinit.so force revoke\nsession    include      sudo\n";
const RED_HAT_SU: &str = "#%PAM-1.0\nauth\t\trequired\tpam_env.so\nauth\t\tsufficient\tpam_rootok.so\n\
    #auth\t\tsufficient\tpam_wheel.so trust use_uid\nauth\t\tsubstack\tsystem-auth\nauth\t\tinclude\t\tpostlogin\n\
    account\t\tsufficient\tpam_succeed_if.so uid = 0 use_uid quiet\naccount\t\tinclude\t\tsystem-auth\n";
const RED_HAT_7_SU: &str = "#%PAM-1.0\nauth\t\tsufficient\tpam_rootok.so\nauth\t\tsubstack\tsystem-auth\n\
    auth\t\tinclude\t\tpostlogin\naccount\t\tinclude\t\tsystem-auth\n";
const RED_HAT_8_CONFIG: &str = "HostKey /etc/ssh/ssh_host_rsa_key\nSyslogFacility AUTHPRIV\nPermitRootLogin yes\n\
    AuthorizedKeysFile\t.ssh/authorized_keys\nPasswordAuthentication yes\nChallengeResponseAuthentication no\n\
    GSSAPIAuthentication yes\nUsePAM yes\nX11Forwarding yes\n";
const RED_HAT_9_CONFIG: &str = "# To modify the system-wide sshd configuration, create a  *.conf  file under\n\
    Include /etc/ssh/sshd_config.d/*.conf\n#KbdInteractiveAuthentication yes\nAuthorizedKeysFile\t.ssh/authorized_keys\n\
    Subsystem\tsftp\t/usr/libexec/openssh/sftp-server\n";
const RED_HAT_9_SNIPPET: &str = "SyslogFacility AUTHPRIV\nChallengeResponseAuthentication no\nGSSAPIAuthentication yes\n\
    UsePAM yes\nX11Forwarding yes\nPrintMotd no\n";
const AMAZON_CONFIG: &str = "HostKey /etc/ssh/ssh_host_ed25519_key\nSyslogFacility AUTHPRIV\n\
    AuthorizedKeysFile .ssh/authorized_keys\nPasswordAuthentication no\nChallengeResponseAuthentication no\n\
    GSSAPIAuthentication yes\nUsePAM yes\nAuthorizedKeysCommand /opt/aws/bin/eic_run_authorized_keys %u %f\n\
    AuthorizedKeysCommandUser ec2-instance-connect\n";
const AMAZON_2023_CONFIG: &str = "Include /etc/ssh/sshd_config.d/*.conf\nAuthorizedKeysFile .ssh/authorized_keys\n\
    PasswordAuthentication no\n#KbdInteractiveAuthentication yes\nUsePAM yes\n";

fn debian() -> Files {
    let mut files = vec![
        ("etc/pam.d/common-auth", COMMON_AUTH.to_owned()),
        ("etc/pam.d/sshd", DEBIAN_SSHD.to_owned()),
        ("etc/pam.d/sudo", DEBIAN_SUDO.to_owned()),
        ("etc/pam.d/sudo-i", DEBIAN_SUDO.replace("-noninteractive", "")),
        ("etc/pam.d/su", DEBIAN_SU.to_owned()),
        ("etc/pam.d/su-l", DEBIAN_SU_L.to_owned()),
        ("etc/ssh/sshd_config", DEBIAN_CONFIG.to_owned()),
    ];
    for name in ["etc/pam.d/common-account", "etc/pam.d/common-session", "etc/pam.d/common-password"] {
        files.push((name, "account required pam_unix.so\n".to_owned()));
    }
    files.push(("etc/pam.d/common-session-noninteractive", "session required pam_unix.so\n".to_owned()));
    files
}

fn red_hat(stack: &str, sshd: &str, su: &str, config: &str) -> Files {
    [
        ("etc/pam.d/password-auth", stack),
        ("etc/pam.d/system-auth", stack),
        ("etc/pam.d/postlogin", POSTLOGIN),
        ("etc/pam.d/sshd", sshd),
        ("etc/pam.d/sudo", RED_HAT_SUDO),
        ("etc/pam.d/sudo-i", RED_HAT_SUDO_I),
        ("etc/pam.d/su", su),
        ("etc/pam.d/su-l", DEBIAN_SU_L),
        ("etc/ssh/sshd_config", config),
    ]
    .map(|(name, text)| (name, text.to_owned()))
    .to_vec()
}

/// Each with its name.
fn distributions() -> Vec<(&'static str, Files)> {
    let mut red_hat_9 = red_hat(FAILLOCK, RED_HAT_SSHD, RED_HAT_SU, RED_HAT_9_CONFIG);
    red_hat_9.push(("etc/ssh/sshd_config.d/50-redhat.conf", RED_HAT_9_SNIPPET.to_owned()));
    let mut fedora = red_hat(FAILLOCK, RED_HAT_SSHD, RED_HAT_SU, RED_HAT_9_CONFIG);
    let snippet = RED_HAT_9_SNIPPET.replace("ChallengeResponse", "KbdInteractive");
    fedora.push(("etc/ssh/sshd_config.d/50-redhat.conf", snippet));
    vec![
        ("Debian", debian()),
        ("RHEL 8", red_hat(FAILLOCK, RED_HAT_SSHD, RED_HAT_SU, RED_HAT_8_CONFIG)),
        ("RHEL 9", red_hat_9),
        ("Fedora", fedora),
        ("Amazon Linux 2", red_hat(UNIX, AMAZON_2_SSHD, RED_HAT_7_SU, AMAZON_CONFIG)),
        ("Amazon Linux 2023", red_hat(FAILLOCK, RED_HAT_SSHD, RED_HAT_SU, AMAZON_2023_CONFIG)),
    ]
}

/// A tree on disk.
struct Tree(tempfile::TempDir);

impl Tree {
    fn of(files: &Files) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for directory in ["etc/pam.d", "etc/ssh/sshd_config.d", "etc/security"] {
            fs::create_dir_all(tree.0.path().join(directory)).unwrap();
        }
        for (name, text) in files {
            tree.write(name, text);
        }
        tree
    }

    fn debian() -> Self {
        Self::of(&debian())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        let content = fs::read(self.0.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        String::from_utf8_lossy(&content).into_owned()
    }

    /// All files, without the policy, which stays.
    fn all(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for directory in ["etc/pam.d", "etc/ssh", "etc/ssh/sshd_config.d"] {
            for entry in fs::read_dir(self.0.path().join(directory)).unwrap().flatten() {
                if entry.file_type().unwrap().is_file() {
                    let name = entry.path().strip_prefix(self.0.path()).unwrap().display().to_string();
                    files.push((name.clone(), self.read(&name)));
                }
            }
        }
        files.sort();
        files
    }

    fn root(&self) -> Root {
        Root::open(self.0.path()).unwrap()
    }

    fn plan(&self, service: Service, remove: bool) -> anyhow::Result<plan::Plan> {
        prepare::plan(&self.root(), service, &Wish::default(), remove)
    }

    /// Does it, and says how many files changed.
    fn set_up(&self, service: Service, remove: bool) -> anyhow::Result<usize> {
        let plan = self.plan(service, remove)?;
        let root = self.root();
        super::policy::put_in_place(&root, &plan)?;
        plan::apply(&root, &plan.steps, plan.grace)?;
        Ok(plan.steps.len())
    }

    fn refusal(&self, service: Service) -> String {
        let before = self.all();
        let said = format!("{:#}", self.set_up(service, false).unwrap_err());
        assert_eq!(self.all(), before, "{said}");
        assert!(!said.contains(|char: char| char.is_control() && char != '\n'), "{said:?}");
        said
    }

    fn kinds(&self, service: &str) -> Vec<(Kind, bool)> {
        let root = self.root();
        let stack = Stack::read(&root, service, Type::Auth);
        paths::judge(&stack).iter().map(|finding| (finding.kind, finding.only_root)).collect()
    }
}

const SERVICES: [Service; 3] = [Service::Sshd, Service::Sudo, Service::Su];

#[test]
fn on_each_distribution_a_code_is_asked_for_once_and_taking_it_out_restores_each_byte() {
    for (name, files) in distributions() {
        for service in SERVICES {
            let tree = Tree::of(&files);
            let before = tree.all();
            let changed = tree.set_up(service, false).unwrap_or_else(|error| panic!("{name} {service:?}: {error:#}"));
            assert!(changed > 0, "{name} {service:?}");
            for relative in service.relatives() {
                let expected: &[_] = if service == Service::Su {
                    &[(Kind::Skipped, true), (Kind::NotAsked, false)]
                } else {
                    &[(Kind::NotAsked, false)]
                };
                assert_eq!(tree.kinds(relative), expected, "{name} {relative}");
            }
            assert_eq!(tree.set_up(service, false).unwrap(), 0, "{name} {service:?}: again");
            assert!(tree.set_up(service, true).unwrap() > 0, "{name} {service:?}");
            assert_eq!(tree.all(), before, "{name} {service:?}");
            assert_eq!(tree.set_up(service, true).unwrap(), 0, "{name} {service:?}: again");
        }
    }
}

#[test]
fn what_is_written_for_debian() {
    let tree = Tree::debian();
    assert_eq!(tree.set_up(Service::Sshd, false).unwrap(), 2);
    let stack = tree.read("etc/pam.d/sshd");
    let block = "# Standard Un*x authentication.\n\
        # pam-totp setup: begin. `pam-totp setup sshd --remove` takes this block out again.\n# was: @include common-auth\n\
        auth       required     pam_totp.so\nauth       required     pam_permit.so\n# pam-totp setup: end\n\naccount ";
    assert!(stack.contains(block), "{stack}");
    assert!(stack.ends_with("session    optional     pam_totp.so\n# pam-totp setup: end\n"), "{stack}");
    let settings = tree.read("etc/ssh/sshd_config.d/00-pam_totp.conf");
    let lines: Vec<_> = settings.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "UsePAM yes",
        "KbdInteractiveAuthentication yes",
        "AuthenticationMethods publickey,keyboard-interactive",
        "PasswordAuthentication no",
        "PermitRootLogin yes",
    ];
    assert_eq!(lines, expected);
    let policy = tree.read("etc/security/pam_totp.toml");
    assert!(policy.contains("\nversion = 1\n") && policy.contains("\nstore = \"system\"\n"), "{policy}");
    assert!(policy.contains("[service.sshd]\n# ") && policy.contains("\nenrolment = \"inline\"\n"), "{policy}");
    assert_eq!(tree.set_up(Service::Sudo, false).unwrap(), 2);
    let begin = "# pam-totp setup: begin. `pam-totp setup sudo --remove` takes this block out again.\n";
    let block = format!("{begin}auth       required     pam_totp.so\n# pam-totp setup: end\n@include common-auth\n");
    for name in ["etc/pam.d/sudo", "etc/pam.d/sudo-i"] {
        assert!(tree.read(name).contains(&block), "{name}");
    }
}

#[test]
fn settings_fit_what_was_in_force() {
    let settings = |files: &Files, more: &str| {
        let tree = Tree::of(files);
        tree.write("etc/ssh/sshd_config", format!("{}{more}", tree.read("etc/ssh/sshd_config")));
        tree.set_up(Service::Sshd, false).unwrap();
        let snippet = tree.0.path().join("etc/ssh/sshd_config.d/00-pam_totp.conf");
        fs::read_to_string(snippet).unwrap_or_else(|_| tree.read("etc/ssh/sshd_config"))
    };
    let has_grace = settings(&debian(), "LoginGraceTime 30\n");
    assert!(has_grace.contains("\nLoginGraceTime 120\n"), "{has_grace}");
    for more in ["PermitRootLogin no\n", "PermitRootLogin yes\n"] {
        assert!(!settings(&debian(), more).contains("\nPermitRootLogin yes\n# "), "{more}");
        assert!(!settings(&debian(), more).contains("prohibit-password"), "{more}");
    }
    for (name, files) in distributions() {
        let text = settings(&files, "");
        let is_old = ["RHEL 8", "RHEL 9", "Amazon Linux 2"].contains(&name);
        assert_eq!(
            text.contains("\nChallengeResponseAuthentication yes\n"),
            is_old && name != "RHEL 9",
            "{name}: {text}"
        );
        let is_main = ["RHEL 8", "Amazon Linux 2"].contains(&name);
        assert_eq!(text.contains("HostKey"), is_main, "{name}");
        assert!(text.starts_with("# pam-totp setup: begin."), "{name}");
    }
}

#[test]
fn a_stack_that_is_not_understood_is_not_touched() {
    let include = "@include common-auth\n";
    let cases = [
        ("auth required pam_wheel.so\n@include common-auth\n", ":4: `auth required pam_wheel.so` is not understood"),
        (
            "auth sufficient pam_permit.so\n@include common-auth\n",
            ":4: `auth sufficient pam_permit.so` is not understood",
        ),
        (
            "@include common-auth\n@include common-auth\n",
            ":5: `@include common-auth` asks for the password a second time",
        ),
        ("@include common-auth\r\n", ":4: `@include common-auth` has a carriage return"),
        ("auth required \\\n pam_env.so\n@include common-auth\n", ":4: `auth required \\\\` goes on in the next line"),
        (
            "@include common-auth\nauth required pam_google_authenticator.so\n",
            ":5: `auth required pam_google_authenticator.so` asks",
        ),
        (
            "@include common-auth\nsession optional /lib/security/pam_totp.so\n",
            ":5: `session optional /lib/security/pam_totp.so` asks",
        ),
        ("@include \u{1b}[31mcommon-auth\n", ":4: `@include \\u{1b}[31mcommon-auth` has a control character"),
        ("@include else\n@include common-auth\n", ":4: `@include else` is not understood"),
        ("auth [success=1 default=ignore] pam_unix.so\n", ":4: `auth [success=1 default=ignore] pam_unix.so` is not"),
        ("# nothing\n", ": includes none of common-auth"),
    ];
    for (lines, expected) in cases {
        let tree = Tree::debian();
        tree.write("etc/pam.d/sshd", DEBIAN_SSHD.replace(include, lines));
        let said = tree.refusal(Service::Sshd);
        assert!(said.starts_with("/etc/pam.d/sshd") && said.contains(expected), "{said}");
        assert!(
            said.contains("    auth       required     pam_totp.so\n    auth       required     pam_permit.so"),
            "{said}"
        );
    }
    let tree = Tree::debian();
    tree.write("etc/pam.d/sshd", b"@include common-auth\n# \xff\n");
    assert!(tree.refusal(Service::Sshd).contains("is not UTF-8"));
    tree.write("etc/pam.d/sshd", DEBIAN_SSHD);
    // What is included has a way past the password, and so past the code.
    tree.write("etc/pam.d/sudo", DEBIAN_SUDO.replace(include, "@include common-account\n@include common-auth\n"));
    tree.write("etc/pam.d/common-account", "auth sufficient pam_succeed_if.so user = backup\n");
    assert!(
        tree.refusal(Service::Sudo).contains("there would be a way past it (by way of /etc/pam.d/common-account:1)")
    );
    tree.write("etc/pam.d/common-auth", "@include common-auth\n");
    tree.refusal(Service::Sudo);
}

#[test]
fn only_a_plain_file_of_roots_is_touched_and_nobody_waits() {
    type Spoil<'a> = &'a dyn Fn(&Path);
    let spoil: [(&str, Spoil); 6] = [
        ("is a link", &|path| {
            fs::rename(path, path.with_extension("real")).unwrap();
            symlink("sshd.real", path).unwrap();
        }),
        ("is a link", &|path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
        ("is not a regular file", &|path| {
            fs::remove_file(path).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        }),
        ("belongs to uid 12345", &|path| std::os::unix::fs::chown(path, Some(12345), None).unwrap()),
        ("others than root may write", &|path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o664)).unwrap();
        }),
        ("is not there", &|path| fs::remove_file(path).unwrap()),
    ];
    for (expected, spoil) in spoil {
        for name in ["etc/pam.d/sshd", "etc/ssh/sshd_config"] {
            let tree = Tree::debian();
            spoil(&tree.0.path().join(name));
            let said = tree.plan(Service::Sshd, false).unwrap_err().to_string();
            assert!(said.contains(expected), "{name}: {said}");
        }
    }
    // A directory that leads out of the tree leads nowhere.
    let tree = Tree::debian();
    fs::rename(tree.0.path().join("etc/pam.d"), tree.0.path().join("etc/old")).unwrap();
    symlink("/etc/pam.d", tree.0.path().join("etc/pam.d")).unwrap();
    assert!(tree.plan(Service::Sshd, false).is_err());
}

#[test]
fn a_file_keeps_its_owner_and_mode_and_nothing_is_left_beside_it() {
    let tree = Tree::debian();
    let path = tree.0.path().join("etc/pam.d/sshd");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, None, Some(4)).unwrap();
    fs::write(tree.0.path().join("etc/pam.d/.sshd.pam-totp-setup"), "of one that was killed").unwrap();
    tree.set_up(Service::Sshd, false).unwrap();
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o600, 0, 4));
    let snippet = fs::metadata(tree.0.path().join("etc/ssh/sshd_config.d/00-pam_totp.conf")).unwrap();
    assert_eq!(snippet.mode() & 0o7777, 0o644);
    assert!(tree.all().iter().all(|(name, _)| !name.contains("pam-totp-setup")));
}

#[test]
fn what_was_changed_by_hand_within_a_block_stays_and_what_is_outside_too() {
    let tree = Tree::debian();
    tree.set_up(Service::Sshd, false).unwrap();
    tree.set_up(Service::Sudo, false).unwrap();
    let stack = tree.read("etc/pam.d/sshd");
    // Outside of it.
    tree.write(
        "etc/pam.d/sshd",
        stack.replace("pam_loginuid.so\n", "pam_loginuid.so\nsession required pam_mkhomedir.so\n"),
    );
    tree.set_up(Service::Sshd, true).unwrap();
    let expected = DEBIAN_SSHD.replace("pam_loginuid.so\n", "pam_loginuid.so\nsession required pam_mkhomedir.so\n");
    assert_eq!(tree.read("etc/pam.d/sshd"), expected);
    // Within.
    for (from, to) in
        [("pam_permit.so", "pam_unix.so"), ("# pam-totp setup: end\n", ""), ("# was: @include common-auth\n", "")]
    {
        tree.write("etc/pam.d/sshd", stack.replacen(from, to, 1));
        let before = tree.all();
        for remove in [true, false] {
            let said = tree.plan(Service::Sshd, remove).unwrap_err().to_string();
            assert!(said.starts_with("/etc/pam.d/sshd:") && said.contains("changed by hand"), "{said}");
        }
        assert_eq!(tree.all(), before);
    }
    tree.write("etc/pam.d/sshd", &stack);
    let snippet = "etc/ssh/sshd_config.d/00-pam_totp.conf";
    tree.write(snippet, "PasswordAuthentication yes\n");
    assert!(tree.refusal(Service::Sshd).starts_with("/etc/ssh/sshd_config.d/00-pam_totp.conf was changed by hand"));
}

#[test]
fn settings_that_would_let_in_or_keep_out_whatever_setup_writes_are_named() {
    let cases = [
        ("AuthenticationMethods publickey,password\n", "/etc/ssh/sshd_config:10: sets AuthenticationMethods in a way"),
        (
            "Match User bob\n\tAuthenticationMethods password\n\tPasswordAuthentication yes\n",
            "/etc/ssh/sshd_config:10: `Match User bob` lets in with what PAM",
        ),
        (
            "Match Address 192.0.2.0/24\n\tAuthenticationMethods keyboard-interactive\n",
            "192.0.2.0/24` lets in with what PAM",
        ),
        ("Match User root\n\tPermitRootLogin prohibit-password\n", "/etc/ssh/sshd_config:11: root may log in, but"),
        ("Match User x\n\tAuthenticationMethods any\n", "/etc/ssh/sshd_config:11: AuthenticationMethods: `any` beside"),
        ("PubkeyAuthentication no\n", "no method is left by which anybody gets in"),
        ("PermitRootLogin maybe\n", "/etc/ssh/sshd_config:10: `maybe` is no value of PermitRootLogin"),
    ];
    for (more, expected) in cases {
        let tree = Tree::debian();
        tree.write("etc/ssh/sshd_config", format!("{DEBIAN_CONFIG}{more}"));
        let said = tree.refusal(Service::Sshd);
        assert!(said.contains(expected), "{more}: {said}");
    }
    // What comes before ours.
    let tree = Tree::debian();
    tree.write("etc/ssh/sshd_config.d/00-cloud.conf", "KbdInteractiveAuthentication no\n");
    assert!(tree.refusal(Service::Sshd).contains("/etc/ssh/sshd_config.d/00-cloud.conf:1"));
    // For machines: known, told, and kept.
    let tree = Tree::debian();
    let block = "Match User backup\n\tAuthenticationMethods publickey\n\tPasswordAuthentication yes\n";
    tree.write("etc/ssh/sshd_config", format!("{DEBIAN_CONFIG}{block}"));
    let warnings = tree.plan(Service::Sshd, false).unwrap().warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains("`Match User backup` lets in without a code")),
        "{warnings:?}"
    );
}

#[test]
fn ten_thousand_lines_are_read_and_change_as_few_do() {
    let tree = Tree::debian();
    let mut more = String::new();
    for line in 0..10_000 {
        writeln!(more, "session optional pam_exec.so number={line}").unwrap();
    }
    tree.write("etc/pam.d/sshd", format!("{DEBIAN_SSHD}{more}"));
    tree.write("etc/ssh/sshd_config", format!("{DEBIAN_CONFIG}{}", "AcceptEnv LANG\n".repeat(10_000)));
    let before = tree.all();
    assert_eq!(tree.set_up(Service::Sshd, false).unwrap(), 2);
    tree.set_up(Service::Sshd, true).unwrap();
    assert_eq!(tree.all(), before);
}

#[test]
fn a_policy_that_is_there_is_kept_and_one_that_contradicts_is_told_what_to_say() {
    const POLICY: &str = "etc/security/pam_totp.toml";
    let settle = |tree: &Tree, service, wish: &Wish| super::policy::settle(&tree.root(), service, wish);
    let wish = |store, enrolment| Wish { store, enrolment, ..Wish::default() };
    let tree = Tree::debian();
    for (store, enrolment) in
        [(Some(Store::Home), Some(Enrolment::Inline)), (Some(Store::Home), Some(Enrolment::Ticket))]
    {
        let said = settle(&tree, Service::Sshd, &wish(store, enrolment)).unwrap_err().to_string();
        assert!(said.contains("needs --store system"), "{said}");
    }
    assert!(settle(&tree, Service::Sudo, &wish(None, Some(Enrolment::Inline))).is_err());
    let home = settle(&tree, Service::Sshd, &wish(Some(Store::Home), None)).unwrap();
    assert_eq!(home.enrolment, pam_totp::policy::EnrolmentKind::Required);
    let groups = Wish { require_group: vec!["admins".to_owned(), "wheel".to_owned()], ..Wish::default() };
    let text = settle(&tree, Service::Sshd, &groups).unwrap().text.unwrap();
    assert!(text.contains("[require]\n# ") && text.contains("groups = [\"admins\", \"wheel\"]"), "{text}");
    // Somebody is asked for a code out of a home already.
    tree.write("etc/pam.d/login", "auth required pam_totp.so\n@include common-auth\n");
    let said = settle(&tree, Service::Sshd, &Wish::default()).unwrap_err().to_string();
    assert!(said.starts_with("/etc/pam.d/login:1: asks for codes out of home directories"), "{said}");
    settle(&tree, Service::Sshd, &wish(Some(Store::Home), None)).unwrap();
    tree.write(POLICY, "version = 1\n[defaults]\nstore = \"system\"\n[service.sshd]\nenrolment = \"ticket\"\n");
    assert_eq!(settle(&tree, Service::Sshd, &Wish::default()).unwrap().text, None);
    settle(&tree, Service::Sshd, &wish(Some(Store::System), Some(Enrolment::Ticket))).unwrap();
    let said = settle(&tree, Service::Sshd, &wish(Some(Store::Home), Some(Enrolment::Inline))).unwrap_err().to_string();
    let lines = "\n    [defaults]\n    store = \"home\"\n    [service.sshd]\n    enrolment = \"inline\"";
    assert!(said.ends_with(lines), "{said}");
    tree.write(POLICY, "version = 2\n");
    assert!(tree.refusal(Service::Sshd).contains("/etc/security/pam_totp.toml:1:"));
}

#[test]
fn undoing_goes_back_from_each_step_and_keeps_what_somebody_else_wrote() {
    let tree = Tree::debian();
    let original = tree.all();
    let root = tree.root();
    let plan = tree.plan(Service::Sshd, false).unwrap();
    let [stack, settings] = plan.steps.as_slice() else { panic!("{plan:?}") };
    let between = Some("AuthenticationMethods publickey\n".to_owned());
    let steps = vec![
        plan::Step { after: between.clone(), ..settings.clone() },
        stack.clone(),
        plan::Step { before: between, ..settings.clone() },
    ];
    for reached in 0..=steps.len() {
        plan::apply(&root, &steps[..reached], None).unwrap();
        // As often as one likes, also where the last time was cut off.
        for times in 0..2 {
            let undone = plan::undo(&root, &steps, false);
            assert_eq!((undone.stopped, undone.not_reloaded), (None, None), "{reached} {times}");
            assert_eq!(tree.all(), original, "{reached} {times}");
        }
    }
    plan::apply(&root, &steps, None).unwrap();
    let by_hand = tree.read("etc/pam.d/sshd") + "# mine\n";
    tree.write("etc/pam.d/sshd", &by_hand);
    let undone = plan::undo(&root, &steps, false);
    assert!(undone.stopped.is_some_and(|stopped| stopped.contains("/etc/pam.d/sshd was changed by somebody else")));
    assert_eq!(tree.read("etc/pam.d/sshd"), by_hand);
    assert_eq!(tree.read("etc/ssh/sshd_config.d/00-pam_totp.conf"), "AuthenticationMethods publickey\n", "keys get in");
}
