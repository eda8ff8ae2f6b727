//! Completing a command line that is being typed.
//!
//! The scripts for shells ask `slipway __complete WORDS…`, where the last word is the one that is being typed, in
//! the protocol of cobra: docker asks its plugins the same way, so `docker buildx` completes too. What can be said
//! comes from the definition of the command line; names of builders, builds, images and targets are looked up.

mod scripts;

pub(crate) use scripts::script;

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command, CommandFactory as _};

use crate::args::{GlobalArgs, Root};
use crate::builders::{self, Docker, Store};
use crate::settings::Surroundings;

/// What asks for completions, first among the arguments.
pub(crate) const REQUEST: &str = "__complete";
/// The same without descriptions.
pub(crate) const REQUEST_PLAIN: &str = "__completeNoDesc";

/// Tells the shell to complete names of files, which is what it does if it is told nothing.
const FILES: u8 = 0;
/// Tells the shell not to complete names of files.
const NO_FILES: u8 = 4;

/// Platforms that people build for.
const PLATFORMS: &[&str] = &[
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/386",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
    "linux/loong64",
    "local",
];

/// A word that may be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    word: String,
    about: String,
}

impl Candidate {
    fn new(word: impl Into<String>, about: impl Into<String>) -> Self {
        Self { word: word.into(), about: about.into() }
    }
}

/// Names that have to be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Builders,
    Builds,
    Images,
    Targets,
    Platforms,
}

/// What may stand at the place that is being typed.
#[derive(Debug, Default)]
struct Expected {
    candidates: Vec<Candidate>,
    names: Option<Names>,
    files: bool,
    /// What the candidates stand behind: `--builder=` or `linux/amd64,`.
    prefix: String,
}

/// Answers a shell; `words` is the command line without the program, up to what is being typed.
pub(crate) fn answer(words: &[String], around: &mut Surroundings, described: bool) -> String {
    let words = match words {
        [first, rest @ ..] if first == "buildx" && !rest.is_empty() => rest,
        words => words,
    };
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut root = Root::command();
    root.build();
    let mut expected = expected(&root, before, typed);
    if let Some(names) = expected.names {
        expected.candidates.extend(look_up(names, before, around));
    }
    let mut text = String::new();
    for candidate in &expected.candidates {
        let word = format!("{}{}", expected.prefix, candidate.word);
        if !word.starts_with(typed) {
            continue;
        }
        text.push_str(&word);
        if described && !candidate.about.is_empty() {
            text.push('\t');
            text.push_str(&candidate.about);
        }
        text.push('\n');
    }
    let directive = if expected.files { FILES } else { NO_FILES };
    text.push_str(&format!(":{directive}\n"));
    text
}

/// Finds what may stand behind some words.
fn expected(root: &Command, before: &[String], typed: &str) -> Expected {
    let mut command = root;
    let mut positionals = 0;
    let mut open: Option<&Arg> = None;
    let mut only_positionals = false;
    for word in before {
        if open.take().is_some() {
            continue;
        }
        if !only_positionals && word == "--" {
            only_positionals = true;
        } else if !only_positionals && word.starts_with('-') && word.len() > 1 {
            open = flag(command, word).filter(|flag| takes_next_word(flag) && !word.contains('='));
        } else if let Some(next) = command.find_subcommand(word).filter(|_| positionals == 0) {
            command = next;
        } else {
            positionals += 1;
        }
    }
    if let Some(flag) = open {
        return values(command, flag, typed, "");
    }
    if !only_positionals && typed.starts_with('-') {
        if let Some((name, value)) = typed.split_once('=')
            && let Some(flag) = flag(command, name)
        {
            return values(command, flag, value, &format!("{name}="));
        }
        return Expected { candidates: flags(command), ..Expected::default() };
    }
    let mut expected = match positional(command, positionals) {
        Some(argument) => values(command, argument, typed, ""),
        None => Expected::default(),
    };
    if positionals == 0 {
        let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        expected.candidates.extend(shown.map(|sub| Candidate::new(sub.get_name(), about(sub.get_about()))));
    }
    expected
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(|text| text.to_string().lines().next().unwrap_or_default().to_owned()).unwrap_or_default()
}

/// Finds the flag that a word names: `--output`, `-o`, or the last of `-it`.
fn flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let word = word.split('=').next().unwrap_or(word);
    let found = |arg: &&Arg| match word.strip_prefix("--") {
        Some(long) => {
            arg.get_long() == Some(long)
                || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&long))
        }
        None => word.chars().last().is_some_and(|last| arg.get_short() == Some(last)),
    };
    command.get_arguments().find(found)
}

fn takes_next_word(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::Set | ArgAction::Append)
        && !flag.is_require_equals_set()
        && flag.get_num_args().is_none_or(|count| count.min_values() > 0)
}

fn flags(command: &Command) -> Vec<Candidate> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let named = shown.filter_map(|arg| Some((arg.get_long()?, arg)));
    named.map(|(long, arg)| Candidate::new(format!("--{long}"), about(arg.get_help()))).collect()
}

/// Returns the positional argument at a place; the last one may be repeated.
fn positional(command: &Command, place: usize) -> Option<&Arg> {
    let arguments: Vec<&Arg> = command.get_positionals().collect();
    let last = arguments.last().copied().filter(|last| {
        matches!(last.get_action(), ArgAction::Append)
            || last.get_num_args().is_some_and(|n| n.max_values() > 1)
    });
    arguments.get(place).copied().or(last)
}

/// Says what the values of an argument may be.
fn values(command: &Command, argument: &Arg, typed: &str, prefix: &str) -> Expected {
    let possible = argument.get_possible_values();
    let shown = possible.iter().filter(|value| !value.is_hide_set());
    let candidate = |value: &PossibleValue| Candidate::new(value.get_name(), about(value.get_help()));
    let candidates: Vec<Candidate> = shown.map(candidate).collect();
    let names = names_of(command.get_name(), argument);
    let mut prefix = prefix.to_owned();
    if names == Some(Names::Platforms)
        && let Some((list, _)) = typed.rsplit_once(',')
    {
        prefix.push_str(list);
        prefix.push(',');
    }
    Expected { files: names.is_none() && candidates.is_empty(), candidates, names, prefix }
}

fn names_of(command: &str, argument: &Arg) -> Option<Names> {
    match (command, argument.get_id().as_str(), argument.is_positional()) {
        (_, "builder", false) | ("use" | "inspect" | "rm" | "stop", "name" | "names", true) => {
            Some(Names::Builders)
        }
        (_, "reference" | "references", true) => Some(Names::Builds),
        ("push" | "run", "image" | "name", true) => Some(Names::Images),
        ("bake", "targets", true) => Some(Names::Targets),
        (_, "platform", false) => Some(Names::Platforms),
        _ => None,
    }
}

/// Looks names up; what cannot be read has none, since nobody wants errors while typing.
fn look_up(names: Names, before: &[String], around: &mut Surroundings) -> Vec<Candidate> {
    let named = |names: Vec<String>| names.into_iter().map(|name| Candidate::new(name, "")).collect();
    match names {
        Names::Platforms => named(PLATFORMS.iter().map(|platform| (*platform).to_owned()).collect()),
        Names::Builders => {
            let store = Store::read(Docker::of_process().builders());
            let groups = store.list().unwrap_or_default().into_iter();
            let own = std::iter::once(Candidate::new(builders::DEFAULT, builders::EMBEDDED));
            own.chain(groups.map(|group| Candidate::new(group.name, group.driver))).collect()
        }
        Names::Targets => named(crate::settings::bake::target_names(&files_of(before), around)),
        Names::Builds | Names::Images => from_state(names),
    }
}

/// Returns the files that a command line names with `-f`.
fn files_of(before: &[String]) -> Vec<String> {
    let mut files = Vec::new();
    let mut words = before.iter();
    while let Some(word) = words.next() {
        match word.split_once('=') {
            Some(("--file", file)) => files.push(file.to_owned()),
            _ if word == "-f" || word == "--file" => files.extend(words.next().cloned()),
            _ => {}
        }
    }
    files
}

fn from_state(names: Names) -> Vec<Candidate> {
    let Ok(builder) = crate::builder::Builder::open_unprivileged(&GlobalArgs::of_environment()) else {
        return Vec::new();
    };
    match names {
        Names::Builds => {
            let records = builder.history().list().unwrap_or_default().into_iter();
            records.map(|record| Candidate::new(record.id, record.request.name)).collect()
        }
        _ => {
            let images = builder.images().unwrap_or_default().into_iter();
            images.filter_map(|image| Some(Candidate::new(image.name?.familiar(), ""))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn ask(line: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let bake = "target \"app\" {}\ntarget \"other\" {}\n";
        std::fs::write(directory.path().join("docker-bake.hcl"), bake).unwrap();
        let mut around = Surroundings::fixed(directory.path(), &[], b"");
        answer(&words(line), &mut around, false)
    }

    #[test]
    fn commands_flags_and_values_are_known() {
        for (line, want) in [
            ("bui", "build\n:4\n"),
            ("buildx his", "history\n:4\n"),
            ("history lo", "logs\n:4\n"),
            ("build --no-cache-f", "--no-cache-filter\n:4\n"),
            ("build --progress pl", "plain\n:4\n"),
            ("build --progress=pl", "--progress=plain\n:4\n"),
            ("build -t x --progress=raw", "--progress=rawjson\n:4\n"),
            (
                "build --platform linux/arm64,linux/arm/",
                "linux/arm64,linux/arm/v7\nlinux/arm64,linux/arm/v6\n:4\n",
            ),
            ("build --platform=linux/s", "--platform=linux/s390x\n:4\n"),
            ("build -f ", ":0\n"),
            ("build -t bake ", ":0\n"),
            ("completion fi", "fish\n:4\n"),
            ("bake a", "app\n:4\n"),
            ("bake app o", "other\n:4\n"),
            ("bake -f docker-bake.hcl ", "app\nother\n:4\n"),
            ("--builder def", "default\n:4\n"),
            ("du --builder=def", "--builder=default\n:4\n"),
        ] {
            assert_eq!(ask(line), want, "{line}");
        }
    }

    #[test]
    fn hidden_commands_are_not_offered() {
        assert!(!ask("").contains("metadata"));
        assert!(ask("").contains("bake\n"));
    }
}
