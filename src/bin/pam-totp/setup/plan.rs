//! What is written, in which order, and how it is undone.

use super::files::{self, shown};
use super::reload;
use crate::root::Root;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use similar::TextDiff;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// One file that changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) path: PathBuf,
    /// `None`: there is no such file.
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
    /// sshd has to read its settings anew.
    pub(super) reload: bool,
}

/// All that a setup does. After any number of the steps nobody gets in whom the old files or the new ones would keep out, and
/// somebody gets in.
#[derive(Default, Debug)]
pub(super) struct Plan {
    /// What is made ready before, and stays: nothing but our module reads it.
    pub(super) policy: Option<String>,
    pub(super) store: Option<PathBuf>,
    pub(super) steps: Vec<Step>,
    /// How long a connection may go by the old settings of sshd after they have changed (LoginGraceTime).
    pub(super) grace: Option<u32>,
    /// What people should know, and what stands in nobody's way.
    pub(super) warnings: Vec<String>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.policy.is_none() && self.store.is_none() && self.steps.is_empty()
    }

    /// The steps in their order, each with what it changes.
    pub(super) fn in_words(&self) -> String {
        let mut out = String::new();
        let mut number = 0_u32;
        let mut title = |out: &mut String, what: &str| {
            number = number.saturating_add(1);
            // Writing to a string does not fail.
            let _ = writeln!(out, "{number}. {what}");
        };
        if let Some(store) = &self.store {
            title(&mut out, &format!("{}: made ready for root-only records", shown(store)));
        }
        if let Some(policy) = &self.policy {
            title(&mut out, "the policy");
            out.push_str(&diff(Path::new(pam_totp::policy::PATH), "", policy, true));
        }
        for step in &self.steps {
            let reload = if step.reload { "; then sshd reads its settings anew" } else { "" };
            title(&mut out, &format!("{}{reload}", shown(&step.path)));
            let [before, after] = [&step.before, &step.after].map(|text| text.as_deref().unwrap_or_default());
            out.push_str(&diff(&step.path, before, after, step.before.is_none()));
        }
        out
    }
}

/// A diff as patch(1) takes it; what could upset a terminal is escaped.
fn diff(path: &Path, before: &str, after: &str, is_new: bool) -> String {
    let name = shown(path);
    let old = if is_new { "/dev/null" } else { &name };
    let text = TextDiff::from_lines(before, after).unified_diff().header(old, &name).to_string();
    text.chars().map(|char| if char.is_control() && !"\n\t".contains(char) { '?' } else { char }).collect()
}

/// Goes through the steps. `grace`: behind the first, wait so long for connections that began under the old settings.
pub(super) fn apply(root: &Root, steps: &[Step], grace: Option<u32>) -> Result<()> {
    for (index, step) in steps.iter().enumerate() {
        ensure!(
            files::text(root, &step.path)? == step.before,
            "{} was changed by somebody else meanwhile",
            shown(&step.path)
        );
        files::put(root, &step.path, step.after.as_deref())?;
        if step.reload && root.is_live() {
            reload::reload()?;
            // What begins from now on goes by settings that ask for the key.
            if let (0, Some(grace)) = (index, grace) {
                reload::wait_for(&reload::connections(), grace)?;
            }
        }
    }
    Ok(())
}

/// What became of undoing.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Undone {
    /// The files that are now as they were.
    pub(super) restored: Vec<PathBuf>,
    /// A file that is neither what a step wrote nor what was there before: it and those before it stay.
    pub(super) stopped: Option<String>,
    /// What could not be done by now; whoever comes next goes on from here.
    pub(super) not_yet: Option<String>,
    /// sshd does not go by the files as they are now.
    pub(super) not_reloaded: Option<String>,
}

/// Goes back, from whatever step was reached. `puts_code_back`: the stack that is restored asks for a code, which an sshd that goes
/// by the newer settings would let in as if it were the password.
pub(super) fn undo(root: &Root, steps: &[Step], puts_code_back: bool) -> Undone {
    let mut undone = Undone::default();
    for (index, step) in steps.iter().enumerate().rev() {
        files::tidy(root, &step.path);
        let now = match files::text(root, &step.path) {
            Ok(now) => now,
            Err(error) => {
                undone.stopped = Some(format!("{error:#}"));
                return undone;
            }
        };
        let earlier = steps.iter().take(index).filter(|other| other.path == step.path);
        if now == step.after && now != step.before {
            if let Err(error) = files::put(root, &step.path, step.before.as_deref()) {
                undone.not_yet = Some(format!("{error:#}"));
                return undone;
            }
            if !undone.restored.contains(&step.path) {
                undone.restored.push(step.path.clone());
            }
        } else if now != step.before {
            // It may be further back already.
            if !earlier.clone().any(|earlier| now == earlier.before) {
                undone.stopped = Some(format!("{} was changed by somebody else: it stays", shown(&step.path)));
                return undone;
            }
            continue;
        }
        // Also where it was undone before: whoever did may have been killed between the two.
        if !step.reload || !root.is_live() {
            continue;
        }
        let goes_by_it = reload::reload().and_then(|()| match puts_code_back && index > 0 {
            true => reload::wait_for(&reload::connections(), 0),
            false => Ok(()),
        });
        match goes_by_it {
            Ok(()) => {}
            Err(error) if puts_code_back && index > 0 => {
                undone.not_yet = Some(format!("{error:#}"));
                return undone;
            }
            Err(error) => undone.not_reloaded = Some(format!("{error:#}")),
        }
    }
    undone
}
