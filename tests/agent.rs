//! Logins that another process decides: through real libpam, sshd and PostgreSQL, with whatever can be wrong at its socket.

use crate::support::agent::Agent;
use crate::support::machine::{ALICE, AUTH_ERR, AUTHINFO_UNAVAIL, Machine, SUCCESS, User};
use crate::support::root_only::{self, PROMPT, json, next_code};
use crate::support::totp::{code_now, wrong_code};

/// The machine, and the agent's part of its policy. What is in `policy` goes on from `[defaults]`.
fn machine(policy: &str) -> Machine {
    root_only::machine(&format!("via = \"agent\"\nfail_delay = \"0s\"\n{policy}"))
}

/// A new device of somebody's, and its secret.
fn enrol(machine: &Machine, user: User) -> String {
    let printed = json(machine, &["enrol", "--user", user.name, "--no-confirm", "--force"]);
    printed["secret"].as_str().unwrap().to_owned()
}

#[test]
fn the_agent_decides_what_the_module_would() {
    let machine = machine("");
    let agent = Agent::start(&machine);
    let secret = enrol(&machine, ALICE);
    let code = code_now(&secret);
    let right = machine.login("test", "alice").with(&["--rhost", "192.0.2.7"]).answer(&code).run();
    assert_eq!((right.result(), right.prompts.clone()), (SUCCESS, vec![format!("1 \"{PROMPT}\"")]));
    assert_eq!(
        right.log,
        ["pam_totp(test:auth): accepted user=alice rhost=192.0.2.7 factor=totp steps=+0 device=phone"]
    );
    let used = machine.login("test", "alice").with(&["--rhost", "192.0.2.7"]).answer(&code).run();
    assert_eq!((used.result(), used.reason().as_str()), (AUTH_ERR, "used-code"));
    assert!(used.log.iter().any(|line| line.contains("pam_totp(test:auth): authentication failure; ")), "{used:#?}");
    assert_eq!(used.log.len(), 2, "{used:#?}");
    let wrong = machine.login("test", "alice").answer(wrong_code(&secret)).run();
    assert_eq!((wrong.result(), wrong.reason().as_str()), (AUTH_ERR, "wrong-code"));
    for nobody in ["bob", "nobody-of-that-name"] {
        let denied = machine.login("test", nobody).answer("123456").run();
        assert_eq!((denied.result(), denied.prompts), (AUTH_ERR, vec![format!("1 \"{PROMPT}\"")]), "{nobody}");
    }
    drop(agent);
    let unavailable = machine.login("test", "alice").answer(next_code(&secret)).run();
    assert_eq!((unavailable.result(), unavailable.reason().as_str()), (AUTHINFO_UNAVAIL, "no-agent"));
}
