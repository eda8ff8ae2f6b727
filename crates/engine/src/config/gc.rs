//! The automatic collection: whether there is one, and by which rules.

use std::path::Path;

use slipway_model::Diagnostic;
use slipway_store::{DiskSpace, GcLimits, GcPolicy, GcRule, UsageFilter};

use super::files::{ConfigFiles, Section};

/// What is said of the automatic collection.
#[derive(Clone, Debug, Default)]
pub struct GcConfig {
    /// Nothing is removed but by `prune`.
    pub off: bool,
    /// The limits of BuildKit's own rules.
    pub limits: GcLimits,
    /// Rules that are applied instead of those.
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default)]
struct Rule {
    limits: GcLimits,
    /// All but its sizes.
    rule: GcRule,
}

impl GcConfig {
    pub(super) fn of(files: &ConfigFiles) -> Result<Self, Diagnostic> {
        let space = |key: &str| {
            let entry = files.get(&["worker", "oci", key]);
            entry.map_or(Ok(DiskSpace::default()), |entry| entry.space())
        };
        let mut limits = GcLimits {
            reserved: space("reservedSpace")?,
            max_used: space("maxUsedSpace")?,
            min_free: space("minFreeSpace")?,
        };
        if limits.is_unset() {
            limits.reserved = space("gckeepstorage")?;
        }
        let on = files.get(&["worker", "oci", "gc"]).map_or(Ok(true), |entry| entry.flag())?;
        let sections = files.get(&["worker", "oci", "gcpolicy"]);
        let sections = sections.map(|entry| entry.tables()).transpose()?.unwrap_or_default();
        let rules = sections.iter().map(Rule::of).collect::<Result<_, _>>()?;
        Ok(Self { off: !on, limits, rules })
    }

    /// Returns the rules for a state directory.
    pub fn policy_at(&self, root: &Path) -> GcPolicy {
        self.policy(slipway_store::disk_size(root))
    }

    /// Returns the rules for a disk of `disk` bytes.
    fn policy(&self, disk: u64) -> GcPolicy {
        if self.off {
            return GcPolicy::default();
        }
        if !self.rules.is_empty() {
            return GcPolicy { rules: self.rules.iter().map(|rule| rule.on(disk)).collect() };
        }
        match self.limits.is_unset() {
            true => GcPolicy::default_for(disk),
            false => GcPolicy::within(&self.limits, disk),
        }
    }
}

impl Rule {
    fn of(section: &Section<'_>) -> Result<Self, Diagnostic> {
        let space = |key: &str| section.get(key).map_or(Ok(DiskSpace::default()), |entry| entry.space());
        let mut limits = GcLimits {
            reserved: space("reservedSpace")?,
            max_used: space("maxUsedSpace")?,
            min_free: space("minFreeSpace")?,
        };
        if limits.reserved == DiskSpace::default() {
            limits.reserved = space("keepBytes")?;
        }
        let mut rule = GcRule {
            all: section.get("all").map_or(Ok(false), |entry| entry.flag())?,
            keep_duration: section.get("keepDuration").map(|entry| entry.duration()).transpose()?,
            ..GcRule::default()
        };
        if let Some(entry) = section.get("filters") {
            rule.filter = UsageFilter::parse(&entry.texts()?).map_err(|error| {
                entry.wrong("filters, as in `[\"type==source.local\"]`").cause(error.to_string())
            })?;
        }
        rule.keep_duration = rule.keep_duration.filter(|keep| !keep.is_zero());
        Ok(Self { limits, rule })
    }

    fn on(&self, disk: u64) -> GcRule {
        GcRule {
            reserved: self.limits.reserved.on(disk),
            max_used: self.limits.max_used.on(disk),
            min_free: self.limits.min_free.on(disk),
            ..self.rule.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::files::tests::files;
    use super::*;

    const DISK: u64 = 100 << 30;

    fn policy(text: &str) -> Vec<GcRule> {
        GcConfig::of(&files(&[text])).unwrap().policy(DISK).rules
    }

    #[test]
    fn limits_are_those_of_the_usual_rules() {
        let sizes = |rule: &GcRule| (rule.reserved, rule.max_used, rule.min_free);
        let rules =
            policy("[worker.oci]\nreservedSpace = \"30%\"\nmaxUsedSpace = \"60GB\"\nminFreeSpace = 7");
        assert_eq!(rules.len(), 4);
        assert_eq!(sizes(&rules[3]), (31_000_000_000, 60 << 30, 7));
        let older = policy("[worker.oci]\ngckeepstorage = 9000");
        assert_eq!(sizes(&older[2]), (9000, 0, 0));
        assert_eq!(sizes(&policy("")[2]), (10_000_000_000, 81_000_000_000, 21_000_000_000));
        assert!(policy("[worker.oci]\ngc = false\nmaxUsedSpace = 1").is_empty());
    }

    #[test]
    fn rules_replace_the_usual_ones() {
        let rules = policy(
            r#"
            [worker.oci]
              maxUsedSpace = "60GB"
              [[worker.oci.gcpolicy]]
                keepBytes = "1MB"
                keepDuration = 3600
                filters = ["type==source.local", "type==exec.cachemount"]
              [[worker.oci.gcpolicy]]
                all = true
                maxUsedSpace = "10%"
            "#,
        );
        assert_eq!(rules.len(), 2);
        assert_eq!((rules[0].reserved, rules[0].all), (1 << 20, false));
        assert_eq!(rules[0].keep_duration, Some(Duration::from_secs(3600)));
        assert_eq!(rules[0].filter.texts(), ["type==source.local", "type==exec.cachemount"]);
        assert_eq!((rules[1].max_used, rules[1].all, rules[1].keep_duration), (11_000_000_000, true, None));
    }

    #[test]
    fn what_is_no_rule_is_an_error() {
        for text in ["filters = [\"color==red\"]", "filters = \"type==regular\"", "keepBytes = \"much\""] {
            let error = GcConfig::of(&files(&[&format!("[[worker.oci.gcpolicy]]\n{text}")])).unwrap_err();
            assert!(error.message.contains("worker.oci.gcpolicy."), "{error:?}");
        }
    }
}
