//! How a foreign platform runs here: binfmt_misc, QEMU discovery, CPU profiles, ELF headers.

#![forbid(unsafe_code)]
