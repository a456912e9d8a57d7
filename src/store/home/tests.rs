use super::super::conformance;
use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::{fs, thread};

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
