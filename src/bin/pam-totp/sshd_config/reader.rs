//! From the text of the files to lines and blocks.

use super::keywords::{self, Key, Keyword, Kind, METHODS, Meaning};
use super::{Block, Config, Criterion, Effective, File, Files, Item, Line, Origin, Place, Reach, matching, words};
use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How deep sshd follows Include (SERVCONF_MAX_DEPTH).
const DEEPEST: usize = 16;
/// How many files, and how many lines of all of them, we look at. sshd has no bound: files that include each other can keep it
/// busy for ever.
const MOST_FILES: usize = 2_000;
const MOST_LINES: usize = 500_000;

/// What is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    pub(crate) place: Place,
    pub(crate) trouble: Trouble,
}

/// Why sshd refuses to start, or what we cannot know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    UnknownKeyword(String),
    /// A keyword with nothing behind it.
    NoArgument(String),
    /// Quotes that are never closed.
    Quotes,
    /// More words than the keyword takes.
    ExtraArguments(String),
    BadValue(Key, String),
    /// A setting of the whole server in a Match block.
    GlobalOnly(String),
    /// A Match without a condition.
    NoCriterion,
    CriterionWithoutValue(String),
    /// A condition that OpenSSH 9.2 does not know; later ones may.
    UnknownCriterion(String),
    /// `Match all` with more behind it.
    AllNotAlone,
    /// An address of a Match with a mask that does not fit it, or a port that is none.
    BadCriterion(String),
    UnknownMethod(String),
    /// `any` beside other lists, on the line or on an earlier one for the whole server.
    AnyNotAlone,
    /// `any` after a Match block with other lists: whoever is in that block is cut off as they connect, in OpenSSH 9.2 at least.
    AnyAfterLists,
    /// In each list for the whole server a method is off.
    NoListLeft,
    /// AuthorizedKeysCommand without AuthorizedKeysCommandUser.
    NoCommandUser,
    /// Files that include each other, or more of them on top of each other than sshd takes.
    IncludeTooDeep,
    /// More than we read.
    TooMuch,
    Unreadable(String, ErrorKind),
}

impl Display for Trouble {
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        match self {
            Self::UnknownKeyword(word) => write!(formatter, "sshd knows no `{}`", word.escape_debug()),
            Self::NoArgument(word) => write!(formatter, "nothing behind `{}`", word.escape_debug()),
            Self::Quotes => formatter.write_str("quotes that are never closed"),
            Self::ExtraArguments(word) => write!(formatter, "more words than {} takes", word.escape_debug()),
            Self::BadValue(key, value) => write!(formatter, "`{}` is no value of {}", value.escape_debug(), key.name()),
            Self::GlobalOnly(word) => write!(formatter, "{} must not be in a Match block", word.escape_debug()),
            Self::NoCriterion => formatter.write_str("Match without a condition"),
            Self::CriterionWithoutValue(word) => {
                write!(formatter, "nothing behind the condition `{}`", word.escape_debug())
            }
            Self::UnknownCriterion(word) => {
                write!(
                    formatter,
                    "a condition that OpenSSH 9.2 does not know, taken not to hold: `{}`",
                    word.escape_debug()
                )
            }
            Self::AllNotAlone => formatter.write_str("Match all with another condition"),
            Self::BadCriterion(value) => {
                write!(formatter, "`{}` is neither address nor network nor port", value.escape_debug())
            }
            Self::UnknownMethod(list) => write!(formatter, "sshd knows no method `{}`", list.escape_debug()),
            Self::AnyNotAlone => formatter.write_str("AuthenticationMethods: `any` beside other lists"),
            Self::AnyAfterLists => formatter.write_str(
                "AuthenticationMethods `any` after a Match block with lists: sshd cuts off whoever that block is for",
            ),
            Self::NoListLeft => formatter.write_str("in each list of AuthenticationMethods a method is off"),
            Self::NoCommandUser => formatter.write_str("AuthorizedKeysCommand without AuthorizedKeysCommandUser"),
            Self::IncludeTooDeep => {
                write!(formatter, "files include each other, or more than {DEEPEST} on top of each other")
            }
            Self::TooMuch => {
                write!(formatter, "more than {MOST_FILES} files or {MOST_LINES} lines: not read to the end")
            }
            Self::Unreadable(path, kind) => write!(formatter, "{} cannot be read: {kind}", path.escape_debug()),
        }
    }
}

/// Reads a file and what it includes. As sshd does when it starts, with every line looked at, whether it holds or not.
pub(super) fn read(files: &dyn Files, path: &Path, text: &[u8]) -> Config {
    let mut reader = Reader {
        files,
        blocks: Vec::new(),
        problems: Vec::new(),
        ignored: Vec::new(),
        file_count: 0,
        line_count: 0,
        has_methods: false,
        has_lists: false,
        is_full: false,
    };
    let mut state = State { active: true, never: false, block: None };
    let file = reader.file(path, text, &mut state, 0);
    let Reader { blocks, problems, ignored, .. } = reader;
    let mut config = Config { file, blocks, problems, ignored };
    let missing = missing_for_the_server(&config);
    config.problems.extend(missing);
    config
}

/// What sshd looks at once it has read all, before any Match.
fn missing_for_the_server(config: &Config) -> Vec<Problem> {
    let effective = Effective::from(&config.values(&Block::is_all, true, Reach::Free));
    let lists = &effective.authentication_methods;
    let is_none_left = !lists.value.is_empty() && lists.value.iter().all(|list| effective.off_in(list).is_some());
    let command = &effective.authorized_keys_command;
    // A user of the name `none` is one, here.
    let is_nobodys = command.value.is_some() && effective.authorized_keys_command_user.origin == Origin::Default;
    let missing =
        [(is_none_left, &lists.origin, Trouble::NoListLeft), (is_nobodys, &command.origin, Trouble::NoCommandUser)];
    let missing = missing.into_iter().filter(|(is_missing, ..)| *is_missing);
    let problem = |(_, origin, trouble): (bool, &Origin, Trouble)| match origin {
        Origin::Line(place) => Some(Problem { place: place.clone(), trouble }),
        _ => None,
    };
    missing.filter_map(problem).collect()
}

struct Reader<'a> {
    files: &'a dyn Files,
    blocks: Vec<Block>,
    problems: Vec<Problem>,
    ignored: Vec<(Place, String)>,
    file_count: usize,
    line_count: usize,
    /// A line for the whole server named methods.
    has_methods: bool,
    /// A line in a Match block did.
    has_lists: bool,
    /// Nothing more is read.
    is_full: bool,
}

/// Where in the files we are.
#[derive(Clone)]
struct State {
    /// Outside of Match, or in `Match all`.
    active: bool,
    /// In a file that is included in a Match block.
    never: bool,
    block: Option<usize>,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, text: &[u8], state: &mut State, depth: usize) -> File {
        let name: Arc<str> = path.to_string_lossy().into();
        let mut file = File::default();
        for (line, text) in (1..).zip(as_sshd_loads(text).split('\n')) {
            let place = Place { file: name.clone(), line };
            self.line_count = self.line_count.saturating_add(1);
            if self.line_count > MOST_LINES {
                self.give_up(&place, Trouble::TooMuch);
            }
            if self.is_full {
                break;
            }
            self.line(&mut file, place, text, state, depth);
        }
        file
    }

    fn line(&mut self, file: &mut File, place: Place, text: &str, state: &mut State, depth: usize) {
        let mut rest = Some(words::trimmed(text));
        let mut word = words::next(&mut rest);
        if word.as_deref() == Some("") {
            word = words::next(&mut rest);
        }
        let Some(word) = word.filter(|word| !word.is_empty() && !word.starts_with('#')) else { return };
        let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
            return self.report(&place, Trouble::NoArgument(word));
        };
        let Some(keyword) = keywords::find(&word) else { return self.report(&place, Trouble::UnknownKeyword(word)) };
        let Some(arguments) = words::arguments(rest) else { return self.report(&place, Trouble::Quotes) };
        if keyword.global && !state.active {
            return self.report(&place, Trouble::GlobalOnly(word));
        }
        let Keyword { meaning, .. } = keyword;
        match meaning {
            Meaning::Other => {}
            Meaning::Ignored => self.ignored.push((place, word)),
            Meaning::Match => {
                let criteria = self.criteria(&place, rest);
                let number = self.blocks.len();
                let outer = if state.never { state.block } else { None };
                let outer = outer.and_then(|block| self.outermost(file, block));
                let block = Block { place, criteria, text: rest.to_owned(), number, outer };
                state.active = !state.never && block.is_all();
                self.blocks.push(block);
                file.items.push(Item::Match(number));
                state.block = Some(number);
            }
            Meaning::Include => self.include(file, &place, &arguments, state, depth),
            Meaning::Setting(key) => {
                if let Some(words) = self.setting(&place, key, &word, arguments, rest, state.active) {
                    file.items.push(Item::Line(Line { place, key, words }));
                }
            }
        }
    }

    /// The block that a file is included in, given the one that is in force in it: a Match of the file itself is not around the
    /// next one.
    fn outermost(&self, file: &File, block: usize) -> Option<usize> {
        let is_own = file.items.iter().any(|item| matches!(item, Item::Match(number) if *number == block));
        if is_own { self.blocks.get(block).and_then(|block| block.outer) } else { Some(block) }
    }

    /// The words of a setting as they count, if sshd takes them.
    fn setting(
        &mut self,
        place: &Place,
        key: Key,
        word: &str,
        arguments: Vec<String>,
        rest: &str,
        active: bool,
    ) -> Option<Vec<String>> {
        let one_of = |choices: &[&str], value: &str| choices.iter().any(|choice| choice.eq_ignore_ascii_case(value));
        let first = arguments.first().map_or("", String::as_str);
        let text = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let is_right = match key.kind() {
            Kind::Choice(choices) => one_of(choices, first),
            Kind::ExactChoice(choices) => choices.contains(&first),
            Kind::Seconds => words::seconds(first).is_some(),
            Kind::Number => first.parse::<u32>().is_ok_and(|number| i32::try_from(number).is_ok()),
            Kind::Port => first.parse::<u16>().is_ok_and(|port| port != 0),
            Kind::Word => !first.is_empty(),
            Kind::Text => true,
            Kind::Command => text.starts_with('/') || text.eq_ignore_ascii_case("none"),
            Kind::Words | Kind::Patterns => !arguments.contains(&String::new()),
            Kind::UserPatterns => arguments.iter().all(|pattern| {
                let host = pattern.split_once('@').map(|(_, host)| host);
                !pattern.is_empty() && host.is_none_or(|host| matching::addresses(None, host).is_some())
            }),
            Kind::Methods => return self.methods(place, arguments, active),
        };
        if !is_right {
            let value = if matches!(key.kind(), Kind::Command) { text.to_owned() } else { first.to_owned() };
            self.report(place, Trouble::BadValue(key, value));
            return None;
        }
        match key.kind() {
            Kind::Text | Kind::Command => return Some(vec![text.to_owned()]),
            Kind::Words | Kind::Patterns | Kind::UserPatterns => {}
            _ if arguments.len() > 1 => {
                self.report(place, Trouble::ExtraArguments(word.to_owned()));
                return None;
            }
            _ => {}
        }
        // Words of which there are none set nothing.
        (!arguments.is_empty()).then_some(arguments)
    }

    fn methods(&mut self, place: &Place, lists: Vec<String>, active: bool) -> Option<Vec<String>> {
        let has_any = lists.iter().any(|list| list == "any");
        let unknown = lists.iter().filter(|list| *list != "any").find(|list| {
            list.split(',').any(|method| !METHODS.contains(&method.split(':').next().unwrap_or_default()))
        });
        let trouble = match unknown {
            _ if lists.is_empty() => Some(Trouble::BadValue(Key::AuthenticationMethods, String::new())),
            Some(list) => Some(Trouble::UnknownMethod(list.clone())),
            // Even in a block of its own: sshd compares with what it read for the whole server.
            None if has_any && (lists.len() > 1 || self.has_methods) => Some(Trouble::AnyNotAlone),
            None => None,
        };
        if let Some(trouble) = trouble {
            self.report(place, trouble);
            return None;
        }
        if has_any && self.has_lists {
            self.report(place, Trouble::AnyAfterLists);
        }
        self.has_methods |= active;
        self.has_lists |= !active;
        Some(lists)
    }

    fn criteria(&mut self, place: &Place, rest: &str) -> Vec<Criterion> {
        let mut criteria = Vec::new();
        let mut rest = Some(rest);
        while let Some(name) = words::next(&mut rest).filter(|word| !word.is_empty() && !word.starts_with('#')) {
            let value = words::next(&mut rest).filter(|word| !word.is_empty() && !word.starts_with('#'));
            match (criterion(&name, value), criteria.as_slice()) {
                (Ok(Criterion::All), []) => {
                    criteria.push(Criterion::All);
                    return criteria;
                }
                (Ok(Criterion::All), _) => self.report(place, Trouble::AllNotAlone),
                (Ok(criterion), _) => criteria.push(criterion),
                (Err(trouble), _) => {
                    self.report(place, trouble);
                    criteria.push(Criterion::Unknown(name));
                }
            }
        }
        if criteria.is_empty() {
            self.report(place, Trouble::NoCriterion);
            criteria.push(Criterion::Unknown(String::new()));
        }
        criteria
    }

    fn include(&mut self, file: &mut File, place: &Place, patterns: &[String], state: &State, depth: usize) {
        if patterns.is_empty() || patterns.iter().any(String::is_empty) {
            self.report(place, Trouble::NoArgument("Include".to_owned()));
        }
        for pattern in patterns.iter().filter(|pattern| !pattern.is_empty()) {
            for path in self.matching(place, pattern) {
                let text = match self.files.read(&path) {
                    Ok(text) => text,
                    Err(error) => {
                        let name = path.to_string_lossy().into_owned();
                        // sshd reads a directory as an empty file. A name that nobody listed need not be there.
                        let is_listed =
                            pattern.rsplit('/').next().is_some_and(|last| matching::is_pattern(last.as_bytes()));
                        let is_nothing = match error.kind() {
                            ErrorKind::IsADirectory => true,
                            ErrorKind::NotFound | ErrorKind::NotADirectory => !is_listed,
                            _ => false,
                        };
                        if !is_nothing {
                            self.report(place, Trouble::Unreadable(name, error.kind()));
                        }
                        continue;
                    }
                };
                let inner_depth = depth.saturating_add(1);
                self.file_count = self.file_count.saturating_add(1);
                if inner_depth > DEEPEST {
                    self.give_up(place, Trouble::IncludeTooDeep);
                } else if self.file_count > MOST_FILES {
                    self.give_up(place, Trouble::TooMuch);
                }
                if self.is_full {
                    return;
                }
                let mut inner = State { never: !state.active, ..state.clone() };
                let included = self.file(&path, &text, &mut inner, inner_depth);
                file.items.push(Item::Include(included));
            }
        }
    }

    /// The paths that a pattern stands for, as glob(3) in the C locale finds and sorts them.
    fn matching(&mut self, place: &Place, pattern: &str) -> Vec<PathBuf> {
        if pattern.starts_with('~') {
            // A path in the directory that sshd was started in, and no home: sshd does not know, and neither do we.
            return Vec::new();
        }
        let pattern = if pattern.starts_with('/') { pattern.to_owned() } else { format!("/etc/ssh/{pattern}") };
        let mut paths = vec![PathBuf::from("/")];
        for component in pattern.split('/').filter(|component| !component.is_empty()) {
            if !matching::is_pattern(component.as_bytes()) {
                paths.iter_mut().for_each(|path| path.push(component.replace('\\', "")));
                continue;
            }
            let mut found = Vec::new();
            for directory in paths {
                match self.files.names(&directory) {
                    Ok(names) => {
                        let fits = |name: &&OsStr| matching::component(name.as_bytes(), component.as_bytes());
                        found.extend(names.iter().map(AsRef::as_ref).filter(fits).map(|name| directory.join(name)));
                    }
                    // Most patterns are for directories that are not everywhere.
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                    Err(error) => {
                        let name = directory.to_string_lossy().into_owned();
                        self.report(place, Trouble::Unreadable(name, error.kind()));
                    }
                }
            }
            paths = found;
        }
        paths.sort_by(|one, other| one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes()));
        paths
    }

    fn report(&mut self, place: &Place, trouble: Trouble) {
        self.problems.push(Problem { place: place.clone(), trouble });
    }

    /// Reports what makes it pointless to go on, once.
    fn give_up(&mut self, place: &Place, trouble: Trouble) {
        if !self.is_full {
            self.report(place, trouble);
        }
        self.is_full = true;
    }
}

fn criterion(name: &str, value: Option<String>) -> Result<Criterion, Trouble> {
    let lower = name.to_ascii_lowercase();
    if lower == "all" {
        return if value.is_none() { Ok(Criterion::All) } else { Err(Trouble::AllNotAlone) };
    }
    let missing = || Trouble::CriterionWithoutValue(name.to_owned());
    let address = |value: String| match matching::addresses(None, &value) {
        Some(_) => Ok(value),
        None => Err(Trouble::BadCriterion(value)),
    };
    let known = ["user", "group", "host", "address", "localaddress", "localport", "rdomain"];
    if !known.contains(&lower.as_str()) {
        return Err(Trouble::UnknownCriterion(name.to_owned()));
    }
    let value = value.ok_or_else(missing)?;
    Ok(match lower.as_str() {
        "user" => Criterion::User(value),
        "group" => Criterion::Group(value),
        "host" => Criterion::Host(value),
        "address" => Criterion::Address(address(value)?),
        "localaddress" => Criterion::LocalAddress(address(value)?),
        "localport" => Criterion::LocalPort(value.parse().map_err(|_| Trouble::BadCriterion(value))?),
        _ => Criterion::RDomain(value),
    })
}

/// The text as sshd has it after loading: no blanks in front of a line, and of a line with a NUL, not even its end.
fn as_sshd_loads(text: &[u8]) -> String {
    let mut loaded = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r')).unwrap_or(line.len());
        let line = line.get(start..).unwrap_or_default();
        loaded.extend(line.iter().take_while(|byte| **byte != 0));
    }
    String::from_utf8_lossy(&loaded).into_owned()
}
