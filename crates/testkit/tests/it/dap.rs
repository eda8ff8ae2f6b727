//! Builds that an editor steps through, here and at a daemon.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::io::ioctl_fionread;
use serde_json::{Value, json};
use slipway_testkit::{Console, Daemon, Editor, Environment, descendants, registry, wait_until_gone};

/// A stage that another one copies from.
fn two_stages(environment: &Environment, base: &str) -> String {
    environment.write("app/foo", "of the context\n");
    environment.context(
        "app",
        &format!(
            "FROM {base} AS base\nCOPY foo /etc/foo\nRUN cp /etc/foo /etc/bar\n\n\
             FROM scratch\nCOPY --from=base /etc/bar /bar\n"
        ),
    )
}

fn debugger(environment: &Environment, arguments: &[&str]) -> Editor {
    let fixed = ["dap", "build", "--provenance=false"];
    Editor::start(environment.slipway(fixed.iter().chain(arguments)))
}

/// Starts what an editor was asked to run in a terminal.
fn terminal(environment: &Environment, words: &[String]) -> Console {
    let mut command = Command::new(&words[0]);
    environment.settle(&mut command);
    command.args(&words[1..]);
    Console::start(&command, 30, 100)
}

fn thread(stopped: &Value) -> Value {
    json!({ "threadId": stopped["threadId"] })
}

/// Steps through a build from its beginning to its end, wherever it runs.
fn step_through(environment: &Environment, more: &[&str]) {
    let Some(registry) = registry() else { return };
    let context = two_stages(environment, &registry.reference("library/busybox"));
    let output = format!("type=local,dest={}", environment.text("out"));
    let mut editor = debugger(environment, &[&["--output", &output], more].concat());
    let file = format!("{context}/Dockerfile");
    editor.launch(json!({ "contextPath": context, "dockerfile": file }), &file, &[2]);

    let (stopped, lines) = editor.stopped();
    assert_eq!((&stopped["reason"], lines), (&json!("breakpoint"), vec![2, 6]));
    assert_eq!(editor.event("loadedSource")["source"]["path"], json!(file));
    editor.ask("next", thread(&stopped));

    // Before the step: what it is given, and the files it starts from.
    let (stopped, lines) = editor.stopped();
    assert_eq!((&stopped["reason"], lines), (&json!("step"), vec![3, 6]));
    let given = editor.look(&stopped, &["Arguments", "exec", "args"]);
    assert_eq!(given[2], ("2".to_owned(), "cp /etc/foo /etc/bar".to_owned()));
    let file = editor.look(&stopped, &["File Explorer", "/", "etc/", "foo"]);
    assert_eq!(file[0], ("data".to_owned(), "of the context\n".to_owned()));
    let mut console = terminal(environment, &editor.terminal("exec"));
    console.wait_for("Running /bin/sh in build container from line 3.");
    console.type_in("stty size; cat /etc/foo; test -e /etc/bar || echo before; echo x > /lost\r");
    console.wait_for("30 100");
    console.wait_for("of the context");
    console.wait_for("before\r\n");
    editor.ask("stepIn", thread(&stopped));

    // After it: the terminal is in what the step made, and nothing of what was typed stays.
    let (stopped, lines) = editor.stopped();
    assert_eq!(lines, [3, 6]);
    console.wait_for("Running /bin/sh in build container from line 3.");
    console.type_in("cat /etc/bar; test -e /lost || echo clean; exit\r");
    console.wait_for("of the context");
    console.wait_for("clean\r\n");
    assert!(console.end().0.success());
    editor.ask("continue", thread(&stopped));

    editor.event("terminated");
    assert_eq!(editor.event("exited"), json!({ "exitCode": 0 }));
    assert!(editor.end().success());
    assert_eq!(std::fs::read_to_string(environment.path("out/bar")).unwrap(), "of the context\n");
}

#[test]
fn an_editor_steps_through_a_build_and_looks_around() {
    step_through(&Environment::new(), &[]);
}

#[test]
fn an_editor_steps_through_a_build_at_a_daemon() {
    let environment = Environment::new();
    let daemon = Daemon::start(&environment, "daemon");
    let arguments = ["create", "--name", "there", "--driver", "remote", daemon.address()];
    environment.run(arguments).succeeded();
    step_through(&environment, &["--builder", "there"]);
}

#[test]
fn a_step_that_fails_is_stopped_at_with_what_it_left() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let base = registry.reference("library/busybox");
    let dockerfile = format!("FROM {base}\nENV COLOR=blue\nRUN echo partial > /tmp/partial && exit 3\n");
    let context = environment.context("app", &dockerfile);
    let mut editor = debugger(&environment, &[&context]);
    editor.launch(json!({}), &format!("{context}/Dockerfile"), &[]);

    let (stopped, lines) = editor.stopped();
    assert_eq!((&stopped["reason"], lines), (&json!("exception"), vec![3]));
    assert!(stopped["text"].as_str().unwrap().contains("exit code: 3"), "{stopped}");
    let partial = editor.look(&stopped, &["File Explorer", "/", "tmp/", "partial"]);
    assert_eq!(partial[0], ("data".to_owned(), "partial\n".to_owned()));
    let mut console = terminal(&environment, &editor.terminal("exec cat /tmp/partial /proc/self/environ"));
    console.wait_for("partial\r\n");
    console.wait_for("COLOR=blue");
    assert!(console.end().0.success());

    // It stays a failure.
    editor.ask("continue", thread(&stopped));
    editor.wait_for("exit code: 3");
    editor.event("terminated");
    assert_eq!(editor.event("exited"), json!({ "exitCode": 1 }));
    assert_eq!(editor.end().code(), Some(1));
}

#[test]
fn a_build_that_runs_is_paused_before_its_next_step() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let base = registry.reference("library/busybox");
    // The second step ends when we say so.
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gate.local_addr().unwrap().port();
    let dockerfile = format!(
        "FROM {base}\nRUN echo 1 > /n\nRUN nc 127.0.0.1 {port} < /dev/null >> /n\nRUN echo 3 >> /n\n"
    );
    let context = environment.context("app", &dockerfile);
    let mut editor = debugger(&environment, &[&context]);
    editor.launch(json!({}), &format!("{context}/Dockerfile"), &[]);
    let (mut step, _) = gate.accept().unwrap();
    editor.ask("pause", json!({ "threadId": 1 }));
    step.write_all(b"2\n").unwrap();
    drop(step);
    let (stopped, lines) = editor.stopped();
    assert_eq!((&stopped["reason"], lines), (&json!("pause"), vec![4]));
    let file = editor.look(&stopped, &["File Explorer", "/", "n"]);
    assert_eq!(file[0], ("data".to_owned(), "1\n2\n".to_owned()));
    // Who is at a stop stays there.
    editor.ask("pause", thread(&stopped));
    editor.ask("continue", thread(&stopped));
    editor.event("terminated");
    assert_eq!(editor.event("exited"), json!({ "exitCode": 0 }));
    assert!(editor.end().success());
}

#[test]
fn a_terminal_that_takes_nothing_keeps_nobody_from_going_on() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let base = registry.reference("library/busybox");
    let context = environment.context("app", &format!("FROM {base}\nRUN true\n"));
    let mut editor = debugger(&environment, &[&context]);
    editor.launch(json!({}), &format!("{context}/Dockerfile"), &[2]);
    let (stopped, _) = editor.stopped();
    let words = editor.terminal("exec yes");
    let mut socket = UnixStream::connect(words.last().unwrap()).unwrap();
    // The program goes on writing and nobody reads, until there is no more room on the way.
    socket.read_exact(&mut vec![0; 4096]).unwrap();
    let mut arrived = 0;
    loop {
        for _ in 0..50 {
            editor.ask("threads", json!({}));
        }
        let before = std::mem::replace(&mut arrived, ioctl_fionread(&socket).unwrap());
        if arrived > 0 && arrived == before {
            break;
        }
    }
    editor.ask("continue", thread(&stopped));
    editor.event("terminated");
    assert!(editor.end().success());
}

#[test]
fn an_editor_that_goes_away_leaves_nothing_running() {
    let Some(registry) = registry() else { return };
    let environment = Environment::with_own_program();
    let base = registry.reference("library/busybox");
    let context =
        environment.context("app", &format!("FROM {base}\nRUN echo $((40 + 2)); tail -f /dev/null\n"));
    let file = format!("{context}/Dockerfile");
    // While a step runs, and while a terminal is open at a stop; with a word and without.
    for (lines, goodbye) in [(&[][..], true), (&[], false), (&[2], true), (&[2], false)] {
        let mut editor = debugger(&environment, &[&context]);
        editor.launch(json!({}), &file, lines);
        let mut console = None;
        if lines.is_empty() {
            editor.wait_for(" 42");
        } else {
            editor.stopped();
            let mut opened = terminal(&environment, &editor.terminal("exec"));
            opened.type_in("echo $((40 + 2)); tail -f /dev/null\r");
            opened.wait_for("42\r\n");
            console = Some(opened);
        }
        let below = descendants(editor.id());
        assert!(!below.is_empty(), "the step is below slipway");
        match goodbye {
            true => drop(editor.ask("disconnect", json!({}))),
            false => editor.hang_up(),
        }
        assert_eq!(editor.end().code(), Some(130));
        if let Some(console) = console {
            console.end();
        }
        wait_until_gone(below, environment.program());
    }
}

#[test]
fn what_an_editor_should_not_say_is_an_error_for_it() {
    let environment = Environment::new();
    let context = environment.context("app", "FROM scratch\nCOPY Dockerfile /\n");
    let mut editor = debugger(&environment, &[&context]);
    for (command, arguments, error) in [
        ("pause", json!({ "threadId": 1 }), "no such thread: 1"),
        ("stepBack", json!({ "threadId": 1 }), "`stepBack` is not supported"),
        ("next", json!({ "threadId": 9 }), "no such thread: 9"),
        ("next", json!({ "threadId": "x" }), "invalid arguments of `next`"),
        ("scopes", json!({ "frameId": -1 }), "no such frame: -1"),
        ("source", json!({ "source": { "path": "/etc/passwd" } }), "no such file: /etc/passwd"),
        (
            "evaluate",
            json!({ "expression": "1 + 1", "context": "watch" }),
            "unsupported evaluate context: watch",
        ),
        ("evaluate", json!({ "expression": "print", "context": "repl" }), "unknown command `print`"),
        ("evaluate", json!({ "expression": "exec", "context": "repl" }), "without runInTerminal"),
        ("launch", json!({ "stopOnEntry": 1 }), "invalid arguments of `launch`"),
    ] {
        let response = editor.request(command, arguments);
        assert_eq!(response["success"], false, "{response}");
        assert!(response["message"].as_str().unwrap().contains(error), "{response}");
    }
    assert_eq!(editor.ask("variables", json!({ "variablesReference": 77 })), json!({ "variables": [] }));
    // What is no message ends it.
    editor.write(b"GET / HTTP/1.1\r\n\r\n");
    editor.wait_for("`GET / HTTP/1.1` is no line of a message's header");
    assert_eq!(editor.end().code(), Some(130));

    let error = environment.run(["dap", "build", "-"]).failed(1);
    assert!(error.contains("stdin is not supported with debugger"), "{error}");
}
