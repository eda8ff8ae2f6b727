//! A build in a build: a definition that lies in a file which an earlier step made.

use prost::Message as _;
use slipway_files::Root;
use slipway_model::llb::{Definition, pb};
use slipway_model::{Diagnostic, ErrorKind};

use super::VertexOperation;
use crate::build::{first, read_file};
use crate::error::{Context as _, blocking};
use crate::tree::Tree;

/// Says in a `BuildOp` that the definition is LLB.
const LLB: i64 = -1;
/// The input that holds the definition.
const INPUT: &str = "buildkit.llb.definition";
/// The file, if the operation names no other.
const FILE: &str = "/buildkit.llb.definition";
const FILE_ATTRIBUTE: &str = "llbbuild.filename";

/// Reads the definition and builds it.
pub(super) async fn execute(
    operation: &VertexOperation,
    build: &pb::BuildOp,
    inputs: Vec<Tree>,
) -> Result<Vec<Tree>, Diagnostic> {
    let job = &operation.job;
    let invalid = |cause: String| Diagnostic::new(ErrorKind::User, "cannot run a nested build").cause(cause);
    if build.builder != LLB {
        return Err(invalid("only LLB builder is currently allowed".to_owned()));
    }
    let input = build.inputs.get(INPUT).and_then(|input| usize::try_from(input.input).ok());
    let tree = input
        .and_then(|input| inputs.get(input))
        .ok_or_else(|| invalid(format!("no llb definition input {INPUT} found")))?;
    let root = match job.materialize(tree, operation.digest()).await? {
        Some(snapshot) => job.engine.store.snapshots().mount_view(snapshot).diagnose()?.into_fd(),
        None => job.empty_directory()?,
    };
    let path = build.attrs.get(FILE_ATTRIBUTE).cloned().unwrap_or_else(|| FILE.to_owned());
    let bytes = blocking(move || read_file(&Root::from(root), &path, None)).await?;
    let wire = pb::Definition::decode(bytes.as_slice()).map_err(|error| invalid(error.to_string()))?;
    let definition =
        Definition::decode(&wire).map_err(|error| Diagnostic::from_error(ErrorKind::User, &error))?;
    let evaluated = job.evaluate(&[&definition]).await.map_err(first)?;
    Ok(evaluated.trees)
}
