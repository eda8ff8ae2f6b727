//! Outputs as clients ask for them: a kind and string attributes, converted once.
//!
//! Attributes that say nothing to slipway are passed over, as the reference passes over what it does not know.

use std::collections::BTreeMap;

use slipway_model::solve::{
    AnnotationSpec, ArchiveOutput, Destination, DockerOutput, FilesOutput, OutputSpec, SourceDateEpoch,
};
use slipway_model::{Diagnostic, ErrorKind, OutputAttributes, Reference, parse_annotation};

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
        let attributes = self.attributes();
        let tagged = |names: Vec<Reference>| names.iter().map(Reference::with_default_tag).collect();
        match self.kind.as_str() {
            "image" => {
                let mut output = attributes.image_output()?;
                output.names = tagged(output.names);
                Ok(OutputSpec::Image(output))
            }
            "oci" => Ok(OutputSpec::Oci(ArchiveOutput {
                names: tagged(attributes.names()?),
                destination,
                tar: attributes.boolean("tar")?.unwrap_or(true),
                image: attributes.image_options()?,
            })),
            "docker" => Ok(OutputSpec::Docker(DockerOutput {
                names: tagged(attributes.names()?),
                destination: Some(destination),
                tar: attributes.boolean("tar")?.unwrap_or(true),
                engine: None,
                image: attributes.image_options()?,
            })),
            "local" | "tar" => {
                let platform_split = attributes.boolean("platform-split")?;
                let attestation_prefix = attributes.get("attestation-prefix").unwrap_or_default().to_owned();
                let output = FilesOutput { destination, platform_split, delete: false, attestation_prefix };
                Ok(if self.kind == "tar" { OutputSpec::Tar(output) } else { OutputSpec::Local(output) })
            }
            other => Err(Diagnostic::new(ErrorKind::User, format!("exporter {other} could not be found"))
                .hint("use one of image, oci, docker, local, tar")),
        }
    }

    /// Returns what this output's times are to be clamped to, if it says so.
    pub(crate) fn epoch(&self) -> Result<Option<SourceDateEpoch>, Diagnostic> {
        Ok(self.attributes().epoch()?)
    }

    fn attributes(&self) -> OutputAttributes {
        OutputAttributes { kind: self.kind.clone(), pairs: self.attributes.clone().into_iter().collect() }
    }
}

/// Adds the annotations that a result's metadata asks for; they win over those of the output.
pub(super) fn annotate(
    output: &mut OutputSpec,
    metadata: &BTreeMap<String, Vec<u8>>,
) -> Result<(), Diagnostic> {
    let image = match output {
        OutputSpec::Image(output) => &mut output.image,
        OutputSpec::Oci(output) => &mut output.image,
        OutputSpec::Docker(output) => &mut output.image,
        OutputSpec::Local(_) | OutputSpec::Tar(_) | OutputSpec::CacheOnly => return Ok(()),
    };
    for (key, value) in metadata {
        let Some(asked) = parse_annotation(key, &String::from_utf8_lossy(value))? else { continue };
        let same = |own: &AnnotationSpec| {
            (own.target, &own.platform, &own.key) == (asked.target, &asked.platform, &asked.key)
        };
        image.annotations.retain(|own| !same(own));
        image.annotations.push(asked);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str, attributes: &[(&str, &str)]) -> ExporterRequest {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ExporterRequest { kind: kind.to_owned(), attributes, id: "0".to_owned() }
    }

    #[test]
    fn attributes_become_outputs() {
        let OutputSpec::Image(image) =
            request("image", &[("name", "r.example/a,r.example/b:2")]).output().unwrap()
        else {
            panic!()
        };
        let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["r.example/a:latest", "r.example/b:2"]);
        let OutputSpec::Oci(archive) = request("oci", &[("tar", "false")]).output().unwrap() else {
            panic!()
        };
        assert_eq!((archive.destination, archive.tar), (Destination::Client("0".to_owned()), false));
        let OutputSpec::Tar(files) = request("tar", &[("platform-split", "")]).output().unwrap() else {
            panic!()
        };
        assert_eq!(files.platform_split, Some(true));
    }

    #[test]
    fn nonsense_is_an_error() {
        for (kind, key, value) in [("none", "", ""), ("oci", "tar", "maybe"), ("image", "name", "UPPER CASE")]
        {
            assert!(request(kind, &[(key, value)]).output().is_err(), "{kind} {key}={value}");
        }
    }
}
