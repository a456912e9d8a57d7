//! How far a command has got, on a terminal.

use std::io::{self, IsTerminal, Write};

/// Columns of the bar alone.
const BAR: usize = 20;
/// Columns of a terminal that does not know how many it has.
const COLUMNS: usize = 80;

/// One line on standard error, drawn over and over; none where that is no terminal.
pub(crate) struct Progress {
    total: usize,
    /// How wide the terminal is.
    columns: Option<usize>,
}

impl Progress {
    pub(crate) fn new(total: usize, quiet: bool) -> Self {
        let columns = || match rustix::termios::tcgetwinsize(io::stderr()) {
            Ok(size) if size.ws_col > 0 => size.ws_col.into(),
            _ => COLUMNS,
        };
        Self { total, columns: (!quiet && io::stderr().is_terminal()).then(columns) }
    }

    /// So many are done, and this one is next. It has nothing in it that a terminal would act on.
    pub(crate) fn show(&self, done: usize, next: &str) {
        if let Some(columns) = self.columns {
            let _ = write!(io::stderr(), "\r{}\x1b[K", line(done, self.total, next, columns));
        }
    }

    /// Takes the line away, for others to be written.
    pub(crate) fn clear(&self) {
        if self.columns.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// As much of it as fits: a line that wraps cannot be drawn over.
fn line(done: usize, total: usize, next: &str, columns: usize) -> String {
    let filled = done.saturating_mul(BAR).checked_div(total).unwrap_or(BAR).min(BAR);
    let line = format!("[{:BAR$}] {done}/{total} {next}", "#".repeat(filled));
    line.chars().take(columns.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_the_terminal() {
        assert_eq!(line(0, 3, "alice", 80), "[                    ] 0/3 alice");
        assert_eq!(line(2, 3, "bob", 80), "[#############       ] 2/3 bob");
        assert_eq!(line(3, 3, "", 80), "[####################] 3/3 ");
        assert_eq!(line(3, 3, &"x".repeat(300), 40).chars().count(), 39);
        assert_eq!((line(0, 0, "", 1), line(1, 1, "", 0)), (String::new(), String::new()));
    }
}
