//! The colours of the displays: BuildKit's defaults, `BUILDKIT_COLORS`, none with `NO_COLOR`.

use crate::settings::Surroundings;

/// What a line says, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Run,
    Cancel,
    Error,
    Warning,
    Faint,
    Bold,
}

/// Holds the sequences that start a colour; all empty without colours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Palette {
    run: String,
    cancel: String,
    error: String,
    warning: String,
    faint: String,
    bold: String,
    /// Say `ERROR:` as buildx does.
    loud: bool,
}

impl Palette {
    /// Says `ERROR:` where slipway says `error:`.
    pub(crate) fn loud(self) -> Self {
        Self { loud: true, ..self }
    }

    /// Returns the word that errors begin with.
    pub(crate) fn error(&self) -> String {
        self.paint(Tone::Error, if self.loud { "ERROR:" } else { "error:" })
    }

    /// Uses no colours.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Uses BuildKit's colours.
    pub(crate) fn standard() -> Self {
        Self {
            run: sgr("34"),
            cancel: sgr("33"),
            error: sgr("31"),
            warning: sgr("33"),
            faint: sgr("2"),
            bold: sgr("1"),
            loud: false,
        }
    }

    /// Chooses by the environment; colours are for terminals only.
    pub(crate) fn choose(around: &Surroundings) -> Self {
        let plain = !around.stderr_is_terminal
            || around.non_empty("NO_COLOR").is_some()
            || around.variable("TERM") == Some("dumb");
        if plain {
            return Self::none();
        }
        let mut palette = Self::standard();
        if let Some(value) = around.non_empty("BUILDKIT_COLORS") {
            palette.customise(value);
        }
        palette
    }

    /// Applies `run=green:error=255,0,0`; entries that make no sense are left out, as in BuildKit.
    fn customise(&mut self, value: &str) {
        for (key, color) in value.split(':').filter_map(|entry| entry.split_once('=')) {
            let Some(sequence) = color_sequence(color) else { continue };
            match key.to_ascii_lowercase().as_str() {
                "run" => self.run = sequence,
                "cancel" => self.cancel = sequence,
                "error" => self.error = sequence,
                "warning" => self.warning = sequence,
                _ => {}
            }
        }
    }

    /// Wraps `text` in the colour of `tone`.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        let start = match tone {
            Tone::Run => &self.run,
            Tone::Cancel => &self.cancel,
            Tone::Error => &self.error,
            Tone::Warning => &self.warning,
            Tone::Faint => &self.faint,
            Tone::Bold => &self.bold,
        };
        if start.is_empty() { text.to_owned() } else { format!("{start}{text}\x1b[0m") }
    }
}

fn sgr(code: &str) -> String {
    format!("\x1b[{code}m")
}

fn color_sequence(name: &str) -> Option<String> {
    const NAMES: &[&str] = &["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
    let name = name.to_ascii_lowercase();
    if name == "default" {
        return Some(sgr("39"));
    }
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return Some(sgr(&(30 + at).to_string()));
    }
    if let Some(at) = name.strip_prefix("light-").and_then(|base| NAMES.iter().position(|n| *n == base)) {
        return Some(sgr(&(90 + at).to_string()));
    }
    let parts: Vec<u8> = name.split(',').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    match parts.as_slice() {
        [r, g, b] => Some(sgr(&format!("38;2;{r};{g};{b}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_customised() {
        let mut palette = Palette::standard();
        palette.customise("run=green:ERROR=255,0,10:warning=light-red:cancel=nonsense:x=red:error");
        assert_eq!(palette.paint(Tone::Run, "x"), "\x1b[32mx\x1b[0m");
        assert_eq!(palette.paint(Tone::Error, "x"), "\x1b[38;2;255;0;10mx\x1b[0m");
        assert_eq!(palette.paint(Tone::Warning, "x"), "\x1b[91mx\x1b[0m");
        assert_eq!(palette.paint(Tone::Cancel, "x"), "\x1b[33mx\x1b[0m");
        assert_eq!(Palette::none().paint(Tone::Error, "x"), "x");
    }
}
