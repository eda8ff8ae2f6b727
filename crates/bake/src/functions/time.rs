//! Times.

use jiff::civil::Weekday;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};
use slipway_model::parse_duration;

use super::{Function, function, text};
use crate::error::{Problem, Result, fail};
use crate::value::{Members, Value, whole};

pub(super) const FUNCTIONS: &[Function] = &[
    function("formatdate", "ss", |a| format(text(&a[0]), &parse(text(&a[1]))?).map(Value::String)),
    function("formattimestamp", "sv", format_timestamp),
    function("timeadd", "ss", time_add),
    function("timestamp", "", |_| Ok(Value::String(rfc3339(&Timestamp::now().to_zoned(TimeZone::UTC))))),
    function("unixtimestampparse", "n", unix_timestamp_parse),
];

/// Parses an RFC 3339 timestamp; it keeps its offset.
fn parse(text: &str) -> Result<Zoned> {
    let invalid = || {
        Problem::new(format!("not a valid RFC 3339 timestamp: `{text}`"))
            .hint("write it as `2024-01-31T12:00:00Z`")
    };
    let timestamp: Timestamp = text.parse().map_err(|_| invalid())?;
    let zone = match text.get(text.len().saturating_sub(6)..) {
        Some(end) if end.starts_with(['+', '-']) => {
            let number = |at: usize| end.get(at..at + 2).and_then(|digits| digits.parse::<i32>().ok());
            let (Some(hours), Some(minutes)) = (number(1), number(4)) else { return Err(invalid().into()) };
            let seconds = (hours * 60 + minutes) * 60;
            let seconds = if end.starts_with('-') { -seconds } else { seconds };
            Offset::from_seconds(seconds).map_err(|_| invalid())?.to_time_zone()
        }
        _ => TimeZone::UTC,
    };
    Ok(timestamp.to_zoned(zone))
}

fn rfc3339(time: &Zoned) -> String {
    let seconds = time.offset().seconds();
    let base = time.strftime("%Y-%m-%dT%H:%M:%S");
    if seconds == 0 { format!("{base}Z") } else { format!("{base}{}", offset(seconds, ":")) }
}

fn offset(seconds: i32, separator: &str) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
}

fn of_unix(value: &Value) -> Result<Zoned> {
    let seconds = match value {
        Value::Number(number) => whole(number),
        _ => None,
    };
    let seconds = seconds.ok_or_else(|| Problem::new("unix timestamp must be an integer"))?;
    let time = Timestamp::from_second(seconds)
        .map_err(|error| Problem::new("invalid unix timestamp").because(error.to_string()))?;
    Ok(time.to_zoned(TimeZone::UTC))
}

fn format_timestamp(a: &[Value]) -> Result<Value> {
    let time = match &a[1] {
        Value::String(text) => parse(text)?,
        Value::Number(_) => of_unix(&a[1])?,
        _ => return fail("must be a string timestamp or a unix timestamp number"),
    };
    match text(&a[0]) {
        "X" => Ok(Value::String(time.timestamp().as_second().to_string())),
        layout => format(layout, &time).map(Value::String),
    }
}

/// Formats by letters that repeat, as `YYYY-MM-DD`; other text stands in single quotes.
fn format(layout: &str, time: &Zoned) -> Result<String> {
    let mut out = String::new();
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let (quoted, after) = quoted(&rest[1..])?;
            out.push_str(&quoted);
            rest = after;
            continue;
        }
        let length = rest.find(|c| c != first).unwrap_or(rest.len());
        let (verb, after) = rest.split_at(length);
        rest = after;
        if first.is_ascii_alphabetic() {
            out.push_str(&verb_text(verb, time)?);
        } else {
            out.push_str(verb);
        }
    }
    Ok(out)
}

fn quoted(text: &str) -> Result<(String, &str)> {
    let mut out = String::new();
    let mut rest = text;
    loop {
        let Some((part, after)) = rest.split_once('\'') else {
            return fail("a literal in the date format has no closing single quote");
        };
        out.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                out.push('\'');
                rest = after;
            }
            None => return Ok((out, after)),
        }
    }
}

fn verb_text(verb: &str, time: &Zoned) -> Result<String> {
    let twelve = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let seconds = time.offset().seconds();
    Ok(match verb {
        "YYYY" => format!("{:04}", time.year()),
        "YY" => format!("{:02}", time.year().rem_euclid(100)),
        "MMMM" => month_name(time).to_owned(),
        "MMM" => month_name(time)[..3].to_owned(),
        "MM" => format!("{:02}", time.month()),
        "M" => time.month().to_string(),
        "DD" => format!("{:02}", time.day()),
        "D" => time.day().to_string(),
        "EEEE" => weekday_name(time).to_owned(),
        "EEE" => weekday_name(time)[..3].to_owned(),
        "hh" => format!("{:02}", time.hour()),
        "h" => time.hour().to_string(),
        "HH" => format!("{twelve:02}"),
        "H" => twelve.to_string(),
        "AA" => if time.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        "aa" => if time.hour() < 12 { "am" } else { "pm" }.to_owned(),
        "mm" => format!("{:02}", time.minute()),
        "m" => time.minute().to_string(),
        "ss" => format!("{:02}", time.second()),
        "s" => time.second().to_string(),
        "Z" if seconds == 0 => "Z".to_owned(),
        "ZZZ" if seconds == 0 => "UTC".to_owned(),
        "ZZZZ" | "ZZZ" => offset(seconds, ""),
        "ZZZZZ" | "Z" => offset(seconds, ":"),
        other => {
            return Err(Problem::new(format!("invalid date format verb `{other}`"))
                .hint("verbs are as in `YYYY-MM-DD'T'hh:mm:ssZ`; other letters stand in single quotes")
                .into());
        }
    })
}

fn month_name(time: &Zoned) -> &'static str {
    const NAMES: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    NAMES[usize::try_from(time.month() - 1).unwrap_or_default() % 12]
}

fn weekday_name(time: &Zoned) -> &'static str {
    match time.weekday() {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

fn time_add(a: &[Value]) -> Result<Value> {
    let time = parse(text(&a[0]))?;
    let nanoseconds = parse_duration(text(&a[1])).map_err(|_| {
        Problem::new(format!("invalid duration `{}`", text(&a[1]))).hint("write it as `24h` or `1h30m`")
    })?;
    let sum = time.checked_add(SignedDuration::from_nanos(nanoseconds));
    let sum = sum.map_err(|error| Problem::new("the time is out of range").because(error.to_string()))?;
    Ok(Value::String(rfc3339(&sum)))
}

fn unix_timestamp_parse(a: &[Value]) -> Result<Value> {
    let time = of_unix(&a[0])?;
    let week = time.date().iso_week_date();
    let sunday_first = time.weekday().to_sunday_zero_offset();
    let members: Members = [
        ("year", Value::integer(time.year())),
        ("year_day", Value::integer(time.day_of_year())),
        ("day", Value::integer(time.day())),
        ("month", Value::integer(time.month())),
        ("month_name", Value::string(month_name(&time))),
        ("weekday", Value::integer(sunday_first)),
        ("weekday_name", Value::string(weekday_name(&time))),
        ("hour", Value::integer(time.hour())),
        ("minute", Value::integer(time.minute())),
        ("second", Value::integer(time.second())),
        ("rfc3339", Value::String(rfc3339(&time))),
        ("iso_year", Value::integer(week.year())),
        ("iso_week", Value::integer(week.week())),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    Ok(Value::Object(members))
}
