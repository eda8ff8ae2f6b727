//! Looking into results and containers: files, directories and attributes on the wire.

use std::ops::Range;

use slipway_engine::{FileInfo, FileKind};
use slipway_fsutil as fsutil;
use slipway_model::Diagnostic;
use tonic::Status;

use super::Bridge;
use crate::wire::fstypes::Stat;
use crate::wire::gateway::{
    FileRange, ReadDirRequest, ReadDirResponse, ReadFileRequest, ReadFileResponse, StatFileRequest,
    StatFileResponse,
};

impl Bridge {
    pub(super) async fn read_file(&self, request: ReadFileRequest) -> Result<ReadFileResponse, Status> {
        let reference = self.find_files(&request.r#ref)?;
        let range = request.range.as_ref().map(range);
        let data = self.build.read_file(reference.as_ref(), &request.file_path, range).await;
        self.told(data).map(|data| ReadFileResponse { data })
    }

    pub(super) async fn read_dir(&self, request: ReadDirRequest) -> Result<ReadDirResponse, Status> {
        let reference = self.find_files(&request.r#ref)?;
        let found = self.build.read_dir(reference.as_ref(), &request.dir_path, pattern(&request)).await;
        self.told(found).map(|found| ReadDirResponse { entries: found.iter().map(stat).collect() })
    }

    pub(super) async fn stat_file(&self, request: StatFileRequest) -> Result<StatFileResponse, Status> {
        let reference = self.find_files(&request.r#ref)?;
        let found = self.build.stat_file(reference.as_ref(), &request.path).await;
        self.told(found).map(|found| StatFileResponse { stat: Some(stat(&found)) })
    }

    pub(super) async fn read_file_container(
        &self,
        request: ReadFileRequest,
    ) -> Result<ReadFileResponse, Status> {
        let container = self.container(&request.r#ref)?;
        let range = request.range.as_ref().map(range);
        let data = container.read_file(mount(request.mount_index), &request.file_path, range).await;
        self.told(data).map(|data| ReadFileResponse { data })
    }

    pub(super) async fn read_dir_container(
        &self,
        request: ReadDirRequest,
    ) -> Result<ReadDirResponse, Status> {
        let container = self.container(&request.r#ref)?;
        let pattern = pattern(&request);
        let found = container.read_dir(mount(request.mount_index), &request.dir_path, pattern).await;
        self.told(found).map(|found| ReadDirResponse { entries: found.iter().map(stat).collect() })
    }

    pub(super) async fn stat_file_container(
        &self,
        request: StatFileRequest,
    ) -> Result<StatFileResponse, Status> {
        let container = self.container(&request.r#ref)?;
        let found = container.stat_file(mount(request.mount_index), &request.path).await;
        self.told(found).map(|found| StatFileResponse { stat: Some(stat(&found)) })
    }

    fn told<T>(&self, found: Result<T, Diagnostic>) -> Result<T, Status> {
        found.map_err(|diagnostic| self.status(&diagnostic))
    }
}

fn range(range: &FileRange) -> Range<u64> {
    let start = range.offset.max(0) as u64;
    start..if range.length > 0 { start.saturating_add(range.length as u64) } else { u64::MAX }
}

fn pattern(request: &ReadDirRequest) -> Option<&str> {
    Some(request.include_pattern.as_str()).filter(|pattern| !pattern.is_empty())
}

/// The position of a mount; one that cannot be is one that is not there.
fn mount(index: i32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// Puts what is known of a file on the wire.
fn stat(info: &FileInfo) -> Stat {
    let kind = match info.kind {
        FileKind::Directory => 0o040_000,
        FileKind::Symlink => 0o120_000,
        FileKind::Fifo => 0o010_000,
        FileKind::BlockDevice => 0o060_000,
        FileKind::CharacterDevice => 0o020_000,
        FileKind::Socket => 0o140_000,
        FileKind::File => 0o100_000,
    };
    let nanoseconds = info.modified.seconds.saturating_mul(1_000_000_000);
    Stat {
        path: info.path.clone(),
        mode: fsutil::go_mode(kind | info.mode),
        uid: info.uid,
        gid: info.gid,
        size: if info.kind == FileKind::Directory { 0 } else { info.size as i64 },
        mod_time: nanoseconds.saturating_add(i64::from(info.modified.nanoseconds)),
        linkname: info.link.clone(),
        devmajor: i64::from(info.device.0),
        devminor: i64::from(info.device.1),
        ..Stat::default()
    }
}
