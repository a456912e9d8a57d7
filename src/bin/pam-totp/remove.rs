//! `pam-totp remove` and `pam-totp reset`.

use crate::host::{Subject, Whose, by_store, ensure_root};
use anyhow::{Result, ensure};

/// Removes somebody's record. Nobody gets in as them until they are enrolled again.
pub(crate) fn remove(whose: &Whose) -> Result<()> {
    let subject = whose.subject("change the root-only store")?;
    let was_there = subject.store().remove(&subject.person).map_err(by_store)?;
    let name = subject.title();
    if whose.json {
        say!("{}", subject.object(serde_json::json!({ "removed": was_there })));
    }
    ensure!(was_there, "{name} has no record{}", with_keys(&subject)?);
    if !whose.json {
        let is_remembered = subject.store().never_enrolled(&subject.person) != Ok(true);
        let rest = match subject.person.key() {
            None => " Without a device nobody is let in by that name; after pam-totp reset as if never enrolled.",
            Some(_) => " Nobody is let in with that key unless they are invited again (pam-totp invite).",
        };
        say!("{name}: removed.{}", if is_remembered { rest } else { "" });
    }
    Ok(())
}

/// Removes somebody's record and that there ever was one: what holds for people who never enrolled holds for them.
pub(crate) fn reset(whose: &Whose) -> Result<()> {
    // Also where the store is the person's: that there was a record is for root to forget.
    ensure_root("forget that somebody was enrolled")?;
    let subject = whose.subject("change the root-only store")?;
    let store = subject.store();
    let removed = store.remove(&subject.person).map_err(by_store);
    // Also where the home is gone, and the file with it.
    let was_known = store.release(&subject.person).map_err(by_store)?;
    let was_there = removed?;
    let name = subject.title();
    let had_one = store.never_enrolled(&subject.person).map(|never| !never);
    let is_left = subject.person.key().is_none() && had_one == Ok(true);
    if whose.json {
        say!("{}", subject.object(serde_json::json!({ "removed": was_there, "forgotten": was_known && !is_left })));
    }
    let keys = with_keys(&subject)?;
    ensure!(!is_left || !keys.is_empty(), "{name}: not forgotten; there is a secret in the home");
    match (whose.json, had_one) {
        (true, _) => {}
        (false, _) if is_left => say!("{name}: not forgotten{keys}"),
        (false, Ok(false)) => say!("{name}: never enrolled, as far as this host knows."),
        (false, Ok(true)) => say!(
            "{name}: forgotten. The account has had devices: with this key one needs a ticket, or the code of one of them."
        ),
        (false, Err(error)) => {
            say!("{name}: forgotten. Whether there is a secret in the home cannot be told: {}", by_store(error));
        }
    }
    Ok(())
}

/// What else there is of an account that several people share.
fn with_keys(subject: &Subject) -> Result<String> {
    let store = subject.store();
    let people = match (subject.person.key(), store.admission()) {
        (None, Some(admission)) => admission.people_of_account(&subject.person).map_err(by_store)?,
        _ => Vec::new(),
    };
    let count = people.iter().filter(|person| person.key().is_some()).count();
    let words = || format!("; there are {count} of people who share it: --key, and pam-totp device list shows them");
    Ok(if count == 0 { String::new() } else { words() })
}
