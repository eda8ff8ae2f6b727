//! Performs the machine's actions: operations run concurrently, the cache is asked in between.
//!
//! All futures live in the one future that [`solve`] returns, so dropping it stops everything that has not
//! been handed to a thread. The first failure ends the solve; the caller cancels what is still running. But what
//! was being found out about other vertices is waited for a moment longer, so that independent mistakes, as two
//! files that are missing, are told together.

use async_trait::async_trait;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use slipway_model::Digest;

use crate::graph::{Graph, Input, VertexId};
use crate::machine::{Action, CacheMap, Event, KeyLookup, KeyTrace, Machine, VertexKeys};

/// What a vertex does. The engine implements it for LLB operations.
///
/// 1. `cache_map` is pure in what it returns: the same content gives the same map.
/// 2. `execute` is called at most once in a solve.
/// 3. `Output`s are handles: cloning one copies no data.
#[async_trait]
pub trait Operation: Send + Sync + 'static {
    type Output: Clone + Send + Sync + 'static;
    type Error: Send + 'static;

    /// Tells how the cache key is made.
    async fn cache_map(&self) -> Result<CacheMap, Self::Error>;

    /// Computes the digest of what the operation reads of input number `input`, whose result is `output`.
    async fn content_key(&self, input: usize, output: &Self::Output) -> Result<Option<Digest>, Self::Error>;

    /// Runs, and returns one output for each index that others use; `key` names the result.
    async fn execute(
        &self,
        key: &Digest,
        inputs: Vec<Self::Output>,
    ) -> Result<Vec<Self::Output>, Self::Error>;
}

/// What is remembered across runs and shared by processes. Calls are short and may block for microseconds.
pub trait CacheStore<O: Operation>: Send + Sync {
    /// Finds the canonical key that `key` stands for; it is loadable if all outputs `used` are stored.
    fn lookup(&self, key: &Digest, used: &[usize]) -> Option<CachedKey>;

    /// Makes `alias` stand for `canonical`.
    fn link(&self, alias: &Digest, canonical: &Digest);

    /// Returns the stored outputs, or `None` if one of those `used` is not there any more.
    fn load(&self, canonical: &Digest, used: &[usize]) -> Option<Stored<O>>;

    /// Gets outputs that [`load`](Self::load) did not give, if that takes longer; `None`: there is no way.
    fn fetch<'a>(&'a self, canonical: Digest, used: &'a [usize]) -> Option<Fetch<'a, O>> {
        let _ = (canonical, used);
        None
    }

    /// Is told the final keys of a vertex, at the end of a solve that succeeded.
    fn keyed(&self, operation: &O, keys: &VertexKeys) {
        let _ = (operation, keys);
    }

    /// Stores outputs; failing to do so costs time later, not correctness, so there is no error.
    fn save(&self, operation: &O, record: SaveRecord<'_, O>);
}

/// A canonical key, and whether a result is stored under it.
pub type CachedKey = KeyLookup;

/// The outputs of a result, by index; a cache need not have those that nobody uses.
pub type Stored<O> = Vec<Option<<O as Operation>::Output>>;

/// Outputs that are on their way; `None` if they turn out not to be usable.
pub type Fetch<'a, O> = BoxFuture<'a, Option<Stored<O>>>;

/// A result to store.
#[derive(Debug)]
pub struct SaveRecord<'a, O: Operation> {
    pub canonical: Digest,
    pub aliases: &'a [Digest],
    /// All outputs: what is stored was executed.
    pub outputs: Vec<O::Output>,
}

/// Is told what happens to vertices, for display.
pub trait Observer<O: Operation>: Send + Sync {
    /// The vertex was found in the cache.
    fn cached(&self, vertex: VertexId, operation: &O);
    /// The vertex starts to execute.
    fn started(&self, vertex: VertexId, operation: &O);
    /// The vertex has executed.
    fn completed(&self, vertex: VertexId, operation: &O);
    /// The vertex failed, while its key was made or while it executed.
    fn failed(&self, vertex: VertexId, operation: &O, error: &O::Error);
    /// Is told, at the end of a solve, how the key of each vertex came about that was asked for.
    fn keyed(&self, vertex: VertexId, operation: &O, trace: KeyTrace) {
        let _ = (vertex, operation, trace);
    }
    /// Ends when, after a failure, no others are waited for any more.
    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A vertex failed.
#[derive(Debug)]
pub struct SolveError<E> {
    pub vertex: VertexId,
    pub error: E,
}

enum Done<O: Operation> {
    Event(Event),
    Executed(VertexId, Vec<O::Output>),
    Fetched(VertexId, Option<Stored<O>>),
    Failed(SolveError<O::Error>),
}

/// Computes the results of `wanted`, in their order.
///
/// # Errors
/// The first failure of an operation, and those of others whose keys were being made then. Operations that were
/// executing are dropped.
pub async fn solve<O: Operation>(
    graph: &Graph<O>,
    wanted: &[Input],
    cache: &dyn CacheStore<O>,
    observer: &dyn Observer<O>,
) -> Result<Vec<O::Output>, Vec<SolveError<O::Error>>> {
    let used = graph.used_outputs(wanted);
    let mut driver = Driver {
        graph,
        used: &used,
        cache,
        observer,
        machine: Machine::new(graph),
        outputs: vec![None; graph.len()],
        keying: FuturesUnordered::new(),
        executing: FuturesUnordered::new(),
        failed: false,
    };
    for input in wanted {
        let actions = driver.machine.demand(input.vertex);
        driver.perform(actions);
    }
    while let Some(done) = driver.next().await {
        if let Some(error) = driver.take(done) {
            let failures = driver.failures(error).await;
            driver.tell_keys();
            return Err(failures);
        }
    }
    driver.tell_keys();
    for vertex in (0..graph.len()).map(VertexId) {
        if let Some(keys) = driver.machine.keys(vertex) {
            cache.keyed(graph.operation(vertex), &keys);
        }
    }
    Ok(wanted.iter().map(|input| driver.output(*input)).collect())
}

struct Driver<'a, O: Operation> {
    graph: &'a Graph<O>,
    /// By vertex.
    used: &'a [Vec<usize>],
    cache: &'a dyn CacheStore<O>,
    observer: &'a dyn Observer<O>,
    machine: Machine,
    outputs: Vec<Option<Stored<O>>>,
    /// Keys and contents that are being found out.
    keying: FuturesUnordered<BoxFuture<'a, Done<O>>>,
    /// Results that are being made or fetched.
    executing: FuturesUnordered<BoxFuture<'a, Done<O>>>,
    /// Nothing executes any more.
    failed: bool,
}

impl<O: Operation> Driver<'_, O> {
    /// Waits for whatever ends next; `None` if nothing runs.
    async fn next(&mut self) -> Option<Done<O>> {
        match (self.keying.is_empty(), self.executing.is_empty()) {
            (true, true) => None,
            (true, false) => self.executing.next().await,
            (false, true) => self.keying.next().await,
            (false, false) => match select(self.keying.next(), self.executing.next()).await {
                Either::Left((done, _)) | Either::Right((done, _)) => done,
            },
        }
    }

    /// Takes note of what has ended; a failure is given back.
    fn take(&mut self, done: Done<O>) -> Option<SolveError<O::Error>> {
        match done {
            Done::Event(event) => self.feed(event),
            Done::Executed(vertex, outputs) => {
                self.outputs[vertex.0] = Some(outputs.into_iter().map(Some).collect());
                self.observer.completed(vertex, self.graph.operation(vertex));
                self.feed(Event::Executed(vertex));
            }
            Done::Fetched(vertex, outputs) => {
                let usable = outputs.is_some();
                self.outputs[vertex.0] = outputs;
                self.feed(Event::Loaded(vertex, usable));
            }
            Done::Failed(error) => {
                self.observer.failed(error.vertex, self.graph.operation(error.vertex), &error.error);
                return Some(error);
            }
        }
        None
    }

    /// Collects, after the first failure, those that show without executing anything.
    async fn failures(&mut self, first: SolveError<O::Error>) -> Vec<SolveError<O::Error>> {
        self.failed = true;
        self.executing.clear();
        let mut failures = vec![first];
        let mut patience = self.observer.patience();
        while !self.keying.is_empty() {
            match select(self.keying.next(), &mut patience).await {
                Either::Left((Some(done), _)) => {
                    let failure = self.take(done);
                    // A vertex has several inputs, of which each may be wrong; it is told once.
                    failures.extend(failure.filter(|one| failures.iter().all(|f| f.vertex != one.vertex)));
                }
                Either::Left((None, _)) | Either::Right(_) => break,
            }
        }
        failures
    }

    fn tell_keys(&self) {
        for vertex in (0..self.graph.len()).map(VertexId) {
            if let Some(trace) = self.machine.trace(vertex) {
                self.observer.keyed(vertex, self.graph.operation(vertex), trace);
            }
        }
    }

    fn feed(&mut self, event: Event) {
        let actions = self.machine.step(event);
        self.perform(actions);
    }

    fn output(&self, input: Input) -> O::Output {
        let outputs = self.outputs[input.vertex.0].as_ref().expect("the machine said the vertex is done");
        let output = outputs.get(input.index).or(outputs.first()).cloned().flatten();
        output.expect("an operation gives, and a cache has, the outputs that are used")
    }

    /// Performs actions until only those remain that wait for an operation.
    fn perform(&mut self, actions: Vec<Action>) {
        let mut pending = actions;
        while let Some(action) = pending.pop() {
            let event = match action {
                Action::Lookup(vertex, key) => {
                    Some(Event::LookedUp(vertex, self.cache.lookup(&key, &self.used[vertex.0])))
                }
                Action::Load(vertex, canonical) => self.load(vertex, canonical),
                Action::Link { alias, canonical } => {
                    self.cache.link(&alias, &canonical);
                    None
                }
                Action::Cached(vertex) => {
                    self.observer.cached(vertex, self.graph.operation(vertex));
                    None
                }
                Action::Save { vertex, canonical, aliases } => {
                    let outputs = self.outputs[vertex.0].iter().flatten().flatten().cloned().collect();
                    let record = SaveRecord { canonical, aliases: &aliases, outputs };
                    self.cache.save(self.graph.operation(vertex), record);
                    None
                }
                Action::CacheMap(_) | Action::ContentKey(..) | Action::Execute(..) => {
                    self.start(action);
                    None
                }
            };
            if let Some(event) = event {
                pending.extend(self.machine.step(event));
            }
        }
    }

    /// Loads a result, at once or in a while.
    fn load(&mut self, vertex: VertexId, canonical: Digest) -> Option<Event> {
        let used = &self.used[vertex.0];
        let loaded = self.cache.load(&canonical, used);
        if loaded.is_none()
            && let Some(fetch) = self.cache.fetch(canonical, used)
        {
            self.executing.push(Box::pin(async move { Done::Fetched(vertex, fetch.await) }));
            return None;
        }
        let usable = loaded.is_some();
        self.outputs[vertex.0] = loaded;
        Some(Event::Loaded(vertex, usable))
    }

    fn start(&mut self, action: Action) {
        let executes = matches!(action, Action::Execute(..));
        let (vertex, future): (_, BoxFuture<'_, Result<Done<O>, O::Error>>) = match action {
            Action::CacheMap(vertex) => {
                let operation = self.graph.operation(vertex).clone();
                let map =
                    async move { Ok(Done::Event(Event::CacheMapped(vertex, operation.cache_map().await?))) };
                (vertex, Box::pin(map))
            }
            Action::ContentKey(vertex, input) => {
                let operation = self.graph.operation(vertex).clone();
                let output = self.output(self.graph.inputs(vertex)[input]);
                let key = async move {
                    let key = operation.content_key(input, &output).await?;
                    Ok(Done::Event(Event::ContentKeyed(vertex, input, key)))
                };
                (vertex, Box::pin(key))
            }
            Action::Execute(vertex, key) => {
                if self.failed {
                    return;
                }
                let operation = self.graph.operation(vertex).clone();
                self.observer.started(vertex, &operation);
                let inputs = self.graph.inputs(vertex).iter().map(|input| self.output(*input)).collect();
                let execute =
                    async move { Ok(Done::Executed(vertex, operation.execute(&key, inputs).await?)) };
                (vertex, Box::pin(execute))
            }
            _ => return,
        };
        let running = if executes { &self.executing } else { &self.keying };
        running.push(Box::pin(async move {
            future.await.unwrap_or_else(|error| Done::Failed(SolveError { vertex, error }))
        }));
    }
}
