//! Texts that come from a registry, made fit to be shown.
//!
//! A registry can put anything into an error: terminal control sequences, a page of HTML, our own token
//! echoed back. What leaves here is one line of bounded length without any of that.

use serde::Deserialize;

const LONGEST: usize = 300;

/// Is the error document of the [distribution spec], as far as it is used.
///
/// [distribution spec]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorText {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    errors: Vec<Entry>,
    // Token servers answer in the form of OAuth 2, or with `details`.
    error: Option<serde_json::Value>,
    error_description: Option<String>,
    details: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    code: Option<String>,
    message: Option<String>,
}

/// Reads the error document in `body`; anything else gives nothing, a short plain text itself.
pub(crate) fn parse(body: &[u8], secrets: &[&str]) -> ErrorText {
    let Ok(document) = serde_json::from_slice::<Document>(body) else {
        let plain = std::str::from_utf8(body).ok().map(str::trim);
        let plain = plain.filter(|text| !text.is_empty() && text.len() <= LONGEST && !text.contains('<'));
        return ErrorText { code: None, message: plain.and_then(|text| clean(text, secrets)) };
    };
    let first = document.errors.into_iter().next();
    let code = first.as_ref().and_then(|entry| entry.code.clone());
    let message = first
        .and_then(|entry| entry.message)
        .or(document.error_description)
        .or(document.details)
        .or_else(|| document.error.and_then(|error| error.as_str().map(str::to_owned)));
    ErrorText {
        code: code.and_then(|text| clean(&text, secrets)),
        message: message.and_then(|text| clean(&text, secrets)),
    }
}

/// Makes one bounded line of `text`, with every secret blotted out.
pub(crate) fn clean(text: &str, secrets: &[&str]) -> Option<String> {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= 4) {
        text = text.replace(secret, "[redacted]");
    }
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = text.chars().map(printable).take(LONGEST).collect();
    let line = line.trim().trim_end_matches('.');
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn anything_is_survived(body in proptest::collection::vec(any::<u8>(), 0..400), tail in "\\PC*") {
            parse(&body, &["hunter22"]);
            let text = parse(format!("hunter22{tail}").as_bytes(), &["hunter22"]);
            prop_assert!(!text.message.unwrap_or_default().contains("hunter22"));
        }
    }

    fn message(body: &str) -> Option<String> {
        parse(body.as_bytes(), &["hunter22"]).message
    }

    #[test]
    fn documents_are_read() {
        let body = r#"{"errors":[{"code":"DENIED","message":"no such thing.","detail":{}}]}"#;
        let text = parse(body.as_bytes(), &[]);
        assert_eq!(text.code.as_deref(), Some("DENIED"));
        assert_eq!(text.message.as_deref(), Some("no such thing"));
        assert_eq!(message(r#"{"details":"incorrect username"}"#).as_deref(), Some("incorrect username"));
        let oauth = r#"{"error":"invalid_grant","error_description":"expired"}"#;
        assert_eq!(message(oauth).as_deref(), Some("expired"));
    }

    #[test]
    fn other_bodies_are_harmless() {
        assert_eq!(message("<html>Bad Gateway</html>"), None);
        assert_eq!(message("slow down\n").as_deref(), Some("slow down"));
        assert_eq!(message("[1,2]").as_deref(), Some("[1,2]"));
        assert_eq!(message("a\x1b[31mb").as_deref(), Some("a [31mb"));
        assert_eq!(
            message(r#"{"errors":[{"message":"token hunter22 is bad"}]}"#).as_deref(),
            Some("token [redacted] is bad")
        );
        assert_eq!(
            message(&format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "é".repeat(999)))
                .unwrap()
                .chars()
                .count(),
            LONGEST
        );
    }
}
