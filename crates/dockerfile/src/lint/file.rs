//! Checks that look at the file as a whole, before any stage is converted.

use slipway_model::Reference;

use super::{Linter, rules};
use crate::expand::{EnvList, Expander};
use crate::instruction::{Instruction, InstructionKind};
use crate::text::quote;

/// Checks the keywords of a `FROM`: the casing of `AS` and of the stage's name as written.
pub(crate) fn check_from_keywords(linter: &Linter, from: &Instruction, arguments: &[String]) {
    let [_, keyword, name] = arguments else { return };
    if *name != name.to_lowercase() {
        let detail = format!("Stage name '{name}' should be lowercase");
        linter.report(&rules::STAGE_NAME_CASING, &from.comments, from.lines, detail);
    }
    let written = &from.name;
    let matches = match (*written == written.to_lowercase(), *written == written.to_uppercase()) {
        (true, _) => *keyword == keyword.to_lowercase(),
        (_, true) => *keyword == keyword.to_uppercase(),
        // A keyword in mixed case is reported by another rule.
        _ => true,
    };
    if !matches {
        let detail = format!("'{keyword}' and '{written}' keywords' casing do not match");
        linter.report(&rules::FROM_AS_CASING, &from.comments, from.lines, detail);
    }
}

/// Checks that a comment above a stage or an `ARG` says something about it.
pub(crate) fn check_definition_description(linter: &Linter, instruction: &Instruction) {
    let (keyword, names): (&str, Vec<&str>) = match &instruction.kind {
        InstructionKind::From(from) => ("FROM", from.name.as_deref().into_iter().collect()),
        InstructionKind::Arg(definitions) => ("ARG", definitions.iter().map(|d| d.name.as_str()).collect()),
        _ => return,
    };
    let Some(comment) = instruction.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.contains(&first) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { names[0] };
    let detail = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    let rule = &rules::INVALID_DEFINITION_DESCRIPTION;
    linter.report(rule, &instruction.comments, instruction.lines, detail);
}

/// Checks that stage names are unique and not reserved.
pub(crate) fn check_stage_names<'a>(linter: &Linter, stages: impl Iterator<Item = &'a Instruction>) {
    let mut seen: Vec<&str> = Vec::new();
    for stage in stages {
        let Some(name) = stage.as_from().and_then(|from| from.name.as_deref()) else { continue };
        if matches!(name, "context" | "scratch") {
            let detail = format!("Stage name should not use the same name as reserved stage {}", quote(name));
            linter.report(&rules::RESERVED_STAGE_NAME, &[], stage.lines, detail);
        }
        if seen.contains(&name) {
            let detail = format!("Duplicate stage name {}, stage names should be unique", quote(name));
            linter.report(&rules::DUPLICATE_STAGE_NAME, &[], stage.lines, detail);
        }
        seen.push(name);
    }
}

/// Checks that all keywords are in the case that most are in.
pub(crate) fn check_casing<'a>(linter: &Linter, instructions: impl Iterator<Item = &'a Instruction> + Clone) {
    let lower = |name: &str| name == name.to_lowercase();
    let upper = |name: &str| name == name.to_uppercase();
    let (mut lower_count, mut upper_count) = (0usize, 0usize);
    for instruction in instructions.clone() {
        if lower(&instruction.name) {
            lower_count += 1;
        } else if upper(&instruction.name) {
            upper_count += 1;
        }
    }
    let mostly_lower = lower_count > upper_count;
    for instruction in instructions {
        let name = &instruction.name;
        let (fits, casing) =
            if mostly_lower { (lower(name), "lowercase") } else { (upper(name), "uppercase") };
        if !fits {
            let detail = format!("Command '{name}' should match the case of the command majority ({casing})");
            linter.report(&rules::CONSISTENT_INSTRUCTION_CASING, &[], instruction.lines, detail);
        }
    }
}

/// Checks that base names are valid with the defaults alone.
pub(crate) fn check_default_arguments<'a>(
    linter: &Linter,
    expander: &Expander,
    defaults: &EnvList,
    stages: impl Iterator<Item = &'a Instruction>,
) {
    for stage in stages {
        let Some(from) = stage.as_from() else { continue };
        let Ok(base) = expander.expand(&from.base, defaults).result else { return };
        if base.parse::<Reference>().is_err() {
            let detail =
                format!("Default value for ARG {} results in empty or invalid base image name", from.base);
            linter.report(&rules::INVALID_DEFAULT_ARG_IN_FROM, &[], stage.lines, detail);
        }
    }
}
