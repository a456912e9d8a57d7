//! The files that the lines of ours name: the module, and the policy (what is in that, `case` judges).

use super::case::Case;
use super::report::{Finding, Report, Weight};
use crate::pam_config::{OURS, Rule};
use crate::root::{Root, Unreadable};
use pam_totp::options::Options;
use pam_totp::policy::{Document, PATH};
use pam_totp::system::{Errno, passwd};
use rustix::fs::FileType;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where libpam may look for what is named without a path: that depends on how it was built. See [`directories`].
const DIRECTORIES: [&str; 4] = ["/usr/lib64/security", "/lib64/security", "/usr/lib/security", "/lib/security"];
/// Below these each architecture of Debian has a directory.
const ARCHITECTURES: [&str; 2] = ["/usr/lib", "/lib"];
/// Beside this, ours is found: no libpam comes without.
const BESIDE: &str = "pam_unix.so";
/// A program that each root has, for its architecture: where there are modules for two, one of them is the usual.
const PROGRAM: &str = "/bin/sh";
/// More of a file than this is not read: the module has a mebibyte.
const MAX_MODULE: u64 = 1 << 24;

pub(super) fn examine(case: &Case<'_>, report: &mut Report) {
    let directories = directories(case.root);
    for (module, lines) in &modules(case) {
        judge_module(case.root, &directories, module, lines, report);
    }
    judge_copies(case.root, report);
    for (path, place) in policies(case) {
        judge_policy(case, &path, place, report);
    }
}

/// The lines that name a file.
struct Lines {
    services: BTreeSet<String>,
    /// The first of them.
    place: String,
}

impl Lines {
    /// The service, if there is but one.
    fn service(&self) -> Option<String> {
        self.services.first().filter(|_| self.services.len() == 1).cloned()
    }
}

/// What the lines of ours call, as they spell it.
fn modules(case: &Case<'_>) -> BTreeMap<Vec<u8>, Lines> {
    let mut modules = BTreeMap::new();
    for (service, rule) in ours(case) {
        let lines = modules
            .entry(rule.module.clone())
            .or_insert_with(|| Lines { services: BTreeSet::new(), place: rule.place.to_string() });
        lines.services.insert(service.to_owned());
    }
    modules
}

fn ours<'a>(case: &'a Case<'_>) -> impl Iterator<Item = (&'a str, &'a Rule)> {
    case.services.iter().flat_map(|service| service.ours().into_iter().map(|rule| (service.name.as_str(), rule)))
}

// ---- Where the module is ----

/// The directories that libpam looks into, as far as that can be told from what is there: those with its own modules of the
/// usual architecture; if there are none, those with any.
fn directories(root: &Root) -> Vec<PathBuf> {
    let all = all_directories(root);
    let beside = |directory: &PathBuf| Build::of(root, &directory.join(BESIDE)).ok().flatten();
    let usual = Build::of(root, Path::new(PROGRAM)).ok().flatten();
    let with = |is_meant: &dyn Fn(Build) -> bool| {
        all.iter().filter(|directory| beside(directory).is_some_and(is_meant)).cloned().collect::<Vec<_>>()
    };
    let choices = [with(&|build| Some(build) == usual), with(&|_| true)];
    choices.into_iter().find(|choice| !choice.is_empty()).unwrap_or(all)
}

/// All directories of modules, each once by whatever names.
fn all_directories(root: &Root) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for parent in ARCHITECTURES.map(Path::new) {
        let below = root.list(parent).unwrap_or_default();
        names.extend(below.into_iter().map(|name| parent.join(name).join("security")));
    }
    names.extend(DIRECTORIES.map(PathBuf::from));
    let mut seen = BTreeSet::new();
    names.retain(|name| {
        let stat = root.stat(name).ok().filter(|_| root.is_directory(name));
        stat.is_some_and(|stat| seen.insert((stat.st_dev, stat.st_ino)))
    });
    names
}

/// Where a module may be that a line names.
fn candidates(directories: &[PathBuf], module: &[u8]) -> Vec<PathBuf> {
    let module = Path::new(OsStr::from_bytes(module));
    if module.is_absolute() {
        return vec![module.to_owned()];
    }
    directories.iter().map(|directory| directory.join(module)).collect()
}

// ---- What is wrong with it ----

fn judge_module(root: &Root, directories: &[PathBuf], module: &[u8], lines: &Lines, report: &mut Report) {
    if module.windows(4).any(|part| part == b"$ISA") {
        return report.note(format!("{}: what libpam takes for `$ISA` is not known here", lines.place));
    }
    let candidates = candidates(directories, module);
    let Some(path) = candidates.iter().find(|path| is_there(root, path)) else {
        return report.findings.push(missing(root, module, &candidates, lines));
    };
    match Build::of(root, path) {
        Err(Unreadable::Failed(_)) if !is_roots_process() => {
            report.note(format!("{} cannot be read: run this as root", shown(path)));
        }
        Err(error) => report.findings.push(broken(path, &error.to_string(), lines)),
        Ok(None) => report.findings.push(broken(path, "is no shared object", lines)),
        Ok(Some(build)) => {
            let beside = path.with_file_name(BESIDE);
            let others = std::iter::once(beside).chain(directories.iter().map(|directory| directory.join(BESIDE)));
            let expected = others.filter_map(|other| Some((Build::of(root, &other).ok()??, other))).next();
            if let Some((expected, other)) = expected.filter(|(expected, _)| *expected != build) {
                report.findings.push(foreign(path, build, expected, &other, lines));
            }
            report.findings.extend(open_to_others(root, path, lines));
            report.findings.extend(closed_to_others(root, path, lines));
        }
    }
}

fn closed(name: &'static str, path: &Path, lines: &Lines, what: String) -> Finding {
    let services: Vec<_> = lines.services.iter().map(|service| service.escape_debug().to_string()).collect();
    Finding {
        weight: Weight::Closed,
        name,
        service: lines.service(),
        what,
        place: Some(lines.place.clone()),
        why: format!("Nobody gets in where this line counts ({}): libpam fails it.", services.join(", ")),
        way_out: format!("Build and install it for this machine, as {}:", shown(path)),
        lines: vec!["make install".to_owned()],
    }
}

fn missing(root: &Root, module: &[u8], candidates: &[PathBuf], lines: &Lines) -> Finding {
    let elsewhere = copies(root).into_iter().find(|copy| !candidates.contains(copy));
    let looked: Vec<_> = candidates.iter().map(|path| shown(path)).collect();
    let mut what = format!("the module `{}` is not there", module.escape_ascii());
    if looked.first().is_some_and(|path| path.as_bytes() != module) {
        what += &format!(": no {}", looked.join(", no "));
    }
    if let Some(elsewhere) = &elsewhere {
        what += &format!("; libpam does not look at {}", shown(elsewhere));
    }
    let path = candidates.first().map_or(Path::new(OURS), PathBuf::as_path);
    closed("module-missing", path, lines, what)
}

fn broken(path: &Path, what: &str, lines: &Lines) -> Finding {
    closed("module-broken", path, lines, format!("the module {} {what}", shown(path)))
}

fn foreign(path: &Path, build: Build, expected: Build, other: &Path, lines: &Lines) -> Finding {
    let what = format!("the module {} is for {build}, {} for {expected}", shown(path), shown(other));
    closed("module-architecture", path, lines, what)
}

/// Whoever can write to the module, or put another in its place, decides who gets in, and is root at the next login.
fn open_to_others(root: &Root, path: &Path, lines: &Lines) -> Option<Finding> {
    let (place, flaw) = flaw(root, path, true)?;
    Some(Finding {
        weight: Weight::Open,
        name: "module-writable",
        service: lines.service(),
        what: format!("others than root can replace the module {}: {} {flaw}", shown(path), shown(&place)),
        place: Some(lines.place.clone()),
        why: "Whoever does it gets in without a code, and is root at the next login.".to_owned(),
        way_out: "Find out whether somebody did; then make it root's alone:".to_owned(),
        lines: flaw.commands(&place),
    })
}

/// sshd runs as root; lockers of screens do not.
fn closed_to_others(root: &Root, path: &Path, lines: &Lines) -> Option<Finding> {
    let mode = root.stat(path).ok()?.st_mode & 0o7777;
    (mode & 0o004 == 0).then(|| Finding {
        weight: Weight::Weak,
        name: "module-unreadable",
        service: lines.service(),
        what: format!("the module {} can be read by root alone (mode {mode:04o})", shown(path)),
        place: Some(lines.place.clone()),
        why: "Programs that do not run as root, such as lockers of screens, cannot load it: nobody gets past them."
            .to_owned(),
        way_out: "There is no secret in it:".to_owned(),
        lines: vec![format!("chmod 0644 {}", quoted(path))],
    })
}

// ---- Copies ----

/// All files of our name, in the directories of modules.
fn copies(root: &Root) -> Vec<PathBuf> {
    let names = all_directories(root).into_iter().map(|directory| directory.join(OURS));
    names.filter(|name| root.stat(name).is_ok()).collect()
}

/// Two that differ, for the same machine: which of them is called depends on who calls.
fn judge_copies(root: &Root, report: &mut Report) {
    let content = |path: &Path| {
        let mut content = Vec::new();
        root.file(path).ok()?.take(MAX_MODULE).read_to_end(&mut content).ok()?;
        Some(content)
    };
    let found = copies(root);
    let builds: Vec<_> =
        found.iter().filter_map(|path| Some((path, Build::of(root, path).ok()??, content(path)?))).collect();
    let others = |at: usize| builds.iter().skip(at.saturating_add(1));
    let differ = builds.iter().enumerate().find_map(|(at, (one, build, text))| {
        let other = others(at).find(|(_, other, content)| other == build && content != text);
        other.map(|(other, ..)| (one, other))
    });
    let Some((one, other)) = differ else { return };
    report.findings.push(Finding {
        weight: Weight::Weak,
        name: "module-copies",
        service: None,
        what: format!("there are two modules that differ, {} and {}", shown(one), shown(other)),
        place: Some(shown(other)),
        why: "An update of the one leaves the other as it is, and which of them is called is not for you to see."
            .to_owned(),
        way_out: format!("Remove the one that is not beside {BESIDE}."),
        lines: Vec::new(),
    });
}

// ---- The policy ----

/// The policy files in use, with the first line that names each; none for the one that needs no name.
fn policies(case: &Case<'_>) -> BTreeMap<PathBuf, Option<String>> {
    let mut policies = BTreeMap::from([(case.policy_path.clone(), None)]);
    for (_, rule) in ours(case) {
        let arguments: Vec<&[u8]> = rule.arguments.iter().map(Vec::as_slice).collect();
        let conf = Options::parse(arguments).ok().and_then(|options| options.conf);
        if let Some(conf) = conf {
            let path = PathBuf::from(OsStr::from_bytes(&conf));
            policies.entry(path).or_insert_with(|| Some(rule.place.to_string()));
        }
    }
    policies
}

fn judge_policy(case: &Case<'_>, path: &Path, place: Option<String>, report: &mut Report) {
    let finding = |what: String, way_out: &str, lines: Vec<String>| Finding {
        weight: Weight::Closed,
        name: "policy-file",
        service: None,
        what,
        place: Some(place.clone().unwrap_or_else(|| shown(path))),
        why: "Nobody gets in where a code is asked for: a login takes no policy that is not root's word.".to_owned(),
        way_out: way_out.to_owned(),
        lines,
    };
    let is_there = is_there(case.root, path);
    if is_there && let Some((at, flaw)) = flaw(case.root, path, false) {
        let what = format!("the policy {} is not root's alone: {} {flaw}", shown(path), shown(&at));
        return report.findings.push(finding(what, "Look through it; then make it root's alone:", flaw.commands(&at)));
    }
    if !case.root.is_live() {
        if !is_there && place.is_some() {
            let what = format!("the policy {} is not there", shown(path));
            report.findings.push(finding(what, "Put it there, or take `conf=` out of the line.", Vec::new()));
        }
        return;
    }
    let conf = (path != Path::new(PATH)).then(|| path.as_os_str().as_bytes());
    let Err(fact) = Document::read(conf) else { return };
    // What it says was judged.
    let is_known = fact.word() == "bad-policy" || path == case.policy_path && case.document.is_none();
    if is_known {
        return;
    }
    if !is_roots_process() && fact.word() == "file-error" {
        return report.note(format!("{} cannot be read: run this as root", shown(path)));
    }
    let again = vec![format!("pam-totp check --conf {}", quoted(path))];
    report.findings.push(finding(
        format!("a login refuses the policy: {fact}"),
        "Put that right; this shows whether it is:",
        again,
    ));
}

// ---- Files ----

/// Why a file is not root's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Owner(u32),
    Writable(u32),
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Owner(uid) => write!(out, "belongs to uid {uid}"),
            Self::Writable(mode) => write!(out, "has mode {mode:04o}"),
        }
    }
}

impl Flaw {
    pub(super) fn commands(self, path: &Path) -> Vec<String> {
        match self {
            Self::Owner(_) => vec![format!("chown root:root {}", quoted(path))],
            Self::Writable(_) => vec![format!("chmod go-w {}", quoted(path))],
        }
    }
}

/// The file, or the directory above it, that others than root can change. `is_sticky`: where only its owner can replace a
/// file, as in /tmp, what is root's stays root's.
pub(super) fn flaw(root: &Root, path: &Path, is_sticky: bool) -> Option<(PathBuf, Flaw)> {
    // A tree that somebody unpacked who is not root belongs to them: that says nothing about the machine it will be.
    let keeps_owners = root.stat(Path::new("/")).is_ok_and(|stat| stat.st_uid == 0);
    // By each of its names: libpam goes by the links.
    let real = if root.is_live() { fs::canonicalize(path).ok() } else { None };
    let paths = [Some(path), real.as_deref().filter(|real| *real != path)];
    paths.into_iter().flatten().flat_map(Path::ancestors).find_map(|path| {
        let stat = root.stat(path).ok()?;
        let mode = stat.st_mode & 0o7777;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let flaw = match mode {
            _ if keeps_owners && stat.st_uid != 0 => Flaw::Owner(stat.st_uid),
            mode if mode & 0o022 != 0 && !(is_sticky && is_directory && mode & 0o1000 != 0) => Flaw::Writable(mode),
            _ => return None,
        };
        Some((path.to_owned(), flaw))
    })
}

/// Something is, though it may not be a file, or be nothing for us to look at.
fn is_there(root: &Root, path: &Path) -> bool {
    !matches!(root.stat(path), Err(Unreadable::Missing))
}

fn is_roots_process() -> bool {
    passwd::process_uids().1 == 0
}

pub(super) fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

/// For a shell, which reads the escapes of Rust between `$'` and `'`.
pub(super) fn quoted(path: &Path) -> String {
    let shown = shown(path);
    let is_plain = shown.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._,%@+~-".contains(&byte));
    if is_plain { shown } else { format!("$'{shown}'") }
}

/// For which machines a shared object is (elf(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Build {
    /// ELFCLASS32, ELFCLASS64.
    class: u8,
    /// ELFDATA2LSB, ELFDATA2MSB.
    data: u8,
    machine: u16,
}

impl Build {
    /// `Ok(None)`: the file is no shared object.
    fn of(root: &Root, path: &Path) -> Result<Option<Self>, Unreadable> {
        let mut header = Vec::new();
        let read = root.file(path)?.take(20).read_to_end(&mut header);
        read.map_err(|error| Unreadable::Failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        Ok(Self::parse(&header))
    }

    fn parse(header: &[u8]) -> Option<Self> {
        /// ET_DYN: programs are such too.
        const SHARED: u16 = 3;
        let &[0x7F, b'E', b'L', b'F', class, data, .., t0, t1, m0, m1] = header.first_chunk::<20>()? else {
            return None;
        };
        let word = |bytes| if data == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
        (word([t0, t1]) == SHARED).then(|| Self { class, data, machine: word([m0, m1]) })
    }
}

impl std::fmt::Display for Build {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match (self.class, self.data, self.machine) {
            (1, 1, 3) => "i386",
            (1, 1, 40) => "arm",
            (1, 1, 62) => "x32",
            (2, 1, 21) => "ppc64le",
            (2, 1, 62) => "x86-64",
            (2, 1, 183) => "aarch64",
            (2, 1, 243) => "riscv64",
            (2, 2, 22) => "s390x",
            (class, data, machine) => return write!(out, "machine {machine} (class {class}, order {data})"),
        };
        out.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    const X86_64: [u8; 20] = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0";
    const I386: [u8; 20] = *b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x03\0";
    const USUAL: &str = "usr/lib/x86_64-linux-gnu/security/pam_totp.so";

    struct Image(TempDir);

    impl Image {
        /// Debian for x86-64, with the modules of i386 too, and sshd that asks for a code.
        fn new() -> Self {
            let image = Self(tempfile::tempdir().unwrap());
            fs::set_permissions(image.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
            image.put("bin/sh", &X86_64);
            image.put("usr/lib/x86_64-linux-gnu/security/pam_unix.so", &X86_64);
            image.put("usr/lib/i386-linux-gnu/security/pam_unix.so", &I386);
            symlink("usr/lib", image.0.path().join("lib")).unwrap();
            image.put(USUAL, &X86_64);
            image.stack("auth required pam_totp.so\n");
            image
        }

        fn put(&self, path: &str, content: &[u8]) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            self.chmod(&path, 0o644);
        }

        fn chmod(&self, path: impl AsRef<Path>, mode: u32) {
            fs::set_permissions(self.0.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn stack(&self, text: &str) {
            self.put("etc/pam.d/sshd", text.as_bytes());
        }

        fn findings(&self) -> Vec<Finding> {
            let (root, mut report) = (Root::open(self.0.path()).unwrap(), Report::default());
            let case = Case::read(&root, &[], None, None, &mut Report::default());
            examine(&case, &mut report);
            report.findings
        }

        fn names(&self) -> Vec<&'static str> {
            self.findings().iter().map(|finding| finding.name).collect()
        }
    }

    #[test]
    fn a_module_is_looked_for_where_libpam_of_that_root_does() {
        let image = Image::new();
        assert_eq!(image.names(), [""; 0]);
        fs::remove_file(image.0.path().join(USUAL)).unwrap();
        assert_eq!(image.names(), ["module-missing"]);
        // There only programs for i386 look.
        image.put("usr/lib/i386-linux-gnu/security/pam_totp.so", &I386);
        let finding = image.findings().remove(0);
        assert_eq!(
            (finding.name, finding.weight, finding.service.as_deref()),
            ("module-missing", Weight::Closed, Some("sshd"))
        );
        assert!(finding.what.ends_with("libpam does not look at /usr/lib/i386-linux-gnu/security/pam_totp.so"));
        image.stack("auth required /usr/lib/i386-linux-gnu/security/pam_totp.so\n");
        assert_eq!(image.names(), [""; 0], "it is right beside its own");
        image.stack("auth required /lib/security/$ISA/pam_totp.so\n");
        assert_eq!(image.names(), [""; 0], "that is not for us to say");
    }

    #[test]
    fn where_nothing_of_libpam_is_known_any_directory_will_do() {
        let image = Image::new();
        for path in ["bin/sh", "usr/lib/x86_64-linux-gnu/security/pam_unix.so"] {
            fs::remove_file(image.0.path().join(path)).unwrap();
        }
        fs::remove_dir_all(image.0.path().join("usr/lib/i386-linux-gnu")).unwrap();
        assert_eq!(image.names(), [""; 0]);
    }

    #[test]
    fn a_module_for_another_machine_or_none_at_all_is_closed() {
        let image = Image::new();
        image.put(USUAL, &I386);
        let finding = image.findings().remove(0);
        assert_eq!((finding.name, finding.weight), ("module-architecture", Weight::Closed));
        assert!(finding.what.contains(" is for i386, ") && finding.what.ends_with(" for x86-64"), "{}", finding.what);
        let mut program = X86_64;
        program[16] = 2;
        for content in [&program[..], &X86_64[..19], b"", b"#!/bin/sh\n"] {
            image.put(USUAL, content);
            assert_eq!(image.names(), ["module-broken"], "{content:?}");
        }
        fs::remove_file(image.0.path().join(USUAL)).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, image.0.path().join(USUAL), FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        assert_eq!(image.names(), ["module-broken"]);
    }

    #[test]
    fn a_module_that_others_can_change_is_open_and_one_they_cannot_read_weak() {
        let image = Image::new();
        image.chmod(USUAL, 0o664);
        assert_eq!(image.findings()[0].lines, [format!("chmod go-w /{USUAL}")]);
        assert_eq!((image.findings()[0].name, image.findings()[0].weight), ("module-writable", Weight::Open));
        image.chmod(USUAL, 0o600);
        assert_eq!(image.names(), ["module-unreadable"]);
        image.chmod(USUAL, 0o644);
        image.chmod("usr/lib", 0o777);
        assert_eq!(image.findings()[0].lines, ["chmod go-w /usr/lib"]);
        image.chmod("usr/lib", 0o1777);
        assert_eq!(image.names(), [""; 0], "what is root's stays root's there");
    }

    #[test]
    fn two_modules_that_differ_are_weak_unless_they_are_for_different_machines() {
        let image = Image::new();
        image.put("usr/lib/i386-linux-gnu/security/pam_totp.so", &I386);
        image.put("usr/lib/security/pam_totp.so", &X86_64);
        assert_eq!(image.names(), [""; 0]);
        image.put("usr/lib/security/pam_totp.so", &[&X86_64[..], b"older"].concat());
        let finding = image.findings().remove(0);
        assert_eq!((finding.name, finding.weight), ("module-copies", Weight::Weak));
        assert_eq!(finding.place.as_deref(), Some("/usr/lib/security/pam_totp.so"));
    }

    #[test]
    fn a_policy_that_others_can_change_or_that_a_line_names_and_is_not_there_is_closed() {
        let image = Image::new();
        image.put("etc/security/pam_totp.toml", b"version = 1\n");
        assert_eq!(image.names(), [""; 0]);
        image.chmod("etc/security/pam_totp.toml", 0o666);
        let finding = image.findings().remove(0);
        assert_eq!((finding.name, finding.weight), ("policy-file", Weight::Closed));
        assert_eq!(finding.lines, ["chmod go-w /etc/security/pam_totp.toml"]);
        image.chmod("etc/security/pam_totp.toml", 0o600);
        image.chmod("etc", 0o1777);
        assert_eq!(image.findings()[0].lines, ["chmod go-w /etc"], "a login takes none from there");
        image.chmod("etc", 0o755);
        image.stack("auth required pam_totp.so conf=/etc/\x1bmine.toml\n");
        let finding = image.findings().remove(0);
        assert_eq!((finding.name, finding.place.as_deref()), ("policy-file", Some("/etc/pam.d/sshd:1")));
        assert!(finding.what.contains("/etc/\\x1bmine.toml"), "{}", finding.what);
    }

    #[test]
    fn a_path_is_quoted_so_that_a_shell_reads_it_back() {
        let path = Path::new(OsStr::from_bytes(b"/a b/$(id)'\"\xff\n\\"));
        let echoed = std::process::Command::new("bash").arg("-c").arg(format!("printf %s {}", quoted(path))).output();
        assert_eq!(echoed.unwrap().stdout, path.as_os_str().as_bytes());
        assert_eq!(quoted(Path::new("/usr/lib/pam_totp.so")), "/usr/lib/pam_totp.so");
    }
}
