//! Why each step of a build was in the cache or was not: its key beside that of the same step in an earlier build.
//!
//! Pure. The keys are those that the solver used, see [`StepKey`]; a step is recognised by its text and its stage,
//! or, where the text is another, by its place in the stage. What is told is the first part of the key that
//! differs, in the order in which a Dockerfile's author thinks: the step itself, then its inputs.

use std::collections::HashMap;

use slipway_model::Digest;
use slipway_model::progress::{CacheVerdict, InputKey, KeyPart, StepKey};

/// How many changed files are named.
const NAMED_FILES: usize = 3;

/// A step of a build, with what the cache said and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedStep {
    pub name: String,
    pub platform: Option<String>,
    pub verdict: CacheVerdict,
    /// For people: one phrase.
    pub why: String,
}

impl ExplainedStep {
    /// Tells whether the result came from the cache.
    pub fn is_hit(&self) -> bool {
        is_hit(self.verdict)
    }
}

fn is_hit(verdict: CacheVerdict) -> bool {
    matches!(verdict, CacheVerdict::FoundByDefinition | CacheVerdict::FoundByContent)
}

/// The keys of one build, each vertex once, in their order.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    steps: Vec<StepKey>,
    by_vertex: HashMap<Digest, usize>,
}

impl FromIterator<StepKey> for Keys {
    /// A build may come to a vertex several times; the first miss counts, and the last key.
    fn from_iter<I: IntoIterator<Item = StepKey>>(keys: I) -> Self {
        let mut all = Self::default();
        for key in keys {
            match all.by_vertex.get(&key.vertex) {
                None => {
                    all.by_vertex.insert(key.vertex, all.steps.len());
                    all.steps.push(key);
                }
                Some(&at) => all.steps[at].follow(key),
            }
        }
        all
    }
}

/// What is told again of a vertex.
trait Follow {
    fn follow(&mut self, later: StepKey);
}

impl Follow for StepKey {
    fn follow(&mut self, later: StepKey) {
        let weight = |verdict| match verdict {
            CacheVerdict::Unasked => 0,
            CacheVerdict::FoundByDefinition => 1,
            CacheVerdict::FoundByContent => 2,
            CacheVerdict::Ignored | CacheVerdict::Missed | CacheVerdict::Gone => 3,
        };
        let verdict = if weight(later.verdict) > weight(self.verdict) { later.verdict } else { self.verdict };
        let key = later.key.or(self.key);
        let before = std::mem::take(&mut self.inputs);
        *self = later;
        (self.verdict, self.key) = (verdict, key);
        for (input, before) in self.inputs.iter_mut().zip(before) {
            input.key = input.key.or(before.key);
            input.content = input.content.or(before.content);
        }
    }
}

/// Where a step stands in its Dockerfile.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    /// The words in the brackets that are neither the platform nor the counter.
    stage: Vec<&'a str>,
    number: Option<&'a str>,
    instruction: &'a str,
}

impl<'a> Place<'a> {
    fn of(name: &'a str) -> Self {
        let Some((label, instruction)) = name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
            return Self { stage: Vec::new(), number: None, instruction: name };
        };
        let number = label.rsplit(' ').next().and_then(|last| last.split_once('/')).map(|(number, _)| number);
        let number = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        Self { stage: label.split(' ').filter(|word| !word.contains('/')).collect(), number, instruction }
    }

    fn is_internal(&self) -> bool {
        self.stage.first() == Some(&"internal")
    }
}

impl Keys {
    /// Lists the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &StepKey> {
        self.steps.iter()
    }

    fn get(&self, vertex: &Digest) -> Option<&StepKey> {
        self.by_vertex.get(vertex).map(|&at| &self.steps[at])
    }

    /// Finds the step that has a result and is the same as `step`, whose key may be another.
    fn same(&self, step: &StepKey) -> Option<&StepKey> {
        let place = Place::of(&step.name);
        let known =
            || self.steps.iter().filter(|other| other.key.is_some() && other.platform == step.platform);
        let text = known().find(|other| {
            let other = Place::of(&other.name);
            other.stage == place.stage && other.instruction == place.instruction
        });
        text.or_else(|| {
            let kind = |instruction: &str| instruction.split(' ').next().unwrap_or_default().to_owned();
            known().find(|other| {
                let other = Place::of(&other.name);
                place.number.is_some()
                    && (&other.stage, other.number) == (&place.stage, place.number)
                    && kind(other.instruction) == kind(place.instruction)
            })
        })
    }
}

/// Explains the steps of a build by those of earlier ones, the newest first.
///
/// `changed` names the files in which two results differ, of which it gets the keys.
pub(crate) fn explain(
    now: &Keys,
    earlier: &[Keys],
    changed: &dyn Fn(&Digest, &Digest) -> Vec<String>,
) -> Vec<ExplainedStep> {
    let shown = now.steps.iter().filter(|step| step.verdict != CacheVerdict::Unasked);
    shown
        .filter(|step| !Place::of(&step.name).is_internal())
        .map(|step| {
            let before = earlier.iter().find_map(|keys| keys.same(step));
            let why = Explainer { now, changed }.why(step, before);
            ExplainedStep {
                name: step.name.clone(),
                platform: step.platform.clone(),
                verdict: step.verdict,
                why,
            }
        })
        .collect()
}

struct Explainer<'a> {
    now: &'a Keys,
    changed: &'a dyn Fn(&Digest, &Digest) -> Vec<String>,
}

impl Explainer<'_> {
    fn why(&self, step: &StepKey, before: Option<&StepKey>) -> String {
        match step.verdict {
            CacheVerdict::Unasked => "not needed".to_owned(),
            CacheVerdict::FoundByDefinition => "nothing it depends on has changed".to_owned(),
            CacheVerdict::FoundByContent => self.why_by_content(step),
            CacheVerdict::Ignored => "the cache was not to be used".to_owned(),
            CacheVerdict::Gone => "its result is not in the cache any more".to_owned(),
            CacheVerdict::Missed => match before {
                None => "no earlier build of it is on record".to_owned(),
                Some(before) => self.difference(step, before),
            },
        }
    }

    fn why_by_content(&self, step: &StepKey) -> String {
        let read = step.inputs.iter().filter(|input| input.content.is_some());
        let names: Vec<String> = read.map(|input| self.input_name(input)).collect();
        format!("what it reads of {} has not changed", names.join(" and "))
    }

    /// Names the first part of a key that differs.
    fn difference(&self, step: &StepKey, before: &StepKey) -> String {
        if step.operation != before.operation {
            return differing_part(&step.parts, &before.parts)
                .unwrap_or_else(|| "what the step does or fetches changed".to_owned());
        }
        if step.inputs.len() != before.inputs.len() {
            return format!("it has {} inputs, and had {}", step.inputs.len(), before.inputs.len());
        }
        let inputs = step.inputs.iter().zip(&before.inputs);
        inputs
            .filter_map(|(input, old)| self.differing_input(step, before, input, old))
            .next()
            .unwrap_or_else(|| "its result is not in the cache any more".to_owned())
    }

    fn differing_input(
        &self,
        step: &StepKey,
        before: &StepKey,
        input: &InputKey,
        old: &InputKey,
    ) -> Option<String> {
        let name = self.input_name(input);
        match (input.content, old.content) {
            (Some(now), Some(before)) if now == before => None,
            (Some(_), Some(_)) => {
                let files = match (&step.key, &before.key) {
                    (Some(now), Some(before)) => (self.changed)(before, now),
                    _ => Vec::new(),
                };
                Some(format!("what it reads of {name} changed{}", listed(&files)))
            }
            _ if input.selector != old.selector => Some(format!("it reads other files of {name}")),
            _ if input.key.is_some() && input.key == old.key => None,
            _ => Some(format!("{name} changed")),
        }
    }

    fn input_name(&self, input: &InputKey) -> String {
        let Some(step) = self.now.get(&input.vertex) else { return "an input".to_owned() };
        match step.name.as_str() {
            "[internal] load build context" => "the build context".to_owned(),
            name => format!("`{name}`"),
        }
    }
}

fn listed(files: &[String]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let named: Vec<String> = files.iter().take(NAMED_FILES).map(|file| format!("`{file}`")).collect();
    match files.len() - named.len() {
        0 => format!(": {}", named.join(", ")),
        more => format!(": {} and {more} more", named.join(", ")),
    }
}

/// Names the first part that is new, gone or another.
fn differing_part(now: &[KeyPart], before: &[KeyPart]) -> Option<String> {
    let find =
        |parts: &[KeyPart], name: &str| parts.iter().find(|part| part.name == name).map(|part| part.digest);
    let differing = now.iter().find_map(|part| match find(before, &part.name) {
        None => Some(format!("{} is new", part.name)),
        Some(digest) if digest != part.digest => Some(format!("{} changed", part.name)),
        Some(_) => None,
    });
    differing.or_else(|| {
        let gone = before.iter().find(|part| find(now, &part.name).is_none());
        gone.map(|part| format!("{} is gone", part.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, verdict: CacheVerdict, inputs: Vec<InputKey>) -> StepKey {
        StepKey {
            vertex: Digest::of(name),
            name: name.to_owned(),
            platform: None,
            verdict,
            key: Some(Digest::of("key")),
            operation: Digest::of("operation"),
            parts: Vec::new(),
            inputs,
            process: None,
        }
    }

    fn input(of: &str, key: &str, content: Option<&str>) -> InputKey {
        InputKey {
            vertex: Digest::of(of),
            output: 0,
            selector: None,
            key: Some(Digest::of(key)),
            content: content.map(Digest::of),
        }
    }

    fn part(name: &str, value: &str) -> KeyPart {
        KeyPart { name: name.to_owned(), digest: Digest::of(value) }
    }

    const CONTEXT: &str = "[internal] load build context";

    /// Explains the last of some steps.
    fn why(now: Vec<StepKey>, before: Vec<StepKey>) -> String {
        let files = |_: &Digest, _: &Digest| ["/a", "/b", "/c", "/d"].map(str::to_owned).to_vec();
        let steps = explain(&now.into_iter().collect(), &[before.into_iter().collect()], &files);
        steps.last().unwrap().why.clone()
    }

    #[test]
    fn the_first_part_that_differs_is_told() {
        let with = |parts: &[(&str, &str)]| {
            let mut step = step("[2/2] RUN make", CacheVerdict::Missed, Vec::new());
            step.parts = parts.iter().map(|(name, value)| part(name, value)).collect();
            step.operation = Digest::of(format!("{parts:?}"));
            vec![step]
        };
        let old = [("the platform", "a"), ("the command", "make"), ("the environment variable `A`", "1")];
        for (now, want) in [
            (&[("the platform", "b"), ("the command", "other")][..], "the platform changed"),
            (&[("the platform", "a"), ("the command", "other")], "the command changed"),
            (
                &[("the platform", "a"), ("the environment variable `B`", "1")],
                "the environment variable `B` is new",
            ),
            (&[("the platform", "a"), ("the command", "make")], "the environment variable `A` is gone"),
        ] {
            assert_eq!(why(with(now), with(&old)), want);
        }
    }

    #[test]
    fn inputs_are_told_by_what_is_read_of_them() {
        let copy = |content: &str, base: &str| {
            vec![
                step(CONTEXT, CacheVerdict::Ignored, Vec::new()),
                step("[1/2] FROM x", CacheVerdict::FoundByDefinition, Vec::new()),
                step(
                    "[2/2] COPY . .",
                    CacheVerdict::Missed,
                    vec![input("[1/2] FROM x", base, None), input(CONTEXT, content, Some(content))],
                ),
            ]
        };
        assert_eq!(
            why(copy("new", "base"), copy("old", "base")),
            "what it reads of the build context changed: `/a`, `/b`, `/c` and 1 more"
        );
        assert_eq!(why(copy("new", "base"), copy("old", "other")), "`[1/2] FROM x` changed");
        assert_eq!(
            why(copy("same", "base"), copy("same", "base")),
            "its result is not in the cache any more"
        );
    }

    #[test]
    fn a_step_is_found_again_by_its_text_or_its_place() {
        let one = |name: &str| vec![step(name, CacheVerdict::Missed, Vec::new())];
        let unknown = "no earlier build of it is on record";
        for (now, before, known) in [
            ("[build 2/4] RUN make", "[build 3/5] RUN make", true),
            ("[linux/arm64 build 2/4] RUN make", "[build 2/4] RUN make", true),
            ("[build 2/4] RUN make all", "[build 2/4] RUN make", true),
            ("[build 2/4] RUN make all", "[build 3/4] RUN make", false),
            ("[build 2/4] RUN make", "[test 2/4] RUN make", false),
            ("[build 2/4] COPY a b", "[build 2/4] RUN make", false),
        ] {
            assert_eq!(why(one(now), one(before)) != unknown, known, "{now} {before}");
        }
    }

    #[test]
    fn a_vertex_that_is_told_twice_keeps_its_miss_and_gets_its_key() {
        let mut first = step("[1/1] RUN a", CacheVerdict::Missed, Vec::new());
        first.key = None;
        let second = step("[1/1] RUN a", CacheVerdict::FoundByDefinition, Vec::new());
        let keys: Keys = [first, second].into_iter().collect();
        assert_eq!(keys.steps.len(), 1);
        assert_eq!(
            (keys.steps[0].verdict, keys.steps[0].key),
            (CacheVerdict::Missed, Some(Digest::of("key")))
        );
    }
}
