//! Addresses and prefixes.

use std::net::IpAddr;

use bigdecimal::ToPrimitive as _;

use super::{Function, function, integer, text};
use crate::error::{Problem, Result, fail};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    function("cidrhost", "sn", host),
    function("cidrnetmask", "s", netmask),
    function("cidrsubnet", "snn", |a| {
        let prefix = Prefix::parse(text(&a[0]))?;
        Ok(Value::String(prefix.subnet(integer(&a[1])?, big(&a[2])?)?.to_string()))
    }),
    function("cidrsubnets", "sn*", subnets),
];

/// A network.
#[derive(Clone, Copy)]
struct Prefix {
    bits: u128,
    length: u32,
    v6: bool,
}

impl Prefix {
    fn parse(text: &str) -> Result<Self> {
        let invalid = || {
            Problem::new(format!("invalid CIDR expression `{text}`"))
                .hint("write an address and the length of its prefix: `10.0.0.0/8`")
        };
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let length: u32 = length.parse().map_err(|_| invalid())?;
        let (bits, v6) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)), false),
            IpAddr::V6(address) => (u128::from(address), true),
        };
        let prefix = Self { bits, length, v6 };
        if length > prefix.width() {
            return Err(invalid().into());
        }
        Ok(Self { bits: bits & prefix.mask(), ..prefix })
    }

    fn width(self) -> u32 {
        if self.v6 { 128 } else { 32 }
    }

    fn host_bits(self) -> u32 {
        self.width() - self.length
    }

    fn mask(self) -> u128 {
        let all = if self.v6 { u128::MAX } else { u128::from(u32::MAX) };
        all & !low_bits(self.host_bits())
    }

    fn address(self, bits: u128) -> String {
        if self.v6 {
            std::net::Ipv6Addr::from(bits).to_string()
        } else {
            std::net::Ipv4Addr::from(u32::try_from(bits).unwrap_or_default()).to_string()
        }
    }

    fn subnet(self, new_bits: i64, number: i128) -> Result<Self> {
        let new_bits = u32::try_from(new_bits)
            .ok()
            .filter(|bits| *bits <= self.host_bits())
            .ok_or_else(|| Problem::new(format!("not enough bits in `{self}` to extend it by {new_bits}")))?;
        let number =
            u128::try_from(number).ok().filter(|number| *number <= low_bits(new_bits)).ok_or_else(|| {
                Problem::new(format!("{new_bits} bits do not hold the network number {number}"))
            })?;
        let length = self.length + new_bits;
        let shift = self.width() - length;
        let bits = self.bits | number.checked_shl(shift).unwrap_or(0);
        Ok(Self { bits, length, ..self })
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address(self.bits), self.length)
    }
}

fn low_bits(count: u32) -> u128 {
    if count >= 128 { u128::MAX } else { (1 << count) - 1 }
}

fn big(value: &Value) -> Result<i128> {
    match value {
        Value::Number(number) if number.is_integer() => {
            number.to_i128().ok_or_else(|| Problem::new("the number is out of range").into())
        }
        _ => fail("a whole number is required"),
    }
}

fn host(a: &[Value]) -> Result<Value> {
    let prefix = Prefix::parse(text(&a[0]))?;
    let number = big(&a[1])?;
    let last = low_bits(prefix.host_bits());
    let offset = if number < 0 {
        // Negative numbers count from the end.
        last.checked_sub(number.unsigned_abs() - 1)
    } else {
        Some(number.unsigned_abs())
    };
    match offset.filter(|offset| *offset <= last) {
        Some(offset) => Ok(Value::String(prefix.address(prefix.bits | offset))),
        None => fail(format!("the prefix `{prefix}` has no host {number}")),
    }
}

fn netmask(a: &[Value]) -> Result<Value> {
    let prefix = Prefix::parse(text(&a[0]))?;
    if prefix.v6 {
        return fail("only IPv4 networks have a netmask");
    }
    Ok(Value::String(prefix.address(prefix.mask())))
}

fn subnets(a: &[Value]) -> Result<Value> {
    let prefix = Prefix::parse(text(&a[0]))?;
    let mut next = prefix.bits;
    let mut list = Vec::new();
    for value in &a[1..] {
        let new_bits = integer(value)?;
        if !(1..=32).contains(&new_bits) {
            return fail("a prefix must be extended by 1 to 32 bits");
        }
        let length = prefix.length + u32::try_from(new_bits).unwrap_or(0);
        if length > prefix.width() {
            return fail(format!("not enough bits in `{prefix}` to extend it by {new_bits}"));
        }
        let size = low_bits(prefix.width() - length);
        // Each network starts at a multiple of its size.
        let start = next.checked_add(size).map(|end| end & !size);
        let Some(start) = start.filter(|start| start & prefix.mask() == prefix.bits) else {
            return fail(format!("not enough address space left in `{prefix}`"));
        };
        list.push(Value::String(Prefix { bits: start, length, ..prefix }.to_string()));
        next = start.saturating_add(size).saturating_add(1);
    }
    Ok(Value::List(list))
}
