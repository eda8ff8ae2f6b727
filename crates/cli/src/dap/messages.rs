//! The messages of the protocol, as far as builds have a use for them.
//!
//! See <https://microsoft.github.io/debug-adapter-protocol/specification>. The libraries that have all of it are
//! larger than what is used here, and none is kept up by those who use it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an editor sends.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Incoming {
    Request(Request),
    Response(Response),
    #[serde(other)]
    Unknown,
}

/// What an editor wants.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    pub(super) seq: i64,
    pub(super) command: String,
    #[serde(default)]
    pub(super) arguments: Value,
}

/// What an editor answers.
#[derive(Debug, Deserialize)]
pub(super) struct Response {
    pub(super) request_seq: i64,
    pub(super) success: bool,
    #[serde(default)]
    pub(super) message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct InitializeArguments {
    pub(super) supports_run_in_terminal_request: bool,
}

/// What is to be debugged; what is said here goes before what the command line says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LaunchArguments {
    pub(crate) dockerfile: String,
    pub(crate) context_path: String,
    pub(crate) target: String,
    pub(crate) stop_on_entry: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct SetBreakpointsArguments {
    pub(super) source: Source,
    #[serde(default)]
    pub(super) breakpoints: Vec<SourceBreakpoint>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct SourceBreakpoint {
    pub(super) line: i64,
    #[serde(default)]
    pub(super) column: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ThreadArguments {
    pub(super) thread_id: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ScopesArguments {
    pub(super) frame_id: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VariablesArguments {
    pub(super) variables_reference: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct EvaluateArguments {
    pub(super) expression: String,
    #[serde(default)]
    pub(super) context: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct SourceArguments {
    pub(super) source: Source,
}

/// A file of the editor.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Source {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) path: String,
}

impl Source {
    pub(super) fn of(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Self { name, path: path.to_owned() }
    }
}

/// What an editor is told without having asked.
#[derive(Debug, Serialize)]
#[serde(tag = "event", content = "body", rename_all = "camelCase")]
pub(super) enum Event {
    Initialized,
    Stopped(Stopped),
    #[serde(rename_all = "camelCase")]
    Thread {
        reason: &'static str,
        thread_id: i64,
    },
    Output {
        category: &'static str,
        output: String,
    },
    Breakpoint {
        reason: &'static str,
        breakpoint: Breakpoint,
    },
    LoadedSource {
        reason: &'static str,
        source: Source,
    },
    Terminated,
    #[serde(rename_all = "camelCase")]
    Exited {
        exit_code: i32,
    },
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stopped {
    pub(super) reason: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) description: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) text: String,
    pub(super) thread_id: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) hit_breakpoint_ids: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Breakpoint {
    pub(super) id: i64,
    pub(super) verified: bool,
    pub(super) source: Source,
    pub(super) line: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) column: i64,
    pub(super) end_line: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) end_column: i64,
    /// Why it is not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Thread {
    pub(super) id: i64,
    pub(super) name: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StackFrame {
    pub(super) id: i64,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Source>,
    pub(super) line: i64,
    pub(super) column: i64,
    pub(super) end_line: i64,
    pub(super) end_column: i64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scope {
    pub(super) name: &'static str,
    pub(super) presentation_hint: &'static str,
    pub(super) variables_reference: i64,
    pub(super) expensive: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
    /// 0 if there is nothing in it.
    pub(super) variables_reference: i64,
}
