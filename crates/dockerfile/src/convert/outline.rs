//! What `--call=outline` tells, noted down while stages are converted.

use std::collections::{BTreeMap, BTreeSet};

use super::Converter;
use crate::Lines;
use crate::instruction::ArgDefinition;

/// Notes the arguments, secrets and agents of one stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutlineCapture {
    pub(super) arguments: BTreeMap<String, ArgumentNote>,
    pub(super) used: BTreeSet<String>,
    pub(super) secrets: BTreeMap<String, MountNote>,
    pub(super) ssh: BTreeMap<String, MountNote>,
}

/// An argument with the value it had.
#[derive(Clone, Debug, Default)]
pub(crate) struct ArgumentNote {
    pub(crate) definition: ArgDefinition,
    pub(crate) value: String,
    /// Arguments in whose terms the value is written.
    pub(super) needs: BTreeSet<String>,
    pub(crate) lines: Lines,
}

/// A secret or agent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MountNote {
    pub(crate) required: bool,
    pub(crate) lines: Lines,
}

/// Collects the notes of a stage and of all that it needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutlineNotes {
    pub(crate) arguments: BTreeMap<String, ArgumentNote>,
    pub(crate) secrets: BTreeMap<String, MountNote>,
    pub(crate) ssh: BTreeMap<String, MountNote>,
}

impl OutlineCapture {
    /// Lists the arguments that are used, also through the values of others.
    fn all_used(&self) -> BTreeSet<&str> {
        let mut used = BTreeSet::new();
        let mut queue: Vec<&str> = self.used.iter().map(String::as_str).collect();
        while let Some(name) = queue.pop() {
            if used.insert(name) {
                let note = self.arguments.get(name);
                queue.extend(note.iter().flat_map(|note| &note.needs).map(String::as_str));
            }
        }
        used
    }
}

impl Converter<'_> {
    /// Collects what the stage `target` can be given; what is nearer to the target counts first.
    pub(crate) fn outline_notes(&self, target: usize) -> OutlineNotes {
        let mut notes = OutlineNotes::default();
        for index in self.reachable(target) {
            let capture = &self.stages[index].outline;
            for name in capture.all_used() {
                if let Some(note) = capture.arguments.get(name) {
                    notes.arguments.entry(name.to_owned()).or_insert_with(|| note.clone());
                }
            }
            for (all, own) in [(&mut notes.secrets, &capture.secrets), (&mut notes.ssh, &capture.ssh)] {
                for (name, note) in own {
                    all.entry(name.clone()).or_insert(*note);
                }
            }
        }
        notes
    }
}
