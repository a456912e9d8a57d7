//! Recovery codes: what somebody types who has no device at hand.

use super::base32;
use crate::secret::Secret;

/// 120 bits, which is what no hash has to protect (OWASP ASVS 6.5.2 asks for 112), and fills 24 letters of base32.
pub const BYTES: usize = 15;
const LETTERS: usize = 24;
/// Letters of a group.
const GROUP: usize = 4;
/// Letters and dashes of a code as it is shown.
const SHOWN: usize = 29;
/// An answer that is longer is none, however it is spaced.
const LONGEST: usize = 48;

/// A recovery code, shown as `ABCD-EFGH-IJKL-MNOP-QRST-UVWX`. Case, blanks and dashes do not matter when it is typed.
pub struct RecoveryCode(Secret<Vec<u8>>);

impl RecoveryCode {
    /// The code of these random bytes.
    pub fn new(bytes: [u8; BYTES]) -> Self {
        Self(Secret::new(bytes.to_vec()))
    }

    /// What somebody typed. `None`: no such code.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let letters = text.iter().filter(|byte| !b" -".contains(byte)).count();
        if text.len() > LONGEST || letters != LETTERS {
            return None;
        }
        base32::decode(text).filter(|bytes| bytes.expose().len() == BYTES).map(Self)
    }

    /// What stands at the end of something else, which may be a word of letters itself: only as it is shown, dashes included.
    pub fn parse_end(text: &[u8]) -> Option<Self> {
        let (_, end) = text.split_at_checked(text.len().checked_sub(SHOWN)?)?;
        let is_shown = |(place, byte): (usize, &u8)| (*byte == b'-') == (place % (GROUP + 1) == GROUP);
        end.iter().enumerate().all(is_shown).then(|| Self::parse(end)).flatten()
    }

    /// How long it is at the end of something else.
    pub const fn shown_length() -> usize {
        SHOWN
    }

    /// As it is shown.
    pub fn text(&self) -> Secret<String> {
        let letters = base32::encode(self.0.expose());
        let mut text = String::with_capacity(SHOWN);
        for (place, letter) in letters.expose().chars().enumerate() {
            if place > 0 && place.is_multiple_of(GROUP) {
                text.push('-');
            }
            text.push(letter);
        }
        Secret::new(text)
    }

    /// What is hashed. The caller answers for where it goes.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_spelled() {
        let code = RecoveryCode::new(*b"0123456789abcde");
        let shown = code.text().expose().clone();
        assert_eq!(shown, "GAYT-EMZU-GU3D-OOBZ-MFRG-GZDF");
        for spelled in [shown.clone(), shown.to_lowercase(), shown.replace('-', ""), shown.replace('-', "  ")] {
            assert_eq!(RecoveryCode::parse(spelled.as_bytes()).unwrap().expose(), code.expose(), "{spelled}");
        }
        for other in ["", "GAYT", &shown[1..], &format!("{shown}A"), &shown.replace('G', "!"), &"A".repeat(65536)] {
            assert!(RecoveryCode::parse(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn at_the_end_of_a_password_only_with_its_dashes() {
        let code = RecoveryCode::new(*b"0123456789abcde");
        let shown = code.text().expose().clone();
        let read = |text: &str| RecoveryCode::parse_end(text.as_bytes()).map(|code| code.expose().to_vec());
        assert_eq!(read(&format!("hunter2{shown}")).as_deref(), Some(code.expose()));
        assert_eq!(read(&shown).as_deref(), Some(code.expose()));
        for none in ["hunter2", "correcthorsebatterystaplecorrect", &shown.replace('-', ""), &shown[1..]] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
