//! Splitting one instruction: its name, its flags, and its arguments by the rules of its kind.

use serde_json::Value;

use crate::problem::Problem;

/// The blanks between words of an instruction.
const BLANKS: [char; 5] = ['\t', '\x0b', '\x0c', '\r', ' '];

/// Holds the parts of an instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) name: String,
    pub(super) flags: Vec<String>,
    pub(super) values: Vec<String>,
    pub(super) json: bool,
    /// The trigger of an `ONBUILD`.
    trigger: Option<Box<Arguments>>,
}

impl Arguments {
    /// Tells whether the instruction can have heredocs; an `ONBUILD` asks its trigger.
    pub(super) fn takes_heredocs(&self) -> bool {
        let inner = self.trigger.as_deref().unwrap_or(self);
        !inner.json && ["add", "copy", "run"].contains(&inner.name.to_lowercase().as_str())
    }
}

/// Splits an instruction.
pub(super) fn split_instruction(line: &str, escape: char) -> Result<Arguments, Problem> {
    split_nested(line, escape, 0)
}

fn split_nested(line: &str, escape: char, depth: u8) -> Result<Arguments, Problem> {
    let line = line.trim();
    let (name, rest) = match line.find(BLANKS) {
        Some(end) => (&line[..end], line[end..].trim_start_matches(BLANKS)),
        None => (line, ""),
    };
    let (flags, rest) = split_flags(rest, escape);
    let rest = rest.trim();
    let mut arguments = Arguments { name: name.to_owned(), flags, ..Arguments::default() };
    match name.to_lowercase().as_str() {
        "arg" => arguments.values = words(rest, escape),
        "env" => arguments.values = names_and_values(rest, "ENV", escape)?,
        "label" => arguments.values = names_and_values(rest, "LABEL", escape)?,
        "expose" | "from" => arguments.values = blank_separated(rest),
        "maintainer" | "stopsignal" | "user" | "workdir" => arguments.values = whole(rest),
        "cmd" | "entrypoint" | "run" | "shell" => match json_strings(rest)? {
            Some(list) => (arguments.values, arguments.json) = (list, true),
            None => arguments.values = whole(rest),
        },
        "add" | "copy" | "volume" => match json_strings(rest)? {
            Some(list) => (arguments.values, arguments.json) = (list, true),
            None => arguments.values = blank_separated(rest),
        },
        "healthcheck" => {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            arguments.values = whole(&rest[..end]);
            let command = rest[end..].trim_start();
            match json_strings(command)? {
                Some(list) => {
                    arguments.values.extend(list);
                    arguments.json = true;
                }
                None => arguments.values.extend(whole(command)),
            }
        }
        // One level is enough to say that ONBUILD cannot be nested.
        "onbuild" if !rest.is_empty() && depth < 2 => {
            let trigger = split_nested(rest, escape, depth + 1)?;
            arguments.values = std::iter::once(trigger.name.clone()).chain(trigger.values.clone()).collect();
            arguments.trigger = Some(Box::new(trigger));
        }
        _ => {}
    }
    Ok(arguments)
}

fn whole(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
}

fn blank_separated(text: &str) -> Vec<String> {
    text.split(BLANKS).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Where a scanner of words is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Blanks,
    Word,
    Quoted(char),
}

/// Takes the words that start with `--` off the front; quotes and escapes in them are resolved.
fn split_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut phase = Phase::Blanks;
    let mut characters = text.char_indices();
    while let Some((position, c)) = characters.next() {
        match phase {
            Phase::Blanks if c.is_whitespace() => continue,
            Phase::Blanks if !text[position..].starts_with("--") => return (flags, &text[position..]),
            Phase::Blanks => {
                phase = Phase::Word;
                word.push(c);
            }
            Phase::Word if c.is_whitespace() => {
                let finished = std::mem::take(&mut word);
                if finished == "--" {
                    return (flags, &text[position..]);
                }
                if quoted || !finished.is_empty() {
                    flags.push(finished);
                }
                (phase, quoted) = (Phase::Blanks, false);
            }
            Phase::Word if c == '\'' || c == '"' => (phase, quoted) = (Phase::Quoted(c), true),
            Phase::Quoted(quote) if c == quote => phase = Phase::Word,
            _ if c == escape => word.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => word.push(c),
        }
    }
    if phase != Phase::Blanks && word != "--" && (quoted || !word.is_empty()) {
        flags.push(word);
    }
    (flags, "")
}

/// Splits into words at blanks outside quotes; quotes and escapes stay for the expansion to resolve.
fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut phase = Phase::Blanks;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if phase == Phase::Blanks {
            if c.is_whitespace() {
                continue;
            }
            phase = Phase::Word;
        }
        if phase == Phase::Word && c.is_whitespace() {
            words.push(std::mem::take(&mut word));
            phase = Phase::Blanks;
            continue;
        }
        if c == escape && phase != Phase::Quoted('\'') {
            // At the very end there is nothing to escape.
            let Some(escaped) = characters.next() else { break };
            word.extend([c, escaped]);
            continue;
        }
        match phase {
            Phase::Word if c == '\'' || c == '"' => phase = Phase::Quoted(c),
            Phase::Quoted(quote) if c == quote => phase = Phase::Word,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Splits `name=value …`, or the old `name value`, into name, value and separator in turn.
fn names_and_values(text: &str, instruction: &str, escape: char) -> Result<Vec<String>, Problem> {
    let words = words(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let Some(end) = text.find(BLANKS) else {
            return Err(Problem::new(format!("{instruction} must have two arguments"))
                .token(text)
                .hint(format!("write `{instruction} {text}=value`")));
        };
        let value = text[end..].trim_start_matches(BLANKS);
        return Ok(vec![text[..end].to_owned(), value.to_owned(), String::new()]);
    }
    let mut values = Vec::with_capacity(words.len() * 3);
    for word in &words {
        let Some((name, value)) = word.split_once('=') else {
            let quoted = crate::text::quote(word);
            let message = format!("Syntax error - can't find = in {quoted}. Must be of the form: name=value");
            let problem = Problem::new(message).token(word.clone());
            return Err(problem.hint("put quotes around a value that has blanks in it"));
        };
        values.extend([name.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(values)
}

/// Parses a JSON array of strings; what is no JSON array is `None`, an array of other things an error.
fn json_strings(text: &str) -> Result<Option<Vec<String>>, Problem> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<Value>>(text.trim()) else { return Ok(None) };
    let strings: Option<Vec<String>> = list.into_iter().map(|v| v.as_str().map(str::to_owned)).collect();
    let message = "when using JSON array syntax, arrays must be comprised of strings only";
    strings.map(Some).ok_or_else(|| Problem::new(message).hint("put double quotes around each element"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Arguments {
        split_instruction(line, '\\').unwrap()
    }

    #[test]
    fn flags() {
        let arguments = split("COPY --from=a --chown='1 2'  --exclude=\"x\" a b");
        assert_eq!(arguments.flags, ["--from=a", "--chown=1 2", "--exclude=x"]);
        assert_eq!(arguments.values, ["a", "b"]);
        let arguments = split(r"RUN --mount=a\ b -- --x y");
        assert_eq!(
            (arguments.flags, arguments.values),
            (vec!["--mount=a b".to_owned()], vec!["--x y".to_owned()])
        );
        assert_eq!(split("RUN --network=none").flags, ["--network=none"]);
        assert_eq!(split("RUN -c x").values, ["-c x"]);
    }

    #[test]
    fn words_keep_their_quotes() {
        assert_eq!(words(r#"a "b c" d\ e 'f\' x"#, '\\'), ["a", r#""b c""#, r"d\ e", r"'f\'", "x"]);
        assert_eq!(words(r#"'' """#, '\\'), ["''", r#""""#]);
        assert_eq!(words(r#""a\"b" c\"#, '\\'), [r#""a\"b""#, "c"]);
    }

    #[test]
    fn names_with_values() {
        assert_eq!(split("ENV a=b c=\"d e\"").values, ["a", "b", "=", "c", "\"d e\"", "="]);
        assert_eq!(split("ENV a  b = c").values, ["a", "b = c", ""]);
        assert_eq!(split("LABEL").values, Vec::<String>::new());
        assert!(split_instruction("ENV a", '\\').is_err());
        assert!(split_instruction("ENV a=1 b", '\\').is_err());
    }

    #[test]
    fn json_form() {
        assert!(split("CMD []").json && split("CMD []").values.is_empty());
        assert_eq!(split("CMD [ \"a\", \"b\\u0041\" ]").values, ["a", "bA"]);
        assert!(!split("CMD ['a']").json);
        assert!(!split("CMD [ \"a\" ] x").json);
        assert!(split_instruction("CMD [1]", '\\').is_err());
        assert_eq!(split("HEALTHCHECK CMD [\"a\"]").values, ["CMD", "a"]);
    }

    #[test]
    fn triggers() {
        assert_eq!(split("ONBUILD COPY a b").values, ["COPY", "a", "b"]);
        assert!(split("ONBUILD RUN <<EOF").takes_heredocs());
        assert!(!split("ONBUILD ENV a=<<EOF").takes_heredocs());
    }
}
