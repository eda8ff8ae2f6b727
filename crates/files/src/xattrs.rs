//! Extended attributes: which ones an image carries, and moving them between open files.
//!
//! An image carries file capabilities and what programs and users attach (`user.*`, and `trusted.*` where that
//! can be read); it carries no security label, access control list or label of the host's.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Name and value of an attribute.
pub(crate) type Attribute = (Vec<u8>, Vec<u8>);

/// Says whether an attribute belongs to the image.
fn is_carried(name: &[u8]) -> bool {
    let hidden: [&[u8]; 3] = [b"security.", b"system.", b"com.apple."];
    name == b"security.capability" || !hidden.iter().any(|prefix| name.starts_with(prefix))
}

/// Reads the attributes an image would carry, in the order of their names.
pub(crate) fn read(fd: impl AsFd) -> rustix::io::Result<Vec<Attribute>> {
    let fd = fd.as_fd();
    let mut names = [0_u8; 1024];
    let mut long_names;
    let names = match rustix::fs::flistxattr(fd, &mut names[..]) {
        Ok(length) => &names[..length],
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            // The kernel's limit for a list.
            long_names = vec![0_u8; 64 * 1024];
            let length = rustix::fs::flistxattr(fd, &mut long_names[..])?;
            &long_names[..length]
        }
        Err(errno) => return Err(errno),
    };
    let mut attributes = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if is_carried(name.to_bytes()) {
            match get(fd, name) {
                Ok(value) => attributes.push((name.to_bytes().to_vec(), value)),
                // Removed meanwhile, or not for this process to see.
                Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    attributes.sort();
    Ok(attributes)
}

fn get(fd: impl AsFd, name: &CStr) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0_u8; 256];
    loop {
        match rustix::fs::fgetxattr(fd.as_fd(), name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(value);
            }
            // The kernel's limit for a value.
            Err(Errno::RANGE) if value.len() < 64 * 1024 => value.resize(64 * 1024, 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// Sets attributes; those the file system or the privileges of this process do not allow are left out, as
/// the reference does.
pub(crate) fn write(fd: impl AsFd, attributes: &[Attribute]) -> rustix::io::Result<()> {
    for (name, value) in attributes {
        match rustix::fs::fsetxattr(fd.as_fd(), name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
