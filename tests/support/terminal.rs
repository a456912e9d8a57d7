//! A terminal with a program on it, and somebody who reads what it shows and types.

use super::need;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A program on a terminal of its own. It ends with its input.
pub struct Terminal {
    script: Child,
    screen: ChildStdout,
    keyboard: ChildStdin,
}

impl Terminal {
    /// Runs a command there, in a locale.
    pub fn run(command: &Command, locale: &str) -> Self {
        need("script", "bsdutils");
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let mut script = Command::new("timeout")
            .args(["60", "script", "-q", "-e", "-f", "-c", &words.join(" "), "/dev/null"])
            .env("LC_ALL", locale)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (screen, keyboard) = (script.stdout.take().unwrap(), script.stdin.take().unwrap());
        Self { script, screen, keyboard }
    }

    /// What is shown up to the end of this text.
    pub fn until(&mut self, end: &str) -> String {
        let mut shown = Vec::new();
        while !shown.ends_with(end.as_bytes()) {
            let mut byte = [0];
            let more = self.screen.read(&mut byte).unwrap();
            assert_eq!(more, 1, "it ended: {}", String::from_utf8_lossy(&shown));
            shown.push(byte[0]);
        }
        String::from_utf8(shown).unwrap()
    }

    /// Types a line.
    pub fn enter(&mut self, line: &str) {
        writeln!(self.keyboard, "{line}").unwrap();
    }

    /// Presses these keys.
    pub fn press(&mut self, keys: &str) {
        write!(self.keyboard, "{keys}").unwrap();
    }

    /// What is shown from here on to its end, and whether it succeeded.
    pub fn finish(self) -> (String, bool) {
        let (shown, status) = self.status();
        (shown, status == Some(0))
    }

    /// What is shown from here on to its end, and how it ended.
    pub fn status(mut self) -> (String, Option<i32>) {
        let mut shown = String::new();
        self.screen.read_to_string(&mut shown).unwrap();
        drop(self.keyboard);
        (shown, self.script.wait().unwrap().code())
    }
}
