//! Installs a compiled seccomp filter.

use rustix::io::Errno;

use super::clone::last_errno;

/// One instruction of a filter, in the kernel's layout.
pub(crate) use libc::sock_filter as Instruction;

/// Installs the filter in the calling process, for good.
///
/// Needs CAP_SYS_ADMIN in the user namespace, because "no new privileges" is not set: setuid programs
/// have to work in a build step.
pub(crate) fn install(filter: &[Instruction]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::TOOBIG)?,
        filter: filter.as_ptr().cast_mut(),
    };
    let load = |flags: libc::c_ulong| {
        // SAFETY: the program points to `len` instructions that live until the call returns, and the
        // kernel only reads them.
        unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
                flags,
                &raw const program,
            )
        }
    };
    // Without the flag, older kernels slow down every process that has a filter.
    if load(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as libc::c_ulong) == 0 || load(0) == 0 {
        return Ok(());
    }
    Err(last_errno())
}
