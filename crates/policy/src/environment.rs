//! What a policy knows of the build itself: `input.env`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What a build was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The name of the Dockerfile.
    pub filename: String,
    pub target: String,
}

impl Environment {
    /// Makes the document; `depth` is how many images the source is away from what is built.
    pub(crate) fn document(&self, depth: usize, caps_request: bool) -> Value {
        let mut fields = Map::new();
        if !self.args.is_empty() {
            fields.insert("args".to_owned(), json!(self.args));
        }
        if !self.labels.is_empty() {
            fields.insert("labels".to_owned(), json!(self.labels));
        }
        for (name, text) in [("filename", &self.filename), ("target", &self.target)] {
            if !text.is_empty() {
                fields.insert(name.to_owned(), json!(text));
            }
        }
        if caps_request {
            fields.insert("capsRequest".to_owned(), true.into());
        }
        fields.insert("depth".to_owned(), depth.into());
        fields.into()
    }
}
