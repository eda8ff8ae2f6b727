//! What a container of an image starts, found among the image's files: the program, the interpreter of a
//! script, the loader that a program asks for, the shell of `SHELL`.
//!
//! Only looks; which of it is wrong is for [`crate::platform_check`] to say. What cannot be found or read is
//! passed over: an image may be meant to get its program by a mount.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use slipway_emulation::elf::{self, FileKind};
use slipway_files::Root;
use slipway_model::{Digest, Digester, ImageConfig};
use slipway_store::{SnapshotId, Store};

use crate::platform_check::{Program, Programs};

/// The key-value namespace of what was found.
const STARTED: &str = "started";
/// How many files are looked at: a script, its interpreter and the interpreter's loader are three.
const MAX_FILES: usize = 16;
/// How much of a file is read: a header, or the first line of a script.
const HEAD: usize = 256;
/// Where programs are searched if the image does not say.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Lists the ELF files that a container of the image starts with, each under its own path; the snapshot must
/// be unpacked. A snapshot never changes, so what was found is kept.
pub(crate) fn programs(store: &Store, snapshot: SnapshotId, config: &ImageConfig) -> Option<Programs> {
    let names = names(config);
    if names.is_empty() {
        return Some(Programs::new());
    }
    let values = store.key_values();
    let key = key(snapshot, &names, config);
    if let Ok(Some(known)) = values.get(STARTED, key.as_bytes())
        && let Ok(programs) = serde_json::from_slice(&known.value)
    {
        return Some(programs);
    }
    let root = Root::from(store.snapshots().mount_view(snapshot).ok()?.into_fd());
    let programs = find(&root, &names, config);
    if let Ok(text) = serde_json::to_vec(&programs) {
        let _ = values.put(STARTED, key.as_bytes(), &text);
    }
    Some(programs)
}

/// Lists what is started by name: the first word of the entrypoint or the command, and the shell.
fn names(config: &ImageConfig) -> Vec<String> {
    let run = &config.config;
    let command = run.entrypoint.as_ref().filter(|words| !words.is_empty()).or(run.cmd.as_ref());
    let first = |words: &Vec<String>| words.first().cloned();
    [command, run.shell.as_ref()].into_iter().flatten().filter_map(first).collect()
}

/// Lists the paths that a name stands for, in the order in which they are tried.
pub(crate) fn candidates(config: &ImageConfig, name: &str) -> Vec<String> {
    let run = &config.config;
    if name.contains('/') {
        let base = if name.starts_with('/') { "" } else { run.working_dir.trim_end_matches('/') };
        return vec![format!("{base}/{}", name.trim_start_matches('/'))];
    }
    let search = run.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    search.split(':').map(|directory| format!("{}/{name}", directory.trim_end_matches('/'))).collect()
}

fn key(snapshot: SnapshotId, names: &[String], config: &ImageConfig) -> Digest {
    let mut digester = Digester::new();
    digester.field(snapshot.to_string());
    for name in names {
        candidates(config, name).iter().for_each(|path| digester.field(path));
        digester.field("");
    }
    digester.finish()
}

fn find(root: &Root, names: &[String], config: &ImageConfig) -> Programs {
    let mut found = Programs::new();
    let mut seen: Vec<String> = Vec::new();
    let mut queue: VecDeque<Vec<String>> = names.iter().map(|name| candidates(config, name)).collect();
    while let Some(paths) = queue.pop_front() {
        let open = |path: &String| root.open_file(Path::new(path)).ok().flatten();
        let Some((path, file)) = paths.iter().find_map(open) else { continue };
        let path = format!("/{}", path.display());
        if seen.contains(&path) || seen.len() == MAX_FILES {
            continue;
        }
        seen.push(path.clone());
        let head = read(&file, 0, HEAD).unwrap_or_default();
        match elf::kind(&head) {
            FileKind::Elf(header) => {
                let loader = elf::interpreter(&header, |offset, length| read(&file, offset, length));
                queue.extend(loader.ok().flatten().map(|loader| vec![loader]));
                found.push(Program::new(path, &head));
            }
            FileKind::Script { interpreter } => {
                if interpreter.ends_with("/env") {
                    queue.extend(named_by_env(&head).map(|name| candidates(config, &name)));
                }
                queue.push_back(vec![interpreter]);
            }
            FileKind::PortableExecutable | FileKind::MachO | FileKind::Other => {}
        }
    }
    found
}

/// Returns the program that a first line of `#!/usr/bin/env PROGRAM` names.
fn named_by_env(head: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\n').next()?).into_owned();
    let mut words = line.split_ascii_whitespace().skip_while(|word| !word.ends_with("/env")).skip(1);
    words.find(|word| !word.starts_with('-') && !word.contains('=')).map(str::to_owned)
}

fn read(file: &File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn config(entrypoint: &[&str]) -> ImageConfig {
        let mut config = ImageConfig::default();
        config.config.env = vec!["PATH=/usr/bin:/bin".to_owned()];
        config.config.working_dir = "/srv/".to_owned();
        config.config.entrypoint = Some(entrypoint.iter().map(|word| (*word).to_owned()).collect());
        config
    }

    #[test]
    fn names_stand_for_paths() {
        assert_eq!(candidates(&config(&[]), "app"), ["/usr/bin/app", "/bin/app"]);
        assert_eq!(candidates(&config(&[]), "./run"), ["/srv/./run"]);
        assert_eq!(candidates(&config(&[]), "/opt/run"), ["/opt/run"]);
        assert_eq!(named_by_env(b"#! /usr/bin/env -S A=1 python3 -u\nx").as_deref(), Some("python3"));
        assert_eq!(named_by_env(b"#!/usr/bin/env"), None);
    }

    #[test]
    fn links_interpreters_and_loaders_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (top, own) = (directory.path(), std::fs::read("/proc/self/exe").unwrap());
        for name in ["bin", "srv", "lib64", "usr/bin"] {
            std::fs::create_dir_all(top.join(name)).unwrap();
        }
        // Enough of a real program for its loader to be known.
        std::fs::write(top.join("bin/python3.11"), &own[..own.len().min(1 << 16)]).unwrap();
        symlink("/bin/python3.11", top.join("usr/bin/python3")).unwrap();
        std::fs::write(top.join("srv/run"), "#!/usr/bin/env python3\n").unwrap();
        let root = Root::open(top).unwrap();
        let header = elf::inspect(&own).unwrap();
        let loader = elf::interpreter(&header, |at, length| {
            own.get(at as usize..at as usize + length).map(<[u8]>::to_vec).ok_or(())
        });
        let loader = loader.unwrap().expect("tests are linked to a loader");
        std::fs::create_dir_all(top.join(loader.trim_start_matches('/')).parent().unwrap()).unwrap();
        std::fs::write(top.join(loader.trim_start_matches('/')), &own[..HEAD]).unwrap();
        let config = config(&["./run"]);
        let found = find(&root, &names(&config), &config);
        let paths: Vec<&str> = found.iter().map(|program| program.path.as_str()).collect();
        assert_eq!(paths, ["/bin/python3.11", loader.as_str()]);
        // A loop of interpreters ends.
        std::fs::write(top.join("srv/run"), "#!/srv/run\n").unwrap();
        assert!(find(&root, &names(&config), &config).is_empty());
    }
}
