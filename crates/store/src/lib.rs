//! Local state: blobs by digest, snapshots, layers, metadata, leases, garbage collection.

#![forbid(unsafe_code)]
