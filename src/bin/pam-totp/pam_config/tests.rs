use super::control::{Action, Answer};
use super::*;
use std::fs;

/// A root with these files; what they say of the auth stack of `s`.
fn read(files: &[(&str, &str)]) -> Stack {
    let image = image(files);
    Stack::read(&Root::open(image.path()).unwrap(), "s", Type::Auth)
}

fn image(files: &[(&str, &str)]) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = image.path().join(name.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    image
}

/// `FILE:LINE MODULE`, with `!` for a rule that always fails, and substacks in parentheses.
fn outline(stack: &Stack) -> String {
    fn of(items: &[Item]) -> String {
        let words = items.iter().map(|item| match item {
            Item::Substack(items) => format!("({})", of(items)),
            Item::Rule(rule) => {
                let call = match rule.call {
                    Call::Module => "",
                    Call::Nobody => "!",
                    Call::Chance => "?",
                };
                let file = rule.place.file.file_name().unwrap().to_string_lossy();
                format!("{file}:{}{call}{}", rule.place.line, String::from_utf8_lossy(&rule.module))
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }
    of(&stack.items)
}

/// `FILE:LINE TROUBLE`
fn troubles(stack: &Stack) -> Vec<(String, Trouble)> {
    let last = |place: &Place| place.to_string().rsplit('/').next().unwrap().to_owned();
    stack.troubles.iter().map(|(place, trouble)| (last(place), trouble.clone())).collect()
}

const MISSING: fn(&str) -> Trouble = |path| Trouble::Include(path.into(), Unreadable::Missing);

#[test]
fn what_is_included_stands_where_it_is_included_and_a_substack_for_itself() {
    let stack = read(&[
        (
            "/etc/pam.d/s",
            "auth required a.so x [y z]\n@include i\n-auth include i\nauth substack i\naccount include none\n",
        ),
        ("/etc/pam.d/i", "account required b.so\nauth sufficient c.so\nauth substack /srv/j\n"),
        ("/srv/j", "AUTH [Required] /lib/d.so # e\n"),
    ]);
    assert_eq!(outline(&stack), "s:1a.so i:2c.so (j:1/lib/d.so) i:2c.so (j:1/lib/d.so) (i:2c.so (j:1/lib/d.so))");
    assert_eq!((stack.whole, troubles(&stack), stack.is_other), (Whole::Read, vec![], false));
    let rules = stack.rules();
    assert_eq!(rules[0].arguments, [b"x".to_vec(), b"y z".to_vec()]);
    assert_eq!(rules[0].place.to_string(), "/etc/pam.d/s:1");
    assert_eq!(rules[2].module_name(), b"d.so");
}

#[test]
fn what_is_included_for_one_type_is_nothing_to_the_others() {
    let files = |line| [("/etc/pam.d/s", line), ("/etc/pam.d/i", "session required .so\nauth required a.so\n")];
    let stack = read(&files("auth include i\n"));
    assert_eq!((outline(&stack).as_str(), stack.whole, stack.troubles.len()), ("i:2a.so", Whole::Read, 0));
    assert_eq!(read(&files("@include i\n")).whole, Whole::Refused, "that is for all types");
}

#[test]
fn a_service_without_rules_of_the_type_has_those_of_other() {
    let other = ("/etc/pam.d/other", "auth required deny.so\nauth include i\n");
    let i = ("/etc/pam.d/i", "auth required i.so\n");
    let stack = read(&[("/etc/pam.d/s", "account required a.so\n"), other, i]);
    assert_eq!((outline(&stack).as_str(), stack.is_other), ("other:1deny.so i:1i.so", true));
    let stack = read(&[("/etc/pam.d/s", "auth substack empty\n"), ("/etc/pam.d/empty", ""), other, i]);
    assert_eq!((outline(&stack).as_str(), stack.is_other), ("()", false), "an empty substack is a rule");
    assert_eq!(read(&[]).whole, Whole::Refused, "neither");
    let twice = image(&[other, i]);
    let stack = Stack::read(&Root::open(twice.path()).unwrap(), "other", Type::Auth);
    assert_eq!(outline(&stack), "other:1deny.so i:1i.so other:1deny.so i:1i.so", "read as the service and as `other`");
}

#[test]
fn a_name_is_looked_for_in_small_letters_behind_its_last_slash() {
    let image = image(&[("/etc/pam.d/s", "auth required a.so\n"), ("/etc/pam.d/S", "auth required b.so\n")]);
    let root = Root::open(image.path()).unwrap();
    assert_eq!(outline(&Stack::read(&root, "/bin/S", Type::Auth)), "s:1a.so");
    assert_eq!(services(&root), ["s"]);
}

#[test]
fn the_distributions_file_counts_where_the_administrator_has_none() {
    let vendor = ("/usr/lib/pam.d/s", "auth include i\n");
    let included = ("/usr/lib/pam.d/i", "auth required i.so\n");
    let stack = read(&[vendor, included]);
    assert_eq!(outline(&stack), "i:1i.so");
    assert_eq!(troubles(&stack), [("s:1".to_owned(), Trouble::Vendor("/usr/lib/pam.d/i".into()))]);
    assert_eq!(outline(&read(&[vendor, ("/etc/pam.d/s", "auth required a.so\n")])), "s:1a.so");
}

#[test]
fn pam_conf_counts_where_there_is_no_directory() {
    let conf = "s auth required a.so\nother auth required o.so\nS include x\nt auth required t.so\ns @include /i\n";
    let files = [("/etc/pam.conf", conf), ("/i", "auth required i.so\n")];
    let stack = read(&files);
    assert_eq!(outline(&stack), "pam.conf:1a.so pam.conf:3! i:1i.so");
    assert_eq!(troubles(&stack), [("pam.conf:3".to_owned(), Trouble::Type(b"include".to_vec()))]);
    assert_eq!(read(&[files[0], files[1], ("/etc/pam.d/x", "")]).whole, Whole::Refused);
}

#[test]
fn a_line_that_is_wrong_is_a_rule_that_fails_for_auth() {
    let text =
        "authh sufficient a.so\nauth\nauth required\nauth [success=okay] b.so\n\r\n-\naccount include\nauth include\n";
    let stack = read(&[("/etc/pam.d/s", text)]);
    assert_eq!(outline(&stack), "s:1!a.so s:2! s:3! s:4b.so s:5! s:6! s:8!");
    let place = |line: u32| format!("s:{line}");
    assert_eq!(
        troubles(&stack),
        [
            (place(1), Trouble::Type(b"authh".to_vec())),
            (place(2), Trouble::NoControl),
            (place(3), Trouble::NoName),
            (place(4), Trouble::Control(b"success=okay".to_vec())),
            (place(5), Trouble::Type(b"\r".to_vec())),
            (place(6), Trouble::Type(b"-".to_vec())),
            (place(8), Trouble::NoName),
        ]
    );
    let actions: Vec<_> = stack.rules().iter().map(|rule| rule.control.action(Answer::PERM_DENIED)).collect();
    assert_eq!(actions[..4], [Action::Ignore, Action::Bad, Action::Bad, Action::Bad]);
    assert_eq!(stack.whole, Whole::Read);
}

#[test]
fn windows_line_ends_are_part_of_the_last_word() {
    let stack = read(&[
        ("/etc/pam.d/s", "auth required pam_unix.so\r\nauth include i\r\n"),
        ("/etc/pam.d/i", "auth required i\n"),
    ]);
    assert_eq!(outline(&stack), "s:1pam_unix.so\r s:2!");
    assert_eq!(troubles(&stack), [("s:2".to_owned(), MISSING("/etc/pam.d/i\r"))]);
    assert_ne!(stack.rules()[0].module_name(), b"pam_unix.so");
}

#[test]
fn a_missing_file_is_a_rule_that_fails_or_the_end_of_everything() {
    let with = |line: &str| read(&[("/etc/pam.d/s", line), ("/etc/pam.d/i", "auth required a.so\n@include none\n")]);
    for (line, outlined, whole) in [
        ("auth include none\n", "s:1!", Whole::Read),
        ("auth substack none\n", "() s:1!", Whole::Read),
        ("account include none\nauth required b.so\n", "s:2b.so", Whole::Read),
        ("auth required b.so\n@include none\n", "s:1b.so", Whole::Refused),
        ("@include i\nauth required b.so\n", "i:1a.so", Whole::Refused),
        ("auth include i\nauth required b.so\n", "i:1a.so i:2? s:2b.so", Whole::Read),
        ("auth required b.so\n@include\n", "s:1b.so", Whole::Refused),
        ("auth required b.so\nauth required .so\n", "s:1b.so", Whole::Refused),
        ("auth required b.so\nsession required /lib/\n", "s:1b.so", Whole::Refused),
    ] {
        let stack = with(line);
        assert_eq!((outline(&stack).as_str(), stack.whole), (outlined, whole), "{line}");
    }
}

#[test]
fn a_file_that_breaks_off_keeps_what_came_before() {
    let broken = "auth required a.so\nauth required b.so \\\n";
    let stack = read(&[("/etc/pam.d/s", "auth include i\n"), ("/etc/pam.d/i", broken)]);
    assert_eq!((outline(&stack).as_str(), stack.whole), ("i:1a.so s:1!", Whole::Read));
    assert_eq!(troubles(&stack), [("i:2".to_owned(), Trouble::Cut)]);
    assert_eq!(read(&[("/etc/pam.d/s", broken)]).whole, Whole::Refused);
    let other = [("/etc/pam.d/s", "auth required a.so\n"), ("/etc/pam.d/other", broken)];
    assert_eq!(read(&other).whole, Whole::Refused, "`other` is read at every login");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let image = image(&[("/etc/pam.d/s", "auth include fifo\nauth include dir\nauth required a.so\n")]);
    let root = Root::open(image.path()).unwrap();
    let pam_d = image.path().join("etc/pam.d");
    fs::create_dir(pam_d.join("dir")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, pam_d.join("fifo"), fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let stack = Stack::read(&root, "s", Type::Auth);
    assert_eq!(outline(&stack), "s:1! s:3a.so", "to libpam a directory is empty");
    let unreadable = Trouble::Include("/etc/pam.d/fifo".into(), Unreadable::NotAFile);
    assert_eq!(troubles(&stack), [("fifo".to_owned(), unreadable)]);
    assert_eq!(Stack::read(&root, "fifo", Type::Auth).whole, Whole::Refused);
}

#[test]
fn loops_and_depths_end() {
    let stack = read(&[("/etc/pam.d/s", "auth required a.so\nauth include s\n")]);
    assert_eq!((stack.rules().len(), stack.whole), (LEVELS + 1, Whole::Read));
    assert_eq!(troubles(&stack), [("s:2".to_owned(), Trouble::Loop("/etc/pam.d/s".into()))]);
    assert_eq!(read(&[("/etc/pam.d/s", "auth required a.so\n@include s\n")]).whole, Whole::Refused);
    let branches = "auth required a.so\nauth include s\n".repeat(8);
    let stack = read(&[("/etc/pam.d/s", &branches)]);
    assert_eq!((stack.whole, stack.rules().len() <= LINES), (Whole::Endless, true));
    let chain = |word: &str, length: u32| {
        let names: Vec<_> = (0..length).map(|number| format!("/etc/pam.d/{number}")).collect();
        let texts: Vec<_> = (0..length).map(|number| format!("auth {word} {}\n", number + 1)).collect();
        let last = format!("/etc/pam.d/{length}");
        let mut files = vec![("/etc/pam.d/s", "auth include 0\n"), (&last, "auth required a.so\n")];
        files.extend(names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())));
        let stack = read(&files);
        let is_reached = stack.rules().iter().any(|rule| rule.module == b"a.so");
        (is_reached, troubles(&stack).into_iter().map(|(_, trouble)| trouble).collect::<Vec<_>>())
    };
    assert_eq!(chain("substack", 15), (true, vec![]));
    assert_eq!(chain("substack", 16), (false, vec![Trouble::Depth]));
    assert_eq!(chain("include", 100), (true, vec![]));
    assert_eq!(chain("include", 300), (false, vec![Trouble::Depth]));
}

#[test]
fn a_place_can_be_shown_on_a_terminal() {
    let stack = read(&[("/etc/pam.d/s", "auth include \x1b[2J\n"), ("/etc/pam.d/\x1b[2J", "auth required a.so\n")]);
    assert_eq!(stack.rules()[0].place.to_string(), "/etc/pam.d/\\x1b[2J:1");
}
