//! Recovery codes as a root-only record keeps them: salted and hashed, so that they cannot be read from it. (An imported
//! scratch code of eight digits can be found by trying all of them.)

use crate::secret::without_traces;
use constant_time_eq::constant_time_eq_n;
use sha2::{Digest, Sha256};

/// Bytes of the salt.
pub(super) const SALT: usize = 16;
/// Bytes of a hash.
pub(super) const HASH: usize = 32;

/// Codes that have not been spent.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RecoveryCodes {
    salt: [u8; SALT],
    hashes: Vec<[u8; HASH]>,
}

impl RecoveryCodes {
    /// Hashes codes, each as it is compared: the bytes of a recovery code, the digits of a scratch code.
    pub fn new<'a>(salt: [u8; SALT], codes: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self { salt, hashes: codes.into_iter().map(|code| hash(&salt, code)).collect() }
    }

    /// Adds a code.
    pub fn add(&mut self, code: &[u8]) {
        self.hashes.push(hash(&self.salt, code));
    }

    /// What a record holds.
    pub const fn from_parts(salt: [u8; SALT], hashes: Vec<[u8; HASH]>) -> Self {
        Self { salt, hashes }
    }

    /// What goes into a record.
    pub fn parts(&self) -> (&[u8; SALT], &[[u8; HASH]]) {
        (&self.salt, &self.hashes)
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether all have been spent, or there never were any.
    pub const fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Takes all out that are none of these. Where none of these is one of them, it leaves them as they are, and says `false`.
    pub fn keep_only<'a>(&mut self, codes: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let others: Vec<_> = codes.into_iter().map(|code| hash(&self.salt, code)).collect();
        let is_known = |own: &[u8; HASH]| others.iter().any(|other| constant_time_eq_n(own, other));
        if !self.hashes.iter().any(is_known) {
            return false;
        }
        self.hashes.retain(is_known);
        true
    }

    /// Takes a code out if it is one of them. All are compared.
    pub fn spend(&mut self, code: &[u8]) -> bool {
        let typed = hash(&self.salt, code);
        let before = self.hashes.len();
        self.hashes.retain(|hash| !constant_time_eq_n(hash, &typed));
        self.hashes.len() < before
    }
}

fn hash(salt: &[u8; SALT], code: &[u8]) -> [u8; HASH] {
    without_traces(|| Sha256::new().chain_update(salt).chain_update(code).finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_spent_once_and_no_other_with_it() {
        let mut codes = RecoveryCodes::new([7; SALT], [&b"one"[..], b"two", b"one"]);
        assert!(!codes.spend(b"three") && !codes.spend(b"") && codes.len() == 3);
        assert!(codes.spend(b"one"));
        assert!(!codes.spend(b"one"), "its twin went with it");
        assert!(codes.spend(b"two") && codes.is_empty() && !codes.spend(b"two"));
    }

    #[test]
    fn of_two_lists_of_the_same_codes_what_both_have_is_kept() {
        let mut codes = RecoveryCodes::new([7; SALT], [&b"one"[..], b"two", b"three"]);
        assert!(!codes.keep_only([&b"four"[..]]) && !codes.keep_only([]) && codes.len() == 3);
        assert!(codes.keep_only([&b"four"[..], b"three", b"one"]) && codes.len() == 2);
        assert!(!codes.spend(b"two") && codes.spend(b"one") && codes.spend(b"three"));
    }

    #[test]
    fn a_salt_makes_the_same_code_look_different() {
        let hashes = |salt| RecoveryCodes::new([salt; SALT], [&b"one"[..]]).parts().1.to_vec();
        assert_ne!(hashes(1), hashes(2));
        // sha256 of the salt's bytes and the code's, so that another program can check it.
        let expected = Sha256::digest(b"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01one");
        assert_eq!(hashes(1), [<[u8; HASH]>::from(expected)]);
    }
}
