//! An output as it is asked for: a kind and attributes, of a flag, a bake file or a client alike.
//!
//! Owns what the attributes of images mean. Where the result goes is for the one who asks: paths of a command
//! line and ends of a client's session are different things.

use crate::solve::{
    AnnotationSpec, AnnotationTarget, Compression, ImageOptions, ImageOutput, SourceDateEpoch,
};
use crate::{Diagnostic, ErrorKind, Hint, Platform, Reference, parse_bool};

const TARGETS: &str = "use `manifest`, `manifest-descriptor`, `index` or `index-descriptor`";

/// Says why an attribute cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AttributeError {
    pub message: String,
    pub hint: Option<Hint>,
}

impl AttributeError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<Hint>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<AttributeError> for Diagnostic {
    fn from(error: AttributeError) -> Self {
        Self { hint: error.hint, ..Self::new(ErrorKind::User, error.message) }
    }
}

/// What an output is asked for with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputAttributes {
    /// `image`, `registry`, `oci`, `docker`, `local`, `tar`.
    pub kind: String,
    /// In their order; the last of several with one key counts.
    pub pairs: Vec<(String, String)>,
}

impl OutputAttributes {
    /// Returns the value of a key; an empty one too.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    fn non_empty(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    fn invalid(&self, key: &str, value: &str) -> AttributeError {
        AttributeError::new(format!("invalid value `{value}` for `{key}` of the output `{}`", self.kind))
    }

    /// Reads a boolean; a key with an empty value is true.
    ///
    /// # Errors
    /// The value is neither true nor false.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, AttributeError> {
        match self.get(key) {
            None => Ok(None),
            Some("") => Ok(Some(true)),
            Some(value) => parse_bool(value)
                .map(Some)
                .ok_or_else(|| self.invalid(key, value).hint("use `true` or `false`")),
        }
    }

    /// Tells whether a key is there and true.
    ///
    /// # Errors
    /// The value is neither true nor false.
    pub fn is_set(&self, key: &str) -> Result<bool, AttributeError> {
        Ok(self.boolean(key)?.unwrap_or(false))
    }

    /// Reads the names of an image, which are separated by commas.
    ///
    /// # Errors
    /// One of them is no name.
    pub fn names(&self) -> Result<Vec<Reference>, AttributeError> {
        // A client asks for the name that a frontend gives with `*`; no frontend here gives one.
        let names = self.get("name").filter(|names| *names != "*").unwrap_or_default();
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| parse_image_name("name", name)).collect()
    }

    /// Reads what times are clamped to, if the output says so; an empty value takes the clamp away.
    ///
    /// # Errors
    /// The value is no number of seconds since 1970.
    pub fn epoch(&self) -> Result<Option<SourceDateEpoch>, AttributeError> {
        const KEY: &str = "source-date-epoch";
        let text = self.get(KEY);
        text.map(|text| SourceDateEpoch::of_output(text).map_err(|_| self.invalid(KEY, text))).transpose()
    }

    /// Reads an output of the kinds `image` and `registry`.
    ///
    /// # Errors
    /// An attribute's value cannot be used.
    pub fn image_output(&self) -> Result<ImageOutput, AttributeError> {
        Ok(ImageOutput {
            names: self.names()?,
            push: self.kind == "registry" || self.is_set("push")?,
            push_by_digest: self.is_set("push-by-digest")?,
            insecure: self.is_set("registry.insecure")?,
            by_default: false,
            image: self.image_options()?,
        })
    }

    /// Reads how an image and its layers are written.
    ///
    /// # Errors
    /// An attribute's value cannot be used.
    pub fn image_options(&self) -> Result<ImageOptions, AttributeError> {
        const COMPRESSIONS: &str = "use `compression=gzip`, `zstd` or `uncompressed`";
        let compression = match self.non_empty("compression") {
            None | Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("uncompressed") => Compression::Uncompressed,
            Some(other @ ("estargz" | "nydus")) => {
                let text = format!("`compression={other}` is not supported yet");
                return Err(AttributeError::new(text).hint(COMPRESSIONS));
            }
            Some(other) => {
                let text = format!("unsupported layer compression type `{other}`");
                return Err(AttributeError::new(text).hint(COMPRESSIONS));
            }
        };
        let annotations =
            self.pairs.iter().filter_map(|(key, value)| parse_annotation(key, value).transpose());
        Ok(ImageOptions {
            compression,
            compression_level: self.level(compression)?,
            force_compression: self.is_set("force-compression")?,
            oci_media_types: self.boolean("oci-mediatypes")?,
            rewrite_timestamp: self.is_set("rewrite-timestamp")?,
            annotations: annotations.collect::<Result<_, _>>()?,
            oci_artifact: self.boolean("oci-artifact")?,
            attestation_inline: self.boolean("attestation-inline")?,
        })
    }

    fn level(&self, compression: Compression) -> Result<Option<i32>, AttributeError> {
        let Some(text) = self.non_empty("compression-level") else { return Ok(None) };
        let most = if compression == Compression::Zstd { 22 } else { 9 };
        match text.parse::<i32>() {
            Ok(level) if (0..=most).contains(&level) => Ok(Some(level)),
            _ => Err(AttributeError::new(format!("invalid value `{text}` for `compression-level`"))
                .hint(format!("levels go from 0 to {most}"))),
        }
    }
}

/// Parses the name of an image; `what` tells what gives it, as `tag`.
///
/// # Errors
/// The text is no name.
pub fn parse_image_name(what: &str, text: &str) -> Result<Reference, AttributeError> {
    text.parse::<Reference>().map_err(|error| {
        let error = AttributeError::new(format!("invalid {what} `{text}`: {error}"));
        if text.chars().any(|c| c.is_ascii_uppercase()) {
            return error.hint(format!("repository names are lower case: `{}`", text.to_ascii_lowercase()));
        }
        error.hint(format!("write the {what} as `[registry/]repository[:tag]`"))
    })
}

/// Parses a key `annotation[-TYPE][[PLATFORM]].KEY`; `None` if it is another key.
///
/// # Errors
/// The key names no annotation.
pub fn parse_annotation(key: &str, value: &str) -> Result<Option<AnnotationSpec>, AttributeError> {
    let Some(rest) = key.strip_prefix("annotation") else { return Ok(None) };
    let end = match rest.find(']') {
        Some(close) if rest.find('.').is_none_or(|dot| rest.find('[').is_some_and(|open| open < dot)) => {
            close + 1
        }
        _ => rest.find('.').unwrap_or(rest.len()),
    };
    let (target, name) = rest.split_at(end);
    let Some(name) = name.strip_prefix('.').filter(|name| !name.is_empty()) else {
        return Err(AttributeError::new(format!("invalid key `{key}` of an output"))
            .hint("write `annotation.KEY=VALUE` or `annotation-index.KEY=VALUE`"));
    };
    let (target, platform) = AnnotationTarget::parse_qualified(target.strip_prefix('-').unwrap_or(target))?;
    Ok(Some(AnnotationSpec { target, platform, key: name.to_owned(), value: value.to_owned() }))
}

impl AnnotationTarget {
    /// Parses `manifest[linux/arm64]`; no name at all is the manifest.
    ///
    /// # Errors
    /// There is no such document, or no such platform.
    pub fn parse_qualified(text: &str) -> Result<(Self, Option<Platform>), AttributeError> {
        let (name, platform) = match text.strip_suffix(']').and_then(|open| open.split_once('[')) {
            Some((name, platform)) => (name, Some(platform)),
            None => (text, None),
        };
        let target = match name {
            "" | "manifest" => Self::Manifest,
            "manifest-descriptor" => Self::ManifestDescriptor,
            "index" => Self::Index,
            "index-descriptor" => Self::IndexDescriptor,
            other => {
                return Err(AttributeError::new(format!("unknown annotation type `{other}`")).hint(TARGETS));
            }
        };
        let platform = platform.map(|text| {
            text.parse::<Platform>().map_err(|error| {
                AttributeError::new(format!("invalid platform `{text}` of an annotation: {error}"))
            })
        });
        Ok((target, platform.transpose()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> OutputAttributes {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        OutputAttributes { kind: "image".to_owned(), pairs }
    }

    #[test]
    fn images_are_described() {
        let image = attributes(&[
            ("name", "r.example/a, r.example/b:2"),
            ("push", ""),
            ("compression", "zstd"),
            ("compression-level", "19"),
            ("annotation-index[linux/arm64].org.example.x", "y"),
            ("unpack", "false"),
        ]);
        let image = image.image_output().unwrap();
        let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["r.example/a", "r.example/b:2"]);
        assert!(image.push && !image.push_by_digest);
        assert_eq!((image.image.compression, image.image.compression_level), (Compression::Zstd, Some(19)));
        let [annotation] = image.image.annotations.as_slice() else { panic!() };
        assert_eq!((annotation.target, annotation.key.as_str()), (AnnotationTarget::Index, "org.example.x"));
        assert_eq!(annotation.platform.as_ref().unwrap().to_string(), "linux/arm64");
        assert_eq!(attributes(&[("name", "*")]).names(), Ok(Vec::new()));
    }

    #[test]
    fn keys_of_annotations() {
        let show = |a: AnnotationSpec| {
            let platform = a.platform.as_ref().map(|p| format!("[{p}]")).unwrap_or_default();
            format!("{:?}{platform} {}={}", a.target, a.key, a.value)
        };
        for (key, want) in [
            ("annotation.a.b", Some("Manifest a.b=v")),
            ("annotation-index.k", Some("Index k=v")),
            ("annotation-manifest[linux/amd64].k", Some("Manifest[linux/amd64] k=v")),
            ("annotation[linux/arm/v7].k", Some("Manifest[linux/arm/v7] k=v")),
            ("annotation.a[b].c", Some("Manifest a[b].c=v")),
            ("name", None),
        ] {
            assert_eq!(parse_annotation(key, "v").unwrap().map(show).as_deref(), want, "{key}");
        }
        for key in ["annotation", "annotationx", "annotation-moon.k", "annotation[x/y/z/w/v].k"] {
            assert!(parse_annotation(key, "v").is_err(), "{key}");
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for (key, value) in [
            ("push", "maybe"),
            ("name", "UPPER CASE"),
            ("compression", "rar"),
            ("compression", "estargz"),
            ("compression-level", "10"),
        ] {
            assert!(attributes(&[(key, value)]).image_output().is_err(), "{key}={value}");
        }
        let epoch = |text: &str| attributes(&[("source-date-epoch", text)]).epoch();
        assert_eq!(epoch("12").ok().flatten(), Some(SourceDateEpoch::Seconds(12)));
        assert_eq!(epoch("").ok().flatten(), Some(SourceDateEpoch::Unset));
        assert!(epoch("soon").is_err());
        assert_eq!(attributes(&[]).epoch().ok().flatten(), None);
    }
}
