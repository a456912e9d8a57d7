use super::super::conformance;
use super::*;
use crate::otp::{Answer, Form};
use crate::verify::{self, Rules, Try};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::{fs, thread};

/// RFC 4226 appendix D; the code of time step 3 is 969429.
const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
/// A uid of nobody who runs tests.
const ANOTHER: u32 = 4711;

/// A home in the build directory: a real file system, where an fsync takes time and a race can be lost.
fn home() -> tempfile::TempDir {
    let target = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    tempfile::tempdir_in(target).unwrap()
}

fn store(secret: &[u8]) -> HomeStore<'_> {
    HomeStore { secret, ..HomeStore::default() }
}

fn person(home: &Path) -> Person {
    Person::running_this_process().at_home(home)
}

/// Of time step 3.
fn attempt(store: HomeStore, person: &Person, code: &str) -> Result<Attempt, StoreError> {
    let answer = Answer::new(Secret::new(code.into()), Form::Code, false);
    let (rules, attempt) = (Rules::default(), Try::new(&answer));
    store.attempt(person, &|record| verify::charge(record, &rules, &attempt, 90), None)
}

fn path_of(spec: &str, home: &str) -> String {
    expand(spec.as_bytes(), &person(Path::new(home))).unwrap().to_str().unwrap().to_owned()
}

/// The store under test, with every person at home in one directory.
struct At<'a>(HomeStore<'a>, &'a Path);

impl At<'_> {
    fn at_home(&self, person: &Person) -> Person {
        person.clone().at_home(self.1)
    }
}

impl Store for At<'_> {
    fn attempt<'c>(
        &self,
        person: &Person,
        charge: &dyn Fn(&Record) -> Charge<'c>,
        bill: Option<&Bill>,
    ) -> Result<Attempt, StoreError> {
        self.0.attempt(&self.at_home(person), charge, bill)
    }
    fn load(&self, person: &Person) -> Result<Record, StoreError> {
        self.0.load(&self.at_home(person))
    }
    fn has_record(&self, person: &Person) -> Result<bool, StoreError> {
        self.0.has_record(&self.at_home(person))
    }
    fn never_enrolled(&self, person: &Person) -> Result<bool, StoreError> {
        self.0.never_enrolled(&self.at_home(person))
    }
    fn path(&self, person: &Person) -> Result<PathBuf, Fact> {
        self.0.path(&self.at_home(person))
    }
    fn enrol(&self, person: &Person, record: &Record, replace: bool) -> Result<(), StoreError> {
        self.0.enrol(&self.at_home(person), record, replace)
    }
    fn change(&self, person: &Person, change: Change) -> Result<(), StoreError> {
        self.0.change(&self.at_home(person), change)
    }
    fn remove(&self, person: &Person) -> Result<bool, StoreError> {
        self.0.remove(&self.at_home(person))
    }
    fn release(&self, person: &Person) -> Result<bool, StoreError> {
        self.0.release(&self.at_home(person))
    }
}

#[test]
fn the_home_store_conforms() {
    let suites: [fn(&At); 2] = [|store| conformance::check(store), |store| conformance::check_budget(store)];
    for check in suites {
        let (home, state_dir) = (home(), crate::system::private::tests::directory());
        let secret = b"~/.google_authenticator";
        check(&At(HomeStore { secret, state_dir: Some(state_dir.path()), ..HomeStore::default() }, home.path()));
        let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".google_authenticator"], "nothing is left behind");
    }
}

#[test]
fn paths_are_expanded_like_the_c_module_does() {
    let user = Person::running_this_process().name().to_vec();
    let user = std::str::from_utf8(&user).unwrap();
    for (spec, path) in [
        ("~/.google_authenticator", "/h/.google_authenticator"),
        ("/a/~/x", "/a//h/x"),
        ("a~", "a~"),
        ("/~~", "//h~"),
        ("/a${HOME}${USER}~/~", &format!("/a/h{user}~//h")),
        ("/x/$USER/${USE", "/x/$USER/${USE"),
        ("", ""),
    ] {
        assert_eq!(path_of(spec, "/h"), path, "{spec}");
    }
    assert_eq!(path_of("${HOME}/x", "/${USER}~"), "/${USER}~/x", "what was put in is not looked at again");
}

#[test]
fn a_path_that_goes_back_or_is_not_absolute_is_refused() {
    let home = home();
    for spec in ["x", "", "~/../x", "~/a/../../x", "~"] {
        let result = store(spec.as_bytes()).has_record(&person(home.path()));
        assert!(matches!(result, Err(StoreError::Failed(_))), "{spec:?}: {result:?}");
    }
}

#[test]
fn absence_is_told_from_error() {
    let home = home();
    let has = |spec: &str| store(spec.as_bytes()).has_record(&person(home.path()));
    assert_eq!(has("~/none"), Ok(false));
    assert_eq!(has("~/no/directory/either"), Ok(false), "the home is there");
    assert!(matches!(has("/no/such/directory/file"), Err(StoreError::Failed(_))));
    fs::write(home.path().join("file"), "").unwrap();
    assert!(matches!(has("~/file/below"), Err(StoreError::Failed(_))), "not a directory");
    symlink("/nowhere", home.path().join("link")).unwrap();
    assert_eq!(has("~/link"), Ok(true), "a broken link is something");
    assert!(matches!(has("~/link/below"), Err(StoreError::Failed(_))));
    let away = person(Path::new("/no/such/home"));
    assert!(matches!(store(b"~/x").has_record(&away), Err(StoreError::Failed(_))), "an unmounted home");
    let elsewhere = home.path().join("file");
    let elsewhere = store(elsewhere.as_os_str().as_bytes());
    assert_eq!(elsewhere.has_record(&away), Ok(true), "outside of the home");
    assert_eq!(elsewhere.path(&away), Ok(home.path().join("file")));
    // An empty mount point looks like a home without a file.
    chown(home.path(), Some(ANOTHER), None).unwrap();
    let anothers = has("~/none").unwrap_err();
    assert_eq!(anothers.into_fact().word(), "home-of-another");
}

#[test]
fn whoever_may_have_a_file_in_a_home_may_have_had_a_device() {
    let (home, state_dir) = (home(), crate::system::private::tests::directory());
    let at = |secret| HomeStore { secret, state_dir: Some(state_dir.path()), ..HomeStore::default() };
    let may = |secret| at(secret).may_have_enrolled(&person(home.path()));
    assert_eq!(may(b"~/file"), Ok(false));
    assert_eq!(may(b"~/none/file"), Ok(false));
    fs::write(home.path().join("file"), "").unwrap();
    assert_eq!(may(b"~/file"), Ok(true));
    assert!(may(b"~/file/below").is_err(), "one that cannot be looked into may");
    chown(home.path(), Some(ANOTHER), None).unwrap();
    assert_eq!(may(b"~/file/below"), Ok(false), "another's has none of theirs");
    chown(home.path(), Some(process_uids().1), None).unwrap();
    assert_eq!(at(b"~/file").remove(&person(home.path())), Ok(true));
    assert_eq!(may(b"~/file"), Ok(true), "they had one");
    assert_eq!(at(b"/no/such/home/file").may_have_enrolled(&person(Path::new("/no/such/home"))), Ok(false));
}

#[test]
fn each_path_has_its_own_marks_and_the_usual_one_those_without_a_suffix() {
    let (home, state_dir) = (home(), crate::system::private::tests::directory());
    let at = |secret| HomeStore { secret, state_dir: Some(state_dir.path()), ..HomeStore::default() };
    let person = person(home.path());
    let paths: [&[u8]; 3] = [b"~/.google_authenticator", b"~/one", b"~/two"];
    for (number, path) in paths.into_iter().enumerate() {
        assert_eq!(at(path).never_enrolled(&person), Ok(true), "{number}");
        let unknown = attempt(at(path), &person, "000000").unwrap_err();
        assert_eq!(unknown.into_fact().word(), "not-enrolled", "{number}");
        // Not by us.
        fs::write(home.path().join(path.strip_prefix(b"~/").map(OsStr::from_bytes).unwrap()), "AAAAAAAA\n").unwrap();
        assert_eq!(at(path).remove(&person), Ok(true));
        assert_eq!(at(path).never_enrolled(&person), Ok(false), "{number}");
        let gone = attempt(at(path), &person, "000000").unwrap_err();
        assert_eq!(gone.into_fact().word(), "record-gone", "{number}");
    }
    let mut marks: Vec<_> =
        fs::read_dir(state_dir.path().join("enrolled")).unwrap().map(|e| e.unwrap().file_name()).collect();
    marks.sort();
    let usual = super::super::name_and_uid(&person);
    assert_eq!((marks.len(), marks[0].to_str()), (3, Some(usual.as_str())));
}

#[test]
fn a_login_by_a_file_that_another_program_made_is_remembered() {
    let (home, state_dir) = (home(), crate::system::private::tests::directory());
    let store = HomeStore { secret: b"~/file", state_dir: Some(state_dir.path()), ..HomeStore::default() };
    let person = person(home.path());
    let file = home.path().join("file");
    fs::write(&file, format!("{SECRET}\n\" TOTP_AUTH\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    for (code, is_remembered) in [("000000", false), ("969429", true)] {
        assert_eq!(matches!(attempt(store, &person, code).unwrap().verdict, Verdict::Accepted(_)), is_remembered);
        assert_eq!(store.had_record(&person), Ok(is_remembered));
    }
}

#[test]
fn what_an_operator_should_look_at_is_remarked_upon() {
    let home = home();
    let file = home.path().join("file");
    let remarks = |text: &str| {
        let _ = fs::remove_file(&file);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        attempt(store(b"~/file"), &person(home.path()), "000000").unwrap().remarks
    };
    assert_eq!(remarks(&format!("{}\n\" TOTP_AUTH\n", &SECRET[..26])), [""; 0]);
    assert_eq!(remarks(&format!("{}\n\" TOTP_AUTH\n", &SECRET[..24])), ["weak-secret"]);
    assert_eq!(remarks(&format!("{SECRET}\n\" TOTP_AUTH\n12345678\nodd\n")), ["odd-lines-in-file"]);
    assert_eq!(remarks(&format!("{SECRET}\n\" TOTP_AUTH\n\" STEP_SIZE 0\n")), ["broken-option"]);
    remarks(&format!("{SECRET}\n\" TOTP_AUTH\n"));
    fs::hard_link(&file, home.path().join("other")).unwrap();
    let linked = attempt(store(b"~/file"), &person(home.path()), "000000").unwrap();
    assert_eq!(linked.remarks, ["file-has-other-names"]);
}

#[test]
fn what_is_kept_of_a_file_is_of_one_person_and_one_path() {
    let person = person(Path::new("/h"));
    let key = file_key(&person, Path::new("/h/file"));
    assert!(key.starts_with(&format!("{}-", person.uid())) && !key.contains('/'), "{key}");
    assert_eq!(key, file_key(&person, Path::new("/h/file")));
    assert_ne!(key, file_key(&person, Path::new("/h/other")));
}

#[test]
fn enrolling_replaces_only_when_asked_to() {
    let home = home();
    let store = store(b"~/file".as_slice());
    let person = person(home.path());
    let record = |text: &str| conformance::record(text);
    let read = || fs::read_to_string(home.path().join("file")).unwrap();
    store.enrol(&person, &record("AAAAAAAA"), false).unwrap();
    assert_eq!(fs::metadata(home.path().join("file")).unwrap().permissions().mode() & 0o7777, 0o400);
    let refused = store.enrol(&person, &record("BBBBBBBB"), false).unwrap_err();
    assert_eq!((refused.into_fact().word(), read()), ("already-enrolled", "AAAAAAAA\n".to_owned()));
    store.enrol(&person, &record("CCCCCCCC"), true).unwrap();
    assert_eq!(read(), "CCCCCCCC\n");
}

#[test]
fn mode_stays_and_a_file_that_changed_meanwhile_stays_too() {
    let home = home();
    let file = home.path().join("file");
    fs::write(&file, "AAAAAAAA\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let store = store(b"~/file".as_slice());
    let person = person(home.path());
    store
        .locked(&person, None, |place, seen| {
            Ok(place.replace(&seen, &Secret::new(b"new".to_vec()), None, true).map(|_| ())?)
        })
        .unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let result = store.locked(&person, None, |place, seen| {
        fs::write(&file, "by another program").unwrap();
        Ok(place.replace(&seen, &Secret::new(b"ours".to_vec()), None, true).map(|_| ())?)
    });
    assert!(matches!(result, Err(Error::File(FileError { problem: Problem::Changed, .. }))), "{result:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "by another program");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_lock_that_nobody_gives_back_ends_in_an_error() {
    let home = home();
    let file = home.path().join("file");
    fs::write(&file, "AAAAAAAA\n").unwrap();
    let held = fs::File::open(&file).unwrap();
    crate::system::lock::exclusive(&held, &mut Patience::default()).unwrap();
    let home = home.path().to_owned();
    let waiting = thread::spawn(move || {
        store(b"~/file").locked(&person(&home), None, |_, _| Ok(())).map_err(|error| error.for_log())
    });
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(error.into_fact().word(), "locked");
}
