//! The packages: what is in them, and a Debian in which one is installed, used, upgraded and removed.

use crate::support::debian::Debian;
use crate::support::totp::code_now;
use crate::support::{need, output_of, project};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, thread};

const MODULE: &str = "security/pam_totp.so";

/// A profile of pam-auth-update's as that of Debian's libpam-krb5: of its kind none stands higher.
const KERBEROS: &str = "\
Name: Kerberos authentication
Default: no
Priority: 704
Auth-Type: Primary
Auth:
	[success=end default=ignore]	pam_krb5.so minimum_uid=1000
";

/// Builds a package of what `make build` made; the file.
fn build(script: &str) -> PathBuf {
    project().join(output_of(&mut Command::new(project().join("packaging").join(script))).trim())
}

fn deb() -> PathBuf {
    need("dpkg-shlibdeps", "dpkg-dev");
    build("deb")
}

#[test]
fn the_deb_has_everything_in_its_place_and_is_the_same_each_time() {
    let package = deb();
    let bytes = fs::read(&package).unwrap();
    thread::sleep(Duration::from_secs(1)); // Times have whole seconds there.
    assert!(fs::read(deb()).unwrap() == bytes, "built twice, two packages");
    let list = output_of(Command::new("dpkg-deb").arg("--contents").arg(&package));
    let mut names = BTreeSet::new();
    for line in list.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_program = line.ends_with("/usr/bin/pam-totp") || line.ends_with("/usr/sbin/pam-totp-agent");
        let mode = if line.starts_with('d') || is_program { "rwxr-xr-x" } else { "rw-r--r--" };
        assert_eq!((&words[0][1..], words[1]), (mode, "root/root"), "{line}");
        names.insert(words[5].trim_start_matches('.').to_owned());
    }
    let modules: Vec<_> = names.iter().filter(|name| name.ends_with(MODULE)).collect();
    assert!(modules.len() == 1 && modules[0].starts_with("/usr/lib/"), "{modules:?}");
    for file in [
        "/usr/bin/pam-totp",
        "/usr/sbin/pam-totp-agent",
        "/usr/lib/systemd/system/pam-totp-agent.socket",
        "/usr/lib/systemd/system/pam-totp-agent.service",
        "/usr/share/man/man1/pam-totp.1.gz",
        "/usr/share/man/man5/pam_totp.toml.5.gz",
        "/usr/share/man/man5/pam_totp.fleet.toml.5.gz",
        "/usr/share/man/man8/pam_totp.8.gz",
        "/usr/share/man/man8/pam-totp-agent.8.gz",
        "/usr/share/bash-completion/completions/pam-totp",
        "/usr/share/zsh/vendor-completions/_pam-totp",
        "/usr/share/fish/vendor_completions.d/pam-totp.fish",
        "/usr/share/pam-configs/totp",
        "/usr/lib/tmpfiles.d/pam_totp.conf",
        "/etc/fail2ban/filter.d/pam_totp.conf",
        "/etc/fail2ban/jail.d/pam_totp.conf",
        "/usr/share/doc/pam-totp/copyright",
        "/usr/share/doc/pam-totp/changelog.Debian.gz",
        "/usr/share/doc/pam-totp/examples/pam.d/sshd-debian",
        "/usr/share/doc/pam-totp/examples/sshd_config.d/10-pam_totp.conf",
    ] {
        assert!(names.contains(file), "{file} is not in {names:#?}");
    }
    // Nothing that asks for a code, or lets anybody in, by being there.
    assert!(!names.iter().any(|name| name.starts_with("/etc/pam.d") || name.starts_with("/etc/ssh")), "{names:#?}");
    let depends = output_of(Command::new("dpkg-deb").arg("--field").arg(&package).arg("Depends"));
    for needed in ["libc6 (>= 2.", "libpam0g (>= ", "libpam-modules", "libpam-runtime"] {
        assert!(depends.contains(needed), "{depends}");
    }
}

#[test]
fn lintian_has_nothing_to_say() {
    need("lintian", "lintian");
    let package = deb();
    let output =
        Command::new("lintian").args(["--fail-on", "error,warning", "--allow-root"]).arg(&package).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_rpm_has_everything_in_its_place() {
    need("rpmbuild", "rpm");
    let package = build("rpm");
    let database = tempfile::tempdir().unwrap();
    let query = |what: &[&str]| {
        let mut command = Command::new("rpm");
        output_of(command.arg("--dbpath").arg(database.path()).arg("-qp").args(what).arg(&package))
    };
    let names = query(&["--list"]);
    for file in [
        "/usr/lib64/security/pam_totp.so",
        "/usr/bin/pam-totp",
        "/usr/sbin/pam-totp-agent",
        "/usr/lib/systemd/system/pam-totp-agent.socket",
        "/usr/lib/systemd/system/pam-totp-agent.service",
        "/usr/share/man/man5/pam_totp.fleet.toml.5.gz",
        "/usr/share/man/man8/pam_totp.8.gz",
        "/usr/share/man/man8/pam-totp-agent.8.gz",
        "/usr/share/bash-completion/completions/pam-totp",
        "/usr/share/zsh/site-functions/_pam-totp",
        "/usr/share/fish/vendor_completions.d/pam-totp.fish",
        "/usr/lib/tmpfiles.d/pam_totp.conf",
        "/usr/share/doc/pam-totp/redhat.md",
        "/usr/share/doc/pam-totp/examples/pam.d/sshd-rhel",
    ] {
        assert!(names.lines().any(|name| name == file), "{file} is not in {names}");
    }
    assert!(!names.contains("pam-configs"), "{names}");
    let page = fs::read_to_string(project().join("docs/redhat.md")).unwrap();
    assert!(!page.contains(".md)"), "it comes without the pages that it links to");
    let needs = query(&["--requires"]);
    assert!(needs.contains("libpam.so.0()(64bit)") && needs.contains("libc.so.6"), "{needs}");
    assert_eq!(query(&["--configfiles"]).lines().count(), 2);
    let owners = query(&["--queryformat", "[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]"]);
    assert!(owners.lines().all(|owner| owner == "root:root"), "{owners}");
}

/// A script of the package: PREUN is that by which removal is refused.
fn rpm_script(name: &str) -> String {
    let package = build("rpm");
    let database = tempfile::tempdir().unwrap();
    let mut command = Command::new("rpm");
    let command = command
        .arg("--dbpath")
        .arg(database.path())
        .args(["-qp", "--queryformat", &format!("%{{{name}}}")])
        .arg(package);
    output_of(command)
}

/// An sshd in a Debian, and clients of alice's.
struct Server<'a> {
    debian: &'a Debian,
    port: u16,
    files: tempfile::TempDir,
}

/// Types one answer to each question.
const ANSWERS: &str = "#!/bin/sh\ncat \"${0%/*}/answer\"\n";

impl<'a> Server<'a> {
    fn start(debian: &'a Debian) -> Self {
        let files = tempfile::tempdir().unwrap();
        need("ssh", "openssh-client");
        let key = files.path().join("key");
        output_of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let public = fs::read_to_string(files.path().join("key.pub")).unwrap();
        debian.sh(&format!(
            "install -d -m 0700 -o alice -g alice /home/alice/.ssh
             echo '{}' >/home/alice/.ssh/authorized_keys
             chown alice: /home/alice/.ssh/authorized_keys",
            public.trim()
        ));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // It goes to the background by itself, and ends with the root's first process.
        debian.sh(&format!("/usr/sbin/sshd -o ListenAddress=127.0.0.1:{port} -o UseDNS=no"));
        Self { debian, port, files }
    }

    /// alice logs in with her key, and types this.
    fn login(&self, name: &str, answer: &str) -> Output {
        let directory = self.files.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        let script = directory.join("askpass");
        fs::write(directory.join("answer"), format!("{answer}\n")).unwrap();
        fs::write(&script, ANSWERS).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        Command::new("timeout")
            .args(["--kill-after=5", "60", "ssh", "-F", "none", "-p", &self.port.to_string(), "-i"])
            .arg(self.files.path().join("key"))
            .args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "NumberOfPasswordPrompts=1"])
            .args(["alice@127.0.0.1", "echo in as $(id -un)"])
            .env("SSH_ASKPASS", &script)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .output()
            .unwrap()
    }

    fn gets_in(&self, name: &str, answer: &str) -> bool {
        let output = self.login(name, answer);
        assert_eq!(output.status.success(), output.stdout == b"in as alice\n", "{output:?} {:#?}", self.debian.log());
        output.status.success()
    }
}

fn install(debian: &Debian, package: &Path) -> Output {
    fs::copy(package, debian.path("/root/pam-totp.deb")).unwrap();
    debian.try_sh("dpkg --install /root/pam-totp.deb 2>&1")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn installed_used_upgraded_and_removed_without_a_moment_without_the_module() {
    let first = deb();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut second = Command::new(project().join("packaging/deb"));
    let second = output_of(second.env("VERSION", "9.0-1").env("DIST", elsewhere.path()));
    let second = PathBuf::from(second.trim());
    let debian = Debian::with("openssh-server");
    debian.sh("useradd --create-home --shell /bin/sh alice");
    let stacks = debian.sh("cat /etc/pam.d/* | sha256sum");

    // Installed: nothing asks for a code by that alone.
    let output = install(&debian, &first);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(debian.sh("cat /etc/pam.d/* | sha256sum"), stacks);
    assert_eq!(debian.sh("stat -c '%a %U %G' /run/pam_totp /var/lib/pam_totp 2>/dev/null || true").trim(), "");
    assert!(!debian.path("/etc/ssh/sshd_config.d/10-pam_totp.conf").exists());
    let left_alone = debian.sh("dpkg --verify pam-totp");
    assert!(left_alone.is_empty(), "{left_alone}");

    // Used, by the examples that came with it.
    debian.sh("cd /usr/share/doc/pam-totp/examples
               cp pam.d/sshd-debian /etc/pam.d/sshd
               cp sshd_config.d/10-pam_totp.conf /etc/ssh/sshd_config.d");
    let enrolled = debian.sh("setpriv --reuid alice --regid alice --init-groups env HOME=/home/alice \
                              pam-totp enrol --no-confirm --json --emergency-codes 10");
    let enrolled: serde_json::Value = serde_json::from_str(&enrolled).unwrap();
    let secret = enrolled["secret"].as_str().unwrap();
    let mut scratch_codes = enrolled["scratch_codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap());
    let server = Server::start(&debian);
    let code = code_now(secret);
    assert!(server.gets_in("first", &code), "{:#?}", debian.log());
    assert!(!server.gets_in("again", &code), "a code worked twice");

    // From here on there is a systemd, which is asked to do things, and does none.
    assert!(!debian.path("/run/systemd/system").exists());
    debian.sh("mkdir -p /run/systemd/system
               for program in systemctl deb-systemd-invoke; do
                   printf '#!/bin/sh\\necho \"${0##*/} $*\" >>/root/calls\\nexit 1\\n' >/usr/local/sbin/$program
                   chmod 755 /usr/local/sbin/$program
               done");
    let asked_of_systemd = || debian.sh("cat /root/calls; rm /root/calls");

    // Upgraded, while somebody looks whether the module is there, and while people log in.
    let module = debian.sh("ls /usr/lib/*/security/pam_totp.so");
    let module = debian.path(module.trim());
    let before = fs::metadata(&module).unwrap();
    let (is_over, is_ready) = (AtomicBool::new(false), AtomicBool::new(false));
    let (looks, logins) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut looks, mut inodes) = (0_u64, BTreeSet::new());
            while !is_over.load(Ordering::Relaxed) {
                let found = fs::metadata(&module).expect("a moment without the module");
                assert_eq!(found.len(), before.len(), "a moment with half a module");
                inodes.insert(found.ino());
                looks += 1;
            }
            (looks, inodes)
        });
        let people = scope.spawn(|| {
            let mut logins = 0;
            while !is_over.load(Ordering::Relaxed) && logins < 8 {
                let code = scratch_codes.next().unwrap();
                assert!(server.gets_in("during", code), "a right code was denied: {:#?}", debian.log());
                // What is no code costs the person nothing.
                assert!(!server.gets_in("intruder", "no code"), "in without a code");
                logins += 1;
                is_ready.store(true, Ordering::Relaxed);
            }
            logins
        });
        while !is_ready.load(Ordering::Relaxed) && !people.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        let output = install(&debian, &second);
        is_over.store(true, Ordering::Relaxed);
        assert!(output.status.success(), "{}", words(&output));
        (watcher.join().unwrap(), people.join().unwrap())
    });
    assert_eq!(debian.sh("dpkg-query --show --showformat '${Version}' pam-totp"), "9.0-1");
    assert_eq!(
        asked_of_systemd(),
        "systemctl --system daemon-reload\ndeb-systemd-invoke try-restart pam-totp-agent.service\n"
    );
    let (looks, inodes) = looks;
    assert!(looks > 1000 && logins > 0, "{looks} looks, {logins} logins");
    assert!(inodes.len() == 2, "not replaced by rename: {inodes:?}");
    assert!(server.gets_in("upgraded", &code_now_other_than(secret, &code)), "{:#?}", debian.log());

    // Not removed while sshd's stack names us.
    let line = debian.sh("grep -n '^auth.*pam_totp.so' /etc/pam.d/sshd | cut -d : -f 1");
    let place = format!("/etc/pam.d/sshd:{}", line.trim());
    for how in ["--remove", "--purge"] {
        let output = debian.try_sh(&format!("dpkg {how} pam-totp"));
        let words = words(&output);
        assert!(!output.status.success() && words.contains(&place), "{words}");
        assert!(words.contains("pam-totp setup SERVICE --remove"), "{words}");
        assert!(module.exists(), "{words}");
        assert_eq!(
            debian.sh("dpkg-query --show --showformat '${Status}' pam-totp").split(' ').nth(2),
            Some("installed")
        );
    }
    rpm_refuses(&debian, &place);

    // Nor while the profile is on and something else names us; refusing leaves the profile on.
    fs::write(debian.path("/usr/share/pam-configs/kerberos"), KERBEROS).unwrap();
    debian.sh("pam-auth-update --package --enable totp kerberos");
    let common = debian.sh("grep -v '^#' /etc/pam.d/common-auth");
    let modules = ["pam_totp.so", "pam_krb5.so", "pam_unix.so"];
    let order = modules.map(|module| common.find(module).unwrap());
    assert!(order.is_sorted(), "whose password is right needs no code: {common}");
    debian.sh("pam-auth-update --package --remove kerberos && rm /usr/share/pam-configs/kerberos");
    assert!(!debian.try_sh("dpkg --remove pam-totp").status.success());
    assert!(debian.sh("cat /etc/pam.d/common-auth").contains("pam_totp.so"));

    // Removed once our lines are out; what pam-auth-update wrote goes by itself.
    debian.sh("sed -i '/^[^#]*pam_totp\\.so/d' /etc/pam.d/sshd");
    assert_eq!(rpm(&debian, 0).status.code(), Some(1), "common-auth names us");
    let output = debian.try_sh("dpkg --purge pam-totp");
    assert!(output.status.success(), "{}", words(&output));
    assert!(words(&output).contains("/var/lib/pam_totp"), "{}", words(&output));
    assert!(!module.exists());
    // What was refused before has stopped nothing.
    let asked = asked_of_systemd();
    let stopped =
        "deb-systemd-invoke stop pam-totp-agent.socket pam-totp-agent.service\nsystemctl --system daemon-reload\n";
    assert!(asked.ends_with(stopped) && asked.matches("deb-systemd-invoke").count() == 1, "{asked}");
    assert_eq!(debian.sh("grep -l '^[^#]*pam_totp' -r /etc/pam.d /etc/fail2ban 2>/dev/null || true"), "");
    // Who was enrolled stays known, for the day when it is installed again.
    assert!(debian.path("/var/lib/pam_totp").exists());
    assert!(rpm(&debian, 0).status.success());
    let agent = "pam-totp-agent.socket pam-totp-agent.service";
    assert_eq!(asked_of_systemd(), format!("systemctl --no-reload disable --now {agent}\n"));
    let postun = |left| {
        fs::write(debian.path("/root/postun"), rpm_script("POSTUN")).unwrap();
        debian.sh(&format!("sh /root/postun {left}"));
        asked_of_systemd()
    };
    assert_eq!(postun(0), "systemctl daemon-reload\n");
    assert_eq!(postun(1), "systemctl daemon-reload\nsystemctl try-restart pam-totp-agent.service\n");
}

/// The next code, as each works once.
fn code_now_other_than(secret: &str, used: &str) -> String {
    let codes = (0..60).map(|_| {
        let code = code_now(secret);
        if code == used {
            thread::sleep(Duration::from_secs(1));
        }
        code
    });
    codes.into_iter().find(|code| code != used).expect("the same code for a minute")
}

/// Runs what runs before the other package is removed; `left`: how many versions of it are there afterwards.
fn rpm(debian: &Debian, left: u32) -> Output {
    fs::write(debian.path("/root/preun"), rpm_script("PREUN")).unwrap();
    debian.try_sh(&format!("sh /root/preun {left}"))
}

fn rpm_refuses(debian: &Debian, place: &str) {
    let output = rpm(debian, 0);
    assert!(!output.status.success() && words(&output).contains(place), "{}", words(&output));
    // An upgrade is not a removal.
    assert!(rpm(debian, 1).status.success());
}
