//! Which rules apply: `skip=A,B;experimental=all;error=true`.

use super::Rule;
use crate::problem::Problem;
use crate::text::{parse_bool, quote};

/// Says which rules apply and whether a finding is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LintConfig {
    pub skip: Selection,
    /// Rules that are off unless they are named here.
    pub experimental: Selection,
    /// Findings fail the build.
    pub error: bool,
}

/// Selects rules by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub all: bool,
    pub names: Vec<String>,
}

impl Selection {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        if text == "all" {
            return Self { all: true, names: Vec::new() };
        }
        Self { all: false, names: text.split(',').map(|name| name.trim().to_owned()).collect() }
    }

    fn has(&self, rule: &Rule) -> bool {
        self.all || self.names.iter().any(|name| name == rule.name)
    }
}

impl LintConfig {
    /// Parses the value of a `check` directive.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let mut config = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        for part in text.splitn(3, ';') {
            let invalid = |what: &str| {
                Problem::new(format!("invalid check option {}", quote(what)))
                    .token(what)
                    .hint("known options: skip=RULE,…; experimental=RULE,…; error=true")
            };
            let (key, value) = part.split_once('=').ok_or_else(|| invalid(part))?;
            match key.trim() {
                "skip" => config.skip = Selection::parse(value),
                "experimental" => config.experimental = Selection::parse(value),
                "error" => {
                    let message = format!("failed to parse check option {}", quote(part));
                    let truth = parse_bool(value.trim());
                    config.error = truth.ok_or_else(|| Problem::new(message).token(part))?;
                }
                key => return Err(invalid(key)),
            }
        }
        Ok(config)
    }

    /// Tells whether a rule applies to the file; one that is off by default may be switched on by a comment.
    pub fn allows(&self, rule: &Rule) -> bool {
        rule.experimental || !self.skip.has(rule)
    }
}

/// Tells whether the comments above an instruction leave `rule` on; the first `check=` among them counts.
pub(super) fn comments_allow(comments: &[String], rule: &Rule, config: &LintConfig) -> bool {
    let local = comments.iter().find_map(|comment| {
        let (name, value) = crate::parser::parse_directive_text(comment)?;
        (name == "check").then_some(value)
    });
    let local = local.and_then(|value| LintConfig::parse(value.split(' ').next().unwrap_or_default()).ok());
    let local = local.unwrap_or_default();
    if rule.experimental {
        return config.experimental.has(rule) || local.experimental.has(rule);
    }
    !local.skip.has(rule)
}
