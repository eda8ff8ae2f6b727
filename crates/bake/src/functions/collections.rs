//! Lists, sets, maps and objects.

use super::{Function, count, elements, function, integer, text};
use crate::error::{Problem, Result, fail};
use crate::eval::{element as at_key, with_article};
use crate::value::{Members, Type, Value, convert, unify};

pub(super) const FUNCTIONS: &[Function] = &[
    function("chunklist", "ln", chunk_list),
    function("coalesce", "V*", coalesce),
    function("coalescelist", "v*", coalesce_list),
    function("compact", "L", |a| {
        let filled = |value: &&Value| !text(value).is_empty();
        Ok(Value::List(elements(&a[0]).iter().filter(filled).cloned().collect()))
    }),
    function("concat", "v*", concat),
    function("contains", "vV", |a| Ok(Value::Bool(sequence(&a[0])?.iter().any(|v| same(v, &a[1]))))),
    function("distinct", "l", distinct),
    function("element", "vn", element),
    function("flatten", "v", |a| {
        let mut flat = Vec::new();
        flatten(sequence(&a[0])?, &mut flat);
        Ok(Value::Tuple(flat))
    }),
    function("hasindex", "vv", |a| Ok(Value::Bool(at_key(&a[0], &a[1]).is_ok()))),
    function("index", "vv", |a| at_key(&a[0], &a[1])),
    function("indexof", "vv", index_of),
    function("keys", "v", |a| Ok(Value::strings(members(&a[0])?.keys().cloned()))),
    function("length", "v", length),
    function("lookup", "vsV", |a| Ok(members(&a[0])?.get(text(&a[1])).unwrap_or(&a[2]).clone())),
    function("merge", "V*", merge),
    function("reverselist", "v", |a| {
        let list = sequence(&a[0])?.iter().rev().cloned().collect();
        Ok(like(&a[0], list))
    }),
    function("sethaselement", "tv", |a| Ok(Value::Bool(elements(&a[0]).iter().any(|v| same(v, &a[1]))))),
    function("setintersection", "tt*", |a| {
        Ok(Value::set(fold(a, |all, set| all.retain(|value| has(set, value)))))
    }),
    function("setproduct", "v*", set_product),
    function("setsubtract", "tt", |a| {
        Ok(Value::set(fold(a, |all, set| all.retain(|value| !has(set, value)))))
    }),
    function("setsymmetricdifference", "tt*", |a| {
        Ok(Value::set(fold(a, |all, set| {
            let new: Vec<Value> = set.iter().filter(|value| !has(all, value)).cloned().collect();
            all.retain(|value| !has(set, value));
            all.extend(new);
        })))
    }),
    function("setunion", "tt*", |a| Ok(Value::set(fold(a, |all, set| all.extend_from_slice(set))))),
    function("slice", "vnn", slice),
    function("sort", "L", sort),
    function("values", "v", |a| {
        let values: Vec<Value> = members(&a[0])?.values().cloned().collect();
        Ok(if matches!(a[0], Value::Map(_)) { Value::List(values) } else { Value::Tuple(values) })
    }),
    function("zipmap", "Lv", zip_map),
];

/// The most elements that one function makes.
const MOST: usize = 1 << 16;

fn sequence(value: &Value) -> Result<&[Value]> {
    value.elements().ok_or_else(|| {
        Problem::new("invalid argument")
            .because(format!("a list, tuple or set is required, this is {}", with_article(value)))
            .into()
    })
}

fn members(value: &Value) -> Result<&Members> {
    value.members().ok_or_else(|| {
        Problem::new("invalid argument")
            .because(format!("a map or an object is required, this is {}", with_article(value)))
            .into()
    })
}

/// Makes a list or a tuple, as `model` is one.
fn like(model: &Value, list: Vec<Value>) -> Value {
    if matches!(model, Value::Tuple(_)) { Value::Tuple(list) } else { Value::List(list) }
}

/// Compares elements with a value that may have to be converted first.
fn same(element: &Value, wanted: &Value) -> bool {
    element.equals(wanted)
        || convert(wanted, &Type::of(element))
            .is_ok_and(|wanted| element.equals(&wanted) && Type::of(element).is_primitive())
}

fn has(list: &[Value], value: &Value) -> bool {
    list.iter().any(|other| other.equals(value))
}

fn fold(sets: &[Value], mut step: impl FnMut(&mut Vec<Value>, &[Value])) -> Vec<Value> {
    let mut all = sets.first().map(|set| elements(set).to_vec()).unwrap_or_default();
    for set in sets.iter().skip(1) {
        step(&mut all, elements(set));
    }
    all
}

fn chunk_list(a: &[Value]) -> Result<Value> {
    let (list, size) = (elements(&a[0]), count(&a[1])?);
    let chunks = if size == 0 {
        vec![Value::List(list.to_vec())]
    } else {
        list.chunks(size).map(|chunk| Value::List(chunk.to_vec())).collect()
    };
    Ok(Value::List(if list.is_empty() { Vec::new() } else { chunks }))
}

fn coalesce(a: &[Value]) -> Result<Value> {
    let Some(kind) = unify(&a.iter().map(Type::of).collect::<Vec<_>>()) else {
        return fail("all arguments of `coalesce` must have the same type");
    };
    match a.iter().find(|value| !value.is_null()) {
        Some(value) => Ok(convert(value, &kind).unwrap_or_else(|_| value.clone())),
        None => fail("all arguments of `coalesce` are null"),
    }
}

fn coalesce_list(a: &[Value]) -> Result<Value> {
    for value in a {
        if !sequence(value)?.is_empty() {
            return Ok(value.clone());
        }
    }
    fail("all arguments of `coalescelist` are empty")
}

fn concat(a: &[Value]) -> Result<Value> {
    let mut all = Vec::new();
    for value in a {
        all.extend_from_slice(sequence(value)?);
    }
    let lists = a.iter().all(|value| matches!(value, Value::List(_)));
    Ok(if lists && !a.is_empty() { Value::List(all) } else { Value::Tuple(all) })
}

fn distinct(a: &[Value]) -> Result<Value> {
    let mut list: Vec<Value> = Vec::new();
    for value in elements(&a[0]) {
        if !has(&list, value) {
            list.push(value.clone());
        }
    }
    Ok(Value::List(list))
}

fn element(a: &[Value]) -> Result<Value> {
    let list = match &a[0] {
        Value::List(list) | Value::Tuple(list) => list,
        other => return fail(format!("cannot read elements from {}", with_article(other))),
    };
    if list.is_empty() {
        return fail("cannot use `element` with an empty list");
    }
    let index = integer(&a[1])?.rem_euclid(i64::try_from(list.len()).unwrap_or(i64::MAX));
    Ok(list[usize::try_from(index).unwrap_or_default()].clone())
}

fn flatten(list: &[Value], into: &mut Vec<Value>) {
    for value in list {
        match value.elements() {
            Some(inner) => flatten(inner, into),
            None => into.push(value.clone()),
        }
    }
}

fn index_of(a: &[Value]) -> Result<Value> {
    let (Value::List(list) | Value::Tuple(list)) = &a[0] else {
        return fail("argument must be a list or tuple");
    };
    if list.is_empty() {
        return fail("cannot search an empty list");
    }
    match list.iter().position(|value| value.equals(&a[1])) {
        Some(at) => Ok(Value::length_of(at)),
        None => fail("item not found"),
    }
}

fn length(a: &[Value]) -> Result<Value> {
    let count = a[0].elements().map(<[Value]>::len).or_else(|| a[0].members().map(Members::len));
    match count {
        Some(count) => Ok(Value::length_of(count)),
        None => Err(Problem::new("invalid argument")
            .because(format!("{} has no length: use `strlen` for strings", with_article(&a[0])))
            .into()),
    }
}

fn merge(a: &[Value]) -> Result<Value> {
    let mut merged = Members::new();
    let mut maps = true;
    for value in a.iter().filter(|value| !value.is_null()) {
        maps &= matches!(value, Value::Map(_));
        merged.extend(members(value)?.clone());
    }
    Ok(if maps && !a.is_empty() { Value::Map(merged) } else { Value::Object(merged) })
}

fn set_product(a: &[Value]) -> Result<Value> {
    if a.len() < 2 {
        return fail("`setproduct` takes at least two sets");
    }
    let mut product: Vec<Vec<Value>> = vec![Vec::new()];
    for value in a {
        let list = sequence(value)?;
        if product.len().saturating_mul(list.len()) > MOST {
            return fail(format!("`setproduct` makes at most {MOST} combinations"));
        }
        product = product
            .iter()
            .flat_map(|start| {
                list.iter().map(move |last| start.iter().cloned().chain([last.clone()]).collect())
            })
            .collect();
    }
    let sets = a.iter().all(|value| matches!(value, Value::Set(_)));
    let product = product.into_iter().map(Value::Tuple).collect();
    Ok(if sets { Value::set(product) } else { Value::List(product) })
}

fn slice(a: &[Value]) -> Result<Value> {
    let list = match &a[0] {
        Value::List(list) | Value::Tuple(list) => list,
        _ => return fail("`slice` takes a list or a tuple"),
    };
    let (start, end) = (count(&a[1])?, count(&a[2])?);
    if start > end || end > list.len() {
        return fail(format!("the elements {start} to {end} are not all there: the list has {}", list.len()));
    }
    Ok(like(&a[0], list[start..end].to_vec()))
}

fn sort(a: &[Value]) -> Result<Value> {
    let mut list: Vec<String> = Vec::new();
    for value in elements(&a[0]) {
        match value {
            Value::String(text) => list.push(text.clone()),
            _ => return fail("a list with a null element cannot be sorted"),
        }
    }
    list.sort();
    Ok(Value::strings(list))
}

fn zip_map(a: &[Value]) -> Result<Value> {
    let (keys, values) = (elements(&a[0]), sequence(&a[1])?);
    if keys.len() != values.len() {
        return fail(format!("{} keys cannot be zipped with {} values", keys.len(), values.len()));
    }
    let pairs = keys.iter().zip(values).map(|(key, value)| (text(key).to_owned(), value.clone()));
    Ok(if matches!(a[1], Value::List(_)) {
        Value::Map(pairs.collect())
    } else {
        Value::Object(pairs.collect())
    })
}
