use super::super::sshd_config::{Config, Connection, Files};
use super::*;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Files that are texts.
struct Texts(BTreeMap<&'static str, &'static str>);

impl Files for Texts {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let text = self.0.get(path.to_str().unwrap()).ok_or(ErrorKind::NotFound)?;
        Ok(text.as_bytes().to_vec())
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let inside = |path: &&&str| Path::new(path).parent() == Some(directory);
        Ok(self.0.keys().filter(inside).map(|path| Path::new(path).file_name().unwrap().to_owned()).collect())
    }
}

fn config(main: &'static str, drop_ins: &[(&'static str, &'static str)]) -> Config {
    let mut files: BTreeMap<_, _> = drop_ins.iter().copied().collect();
    files.insert("/etc/ssh/sshd_config", main);
    Config::read(&Texts(files)).unwrap()
}

/// Who the settings of a row are judged for.
const ALICE: (&str, &[&str], Who) = ("alice", &["alice", "staff"], Who::Person);
const BACKUP: (&str, &[&str], Who) = ("backup", &["backup"], Who::Person);
const SFTP: (&str, &[&str], Who) = ("carol", &["carol", "sftponly"], Who::Person);
const ROOT: (&str, &[&str], Who) = ("root", &["root"], Who::Root);

fn connection((user, groups, _): (&str, &[&str], Who), address: &str) -> Connection {
    Connection {
        user: Some(user.to_owned()),
        groups: groups.iter().map(ToString::to_string).collect(),
        host: Some("client.example.org".to_owned()),
        address: Some(address.to_owned()),
        local_port: Some(22),
        ..Connection::default()
    }
}

/// What Debian and Ubuntu ship, without comments.
const DEBIAN: &str = "Include /etc/ssh/sshd_config.d/*.conf\nKbdInteractiveAuthentication no\nUsePAM yes\nX11Forwarding yes\n\
                      PrintMotd no\nAcceptEnv LANG LC_*\nSubsystem sftp /usr/lib/openssh/sftp-server\n";
/// The same up to Debian 11 and Ubuntu 20.04.
const DEBIAN_11: &str =
    "Include /etc/ssh/sshd_config.d/*.conf\nChallengeResponseAuthentication no\nUsePAM yes\nX11Forwarding yes\n";
/// What Red Hat ships beside the next.
const RED_HAT: &str = "Include /etc/ssh/sshd_config.d/*.conf\nAuthorizedKeysFile .ssh/authorized_keys\n\
                       Subsystem sftp /usr/libexec/openssh/sftp-server\n";
const RED_HAT_DROP_IN: &str = "SyslogFacility AUTHPRIV\nChallengeResponseAuthentication no\nGSSAPIAuthentication yes\n\
                               GSSAPICleanupCredentials no\nUsePAM yes\nX11Forwarding yes\nPrintMotd no\n";
/// As the README says, for what is to be seen beside it.
const RIGHT: &str = "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\n\
                     AuthenticationMethods publickey,keyboard-interactive\n";

/// One row: a name, the files, who comes in, and what is found with the place of the cause.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    (&'static str, &'static [&'static str], Who),
    Vec<(Found, &'static str)>,
);

const MAIN: &str = "/etc/ssh/sshd_config";

fn dropped(list: &str) -> Found {
    Found::DroppedList(list.to_owned())
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use Found::*;
    const CLOUD_INIT: (&str, &str) = ("/etc/ssh/sshd_config.d/50-cloud-init.conf", "PasswordAuthentication yes\n");
    vec![
        ("the README's", RIGHT, &[], ALICE, vec![]),
        ("nothing at all", "", &[], ALICE, vec![(PamOff, "default"), (KeyAlone, "default"), (PasswordAlone, "default")]),
        ("Debian", DEBIAN, &[], ALICE,
            vec![(KeyAlone, "default"), (PasswordForEverything, "default"), (QuestionsOff, "sshd_config:2")]),
        ("Debian, root", DEBIAN, &[], ROOT, vec![(KeyAlone, "default"), (QuestionsOff, "sshd_config:2")]),
        ("Debian 11", DEBIAN_11, &[], ALICE,
            vec![(KeyAlone, "default"), (PasswordForEverything, "default"), (QuestionsOff, "sshd_config:2")]),
        ("Ubuntu with cloud-init", DEBIAN, &[CLOUD_INIT], ALICE,
            vec![(KeyAlone, "default"), (PasswordForEverything, "50-cloud-init.conf:1"), (QuestionsOff, "sshd_config:2")]),
        ("Red Hat", RED_HAT, &[("/etc/ssh/sshd_config.d/50-redhat.conf", RED_HAT_DROP_IN)], ALICE,
            vec![(KeyAlone, "default"), (GssapiAlone, "50-redhat.conf:3"), (PasswordForEverything, "default"), (QuestionsOff, "50-redhat.conf:2")]),
        // Set at the end of the file, after Include had the first word.
        ("PasswordAuthentication no that cloud-init overrules", "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\nPasswordAuthentication no\n",
            &[CLOUD_INIT], ALICE, vec![(KeyAlone, "default"), (PasswordForEverything, "50-cloud-init.conf:1")]),
        ("a drop-in that overrules the distribution", DEBIAN,
            &[("/etc/ssh/sshd_config.d/10-totp.conf", "KbdInteractiveAuthentication yes\nPasswordAuthentication no\nAuthenticationMethods publickey,keyboard-interactive\n"), CLOUD_INIT],
            ALICE, vec![]),
        ("a drop-in that comes too late", "KbdInteractiveAuthentication no\nUsePAM yes\nPasswordAuthentication no\nInclude /etc/ssh/sshd_config.d/*.conf\n",
            &[("/etc/ssh/sshd_config.d/10-totp.conf", "KbdInteractiveAuthentication yes\nAuthenticationMethods publickey,keyboard-interactive\n")],
            ALICE, vec![(NobodyGetsIn, "sshd_config:1"), (QuestionsOff, "sshd_config:1"), (dropped("publickey,keyboard-interactive"), "sshd_config:1")]),
        ("a drop-in whose name does not end in .conf", DEBIAN, &[("/etc/ssh/sshd_config.d/totp", RIGHT)], ALICE,
            vec![(KeyAlone, "default"), (PasswordForEverything, "default"), (QuestionsOff, "sshd_config:2")]),
        ("ChallengeResponseAuthentication alone", "UsePAM yes\nChallengeResponseAuthentication yes\n", &[], ALICE,
            vec![(KeyAlone, "default"), (PasswordForEverything, "default")]),
        ("the tutorial's two lists", "UsePAM yes\nKbdInteractiveAuthentication yes\nAuthenticationMethods publickey,password publickey,keyboard-interactive\n", &[], ALICE,
            vec![(KeyAndPassword, "sshd_config:3")]),
        ("the tutorial's two lists, and passwords off", "UsePAM yes\nPasswordAuthentication no\nAuthenticationMethods publickey,password publickey,keyboard-interactive\n", &[], ALICE,
            vec![(dropped("publickey,password"), "sshd_config:3")]),
        ("the tutorial's two lists, and the old name left further down, in force",
            "UsePAM yes\nAuthenticationMethods publickey,password publickey,keyboard-interactive\nChallengeResponseAuthentication no\n", &[], ALICE,
            vec![(KeyAndPassword, "sshd_config:2"), (QuestionsOff, "sshd_config:3"), (dropped("publickey,keyboard-interactive"), "sshd_config:3")]),
        ("the old name left further down, void", "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\nAuthenticationMethods publickey,keyboard-interactive\nChallengeResponseAuthentication no\n",
            &[], ALICE, vec![]),
        ("the new name further down, void", "UsePAM yes\nChallengeResponseAuthentication no\nKbdInteractiveAuthentication yes\nAuthenticationMethods publickey,keyboard-interactive\n", &[], ALICE,
            vec![(NobodyGetsIn, "sshd_config:2"), (QuestionsOff, "sshd_config:2"), (dropped("publickey,keyboard-interactive"), "sshd_config:2")]),
        ("key or code", "UsePAM yes\nPasswordAuthentication no\nAuthenticationMethods publickey keyboard-interactive\n", &[], ALICE,
            vec![(KeyAlone, "sshd_config:3")]),
        ("password and code by PAM", "UsePAM yes\nPubkeyAuthentication no\nPasswordAuthentication no\n", &[], ALICE, vec![]),
        ("the same by a list", "UsePAM yes\nAuthenticationMethods keyboard-interactive:pam\n", &[], ALICE, vec![]),
        ("password and questions as two", "UsePAM yes\nAuthenticationMethods password,keyboard-interactive\n", &[], ALICE, vec![(PasswordBeforeQuestions, "sshd_config:2")]),
        ("the code first", "UsePAM yes\nAuthenticationMethods keyboard-interactive,publickey\n", &[], ALICE, vec![]),
        ("any, said", "UsePAM yes\nPasswordAuthentication no\nAuthenticationMethods any\n", &[], ALICE, vec![(KeyAlone, "sshd_config:3")]),
        ("UsePAM no", "UsePAM no\nPasswordAuthentication no\nAuthenticationMethods publickey,keyboard-interactive\n", &[], ALICE,
            vec![(NobodyGetsIn, "sshd_config:1"), (PamOff, "sshd_config:1")]),
        ("UsePAM not said", "PasswordAuthentication no\nAuthenticationMethods publickey,keyboard-interactive publickey,password\n", &[], ALICE,
            vec![(NobodyGetsIn, "default"), (PamOff, "default"), (dropped("publickey,password"), "sshd_config:2")]),
        ("UsePAM no and passwords", "UsePAM no\nAuthenticationMethods publickey,password\n", &[], ALICE,
            vec![(PamOff, "sshd_config:1"), (KeyAndPassword, "sshd_config:2")]),
        ("a device of BSD's", "UsePAM yes\nAuthenticationMethods publickey,keyboard-interactive:bsdauth\n", &[], ALICE,
            vec![(NobodyGetsIn, "sshd_config:2"), (UnknownDevice("publickey,keyboard-interactive:bsdauth".to_owned()), "sshd_config:2")]),
        ("a device of a key's", "UsePAM yes\nAuthenticationMethods publickey:x keyboard-interactive\n", &[], ALICE,
            vec![(UnknownDevice("publickey:x".to_owned()), "sshd_config:2")]),
        ("two keys", "UsePAM yes\nAuthenticationMethods publickey,publickey\n", &[], ALICE, vec![(KeyAlone, "sshd_config:2")]),
        ("hosts are trusted", "UsePAM yes\nPubkeyAuthentication no\nPasswordAuthentication no\nHostbasedAuthentication yes\n", &[], ALICE,
            vec![(HostAlone, "sshd_config:4")]),
        ("a ticket alone", "UsePAM yes\nAuthenticationMethods gssapi-with-mic publickey,keyboard-interactive\nGSSAPIAuthentication yes\n", &[], ALICE,
            vec![(GssapiAlone, "sshd_config:2")]),
        ("host and key", "UsePAM yes\nAuthenticationMethods hostbased,publickey\nHostbasedAuthentication yes\n", &[], ALICE,
            vec![(OthersWithoutCode, "sshd_config:2")]),
        ("passwords are Kerberos'", "UsePAM yes\nPubkeyAuthentication no\nKerberosAuthentication yes\n", &[], ALICE, vec![(PasswordAlone, "default")]),
        ("empty passwords", "UsePAM yes\nPubkeyAuthentication no\nPermitEmptyPasswords yes\n", &[], ALICE,
            vec![(EmptyPassword, "sshd_config:3"), (PasswordForEverything, "default")]),
        ("empty passwords, none taken", "UsePAM yes\nPubkeyAuthentication no\nPasswordAuthentication no\nPermitEmptyPasswords yes\n", &[], ALICE, vec![]),
        ("no way in at all", "UsePAM yes\nPubkeyAuthentication no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n", &[], ALICE,
            vec![(NobodyGetsIn, "sshd_config:2"), (QuestionsOff, "sshd_config:4")]),
        // Match blocks.
        ("an exception for a user, theirs", "UsePAM yes\nPasswordAuthentication no\nAuthenticationMethods publickey,keyboard-interactive\nMatch User backup\n  AuthenticationMethods publickey\n", &[], BACKUP,
            vec![(KeyAlone, "sshd_config:5")]),
        ("an exception for a user, another", "UsePAM yes\nPasswordAuthentication no\nAuthenticationMethods publickey,keyboard-interactive\nMatch User backup\n  AuthenticationMethods publickey\n", &[], ALICE, vec![]),
        ("all but a user", "UsePAM yes\nPasswordAuthentication no\nMatch User *,!backup\n  AuthenticationMethods publickey,keyboard-interactive\n", &[], BACKUP,
            vec![(KeyAlone, "default")]),
        ("a list of what is not matches nobody", "UsePAM yes\nPasswordAuthentication no\nMatch User !backup\n  AuthenticationMethods publickey,keyboard-interactive\n", &[], ALICE,
            vec![(KeyAlone, "default")]),
        ("from within no code", "UsePAM yes\nPasswordAuthentication no\nAuthenticationMethods publickey,keyboard-interactive\nMatch Address 10.0.0.0/8\n  AuthenticationMethods publickey\n", &[], ALICE,
            vec![(KeyAlone, "sshd_config:5")]),
        ("the first block that fits counts", "UsePAM yes\nMatch Group staff\n  AuthenticationMethods publickey,keyboard-interactive\nMatch Address 10.0.0.0/8\n  AuthenticationMethods publickey\n", &[], ALICE, vec![]),
        ("meant for everybody, and written into the last block",
            "UsePAM yes\nPasswordAuthentication no\nMatch User backup\n  X11Forwarding no\nAuthenticationMethods publickey,keyboard-interactive\n", &[], ALICE,
            vec![(KeyAlone, "default")]),
        ("Match all at the end", "UsePAM yes\nPasswordAuthentication no\nMatch User backup\n  X11Forwarding no\nMatch all\nAuthenticationMethods publickey,keyboard-interactive\n", &[], ALICE, vec![]),
        ("sftp by key, which forwards", "UsePAM yes\nPasswordAuthentication no\nAuthenticationMethods publickey,keyboard-interactive\nMatch Group sftponly\n  ForceCommand internal-sftp\n  AuthenticationMethods publickey\n", &[], SFTP,
            vec![(KeyAlone, "sshd_config:6"), (ForcedCommandForwards, "sshd_config:5")]),
        ("sftp by key, which does not", "UsePAM yes\nPasswordAuthentication no\nMatch Group sftponly\n  ForceCommand internal-sftp\n  AuthenticationMethods publickey\n  DisableForwarding yes\n", &[], SFTP,
            vec![(KeyAlone, "sshd_config:5")]),
        ("a forced command and a tunnel", "UsePAM yes\nPasswordAuthentication no\nForceCommand /bin/menu\nDisableForwarding yes\nPermitTunnel yes\n", &[], ALICE,
            vec![(KeyAlone, "default"), (ForcedCommandForwards, "sshd_config:3")]),
        ("an Include within a block", "UsePAM yes\nPasswordAuthentication no\nMatch User backup\nInclude /etc/ssh/backup.conf\n", &[("/etc/ssh/backup.conf", "AuthenticationMethods publickey,keyboard-interactive\n")], BACKUP, vec![]),
        ("the same, for another", "UsePAM yes\nPasswordAuthentication no\nMatch User backup\nInclude /etc/ssh/backup.conf\n", &[("/etc/ssh/backup.conf", "AuthenticationMethods publickey,keyboard-interactive\n")], ALICE,
            vec![(KeyAlone, "default")]),
        // Root.
        ("root may not", "PermitRootLogin no\n", &[], ROOT, vec![]),
        ("root is shut out by prohibit-password", RIGHT, &[], ROOT, vec![(RootLockedOut, "default")]),
        ("root by key and code", "PermitRootLogin yes\nUsePAM yes\nAuthenticationMethods publickey,keyboard-interactive\n", &[], ROOT, vec![]),
        ("root by password", "PermitRootLogin yes\nUsePAM yes\nPubkeyAuthentication no\n", &[], ROOT, vec![(PasswordForEverything, "default")]),
        ("root by a key that comes with a command", "PermitRootLogin forced-commands-only\nUsePAM yes\n", &[], ROOT, vec![(CommandKeyAlone, "default")]),
        ("root with command and code", "PermitRootLogin forced-commands-only\nUsePAM yes\nAuthenticationMethods publickey,keyboard-interactive\n", &[], ROOT,
            vec![(RootLockedOut, "sshd_config:1")]),
        ("root from one network", "UsePAM yes\nPermitRootLogin no\nMatch Address 10.0.0.0/8\n  PermitRootLogin without-password\n", &[], ROOT, vec![(KeyAlone, "default")]),
    ]
}

#[test]
fn each_configuration_has_the_findings_that_are_expected_and_no_other() {
    let rows = rows();
    assert!(rows.len() >= 50);
    for (name, main, drop_ins, person, expected) in rows {
        let effective = config(main, drop_ins).effective(&connection(person, "10.1.2.3"));
        let found = judge(&effective, person.2, Circumstances::default());
        let found: Vec<_> = found.into_iter().map(|finding| (finding.found, finding.origin.to_string())).collect();
        let full = |place: &str| match place.strip_prefix("sshd_config:") {
            Some(line) => format!("{MAIN}:{line}"),
            None if place == "default" => place.to_owned(),
            None => format!("/etc/ssh/sshd_config.d/{place}"),
        };
        let mut expected: Vec<_> = expected.into_iter().map(|(found, place)| (found, full(place))).collect();
        expected.sort();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn the_line_of_a_finding_puts_it_right() {
    for (name, main, drop_ins, person, _) in rows() {
        let circumstances = Circumstances { inline_enrolment: true, login_key: true, exemptions: true };
        let mut main = main.to_owned();
        // Written before everything else, and into the blocks, where they are what holds.
        for _ in 0..12 {
            let text = Box::leak(main.clone().into_boxed_str());
            let config = config(text, drop_ins);
            let findings = judge(&config.effective(&connection(person, "10.1.2.3")), person.2, circumstances);
            let Some(first) = findings.first() else { break };
            let line = first.line;
            main = format!("{line}\n{}", main.replace("\nMatch ", "\n#Match ").replace("\nInclude", "\n#Include"));
        }
        let text = Box::leak(main.into_boxed_str());
        let left = judge(&config(text, drop_ins).effective(&connection(person, "10.1.2.3")), person.2, circumstances);
        assert_eq!(left, [], "{name}\n{text}");
    }
}

#[test]
fn what_the_policy_does_decides_about_time_keys_and_forwarding() {
    let found = |text: &'static str, circumstances| {
        let effective = config(text, &[]).effective(&connection(ALICE, "10.1.2.3"));
        let findings = judge(&effective, Who::Person, circumstances);
        findings.into_iter().map(|finding| (finding.found, finding.line)).collect::<Vec<_>>()
    };
    let none = Circumstances::default();
    let with = |text: &str| -> &'static str { Box::leak(format!("{RIGHT}{text}").into_boxed_str()) };

    let inline = Circumstances { inline_enrolment: true, ..none };
    let short = |seconds| vec![(Found::GraceTooShort(seconds), "LoginGraceTime 120")];
    assert_eq!(found(with("LoginGraceTime 30\n"), inline), short(30));
    assert_eq!(found(with("LoginGraceTime 59s\n"), inline), short(59));
    for right in ["LoginGraceTime 1m\n", "LoginGraceTime 0\n", ""] {
        assert_eq!(found(with(right), inline), [], "{right}");
    }
    assert_eq!(found(with("LoginGraceTime 30\n"), none), []);

    let by_key = Circumstances { login_key: true, ..none };
    let keys = [(Found::KeysOfTheUser, "AuthorizedKeysFile /etc/ssh/authorized_keys/%u")];
    for theirs in [
        "",
        "AuthorizedKeysFile %h/keys\n",
        "AuthorizedKeysFile /etc/keys/%u .ssh/authorized_keys\n",
        "AuthorizedKeysFile /home/%u/k\n",
    ] {
        assert_eq!(found(with(theirs), by_key), keys, "{theirs}");
    }
    for roots in ["AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n", "AuthorizedKeysFile none\n"] {
        assert_eq!(found(with(roots), by_key), [], "{roots}");
    }
    assert_eq!(found(RIGHT, none), []);

    let exempting = Circumstances { exemptions: true, ..none };
    assert_eq!(found(RIGHT, exempting), [(Found::Forwards, "DisableForwarding yes")]);
    assert_eq!(found(with("AllowTcpForwarding remote\n"), exempting), [(Found::Forwards, "DisableForwarding yes")]);
    assert_eq!(found(with("AllowTcpForwarding no\n"), exempting), [(Found::Forwards, "DisableForwarding yes")]);
    assert_eq!(found(with("AllowTcpForwarding no\nAllowStreamLocalForwarding no\n"), exempting), []);
    assert_eq!(found(with("DisableForwarding yes\n"), exempting), []);
    assert_eq!(
        found(with("DisableForwarding yes\nPermitTunnel point-to-point\n"), exempting),
        [(Found::Forwards, "PermitTunnel no")]
    );
}

#[test]
fn a_way_says_what_it_asks_of_pam() {
    let ways = |text, who| ways(&config(text, &[]).server(), who);
    let way = |methods: &[Method], asks| Way { methods: methods.to_vec(), asks, is_for_a_command: false };
    use Asks::{EachQuestion, Nothing, OnePassword};
    use Method::{KeyboardInteractive, Password, PublicKey};
    assert_eq!(
        ways("UsePAM yes\n", Who::Person),
        [way(&[PublicKey], Nothing), way(&[KeyboardInteractive], EachQuestion), way(&[Password], OnePassword)]
    );
    assert_eq!(ways("", Who::Person), [way(&[PublicKey], Nothing), way(&[Password], Nothing)]);
    assert_eq!(ways("UsePAM yes\n", Who::Root), [way(&[PublicKey], Nothing)]);
    assert_eq!(ways("UsePAM yes\nPermitRootLogin no\n", Who::Root), []);
    assert_eq!(ways(RIGHT, Who::Person), [way(&[PublicKey, KeyboardInteractive], EachQuestion)]);
}

#[test]
fn what_is_printed_of_a_list_cannot_move_the_cursor() {
    for found in [dropped("publickey\u{1b}[2J"), Found::UnknownDevice("a\u{7}b".to_owned())] {
        assert!(!found.to_string().chars().any(char::is_control), "{found}");
    }
}
