//! What systemd does last for a service that has a socket: `as-service SOCKET FILTER PROGRAM [ARGUMENT ...]` listens there, lets no
//! other system calls through than the unit allows, and becomes the program, which finds the socket where sd_listen_fds(3) says.
//!
//! FILTER is a file: numbers of system calls, those of AF_… that socket(2) may have, and `wx` if what can be written may never be
//! run (MemoryDenyWriteExecute). Without it, `-`. For SOCKET: `-` passes none, `bound:PATH` one that nobody listens at.

#![allow(unsafe_code, clippy::unwrap_used, clippy::indexing_slicing, clippy::undocumented_unsafe_blocks, missing_docs)]
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::panic, clippy::disallowed_methods)]

use std::fs;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [socket, filter, program, rest @ ..] = arguments.as_slice() else { panic!("{arguments:?}") };
    let mut command = Command::new(program);
    command.args(rest);
    if socket != "-" {
        pass(socket);
        command.env("LISTEN_PID", std::process::id().to_string()).env("LISTEN_FDS", "1");
    }
    if filter != "-" {
        allow_only(&fs::read_to_string(filter).unwrap());
    }
    panic!("{program}: {}", command.exec());
}

fn pass(socket: &str) {
    let socket: OwnedFd = match socket.strip_prefix("bound:") {
        Some(path) => UnixDatagram::bind(path).unwrap().into(),
        None => {
            let listener = UnixListener::bind(socket).unwrap();
            fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).unwrap();
            listener.into()
        }
    };
    // The first that systemd passes. It stays open at an exec.
    let first = 3;
    let is_there = socket.as_raw_fd() == first;
    let duplicated = if is_there {
        unsafe { libc::fcntl(first, libc::F_SETFD, 0) }
    } else {
        unsafe { libc::dup2(socket.as_raw_fd(), first) }
    };
    assert!(duplicated >= 0);
    if is_there {
        let _ = socket.into_raw_fd();
    }
}

// ---- seccomp(2) ----

const NUMBER: u32 = 0;
const fn argument(index: u32) -> u32 {
    // The lower half, where the machine is little-endian.
    16 + 8 * index
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const fn fail(error: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | error as u32
}

struct Program(Vec<libc::sock_filter>);

impl Program {
    fn push(&mut self, code: u32, k: u32, (jt, jf): (u8, u8)) {
        self.0.push(libc::sock_filter { code: code as u16, jt, jf, k });
    }

    fn load(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, (0, 0));
    }

    fn end(&mut self, verdict: u32) {
        self.push(libc::BPF_RET | libc::BPF_K, verdict, (0, 0));
    }

    /// What follows, `length` long, is for this value alone.
    fn unless_skip(&mut self, value: u32, length: u8) {
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, (0, length));
    }

    fn answer(&mut self, call: libc::c_long, verdict: u32) {
        self.unless_skip(call as u32, 1);
        self.end(verdict);
    }

    /// Such a call fails where all these bits are in an argument.
    fn fail_with_bits(&mut self, call: libc::c_long, index: u32, bits: i32) {
        self.unless_skip(call as u32, 5);
        self.load(argument(index));
        self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits as u32, (0, 0));
        self.unless_skip(bits as u32, 1);
        self.end(fail(libc::EPERM));
        self.load(NUMBER);
    }
}

fn allow_only(filter: &str) {
    let mut program = Program(Vec::new());
    program.load(NUMBER);
    // RestrictNamespaces= and RestrictSUIDSGID= answer so to what cannot be looked into; libc knows what to do instead.
    for call in [libc::SYS_clone3, libc::SYS_openat2] {
        program.answer(call, fail(libc::ENOSYS));
    }
    let families: Vec<u32> = filter.lines().filter_map(|line| line.strip_prefix("AF ")?.parse().ok()).collect();
    program.unless_skip(libc::SYS_socket as u32, families.len() as u8 * 2 + 2);
    program.load(argument(0));
    families.into_iter().for_each(|family| program.answer(family.into(), ALLOW));
    program.end(fail(libc::EAFNOSUPPORT));
    if filter.lines().any(|line| line == "wx") {
        program.fail_with_bits(libc::SYS_mmap, 2, libc::PROT_WRITE | libc::PROT_EXEC);
        program.fail_with_bits(libc::SYS_mprotect, 2, libc::PROT_EXEC);
    }
    for call in filter.lines().filter_map(|line| line.parse::<u32>().ok()) {
        program.answer(call.into(), ALLOW);
    }
    program.end(fail(libc::EPERM));
    let length = program.0.len() as u16;
    let program = libc::sock_fprog { len: length, filter: program.0.as_mut_ptr() };
    let zero: libc::c_ulong = 0;
    let one: libc::c_ulong = 1;
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, zero, zero, zero), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}
