//! What the modules of an auth stack may answer, and which of these paths let somebody in without a code.
//!
//! An interpreter of libpam's dispatcher that follows all answers at once. What counts of a login on its way is little: the
//! result so far ([`Outcome`]) and what our module said ([`Said`]). So each rule is looked at once for each of these states,
//! and each substack once for each state at its beginning, however many paths there are.

use crate::pam_config::control::{Action, Answer};
use crate::pam_config::{Call, Item, OURS, Rule, Stack, Whole};
use std::collections::{HashMap, HashSet};

/// What our module may answer, if it can be loaded: see `pam::sys`. `user_unknown` is what google-authenticator has said in
/// its place, and what stacks are written for.
const OUR_ANSWERS: [Answer; 6] = [
    Answer::SUCCESS,
    Answer::IGNORE,
    Answer::MODULE_UNKNOWN,
    Answer::USER_UNKNOWN,
    Answer::AUTHINFO_UNAVAIL,
    Answer::AUTH_ERR,
];

/// One way in, or the lack of one.
#[derive(Debug)]
pub(crate) struct Finding<'a> {
    pub(crate) kind: Kind,
    /// Only where root asks: without an answer of `pam_rootok` there is no such path.
    pub(crate) only_root: bool,
    /// One such path: who is called, and answers what, in this order. Rules that are passed over are not in it. Others of the
    /// kind are not told.
    pub(crate) path: Vec<Step<'a>>,
}

/// What a path is. Except for the last two each ends in PAM_SUCCESS, with no rule of ours that said yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// No rule of ours is called: `sufficient` before it, or a jump over it; or there is none.
    Skipped,
    /// A code is asked for and found wrong, and that does not count.
    DenialIgnored,
    /// Our module cannot reach its store (`authinfo_unavail`), and that does not count.
    OutageIgnored,
    /// Our module does not know the user, and that does not count.
    UnknownUserIgnored,
    /// The file of our module is missing, as in the middle of an upgrade, and that does not count.
    MissingModuleIgnored,
    /// Our module asks for nothing (`ignore`): nullok, an exemption, a grace. The rest of the stack then says yes. This is
    /// what these are for; without them in force it does not happen.
    NotAsked,
    /// No answers at all let anybody in, or libpam reads nothing of the service.
    NobodyGetsIn,
    /// The stack has no end.
    Endless,
}

/// One call on a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) answer: Answer,
}

/// Whether everybody who gets in has told a module something else than a code: a password, as a rule. A stack may ask for one and
/// let people in without.
pub(crate) fn asks_for_a_password(stack: &Stack) -> bool {
    let ways = Explorer::new(&stack.items, &|rule| answers_about_a_password(rule)).ways_in();
    ways.iter().all(|said| *said == Said::Right)
}

/// All kinds of paths that there are, worst first, one of each.
pub(crate) fn judge(stack: &Stack) -> Vec<Finding<'_>> {
    let nothing = |kind| vec![Finding { kind, only_root: false, path: Vec::new() }];
    match stack.whole {
        Whole::Endless => return nothing(Kind::Endless),
        Whole::Refused => return nothing(Kind::NobodyGetsIn),
        Whole::Read => {}
    }
    let [others, root] =
        [false, true].map(|is_root| Explorer::new(&stack.items, &|rule| answers_about_a_code(rule, is_root)));
    let [ways_of_others, ways] = [&others, &root].map(Explorer::ways_in);
    if ways.is_empty() {
        return nothing(Kind::NobodyGetsIn);
    }
    let kinds = [
        (Said::Nothing, Kind::Skipped),
        (Said::Denied, Kind::DenialIgnored),
        (Said::Unavailable, Kind::OutageIgnored),
        (Said::UserUnknown, Kind::UnknownUserIgnored),
        (Said::Missing, Kind::MissingModuleIgnored),
        (Said::Ignored, Kind::NotAsked),
    ];
    let found = kinds.into_iter().filter_map(|(said, kind)| {
        if ways_of_others.contains(&said) {
            return Some(Finding { kind, only_root: false, path: others.path_to(said) });
        }
        ways.contains(&said).then(|| Finding { kind, only_root: true, path: root.path_to(said) })
    });
    found.collect()
}

/// The result of a (sub)stack so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    /// None yet, which is a failure if it stays so.
    None,
    Success,
    /// What somebody said and the control calls `ok`, but it is no success, and will be none.
    OtherCode,
    Failure,
}

/// What our rules said, the weightiest; the order is that of their weight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Said {
    Nothing,
    Ignored,
    Missing,
    UserUnknown,
    Unavailable,
    Denied,
    /// The code was right: whatever comes, nobody gets in without.
    Right,
}

impl Said {
    fn of(answer: Answer) -> Self {
        match answer {
            Answer::SUCCESS => Self::Right,
            Answer::IGNORE => Self::Ignored,
            Answer::MODULE_UNKNOWN => Self::Missing,
            Answer::USER_UNKNOWN => Self::UserUnknown,
            Answer::AUTHINFO_UNAVAIL => Self::Unavailable,
            _ => Self::Denied,
        }
    }
}

/// All that the rest of a login depends on, but for where it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    result: Outcome,
    said: Said,
}

const BEGINNING: State = State { result: Outcome::None, said: Said::Nothing };

/// Where a login goes on in its (sub)stack.
enum Next {
    /// So many items further on.
    Further(usize),
    /// Behind the end.
    Leave,
}

/// An answer that is worth a look: another one that leads to the same is not.
struct Choice {
    answer: Answer,
    action: Action,
    said: Said,
}

impl Choice {
    /// `beginning`: the result at the beginning of this (sub)stack.
    fn take(&self, state: State, beginning: Outcome) -> (State, Next) {
        let is_open = matches!(state.result, Outcome::None | Outcome::Success);
        let ok = match (is_open, self.answer) {
            (true, Answer::SUCCESS) => Outcome::Success,
            (true, _) => Outcome::OtherCode,
            (false, _) => state.result,
        };
        let (result, next) = match self.action {
            Action::Ignore => (state.result, Next::Further(1)),
            Action::Ok => (ok, Next::Further(1)),
            // After a failure a success ends nothing.
            Action::Done if ok == Outcome::Failure => (ok, Next::Further(1)),
            Action::Done => (ok, Next::Leave),
            Action::Bad | Action::Broken => (Outcome::Failure, Next::Further(1)),
            Action::Die => (Outcome::Failure, Next::Leave),
            Action::Reset => (beginning, Next::Further(1)),
            Action::Jump(over) => {
                (state.result, Next::Further(usize::try_from(over).unwrap_or(usize::MAX).saturating_add(1)))
            }
        };
        (State { result, said: state.said.max(self.said) }, next)
    }
}

/// What is left of an item.
enum Node<'a> {
    Rule(&'a Rule, Vec<Choice>),
    /// With its number.
    Substack(usize, Vec<Node<'a>>),
}

/// How a state at an item was reached.
#[derive(Clone)]
struct Back<'a> {
    from: (usize, State),
    how: How<'a>,
}

#[derive(Clone)]
enum How<'a> {
    Step(Step<'a>),
    /// Through the substack there.
    Substack,
}

/// One pass over a (sub)stack from one state.
#[derive(Default)]
struct Run<'a> {
    /// The states at each item, and how each was reached; nothing for the first.
    reached: Vec<Vec<(State, Option<Back<'a>>)>>,
    /// The states behind the end.
    exits: Vec<(State, Back<'a>)>,
}

struct Explorer<'a> {
    nodes: Vec<Node<'a>>,
    /// What each substack makes of a state.
    exits: HashMap<(usize, State), Vec<State>>,
}

impl<'a> Explorer<'a> {
    fn new(items: &'a [Item], answers: &dyn Fn(&Rule) -> Answers) -> Self {
        let nodes = compile(items, answers, &mut 0);
        let mut exits = HashMap::new();
        learn(&mut exits, &nodes, BEGINNING);
        Self { nodes, exits }
    }

    /// The pass again, now that all substacks are known.
    fn run(&self, nodes: &[Node<'a>], beginning: State) -> Run<'a> {
        pass(nodes, beginning, &mut |number, _, state| self.exits.get(&(number, state)).cloned().unwrap_or_default())
    }

    /// What our rules have said where somebody gets in.
    fn ways_in(&self) -> HashSet<Said> {
        let exits = self.run(&self.nodes, BEGINNING).exits;
        exits.into_iter().filter(|(state, _)| state.result == Outcome::Success).map(|(state, _)| state.said).collect()
    }

    fn path_to(&self, said: Said) -> Vec<Step<'a>> {
        let mut path = Vec::new();
        self.trace(&self.nodes, BEGINNING, State { result: Outcome::Success, said }, &mut path);
        path.reverse();
        path
    }

    /// The steps between two states, last first.
    fn trace(&self, nodes: &[Node<'a>], beginning: State, end: State, path: &mut Vec<Step<'a>>) {
        let run = self.run(nodes, beginning);
        let mut back = run.exits.iter().find(|(state, _)| *state == end).map(|(_, back)| back);
        // What a substack came to.
        let mut after = end;
        while let Some(Back { from: (index, state), how }) = back {
            match (how, nodes.get(*index)) {
                (How::Step(step), _) => path.push(*step),
                (How::Substack, Some(Node::Substack(_, inside))) => self.trace(inside, *state, after, path),
                (How::Substack, _) => {}
            }
            after = *state;
            let here = run.reached.get(*index).into_iter().flatten().find(|(reached, _)| reached == state);
            back = here.and_then(|(_, back)| back.as_ref());
        }
    }
}

/// What a (sub)stack makes of a state; and the same for all substacks in it that are reached.
fn learn(known: &mut HashMap<(usize, State), Vec<State>>, nodes: &[Node<'_>], beginning: State) -> Vec<State> {
    let run = pass(nodes, beginning, &mut |number, inside, state| {
        if let Some(exits) = known.get(&(number, state)) {
            return exits.clone();
        }
        let exits = learn(known, inside, state);
        known.insert((number, state), exits.clone());
        exits
    });
    run.exits.into_iter().map(|(state, _)| state).collect()
}

/// Follows all answers from one state at the beginning of a (sub)stack.
fn pass<'a, 'n>(
    nodes: &'n [Node<'a>],
    beginning: State,
    substack: &mut dyn FnMut(usize, &'n [Node<'a>], State) -> Vec<State>,
) -> Run<'a> {
    let mut run = Run { reached: Vec::new(), exits: Vec::new() };
    run.reached.resize_with(nodes.len().saturating_add(1), Vec::new);
    if let Some(first) = run.reached.first_mut() {
        first.push((beginning, None));
    }
    for (index, node) in nodes.iter().enumerate() {
        // Every way leads on: nothing more comes here.
        let states: Vec<State> = run.reached.get(index).into_iter().flatten().map(|(state, _)| *state).collect();
        for state in states {
            let from = (index, state);
            match node {
                Node::Rule(rule, choices) => {
                    for choice in choices {
                        let (to, next) = choice.take(state, beginning.result);
                        let how = How::Step(Step { rule, answer: choice.answer });
                        run.reach(&from, to, next, how);
                    }
                }
                Node::Substack(number, inside) => {
                    for to in substack(*number, inside, state) {
                        run.reach(&from, to, Next::Further(1), How::Substack);
                    }
                }
            }
        }
    }
    let end = nodes.len();
    for (state, back) in run.reached.get(end).cloned().unwrap_or_default() {
        // Without any item the end is the beginning.
        let back = back.unwrap_or(Back { from: (usize::MAX, state), how: How::Substack });
        run.leave(state, back);
    }
    run
}

impl<'a> Run<'a> {
    fn reach(&mut self, from: &(usize, State), to: State, next: Next, how: How<'a>) {
        let back = Back { from: *from, how };
        let (index, _) = from;
        match next {
            Next::Leave => self.leave(to, back),
            Next::Further(by) => match self.reached.get_mut(index.saturating_add(by)) {
                Some(there) if there.iter().any(|(state, _)| *state == to) => {}
                Some(there) => there.push((to, Some(back))),
                // A jump beyond the end is a failure, at the end.
                None => self.leave(State { result: Outcome::Failure, ..to }, back),
            },
        }
    }

    fn leave(&mut self, state: State, back: Back<'a>) {
        if !self.exits.iter().any(|(known, _)| *known == state) {
            self.exits.push((state, back));
        }
    }
}

/// Puts to each rule the answers that lead somewhere else, and numbers the substacks.
fn compile<'a>(items: &'a [Item], answers: &dyn Fn(&Rule) -> Answers, substacks: &mut usize) -> Vec<Node<'a>> {
    let nodes = items.iter().map(|item| match item {
        Item::Rule(rule) => Node::Rule(rule, choices(rule, answers(rule))),
        Item::Substack(items) => {
            let number = *substacks;
            *substacks = number.saturating_add(1);
            Node::Substack(number, compile(items, answers, substacks))
        }
    });
    nodes.collect()
}

/// What a rule may answer, and whether it is one whose answers are looked for on a path.
struct Answers {
    all: Vec<Answer>,
    count: bool,
}

fn answers_about_a_code(rule: &Rule, is_root: bool) -> Answers {
    Answers { all: answers(rule, is_root), count: rule.is_ours() }
}

/// Of those who ask for a password no more than yes and no: what else they may say is not about who has one.
fn answers_about_a_password(rule: &Rule) -> Answers {
    let asks = rule.call == Call::Module && !is_silent(rule);
    let all = match (rule.is_ours(), asks) {
        (true, _) => vec![Answer::SUCCESS],
        (false, true) => vec![Answer::SUCCESS, Answer::AUTH_ERR],
        (false, false) => answers(rule, false),
    };
    Answers { all, count: asks }
}

/// Modules that ask a person for nothing; ours is not counted.
pub(crate) fn is_silent(rule: &Rule) -> bool {
    const SILENT: [&str; 30] = [
        "access",
        "cap",
        "deny",
        "env",
        "faildelay",
        "faillock",
        "group",
        "keyinit",
        "limits",
        "listfile",
        "localuser",
        "loginuid",
        "mail",
        "motd",
        "namespace",
        "nologin",
        "permit",
        "rootok",
        "securetty",
        "selinux",
        "sepermit",
        "shells",
        "succeed_if",
        "tally2",
        "time",
        "totp",
        "umask",
        "usertype",
        "warn",
        "wheel",
    ];
    let name = rule.module_name();
    let name = name.strip_prefix(b"pam_").and_then(|name| name.strip_suffix(b".so"));
    name.is_some_and(|name| SILENT.iter().any(|silent| silent.as_bytes() == name))
}

fn choices(rule: &Rule, answers: Answers) -> Vec<Choice> {
    let mut seen = HashSet::new();
    let mut choices = Vec::new();
    for answer in answers.all {
        let by_chance = rule.call == Call::Chance && answer == Answer::IGNORE;
        let action = if by_chance { Action::Ignore } else { rule.control.action(answer) };
        let said = if answers.count { Said::of(answer) } else { Said::Nothing };
        if seen.insert((action, said, answer == Answer::SUCCESS)) {
            choices.push(Choice { answer, action, said });
        }
    }
    choices
}

/// What a rule's module may answer to pam_sm_authenticate(3).
fn answers(rule: &Rule, is_root: bool) -> Vec<Answer> {
    match rule.call {
        Call::Module => {}
        Call::Nobody => return vec![Answer::PERM_DENIED],
        Call::Chance => return vec![Answer::PERM_DENIED, Answer::IGNORE],
    }
    let name = rule.module_name();
    if name == OURS.as_bytes() {
        return OUR_ANSWERS.to_vec();
    }
    let has = |argument: &str| rule.arguments.iter().any(|word| word == argument.as_bytes());
    known_answers(name, has, is_root).unwrap_or_else(|| {
        // The likely ones first: they are what a path is told with.
        let likely = [Answer::SUCCESS, Answer::AUTH_ERR, Answer::IGNORE, Answer::USER_UNKNOWN];
        likely.into_iter().chain(Answer::all()).filter(|&answer| answer != Answer::INCOMPLETE).collect()
    })
}

/// The answers of well-known modules, by their manuals, with those of libpam where a module is missing or has no memory. A
/// module that is not here may answer anything.
fn known_answers(name: &[u8], has: impl Fn(&str) -> bool, is_root: bool) -> Option<Vec<Answer>> {
    use Answer as A;
    // Whatever the module: it is missing, has no memory, or finds no configuration or user.
    let failures = [
        A::AUTH_ERR,
        A::MODULE_UNKNOWN,
        A::BUF_ERR,
        A::SERVICE_ERR,
        A::SYSTEM_ERR,
        A::CONV_ERR,
        A::ABORT,
        A::USER_UNKNOWN,
        A::PERM_DENIED,
    ];
    let fails = |more: &[A]| Some(more.iter().copied().chain(failures).collect());
    match name {
        // Is there to say no.
        b"pam_deny.so" => Some(vec![A::AUTH_ERR]),
        // Is there to say yes.
        b"pam_permit.so" => Some(vec![A::SUCCESS]),
        // Says yes to uid 0, whoever it wants to become.
        b"pam_rootok.so" if is_root => fails(&[A::SUCCESS]),
        b"pam_rootok.so" => fails(&[]),
        // Log, set variables or wait; they judge nobody.
        b"pam_warn.so" | b"pam_env.so" | b"pam_faildelay.so" => fails(&[A::IGNORE]),
        // Without `successok` it has no say but no.
        b"pam_nologin.so" if !has("successok") => fails(&[A::IGNORE]),
        // `authfail` only counts; `preauth` and `authsucc` say yes to whoever is not locked out.
        b"pam_faillock.so" if has("authfail") => fails(&[A::IGNORE]),
        b"pam_faillock.so" | b"pam_tally2.so" => fails(&[A::SUCCESS, A::IGNORE]),
        // Say yes or no by who or where somebody is, not by what they know.
        b"pam_succeed_if.so" | b"pam_localuser.so" | b"pam_listfile.so" | b"pam_access.so" | b"pam_wheel.so"
        | b"pam_securetty.so" | b"pam_shells.so" | b"pam_usertype.so" | b"pam_sepermit.so" | b"pam_nologin.so"
        | b"pam_group.so" | b"pam_time.so" => fails(&[A::SUCCESS, A::IGNORE]),
        // Passwords; `ignore` where they have nothing to do with the user.
        b"pam_unix.so"
        | b"pam_sss.so"
        | b"pam_ldap.so"
        | b"pam_krb5.so"
        | b"pam_winbind.so"
        | b"pam_systemd_home.so" => {
            fails(&[A::SUCCESS, A::IGNORE, A::AUTHINFO_UNAVAIL, A::MAXTRIES, A::CRED_INSUFFICIENT, A::NEW_AUTHTOK_REQD])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pam_config::Type;
    use crate::root::Root;
    use std::fs;
    use std::time::{Duration, Instant};

    /// Debian's, as pam-auth-update writes it.
    const COMMON_AUTH: &str = "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\n\
                               auth required pam_permit.so\nauth optional pam_cap.so\n";
    /// `system-auth` as Amazon Linux has it.
    const SYSTEM_AUTH: &str = "auth required pam_env.so\nauth requisite pam_unix.so nullok try_first_pass\n\
                               auth sufficient pam_totp.so\nauth requisite pam_succeed_if.so uid >= 500 quiet\n\
                               auth required pam_deny.so\n";

    fn stack(text: &str) -> Stack {
        let image = tempfile::tempdir().unwrap();
        let directory = image.path().join("etc/pam.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("sshd"), text).unwrap();
        fs::write(directory.join("common-auth"), COMMON_AUTH).unwrap();
        for name in ["common-account", "common-session", "common-session-noninteractive", "common-password"] {
            fs::write(directory.join(name), "").unwrap();
        }
        Stack::read(&Root::open(image.path()).unwrap(), "sshd", Type::Auth)
    }

    /// The kinds, with `root` for those that are root's alone.
    fn kinds(text: &str) -> Vec<String> {
        let stack = stack(text);
        let kinds = judge(&stack)
            .into_iter()
            .map(|finding| format!("{:?}{}", finding.kind, if finding.only_root { " root" } else { "" }));
        kinds.collect()
    }

    /// The path of the first finding: `LINE=ANSWER`.
    fn path(text: &str) -> String {
        let stack = stack(text);
        let findings = judge(&stack);
        let steps = findings[0].path.iter().map(|step| format!("{}={}", step.rule.place.line, step.answer));
        steps.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_stacks_that_we_ship_ask_everybody_but_where_they_say_so() {
        let example = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pam.d-examples").join(name);
            fs::read_to_string(path).unwrap()
        };
        for name in ["sshd-debian", "sshd-rhel", "sudo"] {
            assert_eq!(kinds(&example(name)), ["NotAsked"], "{name}");
        }
        assert_eq!(kinds(&example("su")), ["Skipped root", "NotAsked"], "root becomes anybody");
    }

    #[test]
    fn the_stacks_of_the_tutorials() {
        assert_eq!(kinds("auth required pam_totp.so\nauth required pam_permit.so\n"), ["NotAsked"]);
        assert_eq!(kinds("auth required pam_unix.so\nauth required pam_totp.so\n"), ["NotAsked"]);
        assert_eq!(kinds("auth required pam_totp.so nullok\n"), [] as [&str; 0], "nullok alone lets nobody in");
        assert_eq!(kinds(SYSTEM_AUTH), [] as [&str; 0]);
        assert_eq!(kinds("@include common-auth\nauth required pam_totp.so\n"), ["NotAsked"]);
        assert_eq!(kinds("auth required pam_totp.so\n@include common-auth\n"), ["NotAsked"]);
    }

    #[test]
    fn a_code_that_is_not_asked_for() {
        assert_eq!(kinds("@include common-auth\n"), ["Skipped"]);
        let sufficient = "auth sufficient pam_unix.so\nauth required pam_totp.so\nauth required pam_deny.so\n";
        assert_eq!((kinds(sufficient), path(sufficient)), (vec!["Skipped".to_owned()], "1=success".to_owned()));
        let exempt = "auth [success=1 default=ignore] pam_access.so accessfile=/etc/security/lan.conf\n\
                      auth required pam_totp.so\nauth required pam_permit.so\n";
        assert_eq!((kinds(exempt)[0].as_str(), path(exempt).as_str()), ("Skipped", "1=success 3=success"));
        let right = "auth [success=1 default=ignore] pam_unix.so\nauth requisite pam_deny.so\n\
                     auth required pam_totp.so\nauth required pam_permit.so\n";
        assert_eq!((kinds(right), path(right).as_str()), (vec!["NotAsked".to_owned()], "1=success 3=ignore 4=success"));
        let too_far = right.replace("success=1", "success=2");
        assert_eq!((kinds(&too_far)[0].as_str(), path(&too_far).as_str()), ("Skipped", "1=success 4=success"));
        let in_a_substack = "auth substack common-auth\nauth required pam_totp.so\n";
        assert_eq!(kinds(in_a_substack), ["NotAsked"], "what is sufficient in a substack is not for the rest");
    }

    #[test]
    fn a_code_that_is_asked_for_and_does_not_count() {
        let all = ["DenialIgnored", "OutageIgnored", "UnknownUserIgnored", "MissingModuleIgnored", "NotAsked"];
        assert_eq!(kinds("auth required pam_unix.so\nauth optional pam_totp.so\n"), all);
        assert_eq!(kinds("auth sufficient pam_totp.so\n@include common-auth\n"), all);
        assert_eq!(kinds("auth [success=ok default=ignore] pam_totp.so\nauth required pam_permit.so\n"), all);
        let trap = |value: &str| {
            kinds(&format!("auth [success=ok {value}=ignore default=die] pam_totp.so\nauth required pam_permit.so\n"))
        };
        assert_eq!(trap("authinfo_unavail"), ["OutageIgnored"]);
        assert_eq!(trap("user_unknown"), ["UnknownUserIgnored"]);
        assert_eq!(trap("module_unknown"), ["MissingModuleIgnored"]);
        assert_eq!(trap("ignore"), ["NotAsked"]);
        assert_eq!(trap("auth_err"), ["DenialIgnored"]);
        let forgiven = "auth required pam_totp.so\nauth [default=reset] pam_warn.so\nauth required pam_permit.so\n";
        assert_eq!(
            (kinds(forgiven)[0].as_str(), path(forgiven).as_str()),
            ("DenialIgnored", "1=auth_err 2=ignore 3=success")
        );
    }

    #[test]
    fn what_modules_can_answer_counts() {
        let before = |line: &str| kinds(&format!("auth {line}\nauth requisite pam_totp.so\n"));
        for line in [
            "sufficient pam_env.so",
            "sufficient pam_faillock.so authfail",
            "sufficient pam_nologin.so",
            "optional pam_warn.so",
        ] {
            assert_eq!(before(line), [] as [&str; 0], "{line}");
        }
        assert_eq!(before("sufficient pam_nologin.so successok")[0], "Skipped");
        assert_eq!(before("sufficient pam_rootok.so")[0], "Skipped root");
        assert_eq!(before("sufficient pam_of_somebody.so")[0], "Skipped");
        // It says yes, and so all that says nothing is enough.
        let faillock = "auth required pam_faillock.so preauth\nauth required pam_totp.so\n";
        assert_eq!((kinds(faillock)[0].as_str(), path(faillock).as_str()), ("NotAsked", "1=success 2=ignore"));
    }

    #[test]
    fn a_stack_that_lets_nobody_in_is_told() {
        assert_eq!(kinds("auth required pam_totp.so\nauth required pam_deny.so\n"), ["NobodyGetsIn"]);
        assert_eq!(kinds("auth required pam_totp.so\n@include nothing\n"), ["NobodyGetsIn"]);
        assert_eq!(kinds("account required pam_permit.so\n"), ["NobodyGetsIn"]);
        assert_eq!(
            kinds("auth [success=1 default=die] pam_totp.so\n"),
            ["NobodyGetsIn"],
            "the jump leads beyond the end"
        );
        assert_eq!(kinds(&"auth include sshd\n".repeat(30)), ["Endless"]);
    }

    #[test]
    fn ten_thousand_lines_take_no_time() {
        let line = "auth [success=2 user_unknown=reset auth_err=ok ignore=done default=1] pam_of_somebody.so\n\
                    auth [success=ok authinfo_unavail=1 default=ignore] pam_totp.so\n";
        let last = "auth sufficient pam_of_somebody.so\n";
        let start = Instant::now();
        let stack = stack(&format!("{}{last}", line.repeat(5000)));
        let findings = judge(&stack);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?} without optimisation", start.elapsed());
        assert_eq!((stack.rules().len(), findings.len()), (10_001, 6));
        // Each of 15 substacks within each other is entered in every state.
        let text = |level: u32| format!("{0}auth substack {1}\n{0}{last}", line.repeat(150), level + 1);
        let deep: Vec<String> = (0..15).map(text).collect();
        let image = tempfile::tempdir().unwrap();
        let directory = image.path().join("etc/pam.d");
        fs::create_dir_all(&directory).unwrap();
        for (level, text) in deep.iter().enumerate() {
            fs::write(directory.join(level.to_string()), text).unwrap();
        }
        fs::write(directory.join("15"), line).unwrap();
        let stack = Stack::read(&Root::open(image.path()).unwrap(), "0", Type::Auth);
        let start = Instant::now();
        assert!(judge(&stack).len() == 6 && start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
