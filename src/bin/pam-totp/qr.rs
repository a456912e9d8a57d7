//! A QR code as text that a phone reads from a terminal.

use anyhow::Result;
use qrcode::{Color, EcLevel, QrCode};
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

/// How a code is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// Two rows in one, with half blocks; otherwise `##` a module.
    pub(crate) blocks: bool,
    /// Dark modules are drawn, and light ones left blank.
    pub(crate) inverse: bool,
    /// What switches colours on, if anything does.
    pub(crate) colours: Option<&'static str>,
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
        Self { blocks: utf8, inverse: false, colours: is_terminal.then_some(WHITE_ON_BLACK) }
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
        let (blocks, inverse, colours) = match self {
            Self::None => return None,
            Self::Ansi => (false, false, WHITE_ON_BLACK),
            Self::AnsiInverse => (false, true, BLACK_ON_WHITE),
            Self::AnsiGrey => (false, false, GREY),
            Self::Utf8 => (true, false, WHITE_ON_BLACK),
            Self::Utf8Inverse => (true, true, BLACK_ON_WHITE),
            Self::Utf8Grey => (true, false, GREY),
        };
        Some(Style { blocks, inverse, colours: Some(colours) })
    }
}

/// The modules of a code.
pub(crate) struct Code(QrCode);

impl Code {
    /// The smallest code that holds the text.
    pub(crate) fn new(text: &str) -> Result<Self> {
        Ok(Self(QrCode::with_error_correction_level(text, EcLevel::L)?))
    }

    /// Light modules are drawn, dark ones left blank: right on a dark terminal, and with colours on any.
    pub(crate) fn text(&self, style: Style) -> String {
        let (on, off) = style.colours.map_or(("", ""), |on| (on, BACK));
        let lines = if style.blocks { self.in_half_blocks(style.inverse) } else { self.in_ascii(style.inverse) };
        lines.map(|line| format!("{on}{line}{off}\n")).collect()
    }

    fn in_half_blocks(&self, inverse: bool) -> Box<dyn Iterator<Item = String> + '_> {
        let span = self.span(QUIET_ZONE);
        Box::new(span.clone().step_by(2).map(move |row| {
            span.clone()
                .map(|column| {
                    match (
                        self.is_light(row, column) != inverse,
                        self.is_light(row.saturating_add(1), column) != inverse,
                    ) {
                        (true, true) => '█',
                        (true, false) => '▀',
                        (false, true) => '▄',
                        (false, false) => ' ',
                    }
                })
                .collect()
        }))
    }

    fn in_ascii(&self, inverse: bool) -> Box<dyn Iterator<Item = String> + '_> {
        let span = self.span(ASCII_QUIET_ZONE);
        Box::new(span.clone().map(move |row| {
            span.clone().map(|column| if self.is_light(row, column) != inverse { "##" } else { "  " }).collect()
        }))
    }

    /// Rows (and columns) with the quiet zone, which has negative numbers and those past the code's width.
    fn span(&self, quiet: usize) -> std::ops::Range<isize> {
        let quiet = quiet.cast_signed();
        quiet.saturating_neg()..self.0.width().cast_signed().saturating_add(quiet)
    }

    fn is_light(&self, row: isize, column: isize) -> bool {
        let inside = 0..self.0.width().cast_signed();
        match (inside.contains(&row), inside.contains(&column)) {
            (true, true) => self.0[(column.cast_unsigned(), row.cast_unsigned())] == Color::Light,
            _ => true,
        }
    }
}
