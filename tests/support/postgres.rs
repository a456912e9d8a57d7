//! A real PostgreSQL server on a loopback port of a private machine.

use super::machine::Machine;
use super::output_of;
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A running server, with a role for alice. Ends with its machine.
pub struct Postgres<'a> {
    machine: &'a Machine,
    server: Child,
    port: u16,
}

impl<'a> Postgres<'a> {
    /// Starts one whose pg_hba.conf has this line for whoever comes by TCP.
    pub fn start(machine: &'a Machine, line: &str) -> Self {
        let binaries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().next();
        let binaries = binaries.expect("no server in /usr/lib/postgresql: install the package postgresql").unwrap();
        let binaries = binaries.path().join("bin");
        let script = format!(
            "install -d -o postgres -m 0700 /run/postgresql && \
             runuser -u postgres -- {}/initdb -D /run/postgresql/data -A trust >/dev/null && \
             runuser -u postgres -- openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=db -days 2 \
             -keyout /run/postgresql/data/server.key -out /run/postgresql/data/server.crt 2>/dev/null && \
             printf 'local all postgres trust\\n%s\\n' \"$1\" >/run/postgresql/data/pg_hba.conf",
            binaries.display()
        );
        output_of(machine.command("sh").args(["-c", &script, "sh", line]));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = machine.command("runuser");
        server.args(["-u", "postgres", "--"]).arg(binaries.join("postgres"));
        server.args(["-D", "/run/postgresql/data", "-k", "/run/postgresql", "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", "ssl=on", "-p", &port.to_string()]);
        let log = fs::File::create(machine.shared().join("postgres.log")).unwrap();
        let server = server.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let postgres = Self { machine, server, port };
        let is_up = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(50));
            postgres.as_postgres("create role alice login")
        });
        assert!(is_up, "{}", postgres.log());
        postgres
    }

    fn as_postgres(&self, query: &str) -> bool {
        let port = self.port.to_string();
        let mut psql = self.machine.command("runuser");
        psql.args(["-u", "postgres", "--", "psql", "-h", "/run/postgresql", "-p", &port, "-c", query]);
        psql.output().unwrap().status.success()
    }

    /// What the server wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.machine.shared().join("postgres.log")).unwrap()
    }

    /// A client of alice's that asks who it is.
    pub fn psql(&self) -> Command {
        let port = self.port.to_string();
        let mut psql = Command::new("psql");
        psql.args(["-h", "127.0.0.1", "-p", &port, "-U", "alice", "-d", "postgres", "-Atc", "select current_user"]);
        psql
    }

    /// Whether alice gets in with this password.
    pub fn lets_in(&self, password: &str) -> bool {
        let output = self.psql().env("PGPASSWORD", password).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim() == "alice"
    }
}

impl Drop for Postgres<'_> {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
