//! Whoever is at the terminal, as the application that asks.

use pam_totp::authenticate::{Application, NoAnswer};
use pam_totp::secret::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// As in the module: PAM_MAX_RESP_SIZE.
const MAX_ANSWER: usize = 512;

/// Why nobody is asked again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// There is none to ask on.
    NoTerminal,
    TooLate,
    /// The end of the input, or the key that ends programs.
    GaveUp,
}

pub(super) struct Terminal {
    /// The terminal of this session, whatever the standard streams are.
    file: Option<File>,
    /// As it was: with us no key stops what is shown, or we would wait for ever to say that it is too late.
    before: Option<Termios>,
    deadline: Option<Instant>,
    end: Option<End>,
}

impl Terminal {
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
        let flags = flags.bits().cast_signed();
        let file = File::options().read(true).write(true).custom_flags(flags).open("/dev/tty").ok();
        let before = file.as_ref().and_then(|file| {
            let before = tcgetattr(file).ok()?;
            let mut flowing = before.clone();
            flowing.input_modes.remove(InputModes::IXON);
            tcsetattr(file, OptionalActions::Now, &flowing).ok()?;
            Some(before)
        });
        Self { file, before, deadline, end: None }
    }

    /// Why nobody is asked again, if that is so.
    pub(super) const fn end(&self) -> Option<End> {
        self.end
    }

    /// Shows a text. Where that fails, the next question does too.
    pub(super) fn show(&self, text: &[u8]) {
        let _ = self.file.as_ref().map(|mut file| file.write_all(text));
    }

    fn answer(&self, prompt: &[u8], echo: bool) -> Result<Option<Secret<Vec<u8>>>, End> {
        let mut file = self.file.as_ref().ok_or(End::NoTerminal)?;
        let asking = Asking::begin(file, echo).map_err(|_| End::GaveUp)?;
        file.write_all(prompt).map_err(|_| End::GaveUp)?;
        let line = self.line(file);
        let _ = if echo { Ok(()) } else { file.write_all(b"\n") };
        drop(asking);
        line
    }

    /// A line, when it is there. `None`: it is longer than any answer may be.
    fn line(&self, mut file: &File) -> Result<Option<Secret<Vec<u8>>>, End> {
        self.wait(file)?;
        let mut line = Zeroizing::new([0; MAX_ANSWER + 1]);
        let length = file.read(line.as_mut_slice()).map_err(|_| End::GaveUp)?;
        match line.get(..length).and_then(<[u8]>::split_last) {
            Some((b'\n', line)) => Ok(Some(Secret::new(line.to_vec()))),
            Some(_) if length > MAX_ANSWER => Ok(None),
            // What was not ended by Enter is no answer.
            _ => Err(End::GaveUp),
        }
    }

    /// Waits until there is a line.
    fn wait(&self, file: &File) -> Result<(), End> {
        loop {
            let left = self.deadline.map(|end| end.saturating_duration_since(Instant::now())).unwrap_or_default();
            match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timespec(left))) {
                Ok(0) => return Err(End::TooLate),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(End::GaveUp),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let (Some(file), Some(before)) = (&self.file, &self.before) {
            let _ = tcsetattr(file, OptionalActions::Now, before);
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    let tv_sec = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: duration.subsec_nanos().into() }
}

impl Application for Terminal {
    fn ask(&mut self, prompt: &[u8], echo: bool) -> Result<Secret<Vec<u8>>, NoAnswer> {
        match self.answer(prompt, echo) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(NoAnswer::TooLong),
            Err(end) => {
                self.end = Some(end);
                Err(NoAnswer::Missing)
            }
        }
    }

    fn tell(&mut self, text: &Secret<String>) -> Result<(), NoAnswer> {
        let shown = self.file.as_ref().map(|mut file| file.write_all(text.expose().as_bytes()));
        match shown {
            Some(Ok(())) => {
                self.show(b"\n");
                Ok(())
            }
            _ => {
                self.end = Some(End::NoTerminal);
                Err(NoAnswer::Missing)
            }
        }
    }

    fn first_pass(&self) -> Option<Secret<Vec<u8>>> {
        None
    }

    fn forward(&mut self, _password: &Secret<Vec<u8>>) -> bool {
        false
    }
}

/// A terminal on which no key ends, stops or dumps us: what they send ends the line, so that it is an answer that is none.
struct Asking<'a> {
    file: &'a File,
    before: Termios,
}

impl<'a> Asking<'a> {
    fn begin(file: &'a File, echo: bool) -> io::Result<Self> {
        let before = tcgetattr(file)?;
        let mut now = before.clone();
        now.local_modes.insert(LocalModes::ICANON | LocalModes::IEXTEN);
        now.local_modes.remove(LocalModes::ISIG);
        now.local_modes.set(LocalModes::ECHO, echo);
        for (end, key) in
            [(SpecialCodeIndex::VEOL, SpecialCodeIndex::VINTR), (SpecialCodeIndex::VEOL2, SpecialCodeIndex::VQUIT)]
        {
            now.special_codes[end] = now.special_codes[key];
        }
        // What was typed before the question is no answer to it.
        tcsetattr(file, OptionalActions::Flush, &now)?;
        Ok(Self { file, before })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        // What was typed behind the answer is for what comes next.
        let _ = tcsetattr(self.file, OptionalActions::Now, &self.before);
    }
}
