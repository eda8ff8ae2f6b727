//! The Dockerfile frontend: parse, lint, convert to LLB and an image config.

#![forbid(unsafe_code)]
