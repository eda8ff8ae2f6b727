//! The files that a step starts from, or that one left which failed.
//!
//! Nothing is read before somebody looks: what is deferred is built then.

use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;
use slipway_daemon::client::{Container, ContainerSpec, Files, Gateway};
use slipway_engine::{FileInfo, FileKind};
use slipway_model::Diagnostic;
use tokio::sync::OnceCell;

use super::variables::{Inside, Value};

/// As much of a file as tells whether it is a text.
const START: u64 = 512;
/// The most that is shown of a file.
const MOST: u64 = 64 << 10;

/// Files by the place where a step sees them.
#[derive(Debug)]
pub(super) struct Explorer {
    gateway: Gateway,
    roots: Vec<(String, Root)>,
    /// What holds the mounts of a failed step.
    failed: Option<ContainerSpec>,
    container: OnceCell<Container>,
}

/// Where files are.
#[derive(Clone, Debug)]
pub(super) enum Root {
    Reference(Files),
    /// A mount of the failed step.
    Mount(usize),
}

/// A place among the files.
#[derive(Clone, Debug)]
pub(super) enum Spot {
    Roots,
    Directory { root: usize, path: String, itself: Option<Box<FileInfo>> },
    File { root: usize, path: String, itself: Box<FileInfo> },
    Attributes(Box<FileInfo>),
}

impl Explorer {
    pub(super) fn new(gateway: Gateway, roots: Vec<(String, Root)>, failed: Option<ContainerSpec>) -> Self {
        Self { gateway, roots, failed, container: OnceCell::new() }
    }

    /// Says whether there is nothing to see.
    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Takes away what looking needed.
    pub(super) async fn close(&self) {
        if let Some(container) = self.container.get() {
            container.release().await;
        }
    }

    /// Lists what is at a place; an error is something to see too.
    pub(super) async fn open(self: &Arc<Self>, spot: &Spot) -> Vec<Value> {
        let found = match spot {
            Spot::Roots => Ok(self.list_roots()),
            Spot::Directory { root, path, itself } => self.list(*root, path, itself.as_deref()).await,
            Spot::File { root, path, itself } => Ok(self.file(*root, path, itself).await),
            Spot::Attributes(info) => Ok(attributes(info)),
        };
        found.unwrap_or_else(|error| vec![Value::new("error", error.to_string())])
    }

    fn list_roots(self: &Arc<Self>) -> Vec<Value> {
        let value = |(index, (name, _)): (usize, &(String, Root))| {
            let spot = Spot::Directory { root: index, path: "/".to_owned(), itself: None };
            Value { name: name.clone(), value: String::new(), inside: Inside::Files(self.clone(), spot) }
        };
        let mut values: Vec<Value> = self.roots.iter().enumerate().map(value).collect();
        values.sort_by(|a, b| a.name.cmp(&b.name));
        values
    }

    async fn list(
        self: &Arc<Self>,
        root: usize,
        path: &str,
        itself: Option<&FileInfo>,
    ) -> Result<Vec<Value>, Diagnostic> {
        let entries = match &self.roots[root].1 {
            Root::Reference(files) => self.gateway.read_dir(files, path).await?,
            Root::Mount(mount) => self.container().await?.read_dir(*mount, path).await?,
        };
        let inside = |spot| Inside::Files(self.clone(), spot);
        let own = itself.map(|info| Value {
            name: ".".to_owned(),
            value: summary(info),
            inside: inside(Spot::Attributes(Box::new(info.clone()))),
        });
        let entries = entries.into_iter().map(|info| {
            let path = format!("{}/{}", path.trim_end_matches('/'), info.path);
            if info.kind == FileKind::Directory {
                let name = format!("{}/", info.path);
                let spot = Spot::Directory { root, path, itself: Some(Box::new(info)) };
                return Value { name, value: String::new(), inside: inside(spot) };
            }
            let (name, value) = (info.path.clone(), summary(&info));
            Value { name, value, inside: inside(Spot::File { root, path, itself: Box::new(info) }) }
        });
        Ok(own.into_iter().chain(entries).collect())
    }

    async fn file(&self, root: usize, path: &str, info: &FileInfo) -> Vec<Value> {
        let mut values = Vec::new();
        if info.kind == FileKind::File {
            let content = self.content(root, path, info.size).await;
            values.push(Value::new("data", content.unwrap_or_else(|error| error.to_string())));
        }
        values.extend(attributes(info));
        values
    }

    async fn content(&self, root: usize, path: &str, size: u64) -> Result<String, Diagnostic> {
        let mut bytes = self.read(root, path, 0..START).await?;
        if is_binary(&bytes) {
            return Ok("binary data".to_owned());
        }
        if bytes.len() as u64 == START {
            bytes.extend(self.read(root, path, START..MOST).await?);
        }
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if size > MOST {
            text.push_str(&format!("\n… {} bytes more", size - MOST));
        }
        Ok(text)
    }

    async fn read(&self, root: usize, path: &str, range: Range<u64>) -> Result<Vec<u8>, Diagnostic> {
        match &self.roots[root].1 {
            Root::Reference(files) => self.gateway.read_file(files, path, range).await,
            Root::Mount(mount) => self.container().await?.read_file(*mount, path, range).await,
        }
    }

    async fn container(&self) -> Result<&Container, Diagnostic> {
        let spec = self.failed.clone().unwrap_or_default();
        self.container.get_or_try_init(|| self.gateway.container(spec)).await
    }
}

/// Tells what cannot be shown as a text: by zeros, or by how much of it is no letter.
fn is_binary(bytes: &[u8]) -> bool {
    let odd_ascii = |byte: &&u8| byte.is_ascii_control() && !matches!(byte, b'\n' | b'\r' | b'\t');
    let mut odd = bytes.iter().filter(odd_ascii).count();
    odd += bytes.utf8_chunks().map(|chunk| chunk.invalid().len()).sum::<usize>();
    bytes.contains(&0) || odd * 10 > bytes.len() * 3
}

fn attributes(info: &FileInfo) -> Vec<Value> {
    let link = Some(Value::new("linkname", &info.link)).filter(|_| !info.link.is_empty());
    let rest = [
        Value::new("mode", mode(info)),
        Value::new("uid", info.uid.to_string()),
        Value::new("gid", info.gid.to_string()),
        Value::new("mtime", time(info)),
    ];
    link.into_iter().chain(rest).collect()
}

fn summary(info: &FileInfo) -> String {
    format!("{} {}:{} {}", mode(info), info.uid, info.gid, time(info))
}

fn time(info: &FileInfo) -> String {
    let time = Timestamp::from_second(info.modified.seconds).unwrap_or_default();
    time.strftime("%b %-d %H:%M:%S %Y").to_string()
}

/// Writes a mode as `ls` does.
fn mode(info: &FileInfo) -> String {
    let kind = match info.kind {
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::BlockDevice => 'b',
        FileKind::CharacterDevice => 'c',
        FileKind::Socket => 's',
        FileKind::File => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letters) in
        [(6, 0o4000, ['s', 'S']), (3, 0o2000, ['s', 'S']), (0, 0o1000, ['t', 'T'])]
    {
        let bits = info.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (info.mode & special != 0, bits & 1 != 0) {
            (true, true) => letters[0],
            (true, false) => letters[1],
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use slipway_engine::files::Time;

    use super::*;

    #[test]
    fn files_look_as_in_a_listing() {
        let info = |kind, mode| FileInfo {
            path: "x".into(),
            kind,
            mode,
            uid: 1,
            gid: 2,
            size: 0,
            modified: Time { seconds: 86_400 * 2 + 3661, nanoseconds: 0 },
            link: String::new(),
            device: (0, 0),
        };
        assert_eq!(summary(&info(FileKind::File, 0o644)), "-rw-r--r-- 1:2 Jan 3 01:01:01 1970");
        assert_eq!(mode(&info(FileKind::Directory, 0o1777)), "drwxrwxrwt");
        assert_eq!(mode(&info(FileKind::Symlink, 0o4750)), "lrwsr-x---");
        assert_eq!(mode(&info(FileKind::File, 0o2644)), "-rw-r-Sr--");
    }

    #[test]
    fn only_texts_are_shown() {
        assert!(!is_binary("text\twith ümläuts\r\n".as_bytes()) && !is_binary(b""));
        assert!(is_binary(b"a\0b") && is_binary(b"\xff\xfe\xfda") && is_binary(b"\x01\x02\x03abc"));
    }
}
