//! Cache keys of operations: what of an operation's data decides its result, and which inputs it reads whole.
//!
//! Pure. The rules are BuildKit's, so that what is a hit there is a hit here:
//!
//! - A secret's or ssh agent's *content*, a cache mount's content, proxy variables and resource limits are
//!   not part of a key.
//! - An input that a step can only read, and that is not its root, is keyed by the content below the
//!   mount's selector; so is what a `COPY` reads. Everything else is keyed by the input's own key.

use prost::Message as _;
use slipway_model::llb::{Vertex, pb};
use slipway_model::{Digest, Digester, Platform};
use slipway_solver::{CacheMap, InputCacheMap};

/// Bumped when the meaning of stored results changes.
const VERSION: &str = "slipway.cache.v1";

/// What an operation reads of an input, when it does not read it whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Selection {
    /// Everything below a path.
    Path(String),
    /// What a copy takes.
    Copy(Box<pb::FileActionCopy>),
}

/// Returns an exec without what is not part of its key.
pub(super) fn keyed_exec(exec: &pb::ExecOp) -> pb::ExecOp {
    let mut keyed = exec.clone();
    let meta = keyed.meta.get_or_insert_default();
    meta.proxy_env = None;
    meta.cgroup_parent.clear();
    meta.extra_hosts.iter_mut().for_each(|host| host.ip.clear());
    for mount in &mut keyed.mounts {
        mount.selector.clear();
        mount.result_id.clear();
        if let Some(cache) = &mut mount.cache_opt {
            cache.id.clear();
        }
    }
    keyed
}

/// Makes the cache map of an exec.
pub(crate) fn exec(vertex: &Vertex, exec: &pb::ExecOp, no_cache: Option<Digest>) -> CacheMap {
    let keyed = keyed_exec(exec);
    let inputs = (0..vertex.inputs.len())
        .map(|input| {
            let selection = exec_selection(exec, input);
            let selector = exec.mounts.iter().find(|m| m.input == input as i64).map(|m| m.selector.as_str());
            InputCacheMap {
                selector: selector.filter(|s| !s.is_empty()).map(Digest::of),
                by_content: selection.is_some(),
            }
        })
        .collect();
    CacheMap { digest: digest("exec", vertex.platform().as_ref(), &keyed.encode_to_vec()), inputs, no_cache }
}

/// Returns what an exec reads of an input, or `None` if it must be taken whole.
pub(crate) fn exec_selection(exec: &pb::ExecOp, input: usize) -> Option<Vec<Selection>> {
    let mounts: Vec<&pb::Mount> = exec.mounts.iter().filter(|m| m.input == input as i64).collect();
    let by_content = |mount: &&pb::Mount| {
        let writes = (!mount.readonly || mount.dest == "/") && mount.output != -1;
        match pb::MountContentCache::try_from(mount.content_cache) {
            Ok(pb::MountContentCache::On) => true,
            Ok(pb::MountContentCache::Off) => false,
            _ => mount.mount_type == pb::MountType::Bind as i32 && !writes && mount.dest != "/",
        }
    };
    if mounts.is_empty() || !mounts.iter().all(by_content) {
        return None;
    }
    Some(mounts.iter().map(|mount| Selection::Path(mount.selector.clone())).collect())
}

/// Makes the cache map of a file operation.
pub(crate) fn file(vertex: &Vertex, file: &pb::FileOp, no_cache: Option<Digest>) -> CacheMap {
    let inputs = (0..vertex.inputs.len())
        .map(|input| {
            let selections = file_selection(file, input);
            InputCacheMap { selector: selections.as_deref().map(selector), by_content: selections.is_some() }
        })
        .collect();
    let mut keyed = file.clone();
    for action in &mut keyed.actions {
        // Where a copied file lies is the selector's: it counts as long as the content is not known.
        let from_input = (0..vertex.inputs.len() as i64).contains(&action.secondary_input);
        if let (true, Some(pb::file_action::Action::Copy(copy))) = (from_input, &mut action.action) {
            copy.src = copy.src.rsplit('/').next().unwrap_or_default().to_owned();
        }
    }
    CacheMap { digest: digest("file", None, &keyed.encode_to_vec()), inputs, no_cache }
}

/// Names what is read of an input, for keys that are made before the content is known.
fn selector(selections: &[Selection]) -> Digest {
    let mut digester = Digester::new();
    selections.iter().for_each(|selection| selection.key(&mut digester));
    digester.finish()
}

/// Returns what a file operation reads of an input, or `None` if it must be taken whole.
pub(crate) fn file_selection(file: &pb::FileOp, input: usize) -> Option<Vec<Selection>> {
    use pb::file_action::Action;
    let input = input as i64;
    let mut selections = Vec::new();
    for action in &file.actions {
        if action.input == input {
            return None;
        }
        let owner = match action.action.as_ref()? {
            Action::Copy(copy) => &copy.owner,
            Action::Mkfile(mkfile) => &mkfile.owner,
            Action::Mkdir(mkdir) => &mkdir.owner,
            Action::Symlink(symlink) => &symlink.owner,
            Action::Rm(_) => &None,
        };
        let names = |user: Option<&pb::UserOpt>| match user.and_then(|u| u.user.as_ref()) {
            Some(pb::user_opt::User::ByName(named)) => named.input == input,
            _ => false,
        };
        if names(owner.as_ref().and_then(|o| o.user.as_ref())) {
            selections.push(Selection::Path("/etc/passwd".to_owned()));
        }
        if names(owner.as_ref().and_then(|o| o.group.as_ref())) {
            selections.push(Selection::Path("/etc/group".to_owned()));
        }
        if let (true, Some(Action::Copy(copy))) = (action.secondary_input == input, &action.action) {
            selections.push(Selection::Copy(Box::new(copy.clone())));
        }
    }
    (!selections.is_empty()).then_some(selections)
}

/// Makes the cache map of an operation that takes all its inputs whole.
pub(crate) fn whole(vertex: &Vertex, kind: &str, data: &[u8], no_cache: Option<Digest>) -> CacheMap {
    let inputs = vec![InputCacheMap::default(); vertex.inputs.len()];
    CacheMap { digest: digest(kind, None, data), inputs, no_cache }
}

/// Makes the cache map of a source whose content is named by `data`.
pub(crate) fn source(
    kind: &str,
    platform: Option<&Platform>,
    data: &[u8],
    no_cache: Option<Digest>,
) -> CacheMap {
    CacheMap { digest: digest(kind, platform, data), inputs: Vec::new(), no_cache }
}

fn digest(kind: &str, platform: Option<&Platform>, data: &[u8]) -> Digest {
    let mut digester = Digester::new();
    digester.field(VERSION);
    digester.field(kind);
    digester.field(platform.map(ToString::to_string).unwrap_or_default());
    digester.field(data);
    digester.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use slipway_model::llb::{Definition, Edge, GraphBuilder, VertexMeta};

    use super::*;

    fn vertex(op: pb::op::Op, inputs: usize) -> Arc<Vertex> {
        let mut graph = GraphBuilder::new();
        let source = |n: usize| {
            pb::op::Op::Source(pb::SourceOp {
                identifier: format!("docker-image://i{n}"),
                ..Default::default()
            })
        };
        let inputs: Vec<Edge> = (0..inputs)
            .map(|n| Edge { vertex: graph.add(&[], source(n), None, VertexMeta::default()), index: 0 })
            .collect();
        let digest = graph.add(&inputs, op, None, VertexMeta::default());
        let wire = graph.finish(Some(Edge { vertex: digest, index: 0 }));
        Definition::decode(&wire).unwrap().vertex(&digest).unwrap().clone()
    }

    fn exec_op() -> pb::ExecOp {
        pb::ExecOp {
            meta: Some(pb::Meta { args: vec!["make".to_owned()], ..Default::default() }),
            mounts: vec![
                pb::Mount { input: 0, dest: "/".to_owned(), output: 0, ..Default::default() },
                pb::Mount {
                    input: 1,
                    dest: "/src".to_owned(),
                    output: -1,
                    readonly: true,
                    ..Default::default()
                },
            ],
            ..Default::default()
        }
    }

    #[test]
    fn proxies_and_cache_ids_are_not_in_the_key() {
        let plain = exec_op();
        let mut other = exec_op();
        let meta = other.meta.as_mut().unwrap();
        meta.proxy_env = Some(pb::ProxyEnv { http_proxy: "http://p".to_owned(), ..Default::default() });
        let key = |op: &pb::ExecOp| exec(&vertex(pb::op::Op::Exec(op.clone()), 2), op, None).digest;
        assert_eq!(key(&plain), key(&other));
        other.cdi_devices = vec![pb::CdiDevice { name: "vendor.com/gpu".to_owned(), optional: true }];
        assert_ne!(key(&plain), key(&other), "who may use a device does something else");
        other.cdi_devices.clear();
        other.meta.as_mut().unwrap().args.push("-j".to_owned());
        assert_ne!(key(&plain), key(&other));
    }

    #[test]
    fn read_only_mounts_are_keyed_by_content_and_the_root_is_not() {
        let op = exec_op();
        let map = exec(&vertex(pb::op::Op::Exec(op.clone()), 2), &op, None);
        assert_eq!(map.inputs.iter().map(|i| i.by_content).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn copies_of_different_paths_have_different_definitions() {
        let key = |src: &str| {
            let copy = pb::FileActionCopy { src: src.to_owned(), ..Default::default() };
            let action = pb::FileAction {
                input: 0,
                secondary_input: 1,
                output: 0,
                action: Some(pb::file_action::Action::Copy(copy)),
            };
            let op = pb::FileOp { actions: vec![action] };
            file(&vertex(pb::op::Op::File(op.clone()), 2), &op, None)
        };
        // The name in the target is the same, so equal content gives an equal result.
        assert_eq!(key("/amd64/program").digest, key("/arm64/program").digest);
        assert_ne!(key("/amd64/program").inputs[1].selector, key("/arm64/program").inputs[1].selector);
    }

    #[test]
    fn a_copy_reads_its_source_by_content_and_its_target_whole() {
        let copy = |input, secondary_input| pb::FileAction {
            input,
            secondary_input,
            output: 0,
            action: Some(pb::file_action::Action::Copy(pb::FileActionCopy {
                src: "/a".to_owned(),
                ..Default::default()
            })),
        };
        let op = pb::FileOp { actions: vec![copy(0, 1)] };
        let map = file(&vertex(pb::op::Op::File(op.clone()), 2), &op, None);
        assert_eq!(map.inputs.iter().map(|i| i.by_content).collect::<Vec<_>>(), [false, true]);
        let both = pb::FileOp { actions: vec![copy(0, 0)] };
        assert_eq!(file_selection(&both, 0), None);
    }
}
