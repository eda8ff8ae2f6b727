//! `RUN --mount=…`.
//!
//! A mount's options may hold variables, so they are looked at when the stage is converted; only `from`
//! has to be known before, because it says which stages are needed.

use crate::problem::Problem;
use crate::suggest::Case;
use crate::text::{csv_fields, parse_bool, parse_size, parse_unsigned};

/// A mount as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountSpec {
    /// The flag's value.
    pub text: String,
    /// The stage, image or context it comes from.
    pub from: Option<String>,
}

/// A mount with its options, variables expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountType,
    pub from: Option<String>,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    /// Bytes of a tmpfs; 0 is no limit.
    pub size: i64,
    /// The id of a cache, secret or ssh agent; empty is the default.
    pub id: String,
    pub sharing: Option<CacheSharing>,
    pub required: bool,
    /// The variable that gets a secret's value.
    pub env: Option<String>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// What is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountType {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// Whether several steps use one cache at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheSharing {
    Shared,
    Private,
    Locked,
}

const TYPES: [(&str, MountType); 5] = [
    ("bind", MountType::Bind),
    ("cache", MountType::Cache),
    ("tmpfs", MountType::Tmpfs),
    ("secret", MountType::Secret),
    ("ssh", MountType::Ssh),
];

const SHARINGS: [(&str, CacheSharing); 3] =
    [("shared", CacheSharing::Shared), ("private", CacheSharing::Private), ("locked", CacheSharing::Locked)];

const KEYS: [&str; 20] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
    "",
];

impl MountType {
    fn name(self) -> &'static str {
        TYPES.iter().find(|(_, kind)| *kind == self).map_or("bind", |(name, _)| name)
    }
}

impl MountSpec {
    /// Splits the flag's value and finds `from`.
    pub(super) fn parse(text: String) -> Result<Self, Problem> {
        let mut from = None;
        for field in fields(&text)? {
            let Some((key, value)) = field.split_once('=') else { continue };
            if !key.eq_ignore_ascii_case("from") {
                continue;
            }
            if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                let message = "'from' doesn't support variable expansion, define alias stage instead";
                let hint = "add a stage `FROM ${NAME} AS alias` and write `from=alias`";
                return Err(Problem::new(message).token(field).hint(hint));
            }
            from = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
        Ok(Self { text, from })
    }

    /// Expands the values and checks the options.
    pub(crate) fn resolve(
        &self,
        expand: &mut dyn FnMut(&str) -> Result<String, Problem>,
    ) -> Result<Mount, Problem> {
        let mut mount = Mount::default();
        let mut read_only = None;
        for field in fields(&self.text)? {
            let option = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(expand(value)?)),
                None => (field.to_lowercase(), None),
            };
            mount.set(&option.0, option.1.as_deref(), &field, &mut read_only)?;
        }
        // What steps write to is writable unless said otherwise; the rest is not.
        let writable = matches!(mount.kind, MountType::Cache | MountType::Tmpfs);
        mount.read_only = read_only.unwrap_or(!writable);
        mount.check()?;
        Ok(mount)
    }
}

fn fields(text: &str) -> Result<Vec<String>, Problem> {
    csv_fields(text).map_err(|error| Problem::new(format!("failed to parse csv mounts: {error}")).token(text))
}

impl Mount {
    fn set(
        &mut self,
        key: &str,
        value: Option<&str>,
        field: &str,
        read_only: &mut Option<bool>,
    ) -> Result<(), Problem> {
        let Some(value) = value else { return self.set_plain(key, field, read_only) };
        let invalid = || Problem::new(format!("invalid value for {key}: {value}")).token(field);
        let number = |radix| {
            let message = format!("invalid value {value} for {key}");
            parse_unsigned(value, radix).ok_or_else(|| Problem::new(message).token(field))
        };
        match key {
            "type" => self.kind = keyword(&TYPES, value, "unsupported mount type")?,
            "from" => self.from = Some(value.to_owned()).filter(|value| !value.is_empty()),
            "source" | "src" => self.source = value.to_owned(),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            "readonly" | "ro" => *read_only = Some(parse_bool(value).ok_or_else(invalid)?),
            "readwrite" | "rw" => *read_only = Some(!parse_bool(value).ok_or_else(invalid)?),
            "required" if self.can_be_required() => self.required = parse_bool(value).ok_or_else(invalid)?,
            "size" if self.kind == MountType::Tmpfs => self.size = parse_size(value).ok_or_else(invalid)?,
            "required" | "size" => return Err(self.unexpected(key)),
            "id" => self.id = value.to_owned(),
            "sharing" => self.sharing = Some(keyword(&SHARINGS, value, "unsupported sharing value")?),
            "mode" => self.mode = Some(number(8)?),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "env" => self.env = Some(value.to_owned()),
            _ => {
                let problem = Problem::new(format!("unexpected key '{key}' in '{field}'")).token(field);
                return Err(problem.suggest(key, KEYS, Case::Sensitive).hint(format!(
                    "known options: {}",
                    KEYS.iter().filter(|key| !key.is_empty()).copied().collect::<Vec<_>>().join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Sets an option that has no value.
    fn set_plain(&mut self, key: &str, field: &str, read_only: &mut Option<bool>) -> Result<(), Problem> {
        match key {
            "readonly" | "ro" => *read_only = Some(true),
            "readwrite" | "rw" => *read_only = Some(false),
            "required" if self.can_be_required() => self.required = true,
            "required" => return Err(self.unexpected(key)),
            _ => {
                let message = format!("invalid field '{field}' must be a key=value pair");
                return Err(Problem::new(message).token(field));
            }
        }
        Ok(())
    }

    fn can_be_required(&self) -> bool {
        matches!(self.kind, MountType::Secret | MountType::Ssh)
    }

    fn unexpected(&self, key: &str) -> Problem {
        let message = format!("unexpected key '{key}' for mount type '{}'", self.kind.name());
        Problem::new(message).token(key).hint("write `type=` before the options that belong to the type")
    }

    fn check(&self) -> Result<(), Problem> {
        if matches!(self.kind, MountType::Bind | MountType::Tmpfs) {
            for (key, given) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if given.is_some() {
                    let message = format!("{key} not allowed for \"{}\" type mounts", self.kind.name());
                    return Err(Problem::new(message).token(key));
                }
            }
        }
        if self.kind == MountType::Secret {
            if self.from.is_some() {
                return Err(Problem::new("secret mount should not have a from").token("from="));
            }
            if self.sharing.is_some() {
                return Err(Problem::new("secret mount should not define sharing").token("sharing="));
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                let message = "invalid secret mount. one of source, target required";
                return Err(Problem::new(message).hint("name the secret: `--mount=type=secret,id=NAME`"));
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return Err(Problem::new("both source and id can't be set").token("source="));
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            let message = format!("invalid cache sharing set for {} mount", self.kind.name());
            return Err(Problem::new(message).token("sharing="));
        }
        Ok(())
    }
}

fn keyword<T: Copy>(list: &[(&'static str, T)], value: &str, message: &str) -> Result<T, Problem> {
    let lower = value.to_lowercase();
    if let Some((_, found)) = list.iter().find(|(name, _)| *name == lower) {
        return Ok(*found);
    }
    let names: Vec<&str> = list.iter().map(|(name, _)| *name).collect();
    let problem = Problem::new(format!("{message} {}", crate::text::quote(value))).token(value);
    let hint = format!("known values: {}", names.join(", "));
    Err(problem.suggest(value, names, Case::Sensitive).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Result<Mount, String> {
        let spec = MountSpec::parse(text.to_owned()).map_err(|p| p.message())?;
        spec.resolve(&mut |value| Ok(value.replace("$V", "v"))).map_err(|p| p.message())
    }

    #[test]
    fn options() {
        let cache = mount("type=cache,target=/c/$V,sharing=locked,mode=0700,uid=1").unwrap();
        assert_eq!(cache.target, "/c/v");
        assert_eq!(
            (cache.sharing, cache.mode, cache.uid),
            (Some(CacheSharing::Locked), Some(0o700), Some(1))
        );
        assert!(!cache.read_only);
        let bind = mount("source=a,dst=b").unwrap();
        assert!(bind.read_only && bind.kind == MountType::Bind);
        assert!(!mount("target=/x,rw").unwrap().read_only);
        assert!(mount("type=tmpfs,target=/x,size=64m,ro=true").unwrap().read_only);
        assert!(mount("type=secret,id=a,required").unwrap().required);
        assert_eq!(mount("\"target=/a,b\"").unwrap().target, "/a,b");
    }

    #[test]
    fn errors_are_the_reference_s() {
        for (text, message) in [
            ("type=magic", "unsupported mount type \"magic\""),
            ("type=chache", "unsupported mount type \"chache\" (did you mean cache?)"),
            ("taget=/x", "unexpected key 'taget' in 'taget=/x' (did you mean target?)"),
            ("type=secret,env=X", "invalid secret mount. one of source, target required"),
            ("target=/x,mode=0700", "mode not allowed for \"bind\" type mounts"),
            ("target=/x,sharing=locked", "invalid cache sharing set for bind mount"),
            ("target=/x,required", "unexpected key 'required' for mount type 'bind'"),
            ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("from=$X,target=/x", "'from' doesn't support variable expansion, define alias stage instead"),
        ] {
            assert_eq!(mount(text).unwrap_err(), message, "{text}");
        }
    }
}
