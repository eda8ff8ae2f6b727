//! What a bake asks for beyond the working directory, and how a person is told.

use std::path::{Path, PathBuf};

use slipway_bake::{Bake, Existing, Grants, Missing, Needs};
use slipway_model::{Diagnostic, ErrorKind};

use super::super::Surroundings;
use super::Loaded;

/// Finds what is touched and was not allowed.
pub(crate) fn missing(grants: &Grants, bake: &Bake, loaded: &Loaded, around: &Surroundings) -> Missing {
    let variable = |name: &str| around.variable(name).map(str::to_owned);
    let checks_files = Missing::checks_files(loaded.at_address, variable);
    let needs = Needs::of(bake.targets.values(), loaded.paths());
    Missing::of(&needs, &[grants, &bake.granted], &around.absolute(""), checks_files, &existing)
}

/// Lists what is asked for, for a person to decide.
pub(crate) fn request(missing: &Missing) -> String {
    let reasons: String = missing.reasons.iter().map(|reason| format!(" - {reason}\n")).collect();
    format!(
        "Your build is requesting privileges for following possibly insecure capabilities:\n\n{reasons}\n\
         Pass {} to grant them.\n\n",
        flags(missing)
    )
}

/// Refuses what the command `line` asks for, with the command that allows it.
pub(crate) fn refused(line: &[String], missing: &Missing) -> Diagnostic {
    let command = line.iter().position(|word| word == "bake" || word == "f").map_or(0, |at| at + 1);
    let (before, after) = line.split_at(command);
    let mut words: Vec<String> = before.iter().map(|word| quoted(word)).collect();
    words.push(flags(missing));
    words.extend(after.iter().map(|word| quoted(word)));
    Diagnostic::new(ErrorKind::User, "additional privileges requested")
        .hint(format!("allow it: `{}`", words.join(" ")))
}

fn flags(missing: &Missing) -> String {
    missing.flags.iter().map(|flag| quoted(flag)).collect::<Vec<_>>().join(" ")
}

/// Quotes a word for a shell, where it needs that.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    if word.chars().all(plain) && !word.is_empty() {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Follows symbolic links as far as a path exists.
fn existing(path: &Path) -> Existing {
    for at in path.ancestors() {
        if let Ok(existing) = at.canonicalize() {
            let missing = path.strip_prefix(at).map(Path::to_owned).unwrap_or_default();
            return Existing { existing, missing };
        }
    }
    Existing { existing: path.to_owned(), missing: PathBuf::new() }
}
