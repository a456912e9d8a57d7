//! What the rules of a copied stack say while libpam runs it.

use super::copy::text;
use crate::pam_config::control::Answer;

/// What became of a rule that was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Answer(Answer),
    /// A number that is no code, which libpam takes for a failure.
    NoAnswer,
    /// It has answered, or ended the login, and not said what: its line has no room for that, or it was `incomplete`.
    Nothing,
}

/// A rule that was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Of the rules of the copy.
    pub(crate) number: usize,
    pub(crate) said: Said,
    /// It has asked the person something.
    pub(crate) has_asked: bool,
}

/// The reports of one login, told apart from what modules show.
pub(crate) struct Reports {
    nonce: String,
    /// Called, and has not answered yet.
    called: Option<(usize, bool)>,
    /// What comes next is its answer.
    announced: bool,
    pub(crate) done: Vec<Report>,
}

impl Reports {
    pub(crate) fn new(nonce: &str) -> Self {
        Self { nonce: nonce.to_owned(), called: None, announced: false, done: Vec::new() }
    }

    /// Takes a text that is a report. `false`: it is a module's, for the person.
    pub(crate) fn hear(&mut self, shown: &[u8]) -> bool {
        if std::mem::take(&mut self.announced) {
            let word = shown.strip_prefix(b"auth=").or_else(|| shown.strip_prefix(b"acct="));
            let answer = word.and_then(|word| Answer::all().find(|answer| answer.name().as_bytes() == word));
            if let Some(answer) = answer {
                self.end(Said::Answer(answer));
                return true;
            }
        }
        let Some((what, number)) = self.read(shown) else { return false };
        match what {
            "call" => {
                self.end(Said::Nothing);
                self.called = Some((number, false));
            }
            "none" => self.end(Said::NoAnswer),
            _ => self.announced = true,
        }
        true
    }

    /// Somebody asks the person something: whoever was called.
    pub(crate) fn asked(&mut self) {
        if let Some((_, has_asked)) = &mut self.called {
            *has_asked = true;
        }
    }

    /// The rule that is being called.
    #[allow(dead_code, reason = "the command asks")]
    pub(crate) fn called(&self) -> Option<usize> {
        self.called.map(|(number, _)| number)
    }

    /// libpam has come to the end of a stack.
    pub(crate) fn finish(&mut self) {
        self.end(Said::Nothing);
    }

    fn end(&mut self, said: Said) {
        if let Some((number, has_asked)) = self.called.take() {
            self.done.push(Report { number, said, has_asked });
        }
    }

    fn read(&self, shown: &[u8]) -> Option<(&'static str, usize)> {
        let shown = std::str::from_utf8(shown).ok()?;
        let number = shown.rsplit(':').next()?.parse().ok()?;
        ["call", "answer", "none"].into_iter().map(|what| (what, number)).find(|(what, _)| {
            let expected = text(&self.nonce, what, number);
            shown == expected
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(texts: &[&str]) -> (Vec<Report>, Vec<String>) {
        let mut reports = Reports::new("abc");
        let shown = texts.iter().filter(|text| !reports.hear(text.as_bytes())).map(|text| (*text).to_owned());
        let shown = shown.collect();
        reports.finish();
        (reports.done, shown)
    }

    const fn report(number: usize, said: Said) -> Report {
        Report { number, said, has_asked: false }
    }

    #[test]
    fn a_report_is_a_call_and_an_answer() {
        let texts =
            ["@abc:call:0", "hello", "@abc:answer:0", "auth=success", "@abc:call:7", "@abc:none:7", "@abc:call:8"];
        let (done, shown) = heard(&texts);
        let success = Said::Answer(Answer::SUCCESS);
        assert_eq!(done, [report(0, success), report(7, Said::NoAnswer), report(8, Said::Nothing)]);
        assert_eq!(shown, ["hello"]);
    }

    #[test]
    fn what_a_module_shows_is_no_report() {
        let texts = ["@abc:call:0", "auth=success", "@xyz:answer:0", "auth=success", "@abc:answer:x", "@abc:answer:0"];
        let texts = [&texts[..], &["auth=auth_err", "auth=success"]].concat();
        let (done, shown) = heard(&texts);
        assert_eq!(done, [report(0, Said::Answer(Answer::AUTH_ERR))]);
        assert_eq!(shown, ["auth=success", "@xyz:answer:0", "auth=success", "@abc:answer:x", "auth=success"]);
    }

    #[test]
    fn whoever_is_called_is_who_asks() {
        let mut reports = Reports::new("abc");
        reports.asked();
        reports.hear(b"@abc:call:3");
        reports.asked();
        assert_eq!(reports.called(), Some(3));
        reports.finish();
        assert_eq!(reports.done, [Report { number: 3, said: Said::Nothing, has_asked: true }]);
    }
}
