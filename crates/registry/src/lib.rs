//! OCI distribution client: authentication, resolve, pull, push, mount, mirrors.

#![forbid(unsafe_code)]
