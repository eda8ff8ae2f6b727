//! An editor that speaks the Debug Adapter Protocol to a program at its standard input and output.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// Nothing that is waited for takes longer, on the slowest machine.
const LIMIT: Duration = Duration::from_secs(120);

/// An editor with a program that it debugs by; the program is killed when the editor is dropped.
#[derive(Debug)]
pub struct Editor {
    child: Child,
    input: Option<ChildStdin>,
    messages: Receiver<Value>,
    /// What has arrived and nobody has asked for.
    unread: VecDeque<Value>,
    last: i64,
}

impl Editor {
    /// Starts a program; what it says on standard error is shown with the test's own.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(
            move || while read(&mut output).is_some_and(|message| sender.send(message).is_ok()) {},
        );
        Self { input: child.stdin.take(), child, messages, unread: VecDeque::new(), last: 0 }
    }

    /// Returns the number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().expect("it was not closed").write_all(bytes).unwrap();
    }

    fn send(&mut self, message: &Value) {
        let content = message.to_string();
        self.write(format!("Content-Length: {}\r\n\r\n{content}", content.len()).as_bytes());
    }

    /// Waits for the next message that `wanted` takes; others stay for later.
    #[track_caller]
    fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.unread.iter().position(&wanted) {
            return self.unread.remove(at).unwrap();
        }
        loop {
            match self.messages.recv_timeout(LIMIT) {
                Ok(message) if wanted(&message) => return message,
                Ok(message) => self.unread.push_back(message),
                Err(error) => panic!("no {what}: {error}; there was {:#?}", self.unread),
            }
        }
    }

    /// Sends a request and returns the whole response.
    #[track_caller]
    pub fn request(&mut self, command: &str, arguments: Value) -> Value {
        let number = self.begin(command, arguments);
        self.wait(command, |message| message["type"] == "response" && message["request_seq"] == number)
    }

    /// Sends a request whose response is for later; returns its number.
    pub fn begin(&mut self, command: &str, arguments: Value) -> i64 {
        self.last += 1;
        let number = self.last;
        self.send(&json!({ "seq": number, "type": "request", "command": command, "arguments": arguments }));
        number
    }

    /// Sends a request that has to succeed; returns the body of the response.
    #[track_caller]
    pub fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let response = self.request(command, arguments);
        assert_eq!(response["success"], true, "{response}");
        response["body"].clone()
    }

    /// Waits for an event; returns its body.
    #[track_caller]
    pub fn event(&mut self, name: &str) -> Value {
        self.wait(name, |message| message["event"] == name)["body"].clone()
    }

    /// Waits until something is told at the console.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let says = |message: &Value| {
            message["event"] == "output"
                && message["body"]["output"].as_str().is_some_and(|o| o.contains(text))
        };
        self.wait(text, says);
    }

    /// Says all that an editor says before a build, with breakpoints in lines of a file.
    #[track_caller]
    pub fn launch(&mut self, arguments: Value, file: &str, lines: &[u32]) {
        let able = self.ask("initialize", json!({ "supportsRunInTerminalRequest": true }));
        assert_eq!(able["supportsConfigurationDoneRequest"], true);
        self.ask("launch", arguments);
        self.event("initialized");
        let lines: Vec<Value> = lines.iter().map(|line| json!({ "line": line })).collect();
        self.ask("setBreakpoints", json!({ "source": { "path": file }, "breakpoints": lines }));
        self.ask("configurationDone", Value::Null);
    }

    /// Waits for a stop; returns its body, and the lines of the stack.
    #[track_caller]
    pub fn stopped(&mut self) -> (Value, Vec<i64>) {
        let stopped = self.event("stopped");
        let stack = self.stack(&stopped);
        (stopped, stack.iter().map(|frame| frame["line"].as_i64().unwrap()).collect())
    }

    fn stack(&mut self, stopped: &Value) -> Vec<Value> {
        let stack = self.ask("stackTrace", json!({ "threadId": stopped["threadId"] }));
        stack["stackFrames"].as_array().unwrap().clone()
    }

    /// Opens what is shown of a stop, by names from a scope inwards; returns names and values.
    #[track_caller]
    pub fn look(&mut self, stopped: &Value, names: &[&str]) -> Vec<(String, String)> {
        let frame = self.stack(stopped)[0]["id"].clone();
        let mut inside =
            self.ask("scopes", json!({ "frameId": frame }))["scopes"].as_array().unwrap().clone();
        for name in names {
            let found = inside.iter().find(|one| one["name"] == *name);
            let number =
                found.unwrap_or_else(|| panic!("no `{name}` in {inside:#?}"))["variablesReference"].clone();
            let opened = self.ask("variables", json!({ "variablesReference": number }));
            inside = opened["variables"].as_array().unwrap().clone();
        }
        let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        inside.iter().map(|one| (text(one, "name"), text(one, "value"))).collect()
    }

    /// Asks for a terminal at the debugger's console; returns the command that it is for.
    #[track_caller]
    pub fn terminal(&mut self, expression: &str) -> Vec<String> {
        let number = self.begin("evaluate", json!({ "expression": expression, "context": "repl" }));
        let asked = self.wait("terminal", |message| message["command"] == "runInTerminal");
        self.send(&json!({
            "seq": 0, "type": "response", "request_seq": asked["seq"], "command": "runInTerminal", "success": true,
        }));
        let answer = |message: &Value| message["type"] == "response" && message["request_seq"] == number;
        assert_eq!(self.wait("evaluate", answer)["success"], true);
        let words = asked["arguments"]["args"].as_array().unwrap();
        words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    /// Goes away without a word.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// Waits for the end of the program.
    pub fn end(mut self) -> ExitStatus {
        let ended = crate::Seen::new(self.child.id()).is_none_or(|process| process.wait(LIMIT));
        assert!(ended, "the debugger does not end");
        self.child.wait().unwrap()
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a message; `None` is the end.
fn read(output: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().ok()?,
            _ if line.trim_end().is_empty() => break,
            _ => panic!("`{line}` is no header"),
        }
    }
    let mut content = vec![0; length];
    output.read_exact(&mut content).ok()?;
    Some(serde_json::from_slice(&content).unwrap())
}
