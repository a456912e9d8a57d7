//! The manual pages and the completions leave nothing out, and nothing in them is made up.

use crate::support::{dist, need, output_of, project};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

type Names = BTreeSet<String>;

/// Flags of each command (`device add`), from what `--help` says of it.
fn commands() -> BTreeMap<String, Names> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![Vec::<String>::new()];
    while let Some(command) = waiting.pop() {
        let help = output_of(Command::new(dist("pam-totp")).args(&command).arg("--help"));
        let below: Vec<_> = section(&help, "Commands:").map(|line| first_word(line).to_owned()).collect();
        if below.is_empty() {
            found.insert(command.join(" "), flags(&help));
        }
        waiting
            .extend(below.into_iter().filter(|name| name != "help").map(|name| [command.clone(), vec![name]].concat()));
    }
    assert!(found.len() > 15 && found["enrol"].len() > 40, "does this test still read --help? {found:#?}");
    found
}

/// The lines below a heading that name something: two blanks, and no more.
fn section<'a>(help: &'a str, heading: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = help.lines().skip_while(move |line| *line != heading).skip(1).take_while(|line| !line.is_empty());
    lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "))
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap()
}

/// `-x` and `--word` where they are defined.
fn flags(help: &str) -> Names {
    let lines = help.lines().filter(|line| line.trim_start().starts_with('-'));
    let words =
        lines.flat_map(|line| line.split("  ").find(|part| !part.is_empty()).unwrap_or("").split([' ', ',', '=']));
    let is_flag = |word: &&str| word.len() > 1 && word.starts_with('-');
    words.filter(is_flag).map(|word| word.trim_end_matches("...").to_owned()).collect()
}

/// The program's page as it is written, and the text of each command in it.
fn page() -> BTreeMap<String, String> {
    let page = fs::read_to_string(dist("pam-totp.1")).unwrap().replace("\\-", "-");
    let commands = page.split("\n.SH ").find(|section| section.starts_with("COMMANDS")).unwrap();
    let sections = commands.split("\n.SS \"pam-totp ").skip(1).map(|section| section.split_once("\"\n").unwrap());
    sections.map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

/// Flags that begin an entry of a list.
fn flags_of_page(text: &str) -> Names {
    let entries = text.split("\n.TP\n").skip(1).map(|entry| entry.lines().next().unwrap());
    let bold = entries.flat_map(|line| line.split("\\fB").skip(1).map(|word| word.split("\\fR").next().unwrap()));
    bold.filter(|word| word.starts_with('-')).map(str::to_owned).collect()
}

#[test]
fn the_page_of_the_program_has_every_flag_of_every_command_and_no_other() {
    let page = page();
    let commands = commands();
    assert_eq!(page.keys().collect::<Vec<_>>(), commands.keys().collect::<Vec<_>>());
    for (name, flags) in &commands {
        assert_eq!(&flags_of_page(&page[name]), flags, "pam-totp {name}");
    }
}

/// What bash offers after these words.
fn offered_by_bash(words: &[&str]) -> Names {
    let script = "set -e; source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))
                  _pam__totp \"$1\" \"${@: -1}\" \"${@: -2:1}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", script, "bash"]).arg(dist("completion/bash")).arg("pam-totp").args(words);
    output_of(&mut command).lines().map(str::to_owned).collect()
}

/// What the script for fish has for a command.
fn offered_by_fish(script: &str, command: &str) -> Names {
    let words: Vec<_> = command.split(' ').collect();
    let condition = words.iter().map(|word| format!("__fish_seen_subcommand_from {word}")).collect::<Vec<_>>();
    let first = format!("__fish_pam_totp_using_subcommand {}", words[0]);
    let mine = script.lines().filter(|line| {
        line.contains(&format!("\"{first}\"")) && words.len() == 1
            || words.len() == 2 && line.contains(&first) && line.contains(&format!("; and {}", condition[1]))
    });
    let mut found = Names::new();
    for line in mine {
        let mut words = line.split(' ').peekable();
        while let Some(word) = words.next() {
            match (word, words.peek()) {
                ("-s", Some(short)) => found.insert(format!("-{short}")),
                ("-l", Some(long)) => found.insert(format!("--{long}")),
                _ => continue,
            };
        }
    }
    found
}

/// What the script for zsh has for a command: in the branch of its name, up to the end of its arguments.
fn offered_by_zsh(script: &str, command: &str) -> Names {
    let (mut cases, mut path, mut mine) = (0, Vec::<&str>::new(), Vec::new());
    for line in script.lines().map(str::trim_start) {
        match line {
            _ if line.starts_with("case ") => cases += 1,
            "esac" => cases -= 1,
            // A level is two cases: one of the state, and one of the word.
            _ if line.starts_with('(') && line.ends_with(')') && cases % 2 == 0 => {
                path.truncate(cases / 2 - 1);
                path.push(&line[1..line.len() - 1]);
            }
            _ if path.join(" ") == command => mine.push(line),
            _ => {}
        }
    }
    let lines = mine.iter().filter_map(|line| {
        // `'-a+[…]`, `'(-a --all)-b[…]`, `'*--service=[…]`
        let line = line.trim_start_matches('\'');
        let others = line.strip_prefix('(').and_then(|line| line.split_once(')'));
        others.map_or(line, |(_, line)| line).trim_start_matches('*').strip_prefix('-')
    });
    let ends = ['[', '+', '=', ' ', '\''];
    lines.map(|line| format!("-{}", line.split(ends).next().unwrap())).collect()
}

#[test]
fn every_shell_completes_every_flag_of_every_command() {
    need("bash", "bash");
    let [fish, zsh] = ["fish", "zsh"].map(|shell| fs::read_to_string(dist(&format!("completion/{shell}"))).unwrap());
    for (name, flags) in &commands() {
        let words: Vec<_> = name.split(' ').chain(["-"]).collect();
        assert_eq!(&offered_by_bash(&words), flags, "bash: pam-totp {name}");
        assert_eq!(&offered_by_fish(&fish, name), flags, "fish: pam-totp {name}");
        assert_eq!(&offered_by_zsh(&zsh, name), flags, "zsh: pam-totp {name}");
    }
    assert_eq!(offered_by_bash(&["thr"]), Names::from(["throttle".to_owned()]));
}

#[test]
fn what_is_installed_is_what_the_program_prints() {
    for (file, format) in
        [("pam-totp.1", "man"), ("completion/bash", "bash"), ("completion/zsh", "zsh"), ("completion/fish", "fish")]
    {
        let printed = output_of(Command::new(dist("pam-totp")).args(["completion", format]));
        assert!(fs::read_to_string(dist(file)).unwrap() == printed, "{file} is an old one: run `make build`");
    }
}

fn written(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap()
}

/// The names that begin entries of lists in a page, by their macro; of one section, or of all.
fn entries(page: &str, macro_name: &str) -> Names {
    let lines = page.lines().filter_map(|line| line.strip_prefix(".It "));
    let words = lines.flat_map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let pairs: Vec<_> =
            words.windows(2).filter(|pair| pair[0] == macro_name).map(|pair| pair[1].to_owned()).collect();
        pairs
    });
    words.collect()
}

#[test]
fn the_page_of_the_module_has_every_argument_and_no_other() {
    let source = written("src/options.rs");
    let (_, apply) = source.split_once("fn apply(").unwrap();
    let (apply, _) = apply.split_once("BadArgument::Unknown").unwrap();
    let known: Names = apply.split("b\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    assert!(known.len() > 15, "does this test still read the source? {known:?}");
    assert_eq!(entries(&written("docs/man/pam_totp.8"), "Cm"), known);
}

#[test]
fn the_page_of_the_module_and_the_readme_have_the_same_reasons() {
    let readme = written("README.md");
    let (_, table) = readme.split_once("| reason | what happened").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    let mut known: Names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect();
    // Below the table, as they are no denials.
    let unavailable = [
        "no-store",
        "no-agent",
        "agent-of-another",
        "agent-of-other-version",
        "agent-makes-no-sense",
        "no-fleet",
        "fleet-busy",
        "etcd-unreachable",
        "etcd-refused",
        "etcd-nospace",
        "bad-etcd-answer",
        "another-cluster",
    ];
    known.extend(unavailable.map(str::to_owned));
    assert!(unavailable.iter().all(|reason| readme.contains(&format!("`{reason}`")) || *reason == "no-store"));
    assert!(known.len() > 40, "{known:?}");
    assert_eq!(entries(&written("docs/man/pam_totp.8"), "Sy"), known);
}

#[test]
fn the_page_of_the_agent_has_every_flag_and_no_other() {
    let help = output_of(Command::new(dist("pam-totp-agent")).arg("--help"));
    let page = written("docs/man/pam-totp-agent.8");
    let lines = page.lines().filter_map(|line| line.strip_prefix(".It Fl Fl "));
    let long: Names = lines.map(|line| format!("--{}", line.split(' ').next().unwrap())).collect();
    assert_eq!(long, flags(&help));
    let synopsis = page.split("\n.Sh ").find(|section| section.starts_with("SYNOPSIS")).unwrap();
    assert!(long.iter().all(|flag| synopsis.contains(&format!("Fl Fl {}", &flag[2..]))), "{synopsis}");
    let version = output_of(Command::new(dist("pam-totp-agent")).arg("--version"));
    assert!(version.starts_with("pam-totp-agent "), "{version}");
    let wrong = Command::new(dist("pam-totp-agent")).arg("--nonsense").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

/// The fields of a struct of the policy file.
fn fields(path: &str, name: &str) -> Names {
    let source = written(path);
    let (_, rest) = source.split_once(&format!("struct {name} {{\n")).unwrap_or_else(|| panic!("no {name} in {path}"));
    let (body, _) = rest.split_once("\n}").unwrap();
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with('#'));
    let names = lines.filter_map(|line| line.split_once(": ")).map(|(name, _)| name.rsplit(' ').next().unwrap());
    names.map(|name| name.trim_start_matches('_').to_owned()).collect()
}

#[test]
fn the_page_of_the_policy_has_every_key_in_its_place_and_no_other() {
    let page = written("docs/man/pam_totp.toml.5");
    let section = |title: &str| {
        let (_, text) = page.split_once(&format!("\n.Ss {title}\n")).unwrap_or_else(|| panic!("no {title}"));
        entries(text.split("\n.S").next().unwrap(), "Ic")
    };
    let union = |sets: &[Names]| sets.iter().flatten().cloned().collect::<Names>();
    let file = "src/policy/file.rs";
    assert_eq!(section("The top of the file"), fields(file, "PolicyFile"));
    let mut table =
        union(&[fields(file, "Table"), fields(file, "CertIdentity"), fields("src/policy/values.rs", "WindowTable")]);
    table.remove("compat"); // A section of its own.
    assert_eq!(section("[defaults] and [service.NAME]"), table);
    assert_eq!(section("[compat] and [service.NAME.compat]"), fields(file, "Compat"));
    assert_eq!(section("[throttle]"), fields("src/policy/throttle.rs", "Throttle"));
    assert_eq!(section("[[exempt]]"), fields("src/policy/exempt.rs", "Written"));
    assert_eq!(section("[[trusted_caller]]"), fields("src/policy/callers.rs", "Written"));
    assert_eq!(section("[require]"), fields("src/policy/exempt.rs", "WrittenRequire"));
}

#[test]
fn the_page_of_the_fleets_file_has_every_key_and_no_other() {
    let page = written("docs/man/pam_totp.fleet.toml.5");
    let (_, keys) = page.split_once("\n.Ss The keys\n").unwrap();
    assert_eq!(entries(keys.split("\n.S").next().unwrap(), "Ic"), fields("src/fleet/conf.rs", "Written"));
    let (_, example) = page.split_once(".Sh EXAMPLES\n.Bd -literal -offset indent\n").unwrap();
    let example = example.split_once(".Ed").unwrap().0;
    let conf = pam_totp::fleet::conf::Conf::parse(example.as_bytes(), "node").unwrap();
    assert_eq!((conf.endpoints.len(), conf.prefix.as_str(), conf.host.as_str()), (3, "/pam_totp/", "bastion1"));
    // The words of what goes wrong with the fleet, as they are in the source, are all explained.
    let reasons = entries(&written("docs/man/pam_totp.8"), "Sy");
    for file in
        ["src/store/fleet/mod.rs", "src/store/fleet/transaction.rs", "src/fleet/etcd.rs", "src/fleet/etcd/refusal.rs"]
    {
        let source = written(file);
        let words = source.split("Fact::new(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let unknown: Vec<_> = words.filter(|word| !reasons.contains(*word) && *word != "fleet-mark").collect();
        assert_eq!(unknown, [""; 0], "{file}");
    }
}

#[test]
fn the_example_of_the_policy_is_a_policy() {
    let page = written("docs/man/pam_totp.toml.5");
    let (_, example) = page.split_once(".Sh EXAMPLES\n.Bd -literal -offset indent\n").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), example.split_once(".Ed").unwrap().0).unwrap();
    let said = output_of(Command::new(dist("pam-totp")).arg("check").arg(file.path()).args(["--service", "sshd"]));
    assert!(said.contains("enrolment"), "{said}");
}

#[test]
fn the_pages_are_well_formed() {
    need("mandoc", "mandoc");
    let written = ["pam_totp.toml.5", "pam_totp.fleet.toml.5", "pam_totp.8", "pam-totp-agent.8"];
    let pages = written.map(|name| project().join("docs/man").join(name)).into_iter().chain([dist("pam-totp.1")]);
    let output = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(pages).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}
