//! Fields of a source that are not known until somebody asks, and how to ask.

use slipway_engine::policy::Wanted;

/// The types of statements that `input.image.provenance` is made of.
pub(crate) const PROVENANCE: [&str; 2] =
    ["https://slsa.dev/provenance/v0.2", "https://slsa.dev/provenance/v1"];

/// Fields that the config of an image has.
pub(crate) const OF_CONFIG: [&str; 6] =
    ["image.labels", "image.user", "image.volumes", "image.workingDir", "image.env", "image.createdTime"];
/// Fields that come with what vouches for an image.
pub(crate) const OF_ATTESTATIONS: [&str; 3] = ["image.hasProvenance", "image.provenance", "image.signatures"];
/// Fields that the objects of a repository have.
pub(crate) const OF_OBJECTS: [&str; 2] = ["git.tag", "git.commit"];

/// Says what to ask for so that some fields become known; `None` if asking does not help.
pub(crate) fn wanted<'a>(fields: impl IntoIterator<Item = &'a str>) -> Option<Wanted> {
    let mut wanted = None;
    for field in fields {
        let wanted = wanted.get_or_insert_with(Wanted::default);
        let (kind, _) = field.split_once('.').unwrap_or((field, ""));
        if field == "image.checksum" || OF_CONFIG.contains(&field) {
            wanted.config = true;
        } else if kind == "image" {
            wanted.attestations = true;
            if field == "image.provenance" {
                wanted.predicate_types = PROVENANCE.map(str::to_owned).to_vec();
            }
        } else if OF_OBJECTS.contains(&field) {
            wanted.options.git_objects = true;
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_its_question() {
        assert!(wanted([]).is_none());
        let config = wanted(["image.checksum", "image.labels"]).unwrap();
        assert!(config.config && !config.attestations);
        let provenance = wanted(["image.provenance"]).unwrap();
        assert!(provenance.attestations && !provenance.config && provenance.predicate_types.len() == 2);
        assert!(wanted(["image.signatures"]).unwrap().predicate_types.is_empty());
        assert!(wanted(["git.commit"]).unwrap().options.git_objects);
        assert!(!wanted(["git.checksum"]).unwrap().options.git_objects);
        assert!(wanted(["http.checksum"]).is_some());
    }
}
