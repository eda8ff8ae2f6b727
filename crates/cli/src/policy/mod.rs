//! The policies of a build, from files to the one who is asked about every source.

mod files;
mod shown;

use std::sync::Arc;

use slipway_engine::policy::SourceJudge;
use slipway_model::progress::EventSink;
use slipway_model::{Diagnostic, ErrorKind};
use slipway_policy::{Log, LogLevel, Policies, Policy, PolicyFile, PolicyFiles as _, PolicyOptions};
use tokio_util::sync::CancellationToken;

use crate::builder::{Builder, Feature};
use crate::settings::policy::{PolicySettings, PolicySource};
pub(crate) use files::Files;
use shown::Shown;

/// Policies that are ready to be asked.
pub(crate) struct Loaded {
    judge: Arc<Policies>,
    shown: Arc<Shown>,
    wants_proxy: bool,
}

impl Loaded {
    /// Reads and parses the policies of a build; `None` if there are none.
    pub(crate) async fn load(
        settings: &PolicySettings,
        builder: &Arc<Builder>,
        events: &Arc<dyn EventSink>,
        cancel: &CancellationToken,
        level: LogLevel,
    ) -> Result<Option<Self>, Diagnostic> {
        let files = Arc::new(Files::new(settings, builder.clone(), cancel.clone()));
        let mut sets = Vec::new();
        for set in &settings.sets {
            let mut read = Vec::new();
            for file in &set.files {
                read.extend(self::read(file, &files).await?);
            }
            if !read.is_empty() {
                sets.push((set, read));
            }
        }
        if sets.is_empty() {
            return Ok(None);
        }
        if sets.iter().any(|(set, _)| set.strict) {
            builder.check_has(Feature::Policies, "strict policy").await?;
        }
        let names: Vec<&str> =
            sets.iter().flat_map(|(_, files)| files).map(|file| file.name.as_str()).collect();
        let shown = Arc::new(Shown::start(&names.join(", "), events.clone()));
        let loaded = Self::policies(settings, sets, &files, builder, &shown, level).await;
        let (policies, wants_proxy) = loaded.inspect_err(|error| shown.failed(error))?;
        if wants_proxy {
            shown.line("policy enabled network proxy");
        }
        shown.pause();
        Ok(Some(Self { judge: Arc::new(Policies(policies)), shown, wants_proxy }))
    }

    /// Loads the policies; also tells whether one wants steps to reach the network through a proxy only.
    async fn policies(
        settings: &PolicySettings,
        sets: Vec<(&crate::settings::policy::PolicySet, Vec<PolicyFile>)>,
        files: &Arc<Files>,
        builder: &Builder,
        shown: &Arc<Shown>,
        level: LogLevel,
    ) -> Result<(Vec<Policy>, bool), Diagnostic> {
        let platform = builder.platform().await?;
        let (mut policies, mut wants_proxy) = (Vec::new(), false);
        for (set, read) in sets {
            let lines = shown.clone();
            let log = Log::new(set.log_level.unwrap_or(level), move |line| lines.line(line));
            let options = PolicyOptions {
                files: read,
                environment: settings.environment.clone(),
                log,
                more: files.clone(),
                platform: platform.clone(),
            };
            let policy = Policy::load(options).await?;
            if policy.build_decision().await?.wants_proxy() {
                builder.check_has(Feature::ProxyNetwork, "network proxy requested by policy").await?;
                wants_proxy = true;
            }
            policies.push(policy);
        }
        Ok((policies, wants_proxy))
    }

    /// Returns who is asked about sources.
    pub(crate) fn judge(&self) -> Arc<dyn SourceJudge> {
        self.judge.clone()
    }

    /// Tells whether steps are to reach the network through a proxy that asks the policies.
    pub(crate) fn wants_proxy(&self) -> bool {
        self.wants_proxy
    }

    /// Shows at the policy why the build failed, if that was the policy's doing.
    pub(crate) fn ended(&self, errors: &[Diagnostic]) {
        let refused = |text: &str| text.contains("not allowed by policy");
        let by_policy = errors
            .iter()
            .find(|error| refused(&error.message) || error.causes.iter().any(|cause| refused(cause)));
        if let Some(error) = by_policy {
            self.shown.failed(error);
        }
    }
}

async fn read(file: &PolicySource, files: &Files) -> Result<Option<PolicyFile>, Diagnostic> {
    let content = match &file.path {
        Some(path) => {
            let read = std::fs::read(path).map_err(|error| {
                Diagnostic::new(ErrorKind::User, format!("failed to read policy file {}", file.name))
                    .cause(error.to_string())
            });
            Some(read?)
        }
        None => files.read(&file.name).await?,
    };
    match content {
        Some(content) => {
            let text = String::from_utf8_lossy(&content).into_owned();
            Ok(Some(PolicyFile { name: file.name.clone(), text }))
        }
        None if file.optional => Ok(None),
        None => Err(Diagnostic::new(ErrorKind::User, format!("policy file {} not found", file.name)).hint(
            "files of policies are below the build context; `cwd://FILE` is below the working directory",
        )),
    }
}
