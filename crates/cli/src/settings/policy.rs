//! `--policy`: which policies decide about a build's sources, and where their files are.

use std::path::{Path, PathBuf};

use slipway_model::SourceRules;
use slipway_model::solve::{ContextSource, DockerfileRequest, DockerfileSource, StepOptions};
use slipway_policy::{Environment, LogLevel};

use super::values::{boolean, csv_fields};
use super::{SettingsError, Surroundings};

/// What files below the working directory begin with.
pub(crate) const WORKING_DIRECTORY: &str = "cwd://";
/// What stands in front of all that `disabled` must not be combined with.
const ALONE: &str = "disabled policy cannot be combined with other policy flags";

/// The policies of a build; each has to allow a source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PolicySettings {
    pub(crate) sets: Vec<PolicySet>,
    pub(crate) environment: Environment,
    pub(crate) root: PolicyRoot,
    pub(crate) working_directory: PathBuf,
    /// What the build may use, for files of a context elsewhere.
    pub(crate) offers: StepOptions,
}

/// Files that are one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicySet {
    pub(crate) files: Vec<PolicySource>,
    /// A builder that does not ask about every source is refused.
    pub(crate) strict: bool,
    pub(crate) log_level: Option<LogLevel>,
}

/// One file of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicySource {
    /// As it was written.
    pub(crate) name: String,
    /// `None` is read from the root.
    pub(crate) path: Option<PathBuf>,
    /// It need not be there.
    pub(crate) optional: bool,
}

/// Where the files of policies are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PolicyRoot {
    Directory(PathBuf),
    /// A context elsewhere.
    Url(String),
    /// The context has no files that could be read.
    Nothing,
}

/// One `--policy`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Flag {
    files: Vec<String>,
    reset: bool,
    disabled: bool,
    strict: Option<bool>,
    log_level: Option<LogLevel>,
}

impl Flag {
    fn parse(value: &str) -> Result<Self, SettingsError> {
        let mut flag = Self::default();
        for field in csv_fields("policy", value)? {
            let invalid = || {
                SettingsError::flag(format!("invalid value `{field}` for `--policy`")).hint(
                    "write `filename=FILE`, `reset=BOOL`, `disabled=BOOL`, `strict=BOOL` or `log-level=LEVEL`",
                )
            };
            let (key, value) = field.split_once('=').ok_or_else(invalid)?;
            let on = || boolean(value).ok_or_else(invalid);
            match key.trim().to_ascii_lowercase().as_str() {
                "filename" if !value.is_empty() => flag.files.push(value.to_owned()),
                "reset" => flag.reset = on()?,
                "disabled" => flag.disabled = on()?,
                "strict" => flag.strict = Some(on()?),
                "log-level" => flag.log_level = Some(LogLevel::parse(value).ok_or_else(invalid)?),
                _ => return Err(invalid()),
            }
        }
        Ok(flag)
    }

    fn is_alone(&self) -> bool {
        *self == Self { disabled: true, ..Self::default() }
    }
}

/// Joins the policy beside the Dockerfile and those of the flags; `None` if policies are off.
fn sets(beside: Option<PolicySource>, flags: &[Flag]) -> Result<Option<Vec<PolicySet>>, SettingsError> {
    if flags.iter().any(|flag| flag.disabled) {
        return match flags {
            [flag] if flag.is_alone() => Ok(None),
            _ => Err(SettingsError::flag(ALONE).hint("leave `disabled=true` out, or everything else")),
        };
    }
    let mut sets: Vec<PolicySet> =
        beside.into_iter().map(|file| PolicySet { files: vec![file], ..PolicySet::default() }).collect();
    // What is said before there is a policy is for those that follow.
    let mut said = PolicySet::default();
    for flag in flags {
        if flag.reset {
            sets.clear();
        }
        if flag.files.is_empty() {
            let set = sets.last_mut().unwrap_or(&mut said);
            set.strict = flag.strict.unwrap_or(set.strict);
            set.log_level = flag.log_level.or(set.log_level);
            continue;
        }
        let file = |name: &String| PolicySource { name: name.clone(), path: None, optional: false };
        sets.push(PolicySet {
            files: flag.files.iter().map(file).collect(),
            strict: flag.strict.unwrap_or(said.strict),
            log_level: flag.log_level.or(said.log_level),
        });
    }
    Ok(Some(sets))
}

/// Finds the policies of a build; `written` are the context and the Dockerfile as they were typed.
pub(super) fn of_build(
    flags: &[String],
    request: &DockerfileRequest,
    offers: &StepOptions,
    written: (&str, Option<&str>),
    around: &Surroundings,
) -> Result<Option<PolicySettings>, SettingsError> {
    let flags: Vec<Flag> = flags
        .iter()
        .filter(|flag| !flag.is_empty())
        .map(|flag| Flag::parse(flag))
        .collect::<Result<_, _>>()?;
    let root = match &request.context {
        ContextSource::Directory(path) => PolicyRoot::Directory(path.clone()),
        ContextSource::Url(url) => PolicyRoot::Url(url.clone()),
        _ => PolicyRoot::Nothing,
    };
    let Some(sets) = sets(beside(request, &root, written), &flags)? else { return Ok(None) };
    if sets.is_empty() {
        return Ok(None);
    }
    let filename = match &request.dockerfile {
        DockerfileSource::Path(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        DockerfileSource::Url(url) => {
            url.split(['?', '#']).next().and_then(|url| url.rsplit('/').next()).map(str::to_owned)
        }
        _ => None,
    };
    let environment = Environment {
        args: request.build_args.clone(),
        labels: request.labels.clone(),
        filename: filename.filter(|name| !name.is_empty()).unwrap_or_else(|| "Dockerfile".to_owned()),
        target: request.target.clone().unwrap_or_default(),
    };
    let working_directory = around.absolute("");
    let offers = offers.clone();
    Ok(Some(PolicySettings { sets, environment, root, working_directory, offers }))
}

/// Finds the policy that goes with the Dockerfile by its name.
fn beside(
    request: &DockerfileRequest,
    root: &PolicyRoot,
    (context, file): (&str, Option<&str>),
) -> Option<PolicySource> {
    let DockerfileSource::Path(path) = &request.dockerfile else { return None };
    let with_extension = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".rego");
        PathBuf::from(name)
    };
    match root {
        PolicyRoot::Directory(directory) => {
            let there = with_extension(&directory.join(path));
            let shown = match file.filter(|file| !file.is_empty()) {
                Some(file) => with_extension(Path::new(file)),
                None => with_extension(&Path::new(context).join(path)),
            };
            let name = shown.strip_prefix("./").unwrap_or(&shown).display().to_string();
            there.is_file().then_some(PolicySource { name, path: Some(there), optional: false })
        }
        PolicyRoot::Url(_) => {
            let name = with_extension(path).display().to_string();
            Some(PolicySource { name, path: None, optional: true })
        }
        PolicyRoot::Nothing => None,
    }
}

/// Reads the rules that a variable names.
pub(super) fn static_rules(around: &Surroundings) -> Result<Option<SourceRules>, SettingsError> {
    const VARIABLE: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";
    let Some(path) = around.non_empty(VARIABLE) else { return Ok(None) };
    let failed = |what: &str, cause: String| {
        SettingsError::input(format!("failed to {what} `{path}`: {cause}"))
            .hint(format!("`{VARIABLE}` names a file with rules in JSON"))
    };
    let text = std::fs::read(around.absolute(path))
        .map_err(|error| failed("read the source policy", error.to_string()))?;
    let rules = serde_json::from_slice(&text);
    rules.map(Some).map_err(|error| failed("parse the source policy", error.to_string()))
}

/// Checks the flags of `bake`, which are for all targets; returns them as overrides, `None` to switch policies off.
pub(super) fn of_bake(flags: &[String]) -> Result<Option<Vec<String>>, SettingsError> {
    let given = || flags.iter().filter(|flag| !flag.is_empty());
    let parsed: Vec<Flag> = given().map(|flag| Flag::parse(flag)).collect::<Result<_, _>>()?;
    for flag in &parsed {
        let refused = |what: &str, hint: &str| {
            Err(SettingsError::flag(format!("--policy does not accept {what}")).hint(hint))
        };
        if !flag.files.is_empty() {
            return refused("filename", "name policy files in the bake definition");
        }
        if flag.reset {
            return refused("reset", "write `reset` in the bake definition");
        }
    }
    if parsed.iter().any(|flag| flag.disabled) {
        return match parsed.as_slice() {
            [flag] if flag.is_alone() => Ok(None),
            _ => Err(SettingsError::flag(ALONE).hint("leave `disabled=true` out, or everything else")),
        };
    }
    Ok(Some(given().cloned().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(beside: Option<&str>, flags: &[&str]) -> Result<Option<Vec<Vec<String>>>, SettingsError> {
        let beside = beside.map(|name| PolicySource { name: name.to_owned(), path: None, optional: true });
        let flags: Vec<Flag> = flags.iter().map(|flag| Flag::parse(flag)).collect::<Result<_, _>>()?;
        let sets = sets(beside, &flags)?;
        let names = |set: PolicySet| set.files.into_iter().map(|file| file.name).collect();
        Ok(sets.map(|sets| sets.into_iter().map(names).collect()))
    }

    #[test]
    fn flags_add_to_what_is_beside_the_dockerfile() {
        assert_eq!(names(Some("d"), &[]).unwrap().unwrap(), [["d"]]);
        assert_eq!(
            names(Some("d"), &["filename=a,filename=b"]).unwrap().unwrap(),
            [vec!["d"], vec!["a", "b"]]
        );
        assert_eq!(names(Some("d"), &["reset=true,filename=a"]).unwrap().unwrap(), [["a"]]);
        assert_eq!(names(Some("d"), &["disabled=true"]).unwrap(), None);
        assert_eq!(names(None, &["strict=true"]).unwrap().unwrap(), Vec::<Vec<String>>::new());
        for wrong in
            [&["disabled=true", "strict=1"][..], &["disabled=true,reset=true"], &["x=y"], &["filename="]]
        {
            assert!(names(None, wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_said_alone_is_for_the_last_policy_or_the_next() {
        let parsed = |flags: &[&str]| {
            let flags: Vec<Flag> = flags.iter().map(|flag| Flag::parse(flag).unwrap()).collect();
            sets(None, &flags).unwrap().unwrap()
        };
        let after = parsed(&["filename=a", "strict=true,log-level=debug"]);
        assert_eq!((after[0].strict, after[0].log_level), (true, Some(LogLevel::Debug)));
        let before = parsed(&["strict=true", "filename=a", "filename=b,strict=false"]);
        assert_eq!(before.iter().map(|set| set.strict).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn bake_takes_what_is_for_all_targets() {
        let of = |flag: &str| of_bake(&[flag.to_owned()]);
        assert_eq!(of("strict=true").unwrap().unwrap(), ["strict=true"]);
        assert_eq!(of("disabled=true").unwrap(), None);
        for wrong in ["filename=a", "reset=true", "disabled=true,strict=true"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
