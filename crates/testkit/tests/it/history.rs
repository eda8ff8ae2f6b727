//! What was built is remembered, with all that it said.

use serde_json::Value;
use slipway_testkit::{Environment, registry};

/// Reads the records, the newest first.
fn records(environment: &Environment, more: &[&str]) -> Vec<Value> {
    let arguments = ["history", "ls", "--format", "json"].iter().chain(more);
    let listed = environment.run(arguments).succeeded();
    listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn builds_are_listed_and_their_logs_are_whole() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let base = registry.reference("library/busybox");
    let lines = 5000;
    let dockerfile = format!("FROM {base}\nARG VERSION\nRUN seq 1 {lines}\n");
    let context = environment.context("app", &dockerfile);
    environment.build(&["--build-arg", "VERSION=7", &context]).succeeded();
    environment.build(&["--build-arg", "VERSION=7", &context]).succeeded();
    let broken = environment.context("broken", &format!("FROM {base}\nRUN echo before && exit 3\n"));
    assert_eq!(environment.build(&[&broken]).status.code(), Some(1));
    // Looking is not building.
    environment.build(&["--call=outline", &context]).succeeded();

    let all = records(&environment, &[]);
    let column = |name: &str| all.iter().map(|record| record[name].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(column("name"), ["broken", "app", "app"]);
    assert_eq!(column("status"), ["Error", "Completed", "Completed"]);
    assert!(all[1]["cached_steps"].as_u64() > all[2]["cached_steps"].as_u64(), "{all:?}");
    assert_eq!(records(&environment, &["--filter", "status=error"]).len(), 1);

    let first = all[2]["ref"].as_str().unwrap();
    let logs = environment.run(["history", "logs", first]).succeeded().stdout;
    let numbers = logs.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
    let numbers: Vec<u32> = numbers.collect();
    assert!((1..=lines).all(|number| numbers.contains(&number)), "lines are missing");
    let inspected = environment.run(["history", "inspect", "--format", "json", first]).succeeded().stdout;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["BuildArgs"][0]["Value"], "7");
    assert_eq!(inspected["Context"], context);
    let failed = environment.run(["history", "inspect"]).succeeded().stdout;
    assert!(failed.contains("Error:") && failed.contains("exit code: 3"), "{failed}");
    assert!(environment.run(["history", "logs"]).succeeded().stdout.contains("before"));

    environment.run(["history", "rm", first]).succeeded();
    assert_eq!(records(&environment, &[]).len(), 2);
    let gone = environment.run(["history", "logs", first]);
    assert!(gone.status.code() == Some(1) && gone.stderr.contains("no record found"), "{}", gone.stderr);
    environment.run(["history", "rm", "--all"]).succeeded();
    assert_eq!(records(&environment, &[]).len(), 0);
}

#[test]
fn a_killed_build_leaves_its_record() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let dockerfile = format!(
        "FROM {}\nRUN echo first\nRUN echo second && sleep 600\n",
        registry.reference("library/busybox")
    );
    let context = environment.context("app", &dockerfile);
    let mut command = environment.slipway(["build", "--progress=plain", "--provenance=false", &context]);
    command.stderr(std::process::Stdio::piped());
    let mut running = command.spawn().unwrap();
    let stderr = std::io::BufReader::new(running.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(stderr).map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with(" second")), "the second step does not start");
    assert_eq!(records(&environment, &[])[0]["status"], "Running");
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(records(&environment, &[])[0]["status"], "Error");
    let logs = environment.run(["history", "logs"]).succeeded();
    assert!(logs.stdout.contains("first"), "{}", logs.stdout);
}
