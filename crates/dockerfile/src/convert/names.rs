//! Vertex names: `[linux/arm64 builder 2/5] RUN make`.

use slipway_model::Platform;

use super::stage::StageState;
use crate::expand::{Environment, Expander};

/// The key under which a vertex's description has the instruction.
pub(super) const COMMAND: &str = "com.docker.dockerfile.v1.command";

/// Puts platform, stage and step number before a text, and counts the step.
pub(super) fn prefixed(
    stage: &mut StageState,
    text: &str,
    with_platform: bool,
    platform: &Platform,
    environment: &dyn Environment,
) -> String {
    if stage.steps == 0 {
        return text.to_owned();
    }
    stage.step += 1;
    let mut name = String::from("[");
    if with_platform {
        name.push_str(&platform.to_string());
        name.push_str(&cross_target(platform, environment));
        name.push(' ');
    }
    if !stage.display_name.is_empty() {
        name.push_str(&stage.display_name);
        name.push(' ');
    }
    let width = stage.steps.to_string().len();
    name.push_str(&format!("{:>width$}/{}] ", stage.step, stage.steps));
    if stage.in_trigger {
        name.push_str("ONBUILD ");
    }
    name.push_str(text);
    name
}

/// Returns `->arm64` for a step that runs on one platform and builds for another.
fn cross_target(base: &Platform, environment: &dyn Environment) -> String {
    let Some(target) = declared_target(base, environment) else { return String::new() };
    if target.os != base.os {
        return format!("->{target}");
    }
    if target.architecture == base.architecture {
        return String::new();
    }
    let variant = target.variant.map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("->{}{variant}", target.architecture)
}

/// Reads the platform that the stage has declared `TARGET…` arguments for.
fn declared_target(base: &Platform, environment: &dyn Environment) -> Option<Platform> {
    if let Some(platform) = environment.get("TARGETPLATFORM").and_then(|text| text.parse().ok()) {
        return Some(platform);
    }
    let [os, architecture, variant] = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].map(|n| environment.get(n));
    os.or(architecture).or(variant)?;
    let given = |value: Option<&str>, otherwise: &str| {
        value.filter(|value| !value.is_empty()).unwrap_or(otherwise).to_owned()
    };
    Some(Platform::new(&given(os, &base.os), &given(architecture, &base.architecture), variant))
}

/// Returns an instruction's text with its variables expanded and its keyword in upper case.
pub(super) fn expanded(expander: &Expander, code: &str, environment: &dyn Environment) -> String {
    let text = expander.expand(code, environment).result.unwrap_or_else(|_| code.to_owned());
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expand::EnvList;

    #[test]
    fn names_say_platform_stage_and_step() {
        let amd64 = Platform::linux("amd64", None);
        let mut stage = StageState { steps: 10, display_name: "build".to_owned(), ..StageState::default() };
        let mut env = EnvList::default();
        assert_eq!(prefixed(&mut stage, "RUN x", false, &amd64, &env), "[build  1/10] RUN x");
        env.set("TARGETARCH", "arm");
        assert_eq!(
            prefixed(&mut stage, "RUN x", true, &amd64, &env),
            "[linux/amd64->arm/v7 build  2/10] RUN x"
        );
        env.set("TARGETARCH", "amd64");
        stage.in_trigger = true;
        assert_eq!(
            prefixed(&mut stage, "RUN x", true, &amd64, &env),
            "[linux/amd64 build  3/10] ONBUILD RUN x"
        );
        let expander = Expander::new('\\');
        assert_eq!(expanded(&expander, "copy $TARGETARCH $X /", &env), "COPY amd64  /");
    }
}
