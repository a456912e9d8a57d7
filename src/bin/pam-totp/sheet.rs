//! What is printed and handed to somebody who is not there while they are enrolled: an SVG for paper, and the same as text.

use pam_totp::enrol::qr::{Code, Drawing, Drawn};
use pam_totp::secret::Secret;
use std::fmt::Write;

/// Modules of light around a code (ISO/IEC 18004 section 9.1).
const QUIET_ZONE: usize = 4;
/// Groups of four letters in a line of a secret.
const GROUPS: usize = 8;

// A4, in millimetres. A letter of a monospaced font is 0.6 of its size wide.
const PAGE: (usize, usize) = (210, 297);
const MARGIN: usize = 18;
const CODE: usize = 80;
const FONT: usize = 4;
const LINE: usize = 6;
/// Letters in a line.
const COLUMNS: usize = 72;

/// Room for a sheet, so that no half-grown copy is left behind unwiped.
const ROOM: usize = 1 << 17;

/// What is on it.
pub(crate) struct Sheet<'a> {
    /// Whose it is.
    pub(crate) user: &'a str,
    /// Where the codes are asked for.
    pub(crate) host: &'a str,
    /// What codes the device shows, in words.
    pub(crate) kind: &'a str,
    /// In base32.
    pub(crate) secret: &'a Secret<String>,
    pub(crate) uri: &'a Secret<String>,
    /// The URI as a QR code.
    pub(crate) code: &'a Code,
    /// What the codes for the day without the app are called.
    pub(crate) spares_name: &'static str,
    pub(crate) spares: &'a [Secret<String>],
}

impl Sheet<'_> {
    /// For a printer: black on white. An app that scans it from a dark terminal has to know inverted codes.
    pub(crate) fn text(&self) -> Secret<Vec<u8>> {
        let mut text = String::with_capacity(ROOM);
        let code = Secret::new(self.code.lines(Drawing::HalfBlocks, Drawn::Dark, QUIET_ZONE));
        let body = self.body();
        let title = self.title();
        for line in [&title, ""].into_iter().chain(code.expose().iter().chain(body.expose()).map(String::as_str)) {
            text.push_str(line);
            text.push('\n');
        }
        Secret::new(text.into_bytes())
    }

    /// One page, or a longer one where a name or a secret is very long. The URI is whole in the description: elsewhere it is
    /// broken into lines.
    pub(crate) fn svg(&self) -> Secret<Vec<u8>> {
        let (body, title) = (self.body(), self.title());
        let above = MARGIN.saturating_add(LINE.saturating_mul(wrapped(&title).len()));
        let below = above.saturating_add(CODE).saturating_add(LINE);
        let lines = || body.expose().iter().flat_map(|line| wrapped(line));
        let height = below.saturating_add(LINE.saturating_mul(lines().count())).saturating_add(MARGIN).max(PAGE.1);
        let width = PAGE.0;
        let mut svg = String::with_capacity(ROOM);
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}mm\" height=\"{height}mm\" viewBox=\"0 0 {width} {height}\">\n<title>"
        );
        push_xml(&mut svg, &title);
        svg.push_str("</title>\n<desc>");
        push_xml(&mut svg, self.uri.expose());
        let _ = write!(svg, "</desc>\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n");
        let modules = self.code.width().saturating_add(QUIET_ZONE.saturating_mul(2));
        let _ = writeln!(
            svg,
            "<svg x=\"{MARGIN}\" y=\"{above}\" width=\"{CODE}\" height=\"{CODE}\" viewBox=\"-{QUIET_ZONE} -{QUIET_ZONE} {modules} {modules}\"><path shape-rendering=\"crispEdges\" d=\"{}\"/></svg>",
            path(self.code).expose()
        );
        let _ = writeln!(svg, "<g font-family=\"monospace\" font-size=\"{FONT}\" xml:space=\"preserve\">");
        let mut y = MARGIN;
        for line in wrapped(&title) {
            push_line(&mut svg, y, line);
            y = y.saturating_add(LINE);
        }
        y = below;
        for line in lines() {
            push_line(&mut svg, y, line);
            y = y.saturating_add(LINE);
        }
        svg.push_str("</g>\n</svg>\n");
        Secret::new(svg.into_bytes())
    }

    fn title(&self) -> String {
        format!("One-time codes for {} on {}", plain(self.user), plain(self.host))
    }

    fn body(&self) -> Secret<Vec<String>> {
        let mut lines = vec!["Secret, to type where the code cannot be scanned:".to_owned()];
        lines.extend(groups(self.secret.expose()).expose().iter().map(|line| format!("  {line}")));
        lines.extend([format!("  {}", plain(self.kind)), String::new(), "URI:".to_owned()]);
        lines.extend([self.uri.expose().clone(), String::new()]);
        if !self.spares.is_empty() {
            lines.push(format!("{}, for when the app is not at hand. Each works once:", self.spares_name));
            lines.extend(self.spares.iter().map(|code| format!("  {}", code.expose())));
            lines.push(String::new());
        }
        lines.push("1. Scan the code with an authenticator app, or type the secret into it.".to_owned());
        lines.push("2. When you log in and are asked for a code, type the one that it shows.".to_owned());
        lines.push(match self.spares.is_empty() {
            true => "3. Then destroy this sheet: whoever reads it can make your codes.".to_owned(),
            false => {
                format!("3. Copy the {} to where only you look; destroy this sheet.", self.spares_name.to_lowercase())
            }
        });
        Secret::new(lines)
    }
}

/// What stands before a secret in a URI.
const BEFORE: &[u8] = b"?secret=";

/// Whether a file is a sheet, of either kind.
pub(crate) fn is_sheet(text: &[u8]) -> bool {
    text.windows(BEFORE.len()).any(|window| window == BEFORE)
}

/// Whether a sheet, of either kind, is about this secret.
pub(crate) fn is_of(sheet: &[u8], secret: &Secret<String>) -> bool {
    let wanted = secret.expose().as_bytes();
    sheet.windows(BEFORE.len()).enumerate().any(|(at, window)| {
        let behind = sheet.get(at.saturating_add(BEFORE.len())..).unwrap_or_default();
        let end = behind.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(behind.len());
        window == BEFORE && behind.get(..end) == Some(wanted)
    })
}

/// Letters in groups of four, some groups a line.
fn groups(secret: &str) -> Secret<Vec<String>> {
    // Base32 is ASCII.
    let parts = |text: &[u8], size: usize| -> Vec<String> {
        text.chunks(size).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    };
    let lines = Secret::new(parts(secret.as_bytes(), 4 * GROUPS));
    let spaced = |line: &String| Secret::new(parts(line.as_bytes(), 4)).expose().join(" ");
    Secret::new(lines.expose().iter().map(spaced).collect())
}

/// Lines that fit on the page.
fn wrapped(line: &str) -> Vec<&str> {
    let starts: Vec<usize> = line.char_indices().step_by(COLUMNS).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([line.len()]);
    let parts: Vec<&str> = starts.iter().zip(ends).filter_map(|(start, end)| line.get(*start..end)).collect();
    if parts.is_empty() { vec![""] } else { parts }
}

/// The dark modules, runs of them along each row.
fn path(code: &Code) -> Secret<String> {
    let width = code.width().cast_signed();
    let mut path = String::with_capacity(ROOM);
    for row in 0..width {
        let mut start = None;
        // The one behind the last is light.
        for column in 0..=width {
            match (code.is_light(row, column), start) {
                (false, None) => start = Some(column),
                (true, Some(first)) => {
                    let length = column.saturating_sub(first);
                    let _ = write!(path, "M{first} {row}h{length}v1h-{length}z");
                    start = None;
                }
                _ => {}
            }
        }
    }
    Secret::new(path)
}

fn push_line(svg: &mut String, y: usize, line: &str) {
    if !line.is_empty() {
        let _ = write!(svg, "<text x=\"{MARGIN}\" y=\"{y}\">");
        push_xml(svg, line);
        svg.push_str("</text>\n");
    }
}

/// What a terminal would act on, or XML does not know, is shown as a letter that nobody knows.
fn plain(text: &str) -> String {
    let is_odd = |letter: char| letter.is_control() || matches!(letter, '\u{FFFE}' | '\u{FFFF}');
    text.chars().map(|letter| if is_odd(letter) { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

/// XML 1.0 section 2.4.
fn push_xml(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            letter => out.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text and the SVG for somebody with this name, without and with recovery codes.
    fn sheet(user: &str, spares: &[&str]) -> (String, String) {
        let secret = Secret::new("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ".to_owned());
        let uri = Secret::new(format!("otpauth://totp/host:x@host?secret={}&issuer=host", secret.expose()));
        let spares: Vec<_> = spares.iter().map(|code| Secret::new((*code).to_owned())).collect();
        let code = Code::new(uri.expose()).unwrap();
        let sheet = Sheet {
            user,
            host: "host",
            kind: "6 digits every 30 seconds (SHA1)",
            secret: &secret,
            uri: &uri,
            code: &code,
            spares_name: "Recovery codes",
            spares: &spares,
        };
        assert!(is_of(sheet.text().expose(), &secret) && is_of(sheet.svg().expose(), &secret));
        let text = |bytes: Secret<Vec<u8>>| String::from_utf8(bytes.expose().clone()).unwrap();
        (text(sheet.text()), text(sheet.svg()))
    }

    #[test]
    fn both_sheets_say_the_same() {
        let (text, svg) = sheet("alice", &["aaaa-bbbb", "cccc-dddd"]);
        for words in [
            "One-time codes for alice on host",
            "  GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ",
            "  6 digits every 30 seconds (SHA1)",
            "Recovery codes, for when the app is not at hand. Each works once:",
            "  aaaa-bbbb",
            "  cccc-dddd",
            "3. Copy the recovery codes to where only you look; destroy this sheet.",
        ] {
            assert!(text.contains(&format!("{words}\n")), "{words}: {text}");
            assert!(svg.contains(&format!(">{words}</text>")), "{words}: {svg}");
        }
        assert!(text.contains("QOJQ&issuer=host\n") && svg.contains("QOJQ&amp;issuer=host</desc>"));
        let (text, _) = sheet("alice", &[]);
        assert!(!text.contains("Recovery") && text.contains("3. Then destroy this sheet"), "{text}");
    }

    #[test]
    fn no_name_is_markup_or_moves_the_cursor() {
        let (text, svg) = sheet("<a&\"'\x1b[2J\u{FFFE}>Müller", &[]);
        let odd = "\u{FFFD}[2J\u{FFFD}";
        assert!(text.starts_with(&format!("One-time codes for <a&\"'{odd}>Müller on host\n")), "{text}");
        assert!(
            svg.contains(&format!("<title>One-time codes for &lt;a&amp;&quot;&apos;{odd}&gt;Müller on host</title>"))
        );
        assert!(svg.bytes().all(|byte| byte == b'\n' || byte >= b' '));
    }

    #[test]
    fn a_long_line_is_broken_and_none_of_it_is_lost() {
        let long = "ä".repeat(COLUMNS * 2 + 1);
        assert_eq!(wrapped(&long).iter().map(|part| part.chars().count()).collect::<Vec<_>>(), [COLUMNS, COLUMNS, 1]);
        assert_eq!(wrapped(&long).concat(), long);
        assert_eq!((wrapped(""), wrapped("a")), (vec![""], vec!["a"]));
        let (_, svg) = sheet(&"x".repeat(COLUMNS * 40), &[]);
        let height: usize = svg.split_once("height=\"").unwrap().1.split_once("mm").unwrap().0.parse().unwrap();
        let lowest =
            svg.match_indices(" y=\"").map(|(at, _)| svg[at + 4..].split_once('"').unwrap().0.parse().unwrap());
        assert!(height > PAGE.1 && lowest.max().unwrap_or(usize::MAX) < height);
    }

    #[test]
    fn the_path_has_the_dark_modules_and_no_others() {
        let code = Code::new("otpauth://totp/x?secret=GEZDGNBV").unwrap();
        let mut dark = vec![vec![false; code.width()]; code.width()];
        for run in path(&code).expose().split('z').filter(|run| !run.is_empty()) {
            let (start, rest) = run.strip_prefix('M').unwrap().split_once('h').unwrap();
            let (column, row) = start.split_once(' ').unwrap();
            let (length, back) = rest.split_once("v1h-").unwrap();
            assert_eq!(length, back);
            let (column, length): (usize, usize) = (column.parse().unwrap(), length.parse().unwrap());
            dark[row.parse::<usize>().unwrap()][column..column + length].fill(true);
        }
        for (row, modules) in dark.iter().enumerate() {
            for (column, is_dark) in modules.iter().enumerate() {
                assert_eq!(*is_dark, !code.is_light(row.cast_signed(), column.cast_signed()), "{row} {column}");
            }
        }
    }

    #[test]
    fn a_sheet_is_of_one_secret_to_its_last_letter() {
        let is_of = |sheet: &str, secret: &str| is_of(sheet.as_bytes(), &Secret::new(secret.to_owned()));
        assert!(is_of("a?secret=ABCD&amp;x", "ABCD") && is_of("x?secret=ABCD", "ABCD"));
        for sheet in ["", "?secret=", "?secret=ABC", "?secret=ABCDE", "secret=ABCD", "ABCD"] {
            assert!(!is_of(sheet, "ABCD"), "{sheet}");
        }
    }
}
