//! `--platform`: which platforms to build for.

use slipway_model::Platform;

use super::values::nearest;
use super::{SettingsError, Surroundings};

const COMMON: &[&str] = &[
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/386",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
    "linux/loong64",
    "linux/mips64le",
];

/// Parses lists of platforms, each once, in the order they were first named.
pub(crate) fn parse_platforms(values: &[String]) -> Result<Vec<Platform>, SettingsError> {
    let mut list: Vec<Platform> = Vec::new();
    for text in values.iter().flat_map(|value| value.split(',')) {
        let platform = parse(text)?;
        if !list.contains(&platform) {
            list.push(platform);
        }
    }
    Ok(list)
}

/// Parses one platform; `local` is the host's.
fn parse(text: &str) -> Result<Platform, SettingsError> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("local") {
        return Ok(Platform::host());
    }
    text.parse().map_err(|error: slipway_model::ParsePlatformError| {
        let hint = match nearest(text, COMMON) {
            Some(near) => format!("did you mean `--platform {near}`?"),
            None => "write platforms as `--platform linux/amd64,linux/arm64`".to_owned(),
        };
        SettingsError::flag(format!("invalid platform `{text}`: {error}")).hint(hint)
    })
}

/// Returns the platforms of a build: the flags', else the environment's, else none.
pub(super) fn of_build(values: &[String], around: &Surroundings) -> Result<Vec<Platform>, SettingsError> {
    let from_environment = around.non_empty("DOCKER_DEFAULT_PLATFORM").map(str::to_owned);
    match (values, from_environment) {
        ([], Some(value)) => parse_platforms(&[value]),
        _ => parse_platforms(values),
    }
}
