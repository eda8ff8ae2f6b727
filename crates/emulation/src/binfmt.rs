//! Lines and entries of a binfmt_misc table, as the kernel reads and shows them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::guest::Guest;

/// The flags slipway registers emulators with.
///
/// `P` keeps argv\[0\] (multi-call programs need it), `O` and `C` pass the open program with its
/// credentials (setuid programs work), `F` opens the emulator at registration, so that it need not be
/// in the image.
pub const FLAGS: &str = "POCF";

/// The kernel refuses longer lines.
const MAX_LINE: usize = 1920;

/// Says why no line can be written for an interpreter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("the path `{0}` has a character that binfmt_misc cannot take")]
    BadPath(PathBuf),
    #[error("the path `{0}` is too long for binfmt_misc")]
    TooLong(PathBuf),
}

/// Returns the line that registers `interpreter` for the programs of `guest`.
pub fn registration(guest: &Guest, interpreter: &Path, flags: &str) -> Result<String, LineError> {
    let path = interpreter.to_str().filter(|path| !path.contains([':', '\n', '\0']));
    let path = path.ok_or_else(|| LineError::BadPath(interpreter.to_owned()))?;
    let name = guest.entry_name();
    let line = format!(":{name}:M:0:{}:{}:{path}:{flags}", escape(&guest.magic()), escape(&guest.mask()));
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong(interpreter.to_owned()));
    }
    Ok(line)
}

/// Writes every byte as `\xNN`: the table's own separators cannot appear.
fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
        text
    })
}

/// An entry of a table, read from its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub enabled: bool,
    pub interpreter: PathBuf,
    pub flags: String,
    pub offset: usize,
    pub magic: Vec<u8>,
    pub mask: Vec<u8>,
}

impl Entry {
    /// Reads an entry's text; one that matches file name extensions has no magic.
    pub fn parse(name: &str, text: &str) -> Option<Self> {
        let mut entry = Self { name: name.to_owned(), ..Self::default() };
        for (number, line) in text.lines().enumerate() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "enabled" => entry.enabled = true,
                "disabled" => entry.enabled = false,
                "interpreter" => entry.interpreter = PathBuf::from(value),
                "flags:" => value.trim().clone_into(&mut entry.flags),
                "offset" => entry.offset = value.trim().parse().ok()?,
                "magic" => entry.magic = unhex(value)?,
                "mask" => entry.mask = unhex(value)?,
                // The first line of an entry is always its state.
                _ if number == 0 => return None,
                _ => {}
            }
        }
        Some(entry)
    }

    /// Tells whether programs that start with `head` are run by this entry.
    pub fn matches(&self, head: &[u8]) -> bool {
        let Some(head) = head.get(self.offset..) else { return false };
        self.enabled
            && !self.magic.is_empty()
            && head.len() >= self.magic.len()
            && self.magic.iter().enumerate().all(|(at, byte)| {
                let mask = self.mask.get(at).copied().unwrap_or(0xff);
                head[at] & mask == byte & mask
            })
    }

    /// Tells whether programs of `guest` are run by this entry.
    pub fn serves(&self, guest: &Guest) -> bool {
        self.matches(&guest.magic())
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_the_kernel_wants_it() {
        let line = registration(Guest::of("arm64").unwrap(), Path::new("/usr/bin/qemu"), FLAGS).unwrap();
        assert_eq!(
            line,
            ":qemu-aarch64:M:0:\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\
             \\x02\\x00\\xb7\\x00:\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\
             \\xfe\\xff\\xff\\xff:/usr/bin/qemu:POCF"
        );
        let guest = Guest::of("arm").unwrap();
        assert!(matches!(registration(guest, Path::new("/a:b"), "F"), Err(LineError::BadPath(_))));
        let long = format!("/{}", "x".repeat(2000));
        assert!(matches!(registration(guest, Path::new(&long), "F"), Err(LineError::TooLong(_))));
    }

    #[test]
    fn entries_are_read_and_matched() {
        let text = "enabled\ninterpreter /usr/bin/qemu-aarch64\nflags: POCF\noffset 0\n\
                    magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
        let entry = Entry::parse("qemu-aarch64", text).unwrap();
        assert_eq!(entry.flags, "POCF");
        assert_eq!(entry.interpreter, Path::new("/usr/bin/qemu-aarch64"));
        assert!(entry.serves(Guest::of("arm64").unwrap()));
        assert!(!entry.serves(Guest::of("amd64").unwrap()));
        let disabled = Entry::parse("x", &text.replacen("enabled", "disabled", 1)).unwrap();
        assert!(!disabled.serves(Guest::of("arm64").unwrap()));
        assert!(!entry.matches(b"\x7fELF"));
        let extension =
            Entry::parse("jar", "enabled\ninterpreter /bin/jexec\nflags: \nextension .jar\n").unwrap();
        assert!(!extension.matches(b"PK"));
        for bad in
            ["", "nonsense\n", "enabled\nmagic 7f4\n", "enabled\noffset x\n", "enabled\nmagic \u{fc}\u{fc}"]
        {
            assert_eq!(Entry::parse("x", bad).filter(|e| e.enabled), None, "{bad:?}");
        }
    }
}
