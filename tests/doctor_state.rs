//! What `pam-totp doctor` says of the module's file, the policy's, the store, people and the clock.

use crate::agent_units::helper;
use crate::support::agent::{Agent, SOCKET};
use crate::support::disk::{Disk, FileSystem};
use crate::support::machine::{ALICE, BOB, CAROL, Machine, SUCCESS};
use crate::support::root_only::{POLICY, STACK, STATE, json as printed, machine as root_only, run, ticket, totp};
use crate::support::totp::SECRET;
use crate::support::{disk, output_of};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Output;

/// What doctor has to say of a machine.
struct Said {
    findings: Vec<Value>,
    notes: Vec<String>,
}

impl Said {
    /// The findings that this file is about: what else there is to say of such a machine is not.
    fn of(machine: &Machine, arguments: &[&str]) -> Self {
        Self::told(&run(machine, &[&["doctor", "--json"], arguments].concat()))
    }

    fn told(output: &Output) -> Self {
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let mut findings = report["findings"].as_array().unwrap().clone();
        assert_eq!(output.status.code(), Some(i32::from(!findings.is_empty())), "{report}");
        // It is that of the machine around.
        findings.retain(|finding| finding["name"] != "clock");
        let notes = report["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned()).collect();
        Self { findings, notes }
    }

    /// `CLOSED name what`, for all of some names, but for those of one.
    fn named(&self, name: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["name"] == name).collect()
    }

    fn only(&self, name: &str) -> &Value {
        match self.named(name).as_slice() {
            [finding] => finding,
            _ => panic!("{name}: {:#?}", self.findings),
        }
    }

    fn has_note(&self, part: &str) -> bool {
        self.notes.iter().any(|note| note.contains(part))
    }
}

/// Everybody can do without a device, so that nobody is locked out.
const OPTIONAL: &str = "enrolment = \"optional\"\n";
const OURS: [&str; 15] = [
    "module-missing",
    "module-broken",
    "module-architecture",
    "module-writable",
    "module-unreadable",
    "module-copies",
    "policy-file",
    "state-dir",
    "store-missing",
    "store-broken",
    "store-full",
    "ledger",
    "record-broken",
    "record-of-another",
    "locked-out",
];

fn ours(said: &Said) -> Vec<&str> {
    said.findings.iter().filter_map(|finding| finding["name"].as_str()).filter(|name| OURS.contains(name)).collect()
}

/// The module where libpam finds it.
fn module(machine: &Machine) -> PathBuf {
    let beside = "for so in /usr/lib/*/security/pam_totp.so /lib/*/security/pam_totp.so /usr/lib64/security/pam_totp.so; do \
                  [ -e $so ] && echo $so && break; done";
    PathBuf::from(output_of(machine.command("sh").args(["-c", beside])).trim())
}

fn is_weight(finding: &Value, weight: &str) -> bool {
    finding["weight"] == weight
        && ["what", "why", "way_out"].iter().all(|key| !finding[*key].as_str().unwrap().is_empty())
}

fn set_mode(machine: &Machine, path: &str, mode: u32) {
    fs::set_permissions(machine.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_module_that_is_right_is_no_finding_and_each_way_it_can_be_wrong_is_one() {
    let machine = root_only(OPTIONAL);
    let path = module(&machine);
    let path = path.to_str().unwrap();
    assert_eq!(ours(&Said::of(&machine, &[])), [""; 0]);
    let good = fs::read(machine.path(path)).unwrap();

    set_mode(&machine, path, 0o664);
    let said = Said::of(&machine, &[]);
    assert!(is_weight(said.only("module-writable"), "open"));
    assert_eq!(said.only("module-writable")["lines"][0], format!("chmod go-w {path}"));
    set_mode(&machine, path, 0o640);
    assert!(is_weight(Said::of(&machine, &[]).only("module-unreadable"), "weak"));
    set_mode(&machine, path, 0o644);
    chown(machine.path(path), Some(ALICE.uid), None).unwrap();
    assert_eq!(Said::of(&machine, &[]).only("module-writable")["lines"][0], format!("chown root:root {path}"));

    let mut other = good.clone();
    // From x86-64 to aarch64, or the other way round.
    other[18] = if good[18] == 62 { 183 } else { 62 };
    for (content, name) in [(&other[..], "module-architecture"), (b"\x7fELF", "module-broken"), (b"", "module-broken")]
    {
        machine.write_as(path, content, 0, 0o644);
        let said = Said::of(&machine, &[]);
        assert!(is_weight(said.only(name), "closed"), "{:#?}", said.findings);
        assert_eq!(ours(&said), [name]);
    }
    fs::remove_file(machine.path(path)).unwrap();
    output_of(machine.command("mkfifo").arg(path));
    assert_eq!(ours(&Said::of(&machine, &[])), ["module-broken"], "nobody waits");
    fs::remove_file(machine.path(path)).unwrap();
    let said = Said::of(&machine, &[]);
    assert_eq!(ours(&said), ["module-missing"]);
    assert!(said.only("module-missing")["why"].as_str().unwrap().contains("sshd, test"), "{:#?}", said.findings);

    machine.write_as(path, &good, 0, 0o644);
    machine.service("test", &STACK.replace("pam_totp.so", "/opt/\\[x\\]/pam_totp.so"));
    let missing = Said::of(&machine, &["--service", "test"]);
    assert_eq!(missing.only("module-missing")["service"], "test");
}

#[test]
fn a_policy_that_a_login_refuses_is_a_finding_though_it_reads_well() {
    let machine = root_only(OPTIONAL);
    // A login remembers it.
    machine.service("test", &format!("auth required pam_permit.so\n{STACK}"));
    assert_eq!(machine.login("test", "alice").run().result(), SUCCESS);
    let text = machine.read(POLICY);
    set_mode(&machine, POLICY, 0o666);
    let said = Said::of(&machine, &[]);
    assert!(is_weight(said.only("policy-file"), "closed"));
    assert_eq!(said.only("policy-file")["lines"][0], format!("chmod go-w {POLICY}"));
    set_mode(&machine, POLICY, 0o644);
    set_mode(&machine, "/etc/security", 0o777);
    assert_eq!(Said::of(&machine, &[]).only("policy-file")["lines"][0], "chmod go-w /etc/security");
    set_mode(&machine, "/etc/security", 0o755);
    assert_eq!(ours(&Said::of(&machine, &[])), [""; 0]);

    // What was in use is gone.
    fs::remove_file(machine.path(POLICY)).unwrap();
    let said = Said::of(&machine, &[]);
    assert!(said.only("policy-file")["what"].as_str().unwrap().contains("no-policy"), "{:#?}", said.findings);
    machine.write(POLICY, &text);
    machine.service("test", &STACK.replace("pam_totp.so", "pam_totp.so conf=/etc/security/none.toml"));
    let said = Said::of(&machine, &["--service", "test"]);
    assert_eq!(said.only("policy-file")["place"], "/etc/pam.d/test:1");
}

#[test]
fn a_store_that_lets_nobody_in_is_a_finding_with_the_way_out() {
    let machine = root_only(OPTIONAL);
    let in_store = |name: &str| format!("{STATE}/{name}");
    fs::rename(machine.path(&in_store("store.id")), machine.path(&in_store("away"))).unwrap();
    let said = Said::of(&machine, &[]);
    assert!(is_weight(said.only("store-missing"), "closed"));
    assert_eq!(said.only("store-missing")["lines"][0], "pam-totp setup store");
    assert!(!machine.path(&in_store("store.id")).exists(), "doctor makes nothing");
    fs::rename(machine.path(&in_store("away")), machine.path(&in_store("store.id"))).unwrap();

    fs::remove_file(machine.path(&in_store("locks"))).unwrap();
    assert!(is_weight(Said::of(&machine, &[]).only("store-broken"), "closed"));
    totp(&machine, &["setup", "store"]);
    set_mode(&machine, STATE, 0o777);
    assert!(is_weight(Said::of(&machine, &[]).only("state-dir"), "closed"));
    set_mode(&machine, STATE, 0o700);
    assert_eq!(ours(&Said::of(&machine, &[])), [""; 0]);

    let ledger = in_store("ledger-1");
    machine.write_as(&ledger, "x", 0, 0o600);
    let said = Said::of(&machine, &[]);
    assert!(said.has_note("is broken: the next login makes it anew") && ours(&said).is_empty(), "{:?}", said.notes);
    assert_eq!(machine.read(&ledger), "x", "doctor replaces nothing");
    fs::remove_file(machine.path(&ledger)).unwrap();
    symlink("/etc/passwd", machine.path(&ledger)).unwrap();
    assert!(is_weight(Said::of(&machine, &[]).only("ledger"), "closed"));
    fs::remove_file(machine.path(&ledger)).unwrap();

    fs::remove_dir_all(machine.path(STATE)).unwrap();
    assert_eq!(ours(&Said::of(&machine, &[])), ["store-missing"]);
    machine.write(POLICY, "version = 1\n[defaults]\nenrolment = \"optional\"\n");
    let said = Said::of(&machine, &[]);
    assert!(ours(&said).is_empty() && said.has_note("is not there yet"), "{:#?}", said.findings);
    assert!(!machine.path(STATE).exists(), "doctor makes nothing");
}

#[test]
fn a_full_disk_is_a_finding_where_it_keeps_people_out() {
    let machine = root_only(OPTIONAL);
    let policy = format!("version = 1\n[defaults]\nstore = \"system\"\nstate_dir = \"{}\"\n{OPTIONAL}", disk::STATE);
    machine.write(POLICY, policy);
    for (kind, weight) in [(FileSystem::Btrfs, "closed"), (FileSystem::Ext4, "weak")] {
        let disk = Disk::new(&machine, kind);
        disk.shell(&format!("chmod 0700 {}", disk::STATE));
        totp(&machine, &["setup", "store"]);
        assert_eq!(ours(&Said::of(&machine, &[])), [""; 0], "{kind:?}");
        disk.fill();
        let said = Said::of(&machine, &[]);
        assert!(is_weight(said.only("store-full"), weight), "{kind:?}: {:#?}", said.findings);
        disk.empty();
    }
    let disk = Disk::new(&machine, FileSystem::Memory);
    disk.shell(&format!("chmod 0700 {}", disk::STATE));
    totp(&machine, &["setup", "store"]);
    assert!(is_weight(Said::of(&machine, &[]).only("store-file-system"), "weak"));
    disk.shell(&format!("mount -o remount,ro {}", disk::STATE));
    let said = Said::of(&machine, &[]);
    assert!(is_weight(said.only("store-read-only"), "closed"));
    assert_eq!(ours(&said), [""; 0], "what follows from it is not told: {:#?}", said.findings);
}

#[test]
fn records_that_are_broken_or_of_nobody_are_found_and_those_of_keys_too() {
    let machine = root_only(OPTIONAL);
    machine.append("/etc/passwd", "ghost:x:20010:20010::/home/ghost:/bin/sh\nre\x1bborn:x:20011:20011::/:/bin/sh\n");
    let key = format!("SHA256:{}A", "a+/".repeat(14));
    for arguments in [&["alice"][..], &["bob"], &["ghost"], &["carol"], &["carol", "--key", &key]] {
        totp(&machine, &[&["enrol", "--no-confirm", "--quiet", "--user"], arguments].concat());
    }
    assert_eq!(ours(&Said::of(&machine, &[])), [""; 0]);
    let record = |name: &str| format!("{STATE}/records/{name}");
    let passwd = machine.read("/etc/passwd");
    let without = |name: &str| {
        passwd.lines().filter(|line| !line.starts_with(name)).fold(String::new(), |text, line| text + line + "\n")
    };
    machine.write("/etc/passwd", without("ghost:").replace("bob:x:20002:", "bob:x:20099:"));
    machine.write(&record("alice"), "x");
    let of_key =
        fs::read_dir(machine.path(&record(""))).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let of_key = of_key.into_iter().find(|name| name.starts_with("carol,") && !name.ends_with('~')).unwrap();
    set_mode(&machine, &record(&of_key), 0o644);
    let said = Said::of(&machine, &[]);
    let broken = said.named("record-broken");
    assert_eq!(broken.len(), 2, "{:#?}", said.findings);
    assert!(broken.iter().all(|finding| is_weight(finding, "closed")));
    assert_eq!(broken[0]["lines"][0], "pam-totp enrol --user alice --force");
    assert_eq!(broken[0]["place"], record("alice"));
    assert_eq!(broken[1]["lines"][0], format!("pam-totp enrol --user carol --key {key} --force"));
    assert!(is_weight(said.only("record-of-another"), "closed"));
    let orphan = said.only("record-orphaned");
    assert!(is_weight(orphan, "weak"));
    assert_eq!(orphan["lines"][0], format!("rm -f {0} {0}~", record("ghost")));
    assert!(said.has_note("remembered to have had a device, and gone: ghost"), "{:?}", said.notes);
    assert_eq!(Said::of(&machine, &["--user", "alice"]).named("record-broken").len(), 1);
    assert_eq!(ours(&Said::of(&machine, &["--user", "carol"])), ["record-broken"]);

    // The ways out are ways out.
    for finding in &said.findings {
        if let Some(line) = finding["lines"][0]
            .as_str()
            .filter(|_| finding["place"].as_str().is_some_and(|place| place.starts_with(STATE)))
        {
            let line =
                line.replace("pam-totp enrol", &format!("{} enrol --no-confirm --quiet", machine.program().display()));
            output_of(machine.command("sh").args(["-c", &line]));
        }
    }
    let said = Said::of(&machine, &[]);
    assert!(ours(&said).is_empty() && said.named("record-orphaned").is_empty(), "{:#?}", said.findings);

    fs::remove_dir_all(machine.path(&record(""))).unwrap();
    machine.make_directory(&record(""), 0o700, 0);
    assert!(is_weight(Said::of(&machine, &[]).only("records-gone"), "closed"));
}

#[test]
fn of_a_thousand_broken_records_ten_are_told() {
    let machine = root_only(OPTIONAL);
    for number in 0..30 {
        machine.append("/etc/passwd", &format!("u{number}:x:{0}:{0}::/home/u{number}:/bin/sh\n", 21000 + number));
        machine.write_as(&format!("{STATE}/records/u{number}"), "x", 0, 0o600);
    }
    let said = Said::of(&machine, &[]);
    assert_eq!(said.named("record-broken").len(), 10);
    assert!(said.has_note("record-broken: 20 more"), "{:?}", said.notes);
}

#[test]
fn a_file_in_a_home_that_does_not_work_is_a_finding_for_its_owner() {
    let machine = Machine::new();
    machine.service("sshd", STACK);
    machine.write(POLICY, "version = 1\n[defaults]\nenrolment = \"optional\"\n");
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    assert_eq!(ours(&Said::of(&machine, &[])), [""; 0]);
    machine.write_as(&ALICE.secret_file(), format!("{SECRET}\n\" TOTP_AUTH\n"), ALICE.uid, 0o644);
    machine.write_as(&BOB.secret_file(), format!("{SECRET}\n\" TOTP_AUTH\n"), ALICE.uid, 0o600);
    machine.write_as(&CAROL.secret_file(), "!\n\" TOTP_AUTH\n", CAROL.uid, 0o600);
    let said = Said::of(&machine, &[]);
    let broken = said.named("record-broken");
    let reasons: Vec<_> = broken.iter().map(|finding| finding["what"].as_str().unwrap()).collect();
    assert!(
        reasons.len() == 3 && reasons[0].contains("wrong-mode") && reasons[2].contains("bad-secret"),
        "{reasons:?}"
    );
    assert_eq!(broken[2]["place"], CAROL.secret_file());
}

#[test]
fn whoever_can_log_in_and_has_no_device_would_be_locked_out() {
    let machine = root_only("");
    machine.append("/etc/passwd", "robot:x:20010:20010::/home/robot:/usr/sbin/nologin\n");
    let said = Said::of(&machine, &["--service", "sshd"]);
    let finding = said.only("locked-out");
    assert!(is_weight(finding, "closed"));
    let what = finding["what"].as_str().unwrap();
    assert!(["alice", "bob", "carol"].iter().all(|name| what.contains(name)), "{what}");
    assert!(!what.contains("robot") && !what.contains("daemon"), "{what}");
    let lines = finding["lines"].to_string();
    assert!(lines.contains("--group GROUP --out DIR") && lines.contains("inline"), "{lines}");
    let bob = Said::of(&machine, &["--service", "sshd", "--user", "bob"]);
    assert_eq!(bob.only("locked-out")["what"], "1 person, bob can log in and has no device");
    assert_eq!(bob.only("locked-out")["lines"][0], "pam-totp enrol --user bob");

    // Whom sshd does not let try is not locked out by us.
    for (settings, names) in [
        ("AllowUsers bob car*@192.0.2.1\n", "2 people, bob, carol"),
        ("DenyUsers bob\nAllowGroups alice bob\n", "1 person, alice"),
        ("AllowUsers alice bob carol\nDenyGroups alice\nDenyUsers bob@192.0.2.1 carol\n", "1 person, bob"),
    ] {
        let before = machine.read("/etc/ssh/sshd_config");
        machine.write("/etc/ssh/sshd_config", format!("{settings}{before}"));
        let said = Said::of(&machine, &["--service", "sshd"]);
        let what = said.only("locked-out")["what"].as_str().unwrap().to_owned();
        assert!(what.starts_with(&format!("{names} can log in")), "{settings}: {what}");
        machine.write("/etc/ssh/sshd_config", before);
    }

    totp(&machine, &["enrol", "--user", "bob", "--no-confirm", "--quiet"]);
    assert_eq!(ours(&Said::of(&machine, &["--user", "bob"])), [""; 0]);
    let said = Said::of(&machine, &["--service", "sshd"]);
    assert!(!said.only("locked-out")["what"].as_str().unwrap().contains("bob"), "{:#?}", said.findings);
    totp(&machine, &["remove", "--user", "bob"]);
    let said = Said::of(&machine, &["--user", "bob"]);
    assert!(
        ours(&said).is_empty() && said.has_note("had a device, have none"),
        "{:#?} {:?}",
        said.findings,
        said.notes
    );
    assert!(is_weight(Said::of(&machine, &["--user", "nobody-here"]).only("unknown-user"), "closed"));
}

#[test]
fn whom_sshd_lets_try_is_told_by_the_groups_with_which_they_log_in() {
    let machine = root_only("");
    let directory = machine.with_directory();
    let before = machine.read("/etc/ssh/sshd_config");
    for (settings, is_open) in [
        ("AllowGroups directory-admins\n", [true, false]),
        ("AllowGroups root directory-*\n", [true, false]),
        ("DenyGroups directory-admins\n", [false, true]),
    ] {
        machine.write("/etc/ssh/sshd_config", format!("{settings}{before}"));
        let mut command = machine.command(machine.program());
        command.args(["doctor", "--json", "--service", "sshd"]).env("LD_LIBRARY_PATH", &directory);
        let said = Said::told(&command.output().unwrap());
        let what = said.only("locked-out")["what"].as_str().unwrap();
        assert_eq!(["alice", "bob"].map(|name| what.contains(name)), is_open, "{settings}: {what}");
    }
}

#[test]
fn whom_the_policy_lets_in_or_gives_a_device_is_not_locked_out() {
    let machine = root_only("");
    for (rules, is_noted) in [
        ("enrolment = \"optional\"\n", false),
        ("enrolment = \"inline\"\n", false),
        ("enrol_by = 2999-01-01\n", true),
        ("[require]\ngroups = [\"root\"]\n", false),
        (
            "[[exempt]]\nusers = [\"any\"]\nnetworks = [\"any\"]\nservices = [\"sshd\"]\nuntil = 2999-01-01\nreason = \"x\"\n",
            false,
        ),
    ] {
        machine.write(POLICY, format!("version = 1\n[defaults]\nstore = \"system\"\n{rules}"));
        let said = Said::of(&machine, &["--service", "sshd", "--user", "alice"]);
        assert!(said.named("locked-out").is_empty(), "{rules}: {:#?}", said.findings);
        assert_eq!(said.has_note("without a device from 2999-01-01"), is_noted, "{rules}: {:?}", said.notes);
    }
    machine.write(POLICY, "version = 1\n[defaults]\nstore = \"system\"\nenrol_by = 2026-01-01\n");
    assert_eq!(ours(&Said::of(&machine, &["--user", "alice", "--service", "sshd"])), ["locked-out"], "it is over");

    machine.write(POLICY, "version = 1\n[defaults]\nstore = \"system\"\nenrolment = \"ticket\"\n");
    let of_alice = ["--service", "sshd", "--user", "alice"];
    let said = Said::of(&machine, &of_alice);
    assert!(ours(&said).is_empty() && said.has_note("without a ticket: 1 person, alice"), "{:?}", said.notes);
    ticket(&machine, "alice", &[]);
    assert!(!Said::of(&machine, &of_alice).has_note("without a ticket"));
}

#[test]
fn whoever_is_not_root_is_told_that_root_would_see_more() {
    let machine = root_only(OPTIONAL);
    let output = machine.command_as(ALICE, machine.program()).args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let notes = report["notes"].to_string();
    assert!(notes.contains("run this as root"), "{report}");
    let names: Vec<_> =
        report["findings"].as_array().unwrap().iter().filter_map(|finding| finding["name"].as_str()).collect();
    assert!(names.iter().all(|name| !OURS.contains(name)), "{report}");
}

#[test]
fn nothing_is_changed_by_a_look() {
    let machine = root_only("");
    printed(&machine, &["enrol", "--user", "alice", "--no-confirm"]);
    let all = "find /etc /home /var/lib/pam_totp /run -xdev -printf '%p %m %U %s %T@ %C@\\n' | sort";
    let listed = || output_of(machine.command("sh").args(["-c", all]));
    let before = listed();
    Said::of(&machine, &[]);
    assert_eq!(listed(), before);
}

const AGENT: [&str; 9] = [
    "agent-missing",
    "agent-directory",
    "agent-link",
    "agent-squatted",
    "agent-closed-to-others",
    "agent-unanswered",
    "agent-version",
    "trusted-caller-unknown",
    "trusted-caller-policy",
];

fn about_the_agent(said: &Said) -> Vec<&str> {
    said.findings.iter().filter_map(|finding| finding["name"].as_str()).filter(|name| AGENT.contains(name)).collect()
}

#[test]
fn an_agent_that_is_not_there_or_not_what_answers_is_a_finding() {
    let machine = root_only(&format!("{OPTIONAL}via = \"agent\"\n"));
    let said = Said::of(&machine, &[]);
    assert!(is_weight(said.only("agent-missing"), "closed"));
    assert_eq!(said.only("agent-missing")["lines"][0], "systemctl enable --now pam-totp-agent.socket");
    let agent = Agent::start(&machine);
    assert_eq!(about_the_agent(&Said::of(&machine, &[])), [""; 0]);
    set_mode(&machine, SOCKET, 0o600);
    assert_eq!(about_the_agent(&Said::of(&machine, &[])), ["agent-closed-to-others"]);
    set_mode(&machine, SOCKET, 0o666);
    set_mode(&machine, "/run", 0o777);
    let said = Said::of(&machine, &[]);
    assert!(is_weight(said.only("agent-directory"), "closed"));
    assert_eq!(said.only("agent-directory")["lines"][0], "chmod go-w /run");
    set_mode(&machine, "/run", 0o755);
    drop(agent);
    assert_eq!(about_the_agent(&Said::of(&machine, &[])), ["agent-unanswered"], "nobody listens");

    // What is no socket of root's is not asked.
    machine.write_as(SOCKET, "", 0, 0o666);
    assert_eq!(about_the_agent(&Said::of(&machine, &[])), ["agent-squatted"]);
    fs::remove_file(machine.path(SOCKET)).unwrap();
    fs::create_dir(machine.path(SOCKET)).unwrap();
    assert_eq!(about_the_agent(&Said::of(&machine, &[])), ["agent-squatted"]);
}

#[test]
fn whoever_answers_in_the_agents_place_is_a_finding() {
    let machine = root_only(&format!("{OPTIONAL}via = \"agent\"\nagent_socket = \"/run/agent/socket\"\n"));
    machine.make_directory("/run/agent", 0o755, ALICE.uid);
    let mut squatter = machine.command_as(ALICE, helper(&machine));
    let mut squatter = squatter.args(["/run/agent/socket", "-", "sleep", "60"]).spawn().unwrap();
    let path = machine.path("/run/agent/socket");
    while !path.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let said = Said::of(&machine, &[]);
    assert_eq!(about_the_agent(&said), ["agent-directory", "agent-squatted"]);
    assert!(said.only("agent-squatted")["what"].to_string().contains("belongs to uid 20001, not to root"));
    // Made to look like root's.
    for path in [&path, path.parent().unwrap()] {
        chown(path, Some(0), None).unwrap();
    }
    let said = Said::of(&machine, &[]);
    assert!(said.only("agent-squatted")["what"].to_string().contains("somebody else listens"), "{:#?}", said.findings);
    squatter.kill().unwrap();
    squatter.wait().unwrap();

    for (reply, name) in [
        (&b"\0\0\0\x02\x02n"[..], "agent-version"),
        (b"\0\0\0\x01x", "agent-version"),
        (b"\0\0\0\x02\x01x", "agent-unanswered"),
        (b"", "agent-unanswered"),
    ] {
        fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        set_mode(&machine, "/run/agent/socket", 0o666);
        let answering = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            peer.read_exact(&mut length).unwrap();
            peer.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).unwrap();
            peer.write_all(reply).unwrap();
        });
        let said = Said::of(&machine, &[]);
        assert_eq!(about_the_agent(&said), [name], "{reply:?} {:#?}", said.findings);
        answering.join().unwrap();
    }
    fs::remove_file(&path).unwrap();
    symlink("/run/elsewhere", &path).unwrap();
    assert_eq!(about_the_agent(&Said::of(&machine, &[])), ["agent-unanswered", "agent-link"]);
}

#[test]
fn a_trusted_caller_that_is_not_there_or_cannot_read_the_policy_is_a_finding() {
    let callers = "[[trusted_caller]]\nuser = \"carol\"\nservices = [\"test\"]\ngroups = [\"alice\"]\n\
                   [[trusted_caller]]\nuser = \"gone\"\nservices = [\"test\"]\ngroups = [\"any\"]\n\
                   [[trusted_caller]]\nuser = \"bob\"\nservices = [\"test\"]\ngroups = [\"alice\", \"nobodies\"]\n";
    let machine = root_only(&format!("{OPTIONAL}via = \"agent\"\n{callers}"));
    let _agent = Agent::start(&machine);
    let said = Said::of(&machine, &[]);
    assert_eq!(about_the_agent(&said), ["trusted-caller-unknown"; 2]);
    let whats: Vec<_> =
        said.named("trusted-caller-unknown").iter().map(|finding| finding["what"].to_string()).collect();
    assert!(whats[0].contains("a user") && whats[0].contains("gone") && whats[1].contains("nobodies"), "{whats:?}");
    set_mode(&machine, POLICY, 0o600);
    let said = Said::of(&machine, &[]);
    let unreadable = said.named("trusted-caller-policy");
    assert_eq!(unreadable.len(), 2, "carol and bob: {:#?}", said.findings);
    assert_eq!(unreadable[0]["lines"][0], format!("chmod a+r {POLICY}"));
    // By the group of one of the two.
    chown(machine.path(POLICY), None, Some(BOB.uid)).unwrap();
    set_mode(&machine, POLICY, 0o640);
    let said = Said::of(&machine, &[]);
    assert!(said.only("trusted-caller-policy")["what"].to_string().contains("carol"));
    set_mode(&machine, POLICY, 0o644);
    set_mode(&machine, "/etc/security", 0o750);
    assert_eq!(Said::of(&machine, &[]).named("trusted-caller-policy")[0]["lines"][0], "chmod a+x /etc/security");
}
