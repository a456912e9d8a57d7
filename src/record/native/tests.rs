use super::*;

fn totp(name: &str, secret: &[u8]) -> Device {
    let totp = Totp {
        algorithm: Algorithm::Sha256,
        digits: Digits::new(8).unwrap(),
        period: 60,
        window: Some(Window { behind: 2, ahead: 3 }),
        skew: -4,
        drift: Vec::new(),
        used: Ok(Some(vec![7, 9, 8])),
    };
    let secret = Ok(Arc::new(Secret::new(secret.to_vec())));
    Device { name: name.to_owned(), secret, kind: Ok(Kind::Totp(totp)), added: Some(100), last_used: Some(200) }
}

fn hotp(name: &str, secret: &[u8]) -> Device {
    let hotp = Hotp {
        algorithm: Algorithm::Sha512,
        digits: Digits::SIX,
        look_ahead: 5,
        counter: u64::try_from(i64::MAX).unwrap(),
    };
    let secret = Ok(Arc::new(Secret::new(secret.to_vec())));
    Device { name: name.to_owned(), secret, kind: Ok(Kind::Hotp(hotp)), added: None, last_used: None }
}

fn document(devices: Vec<Device>) -> Document {
    let recovery = RecoveryCodes::new([9; SALT], [&b"one"[..], b"two"]);
    let record = Record { recovery, ..Record::of(devices) };
    Document { user: "al%20ice".to_owned(), uid: 1000, generation: 7, record }
}

fn text(devices: Vec<Device>) -> Vec<u8> {
    document(devices).text().unwrap().expose().clone()
}

/// A record with other words in it, and a right checksum.
fn edited(from: &str, to: &str) -> Result<Document, BadRecord> {
    let text = text(vec![totp("phone", b"0123456789"), hotp("stick", b"another secret")]);
    let body = std::str::from_utf8(&text[HEADER_LINE..]).unwrap().trim_end();
    assert!(body.contains(from), "{from}");
    let mut text = vec![PADDING; HEADER_LINE];
    text.extend_from_slice(body.replacen(from, to, 1).as_bytes());
    Document::parse(&whole(text))
}

#[test]
fn what_was_written_is_read() {
    let first = text(vec![totp("phone, big", b"0123456789"), hotp("l'autre é", b"another secret")]);
    assert_eq!(first.len(), SIZE);
    let document = Document::parse(&first).unwrap();
    assert_eq!((document.user.as_str(), document.uid, document.generation), ("al%20ice", 1000, 7));
    let [phone, stick] = document.record.devices.as_slice() else { panic!("two devices") };
    assert_eq!((phone.name.as_str(), phone.added, phone.last_used), ("phone, big", Some(100), Some(200)));
    assert_eq!(phone.secret.as_ref().unwrap().expose(), b"0123456789");
    let Ok(Kind::Totp(read)) = &phone.kind else { panic!("by time") };
    assert_eq!((read.mark(), read.skew, read.period, read.digits.get()), (Some(9), -4, 60, 8));
    assert_eq!((read.window, read.algorithm), (Some(Window { behind: 2, ahead: 3 }), Algorithm::Sha256));
    assert_eq!(stick.kind, hotp("", b"").kind);
    assert!(document.record.recovery == RecoveryCodes::new([9; SALT], [&b"one"[..], b"two"]));
    assert_eq!(document.text().unwrap().expose(), &first, "and written again it is the same");
}

#[test]
fn a_settled_record_is_the_same_record() {
    let mut text = text(vec![totp("phone", b"0123456789")]);
    assert_eq!(text.last(), Some(&PADDING));
    *text.last_mut().unwrap() = SETTLED;
    assert!(Document::parse(&text).is_ok());
}

#[test]
fn no_part_of_a_record_and_no_mixture_is_one() {
    let (old, new) = (text(vec![totp("phone", b"0123456789")]), text(vec![totp("phone", b"9876543210")]));
    for cut in 0..SIZE {
        assert!(Document::parse(&old[..cut]).is_err());
    }
    for sector in (512..SIZE).step_by(512) {
        let mixed = [&new[..sector], &old[sector..]].concat();
        // What differs may lie in one sector alone: then it is one of the two.
        assert!(Document::parse(&mixed).is_err() || mixed == old || mixed == new, "{sector}");
    }
    for place in (0..SIZE - 1).step_by(7) {
        let mut flipped = old.clone();
        flipped[place] ^= 1;
        assert_eq!(Document::parse(&flipped).err(), Some(BadRecord::Checksum), "{place}");
    }
    assert_eq!(Document::parse(&[0; SIZE]).err(), Some(BadRecord::Checksum));
    assert_eq!(Document::parse(&[&old[..], b"x"].concat()).err(), Some(BadRecord::Size(4097)));
}

#[test]
fn what_cannot_be_is_refused_and_no_word_of_it_told() {
    for (from, to, expected) in [
        ("version = 1", "version = 2", BadRecord::Version(2)),
        ("version = 1", "version = 2\nmore = \"x\"", BadRecord::Version(2)),
        ("uid = 1000", "uid = -1", BadRecord::Line(4)),
        ("kind = \"totp\"", "kind = \"motp\"", BadRecord::Line(13)),
        ("algorithm = \"SHA256\"", "algorithm = \"MD5\"", BadRecord::Line(15)),
        ("period = 60", "period = 0", BadRecord::Device("phone".into())),
        ("period = 60", "period = 61", BadRecord::Device("phone".into())),
        ("digits = 8", "digits = 9", BadRecord::Device("phone".into())),
        ("period = 60\n", "", BadRecord::Device("phone".into())),
        ("look_ahead = 5", "look_ahead = 101", BadRecord::Device("stick".into())),
        ("counter = 9223372036854775807", "mark = 1", BadRecord::Device("stick".into())),
        ("name = \"stick\"", "name = \"\"", BadRecord::Device(String::new())),
        ("name = \"stick\"", "name = \"phone\"", BadRecord::Twice("phone".into())),
        (&base32::encode(b"another secret").expose().clone(), "GAYTEMZUGU3DOOBZ", BadRecord::Twice("stick".into())),
    ] {
        assert_eq!(edited(from, to).err(), Some(expected), "{from} -> {to}");
    }
    for (from, to) in [
        ("secret = \"GAYTEMZUGU3DOOBZ\"", "secret = \"GAYTEMZUGU3DOOB1!\""),
        ("mark = 9", "mark = x"),
        ("mark = 9", "mark = 9\nmark = 10"),
        ("mark = 9", "colour = 9"),
        ("mark = 9", "mark=9"),
        ("uid = 1000", "uid = 1000\nuid = 1001"),
        ("generation = 7\n", ""),
        ("kind = \"totp\"\n", ""),
        ("digits = 8\n", ""),
        ("[recovery]", "[recovery]\n[recovery]"),
        ("hashes = [", "hashes = [\"00\", "),
        ("salt = \"", "salt = \"00"),
        // The same in other words.
        ("uid = 1000", "uid = +1000"),
        ("salt = \"09", "salt = \"+9"),
        ("GAYTEMZUGU3DOOBZ", "gaytemzugu3doobz"),
        ("ahead = 3\n", ""),
        ("digits = 8\nperiod = 60", "period = 60\ndigits = 8"),
    ] {
        let bad = edited(from, to).err().unwrap();
        assert!(matches!(bad, BadRecord::Line(_)));
        assert!(!format!("{}", bad.fact()).contains("GAYTEMZU"));
    }
    assert!(edited("generation = 7", "generation = 8").is_ok(), "the editing itself is sound");
}

#[test]
fn what_would_be_written_otherwise_is_named_by_its_line() {
    for (from, to, line) in [
        ("uid = 1000", "uid = +1000", 4),
        ("\n\n[recovery]", "\n\n\n[recovery]", 7),
        ("\", \"", "\",\"", 9),
        ("GAYTEMZUGU3DOOBZ", "gaytemzugu3doobz", 14),
        ("ahead = 3\n", "", 18),
        ("mark = 9\nadded = 100", "added = 100\nmark = 9", 21),
        ("look_ahead = 5", "look_ahead = 05", 32),
        ("look_ahead = 5", "look_ahead = 5\nadded = 07", 33),
        ("look_ahead = 5", "look_ahead = 5\nlast_used = 1\nadded = 7", 33),
    ] {
        assert_eq!(edited(from, to).err(), Some(BadRecord::Line(line)), "{from} -> {to}");
    }
    let longer = edited("look_ahead = 5", "look_ahead = 5\nadded = 7\nlast_used = 1");
    assert_eq!(longer.unwrap().record.devices[1].last_used, Some(1));
}

#[test]
fn more_than_fits_is_an_error_that_says_so() {
    let devices = |count: u8| (0..count).map(|n| totp(&format!("device {n}"), &[n; 20])).collect::<Vec<_>>();
    let fits = (0..100).take_while(|&count| document(devices(count)).text().is_ok()).count() - 1;
    assert!((12..20).contains(&fits), "{fits} devices fit");
    let error = document(devices(40)).text().err().unwrap();
    assert!(error.0 > SIZE && error.fact().to_string().contains("room=4006"), "{}", error.fact());
}

#[test]
fn the_last_byte_is_not_the_texts() {
    let empty = Document { user: String::new(), ..document(Vec::new()) };
    let room = SIZE - empty.body().length;
    for (over, expected) in [(-1, Ok(())), (0, Err(TooLarge(SIZE + 1))), (1, Err(TooLarge(SIZE + 2)))] {
        let user = "x".repeat(room.checked_add_signed(over).unwrap());
        assert_eq!(Document { user, ..empty.clone() }.text().map(drop), expected, "{over}");
    }
}

#[test]
fn names_of_devices() {
    for name in ["phone", "Ann's phone", "é", "SHA256:abc/+", &"x".repeat(64)] {
        assert!(is_device_name(name), "{name}");
    }
    for name in ["", " x", "x ", "a\"b", "a\\b", "a\nb", "a\u{1b}[31m", &"x".repeat(65)] {
        assert!(!is_device_name(name), "{name:?}");
    }
}

#[test]
fn a_first_line_names_the_key_of_a_sealed_record_and_nothing_else_does() {
    let sealed_with = |line: &str| super::sealed_with(format!("{SEALED}{line}").as_bytes()).map(str::to_owned);
    assert_eq!(sealed_with("0123abcf\n"), Some("0123abcf".to_owned()));
    for line in ["0123abcf", "0123abcfg\n", "0123abcg\n", "0123ABCF\n", "0123abc\n", ""] {
        assert_eq!(sealed_with(line), None, "{line:?}");
    }
    assert_eq!(super::sealed_with(&text(vec![totp("phone", b"0123456789")])), None);
}
