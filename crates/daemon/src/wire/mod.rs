//! The messages of BuildKit's interfaces, and how they and slipway's own values become each other.
//!
//! Most messages are generated ([`bollard_buildkit_proto`]); what is not in there is written by hand in [`extra`].
//! LLB is passed on as bytes: a digest is always that of the bytes the client sent.

pub(crate) mod error;
pub(crate) mod extra;
mod json;
pub(crate) mod policy;
pub(crate) mod status;

use std::time::{Duration, SystemTime};

use bollard_buildkit_proto as proto;
use prost::Message;
use proto::google::protobuf::Timestamp;

pub(crate) use proto::google::rpc::Status as RpcStatus;
pub(crate) use proto::health;
pub(crate) use proto::moby::buildkit::secrets::v1 as secrets;
pub(crate) use proto::moby::buildkit::v1 as control;
pub(crate) use proto::moby::buildkit::v1::{apicaps, frontend as gateway, types};
pub(crate) use proto::moby::filesync::{packet as filesync, v1 as auth};
pub(crate) use proto::moby::sshforward::v1 as ssh;
pub(crate) use proto::moby::upload::v1 as upload;
pub(crate) use proto::pb as wire_pb;
pub(crate) use slipway_fsutil::fstypes;

/// Turns a message into another type of the same shape, as the two forms of LLB are.
pub(crate) fn recode<A: Message, B: Message + Default>(message: &A) -> B {
    B::decode(message.encode_to_vec().as_slice()).unwrap_or_default()
}

/// Puts a point in time on the wire.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

/// Reads a point in time; what is before 1970 is 1970.
pub(crate) fn time(timestamp: Timestamp) -> SystemTime {
    let seconds = u64::try_from(timestamp.seconds).unwrap_or_default();
    let nanos = u32::try_from(timestamp.nanos).unwrap_or_default().min(999_999_999);
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)).unwrap_or(SystemTime::UNIX_EPOCH)
}
