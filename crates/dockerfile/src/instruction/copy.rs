//! `COPY` and `ADD`.

use super::flags::{FlagKind, Flags};
use crate::parser::{Node, parse_heredoc_word};
use crate::problem::Problem;

/// A `COPY` or `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    pub sources: Vec<String>,
    /// Files whose text is in the Dockerfile.
    pub files: Vec<InlineFile>,
    pub destination: String,
    /// A stage, its index, an image or a named context; `COPY` only.
    pub from: Option<String>,
    /// Empty keeps the default, 0:0.
    pub chown: String,
    /// Octal or symbolic; empty keeps the mode.
    pub chmod: String,
    pub link: bool,
    pub exclude: Vec<String>,
    /// Parent directories of sources are kept; `COPY` only.
    pub parents: bool,
    /// Keep `.git` of a repository; `ADD` only.
    pub keep_git_dir: Option<bool>,
    /// A digest of a URL's content or a commit; `ADD` only.
    pub checksum: String,
    /// Extract archives, or do not; `ADD` only.
    pub unpack: Option<bool>,
}

/// A heredoc that is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InlineFile {
    pub name: String,
    pub data: String,
    /// Variables in the text are expanded.
    pub expand: bool,
}

pub(super) fn parse_copy(node: &Node) -> Result<Copy, Problem> {
    let flags = [
        ("chown", FlagKind::Text),
        ("from", FlagKind::Text),
        ("chmod", FlagKind::Text),
        ("link", FlagKind::Bool),
        ("exclude", FlagKind::List),
        ("parents", FlagKind::Bool),
    ];
    parse(node, "COPY", &flags)
}

pub(super) fn parse_add(node: &Node) -> Result<Copy, Problem> {
    let flags = [
        ("chown", FlagKind::Text),
        ("chmod", FlagKind::Text),
        ("link", FlagKind::Bool),
        ("keep-git-dir", FlagKind::Bool),
        ("checksum", FlagKind::Text),
        ("unpack", FlagKind::Bool),
        ("exclude", FlagKind::List),
    ];
    parse(node, "ADD", &flags)
}

fn parse(node: &Node, instruction: &str, known: &[(&'static str, FlagKind)]) -> Result<Copy, Problem> {
    let [sources @ .., destination] = node.arguments.as_slice() else { return Err(too_few(instruction)) };
    if sources.is_empty() {
        return Err(too_few(instruction));
    }
    let flags = Flags::parse(&node.flags, known)?;
    if parse_heredoc_word(destination).ok().flatten().is_some() {
        let message = format!("{instruction} cannot accept a heredoc as a destination");
        return Err(Problem::new(message).token(destination.clone()));
    }
    let mut copy = Copy {
        destination: destination.clone(),
        from: flags.optional("from").filter(|from| !from.is_empty()).map(str::to_owned),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.truth("link").unwrap_or_default(),
        exclude: flags.list("exclude"),
        parents: flags.truth("parents").unwrap_or_default(),
        keep_git_dir: flags.truth("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.truth("unpack"),
        ..Copy::default()
    };
    for source in sources {
        let Some(heredoc) = parse_heredoc_word(source).ok().flatten() else {
            copy.sources.push(source.clone());
            continue;
        };
        let body = node.heredocs.iter().rev().find(|other| other.name == heredoc.name);
        let data = body.map(super::super::parser::Heredoc::text).unwrap_or_default();
        copy.files.push(InlineFile { name: heredoc.name, data, expand: heredoc.expand });
    }
    Ok(copy)
}

fn too_few(instruction: &str) -> Problem {
    Problem::new(format!(
        "{instruction} requires at least two arguments, but only one was provided. Destination could not be determined"
    ))
}
