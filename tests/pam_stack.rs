//! The module in a real libpam.

use crate::support::machine::{ALICE, AUTH_ERR, Machine, SUCCESS};
use crate::support::totp::{SECRET, code_now};

const STACK: &str = "auth required pam_totp.so\n";

#[test]
fn a_right_code_gets_in_once() {
    let machine = Machine::new();
    machine.service("test", STACK);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let code = code_now(SECRET);
    let login = machine.login("test", "alice").answer(&code).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    assert_eq!(login.prompts, ["1 \"Verification code: \""]);
    let again = machine.login("test", "alice").answer(&code).run();
    assert_eq!((again.result(), again.reason().as_str()), (AUTH_ERR, "used-code"));
    println!("{login:#?}{again:#?}");
}
