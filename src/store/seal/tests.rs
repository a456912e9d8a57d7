use super::*;
use crate::system::private::tests::directory;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A ring with two keys, of which the second is active.
fn ring() -> KeyRing {
    let mut ring = KeyRing::empty();
    ring.add().unwrap();
    let id = ring.add().unwrap();
    ring.activate(Some(id)).unwrap();
    ring
}

/// The same keys once more.
fn again(ring: &KeyRing) -> KeyRing {
    KeyRing::parse(ring.text().expose()).ok().unwrap()
}

fn open(ring: &KeyRing, purpose: &str, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
    ring.open(purpose, context, sealed).map(|opened| opened.expose().clone())
}

/// Texts of all lengths about the blocks of the cipher.
fn texts() -> impl Iterator<Item = Vec<u8>> {
    (0..200).chain([4000, 65536]).map(|length| (0..length).map(|at: u32| (at.wrapping_mul(167) >> 3) as u8).collect())
}

#[test]
fn what_was_sealed_is_opened_where_it_belongs() {
    let ring = ring();
    let id = ring.active().unwrap();
    for text in texts() {
        let sealed = ring.seal("test", &text, &text).unwrap();
        assert_eq!((sealed.len(), key_of(&sealed)), (text.len() + OVERHEAD, Ok(id)));
        assert_eq!(open(&again(&ring), "test", &text, &sealed), Ok(text));
    }
}

#[test]
fn the_same_text_is_sealed_differently_each_time_and_is_not_seen() {
    let ring = KeyRing::ephemeral().unwrap();
    let seal = || ring.seal("test", b"context", b"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP").unwrap();
    let mut sealed: Vec<_> = (0..100).map(|_| seal()).collect();
    assert!(sealed.iter().all(|sealed| !sealed.windows(4).any(|bytes| bytes == b"JBSW")));
    sealed.sort();
    sealed.dedup();
    assert_eq!(sealed.len(), 100);
}

#[test]
fn a_byte_that_was_altered_anywhere_opens_nothing() {
    let ring = ring();
    let sealed = ring.seal("test", b"context", b"a secret").unwrap();
    for place in 0..sealed.len() {
        for bit in 0..8 {
            let mut altered = sealed.clone();
            altered[place] ^= 1 << bit;
            assert!(open(&ring, "test", b"context", &altered).is_err(), "bit {bit} of byte {place}");
        }
        let cut = open(&ring, "test", b"context", &sealed[..place]);
        assert!(cut.is_err(), "cut off after {place}: {cut:?}");
    }
    let longer = [&sealed[..], b"x"].concat();
    assert_eq!(open(&ring, "test", b"context", &longer), Err(Unopened::Broken(ring.active().unwrap())));
}

#[test]
fn another_context_purpose_or_ring_opens_nothing() {
    let ring = ring();
    let id = ring.active().unwrap();
    let sealed = ring.seal("test", b"store\0alice", b"a secret").unwrap();
    for (purpose, context) in [
        ("test", &b"store\0bob"[..]),
        ("test", b"other\0alice"),
        ("test", b"store\0alice\0"),
        ("test", b""),
        ("tests", b"store\0alice"),
        ("", b"store\0alice"),
    ] {
        assert_eq!(open(&ring, purpose, context, &sealed), Err(Unopened::Broken(id)), "{purpose} {context:?}");
    }
    assert_eq!(open(&self::ring(), "test", b"store\0alice", &sealed), Err(Unopened::UnknownKey(id)));
    // A key of the same name is another key all the same.
    let mut impostor = KeyRing::ephemeral().unwrap();
    impostor.0[0].id = id;
    assert_eq!(open(&impostor, "test", b"store\0alice", &sealed), Err(Unopened::Broken(id)));
}

#[test]
fn a_key_that_seals_no_more_opens_until_it_is_dropped() {
    let mut ring = ring();
    let old = ring.active().unwrap();
    let sealed = ring.seal("test", b"", b"a secret").unwrap();
    let new = ring.add().unwrap();
    ring.activate(Some(new)).unwrap();
    assert_eq!(ring.keys().filter(|(_, is_active)| *is_active).map(|(id, _)| id).collect::<Vec<_>>(), [new]);
    assert_eq!(key_of(&ring.seal("test", b"", b"").unwrap()), Ok(new));
    assert_eq!(open(&ring, "test", b"", &sealed), Ok(b"a secret".to_vec()));
    assert_eq!(ring.drop_key(new), Err(Refused::Active(new)));
    assert_eq!(ring.drop_key(old), Ok(()));
    assert_eq!(ring.drop_key(old), Err(Refused::NoSuchKey(old)));
    assert_eq!(ring.activate(Some(old)), Err(Refused::NoSuchKey(old)));
    assert_eq!(ring.active(), Some(new), "as it was");
    assert_eq!(open(&ring, "test", b"", &sealed), Err(Unopened::UnknownKey(old)));
    ring.activate(None).unwrap();
    assert_eq!(ring.seal("test", b"", b""), Err(Unsealable::NoActiveKey));
}

#[test]
fn a_ring_has_so_many_keys_and_no_more() {
    let mut ring = KeyRing::empty();
    for _ in 0..MOST_KEYS {
        ring.add().unwrap();
    }
    assert_eq!(ring.add(), Err(Refused::Full));
    assert_eq!(again(&ring).keys().count(), MOST_KEYS);
}

#[test]
fn a_ring_is_written_as_it_is_read_and_no_part_of_it_is_one() {
    for ring in [KeyRing::empty(), ring()] {
        let text = ring.text();
        let text = text.expose();
        assert_eq!(again(&ring).text().expose(), text);
        for end in 0..text.len() {
            assert!(KeyRing::parse(&text[..end]).is_err(), "the first {end} bytes");
        }
    }
}

#[test]
fn a_line_of_a_ring_that_is_not_right_is_named() {
    let key = |id: &str, state: &str| {
        format!("\n[[key]]\nid = \"{id}\"\nstate = \"{state}\"\nkey = \"{}\"\n", Base64::encode_string(&[7; KEY]))
    };
    let ring = |keys: usize, rest: &str| format!("version = 1\nkeys = {keys}\n{rest}");
    let (one, two) = (key("0000000a", "active"), key("0000000b", "decrypt-only"));
    let id = |text: &str| KeyId::parse(text).unwrap();
    assert!(KeyRing::parse(ring(2, &(two.clone() + "# a comment\n\n" + &one)).as_bytes()).is_ok());
    let short = Base64::encode_string(&[7; KEY - 1]);
    let long = Base64::encode_string(&[7; KEY + 1]);
    for (text, expected) in [
        (String::new(), BadRing::Line(1)),
        ("\n".to_owned(), BadRing::Line(2)),
        ("keys = 0\nversion = 1\n".to_owned(), BadRing::Line(1)),
        ("version = 2\nanything\n".to_owned(), BadRing::Version(2)),
        ("version = 1\nversion = 1\n".to_owned(), BadRing::Line(2)),
        (format!("version = 1\n{one}"), BadRing::Line(3)),
        (ring(1, &one.replace("active", "Active")), BadRing::Line(6)),
        (ring(1, &one.replace("0000000a", "0000000A")), BadRing::Line(5)),
        (ring(1, &one.replace("0000000a", "+000000a")), BadRing::Line(5)),
        (ring(1, &one.replace("0000000a", "a")), BadRing::Line(5)),
        (ring(1, &one.replace(&Base64::encode_string(&[7; KEY]), &short)), BadRing::Line(7)),
        (ring(1, &one.replace(&Base64::encode_string(&[7; KEY]), &long)), BadRing::Line(7)),
        (ring(1, &one.replace("=\"", "\"")), BadRing::Line(7)),
        (ring(1, &(one.clone() + "note = \"\"\n")), BadRing::Line(8)),
        (ring(1, &(one.clone() + "state = \"active\"\n")), BadRing::Line(8)),
        (ring(2, &one), BadRing::Count(1, 2)),
        (ring(1, &(one.clone() + &two)), BadRing::Count(2, 1)),
        (ring(2, &(one.clone() + &one)), BadRing::Twice(id("0000000a"))),
        (
            ring(2, &(one.clone() + &two.replace("decrypt-only", "active"))),
            BadRing::TwoActive(id("0000000a"), id("0000000b")),
        ),
    ] {
        assert_eq!(KeyRing::parse(text.as_bytes()).err(), Some(expected), "{text}");
    }
}

#[test]
fn a_file_that_is_replaced_while_it_is_read_is_a_ring() {
    let directory = directory();
    let path = directory.path().join("keys");
    let ring = ring();
    ring.write(&path).unwrap();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(std::sync::atomic::Ordering::SeqCst) {
                ring.write(&path).unwrap();
            }
        });
        let unread = (0..20_000).find_map(|_| KeyRing::read(&path).err());
        is_done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(unread.map(|unread| unread.fact().to_string()), None);
    });
}

#[test]
fn a_file_that_others_can_use_or_that_has_another_name_is_no_ring() {
    let directory = directory();
    let path = directory.path().join("keys");
    let read = || KeyRing::read(&path).err().map(|error| error.fact().to_string());
    assert!(read().unwrap().starts_with("no-key-ring path="));
    let ring = ring();
    ring.write(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(KeyRing::read(&path).ok().unwrap().active(), ring.active());
    let if_there = |path: &Path| KeyRing::read_if_there(path).ok().unwrap().map(|ring| ring.active());
    assert_eq!([if_there(&path), if_there(&path.with_extension("none"))], [Some(ring.active()), None]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "and nothing is left beside it");
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = read().unwrap();
        assert!(error.contains("wrong-mode") && error.contains(&format!("{mode:04o}")), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(read(), None, "as systemd makes credentials");
    fs::hard_link(&path, directory.path().join("copy")).unwrap();
    assert!(read().unwrap().contains("cause=several-names"));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("copy", &path).unwrap();
    assert!(read().unwrap().contains("cause=link"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(read().unwrap().contains("not-a-file"));
}
