use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::plain::tests::{at, log, status, vertex, with};
use super::*;

/// A terminal that remembers what scrolled away.
struct Screen {
    parser: vt100::Parser,
}

impl Screen {
    fn new(rows: u16, columns: u16) -> Self {
        let [rows, columns] = [rows, columns].map(|size| std::num::NonZero::new(size).unwrap());
        Self { parser: vt100::Parser::new(rows, columns, 1000) }
    }

    /// Returns everything that was ever shown and not drawn over, without blank ends.
    fn text(&mut self) -> Vec<String> {
        let screen = self.parser.screen_mut();
        let (rows, columns) = (screen.size().0.get(), screen.size().1.get());
        let mut lines: Vec<String> = Vec::new();
        screen.set_scrollback(usize::MAX);
        for offset in (1..=screen.scrollback()).rev() {
            screen.set_scrollback(offset);
            lines.extend(screen.rows(0, columns).next());
        }
        screen.set_scrollback(0);
        lines.extend(screen.rows(0, columns).take(rows.into()));
        let mut lines: Vec<String> = lines.iter().map(|line| line.trim_end().to_owned()).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.parser.process(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn display<'a>(
    screen: &'a mut Screen,
    columns: &'a AtomicUsize,
) -> Tty<&'a mut Screen, impl Fn() -> Size + Send + 'a> {
    let rows = usize::from(screen.parser.screen().size().0.get());
    let size = move || Size { columns: columns.load(Ordering::Relaxed), rows };
    Tty::new(screen, size, Palette::none(), 3)
}

fn show(rows: u16, columns: u16, batches: Vec<(u64, Vec<Event>)>, finish: bool) -> Vec<String> {
    let mut screen = Screen::new(rows, columns);
    let width = AtomicUsize::new(columns.into());
    let mut tty = display(&mut screen, &width);
    let mut last = 0;
    for (now, events) in batches {
        tty.update(events, at(now)).unwrap();
        tty.refresh(at(now)).unwrap();
        last = now;
    }
    if finish {
        tty.finish(at(last)).unwrap();
    }
    drop(tty);
    screen.text()
}

fn build() -> Vec<(u64, Vec<Event>)> {
    vec![
        (0, vec![vertex("[internal] load", Some(0), None)]),
        (100, vec![vertex("[internal] load", Some(0), Some(100)), vertex("[1/2] FROM x", Some(100), None)]),
        (200, vec![status("[1/2] FROM x", "sha256:abc", 500_000, 1_000_000, 200, false)]),
        (
            1000,
            vec![
                with(vertex("[1/3] cached", Some(900), Some(900)), |v| v.cached = true),
                vertex("[2/2] RUN make", Some(900), None),
                log("[2/2] RUN make", "one\ntwo\n\nthree\nfour\nfi", 950),
            ],
        ),
    ]
}

#[test]
fn what_runs_is_below_what_is_done() {
    assert_eq!(
        show(24, 60, build(), false),
        [
            " => [internal] load                                     0.1s",
            " => CACHED [1/3] cached                                 0.0s",
            "[+] Building 1.0s (2/4)",
            " => [1/2] FROM x                                        0.9s",
            " => => sha256:abc                500.00kB / 1.00MB   1.0s",
            " => [2/2] RUN make                                      0.1s",
            " => => # three",
            " => => # four",
            " => => # fi",
        ]
        .map(|line: &str| line.to_owned())
        .map(|line| match line.split_once("500.00kB") {
            // The counter stands at the right edge.
            Some((left, right)) => {
                format!("{:1$}500.00kB{2}", left.trim_end(), 60 - "500.00kB".len() - right.len(), right)
            }
            None => line,
        })
    );
}

#[test]
fn the_last_picture_stays() {
    let mut batches = build();
    batches.push((
        2000,
        vec![vertex("[1/2] FROM x", Some(100), Some(1500)), vertex("[2/2] RUN make", Some(900), Some(1900))],
    ));
    let text = show(24, 60, batches, true);
    assert_eq!(text[2], " => [1/2] FROM x                                        1.4s");
    assert!(text[3].starts_with(" => => sha256:abc"), "{text:#?}");
    assert_eq!(text[4], " => [2/2] RUN make                                      1.0s");
    assert_eq!(text[5], "[+] Building 2.0s (4/4) FINISHED");
    assert_eq!(text.len(), 6, "{text:#?}");
}

#[test]
fn failures_are_marked() {
    let failed = with(vertex("RUN false", Some(0), Some(100)), |v| v.error = Some("exit code: 1".into()));
    let canceled =
        with(vertex("RUN sleep", Some(0), Some(100)), |v| v.error = Some("context canceled".into()));
    let text = show(24, 60, vec![(0, vec![failed, canceled, vertex("RUN x", Some(0), None)])], true);
    assert!(text[0].starts_with(" => ERROR RUN false"), "{text:#?}");
    assert!(text[1].starts_with(" => CANCELED RUN sleep"), "{text:#?}");
    assert_eq!(text[2], "[+] Building 0.0s (2/3)");
    assert!(text[3].starts_with(" => CANCELED RUN x"), "{text:#?}");
}

#[test]
fn a_small_terminal_keeps_the_summary_in_sight() {
    let many: Vec<Event> = (0..50).map(|n| vertex(&format!("RUN step {n}"), Some(0), None)).collect();
    let running = show(10, 40, vec![(0, many), (500, vec![log("RUN step 49", "x\ny\n", 400)])], false);
    assert_eq!(running.len(), 9, "{running:#?}");
    assert_eq!(running[0], "[+] Building 0.5s (0/50)");
    assert_eq!(running[1], " => 43 more running");
    assert!(running[8].starts_with(" => RUN step 49"), "{running:#?}");
}

#[test]
fn nothing_is_lost_when_more_completes_than_fits() {
    let step = |n: u64| vertex(&format!("RUN step {n:02}"), Some(n), Some(n + 1));
    let batches = (0..40).map(|n| (n * 100, vec![step(n)])).collect();
    let text = show(8, 40, batches, true);
    let steps: Vec<&String> = text.iter().filter(|line| line.contains("RUN step")).collect();
    assert_eq!(steps.len(), 40, "{text:#?}");
    assert!(steps.is_sorted(), "{text:#?}");
    assert_eq!(text.iter().filter(|line| line.starts_with("[+]")).count(), 1, "{text:#?}");
}

#[test]
fn a_terminal_that_narrows_is_drawn_over_cleanly() {
    let mut screen = Screen::new(20, 60);
    let width = AtomicUsize::new(60);
    let mut tty = display(&mut screen, &width);
    tty.update(vec![vertex("RUN one", Some(0), None), vertex("RUN two", Some(0), None)], at(0)).unwrap();
    assert_eq!(tty.rows_above(60), 3);
    assert_eq!(tty.rows_above(30), 5);
    tty.finish(at(100)).unwrap();
}

#[test]
fn names_and_output_cannot_break_the_picture() {
    let name = "RUN <<EOF\nsecond line\x1b[2J";
    let wide = "表".repeat(80);
    let batches =
        vec![(0, vec![vertex(name, Some(0), None)]), (100, vec![log(name, &format!("\x1b[5A{wide}\n"), 50)])];
    let text = show(24, 40, batches, false);
    assert_eq!(text[0], "[+] Building 0.1s (0/1)");
    assert!(text[1].starts_with(" => RUN <<EOF") && text[1].ends_with("0.1s"), "{text:#?}");
    assert_eq!(format::display_width(&text[2]), 39, "{text:#?}");
    assert_eq!(text.len(), 3, "{text:#?}");
}
