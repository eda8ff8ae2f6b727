//! `create`: a builder is made, or one of its nodes changes.

use std::collections::BTreeMap;
use std::path::Path;

use slipway_model::{Diagnostic, csv};

use crate::app::Context;
use crate::args::builders::CreateArgs;
use crate::builders::{
    CONFIG, Change, Content, DEFAULT, DRIVERS, Docker, EMBEDDED, LOCAL, NodeGroup, Store, UpdateError,
    driver, in_store, leave, random_name, update,
};
use crate::error::Failure;
use crate::output;
use crate::settings::values::duration;
use crate::settings::{SettingsError, Surroundings, describe, parse_platforms};
use crate::ui::Tone;

const SCHEMES: [&str; 8] =
    ["unix", "tcp", "ssh", "docker-container", "kube-pod", "podman-container", "nerdctl-container", "npipe"];

/// Runs `create`.
pub(crate) fn run(args: &CreateArgs, context: &Context) -> Result<(), Failure> {
    duration(&args.timeout).map_err(SettingsError::flag)?;
    let docker = super::docker(context);
    let store = Store::open(docker.builders()).map_err(in_store)?;
    if args.leave {
        return leave_node(args, &store);
    }
    let mut notes = Vec::new();
    let config = args.buildkitd_config.as_deref().or(context.global.config.as_deref());
    let group = group(args, config, &store, &docker, &context.around, &mut notes)?;
    for node in group.nodes.iter().filter(|_| group.driver != EMBEDDED) {
        driver::check(&group, node)?;
    }
    store.save(&group).map_err(in_store)?;
    if group.driver == EMBEDDED {
        store.config_file(&group).map_err(in_store)?;
    }
    if args.make_current {
        store.set_current(&docker.endpoint(), &group.name, false, false).map_err(in_store)?;
    }
    for note in notes {
        output::text_to_stderr(&format!("{} {note}\n", context.palette.paint(Tone::Warning, "warning:")));
    }
    // Booting takes a while, and others may want to know which builders there are.
    drop(store);
    if args.bootstrap {
        super::boot(&group, context)?;
    }
    output::text(&format!("{}\n", group.name))
}

fn leave_node(args: &CreateArgs, store: &Store) -> Result<(), Failure> {
    let required = |value: &Option<String>, what: &str| {
        value.clone().filter(|value| !value.is_empty()).ok_or_else(|| {
            SettingsError::flag(format!("leave requires {what} name"))
                .hint("write `slipway create --leave --name BUILDER --node NODE`")
        })
    };
    let (name, node) = (required(&args.name, "instance")?, required(&args.node, "node")?);
    let group = store.get(&name).map_err(in_store)?;
    let mut group =
        group.ok_or_else(|| SettingsError::input(format!("failed to find instance {name:?} for leave")))?;
    leave(&mut group, &node).map_err(refused)?;
    Ok(store.save(&group).map_err(in_store)?)
}

/// Makes the builder that the flags describe, from the one that is there.
fn group(
    args: &CreateArgs,
    config: Option<&Path>,
    store: &Store,
    docker: &Docker,
    around: &Surroundings,
    notes: &mut Vec<String>,
) -> Result<NodeGroup, Failure> {
    let given = args.name.as_deref().filter(|name| !name.is_empty());
    if given == Some(DEFAULT) {
        let message = "default is a reserved name and cannot be used to identify builder instance";
        return Err(SettingsError::flag(message).into());
    }
    if args.append && given.is_none() {
        return Err(SettingsError::flag("append requires a builder name").hint("add `--name NAME`").into());
    }
    let name = match given {
        Some(name) => name.to_owned(),
        None => unused_name(store)?,
    };
    let there = store.get(&name).map_err(in_store)?;
    let driver = driver_name(args, there.as_ref(), around)?;
    let mut group = match there {
        Some(group) => {
            check_change(args, &group, &name, &driver)?;
            group
        }
        None if args.append => {
            return Err(SettingsError::input(format!("failed to find instance {name:?} for append")).into());
        }
        None => NodeGroup { name: name.to_ascii_lowercase(), driver: driver.clone(), ..NodeGroup::default() },
    };
    let default = docker.default_buildkitd_config();
    let config = config.map(|path| around.absolute(path)).or(default);
    let driver_opts = driver_opts(&args.driver_opt)?;
    let flags = flags(args.buildkitd_flags.as_deref(), &driver, driver_opts.as_ref());
    if driver == EMBEDDED {
        if driver_opts.is_some() {
            notes.push("`--driver-opt` has no effect on slipway's own driver `embedded`".to_owned());
        }
        if flags.is_some() {
            notes.push("`--buildkitd-flags` has no effect on slipway's own driver `embedded`".to_owned());
        }
    }
    let (endpoint, endpoint_is_set) = endpoint(args, &driver, docker, around)?;
    let change = Change {
        node: args.node.clone().unwrap_or_default(),
        append: args.append,
        endpoint,
        endpoint_is_set,
        platforms: match args.platform.is_empty() {
            true => Vec::new(),
            false => parse_platforms(&args.platform)?,
        },
        flags,
        driver_opts,
        files: config.map(|path| files(&path)).transpose()?,
    };
    update(&mut group, change).map_err(refused)?;
    Ok(group)
}

fn unused_name(store: &Store) -> Result<String, Failure> {
    for _ in 0..16 {
        let name = random_name();
        if store.get(&name).map_err(in_store)?.is_none() {
            return Ok(name);
        }
    }
    Err(SettingsError::input("failed to generate random name").hint("name the builder with `--name`").into())
}

fn driver_name(
    args: &CreateArgs,
    there: Option<&NodeGroup>,
    around: &Surroundings,
) -> Result<String, SettingsError> {
    let driver = match (args.driver.as_deref().filter(|name| !name.is_empty()), there) {
        (Some(driver), _) => driver,
        (None, Some(group)) => group.driver.as_str(),
        (None, None) if args.endpoint.is_some() => "docker-container",
        (None, None) if around.non_empty("BUILDKIT_HOST").is_some() => "remote",
        (None, None) => EMBEDDED,
    };
    if driver == "kubernetes" {
        return Err(SettingsError::unsupported("the driver `kubernetes`"));
    }
    if !DRIVERS.contains(&driver) && there.is_none_or(|group| group.driver != driver) {
        return Err(SettingsError::flag(format!("failed to find driver {driver:?}"))
            .hint(format!("the drivers are {}", DRIVERS.join(", "))));
    }
    Ok(driver.to_owned())
}

fn check_change(args: &CreateArgs, group: &NodeGroup, name: &str, driver: &str) -> Result<(), SettingsError> {
    if args.node.is_none() && !args.append {
        return Err(SettingsError::flag(format!(
            "existing instance for {name:?} but no append mode, specify the node name to make changes for \
             existing instances"
        ))
        .hint(format!(
            "`--append` adds a node, `--node` changes one, and `slipway rm {name}` removes the builder"
        )));
    }
    if driver != group.driver {
        return Err(SettingsError::flag(format!(
            "existing instance for {name:?} but has mismatched driver {:?}",
            group.driver
        )));
    }
    Ok(())
}

/// Returns where the node is, and whether that was said.
fn endpoint(
    args: &CreateArgs,
    driver: &str,
    docker: &Docker,
    around: &Surroundings,
) -> Result<(String, bool), SettingsError> {
    let given = args.endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
    match driver {
        EMBEDDED => match given {
            Some(endpoint) => Err(SettingsError::flag(format!(
                "the driver `embedded` builds in this process and has no endpoint `{endpoint}`"
            ))
            .hint("add `--driver remote` for a BuildKit daemon, or leave the endpoint out")),
            None => Ok((LOCAL.to_owned(), false)),
        },
        "remote" => {
            let endpoint = given.or(around.non_empty("BUILDKIT_HOST"));
            let endpoint = endpoint.ok_or_else(|| {
                SettingsError::flag("no remote endpoint provided")
                    .hint("write `slipway create --driver remote tcp://HOST:PORT`, or set BUILDKIT_HOST")
            })?;
            let scheme = endpoint.split_once("://").map(|(scheme, _)| scheme);
            if !scheme.is_some_and(|scheme| SCHEMES.contains(&scheme)) {
                return Err(SettingsError::flag(format!("unrecognized endpoint {endpoint:?}")).hint(
                    format!("it starts with one of {}", SCHEMES.map(|s| format!("{s}://")).join(", ")),
                ));
            }
            Ok((endpoint.to_owned(), true))
        }
        _ => Ok(match given {
            Some(endpoint) => (endpoint.to_owned(), true),
            None => (docker.endpoint(), false),
        }),
    }
}

fn driver_opts(values: &[String]) -> Result<Option<BTreeMap<String, String>>, SettingsError> {
    let mut map = BTreeMap::new();
    for value in values {
        let fields = csv::fields(value).map_err(|error| {
            SettingsError::flag(format!("invalid value `{value}` for `--driver-opt`: {error}"))
        })?;
        for field in fields {
            let (key, value) = field.split_once('=').ok_or_else(|| {
                SettingsError::flag(format!("invalid value {field:?}, expecting k=v"))
                    .hint("write `--driver-opt KEY=VALUE`")
            })?;
            map.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(Some(map).filter(|map| !map.is_empty()))
}

/// Returns the daemon's flags; in a container, steps may use the container's network.
fn flags(text: Option<&str>, driver: &str, opts: Option<&BTreeMap<String, String>>) -> Option<Vec<String>> {
    const ALLOW: &str = "--allow-insecure-entitlement";
    let mut flags = words(text.unwrap_or_default());
    let allows = |what: &str| flags.iter().any(|flag| flag == what || *flag == format!("{ALLOW}={what}"));
    let host_network = opts.and_then(|opts| opts.get("network")).is_some_and(|network| network == "host");
    let none = !flags.iter().any(|flag| flag.starts_with(ALLOW));
    if driver == "docker-container" && (none || host_network && !allows("network.host")) {
        flags.push(format!("{ALLOW}=network.host"));
    }
    Some(flags).filter(|flags| !flags.is_empty())
}

/// Splits a line as a shell does, quotes included.
fn words(text: &str) -> Vec<String> {
    let (mut list, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => list.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    list.extend(word);
    list
}

/// Reads a configuration for a builder to keep; paths in it are meant from where it is.
fn files(path: &Path) -> Result<BTreeMap<String, Content>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        SettingsError::input(format!("failed to read `{}`: {}", path.display(), describe(&error)))
    })?;
    let mut table: toml::Table = text.parse().map_err(|error| {
        Failure::from(
            Diagnostic::from_error(slipway_model::ErrorKind::User, &error)
                .cause(format!("`{}` is not valid TOML", path.display())),
        )
    })?;
    let changed = absolute_paths(&mut table, path.parent().unwrap_or(Path::new("/")));
    let text = if changed { table.to_string() } else { text };
    Ok([(CONFIG.to_owned(), Content(text.into_bytes()))].into())
}

/// Makes the paths of certificates absolute; tells whether one was not.
fn absolute_paths(table: &mut toml::Table, directory: &Path) -> bool {
    let mut changed = false;
    let mut settle = |value: &mut toml::Value| {
        if let toml::Value::String(text) = value
            && !Path::new(text.as_str()).is_absolute()
        {
            *text = directory.join(text.as_str()).to_string_lossy().into_owned();
            changed = true;
        }
    };
    let hosts = table.get_mut("registry").and_then(toml::Value::as_table_mut);
    for (_, host) in hosts.into_iter().flatten() {
        for name in ["ca", "tlsconfigdir"] {
            let list = host.get_mut(name).and_then(toml::Value::as_array_mut);
            list.into_iter().flatten().for_each(&mut settle);
        }
        for pair in host.get_mut("keypair").and_then(toml::Value::as_array_mut).into_iter().flatten() {
            for name in ["key", "cert"] {
                pair.get_mut(name).into_iter().for_each(&mut settle);
            }
        }
    }
    changed
}

fn refused(error: UpdateError) -> Failure {
    let hint = match &error {
        UpdateError::NoNode(_) => Some("add `--append` for another node".to_owned()),
        UpdateError::Duplicate(_) => Some("each node needs an endpoint of its own".to_owned()),
        UpdateError::LastNode => Some("`slipway rm NAME` removes the builder".to_owned()),
        UpdateError::NotThere { .. } | UpdateError::Name(_) => None,
    };
    let error = SettingsError::flag(error.to_string());
    match hint {
        Some(hint) => error.hint(hint).into(),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_words() {
        assert_eq!(words(r#"--a 'b c' --d="e f" "" "#), ["--a", "b c", "--d=e f", ""]);
        assert_eq!(flags(None, EMBEDDED, None), None);
        let allow = "--allow-insecure-entitlement=network.host".to_owned();
        assert_eq!(
            flags(Some("--debug"), "docker-container", None),
            Some(vec!["--debug".into(), allow.clone()])
        );
        let own = "--allow-insecure-entitlement=security.insecure";
        assert_eq!(flags(Some(own), "docker-container", None), Some(vec![own.to_owned()]));
        let host = [("network".to_owned(), "host".to_owned())].into();
        assert_eq!(flags(Some(own), "docker-container", Some(&host)), Some(vec![own.to_owned(), allow]));
    }

    #[test]
    fn a_configuration_is_kept_with_paths_that_go_on_to_work() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.toml");
        let as_it_is = "# mine\n[registry.\"a\"]\nca = [\"/x.pem\"]\n";
        std::fs::write(&path, as_it_is).unwrap();
        assert_eq!(files(&path).unwrap_or_default()[CONFIG].0, as_it_is.as_bytes());
        std::fs::write(
            &path,
            "[registry.\"a\"]\nca = [\"x.pem\"]\n[[registry.\"a\".keypair]]\nkey='k'\ncert='/c'\n",
        )
        .unwrap();
        let kept = files(&path).unwrap_or_default()[CONFIG].0.clone();
        let table: toml::Table = String::from_utf8(kept).unwrap().parse().unwrap();
        let absolute = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        assert_eq!(table["registry"]["a"]["ca"][0].as_str(), Some(absolute("x.pem").as_str()));
        assert_eq!(table["registry"]["a"]["keypair"][0]["key"].as_str(), Some(absolute("k").as_str()));
        assert_eq!(table["registry"]["a"]["keypair"][0]["cert"].as_str(), Some("/c"));
        std::fs::write(&path, "no toml").unwrap();
        assert!(files(&path).is_err() && files(&directory.path().join("absent")).is_err());
    }
}
