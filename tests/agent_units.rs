//! pam-totp-agent as systemd starts it: with a socket that was passed, and with no more rights than its unit gives it. systemd
//! itself does not run here; what it would do is done by the kernel all the same.

use crate::support::agent::{Agent, SOCKET};
use crate::support::etcd::Cluster;
use crate::support::fleet;
use crate::support::machine::{ALICE, AUTH_ERR, BOB, Machine, SUCCESS};
use crate::support::root_only::{self, json, next_code};
use crate::support::totp::{code_now, wrong_code};
use crate::support::{dist, example, need, output_of, project};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const UNITS: [&str; 2] = ["pam-totp-agent.socket", "pam-totp-agent.service"];

fn unit(name: &str) -> String {
    fs::read_to_string(project().join("packaging/systemd").join(name)).unwrap()
}

/// The values of a setting of the service, in the order of their lines.
fn settings(key: &str) -> Vec<String> {
    let service = unit("pam-totp-agent.service");
    let values: Vec<_> = service.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert!(!values.is_empty(), "no {key}=");
    values.into_iter().map(str::to_owned).collect()
}

fn setting(key: &str) -> String {
    settings(key).join(" ")
}

/// Both units in a directory, with the program as `make build` made it.
fn copies() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in UNITS {
        let text = unit(name).replace("/usr/sbin/pam-totp-agent", dist("pam-totp-agent").to_str().unwrap());
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn systemd_takes_the_units_and_finds_little_to_say_against_the_service() {
    need("systemd-analyze", "systemd");
    let directory = copies();
    let paths = UNITS.map(|name| directory.path().join(name));
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&paths).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("pam-totp-agent")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
    // Before version 250 it judges what is running, and nothing else.
    if !output_of(Command::new("systemd-analyze").arg("--help")).contains("--offline") {
        return;
    }
    // Of 10: 2.3 where this was written, most of it for being root on the host's network; 1.8 with the drop-in of its comments.
    let mut judge = Command::new("systemd-analyze");
    output_of(judge.args(["security", "--offline=yes", "--threshold=24"]).arg(&paths[1]));
}

#[test]
fn the_socket_is_where_the_module_looks_for_it() {
    let socket = unit("pam-totp-agent.socket");
    assert!(socket.contains(&format!("\nListenStream={SOCKET}\n")) && socket.contains("\nSocketMode=0666\n"));
    assert_eq!([setting("StateDirectory"), setting("RuntimeDirectory")], ["pam_totp", "pam_totp"]);
    assert_eq!(setting("ExecStart"), "/usr/sbin/pam-totp-agent");
}

// ---- What the unit allows ----

/// The system calls in a set of systemd's, such as `@system-service`; of a name, itself.
fn calls_in(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    let said = output_of(Command::new("systemd-analyze").args(["syscall-filter", name]));
    let members =
        said.lines().map(str::trim).filter(|line| *line != name && !line.starts_with('#') && !line.is_empty());
    members.flat_map(calls_in).collect()
}

/// What SystemCallFilter= comes to.
fn allowed_calls() -> BTreeSet<String> {
    // What systemd always adds.
    let mut allowed = calls_in("@default");
    for line in settings("SystemCallFilter") {
        let names = |list: &str| list.split(' ').flat_map(calls_in).collect::<BTreeSet<_>>();
        match line.strip_prefix('~') {
            Some(list) => allowed = &allowed - &names(list),
            None => allowed.extend(names(&line)),
        }
    }
    allowed
}

/// The numbers that this machine has for names.
fn numbers() -> BTreeMap<String, u32> {
    let script = "echo '#include <sys/syscall.h>' | cc -E -dM -";
    let defined = output_of(Command::new("sh").args(["-c", script]));
    let number = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    defined.lines().filter_map(number).collect()
}

/// As as_service.rs reads it.
fn filter() -> String {
    let numbers = numbers();
    assert!(numbers.len() > 200 && setting("MemoryDenyWriteExecute") == "yes");
    let calls = allowed_calls().into_iter().filter_map(|name| Some(numbers.get(&name)?.to_string()));
    let families = setting("RestrictAddressFamilies");
    let families = families.split(' ').map(|family| match family {
        "AF_UNIX" => "AF 1".to_owned(),
        "AF_INET" => "AF 2".to_owned(),
        "AF_INET6" => "AF 10".to_owned(),
        "AF_NETLINK" => "AF 16".to_owned(),
        other => panic!("{other}"),
    });
    calls.chain(families).chain(["wx".to_owned()]).collect::<Vec<_>>().join("\n")
}

/// What the unit has mounted, made of the machine in a mount namespace of the process' own; then `$@`.
const MOUNTS: &str = r#"
set -eu
for directory in "$STATE" /run/pam_totp; do
    mkdir -p -m 0700 "$directory"
    mount --bind "$directory" "$directory"
done
while read -r _ _ _ _ place _; do
    case $place in /proc | /proc/* | /sys | /sys/* | /dev | /dev/* | "$STATE" | /run/pam_totp) continue ;; esac
    mount -o remount,bind,ro "$place" 2>/dev/null || :
done </proc/self/mountinfo
mount -t proc -o hidepid=2,subset=pid proc /proc
for directory in / /etc /home /run /var/lib; do
    ! touch "$directory/try" 2>/dev/null || { echo "$directory can be written to" >&2; exit 1; }
done
ulimit -c 0
umask 0077
exec "$@"
"#;

/// The agent, not yet started, as the service unit has it.
fn as_unit(machine: &Machine) -> Command {
    need("setpriv", "util-linux");
    let filter_file = machine.shared().join("filter");
    fs::write(&filter_file, filter()).unwrap();
    let capabilities = setting("CapabilityBoundingSet").to_lowercase().replace("cap_", "+").replace(' ', ",");
    // The socket is there before all is read-only, and the filter comes when all else is done.
    let mut command = machine.command(helper(machine));
    command.env("STATE", root_only::STATE).args([SOCKET, "-"]);
    command.args(["unshare", "--mount", "--ipc", "sh", "-c", MOUNTS, "sh"]);
    command.args([
        "setpriv",
        "--no-new-privs",
        "--inh-caps=-all",
        &format!("--bounding-set=-all,{capabilities}"),
        "--",
    ]);
    command.arg(helper(machine)).arg("-").arg(&filter_file).arg(machine.agent());
    command
}

/// as_service.rs, where the machine finds it.
pub(crate) fn helper(machine: &Machine) -> PathBuf {
    let copy = machine.shared().join("as-service");
    if !copy.exists() {
        output_of(Command::new("cp").arg(example("as-service")).arg(&copy));
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

fn status(pid: u32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

fn secret(machine: &Machine, user: &str) -> String {
    json(machine, &["enrol", "--user", user, "--no-confirm", "--force"])["secret"].as_str().unwrap().to_owned()
}

#[test]
fn it_needs_no_more_than_the_unit_gives_it() {
    let policy = "via = \"agent\"\nfail_delay = \"0s\"\nenrolment = \"optional\"\n\
                  [[exempt]]\nusers = [\"alice\"]\nnetworks = [\"any\"]\nservices = [\"test\"]\nuntil = 2199-01-01\nreason = \"x\"\n";
    let machine = root_only::machine(policy);
    // Whoever is not asked is let in.
    for service in ["sshd", "test"] {
        machine.service(service, &format!("auth required pam_permit.so\n{}", root_only::STACK));
    }
    let alice = secret(&machine, "alice");
    // Somebody with a file of google-authenticator's in a home that is theirs alone, and somebody new.
    machine.enrol(BOB, "\" TOTP_AUTH");
    let agent = Agent::start_by(&machine, &mut as_unit(&machine));
    // Who connects is waited for by the socket, and is answered once the program is there.
    let right = machine.login("sshd", "alice").with(&["--rhost", "192.0.2.7"]).answer(code_now(&alice)).run();
    assert_eq!((right.result(), right.log.len()), (SUCCESS, 1), "{right:#?}");
    let pid = agent.pid();
    assert_eq!([status(pid, "CapEff"), status(pid, "CapBnd")], ["00000000000000c0", "00000000000000c0"]);
    assert_eq!([status(pid, "NoNewPrivs"), status(pid, "Seccomp")], ["1", "2"]);
    let wrong = machine.login("sshd", "alice").answer(wrong_code(&alice)).run();
    assert_eq!((wrong.result(), wrong.reason().as_str()), (AUTH_ERR, "wrong-code"));
    let of_their_own = machine.login_as(ALICE, "test", "alice").answer(next_code(&alice)).run();
    assert_eq!(of_their_own.result(), SUCCESS, "{of_their_own:#?}");

    // Homes are looked into.
    let enrolled = machine.login("sshd", "bob").answer("123456").run();
    assert_eq!((enrolled.result(), enrolled.reason().as_str()), (AUTH_ERR, "not-enrolled"), "{enrolled:#?}");
    assert_eq!(machine.login("sshd", "carol").run().result(), SUCCESS);
    // The host's own addresses are known.
    let login = |host: &str| machine.login("test", "alice").with(&["--rhost", host]).answer("000000").run();
    assert_eq!(login("192.0.2.7").result(), SUCCESS);
    for own in own_addresses() {
        assert_eq!(login(&own).result(), AUTH_ERR, "{own}");
    }
    // Nothing went another way than usual.
    let failures = json(&machine, &["throttle", "list"]).to_string();
    assert!(failures.contains("alice"), "{failures}");
}

#[test]
fn it_gets_to_a_fleet_with_no_more_than_the_unit_gives_it() {
    let cluster = Cluster::start(1);
    let machine = fleet::machine(&cluster, "bastion1", "");
    fleet::found(&machine);
    let alice = secret(&machine, "alice");
    let agent = Agent::start_by(&machine, &mut as_unit(&machine));
    let right = machine.login("sshd", "alice").with(&["--rhost", "192.0.2.7"]).answer(code_now(&alice)).run();
    assert_eq!((right.result(), right.log.len()), (SUCCESS, 1), "{right:#?}");
    assert_eq!([status(agent.pid(), "NoNewPrivs"), status(agent.pid(), "Seccomp")], ["1", "2"]);
    let again = machine.login("sshd", "alice").answer(code_now(&alice)).run();
    assert_eq!((again.result(), again.reason().as_str()), (AUTH_ERR, "used-code"));
    // What it has seen it has written down, and it has said that it is there.
    assert!(machine.path("/var/lib/pam_totp/fleet-marks/alice").exists());
    assert!(json(&machine, &["fleet", "list"]).to_string().contains("bastion1"));
}

/// Those of this machine that are neither loopback nor link-local.
fn own_addresses() -> Vec<String> {
    let said = output_of(Command::new("ip").args(["-o", "addr", "show", "scope", "global"]));
    let words: Vec<_> = said.split_whitespace().collect();
    let addresses = words.windows(2).filter(|pair| pair[0].starts_with("inet"));
    addresses.map(|pair| pair[1].split('/').next().unwrap().to_owned()).collect()
}

// ---- The socket ----

/// The agent with this socket, if any, and these arguments.
fn with_socket(machine: &Machine, socket: &str, arguments: &[&str]) -> Command {
    let mut command = machine.command(helper(machine));
    command.args([socket, "-"]).arg(machine.agent()).args(arguments);
    command
}

#[test]
fn a_socket_that_was_passed_is_the_one_it_listens_at() {
    let machine = root_only::machine("via = \"agent\"\nfail_delay = \"0s\"\n");
    let alice = secret(&machine, "alice");
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let mut agent = Agent::start_by(&machine, &mut with_socket(&machine, SOCKET, &["--socket", "/run/another.sock"]));
    let before = inode(agent.socket());
    assert!(!machine.path("/run/another.sock").exists());
    assert_eq!(machine.login("test", "alice").answer(code_now(&alice)).run().result(), SUCCESS);
    // Its own, in the place of what is left.
    agent.again();
    assert_ne!(inode(agent.socket()), before);
    assert_eq!(machine.login("test", "alice").answer(next_code(&alice)).run().result(), SUCCESS);
}

#[test]
fn a_socket_of_another_process_is_not_taken_and_one_that_is_none_ends_it() {
    let machine = root_only::machine("via = \"agent\"\n");
    let mut of_another = with_socket(&machine, "-", &[]);
    of_another.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    drop(Agent::start_by(&machine, &mut of_another));
    let ends = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("bad-socket") && said.contains("ListenStream="), "{said}");
    };
    ends(&mut with_socket(&machine, "bound:/run/datagrams", &[]));
    let script = "export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$0\"";
    ends(machine.command("sh").args(["-c", script]).arg(machine.agent()));
    assert!(machine.log().iter().any(|line| line.contains("pam_totp(agent): ended reason=bad-socket")));
}
