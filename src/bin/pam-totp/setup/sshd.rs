//! What sshd's settings say once a code is asked for behind the key, or no more.

use super::files;
use super::reload;
use crate::doctor::ways_in::{self, Asks, Circumstances, Finding, Found, Method, Way, Who, ways};
use crate::root::Root;
use crate::sshd_config::{self, Block, Config, Connection, Effective, RootLogin, Trouble};
use anyhow::{Result, anyhow, bail, ensure};
use std::path::{Path, PathBuf};

const MAIN: &str = sshd_config::PATH;
/// Read before all but what begins with `00-` too and comes before it in the alphabet.
const SNIPPET: &str = "/etc/ssh/sshd_config.d/00-pam_totp.conf";
const DIRECTORY: &str = "/etc/ssh/sshd_config.d";
const INCLUDED: &str = "/etc/ssh/sshd_config.d/*.conf";
const BEGIN: &str = "# pam-totp setup: begin. `pam-totp setup sshd --remove` takes this away again.";
const END: &str = "# pam-totp setup: end";
const KEY_AND_CODE: &str = "publickey,keyboard-interactive";
/// Since this version ChallengeResponseAuthentication is another name for KbdInteractiveAuthentication.
const ONE_NAME: (u32, u32) = (8, 7);
/// Less is too short to scan and to type.
const SHORTEST_GRACE: u32 = 60;

/// The settings, and what they depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Settings {
    /// The old name of a setting is one of its own, or the only one known.
    old_name: bool,
    root_login: bool,
    more_time: bool,
}

impl Settings {
    /// All that setup may have written at any time.
    fn all() -> impl Iterator<Item = Self> {
        let bit = |number: u8, bit: u8| number & bit != 0;
        (0..8).map(move |number| Self {
            old_name: bit(number, 1),
            root_login: bit(number, 2),
            more_time: bit(number, 4),
        })
    }

    /// A key, then the code.
    fn text(self) -> String {
        let mut text = format!("{BEGIN}\n");
        let mut line = |comment: &str, line: &str| text.push_str(&format!("# {comment}\n{line}\n"));
        line("Without it sshd never asks the module.", "UsePAM yes");
        line("The code is asked for by this method.", "KbdInteractiveAuthentication yes");
        if self.old_name {
            line("Its name before OpenSSH 8.7.", "ChallengeResponseAuthentication yes");
        }
        line(
            "Both, in this order. Without this line either one is enough.",
            &format!("AuthenticationMethods {KEY_AND_CODE}"),
        );
        line("This method would hand a typed password to PAM as if it were a code.", "PasswordAuthentication no");
        if self.root_login {
            let comment =
                "It was prohibit-password, which refuses root's code too. By the lines above root needs key and code.";
            line(comment, "PermitRootLogin yes");
        }
        if self.more_time {
            line("To scan a QR code, and to type.", "LoginGraceTime 120");
        }
        text.push_str(END);
        text.push('\n');
        text
    }

    /// Only a key, while the stack is neither what it was nor what it will be.
    fn between(self) -> String {
        let old = if self.old_name { "ChallengeResponseAuthentication no\n" } else { "" };
        format!(
            "{BEGIN}\n# For a moment only: setup is at work, or was cut off.\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n{old}AuthenticationMethods publickey\n{END}\n"
        )
    }
}

/// What becomes of the one file that changes.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) path: PathBuf,
    pub(super) before: Option<String>,
    /// While the stack changes; `None` where the settings before ask for the key and one more.
    pub(super) between: Option<String>,
    pub(super) after: Option<String>,
    /// LoginGraceTime before.
    pub(super) grace: u32,
    pub(super) warnings: Vec<String>,
}

/// The files, and what they would say without us.
struct Before {
    main: String,
    main_without: String,
    snippet: Option<String>,
    /// sshd_config without us.
    base: Config,
    /// As it is.
    now: Config,
}

fn config(root: &Root) -> Result<Config> {
    Config::read(root).map_err(|error| anyhow!("{MAIN} cannot be read: {error}"))
}

impl Before {
    fn read(root: &Root) -> Result<Self> {
        let main = files::text(root, Path::new(MAIN))?;
        let main = main.ok_or_else(|| anyhow!("{MAIN} is not there: no sshd that setup knows"))?;
        let main_without = without_block(&main)?;
        let snippet = files::text(root, Path::new(SNIPPET))?;
        if let Some(snippet) = &snippet {
            ensure!(is_ours(snippet), "{SNIPPET} was changed by hand, or is not of setup's making: not touched");
        }
        let without = root.again().map_err(|error| anyhow!("{error}"))?;
        let without =
            without.with(Path::new(SNIPPET), None).with(Path::new(MAIN), Some(main_without.clone().into_bytes()));
        Ok(Self { base: config(&without)?, now: config(root)?, main, main_without, snippet })
    }

    /// Whether ours is a file of its own: where it is already, or where sshd_config begins with the others.
    fn has_snippet(&self, root: &Root) -> bool {
        let is_in_main = self.main != self.main_without;
        let lines = self.main_without.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let first = lines.map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()).next().unwrap_or_default();
        let includes = matches!(first.as_slice(), [word, INCLUDED] if word.eq_ignore_ascii_case("Include"));
        self.snippet.is_some() || (!is_in_main && includes && root.is_directory(Path::new(DIRECTORY)))
    }

    /// The file that says this of ours, or nothing.
    fn content(&self, has_snippet: bool, ours: Option<String>) -> Option<String> {
        match (has_snippet, ours) {
            (true, ours) => ours,
            (false, ours) => Some(format!("{}{}", ours.unwrap_or_default(), self.main_without)),
        }
    }

    /// The settings that fit what is there without us.
    fn settings(&self, root: &Root, is_inline: bool) -> Settings {
        let version = if root.is_live() { reload::version() } else { None };
        let root_login = self.base.effective(&root_connection()).permit_root_login.value;
        let grace = self.base.server().login_grace_time.value;
        Settings {
            old_name: version.map_or_else(|| self.has_old_name_alone(root), |version| version < ONE_NAME),
            root_login: root_login == RootLogin::ProhibitPassword,
            more_time: is_inline && (1..SHORTEST_GRACE).contains(&grace),
        }
    }

    /// Which names the files use.
    fn has_old_name_alone(&self, root: &Root) -> bool {
        let names = root.list(Path::new(DIRECTORY)).unwrap_or_default();
        let others =
            names.iter().map(|name| Path::new(DIRECTORY).join(name)).filter(|path| *path != Path::new(SNIPPET));
        let texts = others.filter_map(|path| root.read(&path).ok());
        let mut text = self.main_without.to_ascii_lowercase();
        text.extend(texts.map(|text| format!("\n{}", String::from_utf8_lossy(&text).to_ascii_lowercase())));
        // Also where it is commented out: that is what the release knows.
        let has = |name: &str| text.lines().any(|line| line.trim_start_matches(['#', ' ', '\t']).starts_with(name));
        has("challengeresponseauthentication") && !has("kbdinteractiveauthentication")
    }
}

/// Whether a text is one that setup writes.
fn is_ours(text: &str) -> bool {
    Settings::all().any(|settings| text == settings.text() || text == settings.between())
}

/// sshd_config without the block of ours.
fn without_block(text: &str) -> Result<String> {
    let Some(start) = text.find(BEGIN) else { return Ok(text.to_owned()) };
    let line = text.get(..start).unwrap_or_default().matches('\n').count().saturating_add(1);
    let edited = || anyhow!("{MAIN}:{line}: what setup wrote was changed by hand: not touched. Take it out by hand");
    let (before, rest) = text.split_at(start);
    let (block, after) = rest.split_once(&format!("{END}\n")).ok_or_else(edited)?;
    ensure!(is_ours(&format!("{block}{END}\n")) && !after.contains(BEGIN), edited());
    Ok(format!("{before}{after}"))
}

fn root_connection() -> Connection {
    Connection { user: Some("root".to_owned()), groups: vec!["root".to_owned()], ..Connection::default() }
}

/// Key, then code, for everybody. `None`: it is so already.
pub(super) fn with_code(root: &Root, circumstances: Circumstances) -> Result<Option<Change>> {
    let found = Before::read(root)?;
    let mut warnings = ensure_known(root, &found.base)?;
    let methods = &found.base.server().authentication_methods;
    ensure!(
        methods.value.is_empty() || methods.value == [KEY_AND_CODE],
        "{}: sets AuthenticationMethods in a way that setup does not know. Take that line out (sshd need not know yet) and run \
         this again, or write there:\n    AuthenticationMethods {KEY_AND_CODE}",
        methods.origin
    );
    let has_snippet = found.has_snippet(root);
    let settings = found.settings(root, circumstances.inline_enrolment);
    let change = found.change(has_snippet, settings, Some(settings.text()));
    let then = root.again().map_err(|error| anyhow!("{error}"))?;
    let then = then.with(&change.path, change.after.clone().map(String::into_bytes));
    let config = config(&then)?;
    warnings.extend(judge(&config, circumstances)?);
    // A line that was fine by itself may not go with ours: `AuthenticationMethods any` in a block.
    ensure_taken(root, &config)?;
    if root.is_live() {
        ensure_sshd_agrees(&found, &config, &settings.text())?;
        reload::effective(&format!("{}{}", settings.between(), found.main_without), &root_connection())?;
    }
    Ok((change.before != change.after).then_some(Change { warnings, ..change }))
}

/// As if setup had never been there. `None`: it was not.
pub(super) fn without_code(root: &Root) -> Result<Option<Change>> {
    let found = Before::read(root)?;
    let has_snippet = found.snippet.is_some();
    let settings = found.settings(root, false);
    let change = found.change(has_snippet, settings, None);
    Ok((change.before != change.after).then_some(change))
}

impl Before {
    fn change(&self, has_snippet: bool, settings: Settings, ours: Option<String>) -> Change {
        let before = if has_snippet { self.snippet.clone() } else { Some(self.main.clone()) };
        // In both directions: where nothing but we want the key, nobody asks for it at one end.
        let is_any = self.base.server().authentication_methods.value.is_empty();
        let is_now_any = self.now.server().authentication_methods.value.is_empty();
        let is_open = is_any && (is_now_any || ours.is_none());
        Change {
            path: PathBuf::from(if has_snippet { SNIPPET } else { MAIN }),
            before,
            between: is_open.then(|| self.content(has_snippet, Some(settings.between()))).flatten(),
            after: self.content(has_snippet, ours),
            grace: self.now.server().login_grace_time.value,
            warnings: Vec::new(),
        }
    }
}

/// Fails where we may not know what is in force.
fn ensure_known(root: &Root, config: &Config) -> Result<Vec<String>> {
    if root.is_live() {
        reload::ensure_common()?;
        reload::check()?;
    }
    ensure_taken(root, config)
}

/// Fails where sshd would not take it, or we cannot tell.
fn ensure_taken(root: &Root, config: &Config) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for problem in &config.problems {
        match &problem.trouble {
            // sshd itself knows it, as it takes its settings.
            Trouble::UnknownKeyword(_) if root.is_live() => {}
            Trouble::UnknownKeyword(_) => warnings.push(format!("{}: {}", problem.place, problem.trouble)),
            trouble => bail!("{}: {trouble}. Put that right first", problem.place),
        }
    }
    Ok(warnings)
}

/// What there is to say against the result: an error, or what people should know.
fn judge(config: &Config, circumstances: Circumstances) -> Result<Vec<String>> {
    let server = config.server();
    for finding in ways_in::judge(&server, Who::Person, circumstances) {
        ensure_minor(&finding)?;
    }
    let mut warnings = Vec::new();
    let root = config.effective(&root_connection());
    let has_exception = root.authentication_methods.origin != server.authentication_methods.origin;
    for finding in ways_in::judge(&root, Who::Root, circumstances) {
        if has_exception && is_exception(&finding.found) {
            warnings.push(format!("{}: root needs no code: {}", finding.origin, finding.found));
        } else {
            ensure_minor(&finding)?;
        }
    }
    for block in config.blocks().iter().filter(|block| !block.is_all()) {
        warnings.extend(judge_block(block, &config.effective_in(block))?);
    }
    warnings.dedup();
    Ok(warnings)
}

fn ensure_minor(Finding { found, who, origin, line, .. }: &Finding) -> Result<()> {
    if matches!(found, Found::KeysOfTheUser | Found::GraceTooShort(_) | Found::Forwards) {
        return Ok(());
    }
    let whom = if *who == Who::Root { "for root " } else { "" };
    if *found == Found::RootLockedOut {
        bail!(
            "{origin}: {found}. Write `{line}` there, or let root's keys in without a code by\n    Match User root\n        \
             AuthenticationMethods publickey\nat the end of {MAIN}"
        );
    }
    bail!("{whom}{found} ({origin}), whatever setup writes. Write there:\n    {line}")
}

/// Ways of machines, which somebody has chosen for a block.
fn is_exception(found: &Found) -> bool {
    matches!(found, Found::KeyAlone | Found::CommandKeyAlone | Found::HostAlone | Found::GssapiAlone)
}

/// What a block lets in: with the new stack a typed code would pass for a password.
fn judge_block(block: &Block, effective: &Effective) -> Result<Option<String>> {
    let name = format!("{}: `Match {}`", block.place, block.text.trim().escape_debug());
    let mut warning = None;
    for Way { methods, asks, .. } in ways(effective, Who::Person) {
        let is_key_first = methods.first() == Some(&Method::PublicKey);
        let is_of_machines =
            methods.iter().all(|method| matches!(method, Method::PublicKey | Method::HostBased | Method::Gssapi));
        match asks {
            Asks::EachQuestion if is_key_first => {}
            Asks::Nothing if is_of_machines => {
                warning = Some(format!("{name} lets in without a code ({})", effective.authentication_methods.origin));
            }
            _ => bail!(
                "{name} lets in with what PAM alone says ({}): with the code in its stack that is the code alone, and no key. \
                 Write there:\n    AuthenticationMethods {KEY_AND_CODE}",
                effective.authentication_methods.origin
            ),
        }
    }
    if ways(effective, Who::Root).is_empty() && effective.permit_root_login.value == RootLogin::ProhibitPassword {
        warning = warning.or_else(|| Some(format!("{name} keeps root out: prohibit-password refuses root's code too")));
    }
    Ok(warning)
}

/// sshd's own reading of what is not written yet: ours comes first in either case.
fn ensure_sshd_agrees(found: &Before, config: &Config, ours: &str) -> Result<()> {
    let text = format!("{ours}{}", found.main_without);
    for (who, connection) in [(Who::Person, Connection::default()), (Who::Root, root_connection())] {
        let said = reload::effective(&text, &connection).map_err(|error| anyhow!("nothing was changed: {error:#}"))?;
        let own = config.effective(&Connection { local_port: Some(22), ..connection });
        ensure!(
            ways(&said, who) == ways(&own, who),
            "sshd reads its settings in another way than setup does ({:?}, not {:?}): nothing was changed",
            ways(&said, who),
            ways(&own, who)
        );
    }
    Ok(())
}
