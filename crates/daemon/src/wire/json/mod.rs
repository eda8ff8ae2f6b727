//! JSON forms of messages, as Go's encoder writes them: error details travel in that form.

mod op;

pub(super) use op::op;

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use slipway_model::SourceSpan;
use slipway_model::llb::pb;

/// `errdefs.Source`: a place in a source file.
pub(super) fn source(info: &pb::SourceInfo, ranges: &[pb::Range]) -> Value {
    let mut file = Map::new();
    if !info.filename.is_empty() {
        file.insert("filename".to_owned(), json!(info.filename));
    }
    if !info.data.is_empty() {
        file.insert("data".to_owned(), json!(BASE64_STANDARD.encode(&info.data)));
    }
    if !info.language.is_empty() {
        file.insert("language".to_owned(), json!(info.language));
    }
    if let Some(definition) = &info.definition {
        file.insert("definition".to_owned(), self::definition(definition));
    }
    json!({ "info": file, "ranges": ranges.iter().map(range).collect::<Vec<_>>() })
}

fn range(range: &pb::Range) -> Value {
    let position = |position: &Option<pb::Position>| {
        let mut object = Map::new();
        if let Some(position) = position {
            if position.line != 0 {
                object.insert("line".to_owned(), json!(position.line));
            }
            if position.character != 0 {
                object.insert("character".to_owned(), json!(position.character));
            }
        }
        object
    };
    json!({ "start": position(&range.start), "end": position(&range.end) })
}

/// Reads an `errdefs.Source`, whoever wrote it; what is not there is empty.
pub(super) fn span(value: &Value) -> SourceSpan {
    let info = &value["info"];
    let text = |key: &str| info[key].as_str().unwrap_or_default().to_owned();
    let source = pb::SourceInfo {
        filename: text("filename"),
        data: BASE64_STANDARD.decode(text("data")).unwrap_or_default(),
        language: text("language"),
        definition: None,
    };
    let position = |value: &Value| {
        let number = |key: &str| value[key].as_i64().and_then(|number| number.try_into().ok());
        pb::Position {
            line: number("line").unwrap_or_default(),
            character: number("character").unwrap_or_default(),
        }
    };
    let ranges = value["ranges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let range = |range: &Value| pb::Range {
        start: Some(position(&range["start"])),
        end: Some(position(&range["end"])),
    };
    SourceSpan { source: Arc::new(source), ranges: ranges.iter().map(range).collect() }
}

/// A definition; its own source files are left out.
fn definition(definition: &pb::Definition) -> Value {
    let operations: Vec<String> = definition.def.iter().map(|op| BASE64_STANDARD.encode(op)).collect();
    let metadata = definition.metadata.iter().map(|(digest, metadata)| {
        let mut object = Map::new();
        if metadata.ignore_cache {
            object.insert("ignore_cache".to_owned(), json!(true));
        }
        if !metadata.description.is_empty() {
            object.insert("description".to_owned(), json!(metadata.description));
        }
        if !metadata.caps.is_empty() {
            object.insert("caps".to_owned(), json!(metadata.caps));
        }
        (digest.clone(), Value::Object(object))
    });
    json!({ "def": operations, "metadata": metadata.collect::<Map<_, _>>() })
}
