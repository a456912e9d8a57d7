use super::case::Case;
use super::report::Report;

pub(super) fn examine(_case: &Case<'_>, _report: &mut Report) {}
