//! `du`: what the state takes on disk.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::app::Context;
use crate::args::storage::DuArgs;
use crate::builder::{Builder, UsageRecord};
use crate::error::Failure;
use crate::settings::SettingsError;
use crate::settings::filter::Filter;
use crate::template::{JsonStyle, Template, TemplateError};
use crate::ui::format::{go_time, human_duration, human_size, table};
use crate::{interrupt, output};

/// Runs `du`.
pub(crate) fn run(args: &DuArgs, context: &Context) -> Result<(), Failure> {
    let filter = Filter::parse(&args.filter)?;
    let builder = Builder::open(&context.global)?;
    let mut records = interrupt::runtime()?.block_on(builder.disk_usage())?;
    let now = SystemTime::now();
    records.retain(|record| filter.matches(record, now));
    let format = args.format.as_deref().unwrap_or(if args.verbose { "pretty" } else { "table" });
    let mut text = listing(&records, format, now)?;
    if matches!(format, "table" | "pretty") && args.filter.is_empty() {
        text += &summary(&records);
    }
    output::text(&text)
}

const PRETTY: &str = "\
ID:           {{.ID}}
{{- if .Parents }}
Parents:
{{- range .Parents }}
 - {{.}}
{{- end }}
{{- end }}
Created at:   {{.CreatedAt}}
Mutable:      {{.Mutable}}
Reclaimable:  {{.Reclaimable}}
Shared:       {{.Shared}}
Size:         {{.Size}}
{{- if .Description}}
Description:  {{ .Description }}
{{- end }}
Usage count:  {{.UsageCount}}
{{- if .LastUsedAt}}
Last used:    {{ .LastUsedAt }}
{{- end }}
{{- if .Type}}
Type:         {{ .Type }}
{{- end }}
";

fn listing(records: &[UsageRecord], format: &str, now: SystemTime) -> Result<String, SettingsError> {
    let failed = |error: TemplateError| SettingsError::flag(error.to_string());
    let fill = |text: &str| -> Result<String, SettingsError> {
        let template = Template::parse(text, JsonStyle::Compact).map_err(failed)?;
        records.iter().map(|r| Ok(template.execute(&data(r, now)).map_err(failed)? + "\n")).collect()
    };
    match format {
        "table" => Ok(as_table(records, now)),
        "json" => Ok(records.iter().map(|record| format!("{}\n", data(record, now))).collect()),
        "pretty" => fill(PRETTY),
        text => fill(text),
    }
}

/// Formats everything that is known of records.
pub(super) fn whole(records: &[UsageRecord], now: SystemTime) -> Result<String, SettingsError> {
    listing(records, "pretty", now)
}

/// Lays records out as a table; a star marks what is mutable or shared.
pub(super) fn as_table(records: &[UsageRecord], now: SystemTime) -> String {
    let head = ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"].map(str::to_owned).to_vec();
    let star = |on: bool| if on { "*" } else { "" };
    let rows = records.iter().map(|record| {
        vec![
            format!("{}{}", record.id, star(record.mutable)),
            (!record.in_use).to_string(),
            format!("{}{}", human_size(record.size), star(record.shared)),
            last_used(record, now),
        ]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 3)
}

fn last_used(record: &UsageRecord, now: SystemTime) -> String {
    let ago = record.last_used.map(|at| now.duration_since(at).unwrap_or_default());
    ago.map(|ago| format!("{} ago", human_duration(ago))).unwrap_or_default()
}

/// What templates and `--format json` see of a record; names are in order, as Go writes them.
fn data(record: &UsageRecord, now: SystemTime) -> Value {
    json!({
        "CreatedAt": go_time(record.created),
        "Description": record.description,
        "ID": record.id,
        "LastUsedAt": last_used(record, now),
        "Mutable": record.mutable,
        "Parents": (!record.parents.is_empty()).then_some(&record.parents),
        "Reclaimable": !record.in_use,
        "Shared": record.shared,
        "Size": human_size(record.size),
        "Type": record.kind,
        "UsageCount": record.usage_count,
    })
}

/// Adds the records up.
fn summary(records: &[UsageRecord]) -> String {
    let sum = |of: &dyn Fn(&&UsageRecord) -> bool| -> u64 { records.iter().filter(of).map(|r| r.size).sum() };
    let (total, shared) = (sum(&|_| true), sum(&|record| record.shared));
    let mut rows = Vec::new();
    let mut row = |name: &str, size: u64| rows.push(vec![format!("{name}:"), human_size(size)]);
    if shared > 0 {
        row("Shared", shared);
        row("Private", total - shared);
    }
    row("Reclaimable", sum(&|record| !record.in_use));
    row("Total", total);
    table(&rows, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn record(id: &str, size: u64) -> UsageRecord {
        UsageRecord {
            id: id.into(),
            parents: vec!["p".into()],
            kind: "regular".into(),
            description: "RUN make".into(),
            size,
            mutable: false,
            in_use: id == "b",
            shared: id == "c",
            usage_count: 2,
            created: UNIX_EPOCH,
            last_used: Some(UNIX_EPOCH + Duration::from_secs(10)),
        }
    }

    #[test]
    fn usage_is_listed_and_added_up() {
        let records = [record("a", 1000), record("b", 2000), record("c", 500)];
        let now = UNIX_EPOCH + Duration::from_secs(70);
        assert_eq!(
            listing(&records, "table", now).unwrap(),
            "ID   RECLAIMABLE   SIZE    LAST ACCESSED\n\
             a    true          1kB     About a minute ago\n\
             b    false         2kB     About a minute ago\n\
             c    true          500B*   About a minute ago\n"
        );
        assert_eq!(
            summary(&records),
            "Shared:      500B\nPrivate:     3kB\nReclaimable: 1.5kB\nTotal:       3.5kB\n"
        );
        let pretty = listing(&records[..1], "pretty", now).unwrap();
        assert!(
            pretty.starts_with(
                "ID:           a\nParents:\n - p\nCreated at:   1970-01-01 00:00:00 +0000 UTC\n"
            ),
            "{pretty}"
        );
        assert_eq!(listing(&records[..1], "{{.ID}}={{.Type}}", now).unwrap(), "a=regular\n");
        let alone = UsageRecord { parents: Vec::new(), ..record("a", 1000) };
        assert_eq!(
            listing(&[alone], "json", now).unwrap(),
            "{\"CreatedAt\":\"1970-01-01 00:00:00 +0000 UTC\",\"Description\":\"RUN make\",\"ID\":\"a\",\
             \"LastUsedAt\":\"About a minute ago\",\"Mutable\":false,\"Parents\":null,\"Reclaimable\":true,\
             \"Shared\":false,\"Size\":\"1kB\",\"Type\":\"regular\",\"UsageCount\":2}\n"
        );
    }
}
