//! Tests of policies, written in Rego: rules whose names begin with `test_`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use regorus::unstable::{Module, Rule, RuleBody, RuleHead};
use serde_json::Value;
use slipway_engine::policy::KnownSource;
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Platform, Reference};

use crate::decision::Decision;
use crate::environment::Environment;
use crate::evaluate::Evaluated;
use crate::functions::{Call, Contents};
use crate::input::Document;
use crate::modules::{self, Modules};
use crate::policy::evaluate_with_files;
use crate::{Log, Lookup, Policy, PolicyFile, PolicyFiles, PolicyOptions, decide, reads, unknown, wrong};

/// What tests begin with.
const PREFIX: &str = "test_";

/// Which tests are run, on what.
pub struct TestOptions {
    pub policy: PolicyFile,
    pub tests: Vec<PolicyFile>,
    /// Only those whose name contains this.
    pub run: Option<String>,
    pub more: Arc<dyn PolicyFiles>,
    /// Finds out about images that tests name.
    pub lookup: Arc<dyn Lookup>,
    pub platform: Platform,
}

/// What came of a test.
pub struct TestResult {
    pub name: String,
    pub passed: bool,
    /// What the policy decides on the test's input.
    pub decision: Option<Decision>,
    pub input: Option<Value>,
    /// Fields that the policy reads and the input lacks.
    pub missing: Vec<String>,
    /// Which of `image` and `git` would have to be asked for those.
    pub metadata: Vec<&'static str>,
}

/// A test, and the input that it sets.
struct Test {
    name: String,
    package: Vec<String>,
    input: Option<Value>,
}

/// Runs tests, in the order of their names.
///
/// # Errors
/// A module is no Rego, or there are no tests.
pub async fn run_tests(options: TestOptions) -> Result<Vec<TestResult>, Diagnostic> {
    let mut files = vec![options.policy.clone()];
    files.extend(options.tests.iter().cloned());
    let mut modules = Modules::load(&files, options.more.as_ref()).await?;
    let parsed = modules.modules();
    let of_tests = |module: &&regorus::unstable::Ref<Module>| {
        options.tests.iter().any(|test| test.name == *module.package.span.source.file())
    };
    let mut tests = BTreeMap::new();
    for module in parsed.iter().filter(of_tests) {
        for test in find(module, &modules)? {
            tests.insert(test.name.clone(), test);
        }
    }
    let wanted = options.run.as_deref().unwrap_or_default();
    tests.retain(|name, _| name.contains(wanted));
    if tests.is_empty() {
        return Err(wrong("no tests found").hint("tests are rules whose names begin with `test_`"));
    }
    let policy: Vec<_> = parsed.iter().filter(|module| !of_tests(module)).cloned().collect();
    let runner = Runner { modules, policy, options, contents: Mutex::default() };
    let mut results = Vec::new();
    for test in tests.into_values() {
        results.push(runner.run(test).await?);
    }
    Ok(results)
}

/// Finds the tests of a module.
fn find(module: &Module, modules: &Modules) -> Result<Vec<Test>, Diagnostic> {
    let package = modules::package(module);
    let mut found: BTreeMap<String, Test> = BTreeMap::new();
    for rule in &module.policy {
        let Rule::Spec { head: RuleHead::Compr { refr, .. }, bodies, .. } = rule.as_ref() else { continue };
        let Some(name) = reads::constant_path(refr).and_then(|path| path.into_iter().next()) else {
            continue;
        };
        if !name.starts_with(PREFIX) {
            continue;
        }
        let test = found.entry(name.clone()).or_insert(Test { name, package: package.clone(), input: None });
        for text in bodies.iter().flat_map(inputs) {
            let value = modules.constant(text)?;
            if test.input.as_ref().is_some_and(|other| *other != value) {
                return Err(wrong(format!("multiple input overrides for {}", test.name)));
            }
            test.input = Some(value);
        }
    }
    Ok(found.into_values().collect())
}

/// Lists what a body sets `input` to, as it is written.
fn inputs(body: &RuleBody) -> Vec<&str> {
    let statements = body.query.stmts.iter().flat_map(|statement| &statement.with_mods);
    let of_input =
        statements.filter(|with| reads::constant_path(&with.refr).is_some_and(|path| path == ["input"]));
    of_input.map(|with| with.r#as.span().text()).collect()
}

struct Runner {
    modules: Modules,
    /// Those that are no tests.
    policy: Vec<regorus::unstable::Ref<Module>>,
    options: TestOptions,
    contents: Mutex<Contents>,
}

impl Runner {
    async fn run(&self, test: Test) -> Result<TestResult, Diagnostic> {
        let (input, source) = self.resolved(test.input).await?;
        let package = test.package.join(".");
        let own = format!("data.{package}.{}", test.name);
        let passed = self.evaluate(&own, input.as_ref(), &source).await?.value == Some(Value::Bool(true));
        let decided = self.evaluate(&format!("data.{package}.decision"), input.as_ref(), &source).await;
        let value = decided.ok().and_then(|evaluated| evaluated.value);
        let decision = value.and_then(|value| Decision::parse(&value).ok());
        let missing = self.missing(&test.package, input.as_ref());
        let needs = |kind: &&str| missing.iter().any(|field| is_unknown(field) && field.starts_with(*kind));
        let metadata = ["image", "git"].into_iter().filter(needs).collect();
        Ok(TestResult { name: test.name, passed, decision, input, missing, metadata })
    }

    async fn evaluate(
        &self,
        query: &str,
        input: Option<&Value>,
        source: &KnownSource,
    ) -> Result<Evaluated, Diagnostic> {
        let document = input.cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        evaluate_with_files(self.options.more.as_ref(), &self.contents, |contents| {
            let call = Call::new(source.clone(), document.clone(), contents);
            self.modules.evaluate(query, &document, &[], &call)
        })
        .await
    }

    /// Finds out about the image that an input names what the policy has to know of it.
    async fn resolved(&self, input: Option<Value>) -> Result<(Option<Value>, KnownSource), Diagnostic> {
        let unresolved = (input.clone(), KnownSource::default());
        let Some(reference) = input.as_ref().and_then(named_image) else { return Ok(unresolved) };
        let op = pb::SourceOp { identifier: format!("docker-image://{reference}"), ..Default::default() };
        let platform = self.platform(input.as_ref());
        let policy = Policy::load(PolicyOptions {
            files: vec![self.options.policy.clone()],
            environment: Environment::default(),
            log: Log::silent(),
            more: self.options.more.clone(),
            platform: platform.clone(),
        });
        let (_, known) =
            decide(&policy.await?, &op, Some(&pb::Platform::from(&platform)), self.options.lookup.as_ref())
                .await?;
        if known.image.is_none() {
            return Ok(unresolved);
        }
        let document = Document::of(&known, Some(&platform), &Log::silent())?;
        let mut resolved = document.shown();
        if let (Some(fields), Some(env)) =
            (resolved.as_object_mut(), input.as_ref().and_then(|i| i.get("env")))
        {
            fields.insert("env".to_owned(), env.clone());
        }
        Ok((Some(resolved), known))
    }

    fn platform(&self, input: Option<&Value>) -> Platform {
        let text = input.and_then(|input| input.pointer("/image/platform")).and_then(Value::as_str);
        text.and_then(|text| text.parse().ok()).unwrap_or_else(|| self.options.platform.clone())
    }

    /// Lists the fields that the policy reads and an input lacks, by the text of the policy.
    fn missing(&self, package: &[String], input: Option<&Value>) -> Vec<String> {
        let own = self.policy.iter().filter(|module| modules::package(module) == package);
        let read: BTreeSet<Vec<String>> = own
            .flat_map(|module| reads::of_module(module))
            .filter_map(|read| Some(read.of_input()?.iter().take(2).cloned().collect()))
            .filter(|path: &Vec<String>| !path.is_empty())
            .collect();
        let lacks = |path: &&Vec<String>| {
            input.is_none_or(|input| input.pointer(&format!("/{}", path.join("/"))).is_none())
        };
        read.iter().filter(lacks).map(|path| path.join(".")).collect()
    }
}

fn is_unknown(field: &str) -> bool {
    let lists = [&unknown::OF_CONFIG[..], &unknown::OF_ATTESTATIONS[..], &unknown::OF_OBJECTS[..]];
    field == "image.checksum" || field.starts_with("git.") || lists.iter().any(|list| list.contains(&field))
}

/// Returns the name of the image in an input.
fn named_image(input: &Value) -> Option<Reference> {
    let field = |name: &str| input.pointer(&format!("/image/{name}")).and_then(Value::as_str);
    let name = field("ref").or_else(|| field("fullRepo")).or_else(|| field("repo"))?;
    let name = match field("tag").filter(|_| !name.contains(':')) {
        Some(tag) => format!("{name}:{tag}"),
        None => name.to_owned(),
    };
    name.parse::<Reference>().ok().map(|reference| reference.with_default_tag())
}
