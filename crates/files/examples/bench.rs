//! Times the scan, the content key and the copy of a generated context.
//!
//! `cargo run --release -p slipway-files --example bench -- DIRECTORY [FILES] [BYTES]` makes FILES files of
//! BYTES bytes below DIRECTORY/context (if they are not there yet), and copies them to DIRECTORY/out-*, which stay.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use slipway_files::patterns::PatternMatcher;
use slipway_files::{
    ContextTree, CopyOptions, DigestCache, Ownership, Root, Selection, Stability, content_digest, copy,
};

#[expect(clippy::print_stdout, reason = "it is a report")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("which directory?")?;
    let directory = Path::new(&directory);
    let files: usize = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let bytes: usize = arguments.next().map_or(Ok(5 * 1024), |text| text.parse())?;
    let context = directory.join("context");
    if !context.exists() {
        generate(&context, files, bytes)?;
    }
    let state = directory.join("state");
    if std::env::var_os("BENCH_KEYS").is_some() {
        // For a profiler: nothing but the case that has to be fast.
        for _ in 0..200 {
            key(&context, &state, &[])?;
        }
        return Ok(());
    }
    let mut spent = processor_time();
    let mut report = |what: &str, times: &mut Vec<Duration>| {
        times.sort();
        let processor =
            (processor_time() - std::mem::replace(&mut spent, processor_time())) / times.len() as u64;
        println!(
            "{what:40} min {:8.2?}  median {:8.2?}  processor {processor} ms",
            times[0],
            times[times.len() / 2]
        );
    };

    let mut cold = Vec::new();
    for _ in 0..3 {
        fs::remove_dir_all(&state).or_else(absent)?;
        let start = Instant::now();
        key(&context, &state, &[])?;
        cold.push(start.elapsed());
    }
    report("scan, hash everything, key", &mut cold);
    for (what, excludes) in [
        ("scan, key, nothing changed", &[][..]),
        ("the same with an ignore file", &["**/*.log", "node_modules", "*.md", "!README.md", ".git"][..]),
    ] {
        let mut warm = Vec::new();
        for _ in 0..15 {
            let start = Instant::now();
            key(&context, &state, excludes)?;
            warm.push(start.elapsed());
        }
        report(what, &mut warm);
    }
    for (what, verified) in [("copy", false), ("copy, checked against the digests", true)] {
        let mut copies = Vec::new();
        for number in 0..3 {
            // Never in place of files just removed: ext4 keeps their inodes back for minutes, and looks for
            // others one by one.
            let out = directory.join(format!("out-{}-{verified}-{number}", std::process::id()));
            fs::create_dir(&out)?;
            let tree = ContextTree::new(Root::open(&context)?, PatternMatcher::default())?;
            let digests = DigestCache::load(&state, "bench", Stability::Live);
            let options = CopyOptions {
                dir_copy_contents: true,
                create_dest_path: true,
                ownership: Ownership::Source,
                ..CopyOptions::default()
            };
            let start = Instant::now();
            copy(&tree, "/", &Root::open(&out)?, "/app", &options, verified.then_some(&digests))?;
            copies.push(start.elapsed());
        }
        report(what, &mut copies);
    }
    Ok(())
}

/// Tells how many milliseconds of processor time this process took; other load does not disturb it.
fn processor_time() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |at: usize| stat.split(' ').nth(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    (ticks(13) + ticks(14)) * 10
}

fn key(context: &Path, state: &Path, excludes: &[&str]) -> Result<(), Box<dyn Error>> {
    let tree = ContextTree::new(Root::open(context)?, PatternMatcher::new(excludes)?)?;
    let digests = DigestCache::load(state, "bench", Stability::Live);
    let selection = Selection { path: "/".into(), ..Selection::default() };
    content_digest(&tree, &[selection], &digests)?;
    digests.save()?;
    Ok(())
}

fn generate(context: &Path, files: usize, bytes: usize) -> std::io::Result<()> {
    for number in 0..files {
        let directory = context.join(format!("d{:02}/s{:02}", number / 1000, number / 100 % 10));
        if number % 100 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let content: Vec<u8> = (0..bytes).map(|at| (number * 31 + at * 7) as u8).collect();
        fs::write(directory.join(format!("file-{number:05}.txt")), content)?;
    }
    Ok(())
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
