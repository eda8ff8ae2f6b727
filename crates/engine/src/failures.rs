//! Several failures of one build, as a person wants to read them.

use slipway_model::Diagnostic;

/// Orders failures by their place in the file; what happened for several platforms is told once.
pub(crate) fn told(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let line = |diagnostic: &Diagnostic| -> Option<i32> {
        let start = diagnostic.span.as_ref()?.ranges.first()?.start.as_ref()?;
        Some(start.line)
    };
    diagnostics
        .sort_by_key(|one| (line(one), one.message.clone(), one.platform.as_ref().map(ToString::to_string)));
    diagnostics.dedup_by(|later, first| {
        (line(later), &later.message, &later.causes) == (line(first), &first.message, &first.causes)
    });
    diagnostics
}

#[cfg(test)]
mod tests {
    use slipway_model::ErrorKind;

    use super::*;

    #[test]
    fn the_same_of_two_platforms_is_told_once() {
        let failure = |message: &str, platform: &str| {
            Diagnostic::new(ErrorKind::User, message).on(platform.parse().ok())
        };
        let all = vec![failure("b", "linux/arm64"), failure("a", "linux/amd64"), failure("a", "linux/arm64")];
        let messages: Vec<String> = told(all).into_iter().map(|one| one.message).collect();
        assert_eq!(messages, ["a", "b"]);
    }
}
