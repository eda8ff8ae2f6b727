//! The connection to the editor: a thread that reads, a thread that writes, and questions of ours that it answers.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::framing::{self, FramingError};
use super::messages::{Event, Incoming, Request, Response};

/// Messages that wait for the other side.
const QUEUE: usize = 256;

/// What the editor sends; the last is why nothing more can be read, if it is not just the end.
pub(super) type Requests = mpsc::Receiver<Result<Incoming, FramingError>>;

/// Speaks to the editor. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Editor {
    out: mpsc::Sender<Outgoing>,
    next: Arc<AtomicI64>,
    asked: Arc<Mutex<HashMap<i64, oneshot::Sender<Response>>>>,
}

#[derive(Debug)]
enum Outgoing {
    Message(Value),
    /// All that went before is written.
    Flushed(oneshot::Sender<()>),
}

/// Starts to read and write.
pub(super) fn open(
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
) -> (Editor, Requests) {
    let (received, requests) = mpsc::channel(QUEUE);
    let (out, to_write) = mpsc::channel(QUEUE);
    thread::spawn(move || read(input, &received));
    thread::spawn(move || write(output, to_write));
    (Editor { out, next: Arc::new(AtomicI64::new(1)), asked: Arc::default() }, requests)
}

/// Reads until there is no more, or nobody wants it.
fn read(input: impl Read, received: &mpsc::Sender<Result<Incoming, FramingError>>) {
    let mut input = BufReader::new(input);
    while let Some(message) = framing::read(&mut input).transpose() {
        let last = message.is_err();
        if received.blocking_send(message).is_err() || last {
            return;
        }
    }
}

/// Writes until nobody has anything to say; an editor that has gone away is told nothing.
fn write(mut output: impl Write, mut messages: mpsc::Receiver<Outgoing>) {
    let mut gone = false;
    while let Some(message) = messages.blocking_recv() {
        match message {
            Outgoing::Message(message) => gone |= !gone && framing::write(&mut output, &message).is_err(),
            Outgoing::Flushed(told) => drop(told.send(())),
        }
    }
}

impl Editor {
    fn number(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn send(&self, message: Value) {
        // The writer lives as long as anybody can speak to it.
        let _ = self.out.send(Outgoing::Message(message)).await;
    }

    fn event_message(&self, event: &Event) -> Value {
        let mut message = json!({ "seq": self.number(), "type": "event" });
        if let (Some(message), Ok(Value::Object(event))) =
            (message.as_object_mut(), serde_json::to_value(event))
        {
            message.extend(event);
        }
        message
    }

    /// Tells of an event.
    pub(super) async fn event(&self, event: &Event) {
        let message = self.event_message(event);
        self.send(message).await;
    }

    /// Answers a request.
    pub(super) async fn answer(&self, request: &Request, answer: Result<Value, String>) {
        let mut message = json!({
            "seq": self.number(),
            "type": "response",
            "request_seq": request.seq,
            "command": request.command,
            "success": answer.is_ok(),
        });
        match answer {
            Ok(Value::Null) => {}
            Ok(body) => message["body"] = body,
            Err(text) => message["message"] = text.into(),
        }
        self.send(message).await;
    }

    /// Asks the editor to do something, and waits until it has.
    pub(super) async fn ask(&self, command: &str, arguments: impl Serialize) -> Result<(), String> {
        let number = self.number();
        let (sender, answered) = oneshot::channel();
        self.asked.lock().await.insert(number, sender);
        let message = json!({ "seq": number, "type": "request", "command": command, "arguments": arguments });
        self.send(message).await;
        match answered.await {
            Ok(Response { success: true, .. }) => Ok(()),
            Ok(Response { message, .. }) => Err(message.unwrap_or_else(|| format!("`{command}` failed"))),
            Err(_) => Err("the editor has gone away".to_owned()),
        }
    }

    /// Takes an answer to a question of ours.
    pub(super) async fn answered(&self, response: Response) {
        if let Some(asker) = self.asked.lock().await.remove(&response.request_seq) {
            // Whoever asked may not want to know any more.
            let _ = asker.send(response);
        }
    }

    /// Waits until everything that was said is written.
    pub(super) async fn flush(&self) {
        let (told, flushed) = oneshot::channel();
        if self.out.send(Outgoing::Flushed(told)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Writes to the editor's console, from a thread that may wait.
    pub(super) fn console(self) -> OutputEvents {
        OutputEvents { editor: self, line: Vec::new() }
    }
}

/// The editor's console; what is written becomes events of whole lines.
#[derive(Debug)]
pub(crate) struct OutputEvents {
    editor: Editor,
    /// A line that has begun.
    line: Vec<u8>,
}

impl OutputEvents {
    fn tell(&mut self, length: usize) {
        let output: Vec<u8> = self.line.drain(..length).collect();
        if !output.is_empty() {
            let output = String::from_utf8_lossy(&output).into_owned();
            let message = self.editor.event_message(&Event::Output { category: "stdout", output });
            let _ = self.editor.out.blocking_send(Outgoing::Message(message));
        }
    }
}

impl Write for OutputEvents {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let whole = self.line.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.tell(whole);
        Ok(())
    }
}

impl Drop for OutputEvents {
    fn drop(&mut self) {
        self.tell(self.line.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_is_told_whole_lines() {
        let (out, mut messages) = mpsc::channel(8);
        let editor = Editor { out, next: Arc::new(AtomicI64::new(1)), asked: Arc::default() };
        let mut told = || match messages.try_recv() {
            Ok(Outgoing::Message(message)) => message["body"]["output"].as_str().map(str::to_owned),
            _ => None,
        };
        let mut console = editor.console();
        console.write_all("one\ntwö\nthr".as_bytes()).unwrap();
        console.flush().unwrap();
        assert_eq!(told().as_deref(), Some("one\ntwö\n"));
        console.flush().unwrap();
        assert_eq!(told(), None);
        console.write_all(b"ee").unwrap();
        drop(console);
        assert_eq!(told().as_deref(), Some("three"));
    }
}
