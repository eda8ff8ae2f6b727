//! Many builds at once, of which some are cancelled or dropped: nothing is left behind.

use std::sync::Arc;

use slipway_model::llb::GraphBuilder;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Fixture};
use crate::definitions::mkfile;

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Lists the open files without the database's: its connections are kept, as many as were in use at once, up to
/// a limit.
fn open_files() -> Vec<String> {
    let targets = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| {
        // The list is itself a file, which is closed by now.
        let target = std::fs::read_link(entry.unwrap().path());
        target.map(|path| path.display().to_string()).unwrap_or_default()
    });
    targets.filter(|target| !target.contains("/metadata.db")).collect()
}

fn temporary_files(fixture: &Fixture) -> Vec<String> {
    let ingest = fixture.engine.root().join("ingest");
    let entries = std::fs::read_dir(ingest).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn thirty_solves_of_ten_threads_with_cancels() {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    // What is opened once is open before anything is counted.
    solve_thirty(&fixture, &runtime, "first");
    let mut before = open_files();
    solve_thirty(&fixture, &runtime, "second");
    drop(runtime);
    assert_eq!(temporary_files(&fixture), [""; 0]);
    let mut left = open_files();
    left.retain(|file| match before.iter().position(|known| known == file) {
        Some(at) => before.swap_remove(at) != *file,
        None => true,
    });
    assert_eq!(left, [""; 0]);
}

/// Solves from ten threads, three times each.
fn solve_thirty(fixture: &Fixture, runtime: &tokio::runtime::Runtime, salt: &str) {
    std::thread::scope(|scope| {
        for thread in 0..10u64 {
            let runtime = runtime.handle().clone();
            scope.spawn(move || {
                let mut random = Random(thread);
                for round in 0..3 {
                    let chain = random.below(4);
                    let polls = match random.below(3) {
                        0 => None,
                        _ => Some(random.below(40)),
                    };
                    let outcome = runtime.block_on(solve(
                        fixture,
                        &format!("{thread}-{round}"),
                        &format!("{salt} {chain}"),
                        polls,
                    ));
                    // A build that nobody stopped succeeds, whatever happens to others that do the same.
                    assert!(polls.is_some() || outcome.is_ok(), "{outcome:?}");
                }
            });
        }
    });
}

/// Builds a chain of files that other builds share; after `polls` polls it is cancelled or dropped.
async fn solve(fixture: &Fixture, id: &str, chain: &str, polls: Option<u64>) -> Result<(), String> {
    let cancel = CancellationToken::new();
    let build = fixture.start_until(id, &Arc::new(Client::default()), &cancel);
    let mut graph = GraphBuilder::new();
    let mut edge = None;
    for step in 0..8 {
        edge = Some(mkfile(&mut graph, edge, &format!("/{step}"), &format!("{chain} {step}")));
    }
    let mut work = Box::pin(build.solve(graph.finish(edge), true));
    let mut left = polls;
    let outcome = std::future::poll_fn(|context| {
        if left == Some(0) {
            cancel.cancel();
        }
        left = left.map(|left| left.saturating_sub(1));
        // With an odd number the future is dropped where it stands, without a word.
        if left == Some(0) && polls.is_some_and(|polls| polls % 2 == 1) {
            return std::task::Poll::Ready(None);
        }
        work.as_mut().poll(context).map(Some)
    })
    .await;
    drop(work);
    match outcome {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("dropped".to_owned()),
    }
}
