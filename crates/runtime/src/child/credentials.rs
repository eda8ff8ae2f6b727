//! Who a step is and what it may do: user, groups, capabilities.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::spec::{ProcessSettings, Security};

/// The capabilities that container engines leave to a process by default.
fn default_capabilities() -> CapabilitySet {
    CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FSETID
        | CapabilitySet::FOWNER
        | CapabilitySet::MKNOD
        | CapabilitySet::NET_RAW
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::SETFCAP
        | CapabilitySet::SETPCAP
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::KILL
        | CapabilitySet::AUDIT_WRITE
}

/// Becomes the step's user with the capabilities it may have.
///
/// In the sandbox the bounding set is what counts: `execve` gives root exactly that, and other users
/// nothing. An insecure step keeps everything, whoever its user is, by the ambient set.
pub(super) fn take(settings: &ProcessSettings) -> Result<(), Errno> {
    let own = rustix::thread::capabilities(None)?.permitted;
    let insecure = settings.security == Security::Insecure;
    rustix::thread::clear_ambient_capability_set()?;
    if insecure {
        rustix::thread::set_keep_capabilities(true)?;
    } else {
        drop_bounding(default_capabilities())?;
    }
    let user = &settings.user;
    let mut groups: Vec<Gid> = user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    if !user.additional_gids.contains(&user.gid) {
        groups.insert(0, Gid::from_raw(user.gid));
    }
    rustix::thread::set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    let none = CapabilitySet::empty();
    if insecure {
        let all = CapabilitySets { effective: own, permitted: own, inheritable: own };
        rustix::thread::set_capabilities(None, all)?;
        rustix::thread::set_keep_capabilities(false)?;
        return own.iter().try_for_each(|one| rustix::thread::configure_capability_in_ambient_set(one, true));
    }
    let held = if user.uid == 0 { own & default_capabilities() } else { none };
    let sets = CapabilitySets { effective: held, permitted: held, inheritable: none };
    rustix::thread::set_capabilities(None, sets)
}

/// Drops every capability but `allowed` from the bounding set.
fn drop_bounding(allowed: CapabilitySet) -> Result<(), Errno> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if allowed.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last capability that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
