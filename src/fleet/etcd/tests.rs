//! Against servers that say what etcd never should, and against what one that is about to fail does. Nothing of it may ever
//! come out as done.

#![allow(clippy::disallowed_methods, clippy::arithmetic_side_effects)] // Servers that take their time, and how long that was.

use super::{Cluster, Commit, Guard, Kv, Put};
use crate::fact::Fact;
use crate::fleet::conf::Conf;
use crate::system::clock;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A request that a mock got.
#[derive(Debug, Clone)]
struct Got {
    path: String,
    head: String,
    body: String,
}

/// A server on a loopback port that has this done with each request. Threads of it end with their connections.
struct Mock {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Mock {
    fn new(act: impl Fn(&mut TcpStream, &Got) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let (act, all) = (Arc::new(act), got.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, act, all) = (stream.unwrap(), act.clone(), all.clone());
                thread::spawn(move || {
                    while let Some(request) = receive(&mut stream) {
                        all.lock().unwrap().push(request.clone());
                        act(&mut stream, &request);
                    }
                });
            }
        });
        Self { address, got }
    }

    /// One that answers all requests so.
    fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |stream, _| drop(stream.write_all(&answer)))
    }

    /// The requests to this path.
    fn count(&self, path: &str) -> usize {
        self.got.lock().unwrap().iter().filter(|got| got.path == path).count()
    }
}

fn receive(stream: &mut TcpStream) -> Option<Got> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1).unwrap().to_owned();
    Some(Got { path, head, body: String::from_utf8(body).unwrap() })
}

fn with_status(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn ok(body: &str) -> Vec<u8> {
    with_status("200 OK", "Content-Type: application/json\r\n", body)
}

/// One that only passes connections on to nobody.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn conf(addresses: &[SocketAddr], more: &str) -> Conf {
    let endpoints: Vec<_> = addresses.iter().map(|address| format!("http://{address}")).collect();
    let text = format!("version = 1\ninsecure = true\nendpoints = {endpoints:?}\n{more}");
    Conf::parse(text.as_bytes(), "host").unwrap()
}

fn cluster(addresses: &[SocketAddr]) -> Cluster {
    Cluster::new(&conf(addresses, "")).unwrap()
}

fn within(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

fn guards() -> [Guard; 1] {
    [Guard { key: b"k".to_vec(), revision: 7 }]
}

fn puts() -> [Put; 1] {
    [Put { key: b"k".to_vec(), value: b"v".to_vec() }]
}

fn commit(mock: &Mock) -> Commit {
    cluster(&[mock.address]).commit(&guards(), &puts(), within(2000))
}

fn read(mock: &Mock) -> Result<Vec<Option<Kv>>, Fact> {
    cluster(&[mock.address]).read(&[b"k"], within(500))
}

/// An answer of revision 8 by cluster 1.
fn said(rest: &str) -> String {
    format!(r#"{{"header":{{"cluster_id":"1","member_id":"2","revision":"8","raft_term":"3"}}{rest}}}"#)
}

fn done() -> String {
    said(r#","succeeded":true,"responses":[{"response_put":{"header":{"revision":"8"}}}]"#)
}

fn found(entry: &str) -> String {
    said(&format!(
        r#","succeeded":true,"responses":[{{"response_range":{{"header":{{"revision":"7"}},"kvs":[{entry}],"count":"1"}}}}]"#
    ))
}

/// `k` with `v`.
const ENTRY: &str = r#"{"key":"aw==","create_revision":"3","mod_revision":"7","version":"2","value":"dg=="}"#;

/// `word` is the fact's.
fn unknown(commit: Commit, word: &str) -> Fact {
    match commit {
        Commit::Unknown(fact) if fact.word() == word => fact,
        other => panic!("{other:?}: not {word}"),
    }
}

#[test]
fn what_etcd_says_is_understood() {
    let mock = Mock::saying(ok(&done()));
    assert_eq!(commit(&mock), Commit::Done { revision: 8 });
    let body = r#"{"compare":[{"target":"MOD","result":"EQUAL","key":"aw==","mod_revision":"7"}],"success":[{"request_put":{"key":"aw==","value":"dg=="}}]}"#;
    assert_eq!(mock.got.lock().unwrap()[0].body, body);
    let kv = Kv { key: b"k".to_vec(), value: b"v".to_vec(), revision: 7, version: 2, created: 3 };
    assert_eq!(read(&Mock::saying(ok(&found(ENTRY)))), Ok(vec![Some(kv.clone())]));
    let empty = ENTRY.replace(r#","value":"dg==""#, "");
    assert_eq!(read(&Mock::saying(ok(&found(&empty)))), Ok(vec![Some(Kv { value: Vec::new(), ..kv })]));
    let nothing = said(r#","succeeded":true,"responses":[{"response_range":{"header":{"revision":"8"}}}]"#);
    assert_eq!(read(&Mock::saying(ok(&nothing))), Ok(vec![None]));
    for stale in [said(""), said(r#","succeeded":false"#)] {
        assert_eq!(commit(&Mock::saying(ok(&stale))), Commit::Stale);
    }
}

#[test]
fn what_does_not_say_that_it_is_done_is_not_done() {
    let put = r#"{"response_put":{"header":{"revision":"8"}}}"#;
    let bodies = [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "true".to_owned(),
        r#"{"succeeded":true}"#.to_owned(),
        format!(r#"{{"succeeded":true,"responses":[{put}]}}"#),
        said(r#","succeeded":true"#),
        said(r#","succeeded":true,"responses":[]"#),
        said(r#","succeeded":true,"responses":[{}]"#),
        said(r#","succeeded":true,"responses":[{"response_put":null}]"#),
        said(r#","succeeded":true,"responses":[{"response_put":true}]"#),
        said(r#","succeeded":true,"responses":[{"response_range":{}}]"#),
        said(&format!(r#","succeeded":true,"responses":[{put},{put}]"#)),
        said(&format!(r#","succeeded":"true","responses":[{put}]"#)),
        said(&format!(r#","succeeded":1,"responses":[{put}]"#)),
        said(&format!(r#","succeeded":true,"succeeded":true,"responses":[{put}]"#)),
        // Refused, and yet something was done.
        said(&format!(r#","responses":[{put}]"#)),
        // Of a revision that was there before, or is none.
        done().replace(r#""revision":"8","raft"#, r#""revision":"7","raft"#),
        done().replace(r#""revision":"8","raft"#, r#""revision":"0","raft"#),
        done().replace(r#""revision":"8","raft"#, r#""revision":"-8","raft"#),
        done().replace(r#""revision":"8","raft"#, r#""revision":"+8","raft"#),
        done().replace(r#""revision":"8","raft"#, r#""revision":"","raft"#),
        done().replace(r#""revision":"8","raft"#, r#""revision":"99999999999999999999","raft"#),
        done().replace(r#""revision":"8","raft"#, r#""revision":8,"raft"#),
        done().replace(r#""revision":"8","raft"#, r#""revision":8e400,"raft"#),
        done().replace(r#""revision":"8","raft"#, r#""raft"#),
        said("").replace(r#""revision":"8""#, r#""revision":"6""#),
        // Of nobody.
        done().replace(r#""cluster_id":"1","#, ""),
        // Cut off, with something behind it, nested too deep, not UTF-8 (as base64 would not be).
        done()[..done().len() - 1].to_owned(),
        format!("{}{}", done(), done()),
        "[".repeat(100_000),
        "Grpc-Trailer-Content-Type: application/grpc".to_owned(),
    ];
    for body in bodies {
        let fact = unknown(commit(&Mock::saying(ok(&body))), "bad-etcd-answer");
        assert!(!fact.to_string().contains("dg=="), "{fact}");
    }
    // Nothing to write: nothing is done.
    let mock = Mock::saying(ok(&said(r#","succeeded":true"#)));
    unknown(cluster(&[mock.address]).commit(&guards(), &[], within(500)), "bad-etcd-answer");
}

#[test]
fn what_was_not_asked_for_is_not_read() {
    let entry = |from: &str, to: &str| {
        assert!(ENTRY.contains(from), "{from}");
        found(&ENTRY.replace(from, to))
    };
    let bodies = [
        "{}".to_owned(),
        said(""),
        said(r#","succeeded":true"#),
        said(r#","succeeded":true,"responses":[{}]"#),
        said(r#","succeeded":true,"responses":[{"response_put":{}}]"#),
        found(ENTRY).replace(r#""succeeded":true,"#, ""),
        // More than one key, a count of others, keys that are said to be behind it, another key.
        found(&format!("{ENTRY},{ENTRY}")),
        found("").replace(r#""count":"1""#, r#""count":"2""#),
        found("").replace(r#""kvs":[],"#, ""),
        found(ENTRY).replace(r#""count":"1""#, r#""count":"2""#),
        found(ENTRY).replace(r#""count":"1""#, r#""count":"1","more":true"#),
        entry("aw==", "bA=="),
        // Not base64: of another alphabet, without its end, with a blank, with bits too many.
        entry("dg==", "_-8="),
        entry("dg==", "dg"),
        entry("dg==", "dg== "),
        entry("dg==", "dh=="),
        entry("dg==", "d\\u0000=="),
        entry(r#""dg==""#, "7"),
        // Revisions that cannot be.
        entry(r#""version":"2""#, r#""version":"0""#),
        entry(r#""version":"2""#, r#""version":"-2""#),
        entry(r#""version":"2","#, ""),
        entry(r#""mod_revision":"7""#, r#""mod_revision":"9""#),
        entry(r#""mod_revision":"7""#, r#""mod_revision":"2""#),
        entry(r#""mod_revision":"7""#, r#""mod_revision":"18446744073709551616""#),
        entry(r#""create_revision":"3","#, ""),
        found(&vec![ENTRY; 600].join(",")),
    ];
    for body in bodies {
        assert!(super::message::values(body.as_bytes(), &[b"k"]).is_err(), "{body}");
    }
    assert!(super::message::values(found(ENTRY).as_bytes(), &[b"k"]).is_ok());
    assert_eq!(read(&Mock::saying(ok("{}"))).unwrap_err().word(), "bad-etcd-answer");
    let mock = Mock::saying(ok(&said(r#","succeeded":true"#)));
    assert_eq!(cluster(&[mock.address]).read(&[], within(1)), Ok(vec![]));
}

#[test]
fn an_answer_that_is_none_is_not_done_and_nobody_is_sent_elsewhere() {
    let other = Mock::saying(ok(&done()));
    let to = |location: String| with_status("302 Found", &format!("Location: {location}\r\n"), &done());
    let answers = [
        to(format!("http://{}/v3/kv/txn", other.address)),
        to("/v3/kv/txn".to_owned()),
        with_status("307 Temporary Redirect", &format!("Location: http://{}/v3/kv/txn\r\n", other.address), &done()),
        with_status("301 Moved Permanently", "", &done()),
        with_status("201 Created", "", &done()),
        with_status("204 No Content", "", ""),
        with_status("206 Partial Content", "", &done()),
        with_status("500 Internal Server Error", "", &done()),
        with_status("503 Service Unavailable", "", r#"{"error":"etcdserver: leader changed","code":14}"#),
        with_status("500 ", "", "plain text"),
        with_status("503 Service Unavailable", "", r#"{"code":14,"message":"etcdserver: request timed out"}"#),
        with_status("999 What", "", &done()),
        // Compressed, which nobody asked for.
        with_status("200 OK", "Content-Encoding: gzip\r\n", "\u{1f}\u{8b}\u{8}"),
        // Two lengths; two ways to say it; a number that is none.
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n".to_vec(), ok("").split_off(17)].concat(),
        with_status("200 OK", "Content-Length: 2\r\n", &done()),
        with_status("200 OK", "Content-Length: 99999999999999999999999\r\n", ""),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}", done()).into_bytes(),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{}", done()).into_bytes(),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000)).into_bytes(),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(1000)).into_bytes(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        b"HTTP/2 200\r\n\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
    ];
    for answer in answers {
        let text = String::from_utf8_lossy(&answer).chars().take(80).collect::<String>();
        // What waits for more is cut off, so that it does not take its second.
        let mock = Mock::new(move |stream, _| {
            let _ = stream.write_all(&answer);
            let _ = stream.shutdown(Shutdown::Write);
        });
        assert!(matches!(commit(&mock), Commit::Unknown(_)), "{text}");
        assert_eq!(mock.count("/v3/kv/txn"), 1, "{text}");
    }
    assert_eq!(other.count("/v3/kv/txn"), 0);
}

#[test]
fn headers_that_are_there_twice_change_nothing() {
    let twice = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nDate: x\r\nContent-Type: a\r\nContent-Type: b\r\n";
    let mock = Mock::saying(with_status("200 OK", &twice[37..], &done()));
    assert_eq!(commit(&mock), Commit::Done { revision: 8 });
}

#[test]
fn a_good_answer_that_is_cut_off_anywhere_is_not_done() {
    let whole = ok(&done());
    for end in 0..whole.len() {
        let part = whole[..end].to_vec();
        let mock = Mock::new(move |stream, _| {
            let _ = stream.write_all(&part);
            // With a reset, every other time.
            if end % 2 == 0 {
                reset(stream);
            }
            let _ = stream.shutdown(Shutdown::Both);
        });
        assert!(matches!(commit(&mock), Commit::Unknown(_)), "cut off at {end}");
        assert_eq!(mock.count("/v3/kv/txn"), 1);
    }
}

/// Has the end of a connection be a reset (socket(7), SO_LINGER).
fn reset(stream: &TcpStream) {
    let linger = std::time::Duration::ZERO;
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(linger));
}

#[test]
fn whoever_takes_their_time_or_sends_too_much_is_not_waited_for() {
    // A byte at a time, each in time.
    let drip = Mock::new(|stream, _| {
        for byte in ok(&done()) {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(30));
        }
    });
    let start = Instant::now();
    unknown(commit(&drip), "etcd-unreachable");
    assert!(start.elapsed() < Duration::from_millis(1300), "{:?}", start.elapsed());
    let start = Instant::now();
    unknown(cluster(&[drip.address]).commit(&guards(), &puts(), within(200)), "etcd-unreachable");
    assert_eq!(read(&drip).unwrap_err().word(), "etcd-unreachable");
    assert!(start.elapsed() < Duration::from_millis(1200), "{:?}", start.elapsed());
    // 100 MB, with a length, in chunks, and in neither.
    for head in ["Content-Length: 104857600\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n6400000\r\n", "\r\n"] {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let flood = Mock::new(move |stream, _| {
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes());
            while count.load(Ordering::Relaxed) < 100 << 20 && stream.write_all(&[b' '; 65536]).is_ok() {
                count.fetch_add(65536, Ordering::Relaxed);
            }
        });
        unknown(commit(&flood), "bad-etcd-answer");
        thread::sleep(Duration::from_millis(20));
        // What is in the kernel's buffers on the way is not counted.
        assert!(sent.load(Ordering::Relaxed) < 16 << 20, "{}", sent.load(Ordering::Relaxed));
    }
    // Connections that nobody takes up, and one that is taken up and never answered.
    let silent = Mock::new(|_, _| thread::sleep(Duration::from_secs(2)));
    let start = Instant::now();
    unknown(cluster(&[silent.address]).commit(&guards(), &puts(), within(300)), "etcd-unreachable");
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
}

// ---- Several endpoints ----

/// A cluster that asks this one first.
fn that_prefers(first: SocketAddr, conf: &Conf) -> Cluster {
    let first = format!("http://{first}");
    let mut clusters = std::iter::repeat_with(|| Cluster::new(conf).unwrap()).take(1000);
    clusters.find(|cluster| cluster.favourite() == first).unwrap()
}

#[test]
fn a_commit_is_sent_on_only_where_nobody_has_taken_it() {
    let good = Mock::saying(ok(&done()));
    let two = |first: SocketAddr| that_prefers(first, &conf(&[first, good.address], ""));
    // Nobody there.
    let cluster = two(nobody());
    assert_eq!(cluster.commit(&guards(), &puts(), within(2000)), Commit::Done { revision: 8 });
    assert_eq!(cluster.favourite(), format!("http://{}", good.address));
    // Refused for certain.
    for (status, body) in [
        (
            "403 Forbidden",
            r#"{"error":"etcdserver: permission denied","message":"etcdserver: permission denied","code":7}"#,
        ),
        ("400 Bad Request", r#"{"code": 3, "message": "etcdserver: duplicate key given in txn request"}"#),
        ("401 Unauthorized", r#"{"code":16,"message":"etcdserver: invalid auth token"}"#),
        (
            "400 Bad Request",
            "CommonName of client sending a request against gateway will be ignored and not used as expected",
        ),
    ] {
        let first = Mock::saying(with_status(status, "", body));
        assert_eq!(two(first.address).commit(&guards(), &puts(), within(2000)), Commit::Done { revision: 8 });
        assert_eq!(first.count("/v3/kv/txn"), 1);
    }
    // Nobody knows.
    let so_far = good.count("/v3/kv/txn");
    for (status, body, word) in [
        ("503 Service Unavailable", r#"{"code":14,"message":"etcdserver: leader changed"}"#, "etcd-refused"),
        ("503 Service Unavailable", r#"{"code":14,"message":"connection closed"}"#, "etcd-refused"),
        ("500 Internal Server Error", r#"{"code":13,"message":"permission granted"}"#, "etcd-refused"),
        ("400 Bad Request", "plain text", "etcd-refused"),
        ("429 x", r#"{"code":8,"message":"etcdserver: mvcc: database space exceeded"}"#, "etcd-nospace"),
        ("200 OK", "{}", "bad-etcd-answer"),
    ] {
        let first = Mock::saying(with_status(status, "", body));
        let cluster = two(first.address);
        unknown(cluster.commit(&guards(), &puts(), within(2000)), word);
        assert_eq!((first.count("/v3/kv/txn"), good.count("/v3/kv/txn")), (1, so_far), "{body}");
        assert_eq!(cluster.favourite(), format!("http://{}", good.address));
    }
}

#[test]
fn a_read_goes_on_until_the_deadline_and_where_all_refuse_no_longer() {
    let good = Mock::saying(ok(&found(ENTRY)));
    let broken = Mock::saying(ok("{}"));
    let cluster = that_prefers(broken.address, &conf(&[broken.address, nobody(), good.address], ""));
    assert!(cluster.read(&[b"k"], within(2000)).is_ok());
    // From then on the one that answers is asked first.
    assert!(cluster.read(&[b"k"], within(2000)).is_ok());
    assert_eq!((broken.count("/v3/kv/txn"), good.count("/v3/kv/txn")), (1, 2));
    let start = Instant::now();
    let denied = Mock::saying(with_status("403 x", "", r#"{"code":7,"message":"etcdserver: permission denied"}"#));
    let fact = self::cluster(&[denied.address]).read(&[b"k"], within(5000)).unwrap_err();
    assert!(fact.to_string().contains("grant-permission") && start.elapsed() < Duration::from_secs(1), "{fact}");
    // One that may come back.
    let start = Instant::now();
    let fact = self::cluster(&[nobody()]).read(&[b"k"], within(300)).unwrap_err();
    assert_eq!(fact.word(), "etcd-unreachable");
    assert!((250..900).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[test]
fn two_clusters_are_not_one() {
    let one = Mock::saying(ok(&found(ENTRY)));
    let other = Mock::saying(ok(&done().replace(r#""cluster_id":"1""#, r#""cluster_id":"9""#)));
    let cluster = that_prefers(one.address, &conf(&[one.address, other.address], ""));
    cluster.read(&[b"k"], within(1000)).unwrap();
    cluster.favourite.store(1, Ordering::Relaxed);
    unknown(cluster.commit(&guards(), &puts(), within(1000)), "another-cluster");
}

// ---- Clocks ----

fn a_minute_ahead() -> u64 {
    clock::now() + 60
}

/// One whose clock is off by so many seconds.
fn dated(seconds: i64, body: String) -> Mock {
    Mock::new(move |stream, got| {
        let mut date = std::process::Command::new("date");
        let at = format!("@{}", clock::now().saturating_add_signed(seconds));
        let date = date.env("LC_ALL", "C").args(["-u", "-d", &at, "+%a, %d %b %Y %H:%M:%S GMT"]).output().unwrap();
        let date = format!("Date: {}\r\n", String::from_utf8(date.stdout).unwrap().trim());
        let body = if got.path == "/version" { "{}" } else { body.as_str() };
        let _ = stream.write_all(&with_status("200 OK", &date, body));
    })
}

#[test]
fn nothing_is_done_while_the_clock_is_off_that_of_the_others() {
    let with = |seconds: [i64; 3], now: fn() -> u64| {
        let mocks = seconds.map(|seconds| dated(seconds, found(ENTRY)));
        let addresses = mocks.each_ref().map(|mock| mock.address);
        let cluster = Cluster::with_clock(&conf(&addresses, ""), now).unwrap();
        cluster.favourite.store(0, Ordering::Relaxed);
        (cluster.read(&[b"k"], within(3000)).map(drop), cluster.favourite.into_inner(), mocks)
    };
    assert!(with([0, 0, 0], clock::now).0.is_ok());
    assert!(with([-29, 29, 0], clock::now).0.is_ok());
    // This host's is off.
    for (seconds, now) in
        [([0, 0, 0], a_minute_ahead as fn() -> u64), ([90, 90, 90], clock::now), ([-90, -90, 0], clock::now)]
    {
        let (read, _, mocks) = with(seconds, now);
        let fact = read.unwrap_err();
        assert_eq!(fact.word(), "clock-off");
        assert!(fact.to_string().contains("NTP") && fact.to_string().contains("seconds="), "{fact}");
        // At once: no other endpoint can help.
        assert_eq!(mocks.iter().map(|mock| mock.count("/v3/kv/txn")).sum::<usize>(), 1);
    }
    // One of theirs is: the others are asked from then on.
    let (read, favourite, _) = with([300, 0, 1], clock::now);
    assert!(read.is_ok());
    assert_eq!(favourite, 1);
    // Who is alone has no majority.
    let off = dated(40, done());
    unknown(commit(&off), "clock-off");
    assert_eq!(commit(&dated(20, done())), Commit::Done { revision: 8 });
}

// ---- Tokens ----

/// A directory that only root could have made, with a password in it.
fn with_password(addresses: &[SocketAddr]) -> (tempfile::TempDir, Conf) {
    use std::os::unix::fs::PermissionsExt;
    let directory = crate::system::private::tests::directory();
    let file = directory.path().join("password");
    std::fs::write(&file, "a \"quoted\" one\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let conf = conf(addresses, &format!("user = \"host\"\npassword_file = {file:?}\n"));
    (directory, conf)
}

/// One that wants the latest of the tokens that it has given out; `accepts`: whether it ever takes one.
fn with_tokens(accepts: bool) -> (Mock, Arc<AtomicUsize>) {
    let latest = Arc::new(AtomicUsize::new(0));
    let counter = latest.clone();
    let mock = Mock::new(move |stream, got| {
        let answer = if got.path == "/v3/auth/authenticate" {
            assert_eq!(got.body, r#"{"name":"host","password":"a \"quoted\" one"}"#);
            thread::sleep(Duration::from_millis(50));
            let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
            ok(&format!(r#"{{"header":{{"cluster_id":"1"}},"token":"abc.{number}"}}"#))
        } else if accepts && got.head.contains(&format!("authorization: abc.{}\r\n", counter.load(Ordering::Relaxed))) {
            ok(&found(ENTRY))
        } else {
            with_status("401 Unauthorized", "", r#"{"code":16,"message":"etcdserver: invalid auth token"}"#)
        };
        let _ = stream.write_all(&answer);
    });
    (mock, latest)
}

fn is_root() -> bool {
    crate::system::passwd::process_uids().1 == 0
}

#[test]
fn a_token_is_kept_shared_and_renewed_once() {
    if !is_root() {
        return;
    }
    let (mock, latest) = with_tokens(true);
    let (_directory, conf) = with_password(&[mock.address]);
    let cluster = Cluster::new(&conf).unwrap();
    let read = |cluster: &Cluster| {
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| cluster.read(&[b"k"], within(3000)).unwrap());
            }
        });
    };
    read(&cluster);
    assert_eq!((mock.count("/v3/auth/authenticate"), mock.count("/v3/kv/txn")), (1, 16));
    // All of them are refused, and one of them gets a new one.
    latest.fetch_add(1, Ordering::Relaxed);
    read(&cluster);
    assert_eq!(mock.count("/v3/auth/authenticate"), 2);
    // Where none helps, two requests are all.
    let (mock, _) = with_tokens(false);
    let (_directory, conf) = with_password(&[mock.address]);
    let start = Instant::now();
    let commit = Cluster::new(&conf).unwrap().commit(&guards(), &puts(), within(3000));
    unknown(commit, "etcd-refused");
    assert_eq!((mock.count("/v3/auth/authenticate"), mock.count("/v3/kv/txn")), (2, 2));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn an_endpoint_that_gives_no_token_is_tried_once_for_all_who_wait() {
    if !is_root() {
        return;
    }
    let hung = || {
        Mock::new(|stream, _| {
            thread::sleep(Duration::from_millis(200));
            let _ = stream.shutdown(Shutdown::Both);
        })
    };
    let (one, other) = (hung(), hung());
    let (_directory, conf) = with_password(&[one.address, other.address]);
    let cluster = Cluster::new(&conf).unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| unknown(cluster.commit(&guards(), &puts(), within(4000)), "etcd-unreachable"));
        }
    });
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    assert_eq!(one.count("/v3/kv/txn") + other.count("/v3/kv/txn"), 0);
}

#[test]
fn what_is_no_token_is_not_sent() {
    if !is_root() {
        return;
    }
    for token in ["{}", r#"{"token":""}"#, r#"{"token":"a\r\nX: y"}"#, r#"{"token":"ä"}"#, r#"{"token":7}"#] {
        let mock = Mock::saying(ok(token));
        let (_directory, conf) = with_password(&[mock.address]);
        let commit = Cluster::new(&conf).unwrap().commit(&guards(), &puts(), within(300));
        let fact = unknown(commit, "bad-etcd-answer");
        assert!(!fact.to_string().contains("quoted"), "{fact}");
        assert_eq!(mock.count("/v3/kv/txn"), 0);
    }
    // Nobody is told what a server makes of a password.
    let echo = Mock::new(|stream, got| {
        let message = got.body.replace('"', "'");
        let _ =
            stream.write_all(&with_status("400 Bad Request", "", &format!(r#"{{"code":3,"message":"{message}"}}"#)));
    });
    let (_directory, conf) = with_password(&[echo.address]);
    let fact = Cluster::new(&conf).unwrap().read(&[b"k"], within(300)).unwrap_err().to_string();
    assert!(fact.starts_with("etcd-refused") && !fact.contains("quoted"), "{fact}");
}

// ---- Lists ----

fn listed(pages: &[String]) -> (Result<Vec<Vec<u8>>, Fact>, Vec<String>) {
    let pages: Vec<_> = pages.iter().map(|page| ok(page)).collect();
    let next = AtomicUsize::new(0);
    let mock = Mock::new(move |stream, _| {
        let number = next.fetch_add(1, Ordering::Relaxed).min(pages.len() - 1);
        let _ = stream.write_all(&pages[number]);
    });
    let mut keys = Vec::new();
    let result = cluster(&[mock.address]).list(b"k", Duration::from_millis(200), &mut |kv| {
        keys.push(kv.key);
        Ok(())
    });
    let bodies = mock.got.lock().unwrap().iter().map(|got| got.body.clone()).collect();
    (result.map(|()| keys), bodies)
}

/// A page of these keys.
fn page(keys: &[&str], rest: &str) -> String {
    use base64ct::{Base64, Encoding};
    let entry = |key: &&str| ENTRY.replace("aw==", &Base64::encode_string(key.as_bytes()));
    let entries: Vec<_> = keys.iter().map(entry).collect();
    said(&format!(r#","kvs":[{}]{rest}"#, entries.join(",")))
}

#[test]
fn a_list_is_whole_and_of_one_revision() {
    let (more, last) = (r#","more":true,"count":"3""#, r#","count":"1""#);
    let (keys, bodies) = listed(&[page(&["k1", "k2"], more), page(&["k3"], last).replace(r#""8""#, r#""99""#)]);
    assert_eq!(keys, Ok(vec![b"k1".to_vec(), b"k2".to_vec(), b"k3".to_vec()]));
    assert_eq!(
        bodies,
        [
            r#"{"key":"aw==","range_end":"bA==","limit":"500","revision":"0"}"#,
            r#"{"key":"azIA","range_end":"bA==","limit":"500","revision":"8"}"#
        ]
    );
    assert_eq!(listed(&[said("")]).0, Ok(vec![]));
    for pages in [
        vec!["{}".to_owned()],
        // No end, the same one again, backwards, something else, none though there are some, of an older revision.
        vec![page(&[], more)],
        vec![page(&["k1"], more), page(&["k1"], last)],
        vec![page(&["k1"], more)],
        vec![page(&["k2", "k1"], r#","count":"2""#)],
        vec![page(&["k1", "k1"], r#","count":"2""#)],
        vec![page(&["l"], last)],
        vec![page(&["k1"], "")],
        vec![page(&["k1"], r#","count":"2""#)],
        vec![said(last)],
        vec![page(&["k1"], more), page(&["k2"], last).replace(r#"revision":"8""#, r#"revision":"7""#)],
        vec![page(&["k1"; 501], r#","count":"501""#)],
    ] {
        let result = listed(&pages).0;
        assert_eq!(result.unwrap_err().word(), "bad-etcd-answer", "{pages:?}");
    }
}

#[test]
fn the_end_of_a_prefix_is_the_first_key_behind_it() {
    let end = super::message::end_of;
    assert_eq!(end(b"/a/"), Some(b"/a0".to_vec()));
    assert_eq!(end(&[1, 255, 255]), Some(vec![2]));
    assert_eq!((end(&[255, 255]), end(&[])), (None, None));
}

// ---- Members, and the environment ----

#[test]
fn members_are_asked_one_by_one() {
    let status = said(
        r#","version":"3.6.1","dbSize":"20480","leader":"2","raftTerm":"3","dbSizeInUse":"16384","dbSizeQuota":"99",
        "errors":["memberID:8211 alarm:NOSPACE ","etcdserver: no leader"]"#,
    );
    let good = Mock::saying(ok(&status));
    let members = cluster(&[good.address, nobody()]).members(within(1000));
    let member = members[0].1.as_ref().unwrap();
    assert_eq!((member.version.as_str(), member.quota, member.leader, member.cluster), ("3.6.1", Some(99), 2, 1));
    assert_eq!(member.alarms, ["NOSPACE", "etcdserver: no leader"]);
    assert_eq!(members[1].1.as_ref().unwrap_err().word(), "etcd-unreachable");
    for body in ["{}", "[]", &said(""), &said(r#","version":"3","dbSize":"-1""#)] {
        let members = cluster(&[Mock::saying(ok(body)).address]).members(within(1000));
        assert_eq!(members[0].1.as_ref().unwrap_err().word(), "bad-etcd-answer", "{body}");
    }
}

/// The same test in a process whose environment has a proxy for everything, where nobody is.
#[test]
fn proxies_in_the_environment_are_ignored() {
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        again.env(name, format!("http://{}", nobody()));
    }
    let output = again.args(["--exact", "fleet::etcd::tests::what_etcd_says_is_understood"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

// ---- A cluster that has no time ----

/// One that takes requests and answers none of them.
fn silent() -> Mock {
    Mock::new(|_, _| thread::sleep(Duration::from_secs(10)))
}

/// A rest that is as long as it can be, and whether there is one now: there is no time for a read then.
fn rests(cluster: &Cluster) -> bool {
    cluster.client.pace.wait(Instant::now()).is_none()
}

fn by_the_longest(mut cluster: Cluster) -> Cluster {
    // One less than a number that is a multiple of 1001.
    cluster.client.pace = super::pace::Pace::by(|| 1000);
    cluster
}

/// All logins of a host, one after the other, at a server that takes nobody's handshake.
#[test]
fn a_host_that_nobody_has_time_for_asks_less_and_less_often() {
    let silent = silent();
    let cluster = by_the_longest(cluster(&[silent.address]));
    let start = Instant::now();
    // The first one waits for a second, the next ones for four.
    while start.elapsed() < Duration::from_millis(2500) {
        assert_eq!(cluster.read(&[b"k"], within(1050)).unwrap_err().word(), "etcd-unreachable");
        unknown(cluster.commit(&guards(), &puts(), within(10)), "etcd-unreachable");
    }
    let asked = silent.count("/v3/kv/txn");
    assert!((1..=4).contains(&asked), "{asked}");
}

#[test]
fn one_that_nobody_is_at_or_a_deadline_before_all_were_asked_does_not_keep_a_host_from_resting() {
    let silent = [(); 4].map(|()| silent());
    let [one, two, three, four] = [0, 1, 2, 3].map(|place: usize| silent[place].address);
    for endpoints in [&[one, two, nobody()][..], &[one, two, three, four]] {
        let cluster = by_the_longest(that_prefers(one, &conf(endpoints, "")));
        assert_eq!(cluster.read(&[b"k"], within(2100)).unwrap_err().word(), "etcd-unreachable");
        assert!(rests(&cluster), "{endpoints:?}");
    }
    // Where one alone was not in time, and the next one was, nobody rests.
    let good = Mock::saying(ok(&found(ENTRY)));
    let cluster = by_the_longest(that_prefers(one, &conf(&[one, good.address], "")));
    assert!(cluster.read(&[b"k"], within(2100)).is_ok() && !rests(&cluster));
}

#[test]
fn a_login_that_has_no_time_left_says_nothing_of_the_cluster() {
    let slow = Mock::new(|stream, _| {
        thread::sleep(Duration::from_millis(200));
        let _ = stream.write_all(&ok(&found(ENTRY)));
    });
    let cluster = by_the_longest(cluster(&[slow.address]));
    assert_eq!(cluster.read(&[b"k"], within(100)).unwrap_err().word(), "etcd-unreachable");
    assert!(!rests(&cluster));
    let start = Instant::now();
    assert!(cluster.read(&[b"k"], within(1000)).is_ok());
    assert_eq!(cluster.client.pace.patience(start), 1);
}

/// Of members of which one takes longer than usual, while that is waited for, the others are asked first.
#[test]
fn who_is_in_time_only_because_more_is_waited_for_is_not_asked_first() {
    let slow = Mock::new(|stream, _| {
        thread::sleep(Duration::from_millis(1200));
        let _ = stream.write_all(&ok(&found(ENTRY)));
    });
    let good = Mock::saying(ok(&found(ENTRY)));
    let cluster = that_prefers(slow.address, &conf(&[slow.address, good.address], ""));
    let now = Instant::now();
    cluster.client.pace.late(now, now, true);
    cluster.client.pace.answered();
    assert!(cluster.read(&[b"k"], within(5000)).is_ok());
    assert_eq!((slow.count("/v3/kv/txn"), good.count("/v3/kv/txn")), (1, 0));
    assert_eq!(cluster.favourite(), format!("http://{}", good.address));
}

/// After a restore a member may wait for ever for what a token says it has to have seen, and another one be down.
#[test]
fn a_token_that_no_request_comes_to_anything_with_is_given_up_though_nobody_is_at_another_endpoint() {
    if !is_root() {
        return;
    }
    let latest = Arc::new(AtomicUsize::new(0));
    let counter = latest.clone();
    let restored = Mock::new(move |stream, got| {
        if got.path == "/v3/auth/authenticate" {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write_all(&ok(&format!(r#"{{"header":{{"cluster_id":"1"}},"token":"abc.{number}"}}"#)));
        } else if got.head.contains("authorization: abc.0\r\n") {
            let _ = stream.shutdown(Shutdown::Both);
        } else {
            let _ = stream.write_all(&ok(&found(ENTRY)));
        }
    });
    let (_directory, conf) = with_password(&[restored.address, nobody()]);
    let cluster = that_prefers(restored.address, &conf);
    assert!(cluster.read(&[b"k"], within(3000)).is_ok());
    assert_eq!(latest.load(Ordering::Relaxed), 2);
}
