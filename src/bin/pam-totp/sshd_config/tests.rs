use super::live::{ask_program, specification};
use super::*;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A directory as a root, with no more care than these tests need.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            tree.write(path, text);
        }
        tree
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.0.path().join(path.strip_prefix("/").unwrap())
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.inside(Path::new(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn config(&self) -> Config {
        Config::read(self).unwrap()
    }
}

impl Files for Tree {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = self.inside(path);
        let mut file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if !kind.is_file() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(self.inside(directory))?.map(|entry| Ok(entry?.file_name())).collect()
    }
}

fn one(text: &str) -> Config {
    Tree::new(&[(PATH, text)]).config()
}

fn troubles(config: &Config) -> Vec<(String, &Trouble)> {
    config.problems.iter().map(|problem| (problem.place.to_string(), &problem.trouble)).collect()
}

fn user(name: &str) -> Connection {
    Connection { user: Some(name.to_owned()), ..Connection::default() }
}

#[test]
fn a_setting_knows_the_line_that_it_comes_from() {
    let tree = Tree::new(&[
        (PATH, "# first\nInclude sshd_config.d/*.conf\nUsePAM yes\nPasswordAuthentication yes\n"),
        ("/etc/ssh/sshd_config.d/b.conf", "\n\nPasswordAuthentication no\n"),
        ("/etc/ssh/sshd_config.d/a.conf", "Match User alice\nPasswordAuthentication no\n"),
    ]);
    let config = tree.config();
    let place = |setting: &Setting<bool>| (setting.value, setting.origin.to_string());
    let everybody = config.effective(&user("bob"));
    assert_eq!(place(&everybody.use_pam), (true, "/etc/ssh/sshd_config:3".to_owned()));
    assert_eq!(place(&everybody.password), (false, "/etc/ssh/sshd_config.d/b.conf:3".to_owned()));
    assert_eq!(place(&everybody.pubkey), (true, "default".to_owned()));
    let alice = config.effective(&user("alice"));
    assert_eq!(place(&alice.password), (false, "/etc/ssh/sshd_config.d/a.conf:2".to_owned()));
    assert_eq!(config.server(), everybody);
}

#[test]
fn each_match_block_can_be_judged() {
    let tree = Tree::new(&[
        (
            PATH,
            "Match User alice # she\nInclude alice.conf\nMatch User bob\nX11Forwarding yes\nMatch all\nMaxAuthTries 3\n",
        ),
        (
            "/etc/ssh/alice.conf",
            "PermitTunnel yes\nMatch Address 10.0.0.0/8\nPasswordAuthentication no\nMatch Host x\nInclude deep.conf\n",
        ),
        ("/etc/ssh/deep.conf", "PubkeyAuthentication no\nMatch LocalPort 2222\nPermitTTY no\nAllowTcpForwarding no\n"),
    ]);
    let config = tree.config();
    assert_eq!(config.problems, []);
    let seen: Vec<_> = config
        .blocks()
        .iter()
        .map(|block| {
            let effective = config.effective_in(block);
            let settings = [
                ("tunnel", effective.permit_tunnel.value == Tunnel::Yes),
                ("password", !effective.password.value),
                ("pubkey", !effective.pubkey.value),
                ("tcp", effective.allow_tcp_forwarding.value == Forwarding::No),
                ("x11", effective.x11_forwarding.value),
            ];
            assert_eq!(effective.max_auth_tries.value, 3);
            let settings: Vec<_> = settings.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect();
            (block.text.as_str(), block.place.to_string(), settings.join(" "))
        })
        .collect();
    let place = |file: &str, line: usize| format!("/etc/ssh/{file}:{line}");
    let expected = [
        ("User alice # she", place("sshd_config", 1), "tunnel"),
        ("Address 10.0.0.0/8", place("alice.conf", 2), "tunnel password"),
        ("Host x", place("alice.conf", 4), "tunnel pubkey"),
        ("LocalPort 2222", place("deep.conf", 2), "tunnel pubkey tcp"),
        ("User bob", place("sshd_config", 3), "x11"),
        ("all", place("sshd_config", 5), ""),
    ];
    assert_eq!(seen, expected.map(|(text, place, settings)| (text, place, settings.to_owned())));
}

#[test]
fn lines_that_come_too_late_are_named() {
    let tree = Tree::new(&[
        (
            PATH,
            "Include a.conf\nPasswordAuthentication no\nUsePAM yes\nUsePAM yes\nPort 22\nPort 23\nMatch User x\nUsePAM no\n",
        ),
        (
            "/etc/ssh/a.conf",
            "PasswordAuthentication yes\nChallengeResponseAuthentication no\nKbdInteractiveAuthentication yes\n",
        ),
    ]);
    let shadowed = tree.config().shadowed();
    let shadowed: Vec<_> =
        shadowed.iter().map(|(first, late)| format!("{} {} {}", first.key.name(), first.place, late.place)).collect();
    assert_eq!(
        shadowed,
        [
            "KbdInteractiveAuthentication /etc/ssh/a.conf:2 /etc/ssh/a.conf:3",
            "PasswordAuthentication /etc/ssh/a.conf:1 /etc/ssh/sshd_config:2"
        ]
    );
}

#[test]
fn old_words_are_noted_and_harmless() {
    let config = one(
        "Protocol 2\nRSAAuthentication yes\nUsePrivilegeSeparation sandbox\nDSAAuthentication no\nMatch User x\nRSAAuthentication no\n",
    );
    assert_eq!(config.problems, []);
    let ignored: Vec<_> = config.ignored.iter().map(|(place, word)| format!("{} {word}", place.line)).collect();
    assert_eq!(ignored, ["1 Protocol", "2 RSAAuthentication", "3 UsePrivilegeSeparation", "6 RSAAuthentication"]);
    assert!(!config.server().pubkey.value, "DSAAuthentication is a name of PubkeyAuthentication");
}

#[test]
fn a_condition_that_is_not_known_is_reported_and_does_not_hold() {
    let config = one(
        "UsePAM yes\nMatch invalid-user\nPasswordAuthentication no\nMatch sessiontype shell User x\nX11Forwarding yes\n",
    );
    let unknown = |name: &str| Trouble::UnknownCriterion(name.to_owned());
    assert_eq!(
        troubles(&config),
        [
            ("/etc/ssh/sshd_config:2".to_owned(), &unknown("invalid-user")),
            ("/etc/ssh/sshd_config:4".to_owned(), &unknown("sessiontype"))
        ]
    );
    assert!(config.effective(&user("x")).password.value);
    assert!(!config.effective(&user("x")).x11_forwarding.value);
    assert!(!config.effective_in(&config.blocks()[0]).password.value, "but it can be judged");
}

#[test]
fn everything_that_is_wrong_is_reported_at_its_line_and_the_rest_is_read() {
    let config = one("Nonsense\nUsePAM\nUsePAM \"yes\nUsePAM perhaps\nMatch\nUsePAM yes\n");
    let found: Vec<_> = troubles(&config).into_iter().map(|(place, trouble)| format!("{place}: {trouble}")).collect();
    assert_eq!(
        found,
        [
            "/etc/ssh/sshd_config:1: nothing behind `Nonsense`",
            "/etc/ssh/sshd_config:2: nothing behind `UsePAM`",
            "/etc/ssh/sshd_config:3: quotes that are never closed",
            "/etc/ssh/sshd_config:4: `perhaps` is no value of UsePAM",
            "/etc/ssh/sshd_config:5: nothing behind `Match`",
        ]
    );
    assert!(config.server().use_pam.value);
}

#[test]
fn a_file_that_includes_itself_ends_and_is_reported_once() {
    let config = one("UsePAM yes\nInclude /etc/ssh/sshd_config\nInclude /etc/ssh/sshd_config\n");
    assert_eq!(troubles(&config), [("/etc/ssh/sshd_config:2".to_owned(), &Trouble::IncludeTooDeep)]);
    assert!(config.server().use_pam.value);
}

#[test]
fn files_that_multiply_end_too() {
    let tree = Tree::new(&[(PATH, "Include level0.conf\n"), ("/etc/ssh/level12.conf", "UsePAM yes\n")]);
    for level in 0..12 {
        let line = format!("Include level{}.conf\n", level + 1);
        tree.write(&format!("/etc/ssh/level{level}.conf"), line.repeat(100));
    }
    let begun = Instant::now();
    let config = tree.config();
    assert!(config.problems.iter().any(|problem| problem.trouble == Trouble::TooMuch));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_fifo_is_reported_and_not_waited_for() {
    let tree = Tree::new(&[
        (PATH, "Include sshd_config.d/*\nUsePAM yes\n"),
        ("/etc/ssh/sshd_config.d/z", "PasswordAuthentication no\n"),
    ]);
    let fifo = tree.inside(Path::new("/etc/ssh/sshd_config.d/a"));
    assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
    fs::create_dir(tree.inside(Path::new("/etc/ssh/sshd_config.d/b"))).unwrap();
    let config = tree.config();
    let unreadable = Trouble::Unreadable("/etc/ssh/sshd_config.d/a".to_owned(), ErrorKind::InvalidInput);
    assert_eq!(troubles(&config), [("/etc/ssh/sshd_config:1".to_owned(), &unreadable)]);
    assert!(config.server().use_pam.value && !config.server().password.value);
}

#[test]
fn what_is_printed_cannot_move_the_cursor() {
    let tree = Tree::new(&[
        (
            PATH,
            "Include sshd_config.d/*\nUse\u{1b}PAM x\nUsePAM \u{1b}[2J\nMatch \u{1b} x\nMatch Address 10.0.0.0/99\u{1b},\nAuthenticationMethods \u{7}\nX11Forwarding yes \u{1b}\n",
        ),
        ("/etc/ssh/sshd_config.d/a\u{1b}[31m\n.conf", "Nonsense yes\n"),
    ]);
    let config = tree.config();
    assert_eq!(config.problems.len(), 7, "{:#?}", config.problems);
    for Problem { place, trouble } in &config.problems {
        let text = format!("{place}: {trouble}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

#[test]
fn ten_thousand_lines_and_the_ends_of_windows_are_lines() {
    let text = "Match User a*a*a*a*a*a*a*b\r\n  PermitTTY no\r\n".repeat(5_000) + "Match all\r\nUsePAM yes\r\n";
    let config = one(&text);
    assert_eq!(config.problems, []);
    assert_eq!(config.blocks().len(), 5_001);
    let begun = Instant::now();
    let effective = config.effective(&user(&"a".repeat(60)));
    assert!(begun.elapsed() < Duration::from_secs(5), "patterns with many stars take long");
    assert_eq!(effective.use_pam.origin.to_string(), "/etc/ssh/sshd_config:10002");
    assert!(effective.use_pam.value);
}

#[test]
fn a_missing_file_is_an_error_and_an_empty_one_is_the_defaults() {
    assert_eq!(Config::read(&Tree::new(&[])).unwrap_err().kind(), ErrorKind::NotFound);
    let effective = one("").server();
    assert!(!effective.use_pam.value && effective.kbd_interactive.value && effective.password.value);
    assert_eq!(effective.permit_root_login.value, RootLogin::ProhibitPassword);
    assert_eq!(effective.login_grace_time.value, 120);
}

#[test]
fn include_finds_what_glob_finds_in_its_order() {
    let names = ["a.conf", "B.conf", "10.conf", "9.conf", ".hidden.conf", "x.confx", "ab.conf", "[.conf"];
    let tree = Tree::new(&[]);
    for name in names {
        tree.write(&format!("/etc/ssh/d/{name}"), format!("AllowUsers {name}\n"));
    }
    tree.write("/etc/other/d/o.conf", "AllowUsers o.conf\n");
    for (pattern, expected) in [
        ("d/*.conf", "10.conf 9.conf B.conf [.conf a.conf ab.conf"),
        ("/etc/ssh/d/?.conf", "9.conf B.conf [.conf a.conf"),
        ("d/[0-9]*", "10.conf 9.conf"),
        ("d/[!0-9a-z[]*", "B.conf"),
        ("d/[[]*", "[.conf"),
        ("d/.*", ".hidden.conf"),
        ("d/[]a]*.conf", "a.conf ab.conf"),
        ("/etc/*/d/[ao].conf", "o.conf a.conf"),
        ("d/a.conf", "a.conf"),
        ("d/\\a.conf d/9*", "a.conf 9.conf"),
        ("d/none.conf /no/where/*", ""),
        ("../other/d/*", "o.conf"),
    ] {
        tree.write(PATH, format!("Include {pattern}\n"));
        let config = tree.config();
        assert_eq!(config.problems, [], "{pattern}");
        assert_eq!(config.server().allow_users.value.join(" "), expected, "{pattern}");
    }
}

#[test]
fn times_are_read_as_sshd_reads_them() {
    for (text, seconds) in [("0", 0), ("90", 90), ("2m", 120), ("1h30", 3_630), ("1H30M", 5_400), ("1w", 604_800)] {
        assert_eq!(words::seconds(text), Some(seconds), "{text}");
    }
    for text in ["", "m", "2x", "-1", "1 m", "99999999999", "2147483648", "4000w", "1é"] {
        assert_eq!(words::seconds(text), None, "{text}");
    }
}

#[test]
fn what_sshd_prints_is_read_the_old_and_the_new_way() {
    let old = "port 22\nport 2222\nusepam yes\nkbdinteractiveauthentication yes\nchallengeresponseauthentication no\n\
               permitrootlogin without-password\nauthorizedkeysfile .ssh/a .ssh/b\nallowusers a@10.0.0.0/8\nallowusers b\n\
               authenticationmethods publickey,password publickey\nforcecommand echo \"a  b\"\nlogingracetime 30\nbanner none\n";
    let effective = parse(old);
    assert_eq!(effective.ports.value, [22, 2222]);
    assert!(effective.kbd_interactive.value);
    assert_eq!(effective.permit_root_login.value, RootLogin::ProhibitPassword);
    assert_eq!(effective.authorized_keys_file.value, [".ssh/a", ".ssh/b"]);
    assert_eq!(effective.allow_users.value, ["a@10.0.0.0/8", "b"]);
    assert_eq!(effective.authentication_methods.value, ["publickey,password", "publickey"]);
    assert_eq!(effective.force_command.value.as_deref(), Some("echo \"a  b\""));
    assert_eq!(effective.use_pam.origin, Origin::Sshd);
    assert_eq!(parse("authenticationmethods any\n").authentication_methods.value, Vec::<String>::new());
    assert_eq!(parse("permitrootlogin prohibit-password\n").permit_root_login.value, RootLogin::ProhibitPassword);
}

/// A program in the place of sshd.
fn program(script: &str) -> tempfile::TempPath {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    io::Write::write_all(&mut file, format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o755)).unwrap();
    file.into_temp_path()
}

#[test]
fn sshd_is_asked_about_the_connection_and_not_waited_for() {
    let patience = Duration::from_secs(20);
    let connection = Connection { address: Some("10.0.0.1".to_owned()), ..user("alice") };
    let answering = program("echo usepam yes; echo \"forcecommand $*\"");
    let effective = ask_program(&answering, &connection, patience).unwrap();
    assert!(effective.use_pam.value);
    assert_eq!(effective.force_command.value.as_deref(), Some("-T -C user=alice,addr=10.0.0.1,lport=22"));

    let refusing = ask_program(&program("echo bad line 3 >&2; exit 255"), &connection, patience);
    assert_eq!(refusing.unwrap_err().to_string(), "sshd: bad line 3");

    let begun = Instant::now();
    for script in ["exec sleep 60", "exec >&- 2>&-; exec sleep 60"] {
        let late = ask_program(&program(script), &connection, Duration::from_millis(200)).unwrap_err();
        assert!(matches!(late, NoAnswer::TooLong), "{script}: {late:?}");
    }
    ask_program(&program("while :; do echo banner none; done"), &connection, patience).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(matches!(ask_program(Path::new("/no/sshd"), &connection, patience), Err(NoAnswer::NotStarted(_))));
}

#[test]
fn a_name_cannot_add_to_the_specification() {
    let connection = Connection { host: Some("h".to_owned()), local_port: Some(2222), ..user("alice,addr=127.0.0.1") };
    assert_eq!(specification(&connection), "host=h,lport=2222");
}
