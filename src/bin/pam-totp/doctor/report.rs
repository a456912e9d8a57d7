//! What doctor has to say: findings, the worst first, and notes.

use serde::Serialize;
use std::fmt::Write;

/// How bad it is; the order is that of the report.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Weight {
    /// Somebody gets in without a code.
    Open,
    /// Somebody who should get in does not.
    Closed,
    /// A guard holds less than it seems to, or will fail.
    Weak,
}

impl Weight {
    fn word(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Closed => "CLOSED",
            Self::Weak => "WEAK",
        }
    }
}

/// Something to put right. All text is for a terminal: what comes from files is escaped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) weight: Weight,
    /// A word for programs, which stays the same.
    pub(crate) name: &'static str,
    /// The PAM service, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    /// What is wrong, as a clause: `a key alone is enough`.
    pub(crate) what: String,
    /// The place in the way that editors understand, `FILE:LINE`, or the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
    /// Why it matters, in a sentence or two.
    pub(crate) why: String,
    /// What to do, as a sentence; one that ends in a colon is about the lines.
    pub(crate) way_out: String,
    /// The exact lines to write, or commands to run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) lines: Vec<String>,
}

/// All that was found.
#[derive(Default, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
    /// What could not be judged, or is good to know; not wrong in itself.
    pub(crate) notes: Vec<String>,
}

impl Report {
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The worst first; otherwise in the order in which they were found.
    pub(crate) fn sort(&mut self) {
        self.findings.sort_by_key(|finding| finding.weight);
    }

    /// Names of services, paths and values come from files: whatever was not escaped where it was said is escaped here.
    pub(crate) fn make_harmless(&mut self) {
        for finding in &mut self.findings {
            let Finding { service, what, place, why, way_out, lines, .. } = finding;
            let texts = [what, why, way_out].into_iter().chain(lines).chain(service).chain(place);
            texts.for_each(|text| *text = harmless(text));
        }
        self.notes.iter_mut().for_each(|note| *note = harmless(note));
    }

    pub(crate) fn in_words(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            finding.put_into(&mut out);
        }
        for note in &self.notes {
            out.push_str("note: ");
            out.push_str(note);
            out.push('\n');
        }
        let end = match self.findings.len() {
            0 => "Nothing to put right.".to_owned(),
            1 => "1 finding.".to_owned(),
            many => format!("{many} findings."),
        };
        out.push_str(&end);
        out.push('\n');
        out
    }
}

/// Text without what moves a cursor or turns the direction of writing. Quotes and backslashes stay.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\'' | '\\' => out.push(char),
            char => out.extend(char.escape_debug()),
        }
    }
    out
}

impl Finding {
    fn put_into(&self, out: &mut String) {
        let Self { weight, service, what, place, why, way_out, lines, .. } = self;
        let service = service.as_ref().map(|service| format!("{service}: ")).unwrap_or_default();
        let place = place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(out, "{:<6}  {service}{what}{place}", weight.word());
        for text in [why, way_out].into_iter().filter(|text| !text.is_empty()) {
            let _ = writeln!(out, "        {text}");
        }
        for line in lines {
            let _ = writeln!(out, "            {line}");
        }
        out.push('\n');
    }
}
