//! `pam-totp import`.

use crate::support::machine::{ALICE, AUTH_ERR, BOB, CAROL, Machine, SUCCESS};
use crate::support::totp::{SECRET, hotp, now};
use crate::support::{need, output_of};
use std::process::{Command, Output};

/// RFC 6238's secret.
const HEX: &str = "3132333435363738393031323334353637383930";

fn machine() -> Machine {
    let machine = Machine::new();
    machine.service("test", "auth required pam_totp.so\n");
    machine
}

fn import(machine: &Machine, arguments: &[&str]) -> Output {
    machine.command(machine.program()).arg("import").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_pam_oath_accepted_is_used_and_the_next_code_works() {
    let machine = machine();
    let usersfile = "/etc/users.oath";
    machine.write_as(usersfile, format!("HOTP alice - {HEX}\n"), 0, 0o600);
    machine.service("oath", "auth required pam_oath.so usersfile=/etc/users.oath window=5\n");
    let oath = machine.login("oath", "alice").answer(hotp(SECRET, 2)).run();
    assert_eq!(oath.result(), SUCCESS, "is the package libpam-oath installed? {oath:#?}");
    let output = import(&machine, &[usersfile]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("alice: 6 digits by counter (SHA1), from counter 3 on"), "{output:?}");
    assert!(!text(&output.stdout).contains(HEX) && !text(&output.stdout).contains(SECRET));
    assert_eq!(machine.login("test", "alice").answer(hotp(SECRET, 2)).run().result(), AUTH_ERR, "used at pam_oath");
    machine.enrol(ALICE, "\" HOTP_COUNTER 3\n");
    assert_eq!(machine.login("test", "alice").answer(hotp(SECRET, 3)).run().result(), SUCCESS);
}

#[test]
fn time_based_codes_of_now_count_as_used_and_later_ones_work() {
    let machine = machine();
    machine.write(
        "/etc/users.oath",
        format!("# ours\n\nHOTP/T30/8 alice 1234 {HEX}\nHOTP/T60 bob - {HEX}\nHOTP/T30 nobody-here - {HEX}\n"),
    );
    let output = import(&machine, &["/etc/users.oath"]);
    assert_eq!(output.status.code(), Some(1), "one of them is unknown: {output:?}");
    assert!(text(&output.stdout).contains("2 taken over, 1 not."), "{output:?}");
    assert!(text(&output.stdout).contains("the PIN is not taken over"), "{output:?}");
    assert!(
        text(&output.stderr).contains("/etc/users.oath:5: nobody-here: there is no user `nobody-here`"),
        "{output:?}"
    );
    assert!(machine.read(&ALICE.secret_file()).contains("\" DIGITS 8\n"));
    assert!(machine.read(&BOB.secret_file()).contains("\" STEP_SIZE 60\n"));
    need("oathtool", "oathtool");
    let eight = |time: u64| {
        let now = format!("--now=@{time}");
        output_of(Command::new("oathtool").args(["--totp", "--digits=8", &now, HEX])).trim().to_owned()
    };
    let login = machine.login("test", "alice").answer(eight(now())).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "used-code"));
    let login = machine.login_at("+61s", "test", "alice").answer(eight(now() + 61)).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
}

#[test]
fn one_user_or_one_uri_and_nothing_is_replaced_unasked() {
    let machine = machine();
    machine.write("/etc/users.oath", format!("HOTP/T30 alice - {HEX}\nHOTP/T30 bob - {HEX}\n"));
    assert!(import(&machine, &["/etc/users.oath", "--user", "bob"]).status.success());
    assert!(machine.path(&BOB.secret_file()).exists() && !machine.path(&ALICE.secret_file()).exists());
    let before = machine.read(&BOB.secret_file());
    let output = import(&machine, &["/etc/users.oath", "--user", "bob"]);
    assert_eq!((output.status.code(), machine.read(&BOB.secret_file())), (Some(1), before));
    // The same secret once more would make its used codes work again.
    let output = import(&machine, &["/etc/users.oath", "--user", "bob", "--force"]);
    assert!(
        output.status.code() == Some(1) && text(&output.stderr).contains("holds this secret already"),
        "{output:?}"
    );
    machine.write("/etc/other.oath", "HOTP/T30 bob - 00112233445566778899aabbccddeeff00112233\n");
    let output = import(&machine, &["/etc/other.oath", "--user", "bob"]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("--force"), "{output:?}");
    assert!(import(&machine, &["/etc/other.oath", "--user", "bob", "--force"]).status.success());
    let uri = format!("otpauth://totp/Example:someone@example.org?secret={SECRET}&algorithm=SHA256&issuer=Example\n");
    machine.write("/etc/uri", &uri);
    let output = import(&machine, &["/etc/uri", "--user", "carol"]);
    assert!(output.status.success(), "{output:?}");
    assert!(machine.read(&CAROL.secret_file()).contains("\" ALGORITHM SHA256\n"));
    for (file, user) in
        [("/etc/uri", None), ("/etc/passwd", None), ("/nonexistent", None), ("/etc/users.oath", Some("carol"))]
    {
        let mut arguments = vec![file];
        arguments.extend(user.iter().flat_map(|user| ["--user", *user]));
        assert_eq!(import(&machine, &arguments).status.code(), Some(1), "{arguments:?}");
    }
    assert_eq!(import(&machine, &[]).status.code(), Some(2));
}
