//! The text of an ignore file.

use slipway_model::clean_path;

use super::Pattern;

/// Reads the patterns of a `.dockerignore`.
///
/// Lines that start with `#` are comments; spaces around a pattern, and after its `!`, do not count; a leading
/// `/` means the root of the context, as does none.
pub fn parse_ignore_file(bytes: &[u8]) -> Vec<Pattern> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut patterns = Vec::new();
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        let text = String::from_utf8_lossy(line);
        if text.starts_with('#') {
            continue;
        }
        let text = text.trim();
        let (exception, path) = match text.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", text),
        };
        if text.is_empty() {
            continue;
        }
        let cleaned = if path.is_empty() { String::new() } else { clean_path(path) };
        let relative = match cleaned.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest,
            _ => &cleaned,
        };
        patterns.push(Pattern { text: format!("{exception}{relative}"), line: number });
    }
    patterns
}
