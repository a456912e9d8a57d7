//! Questions to whoever is at the terminal, or writes our standard input.

use pam_totp::secret::Secret;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead, IsTerminal, Write};
use zeroize::Zeroize;

/// Longest line that is taken: PAM_MAX_RESP_SIZE.
const LONGEST: usize = 512;

// Keys, as a terminal sends them.
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACES: [u8; 2] = [0x08, 0x7f];
const KILL: u8 = 0x15;

/// Asks on standard error, and reads a line of standard input; on a terminal what is typed is not shown, unless `echo`.
/// `None`: there is no line, or somebody has interrupted.
pub(crate) fn ask(question: &str, echo: bool) -> io::Result<Option<Secret<Vec<u8>>>> {
    let quiet = if echo || !io::stdin().is_terminal() { None } else { Some(Quiet::new()?) };
    // Only now, or the first characters could be shown.
    write!(io::stderr(), "{question}")?;
    io::stderr().flush()?;
    match quiet {
        Some(quiet) => {
            let line = quiet.line();
            drop(quiet);
            let _ = writeln!(io::stderr());
            line
        }
        None => plain(&mut io::stdin().lock()),
    }
}

/// What a module wants shown, with nothing in it that a terminal would act on but ends of lines.
pub(crate) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().filter(|&c| !c.is_control() || c == '\n' || c == '\t').collect()
}

fn plain(input: &mut impl BufRead) -> io::Result<Option<Secret<Vec<u8>>>> {
    let mut line = Vec::with_capacity(LONGEST);
    let read = input.read_until(b'\n', &mut line)?;
    while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        line.pop();
    }
    Ok((read > 0).then(|| Secret::new(line)))
}

/// The terminal while it shows nothing. It is again as it was with the end of this value.
struct Quiet(Termios);

impl Quiet {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        // Key by key: an interrupt must not leave the terminal mute.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }

    fn line(&self) -> io::Result<Option<Secret<Vec<u8>>>> {
        // Never moved to another place in memory, so that nothing of it is left in the first.
        let mut line = Vec::with_capacity(LONGEST);
        loop {
            let mut key = [0];
            let read = rustix::io::read(io::stdin(), &mut key);
            match (read, key) {
                (Err(rustix::io::Errno::INTR), _) => {}
                (Err(error), _) => {
                    line.zeroize();
                    return Err(error.into());
                }
                (Ok(0), _) | (Ok(_), [INTERRUPT | END]) => {
                    line.zeroize();
                    return Ok(None);
                }
                (Ok(_), [b'\n' | b'\r']) => return Ok(Some(Secret::new(line))),
                (Ok(_), [KILL]) => line.zeroize(),
                (Ok(_), [key]) if BACKSPACES.contains(&key) => drop(line.pop()),
                (Ok(_), [key]) if line.len() < LONGEST => line.push(key),
                (Ok(_), _) => {}
            }
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_stands_before_its_end() {
        let mut input = &b"123456\r\n\npass word"[..];
        let mut next = || plain(&mut input).unwrap().map(|line| line.expose().clone());
        assert_eq!(next().as_deref(), Some(&b"123456"[..]));
        assert_eq!(next().as_deref(), Some(&b""[..]));
        assert_eq!(next().as_deref(), Some(&b"pass word"[..]));
        assert_eq!(next(), None);
    }

    #[test]
    fn what_a_terminal_would_act_on_is_not_shown() {
        assert_eq!(shown(b"a\x1b[31m\x07b\r\n\tc\xc3\xa9\x9b"), "a[31mb\n\tc\u{e9}\u{fffd}");
    }
}
