//! Operations as JSON, the way BuildKit writes them into provenance: members that say nothing are left out.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::pb;

/// An object whose members are added only if they say something.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn always(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    fn some(self, name: &str, value: Option<Value>) -> Self {
        match value {
            Some(value) => self.always(name, value),
            None => self,
        }
    }

    fn text(self, name: &str, text: &str) -> Self {
        self.some(name, (!text.is_empty()).then(|| json!(text)))
    }

    fn number(self, name: &str, number: impl Into<i128>) -> Self {
        let number = number.into();
        let written =
            i64::try_from(number).map(Value::from).or_else(|_| u64::try_from(number).map(Value::from));
        self.some(name, written.ok().filter(|_| number != 0))
    }

    fn flag(self, name: &str, set: bool) -> Self {
        self.some(name, set.then_some(Value::Bool(true)))
    }

    fn texts(self, name: &str, texts: &[String]) -> Self {
        self.some(name, (!texts.is_empty()).then(|| json!(texts)))
    }

    fn map(self, name: &str, map: &BTreeMap<String, String>) -> Self {
        self.some(name, (!map.is_empty()).then(|| json!(map)))
    }

    fn list<T>(self, name: &str, list: &[T], write: impl Fn(&T) -> Value) -> Self {
        self.some(name, (!list.is_empty()).then(|| list.iter().map(write).collect()))
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn object() -> Object {
    Object::default()
}

/// Writes an operation, without its inputs.
pub fn op(op: &pb::Op) -> Value {
    let kind = match &op.op {
        None => object(),
        Some(pb::op::Op::Exec(exec)) => object().always("exec", self::exec(exec)),
        Some(pb::op::Op::Source(source)) => object().always(
            "source",
            object().text("identifier", &source.identifier).map("attrs", &source.attrs).done(),
        ),
        Some(pb::op::Op::File(file)) => {
            object().always("file", object().list("actions", &file.actions, action).done())
        }
        Some(pb::op::Op::Build(build)) => object().always("build", self::build(build)),
        Some(pb::op::Op::Merge(merge)) => {
            let input = |input: &pb::MergeInput| object().number("input", input.input).done();
            object().always("merge", object().list("inputs", &merge.inputs, input).done())
        }
        Some(pb::op::Op::Diff(diff)) => {
            let lower = diff.lower.as_ref().map(|lower| object().number("input", lower.input).done());
            let upper = diff.upper.as_ref().map(|upper| object().number("input", upper.input).done());
            object().always("diff", object().some("lower", lower).some("upper", upper).done())
        }
        Some(pb::op::Op::Passthrough(pass)) => {
            let outputs = object().text("id", &pass.id).list("outputs", &pass.outputs, |n| json!(n));
            object().always("passthrough", outputs.done())
        }
    };
    let constraints = op.constraints.as_ref().map(|of| object().texts("filter", &of.filter).done());
    object()
        .always("Op", kind.done())
        .some("platform", op.platform.as_ref().map(platform))
        .some("constraints", constraints)
        .done()
}

/// Writes where in source files something is.
pub fn locations(locations: &pb::Locations) -> Value {
    let position =
        |at: &pb::Position| object().number("line", at.line).number("character", at.character).done();
    let range = |range: &pb::Range| {
        let (start, end) = (range.start.as_ref().map(position), range.end.as_ref().map(position));
        object().some("start", start).some("end", end).done()
    };
    let location = |location: &pb::Location| {
        object().number("sourceIndex", location.source_index).list("ranges", &location.ranges, range).done()
    };
    object().list("locations", &locations.locations, location).done()
}

fn platform(platform: &pb::Platform) -> Value {
    object()
        .text("Architecture", &platform.architecture)
        .text("OS", &platform.os)
        .text("Variant", &platform.variant)
        .text("OSVersion", &platform.os_version)
        .texts("OSFeatures", &platform.os_features)
        .done()
}

fn exec(exec: &pb::ExecOp) -> Value {
    let secret = |secret: &pb::SecretEnv| {
        object().text("ID", &secret.id).text("name", &secret.name).flag("optional", secret.optional).done()
    };
    let device =
        |device: &pb::CdiDevice| object().text("name", &device.name).flag("optional", device.optional).done();
    object()
        .some("meta", exec.meta.as_ref().map(meta))
        .list("mounts", &exec.mounts, mount)
        .number("network", exec.network)
        .number("security", exec.security)
        .list("secretenv", &exec.secretenv, secret)
        .list("cdiDevices", &exec.cdi_devices, device)
        .done()
}

fn meta(meta: &pb::Meta) -> Value {
    let host = |host: &pb::HostIp| object().text("Host", &host.host).text("IP", &host.ip).done();
    let limit = |limit: &pb::Ulimit| {
        object().text("Name", &limit.name).number("Soft", limit.soft).number("Hard", limit.hard).done()
    };
    let proxy = meta.proxy_env.as_ref().map(|proxy| {
        object()
            .text("http_proxy", &proxy.http_proxy)
            .text("https_proxy", &proxy.https_proxy)
            .text("ftp_proxy", &proxy.ftp_proxy)
            .text("no_proxy", &proxy.no_proxy)
            .text("all_proxy", &proxy.all_proxy)
            .done()
    });
    object()
        .texts("args", &meta.args)
        .texts("env", &meta.env)
        .text("cwd", &meta.cwd)
        .text("user", &meta.user)
        .some("proxy_env", proxy)
        .list("extraHosts", &meta.extra_hosts, host)
        .text("hostname", &meta.hostname)
        .list("ulimit", &meta.ulimit, limit)
        .text("cgroupParent", &meta.cgroup_parent)
        .flag("removeMountStubsRecursive", meta.remove_mount_stubs_recursive)
        .list("validExitCodes", &meta.valid_exit_codes, |code| json!(code))
        .done()
}

fn mount(mount: &pb::Mount) -> Value {
    let tmpfs = mount.tmpfs_opt.as_ref().map(|tmpfs| object().number("size", tmpfs.size).done());
    let cache = mount
        .cache_opt
        .as_ref()
        .map(|cache| object().text("ID", &cache.id).number("sharing", cache.sharing).done());
    let credential = |id: &str, uid: u32, gid: u32, mode: u32, optional: bool| {
        object()
            .text("ID", id)
            .number("uid", uid)
            .number("gid", gid)
            .number("mode", mode)
            .flag("optional", optional)
            .done()
    };
    let secret = mount.secret_opt.as_ref().map(|s| credential(&s.id, s.uid, s.gid, s.mode, s.optional));
    let ssh = mount.ssh_opt.as_ref().map(|s| credential(&s.id, s.uid, s.gid, s.mode, s.optional));
    object()
        .number("input", mount.input)
        .text("selector", &mount.selector)
        .text("dest", &mount.dest)
        .number("output", mount.output)
        .flag("readonly", mount.readonly)
        .number("mountType", mount.mount_type)
        .some("TmpfsOpt", tmpfs)
        .some("cacheOpt", cache)
        .some("secretOpt", secret)
        .some("SSHOpt", ssh)
        .text("resultID", &mount.result_id)
        .number("contentCache", mount.content_cache)
        .done()
}

fn build(build: &pb::BuildOp) -> Value {
    let inputs: Map<String, Value> = build
        .inputs
        .iter()
        .map(|(name, input)| (name.clone(), object().number("input", input.input).done()))
        .collect();
    object()
        .number("builder", build.builder)
        .some("inputs", (!inputs.is_empty()).then_some(Value::Object(inputs)))
        .map("attrs", &build.attrs)
        .done()
}

fn action(action: &pb::FileAction) -> Value {
    use pb::file_action::Action;
    let owner = |owner: &Option<pb::ChownOpt>| owner.as_ref().map(self::owner);
    let kind = match &action.action {
        None => object(),
        Some(Action::Copy(copy)) => object().always("copy", self::copy(copy)),
        Some(Action::Mkfile(file)) => object().always(
            "mkfile",
            object()
                .text("path", &file.path)
                .number("mode", file.mode)
                .text("data", &STANDARD.encode(&file.data))
                .some("owner", owner(&file.owner))
                .number("timestamp", file.timestamp)
                .done(),
        ),
        Some(Action::Mkdir(directory)) => object().always(
            "mkdir",
            object()
                .text("path", &directory.path)
                .number("mode", directory.mode)
                .flag("makeParents", directory.make_parents)
                .some("owner", owner(&directory.owner))
                .number("timestamp", directory.timestamp)
                .done(),
        ),
        Some(Action::Rm(rm)) => object().always(
            "rm",
            object()
                .text("path", &rm.path)
                .flag("allowNotFound", rm.allow_not_found)
                .flag("allowWildcard", rm.allow_wildcard)
                .done(),
        ),
        Some(Action::Symlink(link)) => object().always(
            "symlink",
            object()
                .text("oldpath", &link.oldpath)
                .text("newpath", &link.newpath)
                .some("owner", owner(&link.owner))
                .number("timestamp", link.timestamp)
                .done(),
        ),
    };
    object()
        .always("input", json!(action.input))
        .always("secondaryInput", json!(action.secondary_input))
        .always("output", json!(action.output))
        .always("Action", kind.done())
        .done()
}

fn copy(copy: &pb::FileActionCopy) -> Value {
    object()
        .text("src", &copy.src)
        .text("dest", &copy.dest)
        .some("owner", copy.owner.as_ref().map(owner))
        .number("mode", copy.mode)
        .flag("followSymlink", copy.follow_symlink)
        .flag("dirCopyContents", copy.dir_copy_contents)
        .flag("attemptUnpackDockerCompatibility", copy.attempt_unpack)
        .flag("createDestPath", copy.create_dest_path)
        .flag("allowWildcard", copy.allow_wildcard)
        .flag("allowEmptyWildcard", copy.allow_empty_wildcard)
        .number("timestamp", copy.timestamp)
        .texts("include_patterns", &copy.include_patterns)
        .texts("exclude_patterns", &copy.exclude_patterns)
        .flag("alwaysReplaceExistingDestPaths", copy.always_replace_existing_dest_paths)
        .text("modeStr", &copy.mode_str)
        .texts("required_paths", &copy.required_paths)
        .done()
}

fn owner(owner: &pb::ChownOpt) -> Value {
    let of = |user: &pb::UserOpt| {
        let user = match &user.user {
            None => object(),
            Some(pb::user_opt::User::ByName(name)) => object()
                .always("byName", object().text("name", &name.name).number("input", name.input).done()),
            Some(pb::user_opt::User::ById(id)) => object().number("byId", *id),
        };
        object().always("User", user.done()).done()
    };
    object().some("user", owner.user.as_ref().map(of)).some("group", owner.group.as_ref().map(of)).done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_left_out() {
        let exec = pb::ExecOp {
            meta: Some(pb::Meta { args: vec!["make".to_owned()], cwd: "/".to_owned(), ..Default::default() }),
            mounts: vec![pb::Mount { dest: "/".to_owned(), output: -1, ..Default::default() }],
            ..Default::default()
        };
        let step = pb::Op {
            op: Some(pb::op::Op::Exec(exec)),
            platform: Some(pb::Platform { os: "linux".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let written = json!({
            "Op": { "exec": {
                "meta": { "args": ["make"], "cwd": "/" },
                "mounts": [{ "dest": "/", "output": -1 }],
            } },
            "platform": { "OS": "linux" },
        });
        assert_eq!(op(&step), written);
        assert_eq!(op(&pb::Op::default()), json!({ "Op": {} }));
    }

    #[test]
    fn an_action_tells_its_inputs_also_where_they_are_the_first() {
        let file =
            pb::FileActionMkFile { path: "/a".to_owned(), data: b"x\n".to_vec(), ..Default::default() };
        let made = pb::FileAction {
            secondary_input: -1,
            action: Some(pb::file_action::Action::Mkfile(file)),
            ..Default::default()
        };
        let written = json!({
            "input": 0, "secondaryInput": -1, "output": 0,
            "Action": { "mkfile": { "path": "/a", "data": "eAo=" } },
        });
        assert_eq!(action(&made), written);
    }
}
