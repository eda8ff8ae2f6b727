//! Numbers as flags and build arguments write them.

/// Parses an unsigned number of 32 bits, without a sign.
pub(crate) fn parse_unsigned(text: &str, radix: u32) -> Option<u32> {
    if text.starts_with('+') { None } else { u32::from_str_radix(text, radix).ok() }
}
