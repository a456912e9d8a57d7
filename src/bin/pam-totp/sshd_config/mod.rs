//! What sshd_config says, read by ourselves: `sshd -T -f FILE` looks at the /etc/ssh of the host that runs it, so it cannot
//! judge another root. Rules are those of sshd_config(5) as OpenSSH 9.2 follows them; `tests/sshd_settings.rs` holds the two
//! against each other.

mod effective;
mod keywords;
mod live;
mod matching;
mod reader;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use effective::{Effective, Forwarding, RootLogin, Setting, Tunnel};
pub(crate) use keywords::Key;
pub(crate) use live::{NoAnswer, ask, parse, settings_of};
pub(crate) use reader::{Problem, Trouble};

use effective::Values;
use matching::Verdict;
use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Where sshd looks.
pub(crate) const PATH: &str = "/etc/ssh/sshd_config";

/// The files of a root. Paths are absolute as seen from within it.
pub(crate) trait Files {
    /// The bytes of a regular file: never waits for one, and bounds their number. A directory is `ErrorKind::IsADirectory`,
    /// which sshd reads as an empty file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The names in a directory, in any order.
    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>>;
}

/// A line of a file: what editors take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) file: Arc<str>,
    pub(crate) line: usize,
}

impl Display for Place {
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        write!(formatter, "{}:{}", self.file.escape_debug(), self.line)
    }
}

/// Where a value comes from.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// No line says anything.
    #[default]
    Default,
    Line(Place),
    /// `sshd -T`, which does not say where it has it from; nor whether it is the default.
    Sshd,
}

impl Display for Origin {
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Line(place) => place.fmt(formatter),
            Self::Sshd => formatter.write_str("sshd -T"),
        }
    }
}

/// Who connects, and how. What is `None` fits no criterion, as in `sshd -T`.
#[derive(Clone, Default, Debug)]
pub(crate) struct Connection {
    pub(crate) user: Option<String>,
    /// The groups of the user, by name; empty for somebody who does not exist.
    pub(crate) groups: Vec<String>,
    pub(crate) host: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) local_address: Option<String>,
    pub(crate) local_port: Option<u16>,
    pub(crate) rdomain: Option<String>,
}

/// A condition of a Match line; all of them must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Criterion {
    All,
    User(String),
    Group(String),
    Host(String),
    Address(String),
    LocalAddress(String),
    LocalPort(u16),
    RDomain(String),
    /// One that we do not know: it is taken not to hold, and reported.
    Unknown(String),
}

impl Criterion {
    fn holds(&self, connection: &Connection) -> bool {
        let fits = |name: &Option<String>, patterns: &str, fits: fn(&str, &str) -> Verdict| {
            name.as_ref().is_some_and(|name| fits(name, patterns) == Verdict::Yes)
        };
        let address = |address: &Option<String>, patterns: &str| {
            address.is_some() && matching::addresses(address.as_deref(), patterns) == Some(Verdict::Yes)
        };
        match self {
            Self::All => true,
            Self::User(patterns) => fits(&connection.user, patterns, matching::list),
            Self::Group(patterns) => connection.user.is_some() && matching::groups(&connection.groups, patterns),
            Self::Host(patterns) => fits(&connection.host, patterns, matching::host),
            Self::Address(patterns) => address(&connection.address, patterns),
            Self::LocalAddress(patterns) => address(&connection.local_address, patterns),
            Self::LocalPort(port) => connection.local_port == Some(*port),
            Self::RDomain(patterns) => fits(&connection.rdomain, patterns, matching::list),
            Self::Unknown(_) => false,
        }
    }
}

/// A Match line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    pub(crate) place: Place,
    pub(crate) criteria: Vec<Criterion>,
    /// The criteria as they are written.
    pub(crate) text: String,
    number: usize,
    /// The block in which this file is included.
    outer: Option<usize>,
}

impl Block {
    /// `Match all`: it holds for everybody, and for the server as a whole.
    pub(crate) fn is_all(&self) -> bool {
        self.criteria == [Criterion::All]
    }

    fn holds(&self, connection: &Connection) -> bool {
        self.criteria.iter().all(|criterion| criterion.holds(connection))
    }

    /// Whether it may hold for this user, wherever they come from.
    pub(crate) fn may_be_for(&self, connection: &Connection) -> bool {
        let is_about_them = |criterion: &&Criterion| matches!(criterion, Criterion::User(_) | Criterion::Group(_));
        self.criteria.iter().filter(is_about_them).all(|criterion| criterion.holds(connection))
    }

    /// Whether it is about users or groups that it names, and not about everybody.
    pub(crate) fn names_people(&self) -> bool {
        let names = |patterns: &str| !patterns.split(',').any(|pattern| pattern.trim_matches(['*', '?']).is_empty());
        self.criteria.iter().any(|criterion| match criterion {
            Criterion::User(patterns) | Criterion::Group(patterns) => names(patterns),
            _ => false,
        })
    }
}

/// A line that sets something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub(crate) place: Place,
    pub(crate) key: Key,
    pub(crate) words: Vec<String>,
}

/// A file with what it includes in its place.
#[derive(Debug, Default)]
struct File {
    items: Vec<Item>,
}

#[derive(Debug)]
enum Item {
    Line(Line),
    Match(usize),
    Include(File),
}

/// sshd_config and all that it includes.
#[derive(Debug)]
pub(crate) struct Config {
    file: File,
    blocks: Vec<Block>,
    /// For each of these sshd refuses to start, or we know less than it does.
    pub(crate) problems: Vec<Problem>,
    /// Old words at which sshd shrugs.
    pub(crate) ignored: Vec<(Place, String)>,
}

/// What a file may do, given where it is included.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Anything.
    Free,
    /// Nothing: it is in a block that does not hold.
    Nothing,
    /// What is in its Match blocks: the rest was done already.
    BlocksOnly,
}

impl Config {
    /// Reads `/etc/ssh/sshd_config` of a root, and what it includes.
    pub(crate) fn read(files: &dyn Files) -> io::Result<Self> {
        Self::read_at(files, Path::new(PATH))
    }

    /// The same from another file.
    pub(crate) fn read_at(files: &dyn Files, path: &Path) -> io::Result<Self> {
        let text = files.read(path)?;
        Ok(reader::read(files, path, &text))
    }

    /// What is in force for somebody who connects.
    pub(crate) fn effective(&self, connection: &Connection) -> Effective {
        self.where_holds(&|block| block.holds(connection))
    }

    /// What is in force where no Match block holds but `Match all`.
    pub(crate) fn server(&self) -> Effective {
        self.where_holds(&Block::is_all)
    }

    /// The Match blocks, in their order.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// What is in force where this block holds, the ones around it, and no other.
    pub(crate) fn effective_in(&self, block: &Block) -> Effective {
        let mut chain = vec![block.number];
        let mut outer = block.outer;
        while let Some(number) = outer {
            chain.push(number);
            outer = self.blocks.get(number).and_then(|block| block.outer);
        }
        self.where_holds(&|block| block.is_all() || chain.contains(&block.number))
    }

    /// Lines that set nothing for the server as a whole because one before them did: the line in force, and the one that is not.
    /// Those that say the same again are not among them.
    pub(crate) fn shadowed(&self) -> Vec<(Line, Line)> {
        let mut walk = Walk { config: self, holds: &Block::is_all, lines: Vec::new() };
        walk.file(&self.file, &mut true, Reach::Free);
        let mut first: Vec<&Line> = Vec::new();
        let mut shadowed = Vec::new();
        for line in walk.lines.into_iter().filter(|line| !line.key.accumulates()) {
            match first.iter().find(|first| first.key == line.key) {
                Some(first) if first.words != line.words => shadowed.push(((*first).clone(), line.clone())),
                Some(_) => {}
                None => first.push(line),
            }
        }
        shadowed
    }

    fn where_holds(&self, holds: &dyn Fn(&Block) -> bool) -> Effective {
        // sshd goes through the file twice: for the server, and for each connection.
        let mut values = self.values(&Block::is_all, true, Reach::Free);
        values.override_with(self.values(holds, false, Reach::BlocksOnly));
        Effective::from(&values)
    }

    fn values(&self, holds: &dyn Fn(&Block) -> bool, mut active: bool, reach: Reach) -> Values {
        let mut walk = Walk { config: self, holds, lines: Vec::new() };
        walk.file(&self.file, &mut active, reach);
        let mut values = Values::default();
        for line in walk.lines {
            values.take(line.key, &line.words, &Origin::Line(line.place.clone()));
        }
        values
    }
}

/// A way through the files, and the lines that count on it.
struct Walk<'a> {
    config: &'a Config,
    holds: &'a dyn Fn(&Block) -> bool,
    lines: Vec<&'a Line>,
}

impl<'a> Walk<'a> {
    /// `active`: whether lines count; what holds at the end of an included file holds in it alone.
    fn file(&mut self, file: &'a File, active: &mut bool, mut reach: Reach) {
        for item in &file.items {
            match item {
                Item::Line(line) if *active => self.lines.push(line),
                Item::Line(_) => {}
                Item::Match(number) => {
                    let holds = self.config.blocks.get(*number).is_some_and(|block| (self.holds)(block));
                    *active = reach != Reach::Nothing && holds;
                    if reach == Reach::BlocksOnly {
                        reach = Reach::Free;
                    }
                }
                Item::Include(included) => {
                    let reach = match reach {
                        Reach::BlocksOnly => Reach::BlocksOnly,
                        _ if *active => Reach::Free,
                        _ => Reach::Nothing,
                    };
                    self.file(included, &mut active.clone(), reach);
                }
            }
        }
    }
}
