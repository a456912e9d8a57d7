//! Which key sshd has accepted, by what it says in SSH_AUTH_INFO_0 of the PAM environment (ExposeAuthInfo of
//! sshd_config(5) is the same for sessions): a line for each method that has succeeded, `publickey TYPE BASE64` for a key.
//!
//! The blob is that of RFC 4253 section 6.6, or a certificate (PROTOCOL.certkeys of OpenSSH).

use crate::fact::Fact;
use crate::policy::{CertIdentity, CertName, Fingerprint};
use base64ct::{Base64, Base64Unpadded, Encoding};
use sha2::{Digest, Sha256};

/// Longest key id that names somebody: it becomes part of the name of a file.
const MAX_KEY_ID: usize = 64;
/// What the certificate of a user has in its type (and that of a host not).
const USER_CERTIFICATE: u32 = 1;

/// What kinds of keys are called.
const PLAIN: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// What kinds of certificates are called, and how many fields the public key has in them.
const CERTIFICATES: [(&str, usize); 7] = [
    ("ssh-ed25519-cert-v01@openssh.com", 1),
    ("ssh-rsa-cert-v01@openssh.com", 2),
    ("ecdsa-sha2-nistp256-cert-v01@openssh.com", 2),
    ("ecdsa-sha2-nistp384-cert-v01@openssh.com", 2),
    ("ecdsa-sha2-nistp521-cert-v01@openssh.com", 2),
    ("sk-ssh-ed25519-cert-v01@openssh.com", 2),
    ("sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", 3),
];

/// Whether sshd has accepted a key, and says so in lines that can all be read.
pub fn is_accepted(info: &[u8]) -> bool {
    accepted(info).is_some_and(|keys| !keys.is_empty())
}

/// What names the holder of the one key that was accepted: `SHA256:…`, as `ssh-keygen -l` shows it, or `key-id:…`.
///
/// # Errors
/// [`NoHolder`]. Nobody is taken for somebody else, or for the account.
pub(crate) fn holder(info: &[u8], certificates: Option<&CertIdentity>) -> Result<String, NoHolder> {
    let keys = accepted(info).ok_or(NoHolder::Unreadable)?;
    let [key] = keys.as_slice() else {
        return Err(if keys.is_empty() { NoHolder::None } else { NoHolder::Several });
    };
    if PLAIN.contains(&key.kind.as_str()) {
        return Ok(fingerprint(&key.blob));
    }
    if !CERTIFICATES.iter().any(|(kind, _)| *kind == key.kind) {
        return Err(NoHolder::Kind);
    }
    let certificates = certificates.ok_or(NoHolder::Certificate)?;
    let Certificate { key_id, ca } = Certificate::parse(key).ok_or(NoHolder::Unreadable)?;
    if !certificates.ca.iter().any(|named| named.text() == ca) {
        return Err(NoHolder::Authority);
    }
    match certificates.by {
        CertName::KeyId if is_key_id(&key_id) => Ok(format!("key-id:{key_id}")),
        CertName::KeyId => Err(NoHolder::KeyId),
    }
}

/// Whether a text could be what [`holder`] returns.
pub(crate) fn is_holder(text: &str) -> bool {
    Fingerprint::try_from(text.to_owned()).is_ok() || text.strip_prefix("key-id:").is_some_and(is_key_id)
}

fn is_key_id(key_id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@:+/-".contains(&byte);
    (1..=MAX_KEY_ID).contains(&key_id.len()) && key_id.bytes().all(is_plain)
}

/// A key that was accepted.
#[derive(PartialEq, Eq)]
struct Key {
    kind: String,
    blob: Vec<u8>,
}

/// The different keys, or the first two of them. `None`: there is a line about a key that is not as sshd writes it.
fn accepted(info: &[u8]) -> Option<Vec<Key>> {
    let text = std::str::from_utf8(info).ok()?;
    let mut keys = Vec::new();
    for line in text.split('\n') {
        let mut words = line.split(' ');
        if words.next() != Some("publickey") {
            continue;
        }
        let (Some(kind), Some(base64), None) = (words.next(), words.next(), words.next()) else { return None };
        let key = Key { kind: kind.to_owned(), blob: Base64::decode_vec(base64).ok()? };
        if Fields(&key.blob).text()? != key.kind {
            return None;
        }
        // Two are as good as more.
        if keys.len() < 2 && !keys.contains(&key) {
            keys.push(key);
        }
    }
    Some(keys)
}

fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", Base64Unpadded::encode_string(&Sha256::digest(blob)))
}

/// What counts of a certificate. sshd has checked its signature.
struct Certificate {
    key_id: String,
    /// The fingerprint of the key that signed it.
    ca: String,
}

impl Certificate {
    /// `None`: it is none, or that of a host.
    fn parse(key: &Key) -> Option<Self> {
        let (_, fields_of_key) = CERTIFICATES.iter().find(|(kind, _)| *kind == key.kind)?;
        let mut fields = Fields(&key.blob);
        // Type and nonce.
        for _ in 0..fields_of_key.checked_add(2)? {
            fields.bytes()?;
        }
        let _serial = fields.take(8)?;
        if fields.number()? != USER_CERTIFICATE {
            return None;
        }
        let key_id = fields.text()?.to_owned();
        let _principals = fields.bytes()?;
        let _valid_after_and_before = fields.take(16)?;
        let [_critical, _extensions, _reserved] = [fields.bytes()?, fields.bytes()?, fields.bytes()?];
        let ca = fingerprint(fields.bytes()?);
        let _signature = fields.bytes()?;
        fields.0.is_empty().then_some(Self { key_id, ca })
    }
}

/// What is left of a blob: strings with their lengths before them, and numbers (RFC 4251 section 5).
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// Why nobody is known by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHolder {
    /// No key was accepted.
    None,
    /// More than one was.
    Several,
    /// A line about a key cannot be read.
    Unreadable,
    /// A kind of key that is not known here.
    Kind,
    /// A certificate, and no `cert_identity`.
    Certificate,
    /// A certificate of an authority that `cert_identity` does not name.
    Authority,
    /// A certificate whose key id cannot name anybody.
    KeyId,
}

impl NoHolder {
    /// For the log.
    pub(crate) fn fact(self) -> Fact {
        let fact = Fact::new("no-login-key");
        match self {
            Self::None => fact.or(
                "sshd has accepted no key: AuthenticationMethods publickey,keyboard-interactive asks for one first",
            ),
            Self::Several => fact.or("sshd has accepted more than one key: whose code to ask for cannot be told"),
            Self::Unreadable => fact.or("what sshd says about the key in SSH_AUTH_INFO_0 cannot be read"),
            Self::Kind => fact.or("a kind of key that pam_totp does not know"),
            Self::Certificate => fact.or("a certificate; cert_identity in the policy says which of them name somebody"),
            Self::Authority => fact.or("a certificate of an authority that cert_identity does not name"),
            Self::KeyId => fact.or("the certificate's key id has to be 1 to 64 of A-Z a-z 0-9 _.@:+/-"),
        }
    }
}

#[cfg(test)]
mod tests;
