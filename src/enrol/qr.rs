//! A QR code (ISO/IEC 18004) as text that a phone reads from a terminal.

use qrcode::{Color, EcLevel, QrCode};

/// How a code is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    /// Two rows in one, with half blocks (UTF-8).
    HalfBlocks,
    /// `##` a module.
    Ascii,
}

/// Which modules are drawn. The others are left blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    /// The light ones: right where letters are lighter than what they stand on.
    Light,
    /// The dark ones.
    Dark,
}

/// The modules of a code. They say what was encoded, and are not wiped: the crate has no way to.
pub struct Code(QrCode);

impl Code {
    /// The smallest code that holds the text. `None`: there is none.
    pub fn new(text: &str) -> Option<Self> {
        QrCode::with_error_correction_level(text, EcLevel::L).ok().map(Self)
    }

    /// Columns of a drawing, with so many modules of light around the code.
    pub fn columns(&self, drawing: Drawing, quiet: usize) -> usize {
        let modules = self.span(quiet).len();
        match drawing {
            Drawing::HalfBlocks => modules,
            Drawing::Ascii => modules.saturating_mul(2),
        }
    }

    /// The lines of a drawing, with so many modules of light around the code (the standard asks for four).
    pub fn lines(&self, drawing: Drawing, drawn: Drawn, quiet: usize) -> Vec<String> {
        let is_drawn = |row, column| self.is_light(row, column) == (drawn == Drawn::Light);
        let span = self.span(quiet);
        let line = |row: isize| match drawing {
            Drawing::HalfBlocks => span
                .clone()
                .map(|column| match (is_drawn(row, column), is_drawn(row.saturating_add(1), column)) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                })
                .collect(),
            Drawing::Ascii => span.clone().map(|column| if is_drawn(row, column) { "##" } else { "  " }).collect(),
        };
        let rows = match drawing {
            Drawing::HalfBlocks => 2,
            Drawing::Ascii => 1,
        };
        span.clone().step_by(rows).map(line).collect()
    }

    /// Modules of a side.
    pub fn width(&self) -> usize {
        self.0.width()
    }

    /// Rows (and columns) with the quiet zone, which has negative numbers and those past the code's width.
    fn span(&self, quiet: usize) -> std::ops::Range<isize> {
        let quiet = quiet.cast_signed();
        quiet.saturating_neg()..self.width().cast_signed().saturating_add(quiet)
    }

    /// Whether a module is light. So are all around the code.
    pub fn is_light(&self, row: isize, column: isize) -> bool {
        let inside = 0..self.width().cast_signed();
        match (inside.contains(&row), inside.contains(&column)) {
            (true, true) => self.0[(column.cast_unsigned(), row.cast_unsigned())] == Color::Light,
            _ => true,
        }
    }
}
