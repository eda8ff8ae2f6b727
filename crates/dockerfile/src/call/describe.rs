//! `--call=subrequests.describe`.

use serde::Serialize;

use super::json;
use super::table::{row, table};

/// One call that can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    pub name: &'static str,
    pub version: &'static str,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub description: &'static str,
    pub opts: Option<Vec<Named>>,
    pub inputs: Option<Vec<Named>>,
    pub metadata: Option<Vec<Named>>,
    pub refs: Option<Vec<Named>>,
}

/// A named part of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    pub name: &'static str,
    pub description: &'static str,
}

fn request(name: &'static str, description: &'static str, opts: Option<Vec<Named>>) -> Request {
    let named = |name| Named { name, description: "" };
    Request {
        name,
        version: "1.0.0",
        kind: "rpc",
        description,
        opts,
        inputs: None,
        metadata: Some(vec![named("result.json"), named("result.txt")]),
        refs: None,
    }
}

/// Lists the calls, as the reference lists them (`check` is not among them).
pub fn describe() -> Vec<Request> {
    let target = Named { name: "target", description: "Target build stage" };
    vec![
        request("frontend.outline", "List all parameters current build target supports", Some(vec![target])),
        request("frontend.targets", "List all targets current build supports", Some(Vec::new())),
        request("frontend.subrequests.describe", "List available subrequest types", None),
    ]
}

/// Returns [`describe`]'s answer in JSON, or as text for people.
pub fn describe_text(as_json: bool) -> String {
    let requests = describe();
    if as_json {
        return json(&requests);
    }
    let mut rows = vec![row(["NAME", "VERSION", "DESCRIPTION"])];
    rows.extend(requests.iter().map(|request| {
        let name = request.name.strip_prefix("frontend.").unwrap_or(request.name);
        row([name, request.version, request.description])
    }));
    table(&rows, 1)
}
