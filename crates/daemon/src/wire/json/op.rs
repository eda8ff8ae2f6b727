//! An LLB operation in protobuf's own JSON form, with the field names of `ops.proto`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use slipway_model::llb::pb;

/// Writes an operation.
pub(in crate::wire) fn op(op: &pb::Op) -> Value {
    let inputs: Vec<Value> =
        op.inputs.iter().map(|input| json!({ "digest": input.digest, "index": input.index })).collect();
    let mut value = json!({ "inputs": inputs });
    let (kind, body) = match &op.op {
        Some(pb::op::Op::Exec(exec)) => ("exec", self::exec(exec)),
        Some(pb::op::Op::Source(source)) => {
            ("source", json!({ "identifier": source.identifier, "attrs": source.attrs }))
        }
        Some(pb::op::Op::File(file)) => {
            ("file", json!({ "actions": file.actions.iter().map(action).collect::<Vec<_>>() }))
        }
        Some(pb::op::Op::Build(build)) => ("build", self::build(build)),
        Some(pb::op::Op::Merge(merge)) => {
            let inputs: Vec<Value> =
                merge.inputs.iter().map(|input| json!({ "input": input.input })).collect();
            ("merge", json!({ "inputs": inputs }))
        }
        Some(pb::op::Op::Diff(diff)) => {
            let lower = diff.lower.as_ref().map(|lower| json!({ "input": lower.input }));
            let upper = diff.upper.as_ref().map(|upper| json!({ "input": upper.input }));
            ("diff", json!({ "lower": lower, "upper": upper }))
        }
        Some(pb::op::Op::Passthrough(pass)) => {
            ("passthrough", json!({ "id": pass.id, "outputs": pass.outputs }))
        }
        None => return value,
    };
    value[kind] = body;
    if let Some(platform) = &op.platform {
        value["platform"] = json!({
            "Architecture": platform.architecture,
            "OS": platform.os,
            "Variant": platform.variant,
            "OSVersion": platform.os_version,
            "OSFeatures": platform.os_features,
        });
    }
    if let Some(constraints) = &op.constraints {
        value["constraints"] = json!({ "filter": constraints.filter });
    }
    value
}

fn exec(exec: &pb::ExecOp) -> Value {
    let secrets = exec.secretenv.iter();
    let secrets: Vec<Value> = secrets
        .map(|secret| json!({ "ID": secret.id, "name": secret.name, "optional": secret.optional }))
        .collect();
    let devices = exec.cdi_devices.iter();
    let devices: Vec<Value> =
        devices.map(|device| json!({ "name": device.name, "optional": device.optional })).collect();
    json!({
        "meta": exec.meta.as_ref().map(meta),
        "mounts": exec.mounts.iter().map(mount).collect::<Vec<_>>(),
        "network": exec.network,
        "security": exec.security,
        "secretenv": secrets,
        "cdiDevices": devices,
    })
}

fn meta(meta: &pb::Meta) -> Value {
    let hosts: Vec<Value> =
        meta.extra_hosts.iter().map(|host| json!({ "Host": host.host, "IP": host.ip })).collect();
    let limits = meta.ulimit.iter();
    let limits: Vec<Value> =
        limits.map(|limit| json!({ "Name": limit.name, "Soft": limit.soft, "Hard": limit.hard })).collect();
    let proxy = meta.proxy_env.as_ref().map(|proxy| {
        json!({
            "http_proxy": proxy.http_proxy,
            "https_proxy": proxy.https_proxy,
            "ftp_proxy": proxy.ftp_proxy,
            "no_proxy": proxy.no_proxy,
            "all_proxy": proxy.all_proxy,
        })
    });
    json!({
        "args": meta.args,
        "env": meta.env,
        "cwd": meta.cwd,
        "user": meta.user,
        "proxy_env": proxy,
        "extraHosts": hosts,
        "hostname": meta.hostname,
        "ulimit": limits,
        "cgroupParent": meta.cgroup_parent,
        "removeMountStubsRecursive": meta.remove_mount_stubs_recursive,
        "validExitCodes": meta.valid_exit_codes,
    })
}

fn mount(mount: &pb::Mount) -> Value {
    let file = |id: &str, uid: u32, gid: u32, mode: u32, optional: bool| json!({ "ID": id, "uid": uid, "gid": gid, "mode": mode, "optional": optional });
    let cache = mount.cache_opt.as_ref();
    let secret = mount.secret_opt.as_ref();
    let ssh = mount.ssh_opt.as_ref();
    json!({
        "input": mount.input,
        "selector": mount.selector,
        "dest": mount.dest,
        "output": mount.output,
        "readonly": mount.readonly,
        "mountType": mount.mount_type,
        "TmpfsOpt": mount.tmpfs_opt.as_ref().map(|tmpfs| json!({ "size": tmpfs.size })),
        "cacheOpt": cache.map(|cache| json!({ "ID": cache.id, "sharing": cache.sharing })),
        "secretOpt": secret.map(|o| file(&o.id, o.uid, o.gid, o.mode, o.optional)),
        "SSHOpt": ssh.map(|o| file(&o.id, o.uid, o.gid, o.mode, o.optional)),
        "resultID": mount.result_id,
        "contentCache": mount.content_cache,
    })
}

fn build(build: &pb::BuildOp) -> Value {
    let inputs = build.inputs.iter().map(|(name, input)| (name.clone(), json!({ "input": input.input })));
    json!({
        "builder": build.builder,
        "inputs": inputs.collect::<serde_json::Map<_, _>>(),
        "attrs": build.attrs,
    })
}

fn action(action: &pb::FileAction) -> Value {
    use pb::file_action::Action;
    let mut value = json!({
        "input": action.input,
        "secondaryInput": action.secondary_input,
        "output": action.output,
    });
    let (kind, body) = match &action.action {
        Some(Action::Copy(copy)) => (
            "copy",
            json!({
                "src": copy.src,
                "dest": copy.dest,
                "owner": copy.owner.as_ref().map(owner),
                "mode": copy.mode,
                "followSymlink": copy.follow_symlink,
                "dirCopyContents": copy.dir_copy_contents,
                "attemptUnpackDockerCompatibility": copy.attempt_unpack,
                "createDestPath": copy.create_dest_path,
                "allowWildcard": copy.allow_wildcard,
                "allowEmptyWildcard": copy.allow_empty_wildcard,
                "timestamp": copy.timestamp,
                "include_patterns": copy.include_patterns,
                "exclude_patterns": copy.exclude_patterns,
                "alwaysReplaceExistingDestPaths": copy.always_replace_existing_dest_paths,
                "modeStr": copy.mode_str,
                "required_paths": copy.required_paths,
            }),
        ),
        Some(Action::Mkfile(file)) => (
            "mkfile",
            json!({
                "path": file.path,
                "mode": file.mode,
                "data": BASE64_STANDARD.encode(&file.data),
                "owner": file.owner.as_ref().map(owner),
                "timestamp": file.timestamp,
            }),
        ),
        Some(Action::Mkdir(directory)) => (
            "mkdir",
            json!({
                "path": directory.path,
                "mode": directory.mode,
                "makeParents": directory.make_parents,
                "owner": directory.owner.as_ref().map(owner),
                "timestamp": directory.timestamp,
            }),
        ),
        Some(Action::Rm(rm)) => (
            "rm",
            json!({
                "path": rm.path,
                "allowNotFound": rm.allow_not_found,
                "allowWildcard": rm.allow_wildcard,
            }),
        ),
        Some(Action::Symlink(link)) => (
            "symlink",
            json!({
                "oldpath": link.oldpath,
                "newpath": link.newpath,
                "owner": link.owner.as_ref().map(owner),
                "timestamp": link.timestamp,
            }),
        ),
        None => return value,
    };
    value[kind] = body;
    value
}

fn owner(owner: &pb::ChownOpt) -> Value {
    use pb::user_opt::User;
    let user = |option: &Option<pb::UserOpt>| match option.as_ref().and_then(|option| option.user.as_ref()) {
        Some(User::ByName(named)) => json!({ "byName": { "name": named.name, "input": named.input } }),
        Some(User::ById(id)) => json!({ "byID": id }),
        None => json!({}),
    };
    json!({ "user": owner.user.as_ref().map(|_| user(&owner.user)), "group": owner.group.as_ref().map(|_| user(&owner.group)) })
}
