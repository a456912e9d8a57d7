//! Whose code is asked for.

pub mod login_key;

use crate::fact::Fact;
use crate::options::FixedUser;
use crate::policy::{Identity, Policy};
use crate::system::Errno;
use crate::system::passwd::{self, Account};
use login_key::NoHolder;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Longest name that is taken unseen (with `user=`, where no user database vouches for it).
const MAX_UNVOUCHED_NAME: usize = 64;

/// The uid, and gid, of whoever has none here (/proc/sys/kernel/overflowuid, which nobody changes).
pub(crate) const NOBODY: u32 = 65534;

/// A person whose code can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    name: Vec<u8>,
    uid: u32,
    gid: u32,
    home: Option<PathBuf>,
    key: Option<String>,
}

/// Somebody by the name of a file, whether they are in the user database or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The account.
    pub name: Vec<u8>,
    /// The key of one of its people.
    pub key: Option<String>,
}

impl Named {
    /// As [`Person::file_name`].
    pub fn file_name(&self) -> String {
        let mut text = String::with_capacity(self.name.len());
        push_encoded(&mut text, &self.name);
        if let Some(key) = &self.key {
            text.push(HOLDER);
            push_encoded(&mut text, key.as_bytes());
        }
        text
    }
}

/// What stands between an account and the holder of one of its keys in the name of a file. No name has one in it.
const HOLDER: char = ',';

impl Person {
    /// The canonical name. Contains no `/` and is neither `.` nor `..`.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The key that says which of the people of an account this is: `SHA256:…`, or `key-id:…` of a certificate. `None`:
    /// the account itself.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The holder of a key of this account. `None`: that is no key.
    #[must_use]
    pub fn holder(&self, key: &str) -> Option<Self> {
        login_key::is_holder(key).then(|| Self { key: Some(key.to_owned()), ..self.clone() })
    }

    /// Who it is, for somebody who may find a record and no account.
    pub fn named(&self) -> Named {
        Named { name: self.name.clone(), key: self.key.clone() }
    }

    /// The account, whoever of its people this is.
    #[must_use]
    pub fn account(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    /// The name as that of a file, with the key behind a comma: every byte outside `[A-Za-z0-9_.@-]` is `%XX`.
    pub fn file_name(&self) -> String {
        self.named().file_name()
    }

    /// The name and the key of whom [`Person::file_name`] is such a name. `None`: it is nobody's.
    pub fn of_file_name(text: &str) -> Option<Named> {
        let (name, key) = match text.split_once(HOLDER) {
            Some((name, key)) => (name, Some(String::from_utf8(decoded(key)?).ok()?)),
            None => (text, None),
        };
        let name = decoded(name)?;
        let is_somebody = !is_path_like(&name) && key.as_deref().is_none_or(login_key::is_holder);
        is_somebody.then_some(Named { name, key })
    }

    /// With whose rights the person's files are read and written.
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The group to go with it.
    pub const fn gid(&self) -> u32 {
        self.gid
    }

    /// The home, unless `user=` is set: then the files are somebody else's.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Whether the name is in no user database (`user=`): it is whatever was typed, and in no group.
    pub const fn is_virtual(&self) -> bool {
        self.home.is_none()
    }

    /// Somebody in the user database; what counts from here on is the name as the database spells it.
    ///
    /// # Errors
    /// [`Unidentified`].
    pub fn in_database(name: &[u8]) -> Result<Self, Unidentified> {
        let account = passwd::by_name(name).map_err(Unidentified::Database)?.ok_or(Unidentified::Unknown)?;
        Self::from_account(account)
    }

    /// Somebody who has nothing, for a look that takes as long as at who has no device: of a name that no user can have
    /// (passwd(5)), and with the rights of nobody's.
    pub fn nobody() -> Self {
        Self { name: b":".to_vec(), uid: NOBODY, gid: NOBODY, home: Some("/nonexistent".into()), key: None }
    }

    /// Somebody by their entry in the user database.
    ///
    /// # Errors
    /// [`Unidentified::Name`].
    pub fn from_account(Account { name, uid, gid, home, .. }: Account) -> Result<Self, Unidentified> {
        if is_path_like(&name) {
            return Err(Unidentified::Name);
        }
        Ok(Self { name, uid, gid, home: Some(home), key: None })
    }

    #[cfg(test)]
    pub(crate) fn running_this_process() -> Self {
        let account = passwd::by_uid(passwd::process_uids().1).unwrap().unwrap();
        Self::from_account(account).unwrap()
    }

    #[cfg(test)]
    pub(crate) fn at_home(self, home: &Path) -> Self {
        Self { home: Some(home.to_owned()), ..self }
    }
}

/// Who is to be asked, given the name that the application is logging in, what sshd says about keys (`login_key`), and who
/// runs the program, which is asked for where it matters.
///
/// With `user=` that name need not be in any database (virtual users of a VPN or a web server), so it has to look like
/// one: it becomes part of a path.
///
/// # Errors
/// [`Unidentified`].
pub fn identify(
    pam_user: &[u8],
    policy: &Policy,
    login_key: &[u8],
    caller: impl FnOnce() -> Result<u32, Errno>,
) -> Result<Person, Unidentified> {
    match (&policy.options.user, policy.identity.value) {
        (None, Identity::PamUser) => Person::in_database(pam_user),
        (None, Identity::Caller) => {
            let account = caller().and_then(passwd::by_uid).map_err(Unidentified::Database)?;
            Person::from_account(account.ok_or(Unidentified::Unknown)?)
        }
        (None, Identity::LoginKey) => {
            let account = Person::in_database(pam_user)?;
            let key = login_key::holder(login_key, policy.cert_identity.as_ref()).map_err(Unidentified::NoHolder)?;
            Ok(Person { key: Some(key), ..account })
        }
        (Some(fixed), Identity::PamUser) => virtual_user(pam_user, fixed),
        (Some(_), Identity::Caller | Identity::LoginKey) => Err(Unidentified::TwoIdentities),
    }
}

/// Whoever runs this program: by its real uid, or where that is root's, by whom the session belongs to. (Where the uid is
/// somebody's, the login uid of audit(8) says nothing: whoever has none can set it.)
///
/// # Errors
/// The login uid cannot be read.
pub fn caller() -> Result<u32, Errno> {
    match passwd::process_uids() {
        (0, _) => Ok(passwd::login_uid()?.unwrap_or(0)),
        (uid, _) => Ok(uid),
    }
}

fn virtual_user(pam_user: &[u8], fixed: &FixedUser) -> Result<Person, Unidentified> {
    let account = match fixed {
        FixedUser::Uid(uid) => passwd::by_uid(*uid),
        FixedUser::Name(name) => passwd::by_name(name),
    };
    let owner = account.map_err(Unidentified::Database)?.ok_or(Unidentified::NoFixedUser)?;
    if pam_user.len() > MAX_UNVOUCHED_NAME || !pam_user.iter().copied().all(is_plain) || is_path_like(pam_user) {
        return Err(Unidentified::Name);
    }
    Ok(Person { name: pam_user.to_vec(), uid: owner.uid, gid: owner.gid, home: None, key: None })
}

fn push_encoded(text: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

/// `None`: [`push_encoded`] writes no such text.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let (byte, behind) = match first {
            b'%' => {
                let (digits, behind) = behind.split_at_checked(2)?;
                (u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?, behind)
            }
            plain => (plain, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    let mut again = String::new();
    push_encoded(&mut again, &bytes);
    (again == text).then_some(bytes)
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'@' | b'-')
}

fn is_path_like(name: &[u8]) -> bool {
    matches!(name, b"" | b"." | b"..") || name.contains(&b'/')
}

/// Why there is nobody to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unidentified {
    /// No such user.
    Unknown,
    /// A name that could be a path, or with `user=` has other characters than `[A-Za-z0-9_.@-]`.
    Name,
    /// The user of `user=` does not exist.
    NoFixedUser,
    /// The database cannot be asked.
    Database(Errno),
    /// The policy goes by the login key, and there is none to go by.
    NoHolder(NoHolder),
    /// `user=` beside an `identity` of the policy.
    TwoIdentities,
    /// Whoever asks may not ask about this one (see `[[trusted_caller]]`).
    NotTheirs,
}

impl Unidentified {
    /// Whether the fault is the administrator's and the same for everybody.
    pub const fn is_misconfigured(self) -> bool {
        matches!(self, Self::NoFixedUser | Self::TwoIdentities)
    }

    /// For the log.
    pub fn fact(self) -> Fact {
        match self {
            Self::Unknown => Fact::new("unknown-user"),
            Self::Name => Fact::new("bad-user-name"),
            Self::NoFixedUser => Fact::new("bad-argument")
                .with("argument", "user")
                .or("the user that user= names does not exist; anything may follow no uid"),
            Self::Database(error) => Fact::new("user-database").with_error(error),
            Self::NoHolder(reason) => reason.fact(),
            Self::NotTheirs => Fact::new("caller-refused")
                .with("because", "not-in-its-groups")
                .or("root, or in none of the groups of this [[trusted_caller]]"),
            Self::TwoIdentities => Fact::new("bad-argument")
                .with("argument", "user")
                .or("user= says who it is, and so does `identity` in the policy: take one out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_that_of_one_person_alone() {
        let root = Person::in_database(b"root").unwrap();
        let key = format!("SHA256:{}", "a+/".repeat(14) + "A");
        let holder = root.holder(&key).unwrap();
        let name = holder.file_name();
        assert_eq!(name, format!("root,SHA256%3A{}A", "a%2B%2F".repeat(14)));
        assert_eq!(Person::of_file_name(&name), Some(Named { name: b"root".to_vec(), key: Some(key.clone()) }));
        assert_eq!(Person::of_file_name(&name).unwrap().file_name(), name);
        assert_eq!(Person::of_file_name("root"), Some(Named { name: b"root".to_vec(), key: None }));
        assert_eq!(
            Person::of_file_name("M%C3%BCller%2Cx"),
            Some(Named { name: "Müller,x".as_bytes().to_vec(), key: None })
        );
        assert_eq!((holder.account(), holder.key()), (root.clone(), Some(key.as_str())));
        for nobodys in
            ["", "%2", "%zz", "%41", "a%2f", "%2F", ".", "..", "root,", "root,x", "root~", "root,key-id:a,b", "%+1"]
        {
            assert_eq!(Person::of_file_name(nobodys), None, "{nobodys}");
        }
        for no_key in
            ["", "SHA256:", "SHA256:x", "MD5:x", "key-id:", "key-id:a b", "key-id:a,b", &key[1..], &format!("{key}x")]
        {
            assert!(root.holder(no_key).is_none(), "{no_key}");
        }
        assert!(root.holder("key-id:alice@example.org").is_some());
    }
}
