//! Encodings, digests and identifiers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sha2::Digest as _;

use super::{Function, function, integer, text};
use crate::error::{Problem, Result, fail};
use crate::value::{Members, Value, json};

pub(super) const FUNCTIONS: &[Function] = &[
    function("base64decode", "s", base64_decode),
    function("base64encode", "s", |a| Ok(Value::String(STANDARD.encode(text(&a[0]))))),
    function("bcrypt", "sn*", bcrypt_hash),
    function("csvdecode", "s", csv_decode),
    function("jsondecode", "s", |a| {
        json::decode(text(&a[0])).map_err(|error| Problem::new("invalid JSON").because(error).into())
    }),
    function("jsonencode", "V", |a| Ok(Value::String(json::encode(&a[0])))),
    function("md5", "s", |a| Ok(Value::String(hex::encode(md5::Md5::digest(text(&a[0])))))),
    function("rsadecrypt", "ss", |_| {
        Err(Problem::new("`rsadecrypt` is not supported")
            .hint("decrypt before the build and hand the value in with `--var NAME=VALUE`")
            .into())
    }),
    function("sha1", "s", |a| Ok(Value::String(hex::encode(sha1::Sha1::digest(text(&a[0])))))),
    function("sha256", "s", |a| Ok(Value::String(hex::encode(sha2::Sha256::digest(text(&a[0])))))),
    function("sha512", "s", |a| Ok(Value::String(hex::encode(sha2::Sha512::digest(text(&a[0])))))),
    function("urlencode", "s", |a| Ok(Value::String(url_encode(text(&a[0]))))),
    function("uuidv4", "", |_| Ok(Value::String(uuid::Uuid::new_v4().to_string()))),
    function("uuidv5", "ss", uuid_v5),
];

fn base64_decode(a: &[Value]) -> Result<Value> {
    let bytes = STANDARD
        .decode(text(&a[0]))
        .map_err(|error| Problem::new("failed to decode base64 data").because(error.to_string()))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Value::String(text)),
        Err(_) => fail("the decoded data is no UTF-8 text"),
    }
}

fn bcrypt_hash(a: &[Value]) -> Result<Value> {
    let cost = match a.get(1) {
        Some(cost) => u32::try_from(integer(cost)?).unwrap_or(0),
        None => 10,
    };
    if a.len() > 2 {
        return fail("`bcrypt` takes no more than two arguments");
    }
    bcrypt::hash(text(&a[0]), cost)
        .map(|hash| Value::String(hash.replacen("$2b$", "$2a$", 1)))
        .map_err(|error| Problem::new("failed to hash").because(error.to_string()).into())
}

/// Encodes as Go's `url.QueryEscape`.
fn url_encode(text: &str) -> String {
    const KEPT: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');
    percent_encode(text.as_bytes(), KEPT).to_string().replace(' ', "+")
}

fn uuid_v5(a: &[Value]) -> Result<Value> {
    let namespace = match text(&a[0]) {
        "dns" => uuid::Uuid::NAMESPACE_DNS,
        "url" => uuid::Uuid::NAMESPACE_URL,
        "oid" => uuid::Uuid::NAMESPACE_OID,
        "x500" => uuid::Uuid::NAMESPACE_X500,
        other => uuid::Uuid::parse_str(other).map_err(|error| {
            Problem::new(format!("invalid namespace `{other}`"))
                .because(error.to_string())
                .hint("use `dns`, `url`, `oid`, `x500` or a UUID")
        })?,
    };
    Ok(Value::String(uuid::Uuid::new_v5(&namespace, text(&a[1]).as_bytes()).to_string()))
}

/// Reads CSV with a first line of names.
fn csv_decode(a: &[Value]) -> Result<Value> {
    let mut records = csv_records(text(&a[0]))?.into_iter();
    let Some(names) = records.next() else { return fail("the CSV text has no header line") };
    let mut list = Vec::new();
    for (at, record) in records.enumerate() {
        if record.len() != names.len() {
            return fail(format!(
                "line {} of the CSV text has {} fields, not {}",
                at + 2,
                record.len(),
                names.len()
            ));
        }
        let members = names.iter().cloned().zip(record.into_iter().map(Value::String));
        list.push(Value::Object(members.collect::<Members>()));
    }
    Ok(Value::List(list))
}

/// Splits a text into records; quoted fields may hold line breaks.
fn csv_records(text: &str) -> Result<Vec<Vec<String>>> {
    let mut records = Vec::new();
    let mut line = String::new();
    for part in text.split_inclusive('\n') {
        line.push_str(part);
        if line.matches('"').count() % 2 == 1 {
            continue;
        }
        let whole = std::mem::take(&mut line);
        let whole = whole.trim_end_matches('\n').trim_end_matches('\r');
        if !whole.is_empty() {
            let fields = slipway_model::csv::fields(whole);
            records.push(fields.map_err(|reason| Problem::new("invalid CSV").because(reason.to_string()))?);
        }
    }
    if line.is_empty() { Ok(records) } else { fail("a quoted field of the CSV text is not closed") }
}
