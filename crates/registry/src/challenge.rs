//! `WWW-Authenticate`: how a registry says which authentication it wants ([RFC 9110, section 11]).
//!
//! The parser takes whatever registries send, several challenges in one header included, and gives up on
//! a part, never on the whole: what cannot be read is left out.
//!
//! [RFC 9110, section 11]: https://www.rfc-editor.org/rfc/rfc9110#section-11

use std::fmt;

use http::{HeaderMap, header};

/// Is one challenge: a scheme with parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    /// The parameters in order, names in lower case, values without quotes.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns the first parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scheme)?;
        for (index, (name, value)) in self.parameters.iter().enumerate() {
            let separator = if index == 0 { " " } else { "," };
            write!(f, "{separator}{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))?;
        }
        Ok(())
    }
}

/// Says how a registry wants to be convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// A token from the server at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    /// Name and password with each request.
    Basic,
}

impl Demand {
    /// Picks the demand to meet from an answer's headers: a token where one is offered.
    pub(crate) fn select(headers: &HeaderMap) -> Option<Self> {
        let challenges: Vec<Challenge> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .flat_map(|value| parse_challenges(&String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let bearer =
            challenges.iter().filter(|challenge| challenge.scheme == "bearer").find_map(|challenge| {
                let owned = |name| challenge.parameter(name).map(str::to_owned);
                Some(Self::Bearer {
                    realm: owned("realm")?,
                    service: owned("service"),
                    scope: owned("scope"),
                })
            });
        bearer.or_else(|| challenges.iter().any(|c| c.scheme == "basic").then_some(Self::Basic))
    }
}

/// Parses the value of one `WWW-Authenticate` header.
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = Cursor { text: header };
    loop {
        rest.skip(|c| c.is_ascii_whitespace() || c == ',');
        if rest.text.is_empty() {
            return challenges;
        }
        let word = rest.take(is_token);
        if word.is_empty() {
            // No token can start here; drop what cannot be read up to the next separator.
            rest.skip(|c| c != ',' && c != ' ');
            continue;
        }
        let before_space = rest;
        rest.skip(|c| c.is_ascii_whitespace());
        let is_parameter = rest.text.starts_with('=') && !challenges.is_empty();
        if is_parameter {
            rest.bump();
            rest.skip(|c| c.is_ascii_whitespace());
            let value = rest.value();
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.push((word.to_ascii_lowercase(), value));
            }
        } else {
            rest = before_space;
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
        }
    }
}

/// Is a place in a header.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    text: &'a str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let end = self.text.find(|c| !wanted(c)).unwrap_or(self.text.len());
        let (taken, rest) = self.text.split_at(end);
        self.text = rest;
        taken
    }

    fn skip(&mut self, wanted: impl FnMut(char) -> bool) {
        self.take(wanted);
    }

    fn bump(&mut self) -> Option<char> {
        let mut chars = self.text.chars();
        let first = chars.next();
        self.text = chars.as_str();
        first
    }

    /// Reads a quoted string or everything up to the next separator.
    fn value(&mut self) -> String {
        if !self.text.starts_with('"') {
            return self.take(|c| c != ',' && !c.is_ascii_whitespace()).to_owned();
        }
        self.bump();
        let mut value = String::new();
        while let Some(c) = self.bump() {
            match c {
                '"' => break,
                '\\' => value.extend(self.bump()),
                other => value.push(other),
            }
        }
        value
    }
}

/// Tells whether `c` can be in a token of HTTP.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(header: &str) -> Challenge {
        let mut all = parse_challenges(header);
        assert_eq!(all.len(), 1, "{header}: {all:?}");
        all.remove(0)
    }

    #[test]
    fn bearer_of_docker_hub() {
        let challenge = one(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.parameter("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(challenge.parameter("scope"), Some("repository:a/b:pull,push"));
    }

    #[test]
    fn several_challenges_in_one_header() {
        let all =
            parse_challenges(r#"Negotiate, Basic realm="a, \"b\"", Bearer realm=https://t/,  service = x"#);
        let schemes: Vec<&str> = all.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(all[1].parameter("realm"), Some(r#"a, "b""#));
        assert_eq!(all[2].parameter("realm"), Some("https://t/"));
        assert_eq!(all[2].parameter("service"), Some("x"));
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let mut headers = HeaderMap::new();
        headers.append(header::WWW_AUTHENTICATE, "Basic realm=x".parse().unwrap());
        assert_eq!(Demand::select(&headers), Some(Demand::Basic));
        headers.append(header::WWW_AUTHENTICATE, "Bearer realm=\"http://t\"".parse().unwrap());
        assert!(matches!(Demand::select(&headers), Some(Demand::Bearer { .. })));
    }

    #[test]
    fn rubbish_is_left_out() {
        assert_eq!(parse_challenges(""), []);
        assert_eq!(parse_challenges("=,\"\u{fffd}\""), []);
        assert_eq!(one("Bearer realm=\"unterminated").parameter("realm"), Some("unterminated"));
        assert_eq!(one("Bearer").parameters, []);
    }

    proptest! {
        #[test]
        fn anything_is_survived(header in "\\PC*") {
            parse_challenges(&header);
        }

        #[test]
        fn near_misses_are_survived(header in "([Bb]earer|Basic|[a-z=\", \\\\é]){0,20}") {
            parse_challenges(&header);
        }

        #[test]
        fn what_is_written_is_read(
            scheme in "[a-z]{1,8}",
            parameters in proptest::collection::vec(("[a-z_]{1,8}", "[ -~é]{0,20}"), 0..5),
        ) {
            let challenge = Challenge { scheme, parameters };
            prop_assert_eq!(parse_challenges(&challenge.to_string()), vec![challenge]);
        }
    }
}
