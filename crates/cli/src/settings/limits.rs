//! `--ulimit`, `--resource` and the older flags that mean the same.

use slipway_model::llb::pb;
use slipway_model::solve::Ulimit;

use super::SettingsError;
use super::values::{bytes, nearest};
use crate::args::build::HiddenArgs;

const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

const RESOURCES: &[&str] =
    &["memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"];

/// Parses every `--ulimit type=soft[:hard]`; the last of a type counts.
pub(super) fn ulimits(values: &[String]) -> Result<Vec<Ulimit>, SettingsError> {
    let mut list: Vec<Ulimit> = Vec::new();
    for value in values {
        let ulimit = ulimit(value)?;
        list.retain(|other| other.name != ulimit.name);
        list.push(ulimit);
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

fn ulimit(value: &str) -> Result<Ulimit, SettingsError> {
    let invalid = |why: &str| {
        SettingsError::flag(format!("invalid ulimit `{value}`: {why}"))
            .hint("write `--ulimit nofile=1024:2048`; -1 is unlimited")
    };
    let (name, limits) = value.split_once('=').ok_or_else(|| invalid("expected type=soft[:hard]"))?;
    if !ULIMITS.contains(&name) {
        let error = SettingsError::flag(format!("invalid ulimit type `{name}`"));
        return Err(error.hint(match nearest(name, ULIMITS) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known types are {}", ULIMITS.join(", ")),
        }));
    }
    let number =
        |text: &str| text.parse::<i64>().map_err(|_| invalid(&format!("`{text}` is no whole number")));
    let (soft, hard) = match limits.split_once(':') {
        Some((_, hard)) if hard.contains(':') => return Err(invalid("too many limits")),
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if soft < -1 || hard < -1 {
        return Err(invalid("a limit is not negative, except -1"));
    }
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(invalid("the soft limit is above the hard limit"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// Parses every `--resource KEY=VALUE`, after the older flags.
pub(super) fn resources(values: &[String], older: &HiddenArgs) -> Result<pb::LinuxResources, SettingsError> {
    let mut limits = pb::LinuxResources::default();
    let legacy = [
        ("memory", &older.memory),
        ("memory-swap", &older.memory_swap),
        ("cpu-shares", &older.cpu_shares),
        ("cpu-period", &older.cpu_period),
        ("cpu-quota", &older.cpu_quota),
        ("cpuset-cpus", &older.cpuset_cpus),
        ("cpuset-mems", &older.cpuset_mems),
    ];
    for (key, value) in legacy {
        if let Some(value) = value {
            resource(&mut limits, key, value)?;
        }
    }
    for entry in values {
        let (key, value) = entry.split_once('=').ok_or_else(|| {
            SettingsError::flag(format!("invalid resource `{entry}`, expected key=value"))
                .hint("write `--resource memory=2g`")
        })?;
        resource(&mut limits, key.trim(), value.trim())?;
    }
    Ok(limits)
}

fn resource(limits: &mut pb::LinuxResources, key: &str, value: &str) -> Result<(), SettingsError> {
    let invalid = || SettingsError::flag(format!("invalid value `{value}` for resource `{key}`"));
    let signed = || value.parse::<i64>().map_err(|_| invalid());
    let unsigned = || value.parse::<u64>().map_err(|_| invalid());
    let size = || bytes(value).ok().and_then(|n| i64::try_from(n).ok()).ok_or_else(invalid);
    match key {
        "memory" => limits.memory = size()?,
        "memory-swap" if value == "-1" => limits.memory_swap = -1,
        "memory-swap" => limits.memory_swap = size()?,
        "cpu-shares" => limits.cpu_shares = unsigned()?,
        "cpu-period" => limits.cpu_period = unsigned()?,
        "cpu-quota" => limits.cpu_quota = signed()?,
        "cpuset-cpus" => limits.cpuset_cpus = value.to_owned(),
        "cpuset-mems" => limits.cpuset_mems = value.to_owned(),
        other => {
            let error = SettingsError::flag(format!("unknown resource `{other}`"));
            return Err(error.hint(match nearest(other, RESOURCES) {
                Some(near) => format!("did you mean `--resource {near}={value}`?"),
                None => format!("known resources are {}", RESOURCES.join(", ")),
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits_have_two_limits() {
        let of = |text: &str| ulimit(text).map(|u| (u.soft, u.hard)).map_err(|e| e.to_string());
        assert_eq!(of("nofile=1024"), Ok((1024, 1024)));
        assert_eq!(of("nofile=1024:2048"), Ok((1024, 2048)));
        assert_eq!(of("core=-1"), Ok((-1, -1)));
        assert_eq!(of("core=0:-1"), Ok((0, -1)));
        for text in ["nofile", "nofile=", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3", "files=1", "core=-2"] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn resources_add_up() {
        let older = HiddenArgs { memory: Some("1g".into()), ..HiddenArgs::default() };
        let values = ["memory=2g".to_owned(), "memory-swap=-1".to_owned(), "cpu-quota=50000".to_owned()];
        let limits = resources(&values, &older).unwrap();
        assert_eq!((limits.memory, limits.memory_swap, limits.cpu_quota), (2 << 30, -1, 50000));
        assert!(resources(&["disk=1".to_owned()], &older).is_err());
        assert!(resources(&["memory".to_owned()], &older).is_err());
    }
}
