//! Build checks: warnings about files that build, but perhaps not as meant.
//!
//! A rule can be skipped for the file (`# check=skip=…` at the top), for one instruction (the same in the
//! comment above it), or for the build (`BUILDKIT_DOCKERFILE_CHECK`). Names, texts and addresses are the
//! reference's; rules of our own are marked by [`Rule::is_own`].

mod config;
mod file;
pub(crate) mod rules;

use std::cell::{Cell, RefCell};

pub use config::LintConfig;
pub(crate) use file::{
    check_casing, check_default_arguments, check_definition_description, check_from_keywords,
    check_stage_names,
};
pub use rules::{IDENTICAL_LAYERS_ACROSS_PLATFORMS, RULES, Rule};

use crate::Lines;
use crate::problem::Problem;

/// One warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintWarning {
    pub rule: &'static Rule,
    /// What was found.
    pub detail: String,
    pub lines: Lines,
}

impl LintWarning {
    /// Returns the warning on one line, as it is printed while a build runs.
    pub fn short(&self) -> String {
        format!("{}: {} (line {})", self.rule.name, self.detail, self.lines.start)
    }
}

/// Collects warnings that are not skipped.
#[derive(Debug, Default)]
pub(crate) struct Linter {
    pub(crate) config: LintConfig,
    warnings: RefCell<Vec<LintWarning>>,
    /// A mistake was found: what comes after it in the file may only be a consequence.
    closed: Cell<bool>,
}

impl Linter {
    pub(crate) fn new(config: LintConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Takes no more warnings.
    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    /// Reports a finding in an instruction that has `comments` above it.
    pub(crate) fn report(
        &self,
        rule: &'static Rule,
        comments: &[String],
        lines: Lines,
        detail: impl Into<String>,
    ) {
        if !self.closed.get()
            && self.config.allows(rule)
            && config::comments_allow(comments, rule, &self.config)
        {
            self.warnings.borrow_mut().push(LintWarning { rule, detail: detail.into(), lines });
        }
    }

    /// Returns the error that warnings become on request (`error=true`).
    pub(crate) fn violation(&self) -> Option<Problem> {
        let warnings = self.warnings.borrow();
        if !self.config.error || warnings.is_empty() {
            return None;
        }
        let mut names: Vec<&str> = warnings.iter().map(|warning| warning.rule.name).collect();
        names.sort_unstable();
        names.dedup();
        let problem = Problem::new(format!("lint violation found for rules: {}", names.join(", ")));
        Some(problem.hint("mend what the warnings say, or leave rules out with `# check=skip=…`"))
    }

    pub(crate) fn into_warnings(self) -> Vec<LintWarning> {
        self.warnings.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_skipped_where_asked() {
        let count = |config: &str, comments: &[&str], rule: &'static Rule| {
            let linter = Linter::new(LintConfig::parse(config).unwrap());
            let comments: Vec<String> = comments.iter().map(|c| (*c).to_owned()).collect();
            linter.report(rule, &comments, Lines::single(1), "x");
            linter.into_warnings().len()
        };
        assert_eq!(count("", &[], &rules::STAGE_NAME_CASING), 1);
        assert_eq!(count("skip=StageNameCasing", &[], &rules::STAGE_NAME_CASING), 0);
        assert_eq!(count("skip=all", &[], &rules::STAGE_NAME_CASING), 0);
        assert_eq!(count("", &["check=skip=StageNameCasing"], &rules::STAGE_NAME_CASING), 0);
        assert_eq!(count("", &["check=skip=JSONArgsRecommended"], &rules::STAGE_NAME_CASING), 1);
        let experimental = &rules::INVALID_DEFINITION_DESCRIPTION;
        assert_eq!(count("", &[], experimental), 0);
        assert_eq!(count("experimental=all", &[], experimental), 1);
        assert_eq!(count("", &["check=experimental=InvalidDefinitionDescription"], experimental), 1);
    }

    #[test]
    fn nothing_is_reported_after_a_mistake() {
        let linter = Linter::default();
        linter.report(&rules::STAGE_NAME_CASING, &[], Lines::single(1), "x");
        linter.close();
        linter.report(&rules::STAGE_NAME_CASING, &[], Lines::single(2), "y");
        assert_eq!(linter.into_warnings().len(), 1);
    }

    #[test]
    fn warnings_can_be_an_error() {
        let linter = Linter::new(LintConfig::parse("error=true").unwrap());
        assert!(linter.violation().is_none());
        linter.report(&rules::STAGE_NAME_CASING, &[], Lines::single(1), "x");
        linter.report(&rules::FROM_AS_CASING, &[], Lines::single(1), "x");
        let message = linter.violation().unwrap().message();
        assert_eq!(message, "lint violation found for rules: FromAsCasing, StageNameCasing");
    }
}
