//! Steps: their process, their mounts, their limits.
//!
//! Most scripts fail where the capability is missing, so that a step that ends well is the proof.

use std::path::Path;
use std::sync::Arc;

use slipway_model::llb::pb;
use slipway_testkit::{Reply, is_root, need};

use super::graph::{Graph, mount};
use super::lab::{Lab, Work};
use super::{Row, row, unique};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = everywhere();
    // Where there is one tree of control groups.
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        rows.push(row("exec.cgroup", cgroups));
    }
    rows
}

fn everywhere() -> Vec<Row> {
    vec![
        passes(
            "exec.meta.base",
            "test $VALUE = given; test $PWD = /bin; test $(id -u):$(id -g) = 7:8",
            |exec| {
                let meta = exec.meta.get_or_insert_default();
                (meta.env, meta.cwd, meta.user) =
                    (vec!["VALUE=given".to_owned()], "/bin".to_owned(), "7:8".to_owned());
            },
        ),
        passes("exec.meta.cdi", "test $THING = one", |exec| {
            exec.cdi_devices =
                vec![pb::CdiDevice { name: "test.invalid/thing=one".to_owned(), optional: false }];
        }),
        row("exec.meta.cgroup.parent", cgroup_parent),
        row("exec.meta.linux.resources", resources),
        row("exec.meta.network", network),
        row("exec.meta.network.proxy", proxy),
        passes("exec.meta.proxyenv", "test $HTTP_PROXY$no_proxy = http://p.invalidnone", |exec| {
            let proxy = pb::ProxyEnv {
                http_proxy: "http://p.invalid".to_owned(),
                no_proxy: "none".to_owned(),
                ..pb::ProxyEnv::default()
            };
            exec.meta.get_or_insert_default().proxy_env = Some(proxy);
        }),
        row("exec.meta.security", security),
        passes(
            "exec.meta.setsdefaultpath",
            "test $PATH = /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            |_| {},
        ),
        passes("exec.meta.ulimit", "test $(ulimit -Sn) = 123; test $(ulimit -Hn) = 456", |exec| {
            let limit = pb::Ulimit { name: "nofile".to_owned(), soft: 123, hard: 456 };
            exec.meta.get_or_insert_default().ulimit = vec![limit];
        }),
        row("exec.meta.removemountstubs.recursive", stubs),
        row("exec.mount.bind", bind),
        row("exec.mount.bind.readwrite-nooutput", scratch_bind),
        row("exec.mount.cache", cache),
        row("exec.mount.cache.content", content_cache),
        row("exec.mount.cache.sharing", sharing),
        row("exec.mount.selector", selector),
        passes("exec.mount.tmpfs", "grep -q ' /t tmpfs' /proc/mounts; echo x > /t/x", |exec| {
            exec.mounts.push(pb::Mount { mount_type: pb::MountType::Tmpfs as i32, ..mount(-1, "/t", -1) });
        }),
        passes("exec.mount.tmpfs.size", "grep ' /t tmpfs' /proc/mounts | grep -q size=128k", |exec| {
            exec.mounts.push(pb::Mount {
                mount_type: pb::MountType::Tmpfs as i32,
                tmpfs_opt: Some(pb::TmpfsOpt { size: 128 << 10 }),
                ..mount(-1, "/t", -1)
            });
        }),
        passes(
            "exec.mount.secret",
            "test \"$(cat /run/it)\" = hidden; test \"$(stat -c %a:%u /run/it)\" = 440:7",
            |exec| {
                let options =
                    pb::SecretOpt { id: "s".to_owned(), uid: 7, gid: 0, mode: 0o440, optional: false };
                exec.mounts.push(pb::Mount {
                    mount_type: pb::MountType::Secret as i32,
                    secret_opt: Some(options),
                    ..mount(-1, "/run/it", -1)
                });
            },
        ),
        passes("exec.mount.ssh", "test -S /run/agent", |exec| {
            exec.mounts.push(pb::Mount {
                mount_type: pb::MountType::Ssh as i32,
                ssh_opt: Some(pb::SshOpt { mode: 0o600, ..pb::SshOpt::default() }),
                ..mount(-1, "/run/agent", -1)
            });
        }),
        passes("exec.secretenv", "test $NAMED = hidden", |exec| {
            let secret = pb::SecretEnv { id: "s".to_owned(), name: "NAMED".to_owned(), optional: false };
            exec.secretenv = vec![secret];
        }),
        row("exec.validexitcode", exit_codes),
    ]
}

/// A row for a step that ends well only with the capability.
fn passes(capability: &'static str, script: &'static str, change: fn(&mut pb::ExecOp)) -> Row {
    row(capability, move |lab| async move { run(&lab, script, change).await.unwrap() })
}

/// Runs a step.
async fn run(lab: &Lab, script: &str, change: impl FnOnce(&mut pb::ExecOp)) -> Result<(), String> {
    let mut graph = Graph::default();
    let edge = graph.step(script, change);
    solve(lab, &graph, edge).await.map(drop)
}

async fn solve(lab: &Lab, graph: &Graph, edge: slipway_model::llb::Edge) -> Result<String, String> {
    let definition = graph.definition(edge);
    let solve = async |work: &Work| work.solve(&definition).await.map_err(|s| s.message().to_owned());
    lab.setup().work(solve).await
}

/// Tells whether control groups can be made here.
fn can_limit() -> bool {
    need(is_root(), "root, to make control groups")
}

async fn cgroup_parent(lab: Arc<Lab>) {
    if !can_limit() {
        return;
    }
    let parent = unique("slipway-proof");
    let wanted = parent.clone();
    let change = move |exec: &mut pb::ExecOp| exec.meta.get_or_insert_default().cgroup_parent = wanted;
    run(&lab, &format!("grep -q {parent} /proc/self/cgroup"), change).await.unwrap();
}

async fn resources(lab: Arc<Lab>) {
    if !can_limit() {
        return;
    }
    let mut graph = Graph::default();
    let script = "x=0123456789abcdef; while test ${#x} -lt 30000000; do x=$x$x; done";
    let edge = graph.step(script, |_| {});
    let linux_resources = Some(pb::LinuxResources { memory: 16 << 20, ..pb::LinuxResources::default() });
    let metadata = pb::OpMetadata { linux_resources, ..pb::OpMetadata::default() };
    // The generated message of a frontend's request does not know limits; a client's own request does.
    let build = async |graph: &Graph| lab.setup().build(graph, edge).await;
    graph.metadata.insert(edge.vertex.to_string(), metadata);
    let error = build(&graph).await.unwrap_err();
    assert!(error.contains("memory limit was reached"), "{error}");
    graph.metadata.clear();
    build(&graph).await.unwrap();
}

async fn cgroups(lab: Arc<Lab>) {
    run(&lab, "grep -q ' /sys/fs/cgroup cgroup2' /proc/mounts", |_| {}).await.unwrap();
}

async fn network(lab: Arc<Lab>) {
    let with = |mode: pb::NetMode| move |exec: &mut pb::ExecOp| exec.network = mode as i32;
    let alone = "test $(grep -c : /proc/net/dev) = 1";
    run(&lab, alone, with(pb::NetMode::None)).await.unwrap();
    // Whoever has the host's network sees what listens there.
    let port = lab.server.address("").trim_end_matches('/').rsplit(':').next().unwrap().to_owned();
    let listens =
        format!("grep -qi '0100007F:{:04X} 00000000:0000 0A' /proc/net/tcp", port.parse::<u16>().unwrap());
    run(&lab, &listens, with(pb::NetMode::Host)).await.unwrap();
    assert!(run(&lab, &listens, with(pb::NetMode::None)).await.is_err());
}

async fn proxy(lab: Arc<Lab>) {
    let address = lab.serve("web/proxied", Reply::body("text/plain", b"by the proxy"));
    let script = format!(
        "wget -q -Y on -O /got {address}; unset HTTP_PROXY http_proxy; ! wget -q -T 3 -O /other {address}"
    );
    let mut graph = Graph::default();
    let edge = graph.step(&script, |_| {});
    let mut setup = lab.setup();
    setup.spec.proxy_network = true;
    assert_eq!(setup.read(&graph, edge, "/got").await.as_deref(), Ok("by the proxy"));
}

async fn security(lab: Arc<Lab>) {
    let script = "test $(grep ^Seccomp: /proc/self/status | grep -c 0) = 1";
    let insecure = |exec: &mut pb::ExecOp| exec.security = pb::SecurityMode::Insecure as i32;
    run(&lab, script, insecure).await.unwrap();
    assert!(run(&lab, script, |_| {}).await.is_err());
}

async fn stubs(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let edge = graph.step("test -d /deep/down/here", |exec| {
        exec.meta.get_or_insert_default().remove_mount_stubs_recursive = true;
        exec.mounts
            .push(pb::Mount { mount_type: pb::MountType::Tmpfs as i32, ..mount(-1, "/deep/down/here", -1) });
    });
    let definition = graph.definition(edge);
    let left = async |work: &Work| {
        let id = work.solve(&definition).await.unwrap();
        work.stat(&id, "/deep").await.is_ok()
    };
    assert!(!lab.setup().work(left).await);
}

async fn bind(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let given = graph.file(None, "/given", "of another");
    let script = "test \"$(cat /in/given)\" = 'of another'; ! echo x > /in/x; echo made > /out/made";
    let step = graph.step_with(&[given], script, |exec| {
        exec.mounts.push(pb::Mount { readonly: true, ..mount(1, "/in", -1) });
        exec.mounts.push(mount(-1, "/out", 1));
    });
    let out = slipway_model::llb::Edge { index: 1, ..step };
    lab.gives(&graph, out, "/made", "made").await;
}

async fn scratch_bind(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let given = graph.file(None, "/given", "as it was");
    let step = graph.step_with(&[given], "echo changed > /in/given; cat /in/given > /seen", |exec| {
        exec.mounts.push(mount(1, "/in", -1));
    });
    lab.gives(&graph, step, "/seen", "changed").await;
    lab.gives(&graph, given, "/given", "as it was").await;
}

/// A cache mount at `/cache`.
fn cache_mount(id: &str, sharing: pb::CacheSharing) -> pb::Mount {
    pb::Mount {
        mount_type: pb::MountType::Cache as i32,
        cache_opt: Some(pb::CacheOpt { id: id.to_owned(), sharing: sharing as i32 }),
        ..mount(-1, "/cache", -1)
    }
}

async fn cache(lab: Arc<Lab>) {
    let id = unique("cache");
    let with = |id: &str| {
        let mount = cache_mount(id, pb::CacheSharing::Shared);
        move |exec: &mut pb::ExecOp| exec.mounts.push(mount)
    };
    run(&lab, "echo kept > /cache/it", with(&id)).await.unwrap();
    run(&lab, "test $(cat /cache/it) = kept", with(&id)).await.unwrap();
    run(&lab, "! test -e /cache/it", with(&unique("cache"))).await.unwrap();
}

/// Whether a step is taken from the cache that reads the same by another way: its mount decides how it is keyed.
async fn content_cache(lab: Arc<Lab>) {
    let salt = unique("salt");
    let made = async |how: pb::MountContentCache, from: &str| {
        let mut graph = Graph::default();
        let earlier = graph.file(None, "/other", from);
        let directory = graph.directory(Some(earlier), "/in");
        let given = graph.file(Some(directory), "/in/given", "the same");
        let script = format!("cat /proc/sys/kernel/random/uuid > /made # {salt} {how:?}");
        let step = graph.step_with(&[given], &script, |exec| {
            let content_cache = how as i32;
            let read = pb::Mount {
                readonly: true,
                selector: "/in".to_owned(),
                content_cache,
                ..mount(1, "/in", -1)
            };
            exec.mounts.push(read);
        });
        lab.read(&graph, step, "/made").await.unwrap()
    };
    let (on, off) = (pb::MountContentCache::On, pb::MountContentCache::Off);
    assert_eq!(made(on, "one").await, made(on, "two").await, "what is read is the same");
    assert_ne!(made(off, "one").await, made(off, "two").await, "how it came about is not");
}

async fn sharing(lab: Arc<Lab>) {
    // Two steps with the same mount; they meet in another one, and so are there at the same time.
    let pair = async |sharing: pb::CacheSharing, script: &str| {
        let (id, meeting) = (unique("cache"), unique("meeting"));
        let one = |name: &str| {
            let mounts = [
                cache_mount(&id, sharing),
                pb::Mount { dest: "/meet".to_owned(), ..cache_mount(&meeting, pb::CacheSharing::Shared) },
            ];
            let meet = "meet() { echo > /meet/$1$me; \
                        until test -e /meet/$1one && test -e /meet/$1two; do sleep 0.01; done; }";
            let script = format!("me={name}; {meet}; {script}");
            let lab = lab.clone();
            async move { run(&lab, &script, |exec| exec.mounts.extend(mounts)).await }
        };
        let (one, two) = tokio::join!(one("one"), one("two"));
        one.unwrap();
        two.unwrap();
    };
    pair(pb::CacheSharing::Locked, "mkdir /cache/lock; sleep 0.1; rmdir /cache/lock").await;
    pair(
        pb::CacheSharing::Shared,
        "meet a; echo > /cache/$me; meet b; test -e /cache/one; test -e /cache/two",
    )
    .await;
    let alone = "meet a; echo > /cache/$me; meet b; test $(ls /cache) = $me";
    pair(pb::CacheSharing::Private, alone).await;
}

async fn selector(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let given = graph.file(None, "/beside", "x");
    let given = graph.directory(Some(given), "/dir");
    let given = graph.file(Some(given), "/dir/file", "selected");
    let script = "test $(ls /in) = file; cat /in/file > /seen";
    let step = graph.step_with(&[given], script, |exec| {
        exec.mounts.push(pb::Mount { readonly: true, selector: "/dir".to_owned(), ..mount(1, "/in", -1) });
    });
    lab.gives(&graph, step, "/seen", "selected").await;
}

async fn exit_codes(lab: Arc<Lab>) {
    let valid = |exec: &mut pb::ExecOp| exec.meta.get_or_insert_default().valid_exit_codes = vec![3, 5];
    run(&lab, "exit 5", valid).await.unwrap();
    assert!(run(&lab, "exit 0", valid).await.is_err());
}
