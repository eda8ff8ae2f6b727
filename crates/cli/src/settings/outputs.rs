//! `--output`, `--push`, `--load` and `--tag`: where the result goes.

use std::path::{Path, PathBuf};

use slipway_model::solve::{
    AnnotationSpec, ArchiveOutput, Destination, DockerOutput, FilesOutput, ImageOptions, ImageOutput,
    OutputSpec, SourceDateEpoch,
};
use slipway_model::{OutputAttributes, Reference, parse_image_name};

use super::values::{boolean, csv_fields, csv_pairs, nearest};
use super::{SettingsError, Surroundings};

/// What the flags say about outputs.
pub(super) struct OutputFlags<'a> {
    pub(super) outputs: &'a [String],
    pub(super) push: bool,
    pub(super) load: bool,
    pub(super) tags: &'a [String],
    pub(super) annotations: &'a [AnnotationSpec],
    /// `--allow buildx.local.delete`.
    pub(super) local_delete: bool,
}

/// The outputs, and a time of files that one of them asked for.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) specs: Vec<OutputSpec>,
    pub(super) source_date_epoch: Option<SourceDateEpoch>,
}

/// The variable that keeps attestation manifests in the form of images.
const NO_DEFAULT_ARTIFACT: &str = "BUILDX_NO_DEFAULT_OCI_ARTIFACT";

const KINDS: &[&str] = &["cacheonly", "docker", "image", "local", "oci", "registry", "tar"];

/// Keys of image outputs that say nothing to slipway: they steer a daemon's own store.
const WITHOUT_EFFECT: &[&str] = &[
    "unpack",
    "store",
    "dangling-name-prefix",
    "danging-name-empty-only",
    "name-canonical",
    "prefer-image-digest",
    "buildinfo-attrs",
];

const KNOWN_KEYS: &[&str] = &[
    "type",
    "dest",
    "name",
    "push",
    "push-by-digest",
    "registry.insecure",
    "oci-mediatypes",
    "compression",
    "compression-level",
    "force-compression",
    "rewrite-timestamp",
    "tar",
    "context",
    "mode",
    "platform-split",
    "source-date-epoch",
    "oci-artifact",
    "attestation-inline",
    "attestation-prefix",
];

/// Merges the flags into outputs; none asked for keeps the image in slipway's own store.
pub(super) fn parse(flags: &OutputFlags<'_>, around: &Surroundings) -> Result<Outputs, SettingsError> {
    let tags = tags(flags.tags)?;
    let mut outputs = Outputs::default();
    for value in flags.outputs.iter().filter(|value| !value.is_empty()) {
        let entry = Entry::parse(value)?;
        outputs.source_date_epoch = entry.attributes.epoch()?.or(outputs.source_date_epoch);
        outputs.specs.push(entry.into_spec(around, flags.local_delete)?);
    }
    apply_push(&mut outputs.specs, flags.push);
    apply_load(&mut outputs.specs, flags.load);
    let specs = &mut outputs.specs;
    if specs.len() > 1 {
        specs.retain(|spec| *spec != OutputSpec::CacheOnly);
    }
    if specs.is_empty() {
        specs.push(OutputSpec::Image(ImageOutput { by_default: true, ..ImageOutput::default() }));
    }
    let no_artifacts = match around.variable(NO_DEFAULT_ARTIFACT) {
        None => false,
        Some(value) => boolean(value).ok_or_else(|| {
            SettingsError::flag(format!("invalid {NO_DEFAULT_ARTIFACT}: `{value}`"))
                .hint("set it to `1` or `0`")
        })?,
    };
    for spec in &mut *specs {
        fill_in(spec, &tags, flags.annotations);
        if no_artifacts && let Some(image) = image_options(spec) {
            image.oci_artifact.get_or_insert(false);
        }
    }
    check_names(specs)?;
    check_stdout(specs, around)?;
    Ok(outputs)
}

/// Parses every `--tag`.
fn tags(values: &[String]) -> Result<Vec<Reference>, SettingsError> {
    let mut list = Vec::new();
    for value in values {
        let reference = parse_image_name("tag", value)?;
        if !list.contains(&reference) {
            list.push(reference);
        }
    }
    Ok(list)
}

fn apply_push(specs: &mut Vec<OutputSpec>, push: bool) {
    if !push {
        return;
    }
    let mut pushed = false;
    for spec in &mut *specs {
        if let OutputSpec::Image(image) = spec {
            image.push = true;
            pushed = true;
        }
    }
    if !pushed {
        specs.push(OutputSpec::Image(ImageOutput { push: true, ..ImageOutput::default() }));
    }
}

fn apply_load(specs: &mut Vec<OutputSpec>, load: bool) {
    let loads =
        |spec: &OutputSpec| matches!(spec, OutputSpec::Docker(docker) if docker.destination.is_none());
    if load && !specs.iter().any(loads) {
        specs.push(OutputSpec::Docker(DockerOutput {
            names: Vec::new(),
            destination: None,
            tar: true,
            engine: None,
            image: ImageOptions::default(),
        }));
    }
}

/// Returns how an output's image is written, if it is one.
fn image_options(spec: &mut OutputSpec) -> Option<&mut ImageOptions> {
    match spec {
        OutputSpec::Image(output) => Some(&mut output.image),
        OutputSpec::Oci(output) => Some(&mut output.image),
        OutputSpec::Docker(output) => Some(&mut output.image),
        OutputSpec::Local(_) | OutputSpec::Tar(_) | OutputSpec::CacheOnly => None,
    }
}

/// Gives an image output the names of `--tag`, which go before its own, and the flags' annotations.
fn fill_in(spec: &mut OutputSpec, tags: &[Reference], annotations: &[AnnotationSpec]) {
    let (names, image, by_digest) = match spec {
        OutputSpec::Image(output) => (&mut output.names, &mut output.image, output.push_by_digest),
        OutputSpec::Oci(output) => (&mut output.names, &mut output.image, false),
        OutputSpec::Docker(output) => (&mut output.names, &mut output.image, false),
        OutputSpec::Local(_) | OutputSpec::Tar(_) | OutputSpec::CacheOnly => return,
    };
    if !tags.is_empty() {
        *names = tags.to_vec();
    }
    if !by_digest {
        names.iter_mut().for_each(|name| *name = name.with_default_tag());
    }
    for annotation in annotations {
        image.annotations.retain(|own| {
            (own.target, &own.platform, &own.key)
                != (annotation.target, &annotation.platform, &annotation.key)
        });
        image.annotations.push(annotation.clone());
    }
}

fn check_names(specs: &[OutputSpec]) -> Result<(), SettingsError> {
    let nameless =
        |spec: &OutputSpec| matches!(spec, OutputSpec::Image(image) if image.push && image.names.is_empty());
    if specs.iter().any(nameless) {
        return Err(SettingsError::flag("tag is needed when pushing to registry")
            .hint("name the image: `--tag registry.example/app:1 --push`"));
    }
    Ok(())
}

fn check_stdout(specs: &[OutputSpec], around: &Surroundings) -> Result<(), SettingsError> {
    match specs.iter().filter(|spec| spec.is_stdout()).count() {
        0 => Ok(()),
        1 if around.stdout_is_terminal => {
            Err(SettingsError::flag("dest file is required for this output: refusing to write to a terminal")
                .hint("add `dest=FILE` to `--output`, or redirect standard output"))
        }
        1 => Ok(()),
        _ => Err(SettingsError::flag("multiple outputs configured to write to stdout")
            .hint("add `dest=FILE` to all but one `--output`")),
    }
}

/// One `--output`, split but not yet understood.
struct Entry {
    text: String,
    attributes: OutputAttributes,
}

impl Entry {
    fn parse(text: &str) -> Result<Self, SettingsError> {
        let fields = csv_fields("output", text)?;
        let entry = |kind: &str, pairs| Self {
            text: text.to_owned(),
            attributes: OutputAttributes { kind: kind.to_owned(), pairs },
        };
        if let [only] = fields.as_slice()
            && only == text
            && !text.starts_with("type=")
        {
            let kind = if text == "-" { "tar" } else { "local" };
            return Ok(entry(kind, vec![("dest".to_owned(), text.to_owned())]));
        }
        let mut attributes = csv_pairs("output", text)?;
        let at = attributes.iter().rposition(|(key, _)| key == "type").ok_or_else(|| {
            SettingsError::flag(format!("type is required for `--output {text}`"))
                .hint(format!("write `--output type=KIND,…` with one of {}", KINDS.join(", ")))
        })?;
        let (_, kind) = attributes.remove(at);
        Ok(entry(&kind, attributes))
    }

    fn kind(&self) -> &str {
        &self.attributes.kind
    }

    fn into_spec(self, around: &Surroundings, local_delete: bool) -> Result<OutputSpec, SettingsError> {
        self.check_keys()?;
        match self.kind() {
            "image" | "registry" => Ok(OutputSpec::Image(self.attributes.image_output()?)),
            "oci" => self.archive(around),
            "docker" => self.docker(around),
            "local" => self.local(around, local_delete),
            "tar" => self.tar(around),
            "cacheonly" => Ok(OutputSpec::CacheOnly),
            other => {
                let error = SettingsError::flag(format!("unknown output type `{other}`"));
                Err(error.hint(match nearest(other, KINDS) {
                    Some(near) => format!("did you mean `--output type={near}`?"),
                    None => format!("known types are {}", KINDS.join(", ")),
                }))
            }
        }
    }

    fn check_keys(&self) -> Result<(), SettingsError> {
        for (key, _) in &self.attributes.pairs {
            let known = KNOWN_KEYS.contains(&key.as_str())
                || WITHOUT_EFFECT.contains(&key.as_str())
                || key.starts_with("annotation");
            if key == "prefer-nondist-layers" {
                if self.attributes.boolean(key)? == Some(true) {
                    return Err(SettingsError::unsupported("`prefer-nondist-layers` of `--output`"));
                }
            } else if !known {
                let error = SettingsError::flag(format!("unknown key `{key}` in `--output {}`", self.text));
                return Err(match nearest(key, KNOWN_KEYS) {
                    Some(near) => error.hint(format!("did you mean `{near}=`?")),
                    None => error,
                });
            }
        }
        Ok(())
    }

    fn archive(&self, around: &Surroundings) -> Result<OutputSpec, SettingsError> {
        let tar = self.is_tar();
        let destination = match self.destination(around, tar)? {
            Some(destination) => destination,
            None => Destination::Stdout,
        };
        Ok(OutputSpec::Oci(ArchiveOutput {
            names: self.attributes.names()?,
            destination,
            tar,
            image: self.attributes.image_options()?,
        }))
    }

    fn docker(&self, around: &Surroundings) -> Result<OutputSpec, SettingsError> {
        let tar = self.is_tar();
        Ok(OutputSpec::Docker(DockerOutput {
            names: self.attributes.names()?,
            destination: self.destination(around, tar)?,
            tar,
            engine: self.attributes.get("context").filter(|name| !name.is_empty()).map(str::to_owned),
            image: self.attributes.image_options()?,
        }))
    }

    fn tar(&self, around: &Surroundings) -> Result<OutputSpec, SettingsError> {
        let destination = self.destination(around, true)?.unwrap_or(Destination::Stdout);
        let platform_split = self.attributes.boolean("platform-split")?;
        let attestation_prefix = self.attestation_prefix();
        Ok(OutputSpec::Tar(FilesOutput { destination, platform_split, delete: false, attestation_prefix }))
    }

    fn local(&self, around: &Surroundings, local_delete: bool) -> Result<OutputSpec, SettingsError> {
        let delete = match self.attributes.get("mode").map(|mode| mode.trim().to_ascii_lowercase()).as_deref()
        {
            None | Some("" | "copy") => false,
            Some("delete") => true,
            Some(other) => {
                return Err(SettingsError::flag(format!("invalid mode `{other}` of a local output"))
                    .hint("use `mode=copy` or `mode=delete`"));
            }
        };
        let Some(Destination::Path(path)) = self.destination(around, false)? else {
            return Err(self.needs_directory("is required"));
        };
        if delete && !local_delete && !is_below(&path, &around.absolute("")) {
            return Err(SettingsError::flag(format!(
                "local output mode=delete for destination `{}` could remove other files",
                path.display()
            ))
            .hint("add `--allow=buildx.local.delete` if it may be emptied"));
        }
        let platform_split = self.attributes.boolean("platform-split")?;
        let (destination, attestation_prefix) = (Destination::Path(path), self.attestation_prefix());
        Ok(OutputSpec::Local(FilesOutput { destination, platform_split, delete, attestation_prefix }))
    }

    fn attestation_prefix(&self) -> String {
        self.attributes.get("attestation-prefix").unwrap_or_default().to_owned()
    }

    /// Tells whether the output is one archive; as in the reference, nonsense means yes.
    fn is_tar(&self) -> bool {
        self.attributes.get("tar").and_then(boolean).unwrap_or(true)
    }

    fn needs_directory(&self, problem: &str) -> SettingsError {
        SettingsError::flag(format!("dest {problem} for {} exporter", self.kind()))
            .hint(format!("write `--output type={},dest=DIRECTORY`", self.kind()))
    }

    /// Reads `dest` and checks that what is there now can be written to.
    fn destination(&self, around: &Surroundings, file: bool) -> Result<Option<Destination>, SettingsError> {
        let path = match self.attributes.get("dest") {
            None | Some("") if file => return Ok(None),
            Some("-") if file => return Ok(Some(Destination::Stdout)),
            None | Some("") => return Err(self.needs_directory("is required")),
            Some("-") => return Err(self.needs_directory("cannot be stdout")),
            Some(path) => path,
        };
        let absolute = around.absolute(path);
        match std::fs::metadata(&absolute) {
            Ok(found) if file && found.is_dir() => {
                Err(SettingsError::flag(format!("destination file {path} is a directory"))
                    .hint(format!("write `dest={}`", Path::new(path).join("image.tar").display())))
            }
            Ok(found) if !file && !found.is_dir() => {
                Err(SettingsError::flag(format!("destination directory {path} is a file")))
            }
            _ => Ok(Some(Destination::Path(absolute))),
        }
    }
}

/// Tells whether `path` lies strictly below `directory`, as far as both exist.
fn is_below(path: &Path, directory: &Path) -> bool {
    let resolve = |path: &Path| -> Option<PathBuf> {
        let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
        let rest = path.strip_prefix(existing).ok()?;
        if rest.components().any(|part| matches!(part, std::path::Component::ParentDir)) {
            return None;
        }
        Some(existing.canonicalize().ok()?.join(rest))
    };
    match (resolve(path), resolve(directory)) {
        (Some(path), Some(directory)) => path != directory && path.starts_with(&directory),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
