//! A real etcd cluster on loopback ports: mTLS for clients and peers, users and a role, as the manual has it.

use super::peers::Peers;
use super::{need, output_of};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The beginning of the keys that bastions may use.
pub const PREFIX: &str = "/pam_totp/";
/// Users that there are, each with the certificate of its name.
pub const BASTIONS: [&str; 3] = ["bastion1", "bastion2", "bastion3"];
/// Of etcd's root.
const ROOT: &str = "root:of the cluster";

/// What kind of certificate.
#[derive(Clone, Copy)]
pub struct Cert {
    /// As openssl takes it: `/`, `/CN=somebody`.
    pub subject: &'static str,
    /// subjectAltName.
    pub san: &'static str,
    /// extendedKeyUsage.
    pub usage: &'static str,
    /// Whether it was good until 2020.
    pub is_expired: bool,
}

/// A server's, as it has to be.
pub const SERVER: Cert =
    Cert { subject: "/CN=etcd", san: "IP:127.0.0.1", usage: "serverAuth,clientAuth", is_expired: false };
/// A bastion's, as it has to be: with a CN the gateway takes it for nobody.
pub const CLIENT: Cert = Cert { subject: "/", san: "DNS:bastion", usage: "clientAuth", is_expired: false };

/// Where files are that need not outlive the machine.
const MEMORY: &str = "/dev/shm";

/// What is to be started.
#[derive(Clone, Copy)]
pub struct Setup {
    pub nodes: usize,
    /// What the servers show to clients.
    pub server: Cert,
    /// Whether there are users, and nobody without one may do anything.
    pub auth: bool,
    /// Further arguments of etcd.
    pub arguments: &'static [&'static str],
    /// Whether a node can be cut off from the others.
    pub can_be_cut: bool,
    /// Whether what they keep lies on a disk, and each write waits for that. Nothing here is lost with a process alone.
    pub is_on_disk: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { nodes: 3, server: SERVER, auth: true, arguments: &[], can_be_cut: false, is_on_disk: false }
    }
}

/// One that runs. Ends when dropped, and prints what the nodes have logged if the test fails.
pub struct Cluster {
    directory: tempfile::TempDir,
    data: tempfile::TempDir,
    /// What bastions have: below directories that nobody but root writes to, which /tmp is not.
    etc: tempfile::TempDir,
    setup: Setup,
    nodes: Vec<Node>,
    peers: Peers,
}

struct Node {
    client: u16,
    /// Where it listens to the others.
    peer: u16,
    /// Where they find it.
    front: u16,
    process: Option<Child>,
}

impl Cluster {
    /// So many nodes, with users.
    pub fn start(nodes: usize) -> Self {
        Self::with(Setup { nodes, ..Setup::default() })
    }

    pub fn with(setup: Setup) -> Self {
        need("etcdctl", "etcd-client");
        need("openssl", "openssl");
        let [directory, etc] = [&std::env::temp_dir(), Path::new("/run")].map(directory_in);
        let data = directory_in(match Path::new(MEMORY) {
            memory if !setup.is_on_disk && has_room(memory) => memory,
            _ => directory.path(),
        });
        let peers = Peers::new(setup.nodes);
        let node = |number| {
            let (client, peer) = (free_port(), free_port());
            let front = if setup.can_be_cut { listen() } else { None };
            let port = front.as_ref().map_or(peer, |front| front.local_addr().unwrap().port());
            if let Some(front) = front {
                peers.pass_on(front, number, peer);
            }
            Node { client, peer, front: port, process: None }
        };
        let nodes = (0..setup.nodes).map(node).collect();
        let mut cluster = Self { directory, data, etc, setup, nodes, peers };
        output_of(&mut cluster.openssl(["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=fleet", "-days", "2"]));
        cluster.certificate("peer", SERVER);
        cluster.certificate("server", setup.server);
        cluster.certificate("client", CLIENT);
        (0..setup.nodes).for_each(|node| cluster.restart(node));
        if setup.auth {
            cluster.make_users();
        } else if setup.server.usage == SERVER.usage && !setup.server.is_expired && setup.server.san == SERVER.san {
            cluster.when_it_answers();
        }
        cluster
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A file of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where a bastion of this test has its files, for [`Self::equip`].
    pub fn etc(&self, bastion: &str) -> PathBuf {
        self.etc.path().join(bastion)
    }

    fn openssl<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(self.directory());
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command.args(arguments).stderr(Stdio::null());
        command
    }

    /// Makes NAME.pem and NAME.key.
    pub fn certificate(&self, name: &str, cert: Cert) {
        let mut command = Command::new(if cert.is_expired { "faketime" } else { "env" });
        if cert.is_expired {
            need("faketime", "faketime");
            command.arg("2020-01-01");
        }
        let (file, key) = (format!("{name}.pem"), format!("{name}.key"));
        // An extension that is critical where there is no subject (RFC 5280 section 4.2.1.6).
        let critical = if cert.subject == "/" { "critical," } else { "" };
        let san = format!("subjectAltName={critical}{}", cert.san);
        let usage = format!("extendedKeyUsage={}", cert.usage);
        let openssl = self.openssl([
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-keyout",
            &key,
            "-out",
            &file,
            "-subj",
            cert.subject,
            "-days",
            "2",
            "-addext",
            "basicConstraints=CA:FALSE",
            "-addext",
            &san,
            "-addext",
            &usage,
        ]);
        command.arg(openssl.get_program()).args(openssl.get_args());
        output_of(command.current_dir(self.directory()).stderr(Stdio::null()));
    }

    // ---- Its nodes ----

    /// Starts a node that does not run.
    pub fn restart(&mut self, node: usize) {
        let name = |node: usize| format!("n{node}");
        let peer = |node: usize| format!("https://127.0.0.1:{}", self.nodes[node].front);
        let listens = format!("https://127.0.0.1:{}", self.nodes[node].peer);
        let all: Vec<_> = (0..self.setup.nodes).map(|node| format!("{}={}", name(node), peer(node))).collect();
        let log = fs::File::options().create(true).append(true).open(self.path(&format!("n{node}.log"))).unwrap();
        let etcd = std::env::var_os("ETCD").unwrap_or_else(|| {
            need("etcd", "etcd-server");
            "etcd".into()
        });
        let mut command = Command::new(etcd);
        command.current_dir(self.directory()).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.args(["--name", &name(node), "--data-dir"]).arg(self.data.path().join(name(node)));
        command.args(["--listen-client-urls", &self.endpoint(node), "--advertise-client-urls", &self.endpoint(node)]);
        command.args(["--listen-peer-urls", &listens, "--initial-advertise-peer-urls", &peer(node)]);
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-token", "fleet"]);
        command.args(["--client-cert-auth", "--trusted-ca-file", "ca.pem", "--cert-file", "server.pem"]);
        command.args(["--key-file", "server.key", "--peer-client-cert-auth", "--peer-trusted-ca-file", "ca.pem"]);
        command.args(["--peer-cert-file", "peer.pem", "--peer-key-file", "peer.key", "--logger", "zap"]);
        command.args(["--heartbeat-interval", "50", "--election-timeout", "500", "--pre-vote=true"]);
        // The least: each program of the tests asks for a token.
        command.args(["--bcrypt-cost", "4"]);
        command.args(["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "5m"]);
        command.args(self.setup.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().expect("etcd");
        self.peers.is_run_by(node, process.id());
        assert!(self.nodes[node].process.replace(process).is_none(), "node {node} runs");
    }

    /// Ends a node as a power cut would, but for the page cache.
    pub fn kill(&mut self, node: usize) {
        let mut process = self.nodes[node].process.take().expect("a node that runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Has a node hang: its kernel goes on to accept connections.
    pub fn stop(&self, node: usize) {
        self.signal(node, "-STOP");
    }

    /// The end of that.
    pub fn cont(&self, node: usize) {
        self.signal(node, "-CONT");
    }

    /// Cuts a node off from the others; clients get to it as before.
    pub fn cut_off(&self, node: usize) {
        assert!(self.setup.can_be_cut, "its peers find it without us");
        self.peers.cut_off(node);
    }

    /// The end of that.
    pub fn heal(&self) {
        self.peers.heal();
    }

    fn signal(&self, node: usize, signal: &str) {
        output_of(Command::new("kill").args([signal, &self.pid(node).to_string()]));
    }

    /// A node's process.
    pub fn pid(&self, node: usize) -> u32 {
        self.nodes[node].process.as_ref().expect("a node that runs").id()
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.setup.nodes
    }

    /// A node's address for clients.
    pub fn endpoint(&self, node: usize) -> String {
        format!("https://127.0.0.1:{}", self.nodes[node].client)
    }

    /// Those of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.setup.nodes).map(|node| self.endpoint(node)).collect()
    }

    /// The node that leads, once one does.
    pub fn leader(&self) -> usize {
        self.leader_but(None)
    }

    /// The same, of all but one.
    pub fn leader_but(&self, other: Option<usize>) -> usize {
        let is_asked = |node: &usize| self.nodes[*node].process.is_some() && Some(*node) != other;
        let leader = || (0..self.setup.nodes).filter(is_asked).find(|&node| self.leads(node));
        let found = eventually(Duration::from_secs(10), leader);
        found.expect("nobody leads")
    }

    fn leads(&self, node: usize) -> bool {
        let mut status = self.etcdctl_at(&self.endpoint(node));
        let output = status.args(["--command-timeout", "1s", "endpoint", "status", "-w", "json"]).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let status = &status[0]["Status"];
        status["leader"].is_number() && status["leader"] == status["header"]["member_id"]
    }

    // ---- Its operator ----

    /// Runs etcdctl as root; its output.
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        output_of(self.etcdctl_at(&self.endpoints().join(",")).args(arguments))
    }

    /// What is at a key of bastions, as it is.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let mut command = self.etcdctl_at(&self.endpoints().join(","));
        let output = command.args(["get", "--print-value-only", &format!("{PREFIX}{key}")]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout.strip_suffix(b"\n").map(<[u8]>::to_vec)
    }

    /// Puts that there.
    pub fn put(&self, key: &str, value: &[u8]) {
        let mut command = self.etcdctl_at(&self.endpoints().join(","));
        // What is not among the arguments comes from standard input, byte for byte.
        let mut child = command
            .args(["put", &format!("{PREFIX}{key}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(value).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Deletes it.
    pub fn delete(&self, key: &str) {
        self.etcdctl(&["del", &format!("{PREFIX}{key}")]);
    }

    fn etcdctl_at(&self, endpoints: &str) -> Command {
        let mut command = Command::new("etcdctl");
        command.current_dir(self.directory()).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints, "--cacert", "ca.pem"]);
        command.args(["--cert", "client.pem", "--key", "client.key"]);
        if self.path("has-users").exists() {
            command.args(["--user", ROOT]);
        }
        command
    }

    fn when_it_answers(&self) {
        let is_up = || {
            let mut get = self.etcdctl_at(&self.endpoint(0));
            let output = get.args(["--command-timeout", "1s", "get", "x"]).output().unwrap();
            output.status.success().then_some(())
        };
        assert!(eventually(Duration::from_secs(20), is_up).is_some(), "etcd does not start: {}", self.logs());
    }

    fn make_users(&self) {
        self.when_it_answers();
        let done = |line: &str| drop(self.etcdctl(&line.split(' ').collect::<Vec<_>>()));
        self.etcdctl(&["user", "add", ROOT]);
        done("user grant-role root root");
        done("role add fleet");
        done(&format!("role grant-permission fleet readwrite --prefix=true {PREFIX}"));
        for bastion in BASTIONS {
            self.etcdctl(&["user", "add", &format!("{bastion}:{}", password(bastion))]);
            done(&format!("user grant-role {bastion} fleet"));
        }
        done("auth enable");
        fs::write(self.path("has-users"), "").unwrap();
    }

    // ---- Its bastions ----

    /// Puts what a bastion needs into a directory: ca.pem, bastion.pem, bastion.key, bastion.password.
    pub fn equip(&self, bastion: &str, directory: &Path) {
        self.certificate(bastion, CLIENT);
        fs::create_dir_all(directory).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        let copy = |from: String, to: &str| private(&directory.join(to), fs::read(self.path(&from)).unwrap());
        copy("ca.pem".to_owned(), "ca.pem");
        copy(format!("{bastion}.pem"), "bastion.pem");
        copy(format!("{bastion}.key"), "bastion.key");
        private(&directory.join("bastion.password"), format!("{}\n", password(bastion)));
    }

    /// The configuration of a bastion that has its files there.
    pub fn conf(&self, bastion: &str, directory: &Path) -> String {
        let directory = directory.display();
        let login = format!("user = \"{bastion}\"\npassword_file = \"{directory}/bastion.password\"\n");
        format!(
            "version = 1\nendpoints = {:?}\nprefix = \"{PREFIX}\"\nhost = \"{bastion}\"\nca = \"{directory}/ca.pem\"\n\
             cert = \"{directory}/bastion.pem\"\nkey = \"{directory}/bastion.key\"\n{}",
            self.endpoints(),
            if self.setup.auth { &login } else { "" }
        )
    }

    /// What the nodes have logged, the end of it.
    pub fn logs(&self) -> String {
        let log = |node: usize| {
            let text = fs::read_to_string(self.path(&format!("n{node}.log"))).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(30).collect();
            let lines: Vec<_> = lines.into_iter().rev().collect();
            format!("---- node {node}\n{}\n", lines.join("\n"))
        };
        (0..self.setup.nodes).map(log).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// A user's password.
pub fn password(user: &str) -> String {
    format!("the \"password\" of {user}")
}

fn directory_in(place: &Path) -> tempfile::TempDir {
    tempfile::Builder::new().prefix("pam_totp.etcd.").tempdir_in(place).unwrap()
}

/// Whether there is room for the nodes of several clusters.
fn has_room(place: &Path) -> bool {
    rustix::fs::statvfs(place).is_ok_and(|system| system.f_bavail * system.f_frsize > 2 << 30)
}

/// Writes a file of root's alone.
pub fn private(path: &Path, text: impl AsRef<[u8]>) {
    let _ = fs::remove_file(path);
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
}

/// Tries until something is there.
pub fn eventually<T>(time: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + time;
    loop {
        match attempt() {
            None if Instant::now() < end => thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}

fn free_port() -> u16 {
    listen().unwrap().local_addr().unwrap().port()
}

/// At a port of nobody's: below those that the kernel gives to clients (ip_local_port_range), which come and go.
fn listen() -> Option<TcpListener> {
    let listener = || {
        let random = pam_totp::system::random::bytes::<2>().unwrap();
        let port = 10_000 + u16::from_ne_bytes(random) % 20_000;
        Some(TcpListener::bind(("127.0.0.1", port)).ok())
    };
    std::iter::repeat_with(listener).flatten().flatten().next()
}
