//! Output of steps made safe to show: whatever a program writes, it cannot move the cursor, change the
//! terminal or hide text.
//!
//! Invalid UTF-8 becomes U+FFFD; control sequences are dropped, except colours where they are wanted;
//! control characters and the marks that turn the direction of text are dropped; tabs become blanks. A
//! carriage return starts the line anew, as on a terminal.

/// What is kept besides text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Text,
    /// Colours too; they are reset at the end of the line.
    Colors,
}

/// Cleans one line, without its end.
pub(super) fn line(bytes: &[u8], keep: Keep) -> String {
    let bytes = after_last_return(bytes);
    if bytes.iter().all(|b| (0x20..0x7f).contains(b)) {
        // Nothing but ASCII, the usual case.
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut colored = false;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\t' => {
                let column = unicode_width::UnicodeWidthStr::width(out.as_str());
                out.extend(std::iter::repeat_n(' ', 8 - column % 8));
            }
            '\x1b' => {
                let sequence = escape(&mut rest);
                if keep == Keep::Colors
                    && let Some(color) = sequence
                {
                    colored = true;
                    out.push_str("\x1b[");
                    out.push_str(&color);
                    out.push('m');
                }
            }
            '\u{9b}' => drop(control_sequence(&mut rest)),
            c if c.is_control() || turns_direction(c) => {}
            c => out.push(c),
        }
    }
    if colored {
        out.push_str("\x1b[0m");
    }
    out
}

/// Returns what a terminal would show of a line with carriage returns in it.
fn after_last_return(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| *b != b'\r').map_or(0, |at| at + 1);
    let bytes = &bytes[..end];
    match bytes.iter().rposition(|b| *b == b'\r') {
        Some(at) => &bytes[at + 1..],
        None => bytes,
    }
}

/// Reads the rest of an escape sequence; returns the parameters of one that sets colours.
fn escape(rest: &mut std::str::Chars<'_>) -> Option<String> {
    match rest.next()? {
        '[' => control_sequence(rest),
        // Strings of the operating system, the device, the application: up to BEL or ESC \.
        ']' | 'P' | 'X' | '^' | '_' => {
            let mut last = '\0';
            for c in rest.by_ref() {
                if c == '\x07' || (c == '\\' && last == '\x1b') {
                    break;
                }
                last = c;
            }
            None
        }
        '(' | ')' | '*' | '+' | '#' | '%' | ' ' => {
            rest.next();
            None
        }
        _ => None,
    }
}

fn control_sequence(rest: &mut std::str::Chars<'_>) -> Option<String> {
    let mut parameters = String::new();
    for c in rest.by_ref() {
        match c {
            '0'..='9' | ';' | ':' => parameters.push(c),
            '\x20'..='\x3f' => parameters.push('?'),
            'm' if !parameters.contains('?') && parameters.len() < 64 => return Some(parameters),
            _ => return None,
        }
    }
    None
}

/// Names the characters that reorder what stands around them.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        for (bytes, want) in [
            (&b"plain"[..], "plain"),
            (b"\x1b[31mred\x1b[0m", "red"),
            (b"up\x1b[3Ahome\x1b[H\x1b[2J", "uphome"),
            (b"title\x1b]0;evil\x07text", "titletext"),
            (b"link\x1b]8;;http://x\x1b\\y", "linky"),
            (b"10%\r20%\r30%", "30%"),
            (b"windows\r", "windows"),
            (b"a\tb", "a       b"),
            (b"bell\x07\x08\x00", "bell"),
            (b"bad \xff utf", "bad \u{fffd} utf"),
            (b"cut \x1b[3", "cut "),
            (b"cut \x1b", "cut "),
            ("rtl \u{202e}x".as_bytes(), "rtl x"),
            ("c1 \u{9b}31mx".as_bytes(), "c1 x"),
            (b"\x1b(Bx\x1bMy", "xy"),
        ] {
            assert_eq!(line(bytes, Keep::Text), want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn colours_may_stay_and_end_with_the_line() {
        assert_eq!(line(b"\x1b[1;31mred\x1b[K", Keep::Colors), "\x1b[1;31mred\x1b[0m");
        assert_eq!(line(b"\x1b[?25mx", Keep::Colors), "x");
    }
}
