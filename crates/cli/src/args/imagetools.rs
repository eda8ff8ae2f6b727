//! The flags of `imagetools`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::build::ProgressArg;
use crate::settings::values::boolean_flag;

/// Commands of `imagetools`.
#[derive(Args, Debug)]
pub(crate) struct ImagetoolsArgs {
    #[command(subcommand)]
    pub(crate) command: ImagetoolsCommand,
}

/// What `imagetools` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagetoolsCommand {
    /// Show what a registry or an OCI layout has under a name
    Inspect(InspectArgs),
    /// Make an image from images that are in registries or OCI layouts
    Create(CreateArgs),
}

/// Flags of `imagetools inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Image to look at (format: `NAME[:TAG|@DIGEST]`, `oci-layout://PATH[:TAG]`)
    pub(crate) name: String,
    /// Format the output with a Go template
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "raw")]
    pub(crate) format: Option<String>,
    /// Print the manifest as it is in the registry
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Flags of `imagetools create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Images to combine (format: `NAME[:TAG|@DIGEST]`, digest, `oci-layout://PATH[:TAG]`, descriptor)
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Add to the image that the tag names now
    #[arg(long)]
    pub(crate) append: bool,
    /// Print the image index instead of pushing it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Read a source descriptor from FILE
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// Name the new image (format: `NAME[:TAG]`, `oci-layout://PATH[:TAG]`)
    #[arg(short, long, value_name = "NAME")]
    pub(crate) tag: Vec<String>,
    /// Add an annotation (format: `index:KEY=VALUE`, `manifest-descriptor[PLATFORM]:KEY=VALUE`)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Keep only these platforms
    #[arg(short, long, value_name = "PLATFORM")]
    pub(crate) platform: Vec<String>,
    /// Make an index even of a single image
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = boolean_flag, value_name = "BOOL", default_value = "true")]
    pub(crate) prefer_index: bool,
    /// Write the result's metadata to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Set the kind of progress output
    #[arg(long, value_enum, value_name = "KIND", default_value_t)]
    pub(crate) progress: ProgressArg,
}
