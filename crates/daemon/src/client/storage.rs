//! What a daemon is and has: its workers, and what they keep on disk.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use slipway_model::Platform;

use super::{Client, Refused};
use crate::wire::control::{DiskUsageRequest, InfoRequest, ListWorkersRequest, UsageRecord};
use crate::wire::{control, time};

/// Something that runs steps.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    /// Its own platform first.
    pub platforms: Vec<Platform>,
    /// The version of BuildKit that the daemon is, or speaks as.
    pub version: Option<String>,
    pub garbage_rules: Vec<GarbageRule>,
}

/// What a daemon removes of what nobody uses, and how much of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GarbageRule {
    pub all: bool,
    pub filters: Vec<String>,
    pub keep: Option<Duration>,
    pub reserved_space: u64,
    pub max_used_space: u64,
    pub min_free_space: u64,
}

/// Something that takes space at a daemon.
#[derive(Clone, Debug)]
pub struct Usage {
    pub id: String,
    pub parents: Vec<String>,
    pub kind: String,
    pub description: String,
    pub size: u64,
    pub mutable: bool,
    pub in_use: bool,
    pub shared: bool,
    pub usage_count: u64,
    pub created: SystemTime,
    pub last_used: Option<SystemTime>,
}

/// Something that not every version of BuildKit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Asks the client about every source.
    Policies,
    /// Lets steps reach the network through a proxy only.
    ProxyNetwork,
}

impl Feature {
    /// Returns the first version that does it.
    pub fn since(self) -> (u64, u64) {
        match self {
            Self::Policies => (0, 27),
            Self::ProxyNetwork => (0, 31),
        }
    }
}

impl Client {
    /// Lists the daemon's workers.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn workers(&self) -> Result<Vec<Worker>, Refused> {
        let answer = self.control().list_workers(ListWorkersRequest::default()).await?;
        let mut workers: Vec<Worker> = answer.into_inner().record.into_iter().map(worker).collect();
        if workers.iter().any(|worker| worker.version.is_none())
            && let Ok(info) = self.control().info(InfoRequest {}).await
        {
            let version = info.into_inner().buildkit_version.map(|version| version.version);
            workers.iter_mut().for_each(|worker| worker.version = worker.version.take().or(version.clone()));
        }
        Ok(workers)
    }

    /// Tells whether the daemon is of a version that does something.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn has(&self, feature: Feature) -> Result<bool, Refused> {
        let version = self.workers().await?.into_iter().find_map(|worker| worker.version);
        let version = version.unwrap_or_default();
        let mut numbers =
            version.trim_start_matches('v').split(['.', '-']).map_while(|part| part.parse().ok());
        let version: (u64, u64) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Ok(version >= feature.since())
    }

    /// Lists what takes space.
    ///
    /// # Errors
    /// The daemon does not answer, or not to these filters.
    pub async fn disk_usage(&self, filters: Vec<String>) -> Result<Vec<Usage>, Refused> {
        let answer = self.control().disk_usage(DiskUsageRequest { filter: filters, age_limit: 0 }).await?;
        Ok(answer.into_inner().record.into_iter().map(usage).collect())
    }

    /// Removes what nothing uses, as the rule says; returns it.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses.
    pub async fn prune(&self, rule: &GarbageRule) -> Result<Vec<Usage>, Refused> {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let request = control::PruneRequest {
            filter: rule.filters.clone(),
            all: rule.all,
            keep_duration: rule.keep.map_or(0, |keep| i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX)),
            reserved_space: number(rule.reserved_space),
            max_used_space: number(rule.max_used_space),
            min_free_space: number(rule.min_free_space),
        };
        let mut records = self.control().prune(request).await?.into_inner();
        let mut removed = Vec::new();
        while let Some(record) = records.message().await? {
            removed.push(usage(record));
        }
        Ok(removed)
    }
}

fn worker(record: crate::wire::types::WorkerRecord) -> Worker {
    let bytes = |number: i64| u64::try_from(number).unwrap_or_default();
    let platform = |platform: crate::wire::wire_pb::Platform| {
        let variant = Some(platform.variant.as_str()).filter(|variant| !variant.is_empty());
        Platform::new(&platform.os, &platform.architecture, variant)
    };
    let rule = |rule: crate::wire::types::GcPolicy| GarbageRule {
        all: rule.all,
        filters: rule.filters,
        keep: u64::try_from(rule.keep_duration).ok().filter(|keep| *keep > 0).map(Duration::from_nanos),
        reserved_space: bytes(rule.reserved_space),
        max_used_space: bytes(rule.max_used_space),
        min_free_space: bytes(rule.min_free_space),
    };
    Worker {
        id: record.id,
        labels: record.labels.into_iter().collect(),
        platforms: record.platforms.into_iter().map(platform).collect(),
        version: record.buildkit_version.map(|version| version.version).filter(|version| !version.is_empty()),
        garbage_rules: record.gc_policy.into_iter().map(rule).collect(),
    }
}

fn usage(record: UsageRecord) -> Usage {
    #[expect(deprecated, reason = "daemons of old versions say nothing else")]
    let parent = Some(record.parent).filter(|parent| !parent.is_empty());
    let parents = if record.parents.is_empty() { parent.into_iter().collect() } else { record.parents };
    Usage {
        id: record.id,
        parents,
        kind: record.record_type,
        description: record.description,
        size: u64::try_from(record.size).unwrap_or_default(),
        mutable: record.mutable,
        in_use: record.in_use,
        shared: record.shared,
        usage_count: u64::try_from(record.usage_count).unwrap_or_default(),
        created: record.created_at.map_or(SystemTime::UNIX_EPOCH, time),
        last_used: record.last_used_at.map(time),
    }
}
