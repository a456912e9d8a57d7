//! Where the cluster is, and as whom this host comes to it: `/etc/security/pam_totp.fleet.toml`.
//!
//! ```text
//! version = 1
//! endpoints = ["https://10.0.0.1:2379", "https://etcd2.example.net:2379"]
//! ca = "/etc/pam_totp/ca.pem"
//! cert = "/etc/pam_totp/bastion1.pem"
//! key = "/etc/pam_totp/bastion1.key"
//! user = "bastion1"
//! password_file = "/etc/pam_totp/bastion1.password"
//! ```
//!
//! Root's alone, as what it names is: whoever can write to it decides who is asked whether a code was used.

use crate::fact::Fact;
use crate::policy::{AbsolutePath, BadPolicy, Problem, bad, read_toml};
use crate::secret::Secret;
use crate::system::files::{FileError, Problem as FileProblem};
use crate::system::private::Directory;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Where it is, if nobody says otherwise.
pub const PATH: &str = "/etc/security/pam_totp.fleet.toml";

/// The beginning of all keys, unless `prefix` says otherwise.
const PREFIX: &str = "/pam_totp/";
/// Most endpoints: etcd advises against more than seven members, and a change of members has two more for a while.
const MOST_ENDPOINTS: usize = 9;
/// Longest prefix and longest name of a host.
const LONGEST_NAME: usize = 64;
/// Longest name in the DNS (RFC 1035 section 2.3.4).
const LONGEST_HOST: usize = 253;
/// Longest password, and longest name of a user.
const LONGEST_PASSWORD: usize = 1024;

/// What the file says, with what it leaves out filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// Where etcd listens for clients, one to nine, each once.
    pub endpoints: Vec<Endpoint>,
    /// The beginning of all keys; begins and ends with `/`.
    pub prefix: String,
    /// Who signs the servers' certificates: a PEM file. There where an endpoint is https.
    pub ca: Option<PathBuf>,
    /// This host's certificate and its key: PEM files.
    pub cert: Option<(PathBuf, PathBuf)>,
    /// As whom this host comes, and the file with the password.
    pub user: Option<(String, PathBuf)>,
    /// This host's name in the fleet.
    pub host: String,
}

/// One address of etcd's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint {
    url: String,
    is_tls: bool,
}

impl Endpoint {
    /// `https://HOST:PORT`, in lower case.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is https. If not, it is this host itself.
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words = || format!("`{text}` is no address: https://HOST:PORT");
        let url = text.to_ascii_lowercase();
        let (scheme, authority) = url.split_once("://").ok_or_else(words)?;
        let (host, port) = authority.rsplit_once(':').ok_or_else(words)?;
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
        let literal = literal(host);
        if !is_port || literal.is_none() && !is_host_name(host) {
            return Err(words());
        }
        match (scheme, literal) {
            ("https", _) => Ok(Self { is_tls: true, url }),
            ("http", Some(address)) if address.is_loopback() => Ok(Self { is_tls: false, url }),
            ("http", _) => Err(format!("`{text}` is not https: http is for 127.0.0.1 and [::1] alone")),
            _ => Err(words()),
        }
    }
}

/// An address in numbers, as it is in a URL (RFC 3986 section 3.2.2).
fn literal(host: &str) -> Option<IpAddr> {
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    in_brackets.map_or_else(
        || host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        |host| host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    )
}

fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(is_good) && !label.starts_with('-')
    };
    // Numbers with dots that are no address would be one to some resolvers: 127.1.
    let is_number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    host.len() <= LONGEST_HOST && host.split('.').all(is_label) && !is_number
}

/// The beginning of all keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Prefix(String);

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_enclosed = text.len() > 1 && text.starts_with('/') && text.ends_with('/');
        if is_printable && is_enclosed && text.len() <= LONGEST_NAME {
            return Ok(Self(text));
        }
        Err(format!("must be at most {LONGEST_NAME} printable letters, the first and the last of them `/`"))
    }
}

/// A host's name in the fleet.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct HostName(String);

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_name(&text) {
            return Ok(Self(text));
        }
        Err(format!("must be 1 to {LONGEST_NAME} of a-z, 0-9, `.` and `-`, and begin with a letter or digit"))
    }
}

/// Whether a host can be called so.
pub fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=LONGEST_NAME).contains(&text.len())
        && text.bytes().next().is_some_and(is_plain)
        && text.bytes().all(|byte| is_plain(byte) || b".-".contains(&byte))
}

/// A user of etcd's.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct UserName(String);

impl TryFrom<String> for UserName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if (1..=LONGEST_PASSWORD).contains(&text.len()) && !text.contains(char::is_control) {
            return Ok(Self(text));
        }
        Err(format!("must be 1 to {LONGEST_PASSWORD} bytes without control characters"))
    }
}

/// The file, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: i64,
    endpoints: Spanned<Vec<Spanned<Endpoint>>>,
    #[serde(default)]
    insecure: bool,
    prefix: Option<Prefix>,
    ca: Option<AbsolutePath>,
    cert: Option<Spanned<AbsolutePath>>,
    key: Option<Spanned<AbsolutePath>>,
    user: Option<Spanned<UserName>>,
    password_file: Option<Spanned<AbsolutePath>>,
    host: Option<HostName>,
}

impl Written {
    /// What no key can be blamed for alone: where, and in words.
    fn contradiction(&self) -> Option<(usize, &'static str)> {
        let endpoints = self.endpoints.get_ref();
        let open = endpoints.iter().find(|endpoint| !endpoint.get_ref().is_tls);
        let tls = endpoints.iter().find(|endpoint| endpoint.get_ref().is_tls);
        let mut earlier = Vec::new();
        let twice = endpoints.iter().find(|endpoint| {
            let is_there = earlier.contains(&endpoint.get_ref());
            earlier.push(endpoint.get_ref());
            is_there
        });
        let alone = |one: Option<usize>, other: Option<usize>| one.xor(other);
        let start = |path: &Option<Spanned<AbsolutePath>>| path.as_ref().map(|path| path.span().start);
        let contradictions = [
            (
                (!(1..=MOST_ENDPOINTS).contains(&endpoints.len())).then(|| self.endpoints.span().start),
                "must be 1 to 9 addresses",
            ),
            (twice.map(|endpoint| endpoint.span().start), "this address is there twice"),
            (open.filter(|_| !self.insecure).map(|endpoint| endpoint.span().start), "http needs `insecure = true`"),
            (tls.filter(|_| self.ca.is_none()).map(|endpoint| endpoint.span().start), "https needs `ca`"),
            (alone(start(&self.cert), start(&self.key)), "`cert` and `key` go together"),
            (
                alone(self.user.as_ref().map(|user| user.span().start), start(&self.password_file)),
                "`user` and `password_file` go together",
            ),
        ];
        contradictions.into_iter().find_map(|(at, words)| Some((at?, words)))
    }
}

impl Conf {
    /// Reads the file: root's alone (mode 0600 or less, one name), in directories that nobody else can write to.
    ///
    /// # Errors
    /// `no-fleet-conf`, `bad-fleet-conf`.
    pub fn read(path: &Path) -> Result<Self, Fact> {
        Self::read_if_there(path)?.ok_or_else(|| {
            Fact::new("no-fleet-conf")
                .with_path(path)
                .or("write one of root's alone: version = 1, endpoints, ca, cert, key, user, password_file")
        })
    }

    /// The same. `Ok(None)`: there is none.
    ///
    /// # Errors
    /// `bad-fleet-conf`.
    pub fn read_if_there(path: &Path) -> Result<Option<Self>, Fact> {
        let word = "bad-fleet-conf";
        let text = read_private(path).map_err(|error| Fact::new(word).because(&error.fact()))?;
        let Some(text) = text else { return Ok(None) };
        let nodename = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        let conf = Self::parse(text.expose(), &nodename);
        conf.map(Some).map_err(|error| error.fact_of(word, path.as_os_str().as_bytes()))
    }

    /// Reads its text. `nodename` is what the kernel calls this host.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &[u8], nodename: &str) -> Result<Self, BadPolicy> {
        let written: Written = read_toml(text, |written: &Written| written.version)?;
        if let Some((at, words)) = written.contradiction() {
            return Err(bad(text, at, Problem::Other(words.to_owned())));
        }
        let unnamed = |_| {
            let words = "this host has no name of a-z, 0-9, `.` and `-` alone: write host = \"NAME\"";
            bad(text, 0, Problem::Other(words.to_owned()))
        };
        let host = written.host.map_or_else(|| HostName::try_from(nodename.to_owned()).map_err(unnamed), Ok)?;
        let path = |path: Spanned<AbsolutePath>| path.into_inner().0;
        Ok(Self {
            endpoints: written.endpoints.into_inner().into_iter().map(Spanned::into_inner).collect(),
            prefix: written.prefix.map_or_else(|| PREFIX.to_owned(), |prefix| prefix.0),
            ca: written.ca.map(|path| path.0),
            cert: written.cert.map(path).zip(written.key.map(path)),
            user: written.user.map(|user| user.into_inner().0).zip(written.password_file.map(path)),
            host: host.0,
        })
    }
}

/// Reads a file of root's alone. `Ok(None)`: there is none.
pub(super) fn read_private(path: &Path) -> Result<Option<Secret<Vec<u8>>>, FileError> {
    let parts = path.parent().zip(path.file_name().and_then(|name| name.to_str()));
    let (parent, name) = parts.ok_or_else(|| FileError { path: path.to_owned(), problem: FileProblem::Path })?;
    match Directory::open(parent)? {
        Some(directory) => directory.read_private(name),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"version = 1
endpoints = ["https://10.0.0.1:2379", "https://ETCD2.example.net:2379", "https://[fd00::1]:2379"]
ca = "/etc/ca.pem"
cert = "/etc/host.pem"
key = "/etc/host.key"
user = "bastion1"
password_file = "/etc/password"
prefix = "/two/parts/"
host = "bastion-1.example"
"#;

    fn parse(text: &str) -> Result<Conf, String> {
        Conf::parse(text.as_bytes(), "node.name").map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_has_a_default() {
        let conf = parse(GOOD).unwrap();
        let urls: Vec<_> = conf.endpoints.iter().map(Endpoint::url).collect();
        assert_eq!(urls, ["https://10.0.0.1:2379", "https://etcd2.example.net:2379", "https://[fd00::1]:2379"]);
        assert!(conf.endpoints.iter().all(Endpoint::is_tls));
        assert_eq!((conf.prefix.as_str(), conf.host.as_str()), ("/two/parts/", "bastion-1.example"));
        assert_eq!(conf.cert, Some(("/etc/host.pem".into(), "/etc/host.key".into())));
        assert_eq!(conf.user, Some(("bastion1".to_owned(), "/etc/password".into())));
        let conf = parse("version = 1\nendpoints = [\"https://a:1\"]\nca = \"/ca\"\n").unwrap();
        assert_eq!((conf.prefix.as_str(), conf.host.as_str()), ("/pam_totp/", "node.name"));
        assert_eq!((conf.ca, conf.cert, conf.user), (Some("/ca".into()), None, None));
        let conf = parse("version = 1\ninsecure = true\nendpoints = [\"http://127.0.0.1:1\", \"http://[::1]:65535\"]")
            .unwrap();
        assert!(!conf.endpoints.iter().any(Endpoint::is_tls));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let with = |line: &str| {
            let key = line.split(' ').next().unwrap();
            let others: String =
                GOOD.lines().filter(|other| !other.starts_with(key)).map(|other| format!("{other}\n")).collect();
            format!("{others}{line}\n")
        };
        let without = |key: &str| {
            GOOD.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect::<String>()
        };
        let ten: Vec<_> = (1..=10).map(|port| format!("https://a:{port}")).collect();
        for (text, said) in [
            (String::new(), "1:1: the file must begin with: version = 1"),
            (GOOD.replace("= 1\n", "= 2\n"), "1:1: the file must begin with: version = 1"),
            (GOOD.replace("ca =", "caa ="), "3:1: unknown key `caa`; did you mean `ca`?"),
            (with("endpoints = []"), "9:13: must be 1 to 9 addresses"),
            (with(&format!("endpoints = {ten:?}")), "9:13: must be 1 to 9 addresses"),
            (with(r#"endpoints = ["https://a:1", "https://A:1"]"#), "9:29: this address is there twice"),
            (with(r#"endpoints = ["http://127.0.0.1:1"]"#), "9:14: http needs `insecure = true`"),
            (
                format!("{}insecure = true", with(r#"endpoints = ["http://10.0.0.1:1"]"#)),
                "9:13: `http://10.0.0.1:1` is not https",
            ),
            (
                format!("{}insecure = true", with(r#"endpoints = ["http://localhost:1"]"#)),
                "9:13: `http://localhost:1` is not https",
            ),
            (without("ca"), "2:14: https needs `ca`"),
            (without("cert"), "4:7: `cert` and `key` go together"),
            (without("key"), "4:8: `cert` and `key` go together"),
            (without("user"), "6:17: `user` and `password_file` go together"),
            (without("password"), "6:8: `user` and `password_file` go together"),
            (with(r#"ca = "ca.pem""#), "9:6: must be an absolute path"),
            (with(r#"prefix = "pam_totp/""#), "9:10: must be at most 64"),
            (with(r#"prefix = "/""#), "9:10: must be at most 64"),
            (with(r#"prefix = "/pam totp/""#), "9:10: must be at most 64"),
            (with(&format!("prefix = \"/{}/\"", "a".repeat(63))), "9:10: must be at most 64"),
            (with(r#"host = "Bastion""#), "9:8: must be 1 to 64 of a-z"),
            (with(r#"host = """#), "9:8: must be 1 to 64 of a-z"),
            (with(r#"user = """#), "9:8: must be 1 to 1024"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with(said), "{error}: not {said}");
        }
        for address in [
            "",
            "a:1",
            "https://a",
            "https://a:",
            "https://a:0",
            "https://a:+1",
            "https://a:65536",
            "https://:1",
            "https://a:1/",
            "https://a:1/v3",
            "https://user@a:1",
            "https://user:b@a:1",
            "https://a b:1",
            "https://a..b:1",
            "https://-a:1",
            "https://a_b:1",
            "https://::1:1",
            "https://[a]:1",
            "https://127.1:1",
            "https://256.0.0.1:1",
            "https://a:1#x",
            "ftp://a:1",
            "HTTPS://ä:1",
        ] {
            let error = parse(&with(&format!("endpoints = [\"{address}\"]"))).unwrap_err();
            assert!(error.starts_with("9:13: `") && error.contains("no address"), "{address}: {error}");
        }
        // A host without a good name, and none written.
        let error = Conf::parse(without("host").as_bytes(), "a_b").unwrap_err().to_string();
        assert!(error.contains("write host"), "{error}");
    }

    #[test]
    fn a_file_of_others_is_not_read() {
        use std::os::unix::fs::PermissionsExt;
        if crate::system::passwd::process_uids().1 != 0 {
            return;
        }
        let directory = crate::system::private::tests::directory();
        let path = directory.path().join("fleet.toml");
        assert_eq!(Conf::read_if_there(&path), Ok(None));
        assert_eq!(Conf::read(&path).unwrap_err().word(), "no-fleet-conf");
        std::fs::write(&path, GOOD).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let fact = Conf::read(&path).unwrap_err().to_string();
        assert!(fact.starts_with("bad-fleet-conf cause=wrong-mode"), "{fact}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Conf::read(&path), Ok(parse(GOOD).unwrap()));
        std::fs::write(&path, GOOD.replace("ca =", "caa =")).unwrap();
        let fact = Conf::read(&path).unwrap_err().to_string();
        assert_eq!(fact, format!("bad-fleet-conf at={}:3:1 unknown-key=caa did-you-mean=ca", path.display()));
    }
}
