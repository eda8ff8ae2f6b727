//! `--cache-from` and `--cache-to`: from attributes as a client writes them to what is meant.

use std::path::{Path, PathBuf};

use slipway_model::solve::{CacheOptions, CacheSpec, Compression, LayoutSelector};
use slipway_model::{Diagnostic, Digest, ErrorKind, Reference, Secret};

use super::bucket::{BucketKeys, BucketSpec};

/// What can be used as a place for a cache.
const SUPPORTED: &str = "use `type=registry`, `type=local`, `type=inline` or `type=s3`";

/// Where a cache goes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requested {
    pub(crate) exports: Vec<ExportTo>,
    /// The cache goes into the image.
    pub(crate) inline: bool,
}

/// A place that has a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImportFrom {
    Registry {
        reference: Reference,
        insecure: bool,
    },
    Local {
        directory: PathBuf,
        selector: LayoutSelector,
    },
    /// A content store of the client; the name is for people.
    Session {
        name: String,
        store: String,
        digest: Digest,
    },
    Bucket(BucketSpec),
}

/// The type of a cache that is in a content store of the client: `store`, `digest`, and `src` for people.
///
/// Nobody writes it: a daemon makes it of a client's `local`.
pub const IN_SESSION: &str = "session";

/// A place that gets a cache, and what is put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExportTo {
    pub(crate) target: ExportTarget,
    pub(crate) mode: Mode,
    pub(crate) ignore_error: bool,
    /// A manifest rather than an index.
    pub(crate) image_manifest: bool,
    pub(crate) oci: bool,
    pub(crate) compression: Compression,
    pub(crate) level: Option<i32>,
    /// Compress again what is in another form.
    pub(crate) force_compression: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExportTarget {
    Registry { reference: Reference, insecure: bool },
    Local { directory: PathBuf, tag: String, reset: bool },
    Bucket(BucketSpec),
}

/// Whose results are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Those that the result is made of.
    Min,
    /// Those of every step.
    Max,
}

impl Requested {
    /// Reads the attributes, and where caches come from; says what is wrong before anything is built.
    pub(super) fn parse(options: &CacheOptions, inline: bool) -> Result<(Self, Vec<ImportFrom>), Diagnostic> {
        let mut requested = Self { inline, ..Self::default() };
        let mut imports = Vec::new();
        for spec in &options.imports {
            imports.extend(ImportFrom::parse(&Attributes { flag: "cache-from", spec })?);
        }
        for spec in &options.exports {
            match ExportTo::parse_spec(spec)? {
                Some(export) => requested.exports.push(export),
                None => requested.inline = true,
            }
        }
        Ok((requested, imports))
    }
}

impl ImportFrom {
    fn parse(attributes: &Attributes<'_>) -> Result<Option<Self>, Diagnostic> {
        match attributes.spec.kind.as_str() {
            "registry" => Ok(Some(Self::Registry {
                reference: attributes.reference()?,
                insecure: attributes.boolean("registry.insecure", false)?,
            })),
            "local" => {
                let selector = match attributes.get("digest") {
                    Some(digest) => LayoutSelector::Digest(
                        digest.parse().map_err(|_| attributes.invalid("digest", "sha256:…"))?,
                    ),
                    None => LayoutSelector::Tag(attributes.get("tag").unwrap_or("latest").to_owned()),
                };
                Ok(Some(Self::Local { directory: attributes.directory("src")?, selector }))
            }
            IN_SESSION => {
                let text = |key: &str| attributes.get(key).unwrap_or_default().to_owned();
                let digest = text("digest").parse().map_err(|_| attributes.invalid("digest", "sha256:…"))?;
                Ok(Some(Self::Session { name: text("src"), store: text("store"), digest }))
            }
            "s3" => Ok(Some(Self::Bucket(attributes.bucket()?))),
            // What is in the image that is built cannot be known before it is built.
            "inline" => Err(attributes
                .wrong("an inline cache is in an image, and comes from where the image is")
                .hint("name the image: `--cache-from type=registry,ref=NAME`")),
            _ => Err(attributes.unsupported()),
        }
    }

    /// What the place is called in progress.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Registry { reference, .. } => reference.with_default_tag().to_string(),
            Self::Local { directory, .. } => directory.display().to_string(),
            Self::Session { name, .. } => name.clone(),
            Self::Bucket(spec) => format!("s3 bucket {}", spec.bucket),
        }
    }
}

impl ExportTo {
    /// Reads a value of `--cache-to`; `None` is the image itself.
    pub(super) fn parse_spec(spec: &CacheSpec) -> Result<Option<Self>, Diagnostic> {
        Self::parse(&Attributes { flag: "cache-to", spec })
    }

    fn parse(attributes: &Attributes<'_>) -> Result<Option<Self>, Diagnostic> {
        let target = match attributes.spec.kind.as_str() {
            "registry" => ExportTarget::Registry {
                reference: attributes.reference()?,
                insecure: attributes.boolean("registry.insecure", false)?,
            },
            "local" => ExportTarget::Local {
                directory: attributes.directory("dest")?,
                tag: attributes.get("tag").unwrap_or("latest").to_owned(),
                reset: attributes.boolean("reset", false)?,
            },
            "s3" => ExportTarget::Bucket(attributes.bucket()?),
            // An image has room for its own layers only, whatever the mode.
            "inline" => return attributes.mode().map(|_| None),
            _ => return Err(attributes.unsupported()),
        };
        let oci = attributes.boolean("oci-mediatypes", true)?;
        let image_manifest = attributes.boolean("image-manifest", oci)?;
        if image_manifest && !oci {
            return Err(attributes
                .wrong("a cache as an image manifest needs OCI media types")
                .hint("leave out one of `image-manifest=true` and `oci-mediatypes=false`"));
        }
        let compression = attributes.compression()?;
        Ok(Some(Self {
            target,
            mode: attributes.mode()?,
            ignore_error: attributes.boolean("ignore-error", false)?,
            image_manifest,
            oci,
            compression,
            level: attributes.level(compression)?,
            force_compression: attributes.boolean("force-compression", false)?,
        }))
    }

    /// What the export is called in progress.
    pub(crate) fn name(&self) -> &'static str {
        match self.target {
            ExportTarget::Registry { .. } => "exporting cache to registry",
            ExportTarget::Local { .. } => "exporting cache to client directory",
            ExportTarget::Bucket(_) => "exporting cache to Amazon S3",
        }
    }
}

/// The attributes of one flag, and its name for errors.
struct Attributes<'a> {
    flag: &'static str,
    spec: &'a CacheSpec,
}

impl Attributes<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.spec.attributes.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn wrong(&self, cause: &str) -> Diagnostic {
        Diagnostic::new(ErrorKind::User, format!("cannot use `--{} type={}`", self.flag, self.spec.kind))
            .cause(cause)
    }

    fn unsupported(&self) -> Diagnostic {
        let cause = match self.spec.kind.as_str() {
            "gha" | "azblob" => "slipway does not know this kind of storage yet",
            _ => "there is no such type of cache",
        };
        self.wrong(cause).hint(SUPPORTED)
    }

    fn missing(&self, key: &str, example: &str) -> Diagnostic {
        let Self { flag, spec } = self;
        self.wrong(&format!("`{key}` is missing"))
            .hint(format!("`--{flag} type={},{key}={example}`", spec.kind))
    }

    fn invalid(&self, key: &str, expected: &str) -> Diagnostic {
        let value = self.get(key).unwrap_or_default();
        self.wrong(&format!("`{key}={value}` is not valid")).hint(format!("expected `{key}={expected}`"))
    }

    fn boolean(&self, key: &str, default: bool) -> Result<bool, Diagnostic> {
        match self.get(key) {
            None => Ok(default),
            Some(text) => slipway_model::parse_bool(text).ok_or_else(|| self.invalid(key, "true` or `false")),
        }
    }

    fn reference(&self) -> Result<Reference, Diagnostic> {
        let text = self.get("ref").ok_or_else(|| self.missing("ref", "registry.example/app:cache"))?;
        text.parse().map_err(|error: slipway_model::ParseReferenceError| self.wrong(&error.to_string()))
    }

    /// Reads which bucket is meant; what is not given comes from the environment, under the names that AWS gave it.
    fn bucket(&self) -> Result<BucketSpec, Diagnostic> {
        let given = |key: &str, variable: &str| {
            let environment = || std::env::var(variable).ok().filter(|value| !value.is_empty());
            self.get(key).map(str::to_owned).or_else(environment)
        };
        let bucket = given("bucket", "AWS_BUCKET").ok_or_else(|| self.missing("bucket", "NAME"))?;
        let region = given("region", "AWS_REGION").ok_or_else(|| self.missing("region", "us-east-1"))?;
        let endpoint = match self.get("endpoint_url") {
            Some(endpoint) => endpoint.to_owned(),
            None => format!("https://s3.{region}.amazonaws.com"),
        };
        let endpoint = endpoint.parse().map_err(|_| self.invalid("endpoint_url", "https://HOST"))?;
        let secret = given("secret_access_key", "AWS_SECRET_ACCESS_KEY").map(Secret::new);
        let keys = given("access_key_id", "AWS_ACCESS_KEY_ID").zip(secret).map(|(id, secret)| BucketKeys {
            id,
            secret,
            token: given("session_token", "AWS_SESSION_TOKEN").map(Secret::new),
        });
        let prefix = self.get("prefix").unwrap_or_default();
        let below = |key: &str, default: &str| {
            format!("{prefix}{}", self.spec.attributes.get(key).map_or(default, String::as_str))
        };
        Ok(BucketSpec {
            endpoint,
            path_style: self.boolean("use_path_style", false)?,
            bucket,
            region,
            blobs: below("blobs_prefix", "blobs/"),
            manifests: below("manifests_prefix", "manifests/"),
            names: self.get("name").unwrap_or("buildkit").split(';').map(str::to_owned).collect(),
            keys,
        })
    }

    fn directory(&self, key: &str) -> Result<PathBuf, Diagnostic> {
        let text = self.get(key).ok_or_else(|| self.missing(key, "DIRECTORY"))?;
        std::path::absolute(Path::new(text)).map_err(|error| self.wrong(&error.to_string()))
    }

    fn mode(&self) -> Result<Mode, Diagnostic> {
        match self.get("mode") {
            None | Some("min") => Ok(Mode::Min),
            Some("max") => Ok(Mode::Max),
            Some(_) => Err(self.invalid("mode", "min` or `mode=max")),
        }
    }

    fn compression(&self) -> Result<Compression, Diagnostic> {
        match self.get("compression") {
            None | Some("gzip") => Ok(Compression::Gzip),
            Some("zstd") => Ok(Compression::Zstd),
            Some("uncompressed") => Ok(Compression::Uncompressed),
            Some(_) => Err(self.invalid("compression", "gzip`, `zstd` or `uncompressed")),
        }
    }

    fn level(&self, compression: Compression) -> Result<Option<i32>, Diagnostic> {
        let Some(text) = self.get("compression-level") else { return Ok(None) };
        let most = if compression == Compression::Zstd { 22 } else { 9 };
        match text.parse::<i32>() {
            Ok(level) if (0..=most).contains(&level) => Ok(Some(level)),
            _ => Err(self.invalid("compression-level", &format!("0` to `{most}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(exports: &[(&str, &[(&str, &str)])]) -> Result<Requested, Diagnostic> {
        let spec = |(kind, attributes): &(&str, &[(&str, &str)])| CacheSpec {
            kind: (*kind).to_owned(),
            attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let exports = exports.iter().map(spec).collect();
        Requested::parse(&CacheOptions { imports: Vec::new(), exports }, false)
            .map(|(requested, _)| requested)
    }

    #[test]
    fn attributes_have_the_reference_s_defaults() {
        let requested = parse(&[("registry", &[("ref", "r.example/app:c")]), ("inline", &[])]).unwrap();
        assert!(requested.inline);
        let [export] = requested.exports.as_slice() else { panic!("one export") };
        assert_eq!((export.mode, export.image_manifest, export.oci), (Mode::Min, true, true));
        let docker =
            parse(&[("local", &[("dest", "d"), ("oci-mediatypes", "false"), ("mode", "max")])]).unwrap();
        assert_eq!((docker.exports[0].image_manifest, docker.exports[0].mode), (false, Mode::Max));
        assert!(matches!(&docker.exports[0].target, ExportTarget::Local { tag, .. } if tag == "latest"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
        let cases: &[Case] = &[
            ("gha", &[], "type=registry"),
            ("s3", &[("bucket", "b"), ("region", "r"), ("endpoint_url", "x")], "https://HOST"),
            ("azblob", &[], "type=inline"),
            ("registry", &[], "ref=registry.example/app:cache"),
            ("local", &[], "dest=DIRECTORY"),
            ("local", &[("dest", "d"), ("mode", "mid")], "mode=max"),
            ("local", &[("dest", "d"), ("ignore-error", "perhaps")], "true"),
            ("local", &[("dest", "d"), ("compression", "estargz")], "zstd"),
            ("local", &[("dest", "d"), ("compression-level", "10")], "9"),
            ("local", &[("dest", "d"), ("oci-mediatypes", "0"), ("image-manifest", "1")], "image-manifest"),
        ];
        for (kind, attributes, part) in cases {
            let error = parse(&[(kind, attributes)]).unwrap_err();
            assert!(error.message.contains(&format!("--cache-to type={kind}")), "{error:?}");
            assert!(error.hint.as_deref().is_some_and(|hint| hint.contains(part)), "{error:?}");
        }
    }
}
