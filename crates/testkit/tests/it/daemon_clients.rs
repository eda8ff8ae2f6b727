//! Many clients of one daemon: they go away at any moment, by any line, and nothing of them is left.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use slipway_testkit::{
    CutLine, Daemon, Environment, Held, Outcome, Random, base_context, kill_after, mount_table,
};

/// What a daemon's memory may grow by from one time to the next, in KiB: allocators do not give all back.
const MEMORY: u64 = 24 << 10;

/// A context with the base's programs and a file to send.
fn context(environment: &Environment) -> Option<String> {
    let base = base_context()?;
    std::fs::create_dir(environment.path("context")).unwrap();
    std::fs::copy(base.join("amd64/busybox"), environment.path("context/busybox")).unwrap();
    environment.write("context/data", Random::new(7).bytes(200_000));
    Some(environment.context(
        "context",
        "FROM scratch\nARG CHAIN\nCOPY busybox /bin/\nCOPY data /data\n\
         RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo $CHAIN >/chain; /bin/busybox usleep 100000\"]\n\
         RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox md5sum /data /chain >/sums\"]\n",
    ))
}

fn create(environment: &Environment, name: &str, address: &str) {
    environment.run(["create", "--name", name, "--driver", "remote", address]).succeeded();
}

fn build(environment: &Environment, builder: &str, context: &str, chain: &str, more: &[&str]) -> Command {
    let chain = format!("CHAIN={chain}");
    let common =
        ["build", "--progress=plain", "--provenance=false", "--builder", builder, "--build-arg", &chain];
    environment.slipway(common.iter().chain(more).chain(&[context]))
}

/// Insists that a daemon holds what it held before, and its state what its cache needs.
#[track_caller]
fn holds_no_more(environment: &Environment, daemon: &Daemon, builder: &str, before: &Held) {
    let idle = || {
        let used = environment.run(["du", "--builder", builder, "--filter", "inuse"]).succeeded().stdout;
        !used.contains("true")
    };
    let after = daemon.settled(before, idle);
    assert!(after.is_within(before), "before: {before:#?}\nafter: {after:#?}");
    assert!(idle(), "something is in use");
    assert_eq!(mount_table(&environment.path("")), [""; 0]);
    let ingest = std::fs::read_dir(environment.path("daemon-state/ingest")).unwrap();
    assert_eq!(ingest.map(|file| file.unwrap().file_name()).collect::<Vec<_>>(), [""; 0]);
}

/// Builds three times in each of ten threads; one of three builds is killed.
fn thirty(environment: &Environment, context: &str, salt: &str, whole: Duration) {
    std::thread::scope(|scope| {
        for client in 0..10u32 {
            scope.spawn(move || {
                let mut random = Random::new(u64::from(client) + 1);
                for _ in 0..3 {
                    // Some chains are the same for several clients, and are built once for all of them.
                    let chain = format!("{salt}-{}", random.below(4));
                    let command = build(environment, "remote", context, &chain, &["--output=type=cacheonly"]);
                    if random.below(3) == 0 {
                        kill_after(command, whole.mul_f64(random.fraction()));
                    } else {
                        Outcome::of(command).succeeded();
                    }
                }
            });
        }
    });
}

#[test]
fn thirty_builds_of_ten_clients_leave_nothing() {
    let environment = Environment::new();
    let Some(context) = context(&environment) else { return };
    let daemon = Daemon::start(&environment, "daemon");
    create(&environment, "remote", daemon.address());
    let start = Instant::now();
    Outcome::of(build(&environment, "remote", &context, "alone", &["--output=type=cacheonly"])).succeeded();
    let whole = start.elapsed();
    // What is opened once, as connections to the database, is open before anything is counted.
    thirty(&environment, &context, "first", whole);
    let before = daemon.settled(&daemon.held(), || true);
    for salt in ["second", "third"] {
        thirty(&environment, &context, salt, whole);
        holds_no_more(&environment, &daemon, "remote", &before);
    }
    let after = daemon.held().memory;
    assert!(after <= before.memory + MEMORY, "{} KiB were used, now {after} are", before.memory);
}

#[test]
fn a_line_that_is_cut_anywhere_costs_that_build_only() {
    let environment = Environment::new();
    let Some(context) = context(&environment) else { return };
    let daemon = Daemon::start(&environment, "daemon");
    let line = CutLine::to(&environment.path("daemon.sock"));
    create(&environment, "cut", line.address());
    create(&environment, "direct", daemon.address());
    let archive = environment.path("out.tar");
    let output = format!("type=tar,dest={}", archive.display());
    let attempt = |builder: &str, chain: &str| {
        Outcome::of(build(&environment, builder, &context, chain, &["--output", &output]))
    };
    let listed = || Command::new("tar").arg("tf").arg(&archive).output().unwrap();
    attempt("cut", "whole").succeeded();
    let whole = line.let_pass(None);
    let size = archive.metadata().unwrap().len();
    assert!(whole > size, "the output does not pass the line");
    let before = daemon.settled(&daemon.held(), || true);
    let (mut random, mut cut) = (Random::new(3), 0);
    for round in 0..24u32 {
        // One place in each part of a build that finds its context there, and its steps not.
        let place = (f64::from(round) + random.fraction()) / 24.0 * whole as f64;
        line.let_pass(Some(place as u64));
        std::fs::remove_file(&archive).ok();
        let outcome = attempt("cut", &format!("round {round}"));
        line.let_pass(None);
        if outcome.status.success() {
            assert_eq!(archive.metadata().unwrap().len(), size, "round {round}");
        } else {
            outcome.failed(1);
            assert!(!archive.exists(), "round {round}: half an output is left");
            cut += 1;
        }
    }
    assert!(cut >= 12, "only {cut} of 24 builds were cut");
    holds_no_more(&environment, &daemon, "direct", &before);
    attempt("direct", "afterwards").succeeded();
    assert!(listed().status.success());
}

/// Keys and certificates, made by the openssl program.
struct Certificates(PathBuf);

impl Certificates {
    fn new(environment: &Environment) -> Self {
        let made = Self(environment.path("certificates"));
        std::fs::create_dir(&made.0).unwrap();
        made.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem");
        for (name, more) in
            [("daemon", "subjectAltName=DNS:builder.example"), ("client", "extendedKeyUsage=clientAuth")]
        {
            made.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} -addext {more} \
                 -addext basicConstraints=CA:FALSE -CA ca.pem -CAkey ca.key -keyout {name}.key -out {name}.pem"
            ));
        }
        made
    }

    fn openssl(&self, line: &str) {
        let made =
            Command::new("openssl").args(line.split_whitespace()).current_dir(&self.0).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

#[test]
fn a_daemon_on_the_network_lets_in_who_proves_who_it_is() {
    let environment = Environment::new();
    let Some(context) = context(&environment) else { return };
    let certificates = Certificates::new(&environment);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = format!("tcp://{free}");
    let path = |name: &str| certificates.path(name);
    let (ca, own, key) = (path("ca.pem"), path("daemon.pem"), path("daemon.key"));
    let tls = ["--tlscacert", &ca, "--tlscert", &own, "--tlskey", &key];
    let command = environment.slipway::<&str>([]);
    let _daemon = Daemon::serve(command, &environment, "daemon", &address, &tls);
    let known = format!("cacert={ca},servername=builder.example");
    let proven = format!("{known},cert={},key={}", path("client.pem"), path("client.key"));
    for (name, options) in [("proven", proven.as_str()), ("unproven", known.as_str())] {
        let create = ["create", "--name", name, "--driver", "remote", "--driver-opt", options, &address];
        environment.run(create).succeeded();
    }
    let attempt = |builder: &str| {
        Outcome::of(build(&environment, builder, &context, "tls", &["--output=type=cacheonly"]))
    };
    attempt("proven").succeeded();
    let error = attempt("unproven").failed(1);
    assert!(error.contains("connection to the daemon was lost"), "{error}");
    assert!(error.contains("--driver-opt cert=FILE"), "{error}");
}
