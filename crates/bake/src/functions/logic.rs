//! Comparison and logic.

use super::{Function, function, truth};
use crate::error::Result;
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    function("and", "bb", |a| Ok(Value::Bool(truth(&a[0]) && truth(&a[1])))),
    function("equal", "VV", |a| Ok(Value::Bool(a[0].equals(&a[1])))),
    function("greaterthan", "nn", |a| compare(a, |a, b| a > b)),
    function("greaterthanorequalto", "nn", |a| compare(a, |a, b| a >= b)),
    function("lessthan", "nn", |a| compare(a, |a, b| a < b)),
    function("lessthanorequalto", "nn", |a| compare(a, |a, b| a <= b)),
    function("not", "b", |a| Ok(Value::Bool(!truth(&a[0])))),
    function("notequal", "VV", |a| Ok(Value::Bool(!a[0].equals(&a[1])))),
    function("or", "bb", |a| Ok(Value::Bool(truth(&a[0]) || truth(&a[1])))),
];

fn compare(
    a: &[Value],
    holds: fn(&bigdecimal::BigDecimal, &bigdecimal::BigDecimal) -> bool,
) -> Result<Value> {
    match (&a[0], &a[1]) {
        (Value::Number(a), Value::Number(b)) => Ok(Value::Bool(holds(a, b))),
        _ => Ok(Value::Bool(false)),
    }
}
