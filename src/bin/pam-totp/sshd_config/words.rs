//! How sshd takes a line apart.

/// What sshd takes for blank inside a line.
const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// The next word, as sshd reads keywords and the criteria of Match: up to a blank or one `=`; what is in double quotes, and
/// what stands before them, is one word. `None` at the end, and at a quote that is never closed.
pub(super) fn next(text: &mut Option<&str>) -> Option<String> {
    let whole = text.take()?;
    let Some((before, delimiter, after)) = split_at_delimiter(whole) else { return Some(whole.to_owned()) };
    if delimiter == '"' {
        let (quoted, after) = after.split_once('"')?;
        *text = Some(after.trim_start_matches(BLANK));
        return Some(format!("{before}{quoted}"));
    }
    let after = after.trim_start_matches(BLANK);
    *text = match after.strip_prefix('=') {
        Some(after) if delimiter != '=' => Some(after.trim_start_matches(BLANK)),
        _ => Some(after),
    };
    Some(before.to_owned())
}

fn split_at_delimiter(text: &str) -> Option<(&str, char, &str)> {
    let (at, delimiter) = text.char_indices().find(|(_, char)| BLANK.contains(char) || matches!(char, '"' | '='))?;
    let (before, from) = text.split_at(at);
    Some((before, delimiter, from.strip_prefix(delimiter)?))
}

/// The arguments after a keyword: words with either kind of quotes and with `\`, up to a `#` at the start of a word. `None`
/// if a quote is never closed.
pub(super) fn arguments(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|char| matches!(char, ' ' | '\t')).is_some() {}
        if rest.peek().is_none_or(|char| *char == '#') {
            return Some(words);
        }
        let mut word = String::new();
        let mut quote = None;
        while let Some(char) = rest.next_if(|char| quote.is_some() || !matches!(char, ' ' | '\t')) {
            match char {
                '\\' => {
                    let escaped =
                        rest.next_if(|next| matches!(next, '\'' | '"' | '\\') || (quote.is_none() && *next == ' '));
                    word.push(escaped.unwrap_or('\\'));
                }
                '"' | '\'' if quote.is_none() => quote = Some(char),
                _ if quote == Some(char) => quote = None,
                _ => word.push(char),
            }
        }
        if quote.is_some() {
            return None;
        }
        words.push(word);
    }
}

/// A line without the blanks around it. A form feed counts at the end only.
pub(super) fn trimmed(line: &str) -> &str {
    line.trim_start_matches([' ', '\t', '\r']).trim_end_matches([' ', '\t', '\r', '\n', '\u{c}'])
}

/// A number of seconds, as sshd reads them: `120`, `2m`, `1h30m`.
pub(super) fn seconds(text: &str) -> Option<u32> {
    let mut total: u32 = 0;
    let mut rest = text;
    while !rest.is_empty() || text.is_empty() {
        let end = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(end)?;
        let mut tail = tail.chars();
        let unit: u32 = match tail.next().map(|unit| unit.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            Some(_) => return None,
        };
        total = total.checked_add(number.parse::<u32>().ok()?.checked_mul(unit)?)?;
        rest = tail.as_str();
    }
    i32::try_from(total).is_ok().then_some(total)
}
