//! `history inspect attachment`: the documents of what a build has made.

use serde_json::{Value, json};
use slipway_engine::Attachment;
use slipway_model::{Digest, MediaType};

use crate::args::history::AttachmentArgs;
use crate::builder::Builder;
use crate::error::Failure;
use crate::settings::SettingsError;
use crate::ui::format::table;
use crate::{interrupt, output};

/// Lays out the documents of a result.
pub(super) fn listed(attachments: &[Attachment]) -> String {
    if attachments.is_empty() {
        return String::new();
    }
    let head = ["DIGEST", "PLATFORM", "TYPE"].map(str::to_owned).to_vec();
    let row = |one: &Attachment| vec![one.digest.to_string(), platform(one), one.kind.clone()];
    let rows: Vec<_> = std::iter::once(head).chain(attachments.iter().map(row)).collect();
    format!("Attachments:\n{}", table(&rows, 1))
}

fn platform(attachment: &Attachment) -> String {
    attachment.platform.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// What `--format json` and templates see of a document.
pub(super) fn in_list(attachment: &Attachment) -> Value {
    let mut value = json!({ "Digest": attachment.digest, "Type": attachment.kind });
    if attachment.platform.is_some() {
        value["Platform"] = platform(attachment).into();
    }
    value
}

/// Prints a document of what a build has made.
pub(super) fn print(builder: &Builder, args: &AttachmentArgs) -> Result<(), Failure> {
    let record = builder.history().find(&args.reference)?;
    let runtime = interrupt::runtime()?;
    let digest = match &args.digest {
        Some(digest) => digest
            .parse::<Digest>()
            .map_err(|error| SettingsError::flag(format!("invalid digest `{digest}`: {error}")))?,
        None => {
            let kinds = args.kind.as_deref().map(kinds);
            let attachments = runtime.block_on(builder.attachments(&record))?;
            let wanted = |one: &&Attachment| {
                kinds.as_ref().is_none_or(|kinds| kinds.contains(&one.kind.as_str()))
                    && args.platform.as_ref().is_none_or(|name| *name == platform(one))
            };
            let found = attachments.iter().find(wanted).ok_or_else(|| {
                SettingsError::input(format!("no matching attachment found for ref `{}`", record.id))
                    .hint(format!("`slipway history inspect {}` lists them", record.id))
            })?;
            found.digest
        }
    };
    output::bytes(&runtime.block_on(builder.attachment(&record, &digest))?)
}

/// Returns the types that a short name stands for.
fn kinds(name: &str) -> Vec<&str> {
    match name {
        "index" => vec![MediaType::OCI_INDEX, MediaType::DOCKER_INDEX],
        "manifest" => vec![MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST],
        "image" => vec![MediaType::OCI_CONFIG, MediaType::DOCKER_CONFIG],
        "provenance" => vec!["https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"],
        "sbom" => vec!["https://spdx.dev/Document"],
        whole => vec![whole],
    }
}
