//! `pam-totp`.
fn main() {}
