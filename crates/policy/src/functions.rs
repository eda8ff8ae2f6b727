//! The functions that policies of builds have besides Rego's own.
//!
//! As OPA has it, a function that fails has no value; why is in the policy's log. A function that needs a file or a
//! checksum which is not there yet notes that, and the policy is evaluated again when it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use regorus::{Engine, Value};
use slipway_engine::policy::KnownSource;
use slipway_engine::{ChecksumRequest, DetachedSignature, GitObject};
use slipway_model::Digest;

/// Files that were read, and those that turned out not to be there.
pub(crate) type Contents = BTreeMap<String, Option<Arc<[u8]>>>;

/// The most that is read of a file.
const MAX_FILE: usize = 4 << 20;

/// What functions see, and what they leave.
pub(crate) struct Call {
    source: KnownSource,
    /// The document of the source.
    document: serde_json::Value,
    contents: Contents,
    left: Mutex<Left>,
}

/// What functions have left behind.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Files that have to be read first.
    pub(crate) files: BTreeSet<String>,
    /// A checksum that has to be known first.
    pub(crate) checksum: Option<ChecksumRequest>,
    /// Fields that have to be known first.
    pub(crate) fields: BTreeSet<String>,
    /// What images are to be pinned to.
    pub(crate) pins: BTreeSet<String>,
    /// Why a function has no value.
    pub(crate) remarks: Vec<String>,
}

/// Why a function has no value.
enum Failure {
    /// Something is not known yet, and noted.
    Later,
    Remark(String),
}

type Outcome = Result<Value, Failure>;
/// The implementation of a function, with its arguments.
type Function = fn(&Call, &[Value]) -> Outcome;

fn remark<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Remark(text.into()))
}

impl Call {
    pub(crate) fn new(source: KnownSource, document: serde_json::Value, contents: Contents) -> Arc<Self> {
        Arc::new(Self { source, document, contents, left: Mutex::default() })
    }

    pub(crate) fn take_left(&self) -> Left {
        std::mem::take(&mut self.left.lock())
    }

    /// Gives the functions to an evaluator.
    pub(crate) fn register(self: &Arc<Self>, engine: &mut Engine) -> Result<(), String> {
        let functions: [(&str, u8, Function); 6] = [
            ("load_json", 1, Self::load_json),
            ("verify_git_signature", 2, Self::verify_git_signature),
            ("verify_http_pgp_signature", 3, Self::verify_http_pgp_signature),
            ("pin_image", 2, Self::pin_image),
            ("artifact_attestation", 2, Self::attestation),
            ("github_attestation", 2, Self::attestation),
        ];
        for (name, count, function) in functions {
            let call = self.clone();
            let extension = move |values: Vec<Value>| {
                Ok(match function(&call, &values) {
                    Ok(value) => value,
                    Err(failure) => {
                        if let Failure::Remark(text) = failure {
                            call.left.lock().remarks.push(format!("{name}: {text}"));
                        }
                        Value::Undefined
                    }
                })
            };
            let added = engine.add_extension(name.to_owned(), count, Box::new(extension));
            added.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn file(&self, name: &Value) -> Result<Arc<[u8]>, Failure> {
        let name = text(name)?;
        match self.contents.get(name) {
            None => {
                self.left.lock().files.insert(name.to_owned());
                Err(Failure::Later)
            }
            Some(None) => remark(format!("there is no file `{name}`")),
            Some(Some(content)) if content.len() > MAX_FILE => {
                remark(format!("the file `{name}` is too big"))
            }
            Some(Some(content)) => Ok(content.clone()),
        }
    }

    fn text_file(&self, name: &Value) -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(&self.file(name)?).into_owned())
    }

    /// Returns a part of the input, if it is what a function was given.
    fn given(&self, pointer: &str, value: &Value) -> bool {
        self.document.pointer(pointer).is_some_and(|part| Value::from(part.clone()) == *value)
    }

    fn needs(&self, field: &str) -> Failure {
        self.left.lock().fields.insert(field.to_owned());
        Failure::Later
    }

    fn load_json(&self, arguments: &[Value]) -> Outcome {
        let content = self.file(&arguments[0])?;
        let value: Result<serde_json::Value, _> = serde_json::from_slice(&content);
        value.map(Value::from).or_else(|error| remark(format!("invalid JSON in {}: {error}", arguments[0])))
    }

    fn verify_git_signature(&self, arguments: &[Value]) -> Outcome {
        if self.document.get("git").is_none() {
            return Ok(false.into());
        }
        let Some(git) = self.source.git.as_ref().filter(|git| !git.commit_object.is_empty()) else {
            return Err(self.needs("git.commit"));
        };
        let raw = if self.given("/git/commit", &arguments[0]) {
            &git.commit_object
        } else if self.given("/git/tag", &arguments[0]) {
            &git.tag_object
        } else {
            return remark("the object is neither `input.git.commit` nor `input.git.tag`");
        };
        let keys = self.text_file(&arguments[1])?;
        match GitObject::parse(raw).verify(&keys, false) {
            Ok(()) => Ok(true.into()),
            Err(error) => remark(error.to_string()),
        }
    }

    fn verify_http_pgp_signature(&self, arguments: &[Value]) -> Outcome {
        if self.document.get("http").is_none() {
            return Ok(false.into());
        }
        if !self.given("/http", &arguments[0]) {
            return remark("the first argument is not `input.http`");
        }
        let (signature, keys) = (self.text_file(&arguments[1]), self.text_file(&arguments[2]));
        let (signature, keys) = (signature?, keys?);
        let signature = DetachedSignature::parse(&signature);
        let signature = signature.or_else(|error| remark(error.to_string()))?;
        let wanted = signature.checksum();
        let known = self.source.http.as_ref().and_then(|http| http.checksum.as_ref());
        match known.filter(|known| known.suffix == wanted.suffix) {
            None => {
                self.left.lock().checksum = Some(wanted.clone());
                Err(Failure::Later)
            }
            Some(known) => {
                let verified = signature.verify(&known.digest, &keys);
                if let Err(error) = &verified {
                    let remark = format!("verify_http_pgp_signature: {error}");
                    self.left.lock().remarks.push(remark);
                }
                Ok(verified.is_ok().into())
            }
        }
    }

    fn pin_image(&self, arguments: &[Value]) -> Outcome {
        if self.document.get("image").is_none() {
            return Ok(false.into());
        }
        if !self.given("/image", &arguments[0]) {
            return remark("the first argument is not `input.image`");
        }
        let digest = text(&arguments[1])?;
        if digest.parse::<Digest>().is_err() {
            return remark(format!("invalid digest `{digest}`"));
        }
        if self.document.pointer("/image/checksum").and_then(|own| own.as_str()) != Some(digest) {
            self.left.lock().pins.insert(digest.to_owned());
        }
        Ok(true.into())
    }

    /// Attestations of sigstore cannot be checked here, so none counts.
    fn attestation(&self, _: &[Value]) -> Outcome {
        remark("attestations of sigstore cannot be verified by slipway: there is none for the policy")
    }
}

fn text(value: &Value) -> Result<&str, Failure> {
    value.as_string().map(|text| &**text).or_else(|_| remark(format!("{value} is no string")))
}
