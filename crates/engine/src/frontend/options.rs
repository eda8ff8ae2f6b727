//! The built-in frontend's string options, as clients send them, converted once.

use std::collections::BTreeMap;

use slipway_model::llb::pb;
use slipway_model::solve::SolveRequest;
use slipway_model::{Diagnostic, ErrorKind};

/// Makes a request of a client's options and inputs.
pub(super) fn request(
    options: &BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
) -> Result<SolveRequest, Diagnostic> {
    let _ = (options, inputs);
    Err(Diagnostic::new(ErrorKind::User, "the Dockerfile frontend cannot be called by name yet"))
}
