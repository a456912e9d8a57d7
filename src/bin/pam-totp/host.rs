//! This host: its policy, and who may change it.

use anyhow::{Result, anyhow, ensure};
use pam_totp::options::Options;
use pam_totp::policy::{Document, Policy};
use pam_totp::system::passwd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What holds where no service has a word of its own. While there is something wrong with the policy nobody can log in:
/// better said now than then.
pub(crate) fn policy(conf: Option<&PathBuf>) -> Result<Policy> {
    let document = Document::load(conf.map(|path| path.as_os_str().as_bytes())).map_err(|fact| anyhow!("{fact}"))?;
    Ok(Policy::new("", &Options::default(), &document))
}

/// Ends the program for everybody but root.
pub(crate) fn ensure_root(what: &str) -> Result<()> {
    ensure!(passwd::process_uids().1 == 0, "only root can {what}");
    Ok(())
}
