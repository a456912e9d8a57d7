//! What policy was in use, so that one that is gone, or was cut short, is not taken for a decision: beginnings of a TOML
//! file are TOML files, and say less. A beginning that asks for more than the whole (an exemption is gone) is taken.
//!
//! A copy of each policy file that root has seen in use is in [`super::STATE_DIR`], wherever `state_dir` leads: a policy
//! that is gone cannot say where. Hosts that are not root neither read nor write it.

use super::throttle::Throttle;
use super::{Document, Enrolment, EnrolmentKind, Policy, PolicyFile, RELATIVES, STATE_DIR};
use crate::fact::Fact;
use crate::options::Options;
use crate::record::Window;
use crate::record::native::hexadecimal;
use crate::system::passwd::process_uids;
use crate::system::private::Directory;
use crate::system::random;
use sha1::{Digest, Sha1};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A copy of a policy file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Copy {
    /// The one that was last in use.
    InUse,
    /// The one that was last installed: root has said that it is whole.
    Installed,
}

/// Reads a copy. `Ok(None)`: there is none.
pub(super) fn read(path: &Path, copy: Copy) -> Result<Option<Vec<u8>>, Fact> {
    if process_uids().1 != 0 {
        return Ok(None);
    }
    let name = name(path, copy);
    let Some(directory) = Directory::open(Path::new(STATE_DIR)).map_err(|error| error.fact())? else { return Ok(None) };
    let failed =
        |error| Fact::new("file-error").with_path(&directory.path(&name)).with("call", "read").with_error(error);
    Ok(directory.read(&name).map_err(failed)?.map(|copy| copy.expose().clone()))
}

/// Refuses a file that is the beginning of the one that was in use and weaker. Any other is to be remembered if the answer
/// is `true`.
pub(super) fn check(copy: Option<Vec<u8>>, path: &Path, text: &[u8], file: &PolicyFile) -> Result<bool, Fact> {
    match copy {
        Some(copy) if copy == text => Ok(false),
        Some(copy) if copy.starts_with(text) && is_weaker(file, text, &copy) => {
            if read(path, Copy::Installed)?.as_deref() == Some(text) {
                return Ok(true);
            }
            let missing = copy.len().saturating_sub(text.len());
            Err(Fact::new("policy-cut-short").with_path(path).with_number("missing-bytes", missing).or(
                "it is the beginning of the file that was in use, and weaker; if that is meant: pam-totp check --install it",
            ))
        }
        _ => Ok(true),
    }
}

/// Whether a file asks for less than the one of which it is the beginning, at any service.
fn is_weaker(file: &PolicyFile, text: &[u8], copy: &[u8]) -> bool {
    let Ok(before) = Document::parse(copy.to_vec()) else { return false };
    let now = Document { file: file.clone(), text: text.to_vec() };
    let policy = |service: &str, document| Policy::new(service, &Options::default(), document);
    let services = before.services().chain(RELATIVES.iter().map(|(service, _)| *service)).chain(["other"]);
    services.into_iter().any(|service| policy(service, &now).is_weaker_than(&policy(service, &before)))
}

impl Policy {
    /// Whether anything is let pass here that is not let pass there. Where that cannot be told, it is.
    fn is_weaker_than(&self, other: &Self) -> bool {
        let is_wider = |window: Window, than: Window| window.within(than) != window;
        let widest = |policy: &Self| policy.widest_window().unwrap_or(Window { behind: u64::MAX, ahead: u64::MAX });
        let is_later = |enrolment: Enrolment, than: Enrolment| {
            let end = |enrolment: Enrolment| enrolment.optional_until.map_or(0, |end| end.over);
            enrolment.kind > than.kind || end(enrolment) > end(than) && than.kind != EnrolmentKind::Optional
        };
        let is_other = |rules: &Option<Throttle>, than: &Option<Throttle>| than.is_some() && rules != than;
        is_wider(self.window.value, other.window.value)
            || is_wider(widest(self), widest(other))
            || is_later(self.enrolment.value, other.enrolment.value)
            || self.max_window.value.unwrap_or(u64::MAX) > other.max_window.value.unwrap_or(u64::MAX)
            || self.grace.value > other.grace.value
            || self.fail_delay.value < other.fail_delay.value
            || self.min_secret_bits.value < other.min_secret_bits.value
            || self.allow_scratch_codes.value && !other.allow_scratch_codes.value
            || other.shared_sources.iter().any(|network| !self.shared_sources.contains(network))
            || self.grace_behind.iter().any(|network| !other.grace_behind.contains(network))
            || self.google.value && !other.google.value
            || self.skew_adjustment.value && !other.skew_adjustment.value
            || self.store.value != other.store.value
            || self.secret.value != other.secret.value
            || self.state_dir.value != other.state_dir.value
            || self.identity.value != other.identity.value
            || self.cert_identity.is_some() && self.cert_identity.value != other.cert_identity.value
            || is_other(&self.throttle.value, &other.throttle.value)
            || self.exemptions.iter().any(|exemption| !other.exemptions.iter().any(|e| e.value == exemption.value))
            || self
                .require
                .as_ref()
                .is_some_and(|require| Some(&require.value) != other.require.as_ref().map(|r| &r.value))
    }
}

/// Remembers a file. Where that fails (a full disk) the next login tries again: it must not keep anybody out.
pub(super) fn write(path: &Path, copy: Copy, text: &[u8]) {
    if process_uids().1 != 0 {
        return;
    }
    let name = name(path, copy);
    if let (Ok(directory), Ok(suffix)) = (Directory::make(Path::new(STATE_DIR)), random::suffix()) {
        let temporary = format!("{name}{suffix}");
        let _ = directory.write_for_good(&name, &temporary, text);
    }
}

fn name(path: &Path, copy: Copy) -> String {
    let kind = match copy {
        Copy::InUse => "policy-",
        Copy::Installed => "installed-",
    };
    let digest = Sha1::digest(path.as_os_str().as_bytes());
    format!("{kind}{}", hexadecimal(&digest))
}
