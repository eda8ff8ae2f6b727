//! What is known of one stage while it is converted.

use slipway_model::llb::NodeOutput;
use slipway_model::{ImageConfig, Platform};

use super::{BaseInfo, OutlineCapture};
use crate::Lines;
use crate::expand::EnvList;
use crate::instruction::{ArgDefinition, Instruction};

/// A stage of the file, or an image or context that an instruction names.
#[derive(Clone, Debug, Default)]
pub(crate) struct StageState {
    /// The base's name, variables expanded.
    pub(super) base_name: String,
    /// The base's name as it is in the file.
    pub(super) written_base: String,
    pub(crate) name: Option<String>,
    /// What comments above the `FROM` say.
    pub(crate) description: Option<String>,
    /// The `FROM`'s text.
    pub(super) code: String,
    pub(super) comments: Vec<String>,
    pub(super) lines: Lines,
    /// The name in vertex names; empty if the file has one stage only.
    pub(super) display_name: String,
    /// The stage that this one is based on.
    pub(super) base: Option<usize>,
    pub(super) platform: Option<Platform>,
    /// A named context that takes the stage's place.
    pub(super) named_context: Option<usize>,
    pub(super) commands: Vec<Command>,
    /// Stages that instructions of this one read.
    pub(super) needs: Vec<(usize, Lines)>,
    pub(super) files: Files,
    pub(super) image: ImageConfig,
    /// For each entry of the image's history, where it comes from.
    pub(super) history_lines: Vec<Option<Lines>>,
    pub(super) base_info: Option<BaseInfo>,
    /// The base image has been asked for.
    pub(super) resolved: bool,
    /// The files are known; a later stage can read them.
    pub(super) dispatched: bool,
    pub(super) triggers_read: bool,
    /// `ARG`s seen so far.
    pub(super) build_args: Vec<ArgDefinition>,
    /// Index into the path sets.
    pub(super) path_set: usize,
    pub(super) ignore_cache: bool,
    pub(super) step: usize,
    pub(super) steps: usize,
    pub(super) in_trigger: bool,
    pub(crate) outline: OutlineCapture,
    pub(super) scan_stage: bool,
    pub(super) scan_context: bool,
    pub(super) workdir_set: bool,
    pub(super) entrypoint: Option<Lines>,
    pub(super) cmd: Option<Lines>,
    pub(super) healthcheck: Option<Lines>,
}

/// An instruction with the stages it reads.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(super) instruction: Instruction,
    /// `COPY`: the source; `RUN`: one for each mount.
    pub(super) sources: Vec<Option<usize>>,
    pub(super) is_trigger: bool,
}

/// The file system of a stage and what steps in it start with.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) output: NodeOutput,
    pub(super) env: EnvList,
    /// With slashes, whatever the operating system.
    pub(super) dir: String,
    pub(super) user: String,
}

impl Default for Files {
    fn default() -> Self {
        Self { output: None, env: EnvList::default(), dir: "/".to_owned(), user: String::new() }
    }
}

impl StageState {
    /// Returns the operating system of the stage.
    pub(super) fn os(&self) -> &str {
        self.platform.as_ref().map_or("linux", |platform| &platform.os)
    }

    /// Adds an entry to the history.
    pub(super) fn commit(&mut self, text: String, has_layer: bool, lines: Lines, epoch: Option<i64>) {
        self.image.history.push(super::image::entry(text, has_layer, epoch));
        self.history_lines.push(Some(lines));
    }
}
