//! Who asked for what in a build: the client, and below it every frontend that was asked something.
//!
//! A [`Scope`] is what one of them has done. A [`crate::build::Ref`] belongs to the scope that made it, so that the
//! provenance of a result tells the request that led to it, and no other's sources.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use slipway_model::llb::{Definition, pb};
use slipway_model::{Digest, Platform};

use super::request::{FrontendRequest, RequestProvenance};
use super::sources::{ImageSource, Pins, Sources};

/// What one frontend, or the client itself, has asked for.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// `None` for the client.
    request: Option<FrontendRequest>,
    /// What the person who builds asked for.
    root: FrontendRequest,
    /// Names the scope among the producers.
    id: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    images: Vec<ImageSource>,
    locals: Vec<String>,
    solved: Vec<Arc<Definition>>,
    below: Vec<Arc<Scope>>,
}

impl Scope {
    /// Makes the scope of a client, who asked for `root`.
    pub(crate) fn of_client(root: FrontendRequest) -> Arc<Self> {
        Arc::new(Self { root: root.plain(), ..Self::default() })
    }

    /// Makes the scope of a frontend that is asked from this one.
    pub(crate) fn frontend(&self, request: FrontendRequest) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let root = match (self.root.is_empty(), &self.request) {
            (true, Some(request)) => request.clone(),
            _ => self.root.clone(),
        };
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let below = Arc::new(Self { request: Some(request.plain()), root, id, seen: Mutex::default() });
        self.seen.lock().below.push(below.clone());
        below
    }

    /// Notes an image that was resolved; a name with a digest stands for itself.
    pub(crate) fn resolved(&self, image: ImageSource) {
        self.seen.lock().images.push(image);
    }

    /// Notes a directory of the client that was read.
    pub(crate) fn read(&self, local: &str) {
        self.seen.lock().locals.push(local.to_owned());
    }

    /// Notes a definition that was solved.
    pub(crate) fn solved(&self, definition: Arc<Definition>) {
        self.seen.lock().solved.push(definition);
    }

    /// Collects what a result is made from: what its definition names, and what else was read on the way to it.
    ///
    /// `results` are the definitions of everything that is returned, which tell of themselves.
    pub(crate) fn sources(
        &self,
        definition: Option<&Definition>,
        results: &[Digest],
        pins: &Pins,
        only: &dyn Fn(&[ImageSource]) -> Vec<ImageSource>,
    ) -> Sources {
        let mut sources = Sources::default();
        if let Some(definition) = definition {
            sources.add_definition(definition, pins);
        }
        let mut images = Vec::new();
        self.add_seen(&mut sources, &mut images, results, pins);
        only(&images).into_iter().for_each(|image| sources.add_image(image));
        sources.settle();
        sources
    }

    fn add_seen(
        &self,
        sources: &mut Sources,
        images: &mut Vec<ImageSource>,
        results: &[Digest],
        pins: &Pins,
    ) {
        let seen = self.seen.lock();
        for definition in &seen.solved {
            let is_result = definition.result.is_some_and(|edge| results.contains(&edge.vertex));
            if !is_result && Sources::knows(definition, pins) {
                sources.add_definition(definition, pins);
            }
        }
        seen.locals.iter().for_each(|name| sources.add_local(name));
        images.extend(seen.images.iter().cloned());
        for below in &seen.below {
            below.add_seen(sources, images, results, pins);
        }
    }

    /// Tells the request, with those that made its inputs and the one that all began with.
    pub(crate) fn request(&self, sources: &Sources, producers: &Producers) -> Option<RequestProvenance> {
        let request = self.request.as_ref()?;
        let tell = |request: &FrontendRequest| {
            let mut told = RequestProvenance::of(request, sources);
            if let Some(parameters) = &mut told.request {
                parameters.inputs = producers.of_inputs(&request.inputs);
            }
            told
        };
        let mut told = tell(request);
        let root = (!self.root.is_empty()).then(|| tell(&self.root));
        let says = |root: &RequestProvenance| {
            root.request.as_ref().is_some_and(|request| {
                !request.frontend.is_empty() || !request.args.is_empty() || !request.inputs.is_empty()
            })
        };
        if let (Some(parameters), Some(root)) = (&mut told.request, root.filter(|root| says(root)))
            && (root.config_source != told.config_source
                || root.request.as_ref().is_some_and(|request| request != parameters))
        {
            parameters.root = Some(Box::new(root));
        }
        Some(told)
    }

    /// Makes it known which request a definition came from, for as long as the build lives.
    pub(crate) fn produced(&self, definition: &Definition, sources: &Sources, producers: &Producers) {
        if let (Some(told), Some(edge)) = (self.request(sources, producers), definition.result) {
            producers.0.lock().entry(edge.vertex).or_default().push((self.id, told));
        }
    }

    /// Forgets what came from this scope and those below.
    pub(crate) fn forget(&self, producers: &Producers) {
        let below = std::mem::take(&mut self.seen.lock().below);
        for scope in below {
            scope.forget(producers);
        }
        if self.request.is_some() {
            producers.0.lock().retain(|_, known| {
                known.retain(|(id, _)| *id != self.id);
                !known.is_empty()
            });
        }
    }
}

/// Which requests made which definitions, of all builds that are under way.
#[derive(Debug, Default)]
pub(crate) struct Producers(Mutex<HashMap<Digest, Vec<(u64, RequestProvenance)>>>);

impl Producers {
    /// Tells what made each input; nothing of one that nobody is known to have made, or several differently.
    fn of_inputs(&self, inputs: &BTreeMap<String, pb::Definition>) -> BTreeMap<String, RequestProvenance> {
        let known = self.0.lock();
        let told = inputs.iter().filter_map(|(name, definition)| {
            let made = known.get(&Definition::decode(definition).ok()?.result?.vertex)?;
            let mut made = made.iter().map(|(_, request)| without_root(request));
            let first = made.next()?;
            made.all(|other| other == first).then(|| (name.clone(), first))
        });
        told.collect()
    }
}

fn without_root(request: &RequestProvenance) -> RequestProvenance {
    let mut request = request.clone();
    if let Some(parameters) = &mut request.request {
        parameters.root = None;
    }
    request
}

/// Leaves out the images for other platforms, of those names that are there for each of the result's platforms.
pub(crate) fn of_platform(
    images: &[ImageSource],
    platforms: &[Platform],
    current: &Platform,
) -> Vec<ImageSource> {
    let everywhere = |image: &ImageSource| {
        platforms.iter().all(|platform| {
            images.iter().any(|other| {
                other.reference == image.reference
                    && other.platform.as_ref().is_some_and(|of| platform.accepts(of))
            })
        })
    };
    let ours = |image: &&ImageSource| match &image.platform {
        Some(of) if everywhere(image) => of.os == current.os && of.architecture == current.architecture,
        _ => true,
    };
    images.iter().filter(ours).cloned().collect()
}

#[cfg(test)]
mod tests {
    use slipway_model::llb::{Edge, GraphBuilder, VertexMeta};

    use super::*;

    fn request(frontend: &str, options: &[(&str, &str)]) -> FrontendRequest {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        FrontendRequest { frontend: frontend.to_owned(), options, inputs: BTreeMap::new() }
    }

    fn definition(name: &str) -> pb::Definition {
        let mut graph = GraphBuilder::new();
        let op = pb::op::Op::Source(pb::SourceOp { identifier: name.to_owned(), ..Default::default() });
        let vertex = graph.add(&[], op, None, VertexMeta::default());
        graph.finish(Some(Edge { vertex, index: 0 }))
    }

    #[test]
    fn a_request_tells_what_it_began_with_and_who_made_its_inputs() {
        let producers = Producers::default();
        let client = Scope::of_client(request("", &[("root", "1"), ("attest:provenance", "")]));
        let maker = client.frontend(request("dockerfile.v0", &[("target", "base")]));
        let made = definition("local://made");
        maker.produced(&Definition::decode(&made).unwrap(), &Sources::default(), &producers);
        let mut asked = request("dockerfile.v0", &[("context", "https://me:pw@host/x"), ("filename", "F")]);
        asked.inputs = [("base".to_owned(), made), ("plain".to_owned(), definition("local://plain"))].into();
        let user = client.frontend(asked);
        let told = user.request(&Sources::default(), &producers).unwrap();
        assert_eq!(told.config_source.uri, "https://xxxxx:xxxxx@host/x");
        assert_eq!(told.config_source.path, "F");
        let parameters = told.request.unwrap();
        assert!(parameters.args.is_empty(), "what is told elsewhere is not told again");
        let inputs: Vec<&String> = parameters.inputs.keys().collect();
        assert_eq!(inputs, ["base"]);
        let base = parameters.inputs["base"].request.as_ref().unwrap();
        assert_eq!((base.args["target"].as_str(), &base.root), ("base", &None));
        let root = parameters.root.unwrap().request.unwrap();
        assert_eq!((root.args.len(), root.args["root"].as_str()), (1, "1"));
        client.forget(&producers);
        assert!(producers.0.lock().is_empty());
    }

    #[test]
    fn a_request_that_all_began_with_is_not_told_twice() {
        let asked = request("dockerfile.v0", &[("target", "base")]);
        let scope = Scope::of_client(asked.clone()).frontend(asked);
        let told = scope.request(&Sources::default(), &Producers::default()).unwrap();
        assert_eq!(told.request.unwrap().root, None);
    }

    #[test]
    fn images_of_other_platforms_are_left_out() {
        let [amd64, arm64] = ["linux/amd64", "linux/arm64"].map(|p| p.parse::<Platform>().unwrap());
        let image = |name: &str, platform: &Platform| ImageSource {
            reference: name.parse().unwrap(),
            platform: Some(platform.clone()),
            digest: Digest::of(name),
            local: false,
        };
        let images = [image("base", &amd64), image("base", &arm64), image("tool", &amd64)];
        let left = of_platform(&images, &[amd64, arm64.clone()], &arm64);
        assert_eq!(left, [image("base", &arm64), images[2].clone()]);
    }
}
