//! A fleet: several machines, each with its agent, on a real cluster of three.

use crate::support::etcd::Cluster;
use crate::support::fleet::{agents, machines};
use crate::support::machine::{AUTH_ERR, Machine, SUCCESS};
use crate::support::root_only::{json, next_code, run, totp};
use crate::support::totp::{code_now, wrong_code};

/// What is tested is not the ledger.
const WITHOUT_LIMITS: &str = "[throttle]\nuser = \"\"\nhost = \"\"\n";

fn enrol(machine: &Machine, user: &str) -> String {
    let printed = json(machine, &["enrol", "--user", user, "--no-confirm", "--force"]);
    printed["secret"].as_str().unwrap().to_owned()
}

fn login(machine: &Machine, user: &str, code: &str) -> (i32, String) {
    let login = machine.login("test", user).answer(code).run();
    (login.result(), if login.result() == SUCCESS { String::new() } else { login.reason() })
}

#[test]
fn one_enrolment_is_good_everywhere_and_a_code_once() {
    let cluster = Cluster::start(3);
    let machines = machines(&cluster, 3, WITHOUT_LIMITS);
    let _agents = agents(&machines);
    let secret = enrol(&machines[0], "alice");
    let code = code_now(&secret);
    assert_eq!(login(&machines[1], "alice", &code).0, SUCCESS, "{:#?}", machines[1].log());
    for machine in &machines {
        assert_eq!(login(machine, "alice", &code), (AUTH_ERR, "used-code".to_owned()));
        assert_eq!(login(machine, "alice", &wrong_code(&secret)), (AUTH_ERR, "wrong-code".to_owned()));
        assert_eq!(login(machine, "bob", &code), (AUTH_ERR, "not-enrolled".to_owned()));
        assert_eq!(login(machine, "nobody-at-all", &code), (AUTH_ERR, "unknown-user".to_owned()));
    }
    assert_eq!(login(&machines[2], "alice", &next_code(&secret)).0, SUCCESS);
    let status = json(&machines[1], &["status", "--user", "alice"]);
    assert_eq!((status["store"].as_str(), status["enrolled"].as_bool()), (Some("fleet"), Some(true)), "{status}");
    let hosts = json(&machines[0], &["fleet", "list"]);
    assert_eq!(hosts.as_array().unwrap().len(), 3, "{hosts}");
    let _ = (run(&machines[0], &["fleet", "list"]), totp(&machines[0], &["key", "list"]));
}
