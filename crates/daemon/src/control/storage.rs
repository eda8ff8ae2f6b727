//! What takes space, and freeing it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slipway_engine::store::{PruneOptions, UsageFilter, UsageItem};
use tonic::Status;

use super::Daemon;
use crate::wire::control::{DiskUsageRequest, DiskUsageResponse, PruneRequest, UsageRecord};
use crate::wire::{error, timestamp};

/// Lists what takes space.
pub(super) async fn disk_usage(
    daemon: Arc<Daemon>,
    request: DiskUsageRequest,
) -> Result<DiskUsageResponse, Status> {
    let filter = filter(&request.filter)?;
    let age = u64::try_from(request.age_limit).ok().filter(|age| *age > 0).map(Duration::from_nanos);
    blocking(move || {
        let items = daemon.engine.usage().map_err(|diagnostic| error::status(&diagnostic))?;
        let now = SystemTime::now();
        let old = |item: &UsageItem| {
            age.is_none_or(|age| now.duration_since(item.last_used_at).is_ok_and(|idle| idle >= age))
        };
        let wanted = items.iter().filter(|item| old(item) && filter.matches(item));
        Ok(DiskUsageResponse { record: wanted.map(record).collect() })
    })
    .await
}

/// Frees space; returns what was removed.
pub(super) async fn prune(daemon: Arc<Daemon>, request: PruneRequest) -> Result<Vec<UsageRecord>, Status> {
    let filter = filter(&request.filter)?;
    blocking(move || {
        let positive = |value: i64| u64::try_from(value).unwrap_or_default();
        let keep = Some(positive(request.keep_duration)).filter(|nanoseconds| *nanoseconds > 0);
        let wanted = |item: &UsageItem| filter.matches(item);
        let options = PruneOptions {
            all: request.all,
            keep_duration: keep.map(Duration::from_nanos),
            filter: Some(&wanted),
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

fn filter(texts: &[String]) -> Result<UsageFilter, Status> {
    UsageFilter::parse(texts).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn record(item: &UsageItem) -> UsageRecord {
    let parents: Vec<String> = item.parents.iter().map(ToString::to_string).collect();
    #[expect(deprecated, reason = "older clients read it")]
    UsageRecord {
        id: item.id.to_string(),
        mutable: item.is_mutable(),
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
