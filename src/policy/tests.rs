use super::odds::odds;
use super::*;

fn document(text: &str) -> Document {
    Document::parse(text.as_bytes().to_vec()).unwrap_or_else(|bad| panic!("{bad}\n{text}"))
}

fn policy(service: &str, arguments: &[&str], text: &str) -> Policy {
    let options = Options::parse(arguments.iter().map(|argument| argument.as_bytes())).unwrap();
    Policy::new(service, &options, &document(text))
}

fn log(text: &str) -> String {
    Document::parse(text.as_bytes().to_vec()).unwrap_err().fact(b"/p.toml").to_string()
}

/// Every key there is, with another value than the default.
const FULL: &str = r#"
# ours
version = 1

[defaults]
store = "home"
secret = "/etc/codes/${USER}"
state_dir = "/srv/pam_totp"
window = { behind = 2, ahead = 0 }
max_window = 5
prompt = "Code: "
echo = true
identity = "pam-user"
enrolment = "optional"
grace = "12h"
fail_delay = "3s"
min_secret_bits = 128
allow_scratch_codes = false
shared_sources = ["192.0.2.1", "2001:db8::/48"]

[defaults.compat]
skew_adjustment = true

[service.sshd]
window = { behind = 0, ahead = 0 }
enrol_by = 2027-01-31

[service.su]
enrolment = "required"

[service.su.compat]
google = true

[compat]
google = false

[throttle]
user = "!root:5/1h root:3/1d"
host = ""
user_whitelist = ["robot/sshd"]
host_whitelist = ["10.0.0.0/8"]

[[exempt]]
users = ["backup"]
networks = ["10.1.0.0/16"]
services = ["sshd"]
until = 2027-06-30
reason = "nightly copies, ticket 4711"

[[exempt]]
groups = ["robots"]
networks = ["any"]
services = ["any"]
until = 2027-06-30T12:00:00Z
reason = "deploys"
result = "success"
shared_sources = true

[require]
groups = ["wheel", "!robots"]
"#;

#[test]
fn without_a_file_everything_has_its_default() {
    for text in ["version = 1\n", "version = 1\n[defaults]\n[service.sshd]\n[compat]\n"] {
        let policy = policy("sshd", &[], text);
        assert_eq!(policy.secret.value, b"~/.google_authenticator");
        assert_eq!(policy.state_dir.value, Path::new("/var/lib/pam_totp"));
        assert_eq!(policy.prompt.value, b"Verification code: ");
        assert_eq!((policy.window.value, policy.widest_window()), (Window { behind: 1, ahead: 1 }, None));
        assert_eq!(
            (policy.enrolment.value, policy.grace.value, policy.fail_delay.value),
            (Enrolment::of(EnrolmentKind::Required), 0, 2)
        );
        assert!(policy.allow_scratch_codes.value && !policy.echo.value && !policy.google.value);
        let throttle = policy.throttle.value.unwrap();
        assert_eq!(
            (throttle.user.to_string(), throttle.host.to_string()),
            ("\"*:10/1h,30/1d\"".into(), "\"*:10/1h,30/1d\"".into())
        );
    }
}

#[test]
fn a_service_is_above_the_defaults_and_an_argument_above_both() {
    let sshd = policy("sshd", &[], FULL);
    assert_eq!((sshd.window.value, sshd.window.origin), (Window { behind: 0, ahead: 0 }, Origin::Line(25)));
    assert_eq!((sshd.prompt.value.as_slice(), sshd.prompt.origin), (&b"Code: "[..], Origin::Line(11)));
    assert_eq!(sshd.enrolment.optional_until.map(|end| end.to_string()).as_deref(), Some("2027-01-31"));
    assert_eq!(sshd.widest_window(), Some(Window { behind: 2, ahead: 2 }));
    assert!(!sshd.google.value && sshd.skew_adjustment.value);
    let su = policy("su", &[], FULL);
    assert_eq!(
        (su.enrolment.value, su.google.value, su.google.origin),
        (Enrolment::of(EnrolmentKind::Required), true, Origin::Line(32))
    );
    let login = policy("login", &[], FULL);
    assert_eq!(
        (login.enrolment.value, login.window.value),
        (Enrolment::of(EnrolmentKind::Optional), Window { behind: 2, ahead: 0 })
    );
    assert_eq!((login.grace.value, login.fail_delay.value, login.min_secret_bits.value), (43_200, 3, 128));
    assert_eq!((login.exemptions.len(), login.require.is_some()), (2, true));
    let argued =
        policy("su", &["nullok", "secret=~/s", "authtok_prompt=X", "echo_verification_code", "noskewadj"], FULL);
    assert_eq!(
        (argued.enrolment.value, argued.enrolment.origin),
        (Enrolment::of(EnrolmentKind::Optional), Origin::Argument)
    );
    assert_eq!((argued.secret.value.as_slice(), argued.prompt.value.as_slice()), (&b"~/s"[..], &b"X"[..]));
    assert!(argued.echo.value && !argued.skew_adjustment.value);
    let prompt = |arguments: &[&str]| policy("x", arguments, "version = 1\n").prompt.value;
    assert_eq!(prompt(&["forward_pass"]), b"Password & verification code: ");
    assert_eq!(
        (prompt(&["forward_pass", "authtok_prompt=x"]), prompt(&["authtok_prompt="])),
        (b"x".to_vec(), b"".to_vec())
    );
}

#[test]
fn su_and_sudo_cover_their_login_shells_unless_those_have_their_own() {
    let echo = |service: &str, text: &str| policy(service, &[], &format!("version = 1\n{text}")).echo.value;
    let su = "[service.su]\necho = true\n[service.sudo]\necho = true\n";
    for service in ["su", "su-l", "sudo", "sudo-i"] {
        assert!(echo(service, su), "{service}");
    }
    assert!(!echo("sux", su) && !echo("sshd", su) && !echo("login", su));
    assert!(!echo("su-l", "[service.su]\necho = true\n[service.su-l]\n"));
    assert!(!echo("su", "[service.su-l]\necho = true\n"));
}

#[test]
fn the_ledger_is_off_with_google_unless_somebody_asks_for_it() {
    let is_on = |service: &str, text: &str| policy(service, &[], &format!("version = 1\n{text}")).throttle.is_some();
    assert!(is_on("sshd", ""));
    assert!(!is_on("sshd", "[compat]\ngoogle = true\n"));
    assert!(is_on("sshd", "[compat]\ngoogle = true\n[throttle]\n"));
    let one = "[service.sshd.compat]\ngoogle = true\n";
    assert!(!is_on("sshd", one) && is_on("su", one));
    assert!(is_on("sshd", "[compat]\ngoogle = true\n[service.sshd.compat]\ngoogle = false\n"));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let expected = "bad-policy at=/p.toml:3:1 unknown-key=gogle did-you-mean=google";
    assert_eq!(log("version = 1\n[compat]\ngogle = true\n"), expected);
    assert_eq!(
        log("version = 1\n[defaults]\nwidow = 1\n"),
        "bad-policy at=/p.toml:3:1 unknown-key=widow did-you-mean=window"
    );
    assert_eq!(log("version = 1\nxyzzy = 2\n"), "bad-policy at=/p.toml:2:1 unknown-key=xyzzy");
    let in_words = |text: &str| Document::parse(text.as_bytes().to_vec()).unwrap_err().to_string();
    assert_eq!(in_words("version = 1\n[defaults]\n  widow = 1\n"), "3:3: unknown key `widow`; did you mean `window`?");
    for (text, at, words) in [
        ("[compat]\ngoogle = 1", "3:10", "invalid type: integer `1`, expected a boolean"),
        ("[compat", "2:8", "unclosed table"),
        ("version = 1", "2:1", "duplicate key"),
        ("[throttle]\nuser = \"*:10\"", "3:8", "`10` is no trigger such as 10/1h"),
        ("[throttle]\nuser = \"*:0/1h\"", "3:8", "`0/1h` is no trigger such as 10/1h: 1 to 100 failures in 1s to 30d"),
        ("[defaults]\ngrace = \"12\"", "3:9", "`12` is no time"),
        (
            "[defaults]\nshared_sources = [\"10.0.0.1/8\"]",
            "3:18",
            "`10.0.0.1/8` has bits behind its prefix: `10.0.0.0/8`",
        ),
        ("[service.sshd]\nstate_dir = \"/x\"", "3:13", "`state_dir` is one for all services"),
        (
            "[defaults]\nenrol_by = 2027-01-01\nenrolment = \"required\"",
            "4:13",
            "`enrol_by` makes enrolment optional until then",
        ),
        ("[defaults]\nstore = \"etcd\"", "3:9", "unknown variant `etcd`, expected one of `home`, `system`, `fleet`"),
        ("[service.sshd]\nstore = \"system\"", "3:9", "`store` is one for all services"),
        ("[defaults]\nidentity = \"target\"", "3:12", "unknown variant `target`, expected one of `pam-user`, `caller`"),
        ("[defaults]\nidentity = \"caller\"", "3:12", "`identity = \"caller\"` is for [service.sudo]"),
        ("[service.login]\nidentity = \"caller\"", "3:12", "`identity = \"caller\"` is for [service.sudo]"),
        (
            "[defaults]\nstore = \"system\"\n[service.su]\nidentity = \"login-key\"",
            "5:12",
            "`identity = \"login-key\"` is for [service.sshd]",
        ),
        ("[service.sshd]\nidentity = \"login-key\"", "3:12", "`identity = \"login-key\"` needs `store = \"system\"`"),
        (
            "[service.sshd]\ncert_identity = { by = \"key-id\", ca = [] }",
            "3:17",
            "`cert_identity` is for a table with `identity = \"login-key\"`",
        ),
        (
            "[service.sshd]\ncert_identity = { by = \"key-id\", ca = [\"x\"] }",
            "3:39",
            "`x` is no fingerprint of a key: SHA256: and 43 letters",
        ),
        ("[service.sshd]\nenrolment = \"inline\"", "3:13", "enrolment inside a login needs `store = \"system\"`"),
        ("[defaults]\nenrolment = \"ticket\"", "3:13", "enrolment inside a login needs `store = \"system\"`"),
        ("[defaults]\nqr = \"utf-8\"", "3:6", "unknown variant `utf-8`, expected one of `utf8`, `ascii`, `off`"),
        ("[[exempt]]\nusers = [\"any\"]", "2:1", "missing field `networks`"),
        ("[require]\ngroups = [\"!wheel\"]", "2:1", "`groups` must name a group without `!`"),
    ] {
        let said = in_words(&format!("version = 1\n{text}\n"));
        assert!(said.starts_with(&format!("{at}: {words}")), "{text:?}: {said}");
    }
}

#[test]
fn every_value_that_a_key_cannot_have_is_an_error() {
    let table = [
        ("store", &["\"\"", "\"etcd\"", "1", "true"][..]),
        ("secret", &["\"\"", "1", "[]", "\"a\\u0000\"", "\"a\\n\""]),
        ("state_dir", &["\"\"", "\"var\"", "1"]),
        (
            "window",
            &[
                "1",
                "\"1\"",
                "{}",
                "{ behind = 1 }",
                "{ behind = -1, ahead = 1 }",
                "{ behind = 51, ahead = 0 }",
                "{ behind = 1, ahead = 1, x = 1 }",
            ],
        ),
        ("max_window", &["0", "101", "-1", "\"3\"", "1.5"]),
        ("prompt", &["\"\"", "1", "\"a\\nb\"", "\"a\\u0000b\""]),
        ("echo", &["\"true\"", "1"]),
        ("identity", &["\"\"", "1", "\"login-key\""]),
        ("enrolment", &["\"\"", "true", "\"inline\"", "\"Optional\""]),
        ("enrol_by", &["\"2027-01-31\"", "2027-02-30", "2027-01-31T00:00:00", "12:00:00", "1", "true"]),
        ("grace", &["12", "\"12\"", "\"31d\"", "\"-1h\"", "\"1w\"", "true"]),
        ("fail_delay", &["2", "\"16s\"", "\"1h\"", "\"\""]),
        ("min_secret_bits", &["-1", "1025", "\"128\""]),
        ("allow_scratch_codes", &["\"no\"", "0"]),
        ("shared_sources", &["\"10.0.0.0/8\"", "[\"host\"]", "[1]", "[\"10.0.0.0/33\"]", "[\"\"]"]),
        ("compat", &["true", "{ gogle = true }"]),
    ];
    for (key, values) in table {
        for value in values {
            for place in ["defaults", "service.sshd"] {
                let text = format!("version = 1\n[{place}]\n{key} = {value}\n");
                assert!(Document::parse(text.clone().into_bytes()).is_err(), "{text}");
            }
        }
        let twice = FULL.lines().find(|line| line.starts_with(&format!("{key} = ")));
        if let Some(line) = twice {
            assert!(
                Document::parse(format!("version = 1\n[defaults]\n{line}\n{line}\n").into_bytes()).is_err(),
                "{line}"
            );
        }
    }
    for text in [
        "throttle = 1",
        "[throttle]\nusers = \"\"",
        "[throttle]\nuser = 1",
        "[throttle]\nuser_whitelist = \"root\"",
        "[throttle]\nhost_whitelist = [\"host\"]",
        "[exempt]",
        "exempt = 1",
        "[[require]]",
        "[require]",
        "[[throttle]]",
        "[service]\nsshd = 1",
        "[[service.sshd]]",
        "[[exempt]]\n[[exempt]]",
        "version = \"1\"",
        "\u{0}",
    ] {
        assert!(Document::parse(format!("version = 1\n{text}\n").into_bytes()).is_err(), "{text}");
    }
    assert!(Document::parse(b"version = 1\n# \xff\n".to_vec()).is_err());
    for text in [
        "",
        "\n# nothing\n",
        "[compat]\ngoogle = true\n",
        "compat.google = true\nversion = 1\n",
        "version = 2\n",
        "version = \"1\"\n",
    ] {
        let fact = log(text);
        assert!(fact.starts_with("bad-policy at=/p.toml:1:"), "{text:?}: {fact}");
    }
}

/// What each key opens, or closes: those of FULL that matter, each at the end of a file of its own.
const OPENING: [&str; 8] = [
    "[defaults]\nenrolment = \"optional\"\n",
    "[defaults]\nenrol_by = 2027-01-31\n",
    "[defaults]\ngrace = \"1h\"\n",
    "[compat]\ngoogle = true\n",
    "[compat]\nskew_adjustment = true\n",
    "[[exempt]]\nusers = [\"a\"]\nnetworks = [\"any\"]\nservices = [\"any\"]\nuntil = 2027-01-31\nreason = \"x\"\n",
    "[require]\ngroups = [\"wheel\"]\n",
    "[throttle]\nuser = \"\"\nhost = \"\"\n[compat]\ngoogle = true\n",
];
const CLOSING: [&str; 15] = [
    // Wider than the default, and a bound for people's files at the same time.
    "[defaults]\nwindow = { behind = 2, ahead = 2 }\n",
    "[defaults]\nwindow = { behind = 0, ahead = 0 }\n",
    "[defaults]\nmax_window = 5\n",
    "[defaults]\nfail_delay = \"9s\"\n",
    "[defaults]\nmin_secret_bits = 128\n",
    "[defaults]\nallow_scratch_codes = false\n",
    "[defaults]\nshared_sources = [\"192.0.2.1\"]\n",
    "[defaults]\nsecret = \"/etc/codes/${USER}\"\n",
    "[defaults]\nstate_dir = \"/srv/x\"\n",
    "[throttle]\nuser = \"*:5/1h\"\n",
    "[throttle]\nhost = \"*:5/1h\"\n",
    "[service.sshd]\nmin_secret_bits = 128\n",
    "[service.su-l]\nallow_scratch_codes = false\n",
    "[service.su]\nallow_scratch_codes = false\n",
    "[service.sshd]\nmax_window = 7\n",
];

#[test]
fn every_beginning_of_a_policy_that_was_in_use_is_refused_or_not_weaker() {
    let path = Path::new("/nowhere/p.toml");
    let taken = |whole: &str, length: usize| {
        let cut = &whole.as_bytes()[..length];
        PolicyFile::parse(cut)
            .ok()
            .filter(|file| in_use::check(Some(whole.as_bytes().to_vec()), path, cut, file).is_ok())
    };
    let whole_table = |whole: &str| (0..whole.len()).filter(|&length| taken(whole, length).is_some()).count();
    for closing in CLOSING {
        let whole = format!("version = 1\n{closing}");
        assert!(taken(&whole, whole.len()).is_some(), "{closing}: the whole is taken");
        assert!(taken(&whole, whole.len() - 1).is_some(), "{closing}: a line end means nothing");
        for length in 0..whole.len() - 1 {
            assert_eq!(taken(&whole, length), None, "{closing:?} cut to {length} bytes");
        }
    }
    for opening in OPENING {
        assert!(whole_table(&format!("version = 1\n{opening}")) > 2, "{opening:?}: what opens can go");
    }
    // All of it, cut at any byte: never less is asked for than by the whole.
    let weaker: Vec<usize> = (0..FULL.len())
        .filter(|&length| {
            taken(FULL, length).is_some_and(|_| {
                let cut = |service| policy(service, &[], &FULL[..length]);
                ["sshd", "su", "su-l", "sudo", "login"].into_iter().any(|service| {
                    let (cut, whole) = (cut(service), policy(service, &[], FULL));
                    cut.min_secret_bits.value < 128
                        || cut.window.value.size() > whole.window.value.size()
                        || cut.throttle.as_ref() != whole.throttle.as_ref()
                        || cut.secret.value != whole.secret.value
                })
            })
        })
        .collect();
    assert!(weaker.is_empty(), "{weaker:?}");
}

#[test]
fn the_arithmetic_of_guessing() {
    let of = |text: &str| odds(&policy("sshd", &[], &format!("version = 1\n{text}")));
    let [usual, widest] = of("");
    assert_eq!((usual.live, usual.guesses_a_day, widest.live), (3, Some(30), 100));
    assert!((usual.a_day - 9.0e-5).abs() < 1e-6, "{usual:?}");
    assert!((usual.a_year - 0.0323).abs() < 1e-4, "{usual:?}");
    let [strict, widest] = of("[defaults]\nwindow = { behind = 0, ahead = 0 }\n[throttle]\nuser = \"*:5/1d\"\n");
    assert_eq!((strict.live, strict.guesses_a_day, widest.live), (1, Some(5), 1));
    assert!((strict.a_year - 0.00182).abs() < 1e-5, "{strict:?}");
    let [hourly, _] = of("[throttle]\nuser = \"*:10/1h\"\n");
    assert_eq!(hourly.guesses_a_day, Some(240));
    for text in ["[throttle]\nuser = \"\"\n", "[compat]\ngoogle = true\n", "[throttle]\nuser = \"root:1/1d\"\n"] {
        assert_eq!((of(text)[0].guesses_a_day, of(text)[0].a_day), (None, 1.0), "{text}");
    }
}

#[test]
fn every_key_is_explained_with_its_origin() {
    let lines = explain(&policy("sshd", &["echo_verification_code"], FULL));
    let said = |key: &str| lines.iter().find(|line| line.key == key).map(|line| (line.value.as_str(), line.origin));
    assert_eq!(said("window"), Some(("{ behind = 0, ahead = 0 }", Origin::Line(25))));
    assert_eq!(said("echo"), Some(("true", Origin::Argument)));
    assert_eq!(said("grace"), Some(("12h", Origin::Line(15))));
    assert_eq!(said("enrolment"), Some(("\"optional\" until 2027-01-31, then \"required\"", Origin::Line(26))));
    assert_eq!(said("throttle.user"), Some(("\"!root:5/1h root:3/1d\"", Origin::Line(37))));
    assert_eq!(said("require.groups"), Some(("wheel, !robots", Origin::Line(59))));
    let exempt: Vec<_> = lines.iter().filter(|line| line.key == "exempt").map(|line| line.value.as_str()).collect();
    assert_eq!(
        exempt,
        [
            "users backup from 10.1.0.0/16 at sshd until 2027-06-30: nightly copies, ticket 4711",
            "groups robots from any (shared sources too) at any until 2027-06-30T12:00:00Z: deploys"
        ]
    );
}
