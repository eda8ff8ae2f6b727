//! Messages that the generated set lacks: newer fields, error details, containerd's content service and the
//! session's exporter service.

use std::collections::{BTreeMap, HashMap};

use slipway_model::llb::pb;

use super::control::{CacheOptions, Exporter};

/// `moby.buildkit.v1.SolveRequest` with the fields of v0.32.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ControlSolveRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) definition: Option<pb::Definition>,
    #[prost(string, tag = "3")]
    pub(crate) exporter_deprecated: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) exporter_attrs_deprecated: BTreeMap<String, String>,
    #[prost(string, tag = "5")]
    pub(crate) session: String,
    #[prost(string, tag = "6")]
    pub(crate) frontend: String,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(crate) frontend_attrs: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) cache: Option<CacheOptions>,
    #[prost(string, repeated, tag = "9")]
    pub(crate) entitlements: Vec<String>,
    #[prost(btree_map = "string, message", tag = "10")]
    pub(crate) frontend_inputs: BTreeMap<String, pb::Definition>,
    #[prost(bool, tag = "11")]
    pub(crate) internal: bool,
    #[prost(message, optional, tag = "12")]
    pub(crate) source_policy: Option<super::control::sourcepolicy::Policy>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) exporters: Vec<Exporter>,
    #[prost(bool, tag = "14")]
    pub(crate) enable_session_exporter: bool,
    #[prost(string, tag = "15")]
    pub(crate) source_policy_session: String,
    #[prost(int64, tag = "16")]
    pub(crate) compatibility_version: i64,
    #[prost(bool, tag = "17")]
    pub(crate) proxy_network: bool,
}

/// `moby.buildkit.v1.InfoResponse` with the version of the Dockerfile language.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) version: Option<Version>,
}

/// `moby.buildkit.v1.types.BuildkitVersion`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Version {
    #[prost(string, tag = "1")]
    pub(crate) package: String,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(string, tag = "3")]
    pub(crate) revision: String,
    #[prost(string, tag = "4")]
    pub(crate) dockerfile_version: String,
}

/// `moby.buildkit.v1.frontend.SolveRequest`, with definitions in slipway's own form.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GatewaySolveRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) definition: Option<pb::Definition>,
    #[prost(string, tag = "2")]
    pub(crate) frontend: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) frontend_opt: BTreeMap<String, String>,
    #[prost(bool, tag = "5")]
    pub(crate) allow_result_return: bool,
    #[prost(bool, tag = "6")]
    pub(crate) allow_result_array_ref: bool,
    #[prost(message, repeated, tag = "12")]
    pub(crate) cache_imports: Vec<super::gateway::CacheOptionsEntry>,
    #[prost(btree_map = "string, message", tag = "13")]
    pub(crate) frontend_inputs: BTreeMap<String, pb::Definition>,
    #[prost(bool, tag = "14")]
    pub(crate) evaluate: bool,
    #[prost(message, repeated, tag = "15")]
    pub(crate) source_policies: Vec<super::control::sourcepolicy::Policy>,
}

/// `containerd.services.content.v1`, as far as a session's store is read and written.
pub(crate) mod content {
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Info {
        #[prost(string, tag = "1")]
        pub(crate) digest: String,
        #[prost(int64, tag = "2")]
        pub(crate) size: i64,
        #[prost(map = "string, string", tag = "5")]
        pub(crate) labels: HashMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct InfoRequest {
        #[prost(string, tag = "1")]
        pub(crate) digest: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct InfoResponse {
        #[prost(message, optional, tag = "1")]
        pub(crate) info: Option<Info>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ListContentRequest {
        #[prost(string, repeated, tag = "1")]
        pub(crate) filters: Vec<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ListContentResponse {
        #[prost(message, repeated, tag = "1")]
        pub(crate) info: Vec<Info>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ReadContentRequest {
        #[prost(string, tag = "1")]
        pub(crate) digest: String,
        #[prost(int64, tag = "2")]
        pub(crate) offset: i64,
        #[prost(int64, tag = "3")]
        pub(crate) size: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ReadContentResponse {
        #[prost(int64, tag = "1")]
        pub(crate) offset: i64,
        #[prost(bytes = "bytes", tag = "2")]
        pub(crate) data: bytes::Bytes,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub(crate) enum WriteAction {
        Stat = 0,
        Write = 1,
        Commit = 2,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct WriteContentRequest {
        #[prost(enumeration = "WriteAction", tag = "1")]
        pub(crate) action: i32,
        #[prost(string, tag = "2")]
        pub(crate) reference: String,
        #[prost(int64, tag = "3")]
        pub(crate) total: i64,
        #[prost(string, tag = "4")]
        pub(crate) expected: String,
        #[prost(int64, tag = "5")]
        pub(crate) offset: i64,
        #[prost(bytes = "bytes", tag = "6")]
        pub(crate) data: bytes::Bytes,
        #[prost(map = "string, string", tag = "7")]
        pub(crate) labels: HashMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct WriteContentResponse {
        #[prost(enumeration = "WriteAction", tag = "1")]
        pub(crate) action: i32,
        #[prost(int64, tag = "4")]
        pub(crate) offset: i64,
        #[prost(int64, tag = "5")]
        pub(crate) total: i64,
        #[prost(string, tag = "6")]
        pub(crate) digest: String,
    }
}

/// `moby.exporter.v1`: what a client adds to the outputs once the result is known.
pub(crate) mod exporter {
    use super::{BTreeMap, HashMap};

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct FindExportersRequest {
        #[prost(map = "string, bytes", tag = "1")]
        pub(crate) metadata: HashMap<String, Vec<u8>>,
        #[prost(string, repeated, tag = "2")]
        pub(crate) refs: Vec<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct FindExportersResponse {
        #[prost(message, repeated, tag = "1")]
        pub(crate) exporters: Vec<ExporterRequest>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ExporterRequest {
        #[prost(string, tag = "1")]
        pub(crate) kind: String,
        #[prost(btree_map = "string, string", tag = "2")]
        pub(crate) attrs: BTreeMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct FinalizeExportRequest {
        #[prost(btree_map = "string, string", tag = "1")]
        pub(crate) exporter_response: BTreeMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct FinalizeExportResponse {}
}
