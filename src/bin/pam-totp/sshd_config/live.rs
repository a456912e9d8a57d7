//! What sshd itself says: `sshd -T`.

use super::effective::{Effective, Values};
use super::keywords::{self, Kind, Meaning};
use super::{Connection, Origin};
use std::fmt::{self, Display, Formatter};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Where sshd is, on all distributions that we know.
const PROGRAMS: [&str; 4] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"];
/// How long sshd may take: it reads files, and may ask a name service for groups.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much it may say. 9.2 says 5 kB.
const MOST: u64 = 1 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// No program in any of the places.
    NoSshd,
    /// It does not start.
    NotStarted(std::io::Error),
    /// It took too long, and was stopped.
    TooLong,
    /// It refuses; what it said.
    Refused(String),
}

impl Display for NoAnswer {
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        match self {
            Self::NoSshd => write!(formatter, "no sshd: {}", PROGRAMS.join(", ")),
            Self::NotStarted(error) => write!(formatter, "sshd does not start: {error}"),
            Self::TooLong => write!(formatter, "sshd took more than {} s", PATIENCE.as_secs()),
            Self::Refused(text) => write!(formatter, "sshd: {}", text.trim_end().escape_debug()),
        }
    }
}

/// Asks the sshd of this host what is in force for somebody who connects.
pub(crate) fn ask(connection: &Connection) -> Result<Effective, NoAnswer> {
    let program = PROGRAMS.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or(NoAnswer::NoSshd)?;
    ask_program(&program, connection, PATIENCE)
}

/// The same of this program.
pub(super) fn ask_program(program: &Path, connection: &Connection, patience: Duration) -> Result<Effective, NoAnswer> {
    let said = run(program, &["-T", "-C", &specification(connection)], None, patience)?;
    Ok(parse(&said.output))
}

/// What the sshd of this host says to its own settings, or to the text of others, when it is called with these arguments; for
/// whoever connects, where `-T` is one of them.
pub(crate) fn settings_of(text: Option<&str>, connection: &Connection, arguments: &[&str]) -> Result<String, NoAnswer> {
    let program = PROGRAMS.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or(NoAnswer::NoSshd)?;
    let specification = specification(connection);
    let mut words = arguments.to_vec();
    if arguments.contains(&"-T") {
        words.extend(["-C", &specification]);
    }
    if text.is_some() {
        // Nothing has to be written anywhere.
        words.extend(["-f", "/proc/self/fd/0"]);
    }
    let Said { output, complaints } = run(&program, &words, text, PATIENCE)?;
    Ok(if output.is_empty() { complaints } else { output })
}

/// What a program said that did what it was to do.
struct Said {
    output: String,
    complaints: String,
}

fn run(program: &Path, arguments: &[&str], input: Option<&str>, patience: Duration) -> Result<Said, NoAnswer> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NoAnswer::NotStarted)?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input.map(str::to_owned)) {
        thread::spawn(move || pipe.write_all(input.as_bytes()));
    }
    let deadline = Instant::now().checked_add(patience);
    let (said, complained) = (reading(child.stdout.take()), reading(child.stderr.take()));
    let left = || deadline.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
    let output = said.recv_timeout(left()).and_then(|said| Ok((said, complained.recv_timeout(left())?)));
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if output.is_ok() && !left().is_zero() => thread::sleep(Duration::from_millis(2)),
            _ => break None,
        }
    };
    let (Some(status), Ok((output, complaints))) = (status, output) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(NoAnswer::TooLong);
    };
    if status.success() { Ok(Said { output, complaints }) } else { Err(NoAnswer::Refused(complaints)) }
}

/// Reads to the end in a thread of its own.
fn reading(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(MOST).read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// What goes behind `-C`. A port is always there: without one sshd refuses to judge a `Match LocalPort`. A name with a comma would
/// say something else, so it is left out, and fits nothing.
pub(super) fn specification(connection: &Connection) -> String {
    let port = connection.local_port.unwrap_or(22).to_string();
    let parts = [
        ("user", connection.user.as_deref()),
        ("host", connection.host.as_deref()),
        ("addr", connection.address.as_deref()),
        ("laddr", connection.local_address.as_deref()),
        ("lport", Some(port.as_str())),
        ("rdomain", connection.rdomain.as_deref()),
    ];
    let parts = parts.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let parts = parts.filter(|(_, value)| !value.is_empty() && !value.contains(','));
    parts.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// Reads what `sshd -T` prints: a setting a line, of lists of patterns a pattern a line.
pub(crate) fn parse(text: &str) -> Effective {
    let mut values = Values::default();
    for line in text.lines() {
        let Some((word, value)) = line.split_once(' ') else { continue };
        // Before 8.7 the old name is a setting of its own, and the new one has taken it into account.
        if word == "challengeresponseauthentication" {
            continue;
        }
        let Some(Meaning::Setting(key)) = keywords::find(word).map(|keyword| keyword.meaning) else { continue };
        let words = match key.kind() {
            Kind::Words | Kind::Methods => value.split(' ').map(str::to_owned).collect(),
            _ => vec![value.to_owned()],
        };
        if !value.is_empty() {
            values.take(key, &words, &Origin::Sshd);
        }
    }
    Effective::from(&values)
}
