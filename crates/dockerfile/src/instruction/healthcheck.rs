//! `HEALTHCHECK`.

use slipway_model::image_config::Healthcheck;

use super::flags::{FlagKind, Flags};
use crate::parser::Node;
use crate::problem::Problem;
use crate::text::{format_duration, parse_duration, quote};

const MILLISECOND: i64 = 1_000_000;

pub(super) fn parse_healthcheck(node: &Node) -> Result<Healthcheck, Problem> {
    let Some((kind, command)) = node.arguments.split_first() else {
        return Err(Problem::new("HEALTHCHECK requires at least one argument"));
    };
    let kind_upper = kind.to_uppercase();
    if kind_upper == "NONE" {
        if !command.is_empty() {
            return Err(Problem::new("HEALTHCHECK NONE takes no arguments"));
        }
        return Ok(Healthcheck { test: vec![kind_upper], ..Healthcheck::default() });
    }
    let known = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::parse(&node.flags, &known.map(|name| (name, FlagKind::Text)))?;
    if kind_upper != "CMD" {
        let message = format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind_upper));
        return Err(Problem::new(message)
            .token(kind.clone())
            .hint("write `HEALTHCHECK CMD …` or `HEALTHCHECK NONE`"));
    }
    if command.is_empty() {
        return Err(Problem::new("Missing command after HEALTHCHECK CMD"));
    }
    let form = if node.json { "CMD" } else { "CMD-SHELL" };
    Ok(Healthcheck {
        test: std::iter::once(form.to_owned()).chain(command.iter().cloned()).collect(),
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<i64, Problem> {
    let text = flags.text(name);
    if text.is_empty() {
        return Ok(0);
    }
    let nanoseconds = parse_duration(&text).map_err(|error| {
        Problem::new(format!("time: {error}"))
            .token(text.clone())
            .hint("a duration is written as `30s` or `1m30s`")
    })?;
    if nanoseconds != 0 && nanoseconds < MILLISECOND {
        let message =
            format!("Interval {} cannot be less than {}", quote(name), format_duration(MILLISECOND));
        return Err(Problem::new(message).token(text));
    }
    Ok(nanoseconds)
}

fn retries(flags: &Flags) -> Result<i64, Problem> {
    let text = flags.text("retries");
    if text.is_empty() {
        return Ok(0);
    }
    match text.parse::<i32>() {
        Ok(retries @ 0..) => Ok(retries.into()),
        Ok(retries) => Err(Problem::new(format!("--retries cannot be negative ({retries})")).token(text)),
        Err(_) => {
            let message = format!("--retries: parsing {}: invalid syntax", quote(&text));
            Err(Problem::new(message).token(text))
        }
    }
}
