//! The solver against a naive recursive one, on random graphs with random completion orders.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proptest::prelude::*;
use slipway_model::Digest;
use slipway_solver::{
    Action, CacheMap, CacheStore, CachedKey, Event, Graph, Input, InputCacheMap, KeyLookup, Machine,
    Observer, Operation, SaveRecord, VertexId, solve,
};

/// A vertex whose output is `modulus`-truncated, so that different inputs often give equal content.
#[derive(Debug)]
struct Toy {
    name: u64,
    /// By input: reads only the content class.
    by_content: Vec<bool>,
    modulus: u64,
    no_cache: Option<Digest>,
    world: Arc<Mutex<World>>,
}

#[derive(Debug, Default)]
struct World {
    executed: Vec<u64>,
    aliases: BTreeMap<Digest, Digest>,
    records: BTreeMap<Digest, Vec<Option<u64>>>,
}

impl World {
    fn loadable(&self, canonical: &Digest, used: &[usize]) -> Option<&Vec<Option<u64>>> {
        let record = self.records.get(canonical)?;
        used.iter().all(|index| record[*index].is_some()).then_some(record)
    }
}

/// What an input looks like to an operation that only reads part of it.
fn content_class(output: u64) -> u64 {
    output % 3
}

fn compute(name: u64, modulus: u64, by_content: &[bool], inputs: &[u64]) -> u64 {
    let seen = inputs.iter().enumerate().map(|(i, v)| if by_content[i] { content_class(*v) } else { *v });
    let mut hash = name.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for value in seen {
        hash = (hash ^ value).wrapping_mul(0x0100_0000_01B3);
    }
    (hash >> 7) % modulus
}

#[async_trait]
impl Operation for Toy {
    type Output = u64;
    type Error = String;

    async fn cache_map(&self) -> Result<CacheMap, String> {
        let inputs =
            self.by_content.iter().map(|b| InputCacheMap { selector: None, by_content: *b }).collect();
        let digest = Digest::of(format!("{} {}", self.name, self.modulus));
        Ok(CacheMap { digest, inputs, no_cache: self.no_cache })
    }

    async fn content_key(&self, _: usize, output: &u64) -> Result<Option<Digest>, String> {
        Ok(Some(Digest::of(content_class(*output).to_string())))
    }

    async fn execute(&self, _: &Digest, inputs: Vec<u64>) -> Result<Vec<u64>, String> {
        self.world.lock().unwrap().executed.push(self.name);
        let value = compute(self.name, self.modulus, &self.by_content, &inputs);
        Ok(vec![value, value + 1])
    }
}

struct Memory(Arc<Mutex<World>>);

impl CacheStore<Toy> for Memory {
    fn lookup(&self, key: &Digest, used: &[usize]) -> Option<CachedKey> {
        let world = self.0.lock().unwrap();
        let canonical = *world.aliases.get(key)?;
        Some(KeyLookup { canonical, loadable: world.loadable(&canonical, used).is_some() })
    }

    fn link(&self, alias: &Digest, canonical: &Digest) {
        self.0.lock().unwrap().aliases.insert(*alias, *canonical);
    }

    fn load(&self, canonical: &Digest, used: &[usize]) -> Option<Vec<Option<u64>>> {
        self.0.lock().unwrap().loadable(canonical, used).cloned()
    }

    fn save(&self, _: &Toy, record: SaveRecord<'_, Toy>) {
        let mut world = self.0.lock().unwrap();
        for alias in record.aliases.iter().chain([&record.canonical]) {
            world.aliases.insert(*alias, record.canonical);
        }
        world.records.insert(record.canonical, record.outputs.into_iter().map(Some).collect());
    }
}

struct Silent;

impl Observer<Toy> for Silent {
    fn cached(&self, _: VertexId, _: &Toy) {}
    fn started(&self, _: VertexId, _: &Toy) {}
    fn completed(&self, _: VertexId, _: &Toy) {}
    fn failed(&self, _: VertexId, _: &Toy, _: &String) {}
}

#[derive(Clone, Debug)]
struct Plan {
    /// For each vertex: its inputs among the earlier ones with `by_content`, and its modulus.
    vertices: Vec<(Vec<(usize, bool)>, u64)>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let vertex = (prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..4), 1u64..40);
    prop::collection::vec(vertex, 1..14).prop_map(|vertices| Plan {
        vertices: vertices
            .into_iter()
            .enumerate()
            .map(|(n, (inputs, modulus))| {
                let inputs =
                    if n == 0 { Vec::new() } else { inputs.iter().map(|(i, b)| (i.index(n), *b)).collect() };
                (inputs, modulus)
            })
            .collect(),
    })
}

/// Builds the graph; `salt` changes the names of the vertices in `changed`.
fn graph(
    plan: &Plan,
    changed: &BTreeSet<usize>,
    no_cache: bool,
    world: &Arc<Mutex<World>>,
) -> (Graph<Toy>, Vec<VertexId>) {
    let mut graph = Graph::new();
    let mut ids: Vec<VertexId> = Vec::new();
    for (n, (inputs, modulus)) in plan.vertices.iter().enumerate() {
        let name = n as u64 + if changed.contains(&n) { 1000 } else { 0 };
        let edges = inputs.iter().map(|(i, _)| Input { vertex: ids[*i], index: 0 }).collect();
        let no_cache =
            no_cache.then(|| Digest::of(format!("nonce {n} {}", world.lock().unwrap().executed.len())));
        ids.push(graph.add(Digest::of(format!("{n}")), edges, || {
            Arc::new(Toy {
                name,
                by_content: inputs.iter().map(|(_, b)| *b).collect(),
                modulus: *modulus,
                no_cache,
                world: world.clone(),
            })
        }));
    }
    (graph, ids)
}

fn naive(plan: &Plan, changed: &BTreeSet<usize>) -> Vec<u64> {
    let mut values: Vec<u64> = Vec::new();
    for (n, (inputs, modulus)) in plan.vertices.iter().enumerate() {
        let name = n as u64 + if changed.contains(&n) { 1000 } else { 0 };
        let by_content: Vec<bool> = inputs.iter().map(|(_, b)| *b).collect();
        let seen: Vec<u64> = inputs.iter().map(|(i, _)| values[*i]).collect();
        values.push(compute(name, *modulus, &by_content, &seen));
    }
    values
}

/// Runs the machine with its pending actions completed in an order drawn from `order`.
fn run_shuffled(
    graph: &Graph<Toy>,
    wanted: VertexId,
    world: &Arc<Mutex<World>>,
    order: &mut impl FnMut(usize) -> usize,
) -> u64 {
    run(graph, wanted, world, order).0
}

fn run(
    graph: &Graph<Toy>,
    wanted: VertexId,
    world: &Arc<Mutex<World>>,
    order: &mut impl FnMut(usize) -> usize,
) -> (u64, Machine) {
    let memory = Memory(world.clone());
    let mut machine = Machine::new(graph);
    let mut outputs: BTreeMap<VertexId, Vec<u64>> = BTreeMap::new();
    let mut pending = machine.demand(wanted);
    while !pending.is_empty() {
        let action = pending.swap_remove(order(pending.len()));
        let output = |input: &Input| outputs[&input.vertex][0];
        let event = match action {
            Action::CacheMap(v) => Event::CacheMapped(v, now(graph.operation(v).cache_map()).unwrap()),
            Action::Lookup(v, key) => Event::LookedUp(v, memory.lookup(&key, &[0])),
            Action::ContentKey(v, i) => {
                let key = now(graph.operation(v).content_key(i, &output(&graph.inputs(v)[i]))).unwrap();
                Event::ContentKeyed(v, i, key)
            }
            Action::Load(v, canonical) => {
                let loaded = memory.load(&canonical, &[0]);
                let usable = loaded.is_some();
                outputs.extend(loaded.map(|loaded| (v, loaded.into_iter().flatten().collect())));
                Event::Loaded(v, usable)
            }
            Action::Execute(v, key) => {
                let inputs = graph.inputs(v).iter().map(output).collect();
                outputs.insert(v, now(graph.operation(v).execute(&key, inputs)).unwrap());
                Event::Executed(v)
            }
            Action::Link { alias, canonical } => {
                memory.link(&alias, &canonical);
                continue;
            }
            Action::Save { vertex, canonical, aliases } => {
                let record = SaveRecord { canonical, aliases: &aliases, outputs: outputs[&vertex].clone() };
                memory.save(graph.operation(vertex), record);
                continue;
            }
            Action::Cached(_) => continue,
        };
        pending.extend(machine.step(event));
    }
    assert!(machine.is_done(wanted), "no action is left but the result is not there");
    (outputs[&wanted][0], machine)
}

fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => unreachable!("toy operations never wait"),
    }
}

fn needed(plan: &Plan, of: usize) -> BTreeSet<usize> {
    let mut set = BTreeSet::new();
    let mut queue = vec![of];
    while let Some(n) = queue.pop() {
        if set.insert(n) {
            queue.extend(plan.vertices[n].0.iter().map(|(i, _)| *i));
        }
    }
    set
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_completion_order_gives_the_naive_result_and_runs_nothing_twice(plan in plans(), seed in any::<u64>(), changed in prop::collection::btree_set(0usize..14, 0..3)) {
        let mut state = seed;
        let mut order = move |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let world = Arc::new(Mutex::new(World::default()));
        let last = plan.vertices.len() - 1;

        // Cold: everything needed runs once, unless two vertices turned out equal.
        let (cold, ids) = graph(&plan, &BTreeSet::new(), false, &world);
        prop_assert_eq!(run_shuffled(&cold, ids[last], &world, &mut order), naive(&plan, &BTreeSet::new())[last]);
        let executed = std::mem::take(&mut world.lock().unwrap().executed);
        let unique: BTreeSet<u64> = executed.iter().copied().collect();
        prop_assert_eq!(unique.len(), executed.len());
        prop_assert_eq!(unique, needed(&plan, last).into_iter().map(|n| n as u64).collect::<BTreeSet<_>>());

        // Warm: nothing runs.
        let (warm, ids) = graph(&plan, &BTreeSet::new(), false, &world);
        prop_assert_eq!(run_shuffled(&warm, ids[last], &world, &mut order), naive(&plan, &BTreeSet::new())[last]);
        prop_assert!(world.lock().unwrap().executed.is_empty());

        // Changed: what no changed vertex is below of does not run, and the result is right.
        let (edited, ids) = graph(&plan, &changed, false, &world);
        prop_assert_eq!(run_shuffled(&edited, ids[last], &world, &mut order), naive(&plan, &changed)[last]);
        let executed = std::mem::take(&mut world.lock().unwrap().executed);
        for name in executed {
            let n = (name % 1000) as usize;
            prop_assert!(needed(&plan, n).iter().any(|m| changed.contains(m)), "{} ran without need", n);
        }

        // Without cache: everything runs again.
        let (forced, ids) = graph(&plan, &BTreeSet::new(), true, &world);
        prop_assert_eq!(run_shuffled(&forced, ids[last], &world, &mut order), naive(&plan, &BTreeSet::new())[last]);
        prop_assert_eq!(std::mem::take(&mut world.lock().unwrap().executed).len(), needed(&plan, last).len());

        // A lost record is made again, from whatever is left.
        let lost: Vec<Digest> = world.lock().unwrap().records.keys().copied().filter(|_| order(2) == 0).collect();
        for key in lost {
            world.lock().unwrap().records.remove(&key);
        }
        let (again, ids) = graph(&plan, &BTreeSet::new(), false, &world);
        prop_assert_eq!(run_shuffled(&again, ids[last], &world, &mut order), naive(&plan, &BTreeSet::new())[last]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What one machine exports another one finds: keys depend neither on what was built before nor on the order.
    #[test]
    fn keys_do_not_depend_on_the_past(plan in plans(), seed in any::<u64>(), changed in prop::collection::btree_set(0usize..14, 0..3)) {
        let mut state = seed;
        let mut order = move |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let last = plan.vertices.len() - 1;
        let new = Arc::new(Mutex::new(World::default()));
        let (here, ids) = graph(&plan, &BTreeSet::new(), false, &new);
        let (_, new) = run(&here, ids[last], &new, &mut order);
        let old = Arc::new(Mutex::new(World::default()));
        for changed in [&changed, &BTreeSet::new()] {
            let (there, ids) = graph(&plan, changed, false, &old);
            let (_, machine) = run(&there, ids[last], &old, &mut order);
            for n in needed(&plan, last).into_iter().filter(|_| changed.is_empty()) {
                prop_assert!(new.keys(ids[n]).is_some());
                let canonical = |machine: &Machine| machine.keys(ids[n]).map(|keys| keys.canonical);
                prop_assert!(canonical(&machine).is_none_or(|key| Some(key) == canonical(&new)));
            }
        }
    }
}

#[tokio::test]
async fn the_driver_gives_results_in_the_order_asked_for() {
    let world = Arc::new(Mutex::new(World::default()));
    let plan = Plan { vertices: vec![(vec![], 9), (vec![(0, true)], 9), (vec![(0, false), (1, true)], 9)] };
    for _ in 0..2 {
        let (graph, ids) = graph(&plan, &BTreeSet::new(), false, &world);
        let wanted = [Input { vertex: ids[2], index: 0 }, Input { vertex: ids[0], index: 0 }];
        let results = solve(&graph, &wanted, &Memory(world.clone()), &Silent).await.unwrap();
        let expected = naive(&plan, &BTreeSet::new());
        assert_eq!(results, [expected[2], expected[0]]);
    }
    assert_eq!(world.lock().unwrap().executed.len(), 3);
}

/// Independent branches that meet in a chain start before the chain gets to them.
#[test]
fn certain_misses_start_without_waiting() {
    let world = Arc::new(Mutex::new(World::default()));
    let mut plan = Plan { vertices: vec![(vec![], 1000); 4] };
    plan.vertices.push((vec![(0, true)], 1000));
    plan.vertices.push((vec![(4, false), (1, true)], 1000));
    plan.vertices.push((vec![(5, false), (2, true)], 1000));
    plan.vertices.push((vec![(6, false), (3, true)], 1000));
    let (graph, ids) = graph(&plan, &BTreeSet::new(), false, &world);
    let mut machine = Machine::new(&graph);
    let mut pending = machine.demand(ids[7]);
    let mut ready = BTreeSet::new();
    while let Some(action) = pending.pop() {
        match action {
            Action::CacheMap(v) => {
                let map = now(graph.operation(v).cache_map()).unwrap();
                pending.extend(machine.step(Event::CacheMapped(v, map)));
            }
            Action::Lookup(v, _) => pending.extend(machine.step(Event::LookedUp(v, None))),
            Action::Execute(v, _) => drop(ready.insert(v)),
            other => panic!("{other:?} before anything has executed"),
        }
    }
    assert_eq!(ready, ids[..4].iter().copied().collect());
}

/// Fails while its key is made, or while it executes.
#[derive(Debug)]
struct Faulty {
    in_key: bool,
}

#[async_trait]
impl Operation for Faulty {
    type Output = u64;
    type Error = String;

    async fn cache_map(&self) -> Result<CacheMap, String> {
        if self.in_key {
            return Err("key".to_owned());
        }
        Ok(CacheMap { digest: Digest::of("faulty"), inputs: Vec::new(), no_cache: None })
    }

    async fn content_key(&self, _: usize, _: &u64) -> Result<Option<Digest>, String> {
        Ok(None)
    }

    async fn execute(&self, _: &Digest, _: Vec<u64>) -> Result<Vec<u64>, String> {
        Err("execution".to_owned())
    }
}

/// Remembers nothing, and waits for what is under way.
struct Patient;

impl CacheStore<Faulty> for Patient {
    fn lookup(&self, _: &Digest, _: &[usize]) -> Option<CachedKey> {
        None
    }

    fn link(&self, _: &Digest, _: &Digest) {}

    fn load(&self, _: &Digest, _: &[usize]) -> Option<Vec<Option<u64>>> {
        None
    }

    fn save(&self, _: &Faulty, _: SaveRecord<'_, Faulty>) {}
}

impl Observer<Faulty> for Patient {
    fn cached(&self, _: VertexId, _: &Faulty) {}

    fn started(&self, _: VertexId, _: &Faulty) {}

    fn completed(&self, _: VertexId, _: &Faulty) {}

    fn failed(&self, _: VertexId, _: &Faulty, _: &String) {}

    fn patience(&self) -> futures_util::future::BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn independent_failures_are_told_together() {
    let mut graph = Graph::new();
    let faults = [true, false, true];
    let wanted: Vec<Input> = (0_u64..)
        .zip(faults)
        .map(|(name, in_key)| Input {
            vertex: graph.add(Digest::of(name.to_le_bytes()), Vec::new(), || Arc::new(Faulty { in_key })),
            index: 0,
        })
        .collect();
    let failures = solve(&graph, &wanted, &Patient, &Patient).await.unwrap_err();
    let failed = |number: usize| failures.iter().any(|failure| failure.vertex == wanted[number].vertex);
    assert!(failed(0) && failed(2), "{failures:?}");
    assert!(!failed(1), "what executes after a failure is not waited for");
}

#[test]
fn a_result_serves_with_the_outputs_that_are_used() {
    let world = Arc::new(Mutex::new(World::default()));
    let plan = Plan { vertices: vec![(Vec::new(), 10)] };
    let (graph, ids) = graph(&plan, &BTreeSet::new(), false, &world);
    let get = |index| {
        let wanted = [Input { vertex: ids[0], index }];
        let outputs = now(solve(&graph, &wanted, &Memory(world.clone()), &Silent)).unwrap();
        (outputs[0], std::mem::take(&mut world.lock().unwrap().executed).len())
    };
    let (first, _) = get(0);
    // Another machine's cache may have the second output only.
    world.lock().unwrap().records.values_mut().for_each(|record| record[0] = None);
    assert_eq!(get(1), (first + 1, 0));
    assert_eq!(get(0), (first, 1));
    assert_eq!(get(1), (first + 1, 0));
}
