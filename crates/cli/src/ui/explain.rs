//! Why steps were in the cache or were not, as a table or as JSON.

use serde_json::{Value, json};
use slipway_engine::history::ExplainedStep;

use super::format;
use super::printable;

/// The longest name of a step in a table.
const NAME_WIDTH: usize = 60;

/// Lays out one line for each step.
pub(crate) fn table(steps: &[ExplainedStep]) -> String {
    if steps.is_empty() {
        return "nothing is on record of this build's cache: a builder elsewhere does not tell\n".to_owned();
    }
    let head = ["CACHE", "STEP", "WHY"].map(str::to_owned).to_vec();
    let rows = steps.iter().map(|step| {
        let found = if step.is_hit() { "hit" } else { "miss" };
        vec![found.to_owned(), shortened(&printable(&step.name)), printable(&step.why)]
    });
    format::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 2)
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_WIDTH {
        return name.to_owned();
    }
    name.chars().take(NAME_WIDTH - 1).chain(['…']).collect()
}

/// Returns the steps as data.
pub(crate) fn to_json(steps: &[ExplainedStep]) -> Value {
    let step = |step: &ExplainedStep| {
        json!({
            "Name": step.name,
            "Platform": step.platform,
            "Cached": step.is_hit(),
            "Verdict": step.verdict,
            "Why": step.why,
        })
    };
    steps.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use slipway_model::progress::CacheVerdict;

    use super::*;

    #[test]
    fn steps_are_laid_out() {
        let step = |name: &str, verdict, why: &str| ExplainedStep {
            name: name.to_owned(),
            platform: None,
            verdict,
            why: why.to_owned(),
        };
        let steps = [
            step("[1/2] FROM x", CacheVerdict::FoundByDefinition, "nothing it depends on has changed"),
            step(&format!("[2/2] RUN {}", "y".repeat(80)), CacheVerdict::Missed, "the command changed"),
        ];
        let text = table(&steps);
        assert_eq!(
            text.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["CACHE", "STEP", "WHY"]
        );
        assert!(text.contains("hit    [1/2] FROM x "), "{text}");
        assert!(text.contains("miss   [2/2] RUN yyy") && text.contains("y…  the command changed"), "{text}");
        assert_eq!(to_json(&steps)[1]["Cached"], false);
    }
}
