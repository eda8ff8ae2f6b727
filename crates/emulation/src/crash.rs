//! Tells a crash of the emulator from a failure of the program it runs.

/// Signals that a program seldom dies of, and an emulator does: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGSEGV.
const SUSPICIOUS: [(i32, &str); 5] =
    [(4, "SIGILL"), (5, "SIGTRAP"), (6, "SIGABRT"), (7, "SIGBUS"), (11, "SIGSEGV")];

/// A failure of an emulated step that is probably not the program's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// What happened, as one phrase.
    pub what: String,
    /// What may help.
    pub hint: String,
}

/// Looks at the exit code (128 and the signal's number for a killed process) and the end of the output of
/// an emulated step that failed.
///
/// Output is the better witness; a code alone is believed only for signals that mean a crash.
pub fn classify(code: i32, output_tail: &str) -> Option<Crash> {
    if let Some(loader) = missing_loader(output_tail) {
        return Some(Crash {
            what: format!("the image has no loader `{loader}` for its program"),
            hint: "the program is dynamically linked: install the C library of its platform in the image, or copy \
                   a statically linked program"
                .to_owned(),
        });
    }
    if let Some(signal) = after(output_tail, "qemu: uncaught target signal ") {
        let number = signal.split(|c: char| !c.is_ascii_digit()).next().and_then(|text| text.parse().ok());
        return Some(crashed(&match number.and_then(name) {
            Some(name) => format!("a program crashed in the emulator with {name}"),
            None => "a program crashed in the emulator".to_owned(),
        }));
    }
    for mark in [
        "qemu: unhandled CPU exception",
        "tcg fatal error",
        "qemu: internal",
        "ERROR:../accel/tcg",
        "ERROR:../linux-user",
    ] {
        if output_tail.contains(mark) {
            return Some(crashed("the emulator itself failed"));
        }
    }
    if let Some(call) = after(output_tail, "qemu: Unsupported syscall: ") {
        let number = call.split_whitespace().next().unwrap_or_default();
        return Some(crashed(&format!("the emulator does not know system call {number}")));
    }
    let name = name(code.checked_sub(128)?)?;
    Some(crashed(&format!("a program of the step crashed with {name} under emulation")))
}

fn crashed(what: &str) -> Crash {
    Crash {
        what: what.to_owned(),
        hint: "this is often the emulator's fault: try again, try another version of QEMU (SLIPWAY_QEMU_DIR), or run \
               the stage on the build platform with `FROM --platform=$BUILDPLATFORM`"
            .to_owned(),
    }
}

fn name(signal: i32) -> Option<&'static str> {
    SUSPICIOUS.iter().find(|(number, _)| *number == signal).map(|(_, name)| *name)
}

/// Returns the loader that QEMU could not open: `qemu-aarch64: Could not open '/lib/ld-linux-aarch64.so.1': …`.
fn missing_loader(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let path = after(line, ": Could not open '")?.split('\'').next()?;
        (line.contains("qemu") && path.contains("/ld")).then_some(path)
    })
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.rfind(mark).map(|at| &text[at + mark.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulator_crashes_are_told_from_failures() {
        let what = |code, text| classify(code, text).map(|crash| crash.what);
        assert_eq!(what(1, "error: something\n"), None);
        assert_eq!(what(127, "sh: x: not found"), None);
        assert_eq!(what(137, ""), None);
        assert_eq!(what(0, ""), None);
        assert_eq!(what(i32::MIN, ""), None);
        assert_eq!(
            what(139, "Segmentation fault").unwrap(),
            "a program of the step crashed with SIGSEGV under emulation"
        );
        assert_eq!(
            what(1, "x\nqemu: uncaught target signal 4 (Illegal instruction) - core dumped\ny").unwrap(),
            "a program crashed in the emulator with SIGILL"
        );
        assert_eq!(what(1, "qemu: uncaught target signal ").unwrap(), "a program crashed in the emulator");
        assert_eq!(
            what(255, "qemu-aarch64-static: Could not open '/lib/ld-linux-aarch64.so.1': No such file")
                .unwrap(),
            "the image has no loader `/lib/ld-linux-aarch64.so.1` for its program"
        );
        assert_eq!(
            what(1, "qemu: Unsupported syscall: 435\n").unwrap(),
            "the emulator does not know system call 435"
        );
    }
}
