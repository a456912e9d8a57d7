use super::*;
use crate::store::conformance;
use crate::system::private::tests::directory;

#[test]
fn the_system_store_conforms() {
    let state_dir = directory();
    make(state_dir.path()).unwrap();
    conformance::check(&SystemStore { state_dir: state_dir.path(), homes: None, ring: None });
}

#[test]
#[cfg(feature = "seal")]
fn the_system_store_conforms_when_it_is_sealed() {
    let state_dir = directory();
    make(state_dir.path()).unwrap();
    let ring = KeyRing::ephemeral().unwrap();
    conformance::check(&SystemStore { state_dir: state_dir.path(), homes: None, ring: Some(&ring) });
}

#[test]
fn a_record_that_could_be_stored_has_room_for_logins() {
    let state_dir = directory();
    make(state_dir.path()).unwrap();
    has_room_for_logins(&SystemStore { state_dir: state_dir.path(), homes: None, ring: None });
}

fn has_room_for_logins(store: &SystemStore<'_>) {
    use crate::otp::{Algorithm, Answer, Digits, Form, Generator};
    use crate::record::{Device, Kind, Totp};
    use crate::verify::{self, Rules, Try};

    const STEP: u64 = 59_853_000;
    let device = |number: u8| {
        let (algorithm, digits, period) = (Algorithm::Sha1, Digits::SIX, 30);
        let (window, skew, drift, used) = (None, 0, Vec::new(), Ok(None));
        let kind = Ok(Kind::Totp(Totp { algorithm, digits, period, window, skew, drift, used }));
        let secret = Ok(Arc::new(Secret::new(vec![number; 20])));
        Device { name: format!("device {number}"), secret, kind, added: Some(STEP * 30), last_used: None }
    };
    let person = Person::running_this_process();
    store.enrol(&person, &Record::of(vec![device(0)]), false).unwrap();
    let add = |record: &mut Record| {
        record.devices.push(device(u8::try_from(record.devices.len()).unwrap()));
        Ok(())
    };
    while store.change(&person, &mut { add }).is_ok() {}
    // Nor may anything else take that room.
    let grows: [fn(&mut Record); 2] = [
        |record| record.recovery = RecoveryCodes::new([0; 16], [&b"one"[..]; 10]),
        |record| record.devices.iter_mut().for_each(|device| device.name += &" and more".repeat(4)),
    ];
    for grow in grows {
        let change = &mut |record: &mut Record| {
            grow(record);
            Ok(())
        };
        assert_eq!(store.change(&person, change).unwrap_err().into_fact().word(), "record-too-large");
    }
    let devices = store.load(&person).unwrap().devices;
    assert!(devices.len() > 12, "{}", devices.len());
    for device in devices {
        let secret = device.secret.as_ref().ok().unwrap();
        let code = Generator::new(secret, Algorithm::Sha1, Digits::SIX).code(STEP);
        let answer = Answer::new(Secret::new(code.expose().clone().into_bytes()), Form::Code, false);
        let (rules, attempt) = (Rules::default(), Try::new(&answer));
        let charge = |record: &Record| verify::charge(record, &rules, &attempt, STEP * 30);
        let verdict = store.attempt(&person, &charge, None).unwrap().verdict;
        assert!(matches!(verdict, Verdict::Accepted(_)), "{}: {verdict:?}", device.name);
    }
}

#[test]
fn whoever_has_left_any_trace_was_enrolled_once() {
    let path = directory();
    make(path.path()).unwrap();
    let person = Person::running_this_process();
    let name = person.file_name();
    let store = SystemStore { state_dir: path.path(), homes: None, ring: None };
    let mark = path.path().join("enrolled").join(super::super::name_and_uid(&person));
    // Where the secret may have been before.
    let file = path.path().join("secret");
    let secret = file.as_os_str().as_encoded_bytes();
    let with_homes = SystemStore { homes: Some(HomeStore { secret, ..HomeStore::default() }), ..store };
    assert_eq!(with_homes.never_enrolled(&person), Ok(true));
    std::fs::write(&file, "").unwrap();
    assert_eq!((with_homes.never_enrolled(&person), store.never_enrolled(&person)), (Ok(false), Ok(true)));
    // A store that was restored has the record and not the mark; the next login makes it.
    store.enrol(&person, &conformance::named("\" TOTP_AUTH\n"), false).unwrap();
    std::fs::remove_file(&mark).unwrap();
    assert_eq!(store.never_enrolled(&person), Ok(false));
    let answer = crate::otp::Answer::new(Secret::new("969429".into()), crate::otp::Form::Code, false);
    let (rules, attempt) = (crate::verify::Rules::default(), crate::verify::Try::new(&answer));
    let charge = |record: &Record| crate::verify::charge(record, &rules, &attempt, 90);
    assert!(matches!(store.attempt(&person, &charge, None).unwrap().verdict, Verdict::Accepted(_)));
    assert!(mark.exists());
    let word = || store.load(&person).err().unwrap().into_fact().word();
    std::fs::remove_file(path.path().join(RECORDS).join(&name)).unwrap();
    assert_eq!((store.never_enrolled(&person), word()), (Ok(false), "record-gone"));
    std::fs::remove_file(&mark).unwrap();
    assert_eq!((store.never_enrolled(&person), word()), (Ok(true), "not-enrolled"));
}

#[test]
fn nobody_waits_for_the_lock_of_another() {
    let path = directory();
    make(path.path()).unwrap();
    let store = SystemStore { state_dir: path.path(), homes: None, ring: None };
    // More than a byte of the hash can tell apart.
    let lock = |number: usize| store.place_of(format!("user{number}")).unwrap().lock();
    let held: Result<Vec<_>, _> = (0..300).map(lock).collect();
    assert!(held.is_ok_and(|held| held.len() == 300));
}

#[test]
fn what_a_store_is_on_is_known() {
    let path = tempfile::tempdir_in("/dev/shm").unwrap();
    let room = room(&Directory::open(path.path()).unwrap().unwrap()).unwrap();
    assert_eq!(room.file_system, FileSystem::Memory("tmpfs"));
    assert!(!room.is_read_only && room.bytes > 0 && room.files.is_some_and(|files| files > 0), "{room:?}");
    assert_eq!(make(path.path()).unwrap().file_system, room.file_system);
}

#[test]
fn a_store_is_made_once() {
    let path = directory();
    let [first, second] = [(); 2].map(|()| make(path.path()).unwrap());
    assert_eq!((first.was_there, second.was_there), (false, true));
    assert_eq!(first.id, second.id);
    // Cut off before it had an identity.
    std::fs::write(path.path().join(STORE_ID), "\n").unwrap();
    let third = make(path.path()).unwrap();
    assert!(!third.was_there && third.id.len() == first.id.len() && third.id != first.id);
}

#[test]
fn an_enrolment_that_fails_leaves_nobody_remembered() {
    let path = directory();
    make(path.path()).unwrap();
    let person = Person::running_this_process();
    let store = SystemStore { state_dir: path.path(), homes: None, ring: None };
    let in_the_way = store.path(&person).unwrap().with_file_name(format!("{}~", person.file_name()));
    std::fs::create_dir(&in_the_way).unwrap();
    let enrol = || store.enrol(&person, &conformance::named("\" TOTP_AUTH\n"), false);
    assert!(enrol().is_err());
    assert_eq!(store.never_enrolled(&person), Ok(true));
    // But for those who were before.
    store.place(&person).unwrap().remember(&person).unwrap();
    assert!(enrol().is_err());
    assert_eq!(store.never_enrolled(&person), Ok(false));
}

#[test]
fn a_store_is_one_by_a_file_that_says_so() {
    let path = directory();
    make(path.path()).unwrap();
    let store = SystemStore { state_dir: path.path(), homes: None, ring: None };
    let person = Person::running_this_process();
    let (id, aside) = (path.path().join(STORE_ID), path.path().join("aside"));
    let is_there = || (store.has_record(&person), store.check());
    assert_eq!(is_there(), (Ok(false), Ok(())));
    std::fs::rename(&id, &aside).unwrap();
    let spoil: [&dyn Fn(); 4] =
        [&|| {}, &|| std::fs::write(&id, "").unwrap(), &|| std::os::unix::fs::symlink(&aside, &id).unwrap(), &|| {
            std::fs::copy(&aside, &id).unwrap();
            std::os::unix::fs::chown(&id, Some(4711), None).unwrap();
        }];
    for (number, spoil) in spoil.iter().enumerate() {
        spoil();
        let (has_record, check) = is_there();
        assert!(matches!(has_record, Err(StoreError::Unreachable(_))), "{number}: {has_record:?}");
        assert!(matches!(check, Err(StoreError::Unreachable(_))), "{number}: {check:?}");
        let _ = std::fs::remove_file(&id);
    }
}

#[test]
fn a_record_is_of_one_name_and_one_uid() {
    let path = directory();
    make(path.path()).unwrap();
    let person = Person::running_this_process();
    let store = SystemStore { state_dir: path.path(), homes: None, ring: None };
    let record = conformance::named("\" TOTP_AUTH\n");
    store.enrol(&person, &record, false).unwrap();
    let written = document(&person, 1, &record);
    let (user, uid) = (written.user.clone(), written.uid);
    for (user, uid, is_theirs) in [(&*user, uid, true), ("other", uid, false), (&*user, uid + 1, false)] {
        let text = Document { user: user.to_owned(), uid, ..written.clone() }.text().unwrap();
        std::fs::write(store.path(&person).unwrap(), text.expose()).unwrap();
        let loaded = store.load(&person).err().map(|error| error.into_fact().word());
        assert_eq!(loaded, (!is_theirs).then_some("record-of-another"), "{user} {uid}");
    }
    assert_eq!(store.path(&person), Ok(path.path().join(RECORDS).join(person.file_name())));
    assert_eq!(store.people(), Ok(vec![person.named()]));
}

#[cfg(feature = "seal")]
mod sealing {
    use super::*;
    use crate::enrol::{Codes, NewDevice};
    use crate::store::seal::KeyId;
    use std::fs;

    const NAME: &str = "alice";

    /// A store with one record, and its keys, of which none is active.
    struct Sealed {
        state_dir: tempfile::TempDir,
        ring: KeyRing,
    }

    impl Sealed {
        fn new() -> Self {
            let state_dir = directory();
            make(state_dir.path()).unwrap();
            let mut ring = KeyRing::empty();
            ring.add().unwrap();
            let sealed = Self { state_dir, ring };
            let person = Person::running_this_process();
            let device = NewDevice::new(Codes::default(), 0).unwrap().device("phone", 1_800_000_000);
            sealed.store().enrol(&person, &Record::of(vec![device]), false).unwrap();
            // Of somebody whom no user database knows.
            let text = document(&person, 7, &sealed.store().load(&person).unwrap());
            let text = Document { user: NAME.to_owned(), ..text }.text().unwrap();
            for (name, text) in [(NAME, text.expose().clone()), ("alice~", vec![b'\n'; native::SIZE])] {
                sealed.put(name, &text);
            }
            sealed
        }

        fn store(&self) -> SystemStore<'_> {
            SystemStore { ring: Some(&self.ring), ..self.without_ring() }
        }

        fn without_ring(&self) -> SystemStore<'_> {
            SystemStore { state_dir: self.state_dir.path(), homes: None, ring: None }
        }

        fn activate(&mut self) -> KeyId {
            let id = self.ring.keys().last().unwrap().0;
            self.ring.activate(Some(id)).unwrap();
            id
        }

        fn bytes(&self, name: &str) -> Vec<u8> {
            fs::read(self.state_dir.path().join(RECORDS).join(name)).unwrap()
        }

        fn put(&self, name: &str, text: &[u8]) {
            use std::os::unix::fs::PermissionsExt;
            let path = self.state_dir.path().join(RECORDS).join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }

        /// Why somebody's record is not read.
        fn reason(&self, store: SystemStore<'_>, name: &str) -> Option<&'static str> {
            store.load_of_gone(&named(name)).err().map(|error| error.into_fact().word())
        }
    }

    fn named(name: &str) -> Named {
        Person::of_file_name(name).unwrap()
    }

    fn shows_a_secret(bytes: &[u8]) -> bool {
        bytes.windows(8).any(|bytes| bytes == b"secret =")
    }

    #[test]
    fn what_has_room_has_room_when_it_is_sealed() {
        let state_dir = directory();
        make(state_dir.path()).unwrap();
        let ring = KeyRing::ephemeral().unwrap();
        has_room_for_logins(&SystemStore { state_dir: state_dir.path(), homes: None, ring: Some(&ring) });
    }

    #[test]
    fn a_record_is_sealed_when_it_is_written_and_plain_again_when_no_key_is_active() {
        let mut sealed = Sealed::new();
        let name = named(NAME);
        assert_eq!(sealed.store().sealed_with(&name).unwrap(), None);
        assert!(!sealed.store().reseal(&name).unwrap(), "it is as it is to be");
        let id = sealed.activate();
        assert!(sealed.reason(sealed.store(), NAME).is_none(), "a plain one is read");
        assert!(sealed.store().reseal(&name).unwrap() && !sealed.store().reseal(&name).unwrap());
        assert_eq!(sealed.store().sealed_with(&name).unwrap(), Some(id.to_string()));
        let store = sealed.store();
        let held = store.place_of(NAME.to_owned()).unwrap().read().unwrap().unwrap();
        assert_eq!(held.value.document.generation, 9, "it was settled, and then sealed");
        assert!(sealed.bytes(NAME).starts_with(format!("# pam_totp record, sealed with key {id}\n").as_bytes()));
        for file in [NAME, "alice~"] {
            assert!(!shows_a_secret(&sealed.bytes(file)), "{file}");
        }
        assert_eq!((sealed.bytes(NAME).len(), sealed.bytes(NAME).last()), (native::SIZE, Some(&native::SETTLED)));
        assert_eq!(sealed.reason(sealed.without_ring(), NAME), Some("sealed-record"));
        sealed.ring.activate(None).unwrap();
        assert!(sealed.store().reseal(&name).unwrap());
        assert_eq!(
            (sealed.reason(sealed.without_ring(), NAME), sealed.store().sealed_with(&name).unwrap()),
            (None, None)
        );
    }

    #[test]
    fn a_login_seals_a_plain_record_and_leaves_no_plain_one_beside_it() {
        let mut sealed = Sealed::new();
        let person = Person::running_this_process();
        let name = person.file_name();
        sealed.activate();
        let store = sealed.store();
        let place = store.place(&person).unwrap();
        let held = place.load(&person).unwrap();
        let next = held.value.document.record.clone();
        assert!(shows_a_secret(&sealed.bytes(&name)));
        // What `change` does besides is not needed for it.
        place.commit(&person, &mut Some(held), &next).unwrap();
        for file in [name.clone(), format!("{name}~")] {
            assert!(!shows_a_secret(&sealed.bytes(&file)), "{file}");
        }
        assert_eq!(store.load(&person).unwrap().devices.len(), 1);
    }

    #[test]
    fn whoever_was_killed_while_sealing_left_a_plain_record_that_the_next_run_overwrites() {
        let mut sealed = Sealed::new();
        let plain = sealed.bytes(NAME);
        sealed.activate();
        sealed.store().reseal(&named(NAME)).unwrap();
        let whole = sealed.bytes(NAME);
        // Before the directory was on disk, and after it.
        for last in [b'\n', native::SETTLED] {
            let (_, text) = whole.split_last().unwrap();
            sealed.put(NAME, &[text, &[last]].concat());
            sealed.put("alice~", &plain);
            sealed.store().reseal(&named(NAME)).unwrap();
            assert!(!shows_a_secret(&sealed.bytes("alice~")), "{last}");
            assert!(sealed.reason(sealed.store(), NAME).is_none() && sealed.bytes(NAME).ends_with(b"#"));
        }
    }

    #[test]
    fn a_sealed_record_that_was_altered_moved_or_is_of_another_key_is_not_read() {
        let mut sealed = Sealed::new();
        sealed.activate();
        sealed.store().reseal(&named(NAME)).unwrap();
        let whole = sealed.bytes(NAME);
        // Somebody else's, of this store.
        sealed.put("bob", &whole);
        assert_eq!(sealed.reason(sealed.store(), "bob"), Some("broken-seal"));
        // Theirs, of another store.
        let id = fs::read(sealed.state_dir.path().join(STORE_ID)).unwrap();
        fs::write(sealed.state_dir.path().join(STORE_ID), b"0123\n").unwrap();
        assert_eq!(sealed.reason(sealed.store(), NAME), Some("broken-seal"));
        fs::write(sealed.state_dir.path().join(STORE_ID), id).unwrap();
        assert_eq!(sealed.reason(sealed.store(), NAME), None);
        let other = KeyRing::ephemeral().unwrap();
        let with_another = SystemStore { ring: Some(&other), ..sealed.store() };
        assert_eq!(sealed.reason(with_another, NAME), Some("unknown-seal-key"));
        for place in (0..120).chain([2048, 4093, 4094, 4095]) {
            let mut altered = whole.clone();
            altered[place] ^= 1;
            sealed.put(NAME, &altered);
            let reason = sealed.reason(sealed.store(), NAME);
            assert!(matches!(reason, Some("broken-seal" | "bad-record" | "unknown-seal-key")), "{place}: {reason:?}");
        }
        for length in [0, 1, 43, 44, 45, 4095] {
            sealed.put(NAME, &whole[..length]);
            assert_eq!(sealed.reason(sealed.store(), NAME), Some("bad-record"), "{length}");
            assert_eq!(sealed.reason(sealed.without_ring(), NAME), Some("bad-record"), "{length}");
        }
        assert_eq!(sealed.store().reseal(&named(NAME)).unwrap_err().into_fact().word(), "bad-record");
        assert_eq!(sealed.bytes(NAME).len(), 4095, "and stays as it is");
    }

    #[test]
    fn a_plain_record_of_another_gets_no_seal() {
        let mut sealed = Sealed::new();
        sealed.activate();
        sealed.put("bob", &sealed.bytes(NAME));
        assert_eq!(sealed.store().reseal(&named("bob")).unwrap_err().into_fact().word(), "record-of-another");
        assert_eq!(sealed.store().sealed_with(&named("bob")).unwrap(), None);
    }
}

mod admission {
    use super::*;
    use crate::enrol::{Codes, NewDevice};
    use crate::store::Grounds;

    const NOW: u64 = 1_800_000_000;

    /// A store, an account, and two of its people.
    fn shared() -> (tempfile::TempDir, Person, [Person; 2]) {
        let state_dir = directory();
        make(state_dir.path()).unwrap();
        let account = Person::running_this_process();
        let people = ["key-id:one", "key-id:two"].map(|key| account.holder(key).unwrap());
        (state_dir, account, people)
    }

    fn record() -> Record {
        Record::of(vec![NewDevice::new(Codes::default(), 0).unwrap().device("phone", NOW)])
    }

    fn word(number: u8) -> RecoveryCode {
        RecoveryCode::new([number; 15])
    }

    fn ticket() -> Ticket {
        Ticket { made: NOW, expires: NOW + 60, device: "phone".to_owned() }
    }

    /// By the device of somebody who has used it.
    fn vouched(voucher: &Person) -> Grounds {
        Grounds::Account(voucher.clone(), "phone".to_owned())
    }

    fn with_ticket(number: u8) -> Grounds {
        Grounds::Ticket(word(number), ticket())
    }

    /// Whether somebody is admitted, and if not, why.
    fn admit(store: &SystemStore, person: &Person, grounds: &Grounds) -> Result<(), &'static str> {
        store.admit(person, &record(), grounds, NOW).map_err(|error| error.into_fact().word())
    }

    #[test]
    fn one_is_the_first_of_an_account() {
        let (state_dir, account, [one, two]) = shared();
        let store = SystemStore { state_dir: state_dir.path(), homes: None, ring: None };
        assert!(store.admission().is_some());
        assert!(store.never_enrolled(&one).unwrap() && store.never_enrolled(&account).unwrap());
        assert_eq!(admit(&store, &one, &Grounds::First), Ok(()));
        assert_eq!(admit(&store, &one, &Grounds::First), Err("already-enrolled"));
        // Whoever else has a key of it is not, nor is the account itself.
        for person in [&two, &account] {
            assert!(!store.never_enrolled(person).unwrap());
            assert_eq!(admit(&store, person, &Grounds::First), Err("not-invited"));
        }
        // Who vouches has used the device: one that was enrolled since is another.
        assert_eq!(admit(&store, &two, &vouched(&one)), Err("not-invited"));
        let used = &mut |record: &mut Record| {
            record.devices[0].last_used = Some(NOW);
            Ok(())
        };
        store.change(&one, used).unwrap();
        assert_eq!(admit(&store, &two, &Grounds::Account(one.clone(), "tablet".to_owned())), Err("not-invited"));
        // With the code of a device of theirs they may have one, but for one whose device was taken away.
        assert_eq!(admit(&store, &two, &vouched(&one)), Ok(()));
        assert!(store.remove(&two).unwrap());
        assert_eq!(admit(&store, &two, &vouched(&one)), Err("not-invited"));
        assert_eq!(store.people_of_account(&two).unwrap(), std::slice::from_ref(&one));
        // While there is somebody the account is not forgotten.
        assert!(!store.release(&account).unwrap() && store.release(&two).unwrap());
        assert!(!store.never_enrolled(&two).unwrap());
        assert!(store.remove(&one).unwrap() && store.release(&one).unwrap() && store.release(&account).unwrap());
        assert!(store.never_enrolled(&two).unwrap());
    }

    #[test]
    fn a_ticket_is_of_one_of_the_account() {
        let (state_dir, account, [one, two]) = shared();
        let store = SystemStore { state_dir: state_dir.path(), homes: None, ring: None };
        for number in 1..=3 {
            store.invite(&account, &word(number), &ticket()).unwrap();
        }
        assert_eq!(store.ticket(&one, &word(1)).unwrap(), Some(ticket()));
        assert_eq!(store.ticket(&one, &word(9)).unwrap(), None);
        assert_eq!(admit(&store, &one, &with_ticket(9)), Err("not-invited"));
        assert_eq!(admit(&store, &one, &with_ticket(1)), Ok(()));
        // It is used up, for everybody, also when its record is gone again.
        assert!(store.remove(&one).unwrap());
        for person in [&one, &two, &account] {
            assert_eq!(store.ticket(person, &word(1)).unwrap(), None);
            assert_eq!(admit(&store, person, &with_ticket(1)), Err("not-invited"));
        }
        // Cut off after it was made theirs: it is still theirs, and nobody else's.
        assert!(store.place(&two).unwrap().tickets(&two).unwrap().claim(&word(2)).unwrap());
        assert_eq!(store.ticket(&one, &word(2)).unwrap(), None);
        assert_eq!(admit(&store, &one, &with_ticket(2)), Err("not-invited"));
        assert_eq!(admit(&store, &two, &with_ticket(2)), Ok(()));
        // One is left, and is taken back.
        assert!(store.is_invited(&one, NOW).unwrap() && !store.is_invited(&one, NOW + 60).unwrap());
        assert_eq!(store.withdraw(&account).unwrap(), 1);
        assert!(!store.is_invited(&one, NOW).unwrap());
    }

    #[test]
    fn of_a_shared_account_any_trace_says_that_it_was_enrolled_once() {
        let (path, account, [one, two]) = shared();
        let store = SystemStore { state_dir: path.path(), homes: None, ring: None };
        let mark = |person: &Person| path.path().join("enrolled").join(crate::store::name_and_uid(person));
        let record_of = path.path().join(RECORDS).join(one.file_name());
        for trace in [mark(&account), mark(&two), record_of.clone()] {
            store.enrol(&one, &record(), true).unwrap();
            std::fs::write(mark(&two), "").unwrap();
            for other in [mark(&account), mark(&one), mark(&two), record_of.clone()] {
                if other != trace {
                    std::fs::remove_file(other).unwrap();
                }
            }
            assert_eq!(store.never_enrolled(&two), Ok(false), "{}", trace.display());
            let _ = std::fs::remove_file(trace);
            assert_eq!(store.never_enrolled(&two), Ok(true));
        }
    }

    #[test]
    fn tickets_go_with_the_first_record_unless_others_share_the_account() {
        for is_shared in [false, true] {
            let (state_dir, account, [one, two]) = shared();
            let store = SystemStore { state_dir: state_dir.path(), homes: None, ring: None };
            if is_shared {
                store.enrol(&one, &record(), false).unwrap();
            }
            store.invite(&account, &word(1), &ticket()).unwrap();
            store.enrol(&account, &record(), false).unwrap();
            assert_eq!(store.is_invited(&two, NOW).unwrap(), is_shared);
        }
    }

    #[test]
    fn a_ticket_for_one_key_is_for_no_other() {
        let (state_dir, account, [one, two]) = shared();
        let store = SystemStore { state_dir: state_dir.path(), homes: None, ring: None };
        store.invite(&one, &word(1), &ticket()).unwrap();
        for person in [&two, &account] {
            assert_eq!(store.ticket(person, &word(1)).unwrap(), None);
            assert!(!store.is_invited(person, NOW).unwrap());
        }
        assert_eq!(admit(&store, &one, &with_ticket(1)), Ok(()));
    }

    #[test]
    fn of_many_at_once_one_is_first_and_one_has_the_ticket() {
        for round in 0..20 {
            let (state_dir, account, people) = shared();
            let store = SystemStore { state_dir: state_dir.path(), homes: None, ring: None };
            store.invite(&account, &word(1), &ticket()).unwrap();
            for grounds in [Grounds::First, with_ticket(1)] {
                let (store, grounds) = (&store, &grounds);
                let admitted = std::thread::scope(|scope| {
                    let threads = people.each_ref().map(|person| scope.spawn(move || admit(store, person, grounds)));
                    threads.map(|thread| thread.join().unwrap())
                });
                let won = admitted.iter().filter(|result| result.is_ok()).count();
                assert_eq!(won, 1, "round {round}, {}: {admitted:?}", grounds.name());
                people.iter().for_each(|person| assert!(store.remove(person).is_ok() && store.release(person).is_ok()));
            }
        }
    }
}
