//! What the tests and the demo stand on.

pub mod agent;
pub mod debian;
pub mod disk;
pub mod etcd;
pub mod fleet;
pub mod machine;
pub mod numbers;
pub mod peers;
pub mod postgres;
pub mod root_only;
pub mod screen;
pub mod ssh;
pub mod terminal;
pub mod totp;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The project's directory.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a test tries all there is to try, however long that takes: `make soak`. In `make test` it tries enough of it to
/// fail where what it is about is missing.
pub fn soak() -> bool {
    std::env::var_os("PAM_TOTP_SOAK").is_some_and(|value| value == "1")
}

/// How much is tried in `make test`, and in `make soak`.
pub fn rounds<T>(test: T, soak: T) -> T {
    if self::soak() { soak } else { test }
}

/// Something that `make build` makes.
pub fn dist(name: &str) -> PathBuf {
    let path = project().join("target/dist").join(name);
    assert!(path.exists(), "{} is missing: run `make build` first", path.display());
    path
}

/// An example program of this package, built along with the tests.
pub fn example(name: &str) -> PathBuf {
    let profile = std::env::current_exe().unwrap();
    let profile = profile.ancestors().find(|directory| directory.join("examples").is_dir()).expect("a build directory");
    profile.join("examples").join(name)
}

/// Fails with the name of the package where a program is missing.
pub fn need(program: &str, package: &str) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let somewhere = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = somewhere.into_iter().any(|directory| directory.join(program).exists());
    assert!(found, "{program} is missing: install the package {package} (`make prerequisites` does)");
}

/// Runs a command to its end and returns what it printed; fails if it fails.
pub fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// One of the files in pam.d-examples, word for word.
pub fn example_file(name: &str) -> String {
    std::fs::read_to_string(project().join("pam.d-examples").join(name)).unwrap()
}

/// The reasons of the denials in a log, in their order.
pub fn reasons(log: &[String]) -> Vec<String> {
    let reason = |line: &String| Some(line.split_once(" reason=")?.1.split(' ').next()?.to_owned());
    log.iter().filter_map(reason).collect()
}

/// Waits until what runs under strace, which writes to this file, is stopped. Its process id on the machine.
pub fn when_stopped(trace: &Path) -> String {
    let stopped = (0..2000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        let text = std::fs::read_to_string(trace).ok()?;
        let line = text.lines().find(|line| line.contains("stopped by SIGSTOP"))?;
        Some(line.split(' ').next()?.to_owned())
    });
    stopped.unwrap_or_else(|| panic!("not stopped: {}", trace.display()))
}
