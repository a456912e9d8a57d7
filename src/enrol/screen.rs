//! What somebody sees who gets a device inside a login. Plain text: escape sequences would be shown as such by ssh, and what
//! the terminal at its other end can do is not to be seen from here.

use super::NewDevice;
use super::qr::{Code, Drawing, Drawn};
use crate::otp::RecoveryCode;
use crate::secret::Secret;
use zeroize::Zeroize;

/// Columns of a terminal that nobody has made larger.
const COLUMNS: usize = 80;

/// What there is to see.
pub struct Screen<'a> {
    /// The account.
    pub account: &'a str,
    /// Several people share it: it is this key's device.
    pub is_of_key: bool,
    /// This host.
    pub host: &'a str,
    /// The device.
    pub new: &'a NewDevice,
    /// What stands in for it.
    pub recovery: &'a [RecoveryCode],
    /// `None`: no QR code.
    pub drawing: Option<Drawing>,
    /// Until when one can do without. `None`: not at all.
    pub optional_until: Option<&'a str>,
}

/// Who has no device where.
pub fn absence(account: &str, host: &str, is_of_key: bool) -> String {
    let with_this_key = if is_of_key { "With this key " } else { "" };
    format!("{with_this_key}{account} has no device at {host} yet")
}

impl Screen<'_> {
    /// The text. It begins with an empty line, as ssh puts `(user@host)` before the first.
    pub fn text(&self) -> Secret<String> {
        let (account, host) = (self.account, self.host);
        let uri = self.new.uri(host, &format!("{account}@{host}"));
        let (code, secret) = (self.code(&uri), self.new.secret());
        let recovery: Vec<Secret<String>> = self.recovery.iter().map(RecoveryCode::text).collect();
        let absence = absence(account, host, self.is_of_key);
        let mut parts = vec!["\n", &absence, "."];
        match &code {
            Some(code) => parts.extend([" Scan this with an authenticator app:\n\n", code.expose()]),
            None => parts.push("\n"),
        }
        parts.extend(["\nSecret, to type into the app instead: ", secret.expose(), "\nURI: ", uri.expose(), "\n"]);
        if !recovery.is_empty() {
            parts.push("\nRecovery codes, for the day when the app is not at hand. Each works once:\n");
            recovery.iter().for_each(|code| parts.extend(["  ", code.expose(), "\n"]));
        }
        parts.push("\nKeep these. Then type the code that the app shows now");
        if let Some(until) = self.optional_until {
            parts.extend([",\nor press Enter to do without until ", until]);
        }
        parts.push(".\n");
        Secret::new(parts.concat())
    }

    /// The code, where it fits on a terminal.
    fn code(&self, uri: &Secret<String>) -> Option<Secret<String>> {
        let drawing = self.drawing?;
        // Scanners do with less light around a code than the standard's four.
        let quiet = match drawing {
            Drawing::HalfBlocks => 2,
            Drawing::Ascii => 1,
        };
        let code = Code::new(uri.expose()).filter(|code| code.columns(drawing, quiet) <= COLUMNS)?;
        let mut lines = code.lines(drawing, Drawn::Light, quiet);
        let mut text = String::with_capacity(lines.iter().map(|line| line.len().saturating_add(1)).sum());
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        lines.zeroize();
        Some(Secret::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::{Codes, recovery_codes};

    fn text(account: &str, host: &str, drawing: Option<Drawing>, until: Option<&str>) -> String {
        let (new, recovery) = (NewDevice::new(Codes::default(), 0).unwrap(), recovery_codes(5).unwrap());
        let is_of_key = false;
        let screen =
            Screen { account, is_of_key, host, new: &new, recovery: &recovery, drawing, optional_until: until };
        let text = screen.text().expose().clone();
        assert!(text.contains(new.secret().expose().as_str()));
        assert!(recovery.iter().all(|code| text.contains(code.text().expose().as_str())));
        text
    }

    #[test]
    fn every_line_but_the_uri_fits_on_a_terminal_and_nothing_in_it_is_an_escape() {
        for drawing in [None, Some(Drawing::Ascii), Some(Drawing::HalfBlocks)] {
            for (account, host) in [("alice", "bastion"), ("a", "b"), ("ec2-user", "ip-10-0-1")] {
                let text = text(account, host, drawing, Some("2027-01-31"));
                assert!(text.starts_with('\n') && !text.contains('\x1b') && text.contains("2027-01-31"));
                for line in text.lines().filter(|line| !line.starts_with("URI: ")) {
                    assert!(line.chars().count() <= COLUMNS, "{line:?}");
                }
                assert_eq!(text.contains("Scan this"), drawing.is_some(), "{text}");
                assert_eq!(text.contains('█'), drawing == Some(Drawing::HalfBlocks));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let host = "a-host-with-a-name-of-that-length";
        assert!(!text("alice", host, Some(Drawing::Ascii), None).contains("##"));
        assert!(text("alice", host, Some(Drawing::HalfBlocks), None).contains('█'));
    }
}
