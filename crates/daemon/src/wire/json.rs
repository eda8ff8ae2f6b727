//! JSON forms of messages, as Go's encoder writes them: error details travel in that form.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
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
