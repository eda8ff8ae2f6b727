//! One build, as its client or a frontend sees it: references by id.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use slipway_engine::policy::SourcePolicy;
use slipway_engine::{Build, BuildResult, Container, FrontendReturn, Ref, ResolveOptions};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind, progress};
use tonic::Status;

use super::convert;
use crate::wire::control::sourcepolicy::Policy;
use crate::wire::extra::GatewaySolveRequest;
use crate::wire::gateway::{
    InputsResponse, PongResponse, ResolveImageConfigRequest, ResolveImageConfigResponse,
    ResolveSourceMetaRequest, ResolveSourceMetaResponse, ReturnRequest, SolveResponse, WarnRequest,
};
use crate::wire::{error, policy, recode};
use crate::worker::{self, Worker};

/// The gateway of one build.
pub(crate) struct Bridge {
    worker: Worker,
    pub(super) build: Arc<Build>,
    pub(super) containers: Mutex<HashMap<String, Arc<Container>>>,
    inputs: BTreeMap<String, pb::Definition>,
    refs: Mutex<HashMap<String, Ref>>,
    /// Files of failed steps: they can be looked at, and are no results.
    failed: Mutex<HashMap<String, Ref>>,
    returned: Mutex<Option<FrontendReturn>>,
}

impl Bridge {
    pub(crate) fn new(
        worker: Worker,
        build: Arc<Build>,
        inputs: BTreeMap<String, pb::Definition>,
        returned: FrontendReturn,
    ) -> Self {
        build.keep_failed_steps();
        Self {
            worker,
            build,
            containers: Mutex::default(),
            inputs,
            refs: Mutex::default(),
            failed: Mutex::default(),
            returned: Mutex::new(Some(returned)),
        }
    }

    /// Gives a reference an id; the empty file system has the empty one.
    pub(crate) fn register(&self, reference: Option<&Ref>) -> String {
        let Some(reference) = reference else { return String::new() };
        let id = worker::new_id();
        self.refs.lock().insert(id.clone(), reference.clone());
        id
    }

    /// Makes the status of an error; the files of the step that failed can be found by their ids from then on.
    pub(super) fn status(&self, diagnostic: &Diagnostic) -> Status {
        self.status_of_all(std::slice::from_ref(diagnostic))
    }

    /// Makes the status of several independent failures.
    fn status_of_all(&self, diagnostics: &[Diagnostic]) -> Status {
        let mut status = error::rpc_status_of_all(diagnostics);
        let vertex = diagnostics.first().and_then(|first| first.vertex.as_ref());
        if let Some(step) = vertex.and_then(|vertex| self.build.failed_step(vertex)) {
            let mut failed = self.failed.lock();
            let mut ids = |references: &[Option<Ref>]| -> Vec<String> {
                let mut id = |reference: &Ref| {
                    let id = worker::new_id();
                    failed.insert(id.clone(), reference.clone());
                    id
                };
                references.iter().map(|r| r.as_ref().map(&mut id).unwrap_or_default()).collect()
            };
            let (inputs, mounts) = (ids(&step.inputs), ids(&step.mounts));
            status.details.push(error::solve_detail(&step, &inputs, &mounts));
        }
        error::into_status(status)
    }

    /// Finds the files of a reference or of a failed step.
    pub(super) fn find_files(&self, id: &str) -> Result<Option<Ref>, Status> {
        let failed = self.failed.lock().get(id).cloned();
        failed.map_or_else(|| self.find(id), |reference| Ok(Some(reference)))
    }

    /// Finds a reference; `None` is the empty file system.
    pub(super) fn find(&self, id: &str) -> Result<Option<Ref>, Status> {
        if id.is_empty() {
            return Ok(None);
        }
        let found = self.refs.lock().get(id).cloned();
        found.map(Some).ok_or_else(|| Status::unknown(format!("no such ref: {id}")))
    }

    pub(super) async fn solve(&self, request: GatewaySolveRequest) -> Result<SolveResponse, Status> {
        let policies = self.policies(&request.source_policies)?;
        let imports = convert::cache_imports(&request.cache_imports);
        self.build.import_cache(&imports).map_err(|diagnostic| self.status(&diagnostic))?;
        let result = if request.frontend.is_empty() {
            let definition = request.definition.unwrap_or_default();
            let solved = self.build.solve_under(definition, request.evaluate, &policies).await;
            let reference = solved.map_err(|diagnostic| self.status(&diagnostic))?;
            BuildResult::new(slipway_engine::Refs::Single(reference), BTreeMap::new())
        } else {
            let inputs = request.frontend_inputs;
            let solved = self.build.frontend(&request.frontend, &request.frontend_opt, inputs).await;
            let result = solved.map_err(|diagnostics| self.status_of_all(&diagnostics))?;
            if request.evaluate {
                let refs: Vec<Ref> = result.refs.iter().filter_map(|(_, r)| r.cloned()).collect();
                let evaluated = self.build.evaluate_all(&refs).await;
                evaluated.map_err(|diagnostics| self.status_of_all(&diagnostics))?;
            }
            result
        };
        let mut response = SolveResponse {
            result: Some(convert::result_to_wire(self, &result, request.allow_result_array_ref)),
            ..SolveResponse::default()
        };
        if !request.allow_result_return {
            response.r#ref = convert::single_id(response.result.as_ref());
        }
        Ok(response)
    }

    pub(super) fn take_result(&self, request: ReturnRequest) -> Result<(), Status> {
        let result = match (request.error, request.result) {
            (Some(status), _) => Err(error::from_rpc(status)),
            (None, Some(result)) => Ok(convert::result_from_wire(self, result)?),
            (None, None) => return Err(Status::invalid_argument("neither a result nor an error")),
        };
        match self.returned.lock().take() {
            Some(returned) => {
                // The build may have been cancelled meanwhile.
                let _ = returned.send(result);
                Ok(())
            }
            None => Err(Status::failed_precondition("the build has a result already")),
        }
    }

    pub(super) fn inputs(&self) -> InputsResponse {
        let definitions =
            self.inputs.iter().map(|(name, definition)| (name.clone(), recode(&definition.for_others())));
        InputsResponse { definitions: definitions.collect() }
    }

    pub(super) fn ping(&self) -> PongResponse {
        PongResponse {
            frontend_api_caps: worker::gateway_caps(),
            llb_caps: worker::llb_caps(),
            workers: vec![self.worker.record(&self.build.engine())],
        }
    }

    pub(super) async fn evaluate(&self, id: &str) -> Result<(), Status> {
        match self.find(id)? {
            Some(reference) => {
                self.build.evaluate(&reference).await.map_err(|diagnostic| self.status(&diagnostic))
            }
            None => Ok(()),
        }
    }

    pub(super) async fn resolve_image_config(
        &self,
        request: ResolveImageConfigRequest,
    ) -> Result<ResolveImageConfigResponse, Status> {
        let (scheme, mut attrs) = match request.resolver_type {
            1 => ("oci-layout", BTreeMap::new()),
            _ => ("docker-image", BTreeMap::new()),
        };
        if request.resolver_type == 1 {
            attrs.insert("oci.session".to_owned(), request.session_id);
            attrs.insert("oci.store".to_owned(), request.store_id);
        }
        let op = pb::SourceOp { identifier: format!("{scheme}://{}", request.r#ref), attrs };
        let options = ResolveOptions {
            policies: self.policies(&request.source_policies)?,
            ..convert::options(request.platform.as_ref(), &request.resolve_mode, request.log_name)?
        };
        let found = self.build.resolve_source(op, &options).await;
        let found = found.map_err(|diagnostic| self.status(&diagnostic))?;
        let image = found.image.ok_or_else(|| Status::unknown("the source is no image"))?;
        Ok(ResolveImageConfigResponse {
            digest: image.digest.to_string(),
            config: image.config.to_vec(),
            r#ref: request.r#ref,
        })
    }

    pub(super) async fn resolve_source_meta(
        &self,
        request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, Status> {
        let source = request.source.as_ref().map(recode);
        let source = source.ok_or_else(|| Status::invalid_argument("no source to resolve"))?;
        let policies = self.policies(&request.source_policies)?;
        let mut wanted = convert::wanted(request)?;
        wanted.options.policies = policies;
        let known = self.build.learn(source, &wanted).await;
        known.map(convert::known_to_wire).map_err(|diagnostic| self.status(&diagnostic))
    }

    fn policies(&self, policies: &[Policy]) -> Result<Vec<SourcePolicy>, Status> {
        let rules = policies.iter().map(policy::rules).collect::<Result<_, _>>();
        rules.map_err(|diagnostic| self.status(&diagnostic))
    }

    pub(super) fn warn(&self, request: WarnRequest) -> Result<(), Status> {
        let vertex = request.digest.parse().map_err(|_| {
            let text = format!("invalid digest `{}` of a warning", request.digest);
            error::status(&Diagnostic::new(ErrorKind::User, text))
        })?;
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        self.build.warn(progress::Warning {
            vertex,
            level: request.level as i32,
            short: text(&request.short),
            detail: request.detail.iter().map(text).collect(),
            url: Some(request.url).filter(|url| !url.is_empty()),
            source: request.info.as_ref().map(|info| Arc::new(recode(info))),
            ranges: request.ranges.iter().map(recode).collect(),
        });
        Ok(())
    }
}
