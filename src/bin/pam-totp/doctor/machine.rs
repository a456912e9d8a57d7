//! What no file says: the clock, and SELinux.

use super::case::Case;
use super::report::{Finding, Report, Weight};
use crate::pam_config::OURS;
use crate::root::Root;
use pam_totp::system::Errno;
use pam_totp::system::clock;
use rustix::fs::getxattr;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// There where the kernel has a policy of SELinux.
const ENFORCE: &str = "/sys/fs/selinux/enforce";
/// What programs may load code from.
const LIBRARIES: [&str; 2] = ["lib_t", "textrel_shlib_t"];
/// What no program that is confined may touch: nobody has said what it is.
const UNLABELLED: [&str; 3] = ["default_t", "unlabeled_t", "file_t"];

pub(super) fn examine(case: &Case<'_>, report: &mut Report) {
    if !case.root.is_live() {
        return report.note("whether its clock is right, and what SELinux will allow, no file says");
    }
    judge_clock(clock::is_synchronised(), report);
    if let Ok(mode) = case.root.read(Path::new(ENFORCE)) {
        judge_labels(case, &mode, report);
    }
}

fn judge_clock(is_synchronised: Result<bool, Errno>, report: &mut Report) {
    match is_synchronised {
        Ok(true) => {}
        Ok(false) => report.findings.push(Finding {
            weight: Weight::Weak,
            name: "clock",
            service: None,
            what: "the clock is not synchronised".to_owned(),
            place: None,
            why: "Codes go by the time: a clock that is off by a minute refuses those of everybody.".to_owned(),
            way_out: "Have it synchronised; without systemd-timesyncd, install chrony:".to_owned(),
            lines: vec!["timedatectl set-ntp true".to_owned()],
        }),
        Err(error) => report.note(format!(
            "whether the clock is synchronised the kernel does not say ({}): look at the machine around this one",
            std::io::Error::from(error)
        )),
    }
}

fn judge_labels(case: &Case<'_>, mode: &[u8], report: &mut Report) {
    let is_enforcing = mode.first() == Some(&b'1');
    report.note(if is_enforcing { "SELinux is enforcing" } else { "SELinux is permissive: it only writes down" });
    for path in modules(case) {
        report.findings.extend(judge_label(&path, &label(&path), |kind| LIBRARIES.contains(&kind)));
    }
    let state_dirs: BTreeSet<_> =
        case.services.iter().filter_map(|service| Some(service.policy.as_ref()?.state_dir.value.clone())).collect();
    for path in state_dirs {
        report.findings.extend(judge_label(&path, &label(&path), |kind| !UNLABELLED.contains(&kind)));
    }
}

/// The files of the module that are there by the names that stacks have for them. What has none is looked for where Red Hat
/// has it: there is no SELinux to speak of elsewhere.
fn modules(case: &Case<'_>) -> BTreeSet<PathBuf> {
    let ours = case.services.iter().flat_map(|service| service.ours());
    let named = ours.map(|rule| Path::new(OsStr::from_bytes(&rule.module)));
    let usual = ["/usr/lib64/security", "/usr/lib/security"];
    let paths = named.filter(|path| path.is_absolute()).map(Path::to_owned);
    paths
        .chain(usual.map(|directory| Path::new(directory).join(OURS)))
        .filter(|path| is_there(case.root, path))
        .collect()
}

fn is_there(root: &Root, path: &Path) -> bool {
    root.stat(path).is_ok()
}

/// `system_u:object_r:lib_t:s0`. `None`: the file has none, or it cannot be told.
fn label(path: &Path) -> Option<Vec<u8>> {
    let mut text = [0_u8; 256];
    let length = getxattr(path, "security.selinux", &mut text).ok()?;
    Some(text.get(..length)?.strip_suffix(b"\0").unwrap_or(text.get(..length)?).to_vec())
}

fn judge_label(path: &Path, label: &Option<Vec<u8>>, is_right: impl Fn(&str) -> bool) -> Option<Finding> {
    let text = std::str::from_utf8(label.as_ref()?).ok()?;
    let kind = text.split(':').nth(2)?;
    if is_right(kind) {
        return None;
    }
    let shown = path.as_os_str().as_bytes().escape_ascii();
    Some(Finding {
        weight: Weight::Weak,
        name: "selinux-label",
        service: None,
        what: format!("{shown} has the SELinux type `{}`", kind.escape_debug()),
        place: Some(shown.to_string()),
        why: "Where SELinux is enforcing, sshd and other confined programs may not use it: nobody gets in.".to_owned(),
        way_out: "Give it the label that the system's policy has for this path:".to_owned(),
        lines: vec![format!("restorecon -v {shown}")],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_keeps_right_is_weak_and_one_that_cannot_be_asked_a_note() {
        let judged = |answer| {
            let mut report = Report::default();
            judge_clock(answer, &mut report);
            (report.findings.iter().map(|finding| finding.name).collect::<Vec<_>>(), report.notes.len())
        };
        assert_eq!(judged(Ok(true)), (vec![], 0));
        assert_eq!(judged(Ok(false)), (vec!["clock"], 0));
        assert_eq!(judged(Err(Errno::PERM)), (vec![], 1));
    }

    #[test]
    fn a_label_that_keeps_sshd_away_is_weak() {
        let judged = |label: &str, is_right: &dyn Fn(&str) -> bool| {
            judge_label(Path::new("/lib/x"), &Some(label.into()), is_right).is_some()
        };
        let of_library = |kind: &str| LIBRARIES.contains(&kind);
        assert!(!judged("system_u:object_r:lib_t:s0", &of_library));
        assert!(judged("unconfined_u:object_r:user_tmp_t:s0", &of_library));
        let of_state = |kind: &str| !UNLABELLED.contains(&kind);
        assert!(!judged("system_u:object_r:var_lib_t:s0", &of_state));
        assert!(judged("system_u:object_r:default_t:s0", &of_state));
        assert!(judge_label(Path::new("/lib/x"), &None, of_library).is_none());
        let finding = judge_label(Path::new("/lib/x"), &Some(b"u:r:\x1b_t:s0".to_vec()), of_library).unwrap();
        assert!(!finding.what.contains('\x1b') && finding.lines == ["restorecon -v /lib/x"]);
    }
}
