//! What is shipped: the library file, its dependencies, its installation, and the order among the sources.

use crate::support::{dist, need, output_of, project};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn readelf(option: &str) -> String {
    need("readelf", "binutils");
    output_of(Command::new("readelf").args([option, "-W"]).arg(dist("pam_totp.so")))
}

#[test]
fn only_the_entry_points_are_exported() {
    need("nm", "binutils");
    let symbols = output_of(Command::new("nm").args(["-D", "--defined-only"]).arg(dist("pam_totp.so")));
    let names: Vec<_> = symbols.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let entry_points = ["pam_sm_authenticate", "pam_sm_close_session", "pam_sm_open_session", "pam_sm_setcred"];
    assert_eq!(names, entry_points);
}

#[test]
fn the_module_is_hardened_and_needs_libpam_and_libc_alone() {
    let dynamic = readelf("-d");
    let needed: BTreeSet<_> = dynamic
        .lines()
        .filter_map(|line| line.split_once("Shared library: [")?.1.split_once(']').map(|(name, _)| name))
        .collect();
    let allowed = ["libpam.so.0", "libgcc_s.so.1", "libc.so.6"];
    assert!(needed.contains("libpam.so.0"), "a host with a private libpam could not load us: {dynamic}");
    assert!(needed.iter().all(|name| allowed.contains(name) || name.starts_with("ld-linux")), "{needed:?}");
    assert!(dynamic.contains("NODELETE") && dynamic.contains("NOW"), "{dynamic}");
    let segments = readelf("-l");
    assert!(segments.contains("GNU_RELRO"), "{segments}");
    let stack = segments.lines().find(|line| line.contains("GNU_STACK")).unwrap();
    assert!(!stack.contains("RWE"), "{stack}");
    // Without LTO the module is a third larger.
    assert!(fs::metadata(dist("pam_totp.so")).unwrap().len() < 1_310_000);
}

#[test]
fn the_program_opens_libpam_when_it_needs_it_and_the_module_plays_no_application() {
    need("readelf", "binutils");
    let dynamic = output_of(Command::new("readelf").args(["-d", "-W"]).arg(dist("pam-totp")));
    assert!(dynamic.contains("libc.so.6") && !dynamic.contains("libpam"), "{dynamic}");
    let has = |file: &str| fs::read(dist(file)).unwrap().windows(17).any(|bytes| bytes == b"pam_start_confdir");
    assert_eq!([has("pam-totp"), has("pam_totp.so")], [true, false]);
}

#[test]
fn without_cargo_fuzz_nothing_is_fuzzed_and_both_ways_to_it_say_so() {
    // A cargo that knows no such command.
    let directory = tempfile::tempdir().unwrap();
    let cargo = directory.path().join("cargo");
    fs::write(&cargo, "#!/bin/sh\nexit 101\n").unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    for words in [&["tests/fuzz", "1"][..], &["make", "fuzz"]] {
        let output =
            Command::new(words[0]).args(&words[1..]).current_dir(project()).env("PATH", &path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("cargo-fuzz is missing: cargo install"),
            "{words:?}: {output:?}"
        );
    }
}

#[test]
fn what_runs_in_sshd_is_a_short_list() {
    let tree = output_of(Command::new(env!("CARGO")).current_dir(project()).args([
        "tree",
        "--locked",
        "--offline",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]));
    let crates: BTreeSet<_> =
        tree.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty()).collect();
    let allowed: BTreeSet<_> = [
        "pam_totp",
        "base32",
        "base64ct",
        "bitflags",
        "block-buffer",
        "cfg-if",
        "cmov",
        "constant_time_eq",
        "cpufeatures",
        "crypto-common",
        "ctutils",
        "digest",
        "hmac",
        "hybrid-array",
        "ipnet",
        "libc",
        "linux-raw-sys",
        "qrcode",
        "rustix",
        "sha1",
        "sha2",
        "serde",
        "serde_core",
        "serde_derive",
        "serde_spanned",
        "toml",
        "toml_datetime",
        "toml_parser",
        "winnow",
        "totp-rs",
        "typenum",
        "zeroize",
        "zeroize_derive",
        "proc-macro2",
        "quote",
        "syn",
        "unicode-ident",
    ]
    .into();
    let new: Vec<_> = crates.difference(&allowed).collect();
    assert!(new.is_empty(), "not in the list of what may run as root inside sshd: {new:?}");
}

#[test]
fn install_and_uninstall_put_files_where_they_belong() {
    let root = tempfile::tempdir().unwrap();
    let make = |target: &str, variables: &[&str]| {
        let destdir = format!("DESTDIR={}", root.path().display());
        output_of(Command::new("make").current_dir(project()).args(["-s", target, &destdir]).args(variables))
    };
    make("install", &["PREFIX=/usr"]);
    let beside = "for so in /usr/lib/*/security/pam_unix.so /lib/*/security/pam_unix.so /usr/lib64/security/pam_unix.so; do \
                  [ -e $so ] && echo $so && break; done";
    let module = output_of(Command::new("sh").args(["-c", beside]));
    let module = Path::new(module.trim()).with_file_name("pam_totp.so");
    let installed = files(root.path());
    for file in [
        &format!("{} 644", module.display()),
        "/usr/bin/pam-totp 755",
        "/usr/sbin/pam-totp-agent 755",
        "/usr/share/man/man1/pam-totp.1 644",
        "/usr/share/man/man5/pam_totp.toml.5 644",
        "/usr/share/man/man5/pam_totp.fleet.toml.5 644",
        "/usr/share/man/man8/pam_totp.8 644",
        "/usr/share/man/man8/pam-totp-agent.8 644",
        "/usr/lib/systemd/system/pam-totp-agent.socket 644",
        "/usr/lib/systemd/system/pam-totp-agent.service 644",
        "/usr/share/bash-completion/completions/pam-totp 644",
        "/usr/share/zsh/site-functions/_pam-totp 644",
        "/usr/share/fish/vendor_completions.d/pam-totp.fish 644",
        "/usr/share/pam-configs/totp 644",
        "/usr/lib/tmpfiles.d/pam_totp.conf 644",
        "/etc/fail2ban/filter.d/pam_totp.conf 644",
        "/etc/fail2ban/jail.d/pam_totp.conf 644",
        "/usr/share/doc/pam-totp/examples/sshd_config.d/10-pam_totp.conf 644",
    ] {
        assert!(installed.contains(file), "{file} is not in {installed:#?}");
    }
    let examples = fs::read_dir(project().join("pam.d-examples")).unwrap().count();
    assert_eq!(installed.len(), 18 + examples, "{installed:#?}");
    assert_eq!(
        fs::read(root.path().join(module.strip_prefix("/").unwrap())).unwrap(),
        fs::read(dist("pam_totp.so")).unwrap()
    );
    // Again, over what is there; what somebody has changed stays as it is.
    let jail = root.path().join("etc/fail2ban/jail.d/pam_totp.conf");
    fs::write(&jail, "changed").unwrap();
    make("install", &["PREFIX=/usr", "GOOGLE_LINK=1"]);
    let link = fs::read_link(root.path().join("usr/bin/google-authenticator")).unwrap();
    assert_eq!(link, Path::new("pam-totp"));
    make("uninstall", &["PREFIX=/usr"]);
    assert_eq!(files(root.path()), ["/etc/fail2ban/jail.d/pam_totp.conf 644".to_owned()].into());
    assert_eq!(fs::read_to_string(&jail).unwrap(), "changed");
    make("install", &["PAMDIR=/opt/security"]);
    let installed = files(root.path());
    for file in ["/opt/security/pam_totp.so 644", "/usr/local/bin/pam-totp 755", "/usr/local/sbin/pam-totp-agent 755"] {
        assert!(installed.contains(file), "{file} is not in {installed:#?}");
    }
    let unit = root.path().join("usr/local/lib/systemd/system/pam-totp-agent.service");
    assert!(fs::read_to_string(unit).unwrap().contains("\nExecStart=/usr/local/sbin/pam-totp-agent\n"));
}

/// Files below a directory, with their modes.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
                found.insert(format!("/{} {mode:o}", path.strip_prefix(root).unwrap().display()));
            }
        }
    }
    found
}

/// Who may import whom, from the pure core outwards.
const MAY_USE: [(&str, &[&str]); 20] = [
    ("secret", &[]),
    ("fact", &[]),
    ("otp", &["secret"]),
    ("record", &["otp", "secret", "fact"]),
    ("verify", &["record", "otp", "secret", "fact"]),
    ("options", &["fact"]),
    ("source", &["fact"]),
    ("policy", &["options", "record", "source", "system", "fact"]),
    ("ledger", &["identity", "policy", "source", "system", "fact"]),
    ("system", &["secret", "fact"]),
    ("fleet", &["policy", "system", "secret", "fact"]),
    ("identity", &["policy", "options", "system", "fact"]),
    ("enrol", &["otp", "record", "secret", "system"]),
    ("words", &["system", "secret"]),
    // The fleet's store is the ledger too.
    (
        "store",
        &[
            "words", "fleet", "ledger", "verify", "record", "otp", "identity", "source", "policy", "options", "system",
            "secret", "fact",
        ],
    ),
    (
        "authenticate",
        &[
            "store", "ledger", "verify", "enrol", "record", "otp", "identity", "source", "policy", "options", "system",
            "secret", "fact",
        ],
    ),
    (
        "agent",
        &[
            "words",
            "authenticate",
            "journal",
            "store",
            "ledger",
            "record",
            "otp",
            "enrol",
            "verify",
            "identity",
            "source",
            "policy",
            "options",
            "system",
            "secret",
            "fact",
        ],
    ),
    (
        "pam",
        &[
            "agent",
            "authenticate",
            "journal",
            "store",
            "ledger",
            "identity",
            "source",
            "policy",
            "options",
            "system",
            "secret",
            "fact",
        ],
    ),
    ("journal", &["authenticate", "system", "fact"]),
    (
        "gate",
        &[
            "authenticate",
            "journal",
            "store",
            "verify",
            "record",
            "identity",
            "source",
            "policy",
            "options",
            "system",
            "fact",
        ],
    ),
];

#[test]
fn the_pure_core_imports_nothing_impure() {
    let mut seen = 0;
    for (module, allowed) in MAY_USE {
        for file in sources(module) {
            // What the tests of a module use is their business.
            if file.ends_with("tests.rs") || file.ends_with("conformance.rs") || file.ends_with("memory.rs") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for used in line.split("crate::").skip(1) {
                    let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                    seen += 1;
                    assert!(
                        used == module || allowed.contains(&used),
                        "{}: {module} must not use {used}",
                        file.display()
                    );
                }
            }
        }
    }
    assert!(seen > 30, "only {seen} imports were found: does this test still read the sources?");
}

fn sources(module: &str) -> Vec<PathBuf> {
    let src = project().join("src");
    let file = src.join(format!("{module}.rs"));
    let mut found = rust_files(&src.join(module));
    found.extend(file.exists().then_some(file));
    assert!(!found.is_empty(), "no sources of {module}");
    found
}

#[test]
fn every_test_that_a_table_names_is_there() {
    for (table, least) in [("docs/conformance.md", 40), ("docs/threat-model.md", 20)] {
        assert_tests_are_there(table, least);
    }
}

fn assert_tests_are_there(table: &str, least: usize) {
    let text = fs::read_to_string(project().join(table)).unwrap();
    let mut sources = rust_files(&project().join("src"));
    sources.extend(rust_files(&project().join("tests")));
    let names: Vec<_> = text.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
    assert!(names.len() > least, "only {} tests are named in {table}", names.len());
    for name in names {
        let (module, test) = name.rsplit_once("::").unwrap();
        let module = module.trim_end_matches("::tests").replace("::", "/");
        let is_there = sources.iter().any(|path| {
            let of_module =
                path.with_extension("").to_str().unwrap().trim_end_matches("/mod").contains(&format!("/{module}"));
            of_module && fs::read_to_string(path).unwrap().contains(&format!("fn {test}()"))
        });
        assert!(is_there, "{table} names {name}, which is no test");
    }
}

/// All sources below a directory, which need not be there.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found
}

#[test]
fn unsafe_code_is_where_it_may_be() {
    for path in rust_files(&project().join("src")) {
        if fs::read_to_string(&path).unwrap().contains("allow(unsafe_code)") {
            assert_eq!(path, project().join("src/lib.rs"), "unsafe code is allowed for pam and system, in lib.rs");
        }
    }
    let lib = fs::read_to_string(project().join("src/lib.rs")).unwrap();
    assert_eq!(lib.matches("#[allow(unsafe_code)]\npub mod").count(), 2);
}

#[test]
fn what_is_linked_is_named_with_its_licence() {
    let tree = output_of(Command::new(env!("CARGO")).current_dir(project()).args([
        "tree",
        "--locked",
        "--offline",
        "--features",
        "cli",
        "-e",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ]));
    let line = |line: &str| {
        let (package, licence) = line.trim_end_matches(" (*)").split_once('|').unwrap();
        (licence.to_owned(), package.split(' ').next().unwrap().to_owned())
    };
    let linked: BTreeSet<_> = tree.lines().map(line).filter(|(_, name)| name != "pam_totp").collect();
    let copyright = fs::read_to_string(project().join("packaging/debian/copyright")).unwrap();
    let (_, comment) = copyright.split_once("\nComment:\n").unwrap();
    let (mut named, mut licence) = (BTreeSet::new(), String::new());
    for line in comment.lines().take_while(|line| !line.is_empty()) {
        match line.strip_prefix("  ") {
            Some(names) => {
                let names = names.split([',', ' ']).filter(|name| !name.is_empty());
                named.extend(names.map(|name| (licence.clone(), name.to_owned())));
            }
            None => line.trim().trim_end_matches(':').clone_into(&mut licence),
        }
    }
    let difference: Vec<_> = linked.symmetric_difference(&named).collect();
    assert!(linked.len() > 50 && difference.is_empty(), "packaging/debian/copyright: {difference:#?}");
}
