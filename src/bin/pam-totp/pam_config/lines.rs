//! The lines of a PAM file and their words, as libpam 1.5.2 sees them.
//!
//! Later ones know no longest line; what is too long for 1.5.2 is told, and read as 1.5.2 reads it.

/// libpam's buffer for one line and what continues it, with its NUL.
const BUFFER: usize = 1024;
const BLANKS: &[u8] = b" \n\t";

/// One line that is neither blank nor a comment, with what continues it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it begins, from 1.
    pub(crate) number: u32,
    pub(crate) text: Vec<u8>,
}

/// All lines of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<Line>,
    /// Lines that do not fit in libpam's buffer: what comes behind is a line of its own to it, also behind a comment.
    pub(crate) too_long: Vec<u32>,
    /// The line at which libpam gives up: one that goes on at the end of the file, or that goes on and does not fit.
    pub(crate) cut: Option<u32>,
}

impl Lines {
    /// Reads as fgets(3) does, a piece at a time.
    pub(crate) fn of(text: &[u8]) -> Self {
        let mut lines = Self::default();
        let mut pieces = Pieces { text, number: 1 };
        let mut begun: Option<Line> = None;
        loop {
            let room = BUFFER.saturating_sub(begun.as_ref().map_or(0, |line| line.text.len()));
            // With one byte left 1.5.2 reads nothing, for ever.
            let piece = if room > 1 { pieces.next(room.saturating_sub(1)) } else { None };
            let Some(Piece { number, text, is_whole }) = piece else {
                lines.cut = begun.map(|line| line.number);
                return lines;
            };
            if !is_whole {
                lines.too_long.push(number);
            }
            let start = text.iter().position(|byte| !BLANKS.contains(byte)).unwrap_or(text.len());
            let (_, content) = text.split_at(start);
            // Between a line and what continues it there may be comments.
            if content.is_empty() || content.starts_with(b"#") {
                continue;
            }
            let mut line = begun.take().unwrap_or(Line { number, text: Vec::new() });
            let (kept, goes_on) = match content.iter().position(|&byte| byte == b'#') {
                Some(comment) => (content.get(..comment).unwrap_or_default(), false),
                None => match trim_end(content).strip_suffix(b"\\") {
                    Some(kept) => (kept, true),
                    None => (content, false),
                },
            };
            // Blanks in front count in the buffer.
            line.text.extend_from_slice(text.get(..start).unwrap_or_default());
            line.text.extend_from_slice(kept);
            if goes_on {
                line.text.push(b' ');
                begun = Some(line);
            } else {
                lines.lines.push(line);
            }
        }
    }
}

fn trim_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !BLANKS.contains(byte)).map_or(0, |last| last.saturating_add(1));
    text.get(..end).unwrap_or_default()
}

/// What is left of a file.
struct Pieces<'a> {
    text: &'a [u8],
    number: u32,
}

/// What one fgets(3) gives.
struct Piece<'a> {
    number: u32,
    text: &'a [u8],
    /// Nothing of the line is left.
    is_whole: bool,
}

impl<'a> Pieces<'a> {
    fn next(&mut self, most: usize) -> Option<Piece<'a>> {
        if self.text.is_empty() {
            return None;
        }
        let line =
            self.text.iter().position(|&byte| byte == b'\n').map_or(self.text.len(), |end| end.saturating_add(1));
        let (piece, rest) = self.text.split_at(line.min(most));
        let number = self.number;
        self.text = rest;
        if piece.ends_with(b"\n") {
            self.number = number.saturating_add(1);
        }
        // A C string ends at its first NUL.
        let text = piece.split(|&byte| byte == 0).next().unwrap_or_default();
        // With the line's end alone left over, nothing is lost.
        let is_whole = line <= most || (line == most.saturating_add(1) && rest.starts_with(b"\n"));
        Some(Piece { number, text, is_whole })
    }
}

/// The words of a line: between blanks, or in brackets, which are taken off.
pub(crate) struct Words<'a>(pub(crate) &'a [u8]);

impl Iterator for Words<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let start = self.0.iter().position(|byte| !BLANKS.contains(byte))?;
        let (_, text) = self.0.split_at(start);
        let Some(inside) = text.strip_prefix(b"[") else {
            let end = text.iter().position(|byte| BLANKS.contains(byte)).unwrap_or(text.len());
            let (word, rest) = text.split_at(end);
            self.0 = rest;
            return Some(word.to_vec());
        };
        let mut word = Vec::new();
        let mut rest = inside;
        loop {
            rest = match rest {
                [b'\\', b']', rest @ ..] => {
                    word.push(b']');
                    rest
                }
                [b']', rest @ ..] | rest @ [] => {
                    self.0 = rest;
                    return Some(word);
                }
                [byte, rest @ ..] => {
                    word.push(*byte);
                    rest
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(u32, String)> {
        let lines = Lines::of(text.as_bytes());
        assert_eq!((lines.cut, lines.too_long), (None, vec![]), "{text:?}");
        lines.lines.into_iter().map(|line| (line.number, String::from_utf8(line.text).unwrap())).collect()
    }

    fn words(text: &str) -> Vec<String> {
        Words(text.as_bytes()).map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn comments_and_blank_lines_are_none_and_a_backslash_joins() {
        let text = "# a\n\n \tb c # d\ne \\\n# not me\n\nf\\  \ng#\\\nh";
        assert_eq!(
            lines(text),
            [(3, " \tb c ".to_owned()), (4, "e  f g".to_owned()), (9, "h".to_owned())],
            "the comment in between is skipped, and a backslash in a comment joins nothing"
        );
    }

    #[test]
    fn a_carriage_return_is_part_of_a_word_and_a_nul_ends_a_line() {
        assert_eq!(lines("a b\r\n\r\nc \\\r\n"), [(1, "a b\r\n".into()), (2, "\r\n".into()), (3, "c \\\r\n".into())]);
        assert_eq!(lines("a\0b\n\0c\nd"), [(1, "a".to_owned()), (3, "d".to_owned())]);
    }

    #[test]
    fn a_line_that_goes_on_at_the_end_cuts_the_file() {
        let cut = Lines::of(b"a\nb\\\nc \\\n# d\n");
        assert_eq!((cut.lines.len(), cut.cut), (1, Some(2)));
        assert_eq!(Lines::of(b"\\").cut, Some(1));
    }

    #[test]
    fn a_long_line_is_more_than_one() {
        let of = |length: usize| Lines::of(format!("{}\nnext\n", "x".repeat(length)).as_bytes());
        assert_eq!((of(1022).lines.len(), of(1022).too_long), (2, vec![]));
        assert_eq!((of(1023).lines.len(), of(1023).too_long), (2, vec![]));
        assert_eq!((of(1024).lines.len(), of(1024).too_long), (3, vec![1]));
        let comment = Lines::of(format!("#{} y\n", "x".repeat(1022)).as_bytes());
        assert_eq!((comment.lines, comment.too_long), (vec![Line { number: 1, text: b" y\n".to_vec() }], vec![1]));
        let on = |length: usize| Lines::of(format!("{}\\\nnext\n", "x".repeat(length)).as_bytes());
        assert_eq!(on(1022).cut, Some(1), "no room is left for what continues it");
        assert_eq!((on(1021).lines.len(), on(1021).too_long, on(1021).cut), (2, vec![2], None), "room for one byte");
        assert_eq!((on(900).lines.len(), on(900).cut), (1, None));
    }

    #[test]
    fn words_stand_between_blanks_or_in_brackets() {
        assert_eq!(words(" auth\t[a=b  c=d] x.so\n"), ["auth", "a=b  c=d", "x.so"]);
        assert_eq!(words("[auth]required a[b] [c\\]d[e] [f"), ["auth", "required", "a[b]", "c]d[e", "f"]);
        assert_eq!(words("[] x"), ["", "x"]);
        assert_eq!(words(" \t\n"), [] as [&str; 0]);
    }
}
