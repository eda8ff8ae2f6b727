//! Arithmetic.

use std::str::FromStr as _;

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, RoundingMode, Signed as _, ToPrimitive as _, Zero as _};

use super::{Function, count, function, integer, text};
use crate::error::{Problem, Result, fail};
use crate::value::{Value, from_float, parse_number};

pub(super) const FUNCTIONS: &[Function] = &[
    function("absolute", "n", |a| Ok(Value::Number(number(&a[0]).abs()))),
    function("add", "nn", |a| Ok(Value::Number(number(&a[0]) + number(&a[1])))),
    function("ceil", "n", |a| Ok(round(&a[0], RoundingMode::Ceiling))),
    function("divide", "nn", |a| divisor(&a[1]).map(|b| Value::Number((number(&a[0]) / b).normalized()))),
    function("floor", "n", |a| Ok(round(&a[0], RoundingMode::Floor))),
    function("int", "n", |a| Ok(round(&a[0], RoundingMode::Down))),
    function("log", "nn", log),
    function("max", "n*", |a| extreme(a, |new, old| new > old)),
    function("min", "n*", |a| extreme(a, |new, old| new < old)),
    function("modulo", "nn", |a| divisor(&a[1]).map(|b| Value::Number(number(&a[0]) % b))),
    function("multiply", "nn", |a| Ok(Value::Number((number(&a[0]) * number(&a[1])).normalized()))),
    function("negate", "n", |a| Ok(Value::Number(-number(&a[0])))),
    function("parseint", "sn", parse_int),
    function("pow", "nn", pow),
    function("range", "n*", range),
    function("signum", "n", |a| Ok(Value::Number(BigDecimal::from(sign(&number(&a[0])))))),
    function("subtract", "nn", |a| Ok(Value::Number(number(&a[0]) - number(&a[1])))),
];

fn number(value: &Value) -> BigDecimal {
    match value {
        Value::Number(number) => number.clone(),
        _ => BigDecimal::zero(),
    }
}

fn sign(number: &BigDecimal) -> i32 {
    match (number.is_zero(), number.is_negative()) {
        (true, _) => 0,
        (false, true) => -1,
        (false, false) => 1,
    }
}

fn round(value: &Value, mode: RoundingMode) -> Value {
    Value::Number(number(value).with_scale_round(0, mode))
}

fn divisor(value: &Value) -> Result<BigDecimal> {
    let number = number(value);
    if number.is_zero() { fail("division by zero") } else { Ok(number) }
}

fn extreme(values: &[Value], better: fn(&BigDecimal, &BigDecimal) -> bool) -> Result<Value> {
    let numbers = values.iter().map(number);
    let best = numbers.reduce(|old, new| if better(&new, &old) { new } else { old });
    best.map(Value::Number).ok_or_else(|| Problem::new("at least one number is required").into())
}

fn float(value: &Value) -> Result<f64> {
    number(value).to_f64().ok_or_else(|| Problem::new("the number is out of range").into())
}

fn real(result: f64) -> Result<Value> {
    if !result.is_finite() {
        return fail("the result is no number that can be written");
    }
    from_float(result).map(Value::Number).ok_or_else(|| Problem::new("the result is out of range").into())
}

fn log(a: &[Value]) -> Result<Value> {
    real(float(&a[0])?.ln() / float(&a[1])?.ln())
}

fn pow(a: &[Value]) -> Result<Value> {
    real(float(&a[0])?.powf(float(&a[1])?))
}

fn parse_int(a: &[Value]) -> Result<Value> {
    let base = integer(&a[1])?;
    if !(2..=62).contains(&base) {
        return fail("the base must be between 2 and 62");
    }
    let digits = text(&a[0]);
    let parsed = if base <= 36 {
        u32::try_from(base).ok().and_then(|base| BigInt::parse_bytes(digits.as_bytes(), base))
    } else {
        large_base(digits, base)
    };
    parsed
        .map(|int| Value::Number(BigDecimal::from(int)))
        .ok_or_else(|| Problem::new(format!("cannot read `{digits}` as an integer of base {base}")).into())
}

/// Reads digits beyond 36, where upper case comes after lower case.
fn large_base(text: &str, base: i64) -> Option<BigInt> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let mut number = BigInt::from_str("0").ok()?;
    for c in digits.chars() {
        let digit = match c {
            '0'..='9' => c as i64 - '0' as i64,
            'a'..='z' => c as i64 - 'a' as i64 + 10,
            'A'..='Z' => c as i64 - 'A' as i64 + 36,
            _ => return None,
        };
        if digit >= base {
            return None;
        }
        number = number * base + digit;
    }
    (!digits.is_empty()).then(|| if negative { -number } else { number })
}

fn range(a: &[Value]) -> Result<Value> {
    /// The reference's limit.
    const MOST: usize = 1024;
    let numbers: Vec<BigDecimal> = a.iter().map(number).collect();
    let one = || parse_number("1").unwrap_or_default();
    let (start, end, step) = match numbers.as_slice() {
        [end] if *end < BigDecimal::zero() => (BigDecimal::zero(), end.clone(), -one()),
        [end] => (BigDecimal::zero(), end.clone(), one()),
        [start, end] if end < start => (start.clone(), end.clone(), -one()),
        [start, end] => (start.clone(), end.clone(), one()),
        [start, end, step] => (start.clone(), end.clone(), step.clone()),
        _ => return fail("`range` takes one to three numbers"),
    };
    if step.is_zero() {
        return fail("the step of `range` must not be zero");
    }
    let down = step.is_negative();
    if (down && end > start) || (!down && end < start) {
        return fail("the end of `range` is not in the direction of its step");
    }
    let mut list = Vec::new();
    let mut next = start;
    while if down { next > end } else { next < end } {
        if list.len() == MOST {
            return fail(format!("`range` makes at most {MOST} numbers"));
        }
        list.push(Value::Number(next.clone()));
        next += &step;
    }
    Ok(Value::List(list))
}

/// Reads an exact count for other modules' limits.
pub(super) fn limited(value: &Value, most: usize) -> Result<usize> {
    let count = count(value)?;
    if count > most { fail(format!("the number must not be larger than {most}")) } else { Ok(count) }
}
