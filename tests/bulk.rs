//! `pam-totp enrol` of many, with sheets for people who are not there, and `pam-totp status --all`.

use crate::support::disk::{Disk, FileSystem, STATE};
use crate::support::machine::{ALICE, AUTH_ERR, BOB, CAROL, Machine, SUCCESS};
use crate::support::totp::{SECRET, code_now, wrong_code};
use crate::support::{need, output_of};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const POLICY: &str = "/etc/security/pam_totp.toml";
const SYSTEM: &str = "version = 1\n[defaults]\nstore = \"system\"\n";
const OUT: &str = "/root/sheets";
const EVERYBODY: &str = "alice\nbob\ncarol\n";

/// A host of homes. What is root's home there is nobody else's.
fn host() -> Machine {
    let machine = Machine::new();
    machine.service("test", "auth required pam_totp.so\n");
    output_of(machine.command("mount").args(["-t", "tmpfs", "-o", "mode=0700", "tmpfs", "/root"]));
    machine
}

/// A host with a root-only store.
fn host_of_system() -> Machine {
    let machine = host();
    machine.write(POLICY, SYSTEM);
    done(&machine, &["setup", "store"]);
    machine
}

fn pam_totp(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = machine.command(machine.program());
    command.args(arguments);
    command
}

fn done(machine: &Machine, arguments: &[&str]) -> String {
    output_of(&mut pam_totp(machine, arguments))
}

/// Runs a command with this on its standard input.
fn with_input(mut command: Command, text: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(text);
    child.wait_with_output().unwrap()
}

/// Enrols whom the text names.
fn enrol(machine: &Machine, names: impl AsRef<[u8]>, options: &[&str]) -> Output {
    with_input(pam_totp(machine, &[&["enrol", "--users", "-", "--out", OUT], options].concat()), names.as_ref())
}

/// The same with `--json`: how it ended, and what it said.
fn enrol_json(machine: &Machine, names: impl AsRef<[u8]>, options: &[&str]) -> (Option<i32>, Value) {
    let output = enrol(machine, names, &[options, &["--json"]].concat());
    let said = text(&output.stdout);
    assert_eq!(said.lines().count(), 1, "{output:?}");
    (output.status.code(), serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `user: reason` of each in a list of the summary.
fn reasons(list: &Value) -> Vec<String> {
    let line = |one: &Value| format!("{}: {}", one["user"].as_str().unwrap(), one["reason"].as_str().unwrap());
    list.as_array().unwrap().iter().map(line).collect()
}

fn users(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one["user"].as_str().unwrap().to_owned()).collect()
}

fn sheet(machine: &Machine, name: &str) -> String {
    machine.read(&format!("{OUT}/{name}"))
}

/// The URI of a sheet that is a text, and the secret in it.
fn uri_and_secret(sheet: &str) -> (String, String) {
    let uri = sheet.lines().find(|line| line.starts_with("otpauth://")).expect("no URI").to_owned();
    let secret = uri.split_once("secret=").unwrap().1.split('&').next().unwrap().to_owned();
    (uri, secret)
}

fn secret_of(machine: &Machine, name: &str) -> String {
    uri_and_secret(&sheet(machine, &format!("{name}.txt"))).1
}

/// Whether somebody has a record, and it is of the secret that is on both sheets.
fn fits(machine: &Machine, name: &str, record: &str) -> bool {
    let (uri, secret) = uri_and_secret(&sheet(machine, &format!("{name}.txt")));
    let svg = sheet(machine, &format!("{name}.svg"));
    machine.read(record).contains(&secret) && svg.contains(&uri.replace('&', "&amp;"))
}

fn login(machine: &Machine, user: &str, code: &str) -> i32 {
    machine.login("test", user).answer(code).run().result()
}

/// What a scanner reads in a picture.
fn scan(picture: &std::path::Path) -> String {
    need("zbarimg", "zbar-tools");
    output_of(Command::new("zbarimg").args(["--quiet", "--raw"]).arg(picture)).trim().to_owned()
}

/// The names in the directory of sheets, sorted.
fn names(machine: &Machine) -> Vec<String> {
    let entries = fs::read_dir(machine.path(OUT)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

// ---- The sheets ----

#[test]
fn everybody_gets_sheets_that_are_scanned_and_log_in() {
    need("rsvg-convert", "librsvg2-bin");
    let machine = host_of_system();
    let (code, said) = enrol_json(&machine, EVERYBODY, &["--algorithm", "SHA256", "--issuer", "R&D <x>"]);
    assert_eq!((code, users(&said["enrolled"])), (Some(0), vec!["alice".into(), "bob".into(), "carol".into()]));
    assert_eq!(said["enrolled"][0]["path"], "/var/lib/pam_totp/records/alice");
    assert_eq!(
        said["enrolled"][0]["sheets"],
        serde_json::json!([format!("{OUT}/alice.svg"), format!("{OUT}/alice.txt")])
    );
    assert_eq!(names(&machine), ["alice.svg", "alice.txt", "bob.svg", "bob.txt", "carol.svg", "carol.txt"]);
    assert_eq!(machine.path(OUT).metadata().unwrap().mode() & 0o7777, 0o700);
    for name in names(&machine) {
        let stat = machine.path(&format!("{OUT}/{name}")).metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777, stat.nlink()), (0, 0, 0o600, 1), "{name}");
    }
    let text = sheet(&machine, "alice.txt");
    let (uri, secret) = uri_and_secret(&text);
    assert!(uri.starts_with("otpauth://totp/R%26D%20%3Cx%3E:alice@") && uri.ends_with("&algorithm=SHA256"), "{uri}");
    assert!(!said.to_string().contains(&secret), "a summary has no secrets");

    // As a printer prints them.
    let picture = machine.shared().join("alice.png");
    output_of(
        Command::new("rsvg-convert")
            .args(["--zoom", "2", "-o"])
            .arg(&picture)
            .arg(machine.path(&format!("{OUT}/alice.svg"))),
    );
    assert_eq!(scan(&picture), uri);
    let picture = machine.shared().join("alice.pgm");
    fs::write(&picture, drawn(&text)).unwrap();
    assert_eq!(scan(&picture), uri);

    let code = crate::support::totp::code_by(&["--totp=SHA256"], &secret, crate::support::totp::now());
    assert_eq!(login(&machine, "alice", &code), SUCCESS);
    let recovery: Vec<_> = text.lines().filter(|line| line.len() == 2 + 29 && line.starts_with("  ")).collect();
    assert_eq!(recovery.len(), 5, "{text}");
    assert!(recovery.iter().all(|line| sheet(&machine, "alice.svg").contains(&format!(">{line}</text>"))));
    assert_eq!(login(&machine, "alice", recovery[4].trim()), SUCCESS);
    assert_eq!(login(&machine, "alice", recovery[4].trim()), AUTH_ERR);
    assert!(text.contains("  6 digits every 30 seconds (SHA256)\n"), "{text}");
    // A sheet says it in groups.
    let groups: Vec<_> = text.lines().skip_while(|line| !line.starts_with("Secret")).skip(1).take(2).collect();
    assert!(secret.starts_with(&groups[0].replace(' ', "")), "{text}");
    assert_eq!(login(&machine, "bob", &code_now(&secret)), AUTH_ERR, "a secret is one person's");
}

/// A picture of the code in a text: dark where a block is.
fn drawn(sheet: &str) -> Vec<u8> {
    const SCALE: usize = 4;
    let lines: Vec<Vec<char>> = sheet
        .lines()
        .skip(2)
        .take_while(|line| !line.starts_with("Secret"))
        .map(|line| line.chars().collect())
        .collect();
    let (width, height) = (lines[0].len() * SCALE, lines.len() * 2 * SCALE);
    let mut picture = format!("P5\n{width} {height}\n255\n").into_bytes();
    for y in 0..height {
        let (line, half) = (y / SCALE / 2, y / SCALE % 2);
        picture.extend((0..width).map(|x| match (lines[line][x / SCALE], half) {
            ('█', _) | ('▀', 0) | ('▄', 1) => 0,
            _ => 255,
        }));
    }
    picture
}

#[test]
fn where_secrets_are_in_homes_they_get_files_and_scratch_codes() {
    let machine = host();
    let output = enrol(&machine, EVERYBODY, &["--emergency-codes", "2", "--window-size", "5"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), format!("3 enrolled, 0 skipped, 0 failed. Sheets are in {OUT}.\n"));
    assert!(output.stderr.is_empty(), "no terminal, no progress: {output:?}");
    let file = machine.read(&ALICE.secret_file());
    assert!(file.contains("\n\" WINDOW_SIZE 5\n") && file.contains("\n\" TOTP_AUTH\n"), "{file}");
    let stat = machine.path(&ALICE.secret_file()).metadata().unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (ALICE.uid, 0o400));
    assert!(fits(&machine, "alice", &ALICE.secret_file()) && fits(&machine, "bob", &BOB.secret_file()));
    let text = sheet(&machine, "alice.txt");
    let scratch: Vec<_> = text.lines().filter(|line| line.len() == 10 && line.trim().len() == 8).collect();
    assert_eq!(scratch.len(), 2, "{text}");
    assert_eq!(login(&machine, "alice", scratch[1].trim()), SUCCESS);
    assert_eq!(login(&machine, "alice", &code_now(&secret_of(&machine, "alice"))), SUCCESS);
    assert!(enrol(&machine, "alice", &["--force", "-e", "0"]).status.success());
    assert!(!sheet(&machine, "alice.txt").contains("Scratch"));
}

#[test]
fn a_group_is_its_members_and_whose_primary_group_it_is() {
    let machine = host_of_system();
    machine.append("/etc/group", "staff2:x:20003:alice,nobody-here,alice\n");
    let mut command = pam_totp(&machine, &["enrol", "--group", "staff2", "--out", OUT, "--json"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(users(&said["enrolled"]), ["alice", "carol"], "carol's primary group has this number");
    assert_eq!(reasons(&said["failed"]), ["nobody-here: there is no user `nobody-here`"]);
    machine.append("/etc/group", "unlisted:x:30200:\n");
    let output = pam_totp(&machine, &["enrol", "--group", "unlisted", "--out", OUT]).output().unwrap();
    let remark = "lists nobody in `unlisted`: whom a directory does not list is enrolled by --users FILE";
    assert!(output.status.success() && text(&output.stderr).contains(remark), "{output:?}");
    let output = pam_totp(&machine, &["enrol", "--group", "no-such", "--out", "/root/none"]).output().unwrap();
    assert_eq!((output.status.code(), machine.path("/root/none").exists()), (Some(1), false));
    assert!(text(&output.stderr).contains("there is no group `no-such`"), "{output:?}");
}

#[test]
fn a_file_may_have_comments_and_strangers_and_says_everybody_once() {
    let machine = host_of_system();
    // A name that is the file's of nobody else's sheet.
    machine.append("/etc/passwd", "M\u{fc}ller,x:x:20009:20009::/home/m:/bin/sh\n");
    let file =
        b"# The new ones\n\n  alice \r\nalice\n../../etc/x\n\xff\n-\n--json\nM\xc3\xbcller,x\n#bob\nno\x1b[2Jbody\n";
    let output = enrol(&machine, file, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!text(&output.stderr).contains('\x1b'), "{output:?}");
    assert_eq!(text(&output.stderr).lines().count(), 6, "{output:?}");
    assert!(text(&output.stderr).ends_with("pam-totp: 5 of 7 could not be enrolled\n"), "{output:?}");
    assert!(text(&output.stdout).starts_with("2 enrolled, 0 skipped, 5 failed."), "{output:?}");
    assert_eq!(names(&machine), ["M%C3%BCller%2Cx.svg", "M%C3%BCller%2Cx.txt", "alice.svg", "alice.txt"]);
    assert!(sheet(&machine, "M%C3%BCller%2Cx.txt").starts_with("One-time codes for Müller,x on "));
    // Many names take no time worth mentioning.
    let many: String = (0..10_000).map(|number| format!("stranger-{number}\n")).collect();
    let file = machine.shared().join("many");
    fs::write(&file, many + "bob\n").unwrap();
    let began = Instant::now();
    let mut command = pam_totp(&machine, &["enrol", "--out", OUT, "--json", "--users"]);
    let output = command.arg(&file).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), said["failed"].as_array().unwrap().len()), (Some(1), 10_000));
    assert_eq!(users(&said["enrolled"]), ["bob"]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn whom_the_disk_knows_is_left_alone_and_what_about_the_sheets_is_said() {
    let machine = host_of_system();
    done(&machine, &["enrol", "--user", "bob", "--no-confirm", "--quiet"]);
    enrol(&machine, "alice\ncarol", &[]);
    let before = machine.read("/var/lib/pam_totp/records/alice");
    let text_before = sheet(&machine, "alice.txt");
    done(&machine, &["enrol", "--user", "carol", "--no-confirm", "--quiet", "--force"]);
    let (code, said) = enrol_json(&machine, EVERYBODY, &[]);
    assert_eq!(
        (code, reasons(&said["skipped"])),
        (
            Some(0),
            vec![
                "alice: enrolled already".to_owned(),
                "bob: enrolled already, and there is no sheet".to_owned(),
                "carol: enrolled already, with another secret than that of the sheet: destroy the sheet".to_owned(),
            ]
        )
    );
    assert_eq!((machine.read("/var/lib/pam_totp/records/alice"), sheet(&machine, "alice.txt")), (before, text_before));
    let output = enrol(&machine, EVERYBODY, &[]);
    assert!(
        text(&output.stdout).starts_with("alice: enrolled already\nbob: enrolled already, and there is no sheet\n")
    );
    // What cannot be read is not enrolled, and not replaced without being told to.
    machine.write("/var/lib/pam_totp/records/carol", "x");
    let (code, said) = enrol_json(&machine, EVERYBODY, &[]);
    assert_eq!(
        (code, users(&said["failed"]), said["failed"][0]["reason"].to_string().contains("bad-record")),
        (Some(1), vec!["carol".into()], true)
    );
    let (code, said) = enrol_json(&machine, EVERYBODY, &["--force"]);
    assert_eq!((code, users(&said["enrolled"]).len()), (Some(0), 3));
    for name in ["alice", "bob", "carol"] {
        assert!(fits(&machine, name, &format!("/var/lib/pam_totp/records/{name}")), "{name}");
    }
}

// ---- What can go wrong ----

#[test]
fn killed_anywhere_and_run_again_everybody_has_one_secret_and_its_sheets() {
    need("strace", "strace");
    let machine = host_of_system();
    let record = |name: &str| format!("/var/lib/pam_totp/records/{name}");
    for options in [&[][..], &["--force"]] {
        let mut points = 0;
        for (call, last) in [("fsync", 12), ("rename,renameat,renameat2", 6), ("linkat", 3), ("fdatasync", 3)] {
            for number in 1..=last {
                let place = format!("{options:?}: killed at {call} {number}");
                if options.is_empty() {
                    ["alice", "bob", "carol"].iter().for_each(|name| drop(done(&machine, &["reset", "--user", name])));
                }
                let mut command = machine.command("strace");
                command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
                command.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
                let command_line = ["enrol", "--users", "-", "--out", OUT];
                command.arg(machine.program()).args(command_line).args(options);
                if with_input(command, EVERYBODY.as_bytes()).status.success() {
                    continue;
                }
                points += 1;
                let is_taken = |name: &&str| machine.path(&record(name)).exists();
                for name in ["alice", "bob", "carol"].iter().filter(|name| options.is_empty() && is_taken(name)) {
                    assert!(fits(&machine, name, &record(name)), "{place}: {name} has no sheet");
                }
                let (code, said) = enrol_json(&machine, EVERYBODY, options);
                let count = |list: &str| said[list].as_array().unwrap().len();
                assert_eq!((code, count("enrolled") + count("skipped")), (Some(0), 3), "{place}: {said}");
                assert_eq!(
                    reasons(&said["skipped"]).iter().filter(|reason| reason.contains("sheet")).count(),
                    0,
                    "{place}"
                );
                assert_eq!(names(&machine).len(), 6, "{place}: nothing is left behind: {:?}", names(&machine));
                for name in ["alice", "bob", "carol"] {
                    assert!(fits(&machine, name, &record(name)), "{place}: {said}");
                }
            }
        }
        assert!(points >= 15, "only {points} were reached");
    }
}

#[test]
fn where_the_disk_fails_there_is_a_sheet_if_there_is_a_record() {
    need("strace", "strace");
    let machine = host_of_system();
    let record = "/var/lib/pam_totp/records/alice";
    let (mut kept, mut removed) = (0, 0);
    for number in 1.. {
        done(&machine, &["reset", "--user", "alice"]);
        let mut command = machine.command("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
        command.args(["-e", &format!("inject=fsync,fdatasync:error=EIO:when={number}")]);
        command.arg(machine.program()).args(["enrol", "--users", "-", "--out", OUT]);
        let output = with_input(command, b"alice");
        let (is_enrolled, sheets) = (machine.path(record).exists(), names(&machine));
        assert_eq!(sheets.len(), if is_enrolled { 2 } else { 0 }, "{number}: {sheets:?} {output:?}");
        assert!(!is_enrolled || fits(&machine, "alice", record), "{number}: {output:?}");
        if output.status.success() {
            break;
        }
        assert!(text(&output.stderr).contains("Input/output-error"), "{number}: {output:?}");
        if is_enrolled { kept += 1 } else { removed += 1 }
    }
    assert!(kept > 0 && removed > 4, "{kept} with a record, {removed} without");
}

#[test]
fn where_there_is_no_room_nobody_is_enrolled_without_a_sheet_nor_the_other_way_round() {
    let machine = host();
    let disk = Disk::new(&machine, FileSystem::Ext4);
    // First the records have no room, then the sheets.
    machine.write(POLICY, format!("{SYSTEM}state_dir = \"{STATE}/totp\"\n"));
    done(&machine, &["setup", "store"]);
    disk.fill();
    let (code, said) = enrol_json(&machine, EVERYBODY, &[]);
    assert_eq!((code, users(&said["failed"]).len()), (Some(1), 3), "{said}");
    assert!(reasons(&said["failed"]).iter().all(|reason| reason.contains("No-space-left")), "{said}");
    assert_eq!(names(&machine), [""; 0]);
    disk.empty();
    let (code, said) = enrol_json(&machine, EVERYBODY, &[]);
    assert_eq!((code, users(&said["enrolled"]).len()), (Some(0), 3), "{said}");

    let before = machine.read(&format!("{STATE}/totp/records/alice"));
    output_of(machine.command("mount").args(["-t", "tmpfs", "-o", "mode=0700,nr_inodes=2", "tmpfs", OUT]));
    let (code, said) = enrol_json(&machine, EVERYBODY, &["--force"]);
    assert_eq!((code, users(&said["failed"]).len()), (Some(1), 3), "{said}");
    assert_eq!(machine.read(&format!("{STATE}/totp/records/alice")), before, "what there was works on");
    assert_eq!(names(&machine), [""; 0]);
}

#[test]
fn links_and_fifos_are_replaced_and_never_written_to() {
    let machine = host_of_system();
    machine.make_directory(OUT, 0o700, 0);
    machine.write("/root/precious", "precious");
    symlink("/root/precious", machine.path(&format!("{OUT}/alice.svg"))).unwrap();
    symlink("/root/precious", machine.path(&format!("{OUT}/alice.txt~"))).unwrap();
    symlink("/root/made", machine.path(&format!("{OUT}/bob.svg"))).unwrap();
    output_of(machine.command("mkfifo").args([&format!("{OUT}/alice.txt"), &format!("{OUT}/bob.txt~")]));
    machine.make_directory(&format!("{OUT}/carol.txt"), 0o700, 0);
    let (code, said) = enrol_json(&machine, EVERYBODY, &[]);
    assert_eq!((code, users(&said["enrolled"])), (Some(1), vec!["alice".into(), "bob".into()]), "{said}");
    assert!(reasons(&said["failed"])[0].starts_with("carol: file-error path=/root/sheets/carol.txt"), "{said}");
    assert_eq!((machine.read("/root/precious").as_str(), machine.path("/root/made").exists()), ("precious", false));
    assert_eq!(names(&machine), ["alice.svg", "alice.txt", "bob.svg", "bob.txt", "carol.txt"]);
    for name in ["alice", "bob"] {
        assert!(fits(&machine, name, &format!("/var/lib/pam_totp/records/{name}")));
    }
    assert!(!machine.path("/var/lib/pam_totp/records/carol").exists());
    // One in the place of a sheet is no sheet, and is not waited for.
    fs::remove_file(machine.path(&format!("{OUT}/alice.svg"))).unwrap();
    output_of(machine.command("mkfifo").arg(format!("{OUT}/alice.svg")));
    let (_, said) = enrol_json(&machine, "alice", &[]);
    assert_eq!(reasons(&said["skipped"]), ["alice: enrolled already, and there is no sheet"]);
    assert!(fs::symlink_metadata(machine.path(&format!("{OUT}/alice.svg"))).unwrap().file_type().is_fifo());
}

#[test]
fn the_directory_is_roots_alone() {
    let machine = host_of_system();
    for (directory, mode, uid, words) in [
        ("/root/others", 0o700, ALICE.uid, "wrong-owner"),
        ("/root/written", 0o770, 0, "wrong-mode"),
        ("/home/alice/sheets", 0o700, 0, "wrong-owner"),
    ] {
        machine.make_directory(directory, mode, uid);
        let output = pam_totp(&machine, &["enrol", "--group", "alice", "--out", directory]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{directory} {output:?}");
        assert!(text(&output.stderr).contains(words), "{directory} {output:?}");
        assert_eq!(fs::read_dir(machine.path(directory)).unwrap().count(), 0);
    }
    symlink("/root/written", machine.path("/root/link")).unwrap();
    let output = pam_totp(&machine, &["enrol", "--group", "alice", "--out", "/root/link"]).output().unwrap();
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("link path=/root/link"), "{output:?}");
    machine.make_directory("/root/seen", 0o755, 0);
    let output = pam_totp(&machine, &["enrol", "--group", "alice", "--out", "/root/seen/"]).output().unwrap();
    assert!(
        output.status.success() && text(&output.stderr).contains("others than root see in /root/seen"),
        "{output:?}"
    );
    assert_eq!(machine.path("/root/seen/alice.txt").metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn wrong_usage_and_wrong_people_are_refused() {
    let machine = host_of_system();
    for wrong in [
        &["--users", "-"][..],
        &["--group", "alice"],
        &["--out", OUT],
        &["--user", "alice", "--out", OUT],
        &["--users", "-", "--group", "alice", "--out", OUT],
        &["--users", "-", "--user", "alice", "--out", OUT],
        &["--users", "-", "--key", "key-id:x", "--out", OUT],
        &["--users", "-", "--label", "x", "--out", OUT],
        &["--users", "-", "--secret", "/x", "--out", OUT],
        &["--users", "-", "--qr-mode", "none", "--out", OUT],
    ] {
        let output = pam_totp(&machine, &[&["enrol"], wrong].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?} {output:?}");
    }
    let output = pam_totp(&machine, &["status", "--all", "--user", "alice"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let refused = |mut command: Command, words: &str| {
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
        assert!(text(&output.stderr).contains(words), "{output:?}");
    };
    refused(pam_totp(&machine, &["enrol", "--users", "-", "--out", OUT, "-u"]), "--no-rate-limit is about");
    refused(
        pam_totp(&machine, &["enrol", "--group", "alice", "--out", OUT, "--issuer", "a:b"]),
        "--issuer must not have",
    );
    refused(pam_totp(&machine, &["enrol", "--users", "/root/none", "--out", OUT]), "/root/none");
    let as_alice = |arguments: &[&str]| {
        let mut command = machine.command_as(ALICE, machine.program());
        command.args(arguments);
        command
    };
    refused(as_alice(&["enrol", "--users", "-", "--out", "/home/alice/x"]), "only root can enrol many");
    refused(as_alice(&["status", "--all"]), "only root can see everybody");
    machine.write(POLICY, "version = 1\n[defaults]\nstore = \"home\"\n");
    refused(as_alice(&["enrol", "--group", "alice", "--out", "/home/alice/x"]), "only root can enrol many");
    refused(as_alice(&["status", "--all"]), "only root can see everybody");
    refused(pam_totp(&machine, &["enrol", "--users", "-", "--out", OUT, "--device", "x"]), "--device is about");
    assert!(!machine.path(OUT).exists() && !machine.path("/home/alice/x").exists());
    machine.write(POLICY, format!("{SYSTEM}state_dir = \"/var/lib/none\"\n"));
    refused(pam_totp(&machine, &["enrol", "--group", "alice", "--out", OUT]), "no-store");
    refused(pam_totp(&machine, &["status", "--all"]), "no-store");
}

#[test]
fn a_list_that_cannot_be_written_is_no_success() {
    let machine = host_of_system();
    for arguments in [
        &["status", "--all"][..],
        &["status", "--all", "--json"],
        &["throttle", "list"],
        &["throttle", "list", "--json"],
        &["enrol", "--users", "-", "--out", OUT, "--json"],
    ] {
        let mut command = pam_totp(&machine, arguments);
        command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(command.output().unwrap().status.code(), Some(1), "{arguments:?}");
    }
    // Nor is one of a database that is not there.
    machine.write("/etc/nsswitch.conf", "passwd: nothing-here\ngroup: files\n");
    for arguments in [&["status", "--all"][..], &["enrol", "--group", "alice", "--out", OUT]] {
        let output = pam_totp(&machine, arguments).output().unwrap();
        assert!(text(&output.stderr).contains("does not even list root"), "{arguments:?}: {output:?}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn what_is_no_sheet_is_not_written_over() {
    let machine = host_of_system();
    machine.make_directory(OUT, 0o700, 0);
    machine.write(&format!("{OUT}/bob.txt"), "precious");
    let (code, said) = enrol_json(&machine, EVERYBODY, &[]);
    assert_eq!(
        (code, users(&said["failed"]), users(&said["enrolled"]).len()),
        (Some(1), vec!["bob".into()], 2),
        "{said}"
    );
    assert_eq!(machine.read(&format!("{OUT}/bob.txt")), "precious");
    assert!(!machine.path(&format!("{OUT}/bob.svg")).exists());
}

#[test]
fn two_at_once_do_not_write_over_each_others_sheets() {
    need("flock", "util-linux");
    let machine = host_of_system();
    enrol(&machine, "alice", &[]);
    let before = sheet(&machine, "alice.txt");
    let mut other = machine.command("flock").args(["/run/pam_totp/enrol-many", "sleep", "60"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let output = enrol(&machine, EVERYBODY, &["--force"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("another pam-totp is enrolling many on this host"), "{output:?}");
    assert_eq!((names(&machine).len(), sheet(&machine, "alice.txt")), (2, before));
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn on_a_terminal_one_line_is_drawn_over() {
    need("script", "bsdutils");
    let machine = host_of_system();
    machine.write("/root/names", "alice\nnobody-here\nbob\n");
    let line = format!("stty cols 20; {} enrol --users /root/names --out {OUT}", machine.program().display());
    let output = machine.command("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
    let screen = text(&output.stdout);
    for drawn in ["\r[                  ", "\r[######            ", "\r[#############     "] {
        assert!(screen.contains(&format!("{drawn}\x1b[K")), "{screen:?}");
    }
    assert!(screen.contains("\r\x1b[Kpam-totp: nobody-here: there is no user"), "{screen:?}");
    assert!(screen.contains("\r\x1b[K2 enrolled, 0 skipped, 1 failed."), "{screen:?}");
}

// ---- status --all ----

/// What everybody's status is: how the program ended, the table, and the objects.
fn status(machine: &Machine) -> (Option<i32>, String, Value) {
    let table = pam_totp(machine, &["status", "--all"]).output().unwrap();
    let objects = pam_totp(machine, &["status", "--all", "--json"]).output().unwrap();
    assert_eq!(table.status.code(), objects.status.code());
    (table.status.code(), text(&table.stdout), serde_json::from_slice(&objects.stdout).unwrap())
}

fn object<'a>(objects: &'a Value, user: &str) -> Option<&'a Value> {
    objects.as_array().unwrap().iter().find(|object| object["user"] == user && object["key"].is_null())
}

fn state(objects: &Value, user: &str) -> (Value, Value) {
    let object = object(objects, user).unwrap_or_else(|| panic!("{user} is missing: {objects}"));
    (object["enrolled"].clone(), object["ever_enrolled"].clone())
}

/// The words of somebody's line.
fn line<'a>(table: &'a str, user: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.split(' ').next() == Some(user));
    line.unwrap_or_else(|| panic!("{user} is missing: {table}"))
        .split("  ")
        .map(str::trim)
        .filter(|w| !w.is_empty())
        .collect()
}

fn today() -> String {
    output_of(Command::new("date").args(["-u", "+%F"])).trim().to_owned()
}

const TRUE: Value = Value::Bool(true);
const FALSE: Value = Value::Bool(false);

fn add_account(machine: &Machine, name: &str, uid: u32, shell: &str) {
    machine.append("/etc/passwd", &format!("{name}:x:{uid}:{uid}::/home/{name}:{shell}\n"));
    machine.make_directory(&format!("/home/{name}"), 0o700, uid);
}

#[test]
fn status_shows_everybody_of_the_root_only_store() {
    let machine = host_of_system();
    for (number, (name, shell)) in [
        ("dave", "/bin/sh"),
        ("erin", "/bin/sh"),
        ("frank", ""),
        ("robot", "/usr/sbin/nologin"),
        ("relay", "/bin/false"),
        ("odd", "/opt/sh"),
        ("ghost", "/bin/sh"),
    ]
    .into_iter()
    .enumerate()
    {
        add_account(&machine, name, 20010 + u32::try_from(number).unwrap(), shell);
    }
    let before = status(&machine);
    assert_eq!(before.0, Some(0));
    assert_eq!(line(&before.1, "frank"), ["frank", "not enrolled"], "no shell is /bin/sh");
    assert_eq!([state(&before.2, "root"), state(&before.2, "frank")], [(FALSE, FALSE), (FALSE, FALSE)]);
    for name in ["robot", "relay", "odd", "nobody", "daemon"] {
        assert!(object(&before.2, name).is_none() && !before.1.contains(name), "{name}");
    }

    enrol(&machine, "alice\nbob\ncarol\ndave\nerin\nghost\nrobot\n", &[]);
    let secret = secret_of(&machine, "alice");
    assert_eq!(login(&machine, "alice", &code_now(&secret)), SUCCESS);
    done(&machine, &["device", "add", "tablet", "--user", "alice", "--no-confirm", "--quiet"]);
    done(&machine, &["remove", "--user", "erin"]);
    done(&machine, &["device", "remove", "phone", "--user", "dave", "--force"]);
    let passwd: Vec<_> =
        machine.read("/etc/passwd").lines().filter(|l| !l.starts_with("ghost:")).map(|l| format!("{l}\n")).collect();
    machine.write("/etc/passwd", passwd.concat());
    // A key of carol's account, which is shared.
    let key = format!("SHA256:{}A", "a+/".repeat(14));
    let records = "/var/lib/pam_totp/records";
    done(&machine, &["enrol", "--user", "carol", "--key", &key, "--no-confirm", "--quiet"]);
    done(&machine, &["reset", "--user", "carol"]);
    // Bob is blocked, and robot disabled.
    let wrong = wrong_code(&secret_of(&machine, "bob"));
    (0..10).for_each(|_| assert_eq!(login(&machine, "bob", &wrong), AUTH_ERR));
    machine.write("/etc/security/unlimited.toml", format!("{SYSTEM}[throttle]\nuser = \"\"\nhost = \"\"\n"));
    machine.service("unlimited", "auth required pam_totp.so conf=/etc/security/unlimited.toml\n");
    let wrong = wrong_code(&secret_of(&machine, "robot"));
    let guesses = machine.login("unlimited", "robot").answer(wrong).with(&["--parallel", "100"]).run();
    assert_eq!(guesses.results.len(), 100);

    let (code, table, objects) = status(&machine);
    assert_eq!(code, Some(0), "{table}");
    for (user, expected) in [
        ("alice", (TRUE, TRUE)),
        ("bob", (TRUE, TRUE)),
        ("dave", (TRUE, TRUE)),
        ("erin", (FALSE, TRUE)),
        ("frank", (FALSE, FALSE)),
        ("ghost", (TRUE, TRUE)),
        ("robot", (TRUE, TRUE)),
    ] {
        assert_eq!(state(&objects, user), expected, "{user}");
    }
    assert!(object(&objects, "carol").is_none(), "who holds its keys has devices: {objects}");
    let alice = object(&objects, "alice").unwrap();
    assert_eq!(
        (alice["store"].as_str(), alice["path"].as_str()),
        (Some("system"), Some("/var/lib/pam_totp/records/alice"))
    );
    assert_eq!((alice["devices"][1]["name"].as_str(), alice["recovery_codes"].as_u64()), (Some("tablet"), Some(5)));
    assert!(alice["devices"][0]["last_used"].is_u64() && alice["devices"][1]["last_used"].is_null());
    assert_eq!([&alice["blocked"], &alice["in_user_database"], &alice["reason"]], [&FALSE, &TRUE, &Value::Null]);
    let bob = object(&objects, "bob").unwrap();
    assert!(bob["blocked"] == TRUE && (3000..=3600).contains(&bob["blocked_seconds"].as_u64().unwrap()), "{bob}");
    let robot = object(&objects, "robot").unwrap();
    assert_eq!((&robot["blocked"], &robot["blocked_seconds"]), (&TRUE, &Value::Null));
    assert_eq!(object(&objects, "ghost").unwrap()["in_user_database"], FALSE);
    let holder = objects.as_array().unwrap().iter().find(|object| object["key"] == key.as_str()).expect("the key");
    assert_eq!((holder["user"].as_str(), &holder["enrolled"]), (Some("carol"), &TRUE));

    let today = today();
    let path = |user: &str| format!("{records}/{user}");
    assert_eq!(line(&table, "alice"), ["alice", "enrolled", "5", "phone", &today, &today, &path("alice")]);
    let after = table.lines().skip_while(|line| !line.starts_with("alice ")).nth(1).unwrap();
    assert_eq!(after.split_whitespace().collect::<Vec<_>>(), ["tablet", &today], "her other device");
    assert!(line(&table, "bob")[2].starts_with("blocked for "), "{table}");
    assert_eq!(line(&table, "robot")[1..3], ["enrolled", "disabled"]);
    assert_eq!(line(&table, "dave")[1], "no device left");
    assert_eq!(line(&table, "erin"), ["erin", "had a device"]);
    assert_eq!(line(&table, "ghost")[1], "no such user");
    assert!(table.contains(&format!("\ncarol {key} ")), "{table}");
    let sum = table.lines().last().unwrap();
    assert!(sum.contains(" in all: ") && sum.contains("4 enrolled") && sum.ends_with("; 2 throttled"), "{sum}");
    for name in ["alice", "bob"] {
        let secret = secret_of(&machine, name);
        assert!(!table.contains(&secret) && !objects.to_string().contains(&secret));
    }

    // One that is broken is shown last, and stops nobody.
    machine.write(&path("bob"), "x");
    let (code, table, objects) = status(&machine);
    assert_eq!(
        (code, state(&objects, "bob"), state(&objects, "alice")),
        (Some(1), (Value::Null, Value::Null), (TRUE, TRUE))
    );
    assert!(object(&objects, "bob").unwrap()["reason"].as_str().unwrap().starts_with("bad-record"), "{objects}");
    let last: Vec<_> = table.lines().rev().nth(1).unwrap().split_whitespace().take(2).collect();
    assert_eq!(last, ["bob", "broken"], "{table}");
    machine.write("/var/lib/pam_totp/ledger-1", "");
    fs::remove_file(machine.path("/var/lib/pam_totp/ledger-1")).unwrap();
    symlink("/root/x", machine.path("/var/lib/pam_totp/ledger-1")).unwrap();
    let (code, _, objects) = status(&machine);
    assert_eq!((code, &object(&objects, "alice").unwrap()["blocked"]), (Some(1), &Value::Null), "it cannot be told");
}

#[test]
fn status_shows_everybody_who_has_a_file_or_could() {
    let machine = host();
    add_account(&machine, "robot", 20010, "/usr/sbin/nologin");
    machine.append("/etc/passwd", "homeless:x:20011:20011::/home/homeless:/bin/sh\n");
    machine.enrol(ALICE, "\" TOTP_AUTH\n12345678\n87654321\n");
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    assert_eq!(login(&machine, "bob", &code_now(SECRET)), SUCCESS);
    fs::remove_file(machine.path(&BOB.secret_file())).unwrap();
    let (code, table, objects) = status(&machine);
    assert_eq!(code, Some(0), "{table}");
    assert_eq!([state(&objects, "alice"), state(&objects, "bob")], [(TRUE, TRUE), (FALSE, TRUE)]);
    assert_eq!([state(&objects, "carol"), state(&objects, "homeless")], [(FALSE, FALSE), (FALSE, FALSE)]);
    assert!(object(&objects, "robot").is_none() && object(&objects, "daemon").is_none());
    assert_eq!(line(&table, "alice"), ["alice", "enrolled", "2", "-", &ALICE.secret_file()]);
    assert_eq!(object(&objects, "alice").unwrap()["store"], "home");
    let robots = "/home/robot/.google_authenticator";
    machine.write_as(robots, format!("{SECRET}\n\" TOTP_AUTH\n"), 20010, 0o600);
    machine.write_as(&CAROL.secret_file(), format!("{SECRET}\n\" TOTP_AUTH\n"), CAROL.uid, 0o644);
    // Without the list every shell is one, but for those that refuse.
    machine.append("/etc/passwd", "odd:x:20012:20012::/home/alice:/opt/sh\n");
    fs::remove_file(machine.path("/etc/shells")).unwrap();
    let (code, table, objects) = status(&machine);
    assert_eq!((code, state(&objects, "robot")), (Some(1), (TRUE, TRUE)), "{table}");
    assert!(object(&objects, "carol").unwrap()["reason"].as_str().unwrap().starts_with("wrong-mode"), "{objects}");
    assert!(object(&objects, "odd").is_some() && object(&objects, "daemon").is_none());
}
