//! Outputs as clients ask for them: a kind and string attributes, converted once.
//!
//! Attributes that say nothing to slipway are passed over, as the reference passes over what it does not know.

use std::collections::BTreeMap;

use slipway_model::solve::{
    AnnotationSpec, AnnotationTarget, ArchiveOutput, Compression, Destination, DockerOutput, FilesOutput,
    ImageOptions, ImageOutput, OutputSpec,
};
use slipway_model::{Diagnostic, ErrorKind, Platform, Reference};

use crate::session::ExporterId;

/// An output as a client asks for it.
#[derive(Clone, Debug, Default)]
pub struct ExporterRequest {
    /// `image`, `oci`, `docker`, `local`, `tar`.
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
    /// Names the client's end of the output.
    pub id: ExporterId,
}

impl ExporterRequest {
    /// Converts the attributes.
    pub(crate) fn output(&self) -> Result<OutputSpec, Diagnostic> {
        let destination = Destination::Client(self.id.clone());
        match self.kind.as_str() {
            "image" => Ok(OutputSpec::Image(ImageOutput {
                names: self.names()?,
                push: self.is_set("push")?,
                push_by_digest: self.is_set("push-by-digest")?,
                insecure: self.is_set("registry.insecure")?,
                image: self.image()?,
            })),
            "oci" => Ok(OutputSpec::Oci(ArchiveOutput {
                names: self.names()?,
                destination,
                tar: self.boolean("tar")?.unwrap_or(true),
                image: self.image()?,
            })),
            "docker" => Ok(OutputSpec::Docker(DockerOutput {
                names: self.names()?,
                destination: Some(destination),
                tar: self.boolean("tar")?.unwrap_or(true),
                engine: None,
                image: self.image()?,
            })),
            "local" => Ok(OutputSpec::Local(self.files(destination)?)),
            "tar" => Ok(OutputSpec::Tar(self.files(destination)?)),
            other => Err(Diagnostic::new(ErrorKind::User, format!("exporter {other} could not be found"))
                .hint("use one of image, oci, docker, local, tar")),
        }
    }

    /// Returns the time that this output's times are to be clamped to.
    pub(crate) fn epoch(&self) -> Result<Option<i64>, Diagnostic> {
        match self.get("source-date-epoch") {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| self.invalid("source-date-epoch", text)),
        }
    }

    fn files(&self, destination: Destination) -> Result<FilesOutput, Diagnostic> {
        Ok(FilesOutput { destination, platform_split: self.boolean("platform-split")?, delete: false })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn invalid(&self, key: &str, value: &str) -> Diagnostic {
        Diagnostic::new(
            ErrorKind::User,
            format!("invalid value `{value}` for `{key}` of the exporter {}", self.kind),
        )
    }

    /// Reads a boolean as Go does; a key with an empty value is true.
    fn boolean(&self, key: &str) -> Result<Option<bool>, Diagnostic> {
        match self.attributes.get(key).map(String::as_str) {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(self.invalid(key, other)),
        }
    }

    fn is_set(&self, key: &str) -> Result<bool, Diagnostic> {
        Ok(self.boolean(key)?.unwrap_or(false))
    }

    fn names(&self) -> Result<Vec<Reference>, Diagnostic> {
        // A client asks for the name that a frontend gives with `*`; no frontend here gives one.
        let names = self.get("name").filter(|name| *name != "*").unwrap_or_default();
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        names
            .map(|name| {
                name.parse::<Reference>().map(|name| name.with_default_tag()).map_err(|error| {
                    Diagnostic::new(ErrorKind::User, format!("cannot name an image `{name}`"))
                        .cause(error.to_string())
                })
            })
            .collect()
    }

    fn image(&self) -> Result<ImageOptions, Diagnostic> {
        let compression = match self.get("compression") {
            None | Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("uncompressed") => Compression::Uncompressed,
            Some(other) => {
                return Err(Diagnostic::new(
                    ErrorKind::User,
                    format!("unsupported layer compression type {other}"),
                )
                .hint("use `compression=gzip`, `zstd` or `uncompressed`"));
            }
        };
        let level = self.get("compression-level");
        let compression_level = level
            .map(|text| text.parse::<i32>().map_err(|_| self.invalid("compression-level", text)))
            .transpose()?;
        let annotations = self
            .attributes
            .iter()
            .filter_map(|(key, value)| annotation(key, value).transpose())
            .collect::<Result<Vec<AnnotationSpec>, Diagnostic>>()?;
        Ok(ImageOptions {
            compression,
            compression_level,
            force_compression: self.is_set("force-compression")?,
            oci_media_types: self.boolean("oci-mediatypes")?,
            rewrite_timestamp: self.is_set("rewrite-timestamp")?,
            annotations,
        })
    }
}

/// Reads a key `annotation[-TARGET][[PLATFORM]].KEY`; `None` if it is another key.
fn annotation(key: &str, value: &str) -> Result<Option<AnnotationSpec>, Diagnostic> {
    let Some(rest) = key.strip_prefix("annotation") else { return Ok(None) };
    let (target, rest) = match rest.strip_prefix('-') {
        None => ("manifest", rest),
        Some(rest) => rest.split_at(rest.find(['[', '.']).unwrap_or(rest.len())),
    };
    let (platform, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((platform, rest)) => (Some(platform), rest),
        None => (None, rest),
    };
    let invalid = |cause: String| {
        Diagnostic::new(ErrorKind::User, format!("cannot use the annotation `{key}`")).cause(cause)
    };
    let Some(name) = rest.strip_prefix('.').filter(|name| !name.is_empty()) else { return Ok(None) };
    let target = match target {
        "manifest" => AnnotationTarget::Manifest,
        "manifest-descriptor" => AnnotationTarget::ManifestDescriptor,
        "index" => AnnotationTarget::Index,
        "index-descriptor" => AnnotationTarget::IndexDescriptor,
        other => return Err(invalid(format!("unknown annotation type {other}"))),
    };
    let platform =
        platform.map(|text| text.parse::<Platform>().map_err(|e| invalid(e.to_string()))).transpose()?;
    Ok(Some(AnnotationSpec { target, platform, key: name.to_owned(), value: value.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str, attributes: &[(&str, &str)]) -> ExporterRequest {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ExporterRequest { kind: kind.to_owned(), attributes, id: "0".to_owned() }
    }

    #[test]
    fn attributes_become_options() {
        let attributes = [
            ("name", "r.example/a,r.example/b:2"),
            ("push", "true"),
            ("compression", "zstd"),
            ("annotation-index[linux/arm64].org.example.x", "y"),
            ("unpack", "false"),
        ];
        let OutputSpec::Image(image) = request("image", &attributes).output().unwrap() else { panic!() };
        let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["r.example/a:latest", "r.example/b:2"]);
        assert!(image.push && !image.push_by_digest);
        assert_eq!(image.image.compression, Compression::Zstd);
        let [annotation] = image.image.annotations.as_slice() else { panic!() };
        assert_eq!(
            (annotation.target, annotation.key.as_str(), annotation.platform.as_ref().unwrap().to_string()),
            (AnnotationTarget::Index, "org.example.x", "linux/arm64".to_owned())
        );
    }

    #[test]
    fn nonsense_is_an_error() {
        for (kind, key, value) in [
            ("none", "", ""),
            ("image", "push", "maybe"),
            ("image", "name", "UPPER CASE"),
            ("oci", "compression", "rar"),
            ("oci", "annotation-moon.x", "y"),
        ] {
            assert!(request(kind, &[(key, value)]).output().is_err(), "{kind} {key}={value}");
        }
    }
}
