//! From node to instruction.

use super::copy::{parse_add, parse_copy};
use super::flags::{FlagKind, Flags};
use super::healthcheck::parse_healthcheck;
use super::run::{command_line, parse_run};
use super::{ArgDefinition, From, INSTRUCTIONS, Instruction, InstructionKind, KeyValue};
use crate::parser::{Node, parse_text};
use crate::problem::Problem;
use crate::suggest::Case;
use crate::text::quote;

/// Types and checks one node.
pub(crate) fn parse_node(node: &Node) -> Result<Instruction, Problem> {
    let kind = parse_kind(node).map_err(|problem| {
        let problem = problem.at(node.lines);
        match form(&node.name.to_lowercase()) {
            Some(form) => problem.hint(format!("it is written `{form}`")),
            None => problem,
        }
    })?;
    Ok(Instruction {
        name: node.name.clone(),
        code: node.original.trim().to_owned(),
        lines: node.lines,
        comments: node.comments.clone(),
        kind,
    })
}

/// Parses one instruction from its text, as an `ONBUILD` trigger is kept in an image.
pub(crate) fn parse_instruction(text: &str) -> Result<Instruction, Problem> {
    let mut parsed = parse_text(text);
    if !parsed.problems.is_empty() {
        return Err(parsed.problems.swap_remove(0));
    }
    match parsed.nodes.as_slice() {
        [node] => parse_node(node),
        _ => Err(Problem::new("onbuild trigger should be a single expression")),
    }
}

fn parse_kind(node: &Node) -> Result<InstructionKind, Problem> {
    use InstructionKind as Kind;
    Ok(match node.name.to_lowercase().as_str() {
        "add" => Kind::Add(parse_add(node)?),
        "arg" => Kind::Arg(parse_arg(node)?),
        "cmd" => {
            no_flags(node)?;
            Kind::Cmd(command_line(node))
        }
        "copy" => Kind::Copy(parse_copy(node)?),
        "entrypoint" => {
            no_flags(node)?;
            Kind::Entrypoint(command_line(node))
        }
        "env" => Kind::Env(key_values(node, "ENV")?),
        "expose" => Kind::Expose(parse_expose(node)?),
        "from" => Kind::From(parse_from(node)?),
        "healthcheck" => Kind::Healthcheck(parse_healthcheck(node)?),
        "label" => Kind::Label(key_values(node, "LABEL")?),
        "maintainer" => Kind::Maintainer(single(node, "MAINTAINER")?),
        "onbuild" => Kind::Onbuild(parse_onbuild(node)?),
        "run" => Kind::Run(parse_run(node)?),
        "shell" => Kind::Shell(parse_shell(node)?),
        "stopsignal" => Kind::StopSignal(exactly_one(node, "STOPSIGNAL")?),
        "user" => Kind::User(single(node, "USER")?),
        "volume" => Kind::Volume(parse_volume(node)?),
        "workdir" => Kind::Workdir(single(node, "WORKDIR")?),
        _ => return Err(unknown(&node.name)),
    })
}

/// Returns how an instruction is written.
fn form(name: &str) -> Option<&'static str> {
    Some(match name {
        "add" => "ADD [OPTIONS] SOURCE... DESTINATION",
        "arg" => "ARG NAME[=DEFAULT]...",
        "cmd" => "CMD [\"PROGRAM\", \"ARGUMENT\"]",
        "copy" => "COPY [OPTIONS] SOURCE... DESTINATION",
        "entrypoint" => "ENTRYPOINT [\"PROGRAM\", \"ARGUMENT\"]",
        "env" => "ENV KEY=VALUE...",
        "expose" => "EXPOSE PORT[/PROTOCOL]...",
        "from" => "FROM [--platform=PLATFORM] IMAGE [AS NAME]",
        "healthcheck" => "HEALTHCHECK [OPTIONS] CMD COMMAND",
        "label" => "LABEL KEY=VALUE...",
        "maintainer" => "MAINTAINER NAME",
        "onbuild" => "ONBUILD INSTRUCTION",
        "run" => "RUN [OPTIONS] COMMAND",
        "shell" => "SHELL [\"PROGRAM\", \"ARGUMENT\"]",
        "stopsignal" => "STOPSIGNAL SIGNAL",
        "user" => "USER USER[:GROUP]",
        "volume" => "VOLUME DIRECTORY...",
        "workdir" => "WORKDIR DIRECTORY",
        _ => return None,
    })
}

fn unknown(name: &str) -> Problem {
    let problem = Problem::new(format!("unknown instruction: {name}")).token(name);
    let problem = problem.suggest(name, INSTRUCTIONS, Case::Insensitive);
    match name.contains("&&") || name.starts_with(['-', '|', '&']) {
        true => problem.hint("is the `\\` at the end of the line before missing?"),
        false => {
            problem.hint("every line starts with an instruction, such as RUN or COPY; `\\` continues a line")
        }
    }
}

fn no_flags(node: &Node) -> Result<(), Problem> {
    Flags::parse(&node.flags, &[]).map(drop)
}

fn at_least_one(node: &Node, instruction: &str) -> Result<(), Problem> {
    if node.arguments.is_empty() {
        return Err(Problem::new(format!("{instruction} requires at least one argument")));
    }
    Ok(())
}

fn exactly_one(node: &Node, instruction: &str) -> Result<String, Problem> {
    match node.arguments.as_slice() {
        [argument] => Ok(argument.clone()),
        _ => Err(Problem::new(format!("{instruction} requires exactly one argument"))),
    }
}

/// Returns the only argument of an instruction that has no flags.
fn single(node: &Node, instruction: &str) -> Result<String, Problem> {
    let argument = exactly_one(node, instruction)?;
    no_flags(node)?;
    Ok(argument)
}

fn key_values(node: &Node, instruction: &str) -> Result<Vec<KeyValue>, Problem> {
    no_flags(node)?;
    at_least_one(node, instruction)?;
    let pairs = node.arguments.chunks(3).map(|chunk| match chunk {
        [key, _, _] if key.is_empty() => Err(Problem::new(format!("{instruction} names can not be blank"))),
        [key, value, separator] => {
            Ok(KeyValue { key: key.clone(), value: value.clone(), legacy: separator.is_empty() })
        }
        _ => Err(Problem::new(format!("Bad input to {instruction}, too many arguments"))),
    });
    pairs.collect()
}

fn parse_arg(node: &Node) -> Result<Vec<ArgDefinition>, Problem> {
    at_least_one(node, "ARG")?;
    let definitions = node.arguments.iter().map(|argument| {
        let (name, value) = match argument.split_once('=') {
            Some(("", _)) => return Err(Problem::new("ARG names can not be blank").token(argument.clone())),
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        Ok(ArgDefinition { name: name.to_owned(), value, description: description(&node.comments, name) })
    });
    definitions.collect()
}

/// Finds the comment `name text` among the comments above an instruction.
fn description(comments: &[String], name: &str) -> Option<String> {
    let found = comments.iter().find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '))?;
    Some(found.to_owned())
}

fn parse_from(node: &Node) -> Result<From, Problem> {
    let (base, name) = match node.arguments.as_slice() {
        [base] => (base, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
        arguments => {
            let problem = Problem::new("FROM requires either one or three arguments");
            let problem = match arguments.get(1) {
                Some(word) if !word.eq_ignore_ascii_case("as") => problem.token(word.clone()),
                _ => problem,
            };
            return Err(problem.hint("write `FROM image` or `FROM image AS name`"));
        }
    };
    let flags = Flags::parse(&node.flags, &[("platform", FlagKind::Text)])?;
    Ok(From {
        base: base.clone(),
        platform: flags.optional("platform").filter(|p| !p.is_empty()).map(str::to_owned),
        description: name.as_deref().and_then(|name| description(&node.comments, name)),
        name,
    })
}

fn stage_name(written: &str) -> Result<String, Problem> {
    let name = written.to_lowercase();
    let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    if valid {
        return Ok(name);
    }
    let quoted = quote(written);
    let message =
        format!("invalid name for build stage: {quoted}, name can't start with a number or contain symbols");
    Err(Problem::new(message).token(written))
}

fn parse_onbuild(node: &Node) -> Result<String, Problem> {
    at_least_one(node, "ONBUILD")?;
    no_flags(node)?;
    let trigger = node.arguments[0].trim().to_uppercase();
    match trigger.as_str() {
        "ONBUILD" => return Err(Problem::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        "MAINTAINER" | "FROM" => {
            let message = format!("{trigger} isn't allowed as an ONBUILD trigger");
            return Err(Problem::new(message).token(node.arguments[0].clone()));
        }
        _ => {}
    }
    let after_keyword = node.original.trim_start().get("ONBUILD".len()..).unwrap_or_default();
    let mut expression = after_keyword.trim_start().to_owned();
    for heredoc in &node.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.content);
        expression.push_str(&heredoc.name);
    }
    Ok(expression)
}

fn parse_expose(node: &Node) -> Result<Vec<String>, Problem> {
    at_least_one(node, "EXPOSE")?;
    no_flags(node)?;
    let mut ports = node.arguments.clone();
    ports.sort_unstable();
    Ok(ports)
}

fn parse_volume(node: &Node) -> Result<Vec<String>, Problem> {
    at_least_one(node, "VOLUME")?;
    no_flags(node)?;
    let volumes = node.arguments.iter().map(|volume| match volume.trim() {
        "" => Err(Problem::new("VOLUME specified can not be an empty string")),
        volume => Ok(volume.to_owned()),
    });
    volumes.collect()
}

fn parse_shell(node: &Node) -> Result<Vec<String>, Problem> {
    no_flags(node)?;
    at_least_one(node, "SHELL")?;
    if !node.json {
        let problem = Problem::new("SHELL requires the arguments to be in JSON form");
        return Err(problem.hint("write `SHELL [\"/bin/bash\", \"-c\"]`"));
    }
    Ok(node.arguments.clone())
}
