//! What authenticator apps make of what is printed: the QR codes are read by two programs, and the URIs by the Key URI Format.
//! Nothing here knows how a URI is written.

use crate::support::machine::{ALICE, Machine};
use crate::support::output_of;
use crate::support::screen;
use crate::support::totp::{code_by, hotp_by, now};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::{fs, thread, time::Duration};

fn enrol(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = machine.command_as(ALICE, machine.program());
    command.args(["enrol", "--force"]).args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

// ---- The Key URI Format ----

/// What a URI says.
#[derive(Debug, PartialEq)]
struct KeyUri {
    kind: Kind,
    issuer: String,
    account: String,
    /// In base32.
    secret: String,
    algorithm: String,
    digits: u32,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Totp { period: u64 },
    Hotp { counter: u64 },
}

/// Takes a URI apart, and takes nothing that the format does not have.
fn parse(uri: &str) -> Result<KeyUri, String> {
    let rest = uri.strip_prefix("otpauth://").ok_or("another scheme")?;
    let (kind, rest) = rest.split_once('/').ok_or("no label")?;
    let (label, query) = rest.split_once('?').ok_or("no parameters")?;
    let (issuer, account) = label.split_once(':').ok_or("no issuer before the account")?;
    let (issuer, account) = (name(issuer)?, name(account)?);
    let mut parameters = BTreeMap::new();
    for parameter in query.split('&') {
        let (key, value) = parameter.split_once('=').ok_or(format!("no value: {parameter}"))?;
        if parameters.insert(key, value).is_some() {
            return Err(format!("twice: {key}"));
        }
    }
    let mut take = |key| parameters.remove(key);
    let secret = take("secret").ok_or("no secret")?.to_owned();
    let partial = [1, 3, 6].contains(&(secret.len() % 8)); // Lengths that no whole number of bytes has.
    if secret.is_empty() || partial || !secret.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7')) {
        return Err(format!("no base32 without padding: {secret}"));
    }
    if name(take("issuer").ok_or("no issuer")?)? != issuer {
        return Err("another issuer in the label".to_owned());
    }
    let algorithm = take("algorithm").unwrap_or("SHA1").to_owned();
    if !["SHA1", "SHA256", "SHA512"].contains(&algorithm.as_str()) {
        return Err(format!("algorithm: {algorithm}"));
    }
    let digits = number(take("digits").unwrap_or("6"))?;
    if ![6, 8].contains(&digits) {
        return Err(format!("digits: {digits}"));
    }
    let kind = match kind {
        "totp" => Kind::Totp { period: number(take("period").unwrap_or("30"))? },
        "hotp" => Kind::Hotp { counter: number(take("counter").ok_or("no counter")?)? },
        other => return Err(format!("type: {other}")),
    };
    match (kind, parameters.into_keys().next()) {
        (_, Some(other)) => Err(format!("not of the format: {other}")),
        (Kind::Totp { period: 0 }, None) => Err("no period".to_owned()),
        (kind, None) => Ok(KeyUri { kind, issuer, account, secret, algorithm, digits: digits as u32 }),
    }
}

/// An issuer or an account: percent-encoded (RFC 3986 section 2.1) UTF-8, in which there is something and no colon.
fn name(encoded: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = encoded.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        rest = others;
        match first {
            b'%' => {
                let (digits, others) = rest.split_at_checked(2).ok_or("a percent sign at the end")?;
                let digits = str::from_utf8(digits).map_err(|error| error.to_string())?;
                if digits != digits.to_uppercase() || digits.starts_with('+') {
                    return Err(format!("percent sign before {digits}"));
                }
                bytes.push(u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?);
                rest = others;
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => bytes.push(first),
            other => return Err(format!("not encoded: {}", char::from(other))),
        }
    }
    let name = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    if name.is_empty() || name.contains(':') { Err(format!("no name: {name:?}")) } else { Ok(name) }
}

/// Digits, without zeros before them.
fn number(text: &str) -> Result<u64, String> {
    let number = text.parse::<u64>().map_err(|error| error.to_string())?;
    if number.to_string() == text { Ok(number) } else { Err(format!("number: {text}")) }
}

#[test]
fn what_is_not_of_the_format_is_found() {
    let right = "otpauth://totp/a%20b:c@d?secret=GEZDGNBV&issuer=a%20b";
    assert_eq!(
        parse(right),
        Ok(KeyUri {
            kind: Kind::Totp { period: 30 },
            issuer: "a b".to_owned(),
            account: "c@d".to_owned(),
            secret: "GEZDGNBV".to_owned(),
            algorithm: "SHA1".to_owned(),
            digits: 6,
        })
    );
    assert!(parse(&format!("{right}&algorithm=SHA512&digits=8&period=60")).is_ok());
    assert!(parse(&format!("{}&counter=1", right.replace("totp", "hotp"))).is_ok());
    for (old, new) in [
        ("otpauth:", "otpauths:"),
        ("totp", "motp"),
        ("totp", "hotp"),
        ("a%20b:", ""),
        ("a%20b:", "a%20b%3A"),
        ("a%20b:", "a b:"),
        ("a%20b:", "a+b:"),
        ("a%20b:", ":"),
        (":c", ":c:"),
        (":c", ":c%3A"),
        ("c@d", "%c3%a9"),
        ("c@d", ""),
        (":c", ":%FF"),
        (":c", ":é"),
        ("@d", "/d"),
        ("@d", "%2"),
        ("GEZDGNBV", "GEZDGNBV======"),
        ("GEZDGNBV", "gezdgnbv"),
        ("GEZDGNBV", "GEZDGNB1"),
        ("GEZDGNBV", "GEZDGNBVG"),
        ("secret=GEZDGNBV&", ""),
        ("issuer=a%20b", "issuer=a"),
        ("&issuer=a%20b", ""),
        ("issuer=", "period=0&issuer="),
        ("issuer=", "period=030&issuer="),
        ("issuer=", "counter=1&issuer="),
        ("issuer=", "digits=7&issuer="),
        ("issuer=", "algorithm=MD5&issuer="),
        ("issuer=", "algorithm=sha1&issuer="),
        ("issuer=", "digits=6&digits=6&issuer="),
        ("issuer=", "image=x&issuer="),
        ("issuer=", "&issuer="),
    ] {
        let wrong = right.replace(old, new);
        assert!(wrong != right && parse(&wrong).is_err(), "{wrong}");
    }
}

// ---- As an app does it ----

/// What somebody chose, and how it was drawn.
struct Choice {
    flags: Vec<&'static str>,
    /// As the URI has to say it.
    algorithm: &'static str,
    digits: u32,
    kind: Kind,
    issuer: &'static str,
    account: &'static str,
}

impl Choice {
    fn named(issuer: &'static str, account: &'static str) -> Self {
        let kind = Kind::Totp { period: 30 };
        Self {
            flags: vec!["--issuer", issuer, "--label", account],
            algorithm: "SHA1",
            digits: 6,
            kind,
            issuer,
            account,
        }
    }

    fn with(mut self, flags: &[&'static str]) -> Self {
        self.flags.extend(flags);
        self
    }

    /// Every hash, number of digits and a few periods; and by counter.
    fn all_parameters() -> Vec<Self> {
        let mut choices = Vec::new();
        for algorithm in ["SHA1", "SHA256", "SHA512"] {
            for (digits, digits_text) in [(6, "6"), (8, "8")] {
                for (period, period_text) in [(30, "30"), (60, "60"), (20, "20")] {
                    let flags = ["--algorithm", algorithm, "--digits", digits_text, "--step-size", period_text];
                    let choice = Self::named("bastion", "alice@bastion").with(&flags);
                    choices.push(Self { algorithm, digits, kind: Kind::Totp { period }, ..choice });
                }
            }
        }
        for (digits, digits_text) in [(6, "6"), (8, "8")] {
            let choice = Self::named("bastion", "alice@bastion").with(&["--counter-based", "--digits", digits_text]);
            choices.push(Self { digits, kind: Kind::Hotp { counter: 1 }, ..choice });
        }
        choices
    }

    fn all_names() -> Vec<Self> {
        [
            ("Example, Inc.", "alice"),
            (" leading and trailing ", "  a  "),
            ("a@b", "alice@bastion.example.org"),
            ("R/D", "alice/admin"),
            ("R&D", "alice&secret=AAAAAAAA"),
            ("100 %", "%41%2B%"),
            ("a=b?c#d", "+1 (555) 0100"),
            ("Größe", "Jürgen Müßig"),
            ("東京", "Ελένη"),
            ("🔐 bastion", "alice👩‍💻"),
            ("\"quoted\"", "a\\b|c<d>{e}[f]^`'"),
            ("a;b,c!d$e*f", "~-._"),
            ("A name that is longer than anybody needs it, so that the code is a large one", "alice@bastion"),
        ]
        .map(|(issuer, account)| Self::named(issuer, account))
        .into()
    }

    /// Enrols with these choices and a photograph of the screen alone: the code that is typed is oathtool's, by what the
    /// picture says.
    fn enrol_by_camera(&self, machine: &Machine, mode: &str) {
        let screen = machine.shared().join("screen");
        let flags = [&self.flags[..], &["--json", "--qr-mode", mode]].concat();
        let mut child = enrol(machine, &flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&screen).unwrap())
            .spawn()
            .unwrap();
        let shown = screen::plain(&until(&screen, "Code from the app"));
        let scanned = screen::scan(&shown);
        assert_eq!(scanned, screen::uri(&shown), "{mode}");
        let read = parse(&scanned).unwrap_or_else(|error| panic!("{error}: {scanned}"));
        child.stdin.take().unwrap().write_all(format!("{}\n", read.code()).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{scanned}: {}", fs::read_to_string(&screen).unwrap());
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&object["uri"], &object["secret"]), (&scanned.as_str().into(), &read.secret.as_str().into()));
        let (issuer, account, algorithm) = (self.issuer.to_owned(), self.account.to_owned(), self.algorithm.to_owned());
        let kind = match self.kind {
            Kind::Totp { period } => Kind::Totp { period },
            Kind::Hotp { counter } => Kind::Hotp { counter },
        };
        let chosen = KeyUri { kind, issuer, account, secret: read.secret.clone(), algorithm, digits: self.digits };
        assert_eq!(read, chosen, "{scanned}");
    }
}

impl KeyUri {
    /// What an app shows.
    fn code(&self) -> String {
        let digits = format!("--digits={}", self.digits);
        match self.kind {
            Kind::Totp { period } => {
                let (totp, period) = (format!("--totp={}", self.algorithm), format!("--time-step-size={period}s"));
                code_by(&[&totp, &digits, &period], &self.secret, now())
            }
            Kind::Hotp { counter } => hotp_by(&[&digits], &self.secret, counter),
        }
    }
}

/// What is in a file once these words are.
fn until(file: &PathBuf, words: &str) -> String {
    let shown = (0..200).find_map(|_| {
        thread::sleep(Duration::from_millis(25));
        Some(fs::read_to_string(file).unwrap()).filter(|shown| shown.contains(words))
    });
    shown.unwrap_or_else(|| panic!("never said: {words}: {}", fs::read_to_string(file).unwrap()))
}

#[test]
fn two_scanners_read_every_hash_length_and_period_and_their_codes_are_right() {
    let machine = Machine::new();
    for (choice, mode) in Choice::all_parameters().iter().zip(["UTF8", "ANSI"].into_iter().cycle()) {
        choice.enrol_by_camera(&machine, mode);
    }
}

#[test]
fn two_scanners_read_every_name_as_it_was_given() {
    let machine = Machine::new();
    for (choice, mode) in Choice::all_names().iter().zip(["UTF8", "ANSI"].into_iter().cycle()) {
        choice.enrol_by_camera(&machine, mode);
    }
}

#[test]
fn two_scanners_read_the_codes_for_light_terminals_too() {
    let machine = Machine::new();
    for mode in ["UTF8_INVERSE", "ANSI_INVERSE"] {
        let shown = screen::plain(&output_of(&mut enrol(&machine, &["--no-confirm", "--qr-mode", mode])));
        assert_eq!(screen::scan_inverse(&shown), screen::uri(&shown), "{mode}");
    }
}

#[test]
fn a_code_is_found_among_other_text_and_with_the_blanks_at_the_ends_of_lines_cut_off() {
    let machine = Machine::new();
    for mode in ["UTF8", "ANSI", "UTF8_INVERSE", "ANSI_INVERSE"] {
        let shown = screen::plain(&output_of(&mut enrol(&machine, &["--no-confirm", "--qr-mode", mode])));
        let cut: String = shown.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let among = format!("# motd\n####\n\n   \nalice@bastion:~$ █ pam-totp enrol\n{cut}\n## \nalice@bastion:~$ \n");
        let scan = if mode.ends_with("INVERSE") { screen::scan_inverse } else { screen::scan };
        assert_eq!(scan(&among), screen::uri(&shown), "{mode}");
    }
}

// ---- What not every app reads ----

fn warnings(output: &Output) -> Vec<String> {
    let errors = text(&output.stderr);
    errors.lines().filter_map(|line| Some(line.strip_prefix("pam-totp: warning: ")?.to_owned())).collect()
}

/// The warnings are those about these choices, in this order.
fn warned_of(output: &Output, choices: &[&str]) {
    let warnings = warnings(output);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(warnings.len(), choices.len(), "{warnings:#?}");
    for (warning, choice) in warnings.iter().zip(choices) {
        assert!(warning.starts_with(choice) && warning.contains("Authenticator"), "{warning}");
        assert!(warning.contains("; all apps read "), "no way out: {warning}");
    }
}

const CHOICES: [(&[&str], &[&str]); 7] = [
    (&[], &[]),
    (&["--algorithm", "SHA1", "--digits", "6", "--step-size", "30", "--time-based"], &[]),
    (&["--algorithm", "sha256"], &["--algorithm SHA256: "]),
    (&["--digits", "7"], &["--digits 7: "]),
    (&["--step-size", "60"], &["--step-size 60: "]),
    (&["--counter-based"], &["--counter-based: "]),
    (
        &["--algorithm", "SHA512", "--digits", "8", "--step-size", "15"],
        &["--algorithm SHA512: ", "--digits 8: ", "--step-size 15: "],
    ),
];

#[test]
fn choices_that_not_every_app_reads_are_named_and_stored_all_the_same() {
    let machine = Machine::new();
    for (flags, choices) in CHOICES {
        let output = enrol(&machine, &[flags, &["--no-confirm"]].concat()).output().unwrap();
        warned_of(&output, choices);
        assert!(!text(&output.stdout).contains("warning"), "{output:?}");
        assert!(text(&output.stdout).contains("Stored in "), "{output:?}");
        let json = enrol(&machine, &[flags, &["--no-confirm", "--json"]].concat()).output().unwrap();
        warned_of(&json, choices);
        assert_eq!(text(&json.stderr).lines().count(), choices.len(), "{json:?}");
        let object: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert!(machine.read(&ALICE.secret_file()).starts_with(object["secret"].as_str().unwrap()));
        let quiet = enrol(&machine, &[flags, &["--quiet"]].concat()).output().unwrap();
        assert_eq!((quiet.status.code(), quiet.stderr.len()), (Some(0), 0), "{quiet:?}");
    }
}

#[test]
fn a_further_device_is_warned_of_like_the_first() {
    let machine = Machine::new();
    machine.write("/etc/security/pam_totp.toml", "version = 1\n[defaults]\nstore = \"system\"\n");
    let pam_totp = |arguments: &[&str]| {
        let mut command = machine.command(machine.program());
        command.args(arguments).output().unwrap()
    };
    assert!(pam_totp(&["setup", "store"]).status.success());
    let alice = ["--user", "alice", "--no-confirm", "--json"];
    warned_of(&pam_totp(&[&["enrol", "--digits", "8"], &alice[..]].concat()), &["--digits 8: "]);
    for (index, (flags, choices)) in CHOICES.into_iter().enumerate() {
        let name = format!("device {index}");
        let output = pam_totp(&[&["device", "add", &name], flags, &alice].concat());
        warned_of(&output, choices);
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(object["device"], name.as_str());
    }
    let colon = pam_totp(&[&["device", "add", "tablet", "--label", "a:b"], &alice[..]].concat());
    assert_eq!((colon.status.code(), colon.stdout.len()), (Some(1), 0), "{colon:?}");
    assert!(!text(&pam_totp(&["device", "list", "--user", "alice"]).stdout).contains("tablet"));
}

#[test]
fn a_name_with_a_colon_is_refused() {
    let machine = Machine::new();
    for (flags, named) in [
        (&["--label", "ACME:alice"][..], "--label must not have a colon"),
        (&["--issuer", "ACME: bastion"], "--issuer must not have a colon"),
        (&["--issuer", ":", "--label", ":"], "--issuer and --label must not have a colon"),
    ] {
        let output = enrol(&machine, &[flags, &["--no-confirm"]].concat()).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
        assert!(text(&output.stderr).contains(named), "{output:?}");
        assert!(!machine.path(&ALICE.secret_file()).exists());
    }
}

/// Scripts have labels such as `ACME:alice`, which google-authenticator prints as they are.
#[test]
fn called_google_authenticator_it_warns_and_takes_a_colon() {
    let machine = Machine::new();
    let google = |flags: &[&str]| {
        let mut command = machine.command_as(ALICE, machine.google_authenticator());
        command.args(["-t", "-d", "-f", "-u", "-w", "3", "-C"]).args(flags).output().unwrap()
    };
    warned_of(&google(&[]), &[]);
    warned_of(&google(&["-S", "60"]), &["--step-size 60: "]);
    let output = google(&["-l", "ACME:alice", "-i", "ACME"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        warnings(&output),
        ["--label with a colon: apps may take what stands before it for the issuer; the codes are right"]
    );
    let shown = screen::plain(&text(&output.stdout));
    let uri = screen::scan(&shown);
    assert!(uri.starts_with("otpauth://totp/ACME:ACME%3Aalice?") && uri == screen::uri(&shown), "{uri}");
}
