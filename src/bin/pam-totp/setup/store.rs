//! `pam-totp setup store`.

use crate::host::{by_fact, ensure_root, policy};
use anyhow::{Result, anyhow};
use pam_totp::ledger;
use pam_totp::policy::StoreKind;
use pam_totp::store::system::{self, FileSystem, Made};
use pam_totp::system::clock;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The policy file (default: /etc/security/pam_totp.toml, if it is there)
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(Arguments { conf, json }: &Arguments) -> Result<()> {
    ensure_root("set the store up")?;
    let policy = policy(conf.as_ref())?;
    let made = make(&policy.state_dir)?;
    let (name, promise) = promise(made.file_system);
    let is_in_use = policy.store.value == StoreKind::System;
    if *json {
        say!(
            "{}",
            serde_json::json!({
                "state_dir": policy.state_dir.to_string_lossy(),
                "store_id": made.id,
                "was_there": made.was_there,
                "file_system": name,
                "promise": promise,
                "in_use": is_in_use,
            })
        );
        return Ok(());
    }
    let became = if made.was_there { "was a store already" } else { "is a store now" };
    say!("{}: {became} ({}).\n{name}: {promise}.", policy.state_dir.display(), made.id);
    if !is_in_use {
        say!("The policy has store = \"home\": write store = \"system\" into [defaults] to use it.");
    }
    Ok(())
}

/// Makes a directory ready for root-only records.
pub(super) fn make(state_dir: &Path) -> Result<Made> {
    // What a login would make: better now, while there is room.
    ledger::open(state_dir, clock::moment).map_err(|error| anyhow!("{}", error.fact()))?;
    system::make(state_dir).map_err(by_fact)
}

/// The file system by name, and what it can promise.
pub(crate) fn promise(file_system: FileSystem) -> (String, &'static str) {
    let (name, promise) = match file_system {
        FileSystem::InPlace(name) => (name, "logins need no free block, and go on when the disk is full"),
        FileSystem::CopyOnWrite(name) => (
            name,
            "it copies on write: when the disk is full nobody gets in. Give state_dir an ext4 or xfs of its own, or keep room",
        ),
        FileSystem::Memory(name) => {
            (name, "everything is gone at the next boot, and then nobody gets in: for tests alone")
        }
        FileSystem::Network(name) => (
            name,
            "a network file system: a full or unreachable server denies, and locks between hosts are not to be relied on",
        ),
        FileSystem::Unknown(kind) => {
            return (
                format!("file system 0x{kind:x}"),
                "not known here: what happens on a full disk is not known either",
            );
        }
    };
    (name.to_owned(), promise)
}
