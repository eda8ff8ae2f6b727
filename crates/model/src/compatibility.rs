//! The version of BuildKit's behaviour that a client wants (`compatibility-version`), and what is another in it.
//!
//! Clients ask for an earlier one to get the same image from a newer daemon. What an earlier version did otherwise is
//! done so here only as far as it shows in a result.

use std::sync::Arc;

use serde_json::json;

use crate::solve::{Compression, OutputSpec};
use crate::{Diagnostic, ErrorDetail, ErrorKind, ForeignError};

/// A version of BuildKit's behaviour, by the BuildKit that began with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compatibility {
    V013 = 10,
    V015 = 20,
    #[default]
    V031 = 30,
}

/// gRPC's `Unknown`.
const UNKNOWN: i32 = 2;

impl Compatibility {
    const ALL: [Self; 3] = [Self::V013, Self::V015, Self::V031];

    /// Finds a version by its number; 0 is the current one.
    ///
    /// # Errors
    /// There is none of that number.
    pub fn of_number(number: i64) -> Result<Self, Diagnostic> {
        if number == 0 {
            return Ok(Self::default());
        }
        let known = Self::ALL.into_iter().find(|version| i64::from(version.number()) == number);
        let current = Self::default().number();
        known.ok_or_else(|| {
            let supported = match number > i64::from(current) {
                true => format!(": upgrade buildkit (max supported: {current})"),
                false => " (supported: [10 20 30])".to_owned(),
            };
            Diagnostic::new(ErrorKind::User, format!("unsupported compatibility-version {number}{supported}"))
        })
    }

    /// Returns the number by which clients and provenances name the version.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// Files of repositories that are no programs can be written by everybody.
    pub fn has_open_git_files(self) -> bool {
        self == Self::V013
    }

    /// Gives an output what it does not say itself, as the version did it.
    ///
    /// # Errors
    /// The version cannot do what the output wants.
    pub fn settle(self, output: &mut OutputSpec, has_attestations: bool) -> Result<(), Diagnostic> {
        let (kind, image, always_oci) = match output {
            OutputSpec::Image(output) => ("image", &mut output.image, false),
            OutputSpec::Docker(output) => ("docker", &mut output.image, false),
            OutputSpec::Oci(output) => ("oci", &mut output.image, true),
            OutputSpec::Local(_) | OutputSpec::Tar(_) | OutputSpec::CacheOnly => return Ok(()),
        };
        if self < Self::V031 {
            image.oci_media_types.get_or_insert(always_oci || has_attestations);
            image.oci_artifact.get_or_insert(false);
        }
        match self {
            Self::V013 if image.compression == Compression::Zstd => {
                Err(self.lacks(&format!("{kind} exporter compression=zstd")))
            }
            _ => Ok(()),
        }
    }

    /// Says that the version cannot do something, so that clients understand it.
    fn lacks(self, feature: &str) -> Diagnostic {
        let detail = ErrorDetail {
            type_url: "github.com/moby/buildkit/errdefs.CompatibilityFeature+json".to_owned(),
            value: json!({ "version": self.number(), "feature": feature }).to_string().into_bytes(),
        };
        let message = format!("unsupported compatibility-version {} feature {feature}", self.number());
        let foreign = Some(Arc::new(ForeignError { code: UNKNOWN, details: vec![detail] }));
        Diagnostic { foreign, ..Diagnostic::new(ErrorKind::User, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::{ImageOptions, ImageOutput};

    #[test]
    fn versions_have_numbers() {
        let number = |number| Compatibility::of_number(number).map(Compatibility::number);
        for known in [10, 20, 30] {
            assert_eq!(number(i64::from(known)).unwrap(), known);
        }
        assert_eq!(number(0).unwrap(), 30);
        let text = |unknown| number(unknown).unwrap_err().to_string();
        assert_eq!(text(40), "unsupported compatibility-version 40: upgrade buildkit (max supported: 30)");
        assert_eq!(text(11), "unsupported compatibility-version 11 (supported: [10 20 30])");
    }

    #[test]
    fn earlier_versions_make_images_as_they_did() {
        let settled = |version: Compatibility, compression, attested| {
            let image = ImageOptions { compression, ..ImageOptions::default() };
            let mut output = OutputSpec::Image(ImageOutput { image, ..ImageOutput::default() });
            version.settle(&mut output, attested)?;
            let OutputSpec::Image(output) = output else { panic!() };
            Ok::<_, Diagnostic>((output.image.oci_media_types, output.image.oci_artifact))
        };
        let gzip = Compression::Gzip;
        assert_eq!(settled(Compatibility::V031, gzip, false).unwrap(), (None, None));
        assert_eq!(settled(Compatibility::V015, gzip, false).unwrap(), (Some(false), Some(false)));
        assert_eq!(settled(Compatibility::V015, gzip, true).unwrap(), (Some(true), Some(false)));
        assert!(settled(Compatibility::V015, Compression::Zstd, true).is_ok());
        let error = settled(Compatibility::V013, Compression::Zstd, true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unsupported compatibility-version 10 feature image exporter compression=zstd"
        );
    }
}
