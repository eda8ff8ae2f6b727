//! `execve` with strings of ours.

use std::ffi::{CString, c_char};

use rustix::io::Errno;

use super::clone::last_errno;

/// Replaces the calling process; returns only if that failed.
pub(crate) fn execute(path: &CString, args: &[CString], env: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: all pointers are to C strings that live until the call returns, and both lists end with a
    // null pointer.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    last_errno()
}
