//! Errors on their way to a client: a gRPC status whose details clients know how to print.
//!
//! A detail is an `Any` whose value is JSON, named by a type URL below `github.com/moby/buildkit`.

use std::sync::Arc;

use bollard_buildkit_proto::google::protobuf::Any;
use prost::Message as _;
use serde_json::{Value, json};
use slipway_engine::{FailedPart, FailedStep};
use slipway_model::{Diagnostic, ErrorDetail, ErrorKind, ForeignError, Frame, Hint, Trace};
use tonic::{Code, Status};

use super::{RpcStatus, json};
use crate::worker::{BUILDKIT_VERSION, REVISION};

/// The prefix of type URLs.
const TYPES: &str = "github.com/moby/buildkit/";
const EXIT: &str = "gatewayapi.ExitMessage";
const VERTEX: &str = "errdefs.Vertex";
const SOURCE: &str = "errdefs.Source";
const SOLVE: &str = "errdefs.Solve";
const STACK: &str = "stack.Stack";
/// What to do about an error, which only slipway says and shows.
const HINT: &str = "slipway.Hint+json";

/// Makes the status that tells a client of `diagnostic`.
pub(crate) fn status(diagnostic: &Diagnostic) -> Status {
    into_status(rpc_status(diagnostic))
}

/// Makes the status of several independent failures.
pub(crate) fn status_of_all(diagnostics: &[Diagnostic]) -> Status {
    into_status(rpc_status_of_all(diagnostics))
}

/// Makes the message form of several independent failures: the first one with the names of the others.
pub(crate) fn rpc_status_of_all(diagnostics: &[Diagnostic]) -> RpcStatus {
    let Some((first, rest)) = diagnostics.split_first() else {
        let message = "the build failed".to_owned();
        return RpcStatus { code: Code::Unknown as i32, message, details: Vec::new() };
    };
    let mut whole = rpc_status(first);
    for more in rest {
        whole.message.push('\n');
        whole.message.push_str(&text(more));
    }
    whole
}

/// Makes the message form of an error, as it is kept and as frontends return it.
pub(crate) fn rpc_status(diagnostic: &Diagnostic) -> RpcStatus {
    let mut details = vec![origin(&diagnostic.trace)];
    let mut add = |name: &str, value: Value| details.push(detail(name, &value));
    if let Some(code) = diagnostic.exit_code {
        add(EXIT, json!({ "Code": code }));
    }
    if let Some(vertex) = &diagnostic.vertex {
        add(VERTEX, json!({ "digest": vertex.to_string() }));
    }
    for span in diagnostic.span.iter().chain(&diagnostic.also) {
        add(SOURCE, json::source(&span.source, &span.ranges));
    }
    if let Some(hint) = &diagnostic.hint {
        let value = json!({ "text": hint }).to_string().into_bytes();
        details.push(Any { type_url: HINT.to_owned(), value });
    }
    let mut code = match diagnostic.kind {
        _ if is_canceled(diagnostic) => Code::Cancelled,
        ErrorKind::Internal => Code::Internal,
        _ => Code::Unknown,
    } as i32;
    if let Some(foreign) = &diagnostic.foreign {
        code = foreign.code;
        // What the other one said is not said twice.
        details.retain(|ours| foreign.details.iter().all(|theirs| theirs.type_url != ours.type_url));
        details.extend(
            foreign.details.iter().map(|d| Any { type_url: d.type_url.clone(), value: d.value.clone() }),
        );
    }
    RpcStatus { code, message: text(diagnostic), details }
}

/// Says which program an error comes from, and from where in it, as the reference does of its stack.
fn origin(trace: &Trace) -> Any {
    let frame = |frame: &Frame| json!({ "Name": frame.module(), "File": frame.file, "Line": frame.line });
    let frames: Vec<Value> = trace.frames().iter().map(frame).collect();
    let cmdline: Vec<String> =
        std::env::args_os().take(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    detail(
        STACK,
        &json!({
            "frames": frames,
            "cmdline": cmdline,
            "pid": std::process::id(),
            "version": BUILDKIT_VERSION,
            "revision": REVISION,
        }),
    )
}

/// Reads an error of another program: what people are shown of it, and all of it for other clients.
pub(crate) fn from_rpc(status: RpcStatus) -> Diagnostic {
    let kind = match Code::from_i32(status.code) {
        Code::Internal => ErrorKind::Internal,
        Code::Unavailable => ErrorKind::Environment,
        _ => ErrorKind::User,
    };
    let mut diagnostic = Diagnostic::new(kind, status.message);
    for found in &status.details {
        if found.type_url == HINT {
            let value: Value = serde_json::from_slice(&found.value).unwrap_or_default();
            diagnostic.hint = value["text"].as_str().map(Hint::from);
            continue;
        }
        let Some(name) = found.type_url.strip_prefix(TYPES).and_then(|name| name.strip_suffix("+json"))
        else {
            continue;
        };
        let Ok(value) = serde_json::from_slice::<Value>(&found.value) else { continue };
        match name {
            EXIT => {
                let code = value["Code"].as_i64().or_else(|| value["code"].as_i64());
                diagnostic.exit_code = code.and_then(|code| i32::try_from(code).ok());
            }
            VERTEX => diagnostic.vertex = value["digest"].as_str().and_then(|digest| digest.parse().ok()),
            SOURCE => {
                let span = json::span(&value);
                match &diagnostic.span {
                    None => diagnostic.span = Some(span),
                    Some(_) => diagnostic.also.push(span),
                }
            }
            _ => {}
        }
    }
    let details = status.details.into_iter();
    let details = details.map(|d| ErrorDetail { type_url: d.type_url, value: d.value }).collect();
    diagnostic.foreign = Some(Arc::new(ForeignError { code: status.code, details }));
    diagnostic
}

/// Says what failed, and by which ids the files it had and left are known; an empty one is the empty file system.
pub(crate) fn solve_detail(step: &FailedStep, inputs: &[String], mounts: &[String]) -> Any {
    let mut value = json!({
        "inputIDs": inputs,
        "mountIDs": mounts,
        "op": json::op(&step.op),
        "description": step.description,
    });
    match step.part {
        FailedPart::Process => {}
        FailedPart::FileAction(index) => value["file"] = json!({ "index": index }),
        FailedPart::CacheKey(index) => value["cache"] = json!({ "index": index }),
    }
    detail(SOLVE, &value)
}

/// Returns the ids of what a failed step wrote, by mount; `None` if nobody kept it.
pub(crate) fn failed_mounts(failure: &Diagnostic) -> Option<Vec<String>> {
    let details = &failure.foreign.as_ref()?.details;
    let name = format!("{TYPES}{SOLVE}+json");
    let detail = details.iter().find(|detail| detail.type_url == name)?;
    let value: Value = serde_json::from_slice(&detail.value).ok()?;
    let ids = value["mountIDs"].as_array()?;
    Some(ids.iter().map(|id| id.as_str().unwrap_or_default().to_owned()).collect())
}

/// Tells whether an error only says that somebody did not want to wait any more.
fn is_canceled(diagnostic: &Diagnostic) -> bool {
    diagnostic.message == "canceled"
}

/// Turns the message form into a status with its details in the trailer.
pub(crate) fn into_status(status: RpcStatus) -> Status {
    let code = Code::from_i32(status.code);
    // A status of success with a message is no error to gRPC, and would be lost.
    let code = if code == Code::Ok { Code::Unknown } else { code };
    let encoded = RpcStatus { code: code as i32, ..status };
    Status::with_details(code, encoded.message.clone(), encoded.encode_to_vec().into())
}

/// Words the message as clients know it: a checksum is of a reference.
fn text(diagnostic: &Diagnostic) -> String {
    if is_canceled(diagnostic) {
        return "context canceled".to_owned();
    }
    let text = diagnostic.to_string();
    let Some(vertex) = &diagnostic.vertex else { return text };
    let short = &vertex.hex()[..25];
    text.replace(
        "failed to calculate checksum of \"",
        &format!("failed to calculate checksum of ref {short}: \""),
    )
}

/// Makes of a daemon's status what people are told.
pub(crate) fn diagnostic(status: &Status) -> Diagnostic {
    match std::error::Error::source(status) {
        Some(source) => lost(source),
        None => from_rpc(message_form(status)),
    }
}

/// Says why nothing was heard from a daemon: it is this side that made the status.
fn lost(source: &(dyn std::error::Error + 'static)) -> Diagnostic {
    let mut diagnostic = Diagnostic::new(ErrorKind::Environment, "the connection to the daemon was lost");
    let mut told = Vec::new();
    let mut next = Some(source);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !told.contains(&text) {
            diagnostic = diagnostic.cause(text.as_str());
            told.push(text);
        }
        next = cause.source();
    }
    // A handshake that the daemon refuses looks like any other end of a connection more often than not.
    diagnostic.hint(
        "is the daemon running? One that asks for certificates closes connections without: \
         `slipway create … --driver-opt cert=FILE,key=FILE`",
    )
}

/// Returns a status with its details, to be handed on.
pub(crate) fn message_form(status: &Status) -> RpcStatus {
    let details = RpcStatus::decode(status.details()).unwrap_or_default().details;
    RpcStatus { code: status.code() as i32, message: status.message().to_owned(), details }
}

fn detail(name: &str, value: &Value) -> Any {
    Any { type_url: format!("{TYPES}{name}+json"), value: value.to_string().into_bytes() }
}

#[cfg(test)]
mod tests {
    use slipway_model::llb::pb;
    use slipway_model::{Digest, SourceSpan};

    use super::*;

    fn failure() -> Diagnostic {
        let source = |name: &str| pb::SourceInfo {
            filename: name.into(),
            data: b"FROM scratch\nRUN false\n".to_vec(),
            ..pb::SourceInfo::default()
        };
        let at = |line| Some(pb::Position { line, character: 0 });
        let range = pb::Range { start: at(2), end: at(2) };
        let span = |name| SourceSpan { source: Arc::new(source(name)), ranges: vec![range.clone()] };
        let mut failure = Diagnostic::new(ErrorKind::User, "a step failed")
            .at_all(&[span("near"), span("far")])
            .of_vertex(Digest::of("v"));
        failure.exit_code = Some(3);
        failure.hint("try `--no-cache`")
    }

    #[test]
    fn what_is_told_is_what_is_heard_and_handed_on_whole() {
        let mut told = rpc_status(&failure());
        told.details.push(detail("errdefs.Subrequest", &json!({ "name": "unknown" })));
        let heard = from_rpc(told.clone());
        let (foreign, trace) = (heard.foreign.clone(), heard.trace.clone());
        let expected = Diagnostic { foreign, trace, ..failure() };
        assert_eq!(format!("{heard:?}"), format!("{expected:?}"));
        assert_eq!(rpc_status(&heard), told);
    }

    #[test]
    fn a_failed_step_names_the_ids_of_its_files() {
        let mkdir = pb::FileActionMkDir { path: "/a".into(), ..Default::default() };
        let action = Some(pb::file_action::Action::Mkdir(mkdir));
        let actions = vec![pb::FileAction { action, input: -1, secondary_input: -1, output: 0 }];
        let step = FailedStep {
            op: pb::Op { op: Some(pb::op::Op::File(pb::FileOp { actions })), ..Default::default() },
            description: Default::default(),
            part: FailedPart::FileAction(0),
            inputs: Vec::new(),
            mounts: vec![None],
        };
        let detail = solve_detail(&step, &[], &[String::new()]);
        assert_eq!(detail.type_url, "github.com/moby/buildkit/errdefs.Solve+json");
        let value: Value = serde_json::from_slice(&detail.value).unwrap();
        assert_eq!(value["file"]["index"], 0);
        assert_eq!(value["mountIDs"], json!([""]));
        assert_eq!(value["op"]["file"]["actions"][0]["mkdir"]["path"], "/a");
        assert_eq!(value["op"]["file"]["actions"][0]["secondaryInput"], -1);

        let (code, message) = (Code::Unknown as i32, "it failed".to_owned());
        let detail = solve_detail(&step, &[], &["left".to_owned(), String::new()]);
        let heard = from_rpc(RpcStatus { code, message, details: vec![detail] });
        assert_eq!(failed_mounts(&heard), Some(vec!["left".to_owned(), String::new()]));
        assert_eq!(failed_mounts(&failure()), None);
    }

    #[test]
    fn who_cancels_hears_what_clients_look_for() {
        let status = rpc_status(&Diagnostic::new(ErrorKind::User, "canceled"));
        assert_eq!((status.code, status.message.as_str()), (1, "context canceled"));
    }
}
