//! What of `pam-totp import` reads.

#[path = "../../src/bin/pam-totp/import/lines.rs"]
pub(crate) mod lines;
