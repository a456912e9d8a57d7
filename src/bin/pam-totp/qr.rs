//! How a QR code is drawn on the terminal of whoever runs this.

use pam_totp::enrol::qr::{Code, Drawing, Drawn};
use std::env;

/// Modules of light around a code (ISO/IEC 18004 asks for four).
const QUIET_ZONE: usize = 4;
/// Two columns a module make ASCII codes wide; scanners do with less light around them.
const ASCII_QUIET_ZONE: usize = 1;

/// White on black whatever the terminal's own colours are, black on white, and back.
const WHITE_ON_BLACK: &str = "\x1b[40;97m";
const BLACK_ON_WHITE: &str = "\x1b[107;30m";
const GREY: &str = "\x1b[40;37m";
const BACK: &str = "\x1b[0m";

/// A drawing and its colours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    drawing: Drawing,
    drawn: Drawn,
    /// What switches colours on, if anything does.
    colours: Option<&'static str>,
}

impl Style {
    /// Colours on a terminal, half blocks where the locale can show them.
    pub(crate) fn for_terminal(is_terminal: bool) -> Self {
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| env::var(name).ok().filter(|v| !v.is_empty()));
        let utf8 = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        let drawing = if utf8 { Drawing::HalfBlocks } else { Drawing::Ascii };
        Self { drawing, drawn: Drawn::Light, colours: is_terminal.then_some(WHITE_ON_BLACK) }
    }

    /// Right on a dark terminal, and with colours on any.
    pub(crate) fn text(self, code: &Code) -> String {
        let (on, off) = self.colours.map_or(("", ""), |on| (on, BACK));
        let quiet = match self.drawing {
            Drawing::HalfBlocks => QUIET_ZONE,
            Drawing::Ascii => ASCII_QUIET_ZONE,
        };
        code.lines(self.drawing, self.drawn, quiet).iter().map(|line| format!("{on}{line}{off}\n")).collect()
    }
}

/// `--qr-mode`, by the names of google-authenticator.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Mode {
    /// No QR code.
    None,
    /// Blanks on coloured ground.
    Ansi,
    /// The same for terminals that are light.
    #[value(alias = "ANSI-INVERSE")]
    AnsiInverse,
    /// In grey.
    #[value(alias = "ANSI-GREY")]
    AnsiGrey,
    /// Half blocks.
    Utf8,
    /// The same for terminals that are light.
    #[value(alias = "UTF8-INVERSE")]
    Utf8Inverse,
    /// In grey.
    #[value(alias = "UTF8-GREY")]
    Utf8Grey,
}

impl Mode {
    /// `None`: draw nothing.
    pub(crate) const fn style(self) -> Option<Style> {
        let (drawing, drawn, colours) = match self {
            Self::None => return None,
            Self::Ansi => (Drawing::Ascii, Drawn::Light, WHITE_ON_BLACK),
            Self::AnsiInverse => (Drawing::Ascii, Drawn::Dark, BLACK_ON_WHITE),
            Self::AnsiGrey => (Drawing::Ascii, Drawn::Light, GREY),
            Self::Utf8 => (Drawing::HalfBlocks, Drawn::Light, WHITE_ON_BLACK),
            Self::Utf8Inverse => (Drawing::HalfBlocks, Drawn::Dark, BLACK_ON_WHITE),
            Self::Utf8Grey => (Drawing::HalfBlocks, Drawn::Light, GREY),
        };
        Some(Style { drawing, drawn, colours: Some(colours) })
    }
}
