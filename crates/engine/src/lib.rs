//! Joins the parts: sources, operations, exporters, sessions.

#![forbid(unsafe_code)]
