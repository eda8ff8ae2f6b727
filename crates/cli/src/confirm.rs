//! Questions to the person at the terminal.

use std::io::{self, BufRead as _, Read as _};

use crate::error::Failure;
use crate::output;
use crate::settings::Surroundings;

/// Asks, and reads one line; anything but yes is no.
pub(crate) fn confirmed(question: &str, around: &mut Surroundings) -> Result<bool, Failure> {
    output::text_to_stderr(&format!("{question} [y/N] "));
    let mut line = String::new();
    io::BufReader::new(around.stdin().take(64))
        .read_line(&mut line)
        .map_err(|error| Failure::io("failed to read the answer", &error))?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
