//! Any bytes are a Dockerfile: they are parsed, printed, checked and converted, or refused.
#![no_main]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use slipway_dockerfile::{
    ConvertOptions, ImageResolver, ResolveRequest, ResolvedImage, SourceFile, bases, check, convert, parse,
};
use slipway_model::llb::Definition;
use slipway_model::{Diagnostic, Digest, ImageConfig, Platform};

/// Every image there is, empty but for a trigger if its name asks for one.
struct Images;

#[async_trait::async_trait]
impl ImageResolver for Images {
    async fn resolve(&self, request: ResolveRequest) -> Result<ResolvedImage, Diagnostic> {
        let mut config = ImageConfig::for_platform(&request.platform);
        if let Some(trigger) = request.reference.tag().filter(|tag| *tag != "latest") {
            config.config.on_build.push(trigger.replace('_', " "));
        }
        Ok(ResolvedImage { digest: Digest::of("image"), config, config_digest: None, source: None })
    }
}

fn run<F: Future>(future: F) -> F::Output {
    match pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing waits"),
    }
}

fuzz_target!(|data: &[u8]| {
    let source = SourceFile::new("Dockerfile", data);
    if let Ok(document) = parse(&source) {
        let printed = document.to_string();
        let again =
            parse(&SourceFile::new("Dockerfile", printed.as_str())).expect("what is printed can be parsed");
        assert_eq!(document, again, "printing keeps the meaning");
        assert_eq!(printed, again.to_string(), "printing twice is printing once");
    }
    let platform = Platform::linux("arm64", None);
    let options = ConvertOptions::new(platform, Platform::linux("amd64", None));
    let _ = bases(&source, &options);
    let _ = run(check(&source, &options, &Images)).to_json();
    if let Ok(converted) = run(convert(&source, &options, &Images)) {
        Definition::decode(&converted.definition).expect("the definition is well-formed");
        assert_eq!(converted.history_lines.len(), converted.image.history.len());
    }
});
