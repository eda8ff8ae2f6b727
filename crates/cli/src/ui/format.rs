//! The one formatter of sizes, durations and times.

use std::time::{Duration, SystemTime};

/// Puts a size into units of 1000, as registries and container tools count.
fn in_units(bytes: u64) -> (f64, &'static str) {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            return (value, unit);
        }
        value /= 1000.0;
    }
    (value, "PB")
}

/// Formats a size with two decimals: `12.34MB`.
pub(crate) fn size(bytes: u64) -> String {
    match in_units(bytes) {
        (_, "B") => format!("{bytes}B"),
        (value, unit) => format!("{value:.2}{unit}"),
    }
}

/// Formats a size with four significant digits, as Docker's tables do: `1.093GB`.
pub(crate) fn human_size(bytes: u64) -> String {
    let (value, unit) = in_units(bytes);
    let decimals = match value {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + unit
}

/// Formats seconds with one decimal: `1.2s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Formats the time since a step began, in front of its output: three significant decimals at first.
pub(crate) fn offset(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let precision = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.precision$}")
}

/// Formats a duration as people say it: `About an hour`, `3 days`.
pub(crate) fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// Formats a time in UTC as RFC 3339 with as many digits as it needs, like Go.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Formats a time in UTC as Go's `Time.String` does.
pub(crate) fn go_time(time: SystemTime) -> String {
    rfc3339(time).replace('T', " ").replace('Z', " +0000 UTC")
}

/// Lays rows out in columns of equal width, as Go's tabwriter does with `padding` blanks between.
pub(crate) fn table(rows: &[Vec<String>], padding: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| display_width(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let fill = widths[column] + padding - display_width(cell);
                text.extend(std::iter::repeat_n(' ', fill));
            }
        }
        text.push('\n');
    }
    text
}

/// Counts the columns that a text takes on a terminal.
pub(crate) fn display_width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn sizes() {
        for (bytes, short, human) in [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1000, "1.00kB", "1kB"),
            (12_340_000, "12.34MB", "12.34MB"),
            (1_093_000_000, "1.09GB", "1.093GB"),
            (100_000_000, "100.00MB", "100MB"),
        ] {
            assert_eq!((size(bytes).as_str(), human_size(bytes).as_str()), (short, human));
        }
    }

    #[test]
    fn times_are_gos() {
        let at = |seconds: u64, nanos: u32| rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_700_000_000, 120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(at(951_782_400, 1), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_millis(500)), "1969-12-31T23:59:59.5Z");
        assert_eq!(go_time(UNIX_EPOCH + Duration::from_millis(1_500)), "1970-01-01 00:00:01.5 +0000 UTC");
    }

    #[test]
    fn durations() {
        for (seconds, want) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3600, "About an hour"),
            (100_000, "28 hours"),
            (400_000, "4 days"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), want);
        }
        assert_eq!(offset(Duration::from_millis(123)), "0.123");
        assert_eq!(offset(Duration::from_secs(12)), "12.00");
        assert_eq!(offset(Duration::from_secs(123)), "123.0");
    }

    #[test]
    fn tables_align() {
        let rows =
            [vec!["A".into(), "BB".into()], vec!["ccc".into(), "d".into()], vec!["é".into(), "x".into()]];
        assert_eq!(table(&rows, 1), "A   BB\nccc d\né   x\n");
    }
}
