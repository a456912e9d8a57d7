//! The hosts of the fleet: what each says of itself.

use super::document::{self, Host};
use super::{FleetStore, StoreError};
use crate::fleet::conf;

/// How often a host says that it is there, in seconds.
pub const REPORT_EVERY: u64 = 300;

impl FleetStore<'_> {
    /// Says that this host is there, and which keys it has, unless it has said the same a moment ago.
    ///
    /// # Errors
    /// [`StoreError`]; also where this host was revoked.
    pub fn report(&self, version: &str) -> Result<(), StoreError> {
        let name = &self.fleet.host;
        let key = format!("{}{name}", document::HOSTS_AT);
        let keys: Vec<_> = self.ring.keys().map(|(id, is_active)| (id.to_string(), is_active)).collect();
        let now = (self.now)();
        self.transact(std::slice::from_ref(&key), |transaction| {
            let before = transaction.host(&key, name)?;
            if before.revoked.is_some() {
                return Err(StoreError::Failed(crate::fact::Fact::new("host-revoked").with("host", name).or(
                    "pam-totp fleet revoke was said of it: give it another name, new keys and a new certificate",
                )));
            }
            let is_new = before.keys != keys || before.version != version;
            if is_new || now.saturating_sub(before.at) >= REPORT_EVERY {
                let host = Host {
                    name: name.clone(),
                    keys: keys.clone(),
                    version: version.to_owned(),
                    at: now,
                    revoked: None,
                };
                transaction.put(&key, host.text().map_err(StoreError::Failed)?);
            }
            Ok(())
        })
    }

    /// The hosts, by name. What no host can be called is none, whoever wrote it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn hosts(&self) -> Result<Vec<Host>, StoreError> {
        let (fleet, mut hosts) = (self.begin(&[])?, Vec::new());
        self.list(document::HOSTS_AT, &mut |kv| {
            let name = self.name_of(document::HOSTS_AT, &kv).filter(|name| conf::is_name(name));
            let Some(name) = name else { return Ok(()) };
            let host = fleet.listed(kv).and_then(|(key, one)| one.host(&key, &name));
            // Of whom nothing can be read nothing is known but that there is one, or was, or that somebody says so.
            hosts.push(host.unwrap_or(Host { name, ..Host::default() }));
            Ok(())
        })?;
        Ok(hosts)
    }

    /// The revision of the cluster at which the latest document was written of those that nobody has written since a time
    /// (seconds since 1970). `None`: all were.
    ///
    /// # Errors
    /// [`StoreError`]; also where one of them cannot be read.
    pub fn latest_before(&self, time: u64) -> Result<Option<u64>, StoreError> {
        let mut latest = None;
        self.each("", |_, transaction, key| {
            let moment = transaction.moment(key).filter(|(at, _)| *at < time);
            latest = latest.max(moment.map(|(_, revision)| revision));
            Ok(())
        })?;
        Ok(latest)
    }

    /// Says that a host is none of the fleet any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn strike_off(&self, name: &str) -> Result<(), StoreError> {
        let key = format!("{}{name}", document::HOSTS_AT);
        self.transact(std::slice::from_ref(&key), |transaction| {
            let host = Host { revoked: Some((self.now)()), ..transaction.host(&key, name)? };
            transaction.put(&key, host.text().map_err(StoreError::Failed)?);
            Ok(())
        })
    }
}
