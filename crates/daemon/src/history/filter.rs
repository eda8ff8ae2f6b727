//! Filters of build records: any of several, each a list of conditions that must all hold.

use std::time::SystemTime;

use slipway_engine::history::{TimeCondition, repository_of_context};
use slipway_model::csv;
use slipway_model::filter::{Field, Filter};
use tonic::{Code, Status};

use crate::wire::control::BuildHistoryRecord;
use crate::wire::time;

/// Says which records are meant; one without conditions means all.
pub(super) struct RecordFilter(Vec<All>);

/// Conditions that must all hold.
struct All {
    fields: Filter,
    times: Vec<TimeCondition>,
}

impl RecordFilter {
    /// Parses filters such as `status==error,startedAt>1h`; each is a line of CSV.
    pub(super) fn parse(texts: &[String], now: SystemTime) -> Result<Self, Status> {
        texts.iter().map(|text| All::parse(text, now)).collect::<Result<_, _>>().map(Self)
    }

    /// Tells whether a record is meant.
    pub(super) fn matches(&self, record: &BuildHistoryRecord) -> bool {
        self.0.is_empty() || self.0.iter().any(|all| all.hold(record))
    }
}

impl All {
    fn parse(text: &str, now: SystemTime) -> Result<Self, Status> {
        let wrong = |error: &dyn std::fmt::Display| {
            Status::invalid_argument(format!("failed to parse history filters {text:?}: {error}"))
        };
        let parts =
            if text.is_empty() { Vec::new() } else { csv::fields(text).map_err(|error| wrong(&error))? };
        let (mut fields, mut times) = (Vec::new(), Vec::new());
        for part in parts {
            match TimeCondition::parse(&part, now).map_err(|error| wrong(&error))? {
                Some(condition) => times.push(condition),
                None => fields.push(part),
            }
        }
        Ok(Self { fields: fields.join(",").parse().map_err(|error| wrong(&error))?, times })
    }

    fn hold(&self, record: &BuildHistoryRecord) -> bool {
        let started = record.created_at.map_or(SystemTime::UNIX_EPOCH, time);
        let completed = record.completed_at.map(time);
        self.times.iter().all(|condition| condition.holds(started, completed))
            && self.fields.match_fields(|path| match path.first().map(String::as_str) {
                Some("ref") => Field::text(record.r#ref.as_str()),
                Some("status") => Field::text(status(record)),
                Some("repository") => repository(record),
                _ => Field::Absent,
            })
    }
}

fn status(record: &BuildHistoryRecord) -> &'static str {
    match (&record.error, &record.completed_at) {
        (Some(error), _) if error.code == Code::Cancelled as i32 => "canceled",
        (Some(_), _) => "error",
        (None, Some(_)) => "completed",
        (None, None) => "running",
    }
}

fn repository(record: &BuildHistoryRecord) -> Field<'_> {
    let attribute = |name: &str| record.frontend_attrs.get(name);
    match attribute("vcs:source") {
        Some(source) => Field::Text(source.as_str().into()),
        None => match attribute("context").and_then(|context| repository_of_context(context)) {
            Some(repository) => Field::Text(repository.into()),
            None => Field::Absent,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::timestamp;

    #[test]
    fn records_are_chosen_as_buildkit_does() {
        let now = SystemTime::now();
        let record = |id: &str, attribute: (&str, &str), hours: u64, minutes: Option<u64>| {
            let started = now - Duration::from_secs(hours * 3600);
            BuildHistoryRecord {
                r#ref: id.to_owned(),
                frontend_attrs: [(attribute.0.to_owned(), attribute.1.to_owned())].into(),
                created_at: Some(timestamp(started)),
                completed_at: minutes.map(|minutes| timestamp(started + Duration::from_secs(minutes * 60))),
                ..BuildHistoryRecord::default()
            }
        };
        let records = [
            record("one1", ("", ""), 24, Some(1)),
            record("two2", ("context", "https://h/user/repo.git#abc"), 23, None),
            record("one3", ("vcs:source", "app"), 22, Some(10)),
        ];
        let chosen = |filters: &[&str]| -> String {
            let texts: Vec<String> = filters.iter().map(|&text| text.to_owned()).collect();
            let filter = RecordFilter::parse(&texts, now).unwrap();
            let matching = records.iter().filter(|record| filter.matches(record));
            matching.map(|record| record.r#ref.as_str()).collect::<Vec<_>>().join(" ")
        };
        for (filters, expected) in [
            (&[][..], "one1 two2 one3"),
            (&["ref==one"], ""),
            (&["ref~=^one.$"], "one1 one3"),
            (&["repository!=app"], "one1 two2"),
            (&["repository==https://h/user/repo.git"], "two2"),
            (&["repository"], "two2 one3"),
            (&["status==running"], "two2"),
            (&["repository!=app,ref~=one"], "one1"),
            (&["\"ref~=\"\"on|tw\"\"\",status==completed"], "one1 one3"),
            (&["completedAt>23h"], "one3"),
            (&["startedAt<=23h"], "one1 two2"),
            (&["startedAt<23h"], "one1"),
            (&["duration>5m"], "one3"),
            (&["startedAt>=23h", "completedAt>22h"], "two2 one3"),
            (&["startedAt>24h,ref~=one"], "one3"),
            (&["color==red"], ""),
        ] {
            assert_eq!(chosen(filters), expected, "{filters:?}");
        }
        for text in ["ref+x", "startedAt>soon", "ref~=("] {
            assert!(RecordFilter::parse(&[text.to_owned()], now).is_err(), "{text}");
        }
    }
}
