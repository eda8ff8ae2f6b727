use std::time::UNIX_EPOCH;

use slipway_model::Digest;
use slipway_model::progress::{Log, Status, Stream, Vertex};

use super::*;

pub(in crate::ui) fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000) + Duration::from_millis(millis)
}

pub(in crate::ui) fn vertex(name: &str, started: Option<u64>, completed: Option<u64>) -> Event {
    Event::Vertex(Vertex {
        digest: Digest::of(name),
        name: name.to_owned(),
        inputs: Vec::new(),
        started: started.map(at),
        completed: completed.map(at),
        cached: false,
        error: None,
        progress_group: None,
    })
}

pub(in crate::ui) fn with(event: Event, change: impl FnOnce(&mut Vertex)) -> Event {
    let Event::Vertex(mut vertex) = event else { panic!("no vertex") };
    change(&mut vertex);
    Event::Vertex(vertex)
}

pub(in crate::ui) fn log(name: &str, text: &str, time: u64) -> Event {
    Event::Log(Log {
        vertex: Digest::of(name),
        stream: Stream::Stdout,
        data: text.as_bytes().into(),
        timestamp: at(time),
    })
}

pub(in crate::ui) fn status(name: &str, id: &str, current: u64, total: u64, now: u64, done: bool) -> Event {
    Event::Status(Status {
        vertex: Digest::of(name),
        id: id.to_owned(),
        current,
        total,
        timestamp: at(now),
        started: Some(at(0)),
        completed: done.then(|| at(now)),
    })
}

fn show(batches: Vec<(u64, Vec<Event>)>) -> String {
    let mut out = Vec::new();
    let mut plain = Plain::new(&mut out, Keep::Text);
    let mut last = 0;
    for (now, events) in batches {
        plain.update(events, at(now)).unwrap();
        last = now;
    }
    plain.finish(at(last)).unwrap();
    drop(plain);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_small_build_reads_like_buildkits() {
    let (load, run, copy) =
        ("[internal] load build definition", "[linux/arm64 2/3] RUN make", "[3/3] COPY a b");
    assert_eq!(
        show(vec![
            (0, vec![vertex(run, None, None), vertex(load, Some(0), None)]),
            (
                40,
                vec![
                    status(load, "transferring dockerfile:", 1500, 0, 40, true),
                    vertex(load, Some(0), Some(50))
                ]
            ),
            (60, vec![vertex(run, Some(60), None), log(run, "cc a.c\ncc b", 183)]),
            (90, vec![log(run, ".c\n", 200), vertex(run, Some(60), Some(460))]),
            (95, vec![with(vertex(copy, Some(460), Some(460)), |v| v.cached = true)]),
        ]),
        "\
#1 [internal] load build definition
#1 transferring dockerfile: 1.50kB 0.0s done
#1 DONE 0.1s

#2 [linux/arm64 2/3] RUN make
#2 0.123 cc a.c
#2 0.140 cc b.c
#2 DONE 0.4s

#3 [3/3] COPY a b
#3 CACHED
"
    );
}

#[test]
fn failures_and_cancellations_are_told() {
    let failed = with(vertex("RUN false", Some(0), Some(100)), |v| {
        v.error = Some("process \"/bin/sh -c false\" did not complete successfully: exit code: 1".into());
    });
    let canceled =
        with(vertex("RUN sleep", Some(0), Some(110)), |v| v.error = Some("context canceled".into()));
    assert_eq!(
        show(vec![
            (0, vec![vertex("RUN sleep", Some(0), None), vertex("RUN false", Some(0), None)]),
            (100, vec![log("RUN false", "no newline", 90), failed]),
            (110, vec![canceled]),
        ]),
        "\
#1 RUN sleep
#1 ...

#2 RUN false
#2 0.100 no newline
#2 ERROR: process \"/bin/sh -c false\" did not complete successfully: exit code: 1

#1 RUN sleep
#1 CANCELED
"
    );
}

#[test]
fn what_runs_at_the_end_is_canceled() {
    let text = show(vec![
        (0, vec![vertex("a", Some(0), None), vertex("b", Some(0), None), log("b", "half", 0)]),
        (50, vec![log("a", "x\n", 50)]),
    ]);
    assert_eq!(
        text,
        "#1 a\n#1 0.050 x\n#1 ...\n\n#2 b\n#2 ...\n\n#1 a\n#1 CANCELED\n\n#2 b\n#2 0.050 half\n#2 CANCELED\n"
    );
}

#[test]
fn one_vertex_has_the_floor_and_others_wait() {
    let batches = |pause: u64| {
        vec![
            (0, vec![vertex("a", Some(0), None), log("a", "a1\n", 0)]),
            (100, vec![vertex("b", Some(100), None), log("b", "b1\n", 100)]),
            (200, vec![log("a", "a2\n", 200)]),
            (200 + pause, vec![log("b", "b2\n", 200 + pause)]),
            (300 + pause, vec![vertex("a", Some(0), Some(300)), vertex("b", Some(100), Some(300))]),
        ]
    };
    assert_eq!(
        show(batches(100)),
        "#1 a\n#1 0.000 a1\n#1 0.200 a2\n#1 DONE 0.3s\n\n#2 b\n#2 0.000 b1\n#2 0.200 b2\n#2 DONE 0.2s\n"
    );
    // After five seconds of silence the floor goes to who has something to say.
    assert_eq!(
        show(batches(5000)),
        "#1 a\n#1 0.000 a1\n#1 0.200 a2\n#1 ...\n\n#2 b\n#2 0.000 b1\n#2 5.100 b2\n#2 DONE 0.2s\n\n#1 a\n#1 DONE 0.3s\n"
    );
}

#[test]
fn much_output_does_not_wait() {
    let line = format!("{}\n", "x".repeat(1000));
    let text = show(vec![
        (0, vec![vertex("a", Some(0), None)]),
        (1, vec![vertex("b", Some(0), None), log("b", &line.repeat(300), 1)]),
    ]);
    assert!(text.starts_with("#1 a\n#1 ...\n\n#2 b\n#2 0.001 xxx"), "{}", &text[..60]);
    assert_eq!(text.lines().filter(|line| line.contains("xxx")).count(), 300);
}

#[test]
fn counters_are_not_repeated_too_often() {
    let mut batches = vec![(0, vec![vertex("pull", Some(0), None)])];
    for step in 0..=100 {
        batches.push((step, vec![status("pull", "sha256:abc", step * 10_000, 1_000_000, step, step == 100)]));
    }
    batches.push((200, vec![vertex("pull", Some(0), Some(200))]));
    let text = show(batches);
    assert_eq!(text.lines().count(), 1 + 21 + 1, "{text}");
    assert!(text.contains("#1 sha256:abc 1.00MB / 1.00MB 0.1s done\n#1 DONE 0.2s\n"), "{text}");
}

#[test]
fn hostile_output_stays_in_its_line() {
    let text = show(vec![
        (0, vec![vertex("a\x1b[2Jb", Some(0), None), log("a\x1b[2Jb", "\x1b[31mx\x1b[3A\r\ny\x07\n", 0)]),
        (1, vec![vertex("a\x1b[2Jb", Some(0), Some(1))]),
    ]);
    assert_eq!(text, "#1 ab\n#1 0.000 x\n#1 0.000 y\n#1 DONE 0.0s\n");
}

#[test]
fn a_group_is_one_line() {
    let member = |name: &str, started, completed| {
        with(vertex(name, started, completed), |v| {
            v.progress_group = Some(slipway_model::llb::pb::ProgressGroup {
                id: "g".into(),
                name: "[2/2] COPY --link".into(),
                weak: false,
            });
        })
    };
    let text = show(vec![
        (0, vec![member("x", Some(0), None)]),
        (10, vec![member("x", Some(0), Some(10)), member("y", Some(10), None)]),
        (30, vec![member("y", Some(10), Some(30))]),
    ]);
    assert_eq!(text.matches("[2/2] COPY --link").count(), 1, "{text}");
    assert_eq!(text.matches("DONE").count(), 1, "{text}");
}
