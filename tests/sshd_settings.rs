//! Our reader of sshd_config beside sshd's own: `sshd -T -f FILE`, on a machine whose /etc/ssh is the test's.

use crate::support::machine::{ALICE, BOB, Machine};
use crate::support::need;
use crate::support::numbers::Numbers;
use crate::support::output_of;
use crate::support::ssh::Sshd;
use sshd_config::{Config, Connection, Files, Problem, Trouble};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, iter};
use ways_in::{Method, Who, ways};

#[path = "../src/bin/pam-totp/sshd_config/mod.rs"]
#[allow(unused_imports)]
mod sshd_config;
#[path = "../src/bin/pam-totp/doctor/ways_in/mod.rs"]
mod ways_in;

/// The files of a machine, without a guard against what is in them: the test wrote them.
struct Inside<'a>(&'a Machine);

impl Files for Inside<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = self.0.path(path.to_str().unwrap());
        let metadata = fs::metadata(&path)?;
        match metadata.is_dir() {
            true => Err(ErrorKind::IsADirectory.into()),
            false => fs::read(path),
        }
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(self.0.path(directory.to_str().unwrap()))?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    }
}

/// What sshd says to a file, for one connection each: what `-T` prints, or why it refuses.
type Answers = Vec<Result<String, String>>;

/// A machine with a host key, and with alice and bob in a group.
struct Bench {
    machine: Machine,
    host_key: String,
}

impl Bench {
    fn new() -> Self {
        need("sshd", "openssh-server");
        let machine = Machine::new();
        let key = machine.shared().join("host_key");
        output_of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        machine.append("/etc/group", "codes:x:20100:alice,bob\nsftp-only:x:20101:bob\n");
        let host_key = key.to_str().unwrap().to_owned();
        Self { machine, host_key }
    }

    /// Asks sshd about many files at once; each `(file, specifications)`.
    fn ask(&self, questions: &[(String, Vec<String>)]) -> Vec<Answers> {
        let results = self.machine.shared().join("results");
        fs::create_dir_all(&results).unwrap();
        let mut script = String::from("cd \"$1\"\n");
        for (number, (file, specifications)) in questions.iter().enumerate() {
            for (which, specification) in specifications.iter().enumerate() {
                let name = format!("{number}.{which}");
                script += &format!(
                    "timeout 10 /usr/sbin/sshd -T -f '{file}' -C '{specification}' >{name} 2>{name}.errors || echo >{name}.failed\n"
                );
            }
        }
        let path = self.machine.shared().join("ask.sh");
        fs::write(&path, script).unwrap();
        output_of(self.machine.command("sh").arg(path).arg(&results));
        let answer = |name: String| match results.join(format!("{name}.failed")).exists() {
            true => Err(fs::read_to_string(results.join(format!("{name}.errors"))).unwrap()),
            false => Ok(fs::read_to_string(results.join(name)).unwrap()),
        };
        let answers = |(number, (_, specifications)): (usize, &(String, Vec<String>))| {
            (0..specifications.len()).map(|which| answer(format!("{number}.{which}"))).collect()
        };
        let all = questions.iter().enumerate().map(answers).collect();
        fs::remove_dir_all(&results).unwrap();
        all
    }

    fn config(&self, path: &str) -> Config {
        Config::read_at(&Inside(&self.machine), Path::new(path)).unwrap()
    }
}

/// As `sshd -T -C` takes it.
fn specification(connection: &Connection) -> String {
    let port = connection.local_port.map(|port| port.to_string());
    let parts = [
        ("user", &connection.user),
        ("host", &connection.host),
        ("addr", &connection.address),
        ("laddr", &connection.local_address),
        ("lport", &port),
        ("rdomain", &connection.rdomain),
    ];
    let parts = parts.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    parts.collect::<Vec<_>>().join(",")
}

/// Files that make themselves up.
struct Author {
    numbers: Numbers,
    /// The name of the file, which those that it includes share.
    name: String,
    /// What is written: path and text.
    files: Vec<(String, String)>,
}

/// Settings and values for them; in upper case those that may stand for the whole server only.
const SETTINGS: &[(&str, &[&str])] = &[
    ("USEPAM", &["yes", "no"]),
    ("KbdInteractiveAuthentication", &["yes", "no"]),
    ("ChallengeResponseAuthentication", &["yes", "no"]),
    ("SkeyAuthentication", &["yes", "no"]),
    ("PasswordAuthentication", &["yes", "no", "YES"]),
    ("PubkeyAuthentication", &["yes", "no"]),
    ("DSAAUTHENTICATION", &["no"]),
    ("HostbasedAuthentication", &["yes", "no"]),
    ("GSSAPIAuthentication", &["yes", "no"]),
    (
        "AuthenticationMethods",
        &[
            "publickey,keyboard-interactive",
            "publickey,password publickey,keyboard-interactive",
            "publickey",
            "keyboard-interactive:pam",
            "publickey password,hostbased",
            "\"publickey,password\" # both",
            "any",
        ],
    ),
    ("PermitRootLogin", &["yes", "no", "prohibit-password", "without-password", "forced-commands-only", "No"]),
    ("PermitEmptyPasswords", &["yes", "no"]),
    ("ForceCommand", &["internal-sftp", "none", "/bin/echo \"a b\" # c", "  'x'"]),
    ("AllowTcpForwarding", &["yes", "no", "local", "remote", "all"]),
    ("AllowStreamLocalForwarding", &["yes", "no", "local", "remote"]),
    ("AllowAgentForwarding", &["yes", "no"]),
    ("PermitTunnel", &["yes", "no", "ethernet", "point-to-point"]),
    ("GatewayPorts", &["yes", "no", "clientspecified"]),
    ("X11Forwarding", &["yes", "no"]),
    ("DisableForwarding", &["yes", "no"]),
    ("PermitUserRC", &["yes", "no"]),
    ("LOGINGRACETIME", &["0", "30", "2m", "1h30", "1M5s", "1w"]),
    ("MaxAuthTries", &["1", "6", "20"]),
    ("AuthorizedKeysFile", &[".ssh/authorized_keys", "none", "/etc/keys/%u .ssh/more", "\"a\" b# c #d"]),
    ("AuthorizedKeysCommand", &["none", "/usr/bin/keys %u \"%t\"", "/x"]),
    ("AuthorizedKeysCommandUser", &["nobody", "none"]),
    ("TrustedUserCAKeys", &["none", "/etc/ssh/ca.pub"]),
    ("ExposeAuthInfo", &["yes", "no"]),
    ("PERMITUSERENVIRONMENT", &["yes", "no", "LANG,LC_*"]),
    ("AllowUsers", &["alice", "bob@192.0.2.0/24 alice", "*@*.example.org", "a\\ b"]),
    ("DenyUsers", &["mallory", "root@!10.0.0.1,10.0.0.0/8"]),
    ("AllowGroups", &["codes", "codes sftp-only"]),
    ("DenyGroups", &["games"]),
    ("PORT", &["22", "2222"]),
    ("Banner", &["none"]),
    ("PRINTMOTD", &["no"]),
    ("RSAAuthentication", &["yes"]),
    ("PROTOCOL", &["2"]),
    ("AcceptEnv", &["LANG LC_*"]),
];

const CRITERIA: &[(&str, &[&str])] = &[
    ("User", &["alice", "bob,alice", "!alice,*", "a*e", "?ob", "!bob", "\"alice,mallory\"", "root"]),
    ("Group", &["codes", "!sftp-only,codes", "sftp*", "alice", "*"]),
    ("Host", &["*.example.org", "GATE.example.org", "!gate.*,*.org"]),
    (
        "Address",
        &["192.0.2.0/24", "192.0.2.*", "!192.0.2.7,192.0.2.0/24", "2001:db8::/32", "10.0.0.1", "::1,192.0.2.7"],
    ),
    ("LocalAddress", &["198.51.100.1", "198.51.100.0/24"]),
    ("LocalPort", &["22", "2222"]),
    ("RDomain", &["blue", "b*"]),
];

/// Lines that sshd refuses.
const WRONG: &[&str] = &[
    "UsePAM maybe",
    "UsePAM yes no",
    "UsePAM",
    "Nonsense yes",
    "PasswordAuthentication \"no",
    "PermitTunnel YES",
    "PermitRootLogin n\\o",
    "MaxAuthTries -1",
    "MaxAuthTries six",
    "LoginGraceTime 2x",
    "AuthenticationMethods publickey,",
    "AuthenticationMethods retina",
    "AuthenticationMethods any publickey",
    "AuthorizedKeysCommand keys",
    "AuthorizedKeysFile \"\"",
    "AllowUsers root@10.0.0.1/8",
    "Port 0",
    "Port 65536",
    "Include \"\"",
    "Match",
    "Match #",
    "Match User",
    "Match all User alice",
    "Match User alice all",
    "Match Colour blue",
    "Match Address 192.0.2.1/24",
    "Match Address 192.0.2.0/24,",
    "Match Address 192.0.2.0/33",
    "Match LocalPort many",
    "Match User 'alice",
];

/// Lines that look wrong, and that sshd takes.
const ODD: &[&str] = &[
    "",
    "# UsePAM no",
    "   #",
    "=",
    "\"",
    "\"UsePAM yes",
    "\t",
    "Include /etc/ssh/not-there.conf",
    "Include ~/not-there",
    "Include /etc/ssh",
    "Match user=ALICE",
    "Match User alice # and nobody else",
    "Match all # everybody",
    "MATCH ALL",
    "PermitRootLogin\tno\t",
    "PermitRootLogin =no",
    "PermitRootLogin= no",
    "PermitRootLogin 'no'",
    "PermitRootLogin n'o'\"\"",
    "\"PermitRootLogin\"no",
];

impl Author {
    fn new(seed: u64) -> Self {
        Self { numbers: Numbers(seed), name: format!("c{seed}"), files: Vec::new() }
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[usize::try_from(self.numbers.next(list.len() as u64)).unwrap()]
    }

    /// A file and what it includes.
    fn write(&mut self, host_key: &str) -> String {
        let path = format!("/etc/ssh/{}.conf", self.name);
        let body = self.body(0, true);
        self.files.push((path.clone(), format!("HostKey {host_key}\n{body}")));
        path
    }

    fn body(&mut self, depth: u64, mut is_global: bool) -> String {
        let mut text = String::new();
        for _ in 0..self.numbers.next(9) {
            let line = match self.numbers.next(100) {
                0..18 => {
                    is_global = false;
                    self.matching()
                }
                18..28 if depth < 3 => self.include(depth, is_global),
                28..34 => (*self.one_of(ODD)).to_owned(),
                34 if depth == 0 => (*self.one_of(WRONG)).to_owned(),
                _ => self.setting(is_global),
            };
            let end = if self.numbers.one_in(20) { "\r\n" } else { "\n" };
            let indent = if self.numbers.one_in(4) { "  " } else { "" };
            text += &format!("{indent}{line}{end}");
        }
        text
    }

    fn setting(&mut self, is_global: bool) -> String {
        loop {
            let (name, values) = self.one_of(SETTINGS);
            let is_for_the_server = name.chars().all(|char| char.is_ascii_uppercase());
            // A few that must not be there.
            if is_for_the_server && !is_global && !self.numbers.one_in(60) {
                continue;
            }
            let value = self.one_of(values);
            let between = *self.one_of(&[" ", " ", " ", "\t", "=", " = "]);
            let name = if self.numbers.one_in(3) { name.to_lowercase() } else { (*name).to_owned() };
            return format!("{name}{between}{value}");
        }
    }

    fn matching(&mut self) -> String {
        if self.numbers.one_in(6) {
            return "Match all".to_owned();
        }
        let mut line = "Match".to_owned();
        for _ in 0..=self.numbers.next(2) {
            let (name, values) = self.one_of(CRITERIA);
            line += &format!(" {name} {}", self.one_of(values));
        }
        line
    }

    fn include(&mut self, depth: u64, is_global: bool) -> String {
        let directory = format!("{}.{}.d", self.name, self.files.len());
        let names = ["10-a.conf", "50-cloud-init.conf", "Z.conf", "a.conf", ".hidden.conf", "b.conf.bak"];
        for name in names {
            if self.numbers.one_in(2) {
                let body = self.body(depth + 1, is_global);
                self.files.push((format!("/etc/ssh/{directory}/{name}"), body));
            }
        }
        let pattern = *self.one_of(&[
            "*.conf",
            "*.conf",
            "[0-9]*.conf",
            "?.conf",
            "[!a-z]*",
            "*",
            "a.conf",
            ".*.conf",
            "[a-z].c*f",
        ]);
        match self.numbers.next(4) {
            0 => format!("Include {directory}/{pattern}"),
            1 => format!("Include \"/etc/ssh/{directory}/{pattern}\" {directory}/b*"),
            _ => format!("Include /etc/ssh/{directory}/{pattern}"),
        }
    }

    fn connection(&mut self) -> Connection {
        let (user, groups): (&str, &[&str]) = *self.one_of(&[
            (ALICE.name, &["alice", "codes"] as &[&str]),
            (BOB.name, &["bob", "codes", "sftp-only"]),
            ("root", &["root"]),
            ("mallory", &[]),
        ]);
        let mut known = |values: &[&str]| {
            let value = (*self.one_of(values)).to_owned();
            (!value.is_empty()).then_some(value)
        };
        Connection {
            user: Some(user.to_owned()),
            groups: groups.iter().map(ToString::to_string).collect(),
            host: known(&["gate.example.org", "Gate.Example.Org", "x.example.net", ""]),
            address: known(&["192.0.2.7", "192.0.2.9", "2001:db8::1", "::1", "10.0.0.1", ""]),
            local_address: known(&["198.51.100.1", "203.0.113.1", ""]),
            local_port: known(&["22", "2222"]).map(|port| port.parse().unwrap()),
            rdomain: known(&["blue", "red", ""]),
        }
    }
}

#[test]
fn what_is_in_force_is_what_sshd_says() {
    const FILES: u64 = 300;
    let bench = Bench::new();
    let mut authors: Vec<Author> = (0..FILES).map(Author::new).collect();
    let mut paths = Vec::new();
    let mut connections = Vec::new();
    for author in &mut authors {
        paths.push(author.write(&bench.host_key));
        for (path, text) in &author.files {
            fs::create_dir_all(bench.machine.path(path).parent().unwrap()).unwrap();
            bench.machine.write(path, text);
        }
        connections.push(iter::repeat_with(|| author.connection()).take(2).collect::<Vec<_>>());
    }
    let questions: Vec<_> = iter::zip(&paths, &connections)
        .map(|(path, connections)| (path.clone(), connections.iter().map(specification).collect()))
        .collect();
    let mut taken = 0;
    for (number, answers) in bench.ask(&questions).into_iter().enumerate() {
        let config = bench.config(&paths[number]);
        for (connection, answer) in iter::zip(&connections[number], answers) {
            let shown = || format!("{:#?}\n{connection:?}\n{:#?}", authors[number].files, config.problems);
            match answer {
                Ok(said) => {
                    // Whom that hits is cut off, nobody else.
                    let is_cutting = |problem: &&Problem| problem.trouble == Trouble::AnyAfterLists;
                    let refused = config.problems.iter().find(|problem| !is_cutting(problem));
                    assert_eq!(refused, None, "sshd takes it: {}", shown());
                    assert_eq!(config.effective(connection), sshd_config::parse(&said), "{}", shown());
                    taken += 1;
                }
                Err(complaint) => assert!(!config.problems.is_empty(), "sshd refuses: {complaint}{}", shown()),
            }
        }
    }
    assert!((350..570).contains(&taken), "not a fair mix: sshd took {taken} of {}", 2 * FILES);
}

#[test]
fn what_sshd_refuses_is_a_problem_and_nothing_else_is() {
    let bench = Bench::new();
    let mut texts: Vec<(String, bool)> = WRONG.iter().map(|line| ((*line).to_owned(), false)).collect();
    texts.extend(ODD.iter().map(|line| ((*line).to_owned(), true)));
    let several = [
        ("AuthenticationMethods publickey\nMatch User alice\nAuthenticationMethods any", false),
        ("Match User alice\nAuthenticationMethods publickey\nMatch User bob\nAuthenticationMethods any", false),
        ("AuthenticationMethods publickey,password\nPasswordAuthentication no", false),
        ("AuthenticationMethods publickey,password publickey\nPasswordAuthentication no", true),
        ("AuthenticationMethods publickey,password\nMatch all\nPasswordAuthentication no", false),
        ("UsePAM yes\nLoginGraceTime 30\nPort 2222\nMatch all\nUsePAM no\nLoginGraceTime 60\nPort 22", true),
        ("PermitRootLogin yes\nMaxAuthTries 3\nMatch all\nPermitRootLogin no\nMaxAuthTries 4", true),
        ("AuthorizedKeysCommand /x", false),
        ("AuthorizedKeysCommand /x\nMatch all\nAuthorizedKeysCommandUser nobody", true),
        ("Match User bob\nAuthorizedKeysCommand /x", true),
        ("Match User bob\nAuthenticationMethods password\nPasswordAuthentication no", true),
        ("Match User alice\nUsePAM yes", false),
        ("Match User alice\nMatch all\nUsePAM yes", true),
        ("Include /etc/ssh/loop.conf", false),
        ("Match User alice\nInclude /etc/ssh/global.conf", false),
        ("Include /etc/ssh/global.conf", true),
        ("Include /etc/ssh/nul.conf", true),
        ("Include /etc/ssh/dangling.d/*", false),
        ("Include /etc/ssh/deep.2.conf", true),
        ("Include /etc/ssh/deep.1.conf", false),
        ("UsePAM yes\r\nPermitRootLogin no\r", true),
        ("UsePAM yes\u{c}", true),
        ("\u{feff}UsePAM yes", false),
        ("Banner /\u{fc}\nUsePAM yes", true),
    ];
    texts.extend(several.map(|(text, is_right)| (text.to_owned(), is_right)));
    bench.machine.write("/etc/ssh/loop.conf", "Include /etc/ssh/loop.conf\n");
    bench.machine.write("/etc/ssh/global.conf", "UsePAM yes\nLoginGraceTime 1m\n");
    bench.machine.write("/etc/ssh/nul.conf", b"UsePAM yes # \0 and more\nPermitRootLogin no\n");
    for depth in 0..17 {
        bench.machine.write(&format!("/etc/ssh/deep.{depth}.conf"), format!("Include deep.{}.conf\n", depth + 1));
    }
    fs::create_dir(bench.machine.path("/etc/ssh/dangling.d")).unwrap();
    std::os::unix::fs::symlink("nowhere", bench.machine.path("/etc/ssh/dangling.d/a")).unwrap();
    let mut questions = Vec::new();
    for (number, (text, _)) in texts.iter().enumerate() {
        let path = format!("/etc/ssh/one{number}.conf");
        bench.machine.write(&path, format!("HostKey {}\n{text}\n", bench.host_key));
        questions.push((path, vec!["user=alice,host=gate,addr=10.0.0.1,lport=22".to_owned()]));
    }
    bench.machine.write("/etc/ssh/deep.17.conf", "PermitRootLogin no\n");
    let connection = Connection {
        user: Some("alice".to_owned()),
        groups: vec!["alice".to_owned(), "codes".to_owned()],
        host: Some("gate".to_owned()),
        address: Some("10.0.0.1".to_owned()),
        local_port: Some(22),
        ..Connection::default()
    };
    for (((text, is_right), answers), (path, _)) in iter::zip(iter::zip(&texts, bench.ask(&questions)), &questions) {
        let config = bench.config(path);
        match &answers[0] {
            Ok(said) => {
                assert!(*is_right, "sshd takes {text:?}");
                assert_eq!(config.problems, [], "{text:?}");
                assert_eq!(config.effective(&connection), sshd_config::parse(said), "{text:?}");
            }
            Err(complaint) => {
                assert!(!is_right, "sshd refuses {text:?}: {complaint}");
                assert!(!config.problems.is_empty(), "{text:?}: {complaint}");
            }
        }
    }
}

/// Who comes in by what: settings, and for alice and for root the methods that are enough together.
const WAYS: &[(&str, &str, &str)] = &[
    ("UsePAM yes\nPermitRootLogin yes\n", "K Q P", "K Q P"),
    ("UsePAM no\n", "K P", "K"),
    ("UsePAM yes\nPasswordAuthentication no\nAuthenticationMethods publickey,keyboard-interactive\n", "KQ", ""),
    (
        "UsePAM yes\nAuthenticationMethods publickey,password publickey,keyboard-interactive:pam\nPermitRootLogin yes\n",
        "KP KQ",
        "KP KQ",
    ),
    (
        "UsePAM yes\nAuthenticationMethods publickey,password publickey,keyboard-interactive\nPasswordAuthentication no\n",
        "KQ",
        "",
    ),
    ("UsePAM yes\nPermitRootLogin forced-commands-only\n", "K Q P", "K"),
    (
        "UsePAM yes\nPermitRootLogin forced-commands-only\nAuthenticationMethods publickey,keyboard-interactive\n",
        "KQ",
        "",
    ),
    (
        "UsePAM no\nAuthenticationMethods publickey,keyboard-interactive publickey,password\nPermitRootLogin yes\n",
        "KP",
        "KP",
    ),
    ("UsePAM yes\nAuthenticationMethods hostbased password,keyboard-interactive\nPermitRootLogin no\n", "PQ", ""),
    ("UsePAM yes\nAuthenticationMethods keyboard-interactive:bsdauth password\nPermitRootLogin yes\n", "P", "P"),
    (
        "UsePAM yes\nMatch User root\nPermitRootLogin yes\nMatch Address 127.0.0.0/8\nAuthenticationMethods keyboard-interactive,publickey\n",
        "QK",
        "QK",
    ),
];

/// Sets of methods that a client may have: keys, questions, passwords.
const CLIENTS: [&str; 7] = ["K", "Q", "P", "KQ", "KP", "QP", "KQP"];

fn letter(method: Method) -> char {
    match method {
        Method::PublicKey => 'K',
        Method::KeyboardInteractive => 'Q',
        Method::Password => 'P',
        Method::HostBased | Method::Gssapi | Method::None => '-',
    }
}

/// A key of somebody's for this machine alone, which comes with a command.
fn key(machine: &Machine, name: &str) -> PathBuf {
    let key = machine.shared().join(format!("key.of.{name}"));
    output_of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    let public = fs::read_to_string(key.with_extension(format!("{name}.pub"))).unwrap();
    machine.write(&format!("/etc/keys/{name}"), format!("command=\"true\" {public}"));
    key
}

#[test]
fn somebody_gets_in_by_the_ways_that_are_said_and_by_no_other() {
    let machine = Machine::new();
    machine.service(
        "sshd",
        "auth required pam_unix.so nodelay\naccount required pam_permit.so\nsession required pam_permit.so\n",
    );
    fs::create_dir(machine.path("/etc/keys")).unwrap();
    // The same password for root.
    let shadow = machine.read("/etc/shadow");
    let hash = shadow.lines().find_map(|line| line.strip_prefix("alice:")?.split(':').next()).unwrap();
    let others = shadow.lines().filter(|line| !line.starts_with("root:")).collect::<Vec<_>>().join("\n");
    machine.write("/etc/shadow", format!("root:{hash}:20000::::::\n{others}\n"));
    let people = [("alice", key(&machine, "alice"), Who::Person), ("root", key(&machine, "root"), Who::Root)];
    for (settings, alice, root) in WAYS {
        let sshd = Sshd::start(&machine, &format!("AuthorizedKeysFile /etc/keys/%u\nMaxAuthTries 20\n{settings}"));
        let config = Config::read(&Inside(&machine)).unwrap();
        assert_eq!(config.problems, [], "{settings}");
        let mut logins = Vec::new();
        for ((name, key, who), expected) in iter::zip(&people, [alice, root]) {
            let connection = Connection {
                user: Some((*name).to_owned()),
                groups: vec![(*name).to_owned()],
                host: Some("127.0.0.1".to_owned()),
                address: Some("127.0.0.1".to_owned()),
                ..Connection::default()
            };
            let ways = ways(&config.effective(&connection), *who);
            let ways: Vec<String> = ways.iter().map(|way| way.methods.iter().copied().map(letter).collect()).collect();
            assert_eq!(ways.join(" "), **expected, "{name}: {settings}");
            for can in CLIENTS {
                let is_enough = ways.iter().any(|way| way.chars().all(|letter| can.contains(letter)));
                let names = can.chars().map(|letter| match letter {
                    'K' => "publickey",
                    'Q' => "keyboard-interactive",
                    _ => "password",
                });
                let order = format!("PreferredAuthentications={}", names.collect::<Vec<_>>().join(","));
                let options = ["-o", &order, "-o", "NumberOfPasswordPrompts=1"];
                logins.push((name, can, is_enough, sshd.begin(name, key, &["password", "password"], &options)));
            }
        }
        // All at the same time, as what fails takes its time.
        for (name, can, is_enough, client) in logins {
            let session = sshd.finish(client);
            assert_eq!(session.succeeded, is_enough, "{name} with {can}: {settings}{session:#?}");
        }
    }
}
