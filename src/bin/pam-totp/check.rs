//! `pam-totp check`.

use crate::pam_config::{self, Place, Stack, Type};
use crate::root::Root;
use anyhow::{Context, Result, anyhow, ensure};
use pam_totp::options::Options;
use pam_totp::policy::odds::{Odds, odds};
use pam_totp::policy::{self, Document, EnrolmentKind, Line, Origin, Policy, Setting, StoreKind, explain};
use pam_totp::store::system::STORE_ID;
use pam_totp::system::{groups, passwd};
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The policy file (default: the one that is in force)
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The policy file that is in force (default: /etc/security/pam_totp.toml)
    #[arg(long, value_name = "FILE")]
    pub(crate) conf: Option<PathBuf>,
    /// Show what holds at this service alone (default: at all services that load the module, and all with a table)
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// Put FILE in force if it is right: by rename, so that no login ever sees half of it
    #[arg(long, requires = "file")]
    install: bool,
}

/// Says what is wrong with a policy, or what it means.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let in_force = arguments.conf.clone().unwrap_or_else(|| policy::PATH.into());
    let document = match &arguments.file {
        Some(file) => {
            // A FIFO would keep us waiting.
            ensure!(!file.exists() || file.is_file(), "{} is not a regular file", file.display());
            let text = fs::read(file).with_context(|| file.display().to_string())?;
            let document = Document::parse(text.clone()).map_err(|bad| anyhow!("{}:{bad}", file.display()))?;
            if arguments.install {
                Document::install(&text, &in_force).map_err(|fact| anyhow!("{fact}"))?;
            }
            document
        }
        None => {
            let conf = arguments.conf.as_ref().map(|path| path.as_os_str().as_bytes());
            Document::load(conf).map_err(|fact| in_words(&in_force).unwrap_or_else(|| anyhow!("{fact}")))?
        }
    };
    let path = arguments.file.as_ref().filter(|_| !arguments.install).unwrap_or(&in_force);
    print!("{}", report(&document, path, &arguments.service)?);
    Ok(())
}

/// What is wrong with the text of a policy file, with its place in the way that editors understand. A FIFO would keep us
/// waiting, and where a link leads is not what is wrong with it.
fn in_words(path: &Path) -> Option<anyhow::Error> {
    let text = fs::symlink_metadata(path).ok()?.is_file().then(|| fs::read(path).ok())??;
    let bad = Document::parse(text).err()?;
    Some(anyhow!("{}:{bad}", path.display()))
}

/// A service whose auth stack calls the module.
struct Use {
    service: String,
    /// The first such line.
    place: Place,
    arguments: Vec<Vec<u8>>,
}

/// All of them, in the order of their names.
fn uses(root: &Root) -> Vec<Use> {
    let services = pam_config::services(root).into_iter();
    let uses = services.filter_map(|service| {
        let stack = Stack::read(root, &service, Type::Auth);
        let rule = stack.rules().into_iter().find(|rule| rule.is_ours())?;
        Some(Use { place: rule.place.clone(), arguments: rule.arguments.clone(), service })
    });
    uses.collect()
}

fn report(document: &Document, path: &Path, wanted: &[String]) -> Result<String> {
    let root = Root::open(Path::new("/")).map_err(|error| anyhow!("/ {error}"))?;
    let stacks = uses(&root);
    let mut services: Vec<&str> = match wanted {
        [] => stacks.iter().map(|stack| stack.service.as_str()).chain(document.services()).collect(),
        wanted => wanted.iter().map(String::as_str).collect(),
    };
    services.sort_unstable();
    services.dedup();
    if services.is_empty() {
        // Nothing loads us yet: what holds anywhere.
        services.push("other");
    }
    let mut out = String::new();
    let there = if path.exists() { "no error" } else { "not there: defaults" };
    writeln!(out, "{}: {there}", path.display())?;
    for service in services {
        let stack = stacks.iter().find(|stack| stack.service == service);
        writeln!(out, "\n{}", describe(document, path, service, stack)?)?;
    }
    let fallen: Vec<_> = stacks.iter().filter(|stack| !document.has_table(&stack.service)).collect();
    if !fallen.is_empty() {
        let names: Vec<_> = fallen.iter().map(|stack| format!("{} ({})", stack.service, stack.place)).collect();
        writeln!(out, "\nWithout a table of their own, so that [defaults] holds: {}", names.join(", "))?;
    }
    Ok(out)
}

/// What holds at one service, where each value comes from, and what that leaves to a guesser.
fn describe(document: &Document, path: &Path, service: &str, stack: Option<&Use>) -> Result<String> {
    let arguments: Vec<&[u8]> = stack.into_iter().flat_map(|stack| &stack.arguments).map(Vec::as_slice).collect();
    let place =
        stack.map_or_else(|| "no file in /etc/pam.d loads the module".to_owned(), |stack| stack.place.to_string());
    let options = Options::parse(arguments).map_err(|bad| anyhow!("{place}: {}", bad.fact()))?;
    if let Some(conf) = options.conf.as_ref().filter(|conf| conf.as_slice() != path.as_os_str().as_bytes()) {
        return Ok(format!("{service} ({place}): has a policy file of its own, {}", String::from_utf8_lossy(conf)));
    }
    let policy = Policy::new(service, &options, document);
    let lines = explain(&policy);
    let mut out = format!("{service} ({place})\n");
    let width = |part: fn(&Line) -> usize| lines.iter().map(part).max().unwrap_or(0);
    let (keys, values) = (width(|line| line.key.len()), width(|line| line.value.chars().count()).min(44));
    for Line { key, value, origin } in &lines {
        let origin = match origin {
            Origin::Default => "default".to_owned(),
            Origin::Line(line) => format!("line {line}"),
            Origin::Argument => "argument".to_owned(),
        };
        writeln!(out, "  {key:keys$}  {value:values$}  {origin}")?;
    }
    for note in notes(&policy) {
        writeln!(out, "  note: {note}")?;
    }
    write!(out, "{}", guessing(&policy))?;
    Ok(out)
}

/// What is allowed, and worth a second thought.
fn notes(policy: &Policy) -> Vec<String> {
    let now = pam_totp::system::clock::now();
    let mut notes = Vec::new();
    // Nobody but root can see.
    let is_made = || passwd::process_uids().1 != 0 || policy.state_dir.join(STORE_ID).exists();
    if policy.store.value == StoreKind::System && !is_made() {
        notes.push(format!(
            "nobody gets in until there is a store: pam-totp setup store makes {}",
            policy.state_dir.display()
        ));
    }
    if policy.enrolment.kind == EnrolmentKind::Optional {
        notes.push("whoever has no device gets in without a code, for ever: `enrol_by` sets an end".to_owned());
    }
    if let Some(end) = policy.enrolment.optional_until
        && now >= end.over
    {
        notes.push(format!("enrol_by {end} is over: enrolment is required"));
    }
    for exemption in policy.exemptions.iter().filter(|exemption| now >= exemption.until.over) {
        notes.push(format!("the exemption until {} is over, and void", exemption.until));
    }
    for group in policy.require.iter().flat_map(|require| require.groups()) {
        if groups::is_member(b"", u32::MAX, group) == Ok(None) {
            notes.push(format!("there is no group `{group}`: until there is, everybody needs a code"));
        }
    }
    let is_beside = |key: &Setting<bool>| key.origin != Origin::Default && key.origin == policy.store.origin;
    if policy.store.value.is_roots() && (is_beside(&policy.google) || is_beside(&policy.skew_adjustment)) {
        notes.push("compat is about files of people, and without effect with this store".to_owned());
    }
    if policy.google.value {
        notes.push("compat.google: works like google-authenticator-libpam where that is weaker".to_owned());
    }
    notes
}

/// The arithmetic, in words.
fn guessing(policy: &Policy) -> String {
    let [usual, widest] = odds(policy);
    let mut text = format!("  guessing: {}\n", sentence(&usual));
    if widest.live > usual.live {
        let bound = if policy.widest_window().is_some() { "" } else { "; max_window bounds that" };
        text += &format!("  with the widest WINDOW_SIZE of a person's own file: {}{bound}\n", sentence(&widest));
    }
    text
}

fn sentence(odds: &Odds) -> String {
    let Odds { live, guesses_a_day, a_day, a_year } = odds;
    match guesses_a_day {
        Some(guesses) => format!(
            "{live} live codes of 1000000 a device, {guesses} guesses a day: right once in a day with {:.4} %, in a year with \
             {:.2} %, times the devices",
            a_day * 100.0,
            a_year * 100.0
        ),
        None => format!("{live} live codes of 1000000 a device, and no limit: right sooner or later"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_directly_and_through_what_they_include() {
        let image = tempfile::tempdir().unwrap();
        let directory = image.path().join("etc/pam.d");
        fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        write(
            "sshd",
            "# auth required pam_totp.so\nauth [success=1 default=ignore] /lib/security/pam_totp.so nullok \\\n [authtok_prompt=Code: ] # x\n",
        );
        write("su", "auth sufficient pam_rootok.so\n@include common\n");
        write("common", "auth required pam_totp.so\n");
        write("login", "auth substack common\n");
        write("cron", "account required pam_totp.so\nauth required pam_unix.so\n");
        write("loop", "@include loop\n");
        write("OLD", "auth required pam_totp.so\n");
        let uses = uses(&Root::open(image.path()).unwrap());
        let found: Vec<_> =
            uses.iter().map(|user| (user.service.as_str(), user.place.to_string(), user.arguments.clone())).collect();
        let place = |file: &str| format!("/etc/pam.d/{file}");
        assert_eq!(
            found,
            [
                ("common", place("common:1"), vec![]),
                ("login", place("common:1"), vec![]),
                ("sshd", place("sshd:2"), vec![b"nullok".to_vec(), b"authtok_prompt=Code: ".to_vec()]),
                ("su", place("common:1"), vec![]),
            ]
        );
    }

    #[test]
    fn what_the_store_leaves_without_effect_is_said_by_the_line_of_the_store() {
        let policy = |text: &str| {
            let document = Document::parse(format!("version = 1\n{text}").into_bytes()).unwrap();
            Policy::new("test", &Options::default(), &document)
        };
        let says = |policy: &Policy| notes(policy).iter().any(|note| note.contains("without effect"));
        let of_compat = |policy: &Policy| {
            let lines = explain(policy).into_iter().filter(|line| line.key.starts_with("compat."));
            lines.map(|line| (line.value, line.origin)).collect::<Vec<_>>()
        };
        for store in ["system", "fleet"] {
            let with = |compat: &str| policy(&format!("[defaults]\nstore = \"{store}\"\n[compat]\n{compat}"));
            let on = with("google = true\n");
            let expected = [("false".to_owned(), Origin::Line(3)), ("false".to_owned(), Origin::Default)];
            assert!(of_compat(&on) == expected && says(&on), "{on:?}");
            let off = with("google = false\n");
            assert!(of_compat(&off)[0] == ("false".to_owned(), Origin::Line(5)) && !says(&off), "{off:?}");
            assert!(says(&with("skew_adjustment = true\n")) && !says(&with("")));
        }
        let home = policy("[defaults]\nstore = \"home\"\n[compat]\ngoogle = true\n");
        assert!(of_compat(&home)[0] == ("true".to_owned(), Origin::Line(5)) && !says(&home), "{home:?}");
    }
}
