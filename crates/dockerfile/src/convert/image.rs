//! Image configs: empty, inherited, finished.

use std::collections::BTreeMap;

use slipway_model::image_config::{History, RootFs, RunConfig};
use slipway_model::{ImageConfig, Platform};

use crate::{ConvertOptions, Lines};

/// What every entry of the history says of who made it.
const COMMENT: &str = "buildkit.dockerfile.v0";

const UNIX_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the config of an empty image.
pub(super) fn empty(platform: &Platform) -> ImageConfig {
    let env = default_path(&platform.os).into_iter().collect();
    let config = RunConfig { working_dir: "/".to_owned(), env, ..RunConfig::default() };
    ImageConfig { config, ..ImageConfig::for_platform(platform) }
}

/// Returns the variable that every image has, except Windows images, where the system knows better.
pub(super) fn default_path(os: &str) -> Option<String> {
    (os != "windows").then(|| format!("PATH={UNIX_PATH}"))
}

/// Makes one entry of the history.
pub(super) fn entry(text: String, has_layer: bool, epoch: Option<i64>) -> History {
    History {
        created: epoch.map(super::epoch::rfc3339),
        created_by: Some(text),
        comment: Some(COMMENT.to_owned()),
        empty_layer: !has_layer,
        ..History::default()
    }
}

/// Sets a variable in a config's list, in place if it is there.
pub(super) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|other| split_env(other).0 == name) {
        Some(other) => *other = entry,
        None => env.push(entry),
    }
}

/// Splits `name=value`.
pub(super) fn split_env(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

/// Adds what the options say, and leaves out what only the engine knows.
pub(super) fn finished(
    mut image: ImageConfig,
    history_lines: Vec<Option<Lines>>,
    options: &ConvertOptions,
) -> (ImageConfig, Vec<Option<Lines>>) {
    let mut labels: BTreeMap<String, String> = image.config.labels.drain(..).collect();
    labels.extend(options.labels.iter().map(|(name, value)| (name.clone(), value.clone())));
    image.config.labels = labels.into_iter().collect();
    if !options.implicit_platform {
        set_platform(&mut image, &options.platform);
    }
    let platform = image.platform();
    image.os = platform.os;
    image.architecture = platform.architecture;
    image.variant = platform.variant;
    image.created = None;
    image.rootfs = RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() };
    (image, history_lines)
}

fn set_platform(image: &mut ImageConfig, platform: &Platform) {
    let same = image.os == platform.os && image.architecture == platform.architecture;
    image.os.clone_from(&platform.os);
    image.architecture.clone_from(&platform.architecture);
    if platform.variant.is_some() || !same {
        image.variant.clone_from(&platform.variant);
    }
    if platform.os_version.is_some() || !same {
        image.os_version.clone_from(&platform.os_version);
    }
    if !platform.os_features.is_empty() {
        image.os_features.clone_from(&platform.os_features);
    }
}
