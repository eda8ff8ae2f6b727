//! Runs one process in a root filesystem on Linux: namespaces, mounts, seccomp, limits.
