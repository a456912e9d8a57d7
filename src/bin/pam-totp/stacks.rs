//! Which files in /etc/pam.d load the module, and with which arguments.

use std::fs;
use std::path::Path;

const MODULE: &str = "pam_totp.so";

/// A service whose stack loads the module.
pub(crate) struct Stack {
    pub(crate) service: String,
    pub(crate) arguments: Vec<String>,
    file: String,
    line: usize,
}

impl Stack {
    /// `/etc/pam.d/sshd:12`.
    pub(crate) fn place(&self) -> String {
        format!("/etc/pam.d/{}:{}", self.file, self.line)
    }
}

/// All services below a directory, in the order of their names.
pub(crate) fn loading_us(directory: &Path) -> Vec<Stack> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names.iter().filter_map(|service| find(directory, service, service, &mut Vec::new())).collect()
}

/// The first line for `auth` that loads the module, in a file or in what it includes. `seen`: files that were looked at.
fn find(directory: &Path, service: &str, file: &str, seen: &mut Vec<String>) -> Option<Stack> {
    if seen.iter().any(|seen| seen == file) {
        return None;
    }
    seen.push(file.to_owned());
    let path = directory.join(file);
    // A FIFO would keep us waiting.
    let text = path.is_file().then(|| fs::read_to_string(path).ok()).flatten()?;
    for (line, words) in lines(&text) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let found = match words.as_slice() {
            ["@include", included, ..] | ["auth" | "-auth", "include" | "substack", included, ..] => {
                find(directory, service, included, seen)
            }
            ["auth" | "-auth", _, module, arguments @ ..] if module.rsplit('/').next() == Some(MODULE) => Some(Stack {
                service: service.to_owned(),
                arguments: arguments.iter().map(ToString::to_string).collect(),
                file: file.to_owned(),
                line,
            }),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The lines of a pam.d file as words, with their numbers: comments off, `\` at an end joins, and what stands in brackets is
/// one word (pam.conf(5)).
fn lines(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut lines = Vec::new();
    let mut begun: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let (start, mut whole) = begun.take().unwrap_or((number, String::new()));
        match line.strip_suffix('\\') {
            Some(part) => {
                whole.push_str(part);
                whole.push(' ');
                begun = Some((start, whole));
            }
            None => {
                whole.push_str(line);
                lines.push((start, words(&whole)));
            }
        }
    }
    lines
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, tail) = match rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            Some(bracketed) => bracketed,
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = tail.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_found_directly_and_through_what_they_include() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write(
            "sshd",
            "# auth required pam_totp.so\nauth [success=1 default=ignore] /lib/security/pam_totp.so nullok \\\n [authtok_prompt=Code: ] # x\n",
        );
        write("su", "auth sufficient pam_rootok.so\n@include common\n");
        write("common", "auth required pam_totp.so\n");
        write("login", "auth substack common\n");
        write("cron", "account required pam_totp.so\nauth required pam_unix.so\n");
        write("loop", "@include loop\n");
        let stacks = loading_us(directory.path());
        let found: Vec<_> =
            stacks.iter().map(|stack| (stack.service.as_str(), stack.place(), stack.arguments.clone())).collect();
        let place = |file: &str| format!("/etc/pam.d/{file}");
        assert_eq!(
            found,
            [
                ("common", place("common:1"), vec![]),
                ("login", place("common:1"), vec![]),
                ("sshd", place("sshd:2"), vec!["nullok".to_owned(), "authtok_prompt=Code: ".to_owned()]),
                ("su", place("common:1"), vec![]),
            ]
        );
    }
}
