//! `SOURCE_DATE_EPOCH`: a number, or where to take one from.
//!
//! It can name the build context (`context`), a named context, or a stage that does nothing but fetch one
//! file or repository.

use slipway_model::llb::pb;

use super::Converter;
use super::context::ContextSource;
use crate::expand::{EnvList, Environment as _};
use crate::instruction::{Copy, InstructionKind};
use crate::problem::Problem;

const NAME: &str = "SOURCE_DATE_EPOCH";

impl Converter<'_> {
    /// Finds the time, and makes the argument the number that it stands for.
    pub(super) async fn resolve_epoch(&mut self) -> Result<(), Problem> {
        let given = self.build_args.get(NAME).cloned();
        let in_file = self.global_args.get(NAME).filter(|value| !value.is_empty()).map(str::to_owned);
        let Some(value) = given.or(in_file) else { return Ok(()) };
        self.epoch = match value.parse::<i64>() {
            _ if value.is_empty() => None,
            Ok(seconds) => Some(seconds),
            Err(_) => match self.epoch_source(&value)? {
                Some(source) => self.resolver.source_time(&source).await?,
                None => None,
            },
        };
        let number = self.epoch.map(|seconds| seconds.to_string());
        if self.build_args.contains_key(NAME) {
            self.build_args.remove(NAME);
            self.build_args.extend(number.clone().map(|number| (NAME.to_owned(), number)));
        }
        if self.global_args.get(NAME).is_some() {
            self.global_args.remove(NAME);
            if let Some(number) = number {
                self.global_args.set(NAME, number);
            }
        }
        Ok(())
    }

    /// Returns the source whose time counts.
    fn epoch_source(&self, value: &str) -> Result<Option<pb::SourceOp>, Problem> {
        if value == "context" {
            return self.main_source().map(Some);
        }
        if let Some(context) = self.find_context(value, None) {
            return Ok(match self.context_source(context)? {
                ContextSource::Operation(source) => Some(source),
                ContextSource::Scratch | ContextSource::Image(..) | ContextSource::Definition(..) => None,
            });
        }
        let stage = self.stages.iter().position(|stage| stage.name.as_deref() == Some(&value.to_lowercase()));
        match stage {
            Some(index) => {
                let lines = self.stages[index].lines;
                self.stage_source(index).map(Some).map_err(|problem| problem.at(lines))
            }
            None => Err(Problem::new(format!("invalid {NAME}: {value}"))
                .hint("give seconds since 1970, `context`, or the name of a context or stage")),
        }
    }

    /// Returns the one source that a stage fetches.
    fn stage_source(&self, index: usize) -> Result<pb::SourceOp, Problem> {
        let stage = &self.stages[index];
        let exactly_one = || Problem::new(format!("{NAME} stage must contain exactly one remote ADD"));
        if stage.base_name != "scratch" {
            return Err(Problem::new(format!("{NAME} stage must use FROM scratch")));
        }
        let mut env = self.global_args.clone();
        env.remove(NAME);
        let mut found = None;
        for command in &stage.commands {
            match &command.instruction.kind {
                InstructionKind::Arg(definitions) => {
                    for definition in definitions {
                        let given = self.build_args.get(&definition.name).cloned();
                        let default = definition.value.as_deref().map(|value| self.expanded(value, &env));
                        if let Some(value) = given.map(Ok).or(default).transpose()? {
                            env.set(&definition.name, value);
                        }
                    }
                }
                InstructionKind::Add(add) if found.is_none() => found = Some(self.add_source_op(add, &env)?),
                InstructionKind::Add(_) => return Err(exactly_one()),
                _ => {
                    let name = &command.instruction.name;
                    return Err(Problem::new(format!(
                        "{NAME} stage does not meet source-only requirements: unsupported {name} instruction"
                    )));
                }
            }
        }
        found.ok_or_else(exactly_one)
    }

    fn expanded(&self, text: &str, env: &EnvList) -> Result<String, Problem> {
        self.expander.expand(text, env).result.map_err(|error| Problem::new(error.to_string()))
    }

    fn add_source_op(&self, add: &Copy, env: &EnvList) -> Result<pb::SourceOp, Problem> {
        let ([source], []) = (add.sources.as_slice(), add.files.as_slice()) else {
            return Err(Problem::new(format!("{NAME} stage must contain exactly one remote ADD source")));
        };
        let source = self.expanded(source, env)?;
        let mut add = Copy { checksum: self.expanded(&add.checksum, env)?, ..add.clone() };
        super::copy::remote_source(&source, &mut add)?
            .map(|remote| remote.operation)
            .ok_or_else(|| Problem::new(format!("{NAME} stage source must be a single HTTP(S) or Git ADD")))
    }
}

/// Writes a time as the config wants it: RFC 3339, in UTC.
pub(super) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_234_567_890, "2009-02-13T23:31:30Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
