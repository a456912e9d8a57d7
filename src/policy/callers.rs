//! Servers that are not root and may ask the agent about others than themselves: PostgreSQL, for one.

use super::values::{Name, Set};
use crate::system::groups;
use serde::Deserialize;

/// `[[trusted_caller]]`: the agent believes this account whose code is asked for, at these services, of people in these groups.
/// Never about root: who has the account could ask about root's codes otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct TrustedCaller {
    user: Name,
    services: Vec<Name>,
    groups: Set<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    user: String,
    services: Vec<String>,
    groups: Set<Name>,
}

impl TryFrom<Written> for TrustedCaller {
    type Error = String;

    fn try_from(Written { user, services, groups }: Written) -> Result<Self, String> {
        if services.is_empty() {
            return Err("`services` must name a service, such as \"postgresql\"".to_owned());
        }
        let services = services.into_iter().map(Name::try_from).collect::<Result<_, _>>()?;
        Ok(Self { user: Name::try_from(user)?, services, groups })
    }
}

impl TrustedCaller {
    /// The account's name.
    pub fn user(&self) -> &str {
        &self.user.0
    }

    /// The groups whose members it may ask for, as far as they are named.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        let named = match &self.groups {
            Set::Any => &[],
            Set::Of(groups) => groups.as_slice(),
        };
        named.iter().map(|Name(group)| group.as_str())
    }

    /// Whether this is the account, and it may ask for somebody at that service.
    pub fn may_ask_at(&self, caller: &[u8], service: &[u8]) -> bool {
        let Self { user: Name(user), services, .. } = self;
        user.as_bytes() == caller && services.iter().any(|Name(listed)| listed.as_bytes() == service)
    }

    /// Whether it may ask for this person. A group that is unknown, or cannot be asked for, has no members here.
    pub fn may_ask_for(&self, name: &[u8], (uid, gid): (u32, u32)) -> bool {
        let is_in = |Name(group): &Name| groups::is_member(name, gid, group) == Ok(Some(true));
        uid != 0
            && match &self.groups {
                Set::Any => true,
                Set::Of(groups) => groups.iter().any(is_in),
            }
    }
}
