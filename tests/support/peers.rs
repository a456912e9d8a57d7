//! What goes between the nodes of a cluster, so that one of them can be cut off from the others, and not from clients.
//!
//! Each node is known to the others by a port of the test, which passes on what comes there. While a node is cut off, nothing
//! is passed on to it or from it, and nothing is lost: as in a network that drops packets, which are sent again later.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// The ways between nodes. They end when dropped.
pub struct Peers(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    cut_off: Option<usize>,
    /// The nodes' processes.
    pids: Vec<Option<u32>>,
    is_over: bool,
}

impl Peers {
    /// For so many nodes.
    pub fn new(nodes: usize) -> Self {
        let state = State { pids: vec![None; nodes], ..State::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Passes on what comes to `front` to `node`, which listens at `port`.
    pub fn pass_on(&self, front: TcpListener, node: usize, port: u16) {
        let shared = Arc::clone(&self.0);
        front.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            while !shared.state.lock().unwrap().is_over {
                let Ok((stream, address)) = front.accept() else {
                    thread::sleep(Duration::from_millis(2));
                    continue;
                };
                let from = shared.node_with(address.port());
                let Ok(to) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let ends = [from, Some(node)];
                stream.set_nonblocking(false).unwrap();
                for (from, to) in [(&stream, &to), (&to, &stream)] {
                    let _ = from.set_nodelay(true);
                    let (from, to, shared) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&shared));
                    thread::spawn(move || shared.copy(from, to, ends));
                }
            }
        });
    }

    /// Says which process a node is.
    pub fn is_run_by(&self, node: usize, pid: u32) {
        self.0.state.lock().unwrap().pids[node] = Some(pid);
    }

    /// Cuts a node off.
    pub fn cut_off(&self, node: usize) {
        self.0.state.lock().unwrap().cut_off = Some(node);
    }

    /// The end of that.
    pub fn heal(&self) {
        self.0.state.lock().unwrap().cut_off = None;
        self.0.changed.notify_all();
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (state.is_over, state.cut_off) = (true, None);
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn copy(&self, mut from: TcpStream, mut to: TcpStream, ends: [Option<usize>; 2]) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            self.when_whole(ends);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        self.when_whole(ends);
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    }

    fn when_whole(&self, ends: [Option<usize>; 2]) {
        let state = self.state.lock().unwrap();
        let is_cut = |state: &mut State| state.cut_off.is_some_and(|node| ends.contains(&Some(node)));
        drop(self.changed.wait_while(state, is_cut).unwrap());
    }

    /// Whose end of a connection has this port: by the kernel's table, and the sockets that the processes have.
    fn node_with(&self, port: u16) -> Option<usize> {
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        let local = format!("0100007F:{port:04X}");
        let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local))?;
        let socket = format!("socket:[{}]", line.split_whitespace().nth(9)?);
        let has = |pid: u32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
            let mut links = files.filter_map(|file| file.ok()?.path().read_link().ok());
            links.any(|link| link.as_os_str() == socket.as_str()).then_some(())
        };
        let pids = self.state.lock().unwrap().pids.clone();
        pids.iter().position(|pid| pid.is_some_and(|pid| has(pid).is_some()))
    }
}
