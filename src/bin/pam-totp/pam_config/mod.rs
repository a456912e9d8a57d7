//! The stack of a PAM service, read as libpam reads it (pam.conf(5)), with the place of every rule.
//!
//! The details are those of Linux-PAM 1.5.2 as Debian has it, which tests/stack_paths.rs holds this against. Where others
//! differ it is said at the spot.

pub(crate) mod control;
pub(crate) mod lines;

use crate::root::{Root, Unreadable};
use control::Control;
use lines::{Line, Lines, Words};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The file of our module.
pub(crate) const OURS: &str = "pam_totp.so";
/// Where an administrator's files are.
pub(crate) const PAM_D: &str = "/etc/pam.d";
/// Where a distribution's are that an administrator has not touched.
const VENDOR: &str = "/usr/lib/pam.d";
/// What counts where there is neither directory.
const PAM_CONF: &str = "/etc/pam.conf";
/// The service whose stacks stand in for those that another one lacks.
const OTHER: &str = "other";

/// PAM_SUBSTACK_MAX_LEVEL: as many stacks within each other. Later than 1.5.2, includes count too.
const LEVELS: usize = 16;
/// As many files within each other; 1.5.2 goes on for as long as it has descriptors.
const FILES: usize = 256;
/// As many lines, those of an included file each time: more is a loop that branches, which no login lives to see the end of.
const LINES: usize = 200_000;

/// The first word of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Auth,
    Account,
    Password,
    Session,
}

impl Type {
    fn parse(word: &[u8]) -> Option<Self> {
        match word.to_ascii_lowercase().as_slice() {
            b"auth" => Some(Self::Auth),
            b"account" => Some(Self::Account),
            b"password" => Some(Self::Password),
            b"session" => Some(Self::Session),
            _ => None,
        }
    }
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) file: Rc<Path>,
    /// From 1; 0 is the file as a whole.
    pub(crate) line: u32,
}

impl fmt::Display for Place {
    /// `/etc/pam.d/sshd:12`, with what could upset a terminal escaped.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.file.as_os_str().as_bytes().escape_ascii())?;
        if self.line > 0 { write!(out, ":{}", self.line) } else { Ok(()) }
    }
}

/// What is wrong with a line or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The first word is no type. The rule counts as one for `auth` (or what was included) that always fails.
    Type(Vec<u8>),
    /// No control. The rule always fails.
    NoControl,
    /// The control cannot be read. Every answer of the module is bad, success too.
    Control(Vec<u8>),
    /// No module, or no name of a file to include. The rule always fails; without a name behind `@include` libpam crashes.
    NoName,
    /// The included file cannot be read. A rule that always fails stands in for it. With `@include` in the service's own file,
    /// or in what that has with `@include`, nobody gets in; in what is included otherwise it is a rule by [`Call::Chance`].
    /// At line 0: the service's own file cannot be read.
    Include(PathBuf, Unreadable),
    /// The included file is only in /usr/lib/pam.d, where Debian's libpam looks for no included files. Read, as others do.
    Vendor(PathBuf),
    /// The file includes itself. libpam 1.5.2 crashes but for substacks; later ones have a rule that always fails in the end.
    Loop(PathBuf),
    /// Too many files or substacks within each other. A rule that always fails stands in.
    Depth,
    /// The name of the module is none (`/`, `.so`): nobody gets in.
    Module(Vec<u8>),
    /// The line goes on at the end of the file: nobody gets in, or, in an included file, a rule always fails.
    Cut,
    /// The line has more than 1023 bytes. libpam 1.5.2 takes what is behind for a line of its own, of a comment too.
    TooLong,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// The module.
    Module,
    /// Nobody: libpam takes [`control::Answer::PERM_DENIED`] for the answer.
    Nobody,
    /// The same; but the control is what Debian's libpam 1.5.2 finds in its memory, as a rule that of a line before. It may
    /// fail, and it may be as if it were not there.
    Chance,
}

/// What to do with the answer of which module.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) place: Place,
    /// `-auth`: nobody is told in the log where the module is missing. It fails all the same.
    pub(crate) is_quiet: bool,
    pub(crate) control: Control,
    /// The control as it is written, without brackets.
    pub(crate) written: Vec<u8>,
    /// The module as it is written; empty where there is none.
    pub(crate) module: Vec<u8>,
    pub(crate) arguments: Vec<Vec<u8>>,
    pub(crate) call: Call,
}

impl Rule {
    /// What stands in for a file that cannot be included.
    fn failing(place: Place, written: Vec<u8>, call: Call) -> Self {
        Self { place, is_quiet: false, control: Control::BAD, written, module: Vec::new(), arguments: Vec::new(), call }
    }

    /// `pam_unix.so` of `/lib/security/pam_unix.so`.
    pub(crate) fn module_name(&self) -> &[u8] {
        self.module.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Is our module called?
    pub(crate) fn is_ours(&self) -> bool {
        self.call == Call::Module && self.module_name() == OURS.as_bytes()
    }
}

/// A rule, or rules that come to a result of their own.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Rule(Box<Rule>),
    /// `substack`. Its end is where `done` and `die` in it lead, and where its jumps must stop; its result is what counts
    /// from there on. `include` and `@include` leave nothing of themselves.
    Substack(Vec<Item>),
}

/// What libpam makes of the files as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    Read,
    /// libpam starts no login.
    Refused,
    /// A loop that branches: libpam does not come to an end, and nor do we.
    Endless,
}

/// The rules for one type at one service.
#[derive(Debug)]
pub(crate) struct Stack {
    /// The name in lower case, as libpam looks for it.
    pub(crate) service: String,
    pub(crate) items: Vec<Item>,
    /// These are the rules of the service `other`, as this one has none for the type.
    pub(crate) is_other: bool,
    pub(crate) whole: Whole,
    /// In the order of their places, one a place: all that was found, in `other` too.
    pub(crate) troubles: BTreeMap<Place, Trouble>,
}

impl Stack {
    /// Reads what a service has for a type.
    pub(crate) fn read(root: &Root, service: &str, kind: Type) -> Self {
        let service = service.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let mut reader = Reader {
            root,
            kind,
            files: HashMap::new(),
            open: Vec::new(),
            lines: 0,
            whole: Whole::Read,
            troubles: BTreeMap::new(),
        };
        let (own, other) = reader.service(&service);
        let Reader { whole, troubles, .. } = reader;
        let is_other = own.is_empty() && service != OTHER;
        Self { service, items: if own.is_empty() { other } else { own }, is_other, whole, troubles }
    }

    /// All rules, those of substacks too, in their order.
    pub(crate) fn rules(&self) -> Vec<&Rule> {
        fn collect<'a>(items: &'a [Item], rules: &mut Vec<&'a Rule>) {
            for item in items {
                match item {
                    Item::Rule(rule) => rules.push(rule),
                    Item::Substack(items) => collect(items, rules),
                }
            }
        }
        let mut rules = Vec::new();
        collect(&self.items, &mut rules);
        rules
    }
}

/// The services that have a file where libpam looks, in the order of their names. It asks for none in capitals.
pub(crate) fn services(root: &Root) -> Vec<String> {
    let names = [PAM_D, VENDOR].into_iter().flat_map(|directory| root.list(Path::new(directory)).unwrap_or_default());
    let names = names.filter_map(|name| name.into_string().ok()).filter(|name| *name == name.to_ascii_lowercase());
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Does libpam read a text as one line of these words?
#[allow(dead_code, reason = "not for every program that has this")]
pub(crate) fn is_read_as(text: &[u8], words: &[Vec<u8>]) -> bool {
    let Lines { lines, too_long, cut } = Lines::of(text);
    let [line] = lines.as_slice() else { return false };
    too_long.is_empty() && cut.is_none() && Words(&line.text).eq(words.iter().cloned())
}

/// libpam gives this file up, and what included it decides what that means.
struct GivenUp;

/// Whose rules a file's are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The service's, or those of `other`; and the one type that an `include` is for.
    Known { is_other: bool, only: Option<Type> },
    /// Each line of /etc/pam.conf says.
    Named,
}

/// The rules found so far: the service's own, and those of `other`.
type Found = (Vec<Item>, Vec<Item>);

struct Reader<'a> {
    root: &'a Root,
    kind: Type,
    files: HashMap<PathBuf, Rc<Result<Lines, Unreadable>>>,
    /// The files that are being read, one including the next.
    open: Vec<Rc<Path>>,
    lines: usize,
    whole: Whole,
    troubles: BTreeMap<Place, Trouble>,
}

impl Reader<'_> {
    /// pam_start(3).
    fn service(&mut self, service: &str) -> Found {
        let mut found = Found::default();
        if ![PAM_D, VENDOR].iter().any(|directory| self.root.is_directory(Path::new(directory))) {
            let read = self.file(Path::new(PAM_CONF), Owner::Named, service, 0, &mut found);
            self.judge(read.is_some_and(|read| read.is_ok()));
            return found;
        }
        let mut is_any = false;
        for (name, is_other) in [(service, service == OTHER), (OTHER, true)] {
            let owner = Owner::Known { is_other, only: None };
            let directories = [PAM_D, VENDOR].iter().map(|directory| Path::new(directory).join(name));
            for path in directories {
                if let Some(read) = self.file(&path, owner, service, 0, &mut found) {
                    self.judge(read.is_ok());
                    is_any = true;
                    break;
                }
            }
        }
        self.judge(is_any);
        found
    }

    fn judge(&mut self, is_right: bool) {
        if !is_right && self.whole == Whole::Read {
            self.whole = Whole::Refused;
        }
    }

    /// `None`: libpam cannot open it.
    fn file(
        &mut self,
        path: &Path,
        owner: Owner,
        service: &str,
        level: usize,
        found: &mut Found,
    ) -> Option<Result<(), GivenUp>> {
        let content = self.content(path);
        let file: Rc<Path> = path.into();
        let lines = match content.as_ref() {
            Ok(lines) => lines,
            // libpam opens it, and is at its end at once.
            Err(Unreadable::Directory) => return Some(Ok(())),
            Err(Unreadable::Missing) => return None,
            Err(error) => {
                self.trouble(&Place { file, line: 0 }, Trouble::Include(path.to_owned(), error.clone()));
                // libpam would wait for a FIFO's writer, and reads more than we do.
                return if matches!(error, Unreadable::Failed(_)) { None } else { Some(Err(GivenUp)) };
            }
        };
        for &line in &lines.too_long {
            self.trouble(&Place { file: file.clone(), line }, Trouble::TooLong);
        }
        self.open.push(file.clone());
        let read = lines.lines.iter().try_for_each(|line| self.line(&file, line, owner, service, level, found));
        self.open.pop();
        if read.is_ok()
            && let Some(line) = lines.cut
        {
            self.trouble(&Place { file, line }, Trouble::Cut);
            return Some(Err(GivenUp));
        }
        Some(read)
    }

    fn content(&mut self, path: &Path) -> Rc<Result<Lines, Unreadable>> {
        let root = self.root;
        let read = || Rc::new(root.read(path).map(|text| Lines::of(&text)));
        self.files.entry(path.to_owned()).or_insert_with(read).clone()
    }

    fn trouble(&mut self, place: &Place, trouble: Trouble) {
        self.troubles.entry(place.clone()).or_insert(trouble);
    }

    fn line(
        &mut self,
        file: &Rc<Path>,
        line: &Line,
        owner: Owner,
        service: &str,
        level: usize,
        found: &mut Found,
    ) -> Result<(), GivenUp> {
        let place = Place { file: file.clone(), line: line.number };
        self.lines = self.lines.saturating_add(1);
        if self.lines > LINES {
            self.whole = Whole::Endless;
        }
        if self.whole == Whole::Endless {
            return Err(GivenUp);
        }
        let mut words = Words(&line.text);
        let (is_other, only) = match owner {
            Owner::Known { is_other, only } => (is_other, only),
            Owner::Named => match words.next().unwrap_or_default().to_ascii_lowercase() {
                name if name == OTHER.as_bytes() => (true, None),
                name if name == service.as_bytes() => (false, None),
                _ => return Ok(()),
            },
        };
        let first = words.next().unwrap_or_default();
        let (is_quiet, word) = match first.strip_prefix(b"-") {
            Some(word) => (true, word),
            None => (false, first.as_slice()),
        };
        if word.eq_ignore_ascii_case(b"@include") {
            let Some(name) = words.next() else {
                self.trouble(&place, Trouble::NoName);
                self.judge(false);
                return Err(GivenUp);
            };
            let owner = Owner::Known { is_other, only };
            let read = self.include(&place, &name, owner, service, level, found);
            if read.is_err() && only == Some(self.kind) && self.whole == Whole::Read {
                list(found, is_other).push(Item::Rule(Box::new(Rule::failing(place, first, Call::Chance))));
                return Ok(());
            }
            return read;
        }
        let known = Type::parse(word);
        let is_unknown = known.is_none();
        if is_unknown {
            self.trouble(&place, Trouble::Type(first.clone()));
        }
        let kind = known.or(only).unwrap_or(Type::Auth);
        if only.is_some_and(|only| only != kind) {
            return Ok(());
        }
        let written = words.next();
        let name = words.next();
        let included = written.as_ref().and_then(|control| match control.to_ascii_lowercase().as_slice() {
            b"include" => Some(false),
            b"substack" => Some(true),
            _ => None,
        });
        // Whatever the type: nobody gets in with a name that is none. (1.5.2 may also crash.)
        if included != Some(false)
            && let Some(name) = &name
            && !is_name(name)
        {
            self.trouble(&place, Trouble::Module(name.clone()));
            self.judge(false);
            return Err(GivenUp);
        }
        if kind != self.kind {
            return Ok(());
        }
        if let Some(is_substack) = included {
            let owner = Owner::Known { is_other, only: Some(kind) };
            let read = self.included(&place, name.as_deref(), owner, service, level, is_substack, found);
            if read.is_err() {
                let rule = Rule::failing(place, written.unwrap_or_default(), Call::Nobody);
                list(found, is_other).push(Item::Rule(Box::new(rule)));
            }
            return Ok(());
        }
        let control = written.as_ref().map_or(Ok(Control::BAD), |word| Control::parse(word));
        let trouble = match (&written, &control, &name) {
            (None, ..) => Some(Trouble::NoControl),
            (Some(word), Err(_), _) => Some(Trouble::Control(word.clone())),
            (.., None) => Some(Trouble::NoName),
            _ => None,
        };
        if let Some(trouble) = trouble {
            self.trouble(&place, trouble);
        }
        let rule = Rule {
            place,
            is_quiet,
            control: control.unwrap_or(Control::BAD),
            written: written.unwrap_or_default(),
            call: if is_unknown || name.is_none() { Call::Nobody } else { Call::Module },
            module: name.unwrap_or_default(),
            arguments: words.collect(),
        };
        list(found, is_other).push(Item::Rule(Box::new(rule)));
        Ok(())
    }

    /// `include` or `substack`; what is read before it fails stays.
    #[allow(clippy::too_many_arguments, reason = "what a line is read with")]
    fn included(
        &mut self,
        place: &Place,
        name: Option<&[u8]>,
        owner: Owner,
        service: &str,
        level: usize,
        is_substack: bool,
        found: &mut Found,
    ) -> Result<(), GivenUp> {
        let mut inside = Found::default();
        let level = if is_substack { level.saturating_add(1) } else { level };
        let read = match name {
            None => {
                self.trouble(place, Trouble::NoName);
                Err(GivenUp)
            }
            Some(name) if is_substack => self.include(place, name, owner, service, level, &mut inside),
            Some(name) => self.include(place, name, owner, service, level, found),
        };
        if is_substack {
            let is_other = owner == Owner::Known { is_other: true, only: Some(self.kind) };
            list(found, is_other).push(Item::Substack(std::mem::take(list(&mut inside, is_other))));
        }
        read
    }

    fn include(
        &mut self,
        place: &Place,
        name: &[u8],
        owner: Owner,
        service: &str,
        level: usize,
        found: &mut Found,
    ) -> Result<(), GivenUp> {
        let name = PathBuf::from(std::ffi::OsString::from_vec(name.to_vec()));
        let path = Path::new(PAM_D).join(&name);
        let is_loop = self.open.iter().any(|file| **file == *path);
        if level >= LEVELS || self.open.len() >= FILES || (is_loop && self.open.len() >= LEVELS) {
            self.trouble(place, if is_loop { Trouble::Loop(path) } else { Trouble::Depth });
            return Err(GivenUp);
        }
        if let Some(read) = self.file(&path, owner, service, level, found) {
            return read;
        }
        let vendors = Path::new(VENDOR).join(&name);
        let is_absolute = name.is_absolute();
        if !is_absolute && let Some(read) = self.file(&vendors, owner, service, level, found) {
            self.trouble(place, Trouble::Vendor(vendors));
            return read;
        }
        let error = self.content(&path).as_ref().as_ref().err().cloned().unwrap_or(Unreadable::Missing);
        self.trouble(place, Trouble::Include(path, error));
        Err(GivenUp)
    }
}

fn list(found: &mut Found, is_other: bool) -> &mut Vec<Item> {
    if is_other { &mut found.1 } else { &mut found.0 }
}

/// libpam wants a name for its records: what is behind the last `/`, without its ending.
fn is_name(module: &[u8]) -> bool {
    let file = module.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let name = file.iter().rposition(|&byte| byte == b'.').map_or(file, |dot| file.get(..dot).unwrap_or_default());
    !name.is_empty() && name != b"?"
}

#[cfg(test)]
mod tests;
