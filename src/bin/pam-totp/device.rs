//! `pam-totp device`: the devices of somebody.

use crate::common_ground;
use crate::host::{self, Subject, Whose, by_store};
use crate::new_device::{self, NewDevice};
use crate::self_service::{self, Own};
use crate::status;
use anyhow::{Result, bail, ensure};
use pam_totp::fact::Fact;
use pam_totp::record::native::is_device_name;
use pam_totp::record::{Record, no_device};
use std::io::{self, Write};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a secret, show it as a QR code, ask for one code, and add the device
    Add {
        /// What it is called
        name: String,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        device: new_device::Arguments,
    },
    /// Show the devices; of an account that several people share, those of all of them
    List {
        /// Whose (the same as --user)
        #[arg(value_name = "USER", conflicts_with = "user")]
        name: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Give a device another name
    Rename {
        /// What it is called
        old: String,
        /// What it shall be called
        new: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Remove a device: its codes stop working at once
    Remove {
        /// What it is called
        name: String,
        /// Also the last one, by root alone: nobody gets in as this person from then on
        #[arg(short, long)]
        force: bool,
        #[command(flatten)]
        whose: Whose,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Add { name, whose, device } => add(name, whose, device),
        Command::List { name, whose } => list(name.as_ref(), whose),
        Command::Rename { old, new, whose } => rename(old, new, whose),
        Command::Remove { name, force, whose } => remove(name, *force, whose),
    }
}

const CHANGE: &str = "change the devices in the root-only store";
const READ: &str = "read the root-only store";

fn subject(whose: &Whose) -> Result<Subject> {
    let subject = whose.subject(CHANGE)?;
    subject.ensure_system_store("holds one device, without a name")?;
    Ok(subject)
}

/// What a device can be called.
pub(crate) fn ensure_name(name: &str) -> Result<()> {
    ensure!(is_device_name(name), "a device has a name of 1 to 64 letters, without quotes or blanks around it");
    Ok(())
}

fn add(name: &str, whose: &Whose, arguments: &new_device::Arguments) -> Result<()> {
    ensure_name(name)?;
    if let Some(own) = self_service::own(whose, CHANGE)? {
        return add_own(&own, name, whose, arguments);
    }
    let subject = subject(whose)?;
    let store = subject.store();
    ensure_free(&store.load(&subject.person).map_err(by_store)?, name)?;
    let new =
        NewDevice::new(arguments, &subject.name(), arguments.counter_based, subject.policy.min_secret_bits.value)?;
    common_ground::ensure_names(new.uri().expose())?;
    if !arguments.quiet {
        common_ground::warn(new.uri().expose());
    }
    new.show(whose.json, None)?;
    let device = new.confirmed(new.device(name), false)?;
    if whose.json {
        // Before it is stored, as in `enrol`.
        print_object(&subject, name, &new)?;
    }
    store.change(&subject.person, &mut |record| record.add(device.clone())).map_err(by_store)?;
    if !whose.json && !arguments.quiet {
        say!("{}: {name} added.", subject.title());
    }
    Ok(())
}

/// By the person themselves: the agent makes the secret, and stores it once it has seen its first code.
fn add_own(own: &Own, name: &str, whose: &Whose, arguments: &new_device::Arguments) -> Result<()> {
    ensure!(
        !arguments.no_confirm && !arguments.quiet,
        "only root can add a device that has shown no code: leave --no-confirm and --quiet out"
    );
    let new = NewDevice::new(arguments, &own.subject.name(), arguments.counter_based, 0)?;
    common_ground::ensure_names(new.uri().expose())?;
    common_ground::warn(new.uri().expose());
    let (new, proposal) = own.add(name, new)?;
    new.show(whose.json, None)?;
    proposal.confirmed()?;
    if whose.json {
        return print_object(&own.subject, name, &new);
    }
    say!("{}: {name} added.", own.subject.title());
    Ok(())
}

fn print_object(subject: &Subject, name: &str, new: &NewDevice) -> Result<()> {
    let (secret, uri) = (new.new.secret(), new.uri());
    let object = subject.object(serde_json::json!({
        "device": name, "secret": secret.expose(), "uri": uri.expose(),
    }));
    writeln!(io::stdout(), "{object}").map_err(Into::into)
}

fn ensure_free(record: &Record, name: &str) -> Result<()> {
    ensure!(record.device(name).is_none(), "there is a device `{name}` already");
    Ok(())
}

fn list(name: Option<&String>, whose: &Whose) -> Result<()> {
    let whose = Whose { user: whose.user.clone().or_else(|| name.cloned()), ..whose.clone() };
    if let Some(own) = self_service::own(&whose, READ)? {
        return list_own(&own, whose.json);
    }
    let subject = whose.subject(READ)?;
    let store = subject.store();
    let mut people = match (subject.person.key(), store.admission()) {
        (None, Some(admission)) => admission.people_of_account(&subject.person).map_err(by_store)?,
        _ => Vec::new(),
    };
    if people.is_empty() {
        people.push(subject.person.clone());
    }
    let mut objects = Vec::new();
    let mut broken = Vec::new();
    for person in &people {
        let record = match store.load(person) {
            Ok(record) => record,
            // One that cannot be read hides nobody else's.
            Err(error) => {
                broken.push(format!("{}: {}", host::title(person), by_store(error)));
                continue;
            }
        };
        if whose.json {
            objects.extend(record.devices.iter().map(|device| status::object(device, person.key())));
        } else {
            let key = person.key().map_or_else(String::new, |key| format!("{key} "));
            record.devices.iter().try_for_each(|device| writeln!(io::stdout(), "{key}{}", status::line(device)))?;
        }
    }
    if whose.json {
        writeln!(io::stdout(), "{}", subject.object(serde_json::json!({ "devices": objects })))?;
    }
    ensure!(broken.is_empty(), "{}", broken.join("; "));
    Ok(())
}

fn list_own(own: &Own, json: bool) -> Result<()> {
    let devices = own.status()?.found.map(|(_, record)| record.devices).unwrap_or_default();
    if json {
        let devices: Vec<_> = devices.iter().map(|device| status::object(device, None)).collect();
        say!("{}", own.subject.object(serde_json::json!({ "devices": devices })));
    } else {
        devices.iter().for_each(|device| say!("{}", status::line(device)));
    }
    Ok(())
}

fn rename(old: &str, new: &str, whose: &Whose) -> Result<()> {
    ensure_name(new)?;
    let subject = subject(whose)?;
    subject
        .store()
        .change(&subject.person, &mut |record| {
            if record.device(new).is_some() {
                return Err(Fact::new("name-taken").with("device", new));
            }
            let device = record.devices.iter_mut().find(|device| device.name == old);
            new.clone_into(&mut device.ok_or_else(|| no_device(old))?.name);
            Ok(())
        })
        .map_err(by_store)?;
    report(whose, &subject, old, &format!("is called {new} now"), serde_json::json!({ "renamed": new }))
}

fn remove(name: &str, force: bool, whose: &Whose) -> Result<()> {
    if let Some(own) = self_service::own(whose, CHANGE)? {
        // No device has a name that is none.
        ensure_name(name)?;
        own.remove(name)?;
        return report(whose, &own.subject, name, "removed", serde_json::json!({ "removed": true }));
    }
    let subject = subject(whose)?;
    let store = subject.store();
    let record = store.load(&subject.person).map_err(by_store)?;
    if record.devices.iter().all(|device| device.name == name) && record.device(name).is_some() && !force {
        bail!("{name} is the last device: with --force nobody gets in as {} until there is another", subject.title());
    }
    store
        .change(&subject.person, &mut |record| {
            record.remove(name)?;
            // Somebody else removed the others meanwhile.
            if record.devices.is_empty() && !force {
                return Err(Fact::new("last-device").with("device", name).or("--force removes it"));
            }
            Ok(())
        })
        .map_err(by_store)?;
    report(whose, &subject, name, "removed", serde_json::json!({ "removed": true }))
}

fn report(whose: &Whose, subject: &Subject, device: &str, words: &str, mut object: serde_json::Value) -> Result<()> {
    if whose.json {
        if let Some(object) = object.as_object_mut() {
            object.insert("device".to_owned(), device.into());
        }
        say!("{}", subject.object(object));
    } else {
        say!("{}: {device} {words}.", subject.title());
    }
    Ok(())
}
