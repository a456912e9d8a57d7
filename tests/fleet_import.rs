//! Secrets in the homes of many machines become those of one fleet.

use crate::support::agent::Agent;
use crate::support::etcd::Cluster;
use crate::support::fleet::machines;
use crate::support::machine::{ALICE, AUTH_ERR, BOB, CAROL, Machine, SUCCESS};
use crate::support::root_only::{json, run};
use crate::support::totp::{SECRET, code_at, hotp, now};

/// Another one, of 20 bytes too.
const OTHER: &str = "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK";

fn import(machine: &Machine, more: &[&str]) -> (bool, serde_json::Value) {
    let arguments = [&["import", "--to", "fleet", "--json"], more].concat();
    let output = run(machine, &arguments);
    (
        output.status.success(),
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}")),
    )
}

fn became<'a>(report: &'a serde_json::Value, user: &str) -> &'a str {
    let homes = report["homes"].as_array().unwrap();
    homes.iter().find(|home| home["user"] == user).map_or("not listed", |home| home["became"].as_str().unwrap())
}

#[test]
fn homes_of_many_machines_are_taken_over_once_and_what_differs_is_named() {
    let cluster = Cluster::start(1);
    let machines = machines(&cluster, 2, "[throttle]\nuser = \"\"\nhost = \"\"\n");
    let [one, two] = &machines[..] else { unreachable!() };
    let _agents = [Agent::start(one), Agent::start(two)];
    one.enrol(ALICE, "\" TOTP_AUTH\n12345678\n23456789\n34567890\n");
    two.enrol(ALICE, "\" TOTP_AUTH\n12345678\n34567890\n");
    one.enrol(BOB, "\" HOTP_COUNTER 5\n");
    two.enrol(BOB, "\" HOTP_COUNTER 9\n");
    one.enrol(CAROL, "\" TOTP_AUTH\n");
    two.write_as(&CAROL.secret_file(), format!("{OTHER}\n\" TOTP_AUTH\n"), CAROL.uid, 0o400);

    let (is_done, report) = import(one, &["--all-homes", "--keep"]);
    assert!(is_done, "{report}");
    assert_eq!(["alice", "bob", "carol"].map(|user| became(&report, user)), ["taken-over"; 3]);
    let (is_done, report) = import(two, &["--all-homes", "--delete"]);
    assert!(!is_done, "carol's is another one: {report}");
    assert_eq!(["alice", "bob", "carol"].map(|user| became(&report, user)), ["same", "same", "differs"]);
    assert!(!two.path(&ALICE.secret_file()).exists() && two.path(&CAROL.secret_file()).exists());
    let (is_done, report) = import(one, &["--all-homes", "--keep"]);
    assert!(is_done && became(&report, "alice") == "same", "again: {report}");

    // What was spent on either is spent.
    let login = |machine: &Machine, user: &str, code: &str| machine.login("test", user).answer(code).run().result();
    assert_eq!(login(one, "alice", "23456789"), AUTH_ERR, "spent on the second");
    assert_eq!(login(two, "alice", "12345678"), SUCCESS);
    assert_eq!(login(one, "alice", "12345678"), AUTH_ERR);
    assert_eq!(login(one, "bob", &hotp(SECRET, 5)), AUTH_ERR, "the second was at 9");
    assert_eq!(login(one, "bob", &hotp(SECRET, 9)), SUCCESS);
    assert_eq!(login(two, "carol", &code_at(OTHER, now() + 60)), AUTH_ERR, "create only");
    assert_eq!(login(two, "alice", &code_at(SECRET, now())), AUTH_ERR, "until now it could have been used anywhere");

    let differs = run(two, &["import", "--to", "fleet", "--user", "carol", "--keep"]);
    assert!(
        !differs.status.success() && String::from_utf8_lossy(&differs.stderr).contains("another secret"),
        "{differs:?}"
    );
    let (is_done, report) = import(two, &["--user", "carol", "--force", "--keep"]);
    assert!(is_done, "{report}");
    assert_eq!(json(one, &["status", "--user", "carol"])["devices"][0]["name"], "imported");
    // Where a code for a lost device is none of the record's, nobody knows which are spent.
    two.write_as(&ALICE.secret_file(), format!("{SECRET}\n\" TOTP_AUTH\n98765432\n"), ALICE.uid, 0o400);
    let (_, report) = import(two, &["--all-homes", "--keep"]);
    assert_eq!(became(&report, "alice"), "same-but-recovery-codes");
}
