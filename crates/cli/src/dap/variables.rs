//! What the editor shows of a step: a tree that is opened where somebody looks.
//!
//! Each inner part of the tree has a number that lives until the thread goes on. Opening it once more gives the same.

use std::collections::HashMap;
use std::sync::Arc;

use slipway_model::llb::pb;

use super::explorer::{Explorer, Spot};
use super::messages::Variable;

/// What is shown of long lists.
const BRIEF: usize = 60;

/// Something with a value, and what is in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Value {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) inside: Inside,
}

/// What is in something.
#[derive(Clone, Debug, Default)]
pub(super) enum Inside {
    #[default]
    Nothing,
    Values(Vec<Value>),
    Files(Arc<Explorer>, Spot),
}

impl Value {
    pub(super) fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), inside: Inside::Nothing }
    }

    pub(super) fn with(self, values: Vec<Self>) -> Self {
        Self { inside: Inside::Values(values), ..self }
    }
}

/// The numbers of what can be opened.
#[derive(Debug, Default)]
pub(super) struct References {
    last: i64,
    open: HashMap<i64, Reference>,
}

#[derive(Debug)]
struct Reference {
    thread: i64,
    inside: Inside,
    opened: Option<Vec<Variable>>,
}

impl References {
    /// Gives a number to what is in something of a thread; 0 if that is nothing.
    pub(super) fn add(&mut self, thread: i64, inside: Inside) -> i64 {
        if matches!(inside, Inside::Nothing) {
            return 0;
        }
        self.last += 1;
        self.open.insert(self.last, Reference { thread, inside, opened: None });
        self.last
    }

    /// Returns what is behind a number: what it was opened to, or else what is in it.
    pub(super) fn get(&self, number: i64) -> Option<Result<Vec<Variable>, Inside>> {
        let reference = self.open.get(&number)?;
        Some(reference.opened.clone().ok_or_else(|| reference.inside.clone()))
    }

    /// Notes what was found behind a number; nothing, if the thread has gone on meanwhile.
    pub(super) fn opened(&mut self, number: i64, values: Vec<Value>) -> Vec<Variable> {
        let Some(thread) = self.open.get(&number).map(|reference| reference.thread) else {
            return Vec::new();
        };
        let variable = |value: Value| Variable {
            name: value.name,
            value: value.value,
            variables_reference: self.add(thread, value.inside),
        };
        let variables: Vec<Variable> = values.into_iter().map(variable).collect();
        if let Some(reference) = self.open.get_mut(&number) {
            reference.opened = Some(variables.clone());
        }
        variables
    }

    /// Forgets what was shown of a thread.
    pub(super) fn forget(&mut self, thread: i64) {
        self.open.retain(|_, reference| reference.thread != thread);
    }
}

/// Lists what an operation is given.
pub(super) fn arguments(op: &pb::Op) -> Vec<Value> {
    let mut values: Vec<Value> = op.platform.iter().map(platform).collect();
    if let Some(pb::op::Op::Exec(exec)) = &op.op
        && let Some(meta) = &exec.meta
    {
        values.push(process(meta));
    }
    values
}

fn platform(platform: &pb::Platform) -> Value {
    let optional = [("variant", &platform.variant), ("osversion", &platform.os_version)];
    let mut values = vec![Value::new("architecture", &platform.architecture), Value::new("os", &platform.os)];
    values.extend(optional.into_iter().filter(|(_, v)| !v.is_empty()).map(|(name, v)| Value::new(name, v)));
    Value::new("platform", format!("{}/{}", platform.os, platform.architecture)).with(values)
}

fn process(meta: &pb::Meta) -> Value {
    let line = meta.args.join(" ");
    let args = meta.args.iter().enumerate().map(|(index, arg)| Value::new(index.to_string(), arg)).collect();
    let env = meta.env.iter().map(|entry| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        Value::new(name, value)
    });
    let mut values = vec![
        Value::new("args", brief(&line)).with(args),
        Value::new("env", brief(&meta.env.join(" "))).with(env.collect()),
    ];
    let optional = [("workdir", &meta.cwd), ("user", &meta.user)];
    values.extend(optional.into_iter().filter(|(_, v)| !v.is_empty()).map(|(name, v)| Value::new(name, v)));
    Value::new("exec", line).with(values)
}

fn brief(text: &str) -> String {
    match text.char_indices().nth(BRIEF) {
        Some((end, _)) if text.len() > end + " ...".len() => format!("{} ...", &text[..end]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_is_given_is_shown() {
        let meta = pb::Meta {
            args: vec!["sh".into(), "-c".into(), "x".repeat(100)],
            env: vec!["A=b=c".into(), "D".into()],
            cwd: "/w".into(),
            ..pb::Meta::default()
        };
        let op = pb::op::Op::Exec(pb::ExecOp { meta: Some(meta), ..pb::ExecOp::default() });
        let platform =
            Some(pb::Platform { os: "linux".into(), architecture: "arm64".into(), ..Default::default() });
        let values = arguments(&pb::Op { op: Some(op), platform, ..pb::Op::default() });
        let shown =
            |values: &[Value]| values.iter().map(|v| format!("{}={}", v.name, v.value)).collect::<Vec<_>>();
        assert_eq!(values[0].value, "linux/arm64");
        let Inside::Values(process) = &values[1].inside else { panic!("{values:?}") };
        assert_eq!(process[0].value, format!("sh -c {} ...", "x".repeat(54)));
        let Inside::Values(env) = &process[1].inside else { panic!("{process:?}") };
        assert_eq!(shown(env), ["A=b=c", "D="]);
        assert_eq!(shown(&process[2..]), ["workdir=/w"]);
    }

    #[test]
    fn numbers_live_until_the_thread_goes_on() {
        let mut references = References::default();
        let nested = Value::new("a", "1").with(vec![Value::new("b", "2")]);
        let number = references.add(7, Inside::Values(vec![nested.clone()]));
        let variables = references.opened(number, vec![nested]);
        assert!(variables[0].variables_reference > 0);
        assert_eq!(references.get(number).unwrap().unwrap(), variables);
        assert!(references.get(variables[0].variables_reference).unwrap().is_err());
        references.forget(7);
        assert!(references.get(number).is_none());
        assert!(references.opened(number, Vec::new()).is_empty());
        assert_eq!(references.add(7, Inside::Nothing), 0);
    }
}
