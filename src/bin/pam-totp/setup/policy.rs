//! The policy that setup writes where there is none.

use super::Service;
use super::plan::Plan;
use super::{files, pam, store};
use crate::host::by_fact;
use crate::root::{Root, Unreadable};
use anyhow::{Result, anyhow, bail, ensure};
use clap::ValueEnum;
use pam_totp::options::Options;
use pam_totp::policy::{Document, EnrolmentKind, PATH, Policy, STATE_DIR, StoreKind};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What the policy is to say.
#[derive(Default, clap::Args)]
pub(super) struct Wish {
    /// Where secrets are: in each person's home, or where root alone can read them (default: system)
    #[arg(long, value_enum)]
    pub(super) store: Option<Store>,
    /// What becomes of people without a device (default: inline for sshd with the system store, required otherwise)
    #[arg(long, value_enum)]
    pub(super) enrolment: Option<Enrolment>,
    /// Only members of this group need a code; may be given more than once (default: everybody)
    #[arg(long, value_name = "GROUP")]
    pub(super) require_group: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Store {
    Home,
    System,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Enrolment {
    /// They are shown a QR code inside their first login with a key
    Inline,
    /// The same, with a ticket that root made
    Ticket,
    /// They are denied
    Required,
    /// They get in without a code
    Optional,
}

impl Store {
    fn kind(self) -> StoreKind {
        match self {
            Self::Home => StoreKind::Home,
            Self::System => StoreKind::System,
        }
    }

    /// As the policy writes it.
    fn word(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::System => "system",
        }
    }

    fn comment(self) -> &'static str {
        match self {
            Self::Home => "Secrets are in ~/.google_authenticator: whoever has taken over an account can read them.",
            Self::System => "Secrets are where root alone can read them, in /var/lib/pam_totp.",
        }
    }
}

impl Enrolment {
    fn kind(self) -> EnrolmentKind {
        match self {
            Self::Inline => EnrolmentKind::Inline,
            Self::Ticket => EnrolmentKind::Ticket,
            Self::Required => EnrolmentKind::Required,
            Self::Optional => EnrolmentKind::Optional,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Ticket => "ticket",
            Self::Required => "required",
            Self::Optional => "optional",
        }
    }

    fn comment(self) -> &'static str {
        match self {
            Self::Inline => {
                "Whoever has no device, and never had one, is shown a QR code inside their first login with a key."
            }
            Self::Ticket => "Whoever has no device gets one inside a login, with a ticket of `pam-totp invite`.",
            Self::Required => "Whoever has no device is denied: `pam-totp enrol --user NAME` makes one.",
            Self::Optional => {
                "Whoever never had a device gets in without a code. Better not for ever: `enrol_by` ends it."
            }
        }
    }
}

/// What is in force at a service once all is written.
#[derive(Debug)]
pub(super) struct Settled {
    /// To be written, as there is no policy.
    pub(super) text: Option<String>,
    pub(super) store: StoreKind,
    pub(super) state_dir: PathBuf,
    pub(super) enrolment: EnrolmentKind,
}

/// Keeps the policy that is there, if it is not against what was asked for; or makes one.
pub(super) fn settle(root: &Root, service: Service, wish: &Wish) -> Result<Settled> {
    match read(root)? {
        Some(document) => {
            let policy = Policy::new(service.name(), &Options::default(), &document);
            ensure_agreed(&policy, service, wish)?;
            let Policy { store, state_dir, enrolment, .. } = policy;
            let (store, state_dir, enrolment) = (store.value, state_dir.value, enrolment.value.kind);
            Ok(Settled { text: None, store, state_dir, enrolment })
        }
        None => make(root, service, wish),
    }
}

fn read(root: &Root) -> Result<Option<Document>> {
    let text = match root.read(Path::new(PATH)) {
        Err(Unreadable::Missing) if root.is_live() => {
            // It must not have been there before either.
            Document::load(None).map_err(by_fact)?;
            return Ok(None);
        }
        Err(Unreadable::Missing) => return Ok(None),
        Err(error) => bail!("{PATH} {error}"),
        Ok(text) => text,
    };
    if root.is_live() {
        return Document::load(None).map(Some).map_err(by_fact);
    }
    Document::parse(text).map(Some).map_err(|bad| anyhow!("{PATH}:{bad}"))
}

fn ensure_agreed(policy: &Policy, service: Service, wish: &Wish) -> Result<()> {
    let mut lines = Vec::new();
    if let Some(store) = wish.store.filter(|store| store.kind() != policy.store.value) {
        lines.push(format!("[defaults]\nstore = \"{}\"", store.word()));
    }
    if let Some(enrolment) = wish.enrolment.filter(|enrolment| enrolment.kind() != policy.enrolment.value.kind) {
        lines.push(format!("[service.{}]\nenrolment = \"{}\"", service.name(), enrolment.word()));
    }
    let required = policy.require.as_ref().map(|require| require.value.to_string());
    if !wish.require_group.is_empty() && required.as_deref() != Some(wish.require_group.join(", ").as_str()) {
        lines.push(format!("[require]\ngroups = {}", list(&wish.require_group)?));
    }
    if lines.is_empty() {
        return Ok(());
    }
    let lines = lines.join("\n").replace('\n', "\n    ");
    bail!("{PATH} says otherwise, and setup does not change it. To have it so, write there:\n    {lines}")
}

fn make(root: &Root, service: Service, wish: &Wish) -> Result<Settled> {
    let store = wish.store.unwrap_or(Store::System);
    let is_inline = service == Service::Sshd && store == Store::System;
    let default = if is_inline { Enrolment::Inline } else { Enrolment::Required };
    let enrolment = wish.enrolment.unwrap_or(default);
    ensure!(
        enrolment != Enrolment::Inline || service == Service::Sshd,
        "--enrolment inline is for sshd, where a key comes first: --enrolment ticket is what there is for {}",
        service.name()
    );
    ensure!(
        store == Store::System || ![Enrolment::Inline, Enrolment::Ticket].contains(&enrolment),
        "--enrolment {} needs --store system: whoever deletes a file in their home would be enrolled anew",
        enrolment.word()
    );
    if store == Store::System {
        pam::ensure_no_other_caller(root, service)?;
    }
    let text = text(service, store, enrolment, &wish.require_group)?;
    let document =
        Document::parse(text.clone().into_bytes()).map_err(|bad| anyhow!("the policy would be wrong: {bad}"))?;
    let policy = Policy::new(service.name(), &Options::default(), &document);
    ensure_agreed(&policy, service, wish)?;
    Ok(Settled { text: Some(text), store: store.kind(), state_dir: STATE_DIR.into(), enrolment: enrolment.kind() })
}

fn text(service: Service, store: Store, enrolment: Enrolment, groups: &[String]) -> Result<String> {
    let mut text = String::from(
        "# The policy of pam_totp, written by `pam-totp setup`. `pam-totp check` says what it means at each service; to change it,\n\
         # change a copy and put that in force with `pam-totp check --install COPY`.\n\
         version = 1\n",
    );
    write!(text, "\n[defaults]\n# {}\nstore = \"{}\"\n", store.comment(), store.word())?;
    let name = service.name();
    write!(text, "\n[service.{name}]\n# {}\nenrolment = \"{}\"\n", enrolment.comment(), enrolment.word())?;
    if !groups.is_empty() {
        let comment = "Only members of these need a code. Whoever has a device is asked, in them or not.";
        write!(text, "\n[require]\n# {comment}\ngroups = {}\n", list(groups)?)?;
    }
    Ok(text)
}

/// A list of strings, which TOML writes as JSON does.
fn list(names: &[String]) -> Result<String> {
    let names: Vec<String> = names.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(format!("[{}]", names.join(", ")))
}

/// Makes store and policy. Nothing asks for them yet, so they stay when the rest is rolled back.
pub(super) fn put_in_place(root: &Root, plan: &Plan) -> Result<()> {
    if let Some(state_dir) = &plan.store {
        store::make(state_dir)?;
    }
    match &plan.policy {
        None => Ok(()),
        Some(text) if root.is_live() => Document::install(text.as_bytes(), Path::new(PATH)).map_err(by_fact),
        Some(text) => files::put(root, Path::new(PATH), Some(text)),
    }
}
