//! Decides what of a build graph must run, and in which order, without touching disk or network.
//!
//! [`Graph`] holds the merged vertices of every platform, equal ones once. [`Machine`] is the decision
//! maker: a state machine that takes [`Event`]s and answers with [`Action`]s; it is deterministic and does
//! no I/O. [`solve`] is the thin driver that performs the actions through two ports: [`Operation`] (what a
//! vertex does) and [`CacheStore`] (what is remembered across runs).
//!
//! # Cache keys
//!
//! A vertex has a *definition key*: the hash of what it does and of its inputs' keys. It is known before any
//! input has run, so a hit by it means that no input is ever evaluated. For inputs of which an operation
//! only reads certain paths (`COPY`, a bind mount) there is a second chance: the *content key*, with the
//! digest of exactly those paths in the place of the input's key; it needs the input's result.
//!
//! Both kinds are aliases of one *canonical* key, under which the result is stored and from which the keys
//! of dependents are made. That is why a vertex which hit by content looks unchanged to everything after it.
//!
//! The canonical key of what is built is its content key, or its definition key where it has none. So it does
//! not depend on what happened before or where: machines that build the same come to the same keys, and what one
//! has exported the other finds.
//!
//! A result has one output for each place that an operation writes to, and a cache may have some of them only: it is
//! used if it has those that somebody in the graph uses.
//!
//! # Invariants
//!
//! 1. A vertex executes at most once in a solve, and only if its result is needed and not in the cache.
//! 2. A vertex whose definition key hits never has an input evaluated on its behalf.
//! 3. What certainly must run is started as soon as that is certain, without waiting for siblings.
//! 4. The outcome does not depend on the order in which actions complete.

#![forbid(unsafe_code)]

mod driver;
mod graph;
mod machine;

pub use driver::{CacheStore, CachedKey, Fetch, Observer, Operation, SaveRecord, SolveError, Stored, solve};
pub use graph::{Graph, Input, VertexId};
pub use machine::{
    Action, CacheMap, Event, InputCacheMap, KeyLookup, KeyTrace, Machine, Verdict, VertexKeys,
};
