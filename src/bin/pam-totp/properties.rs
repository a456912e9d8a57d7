//! What holds for everything that the program alone reads, whatever its bytes are; as `properties` of the library.

#![allow(clippy::panic, clippy::arithmetic_side_effects, reason = "to panic is what they are for")]

use crate::import::lines::{self, Imported, Moving};
use crate::pam_config::lines::{Line, Lines, Words};
use crate::pam_config::{self, Call, PAM_D, Stack, Type, Whole};
use crate::root::Root;
use crate::sshd_config::{self, Config, Connection, Files};
use pam_totp::otp::{self, OtpauthUri};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;

/// A line of pam_oath's users file or an otpauth URI: what is read, written as either, is read again as the same.
pub(crate) fn import(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    for line in text.lines() {
        let Ok(imported) = lines::parse(line, None) else { continue };
        assert!(!imported.what().contains(char::is_control));
        // No record holds a higher one.
        assert!(!matches!(imported.moving, Moving::Counter { next } if i64::try_from(next).is_err()));
        // In a URI a user is between the last `:` and an `@`.
        let account = format!("{}@host", imported.user);
        let user = account.rsplit(':').next().and_then(|account| account.trim().split('@').next()).unwrap_or_default();
        let mut written = vec![(as_uri(&imported, &account), user)];
        let is_word = !imported.user.is_empty() && !imported.user.contains(char::is_whitespace);
        if imported.algorithm == otp::Algorithm::Sha1 && is_word {
            written.push((as_oath(&imported), &imported.user));
        }
        for (text, user) in written {
            let Ok(again) = lines::parse(&text, None) else { panic!("{text} is not read") };
            let parts = |imported: &Imported| (imported.algorithm, imported.digits, imported.moving);
            assert_eq!((again.user.as_str(), parts(&again)), (user, parts(&imported)));
            assert!(again.secret.expose() == imported.secret.expose() && !again.secret.expose().is_empty());
        }
    }
}

fn as_uri(imported: &Imported, account: &str) -> String {
    let moving = match imported.moving {
        Moving::Time { period } => otp::Moving::Time { period },
        Moving::Counter { next } => otp::Moving::Counter { next },
    };
    let Imported { secret, algorithm, digits, .. } = imported;
    OtpauthUri { issuer: "host", account, secret, moving, algorithm: *algorithm, digits: *digits }
        .text()
        .expose()
        .clone()
}

fn as_oath(imported: &Imported) -> String {
    let (kind, state) = match imported.moving {
        Moving::Time { period } => (format!("T{period}"), String::new()),
        Moving::Counter { next: 0 } => ("E".to_owned(), String::new()),
        Moving::Counter { next } => ("E".to_owned(), format!("{} 123456", next - 1)),
    };
    let secret: String = imported.secret.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("HOTP/{kind}/{} {} - {secret} {state}", imported.digits.get(), imported.user)
}

/// A file of /etc/pam.d: no line gets lost, wherever it stands, and each of a stack without trouble is a rule. `root` has nothing
/// but an empty /etc/pam.d.
pub(crate) fn pam_stack(text: &[u8], root: &Root) {
    let lines = Lines::of(text);
    no_line_gets_lost(text, &lines);
    let Ok(root) = root.again() else { panic!("out of descriptors") };
    // It may include itself.
    let root = root.with(&Path::new(PAM_D).join("sshd"), Some(text.to_vec()));
    let stacks =
        [Type::Auth, Type::Account, Type::Password, Type::Session].map(|kind| Stack::read(&root, "sshd", kind));
    for rule in stacks.iter().flat_map(Stack::rules) {
        assert!(rule.call != Call::Module || !rule.module_name().is_empty(), "{}", rule.place);
        assert!(!rule.place.to_string().contains(char::is_control));
    }
    let is_sound = |stack: &Stack| stack.whole == Whole::Read && stack.troubles.is_empty();
    if stacks.iter().all(is_sound) && !includes(text) {
        let rules: usize = stacks.iter().map(|stack| stack.rules().len()).sum();
        assert_eq!(rules, lines.lines.len());
    }
}

/// Wherever nothing goes on, the file could be two; and a line written from its words has the same ones.
fn no_line_gets_lost(text: &[u8], whole: &Lines) {
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end + 1);
    for (number, end) in (1..).zip(ends).take(64) {
        let (before, behind) = text.split_at(end);
        let (mut both, behind) = (Lines::of(before), Lines::of(behind));
        if both.cut.is_some() {
            continue;
        }
        both.lines.extend(behind.lines.into_iter().map(|line| Line { number: line.number + number, ..line }));
        both.too_long.extend(behind.too_long.iter().map(|line| line + number));
        both.cut = behind.cut.map(|line| line + number);
        assert_eq!(&both, whole, "{end}");
    }
    for line in &whole.lines {
        let words: Vec<Vec<u8>> = Words(&line.text).collect();
        let is_odd = |word: &Vec<u8>| word.iter().any(|byte| b"[]\\\n".contains(byte));
        if words.is_empty() || words.iter().any(is_odd) {
            continue;
        }
        let is_plain = |word: &[u8]| !word.is_empty() && !word.iter().any(|byte| b" \t".contains(byte));
        let written =
            words.iter().map(|word| if is_plain(word) { word.clone() } else { [b"[", word.as_slice(), b"]"].concat() });
        let written = written.collect::<Vec<_>>().join(&b' ');
        assert!(written.len() > 1000 || pam_config::is_read_as(&written, &words), "{}", written.escape_ascii());
    }
}

/// Whether the text may have other files, or itself, in it.
fn includes(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    [b"include".as_slice(), b"substack"].iter().any(|word| text.windows(word.len()).any(|window| window == *word))
}

/// sshd_config, and behind the first ASCII record separators what is in sshd_config.d/a.conf and b.conf: a comment at the end
/// changes nothing for anybody, and what is wrong is told with its place and without control characters.
pub(crate) fn sshd_config(text: &[u8]) {
    let read = |tree: &Tree| match Config::read(tree) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    };
    let tree = Tree(text.splitn(3, |&byte| byte == b'\x1e').collect());
    let config = read(&tree);
    let lines = tree.0.iter().map(|text| text.split(|&byte| byte == b'\n').count()).max().unwrap_or_default();
    for problem in &config.problems {
        assert!((1..=lines).contains(&problem.place.line), "{}", problem.place);
        let told = format!("{}: {}", problem.place, problem.trouble);
        assert!(!told.contains(char::is_control), "{told:?}");
    }
    let connections =
        [("root", "192.0.2.1", 22), ("alice", "2001:db8::1", 2222)].map(|(user, address, port)| Connection {
            user: Some(user.to_owned()),
            groups: vec![user.to_owned(), "users".to_owned()],
            host: Some("host.example.org".to_owned()),
            address: Some(address.to_owned()),
            local_address: Some("192.0.2.2".to_owned()),
            local_port: Some(port),
            rdomain: None,
        });
    let main = tree.0.first().copied().unwrap_or_default();
    // A NUL takes the end of its line with it.
    if main.contains(&0) {
        return;
    }
    let commented = [main, b"\n  # the end"].concat();
    let commented = read(&Tree([&[commented.as_slice()], tree.0.get(1..).unwrap_or_default()].concat()));
    assert_eq!(commented.problems, config.problems);
    assert_eq!(commented.server(), config.server());
    for connection in &connections {
        assert_eq!(commented.effective(connection), config.effective(connection));
    }
    for block in config.blocks() {
        config.effective_in(block);
        block.names_people();
    }
    config.shadowed();
}

/// The main file, and those that it may include.
struct Tree<'a>(Vec<&'a [u8]>);

const INCLUDED: [&str; 2] = ["a.conf", "b.conf"];
const DIRECTORY: &str = "/etc/ssh/sshd_config.d";

impl Files for Tree<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let is = |name: &&str| path == Path::new(DIRECTORY).join(name);
        let number =
            if path == Path::new(sshd_config::PATH) { Some(0) } else { INCLUDED.iter().position(is).map(|n| n + 1) };
        number.and_then(|number| self.0.get(number)).map(|text| text.to_vec()).ok_or(ErrorKind::NotFound.into())
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let names = INCLUDED.iter().take(self.0.len() - 1).map(OsString::from).collect();
        if directory == Path::new(DIRECTORY) { Ok(names) } else { Err(ErrorKind::NotFound.into()) }
    }
}

#[cfg(test)]
#[path = "../../../tests/support/inputs.rs"]
mod inputs;

#[cfg(test)]
mod tests {
    use super::inputs::try_on;
    use crate::root::Root;

    #[test]
    fn import() {
        try_on("import", 2_000, super::import);
    }

    #[test]
    fn pam_stack() {
        let image = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(image.path().join("etc/pam.d")).unwrap();
        let root = Root::open(image.path()).unwrap();
        try_on("pam_stack", 1_000, |text| super::pam_stack(text, &root));
    }

    #[test]
    fn sshd_config() {
        try_on("sshd_config", 1_000, super::sshd_config);
    }
}
