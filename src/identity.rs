//! Whose code is asked for.

use crate::fact::Fact;
use crate::options::{FixedUser, Options};
use crate::system::Errno;
use crate::system::passwd::{self, Account};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Longest name that is taken unseen (with `user=`, where no user database vouches for it).
const MAX_UNVOUCHED_NAME: usize = 64;

/// A person whose code can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    name: Vec<u8>,
    uid: u32,
    gid: u32,
    home: Option<PathBuf>,
}

impl Person {
    /// The canonical name. Contains no `/` and is neither `.` nor `..`.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The name as that of a file: every byte outside `[A-Za-z0-9_.@-]` is `%XX`.
    pub fn file_name(&self) -> String {
        self.name.iter().fold(String::with_capacity(self.name.len()), |mut text, &byte| {
            if is_plain(byte) {
                text.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
            text
        })
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

    fn from_account(Account { name, uid, gid, home }: Account) -> Result<Self, Unidentified> {
        if is_path_like(&name) {
            return Err(Unidentified::Name);
        }
        Ok(Self { name, uid, gid, home: Some(home) })
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

/// Who is to be asked, given the name that the application is logging in.
///
/// With `user=` that name need not be in any database (virtual users of a VPN or a web server), so it has to look like
/// one: it becomes part of a path.
///
/// # Errors
/// [`Unidentified`].
pub fn identify(pam_user: &[u8], options: &Options) -> Result<Person, Unidentified> {
    let Some(fixed) = &options.user else { return Person::in_database(pam_user) };
    let account = match fixed {
        FixedUser::Uid(uid) => passwd::by_uid(*uid),
        FixedUser::Name(name) => passwd::by_name(name),
    };
    let owner = account.map_err(Unidentified::Database)?.ok_or(Unidentified::NoFixedUser)?;
    if pam_user.len() > MAX_UNVOUCHED_NAME || !pam_user.iter().copied().all(is_plain) || is_path_like(pam_user) {
        return Err(Unidentified::Name);
    }
    Ok(Person { name: pam_user.to_vec(), uid: owner.uid, gid: owner.gid, home: None })
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
}

impl Unidentified {
    /// Whether the fault is the administrator's and the same for everybody.
    pub const fn is_misconfigured(self) -> bool {
        matches!(self, Self::NoFixedUser)
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
        }
    }
}
