//! Programs of the host that slipway starts for itself, as `git`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Ties a program to the thread that starts it: when that ends, by whatever cause, it is told to end too.
///
/// It runs in a session of its own, so that it cannot ask the person at the terminal anything, and its
/// process group can be signalled by the number of the process. Files it makes are readable for all.
pub fn tether(command: &mut Command) {
    let settle = || {
        // SAFETY: these calls take numbers and touch no memory; they may be made between fork and exec.
        unsafe {
            libc::umask(0o022);
            libc::setsid();
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(settle) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_a_session_and_a_mask_of_its_own() {
        let mut command = Command::new("sh");
        command.args(["-c", "umask; cut -d' ' -f1,6 /proc/$$/stat"]);
        tether(&mut command);
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let words: Vec<&str> = output.split_whitespace().collect();
        assert_eq!(words[0], "0022");
        assert_eq!(words[1], words[2], "the session is the process's own: {output}");
    }
}
