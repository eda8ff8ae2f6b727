//! The command line of slipway.

#![forbid(unsafe_code)]

fn main() {}
