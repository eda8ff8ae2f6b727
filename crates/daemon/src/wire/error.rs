//! Errors on their way to a client: a gRPC status whose details clients know how to print.
//!
//! A detail is an `Any` whose value is JSON, named by a type URL below `github.com/moby/buildkit`.

use bollard_buildkit_proto::google::protobuf::Any;
use prost::Message as _;
use serde_json::{Value, json};
use slipway_model::{Diagnostic, ErrorKind};
use tonic::{Code, Status};

use super::{RpcStatus, json};

/// The prefix of type URLs.
const TYPES: &str = "github.com/moby/buildkit/";

/// Makes the status that tells a client of `diagnostic`.
pub(crate) fn status(diagnostic: &Diagnostic) -> Status {
    into_status(rpc_status(diagnostic))
}

/// Makes the status of several independent failures: the first one with the names of the others.
pub(crate) fn status_of_all(diagnostics: &[Diagnostic]) -> Status {
    match diagnostics {
        [] => Status::unknown("the build failed"),
        [one] => status(one),
        [first, rest @ ..] => {
            let mut whole = rpc_status(first);
            for more in rest {
                whole.message.push('\n');
                whole.message.push_str(&text(more));
            }
            into_status(whole)
        }
    }
}

/// Makes the message form of an error, as it is kept and as frontends return it.
pub(crate) fn rpc_status(diagnostic: &Diagnostic) -> RpcStatus {
    let mut details = Vec::new();
    if let Some(code) = diagnostic.exit_code {
        details.push(detail("gatewayapi.ExitMessage", &json!({ "Code": code })));
    }
    if let Some(vertex) = &diagnostic.vertex {
        details.push(detail("errdefs.Vertex", &json!({ "digest": vertex.to_string() })));
    }
    if let Some(span) = &diagnostic.span {
        details.push(detail("errdefs.Source", &json::source(&span.source, &span.ranges)));
    }
    let code = match diagnostic.kind {
        _ if diagnostic.message == "canceled" => Code::Cancelled,
        ErrorKind::Internal => Code::Internal,
        _ => Code::Unknown,
    };
    RpcStatus { code: code as i32, message: text(diagnostic), details }
}

/// Makes a status for a capability that is not there.
pub(crate) fn unsupported(name: &str, text: impl Into<String>) -> Status {
    into_status(RpcStatus {
        code: Code::Unimplemented as i32,
        message: text.into(),
        details: vec![detail("errdefs.FrontendCap", &json!({ "name": name }))],
    })
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
    let text = diagnostic.to_string();
    let Some(vertex) = &diagnostic.vertex else { return text };
    let short = &vertex.hex()[..25];
    text.replace(
        "failed to calculate checksum of \"",
        &format!("failed to calculate checksum of ref {short}: \""),
    )
}

fn detail(name: &str, value: &Value) -> Any {
    Any { type_url: format!("{TYPES}{name}+json"), value: value.to_string().into_bytes() }
}
