//! `pam-totp remove` and `pam-totp reset`.

use crate::host::{Whose, by_store, ensure_root};
use anyhow::{Result, ensure};

/// Removes somebody's record. Nobody gets in as them until they are enrolled again.
pub(crate) fn remove(whose: &Whose) -> Result<()> {
    let subject = whose.subject("change the root-only store")?;
    let was_there = subject.store().remove(&subject.person).map_err(by_store)?;
    let name = subject.name();
    if whose.json {
        say!("{}", serde_json::json!({ "user": name, "removed": was_there }));
    }
    ensure!(was_there, "{name} has no record");
    if !whose.json {
        let is_remembered = !subject.store().never_enrolled(&subject.person).map_err(by_store)?;
        let rest = " Without a device nobody is let in by that name; after pam-totp reset as if never enrolled.";
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
    let name = subject.name();
    if whose.json {
        say!("{}", serde_json::json!({ "user": name, "removed": was_there, "forgotten": was_known }));
    } else {
        say!("{name}: never enrolled, as far as this host knows.");
    }
    Ok(())
}
