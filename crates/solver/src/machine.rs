//! The state machine: which vertices need a key, which a result, and what to do next for each.
//!
//! Owns the phase of every vertex. Does not own results, keys' storage or time: those are the driver's.
//!
//! A vertex is *demanded* for its key or for its result; demand only grows. Its phase moves forward only:
//!
//! ```text
//! Idle -> Mapping -> Keying -> Looking -> Contents -> LookingByContent -> Known -> Loading | Executing -> Done
//! ```
//!
//! A key is *fresh* when nothing in the cache has ever been linked to it. A vertex with a fresh input cannot
//! hit by definition, which is known long before its other inputs are; that is what lets independent stages
//! start at once although they meet in one chain of `COPY --from`.
//!
//! The canonical key of a fresh vertex is *provisional* until its result is there: only then is the content of
//! its inputs known, and the key made of that is the one that other machines come to as well. So nothing is
//! written to the cache before the keys of all inputs are final, which is called *settled* here.

use slipway_model::{Digest, Digester};

use crate::graph::{Graph, Input, VertexId};

/// How a vertex's cache key is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMap {
    /// Identifies what the operation does, inputs aside.
    pub digest: Digest,
    /// One for each input, in order.
    pub inputs: Vec<InputCacheMap>,
    /// Run even if a result is stored; the new result replaces it. Holds a value unique to this solve.
    pub no_cache: Option<Digest>,
}

/// How one input takes part in the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputCacheMap {
    /// Narrows the input to what the operation reads; part of the definition key.
    pub selector: Option<Digest>,
    /// The operation can compute a content digest of what it reads.
    pub by_content: bool,
}

/// What the cache knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLookup {
    pub canonical: Digest,
    /// There is a stored result under the canonical key.
    pub loadable: bool,
}

/// Something the driver did.
#[derive(Clone, Debug)]
pub enum Event {
    CacheMapped(VertexId, CacheMap),
    LookedUp(VertexId, Option<KeyLookup>),
    /// `None`: the operation declines, the input's key is used as it is.
    ContentKeyed(VertexId, usize, Option<Digest>),
    /// Whether the stored result could be used.
    Loaded(VertexId, bool),
    Executed(VertexId),
}

/// Something the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    CacheMap(VertexId),
    /// Look up the key; answer with [`Event::LookedUp`].
    Lookup(VertexId, Digest),
    /// Compute the content digest of an input whose result is there.
    ContentKey(VertexId, usize),
    /// The vertex was found in the cache; for display, no answer.
    Cached(VertexId),
    /// Make `alias` stand for `canonical`; no answer.
    Link {
        alias: Digest,
        canonical: Digest,
    },
    Load(VertexId, Digest),
    /// Execute; the digest is the key under which the result will be stored.
    Execute(VertexId, Digest),
    /// Store the result under `canonical` and link the aliases; no answer.
    Save {
        vertex: VertexId,
        canonical: Digest,
        aliases: Vec<Digest>,
    },
}

/// The final keys of a vertex. They depend on content only, unless the vertex was told not to use the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexKeys {
    /// The one that results are stored under, and keys of dependents are made of.
    pub canonical: Digest,
    /// Made of the canonical keys of the inputs.
    pub definition: Digest,
    /// Made of the contents of the inputs, as far as they are read by content; if they were looked at.
    pub content: Option<Digest>,
}

/// What the cache said of a vertex.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It was not asked: what depends on the vertex was found, or nothing came so far.
    #[default]
    Unasked,
    /// It was not to be asked.
    Ignored,
    FoundByDefinition,
    FoundByContent,
    Missed,
    /// The key is known, its result is not there any more.
    Gone,
}

/// How the key of a vertex came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTrace {
    pub verdict: Verdict,
    pub map: CacheMap,
    /// The canonical key, if it is final.
    pub canonical: Option<Digest>,
    /// The canonical keys of the inputs, those that are final.
    pub inputs: Vec<Option<Digest>>,
    /// The digests of what is read of the inputs, as far as they were looked at.
    pub contents: Vec<Option<Digest>>,
}

/// What is still to be written to the cache, once the keys of all inputs are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unwritten {
    Nothing,
    /// Found by content: the definition key leads there too.
    Link,
    /// Executed here.
    Save,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Demand {
    Nothing,
    Key,
    Result,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    canonical: Digest,
    fresh: bool,
    loadable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Mapping,
    Keying,
    Looking { definition: Digest },
    Contents { definition: Digest },
    LookingByContent { definition: Digest, content: Digest },
    Known(Key),
    Loading(Key),
    Executing(Key),
    Done(Key),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Unknown,
    Computing,
    Known(Option<Digest>),
}

#[derive(Debug)]
struct State {
    demand: Demand,
    phase: Phase,
    map: Option<CacheMap>,
    contents: Vec<Content>,
    unwritten: Unwritten,
    verdict: Verdict,
}

/// Decides; see the module.
#[derive(Debug)]
pub struct Machine {
    inputs: Vec<Vec<Input>>,
    dependents: Vec<Vec<VertexId>>,
    states: Vec<State>,
    queue: Vec<VertexId>,
    actions: Vec<Action>,
}

impl Machine {
    /// Starts with nothing demanded.
    pub fn new<O>(graph: &Graph<O>) -> Self {
        let inputs: Vec<Vec<Input>> = graph.nodes.iter().map(|node| node.inputs.clone()).collect();
        let mut dependents = vec![Vec::new(); inputs.len()];
        for (index, list) in inputs.iter().enumerate() {
            for input in list {
                let known: &mut Vec<VertexId> = &mut dependents[input.vertex.0];
                if known.last() != Some(&VertexId(index)) {
                    known.push(VertexId(index));
                }
            }
        }
        let state = |list: &Vec<Input>| State {
            demand: Demand::Nothing,
            phase: Phase::Idle,
            map: None,
            contents: vec![Content::Unknown; list.len()],
            unwritten: Unwritten::Nothing,
            verdict: Verdict::Unasked,
        };
        let states = inputs.iter().map(state).collect();
        Self { inputs, dependents, states, queue: Vec::new(), actions: Vec::new() }
    }

    /// Asks for the result of a vertex.
    pub fn demand(&mut self, vertex: VertexId) -> Vec<Action> {
        self.raise(vertex, Demand::Result);
        self.run()
    }

    /// Tells whether the result of a vertex is there.
    pub fn is_done(&self, vertex: VertexId) -> bool {
        matches!(self.states[vertex.0].phase, Phase::Done(_))
    }

    /// Returns the keys of a vertex, once they are final.
    pub fn keys(&self, vertex: VertexId) -> Option<VertexKeys> {
        let canonical = self.settled(vertex)?;
        let inputs = self.settled_inputs(vertex)?;
        let definition = self.definition_key(vertex, &inputs);
        Some(VertexKeys { canonical, definition, content: self.content_key(vertex, &inputs) })
    }

    /// Tells how the key of a vertex came about; `None` if nobody has asked for it.
    pub fn trace(&self, vertex: VertexId) -> Option<KeyTrace> {
        let state = &self.states[vertex.0];
        let content = |content: &Content| match content {
            Content::Known(digest) => *digest,
            Content::Unknown | Content::Computing => None,
        };
        Some(KeyTrace {
            verdict: state.verdict,
            map: state.map.clone()?,
            canonical: self.settled(vertex),
            inputs: self.inputs[vertex.0].iter().map(|input| self.settled(input.vertex)).collect(),
            contents: state.contents.iter().map(content).collect(),
        })
    }

    /// Takes an event and returns what to do next.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::CacheMapped(vertex, map) => {
                let state = &mut self.states[vertex.0];
                debug_assert_eq!(state.phase, Phase::Mapping);
                state.map = Some(map);
                state.phase = Phase::Keying;
                self.queue.push(vertex);
            }
            Event::LookedUp(vertex, found) => self.looked_up(vertex, found),
            Event::ContentKeyed(vertex, input, digest) => {
                self.states[vertex.0].contents[input] = Content::Known(digest);
                self.queue.push(vertex);
            }
            Event::Loaded(vertex, usable) => {
                if let Phase::Loading(key) = self.states[vertex.0].phase {
                    if !usable {
                        self.states[vertex.0].verdict = Verdict::Gone;
                    }
                    let phase =
                        if usable { Phase::Done(key) } else { Phase::Known(Key { loadable: false, ..key }) };
                    self.enter(vertex, phase);
                }
            }
            Event::Executed(vertex) => {
                if let Phase::Executing(key) = self.states[vertex.0].phase {
                    self.states[vertex.0].unwritten = Unwritten::Save;
                    self.enter(vertex, Phase::Done(key));
                }
            }
        }
        self.run()
    }

    fn run(&mut self) -> Vec<Action> {
        while let Some(vertex) = self.queue.pop() {
            self.advance(vertex);
        }
        std::mem::take(&mut self.actions)
    }

    fn raise(&mut self, vertex: VertexId, demand: Demand) {
        let state = &mut self.states[vertex.0];
        if state.demand < demand {
            state.demand = demand;
            self.queue.push(vertex);
        }
    }

    fn enter(&mut self, vertex: VertexId, phase: Phase) {
        self.states[vertex.0].phase = phase;
        self.queue.push(vertex);
        let dependents = &self.dependents[vertex.0];
        let waiting = dependents.iter().filter(|d| self.states[d.0].demand > Demand::Nothing);
        self.queue.extend(waiting);
    }

    fn key(&self, vertex: VertexId) -> Option<Key> {
        match self.states[vertex.0].phase {
            Phase::Known(key) | Phase::Loading(key) | Phase::Executing(key) | Phase::Done(key) => Some(key),
            _ => None,
        }
    }

    /// The canonical key, if nothing can change it any more.
    fn settled(&self, vertex: VertexId) -> Option<Digest> {
        let key = self.key(vertex)?;
        let state = &self.states[vertex.0];
        let written = matches!(state.phase, Phase::Done(_)) && state.unwritten == Unwritten::Nothing;
        (!key.fresh || written).then_some(key.canonical)
    }

    fn settled_inputs(&self, vertex: VertexId) -> Option<Vec<Digest>> {
        self.inputs[vertex.0].iter().map(|input| self.settled(input.vertex)).collect()
    }

    fn advance(&mut self, vertex: VertexId) {
        self.write(vertex);
        match self.states[vertex.0].phase.clone() {
            Phase::Idle if self.states[vertex.0].demand > Demand::Nothing => {
                self.states[vertex.0].phase = Phase::Mapping;
                self.actions.push(Action::CacheMap(vertex));
                for input in self.inputs[vertex.0].clone() {
                    self.raise(input.vertex, Demand::Key);
                }
            }
            Phase::Idle | Phase::Mapping => {}
            Phase::Keying => self.advance_keying(vertex),
            Phase::Contents { definition } => self.advance_contents(vertex, definition),
            Phase::Known(key) if self.states[vertex.0].demand == Demand::Result => {
                self.advance_known(vertex, key)
            }
            Phase::Executing(_) => {
                self.compute_contents(vertex);
            }
            Phase::Done(_)
            | Phase::Looking { .. }
            | Phase::LookingByContent { .. }
            | Phase::Known(_)
            | Phase::Loading(_) => {}
        }
    }

    fn map(&self, vertex: VertexId) -> &CacheMap {
        self.states[vertex.0].map.as_ref().expect("phases after Mapping have a map")
    }

    fn by_content(&self, vertex: VertexId, input: usize) -> bool {
        self.map(vertex).inputs.get(input).is_some_and(|i| i.by_content)
    }

    fn advance_keying(&mut self, vertex: VertexId) {
        let inputs = self.inputs[vertex.0].clone();
        let no_cache = self.map(vertex).no_cache;
        let keys: Vec<Option<Key>> = inputs.iter().map(|input| self.key(input.vertex)).collect();
        let fresh = |index: usize| keys[index].is_some_and(|key| key.fresh);
        let doomed = (0..inputs.len()).any(fresh);
        // With a fresh input that it reads whole, or told not to look, a vertex is certain to miss.
        let hopeless =
            no_cache.is_some() || (0..inputs.len()).any(|i| fresh(i) && !self.by_content(vertex, i));
        if hopeless && self.states[vertex.0].demand == Demand::Result {
            for input in &inputs {
                self.raise(input.vertex, Demand::Result);
            }
        } else if doomed && !hopeless {
            for (index, input) in inputs.iter().enumerate() {
                if self.by_content(vertex, index) {
                    self.raise(input.vertex, Demand::Result);
                }
            }
        }
        let keys = keys.into_iter().map(|key| Some(key?.canonical)).collect::<Option<Vec<Digest>>>();
        let Some(keys) = keys else { return };
        let definition = self.definition_key(vertex, &keys);
        let next = if let Some(nonce) = no_cache {
            self.states[vertex.0].verdict = Verdict::Ignored;
            let canonical = unique(definition, nonce);
            Phase::Known(Key { canonical, fresh: true, loadable: false })
        } else if hopeless {
            self.states[vertex.0].verdict = Verdict::Missed;
            Phase::Known(Key { canonical: definition, fresh: true, loadable: false })
        } else if doomed {
            Phase::Contents { definition }
        } else {
            self.actions.push(Action::Lookup(vertex, definition));
            self.states[vertex.0].phase = Phase::Looking { definition };
            return;
        };
        self.enter(vertex, next);
    }

    fn looked_up(&mut self, vertex: VertexId, found: Option<KeyLookup>) {
        let has_content = (0..self.inputs[vertex.0].len()).any(|i| self.by_content(vertex, i));
        let next = match (self.states[vertex.0].phase.clone(), found) {
            (Phase::Looking { .. }, Some(found)) => self.found(vertex, found, Verdict::FoundByDefinition),
            (Phase::LookingByContent { .. }, Some(found)) => {
                self.states[vertex.0].unwritten = Unwritten::Link;
                self.found(vertex, found, Verdict::FoundByContent)
            }
            (Phase::Looking { definition }, None) if has_content => Phase::Contents { definition },
            (Phase::Looking { definition }, None) => {
                self.states[vertex.0].verdict = Verdict::Missed;
                Phase::Known(Key { canonical: definition, fresh: true, loadable: false })
            }
            // Other solves that read the same content come to this key too, and share the work.
            (Phase::LookingByContent { content, .. }, None) => {
                self.states[vertex.0].verdict = Verdict::Missed;
                Phase::Known(Key { canonical: content, fresh: true, loadable: false })
            }
            (phase, _) => {
                debug_assert!(false, "unexpected look-up in {phase:?}");
                return;
            }
        };
        self.enter(vertex, next);
    }

    fn found(&mut self, vertex: VertexId, found: KeyLookup, verdict: Verdict) -> Phase {
        self.states[vertex.0].verdict = if found.loadable { verdict } else { Verdict::Gone };
        if found.loadable {
            self.actions.push(Action::Cached(vertex));
        }
        Phase::Known(Key { canonical: found.canonical, fresh: false, loadable: found.loadable })
    }

    /// Starts the content digests that can be computed; tells whether all of them are known.
    fn compute_contents(&mut self, vertex: VertexId) -> bool {
        let mut complete = true;
        for (index, input) in self.inputs[vertex.0].clone().into_iter().enumerate() {
            if !self.by_content(vertex, index) {
                continue;
            }
            match self.states[vertex.0].contents[index] {
                Content::Known(_) => {}
                Content::Unknown if self.is_done(input.vertex) => {
                    self.states[vertex.0].contents[index] = Content::Computing;
                    self.actions.push(Action::ContentKey(vertex, index));
                    complete = false;
                }
                Content::Unknown | Content::Computing => complete = false,
            }
        }
        complete
    }

    fn advance_contents(&mut self, vertex: VertexId, definition: Digest) {
        for (index, input) in self.inputs[vertex.0].clone().into_iter().enumerate() {
            if self.by_content(vertex, index) {
                self.raise(input.vertex, Demand::Result);
            }
        }
        if !self.compute_contents(vertex) {
            return;
        }
        let keys: Option<Vec<Digest>> =
            self.inputs[vertex.0].iter().map(|input| Some(self.key(input.vertex)?.canonical)).collect();
        match keys.and_then(|keys| self.content_key(vertex, &keys)) {
            Some(content) => {
                self.actions.push(Action::Lookup(vertex, content));
                self.states[vertex.0].phase = Phase::LookingByContent { definition, content };
            }
            None => {
                self.states[vertex.0].verdict = Verdict::Missed;
                self.enter(vertex, Phase::Known(Key { canonical: definition, fresh: true, loadable: false }))
            }
        }
    }

    fn advance_known(&mut self, vertex: VertexId, key: Key) {
        if key.loadable {
            self.states[vertex.0].phase = Phase::Loading(key);
            self.actions.push(Action::Load(vertex, key.canonical));
            return;
        }
        let inputs = self.inputs[vertex.0].clone();
        for input in &inputs {
            self.raise(input.vertex, Demand::Result);
        }
        if inputs.iter().all(|input| self.is_done(input.vertex)) {
            self.states[vertex.0].phase = Phase::Executing(key);
            self.actions.push(Action::Execute(vertex, key.canonical));
            self.compute_contents(vertex);
        }
    }

    /// Writes what is known of a vertex to the cache, if the keys of its inputs are final.
    fn write(&mut self, vertex: VertexId) {
        let unwritten = self.states[vertex.0].unwritten;
        let phase = self.states[vertex.0].phase.clone();
        let key = match (unwritten, phase) {
            (Unwritten::Link, Phase::Known(key) | Phase::Loading(key) | Phase::Done(key)) => key,
            (Unwritten::Save, Phase::Done(key)) if self.compute_contents(vertex) => key,
            _ => return,
        };
        let Some(inputs) = self.settled_inputs(vertex) else { return };
        let definition = self.definition_key(vertex, &inputs);
        let content = self.content_key(vertex, &inputs);
        self.states[vertex.0].unwritten = Unwritten::Nothing;
        if unwritten == Unwritten::Link {
            if definition != key.canonical {
                self.actions.push(Action::Link { alias: definition, canonical: key.canonical });
            }
            return;
        }
        let canonical = match self.map(vertex).no_cache {
            // What is stored under a key that was known before stays what dependents' keys are made of.
            _ if !key.fresh => key.canonical,
            Some(nonce) => unique(definition, nonce),
            None => content.unwrap_or(definition),
        };
        let mut aliases: Vec<Digest> = [definition].into_iter().chain(content).collect();
        aliases.retain(|alias| *alias != canonical);
        aliases.dedup();
        self.actions.push(Action::Save { vertex, canonical, aliases });
        // Those that wait for this key are told.
        self.enter(vertex, Phase::Done(Key { canonical, ..key }));
    }

    fn definition_key(&self, vertex: VertexId, inputs: &[Digest]) -> Digest {
        self.mix(vertex, |index| (b"key", inputs[index]))
    }

    /// The key with content digests in it; `None` if no input has one.
    fn content_key(&self, vertex: VertexId, inputs: &[Digest]) -> Option<Digest> {
        let contents = &self.states[vertex.0].contents;
        if !contents.iter().any(|content| matches!(content, Content::Known(Some(_)))) {
            return None;
        }
        Some(self.mix(vertex, |index| match contents[index] {
            Content::Known(Some(digest)) => (b"content", digest),
            _ => (b"key", inputs[index]),
        }))
    }

    fn mix<'a>(&self, vertex: VertexId, part: impl Fn(usize) -> (&'a [u8], Digest)) -> Digest {
        let map = self.map(vertex);
        let mut digester = Digester::new();
        digester.field(map.digest.as_bytes());
        for (index, input) in self.inputs[vertex.0].iter().enumerate() {
            let (kind, digest) = part(index);
            digester.field(kind);
            digester.field(digest.as_bytes());
            digester.field((input.index as u64).to_le_bytes());
            // A content digest is of the selected paths already; what they are called is the operation's.
            let selector = map.inputs.get(index).and_then(|i| i.selector).filter(|_| kind == b"key");
            digester.field(selector.map(|s| s.as_bytes().to_vec()).unwrap_or_default());
        }
        digester.finish()
    }
}

/// A key that no other solve comes to.
fn unique(definition: Digest, nonce: Digest) -> Digest {
    let mut digester = Digester::new();
    digester.field(definition.as_bytes());
    digester.field(nonce.as_bytes());
    digester.finish()
}
