//! How a foreign platform runs here: binfmt_misc, QEMU discovery, CPU profiles, ELF headers.
//!
//! The decision, [`decide`], is a pure function of what is known about the machine ([`HostFacts`]) and
//! the platform asked for. Where the kernel can (Linux 6.7), foreign programs run through a private
//! binfmt_misc table that the sandbox makes from [`Qemu::registration`]; nothing has to be installed in
//! the host's table, and nothing there is used, so that a build does not depend on what somebody
//! registered. The crate never runs a build step, and writes the host's table only for [`host_table`].

#![forbid(unsafe_code)]

pub mod binfmt;
mod crash;
mod decide;
pub mod elf;
mod guest;
mod host;
pub mod host_table;
mod probe;
mod qemu;

pub use crash::{Crash, classify};
pub use decide::{Emulator, Handler, Reason, cpu_level_warning, decide, needs_linux32, runnable};
pub use guest::{GUESTS, Guest};
pub use host::{EmulationOptions, HostFacts, NamedEmulatorError, PrivateBinfmt};
pub use qemu::{Qemu, Version};
