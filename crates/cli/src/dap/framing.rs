//! Messages as bytes: a header that tells the length, an empty line, JSON.
//!
//! See <https://microsoft.github.io/debug-adapter-protocol/overview#base-protocol>. Whatever arrives, no more than
//! the limits is held of it, and what is no message is an error.

use std::io::{self, BufRead, Read as _, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest line of a header.
const MAX_LINE: u64 = 1024;
/// The most lines of a header.
const MAX_LINES: usize = 16;
/// The longest message: no editor sends a tenth of it.
const MAX_MESSAGE: u64 = 8 << 20;

const LENGTH: &str = "Content-Length";

/// Says why something is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum FramingError {
    #[error("the header of a message is too long")]
    LongHeader,
    #[error("`{0}` is no line of a message's header")]
    BadHeader(String),
    #[error("a message does not say how long it is")]
    NoLength,
    #[error("a message of {0} bytes is longer than the limit of {MAX_MESSAGE}")]
    TooLong(u64),
    #[error("the input ended in the middle of a message")]
    Ended,
    #[error("a message is not what the protocol has")]
    Content(#[source] serde_json::Error),
    #[error("cannot read or write a message")]
    Io(#[from] io::Error),
}

/// Reads a message; `None` is the end of the input.
pub(super) fn read<T: DeserializeOwned>(input: &mut impl BufRead) -> Result<Option<T>, FramingError> {
    let Some(length) = header(input)? else { return Ok(None) };
    let mut content = Vec::new();
    input.take(length).read_to_end(&mut content)?;
    if (content.len() as u64) < length {
        return Err(FramingError::Ended);
    }
    serde_json::from_slice(&content).map(Some).map_err(FramingError::Content)
}

/// Reads a header, up to the empty line; returns the length of what follows.
fn header(input: &mut impl BufRead) -> Result<Option<u64>, FramingError> {
    let mut length = None;
    for number in 0..MAX_LINES {
        let mut line = Vec::new();
        input.take(MAX_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() && number == 0 {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            let long = line.len() as u64 + 1 >= MAX_LINE;
            return Err(if long { FramingError::LongHeader } else { FramingError::Ended });
        }
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.is_empty() {
            return length.map(Some).ok_or(FramingError::NoLength);
        }
        let bad = || FramingError::BadHeader(crate::ui::printable(&String::from_utf8_lossy(line)));
        let text = std::str::from_utf8(line).map_err(|_| bad())?;
        let (name, value) = text.split_once(':').ok_or_else(bad)?;
        if name.trim().eq_ignore_ascii_case(LENGTH) {
            let told: u64 = value.trim().parse().map_err(|_| bad())?;
            if told > MAX_MESSAGE {
                return Err(FramingError::TooLong(told));
            }
            length = Some(told);
        }
    }
    Err(FramingError::LongHeader)
}

/// Writes a message.
pub(super) fn write(output: &mut impl Write, message: &impl Serialize) -> Result<(), FramingError> {
    let content = serde_json::to_vec(message).map_err(FramingError::Content)?;
    write!(output, "{LENGTH}: {}\r\n\r\n", content.len())?;
    output.write_all(&content)?;
    output.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read_all(mut input: &[u8]) -> Result<Vec<Value>, FramingError> {
        let mut all = Vec::new();
        while let Some(message) = read(&mut input)? {
            all.push(message);
        }
        Ok(all)
    }

    #[test]
    fn what_is_written_is_read() {
        let messages = [json!({"seq": 1, "text": "ä\r\n\r\n"}), json!([]), json!({"seq": 2})];
        let mut bytes = Vec::new();
        for message in &messages {
            write(&mut bytes, message).unwrap();
        }
        assert_eq!(read_all(&bytes).unwrap(), messages);
    }

    #[test]
    fn other_headers_and_line_ends_are_taken() {
        let bytes = b"content-length:2\r\nContent-Type: text\r\n\r\n{}Content-Length: 2\n\n[]";
        assert_eq!(read_all(bytes).unwrap(), [json!({}), json!([])]);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let told = |bytes: &[u8]| read_all(bytes).unwrap_err().to_string();
        assert_eq!(told(b"Content-Type: x\r\n\r\n{}"), "a message does not say how long it is");
        assert_eq!(told(b"hello\r\n\r\n"), "`hello` is no line of a message's header");
        assert_eq!(
            told(b"Content-Length: -1\r\n\r\n"),
            "`Content-Length: -1` is no line of a message's header"
        );
        assert!(told(b"\xff:\r\n\r\n").ends_with("is no line of a message's header"));
        for cut in [&b"Content-Length: 3\r\n\r\n{}"[..], b"Content-Length: 3\r\n", b"Content-Len"] {
            assert_eq!(told(cut), "the input ended in the middle of a message");
        }
        assert_eq!(told(b"Content-Length: 2\r\n\r\n{]"), "a message is not what the protocol has");
        let deep = "[".repeat(100_000);
        let message = format!("Content-Length: {}\r\n\r\n{deep}", deep.len());
        assert_eq!(told(message.as_bytes()), "a message is not what the protocol has");
    }

    #[test]
    fn nothing_is_held_of_what_is_too_long() {
        // Neither reader ever ends: it is not read to its end.
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert!(matches!(read::<Value>(&mut endless), Err(FramingError::LongHeader)));
        let mut lines = io::BufReader::new(io::Cursor::new("a: b\r\n".repeat(20)));
        assert!(matches!(read::<Value>(&mut lines), Err(FramingError::LongHeader)));
        let huge = b"Content-Length: 18446744073709551615\r\n\r\n";
        let mut huge = io::BufReader::new(huge.chain(io::repeat(b'x')));
        assert!(matches!(read::<Value>(&mut huge), Err(FramingError::TooLong(u64::MAX))));
    }
}
