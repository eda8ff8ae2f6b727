//! What takes space, and freeing it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slipway_engine::store::{PruneOptions, UsageItem, UsageKind};
use tonic::Status;

use super::Daemon;
use crate::wire::control::{DiskUsageRequest, DiskUsageResponse, PruneRequest, UsageRecord};
use crate::wire::{error, timestamp};

/// Lists what takes space.
pub(super) async fn disk_usage(
    daemon: Arc<Daemon>,
    request: DiskUsageRequest,
) -> Result<DiskUsageResponse, Status> {
    let filter = Filter::parse(&request.filter)?;
    let age = u64::try_from(request.age_limit).ok().filter(|age| *age > 0).map(Duration::from_nanos);
    blocking(move || {
        let items = daemon.engine.usage().map_err(|diagnostic| error::status(&diagnostic))?;
        let now = SystemTime::now();
        let old = |item: &UsageItem| {
            age.is_none_or(|age| now.duration_since(item.last_used_at).is_ok_and(|idle| idle >= age))
        };
        let records = items.iter().filter(|item| old(item)).map(record);
        Ok(DiskUsageResponse { record: records.filter(|record| filter.matches(record)).collect() })
    })
    .await
}

/// Frees space; returns what was removed.
pub(super) async fn prune(daemon: Arc<Daemon>, request: PruneRequest) -> Result<Vec<UsageRecord>, Status> {
    let filter = Filter::parse(&request.filter)?;
    blocking(move || {
        let positive = |value: i64| u64::try_from(value).unwrap_or_default();
        let keep = Some(positive(request.keep_duration)).filter(|nanoseconds| *nanoseconds > 0);
        let wanted = |item: &UsageItem| filter.matches(&record(item));
        let options = PruneOptions {
            all: request.all,
            keep_duration: keep.map(Duration::from_nanos),
            filter: (!filter.is_empty()).then_some(&wanted),
            max_used: positive(request.max_used_space),
            reserved: positive(request.reserved_space),
            min_free: positive(request.min_free_space),
            dry_run: false,
        };
        let removed = daemon.engine.prune(&options).map_err(|diagnostic| error::status(&diagnostic))?;
        Ok(removed.iter().map(record).collect())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

fn record(item: &UsageItem) -> UsageRecord {
    let parents: Vec<String> = item.parents.iter().map(ToString::to_string).collect();
    #[expect(deprecated, reason = "older clients read it")]
    UsageRecord {
        id: item.id.to_string(),
        mutable: item.kind == UsageKind::CacheMount,
        in_use: item.in_use,
        size: item.size as i64,
        parent: parents.first().cloned().unwrap_or_default(),
        created_at: Some(timestamp(item.created_at)),
        last_used_at: Some(timestamp(item.last_used_at)),
        usage_count: item.use_count as i64,
        description: item.description.clone(),
        record_type: item.kind.name().to_owned(),
        shared: item.shared,
        parents,
    }
}

/// Filters in containerd's language: any of several, each a list of conditions that must all hold.
struct Filter(Vec<Vec<(String, Condition)>>);

enum Condition {
    Present,
    Equal(String),
    Different(String),
    Matches(String),
}

impl Filter {
    fn parse(texts: &[String]) -> Result<Self, Status> {
        let condition = |text: &str| {
            let (key, condition) = match (text.split_once("!="), text.split_once("=="), text.split_once("~="))
            {
                (Some((key, value)), _, _) => (key, Condition::Different(unquote(value))),
                (_, Some((key, value)), _) => (key, Condition::Equal(unquote(value))),
                (_, _, Some((key, value))) => (key, Condition::Matches(unquote(value))),
                _ => (text, Condition::Present),
            };
            let key = key.trim();
            match [
                "id",
                "parents",
                "description",
                "inuse",
                "mutable",
                "immutable",
                "type",
                "shared",
                "private",
            ]
            .contains(&key)
            {
                true => Ok((key.to_owned(), condition)),
                false => Err(Status::invalid_argument(format!("unknown filter `{text}`"))),
            }
        };
        let parse = |text: &String| text.split(',').map(condition).collect::<Result<Vec<_>, _>>();
        // One that is empty holds for everything, and any of several is enough.
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Ok(Self(Vec::new()));
        }
        Ok(Self(texts.iter().map(parse).collect::<Result<_, _>>()?))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn matches(&self, record: &UsageRecord) -> bool {
        let holds = |(key, condition): &(String, Condition)| {
            let flag = |value: bool| if value { Some("true".to_owned()) } else { None };
            let value = match key.as_str() {
                "id" => Some(record.id.clone()),
                "parents" => Some(record.parents.join(";")),
                "description" => Some(record.description.clone()),
                "inuse" => flag(record.in_use),
                "mutable" => flag(record.mutable),
                "immutable" => flag(!record.mutable),
                "shared" => flag(record.shared),
                "private" => flag(!record.shared),
                _ => Some(record.record_type.clone()),
            };
            match condition {
                Condition::Present => value.is_some_and(|value| !value.is_empty()),
                Condition::Equal(wanted) => value.as_deref().unwrap_or("false") == wanted,
                Condition::Different(wanted) => value.as_deref().unwrap_or("false") != wanted,
                Condition::Matches(part) => value.is_some_and(|value| value.contains(part)),
            }
        };
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(holds))
    }
}

fn unquote(text: &str) -> String {
    text.trim().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_containerd() {
        let record = UsageRecord { record_type: "regular".into(), mutable: true, ..UsageRecord::default() };
        let matches = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            Filter::parse(&texts).map(|filter| filter.matches(&record)).ok()
        };
        assert_eq!(matches(&[]), Some(true));
        assert_eq!(matches(&["type==regular,mutable"]), Some(true));
        assert_eq!(matches(&["type==regular,inuse"]), Some(false));
        assert_eq!(matches(&["type==frontend", "mutable==true"]), Some(true));
        assert_eq!(matches(&["type!=regular"]), Some(false));
        assert_eq!(matches(&["", "type==frontend"]), Some(true));
        assert_eq!(matches(&["color==red"]), None);
    }
}
