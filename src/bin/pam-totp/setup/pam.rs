//! What a file in /etc/pam.d says once a code is asked for, or is asked for no more. Of the lines for `auth` all must be known:
//! what setup does not understand it does not touch.

use super::Service;
use super::files::shown;
use crate::pam_config::OURS;
use anyhow::{Result, anyhow, bail};
use std::ops::Range;
use std::path::{Path, PathBuf};

const BEGIN: &str = "# pam-totp setup: begin.";
const END: &str = "# pam-totp setup: end";
/// In front of the line that is back when the block is taken out.
const WAS: &str = "# was: ";
const CODE: &str = "auth       required     pam_totp.so";
const YES: &str = "auth       required     pam_permit.so";
const SESSION: &str = "session    optional     pam_totp.so";
/// libpam 1.5.2 reads lines up to 1023 bytes; with what stands in front of it in our block.
const LONGEST: usize = 1000;

/// Those of distributions that ask for the password.
const PASSWORD_STACKS: [&str; 3] = ["common-auth", "password-auth", "system-auth"];
/// What `@include` may name beside: Debian's for other types.
const OTHER_STACKS: [&str; 4] =
    ["common-account", "common-session", "common-session-noninteractive", "common-password"];

/// The file of a service.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(crate::pam_config::PAM_D).join(name)
}

/// The marked lines for one place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block<'a> {
    /// The code alone, in the place of this line.
    Instead(&'a str),
    /// The code before the password.
    Before,
    /// What tells somebody who is in of codes that failed.
    Session,
}

impl Block<'_> {
    fn lines(self, service: Service) -> Vec<String> {
        let name = service.name();
        let begin = format!("{BEGIN} `pam-totp setup {name} --remove` takes this block out again.");
        let inside = match self {
            Self::Instead(was) => vec![format!("{WAS}{was}"), CODE.to_owned(), YES.to_owned()],
            Self::Before => vec![CODE.to_owned()],
            Self::Session => vec![SESSION.to_owned()],
        };
        [vec![begin], inside, vec![END.to_owned()]].concat()
    }
}

/// A file, line by line.
struct File<'a> {
    path: &'a Path,
    service: Service,
    lines: Vec<&'a str>,
    blocks: Vec<Range<usize>>,
}

/// What the file says once the code is asked for. `None`: it needs no line of its own, as it includes the service's.
pub(super) fn with_code(service: Service, path: &Path, text: &str) -> Result<Option<String>> {
    let file = File::read(service, path, text)?;
    let outside = file.without_blocks()?;
    // As if it were seen for the first time: so an old block is made new.
    let file = File { lines: outside.iter().map(String::as_str).collect(), blocks: Vec::new(), ..file };
    let Some(place) = file.password(text)? else { return Ok(None) };
    let mut lines = Vec::new();
    for (index, line) in file.lines.iter().enumerate() {
        match service {
            _ if index != place => lines.push((*line).to_owned()),
            Service::Sshd => lines.extend(Block::Instead(line).lines(service)),
            Service::Sudo | Service::Su => {
                lines.extend(Block::Before.lines(service));
                lines.push((*line).to_owned());
            }
        }
    }
    if service == Service::Sshd {
        lines.extend(Block::Session.lines(service));
    }
    Ok(Some(joined(&lines)))
}

/// What it says without our blocks.
pub(super) fn without_code(service: Service, path: &Path, text: &str) -> Result<String> {
    let file = File::read(service, path, text)?;
    if file.blocks.is_empty() { Ok(text.to_owned()) } else { Ok(joined(&file.without_blocks()?)) }
}

fn joined(lines: &[impl AsRef<str>]) -> String {
    lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect()
}

impl<'a> File<'a> {
    fn read(service: Service, path: &'a Path, text: &'a str) -> Result<Self> {
        let mut lines: Vec<&str> = text.split('\n').collect();
        // What is behind the last line's end is no line.
        if lines.last() == Some(&"") {
            lines.pop();
        }
        let mut file = Self { path, service, lines, blocks: Vec::new() };
        file.blocks = file.find_blocks()?;
        Ok(file)
    }

    fn find_blocks(&self) -> Result<Vec<Range<usize>>> {
        let mut blocks = Vec::new();
        let mut begin = None;
        for (index, line) in self.lines.iter().enumerate() {
            match (line.starts_with(BEGIN), line.starts_with(END), begin) {
                (true, _, None) => begin = Some(index),
                (_, true, Some(start)) => {
                    blocks.push(start..index.saturating_add(1));
                    begin = None;
                }
                (true, ..) | (_, true, _) => return Err(self.edited(index)),
                _ => {}
            }
        }
        begin.map_or(Ok(blocks), |start| Err(self.edited(start)))
    }

    /// The lines, with those in the place of our blocks that were there before.
    fn without_blocks(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut rest = 0;
        for block in &self.blocks {
            lines.extend(self.lines.get(rest..block.start).unwrap_or_default().iter().map(|&line| line.to_owned()));
            lines.extend(self.was(block)?.map(str::to_owned));
            rest = block.end;
        }
        lines.extend(self.lines.get(rest..).unwrap_or_default().iter().map(|&line| line.to_owned()));
        Ok(lines)
    }

    /// The line that a block stands for. A block with anything in it that is not ours is not touched.
    fn was(&self, block: &Range<usize>) -> Result<Option<&'a str>> {
        let lines = self.lines.get(block.clone()).unwrap_or_default();
        let was = lines.get(1).and_then(|line| line.strip_prefix(WAS));
        let known = was.map(Block::Instead).into_iter().chain([Block::Before, Block::Session]);
        for block in known {
            let expected = block.lines(self.service);
            if expected.iter().map(String::as_str).eq(lines.iter().copied()) {
                return Ok(if let Block::Instead(was) = block { Some(was) } else { None });
            }
        }
        let at = block.clone().zip(lines).find(|(_, line)| {
            let is_frame = line.starts_with(BEGIN) || line.starts_with(END) || line.starts_with(WAS);
            !is_frame && ![CODE, YES, SESSION].contains(line)
        });
        Err(self.edited(at.map_or(block.start, |(index, _)| index)))
    }

    /// Where the password is asked for. `None`: this is done in the file of the service, which is included here.
    fn password(&self, text: &str) -> Result<Option<usize>> {
        if text.contains('\r') {
            let at = self.lines.iter().position(|line| line.contains('\r')).unwrap_or(0);
            return Err(self.odd(at, "has a carriage return, which libpam takes for part of a word"));
        }
        let mut places = Vec::new();
        let mut includes_service = None;
        for (index, line) in self.lines.iter().enumerate() {
            self.ensure_plain(index, line)?;
            match self.role(index, line)? {
                Role::Nothing => {}
                Role::Password => places.push(index),
                Role::Service => includes_service = Some(index),
            }
        }
        match (places.as_slice(), includes_service) {
            ([place], None) => Ok(Some(*place)),
            ([], Some(_)) => Ok(None),
            ([_, second, ..], _) => Err(self.odd(*second, "asks for the password a second time")),
            ([place], Some(_)) => Err(self.odd(*place, "asks for the password beside the service that is included")),
            ([], None) => {
                let stacks = PASSWORD_STACKS.join(", ");
                Err(self.by_hand(format!("{}: includes none of {stacks} for auth: not touched.", shown(self.path))))
            }
        }
    }

    /// What is not one line to libpam, or not what it looks like.
    fn ensure_plain(&self, index: usize, line: &str) -> Result<()> {
        if line.len() > LONGEST {
            return Err(self.odd(index, "is longer than setup can be sure that libpam reads it"));
        }
        if line.chars().any(|char| char.is_control() && char != '\t') {
            return Err(self.odd(index, "has a control character"));
        }
        if line.trim_end().ends_with('\\') {
            return Err(self.odd(index, "goes on in the next line"));
        }
        Ok(())
    }

    fn role(&self, index: usize, line: &str) -> Result<Role> {
        let content = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = content.split_ascii_whitespace().collect();
        let Some((kind, rest)) = words.split_first() else { return Ok(Role::Nothing) };
        let file = |word: &&str| word.rsplit('/').next().map(str::to_owned);
        for module in rest.iter().filter_map(file) {
            if module == OURS || module == "pam_google_authenticator.so" {
                return Err(self.odd(index, "asks for a code already, and was not written by setup"));
            }
        }
        let service = self.service.name();
        let is_service = |name: &str| name == service && self.path != path(service);
        match (*kind, rest) {
            ("@include", [name]) if PASSWORD_STACKS.contains(name) => Ok(Role::Password),
            ("@include", [name]) if OTHER_STACKS.contains(name) => Ok(Role::Nothing),
            ("@include", [name]) if is_service(name) => Ok(Role::Service),
            ("auth", ["substack" | "include", name]) if PASSWORD_STACKS.contains(name) => Ok(Role::Password),
            ("auth", ["include", name]) if is_service(name) => Ok(Role::Service),
            ("auth", ["include", "postlogin"])
            | ("auth", ["required", "pam_sepermit.so" | "pam_env.so", ..])
            // Of polkit: it changes nothing about who gets in.
            | ("-auth", ["optional", "pam_reauthorize.so", "prepare"]) => Ok(Role::Nothing),
            ("auth", ["sufficient", "pam_rootok.so"]) if self.service == Service::Su => Ok(Role::Nothing),
            ("account" | "password" | "session" | "-account" | "-password" | "-session", [_, _, ..]) => Ok(Role::Nothing),
            _ => Err(self.odd(index, "is not understood")),
        }
    }

    fn odd(&self, index: usize, what: &str) -> anyhow::Error {
        let line: String = self.lines.get(index).unwrap_or(&"").chars().take(100).collect();
        let place = self.place(index);
        self.by_hand(format!("{place}: `{}` {what}: the file is not touched.", line.trim().escape_debug()))
    }

    /// An error, and what to write instead of us.
    fn by_hand(&self, what: String) -> anyhow::Error {
        let lines = match self.service {
            Service::Sshd => format!("in the place of the line that asks for the password:\n    {CODE}\n    {YES}"),
            Service::Sudo => format!("before the line that asks for the password:\n    {CODE}"),
            Service::Su => format!("behind pam_rootok.so, before the line that asks for the password:\n    {CODE}"),
        };
        anyhow!("{what}\nTo do it by hand, write {lines}")
    }

    fn edited(&self, index: usize) -> anyhow::Error {
        anyhow!(
            "{}: what setup wrote between `{BEGIN}` and `{END}` was changed by hand: the file is not touched. Put it back, or \
             take the lines out by hand",
            self.place(index)
        )
    }

    fn place(&self, index: usize) -> String {
        format!("{}:{}", shown(self.path), index.saturating_add(1))
    }
}

/// What a line is to us.
enum Role {
    Nothing,
    /// It asks for the password.
    Password,
    /// It includes the file of the service itself.
    Service,
}

/// Where the module is called already, of all services but these.
pub(super) fn ensure_no_other_caller(root: &crate::root::Root, service: Service) -> Result<()> {
    use crate::pam_config::{Stack, Type, services};
    for name in services(root).iter().filter(|name| !service.relatives().contains(&name.as_str())) {
        let stack = Stack::read(root, name, Type::Auth);
        if let Some(rule) = stack.rules().into_iter().find(|rule| rule.is_ours()) {
            bail!(
                "{}: asks for codes out of home directories, as there is no policy. One with store = \"system\" would deny them. \
                 Give --store home, or write {}",
                rule.place,
                pam_totp::policy::PATH
            );
        }
    }
    Ok(())
}
