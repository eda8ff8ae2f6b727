//! Build graph, deduplication, cache keys, scheduling; generic over results, without disk or network.

#![forbid(unsafe_code)]
