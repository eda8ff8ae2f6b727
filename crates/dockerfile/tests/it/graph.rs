//! The operations: what is in them, and what is not.

use slipway_dockerfile::{ContextPaths, ConvertOptions, bases};
use slipway_model::llb::pb;
use slipway_model::solve::{LayoutSelector, NamedContext, NamedContextSource, NoCache};
use slipway_model::{Digest, Platform};

use crate::support::{amd64, converted, copies, exec, file, graph, options, vertex, with};

fn platform_options(platform: &str) -> ConvertOptions {
    let mut options = ConvertOptions::new(platform.parse().unwrap(), amd64());
    options.multi_platform = true;
    options
}

fn digests(text: &str, platform: &str) -> Vec<(String, Digest)> {
    let graph = graph(&with(text, &platform_options(platform)));
    graph.vertices.iter().map(|v| (v.custom_name().unwrap_or_default().to_owned(), v.digest)).collect()
}

#[test]
fn stages_on_the_build_platform_are_the_same_vertices() {
    let text = "FROM --platform=$BUILDPLATFORM busybox AS build\nCOPY src /src\nRUN make\n\
                FROM busybox\nCOPY --from=build /out /out\n";
    let (arm64, s390x) = (digests(text, "linux/arm64"), digests(text, "linux/s390x"));
    let shared: Vec<&str> = arm64
        .iter()
        .filter(|(_, digest)| s390x.iter().any(|(_, other)| other == digest))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(shared.len(), 4, "{shared:?}");
    assert!(shared.contains(&"[linux/amd64 build 3/3] RUN make"));
    assert!(arm64.iter().any(|(name, _)| name == "[linux/arm64 stage-1 2/2] COPY --from=build /out /out"));
    // A declared argument makes the difference.
    let declared = text.replace("RUN make", "ARG TARGETARCH\nRUN make");
    let (arm64, s390x) = (digests(&declared, "linux/arm64"), digests(&declared, "linux/s390x"));
    let name =
        |list: &[(String, Digest)]| list.iter().find(|(n, _)| n.ends_with("RUN make")).cloned().unwrap();
    assert_ne!(name(&arm64).1, name(&s390x).1);
    assert_eq!(name(&arm64).0, "[linux/amd64->arm64 build 3/3] RUN make");
}

#[test]
fn unused_stages_are_left_out() {
    let result = converted("FROM busybox AS unused\nRUN never\nFROM busybox\nRUN x");
    assert!(graph(&result).vertices.iter().all(|v| !v.custom_name().unwrap_or_default().contains("never")));
}

#[test]
fn a_step_s_environment_directory_and_user() {
    let mut options = options();
    options.build_args.insert("https_proxy".into(), "http://proxy".into());
    options.build_args.insert("BUILDKIT_SANDBOX_HOSTNAME".into(), "host".into());
    options.shm_size = Some(1 << 20);
    let text = "FROM busybox\nWORKDIR /w\nUSER u:g\nARG A=1\nENV B=2\nRUN x\n";
    let step = vertex(&with(text, &options), "RUN x");
    let meta = exec(&step).meta.clone().unwrap();
    assert_eq!((meta.cwd.as_str(), meta.user.as_str(), meta.hostname.as_str()), ("/w", "u:g", "host"));
    assert_eq!(meta.env[1..], ["A=1", "B=2"]);
    assert_eq!(meta.proxy_env.unwrap().https_proxy, "http://proxy");
    let mounts = &exec(&step).mounts;
    assert_eq!((mounts[0].dest.as_str(), mounts[0].output), ("/", 0));
    assert_eq!(mounts[1].tmpfs_opt, Some(pb::TmpfsOpt { size: 1 << 20 }));
    assert_eq!(step.platform(), Some(amd64()));
}

#[test]
fn mounts() {
    let mut options = options();
    options.build_args.insert("BUILDKIT_CACHE_MOUNT_NS".into(), "ns".into());
    let text = "FROM busybox\nWORKDIR /w\nARG DIR=/c\nRUN --mount=type=cache,target=$DIR,sharing=locked \
                --mount=source=x,target=y,rw --mount=type=secret,id=s,env=S --mount=type=secret,id=f \
                --mount=type=ssh,required echo $S\n";
    let result = with(text, &options);
    let step = vertex(&result, "echo ****");
    let exec = exec(&step);
    let dests: Vec<&str> = exec.mounts.iter().map(|mount| mount.dest.as_str()).collect();
    assert_eq!(dests, ["/", "/c", "/w/y", "/run/secrets/f", "/run/buildkit/ssh_agent.0"]);
    let cache = exec.mounts[1].cache_opt.clone().unwrap();
    assert_eq!((cache.id.as_str(), cache.sharing), ("ns//c", pb::CacheSharing::Locked as i32));
    assert_eq!((exec.mounts[2].selector.as_str(), exec.mounts[2].output), ("/x", -1));
    assert_eq!(exec.secretenv[0].name, "S");
    assert!(!exec.mounts[4].ssh_opt.clone().unwrap().optional);
    // What is not said is left to the solver, and what has no files has no output to skip.
    assert_eq!(exec.mounts[4].ssh_opt.clone().unwrap().id, "");
    assert_eq!((exec.mounts[3].output, exec.mounts[4].output), (0, 0));
    assert!(exec.meta.clone().unwrap().env.contains(&"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0".to_owned()));
    assert_eq!(result.contexts.main, Some(ContextPaths::Some(vec!["x".into()])));
}

#[test]
fn a_step_asks_for_devices() {
    let text = "FROM busybox\nRUN --device=vendor.com/gpu=0 --device=name=gpus,required x\n";
    let result = with(text, &options());
    let asked = exec(&vertex(&result, "RUN --device=vendor.com/gpu=0 --device=name=gpus,required x"))
        .cdi_devices
        .clone();
    let device = |name: &str, optional| pb::CdiDevice { name: name.to_owned(), optional };
    assert_eq!(asked, [device("vendor.com/gpu=0", true), device("gpus", false)]);
}

#[test]
fn copies_and_their_options() {
    let text =
        "FROM busybox\nWORKDIR /w\nCOPY --chmod=u+x --exclude=*.o --parents a/./b/c d* ./\nADD x.tar /t/\n";
    let result = converted(text);
    let copy = vertex(&result, "COPY --chmod=u+x --exclude=*.o --parents a/./b/c d* ./");
    let copies_made = copies(&copy);
    assert_eq!((copies_made[0].src.as_str(), copies_made[0].dest.as_str()), ("/a", "/w/"));
    assert_eq!(copies_made[0].include_patterns, ["b/c"]);
    assert_eq!(copies_made[0].required_paths, ["/a/b/c"]);
    assert_eq!((copies_made[0].mode_str.as_str(), copies_made[0].mode), ("u+x", 0));
    assert_eq!((copies_made[1].src.as_str(), copies_made[1].required_paths.len()), ("/", 0));
    assert_eq!(copies_made[1].include_patterns, ["d*"]);
    let add = vertex(&result, "ADD x.tar /t/");
    assert!(copies(&add)[0].attempt_unpack);
    assert_eq!(copies(&add)[0].mode, -1);
    let paths = ["a/b/c", "d*", "x.tar"].map(str::to_owned).to_vec();
    assert_eq!(result.contexts.main, Some(ContextPaths::Some(paths)));
}

#[test]
fn links_do_not_depend_on_the_base() {
    let link = |base: &str| {
        let result = converted(&format!("FROM busybox\nRUN {base}\nCOPY --link a /a\n"));
        let merge = vertex(&result, "LINK COPY --link a /a");
        assert!(matches!(merge.op.op, Some(pb::op::Op::Merge(_))));
        merge.inputs[1].vertex
    };
    assert_eq!(link("x"), link("y"));
    assert_eq!(graph(&converted("FROM scratch\nCOPY --link a /a\n")).vertices.len(), 2);
}

#[test]
fn remote_sources() {
    let text = "FROM scratch\nADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 \
                https://h/f%20x.tgz /a/\nADD --keep-git-dir https://h/r.git#v1:dir /b/\nADD --unpack=true https://h/g /c/\n";
    let result = converted(text);
    let identifiers: Vec<String> = graph(&result)
        .vertices
        .iter()
        .filter_map(|vertex| match &vertex.op.op {
            Some(pb::op::Op::Source(source)) => Some(format!("{} {:?}", source.identifier, source.attrs)),
            _ => None,
        })
        .collect();
    assert!(
        identifiers[0].starts_with("https://h/f%20x.tgz {\"http.checksum\": \"sha256:e3b0"),
        "{identifiers:?}"
    );
    assert!(identifiers[0].ends_with("\"http.filename\": \"f x.tgz\"}"), "{identifiers:?}");
    assert!(identifiers[1].starts_with("git://h/r.git#v1:dir"), "{identifiers:?}");
    assert!(identifiers[1].contains("\"git.keepgitdir\": \"true\""));
    assert!(copies(&vertex(&result, "ADD --unpack=true https://h/g /c/"))[0].attempt_unpack);
    assert_eq!(result.contexts.main, None);
}

#[test]
fn named_contexts_stand_for_images_and_stages() {
    let context = |name: &str, platform: Option<&str>, source| NamedContext {
        name: name.to_owned(),
        platform: platform.map(|p| p.parse().unwrap()),
        source,
    };
    let directory = || NamedContextSource::Directory("/x".into());
    let layout = NamedContextSource::OciLayout { path: "/l".into(), selector: LayoutSelector::Default };
    let mut options = options();
    options.named_contexts = vec![
        context("assets", Some("linux/arm64"), directory()),
        context("assets", None, directory()),
        context("busybox", None, layout),
        context("replaced", None, NamedContextSource::Image("busybox:2".parse().unwrap())),
    ];
    let text = "FROM busybox AS replaced\nRUN never\nFROM busybox:latest\nCOPY --from=assets /a b/* /x/\n\
                COPY --from=replaced /r /r\n";
    let result = with(text, &options);
    let identifiers = |result| -> Vec<String> {
        let source = |vertex: &slipway_model::llb::Vertex| match &vertex.op.op {
            Some(pb::op::Op::Source(source)) => Some(source.identifier.clone()),
            _ => None,
        };
        graph(result).vertices.iter().filter_map(|vertex| source(vertex)).collect()
    };
    let list = identifiers(&result);
    assert!(list.iter().any(|id| id == "local://context:assets"), "{list:?}");
    assert!(list.iter().any(|id| id.starts_with("oci-layout://busybox@sha256:")), "{list:?}");
    assert!(
        list.iter().any(|id| id.starts_with("docker-image://docker.io/library/busybox:2@sha256:")),
        "{list:?}"
    );
    assert_eq!(result.contexts.main, None);
    let paths = ContextPaths::Some(vec!["a".into(), "b/*".into()]);
    assert_eq!(result.contexts.named.get("assets"), Some(&paths));
    options.platform = Platform::linux("arm64", None);
    let list = identifiers(&with(text, &options));
    assert!(list.iter().any(|id| id == "local://context:assets::linux/arm64"), "{list:?}");
}

#[test]
fn stages_without_cache() {
    let text = "FROM busybox AS a\nRUN x\nFROM busybox AS b\nRUN y\nCOPY --from=a /f /f\n";
    let mut options = options();
    options.no_cache = NoCache::Stages(vec!["A".into()]);
    let result = with(text, &options);
    assert!(vertex(&result, "RUN x").metadata.ignore_cache);
    assert!(!vertex(&result, "RUN y").metadata.ignore_cache);
}

#[test]
fn images_are_known_before_anything_runs() {
    let text = "ARG V=1\nFROM busybox AS unused\nFROM --platform=$BUILDPLATFORM alpine:$V AS b\n\
                RUN --mount=from=tools,target=/t x\nFROM scratch\nCOPY --from=b /a /a\nCOPY --from=alpine:1 /b /b\n";
    let list = bases(&file(text), &platform_options("linux/arm64")).unwrap();
    let list: Vec<String> = list
        .iter()
        .map(|image| {
            let line = image.span.as_ref().and_then(|span| span.ranges[0].start.as_ref()).map(|p| p.line);
            format!("{} {} {line:?}", image.reference.familiar(), image.platform)
        })
        .collect();
    assert_eq!(
        list,
        ["alpine:1 linux/amd64 Some(3)", "tools:latest linux/arm64 Some(4)", "alpine:1 linux/arm64 Some(7)"]
    );
}

#[test]
fn a_script_in_a_heredoc() {
    let result = converted("FROM busybox\nRUN <<-X\n\t#!/bin/x\n\techo\n\tX\n");
    let step = vertex(&result, "RUN <<-X (#!/bin/x...)");
    assert_eq!(exec(&step).meta.clone().unwrap().args, ["/bin/sh", "-c", "/dev/pipes/X"]);
    assert_eq!(exec(&step).mounts[1].dest, "/dev/pipes/");
    let inline = vertex(&result, "preparing inline document");
    let Some(pb::op::Op::File(file)) = &inline.op.op else { panic!("no file operation") };
    let Some(pb::file_action::Action::Mkfile(made)) = &file.actions[0].action else { panic!("no file") };
    assert_eq!((made.data.as_slice(), made.mode), (b"#!/bin/x\necho\n".as_slice(), 0o755));
}

#[test]
fn conversions_can_move_between_threads() {
    fn sendable<T: Send>(_: T) {}
    let (source, options, images) = (file("FROM busybox"), options(), crate::support::Images::busybox());
    sendable(slipway_dockerfile::convert(&source, &options, &images));
    sendable(slipway_dockerfile::check(&source, &options, &images));
}

#[test]
fn steps_are_named_after_their_stage_if_something_else_is_read() {
    let name = |text: &str| {
        let result = converted(&format!("FROM busybox\n{text}\n"));
        let graph = graph(&result);
        graph.vertices.last().unwrap().custom_name().unwrap().split(' ').next().unwrap().to_owned()
    };
    assert_eq!(name("RUN x"), "[2/2]");
    assert_eq!(name("COPY a /a"), "[2/2]");
    assert_eq!(name("RUN --mount=type=cache,target=/c x"), "[stage-0");
    assert_eq!(name("COPY --from=busybox /a /a"), "[stage-0");
    assert_eq!(name("RUN x\nFROM busybox\nRUN y"), "[stage-1");
}
