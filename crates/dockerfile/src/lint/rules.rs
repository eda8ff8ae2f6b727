//! The rules: names, texts and addresses.

/// Describes one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: &'static str,
    pub description: &'static str,
    /// Where more is said; empty if nowhere.
    pub url: &'static str,
    /// Off unless it is asked for.
    pub experimental: bool,
    own: bool,
}

impl Rule {
    /// Tells whether the rule is slipway's own, which the reference does not have.
    pub const fn is_own(&self) -> bool {
        self.own
    }

    const fn reference(name: &'static str, description: &'static str, url: &'static str) -> Self {
        Self { name, description, url, experimental: false, own: false }
    }

    const fn own(name: &'static str, description: &'static str) -> Self {
        Self { name, description, url: "", experimental: false, own: true }
    }
}

/// Builds the address of a rule's page.
macro_rules! page {
    ($name:literal) => {
        concat!("https://docs.docker.com/go/dockerfile/rule/", $name, "/")
    };
}

pub(crate) static STAGE_NAME_CASING: Rule =
    Rule::reference("StageNameCasing", "Stage names should be lowercase", page!("stage-name-casing"));

pub(crate) static FROM_AS_CASING: Rule = Rule::reference(
    "FromAsCasing",
    "The 'as' keyword should match the case of the 'from' keyword",
    page!("from-as-casing"),
);

pub(crate) static NO_EMPTY_CONTINUATION: Rule = Rule::reference(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
    page!("no-empty-continuation"),
);

pub(crate) static CONSISTENT_INSTRUCTION_CASING: Rule = Rule::reference(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    page!("consistent-instruction-casing"),
);

pub(crate) static DUPLICATE_STAGE_NAME: Rule =
    Rule::reference("DuplicateStageName", "Stage names should be unique", page!("duplicate-stage-name"));

pub(crate) static RESERVED_STAGE_NAME: Rule = Rule::reference(
    "ReservedStageName",
    "Reserved words should not be used as stage names",
    page!("reserved-stage-name"),
);

pub(crate) static JSON_ARGS_RECOMMENDED: Rule = Rule::reference(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    page!("json-args-recommended"),
);

pub(crate) static MAINTAINER_DEPRECATED: Rule = Rule::reference(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    page!("maintainer-deprecated"),
);

pub(crate) static UNDEFINED_ARG_IN_FROM: Rule = Rule::reference(
    "UndefinedArgInFrom",
    "FROM command must use declared ARGs",
    page!("undefined-arg-in-from"),
);

pub(crate) static WORKDIR_RELATIVE_PATH: Rule = Rule::reference(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    page!("workdir-relative-path"),
);

pub(crate) static UNDEFINED_VAR: Rule =
    Rule::reference("UndefinedVar", "Variables should be defined before their use", page!("undefined-var"));

pub(crate) static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = Rule::reference(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    page!("multiple-instructions-disallowed"),
);

pub(crate) static LEGACY_KEY_VALUE_FORMAT: Rule = Rule::reference(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
    page!("legacy-key-value-format"),
);

pub(crate) static INVALID_BASE_IMAGE_PLATFORM: Rule = Rule::reference(
    "InvalidBaseImagePlatform",
    "Base image platform does not match expected target platform",
    "",
);

pub(crate) static REDUNDANT_TARGET_PLATFORM: Rule = Rule::reference(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    page!("redundant-target-platform"),
);

pub(crate) static SECRETS_USED_IN_ARG_OR_ENV: Rule = Rule::reference(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
    page!("secrets-used-in-arg-or-env"),
);

pub(crate) static INVALID_DEFAULT_ARG_IN_FROM: Rule = Rule::reference(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
    page!("invalid-default-arg-in-from"),
);

pub(crate) static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = Rule::reference(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
    page!("from-platform-flag-const-disallowed"),
);

pub(crate) static COPY_IGNORED_FILE: Rule = Rule::reference(
    "CopyIgnoredFile",
    "Attempting to Copy file that is excluded by .dockerignore",
    page!("copy-ignored-file"),
);

pub(crate) static EXPOSE_PROTO_CASING: Rule = Rule::reference(
    "ExposeProtoCasing",
    "Protocol in EXPOSE instruction should be lowercase",
    page!("expose-proto-casing"),
);

pub(crate) static EXPOSE_INVALID_FORMAT: Rule = Rule::reference(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    page!("expose-invalid-format"),
);

pub(crate) static INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    experimental: true,
    ..Rule::reference(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
        page!("invalid-definition-description"),
    )
};

pub(crate) static TARGET_ARG_DEFAULT: Rule = Rule::own(
    "TargetArgDefault",
    "A default value for a predefined platform ARG hides the value that the builder would give (a check of slipway)",
);

pub(crate) static FINAL_STAGE_BUILD_PLATFORM: Rule = Rule::own(
    "FinalStageBuildPlatform",
    "The final stage should not be pinned to the build platform (a check of slipway)",
);

/// An ELF-bearing layer is the same on several platforms; the engine reports it, since it has the layers.
pub static IDENTICAL_LAYERS_ACROSS_PLATFORMS: Rule = Rule::own(
    "IdenticalLayersAcrossPlatforms",
    "A layer with programs should not be the same on several platforms (a check of slipway)",
);

/// Lists every rule.
pub static RULES: [&Rule; 25] = [
    &STAGE_NAME_CASING,
    &FROM_AS_CASING,
    &NO_EMPTY_CONTINUATION,
    &CONSISTENT_INSTRUCTION_CASING,
    &DUPLICATE_STAGE_NAME,
    &RESERVED_STAGE_NAME,
    &JSON_ARGS_RECOMMENDED,
    &MAINTAINER_DEPRECATED,
    &UNDEFINED_ARG_IN_FROM,
    &WORKDIR_RELATIVE_PATH,
    &UNDEFINED_VAR,
    &MULTIPLE_INSTRUCTIONS_DISALLOWED,
    &LEGACY_KEY_VALUE_FORMAT,
    &INVALID_BASE_IMAGE_PLATFORM,
    &REDUNDANT_TARGET_PLATFORM,
    &SECRETS_USED_IN_ARG_OR_ENV,
    &INVALID_DEFAULT_ARG_IN_FROM,
    &FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    &COPY_IGNORED_FILE,
    &EXPOSE_PROTO_CASING,
    &EXPOSE_INVALID_FORMAT,
    &INVALID_DEFINITION_DESCRIPTION,
    &TARGET_ARG_DEFAULT,
    &FINAL_STAGE_BUILD_PLATFORM,
    &IDENTICAL_LAYERS_ACROSS_PLATFORMS,
];
