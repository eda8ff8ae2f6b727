//! Rules of the automatic collection: what it may remove, and how much may stay.
//!
//! Applying them is `prune`'s. Sizes can be written as a part of the disk; a [`GcPolicy`] has bytes.

use std::path::Path;
use std::time::Duration;

use crate::filter::UsageFilter;
use crate::usage::UsageKind;

const GB: u64 = 1_000_000_000;

/// An amount of disk space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskSpace {
    Bytes(u64),
    /// Of the whole disk.
    Percent(u64),
}

impl Default for DiskSpace {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl DiskSpace {
    /// Returns the bytes on a disk of `disk` bytes. Parts of it are rounded up to gigabytes, as BuildKit does.
    pub const fn on(self, disk: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(0) => 0,
            Self::Percent(percent) => {
                let gigabytes = disk as u128 * percent as u128 / 100 / (1 << 30) + 1;
                (gigabytes as u64).saturating_mul(GB)
            }
        }
    }
}

/// Returns the size of the disk that a directory is on, or will be; 0 if that is not known.
pub fn disk_size(directory: &Path) -> u64 {
    let found = directory.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    found.map_or(0, |stat| stat.f_blocks * stat.f_frsize)
}

/// How much the cache may take; 0 is not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcLimits {
    /// Less than this is never collected.
    pub reserved: DiskSpace,
    /// More than this is.
    pub max_used: DiskSpace,
    /// As is what leaves less of the disk free.
    pub min_free: DiskSpace,
}

impl GcLimits {
    /// Tells whether nothing is limited.
    pub fn is_unset(&self) -> bool {
        [self.reserved, self.max_used, self.min_free].iter().all(|space| space.on(GB) == 0)
    }

    /// Returns BuildKit's limits for a disk of `disk` bytes.
    fn default_for(disk: u64) -> Self {
        let at_most =
            |percent: u64, bytes: u64| DiskSpace::Bytes(DiskSpace::Percent(percent).on(disk).min(bytes));
        Self {
            reserved: at_most(10, 10 * GB),
            max_used: at_most(80, 100 * GB),
            min_free: DiskSpace::Percent(20),
        }
    }
}

/// When the automatic collection removes what. Without rules nothing that is in order is removed.
#[derive(Clone, Debug, Default)]
pub struct GcPolicy {
    pub rules: Vec<GcRule>,
}

/// One rule of a [`GcPolicy`], applied after those before it.
#[derive(Clone, Debug, Default)]
pub struct GcRule {
    /// What may be removed.
    pub filter: UsageFilter,
    /// Also what is internal, a frontend, or shared.
    pub all: bool,
    /// Leave what was used more recently.
    pub keep_duration: Option<Duration>,
    pub max_used: u64,
    pub reserved: u64,
    pub min_free: u64,
}

impl GcPolicy {
    /// Returns BuildKit's default rules for a disk of `disk` bytes.
    pub fn default_for(disk: u64) -> Self {
        Self::within(&GcLimits::default_for(disk), disk)
    }

    /// Returns BuildKit's rules that keep a cache within limits: first what is easily made again, then what is
    /// old, then what belongs to nothing else, then anything.
    pub fn within(limits: &GcLimits, disk: u64) -> Self {
        let capped = GcRule {
            reserved: limits.reserved.on(disk),
            max_used: limits.max_used.on(disk),
            min_free: limits.min_free.on(disk),
            ..GcRule::default()
        };
        let days = |days: u64| Some(Duration::from_secs(days * 24 * 3600));
        Self {
            rules: vec![
                GcRule {
                    filter: UsageFilter::of_kinds(&[
                        UsageKind::LocalSource,
                        UsageKind::CacheMount,
                        UsageKind::GitCheckout,
                    ]),
                    keep_duration: days(2),
                    max_used: 512_000_000,
                    ..GcRule::default()
                },
                GcRule { keep_duration: days(60), ..capped.clone() },
                capped.clone(),
                GcRule { all: true, ..capped },
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_limits_are_those_of_the_reference() {
        let of = |disk: u64| {
            let last = GcPolicy::default_for(disk).rules.pop().unwrap();
            (last.reserved, last.max_used, last.min_free)
        };
        assert_eq!(of(1 << 40), (10 * GB, 100 * GB, 205 * GB));
        assert_eq!(of(20 << 30), (3 * GB, 17 * GB, 5 * GB), "parts are rounded up");
    }

    #[test]
    fn only_what_is_said_limits() {
        let limits = GcLimits { max_used: DiskSpace::Percent(60), ..GcLimits::default() };
        let rules = GcPolicy::within(&limits, 10 << 30).rules;
        assert_eq!((rules[2].reserved, rules[2].max_used, rules[2].min_free), (0, 7 * GB, 0));
        assert_eq!(rules[0].max_used, 512_000_000, "what is easily made again has a limit of its own");
        assert!(GcLimits::default().is_unset() && !limits.is_unset());
    }
}
