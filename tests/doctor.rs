//! `pam-totp doctor`: stacks and settings, right and wrong, and what it says to each.

use crate::support::machine::{BOB, Machine};
use crate::support::{dist, example_file, output_of};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Debian's, as pam-auth-update writes it.
const COMMON_AUTH: &str = "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\n\
                           auth required pam_permit.so\nauth optional pam_cap.so\n";
/// Red Hat's, as authselect writes it.
const PASSWORD_AUTH: &str = "auth required pam_env.so\nauth required pam_faildelay.so delay=2000000\n\
                             auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular\n\
                             auth [default=1 ignore=ignore success=ok] pam_localuser.so\n\
                             auth sufficient pam_unix.so nullok\n\
                             auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular\n\
                             auth sufficient pam_sss.so forward_pass\nauth required pam_deny.so\n";
/// What the README says.
const SETTINGS: &str = "UsePAM yes\nKbdInteractiveAuthentication yes\n\
                        AuthenticationMethods publickey,keyboard-interactive\nPasswordAuthentication no\n";
/// A key and a code.
const CODE: &str = "auth required pam_totp.so\nauth required pam_permit.so\n";
const INLINE: &str = "version = 1\n[defaults]\nstore = \"system\"\n[service.sshd]\nenrolment = \"inline\"\n";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA root\n";

/// An exemption after which nobody else has to say yes.
const SAYS_YES: &str = "version = 1\n[[exempt]]\nusers = [\"backup\"]\nnetworks = [\"203.0.113.0/24\"]\nservices = [\"sshd\"]\n\
                        until = 2199-01-01\nreason = \"moves\"\nresult = \"success\"\n";
const NO_FORWARDING: &str = "UsePAM yes\nAuthenticationMethods publickey,keyboard-interactive\nDisableForwarding yes\n";
const GATE: &str = "ForceCommand /usr/bin/pam-totp gate\n";
const NOTHING_BESIDE: &str = "DisableForwarding yes\nPermitTunnel no\nPermitUserRC no\n";

const SSHD: &str = "etc/pam.d/sshd";
const SUDO: &str = "etc/pam.d/sudo";
const CONFIG: &str = "etc/ssh/sshd_config";
const POLICY: &str = "etc/security/pam_totp.toml";

/// A root with these files beside, or in the place of, those of a machine on which all is right.
struct Tree(tempfile::TempDir);

impl Tree {
    fn with(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        let module = "usr/lib/x86_64-linux-gnu/security";
        fs::create_dir_all(tree.0.path().join(module)).unwrap();
        for name in ["pam_totp.so", "pam_unix.so"] {
            fs::copy(dist("pam_totp.so"), tree.0.path().join(module).join(name)).unwrap();
        }
        let right: [(&str, &str); 12] = [
            ("etc/passwd", "root:x:0:0::/root:/bin/bash\nbackup:x:34:34::/var/backups:/usr/sbin/nologin\n"),
            ("etc/group", "root:x:0:\nbackup:x:34:\n"),
            ("etc/shells", "/bin/sh\n/bin/bash\n"),
            (SSHD, CODE),
            (CONFIG, SETTINGS),
            ("etc/pam.d/common-auth", COMMON_AUTH),
            ("etc/pam.d/password-auth", PASSWORD_AUTH),
            ("etc/pam.d/system-auth", PASSWORD_AUTH),
            ("etc/pam.d/postlogin", "session optional pam_umask.so silent\n"),
            ("etc/pam.d/common-account", "account required pam_unix.so\n"),
            ("etc/pam.d/common-session", "session required pam_unix.so\n"),
            ("etc/pam.d/common-password", "password required pam_unix.so\n"),
        ];
        for (path, text) in right.iter().chain(files) {
            tree.write(path, text.as_bytes());
        }
        tree.write("etc/pam.d/common-session-noninteractive", b"session required pam_unix.so\n");
        tree
    }

    fn write(&self, path: impl AsRef<Path>, text: &[u8]) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn doctor(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(dist("pam-totp"));
        command.arg("doctor").arg("--root").arg(self.0.path()).args(arguments).stdin(Stdio::null());
        command
    }

    fn report(&self, arguments: &[&str]) -> Value {
        let output = self.doctor(arguments).arg("--json").output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let is_clean = report["findings"].as_array().unwrap().is_empty();
        assert_eq!(output.status.code(), Some(if is_clean { 0 } else { 1 }), "{report}");
        report
    }

    /// `SERVICE NAME PLACE` of each finding, the place without `/etc/`.
    fn findings(&self, arguments: &[&str]) -> Vec<String> {
        let report = self.report(arguments);
        let findings = report["findings"].as_array().unwrap().iter().map(|finding| {
            let word = |key: &str| finding[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", word("service"), word("name"), word("place").trim_start_matches("/etc/"))
        });
        findings.collect()
    }
}

/// A row: what is written, and what is said to it.
type Row<'a, T> = (&'a str, Vec<(&'a str, T)>, Vec<&'a str>);

fn judge<T: AsRef<str>>(rows: &[Row<'_, T>], arguments: &[&str]) {
    let wrong = rows.iter().filter_map(|(title, files, expected)| {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_ref())).collect();
        let found = Tree::with(&files).findings(arguments);
        (found != *expected).then(|| format!("{title}:\n  expected {expected:?}\n  found    {found:?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn stacks_that_are_right_and_wrong() {
    let examples = ["sshd-debian", "sshd-rhel", "sudo", "su"].map(example_file);
    let [debian, rhel, sudo, su] = examples.each_ref().map(String::as_str);
    let long = "auth optional pam_faildelay.so delay=1\n".repeat(10_000) + CODE;
    let rows: Vec<Row<'_, &str>> = vec![
        ("as Debian has it in pam.d-examples", vec![(SSHD, debian)], vec![]),
        ("as Red Hat has it in pam.d-examples", vec![(SSHD, rhel)], vec![]),
        ("sudo in pam.d-examples", vec![(SUDO, sudo)], vec![]),
        ("su in pam.d-examples: root becomes anybody", vec![("etc/pam.d/su", su)], vec![]),
        ("su-l by way of su", vec![("etc/pam.d/su", su), ("etc/pam.d/su-l", "auth include su\n")], vec![]),
        ("password, then code", vec![(SSHD, "@include common-auth\nauth required pam_totp.so\n")], vec![]),
        ("code, then password", vec![(SSHD, "auth required pam_totp.so\n@include common-auth\n")], vec![]),
        (
            "code, then password, on Red Hat",
            vec![(SSHD, "auth required pam_totp.so\nauth substack password-auth\n")],
            vec![],
        ),
        ("the same by include", vec![(SSHD, "auth required pam_totp.so\nauth include password-auth\n")], vec![]),
        (
            "a password in a substack, then the code",
            vec![(SSHD, "auth substack password-auth\nauth required pam_totp.so\n")],
            vec![],
        ),
        (
            "by include the password is enough",
            vec![(SSHD, "auth include password-auth\nauth required pam_totp.so\n")],
            vec!["sshd skipped pam.d/password-auth:5"],
        ),
        (
            "the tutorials' nullok",
            vec![(SSHD, "@include common-auth\nauth required pam_totp.so nullok\n")],
            vec!["sshd no-end pam.d/sshd:2"],
        ),
        (
            "the same with a key",
            vec![(SSHD, "auth required pam_totp.so nullok\nauth required pam_permit.so\n")],
            vec!["sshd no-end pam.d/sshd:1"],
        ),
        (
            "optional in the policy, without an end",
            vec![(POLICY, "version = 1\n[service.sshd]\nenrolment = \"optional\"\n")],
            vec!["sshd no-end security/pam_totp.toml:3"],
        ),
        (
            "groups that need no code, and nobody who says yes",
            vec![(SSHD, "auth required pam_totp.so\n"), (POLICY, "version = 1\n[require]\ngroups = [\"admins\"]\n")],
            vec!["sshd nobody-says-yes pam.d/sshd:1"],
        ),
        (
            "optional until a day that is over: nobody has to say yes",
            vec![
                (SSHD, "auth required pam_totp.so\n"),
                (POLICY, "version = 1\n[service.sshd]\nenrol_by = 2001-01-31\n"),
            ],
            vec![],
        ),
        (
            "an exemption that says yes itself",
            vec![(SSHD, "auth required pam_totp.so\n"), (POLICY, SAYS_YES), (CONFIG, NO_FORWARDING)],
            vec![],
        ),
        (
            "use_first_pass, and nobody asked before",
            vec![(SSHD, "auth required pam_totp.so use_first_pass\nauth required pam_permit.so\n")],
            vec!["sshd no-first-pass pam.d/sshd:1"],
        ),
        (
            "use_first_pass behind a password",
            vec![(SSHD, "@include common-auth\nauth required pam_totp.so use_first_pass\n")],
            vec![],
        ),
        ("what holds for other services", vec![("etc/pam.d/other", CODE)], vec![]),
        ("optional until a day", vec![(POLICY, "version = 1\n[service.sshd]\nenrol_by = 2199-01-31\n")], vec![]),
        (
            "nullok, and nobody who says yes",
            vec![(SSHD, "auth required pam_totp.so nullok\n")],
            vec!["sshd nobody-says-yes pam.d/sshd:1"],
        ),
        (
            "either is enough",
            vec![(SSHD, "auth sufficient pam_totp.so\n@include common-auth\n")],
            vec!["sshd not-required pam.d/sshd:1"],
        ),
        (
            "optional",
            vec![(SSHD, "@include common-auth\nauth optional pam_totp.so\n")],
            vec!["sshd not-required pam.d/sshd:2"],
        ),
        (
            "the tutorials' brackets",
            vec![(SSHD, "auth [success=done new_authtok_reqd=done default=die] pam_totp.so\n")],
            vec![],
        ),
        (
            "default=ignore",
            vec![(SSHD, "auth [success=ok default=ignore] pam_totp.so\nauth required pam_permit.so\n")],
            vec!["sshd not-required pam.d/sshd:1"],
        ),
        (
            "a store that is out of reach",
            vec![(
                SSHD,
                "auth [success=ok authinfo_unavail=ignore default=die] pam_totp.so\nauth required pam_permit.so\n",
            )],
            vec!["sshd outage-ignored pam.d/sshd:1"],
        ),
        (
            "users who are not known",
            vec![(
                SSHD,
                "auth [success=ok user_unknown=ignore default=die] pam_totp.so\nauth required pam_permit.so\n",
            )],
            vec!["sshd unknown-user-ignored pam.d/sshd:1"],
        ),
        (
            "a module that is missing",
            vec![(
                SSHD,
                "auth [success=ok module_unknown=ignore default=die] pam_totp.so\nauth required pam_permit.so\n",
            )],
            vec!["sshd missing-module-ignored pam.d/sshd:1"],
        ),
        (
            "a wrong code is forgotten",
            vec![(SSHD, "auth required pam_totp.so\nauth [default=reset] pam_warn.so\nauth required pam_permit.so\n")],
            vec!["sshd not-required pam.d/sshd:2"],
        ),
        (
            "sufficient before us",
            vec![(SSHD, "auth sufficient pam_unix.so\nauth required pam_totp.so\nauth required pam_deny.so\n")],
            vec!["sshd skipped pam.d/sshd:1"],
        ),
        (
            "a jump too far",
            vec![(
                SSHD,
                "auth [success=2 default=ignore] pam_unix.so\nauth requisite pam_deny.so\n\
                      auth required pam_totp.so\nauth required pam_permit.so\n",
            )],
            vec!["sshd skipped pam.d/sshd:1"],
        ),
        (
            "the right jump",
            vec![(
                SSHD,
                "auth [success=1 default=ignore] pam_unix.so\nauth requisite pam_deny.so\n\
                      auth required pam_totp.so\nauth required pam_permit.so\n",
            )],
            vec![],
        ),
        (
            "pam_access lets the office past",
            vec![(
                SSHD,
                "auth [success=1 default=ignore] pam_access.so accessfile=/etc/security/lan.conf\n\
                      auth required pam_totp.so\nauth required pam_permit.so\n",
            )],
            vec!["sshd skipped pam.d/sshd:1"],
        ),
        (
            "pam_succeed_if lets a group past",
            vec![(
                SSHD,
                "auth [success=1 default=ignore] pam_succeed_if.so user ingroup robots\n\
                      auth required pam_totp.so\nauth required pam_permit.so\n",
            )],
            vec!["sshd skipped pam.d/sshd:1"],
        ),
        (
            "pam_rootok where the process is root's",
            vec![(SSHD, "auth sufficient pam_rootok.so\nauth required pam_totp.so\nauth required pam_permit.so\n")],
            vec!["sshd skipped pam.d/sshd:1"],
        ),
        (
            "pam_deny at the end",
            vec![(SSHD, "auth required pam_totp.so\nauth required pam_deny.so\n")],
            vec!["sshd nobody-gets-in pam.d/sshd"],
        ),
        (
            "what is included is not there",
            vec![(SSHD, "auth required pam_totp.so\n@include common-aut\n")],
            vec!["sshd nobody-gets-in pam.d/sshd", "sshd stack-line pam.d/sshd:2"],
        ),
        (
            "a file that includes itself",
            vec![(SSHD, "auth required pam_totp.so\nauth include sshd\n")],
            vec!["sshd nobody-gets-in pam.d/sshd", "sshd stack-line pam.d/sshd:2"],
        ),
        (
            "two times",
            vec![(SSHD, "auth required pam_totp.so\nauth include sshd\nauth include sshd\n")],
            vec!["sshd nobody-gets-in pam.d/sshd", "sshd stack-line pam.d/sshd:2", "sshd stack-line pam.d/sshd:3"],
        ),
        (
            "a word that is no type",
            vec![(SSHD, "auth required pam_totp.so\nauht required pam_unix.so\n")],
            vec!["sshd nobody-gets-in pam.d/sshd", "sshd stack-line pam.d/sshd:2"],
        ),
        (
            "a control that is none",
            vec![(SSHD, "auth requird pam_totp.so\nauth required pam_permit.so\n")],
            vec!["sshd nobody-gets-in pam.d/sshd", "sshd stack-line pam.d/sshd:1"],
        ),
        (
            "two lines that ask",
            vec![(SSHD, "auth required pam_totp.so\nauth required pam_totp.so\nauth required pam_permit.so\n")],
            vec!["sshd asked-twice pam.d/sshd:2"],
        ),
        (
            "an argument that is none",
            vec![(SSHD, "auth required pam_totp.so nulok\nauth required pam_permit.so\n")],
            vec!["sshd argument pam.d/sshd:1"],
        ),
        (
            "a line that says nothing where the module is missing",
            vec![(SSHD, "-auth required pam_totp.so\nauth required pam_permit.so\n")],
            vec!["sshd quiet pam.d/sshd:1"],
        ),
        (
            "lines that go on",
            vec![(SSHD, "auth \\\n  required \\\n  pam_totp.so\nauth required \\\n pam_permit.so\n")],
            vec![],
        ),
        (
            "the last line goes on",
            vec![(SSHD, "auth required pam_totp.so\nauth required pam_permit.so\\")],
            vec!["sshd nobody-gets-in pam.d/sshd", "sshd stack-line pam.d/sshd:2"],
        ),
        ("ten thousand lines", vec![(SSHD, &long)], vec![]),
        (
            "a policy that is none",
            vec![(POLICY, "version = 1\n[defaults]\nwidow = 3\n")],
            vec!["- policy security/pam_totp.toml"],
        ),
        (
            "a policy of the line's own",
            vec![
                (SSHD, "auth required pam_totp.so conf=/etc/own.toml\nauth required pam_permit.so\n"),
                ("etc/own.toml", ""),
            ],
            vec!["- policy own.toml"],
        ),
    ];
    judge(&rows, &[]);
    let alone: Vec<Row<'_, &str>> = vec![
        ("nothing asks", vec![(SSHD, "@include common-auth\n")], vec!["sshd no-line pam.d/sshd"]),
        (
            "no lines for auth",
            vec![(SSHD, "account required pam_permit.so\n"), ("etc/pam.d/other", COMMON_AUTH)],
            vec!["sshd no-line pam.d/sshd"],
        ),
        (
            "the module's name with a carriage return",
            vec![(SSHD, "auth required pam_totp.so\r\nauth required pam_permit.so\r\n")],
            vec!["sshd no-line pam.d/sshd"],
        ),
        (
            "by its whole path",
            vec![(SSHD, "auth required /usr/lib/x86_64-linux-gnu/security/pam_totp.so\nauth required pam_permit.so\n")],
            vec![],
        ),
    ];
    judge(&alone, &["--service", "sshd"]);
    judge(&[("nothing is in use", vec![(SSHD, "@include common-auth\n")], vec!["- not-in-use -"])], &[]);
}

#[test]
fn settings_of_sshd_that_are_right_and_wrong() {
    let with = |line: &str| format!("{line}\n{SETTINGS}");
    let after = |lines: &str| format!("{SETTINGS}{lines}");
    let exempt = "version = 1\n[[exempt]]\nusers = [\"backup\"]\nnetworks = [\"203.0.113.0/24\"]\nservices = [\"sshd\"]\n\
                  until = 2199-01-01\nreason = \"moves\"\n";
    let login_key = "version = 1\n[defaults]\nstore = \"system\"\n[service.sshd]\nidentity = \"login-key\"\n";
    let keys = with("AuthorizedKeysFile /etc/ssh/authorized_keys/%u");
    let rows: Vec<Row<'_, String>> = vec![
        ("right", vec![], vec![]),
        (
            "questions off",
            vec![(CONFIG, with("KbdInteractiveAuthentication no"))],
            vec![
                "sshd sshd-config ssh/sshd_config:4",
                "sshd no-way-in ssh/sshd_config:1",
                "sshd questions-off ssh/sshd_config:1",
                "sshd dropped-list ssh/sshd_config:1",
            ],
        ),
        (
            "by their old name",
            vec![(CONFIG, with("ChallengeResponseAuthentication no"))],
            vec![
                "sshd sshd-config ssh/sshd_config:4",
                "sshd no-way-in ssh/sshd_config:1",
                "sshd questions-off ssh/sshd_config:1",
                "sshd dropped-list ssh/sshd_config:1",
            ],
        ),
        (
            "PAM off",
            vec![(CONFIG, with("UsePAM no"))],
            vec!["sshd pam-off ssh/sshd_config:1", "sshd no-way-in ssh/sshd_config:1"],
        ),
        (
            "no word of PAM",
            vec![(CONFIG, "AuthenticationMethods publickey,keyboard-interactive\n".to_owned())],
            vec!["sshd pam-off -", "sshd no-way-in -"],
        ),
        (
            "any method",
            vec![(CONFIG, "UsePAM yes\nPasswordAuthentication no\n".to_owned())],
            vec!["sshd key-alone -", "sshd code-alone -"],
        ),
        (
            "any method, and passwords",
            vec![(CONFIG, "UsePAM yes\nKbdInteractiveAuthentication no\n".to_owned())],
            vec!["sshd key-alone -", "sshd code-alone -", "sshd questions-off ssh/sshd_config:2"],
        ),
        (
            "key or questions",
            vec![(CONFIG, with("AuthenticationMethods publickey keyboard-interactive"))],
            vec!["sshd key-alone ssh/sshd_config:1", "sshd code-alone ssh/sshd_config:1"],
        ),
        (
            "a code that is enough, though the stack has a password",
            vec![
                (CONFIG, with("AuthenticationMethods keyboard-interactive")),
                (SSHD, "auth [success=done default=die] pam_totp.so\n@include common-auth\n".to_owned()),
            ],
            vec!["sshd code-alone ssh/sshd_config:1"],
        ),
        (
            "a password that does not count",
            vec![
                (CONFIG, with("AuthenticationMethods keyboard-interactive")),
                (SSHD, "auth optional pam_unix.so\nauth required pam_totp.so\n".to_owned()),
            ],
            vec!["sshd code-alone ssh/sshd_config:1"],
        ),
        (
            "a keyring that only listens",
            vec![
                (CONFIG, with("AuthenticationMethods keyboard-interactive")),
                (
                    SSHD,
                    "auth required pam_totp.so\nauth required pam_permit.so\nauth optional pam_gnome_keyring.so\n"
                        .to_owned(),
                ),
            ],
            vec!["sshd code-alone ssh/sshd_config:1"],
        ),
        (
            "questions alone, for password and code",
            vec![
                (CONFIG, with("AuthenticationMethods keyboard-interactive")),
                (SSHD, "@include common-auth\nauth required pam_totp.so\n".to_owned()),
            ],
            vec![],
        ),
        (
            "key and password, before a stack that asks for both",
            vec![
                (CONFIG, "UsePAM yes\nAuthenticationMethods publickey,password\n".to_owned()),
                (SSHD, "@include common-auth\nauth required pam_totp.so\n".to_owned()),
            ],
            vec!["sshd key-and-password ssh/sshd_config:2"],
        ),
        (
            "key and password, before one that asks for neither",
            vec![
                (CONFIG, "UsePAM yes\nAuthenticationMethods publickey,password\n".to_owned()),
                (SSHD, "@include common-auth\nauth optional pam_totp.so\n".to_owned()),
            ],
            vec!["sshd not-required pam.d/sshd:2", "sshd key-and-password ssh/sshd_config:2"],
        ),
        (
            "both in one answer",
            vec![
                (CONFIG, "UsePAM yes\nAuthenticationMethods publickey,password\n".to_owned()),
                (SSHD, "auth required pam_totp.so forward_pass\nauth required pam_unix.so use_first_pass\n".to_owned()),
            ],
            vec![],
        ),
        (
            "both in one answer, and no questions",
            vec![
                (CONFIG, "UsePAM yes\nAuthenticationMethods password\nKbdInteractiveAuthentication no\n".to_owned()),
                (SSHD, "auth required pam_totp.so forward_pass\nauth required pam_unix.so use_first_pass\n".to_owned()),
            ],
            vec![],
        ),
        (
            "a password, and then the stack again",
            vec![(CONFIG, "UsePAM yes\nAuthenticationMethods publickey,password,keyboard-interactive\n".to_owned())],
            vec!["sshd password-before-questions ssh/sshd_config:2"],
        ),
        (
            "no keys at all, and root has none",
            vec![
                (CONFIG, "UsePAM yes\nPubkeyAuthentication no\nPasswordAuthentication no\n".to_owned()),
                (SSHD, "@include common-auth\nauth required pam_totp.so\n".to_owned()),
            ],
            vec![],
        ),
        (
            "an exception by a method that is off",
            vec![(CONFIG, after("Match User backup\nAuthenticationMethods password\n"))],
            vec!["sshd no-way-in ssh/sshd_config:6", "sshd dropped-list ssh/sshd_config:6"],
        ),
        (
            "every group",
            vec![(CONFIG, after("Match Group ?*\nAuthenticationMethods publickey\n"))],
            vec!["sshd key-alone ssh/sshd_config:6"],
        ),
        (
            "a password for everything",
            vec![
                (CONFIG, "UsePAM yes\nAuthenticationMethods publickey,keyboard-interactive password\n".to_owned()),
                (SSHD, "@include common-auth\nauth required pam_totp.so\n".to_owned()),
            ],
            vec!["sshd password-for-everything ssh/sshd_config:2"],
        ),
        (
            "empty passwords",
            vec![(CONFIG, "UsePAM yes\nPermitEmptyPasswords yes\nAuthenticationMethods none\n".to_owned())],
            vec!["sshd empty-password ssh/sshd_config:2"],
        ),
        (
            "the word of a host",
            vec![(CONFIG, "UsePAM yes\nHostbasedAuthentication yes\nAuthenticationMethods hostbased\n".to_owned())],
            vec!["sshd host-alone ssh/sshd_config:3"],
        ),
        (
            "Kerberos",
            vec![(CONFIG, "UsePAM yes\nGSSAPIAuthentication yes\nAuthenticationMethods gssapi-with-mic\n".to_owned())],
            vec!["sshd gssapi-alone ssh/sshd_config:3"],
        ),
        (
            "root has a key, and is not asked by questions",
            vec![("root/.ssh/authorized_keys", KEY.to_owned())],
            vec!["sshd root-locked-out -"],
        ),
        (
            "root may be asked",
            vec![("root/.ssh/authorized_keys", KEY.to_owned()), (CONFIG, with("PermitRootLogin yes"))],
            vec![],
        ),
        (
            "root may not at all",
            vec![("root/.ssh/authorized_keys", KEY.to_owned()), (CONFIG, with("PermitRootLogin no"))],
            vec![],
        ),
        (
            "root by a key with a command",
            vec![(CONFIG, with("PermitRootLogin forced-commands-only\nAuthenticationMethods publickey"))],
            vec!["sshd key-alone ssh/sshd_config:2", "sshd command-key-alone ssh/sshd_config:2"],
        ),
        (
            "root alone by a key",
            vec![(CONFIG, after("PermitRootLogin yes\nMatch User root\nAuthenticationMethods publickey\n"))],
            vec!["sshd key-alone ssh/sshd_config:7"],
        ),
        (
            "a robot that is named",
            vec![(CONFIG, after("Match User backup\nAuthenticationMethods publickey\n"))],
            vec![],
        ),
        (
            "a robot with a command, and forwarding",
            vec![(CONFIG, after("Match User backup\nAuthenticationMethods publickey\nForceCommand /bin/true\n"))],
            vec!["sshd forced-command-forwards ssh/sshd_config:7"],
        ),
        (
            "a robot with a command alone",
            vec![(
                CONFIG,
                after(
                    "Match User backup\nAuthenticationMethods publickey\nForceCommand /bin/true\nDisableForwarding yes\n",
                ),
            )],
            vec![],
        ),
        (
            "a robot with a command and a tunnel",
            vec![(
                CONFIG,
                after(
                    "Match User backup\nAuthenticationMethods publickey\nForceCommand /bin/true\nDisableForwarding yes\nPermitTunnel yes\n",
                ),
            )],
            vec!["sshd forced-command-forwards ssh/sshd_config:7"],
        ),
        (
            "the gate for one",
            vec![(
                CONFIG,
                after(&format!("Match User backup\nAuthenticationMethods publickey\n{GATE}{NOTHING_BESIDE}")),
            )],
            vec![],
        ),
        (
            "the gate, and forwarding and ~/.ssh/rc before it",
            vec![(
                CONFIG,
                after(&format!("Match User backup\nAuthenticationMethods publickey\n{GATE}PermitTunnel yes\n")),
            )],
            vec!["sshd gate-forwards ssh/sshd_config:7", "sshd gate-user-rc ssh/sshd_config:7"],
        ),
        (
            "the gate, and a tunnel",
            vec![(CONFIG, after(&format!("Match User backup\nPermitTunnel yes\n{GATE}{NOTHING_BESIDE}")))],
            vec!["sshd gate-forwards ssh/sshd_config:7"],
        ),
        (
            "the gate, and variables of clients that say nothing to a shell",
            vec![(CONFIG, after(&format!("AcceptEnv LANG LC_* EDITOR\nMatch User backup\n{GATE}{NOTHING_BESIDE}")))],
            vec![],
        ),
        (
            "the gate, and any variable of clients",
            vec![(CONFIG, after(&format!("AcceptEnv LANG\nAcceptEnv *\nMatch User backup\n{GATE}{NOTHING_BESIDE}")))],
            vec!["sshd gate-environment ssh/sshd_config:8"],
        ),
        (
            "the gate, variables of clients that a block takes back, and those of the home",
            vec![(
                CONFIG,
                after(&format!(
                    "AcceptEnv BASH_*\nPermitUserEnvironment LANG,LD_*\nMatch User backup\nAcceptEnv LANG\n{GATE}{NOTHING_BESIDE}"
                )),
            )],
            vec!["sshd gate-user-environment ssh/sshd_config:9"],
        ),
        (
            "the gate, and files without a code",
            vec![(
                CONFIG,
                after(&format!("Match User backup\nForceCommand pam-totp gate --pass=sftp -- x\n{NOTHING_BESIDE}")),
            )],
            vec!["sshd gate-passes ssh/sshd_config:6"],
        ),
        (
            "the gate for everybody, without PAM",
            vec![
                (CONFIG, format!("UsePAM no\n{GATE}{NOTHING_BESIDE}")),
                (SSHD, "auth required pam_unix.so\n".to_owned()),
            ],
            vec![],
        ),
        (
            "the gate for everybody, and forwarding, without PAM",
            vec![(CONFIG, format!("UsePAM no\n{GATE}")), (SSHD, "auth required pam_unix.so\n".to_owned())],
            vec!["sshd gate-forwards ssh/sshd_config:2", "sshd gate-user-rc ssh/sshd_config:2"],
        ),
        (
            "the gate for everybody, with a stack that nobody asks",
            vec![(CONFIG, format!("UsePAM no\n{GATE}{NOTHING_BESIDE}"))],
            vec![],
        ),
        (
            "the gate for everybody, and a shell for whoever gives no code, without PAM",
            vec![
                (CONFIG, format!("UsePAM no\n{}{NOTHING_BESIDE}", GATE.replace("gate\n", "gate || sh\n"))),
                (SSHD, "auth required pam_unix.so\n".to_owned()),
            ],
            vec!["- not-in-use -"],
        ),
        (
            "a command that is like the gate",
            vec![(CONFIG, after("Match User backup\nAuthenticationMethods publickey\nForceCommand pam-totp gates\n"))],
            vec!["sshd forced-command-forwards ssh/sshd_config:7"],
        ),
        (
            "everybody but one",
            vec![(CONFIG, after("Match User *,!alice\nAuthenticationMethods publickey\n"))],
            vec!["sshd key-alone ssh/sshd_config:6"],
        ),
        (
            "the office",
            vec![(CONFIG, after("Match Address 192.168.0.0/16\nAuthenticationMethods publickey\n"))],
            vec!["sshd key-alone ssh/sshd_config:6"],
        ),
        (
            "a block for everybody",
            vec![(CONFIG, "UsePAM yes\nMatch all\nAuthenticationMethods publickey,keyboard-interactive\n".to_owned())],
            vec![],
        ),
        (
            "too little time for inline",
            vec![(CONFIG, with("LoginGraceTime 30")), (POLICY, INLINE.to_owned())],
            vec!["sshd grace-too-short ssh/sshd_config:1"],
        ),
        ("enough time", vec![(CONFIG, with("LoginGraceTime 2m")), (POLICY, INLINE.to_owned())], vec![]),
        (
            "keys in homes, and people told by their keys",
            vec![(POLICY, login_key.to_owned())],
            vec!["sshd keys-of-the-user -"],
        ),
        (
            "people told by their keys, and asked before them",
            vec![
                (CONFIG, with("AuthorizedKeysFile /etc/keys/%u\nAuthenticationMethods keyboard-interactive,publickey")),
                (POLICY, login_key.to_owned()),
            ],
            vec!["sshd no-login-key ssh/sshd_config:2"],
        ),
        ("an exemption that is over, and a host that forwards", vec![(POLICY, exempt.replace("2199", "2020"))], vec![]),
        ("keys that are root's", vec![(CONFIG, keys), (POLICY, login_key.to_owned())], vec![]),
        ("exempt networks, and a host that forwards", vec![(POLICY, exempt.to_owned())], vec!["sshd forwards -"]),
        (
            "exempt networks, and one that does not",
            vec![(POLICY, exempt.to_owned()), (CONFIG, with("DisableForwarding yes"))],
            vec![],
        ),
        (
            "a line that comes too late",
            vec![
                (CONFIG, format!("Include /etc/ssh/sshd_config.d/*.conf\n{SETTINGS}")),
                ("etc/ssh/sshd_config.d/50-redhat.conf", "ChallengeResponseAuthentication no\nUsePAM yes\n".to_owned()),
            ],
            vec![
                "sshd sshd-config ssh/sshd_config:4",
                "sshd no-way-in ssh/sshd_config.d/50-redhat.conf:1",
                "sshd questions-off ssh/sshd_config.d/50-redhat.conf:1",
                "sshd dropped-list ssh/sshd_config.d/50-redhat.conf:1",
            ],
        ),
        (
            "a file that comes first",
            vec![
                (CONFIG, "Include /etc/ssh/sshd_config.d/*.conf\nKbdInteractiveAuthentication no\n".to_owned()),
                ("etc/ssh/sshd_config.d/10-pam_totp.conf", SETTINGS.to_owned()),
            ],
            vec![],
        ),
        (
            "a word that sshd does not know",
            vec![(CONFIG, with("UsePam2 yes"))],
            vec!["sshd sshd-config ssh/sshd_config:1"],
        ),
        (
            "a method that there is not",
            vec![(CONFIG, "UsePAM yes\nAuthenticationMethods publickey,keyboard\n".to_owned())],
            vec!["sshd key-alone -", "sshd code-alone -", "sshd code-alone -", "sshd sshd-config ssh/sshd_config:2"],
        ),
        (
            "a device that there is not",
            vec![(CONFIG, "UsePAM yes\nAuthenticationMethods publickey,keyboard-interactive:bsdauth\n".to_owned())],
            vec!["sshd no-way-in ssh/sshd_config:2", "sshd unknown-device ssh/sshd_config:2"],
        ),
        ("CRLF", vec![(CONFIG, SETTINGS.replace('\n', "\r\n"))], vec![]),
    ];
    judge(&rows, &[]);
}

#[test]
fn for_one_user_an_exception_is_a_finding() {
    let blocks =
        format!("{SETTINGS}Match User backup\nAuthenticationMethods publickey\nMatch Group robots\nUsePAM no\n");
    let blocks = blocks.replace("UsePAM no\n", "AuthenticationMethods publickey\n");
    let tree = Tree::with(&[(CONFIG, &blocks), ("etc/group", "root:x:0:\nbackup:x:34:\nrobots:x:99:carol\n")]);
    assert_eq!(tree.findings(&[]), [] as [&str; 0]);
    let notes = tree.report(&[])["notes"].to_string();
    assert!(notes.contains("/etc/ssh/sshd_config:5") && notes.contains("Match User backup"), "{notes}");
    let of = |user: &str| -> Vec<String> {
        let findings = tree.findings(&["--user", user]).into_iter();
        findings.filter(|finding| finding.contains("alone")).collect()
    };
    assert_eq!(of("backup"), ["sshd key-alone ssh/sshd_config:6"]);
    assert_eq!(of("carol"), ["sshd key-alone ssh/sshd_config:8"]);
    assert_eq!(of("dave"), [] as [&str; 0]);
}

#[test]
fn what_it_says_has_the_reason_and_the_line_to_write() {
    let stack =
        "auth sufficient pam_unix.so\nauth required pam_totp.so conf=/etc/own.toml\nauth required pam_deny.so\n";
    let tree = Tree::with(&[(SSHD, stack), ("etc/own.toml", "version = 1\n")]);
    let output = tree.doctor(&[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = "OPEN    sshd: where pam_unix.so says `success`, it is enough (`sufficient`): no code is asked for \
                    (/etc/pam.d/sshd:1)\n        \
                    This way in asks for no code: pam_unix.so success (/etc/pam.d/sshd:1).\n        \
                    Take the line that asks for the code from its place, and write it above /etc/pam.d/sshd:1:\n            \
                    auth       required     pam_totp.so conf=/etc/own.toml\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.trim_end().ends_with("1 finding."), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_line_is_not_to_be_written_into_what_others_include() {
    let tree = Tree::with(&[(SSHD, "auth include password-auth\nauth required pam_totp.so\n")]);
    let report = tree.report(&[]);
    let way_out = report["findings"][0]["way_out"].as_str().unwrap();
    let expected = "above the line of /etc/pam.d/sshd by which /etc/pam.d/password-auth is included:";
    assert!(way_out.ends_with(expected), "{way_out}");
}

#[test]
fn names_paths_and_values_cannot_move_the_cursor() {
    let tree = Tree::with(&[
        ("etc/pam.d/x\u{202e}\u{9b}", "auth sufficient pam_unix.so\nauth required pam_totp.so\n"),
        ("etc/pam.d/y", "auth required pam_totp.so conf=/etc/\u{1b}[31m\nauth required pam_permit.so\n"),
        (POLICY, "version = 1\n[defaults]\nstore = \"\\u001b[31m\u{202e}\"\n"),
    ]);
    let output =
        tree.doctor(&["--service", "\u{1b}[31m", "--service", "x\u{202e}\u{9b}", "--service", "y"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("x\\u{202e}\\u{9b}"), "{text}");
    assert!(!text.chars().any(|char| (char.is_control() && char != '\n') || char == '\u{202e}'), "{text:?}");
}

#[test]
fn a_tree_full_of_traps_is_left_and_judged() {
    let tree = Tree::with(&[]);
    let path = |name: &str| tree.0.path().join(name);
    // Links out of it, FIFOs where files are read, and names that would upset a terminal.
    fs::remove_file(path(CONFIG)).unwrap();
    output_of(Command::new("mkfifo").arg(path(CONFIG)));
    output_of(Command::new("mkfifo").arg(path("etc/pam.d/fifo")));
    symlink("/etc/passwd", path("etc/pam.d/link")).unwrap();
    symlink("../../../../../../../../etc/passwd", path("etc/pam.d/dots")).unwrap();
    symlink("loop", path("etc/pam.d/loop")).unwrap();
    fs::create_dir(path("etc/pam.d/directory")).unwrap();
    let name = OsStr::from_bytes(b"etc/pam.d/\x1b[31mred\xff");
    tree.write(name, b"auth required pam_totp.so\n");
    tree.write(
        "etc/pam.d/escapes",
        b"auth optional pam_totp.so\nauth required pam_\x1b]0;title\x07.so\nauth \x1b[2J x\n",
    );
    let start = Instant::now();
    let output = tree.doctor(&[]).output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("sshd: cannot be read: is not a regular file (/etc/ssh/sshd_config)"), "{text}");
    assert!(text.contains("`\\x1b[2J` is no control"), "{text}");
    assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
    assert_eq!(output.status.code(), Some(1));
    for service in ["fifo", "link", "dots", "loop", "directory"] {
        let findings = tree.findings(&["--service", service]);
        assert!(findings[0].contains("nobody-gets-in"), "{service}: {findings:?}");
    }
}

#[test]
fn what_is_no_service_and_no_root_is_told() {
    let tree = Tree::with(&[]);
    let says = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(
        says(&mut tree.doctor(&["--service", "../su"])),
        (Some(1), "pam-totp: `../su` is no service\n".to_owned())
    );
    let mut nowhere = Command::new(dist("pam-totp"));
    let (code, text) = says(nowhere.args(["doctor", "--root", "/nowhere"]));
    assert_eq!((code, text.as_str()), (Some(1), "pam-totp: /nowhere is not there\n"));
    assert_eq!(says(tree.doctor(&[]).arg("--no-such")).0, Some(2));
}

/// A machine whose sshd has these settings, and asks for key and code.
fn machine(settings: &str) -> Machine {
    let machine = Machine::new();
    machine.service("sshd", &format!("{CODE}account required pam_unix.so\nsession required pam_unix.so\n"));
    machine.write("/etc/ssh/sshd_config", settings);
    output_of(machine.command("ssh-keygen").arg("-A"));
    machine
}

/// What doctor says on it about sshd's settings; in JSON.
fn live(mut program: Command, arguments: &[&str]) -> (Vec<String>, String) {
    let output = program.arg("doctor").args(arguments).arg("--json").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let about_sshd = |finding: &&Value| ["key-alone", "sshd-config"].contains(&finding["name"].as_str().unwrap());
    let findings = report["findings"].as_array().unwrap().iter().filter(about_sshd);
    let findings =
        findings.map(|finding| format!("{} {} {}", finding["name"], finding["what"], finding["place"])).collect();
    (findings, report["notes"].to_string())
}

#[test]
fn on_the_machine_itself_sshd_is_asked() {
    let machine = machine(&format!("{SETTINGS}Match User alice\nAuthenticationMethods publickey\n"));
    assert_eq!(live(machine.command(machine.program()), &[]).0, [] as [&str; 0]);
    let alice = "\"key-alone\" \"a key alone is enough, for alice\" \"/etc/ssh/sshd_config:6\"";
    assert_eq!(live(machine.command(machine.program()), &["--user", "alice"]).0, [alice]);
    assert_eq!(live(machine.command(machine.program()), &["--user", "bob"]).0, [] as [&str; 0]);
    // Who is not root cannot read the host keys, without which sshd says nothing.
    let (findings, notes) = live(machine.command_as(BOB, machine.program()), &["--user", "alice"]);
    assert_eq!(findings, [alice]);
    assert!(notes.contains("only root can ask sshd itself"), "{notes}");
    // Our reader knows nothing of ciphers; sshd does.
    machine.write("/etc/ssh/sshd_config", format!("{SETTINGS}Ciphers rot13\n"));
    let (findings, _) = live(machine.command(machine.program()), &[]);
    assert!(findings.len() == 1 && findings[0].contains("rot13"), "{findings:?}");
}

#[test]
fn a_table_that_no_service_has_is_noted_and_an_exception_in_a_stack_belongs_into_the_policy() {
    let office = "auth [success=1 default=ignore] pam_access.so accessfile=/etc/security/lan.conf\n\
                  auth required pam_totp.so\nauth required pam_permit.so\n";
    let tree = Tree::with(&[(SSHD, office), (POLICY, &format!("{INLINE}[service.ssh]\n"))]);
    let report = tree.report(&[]);
    let finding = &report["findings"][0];
    assert_eq!(finding["name"], "skipped");
    assert!(finding["way_out"].as_str().unwrap().contains("[[exempt]]"), "{finding}");
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("[service.ssh] in the policy is about nothing") && !notes.contains("[service.sshd]"),
        "{notes}"
    );
}

#[test]
fn a_service_that_only_the_distribution_has_a_file_for_is_judged_too() {
    let tree = Tree::with(&[("usr/lib/pam.d/vendors", "auth optional pam_totp.so\nauth required pam_permit.so\n")]);
    assert_eq!(tree.findings(&[]), ["vendors not-required /usr/lib/pam.d/vendors:1"]);
}
