//! What is added to a bill of materials of the result: the layer that each file is in.

use std::collections::HashMap;

use serde_json::{Value, json};

/// Adds to each file of an SPDX document the layer it comes from, where nothing is said of the file yet.
///
/// `layers` has the layer's digest of each path, without a slash in front.
pub(crate) fn supplement(document: &mut Value, layers: &HashMap<String, String>) {
    let Some(members) = document.as_object_mut().filter(|members| members.contains_key("spdxVersion")) else {
        return;
    };
    for file in members.get_mut("files").and_then(Value::as_array_mut).into_iter().flatten() {
        let said = file.get("comment").and_then(Value::as_str).is_some_and(|comment| !comment.is_empty());
        let name = file.get("fileName").and_then(Value::as_str).unwrap_or_default();
        if let (false, Some(layer)) = (said, layers.get(&clean(name))) {
            file["comment"] = json!(format!("layerID: {layer}"));
        }
    }
    let info = members.entry("creationInfo").or_insert_with(|| json!({}));
    if !info.is_object() {
        *info = json!({});
    }
    let tool = json!(concat!("Tool: slipway-v", env!("CARGO_PKG_VERSION")));
    match info.get_mut("creators").and_then(Value::as_array_mut) {
        Some(creators) => creators.push(tool),
        None => info["creators"] = json!([tool]),
    }
}

/// Writes a path without slash in front and without `.` and `..`.
fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_get_the_layer_they_are_in() {
        let mut document = json!({
            "spdxVersion": "SPDX-2.3",
            "files": [
                { "fileName": "/foo" },
                { "fileName": "./bar" },
                { "fileName": "/foo", "comment": "mine" },
            ],
        });
        supplement(&mut document, &[("foo".to_owned(), "sha256:ab".to_owned())].into());
        let files = document["files"].as_array().unwrap();
        assert_eq!(files[0]["comment"], "layerID: sha256:ab");
        assert_eq!(files[1].get("comment"), None);
        assert_eq!(files[2]["comment"], "mine");
        assert_eq!(document["creationInfo"]["creators"].as_array().unwrap().len(), 1);
        let mut other = json!({ "name": "no SPDX" });
        supplement(&mut other, &HashMap::new());
        assert_eq!(other, json!({ "name": "no SPDX" }));
    }
}
